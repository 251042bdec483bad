"""Heartbeat records -> heartbeat rows: which is a request, which answers what, and how much came back.

In:  the heartbeat records of a connection, in causal order.
Out: Beat rows, one per record; detect/heartbeat.py judges them.
Source: RFC 6520 3, 4; CVE-2014-0160.

In clear the message says what it is. Encrypted, only lengths are known: a record is the answer to the peer's oldest unanswered
request if there is one, else a request of its own. An answer of full-size records goes on in the next record.
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
"""A message in clear that is neither a request nor an answer."""

OVERHEAD: Final = 19
"""type, payload_length and the least padding (RFC 6520 4)."""
FULL_RECORD: Final = 1 << 14


class Beat(NamedTuple):
    connection: int
    side: Side
    packet: int
    last_packet: int
    time_ns: int
    clear: bool
    role: int
    length: int
    """Of the record."""
    payload_length: int
    """As the message says; -1 where it can't be read."""
    version: int
    """Negotiated, 0 before the ServerHello."""
    state: int
    cipher_suite: int
    encrypt_then_mac: bool
    client_mode: int
    """Mode in the ClientHello's heartbeat extension, 0 without; -1 where no ClientHello was seen."""
    server_mode: int
    after_data: bool
    """Application data came before it."""
    outstanding: int
    """Requests of this side that were unanswered before."""
    expected: bool
    """An answer: there was a request. A request: none of this side's was unanswered."""
    request_packet: int
    request_length: int
    request_payload_length: int
    answered_bytes: int
    """An answer: record bytes of it so far, this one included."""
    body: int
    """First bytes of the body, big-endian."""
    body_bytes: int
    early_ccs: bool
    """A ChangeCipherSpec came out of order before it."""


@dataclass(slots=True)
class _Asked:
    packet: int
    length: int
    payload_length: int


@dataclass(slots=True)
class _Direction:
    """What one side asked, and the answer that its peer is giving."""

    state: State = State.IDLE
    asked: list[_Asked] = field(default_factory=list)
    answering: _Asked | None = None
    answered: int = 0
    due: int = 0
    """Bytes of the answer's message still to come, in clear."""
    last_length: int = 0


class Heartbeats:
    """The heartbeat machines of one connection: one per side that asks."""

    __slots__ = ("_sides", "rows")

    def __init__(self) -> None:
        self._sides = (_Direction(), _Direction())
        self.rows = 0

    def record(self, side: Side, *, clear: bool, length: int, body: int, body_bytes: int, packet: int) -> tuple[int, int, int, bool, _Asked | None, int]:
        """Follow one record.

        Returns:
            (role, payload_length, outstanding before, expected, the request it answers, bytes answered so far).
        """
        own, peer = self._sides[side], self._sides[1 - side]
        self.rows += 1
        kind = body >> 8 * (body_bytes - 1) if body_bytes else 0
        payload_length = (body >> 8 * (body_bytes - 3)) & 0xFFFF if clear and body_bytes >= 3 else -1
        outstanding = len(own.asked)
        # a further record of the answer that this side is giving
        if peer.answering is not None and (peer.due > 0 if clear else peer.last_length >= FULL_RECORD and not peer.asked):
            peer.answered += length
            peer.due -= length
            peer.last_length = length
            return CONTINUATION, -1, outstanding, True, peer.answering, peer.answered
        if clear:
            role = kind if kind in (REQUEST, RESPONSE) else UNKNOWN
        else:
            role = RESPONSE if peer.asked else REQUEST
        if role == RESPONSE:
            asked = peer.asked.pop(0) if peer.asked else None
            row = step(peer.state, Side(1 - side), Ev.HB_RESPONSE_MORE if peer.asked else Ev.HB_RESPONSE)
            expected = not isinstance(row, Violation)
            if not isinstance(row, Violation):
                peer.state = row.next
            peer.answering = asked
            peer.answered = peer.last_length = length
            peer.due = OVERHEAD + payload_length - length if payload_length >= 0 else 0
            return role, payload_length, outstanding, expected, asked, length
        expected = True
        if role == REQUEST:
            row = step(own.state, side, Ev.HB_REQUEST_AGAIN if own.asked else Ev.HB_REQUEST)
            expected = not isinstance(row, Violation)
            if not isinstance(row, Violation):
                own.state = row.next
            if len(own.asked) < limits.HEARTBEATS_OUTSTANDING:
                own.asked.append(_Asked(packet, length, payload_length))
            own.answering = None
        return role, payload_length, outstanding, expected, None, 0
