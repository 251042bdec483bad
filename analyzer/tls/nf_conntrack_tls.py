"""Judge packets as the kernel module nf_conntrack_tls does (the profile of that name).

In:  packet columns of a block, the connection slot and the direction of each packet.
Out: Verdicts: the first DROP of each connection, on the packet that the module would drop, and its reason.
Source: github.com/colmmacc/nf_conntrack_tls (its behaviour); heartbeat lengths: RFC 6520 4; SSLv2 framing:
the SSL 2.0 draft, section 1.

Payload is read in capture order, as it is: no reassembly, no sequence check, a retransmission is read again.
After its first DROP a connection is judged no further: the module's own state is undefined from there on.

The module sees whole packets, a capture may not hold them. The captured part of a cut packet is judged; if it
gives no DROP, nothing that follows is known to be the connection's *first* DROP: it is reported as unknown.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple, Protocol

import cython
import numpy as np
import numpy.typing as npt

COMPILED: Final = cython.compiled

REASONS: Final = (
    "invalid-record-type",
    "zero-length-ssl2-record",
    "ssl2-client-hello-wrong-direction",
    "ssl2-server-hello-wrong-direction",
    "ssl2-client-master-key-wrong-direction",
    "heartbeat-too-short",
    "heartbleed-response",
    "data-smuggling",
)
"""Why a packet is dropped, by the code in Verdicts.reason."""

PORTS_LIMIT: Final = 8
"""MAX_PORTS of the module."""

# What the kernel loop says of a packet: 0, 1 + index in REASONS, or CUT.
PASS = cython.declare(cython.int, 0)
INVALID_RECORD_TYPE = cython.declare(cython.int, 1)
ZERO_LENGTH_SSL2_RECORD = cython.declare(cython.int, 2)
SSL2_CLIENT_HELLO_WRONG_DIRECTION = cython.declare(cython.int, 3)
SSL2_SERVER_HELLO_WRONG_DIRECTION = cython.declare(cython.int, 4)
SSL2_CLIENT_MASTER_KEY_WRONG_DIRECTION = cython.declare(cython.int, 5)
HEARTBEAT_TOO_SHORT = cython.declare(cython.int, 6)
HEARTBLEED_RESPONSE = cython.declare(cython.int, 7)
DATA_SMUGGLING = cython.declare(cython.int, 8)
CUT = cython.declare(cython.int, 9)

# Columns of the state, one row per direction of a slot: 64 bytes, a cache line.
HEADER = cython.declare(cython.int, 0)  # the header bytes so far, big endian
HEADER_READ = cython.declare(cython.int, 1)  # how many; 0: the next byte starts a record
HEADER_SIZE = cython.declare(cython.int, 2)  # 3 SSLv2, 4 SSLv2 padded, 5 TLS
SCANNED = cython.declare(cython.int, 3)  # 1: the body must look like ciphertext
LEFT = cython.declare(cython.int, 4)  # bytes of the body still to come
RUN = cython.declare(cython.int, 5)  # bytes below 0x80 since the last other byte of a scanned body
PENDING = cython.declare(cython.int, 6)  # record length that a heartbeat answer must have; 0: none pending
STATE_COLUMNS: Final = 8

SSL2_HEADER_SIZE = cython.declare(cython.int, 3)
SSL2_PADDED_HEADER_SIZE = cython.declare(cython.int, 4)
TLS_HEADER_SIZE = cython.declare(cython.int, 5)
CLIENT_HELLO = cython.declare(cython.int, 1)  # SSL 2.0 draft, 2.5 and 2.6
CLIENT_MASTER_KEY = cython.declare(cython.int, 2)
SERVER_HELLO = cython.declare(cython.int, 4)
HANDSHAKE = cython.declare(cython.int, 22)
HEARTBEAT = cython.declare(cython.int, 24)
HEARTBEAT_MINIMUM = cython.declare(cython.int, 19)  # type, payload_length and 16 bytes of padding: RFC 6520 4

IDLE = cython.declare(cython.int, 0)  # no connection on a watched port, or judged already
WATCHED = cython.declare(cython.int, 1)


class PacketColumns(Protocol):
    """The packet columns that the profile reads (columns/schema.py)."""

    packet: npt.NDArray[np.int64]
    dport: npt.NDArray[np.uint16]
    payload_offset: npt.NDArray[np.int64]
    payload_captured: npt.NDArray[np.int32]
    payload_length: npt.NDArray[np.int32]


class Verdicts(NamedTuple):
    """The connections of a block that were dropped, or whose verdict became unknown, in capture order."""

    row: npt.NDArray[np.int64]
    """Row in the block of the packet that is dropped."""
    packet: npt.NDArray[np.int64]
    flow: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int64]
    """Index in REASONS."""
    unknown_packet: npt.NDArray[np.int64]
    """Packets that snaplen cut: from there on their connection is not judged."""
    unknown_flow: npt.NDArray[np.int64]


class Profile:
    """The module's state of every connection, by slot."""

    def __init__(self, ports: Collection[int] = (443,), suspicious_sequence_length: int = 128) -> None:
        """Set up what the module takes as parameters.

        Args:
            ports: Server ports that are watched, 1 to 8 of them.
            suspicious_sequence_length: Longest run of bytes below 0x80 that passes; 0 turns the scan off. The
                module counts in 16 bits, so that 65535 is never passed.

        Raises:
            ValueError: A parameter is out of range.
        """
        if not 1 <= len(ports) <= PORTS_LIMIT or not all(0 < port <= 0xFFFF for port in ports):
            raise ValueError(f"the profile watches 1 to {PORTS_LIMIT} ports of 1 to 65535, not {list(ports)}")
        if not 0 <= suspicious_sequence_length <= 0xFFFF:
            raise ValueError(f"suspicious_sequence_length is 0 to 65535, not {suspicious_sequence_length}")
        self._ports = np.zeros(0x10000, np.uint8)
        self._ports[list(ports)] = 1
        self._run_limit = suspicious_sequence_length if suspicious_sequence_length < 0xFFFF else 0
        self._watch = np.zeros(0, np.uint8)
        self._state = np.zeros((0, STATE_COLUMNS), np.int64)

    def feed(
        self,
        buffer: npt.NDArray[np.uint8],
        columns: PacketColumns,
        flow: npt.NDArray[np.int64],
        direction: npt.NDArray[np.uint8],
        begins: npt.NDArray[np.uint8],
    ) -> Verdicts:
        """Judge the packets of a block.

        Args:
            buffer: The block's bytes, which columns.payload_offset refers to.
            columns: The block's packet columns.
            flow: Slot of each packet's connection, -1 where it is not TCP.
            direction: 0 from the originator (sender of the connection's first packet), 1 the reply.
            begins: 1 on the first packet of a connection: its slot starts afresh.
        """
        self._grow(int(flow.max(initial=-1)) + 1)
        verdict = np.zeros(len(flow), np.uint8)
        _judge(
            buffer.data,
            np.ascontiguousarray(columns.payload_offset, np.int64).data,
            np.ascontiguousarray(columns.payload_captured, np.int32).data,
            np.ascontiguousarray(columns.payload_length, np.int32).data,
            np.ascontiguousarray(columns.dport, np.uint16).data,
            np.ascontiguousarray(flow, np.int64).data,
            np.ascontiguousarray(direction, np.uint8).data,
            np.ascontiguousarray(begins, np.uint8).data,
            self._ports.data,
            self._run_limit,
            self._watch.data,
            self._state.data,
            verdict.data,
        )
        row = np.flatnonzero((verdict != PASS) & (verdict != CUT))
        cut = np.flatnonzero(verdict == CUT)
        return Verdicts(
            row=row,
            packet=columns.packet[row],
            flow=flow[row],
            reason=verdict[row].astype(np.int64) - 1,
            unknown_packet=columns.packet[cut],
            unknown_flow=flow[cut],
        )

    def _grow(self, slots: int) -> None:
        if slots > len(self._watch):
            slots = max(slots, 2 * len(self._watch), 1024)
            watch = np.zeros(slots, np.uint8)
            watch[: len(self._watch)] = self._watch
            state = np.zeros((2 * slots, STATE_COLUMNS), np.int64)
            state[: len(self._state)] = self._state
            self._watch, self._state = watch, state


@cython.cfunc
@cython.exceptval(-1, check=True)
@cython.returns(cython.int)
@cython.locals(
    buffer="const unsigned char[::1]",
    payload_offset="const long long[::1]",
    payload_captured="const int[::1]",
    payload_length="const int[::1]",
    dport="const unsigned short[::1]",
    flow="const long long[::1]",
    direction="const unsigned char[::1]",
    begins="const unsigned char[::1]",
    ports="const unsigned char[::1]",
    run_limit=cython.longlong,
    watch=cython.uchar[::1],
    state=cython.longlong[:, ::1],
    verdict=cython.uchar[::1],
    row=cython.Py_ssize_t,
    slot=cython.longlong,
    side=cython.longlong,
    column=cython.longlong,
    code=cython.int,
)
def _judge(  # type: ignore[no-untyped-def]
    buffer,
    payload_offset,
    payload_captured,
    payload_length,
    dport,
    flow,
    direction,
    begins,
    ports,
    run_limit,
    watch,
    state,
    verdict,
):
    for row in range(flow.shape[0]):
        slot = flow[row]
        if slot < 0:
            continue
        if begins[row]:
            watch[slot] = WATCHED if ports[dport[row]] else IDLE
            for side in range(2 * slot, 2 * slot + 2):
                for column in range(STATE_COLUMNS):
                    state[side, column] = 0
        if watch[slot] == IDLE or payload_length[row] == 0:
            continue
        code = _payload(
            buffer,
            payload_offset[row],
            payload_offset[row] + payload_captured[row],
            state,
            2 * slot + direction[row],
            2 * slot + 1 - direction[row],
            run_limit,
        )
        if code == PASS and payload_captured[row] < payload_length[row]:
            code = CUT
        if code != PASS:
            verdict[row] = code
            watch[slot] = IDLE
    return 0


@cython.cfunc
@cython.exceptval(-1, check=True)
@cython.returns(cython.int)
@cython.locals(
    buffer="const unsigned char[::1]",
    at=cython.longlong,
    end=cython.longlong,
    state=cython.longlong[:, ::1],
    me=cython.longlong,
    peer=cython.longlong,
    run_limit=cython.longlong,
    stop=cython.longlong,
    octet=cython.longlong,
    code=cython.int,
)
def _payload(buffer, at, end, state, me, peer, run_limit):  # type: ignore[no-untyped-def]
    """Read one packet's payload, buffer[at:end], sent by the direction whose state is row `me`."""
    while at < end:
        if state[me, LEFT]:
            stop = min(end, at + state[me, LEFT])
            if run_limit and state[me, SCANNED]:
                state[me, RUN] = _low_run(buffer, at, stop, state[me, RUN], run_limit)
                if state[me, RUN] > run_limit:
                    return DATA_SMUGGLING
            state[me, LEFT] -= stop - at
            at = stop
            continue
        octet = buffer[at]
        if state[me, HEADER_READ] == 0:
            if octet & 0x80:
                state[me, HEADER_SIZE] = SSL2_HEADER_SIZE
            elif octet & 0x40:
                state[me, HEADER_SIZE] = SSL2_PADDED_HEADER_SIZE
            elif 20 <= octet <= 24:
                state[me, HEADER_SIZE] = TLS_HEADER_SIZE
            else:
                return INVALID_RECORD_TYPE
        state[me, HEADER] = state[me, HEADER] << 8 | octet
        state[me, HEADER_READ] += 1
        at += 1
        if state[me, HEADER_READ] == state[me, HEADER_SIZE]:
            code = _header(state, me, peer)
            if code != PASS:
                return code
            state[me, HEADER] = 0
            state[me, HEADER_READ] = 0
    return PASS


@cython.cfunc
@cython.exceptval(-1, check=True)
@cython.returns(cython.int)
@cython.locals(
    state=cython.longlong[:, ::1],
    me=cython.longlong,
    peer=cython.longlong,
    header=cython.longlong,
    length=cython.longlong,
    kind=cython.longlong,
)
def _header(state, me, peer):  # type: ignore[no-untyped-def]
    """Check a complete record header and say what its body is."""
    header = state[me, HEADER]
    if state[me, HEADER_SIZE] == TLS_HEADER_SIZE:
        kind = header >> 32
        length = header & 0xFFFF
        state[me, LEFT] = length
        state[me, SCANNED] = kind != HANDSHAKE and kind != HEARTBEAT
        if kind == HEARTBEAT:
            if length < HEARTBEAT_MINIMUM:
                return HEARTBEAT_TOO_SHORT
            if state[me, PENDING] == 0:
                state[peer, PENDING] = length
            elif state[me, PENDING] == length:
                state[me, PENDING] = 0
            else:
                return HEARTBLEED_RESPONSE
        return PASS
    kind = header & 0xFF
    if state[me, HEADER_SIZE] == SSL2_HEADER_SIZE:
        length = header >> 8 & 0x7FFF
    else:
        length = (header >> 16 & 0x3FFF) + (header >> 8 & 0xFF)
    # The length is looked at when the message type has come, with which the module reads it.
    if length == 0:
        return ZERO_LENGTH_SSL2_RECORD
    state[me, LEFT] = length - 1  # the message type is the first byte of the body
    state[me, SCANNED] = 1
    if state[me, HEADER_SIZE] == SSL2_HEADER_SIZE:
        if kind == CLIENT_HELLO:
            state[me, SCANNED] = 0
            if me > peer:
                return SSL2_CLIENT_HELLO_WRONG_DIRECTION
        elif kind == SERVER_HELLO:
            state[me, SCANNED] = 0
            if me < peer:
                return SSL2_SERVER_HELLO_WRONG_DIRECTION
        elif kind == CLIENT_MASTER_KEY:
            state[me, SCANNED] = 0
            if me > peer:
                return SSL2_CLIENT_MASTER_KEY_WRONG_DIRECTION
    return PASS


@cython.cfunc
@cython.inline
@cython.exceptval(-1, check=True)
@cython.returns(cython.longlong)
@cython.locals(
    buffer="const unsigned char[::1]",
    at=cython.longlong,
    stop=cython.longlong,
    run=cython.longlong,
    run_limit=cython.longlong,
    target=cython.longlong,
    known=cython.longlong,
    probe=cython.longlong,
)
def _low_run(buffer, at, stop, run, run_limit):  # type: ignore[no-untyped-def]
    """The run of low bytes at `stop`, of which `run` come before `at`; run_limit + 1 if it passes the limit.

    A run that passes the limit must reach `target`, so bytes are probed from there backwards: one that is not
    low rules out all before it. Random data costs two probes per run_limit bytes.
    """
    known = at  # [at, known) holds no byte that is not low, or it is ruled out
    target = at + run_limit - run
    while target < stop:
        probe = target + 1
        while probe > known and buffer[probe - 1] < 0x80:
            probe -= 1
        if probe == known:
            return run_limit + 1
        known = target + 1
        at = probe
        run = 0
        target = at + run_limit
    probe = stop
    while probe > known and buffer[probe - 1] < 0x80:
        probe -= 1
    if probe > known:
        return stop - probe
    return run + stop - at
