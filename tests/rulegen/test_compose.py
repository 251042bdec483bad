"""Composition: whatever is merged, moved or left out, the fate of no packet changes."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from analyzer.model import Side
from rulegen.backends import BACKENDS, emit
from rulegen.compose import MANY, compose, cost
from rulegen.ir.match import (
    ALWAYS,
    And,
    Contains,
    Direction,
    Exceeds,
    InDirection,
    Lookup,
    Marked,
    Match,
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
    Rule,
    Ruleset,
    SetDeclaration,
    SetMark,
    Verdict,
)
from rulegen.policies.base import Part
from rulegen.testbed.packets import Segment
from tests.rulegen.parts import ACCEPT, CONTINUE, DROP, PASS, RESET, composed, part, rule

NFT = BACKENDS[0]


def names(*parts: Part) -> list[list[str]]:
    return [[rule.name for rule in one.rules] for one in composed(*parts).chains]


# --- the same fate -----------------------------------------------------------------------------------------


@dataclass
class Host:
    """A connection's mark, and what sets hold: all that rules remember."""

    sets: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)

    def judge(self, ruleset: Part, packet: Mapping[str, int]) -> Verdict:
        """The fate of a packet of a connection that its source port names."""
        for one in ruleset.chains:
            if self.holds(one.guard, packet):
                verdict = self.chain(one, packet)
                if verdict is not PASS:
                    return verdict
        return PASS

    def chain(self, one: Chain, packet: Mapping[str, int]) -> Verdict:
        for each in one.rules:
            if not self.holds(each.match, packet):
                continue
            for effect in each.effects:
                match effect:
                    case SetMark(value, mask):
                        before = self.marks.get(packet["tcp.sport"], 0)
                        self.marks[packet["tcp.sport"]] = before & ~mask | value
                    case Learn(name, fields):
                        self.sets.setdefault(name, set()).add(tuple(packet[one] for one in fields))
            if each.verdict is not CONTINUE:
                return each.verdict
        return PASS

    def holds(self, match: Match, packet: Mapping[str, int]) -> bool:
        match match:
            case And(matches):
                return all(self.holds(one, packet) for one in matches)
            case Or(matches):
                return any(self.holds(one, packet) for one in matches)
            case Not(inner):
                return not self.holds(inner, packet)
            case Test(name, Op.EQ, value):
                return packet[name] == value
            case Test(name, Op.IN, intervals):
                return any(low <= packet[name] <= high for low, high in intervals)
            case Marked(value, mask):
                return self.marks.get(packet["tcp.sport"], 0) & mask == value
            case Lookup(fields, name):
                return tuple(packet[one] for one in fields) in self.sets.get(name, set())
        raise NotImplementedError(match)


def host(ruleset: Part) -> Host:
    sets = {
        declaration.name: {(value,) for one in declaration.elements for value in range(one.key[0][0], one.key[0][1] + 1)}
        for declaration in ruleset.sets
    }  # fmt: skip
    return Host(sets)


VALUES = {"tcp.dport": 60, "tls.content_type": 60, "ip.saddr": 60, "tls.length": 3, "tcp.sport": 4}
BITS = (0x1000_0000, 0x2000_0000)


def some_match(chance: random.Random) -> Match:
    if chance.random() < 0.2:
        bit = chance.choice(BITS)
        return chance.choice((Marked(bit, bit), Not(Marked(bit, bit)), Lookup(("tls.length",), "learned")))
    name = chance.choice(tuple(VALUES))
    value = chance.randrange(VALUES[name])
    test = chance.choice((equals(name, value), between(name, value, value + chance.randrange(3))))
    return chance.choice((test, test, test, Not(test), any_of(test, equals("tls.length", 1))))


def some_part(chance: random.Random) -> Part:
    """Rules of all kinds, and families of rules that differ in one value."""
    writes = equals("tls.length", 99)  # never: so that all bits that a part reads are its own
    rules = [rule("r-0", writes, CONTINUE, effects=(SetMark(sum(BITS), sum(BITS)),))]
    for _ in range(chance.randrange(1, 5)):
        verdict = chance.choice((DROP, DROP, DROP, RESET, PASS, ACCEPT))
        rest = [some_match(chance) for _ in range(chance.randrange(3))]
        effects = (SetMark(BITS[0], BITS[0]),) if chance.random() < 0.2 else ()
        if chance.random() < 0.4:
            name = chance.choice(("tcp.dport", "tls.content_type", "ip.saddr"))
            values = [chance.randrange(VALUES[name]) for _ in range(chance.randrange(2, 3 * MANY))]
            matches = [all_of(*rest, equals(name, value)) for value in values]
        else:
            matches = [all_of(some_match(chance), *rest)]
            if chance.random() < 0.3:
                verdict = CONTINUE
                effects = chance.choice(
                    ((SetMark(BITS[1], BITS[1]),), (SetMark(0, BITS[1]),), (Learn("learned", ("tls.length",), 60),))
                )  # fmt: skip
        rules += [
            rule(f"r-{len(rules) + n}", match, verdict, effects=effects) for n, match in enumerate(matches)
        ]
    chance.shuffle(rules[: chance.choice((0, len(rules)))])
    guard = chance.choice((ALWAYS, ALWAYS, some_match(chance)))
    learned = SetDeclaration(name="learned", fields=("tls.length",), dynamic=True)
    return part(*rules, sets=(learned,), guard=guard, policy=chance.choice("pq"))


def one_behind_the_other(parts: list[Part], hosts: list[Host], packet: Mapping[str, int]) -> Verdict:
    """The meaning of several parts: each with marks and sets of its own."""
    for one, own in zip(parts, hosts, strict=True):
        verdict = own.judge(one, packet)
        if verdict is not PASS:
            return verdict
    return PASS


@pytest.mark.parametrize("seed", range(200))
def test_the_fate_of_no_packet_changes(seed):
    chance = random.Random(seed)
    parts = [some_part(chance) for _ in range(chance.randrange(1, 4))]
    together = composed(*parts)
    whole, apart = host(together), [host(one) for one in parts]
    fates = set()
    for _ in range(300):
        packet = {name: chance.randrange(size) for name, size in VALUES.items()}
        fate = whole.judge(together, packet)
        assert fate is one_behind_the_other(parts, apart, packet)
        fates.add(fate)
    assert sum(len(one.rules) for one in together.chains) <= sum(len(one.chains[0].rules) for one in parts)


# --- what is done ------------------------------------------------------------------------------------------


def test_equal_rules_become_one_that_cites_all():
    first, second = equals("tcp.dport", 443), equals("tcp.dport", 8443)
    result = compose(
        [part(rule("a", first, finding="HB01"), rule("b", second), rule("c", first, finding="HB03"))]
    )
    (one,) = result.part.chains
    assert [each.name for each in one.rules] == ["a", "b"]
    assert [citation.finding for citation in one.rules[0].origin.citations] == ["HB01", "HB03"]
    assert result.names == ({"a": "a", "b": "b", "c": "a"},)


def test_a_rule_that_no_packet_meets_is_left_out():
    same = equals("tcp.dport", 443)
    result = compose(
        [
            part(rule("a", same)),
            part(rule("b", same, RESET, finding="HB01"), rule("c", equals("tcp.dport", 1))),
        ]
    )
    (one,) = result.part.chains
    assert [each.name for each in one.rules] == ["a", "c-2"]
    assert result.names[1] == {"b": "a", "c": "c-2"}
    assert one.rules[0].origin.citations
    assert names(part(rule("all", ALWAYS)), part(rule("b", same, RESET))) == [["all"]]


def test_a_name_that_is_taken_hides_no_rule():
    """It is for ir.check to refuse."""
    one, other = equals("tcp.dport", 1), equals("tcp.dport", 2)
    assert names(part(rule("a", one), rule("a", other), rule("a", one))) == [["a", "a"]]


def test_a_rule_that_a_mark_may_let_match_again_is_not():
    marked = Marked(1 << 28, 1 << 28)
    sets_mark = rule("mark", equals("tcp.dport", 1), CONTINUE, effects=(SetMark(1 << 28, 1 << 28),))
    assert names(part(rule("a", marked), sets_mark, rule("b", marked))) == [["a", "mark", "b"]]


def test_one_policy_with_two_answers_keeps_the_first(respond):
    ruleset = respond((), "weak-parameters:action=drop", "weak-parameters:action=reset").ruleset
    assert {each.verdict for each in ruleset.rules} == {DROP}
    assert len(ruleset.policies) == 2
    emit(ruleset, NFT)


def test_many_rules_that_differ_in_one_value_become_one():
    many = [
        rule(
            f"r-{n}",
            all_of(equals("tls.content_type", 22), equals("tls.length", 100 + 2 * n)),
            finding=f"F{n}",
        )
        for n in range(MANY + 1)
    ]
    result = compose([part(*many)])
    (one,) = result.part.chains[0].rules
    assert one.match == all_of(
        equals("tls.content_type", 22),
        one_of("tls.length", tuple((100 + 2 * n,) * 2 for n in range(MANY + 1))),
    )
    assert one.meaning == "The rule r-0. And 16 rules more that differ in tls.length alone."
    assert len(one.origin.citations) == MANY + 1
    assert set(result.names[0].values()) == {"r-0"}


def test_few_rules_keep_their_counters():
    few = [rule(f"r-{n}", equals("tls.length", 100 + 2 * n)) for n in range(MANY)]
    assert names(part(*few)) == [[one.name for one in few]]


def test_many_addresses_become_a_set_that_every_backend_has():
    many = [rule(f"r-{n}", equals("ip.saddr", 0xC0000200 + 2 * n), finding=f"F{n}") for n in range(MANY + 1)]
    result = composed(part(*many))
    (declaration,) = result.sets
    assert result.chains[0].rules[0].match == Lookup(("ip.saddr",), declaration.name)
    assert declaration.elements[0] == Element(key=((0xC0000200, 0xC0000200),))
    assert len(declaration.elements) == MANY + 1
    assert "0xc0000200" not in emit(Ruleset(chains=result.chains, sets=result.sets), NFT).text


@pytest.mark.parametrize(
    "between_them",
    [
        rule("other", equals("tcp.dport", 1), PASS),
        rule("other", equals("tcp.dport", 1), CONTINUE, effects=(SetMark(1 << 28, 1 << 28),)),
        rule("other", equals("tcp.dport", 1), limit=Limit(packets=1, per="second", burst=1)),
        rule("other", equals("tcp.dport", 1), RESET),
    ],
    ids=["pass", "mark", "limit", "reset"],
)
def test_nothing_moves_past_a_rule_that_does_something_else(between_them):
    dear, cheap = rule("dear", Contains(b"x")), rule("cheap", equals("tcp.dport", 2))
    assert names(part(dear, between_them, cheap)) == [["dear", "other", "cheap"]]


def test_rules_with_a_limit_count_each_for_itself():
    limit = Limit(packets=1, per="second", burst=1)
    many = [rule(f"r-{n}", equals("tls.length", 2 * n), limit=limit) for n in range(2 * MANY)]
    assert names(part(*many)) == [[one.name for one in many]]


def test_cheap_rules_come_first_and_equally_dear_ones_stay():
    assert names(
        part(
            rule("search", Contains(b"x")),
            rule("payload-b", equals("tls.length", 2)),
            rule("payload-a", equals("tls.length", 1)),
            rule("header", equals("tcp.dport", 443)),
        )
    ) == [["header", "payload-b", "payload-a", "search"]]


def test_cheap_chains_come_first_unless_they_would_decide_otherwise():
    def one(name: str, match: Match, verdict: Verdict = DROP, **more) -> Part:
        return part(rule(f"{name}-rule", match, verdict, **more), name=name, policy=name)

    def order(*parts: Part) -> list[str]:
        return [each.name for each in composed(*parts).chains]

    dear, cheap = one("dear", Contains(b"x")), one("cheap", equals("tcp.dport", 443))
    assert order(dear, cheap) == ["cheap", "dear"]
    reset = one("reset", equals("tcp.dport", 443), RESET)
    accept = one("accept", equals("tcp.dport", 443), ACCEPT)
    marks = one("marks", equals("tcp.dport", 443), effects=(SetMark(1 << 28, 1 << 28),))
    for other in (reset, accept, marks):
        assert order(dear, other) == ["dear", other.chains[0].name]


def test_cost_is_that_of_the_dearest_test():
    header = equals("tcp.dport", 443)
    ladder = [
        all_of(Protocol("tcp"), header, Lookup(("ip.saddr",), "s")),
        all_of(header, InDirection(Direction.REPLY)),
        any_of(header, Not(Present("tls.length"))),
        Exceeds("tls.heartbeat_payload_length", 19, "tls.length"),
        Contains(b"x"),
    ]
    assert [cost(match) for match in ladder] == [0, 1, 2, 3, 4]


# --- what it saves -----------------------------------------------------------------------------------------

SIGNATURES = 5000


def signatures() -> tuple[list[int], list[Rule]]:
    """Client randoms of scanners, a rule for each."""
    chance = random.Random(3)
    values = sorted(chance.getrandbits(256) for _ in range(SIGNATURES))
    hello = all_of(equals("tls.content_type", 22), equals("tls.handshake_type", 1))
    return values, [
        rule(f"signature-{n}", all_of(hello, equals("tls.random", value)), finding=f"F{n}")
        for n, value in enumerate(values)
    ]


def hello(random_bytes: bytes) -> tuple[Side, bytes]:
    payload = b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03" + random_bytes + bytes(30)
    segment = Segment(
        source="192.0.2.1",
        destination="198.51.100.7",
        source_port=40000,
        destination_port=443,
        payload=payload,
    )
    return Side.CLIENT, segment.packet()


def measured(
    bench, ruleset: Ruleset, packets: list[tuple[Side, bytes]]
) -> tuple[int, float, float, list[bool]]:
    """Bytes of text, seconds to load it, seconds per packet, and which packets pass."""
    text = emit(ruleset, NFT).text
    start = time.perf_counter()
    bench.load(text)
    loaded = time.perf_counter()
    fates = bench.send(packets)
    done = time.perf_counter()
    return len(text), loaded - start, (done - loaded) / len(packets), [fate.passed for fate in fates]


@pytest.mark.netns
def test_5000_rules_are_one_lookup(bench):
    values, rules = signatures()
    linear = part(*rules)
    start = time.perf_counter()
    single = composed(linear)
    assert time.perf_counter() - start < 5
    assert [len(one.rules) for one in single.chains] == [1]
    packets = [hello(bytes([n]) * 32) for n in range(200)] + [
        hello(values[n].to_bytes(32)) for n in range(0, 5000, 50)
    ]
    long, _, slow, as_it_was = measured(bench, Ruleset(chains=linear.chains), packets)
    short, load_s, fast, now = measured(bench, Ruleset(chains=single.chains), packets)
    assert now == as_it_was == [True] * 200 + [False] * 100
    print(
        f"\n{long:,} -> {short:,} bytes; load {load_s:.2f} s; {slow * 1e6:.0f} -> {fast * 1e6:.0f} us per packet"
    )
    assert short < long / 2
    assert load_s < 2
    assert fast < slow / 4


@pytest.mark.netns
def test_randoms_that_are_neighbours_are_a_range(bench, ruleset_of):
    """Merged values of more than 128 bits, which nft compares in sets only."""
    start = 0x40 << 248
    bench.load(emit(ruleset_of(between("tls.random", start, start + 1), verdict=DROP), NFT).text)
    packets = [hello((start + step).to_bytes(32)) for step in (-1, 0, 1, 2, 1 << 200)]
    assert [fate.passed for fate in bench.send(packets)] == [True, False, False, True, True]
