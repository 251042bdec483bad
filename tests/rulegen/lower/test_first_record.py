"""A record anywhere in the payload becomes one at its start, and it is told which way that changes a rule."""

from __future__ import annotations

import pytest

from rulegen.ir.match import And, Not, Op, Or, SomeRecord, Test
from rulegen.lower.first_record import first_record, narrowed

PORT = Test("tcp.dport", Op.EQ, 443)
ALERT, DATA = (Test("tls.content_type", Op.EQ, content_type) for content_type in (21, 23))
ANY_ALERT, ANY_DATA = SomeRecord(ALERT, 4), SomeRecord(DATA, 4)


@pytest.mark.parametrize(
    ("match", "at_the_start", "changes"),
    [
        (PORT, PORT, set()),
        (ANY_ALERT, ALERT, {True}),
        (Not(ANY_ALERT), Not(ALERT), {False}),
        (Not(Not(ANY_ALERT)), Not(Not(ALERT)), {True}),
        (And((PORT, ANY_ALERT)), And((PORT, ALERT)), {True}),
        (Or((ANY_ALERT, Not(ANY_DATA))), Or((ALERT, Not(DATA))), {True, False}),
        (Not(And((PORT, Or((ALERT, ANY_DATA))))), Not(And((PORT, Or((ALERT, DATA))))), {False}),
    ],
)
def test_fewer_packets_are_matched_and_below_a_not_more(match, at_the_start, changes):
    assert first_record(match) == at_the_start
    assert narrowed(match) == changes
    assert narrowed(at_the_start) == set()
