"""Keep apart what parts of a ruleset would share by accident: names, and bits of the connection mark.

In:  Parts, in order.
Out: Parts that mean the same each by itself, and do not meddle with each other.

Runs of one policy with different parameters come with the same names, and write into the same bits. They
share bits only where all of their rules are the same, for other servers for example: then a bit states one
fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Final

from rulegen.errors import WishError
from rulegen.ir.match import And, Lookup, Marked, Match, Not, Or
from rulegen.ir.rule import Chain, Effect, Learn, Rule, SetMark
from rulegen.policies.base import Part

MARK_BITS: Final = tuple(1 << bit for bit in range(24, 32))
"""The bits of the connection mark that are ours; the others are for the host's own rules."""


def with_own_names(parts: Iterable[Part]) -> tuple[list[Part], list[dict[str, str]]]:
    """Number the names of a part of which an earlier part has taken one.

    Returns:
        The parts, and for each the old names of its rules -> the new ones.
    """
    taken: set[tuple[str, str]] = set()
    result, names = [], []
    for part in parts:
        suffix = ""
        for number in count(2):
            mine = {(kind, f"{name}{suffix}") for kind, name in _names(part)}
            if not mine & taken:
                break
            suffix = f"-{number}"
        taken |= mine
        names.append({name: f"{name}{suffix}" for kind, name in _names(part) if kind == "rule"})
        result.append(_numbered(part, suffix) if suffix else part)
    return result, names


def _names(part: Part) -> Iterator[tuple[str, str]]:
    yield from (("set", declaration.name) for declaration in part.sets)
    for chain in part.chains:
        yield "chain", chain.name
        yield from (("rule", rule.name) for rule in chain.rules)


def _numbered(part: Part, suffix: str) -> Part:
    own = {declaration.name for declaration in part.sets}

    def leaf(match: Match) -> Match:
        if isinstance(match, Lookup) and match.set in own:
            return replace(match, set=f"{match.set}{suffix}")
        return match

    def effect(one: Effect) -> Effect:
        if isinstance(one, Learn) and one.set in own:
            return replace(one, set=f"{one.set}{suffix}")
        return one

    changed = _changed(part, leaf, effect)
    chains = (
        replace(
            chain,
            name=f"{chain.name}{suffix}",
            rules=tuple(replace(rule, name=f"{rule.name}{suffix}") for rule in chain.rules),
        )
        for chain in changed.chains
    )
    sets = (replace(declaration, name=f"{declaration.name}{suffix}") for declaration in part.sets)
    return replace(part, chains=tuple(chains), sets=tuple(sets))


def with_own_marks(parts: Iterable[Part]) -> list[Part]:
    """Give a part bits of its own where an earlier part with other rules writes the same bits.

    Raises:
        WishError: There are no bits left.
    """
    given = list(parts)
    free = [bit for bit in MARK_BITS if not any(bit & _written(part) for part in given)]
    result: list[Part] = []
    for part in given:
        mine = _written(part)
        if any(mine & _written(other) and _meanings(other) != _meanings(part) for other in result):
            bits = [1 << bit for bit in range(32) if mine >> bit & 1]
            if len(bits) > len(free):
                policy = part.chains[0].policy
                raise WishError(
                    f"no bits of the connection mark are left for another {policy}; ask for one with all its"
                    " ports and servers"
                )
            part = _moved(part, dict(zip(bits, free, strict=False)))
            free = free[len(bits) :]
        result.append(part)
    return result


def _meanings(part: Part) -> list[tuple[object, ...]]:
    return [
        (rule.match, rule.verdict, rule.effects, rule.limit) for chain in part.chains for rule in chain.rules
    ]


def _written(part: Part) -> int:
    bits = 0
    for chain in part.chains:
        for rule in chain.rules:
            for effect in rule.effects:
                bits |= effect.mask if isinstance(effect, SetMark) else 0
    return bits


def _moved(part: Part, places: dict[int, int]) -> Part:
    def moved(bits: int) -> int:
        return sum(places.get(1 << bit, 1 << bit) for bit in range(32) if bits >> bit & 1)

    def leaf(match: Match) -> Match:
        return Marked(moved(match.value), moved(match.mask)) if isinstance(match, Marked) else match

    def effect(one: Effect) -> Effect:
        return SetMark(moved(one.value), moved(one.mask)) if isinstance(one, SetMark) else one

    return _changed(part, leaf, effect)


def _changed(part: Part, leaf: Callable[[Match], Match], effect: Callable[[Effect], Effect]) -> Part:
    """The part with its leaves and effects replaced."""

    def changed(match: Match) -> Match:
        match match:
            case And(matches):
                return And(tuple(map(changed, matches)))
            case Or(matches):
                return Or(tuple(map(changed, matches)))
            case Not(inner):
                return Not(changed(inner))
        return leaf(match)

    def rule(one: Rule) -> Rule:
        return replace(one, match=changed(one.match), effects=tuple(map(effect, one.effects)))

    def chain(one: Chain) -> Chain:
        return replace(one, guard=changed(one.guard), rules=tuple(map(rule, one.rules)))

    return replace(part, chains=tuple(map(chain, part.chains)))
