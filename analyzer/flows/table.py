"""Packets -> TCP connections: which connection, which direction, where one begins.

In:  the packet columns of a block.
Out: for each packet the slot of its connection (-1: not TCP), its direction and whether it begins a
connection.
Source: tuple reuse as tshark counts tcp.stream (a SYN with a new initial sequence number begins another
connection).

Direction 0 is the originator: the sender of the first packet seen, as a conntrack has it. The TLS client
may be either. Slots are reused once a connection has been retired, so memory follows what is open, not what
was read.
"""

# cython: boundscheck=True

from __future__ import annotations

import os
from enum import IntEnum
from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.columns.schema import Kind

COMPILED = cython.compiled


class Field(IntEnum):
    """Fields of a connection in the flow table; [0] and [1] are directions."""

    CONNECTION = 0
    """Number of the connection, 0-based in order of first packets: Wireshark's tcp.stream."""
    FIRST_PACKET = 1
    LAST_PACKET = 2
    FIRST_NS = 3
    LAST_NS = 4
    SYN_0 = 5
    """Initial sequence number + 1 of a direction whose SYN was seen, else 0."""
    SYN_1 = 6
    PACKETS_0 = 7
    PACKETS_1 = 8
    BYTES_0 = 9
    """Payload bytes on the wire, retransmissions included."""
    BYTES_1 = 10
    FLAGS_0 = 11
    """All TCP flags that the direction has shown, OR-ed."""
    FLAGS_1 = 12
    CLOSED = 13
    """1 after a RST or after both FINs."""
    RST_PACKET = 14
    RST_DIRECTION = 15
    RST_TTL = 16
    TTL_0 = 17
    """TTL or hop limit of the direction's first packet."""
    TTL_1 = 18
    DATA_AFTER_RST = 19
    """Segments with payload, after the RST, from the side that seems to have sent it."""
    CLOSED_NS = 20
    LAST_TTL_0 = 21
    """TTL of the direction's last packet that is no RST."""
    LAST_TTL_1 = 22
    ODD_TTL_PACKET_0 = 23
    """First packet of the direction, RST apart, whose TTL is not that of its first packet; ODD_TTL is what
    it has."""
    ODD_TTL_PACKET_1 = 24
    ODD_TTL_0 = 25
    ODD_TTL_1 = 26
    FIRST_DATA_0 = 27
    """The direction's first packet with payload."""
    FIRST_DATA_1 = 28
    START_0 = 29
    """Sequence number at which the direction's first packet stands; behind its SYN if it is one."""
    START_1 = 30
    OPENER = 31
    """Who opened the connection: 1 + direction by its SYN or the SYN+ACK to it; 3 + direction where neither
    was seen and the ports tell; 0 where nothing does."""
    CLOCK_NS = 32
    """Latest capture time when the last packet came: LAST_NS, unless the capture's clock has gone back."""


FIELDS: Final = len(Field)
_KEY: Final = 5

_CONNECTION = cython.declare(cython.Py_ssize_t, int(Field.CONNECTION))
_FIRST_PACKET = cython.declare(cython.Py_ssize_t, int(Field.FIRST_PACKET))
_LAST_PACKET = cython.declare(cython.Py_ssize_t, int(Field.LAST_PACKET))
_FIRST_NS = cython.declare(cython.Py_ssize_t, int(Field.FIRST_NS))
_LAST_NS = cython.declare(cython.Py_ssize_t, int(Field.LAST_NS))
_SYN = cython.declare(cython.Py_ssize_t, int(Field.SYN_0))
_PACKETS = cython.declare(cython.Py_ssize_t, int(Field.PACKETS_0))
_BYTES = cython.declare(cython.Py_ssize_t, int(Field.BYTES_0))
_FLAGS = cython.declare(cython.Py_ssize_t, int(Field.FLAGS_0))
_CLOSED = cython.declare(cython.Py_ssize_t, int(Field.CLOSED))
_RST_PACKET = cython.declare(cython.Py_ssize_t, int(Field.RST_PACKET))
_RST_DIRECTION = cython.declare(cython.Py_ssize_t, int(Field.RST_DIRECTION))
_RST_TTL = cython.declare(cython.Py_ssize_t, int(Field.RST_TTL))
_TTL = cython.declare(cython.Py_ssize_t, int(Field.TTL_0))
_DATA_AFTER_RST = cython.declare(cython.Py_ssize_t, int(Field.DATA_AFTER_RST))
_CLOSED_NS = cython.declare(cython.Py_ssize_t, int(Field.CLOSED_NS))
_LAST_TTL = cython.declare(cython.Py_ssize_t, int(Field.LAST_TTL_0))
_ODD_TTL_PACKET = cython.declare(cython.Py_ssize_t, int(Field.ODD_TTL_PACKET_0))
_ODD_TTL = cython.declare(cython.Py_ssize_t, int(Field.ODD_TTL_0))
_FIRST_DATA = cython.declare(cython.Py_ssize_t, int(Field.FIRST_DATA_0))
_START = cython.declare(cython.Py_ssize_t, int(Field.START_0))
_OPENER = cython.declare(cython.Py_ssize_t, int(Field.OPENER))
_CLOCK_NS = cython.declare(cython.Py_ssize_t, int(Field.CLOCK_NS))
_NFIELDS = cython.declare(cython.Py_ssize_t, len(Field))
_TCP = cython.declare(cython.int, int(Kind.TCP))
_FIN = cython.declare(cython.int, 1)
_SYN_FLAG = cython.declare(cython.int, 2)
_RST = cython.declare(cython.int, 4)
_ACK = cython.declare(cython.int, 16)
_SYSTEM_PORTS = cython.declare(cython.int, limits.SYSTEM_PORTS)
_EPHEMERAL_PORTS = cython.declare(cython.int, limits.EPHEMERAL_PORTS)
_MASK32 = cython.declare(cython.longlong, 0xFFFFFFFF)
_LATE_SYN = cython.declare(cython.longlong, limits.LATE_SYN_BYTES)
_CLOSED_TIMEOUT = cython.declare(cython.longlong, limits.CLOSED_TIMEOUT_NS)
_IDLE_TIMEOUT = cython.declare(cython.longlong, limits.IDLE_TIMEOUT_NS)
_MASK64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
# splitmix64's constants, declared because a bare literal of 64 bits would be a Python object
_GOLDEN = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)
_MIX_1 = cython.declare(cython.ulonglong, 0xBF58476D1CE4E5B9)
_MIX_2 = cython.declare(cython.ulonglong, 0x94D049BB133111EB)

# indices of the kernel's own counters in `scalars`
_NEXT_CONNECTION = cython.declare(cython.Py_ssize_t, 0)
_FREE_COUNT = cython.declare(cython.Py_ssize_t, 1)
_ENDED_COUNT = cython.declare(cython.Py_ssize_t, 2)
_USED = cython.declare(cython.Py_ssize_t, 3)
_NOW = cython.declare(cython.Py_ssize_t, 4)
"""Latest capture time so far."""
SCALARS: Final = 5


@cython.cfunc
@cython.inline
@cython.returns(cython.ulonglong)
@cython.exceptval(check=False)
@cython.locals(
    hi=cython.ulonglong, lo=cython.ulonglong, port=cython.ulonglong, seed=cython.ulonglong, x=cython.ulonglong
)
def _mix(hi, lo, port, seed):  # type: ignore[no-untyped-def]
    """Hash of one endpoint; the seed is random, so that a capture can't be made to collide."""
    x = ((lo ^ seed) * _GOLDEN) & _MASK64
    x = ((x ^ (x >> 29) ^ hi ^ (port << 40)) * _MIX_1) & _MASK64
    x = ((x ^ (x >> 32) ^ port) * _MIX_2) & _MASK64
    return x ^ (x >> 31)


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(check=False)
@cython.locals(port=cython.int, peer=cython.int)
def _serves(port, peer):  # type: ignore[no-untyped-def]
    """The port is a server's, as far as ports tell."""
    return port < _SYSTEM_PORTS <= peer or port < _EPHEMERAL_PORTS <= peer


@cython.locals(
    kind=cython.uchar[::1],
    packet=cython.longlong[::1],
    time_ns=cython.longlong[::1],
    src_hi=cython.ulonglong[::1],
    src_lo=cython.ulonglong[::1],
    dst_hi=cython.ulonglong[::1],
    dst_lo=cython.ulonglong[::1],
    sport=cython.ushort[::1],
    dport=cython.ushort[::1],
    seq=cython.uint[::1],
    flags=cython.ushort[::1],
    length=cython.int[::1],
    ttl=cython.uchar[::1],
    flow=cython.longlong[::1],
    direction=cython.uchar[::1],
    begins=cython.uchar[::1],
    index=cython.int[::1],
    keys=cython.ulonglong[::1],
    fields=cython.longlong[::1],
    free=cython.int[::1],
    ended=cython.int[::1],
    scalars=cython.longlong[::1],
    seed=cython.ulonglong,
    n=cython.Py_ssize_t,
    i=cython.Py_ssize_t,
    mask=cython.ulonglong,
    h=cython.ulonglong,
    entry=cython.int,
    slot=cython.Py_ssize_t,
    k=cython.Py_ssize_t,
    b=cython.Py_ssize_t,
    home=cython.longlong,
    d=cython.Py_ssize_t,
    f=cython.int,
    ports=cython.ulonglong,
    reverse=cython.ulonglong,
    s_hi=cython.ulonglong,
    s_lo=cython.ulonglong,
    d_hi=cython.ulonglong,
    d_lo=cython.ulonglong,
    isn=cython.longlong,
    now=cython.longlong,
    idle=cython.longlong,
    late=cython.bint,
    fresh=cython.bint,
)
def _track(  # type: ignore[no-untyped-def]
    kind,
    packet,
    time_ns,
    src_hi,
    src_lo,
    dst_hi,
    dst_lo,
    sport,
    dport,
    seq,
    flags,
    length,
    ttl,
    flow,
    direction,
    begins,
    index,
    keys,
    fields,
    free,
    ended,
    scalars,
    seed,
):
    n = kind.shape[0]
    mask = index.shape[0] - 1
    now = scalars[_NOW]
    for i in range(n):
        if time_ns[i] > now:
            now = time_ns[i]
        if kind[i] != _TCP:
            flow[i] = -1
            continue
        s_hi = src_hi[i]
        s_lo = src_lo[i]
        d_hi = dst_hi[i]
        d_lo = dst_lo[i]
        ports = sport[i]
        reverse = dport[i]
        ports, reverse = (ports << 16) | reverse, (reverse << 16) | ports
        # commutative, so that both directions of a connection fall on one entry
        h = (_mix(s_hi, s_lo, sport[i], seed) + _mix(d_hi, d_lo, dport[i], seed)) & _MASK64
        h = (h ^ (h >> 33)) & mask
        slot = -1
        home = -1
        d = 0
        while True:
            entry = index[h]
            if entry == 0:
                break
            if entry < 0:
                if home < 0:
                    home = h  # the first tombstone: a new connection may take its place
            else:
                k = (entry - 1) * 5
                if (
                    keys[k + 4] == ports
                    and keys[k] == s_hi
                    and keys[k + 1] == s_lo
                    and keys[k + 2] == d_hi
                    and keys[k + 3] == d_lo
                ):
                    slot = entry - 1
                    d = 0
                    break
                if (
                    keys[k + 4] == reverse
                    and keys[k] == d_hi
                    and keys[k + 1] == d_lo
                    and keys[k + 2] == s_hi
                    and keys[k + 3] == s_lo
                ):
                    slot = entry - 1
                    d = 1
                    break
            h = (h + 1) & mask
        f = flags[i]
        isn = seq[i]
        isn += 1
        fresh = slot < 0
        if not fresh:
            b = slot * _NFIELDS
            # past its time-out a connection is another one, whether a block has ended since or not
            idle = now - fields[b + _CLOCK_NS]
            fresh = idle > _IDLE_TIMEOUT or (idle > _CLOSED_TIMEOUT and fields[b + _CLOSED] != 0)
            if (f & (_SYN_FLAG | _ACK)) == _SYN_FLAG:
                late = (
                    fields[b + _SYN + d] == 0 and ((fields[b + _START + d] - isn) & _MASK32) < _LATE_SYN
                )  # its SYN stands behind its data in the capture
                if fields[b + _SYN + d] != isn and fields[b + _PACKETS + d] != 0 and not late:
                    fresh = True  # a SYN with another initial sequence number: the tuple is used again
            if fresh:
                ended[scalars[_ENDED_COUNT]] = slot
                scalars[_ENDED_COUNT] += 1
                home = h
        if fresh:
            if home < 0:
                home = h
            scalars[_FREE_COUNT] -= 1
            slot = free[scalars[_FREE_COUNT]]
            index[home] = slot + 1
            k = slot * 5
            keys[k] = s_hi
            keys[k + 1] = s_lo
            keys[k + 2] = d_hi
            keys[k + 3] = d_lo
            keys[k + 4] = ports
            b = slot * _NFIELDS
            for k in range(_NFIELDS):
                fields[b + k] = 0
            fields[b + _CONNECTION] = scalars[_NEXT_CONNECTION]
            scalars[_NEXT_CONNECTION] += 1
            fields[b + _FIRST_PACKET] = packet[i]
            fields[b + _FIRST_NS] = time_ns[i]
            d = 0
            if _serves(dport[i], sport[i]):
                fields[b + _OPENER] = 3
            elif _serves(sport[i], dport[i]):
                fields[b + _OPENER] = 4
            scalars[_USED] += 1
        b = slot * _NFIELDS
        begins[i] = fresh
        flow[i] = slot
        direction[i] = d
        fields[b + _LAST_PACKET] = packet[i]
        fields[b + _LAST_NS] = time_ns[i]
        fields[b + _CLOCK_NS] = now
        if fields[b + _PACKETS + d] == 0:
            fields[b + _TTL + d] = ttl[i]
            fields[b + _START + d] = isn if f & _SYN_FLAG else isn - 1
        if not f & _RST:
            fields[b + _LAST_TTL + d] = ttl[i]
            if ttl[i] != fields[b + _TTL + d] and fields[b + _ODD_TTL_PACKET + d] == 0:
                fields[b + _ODD_TTL_PACKET + d] = packet[i]
                fields[b + _ODD_TTL + d] = ttl[i]
        if length[i] > 0 and fields[b + _FIRST_DATA + d] == 0:
            fields[b + _FIRST_DATA + d] = packet[i]
        fields[b + _PACKETS + d] += 1
        fields[b + _BYTES + d] += length[i]
        if f & _SYN_FLAG:
            if fields[b + _SYN + d] == 0:
                fields[b + _SYN + d] = isn
            if f & _ACK == 0:
                fields[b + _OPENER] = 1 + d
            elif fields[b + _OPENER] != 1 + d:
                fields[b + _OPENER] = 2 - d
        fields[b + _FLAGS + d] |= f
        if f & _RST:
            if fields[b + _RST_PACKET] == 0:
                fields[b + _RST_PACKET] = packet[i]
                fields[b + _RST_DIRECTION] = d
                fields[b + _RST_TTL] = ttl[i]
            if fields[b + _CLOSED] == 0:
                fields[b + _CLOSED] = 1
                fields[b + _CLOSED_NS] = time_ns[i]
        elif f & _FIN:
            if fields[b + _CLOSED] == 0 and fields[b + _FLAGS] & fields[b + _FLAGS + 1] & _FIN:
                fields[b + _CLOSED] = 1
                fields[b + _CLOSED_NS] = time_ns[i]
        elif length[i] > 0 and fields[b + _RST_PACKET] != 0 and fields[b + _RST_DIRECTION] == d:
            fields[b + _DATA_AFTER_RST] += 1
    scalars[_NOW] = now


@cython.locals(
    slots=cython.int[::1],
    index=cython.int[::1],
    keys=cython.ulonglong[::1],
    seed=cython.ulonglong,
    i=cython.Py_ssize_t,
    k=cython.Py_ssize_t,
    slot=cython.Py_ssize_t,
    mask=cython.ulonglong,
    h=cython.ulonglong,
    removed=cython.longlong,
)
def _forget(slots, index, keys, seed):  # type: ignore[no-untyped-def]
    """Turn the index entries of slots into tombstones; a slot whose tuple is used again has none any more."""
    mask = index.shape[0] - 1
    removed = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        k = slot * 5
        h = (
            _mix(keys[k], keys[k + 1], keys[k + 4] >> 16, seed)
            + _mix(keys[k + 2], keys[k + 3], keys[k + 4] & 0xFFFF, seed)
        ) & _MASK64
        h = (h ^ (h >> 33)) & mask
        while index[h] != 0:
            if index[h] == slot + 1:
                index[h] = -1
                removed += 1
                break
            h = (h + 1) & mask
    return removed


@cython.locals(
    live=cython.int[::1], index=cython.int[::1], keys=cython.ulonglong[::1], seed=cython.ulonglong,
    i=cython.Py_ssize_t, k=cython.Py_ssize_t, slot=cython.Py_ssize_t, mask=cython.ulonglong,
    h=cython.ulonglong,
)  # fmt: skip
def _reindex(live, index, keys, seed):  # type: ignore[no-untyped-def]
    mask = index.shape[0] - 1
    for i in range(live.shape[0]):
        slot = live[i]
        k = slot * 5
        h = (
            _mix(keys[k], keys[k + 1], keys[k + 4] >> 16, seed)
            + _mix(keys[k + 2], keys[k + 3], keys[k + 4] & 0xFFFF, seed)
        ) & _MASK64
        h = (h ^ (h >> 33)) & mask
        while index[h] != 0:
            h = (h + 1) & mask
        index[h] = slot + 1


_FIRST_CAPACITY: Final = 1 << 15
"""Slots of a new table, this one and those that follow it: what no connection has used yet costs no memory,
and growing costs more than the packets of a block."""


class FlowTable:
    """The connections that are open, one slot each.

    Attributes:
        fields: int64[slots, Field].
        keys: uint64[slots, 5]: originator address (upper, lower half), responder address, originator port
            << 16 | responder port.
        capacity: Slots there is room for; later stages size their own state by it.
        reused: Slots of connections that began in the block tracked last, where another connection had been
            before: later stages clear theirs. Slots are taken in ascending order, and fresh ones are zero.
    """

    def __init__(self) -> None:
        self.capacity = 0
        self.reused: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._used = 0
        self.fields: npt.NDArray[np.int64] = np.zeros((0, FIELDS), dtype=np.int64)
        self.keys: npt.NDArray[np.uint64] = np.zeros((0, _KEY), dtype=np.uint64)
        self._live: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._free: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._index: npt.NDArray[np.int32] = np.zeros(1, dtype=np.int32)
        self._tombstones = 0
        self._seed = int.from_bytes(os.urandom(8), "little")
        self._scalars: npt.NDArray[np.int64] = np.zeros(SCALARS, dtype=np.int64)
        self._ended: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._superseded: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    @property
    def connections(self) -> int:
        """How many connections have begun so far."""
        return int(self._scalars[0])

    def _reserve(self, packets: int) -> None:
        """Make sure that every packet of a block could begin a connection."""
        free = int(self._scalars[1])
        if free < packets:
            capacity = max(2 * self.capacity, self.capacity + packets, _FIRST_CAPACITY)
            for name in ("fields", "keys"):
                old = getattr(self, name)
                new = np.zeros((capacity, old.shape[1]), dtype=old.dtype)
                new[: self.capacity] = old
                setattr(self, name, new)
            live = np.zeros(capacity, dtype=bool)
            live[: self.capacity] = self._live
            self._live = live
            stack = np.empty(capacity, dtype=np.int32)
            fresh = capacity - self.capacity
            # low slots on top of the stack: pages of high slots stay untouched until they are needed
            stack[:fresh] = np.arange(capacity - 1, self.capacity - 1, -1, dtype=np.int32)
            stack[fresh : fresh + free] = self._free[:free]
            self._free = stack
            self._scalars[1] = fresh + free
            self.capacity = capacity
        wanted = 1 << max(12, (2 * self.capacity - 1).bit_length())
        if wanted > len(self._index) or self._tombstones > len(self._index) // 4:
            self._index = np.zeros(max(wanted, len(self._index)), dtype=np.int32)
            self._tombstones = 0
            live = np.flatnonzero(self._live).astype(np.int32)
            _reindex(live.data, self._index.data, self.keys.data.cast("B").cast("Q"), self._seed)
        if len(self._ended) < packets:
            self._ended = np.zeros(packets, dtype=np.int32)

    def track(
        self, columns: object
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Assign the packets of a block to connections.

        Args:
            columns: The packet columns (analyzer.columns.schema.PACKETS as attributes), n rows.

        Returns:
            (flow int64[n], direction uint8[n], begins uint8[n]).
        """
        n = len(columns.kind)  # type: ignore[attr-defined]
        self._reserve(max(n, 1))
        flow = np.empty(n, dtype=np.int64)
        direction = np.zeros(n, dtype=np.uint8)
        begins = np.zeros(n, dtype=np.uint8)
        self._scalars[2] = 0
        names = (
            "kind", "packet", "time_ns", "src_hi", "src_lo", "dst_hi", "dst_lo", "sport", "dport", "seq",
            "flags", "payload_length", "ttl",
        )  # fmt: skip
        _track(
            *(getattr(columns, name).data for name in names),
            flow.data,
            direction.data,
            begins.data,
            self._index.data,
            self.keys.data.cast("B").cast("Q"),
            self.fields.data.cast("B").cast("q"),
            self._free.data,
            self._ended.data,
            self._scalars.data,
            self._seed,
        )
        begun = flow[begins.view(bool)]
        self._live[begun] = True
        self.reused = begun[begun < self._used]
        self._used = max(self._used, int(begun.max(initial=-1)) + 1)
        # superseded connections leave the index to their successor, so that only retire() needs to know them
        self._superseded = self._ended[: int(self._scalars[2])].copy()
        return flow, direction, begins

    def due(self, now_ns: int) -> npt.NDArray[np.int32]:
        """Slots to retire after a block: used again, idle past their time-out, or the oldest of too many.

        Source of the time-outs: Linux nf_conntrack_tcp_timeout_time_wait and _established; of the cap on
        all: nf_conntrack_max.
        """
        live = np.flatnonzero(self._live).astype(np.int32)
        if not len(live):
            return live
        fields = self.fields
        idle = max(now_ns, int(self._scalars[4])) - fields[live, Field.CLOCK_NS]
        closed = fields[live, Field.CLOSED] != 0
        due = (closed & (idle > limits.CLOSED_TIMEOUT_NS)) | (idle > limits.IDLE_TIMEOUT_NS)
        if len(self._superseded):
            due |= np.isin(live, self._superseded)
        _retire_oldest(due, closed, fields[live, Field.CLOSED_NS], limits.CLOSED_CONNECTIONS)
        _retire_oldest(due, ~due, fields[live, Field.CLOCK_NS], limits.OPEN_CONNECTIONS)
        slots: npt.NDArray[np.int32] = live[due]
        return slots

    def live(self) -> npt.NDArray[np.int32]:
        """Slots of all connections that have not been retired."""
        return np.flatnonzero(self._live).astype(np.int32)

    def retire(self, slots: npt.NDArray[np.int32]) -> None:
        """Free slots; their fields must have been read before."""
        if not len(slots):
            return
        self._tombstones += int(
            _forget(slots.data, self._index.data, self.keys.data.cast("B").cast("Q"), self._seed)
        )
        self._live[slots] = False
        free = int(self._scalars[1])
        self._free[free : free + len(slots)] = slots[::-1]
        self._scalars[1] = free + len(slots)


def _retire_oldest(
    due: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], since: npt.NDArray[np.int64], limit: int
) -> None:
    """Where more than `limit` would stay, mark the oldest as due, an eighth more than needed."""
    staying = np.flatnonzero(among & ~due)
    if len(staying) > limit:
        oldest = np.argsort(since[staying], kind="stable")[: len(staying) - limit + limit // 8]
        due[staying[oldest]] = True
