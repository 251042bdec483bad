"""Put the parts of several policies together: each name once, each rule once, in sets, cheap ones first.

In:  Parts, in the order in which they judge; a policy may have several, with different parameters.
Out: Composed: one Part, and what became of each part's rules.
Source: none; a packet's fate is that of the parts one behind the other, which a test proves.

The one rule not to break: what is moved, merged or left out never changes the fate of a packet. Which of two
rules with the same verdict counts a packet may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from analyzer.report.text import count
from analyzer.wire.fields import FIELDS, Layer
from rulegen.ir.match import (
    ALWAYS,
    And,
    Exceeds,
    InDirection,
    InState,
    Interval,
    Leaf,
    Lookup,
    Marked,
    Match,
    Op,
    Present,
    Protocol,
    Test,
    leaves,
)
from rulegen.ir.rule import ENDS, Chain, Citation, Effect, Element, Rule, SetDeclaration, Verdict
from rulegen.lower.literals import MANY
from rulegen.lower.ranges import merged
from rulegen.own_names import with_own_marks, with_own_names
from rulegen.policies.base import Part

ADDRESSES: Final = ("ip.saddr", "ip.daddr", "ip6.saddr", "ip6.daddr")
"""Fields that every kind of set has as a key."""

Hole: TypeAlias = tuple[frozenset[Match], str]
"""What a rule tests, but for one test, and that one's field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """What has become of the parts."""

    part: Part
    names: tuple[Mapping[str, str], ...]
    """For each of the parts given: the names of its rules -> of the rules that have taken their place."""


def compose(parts: Sequence[Part]) -> Composed:
    """One part that judges as the parts do one behind the other.

    Raises:
        WishError: A policy is wanted more often than the connection mark has bits for.
    """
    own, names = with_own_names(with_own_marks(parts))
    heirs: dict[str, str] = {}
    sets = [declaration for part in own for declaration in part.sets]
    chains = []
    for chain in _joined(chain for part in own for chain in part.chains):
        rules: list[Rule] = []
        for kind, group in groupby(_met(chain.rules, heirs), _kind):
            run = list(group)
            rules += _composed(run, heirs, sets) if kind.any_order else run
        chains.append(replace(chain, rules=tuple(rules)))
    return Composed(
        part=Part(
            chains=tuple(_cheap_chains_first(chains)),
            sets=tuple(sets),
            remarks=tuple(dict.fromkeys(remark for part in parts for remark in part.remarks)),
        ),
        names=tuple({old: _heir(new, heirs) for old, new in renamed.items()} for renamed in names),
    )


def _heir(name: str, heirs: Mapping[str, str]) -> str:
    while (heir := heirs.get(name, name)) != name:
        name = heir
    return name


def _joined(chains: Iterable[Chain]) -> Iterator[Chain]:
    """Neighbours that the same packets enter become one chain, if they do nothing but end the judgement."""
    before: Chain | None = None
    for chain in chains:
        if before and (before.policy, before.guard) == (chain.policy, chain.guard) and _final(before, chain):
            before = replace(before, rules=(*before.rules, *chain.rules))
            continue
        if before:
            yield before
        before = chain
    if before:
        yield before


def _final(*chains: Chain) -> bool:
    """No rule leaves it to a later chain, none changes what a later one sees."""
    return all(
        rule.verdict in ENDS - {Verdict.PASS} and not rule.effects and not rule.limit
        for chain in chains
        for rule in chain.rules
    )


def _met(rules: Iterable[Rule], heirs: dict[str, str]) -> list[Rule]:
    """Without rules that no packet meets, because an earlier one decides about all that they match."""
    result: list[Rule] = []
    takers: dict[Match, int] = {}
    for rule in rules:
        taker = takers.get(ALWAYS, takers.get(rule.match))
        if taker is not None:
            heirs[rule.name] = result[taker].name
            result[taker] = _citing(result[taker], [rule])
            continue
        if rule.verdict is Verdict.CONTINUE:
            takers.clear()  # its effects may let an equal match hold now
        elif rule.verdict is not Verdict.PASS and rule.limit is None:
            takers[rule.match] = len(result)
        result.append(rule)
    return result


class _Kind(NamedTuple):
    verdict: Verdict
    effects: tuple[Effect, ...]
    any_order: bool
    """Neighbours of this kind may be tried in any order: whichever matches, the same happens."""


def _kind(rule: Rule) -> _Kind:
    return _Kind(rule.verdict, rule.effects, rule.verdict in ENDS and rule.limit is None)


def _composed(run: list[Rule], heirs: dict[str, str], sets: list[SetDeclaration]) -> list[Rule]:
    """Rules that may be tried in any order, in fewer rules."""
    while (fewer := _merged_once(run, heirs)) is not None:
        run = fewer
    return sorted((_with_set(rule, sets) for rule in run), key=lambda rule: cost(rule.match))


def _citing(rule: Rule, others: Iterable[Rule]) -> Rule:
    """The rule, as an answer also to what the others answer."""
    citations: dict[Citation, None] = dict.fromkeys(rule.origin.citations)
    for other in others:
        citations.update(dict.fromkeys(other.origin.citations))
    return replace(rule, origin=replace(rule.origin, citations=tuple(citations)))


# --- rules that differ in one value ------------------------------------------------------------------------


def _merged_once(rules: list[Rule], heirs: dict[str, str]) -> list[Rule] | None:
    """Merge many rules that differ in the value of one field alone; None if there are none.

    Few rules keep their own counters and cost no more than a set does.
    """
    alike: dict[Hole, list[tuple[int, Test]]] = {}
    for number, rule in enumerate(rules):
        for hole, test in _holes(rule.match):
            alike.setdefault(hole, []).append((number, test))
    result: dict[int, Rule] = dict(enumerate(rules))
    merged_already: set[int] = set()
    for members in sorted(alike.values(), key=len, reverse=True):
        left = [(number, test) for number, test in members if number not in merged_already]
        if len(left) <= MANY:
            continue
        merged_already.update(number for number, _ in left)
        (first, test), *others = left
        for number, _ in others:
            heirs[rules[number].name] = rules[first].name
            del result[number]
        one = _citing(rules[first], (rules[number] for number, _ in others))
        values = merged(interval for _, member in left for interval in _intervals(member))
        result[first] = replace(
            one,
            match=_replaced(one.match, test, Test(test.field, Op.IN, values)),
            meaning=f"{one.meaning} And {count(len(others), 'rule')} more that differ in {test.field} alone.",
        )
    return list(result.values()) if merged_already else None


def _holes(match: Match) -> Iterator[tuple[Hole, Test]]:
    """Each of a match's tests of a whole field that must hold, and what it tests besides."""
    demands = dict.fromkeys(_demanded(match))
    for test in demands:
        if isinstance(test, Test) and test.mask is None and test.op in (Op.EQ, Op.IN):
            yield (frozenset(demands) - {test}, test.field), test


def _demanded(match: Match) -> Iterator[Match]:
    if isinstance(match, And):
        for part in match.matches:
            yield from _demanded(part)
    else:
        yield match


def _replaced(match: Match, old: Test, new: Match) -> Match:
    if isinstance(match, And):
        return And(tuple(_replaced(part, old, new) for part in match.matches))
    return new if match == old else match


def _intervals(test: Test) -> tuple[Interval, ...]:
    return test.value if isinstance(test.value, tuple) else ((test.value, test.value),)


def _with_set(rule: Rule, sets: list[SetDeclaration]) -> Rule:
    """Many addresses in a set of the ruleset, which can be looked into and added to by hand."""
    for part in _demanded(rule.match):
        if isinstance(part, Test) and part.field in ADDRESSES and part.op is Op.IN and part.mask is None:
            values = _intervals(part)
            if len(values) > MANY:
                name = f"{rule.name}-{part.field.partition('.')[2]}"
                sets.append(
                    SetDeclaration(
                        name=name,
                        fields=(part.field,),
                        elements=tuple(Element(key=(value,)) for value in values),
                        meaning=rule.meaning,
                    )
                )
                return replace(rule, match=_replaced(rule.match, part, Lookup((part.field,), name)))
    return rule


# --- cost --------------------------------------------------------------------------------------------------


def cost(match: Match) -> int:
    """Its dearest test: 0 headers, 1 connection, 2 payload, 3 payload, in sets or sums, 4 search."""
    return max(map(_leaf_cost, leaves(match)), default=0)


def _leaf_cost(leaf: Leaf) -> int:
    match leaf:
        case Protocol():
            return 0
        case InState() | InDirection() | Marked():
            return 1
        case Present():
            return 2
        case Test(field, _, value):
            many = isinstance(value, tuple) and len(value) > MANY
            return 2 + many if FIELDS[field].layer is Layer.PAYLOAD else 0
        case Lookup(fields):
            return 3 if any(FIELDS[field].layer is Layer.PAYLOAD for field in fields) else 0
        case Exceeds():
            return 3
    return 4


def _cheap_chains_first(chains: Iterable[Chain]) -> Iterator[Chain]:
    """Chains that can only refuse, and all refuse alike, may stand in any order."""
    for refusal, group in groupby(chains, _refusal):
        run = list(group)
        yield from sorted(run, key=_chain_cost) if refusal.any_order else run


class _Refusal(NamedTuple):
    verdicts: frozenset[Verdict]
    any_order: bool


def _refusal(chain: Chain) -> _Refusal:
    verdicts = frozenset(rule.verdict for rule in chain.rules) - {Verdict.PASS}
    alone = not any(rule.effects or rule.limit for rule in chain.rules)
    return _Refusal(verdicts, alone and verdicts in ({Verdict.DROP}, {Verdict.RESET}))


def _chain_cost(chain: Chain) -> int:
    return max([cost(chain.guard), *(cost(rule.match) for rule in chain.rules)])
