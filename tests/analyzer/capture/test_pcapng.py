"""pcapng: sections, interfaces and their clocks, the three packet blocks, and what is damaged in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analyzer import limits
from analyzer.capture import CaptureInfo, framing, pcapng
from analyzer.errors import CaptureError
from tests.analyzer.capture.formats import Pcapng, Row, read

LITTLE, BIG = Pcapng("<"), Pcapng(">")
MAX_INT64 = (1 << 63) - 1


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def write(request: pytest.FixtureRequest) -> Pcapng:
    return Pcapng(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pcapng"


def read_blocks(path: Path, *blocks: bytes, **options: Any) -> tuple[list[Row], CaptureInfo]:
    path.write_bytes(b"".join(blocks))
    return read(path, **options)


# --- what is read ----------------------------------------------------------------------------------


def test_the_three_packet_blocks(path: Path, write: Pcapng) -> None:
    rows, info = read_blocks(
        path,
        write.section(),
        write.interface(linktype=113, snaplen=6),
        write.enhanced(b"hello", units=5_000_001, wire=900, options=write.option(1, b"a comment")),
        write.obsolete(b"world!", units=1 << 32),
        write.simple(b"simple", wire=60),
        write.simple(b"", wire=0),
    )
    before = (1 << 32) * 1000
    assert rows == [
        (b"hello", 900, 5_000_001_000, 113),
        (b"world!", 6, before, 113),
        (b"simple", 60, before, 113),  # no time of its own, and cut by the interface's snaplen
        (b"", 0, before, 113),
    ]
    assert info.format == "pcapng"
    assert info.errors == []
    assert info.bytes == info.size


def test_each_interface_has_its_link_type_and_clock(path: Path, write: Pcapng) -> None:
    rows, _ = read_blocks(
        path,
        write.section(),
        write.interface(1),
        write.interface(276, options=write.resolution(9) + write.option(0, b"")),
        write.enhanced(b"a", interface=1, units=3),
        write.enhanced(b"b", interface=0, units=3),
        write.obsolete(b"c", interface=1, units=7),
    )
    assert rows == [(b"a", 1, 3, 276), (b"b", 1, 3000, 1), (b"c", 1, 7, 276)]


@pytest.mark.parametrize(
    ("resolution", "units", "time_ns"),
    [
        (0, 5, 5_000_000_000),
        (3, 5, 5_000_000),
        (6, 5, 5_000),
        (9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (12, 1_999, 1),
        (27, (1 << 64) - 1, 18),
        (28, (1 << 64) - 1, 0),
        (127, (1 << 64) - 1, 0),
        (0x80, 5, 5_000_000_000),
        (0x81, 3, 1_500_000_000),
        (0x80 | 10, 1 << 10, 1_000_000_000),
        (0x80 | 30, (7 << 30) + 3, 7_000_000_002),
        (0x80 | 32, 0xFFFF_FFFF_FFFF_FFFF, 4_294_967_295_999_999_999),
        (0x80 | 34, (5 << 34) + (1 << 33), 5_500_000_000),
        (0x80 | 60, (3 << 60) + (1 << 58), 3_250_000_000),
        (0x80 | 63, (1 << 63) + (1 << 62), 1_500_000_000),
        (0x80 | 64, 1 << 63, 500_000_000),
        (0x80 | 90, (1 << 64) - 1, 14),
        (0x80 | 127, (1 << 64) - 1, 0),
    ],
)
def test_time_units(path: Path, write: Pcapng, resolution: int, units: int, time_ns: int) -> None:
    interface = write.interface(options=write.resolution(resolution))
    rows, _ = read_blocks(path, write.section(), interface, write.enhanced(b"a", units=units))
    assert rows[0][2] == time_ns


@pytest.mark.parametrize("resolution", [0, 3, 6, 8, 9, 0x80, 0x81, 0x80 | 29])
def test_times_past_int64_are_its_end(path: Path, resolution: int) -> None:
    interface = LITTLE.interface(options=LITTLE.resolution(resolution))
    rows, info = read_blocks(path, LITTLE.section(), interface, LITTLE.enhanced(b"", units=(1 << 64) - 1))
    assert rows[0][2] == MAX_INT64
    assert info.last_ns == MAX_INT64


@pytest.mark.parametrize(
    ("seconds", "units", "time_ns"),
    [
        (1_000_000_000, 1, 1_000_000_000_000_001_000),
        (-2, 1_000_000, -1_000_000_000),
        (MAX_INT64, 1, MAX_INT64),
        (-(1 << 63), 0, -(1 << 63)),
        (9_223_372_036, 2_000_000, MAX_INT64),
    ],
)
def test_the_offset_of_a_clock(path: Path, write: Pcapng, seconds: int, units: int, time_ns: int) -> None:
    offset = write.option(14, write.pack("q", seconds))
    rows, _ = read_blocks(
        path, write.section(), write.interface(options=offset), write.enhanced(b"", units=units)
    )
    assert rows[0][2] == time_ns


def test_a_section_starts_over_with_its_own_byte_order_and_interfaces(path: Path) -> None:
    rows, info = read_blocks(
        path,
        LITTLE.section(),
        LITTLE.interface(1),
        LITTLE.enhanced(b"a", units=1),
        BIG.section(version=(1, 2)),
        BIG.interface(228),
        BIG.enhanced(b"b", units=2),
        LITTLE.section(),
        LITTLE.enhanced(b"c"),
        LITTLE.interface(101),
        LITTLE.enhanced(b"d", units=4),
    )
    assert rows == [(b"a", 1, 1000, 1), (b"b", 1, 2000, 228), (b"d", 1, 4000, 101)]
    (issue,) = info.errors
    assert "interface that the section does not describe" in issue.why


@pytest.mark.parametrize("kind", [4, 5, 7, 8, 10, 11, 0x205, 0x8000_0001], ids=hex)
def test_other_blocks_are_passed_over(path: Path, write: Pcapng, kind: int) -> None:
    rows, info = read_blocks(
        path, write.section(), write.interface(), write.block(kind, b"secrets!"), write.enhanced(b"a")
    )
    assert [row[0] for row in rows] == [b"a"]
    assert info.errors == []


@pytest.mark.parametrize("kind", [9, 0x204, 0x216, 0x221, 0x0BAD, 0x4000_0BAD], ids=hex)
def test_blocks_that_have_a_packet_number_in_wireshark_are_rows_without_bytes(
    path: Path, write: Pcapng, kind: int
) -> None:
    rows, _ = read_blocks(
        path,
        write.section(),
        write.interface(),
        write.enhanced(b"a", units=4),
        write.block(kind, bytes(40)),
        write.enhanced(b"b"),
    )
    assert rows == [(b"a", 1, 4000, 1), (b"", 0, 4000, framing.NO_LINKTYPE), (b"b", 1, 0, 1)]


def test_lengths_that_are_no_multiple_of_four_are_rounded_up(path: Path, write: Pcapng) -> None:
    padded = write.block(6, write.pack("IIIII", 0, 0, 9, 5, 5) + b"hello", total=37)
    rows, info = read_blocks(path, write.section(), write.interface(), padded, write.enhanced(b"a"))
    assert [row[0] for row in rows] == [b"hello", b"a"]
    assert info.errors == []


@pytest.mark.parametrize("blocks", [[], [LITTLE.interface()]])
def test_no_packets_is_no_error(path: Path, blocks: list[bytes]) -> None:
    rows, info = read_blocks(path, LITTLE.section(), *blocks)
    assert (rows, info.errors) == ([], [])


@pytest.mark.parametrize("block_bytes", [1, 13, 200, limits.BLOCK_BYTES])
def test_packets_that_cross_the_blocks(path: Path, write: Pcapng, block_bytes: int) -> None:
    packets = [bytes([n]) * n for n in range(100)]
    blocks = [write.enhanced(data, units=n) for n, data in enumerate(packets)]
    blocks[50:50] = [write.section(), write.interface(147)]
    rows, info = read_blocks(path, write.section(), write.interface(), *blocks, block_bytes=block_bytes)
    assert [row[0] for row in rows] == packets
    assert [row[3] for row in rows] == [1] * 50 + [147] * 50
    assert info.errors == []


def test_more_interfaces_than_the_table_starts_with(path: Path) -> None:
    interfaces = [LITTLE.interface(linktype) for linktype in range(1000)]
    rows, _ = read_blocks(path, LITTLE.section(), *interfaces, LITTLE.enhanced(b"a", interface=999))
    assert rows == [(b"a", 1, 0, 999)]


# --- what is damaged -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (LITTLE.enhanced(b"bad", interface=1), "interface that the section does not describe"),
        (LITTLE.obsolete(b"bad", interface=0xFFFF), "interface that the section does not describe"),
        (LITTLE.enhanced(b"bad", captured=5), "longer than the block"),
        (LITTLE.enhanced(b"bad", captured=0xFFFF_FFFF), "longer than the block"),
        (LITTLE.simple(b"bad", wire=90), "longer than the block"),
        (LITTLE.enhanced(bytes(limits.MAX_PACKET_BYTES + 1)), "longer than"),
    ],
)
def test_a_packet_that_can_not_be_right_is_skipped(path: Path, bad: bytes, why: str) -> None:
    good = LITTLE.enhanced(b"good")
    head = LITTLE.section() + LITTLE.interface()
    rows, info = read_blocks(path, head, good, bad, good)
    assert [row[0] for row in rows] == [b"good", b"good"]
    (issue,) = info.errors
    assert issue.offset == len(head) + len(good)
    assert why in issue.why


def test_packets_that_are_skipped_are_counted(path: Path) -> None:
    bad = LITTLE.enhanced(b"bad", interface=1)
    head = LITTLE.section() + LITTLE.interface()
    rows, info = read_blocks(path, head, bad * 500, LITTLE.enhanced(b"good"), block_bytes=100)
    assert [row[0] for row in rows] == [b"good"]
    first, total = info.errors
    assert first.offset == total.offset == len(head)
    assert total.why.startswith("500 packets in all of an interface")


def test_lengths_that_differ_are_reported_and_reading_goes_on_at_the_next_block(path: Path) -> None:
    head, bad = LITTLE.section() + LITTLE.interface(), LITTLE.enhanced(b"bad", trailing=77)
    for block_bytes in (1, 100, limits.BLOCK_BYTES):
        rows, info = read_blocks(path, head, bad, LITTLE.enhanced(b"good"), bad, block_bytes=block_bytes)
        assert [row[0] for row in rows] == [b"bad", b"good", b"bad"]
        assert [issue.offset for issue in info.errors] == [len(head), len(head) + 2 * len(bad)]


@pytest.mark.parametrize("bad", [LITTLE.section(), LITTLE.interface(), LITTLE.block(5, b"statistics")])
def test_lengths_that_differ_in_a_block_that_is_no_packet(path: Path, bad: bytes) -> None:
    start, good = LITTLE.section(), LITTLE.enhanced(b"good")
    rows, info = read_blocks(path, start, bad[:-4] + b"????", LITTLE.interface(), good)
    assert [row[0] for row in rows] == [b"good"]
    assert [issue.offset for issue in info.errors] == [len(start)]


def test_lengths_that_differ_before_something_else_end_the_reading(path: Path) -> None:
    head, good = LITTLE.section() + LITTLE.interface(), LITTLE.enhanced(b"good")
    rows, info = read_blocks(path, head, good, LITTLE.enhanced(b"bad", total=44), good)
    assert [row[0] for row in rows] == [b"good"]
    (issue,) = info.errors
    assert issue.offset == len(head) + len(good)
    assert "can't be read from here on" in issue.why


def test_lengths_that_always_differ_end_the_reading(path: Path) -> None:
    bad = LITTLE.enhanced(b"bad", trailing=0)
    rows, info = read_blocks(path, LITTLE.section(), LITTLE.interface(), bad * 100)
    assert len(rows) == pcapng.MAX_DISAGREEMENTS
    assert len(info.errors) == pcapng.MAX_DISAGREEMENTS + 1


@pytest.mark.parametrize(
    ("kind", "total"),
    [(0x77, 0), (0x77, 11), (1, 16), (2, 28), (3, 12), (6, 28), (0x0A0D0D0A, 24)],
)
def test_a_block_too_short_for_its_kind_ends_the_reading(path: Path, kind: int, total: int) -> None:
    head = LITTLE.section() + LITTLE.interface() + LITTLE.enhanced(b"good")
    bad = LITTLE.pack("III", kind, total, 0x1A2B3C4D) + bytes(40)
    rows, info = read_blocks(path, head, bad)
    assert [row[0] for row in rows] == [b"good"]
    (issue,) = info.errors
    assert issue.offset == len(head)
    assert f"{kind:#x} starts here that is too short" in issue.why


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (LITTLE.section(version=(1, 1)), "version is not known"),
        (LITTLE.section(version=(2, 0)), "version is not known"),
        (LITTLE.section().replace(b"\x4d\x3c\x2b\x1a", b"????"), "without a byte-order magic"),
    ],
)
def test_a_later_section_that_can_not_be_read_ends_the_reading(path: Path, section: bytes, why: str) -> None:
    head = LITTLE.section() + LITTLE.interface() + LITTLE.enhanced(b"good")
    rows, info = read_blocks(path, head, section, LITTLE.interface(), LITTLE.enhanced(b"lost"))
    assert [row[0] for row in rows] == [b"good"]
    (issue,) = info.errors
    assert issue.offset == len(head)
    assert why in issue.why


@pytest.mark.parametrize(
    ("start", "offset", "why"),
    [
        (LITTLE.section()[:27], 27, "ends inside the pcapng section header"),
        (LITTLE.section().replace(b"\x4d\x3c\x2b\x1a", b"\x2b\x1a\x4d\x3c"), 8, "magic is 2b1a4d3c"),
        (BIG.section(version=(2, 0)), 12, "version 2.0 is not known"),
    ],
)
def test_a_first_section_that_can_not_be_read_is_no_capture(
    path: Path, start: bytes, offset: int, why: str
) -> None:
    with pytest.raises(CaptureError, match=why) as caught:
        read_blocks(path, start)
    assert caught.value.offset == offset


def test_an_option_longer_than_its_block_is_reported(path: Path) -> None:
    options = LITTLE.resolution(9) + LITTLE.pack("HH", 2, 400) + b"eth0"
    rows, info = read_blocks(
        path, LITTLE.section(), LITTLE.interface(options=options), LITTLE.enhanced(b"a", units=5)
    )
    assert rows == [(b"a", 1, 5, 1)]
    (issue,) = info.errors
    assert issue.offset == len(LITTLE.section())


# --- long blocks -----------------------------------------------------------------------------------


def test_a_block_longer_than_the_buffer_is_streamed_over(path: Path) -> None:
    good, long = LITTLE.enhanced(b"good"), LITTLE.block(4, bytes(20 << 20))
    head = LITTLE.section() + LITTLE.interface()
    rows, info = read_blocks(path, head, good, long, good, block_bytes=1 << 16)
    assert [row[0] for row in rows] == [b"good", b"good"]
    assert info.errors == []


@pytest.mark.parametrize(
    ("long", "packets", "why"),
    [
        (LITTLE.enhanced(bytes(2 << 20)), 2, "a packet in a block of 2097184 bytes"),
        (LITTLE.block(4, bytes(2 << 20), trailing=5), 1, "ends here with the length 5"),
        (LITTLE.block(4, bytes(2 << 20), total=3 << 30), 1, "of 3221225472 bytes are there"),
        (LITTLE.block(1, bytes(2 << 20)), 1, "which no program writes"),
        (LITTLE.block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a" + bytes(2 << 20)), 1, "which no program writes"),
    ],
)
def test_a_long_block_that_can_not_be_right(path: Path, long: bytes, packets: int, why: str) -> None:
    good = LITTLE.enhanced(b"good")
    rows, info = read_blocks(path, LITTLE.section(), LITTLE.interface(), good, long, good)
    assert [row[0] for row in rows] == [b"good"] * packets
    (issue,) = info.errors
    assert why in issue.why


def test_a_capture_of_descriptions_only_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcapng, "MAX_DESCRIPTIONS", 100)
    start = LITTLE.section() + LITTLE.interface() + LITTLE.enhanced(b"a")
    rows, info = read_blocks(path, start, LITTLE.interface() * 49, LITTLE.section() * 50)
    assert len(rows) == 1
    (issue,) = info.errors
    assert issue.offset == info.bytes - len(LITTLE.section())
    assert issue.why.startswith("there are more than 100 sections and interfaces")
