"""A capture is read the same way from wherever it is stored, and nothing in it raises but CaptureError.

The packets of the shipped captures are those that tshark reads; the same for what editcap and mergecap write.
"""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.capture import CaptureIssue
from analyzer.capture.source import open_capture
from analyzer.errors import CaptureError
from tests.analyzer.capture.formats import MODIFIED, NANOSECONDS, Pcapng, Row, pcap, pcapng, read

SAMPLES = sorted((Path(__file__).parents[3] / "samples").rglob("*.pcap"))
CAPTURED = [path for path in SAMPLES if path.parent.name == "captures"]
PACKETS = [random.Random(n).randbytes(n * 7 % 100) for n in range(50)]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
FORMATS = {"pcap": pcap(PACKETS), "pcapng": pcapng(PACKETS)}


@pytest.fixture(params=sorted(PACK))
def pack(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return PACK[request.param]


@pytest.fixture(params=sorted(FORMATS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# --- where it is stored --------------------------------------------------------------------------------


def test_format_and_compression_are_told_by_the_content(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "capture.txt.bz2"
    path.write_bytes(pack(FORMATS[kind]))
    rows, info = read(path, block_bytes=1000)
    assert [row[0] for row in rows] == PACKETS
    assert (info.path, info.format, info.errors) == (str(path), kind, [])
    assert info.bytes == len(FORMATS[kind])
    assert info.size == path.stat().st_size


def test_a_url(kind: str, pack: Callable[[bytes], bytes]) -> None:
    import fsspec

    with fsspec.open("memory://incidents/capture", "wb") as file:
        file.write(pack(FORMATS[kind]))
    rows, info = read("memory://incidents/capture")
    assert [row[0] for row in rows] == PACKETS
    assert info.size == len(pack(FORMATS[kind]))


READ_STANDARD_INPUT = """
import hashlib
from analyzer.capture import CaptureIssue
from analyzer.capture.source import open_capture
with open_capture("-", block_bytes=3000) as reader:
    digest = hashlib.sha256()
    for packets in reader:
        for at, captured in zip(packets.offset, packets.captured):
            digest.update(packets.buffer[at : at + captured])
    info = reader.info
    print(info.path, info.format, info.packets, info.size, len(info.errors), digest.hexdigest())
"""


def test_standard_input(kind: str, pack: Callable[[bytes], bytes]) -> None:
    import hashlib

    arguments = [sys.executable, "-c", READ_STANDARD_INPUT]
    done = subprocess.run(arguments, check=True, capture_output=True, input=pack(FORMATS[kind]))
    digest = hashlib.sha256(b"".join(PACKETS)).hexdigest()
    assert done.stdout.decode().split() == ["-", kind, "50", "None", "0", digest]


def test_position_and_info_grow_while_reading(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a"
    data = FORMATS[kind] + pcap(PACKETS)[24:] * 100 if kind == "pcap" else FORMATS[kind] * 100
    path.write_bytes(pack(data))
    with open_capture(path, block_bytes=10_000) as reader:
        positions, packets = [reader.position()], [reader.info.packets]
        for block in reader:
            positions.append(reader.position())
            packets.append(reader.info.packets)
            assert packets[-1] == packets[-2] + len(block)
        assert positions == sorted(positions)
        assert positions[-1] == reader.info.size
        assert len(positions) > 10


def test_the_headroom_is_left_alone_and_the_buffer_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(pcap(PACKETS * 20))
    buffers = []
    with open_capture(path, block_bytes=1000, headroom=5000) as reader:
        for packets in reader:
            if not buffers:
                packets.buffer[:5000] = 0xAB
            buffers.append(packets.buffer)
            assert packets.headroom == 5000
            assert (packets.offset >= 5000).all()
    assert len(buffers) > 10
    assert all(buffer is buffers[0] for buffer in buffers)
    assert (buffers[0][:5000] == 0xAB).all()


def test_arrays_of_earlier_blocks_stay_as_they_were(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(FORMATS[kind])
    with open_capture(path, block_bytes=500) as reader:
        kept = [(packets, packets.time_ns.copy(), packets.captured.copy()) for packets in reader]
    assert len(kept) > 3
    for packets, time_ns, captured in kept:
        assert (packets.time_ns == time_ns).all()
        assert (packets.captured == captured).all()


def test_only_what_is_needed_is_imported() -> None:
    program = (
        "import sys, analyzer.capture.source\n"
        "print(*sorted({'gzip', 'zstandard', 'fsspec', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


# --- what is no capture --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b""), "the file is empty"),
        (b"\x1f\x8b\x08", "the compressed data end early"),
        (gzip.compress(FORMATS["pcap"])[:12], "the compressed data end early"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(100)), "the compressed data are damaged"),
        (gzip.compress(gzip.compress(FORMATS["pcap"])), "looks like gzip-compressed data"),
        (b"An ordinary text about packets.\n" * 1000, "this is a text file"),
        (gzip.compress(b"An ordinary text.\n"), "this is a text file"),
        (b"snoop\0\0\0" + bytes(100), "written by snoop"),
    ],
)
def test_a_sentence_says_what_it_is(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    for block_bytes in (1, 1 << 20):
        with pytest.raises(CaptureError, match=why) as caught:
            open_capture(path, block_bytes=block_bytes)
        assert caught.value.path == str(path)
        assert caught.value.offset == 0


# --- hostile input -------------------------------------------------------------------------------------

SMALL = [b"ab", b"", b"a longer packet"]
STARTS = {
    "pcap": pcap(SMALL),
    "big-endian": pcap(SMALL, order=">", magic=NANOSECONDS),
    "modified": pcap(SMALL, magic=MODIFIED),
    "pcapng": pcapng(SMALL),
    "pcapng big-endian": pcapng(SMALL, ">") + pcapng(SMALL, "<"),
    "pcapng blocks": b"".join(
        (
            Pcapng().section(),
            Pcapng().interface(options=Pcapng().resolution(9) + Pcapng().option(14, bytes(8))),
            Pcapng().simple(b"simple"),
            Pcapng().obsolete(b"obsolete"),
            Pcapng().block(10, b"TLSK" + bytes(8)),
            Pcapng().enhanced(b"enhanced", options=Pcapng().option(1, b"comment")),
        )
    ),
}


def read_any(path: Path, content: bytes, block_bytes: int = 64) -> tuple[list[Row], list[CaptureIssue] | str]:
    """Read what may be no capture; read() checks that the packets are within what was read."""
    path.write_bytes(content)
    try:
        rows, info = read(path, block_bytes=block_bytes, headroom=16)
    except CaptureError as error:
        return [], str(error)
    assert all(0 <= issue.offset <= info.bytes for issue in info.errors)
    return rows, info.errors


@pytest.mark.parametrize("start", STARTS)
def test_cut_at_every_byte(tmp_path: Path, start: str) -> None:
    whole = STARTS[start]
    path = tmp_path / "a"
    rows, _ = read_any(path, whole)
    for size in range(len(whole)):
        cut, errors = read_any(path, whole[:size], 1)
        assert (cut, errors) == read_any(path, whole[:size], 1 << 16)
        assert cut == rows[: len(cut)]


hostile = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@hostile
@given(start=st.sampled_from(sorted(STARTS)), junk=st.binary(max_size=400), block_bytes=st.integers(1, 200))
def test_junk_behind_a_valid_start(tmp_path: Path, start: str, junk: bytes, block_bytes: int) -> None:
    rows, _ = read_any(tmp_path / "a", STARTS[start])
    assert read_any(tmp_path / "a", STARTS[start] + junk, block_bytes)[0][: len(rows)] == rows


@hostile
@given(start=st.sampled_from(sorted(STARTS)), data=st.data())
def test_flipped_bits(tmp_path: Path, start: str, data: st.DataObject) -> None:
    content = bytearray(STARTS[start])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    small = read_any(tmp_path / "a", bytes(content), 1)
    assert small == read_any(tmp_path / "a", bytes(content), 1 << 16), "the block size changes nothing"


@hostile
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    read_any(tmp_path / "a", content)


@hostile
@given(
    kind=st.sampled_from(sorted(FORMATS)), packed=st.sampled_from(("gzip", "zstd")), cut=st.integers(0, 9000)
)
def test_a_compressed_capture_that_is_cut(tmp_path: Path, kind: str, packed: str, cut: int) -> None:
    content = PACK[packed](FORMATS[kind] * 3)
    rows, _ = read_any(tmp_path / "a", content[:cut], 1000)
    assert [row[0] for row in rows[:50]] == PACKETS[: min(len(rows), 50)]


# --- the same as other programs ------------------------------------------------------------------------


def nanoseconds(time: str) -> int:
    seconds, _, fraction = time.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def tshark_rows(path: Path) -> list[tuple[int, int, int]]:
    """Captured and wire length and time of each packet."""
    fields = ("frame.cap_len", "frame.len", "frame.time_epoch")
    arguments = ["tshark", "-n", "-r", str(path), "-T", "fields"]
    for field in fields:
        arguments += ["-e", field]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    rows = []
    for line in done.stdout.splitlines():
        captured, wire, time = line.split("\t")
        rows.append((int(captured), int(wire), nanoseconds(time)))
    return rows


def our_rows(path: Path) -> list[tuple[int, int, int]]:
    rows, info = read(path)
    assert info.errors == []
    return [(len(data), wire, time_ns) for data, wire, time_ns, _ in rows]


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is missing")
@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_every_captured_sample_has_the_packets_that_tshark_reads(path: Path) -> None:
    assert our_rows(path) == tshark_rows(path)


@pytest.mark.tshark
@pytest.mark.skipif(
    shutil.which("tshark") is None or shutil.which("editcap") is None, reason="tshark or editcap is missing"
)
@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "modpcap", "pcapng"])
def test_what_editcap_writes(tmp_path: Path, kind: str) -> None:
    sample = next(path for path in CAPTURED if path.stem == "tls1.2")
    out = tmp_path / "out"
    subprocess.run(
        ["editcap", "-F", kind, "-s", "200", str(sample), str(out)], check=True, capture_output=True
    )
    ours = our_rows(out)
    assert ours == tshark_rows(out)
    assert any(captured < wire for captured, wire, _ in ours)


@pytest.mark.tshark
@pytest.mark.skipif(
    shutil.which("tshark") is None or shutil.which("mergecap") is None, reason="tshark or mergecap is missing"
)
def test_what_mergecap_writes_has_several_interfaces(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(pcap(PACKETS, linktype=101))
    second.write_bytes(pcap(PACKETS, linktype=1, magic=NANOSECONDS))
    out = tmp_path / "out"
    arguments = ["mergecap", "-F", "pcapng", "-w", str(out), str(first), str(second)]
    subprocess.run(arguments, check=True, capture_output=True)
    assert our_rows(out) == tshark_rows(out)
    rows, _ = read(out)
    assert sorted(row[3] for row in rows) == [1] * 50 + [101] * 50


@pytest.mark.skipif(shutil.which("capinfos") is None, reason="capinfos is missing")
def test_info_of_every_sample_says_what_capinfos_says() -> None:
    arguments = ["capinfos", "-T", "-r", "-m", "-c", "-a", "-e", "-S", *map(str, SAMPLES)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    theirs = [line.split(",") for line in done.stdout.splitlines()]
    ours = []
    for path in SAMPLES:
        _, info = read(path)
        assert info.errors == []
        ours.append([str(path), info.packets, info.first_ns, info.last_ns])
    assert len(ours) > 10
    assert ours == [
        [path, int(packets), nanoseconds(earliest), nanoseconds(latest)]
        for path, packets, earliest, latest in theirs
    ]


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is missing")
def test_packet_numbers_are_those_of_tshark(tmp_path: Path) -> None:
    """Custom, systemd journal and Sysdig blocks have a frame.number there."""
    write = Pcapng()
    journal = b"__REALTIME_TIMESTAMP=1421973796675000\nMESSAGE=x\n\n"
    event = write.pack("HQQIIH", 0, 10**18, 5, 60, 3, 3) + bytes(40)
    others = (
        (9, journal),
        (0x204, event),
        (0x216, event),
        (0x221, event),
        (0x0BAD, write.pack("I", 12345)),
        (0x4000_0BAD, write.pack("I", 12345) + b"data"),
        (5, bytes(12)),
        (10, b"KSLT\4\0\0\0abcd"),
        (0x205, event),
    )
    blocks = [write.section(), write.interface()]
    for index, (kind, body) in enumerate(others):
        blocks += [write.block(kind, body), write.enhanced(bytes(20), units=(100 + index) * 1_000_000)]
    path = tmp_path / "a"
    path.write_bytes(b"".join(blocks))
    arguments = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-T",
        "fields",
        "-e",
        "frame.number",
        "-e",
        "frame.time_epoch",
    ]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    theirs = [tuple(line.split("\t")) for line in done.stdout.splitlines()]
    rows, _ = read(path)
    numbers = {row[2]: number for number, row in enumerate(rows, 1) if row[0]}
    assert len(rows) == len(theirs)
    for index in range(len(others)):
        assert (str(numbers[(100 + index) * 1_000_000_000]), f"{100 + index}.000000000") in theirs
