"""TLS conversations as lists of steps, and what follows them without any TCP: a record walk and a tracker.

A step is who sends which bytes. What each side acknowledges is all that its peer has sent, unless a step says
otherwise.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from analyzer.flows.table import FIELDS, Field
from analyzer.model import Side
from analyzer.streams.reassembly import CHUNK_FIELDS, Chunk
from analyzer.tls import records
from analyzer.tls.state import Ev, State
from analyzer.tls.tracker import Event, Kind, Tls
from samples.craft import tls_bytes as tls

C, S = Side.CLIENT, Side.SERVER
TLS13 = (tls.TLS13, tls.TLS12)


class Step(NamedTuple):
    side: Side
    data: bytes
    unseen: bool = False
    """It left before the peer's last step arrived."""
    sync: int = 3
    gap: int = 0
    sizes: tuple[int, ...] = (1 << 20,)
    """Lengths of the chunks that it comes in, the last one again and again."""


class Talk:
    """Follows steps with a record walk and a tracker."""

    def __init__(self, form: ModuleType, *, messages: bool = False, opener: int = 1) -> None:
        self.walk = records.RecordWalk()
        self.tracker = form.Tracker(messages=messages)
        self.walk.reserve(1)
        self.tracker.reserve(1)
        self.events: list[list[int]] = []
        self._fields = np.zeros((1, FIELDS), dtype=np.int64)
        self._fields[0, Field.OPENER] = opener
        self._end = [0, 0]
        self._before = [0, 0]
        self._packets = 0

    def take(self, *steps: Step) -> Talk:
        for step in steps:
            rest = step.data
            sizes = list(step.sizes)
            ack = self._before[1 - step.side] if step.unseen else self._end[1 - step.side]
            self._end[step.side] += step.gap
            self._before[step.side] = self._end[step.side]
            gap = step.gap
            while rest:
                size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
                self._chunk(step.side, rest[:size], ack, gap, step.sync)
                rest, gap = rest[size:], 0
        return self

    def _chunk(self, side: int, data: bytes, ack: int, gap: int, sync: int) -> None:
        self._packets += 1
        chunk = {
            Chunk.STREAM: side, Chunk.LENGTH: len(data), Chunk.GAP: gap, Chunk.PACKET: self._packets,
            Chunk.TIME_NS: self._packets, Chunk.ACK: ack, Chunk.SEQ: self._end[side],
            Chunk.POSITION: self._end[side], Chunk.SYNC: sync,
        }  # fmt: skip
        self._end[side] += len(data)
        buffer = np.frombuffer(data, dtype=np.uint8).copy()
        chunks = np.array([[chunk.get(column, 0) for column in Chunk]], dtype=np.int64)
        assert chunks.shape[1] == CHUNK_FIELDS
        at = 0
        while at < 1:
            at, rows = self.walk.walk(buffer, chunks, at)
            row = 0
            while row < len(rows):
                row, events = self.tracker.track(buffer, rows, self._fields, Field.OPENER, row)
                self.events += events.tolist()

    def __getitem__(self, field: Tls) -> int:
        return int(self.tracker.state[0, field])

    @property
    def state(self) -> State:
        return State(self[Tls.STATE])

    @property
    def violations(self) -> list[str]:
        return [
            f"{State(e[Event.STATE]).name} {Side(e[Event.SIDE]).name} {Ev(e[Event.EV]).name}"
            for e in self.of(Kind.VIOLATION)
        ]

    def of(self, kind: Kind) -> list[list[int]]:
        return [event for event in self.events if event[Event.KIND] == kind]


NOISE = tls.Noise("tracker")
TICKET = tls.extension(35)
CERTIFICATE_BODY = tls.vector(tls.vector(b"certificate", 3), 3)


def record(kind: int, body: bytes, version: int = tls.TLS12) -> bytes:
    return tls.record(kind, body, version)


def message(side: Side, kind: int, body: bytes = b"") -> Step:
    return Step(side, record(tls.HANDSHAKE, tls.message(kind, body)))


def client_hello(**what: Any) -> Step:
    return Step(C, record(tls.HANDSHAKE, tls.ClientHello(noise=NOISE, **what).message(), tls.TLS10))


def server_hello(**what: Any) -> Step:
    return Step(S, record(tls.HANDSHAKE, tls.ServerHello(noise=NOISE, **what).message()))


def sealed(side: Side, kind: int, size: int = 60) -> Step:
    """A record that can't be read; a handshake record does not begin like a message of its length."""
    return Step(side, record(kind, b"\xff" + NOISE.take(size)))


def data(side: Side) -> Step:
    return sealed(side, tls.APPLICATION_DATA)


def finished(side: Side) -> Step:
    return sealed(side, tls.HANDSHAKE, 40)


def beat(side: Side) -> Step:
    return sealed(side, tls.HEARTBEAT)


def alert(side: Side, level: int, description: int) -> Step:
    return Step(side, record(tls.ALERT, bytes([level, description])))


CCS = {side: Step(side, record(tls.CCS, b"\1")) for side in Side}
CERTIFICATE = message(S, tls.CERTIFICATE, CERTIFICATE_BODY)
KEY_EXCHANGE = message(S, tls.SERVER_KEY_EXCHANGE, bytes(70))
REQUEST = message(S, tls.CERTIFICATE_REQUEST, bytes(9))
STATUS = message(S, tls.CERTIFICATE_STATUS, bytes(9))
SUPPLEMENTAL = {side: message(side, 23, bytes(9)) for side in Side}
DONE = message(S, tls.SERVER_HELLO_DONE)
CLIENT_KEY = message(C, tls.CLIENT_KEY_EXCHANGE, bytes(33))
NEW_TICKET = message(S, tls.NEW_SESSION_TICKET, bytes(90))
HELLO_REQUEST = message(S, tls.HELLO_REQUEST)
WARNING = {side: alert(side, 1, 112) for side in Side}
CLOSE = {side: alert(side, 1, 0) for side in Side}
FATAL = {side: alert(side, 2, 40) for side in Side}

HELLOS = [client_hello(status_request=True), server_hello(status_request=True)]
FLIGHT = [*HELLOS, CERTIFICATE, KEY_EXCHANGE, DONE]
KEYED = [*FLIGHT, CLIENT_KEY, CCS[C], finished(C)]
FULL = [*KEYED, CCS[S], finished(S)]
RSA = [client_hello(status_request=True), server_hello(suite=0x009C, status_request=True)]
PSK = [client_hello(suites=[0x008C]), server_hello(suite=0x008C)]
DHE_PSK = [client_hello(suites=[0x00B2]), server_hello(suite=0x00B2)]
RESUMED = [client_hello(session_id=b"session"), server_hello(session_id=b"session")]
RENEWED = [client_hello(ticket=b"old"), server_hello(ticket=True), NEW_TICKET]
SHORT = [*RESUMED, CCS[S], finished(S)]
HELLO_13 = client_hello(versions=TLS13)
ANSWER_13 = server_hello(version=tls.TLS13)
RETRY = server_hello(version=tls.TLS13, retry=True)
EARLY = client_hello(versions=TLS13, psk=True, early_data=True)
NEGOTIATED = [HELLO_13, ANSWER_13]
SERVER_13 = [*NEGOTIATED, CCS[S], data(S)]
CLIENT_13 = [*SERVER_13, CCS[C], data(C)]
EST_13 = [*CLIENT_13, data(S)]
SSL2_HELLO = Step(C, tls.Sslv2Hello(noise=NOISE, version=2).record())
TLS_IN_SSL2 = Step(C, tls.Sslv2Hello(noise=NOISE, version=tls.TLS10).record())


def ssl2(side: Side, body: bytes) -> Step:
    return Step(side, tls.sslv2_record(body))


SSL2_ANSWER = ssl2(S, b"\4\0" + bytes(30))
SSL2_HIT = ssl2(S, b"\4\1" + bytes(30))
SSL2_KEYED = [SSL2_HELLO, SSL2_ANSWER, ssl2(C, b"\2" + bytes(30))]
RENEGOTIATION = [sealed(C, tls.HANDSHAKE), sealed(S, tls.HANDSHAKE)]
CHANGE = {side: sealed(side, tls.CCS, 16) for side in Side}
OLD = {"sync": 2}
"""Where the client's SYN was not seen."""

LEGAL: dict[str, tuple[list[Step], State]] = {
    "full": ([*FULL, data(C), data(S)], State.EST),
    "warnings before the hello": ([WARNING[C], HELLO_REQUEST, client_hello()], State.WAIT_SH),
    "closed at once": ([client_hello(), CLOSE[C]], State.WAIT_SH),
    "hello requests": ([client_hello(), HELLO_REQUEST, server_hello(), HELLO_REQUEST], State.N_SH),
    "server without status": ([*HELLOS, CERTIFICATE, DONE._replace(data=KEY_EXCHANGE.data + DONE.data)], State.C_FLIGHT),
    "status, key exchange": ([*HELLOS, CERTIFICATE, STATUS, KEY_EXCHANGE], State.N_KEY_EXCHANGE),
    "status, request": ([*RSA, CERTIFICATE, STATUS, REQUEST, DONE], State.C_FLIGHT),
    "status, done": ([*RSA, CERTIFICATE, STATUS, DONE], State.C_FLIGHT),
    "RSA": ([*RSA, CERTIFICATE, DONE], State.C_FLIGHT),
    "request": ([*RSA, CERTIFICATE, REQUEST, DONE], State.C_FLIGHT),
    "key exchange, request": ([*HELLOS, CERTIFICATE, KEY_EXCHANGE, REQUEST, DONE], State.C_FLIGHT),
    "supplemental data": ([*HELLOS, SUPPLEMENTAL[S], CERTIFICATE, KEY_EXCHANGE, DONE, SUPPLEMENTAL[C]], State.C_FLIGHT),
    "supplemental data, PSK": ([*PSK, SUPPLEMENTAL[S], DONE], State.C_FLIGHT),
    "supplemental data, DHE_PSK": ([*DHE_PSK, SUPPLEMENTAL[S], KEY_EXCHANGE], State.N_KEY_EXCHANGE),
    "PSK": ([*PSK, DONE, CLIENT_KEY, CCS[C]], State.C_CCS),
    "DHE_PSK": ([*DHE_PSK, KEY_EXCHANGE, DONE], State.C_FLIGHT),
    "client certificate": (
        [*HELLOS, CERTIFICATE, KEY_EXCHANGE, REQUEST, DONE, message(C, tls.CERTIFICATE, CERTIFICATE_BODY), CLIENT_KEY,
         message(C, tls.CERTIFICATE_VERIFY, bytes(70)), CCS[C], finished(C)], State.C_FIN),
    "false start": ([*KEYED, data(C), CCS[S], data(C), finished(S), data(C)], State.EST),
    "false start, ticket": (
        [client_hello(ticket=b""), server_hello(ticket=True), CERTIFICATE, KEY_EXCHANGE, DONE, CLIENT_KEY, CCS[C],
         finished(C), NEW_TICKET, data(C), CCS[S], finished(S)], State.EST),
    "resumed": ([*SHORT, data(S), CCS[C], data(S), finished(C), data(C)], State.EST),
    "resumed, ticket renewed": ([*RENEWED, CCS[S], finished(S), CCS[C], finished(C)], State.EST),
    "server asks for renegotiation": (
        [*FULL, sealed(S, tls.HANDSHAKE), data(S), data(C), sealed(S, tls.HANDSHAKE), sealed(C, tls.HANDSHAKE)],
        State.R_CLIENT),
    "renegotiation refused": ([*FULL, sealed(S, tls.HANDSHAKE), sealed(C, tls.ALERT)], State.EST),
    "renegotiation refused by the server": ([*FULL, sealed(C, tls.HANDSHAKE), sealed(S, tls.ALERT)], State.EST),
    "renegotiation": (
        [*FULL, sealed(C, tls.HANDSHAKE), sealed(C, tls.HANDSHAKE), data(C), data(S), sealed(S, tls.HANDSHAKE), data(C),
         data(S), sealed(S, tls.HANDSHAKE), sealed(C, tls.HANDSHAKE), CHANGE[C], data(C), data(S), sealed(C, tls.HANDSHAKE),
         sealed(S, tls.HANDSHAKE), CHANGE[S], data(C), data(S), finished(S)], State.EST),
    "renegotiation, resumed": (
        [*FULL, *RENEGOTIATION, CHANGE[S], data(C), data(S), finished(S), CHANGE[C], data(C), data(S), finished(C)],
        State.EST),
    "1.3": ([*EST_13, data(C), data(S)], State.T_EST),
    "1.3 without compatibility": ([*NEGOTIATED, data(S), data(C), data(S)], State.T_EST),
    "1.3, flights in several records": ([*NEGOTIATED, data(S), data(S), data(C), data(C), data(S)], State.T_EST),
    "1.3, change first": ([HELLO_13, CCS[C], ANSWER_13, data(S)], State.T_SERVER),
    "1.3, change late": ([*NEGOTIATED, CCS[C], data(S), CCS[S]._replace(unseen=True), data(C)], State.T_CLIENT),
    "1.3, change last": ([*NEGOTIATED, data(S), data(C), CCS[S]], State.T_CLIENT),
    "1.3 to a client that did not offer it": ([client_hello(), ANSWER_13], State.T_NEG),
    "1.3 offered, less taken": ([HELLO_13, *FLIGHT[1:]], State.C_FLIGHT),
    "retry": ([HELLO_13, RETRY, CCS[S], CCS[C], HELLO_13, ANSWER_13], State.T_NEG),
    "retry, change last": ([HELLO_13, RETRY, HELLO_13, CCS[C]], State.T_WAIT2),
    "retry, server's change last": ([HELLO_13, RETRY, HELLO_13, CCS[S]], State.T_WAIT2),
    "retry, other hellos": ([HELLO_13, RETRY, client_hello()], State.T_WAIT2),
    "retry, early data again": ([EARLY, RETRY, EARLY], State.T_WAIT2),
    "early data": ([EARLY, CCS[C], data(C), ANSWER_13, data(C), data(S), data(C)._replace(unseen=True), data(C)],
                   State.T_CLIENT),
    "early data, less taken": ([EARLY, data(C), server_hello()], State.N_SH),
    "early data, retry": ([EARLY, data(C), RETRY, data(C)._replace(unseen=True)], State.T_HRR),
    "SSL 2.0": ([*SSL2_KEYED, ssl2(C, bytes(30)), ssl2(S, bytes(30))], State.V_KEYED),
    "SSL 2.0, session": ([SSL2_HELLO, SSL2_HIT], State.V_KEYED),
    "SSL 2.0, refused": ([SSL2_HELLO, ssl2(S, b"\0\0\1")], State.CLOSED),
    "SSL 2.0, refused by the client": ([SSL2_HELLO, SSL2_ANSWER, ssl2(C, b"\0\0\1")], State.CLOSED),
    "SSL 2.0, refused in TLS": ([SSL2_HELLO, FATAL[S]], State.CLOSED),
    "SSL 2.0 hello for TLS": ([TLS_IN_SSL2, *FLIGHT[1:]], State.C_FLIGHT),
    "SSL 2.0 hello for TLS, SSL 2.0": ([TLS_IN_SSL2, SSL2_ANSWER], State.V_SH),
    "SSL 2.0 hello for TLS, session": ([TLS_IN_SSL2, SSL2_HIT], State.V_KEYED),
    "SSL 2.0 hello for TLS, refused": ([TLS_IN_SSL2, ssl2(S, b"\0\0\1")], State.CLOSED),
    "joined late, hello": ([client_hello()._replace(**OLD)], State.WAIT_SH),
    "joined late, client's data": ([data(C)._replace(**OLD), data(S)._replace(**OLD)], State.UNKNOWN),
    "joined late, server's data": ([data(S)._replace(**OLD), data(C)._replace(**OLD)], State.UNKNOWN),
    "joined late, hello behind an alert": ([step._replace(**OLD) for step in (WARNING[C], client_hello())], State.WAIT_SH),
    "joined late, TLS 1.3's hello": ([step._replace(**OLD) for step in (WARNING[C], HELLO_13)], State.WAIT_SH_13),
    "joined late, TLS 1.3": ([step._replace(**OLD) for step in (WARNING[C], HELLO_13, ANSWER_13)], State.T_NEG),
    "joined late, early data": ([step._replace(**OLD) for step in (WARNING[C], EARLY, data(C))], State.WAIT_SH_0RTT),
    "joined late, TLS 1.3's answer": ([step._replace(**OLD) for step in (WARNING[S], ANSWER_13)], State.T_NEG),
    "joined late, SSL 2.0": ([step._replace(**OLD) for step in (WARNING[S], SSL2_HELLO)], State.V_WAIT),
    "closing": ([*FLIGHT, CLOSE[C], CLOSE[C]], State.C_FLIGHT),
    "closing, failed": ([*KEYED, CLOSE[S], FATAL[S], FATAL[S]], State.CLOSED),
}  # fmt: skip
