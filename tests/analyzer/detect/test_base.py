"""Hits of one rule in one connection are one finding: what of them stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import limits
from analyzer.detect.base import Hit, Rule, findings
from analyzer.model import Action, Finding, Severity, Side
from tests.analyzer.test_connections import ORIGINATOR, RESPONDER, batch

RULES = {
    name: Rule(name, f"Title of {name}", Severity.MEDIUM, action, "What it means.", ("RFC 8446 1",), policy)
    for name, action, policy in (
        ("AA01", Action.BLOCK, None),
        ("BB01", Action.CORROBORATE, None),
        ("TT01", Action.TAMPERING, None),
        ("PP01", Action.POSTURE, "min-version"),
    )
}
BATCH = batch({"CONNECTION": 3}, {"CONNECTION": 4, "CAPTURE": 1}, {"CONNECTION": 5, "CLIENT": 1})


def hit(rule: str = "BB01", row: int | None = 0, **what: Any) -> Hit:
    return Hit(rule=rule, batch=None if row is None else BATCH, row=row, **what)


def joined(*hits: Hit) -> Finding:
    (finding,) = findings(RULES, hits)
    return finding


def test_a_finding_for_each_rule_and_connection_in_the_order_of_first_hits():
    found = findings(RULES, [hit("PP01"), hit("BB01", 1), hit("BB01"), hit("PP01"), hit("BB01", 1)])
    assert [(one.id, one.capture, one.connection) for one in found] == [
        ("PP01", 0, 3),
        ("BB01", 1, 4),
        ("BB01", 0, 3),
    ]
    assert [one.evidence.get("count") for one in found] == [2, 2, None]


def test_hits_about_several_connections_are_never_joined():
    found = findings(RULES, [hit("BB01", None, capture=2), hit("BB01", None, capture=2)])
    assert [(one.connection, one.capture) for one in found] == [(None, 2), (None, 2)]


def test_the_first_evidence_stands_and_later_hits_add_to_it():
    finding = joined(
        hit(evidence={"bytes": "16", "length": 1}),
        hit(evidence={"bytes": "17", "length": 2, "state": "EST"}, replaces=("length",)),
    )
    assert finding.evidence == {"bytes": "16", "length": 2, "state": "EST", "count": 2}
    assert joined(hit(evidence={"count": 7}), hit()).evidence == {"count": 7}


def test_packets_are_sorted_and_named_once():
    assert joined(hit(packets=(9, 4)), hit(packets=(4, 7))).packets == (4, 7, 9)
    assert joined(hit(packets=(9, 4, 9))).packets == (4, 9)


@pytest.mark.parametrize("count", [limits.FINDING_PACKETS, limits.FINDING_PACKETS + 1])
def test_packets_have_a_limit_and_are_counted_past_it(count):
    finding = joined(hit(packets=tuple(range(1, count + 1))))
    assert finding.packets == tuple(range(1, limits.FINDING_PACKETS + 1))
    assert finding.evidence == ({"packet_count": count} if count > limits.FINDING_PACKETS else {})


def test_the_worst_severity_stands():
    assert joined(hit(severity=Severity.LOW), hit(severity=Severity.HIGH)).severity == Severity.HIGH
    assert joined(hit(severity=Severity.LOW), hit()).severity == Severity.MEDIUM, "the rule's is one of them"
    assert joined(hit(severity=Severity.INFO)).severity == Severity.INFO


@given(st.lists(st.sampled_from(Action), min_size=1, max_size=5))
def test_tampering_stands_before_a_block_and_a_block_before_the_rest(actions):
    """Whom somebody on the path may have made look guilty is not blocked."""
    rank = [Action.TAMPERING, Action.BLOCK, Action.CORROBORATE, Action.POSTURE, Action.INFORM]
    finding = joined(*(hit(action=action, offender=Side.CLIENT) for action in actions))
    assert finding.action == min(actions, key=rank.index)
    assert (finding.offender is not None) == (finding.action == Action.BLOCK)


@pytest.mark.parametrize(
    ("row", "side", "offender", "victim"),
    [
        (0, Side.CLIENT, ORIGINATOR, RESPONDER),
        (0, Side.SERVER, RESPONDER, ORIGINATOR),
        (2, Side.CLIENT, RESPONDER, ORIGINATOR),
    ],
)
def test_class_a_names_the_offending_side_and_the_other_is_its_victim(row, side, offender, victim):
    finding = joined(hit("AA01", row, offender=side))
    assert (finding.offender, finding.victims, finding.policy) == (offender, (victim,), "block")


def test_class_a_may_name_an_address_where_there_is_no_connection():
    finding = joined(hit("AA01", None, offender="192.0.2.66"))
    assert (finding.offender, finding.victims, finding.policy) == ("192.0.2.66", (), "block")


def test_the_first_hit_that_knows_the_offender_names_it():
    assert (
        joined(hit("AA01"), hit("AA01", offender=Side.SERVER), hit("AA01", offender=Side.CLIENT)).offender
        == RESPONDER
    )


def test_class_a_without_an_offender_is_no_block():
    finding = joined(hit("AA01"))
    assert (finding.offender, finding.policy) == (None, None)


def test_of_tampering_both_ends_are_victims():
    finding = joined(hit("TT01", offender=Side.CLIENT))
    assert (finding.offender, finding.victims, finding.policy) == (None, (ORIGINATOR, RESPONDER), None)


def test_a_rule_brings_its_texts_and_its_policy():
    finding = joined(hit("PP01", offender=Side.SERVER))
    rule = RULES["PP01"]
    assert (finding.title, finding.explanation, finding.references) == (
        rule.title,
        rule.explanation,
        rule.references,
    )
    assert (finding.policy, finding.offender) == ("min-version", None)
