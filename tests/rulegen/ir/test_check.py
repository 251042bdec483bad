"""Everything that a ruleset must not be, by the words with which it is refused."""

from __future__ import annotations

import dataclasses

import pytest

from rulegen.errors import InvalidRuleset
from rulegen.ir.check import check
from rulegen.ir.match import (
    ALWAYS,
    And,
    Exceeds,
    InState,
    Lookup,
    Marked,
    Not,
    Op,
    Or,
    Present,
    Protocol,
    Test,
    all_of,
    any_of,
    between,
    equals,
    one_of,
)
from rulegen.ir.rule import (
    Chain,
    Element,
    Learn,
    Limit,
    Origin,
    Rule,
    Ruleset,
    SetDeclaration,
    SetMark,
    Verdict,
)


def rule(match=ALWAYS, name="r", verdict=Verdict.DROP, **changes) -> Rule:
    return Rule(name=name, match=match, verdict=verdict, origin=Origin(policy="test"), meaning="", **changes)


def ruleset(*rules: Rule, sets=(), guard=ALWAYS) -> Ruleset:
    return Ruleset(chains=(Chain(name="c", policy="test", rules=rules, guard=guard),), sets=tuple(sets))


ADDRESSES = SetDeclaration(name="addresses", fields=("ip.saddr",))
LEARNED = SetDeclaration(name="learned", fields=("tls.random",), dynamic=True)
IN_ADDRESSES = Lookup(("ip.saddr",), "addresses")

# fmt: off
WRONG_MATCHES = (
    (equals("tls.nonsense", 1),                                                "no field tls.nonsense"),
    (equals("tls.content_type", 256),                                          "does not fit tls.content"),
    (equals("tls.content_type", -1),                                           "does not fit"),
    (Test("tls.version", Op.EQ, 1, mask=0x10000),                              "mask 0x10000 does not fit"),
    (Test("tls.version", Op.EQ, 1, mask=0),                                    "mask 0x0 does not fit"),
    (Test("tls.version", Op.EQ, 1, mask=0xFF00),                               "can't be such a value"),
    (Test("tls.version", Op.EQ, ((1, 2),)),                                    "takes an integer"),
    (Test("tls.version", Op.IN, 1),                                            "takes intervals"),
    (one_of("tls.version", ()),                                                "in nothing"),
    (between("tls.version", 5, 4),                                             "holds nothing"),
    (Exceeds("tls.length", 1, "tls.content_type"),                             "differ in width"),
    (Exceeds("tls.length", 1, "tcp.dport"),                                    "different layers"),
    (Exceeds("tls.length", 1, "tls.nonsense"),                                 "no field"),
    (Exceeds("tls.length", 65536, "tls.heartbeat_payload_length"),             "65536 does not fit"),
    (Present("tcp.dport"),                                                     "in a header"),
    (Present("tls.nonsense"),                                                  "no field"),
    (Lookup(("ip.saddr",), "nowhere"),                                         "not declared"),
    (Protocol("sctp"),                                                         "there are ip, ip6, tcp, udp"),
    (InState(frozenset()),                                                     "out of none"),
    (Marked(2, 1),                                                             "does not fit"),
    (Marked(0, 0),                                                             "does not fit"),
    (Not(equals("tls.content_type", 256)),                                     "does not fit"),
    (all_of(equals("ip.saddr", 1), equals("ip6.saddr", 1)),                    "not both ip and ip6"),
    (all_of(equals("tls.length", 1), equals("udp.dport", 1)),                  "not both tcp and udp"),
    (all_of(any_of(equals("tcp.dport", 1), equals("tls.length", 1)), Protocol("udp")), "both tcp and udp"),
    (all_of(equals("tcp.dport", 1), equals("tcp.dport", 2)),                   "exclude each other"),
    (all_of(Test("tls.length", Op.LT, 4), all_of(Test("tls.length", Op.GE, 4))), "exclude each other"),
    (Not(all_of(equals("tcp.dport", 1), equals("tcp.dport", 2))),              "exclude each other"),
)
# fmt: on


@pytest.mark.parametrize(("match", "words"), WRONG_MATCHES, ids=[row[1] for row in WRONG_MATCHES])
def test_matches_that_mean_nothing(match, words):
    with pytest.raises(InvalidRuleset, match=words):
        check(ruleset(rule(match)))


def test_the_guard_counts():
    with pytest.raises(InvalidRuleset, match="not both"):
        check(ruleset(rule(equals("udp.dport", 1)), guard=Protocol("tcp")))
    with pytest.raises(InvalidRuleset, match="guard of c: no field"):
        check(ruleset(rule(), guard=equals("tls.nonsense", 1)))


# fmt: off
WRONG_RULES = (
    (rule(verdict=Verdict.CONTINUE),                                            "neither verdict nor effect"),
    (rule(verdict=Verdict.RESET),                                               "need not be TCP"),
    (rule(effects=(SetMark(2, 1),)),                                            "does not fit"),
    (rule(effects=(Learn("nowhere", ("tls.random",), 1),)),                     "no dynamic set"),
    (rule(effects=(Learn("learned", ("ip.saddr",), 1),)),                       "a set of tls.random"),
    (rule(effects=(Learn("learned", ("tls.random",), 0),)),                     "for no time"),
    (rule(limit=Limit(packets=1, per="week", burst=1)),                         "there are second"),
    (rule(limit=Limit(packets=0, per="hour", burst=1)),                         "a limit of nothing"),
    (rule(limit=Limit(packets=1, per="hour", burst=1, key=("tls.nonsense",))),  "no field"),
    (rule(Lookup(("ip.saddr", "tcp.dport"), "addresses")),                      "a set of ip.saddr"),
    (rule(Lookup(("ip6.saddr",), "addresses")),                                 "a set of ip.saddr"),
    (rule(name="Not a name"),                                                   "lower-case words"),
    (rule(name="x" * 41),                                                       "lower-case words"),
)
# fmt: on


@pytest.mark.parametrize(("wrong", "words"), WRONG_RULES, ids=[row[1] for row in WRONG_RULES])
def test_rules_that_mean_nothing(wrong, words):
    uses = rule(all_of(Lookup(("tls.random",), "learned"), IN_ADDRESSES), name="uses")
    with pytest.raises(InvalidRuleset, match=words):
        check(ruleset(uses, wrong, sets=(ADDRESSES, LEARNED)))


# fmt: off
WRONG_SETS = (
    ({"fields": ()},                                                              "no key"),
    ({"fields": ("ip.nonsense",)},                                                "no field ip.nonsense"),
    ({"fields": ("ip.saddr",), "elements": (Element(key=((1 << 32, 1 << 32),)),)},   "does not fit"),
    ({"fields": ("ip.saddr",), "elements": (Element(key=((2, 1),)),)},               "holds nothing"),
    ({"fields": ("ip.saddr",), "elements": (Element(key=((1, 1), (1, 1))),)},  "has 2 parts, the key 1"),
)
# fmt: on


@pytest.mark.parametrize(("changes", "words"), WRONG_SETS, ids=[row[1] for row in WRONG_SETS])
def test_sets_that_hold_nothing(changes, words):
    with pytest.raises(InvalidRuleset, match=words):
        check(ruleset(rule(IN_ADDRESSES), sets=(SetDeclaration(name="addresses", **changes),)))


def test_a_set_that_nobody_looks_at():
    with pytest.raises(InvalidRuleset, match="no rule looks at it"):
        check(ruleset(rule(), sets=(ADDRESSES,)))


def test_rules_that_no_packet_reaches():
    with pytest.raises(InvalidRuleset, match="rule b: an earlier rule of c takes every packet"):
        check(ruleset(rule(name="a"), rule(equals("tls.length", 1), name="b")))
    same = equals("tls.length", 1)
    with pytest.raises(InvalidRuleset, match="takes the same packets"):
        check(ruleset(rule(same, name="a"), rule(same, name="b")))


def test_rules_behind_one_that_goes_on_are_reached():
    same = equals("tls.length", 1)
    limit = Limit(packets=1, per="second", burst=1)
    check(
        ruleset(
            rule(same, name="a", verdict=Verdict.CONTINUE, effects=(SetMark(1, 1),)),
            rule(same, name="b", limit=limit),
            rule(same, name="c"),
        )
    )


def test_names_are_taken_once():
    chain = Chain(name="c", policy="test", rules=(rule(),))
    with pytest.raises(
        InvalidRuleset, match=r"chain c: the name is taken 2 times.*rule r: the name is taken 2"
    ):
        check(Ruleset(chains=(chain, chain)))


def test_all_problems_are_told_at_once():
    with pytest.raises(InvalidRuleset) as caught:
        check(
            ruleset(rule(equals("tls.nonsense", 1), name="a"), rule(equals("tls.length", 1 << 16), name="b"))
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["rule a", "rule b"]


def test_what_makes_sense_passes():
    interval = dataclasses.replace(ADDRESSES, elements=(Element(key=((1, 9),), timeout_s=3),), timeout_s=3)
    check(
        ruleset(
            rule(Lookup(("ip.daddr",), "addresses"), name="a"),
            rule(And((Test("tls.length", Op.NE, 5), Test("tls.length", Op.GT, 3))), name="b"),
            rule(any_of(equals("ip.saddr", 1), equals("ip6.saddr", 1)), name="c"),
            rule(
                all_of(Or((equals("tcp.dport", 1), equals("tls.length", 1)))), name="d", verdict=Verdict.RESET
            ),
            rule(name="e"),
            sets=(interval,),
        )
    )
