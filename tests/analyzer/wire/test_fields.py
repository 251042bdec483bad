"""FIELDS against what the RFCs draw and against what scapy puts on the wire."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from analyzer.wire.fields import FIELDS, Field, Layer


def read(data: bytes, field: Field) -> int:
    whole = int.from_bytes(data[field.byte_offset : field.byte_offset + field.width_bytes])
    behind = 8 * field.width_bytes - field.bit_offset - field.width_bits
    return (whole >> behind) & ((1 << field.width_bits) - 1)


# fmt: off
PLACES = (
    # name                           layer              byte bit width
    ("ip.version",                   Layer.NETWORK,     0,   0,  4),
    ("ip.dscp",                      Layer.NETWORK,     1,   0,  6),
    ("ip.length",                    Layer.NETWORK,     2,   0,  16),
    ("ip.fragment_offset",           Layer.NETWORK,     6,   3,  13),
    ("ip.protocol",                  Layer.NETWORK,     9,   0,  8),
    ("ip.saddr",                     Layer.NETWORK,     12,  0,  32),
    ("ip.daddr",                     Layer.NETWORK,     16,  0,  32),
    ("ip6.dscp",                     Layer.NETWORK,     0,   4,  6),
    ("ip6.ecn",                      Layer.NETWORK,     1,   2,  2),
    ("ip6.flowlabel",                Layer.NETWORK,     1,   4,  20),
    ("ip6.nexthdr",                  Layer.NETWORK,     6,   0,  8),
    ("ip6.saddr",                    Layer.NETWORK,     8,   0,  128),
    ("ip6.daddr",                    Layer.NETWORK,     24,  0,  128),
    ("tcp.sport",                    Layer.TRANSPORT,   0,   0,  16),
    ("tcp.dport",                    Layer.TRANSPORT,   2,   0,  16),
    ("tcp.sequence",                 Layer.TRANSPORT,   4,   0,  32),
    ("tcp.ackseq",                   Layer.TRANSPORT,   8,   0,  32),
    ("tcp.doff",                     Layer.TRANSPORT,   12,  0,  4),
    ("tcp.flags",                    Layer.TRANSPORT,   13,  0,  8),
    ("tcp.window",                   Layer.TRANSPORT,   14,  0,  16),
    ("udp.length",                   Layer.TRANSPORT,   4,   0,  16),
    ("tls.content_type",             Layer.PAYLOAD,     0,   0,  8),
    ("tls.version",                  Layer.PAYLOAD,     1,   0,  16),
    ("tls.length",                   Layer.PAYLOAD,     3,   0,  16),
    ("tls.handshake_type",           Layer.PAYLOAD,     5,   0,  8),
    ("tls.handshake_length",         Layer.PAYLOAD,     6,   0,  24),
    ("tls.client_version",           Layer.PAYLOAD,     9,   0,  16),
    ("tls.random",                   Layer.PAYLOAD,     11,  0,  256),
    ("tls.random_tail",              Layer.PAYLOAD,     35,  0,  64),
    ("tls.session_id_length",        Layer.PAYLOAD,     43,  0,  8),
    ("tls.alert_level",              Layer.PAYLOAD,     5,   0,  8),
    ("tls.alert_description",        Layer.PAYLOAD,     6,   0,  8),
    ("tls.heartbeat_type",           Layer.PAYLOAD,     5,   0,  8),
    ("tls.heartbeat_payload_length", Layer.PAYLOAD,     6,   0,  16),
    ("ssl2.length",                  Layer.PAYLOAD,     0,   1,  15),
    ("ssl2.message_type",            Layer.PAYLOAD,     2,   0,  8),
    ("ssl2.version",                 Layer.PAYLOAD,     3,   0,  16),
    ("ssl2.cipher_specs_length",     Layer.PAYLOAD,     5,   0,  16),
    ("ssl2.session_id_length",       Layer.PAYLOAD,     7,   0,  16),
    ("ssl2.challenge_length",        Layer.PAYLOAD,     9,   0,  16),
    ("ssl2.session_id_hit",          Layer.PAYLOAD,     3,   0,  8),
    ("ssl2.certificate_type",        Layer.PAYLOAD,     4,   0,  8),
    ("ssl2.server_version",          Layer.PAYLOAD,     5,   0,  16),
)
# fmt: on


@pytest.mark.parametrize(("name", "layer", "byte", "bit", "width"), PLACES, ids=[row[0] for row in PLACES])
def test_field_lies_where_the_rfc_draws_it(name: str, layer: Layer, byte: int, bit: int, width: int) -> None:
    assert FIELDS[name] == Field(name, layer, byte, bit, width)


def test_ipv4_as_scapy_writes_it() -> None:
    data = bytes(
        IP(src="192.0.2.1", dst="198.51.100.2", tos=0xB9, id=0x1234, flags="DF", frag=5, ttl=63, len=99)
    )
    expected = {
        "version": 4, "hdrlength": 5, "tos": 0xB9, "dscp": 0x2E, "ecn": 1, "length": 99, "id": 0x1234,
        "flags": 2, "fragment_offset": 5, "frag_off": 0x4005, "ttl": 63,
        "saddr": 0xC0000201, "daddr": 0xC6336402,
    }  # fmt: skip
    assert {name: read(data, FIELDS[f"ip.{name}"]) for name in expected} == expected


def test_ipv6_as_scapy_writes_it() -> None:
    data = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", tc=0xB9, fl=0xABCDE, hlim=9, nh=6, plen=77))
    expected = {
        "version": 6, "dscp": 0x2E, "ecn": 1, "flowlabel": 0xABCDE, "length": 77, "nexthdr": 6, "hoplimit": 9,
        "saddr": 0x20010DB8 << 96 | 1, "daddr": 0x20010DB8 << 96 | 2,
    }  # fmt: skip
    assert {name: read(data, FIELDS[f"ip6.{name}"]) for name in expected} == expected


def test_tcp_and_udp_as_scapy_writes_them() -> None:
    data = bytes(TCP(sport=47, dport=443, seq=1 << 31, ack=7, dataofs=6, flags="SAEN", window=512, urgptr=9))
    expected = {
        "sport": 47, "dport": 443, "sequence": 1 << 31, "ackseq": 7, "doff": 6, "reserved": 1, "flags": 0x52,
        "window": 512, "urgptr": 9,
    }  # fmt: skip
    assert {name: read(data, FIELDS[f"tcp.{name}"]) for name in expected} == expected

    data = bytes(UDP(sport=4711, dport=4789, len=30, chksum=0xBEEF))
    expected = {"sport": 4711, "dport": 4789, "length": 30, "checksum": 0xBEEF}
    assert {name: read(data, FIELDS[f"udp.{name}"]) for name in expected} == expected


def test_every_field_is_within_what_one_record_header_or_packet_header_can_hold() -> None:
    for name, field in FIELDS.items():
        assert name == field.name
        assert 0 <= field.bit_offset < 8
        assert field.byte_offset + field.width_bytes <= (87 if name.startswith("tls.sid32") else 76)
