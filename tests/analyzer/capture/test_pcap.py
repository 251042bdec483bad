"""Classic pcap: every variant of the header gives the same packets, and damage ends the reading."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from analyzer import limits
from analyzer.errors import CaptureError
from tests.analyzer.capture.formats import MICROSECONDS, MODIFIED, NANOSECONDS, pcap, read

PACKETS = [b"first", b"", b"the third packet"]


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "tick_ns"), [(MICROSECONDS, 1000), (NANOSECONDS, 1), (MODIFIED, 1000)])
def test_byte_orders_time_units_and_record_headers(
    tmp_path: Path, order: str, magic: int, tick_ns: int
) -> None:
    rows, info = read(written(tmp_path, pcap(PACKETS, order=order, magic=magic, linktype=101)))
    assert rows == [
        (data, len(data) + 10, number * 1_000_000_000 + (1000 + number) * tick_ns, 101)
        for number, data in enumerate(PACKETS)
    ]
    assert info.format == "pcap"
    assert info.errors == []
    assert (info.first_ns, info.last_ns) == (rows[0][2], rows[2][2])
    assert info.bytes == info.size


@pytest.mark.parametrize(
    ("version", "swapped"),
    [((2, 4), False), ((2, 3), False), ((2, 3), True), ((2, 2), True), ((543, 0), True)],
)
def test_old_versions_have_the_lengths_in_another_order(
    tmp_path: Path, version: tuple[int, int], swapped: bool
) -> None:
    rows, _ = read(written(tmp_path, pcap(PACKETS, version=version, swapped=swapped)))
    assert [(row[0], row[1]) for row in rows] == [(data, len(data) + 10) for data in PACKETS]


def test_the_link_type_is_without_the_length_of_the_frame_check_sequence(tmp_path: Path) -> None:
    rows, _ = read(written(tmp_path, pcap(PACKETS, linktype=0x4400_0001)))
    assert rows[0][3] == 1


def test_times_are_unsigned_and_the_fraction_is_taken_as_it_is(tmp_path: Path) -> None:
    most = 0xFFFF_FFFF
    data = pcap([]) + struct.pack("<IIII", most, most, 0, most)
    rows, info = read(written(tmp_path, data))
    assert rows == [(b"", most, most * 1_000_000_000 + most * 1000, 1)]
    assert info.errors == []


def test_no_packets_is_no_error(tmp_path: Path) -> None:
    rows, info = read(written(tmp_path, pcap([])))
    assert (rows, info.errors, info.first_ns, info.bytes) == ([], [], None, 24)


def test_the_earliest_and_the_latest_packet_wherever_they_are(tmp_path: Path) -> None:
    records = [struct.pack("<IIII", second, 0, 0, 0) for second in (5, 3, 9, 4)]
    _, info = read(written(tmp_path, pcap([]) + b"".join(records)), block_bytes=16)
    assert (info.first_ns, info.last_ns) == (3_000_000_000, 9_000_000_000)


@pytest.mark.parametrize("version", [(1, 0), (3, 0), (4, 2)])
def test_a_version_that_does_not_exist(tmp_path: Path, version: tuple[int, int]) -> None:
    with pytest.raises(CaptureError, match=r"version .* does not exist") as caught:
        read(written(tmp_path, pcap(PACKETS, version=version)))
    assert caught.value.offset == 4


def test_the_largest_packet_is_read_and_a_larger_one_ends_the_reading(tmp_path: Path) -> None:
    largest = bytes(limits.MAX_PACKET_BYTES)
    rows, info = read(written(tmp_path, pcap([b"a", largest, largest + b"!", b"b"])))
    assert [len(row[0]) for row in rows] == [1, limits.MAX_PACKET_BYTES]
    (issue,) = info.errors
    assert issue.offset == 24 + 17 + 16 + limits.MAX_PACKET_BYTES
    assert "a packet of 262145 bytes" in issue.why


@pytest.mark.parametrize("block_bytes", [1, 7, 64, limits.BLOCK_BYTES])
def test_packets_that_cross_the_blocks(tmp_path: Path, block_bytes: int) -> None:
    packets = [bytes([n]) * n for n in range(200)]
    rows, info = read(written(tmp_path, pcap(packets)), block_bytes=block_bytes, headroom=100)
    assert [row[0] for row in rows] == packets
    assert info.errors == []


@pytest.mark.parametrize("magic", [MICROSECONDS, MODIFIED])
def test_cut_at_every_byte(tmp_path: Path, magic: int) -> None:
    whole = pcap(PACKETS, magic=magic)
    complete = [len(pcap(PACKETS[:count], magic=magic)) for count in range(4)]
    for size in range(len(whole)):
        path = written(tmp_path, whole[:size])
        if size < 24:
            with pytest.raises(CaptureError):
                read(path)
            continue
        rows, info = read(path)
        count = max(index for index, end in enumerate(complete) if end <= size)
        assert [row[0] for row in rows] == PACKETS[:count]
        if size in complete:
            assert info.errors == []
        else:
            (issue,) = info.errors
            assert issue.offset == complete[count]
            assert f"{size - complete[count]} of " in issue.why
