"""Packets of any link type -> what tshark says about the innermost headers of each."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

FIELDS: Final = (
    "ip.src", "ip.dst", "ip.ttl", "ipv6.src", "ipv6.dst", "ipv6.hlim", "tcp.srcport",
    "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value", "tcp.len",
    "udp.srcport", "udp.dstport",
)  # fmt: skip


def write_pcapng(path: Path, packets: Iterable[tuple[int, bytes]], wire: Sequence[int] = ()) -> None:
    """Write (link type, bytes) packets, each link type an interface of its own."""
    packets = list(packets)
    linktypes = sorted({linktype for linktype, _ in packets})
    blocks = [struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)]
    blocks += [struct.pack("<IIHHII", 1, 20, linktype, 0, 0, 20) for linktype in linktypes]
    for number, (linktype, data) in enumerate(packets):
        size = 32 + (len(data) + 3) // 4 * 4
        on_wire = wire[number] if wire else len(data)
        head = struct.pack("<IIIIIII", 6, size, linktypes.index(linktype), 0, number, len(data), on_wire)
        blocks.append(head + data.ljust(size - 32, b"\0") + struct.pack("<I", size))
    path.write_bytes(b"".join(blocks))


def dissect(path: Path) -> list[dict[str, str]]:
    """The last, so the innermost, occurrence of each field, for every packet."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=l", "-E", "separator=|"]
    for field in FIELDS:
        command += ["-e", field]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]
