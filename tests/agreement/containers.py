"""Write packets in every form of file, byte by byte or with Wireshark's tools."""

from __future__ import annotations

import gzip
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import zstandard

from tests.agreement.frames import Frame
from tests.analyzer.capture.formats import Pcapng

ETHERNET = 1


def pcap(
    path: Path,
    frames: Sequence[Frame],
    *,
    linktype: int = ETHERNET,
    order: str = "<",
    nanoseconds: bool = False,
) -> Path:
    magic, unit = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    file = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262_144, linktype)]
    for frame in frames:
        seconds, rest = divmod(frame.time_ns, 1_000_000_000)
        file.append(struct.pack(f"{order}IIII", seconds, rest // unit, len(frame.data), frame.wire))
        file.append(frame.data)
    path.write_bytes(b"".join(file))
    return path


def section(
    frames: Sequence[Frame], *, linktype: int = ETHERNET, order: str = "<", interfaces: int = 1
) -> bytes:
    """A pcapng section; its packets go to its interfaces in turn, each with its own resolution of time."""
    write = Pcapng(order)
    resolutions = (6, 9, 3, 0x94)  # 10^-6, 10^-9, 10^-3, 2^-20 seconds
    units = (1_000, 1, 1_000_000, 1_000_000_000 / (1 << 20))
    blocks = [write.section()]
    for index in range(interfaces):
        resolution = write.resolution(resolutions[index % 4]) if index else b""
        blocks.append(write.interface(linktype, options=resolution))
    for number, frame in enumerate(frames):
        index = number % interfaces
        blocks.append(
            write.enhanced(
                frame.data, interface=index, units=int(frame.time_ns / units[index % 4]), wire=frame.wire
            )
        )
        if number % 7 == 0:
            blocks.append(write.block(0x80000ACE, b"a block of somebody's own"))
    return b"".join(blocks)


def tool(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)


def editcap(*options: str) -> Callable[[Path, Sequence[Frame]], Path]:
    def write(path: Path, frames: Sequence[Frame]) -> Path:
        tool("editcap", *options, pcap(path.with_suffix(".plain"), frames), path)
        return path

    return write


def big_endian(path: Path, frames: Sequence[Frame]) -> Path:
    return pcap(path, frames, order=">")


def big_endian_nanoseconds(path: Path, frames: Sequence[Frame]) -> Path:
    return pcap(path, frames, order=">", nanoseconds=True)


def pcapng_big_endian(path: Path, frames: Sequence[Frame]) -> Path:
    path.write_bytes(section(frames, order=">"))
    return path


def pcapng_interfaces(path: Path, frames: Sequence[Frame]) -> Path:
    path.write_bytes(section(frames, interfaces=4))
    return path


def pcapng_sections(path: Path, frames: Sequence[Frame]) -> Path:
    """Three sections, of different byte orders and interfaces."""
    third = len(frames) // 3 + 1
    path.write_bytes(
        section(frames[:third], order="<")
        + section(frames[third : 2 * third], order=">", interfaces=2)
        + section(frames[2 * third :], order="<", interfaces=3)
    )
    return path


def pcapng_simple(path: Path, frames: Sequence[Frame]) -> Path:
    """Simple Packet Blocks, which have no time."""
    write = Pcapng("<")
    blocks = [write.simple(frame.data, frame.wire) for frame in frames]
    path.write_bytes(b"".join((write.section(), write.interface(snaplen=262_144), *blocks)))
    return path


def pcapng_obsolete(path: Path, frames: Sequence[Frame]) -> Path:
    """Packet Blocks, which Enhanced Packet Blocks replaced."""
    write = Pcapng(">")
    blocks = [write.obsolete(frame.data, units=frame.time_ns // 1000) for frame in frames]
    path.write_bytes(b"".join((write.section(), write.interface(snaplen=262_144), *blocks)))
    return path


def mergecap(path: Path, frames: Sequence[Frame]) -> Path:
    """Three files put together by time, as from three taps; an interface each."""
    parts = [pcap(path.with_suffix(f".{part}"), frames[part::3], nanoseconds=True) for part in range(3)]
    tool("mergecap", "-I", "none", "-w", path, *parts)
    return path


def mergecap_appended(path: Path, frames: Sequence[Frame]) -> Path:
    half = len(frames) // 2
    parts = [pcap(path.with_suffix(".1"), frames[:half]), pcap(path.with_suffix(".2"), frames[half:])]
    tool("mergecap", "-a", "-w", path, *parts)
    return path


def text2pcap(path: Path, frames: Sequence[Frame]) -> Path:
    """By way of a hex dump."""
    lines = []
    for frame in frames:
        seconds, rest = divmod(frame.time_ns, 1_000_000_000)
        lines.append(f"{seconds}.{rest:09d}")
        data = frame.data
        lines += (f"{at:06x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))
    dump = path.with_suffix(".txt")
    dump.write_text("\n".join((*lines, "")))
    tool("text2pcap", "-q", "-t", "%s.%f", dump, path)
    return path


def gz(path: Path, frames: Sequence[Frame]) -> Path:
    """Two members, as `cat a.gz b.gz` leaves them."""
    data = pcap(path.with_suffix(".plain"), frames).read_bytes()
    half = len(data) // 2
    path.write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    return path


def zst(path: Path, frames: Sequence[Frame]) -> Path:
    """Two frames, likewise."""
    data = pcap(path.with_suffix(".plain"), frames).read_bytes()
    half = len(data) // 2
    compress = zstandard.ZstdCompressor().compress
    path.write_bytes(compress(data[:half]) + compress(data[half:]))
    return path


def reordercap(path: Path, frames: Sequence[Frame]) -> Path:
    tool("reordercap", pcap(path.with_suffix(".plain"), frames, nanoseconds=True), path)
    return path
