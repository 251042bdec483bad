"""TCP segments -> chunks of each direction's byte stream, in order and in causal order.

In:  the packet columns of a block with flow and direction of each packet.
Out: Chunk rows (int64[n, Chunk]), in an order in which no chunk comes before what its segment acknowledges.
Source: RFC 9293 3.4, 3.10; overlaps: the bytes delivered first stand ("first" policy, as Linux keeps what
it has received).

A segment is held while bytes before it are missing, and also while it acknowledges bytes of its peer that
have not been seen: a capture in which the answer stands before the question is thereby read in the order in
which the endpoints saw it. Held segments are references into the block's buffer; only what is still held at
the end of a block is copied. Missing bytes become a gap when the peer has acknowledged them (then the
capture lost them), never by themselves alone: whoever aims a segment far ahead, or acknowledges what was
never sent, has it ignored by its peer, and must not make us skip what comes next.
"""

# cython: boundscheck=True

from __future__ import annotations

from enum import IntEnum
from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.columns.distinct import distinct

COMPILED = cython.compiled


class Stream(IntEnum):
    """State of one direction of a connection."""

    KNOWN = 0
    """0: no packet seen, 1: from its SYN (SYNCED), 2: joined midstream."""
    NEXT = 1
    """Sequence number expected next."""
    POSITION = 2
    """Stream offset of NEXT: bytes delivered or lost so far."""
    HEAD = 3
    """First held segment, index in the pool + 1, 0 for none."""
    TAIL = 4
    HELD = 5
    GAPS = 6
    GAP_BYTES = 7
    PENDING_GAP = 8
    """Bytes lost since the last chunk; the next chunk carries them."""
    FIN = 9
    ACKED = 10
    """Highest acknowledgment of this direction's bytes by its peer, as sequence number; valid with
    HAS_ACKED."""
    HAS_ACKED = 11
    BLOCKED = 12
    """Packets of the connection seen since this direction last moved while it holds something."""
    FIRST = 13
    """Sequence number of stream offset 0."""
    HELD_NS = 14
    """Latest capture time when a segment was held last."""
    LAST_ACK = 15
    """The peer's latest acknowledgment of this direction's bytes."""
    CONFIRMED = 16
    """1 once the peer has acknowledged the SYN alone."""


class Chunk(IntEnum):
    """Columns of a chunk."""

    STREAM = 0
    """flow slot * 2 + direction."""
    OFFSET = 1
    LENGTH = 2
    GAP = 3
    """Bytes missing between the previous chunk of this direction and this one."""
    PACKET = 4
    TIME_NS = 5
    ACK = 6
    SEQ = 7
    """Sequence number of the first byte."""
    POSITION = 8
    """Stream offset of the first byte."""
    SYNC = 9
    """Bits: 1 this direction is known from its SYN, 2 its peer is, 4 this direction lost bytes so far, 8
    its peer did, 16 no packet of the peer has been seen."""


STREAM_FIELDS: Final = len(Stream)
CHUNK_FIELDS: Final = len(Chunk)
SYNCED: Final = 1
MIDSTREAM: Final = 2

_S = cython.declare(cython.Py_ssize_t, len(Stream))
_K = cython.declare(cython.Py_ssize_t, len(Chunk))
_KNOWN = cython.declare(cython.Py_ssize_t, int(Stream.KNOWN))
_NEXT = cython.declare(cython.Py_ssize_t, int(Stream.NEXT))
_POSITION = cython.declare(cython.Py_ssize_t, int(Stream.POSITION))
_HEAD = cython.declare(cython.Py_ssize_t, int(Stream.HEAD))
_TAIL = cython.declare(cython.Py_ssize_t, int(Stream.TAIL))
_HELD = cython.declare(cython.Py_ssize_t, int(Stream.HELD))
_GAPS = cython.declare(cython.Py_ssize_t, int(Stream.GAPS))
_GAP_BYTES = cython.declare(cython.Py_ssize_t, int(Stream.GAP_BYTES))
_PENDING_GAP = cython.declare(cython.Py_ssize_t, int(Stream.PENDING_GAP))
_FIN = cython.declare(cython.Py_ssize_t, int(Stream.FIN))
_ACKED = cython.declare(cython.Py_ssize_t, int(Stream.ACKED))
_HAS_ACKED = cython.declare(cython.Py_ssize_t, int(Stream.HAS_ACKED))
_BLOCKED = cython.declare(cython.Py_ssize_t, int(Stream.BLOCKED))
_FIRST = cython.declare(cython.Py_ssize_t, int(Stream.FIRST))
_HELD_NS = cython.declare(cython.Py_ssize_t, int(Stream.HELD_NS))
_LAST_ACK = cython.declare(cython.Py_ssize_t, int(Stream.LAST_ACK))
_CONFIRMED = cython.declare(cython.Py_ssize_t, int(Stream.CONFIRMED))

# held segments: a pool of rows, linked per direction in sequence order, free rows linked too
_P = cython.declare(cython.Py_ssize_t, 10)
POOL_FIELDS: Final = 10
_P_LINK = cython.declare(cython.Py_ssize_t, 0)
_P_SEQ = cython.declare(cython.Py_ssize_t, 1)
_P_OFFSET = cython.declare(cython.Py_ssize_t, 2)
_P_LENGTH = cython.declare(cython.Py_ssize_t, 3)
_P_CAPTURED = cython.declare(cython.Py_ssize_t, 4)
_P_PACKET = cython.declare(cython.Py_ssize_t, 5)
_P_TIME = cython.declare(cython.Py_ssize_t, 6)
_P_ACK = cython.declare(cython.Py_ssize_t, 7)
_P_FLAGS = cython.declare(cython.Py_ssize_t, 8)
_P_OWNER = cython.declare(cython.Py_ssize_t, 9)  # stream + 1, 0 for a free row

# columns of the pool, for numpy
_OFFSET: Final = 2
_CAPTURED: Final = 4
_OWNER: Final = 9

# scalars
_FREE = cython.declare(cython.Py_ssize_t, 0)
_OUT = cython.declare(cython.Py_ssize_t, 1)
_HELD_ALL = cython.declare(cython.Py_ssize_t, 2)
_HELD_BYTES = cython.declare(cython.Py_ssize_t, 3)
_FRESH = cython.declare(cython.Py_ssize_t, 4)  # rows of the pool from here on were never used
_HAND = cython.declare(cython.Py_ssize_t, 5)  # row of the pool where room was made last
_NOW = cython.declare(cython.Py_ssize_t, 6)  # latest capture time
SCALARS: Final = 7

_TCP_FIN = cython.declare(cython.int, 1)
_TCP_SYN = cython.declare(cython.int, 2)
_TCP_RST = cython.declare(cython.int, 4)
_TCP_ACK = cython.declare(cython.int, 16)

_HELD_LIMIT = cython.declare(cython.longlong, limits.HELD_SEGMENTS_PER_STREAM)
_PATIENCE = cython.declare(cython.longlong, limits.HELD_PATIENCE_PACKETS)
_BYTES_LIMIT = cython.declare(cython.longlong, limits.HELD_BYTES)
_HELD_NS_LIMIT = cython.declare(cython.longlong, limits.HELD_NS)
# declared, because a bare literal of 32 bits and more would be a Python object
_MASK32 = cython.declare(cython.longlong, 0xFFFFFFFF)
_HALF = cython.declare(cython.longlong, 0x80000000)
_TURN = cython.declare(cython.longlong, 0x100000000)
_WINDOW_MAX = cython.declare(cython.longlong, 1 << 30)  # RFC 7323 2.3
_FLIGHT = cython.declare(cython.longlong, limits.FIRST_FLIGHT_BYTES)
_FIRST_WINDOW = cython.declare(cython.longlong, 0xFFFF)  # that of a SYN is not scaled (RFC 7323 2.2)


@cython.cfunc
@cython.inline
@cython.returns(cython.longlong)
@cython.exceptval(check=False)
@cython.locals(a=cython.longlong, b=cython.longlong, d=cython.longlong)
def _diff(a, b):  # type: ignore[no-untyped-def]
    """A - b in sequence space (RFC 9293 3.4), -2^31 .. 2^31-1."""
    d = (a - b) & _MASK32
    if d >= _HALF:
        d -= _TURN
    return d


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(-1, check=True)
@cython.locals(st=cython.longlong[::1], peer=cython.Py_ssize_t, ack=cython.longlong)
def _waits(st, peer, ack):  # type: ignore[no-untyped-def]
    """A segment acknowledges what its peer has not been seen to send."""
    if st[peer + _KNOWN] == 0:
        return st[peer + _GAPS] == 0  # one that was waited for in vain may never be seen
    return _diff(ack, st[peer + _NEXT]) > st[peer + _FIN]


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(-1, check=True)
@cython.locals(st=cython.longlong[::1], s=cython.Py_ssize_t, peer=cython.Py_ssize_t)
def _received(st, s, peer):  # type: ignore[no-untyped-def]
    """The peer has what stands next in this direction, so the capture missed it; or it can't be asked."""
    if st[peer + _KNOWN] == 0 or st[s + _HAS_ACKED] == 0:
        return True
    return _diff(st[s + _ACKED], st[s + _NEXT]) > st[s + _FIN]


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], out=cython.longlong[::1], scalars=cython.longlong[::1],
    stream=cython.Py_ssize_t, seq=cython.longlong, offset=cython.longlong, length=cython.longlong,
    captured=cython.longlong, packet=cython.longlong, time_ns=cython.longlong, ack=cython.longlong,
    flags=cython.longlong, s=cython.Py_ssize_t, o=cython.Py_ssize_t, skip=cython.longlong,
    peer=cython.Py_ssize_t, sync=cython.longlong,
)  # fmt: skip
def _deliver(st, out, scalars, stream, seq, offset, length, captured, packet, time_ns, ack, flags):  # type: ignore[no-untyped-def]
    """Append what is new of a segment that begins at or before NEXT."""
    s = stream * _S
    skip = -_diff(seq, st[s + _NEXT])
    if skip > 0:
        if skip > length:
            skip = length
        seq = (seq + skip) & _MASK32
        offset += skip
        length -= skip
        captured -= skip
        if captured < 0:
            captured = 0
    if length > 0:
        st[s + _BLOCKED] = 0
        if captured > 0:
            o = scalars[_OUT] * _K
            scalars[_OUT] += 1
            out[o] = stream
            out[o + 1] = offset
            out[o + 2] = captured
            out[o + 3] = st[s + _PENDING_GAP]
            out[o + 4] = packet
            out[o + 5] = time_ns
            out[o + 6] = ack
            out[o + 7] = seq
            out[o + 8] = st[s + _POSITION]
            peer = (stream ^ 1) * _S
            sync = 0
            if st[s + _KNOWN] == 1:
                sync |= 1
            if st[peer + _KNOWN] == 1:
                sync |= 2
            elif st[peer + _KNOWN] == 0:
                sync |= 16
            if st[s + _GAPS] != 0:
                sync |= 4
            if st[peer + _GAPS] != 0:
                sync |= 8
            out[o + 9] = sync
            st[s + _PENDING_GAP] = 0
        if captured < length:
            # cut by snaplen: known to exist, not in the file
            st[s + _PENDING_GAP] += length - captured
            st[s + _GAPS] += 1
            st[s + _GAP_BYTES] += length - captured
        st[s + _POSITION] += length
        st[s + _NEXT] = (seq + length) & _MASK32
    if flags & _TCP_FIN and _diff(seq + length, st[s + _NEXT]) == 0:
        st[s + _FIN] = 1  # NEXT stays: data may still come there, where the FIN was forged
    return 0


@cython.cfunc
@cython.inline
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], scalars=cython.longlong[::1], s=cython.Py_ssize_t,
    row=cython.longlong, p=cython.Py_ssize_t,
)  # fmt: skip
def _release(st, pool, scalars, s, row):  # type: ignore[no-untyped-def]
    """Give a row back to the pool that has left its direction's list."""
    p = (row - 1) * _P
    st[s + _HELD] -= 1
    scalars[_HELD_ALL] -= 1
    scalars[_HELD_BYTES] -= pool[p + _P_CAPTURED]
    pool[p + _P_OWNER] = 0
    pool[p + _P_LINK] = scalars[_FREE]
    scalars[_FREE] = row
    return 0


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], scalars=cython.longlong[::1], s=cython.Py_ssize_t,
    keep=cython.longlong, row=cython.longlong, last=cython.longlong, following=cython.longlong,
    k=cython.longlong,
)  # fmt: skip
def _prune(st, pool, scalars, s, keep):  # type: ignore[no-untyped-def]
    """Drop what a direction holds but for the `keep` nearest segments (as Linux, tcp_prune_ofo_queue)."""
    last = 0
    row = st[s + _HEAD]
    k = 0
    while k < keep and row != 0:
        last = row
        row = pool[(row - 1) * _P + _P_LINK]
        k += 1
    if last == 0:
        st[s + _HEAD] = 0
    else:
        pool[(last - 1) * _P + _P_LINK] = 0
    st[s + _TAIL] = last
    while row != 0:
        following = pool[(row - 1) * _P + _P_LINK]
        _release(st, pool, scalars, s, row)
        row = following
    return 0


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], scalars=cython.longlong[::1],
    captured=cython.longlong, rows=cython.longlong, looked=cython.longlong, s=cython.Py_ssize_t,
    hand=cython.Py_ssize_t,
)  # fmt: skip
def _make_room(st, pool, scalars, captured):  # type: ignore[no-untyped-def]
    """Make room for one segment more: somebody who holds many loses the farther half of them.

    A hand goes round the pool and takes the direction it points at: who holds most is hit most.
    """
    rows = pool.shape[0] // _P
    while (scalars[_FREE] == 0 and scalars[_FRESH] == rows) or scalars[_HELD_BYTES] + captured > _BYTES_LIMIT:
        looked = 0
        hand = scalars[_HAND]
        while looked < rows and pool[hand * _P + _P_OWNER] == 0:
            looked += 1
            hand += 1
            if hand == rows:
                hand = 0
        scalars[_HAND] = hand
        if looked == rows:
            return 0
        s = (pool[hand * _P + _P_OWNER] - 1) * _S
        _prune(st, pool, scalars, s, st[s + _HELD] // 2)
    return 1


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], scalars=cython.longlong[::1],
    stream=cython.Py_ssize_t, seq=cython.longlong, offset=cython.longlong, length=cython.longlong,
    captured=cython.longlong, packet=cython.longlong, time_ns=cython.longlong, ack=cython.longlong,
    flags=cython.longlong, s=cython.Py_ssize_t, p=cython.Py_ssize_t, row=cython.longlong,
    before=cython.longlong, at=cython.longlong,
)  # fmt: skip
def _hold(st, pool, scalars, stream, seq, offset, length, captured, packet, time_ns, ack, flags):  # type: ignore[no-untyped-def]
    """Keep a segment, in sequence order. Where there are too many, the farthest go."""
    s = stream * _S
    if st[s + _HELD] >= _HELD_LIMIT:
        if _diff(seq, pool[(st[s + _TAIL] - 1) * _P + _P_SEQ]) >= 0:
            return 0
        _prune(st, pool, scalars, s, _HELD_LIMIT // 2)
    if not _make_room(st, pool, scalars, captured):
        return 0
    row = scalars[_FREE]
    if row == 0:
        scalars[_FRESH] += 1
        row = scalars[_FRESH]
    else:
        scalars[_FREE] = pool[(row - 1) * _P + _P_LINK]
    p = (row - 1) * _P
    pool[p + _P_SEQ] = seq
    pool[p + _P_OFFSET] = offset
    pool[p + _P_LENGTH] = length
    pool[p + _P_CAPTURED] = captured
    pool[p + _P_PACKET] = packet
    pool[p + _P_TIME] = time_ns
    pool[p + _P_ACK] = ack
    pool[p + _P_FLAGS] = flags
    pool[p + _P_OWNER] = stream + 1
    scalars[_HELD_ALL] += 1
    scalars[_HELD_BYTES] += captured
    st[s + _HELD] += 1
    st[s + _HELD_NS] = scalars[_NOW]
    at = st[s + _HEAD]
    if at == 0:
        pool[p + _P_LINK] = 0
        st[s + _HEAD] = row
        st[s + _TAIL] = row
        st[s + _BLOCKED] = 0
        return 0
    if _diff(seq, pool[(st[s + _TAIL] - 1) * _P + _P_SEQ]) >= 0:
        pool[p + _P_LINK] = 0
        pool[(st[s + _TAIL] - 1) * _P + _P_LINK] = row
        st[s + _TAIL] = row
        return 0
    before = 0
    while at != 0 and _diff(seq, pool[(at - 1) * _P + _P_SEQ]) >= 0:
        before = at
        at = pool[(at - 1) * _P + _P_LINK]
    pool[p + _P_LINK] = at
    if before == 0:
        st[s + _HEAD] = row
    else:
        pool[(before - 1) * _P + _P_LINK] = row
    return 0


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], flow=cython.Py_ssize_t, d=cython.Py_ssize_t, s=cython.Py_ssize_t,
    peer=cython.Py_ssize_t, p=cython.Py_ssize_t, row=cython.longlong, before=cython.longlong,
    following=cython.longlong, delta=cython.longlong, size=cython.longlong, moved=cython.bint,
)  # fmt: skip
def _drain(st, pool, out, scalars, flow):  # type: ignore[no-untyped-def]
    """Deliver held segments of both directions as far as order and causality allow.

    One that waits for its peer does not stop those behind it: its receiver may have ignored it.
    """
    moved = True
    while moved:
        moved = False
        for d in range(2):
            s = (flow * 2 + d) * _S
            peer = (flow * 2 + 1 - d) * _S
            before = 0
            row = st[s + _HEAD]
            while row != 0:
                p = (row - 1) * _P
                delta = _diff(pool[p + _P_SEQ], st[s + _NEXT])
                if delta > 0:
                    break
                following = pool[p + _P_LINK]
                size = pool[p + _P_LENGTH] + (pool[p + _P_FLAGS] & _TCP_FIN)
                if delta + size > 0 and pool[p + _P_FLAGS] & _TCP_ACK and _waits(st, peer, pool[p + _P_ACK]):
                    before = row
                    row = following
                    continue
                if before == 0:
                    st[s + _HEAD] = following
                else:
                    pool[(before - 1) * _P + _P_LINK] = following
                if following == 0:
                    st[s + _TAIL] = before
                _deliver(
                    st, out, scalars, flow * 2 + d, pool[p + _P_SEQ], pool[p + _P_OFFSET],
                    pool[p + _P_LENGTH], pool[p + _P_CAPTURED], pool[p + _P_PACKET], pool[p + _P_TIME],
                    pool[p + _P_ACK], pool[p + _P_FLAGS],
                )  # fmt: skip
                _release(st, pool, scalars, s, row)
                row = following
                moved = True
    return 0


@cython.cfunc
@cython.inline
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(st=cython.longlong[::1], s=cython.Py_ssize_t, to=cython.longlong, lost=cython.longlong)
def _lose(st, s, to):  # type: ignore[no-untyped-def]
    """Give up on the bytes before `to`."""
    lost = (to - st[s + _NEXT]) & _MASK32
    st[s + _NEXT] = to
    st[s + _POSITION] += lost
    st[s + _PENDING_GAP] += lost
    st[s + _GAPS] += 1
    st[s + _GAP_BYTES] += lost
    return 0


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], flow=cython.Py_ssize_t, d=cython.Py_ssize_t, over=cython.bint,
    s=cython.Py_ssize_t, peer=cython.Py_ssize_t, p=cython.Py_ssize_t, to=cython.longlong,
)  # fmt: skip
def _give_up(st, pool, out, scalars, flow, d, over):  # type: ignore[no-untyped-def]
    """Take what a direction's first held segment waits for as lost."""
    s = (flow * 2 + d) * _S
    peer = (flow * 2 + 1 - d) * _S
    p = (st[s + _HEAD] - 1) * _P
    to = pool[p + _P_SEQ]
    if _diff(to, st[s + _NEXT]) > 0:
        if not over and st[peer + _KNOWN] != 0 and st[s + _HAS_ACKED] != 0 and _diff(st[s + _ACKED], to) < 0:
            to = st[s + _ACKED]  # what lies behind it the receiver has not got either
        _lose(st, s, to)
    else:
        # The receiver took it, so the acknowledged bytes existed. Their number is not known from this: the
        # peer's stream is not moved, what follows in it will show them as a hole.
        pool[p + _P_FLAGS] &= ~_TCP_ACK
        st[peer + _GAPS] += 1
    _drain(st, pool, out, scalars, flow)
    return 0


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], flow=cython.Py_ssize_t, d=cython.Py_ssize_t, s=cython.Py_ssize_t,
    peer=cython.Py_ssize_t, over=cython.bint,
)  # fmt: skip
def _let_go(st, pool, out, scalars, flow, over):  # type: ignore[no-untyped-def]
    """Hold nothing of a connection any more, what was held longest first.

    Unless the connection is over, what its receivers never acknowledged is dropped: they may have ignored it.
    """
    _drain(st, pool, out, scalars, flow)
    while True:
        s = flow * 2 * _S
        peer = s + _S
        if st[s + _HEAD] == 0 and st[peer + _HEAD] == 0:
            return 0
        d = 0
        if st[s + _HEAD] == 0 or (
            st[peer + _HEAD] != 0
            and pool[(st[peer + _HEAD] - 1) * _P + _P_PACKET] < pool[(st[s + _HEAD] - 1) * _P + _P_PACKET]
        ):
            d = 1
            s, peer = peer, s
        if over or _received(st, s, peer):
            _give_up(st, pool, out, scalars, flow, d, over)
        else:
            _prune(st, pool, scalars, s, 0)


@cython.locals(
    flow=cython.longlong[::1], direction=cython.uchar[::1], packet=cython.longlong[::1],
    time_ns=cython.longlong[::1], seq=cython.uint[::1], ack=cython.uint[::1], flags=cython.ushort[::1],
    offset=cython.longlong[::1], length=cython.int[::1], captured=cython.int[::1],
    begins=cython.uchar[::1], st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], n=cython.Py_ssize_t, i=cython.Py_ssize_t, f=cython.Py_ssize_t,
    stream=cython.Py_ssize_t, s=cython.Py_ssize_t, peer=cython.Py_ssize_t, k=cython.Py_ssize_t,
    q=cython.longlong, a=cython.longlong, fl=cython.longlong, size=cython.longlong, delta=cython.longlong,
    fin=cython.longlong, now=cython.longlong,
)  # fmt: skip
def _reassemble(  # type: ignore[no-untyped-def]
    flow,
    direction,
    packet,
    time_ns,
    seq,
    ack,
    flags,
    offset,
    length,
    captured,
    begins,
    st,
    pool,
    out,
    scalars,
):
    n = flow.shape[0]
    now = scalars[_NOW]
    for i in range(n):
        if time_ns[i] > now:
            now = time_ns[i]
            scalars[_NOW] = now
        f = flow[i]
        if f < 0:
            continue
        stream = f * 2 + direction[i]
        s = stream * _S
        peer = (f * 2 + 1 - direction[i]) * _S
        if begins[i]:
            for k in range(2 * _S):
                st[f * 2 * _S + k] = 0
        elif (st[s + _HEAD] != 0 and now - st[s + _HELD_NS] > _HELD_NS_LIMIT) or (
            st[peer + _HEAD] != 0 and now - st[peer + _HELD_NS] > _HELD_NS_LIMIT
        ):
            _let_go(st, pool, out, scalars, f, False)
        q = seq[i]
        a = ack[i]
        fl = flags[i]
        size = length[i]
        fin = fl & _TCP_FIN
        if fl & _TCP_RST:
            # a reset may carry text for people (RFC 9293 3.5.3), never stream data
            continue
        if fl & _TCP_SYN:
            q = (q + 1) & _MASK32
            if st[s + _KNOWN] == 0 or (st[s + _KNOWN] == 2 and st[s + _POSITION] == 0):
                st[s + _KNOWN] = 1
                st[s + _NEXT] = q
                st[s + _FIRST] = q
            elif st[s + _KNOWN] == 2 and st[s + _FIRST] == q:
                st[s + _KNOWN] = 1  # its SYN stands behind its data in the capture
        elif st[s + _KNOWN] == 0:
            st[s + _KNOWN] = 2
            if st[s + _HAS_ACKED] != 0 and 0 < _diff(q, st[s + _ACKED]) <= _FLIGHT:
                q = st[s + _ACKED]  # what the peer waits for comes late, or was missed
            st[s + _NEXT] = q
            st[s + _FIRST] = q
            q = seq[i]
        if fl & _TCP_ACK:
            st[peer + _LAST_ACK] = a
            if st[peer + _KNOWN] == 1 and a == st[peer + _FIRST]:
                st[peer + _CONFIRMED] = 1
            if st[peer + _HAS_ACKED] == 0 or _diff(a, st[peer + _ACKED]) > 0:
                st[peer + _ACKED] = a
                st[peer + _HAS_ACKED] = 1
        elif not fl & _TCP_SYN and st[peer + _HAS_ACKED] != 0:
            # once a connection is open its receivers drop what has no ACK bit (RFC 9293 3.10.7.4)
            size = 0
            fin = 0
        if size + fin > 0:
            delta = _diff(q, st[s + _NEXT])
            if (
                st[s + _KNOWN] == 1
                and not st[s + _CONFIRMED]
                and st[s + _POSITION] == 0
                and not fl & _TCP_SYN
                and (delta < -1 or delta > _FIRST_WINDOW)
                and (
                    st[peer + _KNOWN] != 0
                    or st[s + _HEAD] == 0
                    or _diff(pool[(st[s + _HEAD] - 1) * _P + _P_SEQ], st[s + _NEXT]) > 0
                )
            ):
                # nobody has acknowledged that SYN, and these data do not follow it: it was not theirs; but
                # where a capture has only one side, data that follow it wait for its peer
                _prune(st, pool, scalars, s, 0)
                st[s + _KNOWN] = 2
                st[s + _NEXT] = q
                st[s + _FIRST] = q
                delta = 0
            elif (delta >= _WINDOW_MAX or delta + size <= -_WINDOW_MAX) and (
                st[s + _HAS_ACKED] != 0
                and _diff(st[s + _LAST_ACK], q) < _FIRST_WINDOW
                and _diff(st[s + _LAST_ACK], q) > -_FIRST_WINDOW
            ):
                # both sides are elsewhere: the capture missed more than any window
                _prune(st, pool, scalars, s, 0)
                _lose(st, s, q)
                st[s + _ACKED] = st[s + _LAST_ACK]
                delta = 0
            if delta <= 0 and not (fl & _TCP_ACK and _waits(st, peer, a)):
                _deliver(
                    st, out, scalars, stream, q, offset[i], size, captured[i], packet[i], time_ns[i], a, fl
                )
            elif delta + size + fin > 0 and delta < _WINDOW_MAX:
                _hold(
                    st, pool, scalars, stream, q, offset[i], size, captured[i], packet[i], time_ns[i], a, fl
                )
        if st[s + _HEAD] != 0 or st[peer + _HEAD] != 0:
            _drain(st, pool, out, scalars, f)
            for k in range(2):
                s = (f * 2 + k) * _S
                if st[s + _HEAD] == 0:
                    continue
                st[s + _BLOCKED] += 1
                if st[s + _BLOCKED] >= _PATIENCE and _received(st, s, (f * 2 + 1 - k) * _S):
                    _give_up(st, pool, out, scalars, f, k, False)


@cython.locals(
    slots=cython.int[::1], st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], i=cython.Py_ssize_t, over=cython.bint,
)  # fmt: skip
def _end(slots, st, pool, out, scalars, over):  # type: ignore[no-untyped-def]
    for i in range(slots.shape[0]):
        _let_go(st, pool, out, scalars, slots[i], over)


class Reassembler:
    """Reassembles the streams of all open connections.

    Attributes:
        state: int64[slots * 2, Stream].
    """

    def __init__(self) -> None:
        self.state: npt.NDArray[np.int64] = np.zeros((0, STREAM_FIELDS), dtype=np.int64)
        self._pool: npt.NDArray[np.int64] = np.zeros((limits.HELD_SEGMENTS, POOL_FIELDS), dtype=np.int64)
        self._scalars: npt.NDArray[np.int64] = np.zeros(SCALARS, dtype=np.int64)

    def _out(self, rows: int) -> npt.NDArray[np.int64]:
        self._scalars[1] = 0
        return np.empty((rows + int(self._scalars[2]) + 1, CHUNK_FIELDS), dtype=np.int64)

    def reassemble(
        self,
        columns: object,
        flow: npt.NDArray[np.int64],
        direction: npt.NDArray[np.uint8],
        begins: npt.NDArray[np.uint8],
        capacity: int,
    ) -> npt.NDArray[np.int64]:
        """Chunks of a block, int64[n, Chunk].

        Args:
            columns: The packet columns.
            flow: Slot of each packet's connection, -1 for none.
            direction: Direction of each packet.
            begins: 1 where a packet begins a connection; the slot's state starts afresh.
            capacity: Slots of the flow table.
        """
        if len(self.state) < 2 * capacity:
            state = np.zeros((2 * capacity, STREAM_FIELDS), dtype=np.int64)
            state[: len(self.state)] = self.state
            self.state = state
        out = self._out(len(flow))
        names = (
            "packet",
            "time_ns",
            "seq",
            "ack",
            "flags",
            "payload_offset",
            "payload_length",
            "payload_captured",
        )
        _reassemble(
            flow.data,
            direction.data,
            *(getattr(columns, name).data for name in names),
            begins.data,
            self.state.data.cast("B").cast("q"),
            self._pool.data.cast("B").cast("q"),
            out.data.cast("B").cast("q"),
            self._scalars.data,
        )
        return out[: int(self._scalars[1])]

    @property
    def held(self) -> tuple[int, int]:
        """Segments that are held, and their bytes."""
        return int(self._scalars[2]), int(self._scalars[3])

    def flush(self, slots: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Chunks of what is still held of connections that are over; bytes that never came are gaps."""
        return self._end(slots, True)

    def expire(self, now_ns: int) -> npt.NDArray[np.int64]:
        """Chunks of connections that hold segments for longer than anybody retransmits.

        What their receivers have acknowledged is given, with gaps; the rest they never took: it is dropped.
        """
        segments, size = self.held
        if not segments:
            return np.empty((0, CHUNK_FIELDS), dtype=np.int64)
        owners = self._pool[self._held_rows(), _OWNER]
        holding = distinct(owners) - 1
        age = max(now_ns, int(self._scalars[6])) - self.state[holding, Stream.HELD_NS]
        crowded = size > limits.HELD_BYTES // 2 or segments > limits.HELD_SEGMENTS // 2
        patience = limits.HELD_CROWDED_NS if crowded else limits.HELD_NS
        return self._end(distinct(holding[age > patience] // 2).astype(np.int32), False)

    def _end(self, slots: npt.NDArray[np.int32], over: bool) -> npt.NDArray[np.int64]:
        if not len(slots) or not self._scalars[2]:
            return np.empty((0, CHUNK_FIELDS), dtype=np.int64)
        out = self._out(0)
        _end(
            slots.data,
            self.state.data.cast("B").cast("q"),
            self._pool.data.cast("B").cast("q"),
            out.data.cast("B").cast("q"),
            self._scalars.data,
            over,
        )
        return out[: int(self._scalars[1])]

    def carry(self, buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bytes of the held segments, packed; they are then taken to stand at offset 0 of the next buffer."""
        if not self._scalars[2]:
            return buffer[:0].copy()
        rows = self._held_rows()
        sizes = self._pool[rows, _CAPTURED]
        ends = np.cumsum(sizes)
        begins = self._pool[rows, _OFFSET].tolist()
        pieces = [buffer[begin : begin + size] for begin, size in zip(begins, sizes.tolist(), strict=True)]
        self._pool[rows, _OFFSET] = ends - sizes
        return np.concatenate(pieces)

    def _held_rows(self) -> npt.NDArray[np.int64]:
        """Rows of the pool that hold a segment."""
        used = int(self._scalars[4])
        return np.flatnonzero(self._pool[:used, _OWNER])
