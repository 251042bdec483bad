# cython: boundscheck=True
"""Walk the record headers of pcap and the blocks of pcapng (kernel).

In:  a buffer with bytes of the file, the first byte to frame and the end.
Out: a row per packet in the columns, and in Walk where and why the loop stopped.
Source: draft-ietf-opsawg-pcap-04, draft-ietf-opsawg-pcapng-02.

Nothing is read at or after the end, and a record is taken only when all of it is before the end.
"""

from __future__ import annotations

from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer import limits

COMPILED: Final[bool] = cython.compiled

OFFSET, CAPTURED, WIRE, TIME_NS, LINKTYPE = range(5)
"""Rows of the array `columns` that the loops fill."""
COLUMNS: Final = 5

# Why a loop stopped.
NEED_MORE: Final = 0
"""The record at `at` is not complete before the end."""
NO_ROOM: Final = 1
"""The columns are full."""
TOO_LONG: Final = 2
"""The packet at `at` claims more bytes than limits.MAX_PACKET_BYTES."""

# Which of the two lengths of a pcap record comes first.
CAPTURED_FIRST: Final = 0
WIRE_FIRST: Final = 1
SMALLER_IS_CAPTURED: Final = 2

_MAX_PACKET = cython.declare(cython.longlong, limits.MAX_PACKET_BYTES)
_SECOND_NS = cython.declare(cython.longlong, 1_000_000_000)


def frame_pcap(
    buffer: npt.NDArray[np.uint8],
    at: int,
    end: int,
    *,
    big: bool,
    header_bytes: int,
    tick_ns: int,
    lengths: int,
    columns: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
    """Frame the records of a classic pcap file.

    Args:
        buffer: Bytes of the file.
        at: Index of the first record.
        end: End of the bytes.
        big: Whether numbers are big-endian.
        header_bytes: Bytes of a record header: 16, or 24 in the modified format.
        tick_ns: Nanoseconds of a unit of the second timestamp field: 1000 or 1.
        lengths: CAPTURED_FIRST, WIRE_FIRST or SMALLER_IS_CAPTURED.
        columns: Filled up to the number of packets; LINKTYPE is left alone.

    Returns:
        Why the loop stopped, the index of the first record not framed, and the number of packets.
    """
    walk = np.array([at, 0], dtype=np.int64)  # what the loop leaves behind
    why: int = _walk_pcap(
        buffer.data,
        end,
        big,
        header_bytes,
        tick_ns,
        lengths,
        columns[OFFSET].data,
        columns[CAPTURED].data,
        columns[WIRE].data,
        columns[TIME_NS].data,
        walk.data,
    )
    return why, int(walk[0]), int(walk[1])


@cython.cfunc
@cython.inline
@cython.locals(buffer=cython.uchar[::1], at=cython.longlong, big=cython.bint)
@cython.returns(cython.longlong)
@cython.exceptval(-1, check=True)
def _u32(buffer, at, big):  # type: ignore[no-untyped-def]
    if big:
        return (
            (cython.cast(cython.longlong, buffer[at]) << 24)
            | (buffer[at + 1] << 16)
            | (buffer[at + 2] << 8)
            | buffer[at + 3]
        )
    return (
        buffer[at]
        | (buffer[at + 1] << 8)
        | (buffer[at + 2] << 16)
        | (cython.cast(cython.longlong, buffer[at + 3]) << 24)
    )


@cython.cfunc
@cython.locals(
    buffer=cython.uchar[::1],
    end=cython.longlong,
    big=cython.bint,
    header_bytes=cython.longlong,
    tick_ns=cython.longlong,
    lengths=cython.int,
    wire_first=cython.bint,
    unsure=cython.bint,
    offsets=cython.longlong[::1],
    captureds=cython.longlong[::1],
    wires=cython.longlong[::1],
    times=cython.longlong[::1],
    walk=cython.longlong[::1],
    at=cython.longlong,
    count=cython.longlong,
    room=cython.longlong,
    captured=cython.longlong,
    wire=cython.longlong,
    swapped=cython.longlong,
    why=cython.int,
)
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
def _walk_pcap(buffer, end, big, header_bytes, tick_ns, lengths, offsets, captureds, wires, times, walk):  # type: ignore[no-untyped-def]
    at = walk[0]
    count = 0
    room = len(offsets)
    why = NEED_MORE
    wire_first = lengths == WIRE_FIRST
    unsure = lengths == SMALLER_IS_CAPTURED
    while end - at >= header_bytes:
        captured = _u32(buffer, at + 8, big)
        wire = _u32(buffer, at + 12, big)
        if wire_first or (unsure and captured > wire):
            swapped = captured
            captured = wire
            wire = swapped
        if captured > _MAX_PACKET:
            why = TOO_LONG
            break
        if end - at - header_bytes < captured:
            break
        if count >= room:
            why = NO_ROOM
            break
        offsets[count] = at + header_bytes
        captureds[count] = captured
        wires[count] = wire
        # At most 2**32 s and 2**32 us: below 2**63 ns, no overflow.
        times[count] = _u32(buffer, at, big) * _SECOND_NS + _u32(buffer, at + 4, big) * tick_ns
        count += 1
        at += header_bytes + captured
    walk[0] = at
    walk[1] = count
    return why
