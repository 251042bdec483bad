"""Runs of one policy: names, sets and bits of the mark that they do not share by accident."""

from __future__ import annotations

import pytest

from analyzer.model import Side
from rulegen.errors import WishError
from rulegen.ir.match import (
    Lookup,
    Marked,
    equals,
)
from rulegen.ir.rule import (
    Learn,
    SetDeclaration,
    SetMark,
)
from rulegen.own_names import MARK_BITS
from rulegen.policies.base import Part
from rulegen.testbed.packets import Segment
from tests.rulegen.parts import CONTINUE, composed, part, rule


def test_runs_of_a_policy_have_names_of_their_own(respond, finding):
    answer = respond((finding("HB01"),), "heartbleed:ports=443", "heartbleed:ports=8443,variant=strict")
    assert {one.name for one in answer.ruleset.chains} == {"heartbleed", "heartbleed-2"}
    (entry,) = answer.account
    assert entry.rules == ("heartbleed-overread",)
    assert "port is 443" in entry.why
    assert len(answer.ruleset.policies) == 2
    assert {"heartbleed-overread", "heartbleed-any-2"} <= {one.name for one in answer.ruleset.rules}


def test_a_wish_said_twice_is_one(respond):
    assert len(respond((), "heartbleed", "heartbleed:direction=both").ruleset.chains) == 1


def test_sets_are_not_shared_by_accident():
    declared = SetDeclaration(name="seen", fields=("tls.length",), dynamic=True)
    learner = part(
        rule("learn", equals("tcp.dport", 443), CONTINUE, effects=(Learn("seen", ("tls.length",), 60),)),
        rule("known", Lookup(("tls.length",), "seen")),
        sets=(declared,),
    )
    result = composed(learner, learner)
    assert [one.name for one in result.sets] == ["seen", "seen-2"]
    second = result.chains[1].rules
    assert second[0].effects == (Learn("seen-2", ("tls.length",), 60),)
    assert second[1].match == Lookup(("tls.length",), "seen-2")


def marking(port: int, bit: int = 1 << 28, **about) -> Part:
    return part(
        rule("mark", equals("tcp.dport", port), CONTINUE, effects=(SetMark(bit, bit),)),
        rule("marked", Marked(bit, bit)),
        **about,
    )


def test_runs_that_mean_the_same_share_their_marks():
    result = composed(
        marking(443, guard=equals("tls.content_type", 22)), marking(443, guard=equals("tls.content_type", 23))
    )
    assert {effect.mask for one in result.chains for each in one.rules for effect in each.effects} == {
        1 << 28
    }


def test_runs_that_mean_different_packets_have_marks_of_their_own():
    first, second = composed(marking(443), marking(8443)).chains
    (moved,) = second.rules[0].effects
    assert first.rules[0].effects == (SetMark(1 << 28, 1 << 28),)
    assert moved.mask in MARK_BITS
    assert moved.mask != 1 << 28
    assert second.rules[1].match == Marked(moved.mask, moved.mask)


def test_marks_run_out_by_name():
    with pytest.raises(WishError, match="no bits of the connection mark are left for another p"):
        composed(*(marking(port) for port in range(len(MARK_BITS) + 1)))
    composed(*(marking(port) for port in range(len(MARK_BITS))))


def heartbeat(payload_length: int, port: int) -> tuple[Side, bytes]:
    payload = b"\x18\x03\x02\x00\x23\x01" + payload_length.to_bytes(2) + bytes(32)
    segment = Segment(
        source="192.0.2.1",
        destination="198.51.100.7",
        source_port=40000,
        destination_port=port,
        payload=payload,
    )
    return Side.CLIENT, segment.packet()


@pytest.mark.netns
def test_exact_for_one_port_and_strict_for_another(bench, rules_text):
    bench.load(rules_text("heartbleed:ports=443", "heartbleed:ports=8443,variant=strict"))
    packets = [heartbeat(length, port) for port in (443, 8443, 9443) for length in (16, 17)]
    passed = [fate.passed for fate in bench.send(packets)]
    assert passed == [True, False, False, False, True, True]
    counters = bench.counters()
    assert (counters["heartbleed-overread"], counters["heartbleed-any-2"]) == (1, 2)
