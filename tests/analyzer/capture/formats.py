"""Write captures of every variant, byte by byte."""

from __future__ import annotations

import struct
from typing import Any, Final

from analyzer.capture import CaptureInfo
from analyzer.capture.source import open_capture

MICROSECONDS: Final = 0xA1B2C3D4
NANOSECONDS: Final = 0xA1B23C4D
MODIFIED: Final = 0xA1B2CD34


def pcap(
    packets: list[bytes],
    *,
    order: str = "<",
    magic: int = MICROSECONDS,
    version: tuple[int, int] = (2, 4),
    linktype: int = 1,
    swapped: bool = False,
) -> bytes:
    """Packet n is at n seconds and 1000 + n units, and was 10 bytes longer on the wire."""
    file = [struct.pack(f"{order}IHHiIII", magic, *version, 0, 0, 262_144, linktype)]
    for number, data in enumerate(packets):
        lengths = (len(data), len(data) + 10)
        file.append(
            struct.pack(f"{order}IIII", number, 1000 + number, *(lengths[::-1] if swapped else lengths))
        )
        if magic == MODIFIED:
            file.append(struct.pack(f"{order}IHBx", 3, 0x0800, 4))
        file.append(data)
    return b"".join(file)


class Pcapng:
    """The blocks of a section, in its byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def block(
        self, kind: int, body: bytes = b"", *, total: int | None = None, trailing: int | None = None
    ) -> bytes:
        body += bytes(-len(body) % 4)
        total = 12 + len(body) if total is None else total
        trailing = total if trailing is None else trailing
        return self.pack("II", kind, total) + body + self.pack("I", trailing)

    def section(self, version: tuple[int, int] = (1, 0)) -> bytes:
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, *version, -1))

    def interface(self, linktype: int = 1, snaplen: int = 0, options: bytes = b"") -> bytes:
        return self.block(1, self.pack("HHI", linktype, 0, snaplen) + options)

    def option(self, code: int, value: bytes) -> bytes:
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def resolution(self, value: int) -> bytes:
        return self.option(9, bytes([value]))

    def enhanced(
        self,
        data: bytes,
        *,
        interface: int = 0,
        units: int = 0,
        captured: int | None = None,
        wire: int | None = None,
        options: bytes = b"",
        **damage: int,
    ) -> bytes:
        captured = len(data) if captured is None else captured
        wire = captured if wire is None else wire
        body = self.pack("IIIII", interface, units >> 32, units & 0xFFFFFFFF, captured, wire)
        return self.block(6, body + data + bytes(-len(data) % 4) + options, **damage)

    def simple(self, data: bytes, wire: int | None = None) -> bytes:
        return self.block(3, self.pack("I", len(data) if wire is None else wire) + data)

    def obsolete(self, data: bytes, *, interface: int = 0, units: int = 0) -> bytes:
        body = self.pack("HHIIII", interface, 7, units >> 32, units & 0xFFFFFFFF, len(data), len(data))
        return self.block(2, body + data)


def pcapng(packets: list[bytes], order: str = "<") -> bytes:
    """One section, one Ethernet interface; packet n is at n microseconds."""
    write = Pcapng(order)
    blocks = [write.enhanced(data, units=number) for number, data in enumerate(packets)]
    return b"".join((write.section(), write.interface(), *blocks))


class Row(tuple[bytes, int, int, int]):
    """Bytes, wire length, time in ns and link type of a packet."""


def read(path: Any, **options: Any) -> tuple[list[Row], CaptureInfo]:
    """Every packet of a capture, and what was read; checks what holds for any capture."""
    rows = []
    with open_capture(path, **options) as reader:
        for packets in reader:
            assert packets.first == len(rows) + 1
            assert len(packets) > 0
            ends = packets.offset + packets.captured
            assert (packets.offset >= packets.headroom).all()
            assert (ends <= len(packets.buffer)).all()
            assert (packets.offset[1:] >= ends[:-1]).all(), "packets overlap"
            for at, end, wire, time_ns, linktype in zip(
                packets.offset, ends, packets.wire, packets.time_ns, packets.linktype, strict=True
            ):
                rows.append(Row((packets.buffer[at:end].tobytes(), int(wire), int(time_ns), int(linktype))))
        info = reader.info
    assert info.packets == len(rows)
    assert sum(len(row[0]) for row in rows) <= info.bytes
    return rows, info
