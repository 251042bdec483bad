"""TCP segments -> chunks of each direction's byte stream, in order and in causal order.

In:  the packet columns of a block with flow and direction of each packet.
Out: Chunk rows (int64[n, Chunk]), in an order in which no chunk comes before what its segment acknowledges.
Source: RFC 9293 3.4, 3.10; overlaps: the bytes delivered first stand ("first" policy, as Linux keeps what
it has received).

A segment is held while bytes before it are missing, and also while it acknowledges bytes of its peer that
have not been seen: a capture in which the answer stands before the question is thereby read in the order in
which the endpoints saw it. Held segments are references into the block's buffer; only what is still held at
the end of a block is copied. Missing bytes become a gap when the peer has acknowledged them (then the
capture lost them), never by themselves alone.
"""

# cython: boundscheck=True

from __future__ import annotations

from enum import IntEnum
from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer import limits

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
    """Capture time of the last segment that was held."""


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

# held segments: a pool of rows, linked per direction in sequence order, free rows linked too
_P = cython.declare(cython.Py_ssize_t, 9)
POOL_FIELDS: Final = 9
_P_LINK = cython.declare(cython.Py_ssize_t, 0)
_P_SEQ = cython.declare(cython.Py_ssize_t, 1)
_P_OFFSET = cython.declare(cython.Py_ssize_t, 2)
_P_LENGTH = cython.declare(cython.Py_ssize_t, 3)
_P_CAPTURED = cython.declare(cython.Py_ssize_t, 4)
_P_PACKET = cython.declare(cython.Py_ssize_t, 5)
_P_TIME = cython.declare(cython.Py_ssize_t, 6)
_P_ACK = cython.declare(cython.Py_ssize_t, 7)
_P_FLAGS = cython.declare(cython.Py_ssize_t, 8)

# scalars
_FREE = cython.declare(cython.Py_ssize_t, 0)
_OUT = cython.declare(cython.Py_ssize_t, 1)
_HELD_ALL = cython.declare(cython.Py_ssize_t, 2)
_HELD_BYTES = cython.declare(cython.Py_ssize_t, 3)

_TCP_FIN = cython.declare(cython.int, 1)
_TCP_SYN = cython.declare(cython.int, 2)
_TCP_RST = cython.declare(cython.int, 4)
_TCP_ACK = cython.declare(cython.int, 16)

_HELD_LIMIT = cython.declare(cython.longlong, limits.HELD_SEGMENTS_PER_STREAM)
_PATIENCE = cython.declare(cython.longlong, limits.HELD_PATIENCE_PACKETS)
_BYTES_LIMIT = cython.declare(cython.longlong, limits.HELD_BYTES)
# declared, because a bare literal of 32 bits and more would be a Python object
_MASK32 = cython.declare(cython.longlong, 0xFFFFFFFF)
_HALF = cython.declare(cython.longlong, 0x80000000)
_TURN = cython.declare(cython.longlong, 0x100000000)
_WINDOW_MAX = cython.declare(cython.longlong, 1 << 30)


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
    return _diff(ack, st[peer + _NEXT]) > 0


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
    st[s + _BLOCKED] = 0
    if length > 0:
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
    if flags & _TCP_FIN and st[s + _FIN] == 0 and _diff(seq + length, st[s + _NEXT]) == 0:
        st[s + _FIN] = 1
        st[s + _NEXT] = (st[s + _NEXT] + 1) & _MASK32
    return 0


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
    """Keep a segment, in sequence order. Returns 1 where there was no room."""
    s = stream * _S
    if scalars[_FREE] == 0 or st[s + _HELD] >= _HELD_LIMIT or scalars[_HELD_BYTES] + captured > _BYTES_LIMIT:
        return 1
    row = scalars[_FREE]
    p = (row - 1) * _P
    scalars[_FREE] = pool[p + _P_LINK]
    pool[p + _P_SEQ] = seq
    pool[p + _P_OFFSET] = offset
    pool[p + _P_LENGTH] = length
    pool[p + _P_CAPTURED] = captured
    pool[p + _P_PACKET] = packet
    pool[p + _P_TIME] = time_ns
    pool[p + _P_ACK] = ack
    pool[p + _P_FLAGS] = flags
    scalars[_HELD_ALL] += 1
    scalars[_HELD_BYTES] += captured
    st[s + _HELD] += 1
    st[s + _HELD_NS] = time_ns
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
    peer=cython.Py_ssize_t, p=cython.Py_ssize_t, row=cython.longlong, moved=cython.bint,
    any_moved=cython.int,
)  # fmt: skip
def _drain(st, pool, out, scalars, flow):  # type: ignore[no-untyped-def]
    """Deliver held segments as far as order and causality allow. Returns 1 if anything moved."""
    any_moved = 0
    moved = True
    while moved:
        moved = False
        for d in range(2):
            s = (flow * 2 + d) * _S
            peer = (flow * 2 + 1 - d) * _S
            while st[s + _HEAD] != 0:
                row = st[s + _HEAD]
                p = (row - 1) * _P
                if _diff(pool[p + _P_SEQ], st[s + _NEXT]) > 0:
                    break
                if pool[p + _P_FLAGS] & _TCP_ACK and _waits(st, peer, pool[p + _P_ACK]):
                    break
                st[s + _HEAD] = pool[p + _P_LINK]
                if st[s + _HEAD] == 0:
                    st[s + _TAIL] = 0
                st[s + _HELD] -= 1
                scalars[_HELD_ALL] -= 1
                scalars[_HELD_BYTES] -= pool[p + _P_CAPTURED]
                _deliver(
                    st, out, scalars, flow * 2 + d, pool[p + _P_SEQ], pool[p + _P_OFFSET],
                    pool[p + _P_LENGTH], pool[p + _P_CAPTURED], pool[p + _P_PACKET], pool[p + _P_TIME],
                    pool[p + _P_ACK], pool[p + _P_FLAGS],
                )  # fmt: skip
                pool[p + _P_LINK] = scalars[_FREE]
                scalars[_FREE] = row
                moved = True
                any_moved = 1
    return any_moved


@cython.cfunc
@cython.inline
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(st=cython.longlong[::1], s=cython.Py_ssize_t, to=cython.longlong, lost=cython.longlong)
def _lose(st, s, to):  # type: ignore[no-untyped-def]
    """Give up on the bytes before `to`."""
    lost = _diff(to, st[s + _NEXT])
    if lost > 0:
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
    scalars=cython.longlong[::1], flow=cython.Py_ssize_t, everything=cython.bint, d=cython.Py_ssize_t,
    s=cython.Py_ssize_t, peer=cython.Py_ssize_t, p=cython.Py_ssize_t, q=cython.Py_ssize_t,
)  # fmt: skip
def _unblock(st, pool, out, scalars, flow, everything):  # type: ignore[no-untyped-def]
    """Take missing bytes as lost, the longest awaited first, once or until nothing is held."""
    while True:
        s = flow * 2 * _S
        peer = s + _S
        if st[s + _HEAD] == 0 and st[peer + _HEAD] == 0:
            return 0
        d = 0
        if st[s + _HEAD] == 0:
            d = 1
        elif st[peer + _HEAD] != 0:
            p = (st[s + _HEAD] - 1) * _P
            q = (st[peer + _HEAD] - 1) * _P
            if pool[q + _P_PACKET] < pool[p + _P_PACKET]:
                d = 1
        s = (flow * 2 + d) * _S
        peer = (flow * 2 + 1 - d) * _S
        p = (st[s + _HEAD] - 1) * _P
        if _diff(pool[p + _P_SEQ], st[s + _NEXT]) > 0:
            _lose(st, s, pool[p + _P_SEQ])
        else:
            # The acknowledged bytes may never have existed (RFC 9293 3.10.7.4 lets the receiver ignore such
            # a segment), so the
            # peer's stream is not moved: if they were lost, what follows them will show it as a hole.
            pool[p + _P_FLAGS] &= ~_TCP_ACK
            st[peer + _GAPS] += 1
        _drain(st, pool, out, scalars, flow)
        if not everything:
            return 0


@cython.locals(
    flow=cython.longlong[::1], direction=cython.uchar[::1], packet=cython.longlong[::1],
    time_ns=cython.longlong[::1], seq=cython.uint[::1], ack=cython.uint[::1], flags=cython.ushort[::1],
    offset=cython.longlong[::1], length=cython.int[::1], captured=cython.int[::1],
    begins=cython.uchar[::1], st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], n=cython.Py_ssize_t, i=cython.Py_ssize_t, f=cython.Py_ssize_t,
    stream=cython.Py_ssize_t, s=cython.Py_ssize_t, peer=cython.Py_ssize_t, k=cython.Py_ssize_t,
    q=cython.longlong, a=cython.longlong, fl=cython.longlong, size=cython.longlong, delta=cython.longlong,
    waits=cython.bint, acked=cython.bint,
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
    for i in range(n):
        f = flow[i]
        if f < 0:
            continue
        stream = f * 2 + direction[i]
        s = stream * _S
        peer = (f * 2 + 1 - direction[i]) * _S
        if begins[i]:
            for k in range(2 * _S):
                st[f * 2 * _S + k] = 0
        q = seq[i]
        a = ack[i]
        fl = flags[i]
        size = length[i]
        if fl & _TCP_RST:
            # a reset may carry text for people (RFC 9293 3.5.3), never stream data
            if st[s + _HELD] != 0 or st[peer + _HELD] != 0:
                _drain(st, pool, out, scalars, f)
            continue
        if fl & _TCP_SYN:
            q = (q + 1) & _MASK32
            if st[s + _KNOWN] == 0:
                st[s + _KNOWN] = 1
                st[s + _NEXT] = q
                st[s + _FIRST] = q
            elif st[s + _KNOWN] == 2:  # its SYN stands behind its data in the capture
                if st[s + _FIRST] == q:
                    st[s + _KNOWN] = 1
                elif st[s + _POSITION] == 0 and st[s + _FIN] == 0 and _diff(st[s + _FIRST], q) > 0:
                    st[s + _KNOWN] = 1
                    st[s + _NEXT] = q
                    st[s + _FIRST] = q
        elif st[s + _KNOWN] == 0:
            st[s + _KNOWN] = 2
            st[s + _NEXT] = q
            st[s + _FIRST] = q
        if fl & _TCP_ACK and (st[peer + _HAS_ACKED] == 0 or _diff(a, st[peer + _ACKED]) > 0):
            st[peer + _ACKED] = a
            st[peer + _HAS_ACKED] = 1
        if size > 0 or fl & _TCP_FIN:
            delta = _diff(q, st[s + _NEXT])
            waits = (fl & _TCP_ACK) != 0 and _waits(st, peer, a)
            if delta <= 0 and not waits and st[s + _HEAD] == 0:
                _deliver(
                    st, out, scalars, stream, q, offset[i], size, captured[i], packet[i], time_ns[i], a, fl
                )
            elif (
                delta + size > 0
                and delta < _WINDOW_MAX
                and _hold(
                    st, pool, scalars, stream, q, offset[i], size, captured[i], packet[i], time_ns[i], a, fl
                )
            ):
                # no room: give up on what is missing, then on order
                _unblock(st, pool, out, scalars, f, False)
                if _diff(q, st[s + _NEXT]) <= 0 and st[s + _HEAD] == 0:
                    _deliver(
                        st, out, scalars, stream, q, offset[i], size, captured[i], packet[i], time_ns[i],
                        a, fl,
                    )  # fmt: skip
                else:
                    _hold(
                        st, pool, scalars, stream, q, offset[i], size, captured[i], packet[i], time_ns[i],
                        a, fl,
                    )  # fmt: skip
        if st[s + _HEAD] != 0 or st[peer + _HEAD] != 0:
            _drain(st, pool, out, scalars, f)
            for k in range(2):
                s = (f * 2 + k) * _S
                peer = (f * 2 + 1 - k) * _S
                if st[s + _HEAD] == 0:
                    continue
                st[s + _BLOCKED] += 1
                if st[s + _BLOCKED] < _PATIENCE:
                    continue
                # what is missing counts as lost if its receiver has acknowledged it, or can't be asked
                q = (st[s + _HEAD] - 1) * _P
                if _diff(pool[q + _P_SEQ], st[s + _NEXT]) > 0:
                    acked = st[peer + _KNOWN] == 0 or (
                        st[s + _HAS_ACKED] != 0 and _diff(st[s + _ACKED], st[s + _NEXT]) > 0
                    )
                else:
                    acked = True
                if acked:
                    _unblock(st, pool, out, scalars, f, False)


@cython.locals(
    slots=cython.int[::1], st=cython.longlong[::1], pool=cython.longlong[::1], out=cython.longlong[::1],
    scalars=cython.longlong[::1], i=cython.Py_ssize_t,
)  # fmt: skip
def _flush(slots, st, pool, out, scalars):  # type: ignore[no-untyped-def]
    for i in range(slots.shape[0]):
        _drain(st, pool, out, scalars, slots[i])
        _unblock(st, pool, out, scalars, slots[i], True)


class Reassembler:
    """Reassembles the streams of all open connections.

    Attributes:
        state: int64[slots * 2, Stream].
    """

    def __init__(self) -> None:
        self.state: npt.NDArray[np.int64] = np.zeros((0, STREAM_FIELDS), dtype=np.int64)
        size = limits.HELD_SEGMENTS
        self._pool: npt.NDArray[np.int64] = np.zeros((size, POOL_FIELDS), dtype=np.int64)
        self._pool[:, 0] = np.arange(2, size + 2)
        self._pool[-1, 0] = 0
        self._scalars: npt.NDArray[np.int64] = np.zeros(4, dtype=np.int64)
        self._scalars[0] = 1

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

    def flush(self, slots: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Chunks of what is still held of these connections; bytes that never came are gaps."""
        if not len(slots) or not self._scalars[2]:
            return np.empty((0, CHUNK_FIELDS), dtype=np.int64)
        out = self._out(0)
        _flush(
            slots.data,
            self.state.data.cast("B").cast("q"),
            self._pool.data.cast("B").cast("q"),
            out.data.cast("B").cast("q"),
            self._scalars.data,
        )
        return out[: int(self._scalars[1])]

    def overdue(self, now_ns: int) -> npt.NDArray[np.int32]:
        """Slots of connections that hold segments for longer than anybody retransmits."""
        if not self._scalars[2]:
            return np.empty(0, dtype=np.int32)
        holding = np.flatnonzero(self.state[:, Stream.HELD] > 0)
        age = now_ns - self.state[holding, Stream.HELD_NS]
        crowded = self._scalars[3] > limits.HELD_BYTES // 2 or self._scalars[2] > limits.HELD_SEGMENTS // 2
        patience = limits.HELD_CROWDED_NS if crowded else limits.HELD_NS
        return np.unique(holding[age > patience] // 2).astype(np.int32)

    def carry(self, buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bytes of the held segments, packed; they are then taken to stand at offset 0 of the next buffer."""
        if not self._scalars[2]:
            return buffer[:0].copy()
        pieces = []
        at = 0
        for stream in np.flatnonzero(self.state[:, Stream.HELD] > 0):
            row = int(self.state[stream, Stream.HEAD])
            while row:
                held = self._pool[row - 1]
                begin, size = int(held[2]), int(held[4])
                pieces.append(buffer[begin : begin + size])
                held[2] = at
                at += size
                row = int(held[0])
        return np.concatenate(pieces)
