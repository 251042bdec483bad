"""Packets as scapy reads them."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

from rulegen.testbed.packets import ACK, PSH, Segment, checksum, fragments, repaired

V4 = {"source": "192.0.2.1", "destination": "198.51.100.7"}
V6 = {"source": "2001:db8::1", "destination": "2001:db8:1::7"}
TCP_PART = {
    "source_port": 40000,
    "destination_port": 443,
    "payload": b"hello",
    "sequence": 2**32 + 5,
    "acknowledgement": 9,
    "tcp_options": bytes.fromhex("0101080a0000000100000002"),
}


@pytest.mark.parametrize(
    ("layer", "values"),
    [(IP, V4), (IP, V4 | {"ip_options": bytes.fromhex("94040000")}), (IPv6, V6),
     (IPv6, V6 | {"extensions": ((0, bytes.fromhex("00010400000000")),)})],
)  # fmt: skip
def test_as_scapy_reads_them(layer, values):
    data = Segment(**values, **TCP_PART).packet()
    packet = layer(data)
    tcp = packet[TCP]
    assert (packet.src, packet.dst) == (values["source"], values["destination"])
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack) == (40000, 443, 5, 9)
    assert (int(tcp.flags), bytes(tcp.payload)) == (PSH | ACK, b"hello")
    assert dict(tcp.options)["Timestamp"] == (1, 2)
    assert packet.haslayer(IPv6ExtHdrHopByHop) == bool(values.get("extensions"))
    del packet[TCP].chksum  # scapy computes it again
    if layer is IP:
        del packet.chksum
    assert bytes(packet) == data


def test_fragments_hold_the_packet():
    whole = Segment(**V4, **TCP_PART).packet()
    pieces = [IP(piece) for piece in fragments(whole, 16)]
    assert b"".join(bytes(piece.payload) for piece in pieces) == whole[20:]
    assert [piece.frag for piece in pieces] == [0, 2, 4]
    assert [int(piece.flags) & 1 for piece in pieces] == [1, 1, 0]

    whole = Segment(**V6, **TCP_PART).packet()
    pieces = [IPv6(piece) for piece in fragments(whole, 16)]
    assert b"".join(bytes(piece)[48:] for piece in pieces) == whole[40:]
    assert [(piece[IPv6ExtHdrFragment].offset, piece[IPv6ExtHdrFragment].m) for piece in pieces] == [
        (0, 1),
        (2, 1),
        (4, 0),
    ]


def test_the_checksum_of_rfc_1071():
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\xff") == 0x00FF


def test_a_checksum_left_to_the_network_card_is_repaired():
    for values in (V4, V4 | {"ip_options": bytes.fromhex("94040000")}):
        whole = Segment(**values, **TCP_PART).packet()
        assert repaired(whole[:10] + b"\0\0" + whole[12:]) == whole
    whole = Segment(**V6, **TCP_PART).packet()
    assert repaired(whole) == whole
