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

LONGEST_RECORD: Final = limits.MAX_PACKET_BYTES + (1 << 20)
"""Longest record that is held in one piece: the largest packet, and 1 MiB for the options of a pcapng block
(a comment has at most 64 KiB)."""

# Why a loop stopped at a record.
NEED_MORE: Final = 0
"""It is not complete before the end."""
NO_ROOM: Final = 1
"""The columns are full."""
TOO_LONG: Final = 2
"""A pcap packet longer than limits.MAX_PACKET_BYTES, or a pcapng block longer than LONGEST_RECORD."""
SECTION: Final = 3
"""A complete section header block, of either byte order."""
INTERFACE: Final = 4
"""A complete interface description block."""
TOO_SHORT: Final = 5
"""A pcapng block shorter than its own fixed fields."""
LENGTHS_DIFFER: Final = 6
"""The two copies of a pcapng block's length differ."""
NO_BYTE_ORDER: Final = 7
"""A section header block without the byte-order magic."""

# Which of the two lengths of a pcap record comes first.
CAPTURED_FIRST: Final = 0
WIRE_FIRST: Final = 1
SMALLER_IS_CAPTURED: Final = 2

INTERFACE_FIELDS: Final = 6
"""Fields of a pcapng interface, in order: link type; snaplen, 0 for none; multiply and divide, which make its
time units nanoseconds; binary: where not 0, a unit is 2**-binary s instead; nanoseconds to add."""

# The array `state` of frame_pcapng.
LAST_NS: Final = 0
"""Time of the last packet, which a packet without a time takes."""
NO_INTERFACE: Final = 1
"""Packets skipped because the section does not describe their interface."""
NO_INTERFACE_AT: Final = 2
"""Index of the first of them."""
NO_FIT: Final = 3
"""Packets skipped because they don't fit in their block, or are longer than limits.MAX_PACKET_BYTES."""
NO_FIT_AT: Final = 4
"""Index of the first of them."""
STATE_FIELDS: Final = 5

NO_LINKTYPE: Final = 0xFFFF
"""Link type of a row for a block that is no packet but has a packet number in Wireshark."""

_MAX_PACKET = cython.declare(cython.longlong, limits.MAX_PACKET_BYTES)
_LONGEST_RECORD = cython.declare(cython.longlong, LONGEST_RECORD)
_SECOND_NS = cython.declare(cython.longlong, 1_000_000_000)
_MAX_INT64 = cython.declare(cython.longlong, 0x7FFF_FFFF_FFFF_FFFF)

# pcapng block types.
_SECTION_HEADER = cython.declare(cython.longlong, 0x0A0D0D0A)
_INTERFACE_DESCRIPTION = cython.declare(cython.longlong, 1)
_PACKET = cython.declare(cython.longlong, 2)  # obsolete
_SIMPLE_PACKET = cython.declare(cython.longlong, 3)
_ENHANCED_PACKET = cython.declare(cython.longlong, 6)
# Not packets, but Wireshark 4.0 numbers them as such (wiretap/pcapng.c): systemd journal, Sysdig, custom.
_JOURNAL = cython.declare(cython.longlong, 9)
_SYSDIG_EVENT = cython.declare(cython.longlong, 0x204)
_SYSDIG_EVENT_2 = cython.declare(cython.longlong, 0x216)
_SYSDIG_EVENT_2_LARGE = cython.declare(cython.longlong, 0x221)
_CUSTOM = cython.declare(cython.longlong, 0x0BAD)
_CUSTOM_NOT_COPIED = cython.declare(cython.longlong, 0x4000_0BAD)
_BYTE_ORDER_MAGIC = cython.declare(cython.longlong, 0x1A2B3C4D)


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
    why: int = _walk_pcap(buffer.data, end, big, header_bytes, tick_ns, lengths, columns.data, walk.data)
    return why, int(walk[0]), int(walk[1])


def frame_pcapng(
    buffer: npt.NDArray[np.uint8],
    at: int,
    end: int,
    *,
    big: bool,
    trusted: bool,
    interfaces: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    count: int,
) -> tuple[int, int, int]:
    """Frame the packets of a pcapng section up to a block that changes how the next ones are read.

    Args:
        buffer: Bytes of the file.
        at: Index of the first block.
        end: End of the bytes.
        big: Whether the section's numbers are big-endian.
        trusted: Take the first block by its leading length even where the trailing copy differs.
        interfaces: A row of INTERFACE_FIELDS for each interface of the section.
        state: STATE_FIELDS numbers, handed from call to call; zeros for the first.
        columns: Filled from `count` up to the number of packets.
        count: Packets that are in the columns already.

    Returns:
        Why the loop stopped, the index of the first block not framed, and the packets in the columns.
    """
    walk = np.array([at, count], dtype=np.int64)  # what the loop leaves behind
    why: int = _walk_pcapng(
        buffer.data, end, big, trusted, interfaces.data, state.data, columns.data, walk.data
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
@cython.inline
@cython.locals(buffer=cython.uchar[::1], at=cython.longlong, big=cython.bint)
@cython.returns(cython.longlong)
@cython.exceptval(-1, check=True)
def _u16(buffer, at, big):  # type: ignore[no-untyped-def]
    if big:
        return (buffer[at] << 8) | buffer[at + 1]
    return buffer[at] | (buffer[at + 1] << 8)


@cython.cfunc
@cython.locals(buffer=cython.uchar[::1], walk=cython.longlong[::1], columns=cython.longlong[:, ::1])
@cython.locals(end=cython.longlong, header_bytes=cython.longlong, tick_ns=cython.longlong)
@cython.locals(lengths=cython.int, why=cython.int)
@cython.locals(big=cython.bint, wire_first=cython.bint, unsure=cython.bint)
@cython.locals(at=cython.longlong, count=cython.longlong, room=cython.longlong)
@cython.locals(captured=cython.longlong, wire=cython.longlong, swapped=cython.longlong)
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
def _walk_pcap(buffer, end, big, header_bytes, tick_ns, lengths, columns, walk):  # type: ignore[no-untyped-def]
    at = walk[0]
    count = 0
    room = columns.shape[1]
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
        columns[0, count] = at + header_bytes
        columns[1, count] = captured
        columns[2, count] = wire
        # At most 2**32 s and 2**32 us: below 2**63 ns, no overflow.
        columns[3, count] = _u32(buffer, at, big) * _SECOND_NS + _u32(buffer, at + 4, big) * tick_ns
        count += 1
        at += header_bytes + captured
    walk[0] = at
    walk[1] = count
    return why


@cython.cfunc
@cython.inline
@cython.locals(units=cython.ulonglong, multiply=cython.ulonglong, divide=cython.ulonglong)
@cython.locals(fraction=cython.ulonglong, seconds=cython.ulonglong, limit=cython.ulonglong)
@cython.locals(binary=cython.longlong, add=cython.longlong, time_ns=cython.longlong)
@cython.returns(cython.longlong)
def _nanoseconds(units, multiply, divide, binary, add):  # type: ignore[no-untyped-def]
    """Time units of an interface as nanoseconds since the epoch; outside int64 the nearest."""
    limit = _MAX_INT64
    if binary == 0:
        if multiply > 1 and units > limit // multiply:
            time_ns = _MAX_INT64
        else:
            units = units * multiply // divide
            time_ns = units if units < limit else limit
    else:
        seconds = 0
        fraction = units
        if binary < 64:
            seconds = units >> binary
            fraction = units - (seconds << binary)
        if binary > 34:  # 34 bits of the fraction are 0.06 ns, and times 10**9 they still fit in 64
            fraction = fraction >> (binary - 34) if binary < 98 else 0
            binary = 34
        if seconds > 9_223_372_035:  # 2**63 ns
            time_ns = _MAX_INT64
        else:
            time_ns = seconds * 1_000_000_000 + ((fraction * 1_000_000_000) >> binary)
    if add > 0 and time_ns > _MAX_INT64 - add:
        return _MAX_INT64
    return time_ns + add


@cython.cfunc
@cython.locals(buffer=cython.uchar[::1], walk=cython.longlong[::1], state=cython.longlong[::1])
@cython.locals(interfaces=cython.longlong[:, ::1], columns=cython.longlong[:, ::1])
@cython.locals(big=cython.bint, trusted=cython.bint, order=cython.bint, timed=cython.bint, why=cython.int)
@cython.locals(end=cython.longlong, at=cython.longlong, count=cython.longlong, room=cython.longlong)
@cython.locals(kind=cython.longlong, total=cython.longlong, span=cython.longlong, fixed=cython.longlong)
@cython.locals(interface_count=cython.longlong, interface=cython.longlong, header=cython.longlong)
@cython.locals(captured=cython.longlong, wire=cython.longlong)
@cython.locals(units=cython.ulonglong, time_ns=cython.longlong)
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
def _walk_pcapng(buffer, end, big, trusted, interfaces, state, columns, walk):  # type: ignore[no-untyped-def]
    at = walk[0]
    count = walk[1]
    room = columns.shape[1]
    time_ns = state[LAST_NS]
    interface_count = interfaces.shape[0]
    why = NEED_MORE
    while end - at >= 12:
        kind = _u32(buffer, at, big)
        order = big
        if kind == _SECTION_HEADER:  # the same in both byte orders
            order = _u32(buffer, at + 8, True) == _BYTE_ORDER_MAGIC
            if not order and _u32(buffer, at + 8, False) != _BYTE_ORDER_MAGIC:
                why = NO_BYTE_ORDER
                break
        total = _u32(buffer, at + 4, order)
        span = (total + 3) & ~3  # a multiple of 4 by the draft; Wireshark reads those that are not, too
        fixed = 12
        if kind in (_ENHANCED_PACKET, _PACKET):
            fixed = 32
        elif kind == _SIMPLE_PACKET:
            fixed = 16
        elif kind == _SECTION_HEADER:
            fixed = 28
        elif kind == _INTERFACE_DESCRIPTION:
            fixed = 20
        if total < fixed:
            why = TOO_SHORT
            break
        if span > _LONGEST_RECORD:
            why = TOO_LONG
            break
        if end - at < span:
            break
        if _u32(buffer, at + span - 4, order) != total and not trusted:
            why = LENGTHS_DIFFER
            break
        if count >= room:
            why = NO_ROOM
            break
        trusted = False
        if kind == _SECTION_HEADER:
            why = SECTION
            break
        if kind == _INTERFACE_DESCRIPTION:
            why = INTERFACE
            break
        if fixed == 12:
            if kind in (_JOURNAL, _SYSDIG_EVENT, _SYSDIG_EVENT_2, _SYSDIG_EVENT_2_LARGE) or (
                kind in (_CUSTOM, _CUSTOM_NOT_COPIED) and total >= 16
            ):
                columns[0, count] = at
                columns[1, count] = 0
                columns[2, count] = 0
                columns[3, count] = time_ns
                columns[4, count] = NO_LINKTYPE
                count += 1
            at += span
            continue
        header = 28
        timed = True
        if kind == _ENHANCED_PACKET:
            interface = _u32(buffer, at + 8, big)
        elif kind == _PACKET:
            interface = _u16(buffer, at + 8, big)
        else:
            interface = 0
            header = 12
            timed = False
        if interface >= interface_count:
            if state[NO_INTERFACE] == 0:
                state[NO_INTERFACE_AT] = at
            state[NO_INTERFACE] += 1
            at += span
            continue
        if timed:
            captured = _u32(buffer, at + 20, big)
            wire = _u32(buffer, at + 24, big)
        else:
            wire = _u32(buffer, at + 8, big)
            captured = wire
            if interfaces[interface, 1] != 0 and captured > interfaces[interface, 1]:
                captured = interfaces[interface, 1]
        if captured > _MAX_PACKET or captured > total - header - 4:
            if state[NO_FIT] == 0:
                state[NO_FIT_AT] = at
            state[NO_FIT] += 1
            at += span
            continue
        if timed:
            units = (cython.cast(cython.ulonglong, _u32(buffer, at + 12, big)) << 32) | _u32(
                buffer, at + 16, big
            )
            time_ns = _nanoseconds(
                units,
                interfaces[interface, 2],
                interfaces[interface, 3],
                interfaces[interface, 4],
                interfaces[interface, 5],
            )
        columns[0, count] = at + header
        columns[1, count] = captured
        columns[2, count] = wire
        columns[3, count] = time_ns
        columns[4, count] = interfaces[interface, 0]
        count += 1
        at += span
    state[LAST_NS] = time_ns
    walk[0] = at
    walk[1] = count
    return why
