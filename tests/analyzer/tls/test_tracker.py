"""Conversations walk through the machines as the RFCs have them, and every row of the tables is somebody's step."""

from __future__ import annotations

import struct
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import limits, pipeline
from analyzer.model import Side
from analyzer.tls import hello
from analyzer.tls import tracker as kernel
from analyzer.tls.state import ROWS, Ev, Machine, State, dense
from analyzer.tls.tracker import Event, Kind, Tls
from samples.craft import tls_bytes as tls
from tests.analyzer.tls.conversations import (
    CCS,
    CERTIFICATE,
    CERTIFICATE_BODY,
    CLOSE,
    DONE,
    EST_13,
    FATAL,
    FLIGHT,
    FULL,
    HELLO_13,
    HELLO_REQUEST,
    HELLOS,
    KEY_EXCHANGE,
    KEYED,
    LEGAL,
    NOISE,
    RENEGOTIATION,
    RETRY,
    RSA,
    WARNING,
    C,
    S,
    Step,
    Talk,
    alert,
    beat,
    client_hello,
    data,
    finished,
    message,
    record,
    sealed,
    server_hello,
)  # fmt: skip
from tests.both_forms import load_uncompiled
from tests.recut import CRAFTED, SHIPPED, pcap, together

UNCOMPILED = load_uncompiled("analyzer.tls.tracker")
FORMS = [
    pytest.param(UNCOMPILED, id="uncompiled"),
    pytest.param(
        kernel,
        id="compiled",
        marks=pytest.mark.skipif(not kernel.COMPILED, reason="the kernel is not compiled"),
    ),
]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_conversation(form, name):
    steps, state = LEGAL[name]
    talk = Talk(form).take(*steps)
    assert (talk.violations, talk.state) == ([], state)


@pytest.mark.parametrize("name", LEGAL)
def test_alerts_come_anywhere_in_a_legal_conversation(form, name):
    """While a side has not changed keys, its warnings change nothing, and its fatal alert ends the handshake."""
    steps, _ = LEGAL[name]
    if steps[0].data[0] & 0x80:
        return  # SSL 2.0 has other alerts
    for length in range(1, len(steps)):
        for side in Side:
            talk = Talk(form).take(*steps[:length])
            clear = talk[Tls.PROTECTION_0 + side] == State.PLAIN and not talk[Tls.CCS_0 + side]
            if not clear or talk.state in (State.CLOSED, State.UNKNOWN, State.START):
                continue
            before = talk.state
            talk.take(WARNING[side])
            assert talk.state == before
            talk.take(FATAL[side])
            assert talk.state == State.CLOSED
            assert not [line for line in talk.violations if "ALERT_FATAL" in line]


# every row is taken


@cache
def taken() -> set[tuple[int, int, int]]:
    """The rows that anything takes."""
    seen: set[tuple[int, int, int]] = set()
    look_up, step = UNCOMPILED._next, UNCOMPILED.Heartbeats.follow.__globals__["step"]

    def spy(matrix: Any, state: int, side: int, event: int) -> int:
        following = look_up(matrix, state, side, event)
        if following >= 0:
            seen.add((state, side, event))
        return following

    def spy_step(state: State, side: Side, event: Ev) -> Any:
        seen.add((state, side, event))
        return step(state, side, event)

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(UNCOMPILED, "_next", spy)
        patch.setitem(UNCOMPILED.Heartbeats.follow.__globals__, "step", spy_step)
        patch.setattr(pipeline, "Tracker", UNCOMPILED.Tracker)
        path = Path(folder) / "all.pcap"
        path.write_bytes(pcap(together([*CRAFTED, *SHIPPED])))
        pipeline.analyze(path)
        for steps, _ in LEGAL.values():
            for length in range(len(steps) + 1):
                for side in Side:
                    for last in ([WARNING[side], FATAL[side]], [CLOSE[side], CLOSE[side]], [FATAL[side], FATAL[side]],
                                 [sealed(side, tls.ALERT)], [beat(side)],
                                 [data(side)._replace(gap=1 << 16, sync=7)], [HELLO_REQUEST]):  # fmt: skip
                        Talk(UNCOMPILED).take(*steps[:length], *last)
        for side in Side:
            peer = Side(1 - side)
            Talk(UNCOMPILED).take(*FULL, beat(side), beat(side), beat(peer), beat(peer))
    return seen


CHANGED = {
    C: (State.C_CCS, State.C_FIN, State.S_TICKET, State.S_CCS, State.A_CCCS),
    S: (State.S_CCS, State.A_SCCS, State.A_SFIN, State.A_CCCS, State.T_NEG, State.T_SERVER, State.T_CLIENT, State.T_EST),
}  # fmt: skip
"""Where a side has changed keys: what it sends in clear is CLEAR_HANDSHAKE or CLEAR_ALERT there."""
NEVER = {
    *((state, side, event)
      for side, states in CHANGED.items() for state in states
      for event in (Ev.HELLO_REQUEST, Ev.ALERT_WARNING, Ev.ALERT_FATAL)),
    # where a side has not changed keys, its heartbeats are in clear
    (State.C_FIN, S, Ev.ENC_HEARTBEAT),
    (State.A_SFIN, C, Ev.ENC_HEARTBEAT),
    # only a server's ChangeCipherSpec tells that a session is resumed
    (State.PLAIN, C, Ev.CCS_RESUMING),
}  # fmt: skip
"""Rows for what the tracker gives another name: nothing takes them."""


def test_every_row_is_taken():
    """By the samples, the legal conversations, and alerts, heartbeats and losses anywhere in them.

    Rows that stand for a whole class (no verdict without order, nothing after the end) are left out, and those by
    which the first record alone decides: LEGAL has connections that were joined late.
    """
    rows = {
        (row.state, row.side, row.event)
        for row in ROWS
        if row.source != "no verdict without order"
        and row.state != State.CLOSED
        and row.event != Ev.JOINED_LATE
    }
    untaken = rows - taken()
    assert shown(untaken - NEVER) == []
    assert shown(rows & NEVER - untaken) == []


ANYWHERE = (
    Ev.GAP,
    Ev.JOINED_LATE,
    Ev.HELLO_REQUEST,
    Ev.ALERT_WARNING,
    Ev.ALERT_FATAL,
    Ev.ENC_ALERT,
    Ev.ENC_HEARTBEAT,
)
"""Not part of a conversation: the test above has them in the middle of one."""


def test_without_any_row_of_the_handshake_a_legal_conversation_goes_wrong(monkeypatch):
    needless = set()
    for row in ROWS:
        key = (row.state, row.side, row.event)
        whole_class = row.source == "no verdict without order" or row.state == State.CLOSED
        if row.machine == Machine.HANDSHAKE and row.event not in ANYWHERE and not whole_class:
            without = dense()
            without[key] = -1
            monkeypatch.setattr(UNCOMPILED, "dense", lambda matrix=without: matrix)
            if all(goes_right(*conversation) for conversation in LEGAL.values()):
                needless.add(key)
    assert shown(needless - NEVER) == []


def goes_right(steps: list[Step], state: State) -> bool:
    talk = Talk(UNCOMPILED).take(*steps)
    return not talk.violations and talk.state == state


def shown(keys: set[tuple[State, Side, Ev]]) -> list[str]:
    return [f"{state.name} {side.name} {event.name}" for state, side, event in sorted(keys)]


# violations


@pytest.mark.parametrize(
    ("steps", "violation"),
    [
        ([client_hello(), CCS[C]], "WAIT_SH CLIENT CCS"),
        ([*HELLOS, CCS[C]], "N_SH CLIENT CCS"),
        ([*HELLOS, CCS[S]], "N_SH SERVER CCS"),
        ([*FLIGHT, CCS[C]], "C_FLIGHT CLIENT CCS"),
        ([*KEYED, CCS[S]._replace(unseen=True)], "C_FIN SERVER CCS_UNSEEN"),
        ([*FULL[:7], CCS[C]], "C_CCS CLIENT ENC_CCS"),
        ([client_hello(), client_hello()], "WAIT_SH CLIENT CLIENT_HELLO"),
        ([client_hello(), client_hello()._replace(side=S)], "WAIT_SH SERVER CLIENT_HELLO"),
        ([client_hello(), server_hello()._replace(side=C)], "WAIT_SH CLIENT SERVER_HELLO"),
        ([server_hello()], "START SERVER SERVER_HELLO"),
        ([*HELLOS, CERTIFICATE, DONE], "N_CERTIFICATE SERVER SERVER_HELLO_DONE_NO_KEY_EXCHANGE"),
        ([*HELLOS, DONE], "N_SH SERVER SERVER_HELLO_DONE_NO_KEY_EXCHANGE"),
        ([*RSA, CERTIFICATE, KEY_EXCHANGE], "N_CERTIFICATE SERVER SERVER_KEY_EXCHANGE_FORBIDDEN"),
        ([*HELLOS, data(C)], "N_SH CLIENT APP_CLEAR"),
        ([client_hello(), message(C, 20, bytes(12))], "WAIT_SH CLIENT FINISHED_CLEAR"),
        ([client_hello(), message(C, 99)], "WAIT_SH CLIENT HANDSHAKE_OTHER"),
        ([*FULL, message(C, tls.CLIENT_HELLO, bytes(50))], "EST CLIENT CLEAR_HANDSHAKE"),
        ([*FULL, alert(S, 1, 0)], "EST SERVER CLEAR_ALERT"),
        ([*EST_13, message(C, 1, bytes(50))], "T_EST CLIENT CLEAR_HANDSHAKE"),
        ([*EST_13, CCS[C]], "T_EST CLIENT CCS_REPEATED"),
        ([HELLO_13, RETRY, RETRY], "T_HRR SERVER HELLO_RETRY_REQUEST"),
        ([client_hello(), CLOSE[C], client_hello()], "SHUT CLIENT DATA"),
    ],
)  # fmt: skip
def test_a_violation_is_named_and_the_state_stays(form, steps, violation):
    before = Talk(form).take(*steps[:-1]).state
    talk = Talk(form).take(*steps)
    assert violation in talk.violations
    if "DONE" not in violation:  # the flight is over though something of it is missing
        assert talk.state == before


def test_half_a_record_says_nothing(form):
    assert Talk(form).take(Step(C, client_hello().data[:30]), CCS[C]).violations == []


def test_a_record_between_the_pieces_of_a_message(form):
    body = tls.ClientHello(noise=NOISE).message()
    halves = [Step(C, record(22, body[:50])), Step(C, record(22, body[50:]))]
    assert Talk(form).take(halves[0], CCS[C], halves[1]).violations == ["START CLIENT CCS_IN_MESSAGE"]
    assert "START CLIENT RECORD_IN_MESSAGE" in Talk(form).take(halves[0], data(C), halves[1]).violations
    assert Talk(form).take(*halves).violations == []


@pytest.mark.parametrize("sync", [7, 11, 2, 1, 19])
def test_without_order_nothing_is_a_violation(form, sync):
    """Bytes missing in either direction, or a side that is not known from its SYN."""
    steps = [step._replace(sync=sync) for step in (*HELLOS, CCS[C], data(C), client_hello())]
    assert Talk(form).take(*steps).violations == []


def test_whether_a_handshake_record_is_sealed_is_told_by_its_first_four_bytes_however_they_come(form):
    plain = message(C, tls.CLIENT_HELLO, bytes(40))
    for sizes in ((5, 1), (6, 1), (7, 100), (8, 100), (9, 100), (1,)):
        assert Talk(form).take(*FULL, plain._replace(sizes=sizes)).violations == [
            "EST CLIENT CLEAR_HANDSHAKE"
        ]
        talk = Talk(form).take(*FULL[:-1], finished(S)._replace(sizes=sizes))
        assert (talk.violations, talk.state) == ([], State.EST)


# who is who


def test_the_client_is_who_sends_the_client_hello(form):
    swapped = [step._replace(side=Side(1 - step.side)) for step in FULL]
    talk = Talk(form).take(*swapped)
    assert (talk.violations, talk.state, talk[Tls.CLIENT]) == ([], State.EST, 1)
    assert {event[Event.SIDE] for event in Talk(form).take(*swapped, swapped[0]).of(Kind.VIOLATION)} == {C}


def test_without_a_hello_the_opener_is_the_client(form):
    for opener, client in ((1, 0), (2, 1), (3, 0), (4, 1)):
        talk = Talk(form, opener=opener).take(data(C)._replace(sync=2))
        assert talk[Tls.CLIENT] == client


# what is kept


def test_facts_of_a_connection(form):
    talk = Talk(form).take(*FULL)
    facts = (Tls.VERSION, Tls.CIPHER_SUITE, Tls.CLIENT_VERSION, Tls.ESTABLISHED, Tls.RESUMED, Tls.HELLOS)
    assert [talk[fact] for fact in facts] == [0x0303, 0xC02F, 0x0303, 1, 1, 1]
    assert talk.tracker.client[0].sni == b"server.example"
    assert [
        Talk(form).take(*LEGAL[name][0])[Tls.RESUMED]
        for name in ("resumed", "resumed, ticket renewed", "1.3")
    ] == [2, 3, 1]
    assert Talk(form).take(HELLO_13, server_hello(version=tls.TLS13, psk=True))[Tls.RESUMED] == 4
    assert Talk(form).take(*RENEGOTIATION)[Tls.RENEGOTIATIONS] == 0
    assert Talk(form).take(*FULL, *RENEGOTIATION)[Tls.RENEGOTIATIONS] == 1


def test_messages_and_bodies_where_they_are_asked_for(form):
    talk = Talk(form, messages=True)
    talk.take(*(step._replace(sizes=(7, 30, 1)) for step in FULL))
    kinds = [event[Event.MESSAGE] for event in talk.of(Kind.MESSAGE)]
    assert kinds == [1, 2, 11, 12, 14, 16]
    assert talk.tracker.bodies[2] == CERTIFICATE_BODY
    assert len(talk.of(Kind.CHANGE_CIPHER_SPEC)) == 2
    assert not Talk(form).take(*FULL).events


def test_a_flood_of_one_oddity_hides_no_other(form):
    """Past the limit only what a side does for the first time is noted."""
    talk = Talk(form).take(client_hello())
    flood = Step(C, record(tls.ALERT, b"") * 300)
    talk.take(*[flood] * 20)
    assert len(talk.of(Kind.EMPTY)) == limits.EVENTS_PER_CONNECTION
    talk.take(CCS[C], CCS[C], server_hello(), CCS[S], Step(S, record(24, b"")), *[flood] * 3)
    assert talk.violations == ["WAIT_SH CLIENT CCS", "N_SH SERVER CCS"]
    assert len(talk.of(Kind.EMPTY)) == limits.EVENTS_PER_CONNECTION + 1
    assert talk[Tls.EVENTS] > 20 * 300


def test_events_are_given_in_portions(form, monkeypatch):
    steps = [client_hello(), Step(C, record(tls.ALERT, b"") * 100)]
    whole = Talk(form).take(*steps).events
    monkeypatch.setattr(limits, "RECORD_ROWS", 512)
    assert Talk(form).take(*(step._replace(sizes=(400,)) for step in steps)).of(Kind.EMPTY)
    assert len(Talk(form).take(*(step._replace(sizes=(400,)) for step in steps)).events) == len(whole)


@pytest.mark.parametrize("size", [70_000, 1 << 20, (1 << 24) - 1])
def test_a_hello_larger_than_is_kept_is_read_as_far_as_it_is_kept(form, size):
    start = tls.ClientHello(noise=NOISE).message()[4:]
    body = start + bytes(size - len(start))
    whole = bytes([1]) + struct.pack(">I", size)[1:] + body
    steps = [Step(C, record(22, whole[at : at + 16384])) for at in range(0, min(len(whole), 200_000), 16384)]
    talk = Talk(form)
    for step in steps:
        talk.take(step)
        assert talk.tracker.kept <= limits.HELLO_BYTES
    if size < 200_000:
        assert talk[Tls.CLIENT_FLAGS] & hello.MALFORMED
        assert talk.tracker.client[0].sni == b"server.example"
        assert talk.tracker.kept == 0
    talk.tracker.retire(np.zeros(1, dtype=np.int32))
    assert talk.tracker.kept == 0


def test_unfinished_hellos_of_all_connections_have_a_limit(form, monkeypatch):
    monkeypatch.setattr(limits, "HELLO_BYTES_ALL", 1000)
    hello_step = client_hello(ticket=bytes(1500))
    talk = Talk(form).take(hello_step._replace(sizes=(1100, 300)))
    assert talk.tracker.kept == 0
    assert talk[Tls.CLIENT_FLAGS] & hello.MALFORMED
    assert talk.state == State.WAIT_SH, "it is a ClientHello all the same"


def test_a_gap_within_a_hello_drops_what_was_kept(form):
    whole = client_hello().data
    talk = Talk(form).take(Step(C, whole[:60]), Step(C, whole[80:], gap=20, sync=7), data(C)._replace(sync=7))
    assert talk.tracker.kept == 0
    assert talk.violations == []


# anything


def hostile() -> st.SearchStrategy[list[Step]]:
    legal = [step for steps, _ in LEGAL.values() for step in steps]
    free = st.builds(
        lambda side, data: Step(side, data),
        st.sampled_from(Side),
        st.builds(
            record,
            st.sampled_from((20, 21, 22, 22, 23, 24)),
            st.binary(max_size=60) | st.builds(tls.message, st.integers(0, 30), st.binary(max_size=40)),
            st.sampled_from((0x0300, 0x0301, 0x0303, 0x0304, 0x0309)),
        ),
    )
    one = st.sampled_from(legal) | free
    changed = st.builds(
        lambda step, sync, gap, sizes, unseen: step._replace(
            sync=sync, gap=gap, sizes=tuple(sizes), unseen=unseen
        ),
        one,
        st.sampled_from((3, 3, 3, 3, 2, 7, 11, 19)),
        st.sampled_from((0, 0, 0, 0, 5, 1000)),
        st.lists(st.integers(1, 200), min_size=1, max_size=4),
        st.booleans(),
    )
    begun = st.sampled_from([steps for steps, _ in LEGAL.values()]).flatmap(
        lambda steps: st.integers(0, len(steps)).map(lambda length: list(steps[:length]))
    )
    return st.builds(lambda first, rest: first + rest, begun, st.lists(one | changed, max_size=8))


@settings(max_examples=150, deadline=None)
@given(hostile())
def test_any_steps_give_the_same_in_both_forms(steps):
    talks = [Talk(form, messages=True).take(*steps) for form in (kernel, UNCOMPILED)]
    assert talks[0].events == talks[1].events
    assert (talks[0].tracker.state == talks[1].tracker.state).all()
    assert talks[0].tracker.bodies == talks[1].tracker.bodies
    assert [repr(beat) for beat in talks[0].tracker.beats] == [repr(beat) for beat in talks[1].tracker.beats]
    for talk in talks:
        assert talk.state in State
        assert len(talk.tracker.bodies) == len(talk.of(Kind.MESSAGE))
