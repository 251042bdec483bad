"""The tables say all of it, and the kernel goes where they say."""

from __future__ import annotations

from itertools import product
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.model import Side
from analyzer.tls import tracker as kernel
from analyzer.tls.state import ROWS, TABLE, Ev, Machine, State, Transition, Violation, dense, index, step
from tests.both_forms import load_uncompiled

STARTS = {
    Machine.HANDSHAKE: State.START,
    Machine.PROTECTION: State.PLAIN,
    Machine.HEARTBEAT: State.IDLE,
    Machine.CLOSING: State.OPEN,
}
TERMINAL = {State.CLOSED, State.T_EST, State.V_KEYED, State.PROTECTED, State.SHUT}
"""Where a machine stays for good: all that follows is encrypted, or nothing follows."""
RECORD_EVENTS = [
    event for event in Ev if event < Ev.GAP or event in (Ev.CCS_IN_MESSAGE, Ev.RECORD_IN_MESSAGE)
]
KEYS = list(product(State, Side, Ev))


@pytest.fixture(
    params=[
        pytest.param(load_uncompiled("analyzer.tls.tracker"), id="uncompiled"),
        pytest.param(
            kernel,
            id="compiled",
            marks=pytest.mark.skipif(not kernel.COMPILED, reason="the kernel is not compiled"),
        ),
    ]
)
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def machine_of(state: State) -> Machine:
    return next(row.machine for row in ROWS if state in (row.state, row.next))


# the rows


def test_no_two_rows_for_one_key():
    assert len(TABLE) == len(ROWS)
    with pytest.raises(ValueError, match="two rows for START CLIENT CLIENT_HELLO"):
        index([ROWS[0], ROWS[0]._replace(next=State.CLOSED)])


def test_every_state_and_every_event_is_used():
    assert {state for row in ROWS for state in (row.state, row.next)} == set(State)
    assert {row.event for row in ROWS} | NEVER_RIGHT == set(Ev)
    assert not {row.event for row in ROWS if row.state not in (State.UNKNOWN, State.CLOSED)} & NEVER_RIGHT


NEVER_RIGHT = {
    Ev.CERTIFICATE_FORBIDDEN,
    Ev.CERTIFICATE_STATUS_FORBIDDEN,
    Ev.SERVER_KEY_EXCHANGE_FORBIDDEN,
    Ev.CERTIFICATE_REQUEST_FORBIDDEN,
    Ev.SERVER_HELLO_DONE_NO_CERTIFICATE,
    Ev.SERVER_HELLO_DONE_NO_KEY_EXCHANGE,
    Ev.CLIENT_KEY_EXCHANGE_NO_CERTIFICATE,
    Ev.CERTIFICATE_VERIFY_FORBIDDEN,
    Ev.NEW_SESSION_TICKET_FORBIDDEN,
    Ev.FINISHED_CLEAR,
    Ev.HANDSHAKE_OTHER,
    Ev.CCS_UNSEEN,
    Ev.CCS_REPEATED,
    Ev.CCS_NO_VERIFY,
    Ev.CCS_IN_MESSAGE,
    Ev.RECORD_IN_MESSAGE,
    Ev.APP_CLEAR,
    Ev.CLEAR_HANDSHAKE,
    Ev.CLEAR_ALERT,
    Ev.CLEAR_HEARTBEAT_13,
    Ev.HEARTBEAT,
    Ev.HB_REQUEST_AGAIN,
}
"""Events that are a violation in every state where the order is known."""


def test_a_machine_keeps_to_its_own_states():
    for row in ROWS:
        assert machine_of(row.state) == machine_of(row.next) == row.machine


def test_every_row_has_its_source():
    assert all(row.source for row in ROWS)


def test_every_state_can_be_reached():
    for machine, start in STARTS.items():
        reached = {start}
        while more := {row.next for row in ROWS if row.state in reached} - reached:
            reached |= more
        assert reached == {state for state in State if machine_of(state) == machine}


def test_every_state_but_the_last_ones_has_a_way_out():
    for state in set(State) - TERMINAL:
        assert {row.next for row in ROWS if row.state == state} - {state}, state
    for state in TERMINAL:
        assert {row.next for row in ROWS if row.state == state} == {state}


def test_from_every_handshake_state_data_can_be_reached():
    """No legal handshake leads to where it can't go on."""
    done = {State.EST, State.T_EST, State.V_KEYED}
    lossless = [row for row in ROWS if row.event not in (Ev.GAP, Ev.JOINED_LATE)]
    good = set(done)
    while more := {row.state for row in lossless if row.next in good} - good:
        good |= more
    handshake = {state for state in State if machine_of(state) == Machine.HANDSHAKE}
    assert handshake - good == {State.CLOSED}


@pytest.mark.parametrize("side", Side)
def test_nothing_is_a_violation_where_order_is_unknown_or_the_handshake_has_failed(side):
    for event in RECORD_EVENTS:
        assert isinstance(step(State.UNKNOWN, side, event), Transition), event.name
        assert step(State.CLOSED, side, event) == TABLE[State.CLOSED, side, event]
        assert TABLE[State.CLOSED, side, event].next == State.CLOSED


@pytest.mark.parametrize("side", Side)
def test_loss_has_a_row_everywhere(side):
    for state in State:
        if machine_of(state) == Machine.HANDSHAKE:
            assert step(state, side, Ev.GAP).next in (state, State.UNKNOWN)


def test_a_missing_row_is_a_value():
    assert step(State.EST, Side.CLIENT, Ev.CLIENT_HELLO) == Violation(State.EST, Side.CLIENT, Ev.CLIENT_HELLO)


@given(st.lists(st.tuples(st.sampled_from(Side), st.sampled_from(Ev)), max_size=100))
def test_random_events_never_raise_and_violations_keep_the_state(events):
    state = State.START
    for side, event in events:
        outcome = step(state, side, event)
        assert outcome.state == state
        if isinstance(outcome, Transition):
            state = outcome.next


# the dense form and the kernel


def test_the_matrix_has_the_rows_and_nothing_else():
    matrix = dense()
    for state, side, event in KEYS:
        outcome = step(state, side, event)
        expected = outcome.next if isinstance(outcome, Transition) else -1
        assert matrix[state, side, event] == expected


def test_the_kernel_goes_where_step_goes(form):
    different = []
    for state, side, event in KEYS:
        outcome = step(state, side, event)
        expected = outcome.next if isinstance(outcome, Transition) else -1
        if (went := form.walk(state, side, event)) != expected:
            different.append((state.name, side.name, event.name, expected, went))
    assert not different
