"""Heartbeat records -> heartbeat rows: which is a request, which answers what, and how much came back.

In:  the heartbeat records of a connection, in causal order.
Out: Beat rows, one per record; detect/heartbeat.py judges them.
Source: RFC 6520 3, 4; CVE-2014-0160.

In clear the message says what it is. Encrypted, only lengths are known: a record is the answer to the peer's
oldest unanswered request if there is one, else a request of its own. An answer may go on in the records right
behind it. What was taken for an answer that is too long, or for more of one, may yet have been a request: its
peer then answers it with a record of its length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from analyzer import limits
from analyzer.model import Side
from analyzer.tls.state import Ev, State, Violation, step

REQUEST: Final = 1
RESPONSE: Final = 2
CONTINUATION: Final = 3
"""A further record of an answer."""
UNKNOWN: Final = 0
"""A message in clear that is neither a request nor an answer, or whose first bytes are missing."""

HEADER: Final = 3
"""type and payload_length (RFC 6520 4)."""
OVERHEAD: Final = 19
"""HEADER and the least padding (RFC 6520 4)."""
SHORTEST_SEALED: Final = OVERHEAD + 4
"""No record that protects a legal heartbeat is shorter: every MAC has at least 4 bytes (RFC 9189 4.2.3)."""
FULL_RECORD: Final = 1 << 14
SURELY_GROWN: Final = 64
"""An answer longer than its request by more is no matter of padding (catalogue HB05, correction)."""


@dataclass(slots=True, kw_only=True)
class Beat:
    """A heartbeat record."""

    connection: int
    """Slot of the connection; the pipeline puts its number."""
    side: Side
    packet: int
    last_packet: int
    """The packet that completed it, or in which its body began where its end was not seen."""
    time_ns: int
    clear: bool
    """Its bytes are the message. False in TLS 1.3, which has no such records."""
    sealed: bool
    """Its side was seen to change keys. Neither clear nor sealed: unknown, because bytes are missing."""
    length: int
    """Of the record."""
    message_length: int
    """Of the message: without the MAC of a suite that does not encrypt; as `length` where it is encrypted."""
    record_version: int
    version: int
    """Negotiated, 0 before the ServerHello."""
    state: int
    cipher_suite: int
    client_mode: int
    """Mode in the ClientHello's heartbeat extension, 0 without; -1 where no whole ClientHello was seen."""
    server_mode: int
    before_keys: bool
    """Not both had changed keys, in TLS 1.2 or below. False where bytes are missing: then it is unknown."""
    whole: bool
    """Nothing of either direction is missing before it, so that requests and answers can be counted."""
    early_ccs: bool
    """A ChangeCipherSpec came out of order before it."""
    after_data: bool
    """Application data came before it."""
    body: int
    """First bytes of the body, big-endian."""
    body_bytes: int
    # filled in by Heartbeats.follow
    role: int = UNKNOWN
    payload_length: int = -1
    """As the message says; -1 where it can't be read."""
    number: int = 0
    """Of the record among the connection's heartbeats, from 1."""
    outstanding: int = 0
    """Requests of this side that were unanswered before."""
    expected: bool = True
    """An answer: there was a request. A request: none of this side's was unanswered."""
    request: int = 0
    """An answer: `number` of the request; 0 without one."""
    request_packet: int = 0
    request_length: int = 0
    """Of the request's message."""
    request_payload_length: int = -1
    answered_bytes: int = 0
    """An answer: message bytes of it so far, this record included."""
    answered_records: int = 0
    echoed: bool = False
    """An answer: the peer sent a record of its length next, as if it had been a request."""

    @property
    def tls13(self) -> bool:
        """TLS 1.3 has no records of this type (RFC 8446 5): nothing is known of its body."""
        return self.version == 0x0304

    @property
    def answers(self) -> bool:
        """It belongs to an answer that was asked for."""
        return self.request > 0

    @property
    def overreads(self) -> bool:
        """A readable request for more bytes than it brings."""
        return self.clear and self.role == REQUEST and overreads(self.message_length, self.payload_length)

    @property
    def unpadded(self) -> bool:
        """A readable request with its payload but not its padding: a harmless test for the same fault."""
        if not self.clear or self.role != REQUEST or self.payload_length < 0:
            return False
        return HEADER + self.payload_length <= self.message_length < OVERHEAD + self.payload_length

    @property
    def in_handshake(self) -> bool:
        """Sent too early, and not to answer (RFC 6520 3); before any hello only what reads as a heartbeat."""
        if not self.before_keys or self.answers:
            return False
        return self.state != State.START or (self.role != UNKNOWN and self.body_bytes >= HEADER)

    @property
    def probes(self) -> bool:
        """It tests or attacks the peer, as far as its bytes say (catalogue HB01 to HB03)."""
        return self.overreads or self.unpadded or self.in_handshake

    @property
    def proof(self) -> str:
        """Hex of the record's header and the first bytes of its body."""
        header = f"18{self.record_version:04x}{self.length:04x}"
        return header + self.body.to_bytes(self.body_bytes, "big").hex()


def overreads(message_length: int, payload_length: int) -> bool:
    """A message in clear claims more payload than it has, or ends before its payload_length (RFC 6520 4)."""
    return message_length < HEADER or payload_length + HEADER > message_length


def reads_as_overread(body: int, body_bytes: int, length: int) -> bool:
    """A body of unknown protection begins as a message that claims more than its record holds."""
    if not body_bytes:
        return False
    kind = body >> 8 * (body_bytes - 1)
    if length < HEADER:
        return kind == REQUEST
    if body_bytes < HEADER or kind not in (REQUEST, RESPONSE):
        return False
    return _payload_length(body, body_bytes) + HEADER > length


def _payload_length(body: int, body_bytes: int) -> int:
    return (body >> 8 * (body_bytes - HEADER)) & 0xFFFF


class _Asked(NamedTuple):
    number: int
    packet: int
    length: int
    payload_length: int
    time_ns: int


@dataclass(slots=True)
class _Asking:
    """What one side asked, and the answer that its peer is giving."""

    state: State = State.IDLE
    asked: list[_Asked] = field(default_factory=list)
    passed_over: list[_Asked] = field(default_factory=list)
    """Unanswered while the answer to a later request came."""
    lapsed: int = 0
    """Requests that got no answer in time."""
    answering: _Asked | None = None
    answered: int = 0
    records: int = 0
    due: int = 0
    """Bytes of the answer's message still to come, in clear."""
    last_length: int = 0
    end: int = -1
    """Stream offset after the answer's last record."""
    doubt: Beat | None = None
    """The one record by which the answer is too long."""


class Heartbeats:
    """The heartbeat machines of one connection: one per side that asks."""

    __slots__ = ("_sides", "kept", "last", "rows", "striking")

    def __init__(self) -> None:
        self._sides = (_Asking(), _Asking())
        self.rows = 0
        self.kept = 0
        self.striking = 0
        self.last: list[Beat | None] = [None, None]
        """The last record of either side."""

    def follow(self, beat: Beat, position: int) -> bool:
        """Say what a record is and what it answers.

        Args:
            beat: The record; its pairing is filled in.
            position: Stream offset of its header.

        Returns:
            Whether its row is to be kept: those that nothing is wrong with have a limit of their own.
        """
        self.rows += 1
        beat.number = self.rows
        self.last[beat.side] = beat
        own, peer = self._sides[beat.side], self._sides[1 - beat.side]
        _lapse(own, beat.time_ns)
        _lapse(peer, beat.time_ns)
        beat.outstanding = len(own.asked) + own.lapsed
        if _echoes(own, beat):
            return self._keep(beat)
        if _goes_on(peer, beat, position):
            beat.role = CONTINUATION
            peer.due -= beat.message_length
        elif beat.clear:
            kind = beat.body >> 8 * (beat.body_bytes - 1) if beat.body_bytes else 0
            beat.role = kind if kind in (REQUEST, RESPONSE) else UNKNOWN
            if beat.role != UNKNOWN and beat.body_bytes >= HEADER:
                beat.payload_length = _payload_length(beat.body, beat.body_bytes)
        else:
            beat.role = RESPONSE if peer.asked or peer.passed_over else REQUEST
        if beat.role == RESPONSE:
            _answer(peer, beat)
        elif beat.role == REQUEST:
            _ask(own, beat)
        if beat.role in (RESPONSE, CONTINUATION):
            peer.answered += beat.message_length
            peer.records += 1
            peer.last_length = beat.length
            peer.end = position + 5 + beat.length
            beat.answered_bytes, beat.answered_records = peer.answered, peer.records
            if peer.answering is not None:
                asked = peer.answering
                beat.request, beat.request_packet = asked.number, asked.packet
                beat.request_length, beat.request_payload_length = asked.length, asked.payload_length
                _doubt(peer, beat)
        return self._keep(beat)

    def _keep(self, beat: Beat) -> bool:
        if self.kept < limits.HEARTBEATS_KEPT:
            self.kept += 1
            return True
        grown = beat.answers and beat.answered_bytes > beat.request_length
        if self.striking < limits.HEARTBEATS_KEPT and (grown or beat.probes):
            self.striking += 1
            return True
        return False


def _lapse(asking: _Asking, now_ns: int) -> None:
    """Give up waiting for answers that do not come: what comes later is something else."""
    for waiting in (asking.asked, asking.passed_over):
        while waiting and now_ns - waiting[0].time_ns > limits.HEARTBEAT_ANSWER_NS:
            waiting.pop(0)
            asking.lapsed += 1
    if not asking.asked:
        asking.state = State.IDLE


def _goes_on(asking: _Asking, beat: Beat, position: int) -> bool:
    """The record is a further one of the answer that its sender gives: it stands right behind the last."""
    if asking.answering is None or position != asking.end:
        return False
    if beat.clear:
        return asking.due > 0
    growth = asking.answered - asking.answering.length
    full = asking.last_length >= FULL_RECORD
    return full and growth > 0 if asking.asked else full or growth > SURELY_GROWN


def _doubt(asking: _Asking, beat: Beat) -> None:
    """Keep in mind the record that makes an answer too long, if it is only one."""
    grown = not beat.clear and beat.answered_bytes > beat.request_length
    alone = beat.answered_records == 1 or beat.answered_bytes - beat.message_length <= beat.request_length
    asking.doubt = beat if grown and alone else None


def _echoes(asking: _Asking, beat: Beat) -> bool:
    """It answers what was taken for an answer: that was a request, and the one it was paired with waits."""
    doubt, asked = asking.doubt, asking.answering
    if doubt is None or asked is None or beat.clear or beat.length != doubt.length:
        return False
    asking.doubt = asking.answering = None
    if beat.time_ns - doubt.time_ns > limits.HEARTBEAT_ANSWER_NS:
        return False
    doubt.echoed = True
    if doubt.role == RESPONSE:
        asking.asked.insert(0, asked)
        asking.state = State.WAITING
    beat.role, beat.request, beat.request_packet, beat.request_length = (
        RESPONSE,
        doubt.number,
        doubt.packet,
        doubt.length,
    )
    beat.answered_bytes, beat.answered_records = beat.length, 1
    return True


def _answer(asking: _Asking, beat: Beat) -> None:
    """Find the request: the oldest, unless the answer is encrypted and has just the length of a later one."""
    index = 0
    if not beat.clear and asking.asked and asking.asked[0].length != beat.length:
        index = next((i for i, asked in enumerate(asking.asked) if asked.length == beat.length), 0)
    asking.passed_over = (asking.passed_over + asking.asked[:index])[-limits.HEARTBEATS_OUTSTANDING :]
    del asking.asked[:index]
    asking.answering = None
    asking.answered = asking.records = 0
    asking.due = OVERHEAD + beat.payload_length - beat.message_length if beat.payload_length >= 0 else 0
    if not asking.asked and asking.passed_over:
        asking.answering = asking.passed_over.pop(0)
        return
    if asking.asked:
        asking.answering = asking.asked.pop(0)
    row = step(asking.state, Side(1 - beat.side), Ev.HB_RESPONSE_MORE if asking.asked else Ev.HB_RESPONSE)
    beat.expected = not isinstance(row, Violation)
    if not isinstance(row, Violation):
        asking.state = row.next


def _ask(asking: _Asking, beat: Beat) -> None:
    row = step(asking.state, beat.side, Ev.HB_REQUEST_AGAIN if asking.asked else Ev.HB_REQUEST)
    beat.expected = not isinstance(row, Violation)
    if not isinstance(row, Violation):
        asking.state = row.next
    if len(asking.asked) < limits.HEARTBEATS_OUTSTANDING:
        asked = _Asked(beat.number, beat.packet, beat.message_length, beat.payload_length, beat.time_ns)
        asking.asked.append(asked)
