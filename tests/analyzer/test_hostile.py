"""Damaged and hostile captures: a clear result or CaptureError, never anything else."""

import random
from pathlib import Path

import pytest

import analyzer
from analyzer.errors import CaptureError

CAPTURES = Path(__file__).parents[2] / "samples"
SMALL = CAPTURES / "captures" / "tls-1.2-handshake-failure.pcap"

HEADER_ENDS = 24
FIRST_PACKET_ENDS = HEADER_ENDS + 16 + int.from_bytes(SMALL.read_bytes()[32:36], "little")


def outcome(path):
    """Read it and everything that can be asked of the analysis."""
    try:
        analysis = analyzer.analyze(path)
    except CaptureError as error:
        return None if error.why and error.offset >= 0 else error
    assert not analysis.failures
    list(analysis.iter_connections())
    list(analysis.iter_findings())
    return analysis


def test_truncated_at_every_byte(tmp_path):
    """What stands before the cut is reported, and the offset of the cut."""
    data = SMALL.read_bytes()
    whole = outcome(SMALL).totals["packets"]
    path = tmp_path / "cut.pcap"
    packets = []
    for size in range(len(data)):
        path.write_bytes(data[:size])
        analysis = outcome(path)
        if size < FIRST_PACKET_ENDS:
            assert analysis is None or size == HEADER_ENDS  # a header alone is an empty capture
        else:
            packets.append(analysis.totals["packets"])
            assert all(issue.offset <= size for issue in analysis.captures[0].errors)
    assert packets == sorted(packets)
    assert packets[-1] == whole - 1


@pytest.mark.parametrize(
    "name", ["captures/heartbleed-success.pcap", "captures/tls12-resumption.pcap", "crafted/sm03-both.pcap"]
)
def test_flipped_bytes(tmp_path, name):
    """Bytes changed anywhere in the packets: the seed is in the test's name, so a failure can be had
    again."""
    data = (CAPTURES / name).read_bytes()
    path = tmp_path / "flipped.pcap"
    for seed in range(60):
        dice = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(dice.randrange(1, 60)):
            damaged[dice.randrange(24, len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        outcome(path)


def test_random_bytes_behind_a_header(tmp_path):
    path = tmp_path / "noise.pcap"
    header = SMALL.read_bytes()[:24]
    for seed in range(40):
        path.write_bytes(header + random.Random(seed).randbytes(5000))
        outcome(path)


@pytest.mark.parametrize("data", [b"", b"hello, world\n", b"\x00" * 100, b"GIF89a", b"\x1f\x8b\x08broken"])
def test_what_is_no_capture_is_refused(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert outcome(path) is None


def test_several_captures_of_which_one_is_none(tmp_path):
    """The others are read; the bad one is among the captures, with what is wrong with it."""
    bad = tmp_path / "text"
    bad.write_text("no capture")
    analysis = analyzer.analyze([SMALL, bad, SMALL])
    assert [len(capture.errors) for capture in analysis.captures] == [0, 1, 0]
    assert analysis.totals["tls_connections"] == 2
    with pytest.raises(CaptureError):
        analyzer.analyze([bad, bad])
