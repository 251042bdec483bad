"""Captures as lists of TCP segments: cut again, joined into one, written.

A conversation means the same however TCP cuts it into segments, and whatever else lies in its capture. It is
tested with the crafted captures, all in one: `together` moves each to addresses and times of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from analyzer import pipeline
from analyzer.analysis import Analysis
from analyzer.report.base import Options
from analyzer.report.json_output import render_json

SAMPLES: Final = Path(__file__).parents[1] / "samples"
CRAFTED: Final = sorted((SAMPLES / "crafted").glob("*.pcap"))
SHIPPED: Final = sorted((SAMPLES / "captures").glob("*.pcap"))
FIN, SYN, RST = 1, 2, 4


class Segment(NamedTuple):
    time_us: int
    source: bytes
    target: bytes
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    ttl: int
    payload: bytes
    missing: int
    """Bytes of the payload that a snaplen cut off."""


@cache
def read(path: Path) -> tuple[Segment, ...]:
    """The TCP segments of a little-endian pcap file with Ethernet frames; what is no TCP is left out."""
    data = path.read_bytes()
    assert struct.unpack_from("<I16xI", data) == (0xA1B2C3D4, 1)
    at, segments = 24, []
    while at < len(data):
        seconds, micros, captured, _ = struct.unpack_from("<IIII", data, at)
        packet = data[at + 16 + 14 : at + 16 + captured]
        at += 16 + captured
        if packet[0] >> 4 == 4:
            ip, length, ttl, protocol = (
                (packet[0] & 15) * 4,
                int.from_bytes(packet[2:4], "big"),
                packet[8],
                packet[9],
            )
            source, target = packet[12:16], packet[16:20]
        else:
            ip, length, ttl, protocol = 40, 40 + int.from_bytes(packet[4:6], "big"), packet[7], packet[6]
            source, target = packet[8:24], packet[24:40]
        if protocol != 6:
            continue
        sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", packet, ip)
        begin = ip + (offset >> 4) * 4
        payload = packet[begin:length]
        segments.append(
            Segment(
                seconds * 1_000_000 + micros, source, target, sport, dport, seq, ack, flags, ttl, payload,
                max(0, length - begin - len(payload)),
            )
        )  # fmt: skip
    return tuple(segments)


def pcap(segments: Iterable[Segment]) -> bytes:
    """The segments as a capture."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)]
    for one in segments:
        tcp = struct.pack("!HHIIBBHHH", one.sport, one.dport, one.seq, one.ack, 0x50, one.flags, 65535, 0, 0)
        size = len(tcp) + len(one.payload) + one.missing
        if len(one.source) == 4:
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, one.ttl, 6, 0)
            link = bytes(12) + b"\x08\x00"
        else:
            ip = struct.pack("!IHBB", 6 << 28, size, 6, one.ttl)
            link = bytes(12) + b"\x86\xdd"
        frame = link + ip + one.source + one.target + tcp + one.payload
        head = struct.pack("<IIII", *divmod(one.time_us, 1_000_000), len(frame), len(frame) + one.missing)
        parts += [head, frame]
    return b"".join(parts)


def together(paths: Iterable[Path], *, at_once: bool = False) -> list[Segment]:
    """All captures in one, each with addresses that no other has.

    Args:
        paths: Captures.
        at_once: All begin at the same time, instead of each ten minutes after the one before.
    """
    joined: list[Segment] = []
    begin = 0
    for number, path in enumerate(paths):
        segments = read(path)
        prefix = struct.pack("!BH", 10, number)
        hosts: dict[bytes, bytes] = {}
        for one in segments:
            for address in (one.source, one.target):
                hosts.setdefault(address, address[:-4] + prefix + bytes([len(hosts) + 1]))
            joined.append(
                one._replace(
                    time_us=begin + one.time_us - segments[0].time_us,
                    source=hosts[one.source],
                    target=hosts[one.target],
                )
            )
        if not at_once:
            begin = joined[-1].time_us + 600_000_000
    if at_once:
        joined.sort(key=lambda one: one.time_us)
    return joined


def name_of(home: str, paths: Sequence[Path]) -> str:
    """The capture whose hosts have this prefix."""
    numbers = home.split(".")
    return paths[int(numbers[1]) * 256 + int(numbers[2])].stem if numbers[0] == "10" else home


def cut(segments: Iterable[Segment], borders: Callable[[int], Sequence[int]]) -> list[Segment]:
    """Each segment with payload in several, with the acknowledgment and the time of the whole.

    Args:
        segments: What the snaplen cut stays as it is.
        borders: Given the length of a payload, where to cut it, ascending.
    """
    pieces: list[Segment] = []
    for one in segments:
        size = len(one.payload)
        if not size or one.missing or one.flags & (SYN | RST):
            pieces.append(one)
            continue
        inner = [at for at in borders(size) if 0 < at < size]
        for begin, end in zip([0, *inner], [*inner, size], strict=True):
            pieces.append(
                one._replace(
                    seq=(one.seq + begin) & 0xFFFFFFFF,
                    flags=one.flags if end == size else one.flags & ~FIN,
                    payload=one.payload[begin:end],
                )
            )
    return pieces


def bytewise(size: int) -> Sequence[int]:
    """Borders that leave one byte to a segment."""
    return range(1, size)


def analyse(path: Path, segments: Iterable[Segment]) -> Analysis:
    """Write segments to a file and analyse it."""
    path.write_bytes(pcap(segments))
    return pipeline.analyze(path)


def said(analysis: Analysis) -> dict[str, list[str]]:
    """All that is said of a capture, by host prefix, without numbers of packets and connections."""
    lines: dict[str, list[str]] = {}
    homes: dict[int | None, str] = {}
    for row in analysis.iter_connections():
        home = _home(str(row["client"]["address"]))  # type: ignore[index]
        homes[row["connection"]] = home  # type: ignore[index]
        lines.setdefault(home, []).append(str(_unnumbered(row)))
    for finding in analysis.iter_findings():
        names = ("id", "severity", "action", "offender", "victims")
        shown = {name: getattr(finding, name) for name in names}
        home = _home(finding.offender) if finding.offender else homes.get(finding.connection, "several")
        lines.setdefault(home, []).append(f"{shown} {_unnumbered(dict(finding.evidence))}")
    return {home: sorted(of_home) for home, of_home in lines.items()}


def _home(address: str) -> str:
    return address.rpartition(".")[0] if "." in address else address[:-2]


NUMBERED: Final = ("connection", "connections", "known_from")
PIECEWISE: Final = ("run", "text", "entropy_bits_per_byte", "printable_percent")
"""Evidence that is told of the segment at hand, not of the whole record."""


def _unnumbered(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: inner[:2] if name.endswith("bytes") and isinstance(inner, str) else _unnumbered(inner)
            for name, inner in value.items()  # of bytes as many are shown as the segment holds
            if "packet" not in name and name not in NUMBERED + PIECEWISE
        }
    if isinstance(value, list | tuple):
        return [_unnumbered(inner) for inner in value]
    return value


def json_of(analysis: Analysis) -> bytes:
    """The JSON document."""
    out = BytesIO()
    render_json(analysis, out, Options())
    return out.getvalue()
