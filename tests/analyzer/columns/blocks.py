"""Bytes of packets -> what the decoder is given, and its columns as plain Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analyzer.capture import RawPackets
from analyzer.columns.packets import Columns
from analyzer.columns.schema import PACKETS
from analyzer.wire.linktypes import LinkType


def block(
    packets: Sequence[bytes],
    *,
    linktype: int | Sequence[int] = LinkType.ETHERNET,
    wire: Sequence[int] | None = None,
    time_ns: Sequence[int] | None = None,
    headroom: int = 0,
    gap: int = 16,
    first: int = 1,
) -> RawPackets:
    """Lay packets out as a reader does: behind the headroom, bytes of the file's own between them."""
    captured = np.array([len(packet) for packet in packets], np.int64)
    offset = headroom + gap + np.concatenate([[0], np.cumsum(captured + gap)[:-1]]).astype(np.int64)
    body = b"".join(b"\xa5" * gap + packet for packet in packets)
    return RawPackets(
        buffer=np.frombuffer(bytes(headroom) + body, np.uint8).copy(),
        headroom=headroom,
        first=first,
        offset=offset[: len(packets)],
        captured=captured,
        wire=captured.copy() if wire is None else np.array(wire, np.int64),
        time_ns=np.arange(len(packets), dtype=np.int64) if time_ns is None else np.array(time_ns, np.int64),
        linktype=np.broadcast_to(np.array(linktype, np.int64), len(packets)).copy(),
    )


def decoded(decode: Callable[..., Columns], raw: RawPackets) -> Columns:
    return decode(raw.buffer, raw.offset, raw.captured, raw.wire, raw.time_ns, raw.linktype, raw.first)


def as_lists(columns: Columns) -> dict[str, list[Any]]:
    return {column.name: getattr(columns, column.name).tolist() for column in PACKETS}


def row(columns: Columns, index: int = 0) -> dict[str, Any]:
    return {name: values[index] for name, values in as_lists(columns).items()}
