"""A fragmented datagram becomes TCP or UDP in the packet that completes it, whenever Linux would take it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from analyzer import limits
from analyzer.columns.decode import decode
from analyzer.columns.fragments import FragmentReassembler
from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind
from tests.analyzer.columns.blocks import block, decoded
from tests.analyzer.columns.encapsulations import ETHER, vxlan
from tests.analyzer.columns.tshark import dissect, write_pcapng

DATA = bytes(range(256)) * 8
SEGMENT = bytes(TCP(sport=50123, dport=443, seq=7, flags="PA") / Raw(DATA))
V4 = {"src": "192.0.2.1", "dst": "198.51.100.2", "id": 77, "proto": 6}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}
SECOND_NS = 1_000_000_000


def v4(start: int, end: int | None, *, more: bool = True, data: bytes = SEGMENT, **fields: object) -> Packet:
    return IP(**(V4 | fields), flags="MF" if more else 0, frag=start // 8) / Raw(data[start:end])


def v6(
    start: int,
    end: int | None,
    *,
    more: bool = True,
    data: bytes = SEGMENT,
    number: int = 77,
    protocol: int = 6,
    before: Packet | None = None,
) -> Packet:
    head = IPv6(**V6) if before is None else IPv6(**V6) / before
    return head / IPv6ExtHdrFragment(m=more, offset=start // 8, id=number, nh=protocol) / Raw(data[start:end])


Fragment = Callable[..., Packet]
families = pytest.mark.parametrize("fragment", [v4, v6], ids=["IPv4", "IPv6"])


class Headroom:
    """The bump allocator of a block."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.size = size
        self.taken = 0

    def take(self, nbytes: int) -> int | None:
        if self.taken + nbytes > self.size:
            return None
        self.taken += nbytes
        return self.taken - nbytes


def run(
    packets: Sequence[Packet | bytes],
    *,
    reassembler: FragmentReassembler | None = None,
    times: Sequence[int] | None = None,
    room: int = 1 << 20,
) -> tuple[Columns, list[bytes]]:
    """The columns of one block, and each row's payload."""
    frames = [packet if isinstance(packet, bytes) else bytes(ETHER / packet) for packet in packets]
    raw = block(frames, headroom=room, time_ns=times)
    columns = decoded(decode, raw)
    (reassembler or FragmentReassembler()).complete(raw, columns, Headroom(room).take)
    payloads = [
        raw.buffer[at : at + length].tobytes()
        for at, length in zip(columns.payload_offset, columns.payload_captured, strict=True)
    ]
    return columns, payloads


def kinds(columns: Columns) -> list[str]:
    return [Kind(kind).name for kind in columns.kind]


def whole(fragment: Fragment, **options: object) -> list[Packet]:
    return [
        fragment(0, 800, **options),
        fragment(800, 1600, **options),
        fragment(1600, None, more=False, **options),
    ]


# --- what completes -------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)], ids=str)
def test_the_last_to_arrive_becomes_the_segment(fragment: Fragment, order: tuple[int, ...]) -> None:
    columns, payloads = run([whole(fragment)[number] for number in order])
    assert kinds(columns) == ["FRAGMENT", "FRAGMENT", "TCP"]
    assert payloads[2] == DATA
    assert (columns.sport[2], columns.dport[2], columns.seq[2]) == (50123, 443, 7)
    assert columns.payload_length[2] == columns.payload_captured[2] == len(DATA)


@families
def test_the_row_keeps_what_belongs_to_its_packet(fragment: Fragment) -> None:
    columns, _ = run(whole(fragment))
    last = bytes(ETHER / whole(fragment)[2])
    assert (columns.packet[2], columns.time_ns[2], columns.captured[2], columns.wire[2]) == (
        3,
        2,
        len(last),
        len(last),
    )


@families
def test_fragments_are_held_over_blocks(fragment: Fragment) -> None:
    reassembler = FragmentReassembler()
    for packet, expected in zip(whole(fragment), ("FRAGMENT", "FRAGMENT", "TCP"), strict=True):
        columns, payloads = run([packet], reassembler=reassembler)
        assert kinds(columns) == [expected]
    assert payloads[0] == DATA


@families
def test_every_cut_gives_the_same_segment(fragment: Fragment) -> None:
    small = bytes(TCP(sport=1, dport=2) / Raw(b"0123456789"))
    for cut in range(8, len(small), 8):
        columns, payloads = run([fragment(0, cut, data=small), fragment(cut, None, more=False, data=small)])
        assert kinds(columns) == ["FRAGMENT", "TCP"]
        assert payloads[1] == b"0123456789"


def test_datagrams_are_told_apart_by_address_number_and_protocol() -> None:
    for other in ({"id": 78}, {"src": "192.0.2.9"}, {"dst": "192.0.2.9"}, {"proto": 17}):
        columns, _ = run([v4(0, 800), v4(800, None, more=False, **other)])
        assert kinds(columns) == ["FRAGMENT", "FRAGMENT"]
    columns, _ = run([v6(0, 800), v6(800, None, more=False, number=78)])
    assert kinds(columns) == ["FRAGMENT", "FRAGMENT"]


def test_udp_in_fragments() -> None:
    datagram = bytes(UDP(sport=1, dport=2) / Raw(b"x" * 100))
    parts = [v4(0, 56, data=datagram, proto=17), v4(56, None, more=False, data=datagram, proto=17)]
    columns, payloads = run(parts)
    assert (kinds(columns), payloads[1]) == (["FRAGMENT", "UDP"], b"x" * 100)


def test_ipv6_headers_before_the_fragment_header_stay() -> None:
    before = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    columns, payloads = run(whole(v6, before=before))
    assert (kinds(columns)[2], payloads[2]) == ("TCP", DATA)
    assert columns.transport_offset[2] - columns.network_offset[2] == 40 + 8 + 8


def test_ipv4_options_of_the_first_fragment_stay() -> None:
    first = IP(**V4, flags="MF", options=b"\x01\x01\x01\x00") / Raw(SEGMENT[:800])
    columns, payloads = run([first, v4(800, None, more=False)])
    assert (kinds(columns)[1], payloads[1]) == ("TCP", DATA)
    assert columns.transport_offset[1] - columns.network_offset[1] == 24


@families
def test_fragments_of_a_tunnel_packet(fragment: Fragment) -> None:
    inner = ETHER / IP(src="10.0.0.1") / TCP(sport=9, dport=443) / Raw(DATA)
    if fragment is v6:
        datagram, options = bytes(vxlan(inner)), {"protocol": 17}
    else:
        datagram, options = bytes(IP() / vxlan(inner))[20:], {"proto": 17}
    parts = [
        fragment(0, 800, data=datagram, **options),
        fragment(800, None, more=False, data=datagram, **options),
    ]
    columns, payloads = run(parts)
    assert (kinds(columns), payloads[1]) == (["FRAGMENT", "TCP"], DATA)


def test_fragments_within_a_fragmented_tunnel_packet() -> None:
    frames = []
    for number, inner in enumerate(whole(v4)):
        datagram = bytes(IP() / vxlan(ETHER / inner))[20:]
        half = {"data": datagram, "id": number, "src": "203.0.113.1", "proto": 17}
        frames += [v4(0, 400, **half), v4(400, None, more=False, **half)]
    columns, payloads = run(frames)
    assert kinds(columns) == ["FRAGMENT"] * 5 + ["TCP"]
    assert payloads[5] == DATA


# --- what Linux discards or ignores ---------------------------------------------------------------


@families
def test_an_exact_duplicate_is_ignored(fragment: Fragment) -> None:
    first, second, third = whole(fragment)
    columns, payloads = run([first, first, second, second, third])
    assert (kinds(columns)[-1], payloads[-1]) == ("TCP", DATA)


@families
def test_a_fragment_within_what_came_is_ignored_even_with_other_bytes(fragment: Fragment) -> None:
    evil = fragment(808, 816, data=b"\xee" * 2000)
    columns, payloads = run([*whole(fragment)[:2], evil, whole(fragment)[2]])
    assert (kinds(columns)[-1], payloads[-1]) == ("TCP", DATA)


@families
@pytest.mark.parametrize(
    "overlapping",
    [(792, 1600), (400, 808), (800, 1608), (0, 1600)],
    ids=["begins early", "middle", "ends late", "all"],
)
def test_an_overlap_discards_the_datagram(fragment: Fragment, overlapping: tuple[int, int]) -> None:
    first, second, third = whole(fragment)
    columns, _ = run([first, third, fragment(*overlapping), second])
    assert kinds(columns) == ["FRAGMENT"] * 4


@families
def test_a_discarded_datagram_may_be_sent_again(fragment: Fragment) -> None:
    columns, payloads = run([fragment(0, 800), fragment(400, 1600), *whole(fragment)])
    assert (kinds(columns)[-1], payloads[-1]) == ("TCP", DATA)


@families
def test_data_beyond_the_last_fragment_discards_the_datagram(fragment: Fragment) -> None:
    columns, _ = run([fragment(800, 1600, more=False), fragment(1600, 1608), fragment(0, 800)])
    assert kinds(columns) == ["FRAGMENT"] * 3
    columns, _ = run([fragment(800, 1600, more=False), fragment(800, 1608, more=False), fragment(0, 800)])
    assert kinds(columns) == ["FRAGMENT"] * 3


@families
def test_an_empty_fragment_discards_the_datagram(fragment: Fragment) -> None:
    first, second, third = whole(fragment)
    columns, _ = run([first, fragment(800, 800), second, third])
    assert kinds(columns) == ["FRAGMENT"] * 4


def test_a_length_that_is_no_multiple_of_eight() -> None:
    """IPv4 shortens the fragment, so that the bytes may come again; IPv6 ignores it (RFC 8200 4.5)."""
    columns, payloads = run([v4(0, 805), v4(800, None, more=False)])
    assert (kinds(columns)[-1], payloads[-1]) == ("TCP", DATA)
    columns, _ = run([v6(0, 805), v6(800, None, more=False)])
    assert kinds(columns) == ["FRAGMENT", "FRAGMENT"]


@families
def test_more_than_an_ip_datagram_can_hold_is_discarded(fragment: Fragment) -> None:
    huge = bytes(70_000)
    parts = [fragment(start, start + 32_760, data=huge) for start in (0, 32_760)]
    columns, _ = run([*parts, fragment(65_520, 65_600, more=False, data=huge)])
    assert kinds(columns) == ["FRAGMENT"] * 3


@families
def test_a_fragment_that_the_capture_cut_completes_nothing(fragment: Fragment) -> None:
    frames = [bytes(ETHER / packet) for packet in whole(fragment)]
    raw = block(
        [frames[0], frames[1][:100], frames[2]], headroom=1 << 16, wire=[len(frame) for frame in frames]
    )
    columns = decoded(decode, raw)
    FragmentReassembler().complete(raw, columns, Headroom().take)
    assert kinds(columns) == ["FRAGMENT"] * 3


# --- bounds ---------------------------------------------------------------------------------------


@families
def test_fragments_are_forgotten_after_linuxs_time_out(fragment: Fragment) -> None:
    for late, expected in ((29 * SECOND_NS, "TCP"), (30 * SECOND_NS, "FRAGMENT")):
        columns, _ = run(whole(fragment), times=[0, 0, late])
        assert kinds(columns)[2] == expected


@families
def test_without_room_the_row_stays_a_fragment(fragment: Fragment) -> None:
    columns, _ = run(whole(fragment), room=100)
    assert kinds(columns) == ["FRAGMENT"] * 3


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    reassembler = FragmentReassembler()
    run([v4(0, 800)], reassembler=reassembler)
    flood = [v4(0, 8, src=f"10.0.{number // 250}.{number % 250}") for number in range(200)]
    raw = block([bytes(ETHER / packet) for packet in flood] * 100, headroom=0)
    columns = decoded(decode, raw)
    columns.ip_id[:] = np.arange(len(columns))
    reassembler.complete(raw, columns, Headroom(0).take)
    assert reassembler.held_bytes <= limits.FRAGMENT_BYTES
    columns, _ = run([v4(800, None, more=False)], reassembler=reassembler)
    assert kinds(columns) == ["FRAGMENT"]


@given(
    st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.booleans()), max_size=12),
    st.sampled_from([v4, v6]),
)
def test_any_fragments_give_the_right_segment_or_none(
    pieces: list[tuple[int, int, bool]], fragment: Fragment
) -> None:
    small = bytes(TCP(sport=1, dport=2) / Raw(bytes(range(172))))
    packets = [
        fragment(8 * min(a, b), 8 * max(a, b), more=8 * max(a, b) < len(small) or last, data=small)
        for a, b, last in pieces
    ]
    columns, payloads = run(packets)
    for kind, payload in zip(kinds(columns), payloads, strict=True):
        assert kind in ("FRAGMENT", "TCP")
        assert kind == "FRAGMENT" or payload == bytes(range(172))


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_completes_in_the_same_packets(tmp_path: Path) -> None:
    packets = []
    for number, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)]):
        for family in (whole(v4, id=number + 1), whole(v6, number=number + 1, before=IPv6ExtHdrDestOpt())):
            packets += [bytes(ETHER / family[index]) for index in order]
    capture = tmp_path / "fragments.pcapng"
    write_pcapng(capture, [(1, packet) for packet in packets])
    columns, _ = run(packets)
    ours = [
        str(length) if kind == "TCP" else ""
        for kind, length in zip(kinds(columns), columns.payload_length, strict=True)
    ]
    assert ours == [theirs["tcp.len"] for theirs in dissect(capture)]
    assert ours.count(str(len(DATA))) == 8


@given(st.data())
def test_damaged_fragments_never_raise(data: st.DataObject) -> None:
    """Everything is small, so that damaged fragments still meet; offsets stay in packet or headroom."""
    small = bytes(UDP(sport=1, dport=4789) / Raw(b"\x08" + bytes(7)) / ETHER / v6(0, None, data=SEGMENT[:96]))
    frames = []
    for fragment, options in ((v4, {"proto": 17}), (v6, {"protocol": 17, "before": IPv6ExtHdrDestOpt()})):
        parts = [fragment(at, at + 48, more=at < 144, data=small, **options) for at in (0, 48, 96, 144)]
        frames += [bytes(ETHER / part) for part in parts]
    for _ in range(data.draw(st.integers(0, 20))):
        at = data.draw(st.integers(0, len(frames) - 1))
        damaged = bytearray(frames[at])
        damaged[data.draw(st.integers(12, min(len(damaged), 80) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        frames.insert(at, bytes(damaged[: data.draw(st.integers(14, len(damaged)))]))
    raw = block(frames, headroom=4096)
    columns = decoded(decode, raw)
    headroom = Headroom(4096)
    FragmentReassembler().complete(raw, columns, headroom.take)
    end = columns.payload_offset + columns.payload_captured
    for index, network in enumerate(columns.network_offset.tolist()):
        begin, stop = 0, headroom.taken
        if network >= headroom.size:
            begin, stop = raw.offset[index], raw.offset[index] + raw.captured[index]
        assert begin <= network <= columns.transport_offset[index]
        assert columns.transport_offset[index] <= columns.payload_offset[index] <= end[index] <= stop
