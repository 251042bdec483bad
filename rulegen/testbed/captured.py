"""The packets of a capture as the lab can send them: IP datagrams that the kernel takes for whole.

In:  a capture file.
Out: Captured for every packet of it, in its order; those that can't be sent say why.
Source: analyzer.columns for link headers and tunnels; for what the kernel drops before any hook Linux
    net/bridge/br_netfilter_hooks.c br_validate_ipv4, br_netfilter_ipv6.c br_validate_ipv6.

Only that is changed of a packet which no firewall on its path would have judged. Link header, VLAN tags and
outer headers of tunnels go, as for the analyser; what is behind the datagram (Ethernet padding) goes; the
length that segmentation offload left empty and the IPv4 checksum that offload left wrong are put right. What
the capture has cut off is filled with zeros, and `captured` says from where on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from analyzer.capture import RawPackets
from analyzer.capture.source import open_capture
from analyzer.columns import decode
from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind
from analyzer.model import Side
from rulegen.testbed.netns import MTU
from rulegen.testbed.packets import ACK, SYN, TCP, repaired

_HEADER_6: Final = 40
_HOP_BY_HOP: Final = 0

_NO_IP: Final = "there is no IP in it, or it is in an encapsulation that is not decoded"
_DAMAGED: Final = "its IP header is cut or contradicts its length; the kernel drops it before any rule"
_TOO_LARGE: Final = f"segmentation offload: it has more than {MTU} bytes, which no wire carries"


class Captured(NamedTuple):
    """A packet of a capture."""

    number: int
    """In the capture, 1-based, as in Wireshark."""
    time_ns: int
    side: Side
    """Who sent it. CLIENT: of its two addresses the one that was heard first, or that the other answered by
    a SYN with ACK. No rule in the lab's bridge depends on it, but those on its ports (physdev)."""
    data: bytes
    """From the network header to the datagram's end; empty where it can't be sent."""
    captured: int
    """Bytes of `data` that the capture has; behind them `data` is zeros."""
    why: str | None
    """It can't be sent, because..."""


def packets_of(path: str | Path) -> Iterator[Captured]:
    """Read the packets of a capture.

    Raises:
        CaptureError: The file can't be read, or is no capture.
    """
    clients: dict[tuple[int, ...], tuple[int, ...]] = {}
    with open_capture(path) as reader:
        for raw in reader:
            columns = decode.decode(
                raw.buffer, raw.offset, raw.captured, raw.wire, raw.time_ns, raw.linktype, raw.first
            )
            yield from _block(raw, columns, clients)


def _block(
    raw: RawPackets, columns: Columns, clients: dict[tuple[int, ...], tuple[int, ...]]
) -> Iterator[Captured]:
    buffer = raw.buffer.data
    ends = (raw.offset + raw.captured).tolist()
    left = (raw.offset + columns.wire - columns.network_offset).tolist()
    source = zip(columns.src_hi.tolist(), columns.src_lo.tolist(), strict=True)
    destination = zip(columns.dst_hi.tolist(), columns.dst_lo.tolist(), strict=True)
    answers = ((columns.kind == Kind.TCP) & (columns.flags & (SYN | ACK) == SYN | ACK)).tolist()
    sides = (
        _side(here, there, answer, clients)
        for here, there, answer in zip(source, destination, answers, strict=True)
    )
    rows = zip(
        columns.packet.tolist(),
        columns.time_ns.tolist(),
        columns.kind.tolist(),
        columns.ip_version.tolist(),
        columns.network_offset.tolist(),
        ends,
        left,
        sides,
        strict=True,
    )
    for number, time_ns, kind, version, start, end, wire, side in rows:
        data, present, why = b"", 0, None
        if version == 0:
            why = _DAMAGED if kind == Kind.MALFORMED else _NO_IP
        else:
            data, present, why = sendable(bytes(buffer[start:end]), wire)
        yield Captured(number, time_ns, side, data, present, why)


def _side(
    here: tuple[int, int],
    there: tuple[int, int],
    answer: bool,
    clients: dict[tuple[int, ...], tuple[int, ...]],
) -> Side:
    pair = (*here, *there) if here < there else (*there, *here)
    client = clients.setdefault(pair, there if answer else here)
    return Side.CLIENT if here == client else Side.SERVER


def sendable(present: bytes, wire: int) -> tuple[bytes, int, str | None]:
    """A datagram as the lab can send it, the bytes of it that the capture has, and why it can't be sent.

    Args:
        present: From its network header, which is whole, to the end of what the capture has of the packet.
        wire: Bytes from there to the packet's end on the wire.
    """
    six = present[0] >> 4 == 6
    head, length_at = (_HEADER_6, 4) if six else (0, 2)
    length = head + int.from_bytes(present[length_at : length_at + 2], "big")
    if length == head and (not six or present[6] == TCP):
        length = wire
        if length <= MTU:
            written = struct.pack("!H", length - head)
            present = present[:length_at] + written + present[length_at + 2 :]
    if length > MTU or (six and length == head and present[6] == _HOP_BY_HOP):
        return b"", 0, _TOO_LARGE
    if length > wire:
        return b"", 0, _DAMAGED
    count = min(len(present), length)
    return repaired(present[:count]) + bytes(length - count), count, None
