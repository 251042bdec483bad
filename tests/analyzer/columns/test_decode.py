"""The innermost IP and TCP header of a packet are found in whatever carries them, as scapy wrote them."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, Jumbo
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from analyzer.columns import decode as compiled
from analyzer.columns.schema import PACKETS, Kind
from analyzer.wire.fields import FIELDS, Layer
from analyzer.wire.linktypes import SUPPORTED, LinkType
from tests.analyzer.columns.blocks import as_lists, block, decoded, row
from tests.analyzer.columns.encapsulations import CASES, ETHER, MACS, PAYLOAD, SEGMENT, V4, V6, Case, vxlan
from tests.analyzer.columns.tshark import dissect, write_pcapng
from tests.both_forms import load_uncompiled

TCP_CASES = [case for case in CASES if case.kind is Kind.TCP]
UNCOMPILED = load_uncompiled("analyzer.columns.decode")


@pytest.fixture(
    params=[
        pytest.param(UNCOMPILED, id="uncompiled"),
        pytest.param(
            compiled,
            id="compiled",
            marks=pytest.mark.skipif(not compiled.COMPILED, reason="the kernel is not compiled"),
        ),
    ]
)
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def one(form: ModuleType, packet: Packet | bytes, **options: Any) -> dict[str, Any]:
    return row(decoded(form.decode, block([bytes(packet)], **options)))


def address(columns: dict[str, Any], side: str) -> str:
    value = ipaddress.IPv6Address(columns[f"{side}_hi"] << 64 | columns[f"{side}_lo"])
    return str(value.ipv4_mapped or value)


# --- every encapsulation --------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_innermost_headers_as_scapy_wrote_them(form: ModuleType, case: Case) -> None:
    columns = one(form, case.data, linktype=case.linktype)
    assert Kind(columns["kind"]) is case.kind
    if case.inner is None:
        assert columns["sport"] == columns["payload_length"] == 0
        return
    network = case.inner[0]
    assert columns["ip_version"] == network.version
    assert (address(columns, "src"), address(columns, "dst")) == (network.src, network.dst)
    assert columns["ttl"] == (network.ttl if network.version == 4 else network.hlim)
    assert columns["ip_id"] == (network.id if network.version == 4 else 0)
    if case.kind is Kind.UDP:
        assert (columns["sport"], columns["dport"]) == (network[UDP].sport, network[UDP].dport)
        assert columns["payload_length"] == len(network[UDP].payload)
    if case.kind is Kind.TCP:
        tcp = network[TCP]
        assert (columns["sport"], columns["dport"]) == (tcp.sport, tcp.dport)
        assert (columns["seq"], columns["ack"]) == (tcp.seq, tcp.ack)
        assert (columns["flags"], columns["window"]) == (int(tcp.flags), tcp.window)


@pytest.mark.parametrize("case", TCP_CASES, ids=lambda case: case.name)
def test_payload_is_where_the_columns_say(form: ModuleType, case: Case) -> None:
    raw = block([case.data], linktype=case.linktype)
    columns = row(decoded(form.decode, raw))
    at = columns["payload_offset"]
    assert raw.buffer[at : at + columns["payload_captured"]].tobytes() == PAYLOAD
    assert columns["payload_length"] == len(PAYLOAD)
    assert raw.buffer[columns["network_offset"]] >> 4 == columns["ip_version"]
    assert raw.buffer[columns["transport_offset"] : at].tobytes()[:4] == bytes(SEGMENT)[:4]


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_sees_the_same(tmp_path: Path) -> None:
    capture = tmp_path / "encapsulations.pcapng"
    write_pcapng(capture, [(case.linktype, case.data) for case in CASES])
    raw = block([case.data for case in CASES], linktype=[case.linktype for case in CASES])
    ours = decoded(compiled.decode, raw)
    theirs = dissect(capture)
    differing = {
        case.name for number, case in enumerate(CASES) if not _agree(row(ours, number), theirs[number])
    }
    assert differing == {case.name for case in CASES if case.tshark_differs}


def _agree(ours: dict[str, Any], theirs: dict[str, str]) -> bool:
    kind = Kind(ours["kind"])
    shown: dict[str, str] = {}
    if kind >= Kind.IP:
        network, hops = ("ip", "ttl") if ours["ip_version"] == 4 else ("ipv6", "hlim")
        shown[f"{network}.src"], shown[f"{network}.dst"] = address(ours, "src"), address(ours, "dst")
        shown[f"{network}.{hops}"] = str(ours["ttl"])
    if kind is Kind.TCP:
        names = {"sport": "srcport", "dport": "dstport", "seq": "seq_raw", "ack": "ack_raw",
                 "window": "window_size_value", "payload_length": "len"}  # fmt: skip
        shown |= {f"tcp.{name}": str(ours[column]) for column, name in names.items()}
        shown["tcp.flags"] = f"0x{ours['flags']:04x}"
    if kind is Kind.UDP:
        shown |= {"udp.srcport": str(ours["sport"]), "udp.dstport": str(ours["dport"])}
    return shown == {name: theirs[name] for name in shown} and (kind is Kind.TCP) == (theirs["tcp.len"] != "")


# --- the same offsets as rules and tests use ---------------------------------------------------------


@given(st.binary(min_size=40, max_size=40), st.binary(min_size=20, max_size=20), st.sampled_from([4, 6]))
def test_columns_are_what_fields_say(network: bytes, transport: bytes, version: int) -> None:
    """IP and TCP headers of random bytes, apart from what makes them whole."""
    ip = bytearray(network)
    if version == 4:
        del ip[20:]
        ip[0], ip[2:4], ip[6:8], ip[9] = 0x45, (40).to_bytes(2), b"\0\0", 6
    else:
        ip[0], ip[4:6], ip[6] = 0x60 | ip[0] & 15, (20).to_bytes(2), 6
    tcp = bytearray(transport)
    tcp[12] = 0x50 | tcp[12] & 15
    packet = bytes(ip + tcp)

    def field(name: str) -> int:
        place = FIELDS[name]
        at = place.byte_offset + (len(ip) if place.layer is Layer.TRANSPORT else 0)
        behind = 8 * place.width_bytes - place.bit_offset - place.width_bits
        return int.from_bytes(packet[at : at + place.width_bytes]) >> behind & ((1 << place.width_bits) - 1)

    prefix, hops, mapped = ("ip", "ttl", 0xFFFF << 32) if version == 4 else ("ip6", "hoplimit", 0)
    columns = one(compiled, packet, linktype=LinkType.RAW)
    assert columns["src_hi"] << 64 | columns["src_lo"] == field(f"{prefix}.saddr") | mapped
    assert columns["dst_hi"] << 64 | columns["dst_lo"] == field(f"{prefix}.daddr") | mapped
    assert columns["ttl"] == field(f"{prefix}.{hops}")
    assert columns["ip_id"] == (field("ip.id") if version == 4 else 0)
    for column, name in (("sport", "sport"), ("dport", "dport"), ("seq", "sequence"), ("ack", "ackseq"),
                         ("window", "window")):  # fmt: skip
        assert columns[column] == field(f"tcp.{name}")
    assert columns["flags"] == (field("tcp.reserved") & 1) << 8 | field("tcp.flags")


# --- lengths --------------------------------------------------------------------------------------


def test_link_padding_is_no_payload(form: ModuleType) -> None:
    columns = one(form, bytes(ETHER / IP() / TCP()).ljust(60, b"\0"))
    assert (columns["payload_length"], columns["payload_captured"]) == (0, 0)


def test_snaplen_cuts_the_payload_but_not_its_length(form: ModuleType) -> None:
    whole = bytes(ETHER / V6)
    columns = one(form, whole[:-4], wire=[len(whole)])
    assert Kind(columns["kind"]) is Kind.TCP
    assert (columns["payload_length"], columns["payload_captured"]) == (len(PAYLOAD), len(PAYLOAD) - 4)
    assert (columns["captured"], columns["wire"]) == (len(whole) - 4, len(whole))


def test_snaplen_within_the_tcp_options_leaves_the_connection_traceable(form: ModuleType) -> None:
    whole = bytes(ETHER / V4)
    columns = one(form, whole[:60], wire=[len(whole)])
    assert Kind(columns["kind"]) is Kind.TCP
    assert (columns["seq"], columns["payload_length"], columns["payload_captured"]) == (SEGMENT.seq, 9, 0)


def test_wire_length_below_captured_is_taken_as_captured(form: ModuleType) -> None:
    columns = one(form, ETHER / V4, wire=[0])
    assert (columns["wire"], columns["payload_length"]) == (len(ETHER / V4), len(PAYLOAD))


def test_ip_length_beyond_the_wire_counts_as_far_as_the_wire_goes(form: ModuleType) -> None:
    for packet in (IP(len=2000) / SEGMENT, IPv6(plen=2000) / SEGMENT):
        assert one(form, ETHER / packet)["payload_length"] == len(PAYLOAD)


def test_ip_length_short_of_the_segment_ends_the_payload(form: ModuleType) -> None:
    assert one(form, ETHER / IP(len=20 + 32 + 4) / SEGMENT)["payload_length"] == 4


def test_segmentation_offload_takes_the_wire_length(form: ModuleType) -> None:
    columns = one(form, ETHER / IP(len=0) / TCP() / Raw(b"x" * 100), wire=[64_000])
    assert columns["payload_length"] == 64_000 - 54
    assert columns["payload_captured"] == 100


def test_jumbogram_takes_its_option_and_no_more_than_the_wire(form: ModuleType) -> None:
    for claimed, length in ((100_000, 100_000), (0xFFFFFFFF, 199_946)):
        jumbo = (
            IPv6(plen=0) / IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=claimed)]) / TCP() / Raw(b"x" * 100)
        )
        columns = one(form, ETHER / jumbo, wire=[200_000])
        assert Kind(columns["kind"]) is Kind.TCP
        assert columns["payload_length"] == length - 28


def test_lengths_of_a_hostile_file_fit_the_columns(form: ModuleType) -> None:
    columns = one(form, ETHER / IP(len=0) / TCP(), wire=[1 << 40])
    assert columns["wire"] == 0x7FFFFFFF
    assert columns["payload_length"] == 0x7FFFFFFF - 54


def test_every_flag_has_its_bit(form: ModuleType) -> None:
    for bit, flag in enumerate("FSRPAUECN"):
        assert one(form, ETHER / IP() / TCP(flags=flag))["flags"] == 1 << bit


# --- fragments ------------------------------------------------------------------------------------


def test_fragments_are_marked_with_their_data(form: ModuleType) -> None:
    v6_first = IPv6(plen=24) / IPv6ExtHdrFragment(m=1, nh=6, id=1)
    v6_second = IPv6() / IPv6ExtHdrFragment(offset=2, nh=6, id=1)
    for head in (IP(flags="MF", proto=6), IP(frag=2, proto=6), v6_first, v6_second):
        raw = block([bytes(ETHER / head / Raw(b"0123456789abcdef"))])
        columns = row(decoded(form.decode, raw))
        assert Kind(columns["kind"]) is Kind.FRAGMENT
        at, length = columns["payload_offset"], columns["payload_length"]
        assert raw.buffer[at : at + length].tobytes() == b"0123456789abcdef"
        assert (columns["sport"], columns["seq"]) == (0, 0)


# --- what contradicts itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(IP(len=19) / SEGMENT, id="IPv4 length below its header"),
        pytest.param(IP(ihl=4) / SEGMENT, id="IPv4 header of 16 bytes"),
        pytest.param(IP(len=45) / SEGMENT, id="IPv4 length ends in the TCP options"),
        pytest.param(IP(len=30) / SEGMENT, id="IPv4 length ends in the TCP header"),
        pytest.param(IP() / TCP(dataofs=4), id="TCP header of 16 bytes"),
        pytest.param(IP() / TCP(dataofs=15), id="TCP header beyond the packet"),
        pytest.param(IP() / UDP(len=7), id="UDP length below its header"),
        pytest.param(IPv6(plen=0) / SEGMENT, id="IPv6 without payload, followed by TCP"),
        pytest.param(IP(proto=51) / Raw(b"\x06\xff" + bytes(30)), id="AH beyond the packet"),
        pytest.param(IPv6(nh=0) / Raw(b"\x06\xff" + bytes(30)), id="IPv6 extension header beyond the packet"),
    ],
)
def test_contradicting_headers_are_malformed(form: ModuleType, packet: Packet) -> None:
    columns = one(form, ETHER / packet)
    assert Kind(columns["kind"]) is Kind.MALFORMED
    assert (columns["sport"], columns["seq"], columns["payload_length"]) == (0, 0, 0)


def test_ip_version_must_fit_the_ethertype(form: ModuleType) -> None:
    assert Kind(one(form, Ether(type=0x0800, **MACS) / Raw(bytes(V6)))["kind"]) is Kind.MALFORMED
    assert Kind(one(form, Ether(type=0x86DD, **MACS) / Raw(bytes(V4)))["kind"]) is Kind.MALFORMED


def test_a_tunnel_with_a_damaged_packet_is_what_is_around_it(form: ModuleType) -> None:
    cut = bytes(ETHER / V4)[:40]
    assert Kind(one(form, ETHER / IP() / vxlan(Raw(cut)))["kind"]) is Kind.UDP
    columns = one(form, ETHER / IP(src="192.0.2.77", proto=4) / Raw(b"\x11" * 60))
    assert (Kind(columns["kind"]), address(columns, "src")) == (Kind.IP, "192.0.2.77")


def test_depth_is_bounded(form: ModuleType) -> None:
    nested = V4
    for _ in range(60):
        nested = IP(src="192.0.2.9") / nested
    columns = one(form, ETHER / nested)
    assert (Kind(columns["kind"]), address(columns, "src")) == (Kind.IP, "192.0.2.9")
    tags = bytes.fromhex("00018100") * 60
    assert Kind(one(form, Ether(type=0x8100, **MACS) / Raw(tags) / V4)["kind"]) is Kind.MALFORMED
    chain = bytes(IPv6ExtHdrDestOpt(nh=60))
    assert Kind(one(form, ETHER / IPv6(nh=60) / Raw(chain * 20) / SEGMENT)["kind"]) is Kind.MALFORMED


# --- the block ------------------------------------------------------------------------------------


def test_no_packets(form: ModuleType) -> None:
    columns = decoded(form.decode, block([]))
    assert len(columns) == 0
    assert as_lists(columns) == {column.name: [] for column in PACKETS}


def test_packets_are_numbered_from_first(form: ModuleType) -> None:
    columns = decoded(form.decode, block([bytes(ETHER / V4)] * 3, first=41, time_ns=[5, 6, 7]))
    assert columns.packet.tolist() == [41, 42, 43]
    assert columns.time_ns.tolist() == [5, 6, 7]


def test_columns_have_the_types_of_the_schema(form: ModuleType) -> None:
    columns = decoded(form.decode, block([bytes(ETHER / V4)]))
    assert {column.name: getattr(columns, column.name).dtype for column in PACKETS} == {
        column.name: np.dtype(column.dtype) for column in PACKETS
    }


def test_a_packet_outside_the_buffer_is_the_callers_mistake(form: ModuleType) -> None:
    raw = block([bytes(ETHER / V4)])
    raw.captured += 1
    with pytest.raises(ValueError, match="outside"):
        decoded(form.decode, raw)
    raw.captured -= 1
    raw.offset[0] = -1
    with pytest.raises(ValueError, match="outside"):
        decoded(form.decode, raw)


def test_unsupported_link_types_are_named(form: ModuleType) -> None:
    def unsupported(values: list[int]) -> list[int]:
        return form.unsupported_linktypes(np.array(values, np.int64))

    assert unsupported([]) == []
    assert unsupported([LinkType.ETHERNET] * 3) == []
    assert unsupported([LinkType.IEEE802_11_RADIOTAP] * 3) == [127]
    assert unsupported([LinkType.USER0, LinkType.ETHERNET, 99_999, -1]) == [-1, 147, 99_999]


def test_supported_is_what_is_decoded(form: ModuleType) -> None:
    for linktype in range(300):
        kinds = {
            one(form, case.data, linktype=linktype)["kind"] for case in CASES if case.linktype == linktype
        }
        assert (Kind.TCP in kinds) == (linktype in SUPPORTED)
