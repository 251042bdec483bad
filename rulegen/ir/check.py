"""Refuse a ruleset that means nothing, before any backend runs.

In:  Ruleset.
Out: nothing, or InvalidRuleset with every problem.
Source: none; these are the promises that backends and evaluators rely on.

Widths (values, masks and intervals fit their fields), families (one match never asks for IPv4 and IPv6, or
TCP and UDP), reachability (no rule behind one that takes everything, none that can never match, no set that
nobody looks at).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain as flatten
from typing import Final

from analyzer.wire.fields import FIELDS, Layer
from rulegen.errors import InvalidRuleset
from rulegen.ir.match import (
    ALWAYS,
    CARRIER,
    PROTOCOLS,
    And,
    Contains,
    Exceeds,
    InState,
    Interval,
    Lookup,
    Marked,
    Match,
    Not,
    Op,
    Or,
    Present,
    Protocol,
    ServerName,
    SomeRecord,
    Test,
    carrier,
    leaves,
)
from rulegen.ir.rule import (
    ENDS,
    Chain,
    ConnectionLimit,
    Learn,
    Rule,
    Ruleset,
    SetDeclaration,
    SetMark,
    Verdict,
)

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_LENGTH: Final = 40
"""A comment has 128 characters for the rule's name and its origin."""
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
LABEL_MAX: Final = 63
HOST_MAX: Final = 253
"""RFC 1035 2.3.4, as text without the root's dot."""
_PERIODS: Final = ("second", "minute", "hour", "day")
_EXCLUSIVE: Final = ({"ip", "ip6"}, {"tcp", "udp"})
MARK_BITS: Final = 32


def check(ruleset: Ruleset) -> None:
    """Raise InvalidRuleset unless the ruleset can mean something in every place."""
    problems = list(_ruleset(ruleset))
    if problems:
        raise InvalidRuleset(problems)


def is_host_name(name: str) -> bool:
    """It is a host's name as hellos have it: lower-case ASCII, no dot at its end."""
    return (
        len(name) <= HOST_MAX
        and all(len(label) <= LABEL_MAX for label in name.split("."))
        and bool(_HOST.fullmatch(name))
    )


def _ruleset(ruleset: Ruleset) -> Iterator[str]:
    sets = {declaration.name: declaration for declaration in ruleset.sets}
    yield from _names("chain", (chain.name for chain in ruleset.chains))
    yield from _names("rule", (rule.name for rule in ruleset.rules))
    yield from _names("set", (declaration.name for declaration in ruleset.sets))
    for declaration in ruleset.sets:
        yield from (f"set {declaration.name}: {problem}" for problem in _set(declaration))
    for chain in ruleset.chains:
        yield from (f"guard of {chain.name}: {problem}" for problem in _match(chain.guard, sets))
        for rule in chain.rules:
            yield from (f"rule {rule.name}: {problem}" for problem in _rule(rule, chain, sets))
        yield from _reachable(chain)
    used = {name for chain in ruleset.chains for name in _sets_used(chain)}
    yield from (f"set {name}: no rule looks at it" for name in sets if name not in used)


def _names(kind: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{kind} {name}: the name is taken {count} times"
        if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
            yield f"{kind} {name!r}: not lower-case words joined by hyphens, {_NAME_LENGTH} letters at most"


def _set(declaration: SetDeclaration) -> Iterator[str]:
    if not declaration.fields:
        yield "no key"
        return
    yield from _fields(declaration.fields)
    if any(field not in FIELDS for field in declaration.fields):
        return
    for element in declaration.elements:
        if len(element.key) != len(declaration.fields):
            yield f"an element has {len(element.key)} parts, the key {len(declaration.fields)}"
            continue
        for field, interval in zip(declaration.fields, element.key, strict=True):
            yield from _intervals((interval,), FIELDS[field].width_bits, field)


def _rule(rule: Rule, chain: Chain, sets: dict[str, SetDeclaration]) -> Iterator[str]:
    yield from _match(rule.match, sets)
    problem = _contradiction((chain.guard, rule.match))
    if problem:
        yield f"can never match: {problem}"
    if rule.verdict is Verdict.CONTINUE and not rule.effects:
        yield "neither verdict nor effect"
    for effect in rule.effects:
        match effect:
            case SetMark(value, mask):
                if value & ~mask or not 0 < mask < 1 << MARK_BITS:
                    yield f"mark {value:#x} under mask {mask:#x} does not fit"
            case Learn(name, fields, timeout_s):
                declaration = sets.get(name)
                if declaration is None or not declaration.dynamic:
                    yield f"learns into {name}, which is no dynamic set"
                elif not _same_kind(fields, declaration.fields):
                    yield f"learns {_key(fields)} into {name}, a set of {_key(declaration.fields)}"
                if timeout_s <= 0:
                    yield f"learns into {name} for no time"
    if rule.verdict is Verdict.RESET and "tcp" not in set(_carriers(And((chain.guard, rule.match)))):
        yield "resets packets that need not be TCP"
    if isinstance(rule.limit, ConnectionLimit):
        if rule.limit.connections <= 0:
            yield "a limit of nothing"
        yield from _fields(rule.limit.key)
    elif rule.limit is not None:
        if rule.limit.per not in _PERIODS:
            yield f"a limit per {rule.limit.per}; there are {', '.join(_PERIODS)}"
        if rule.limit.packets <= 0 or rule.limit.burst <= 0:
            yield "a limit of nothing"
        yield from _fields(rule.limit.key)


def _match(match: Match, sets: dict[str, SetDeclaration]) -> Iterator[str]:
    """What is wrong with a match, whatever stands around it."""
    match match:
        case And(matches) | Or(matches):
            yield from flatten.from_iterable(_match(part, sets) for part in matches)
            if isinstance(match, And) and (problem := _contradiction((match,))):
                yield f"can never match: {problem}"
        case Not(inner):
            yield from _match(inner, sets)
        case Test(field):
            yield from _fields((field,)) if field not in FIELDS else _test(match)
        case Exceeds(field, plus, other):
            yield from _fields((field, other))
            if field in FIELDS and other in FIELDS:
                first, second = FIELDS[field], FIELDS[other]
                if (first.width_bits, first.bit_offset) != (second.width_bits, second.bit_offset):
                    yield f"{field} and {other} differ in width"
                if first.layer is not second.layer:
                    yield f"{field} and {other} are in different layers"
                if not 0 <= plus < 1 << first.width_bits:
                    yield f"{plus} does not fit {field}"
        case Present(field):
            yield from _fields((field,))
            if field in FIELDS and FIELDS[field].layer is not Layer.PAYLOAD:
                yield f"{field} is in a header, which every such packet has"
        case Lookup(fields, name):
            yield from _fields(fields)
            if name not in sets:
                yield f"looks into {name}, which is not declared"
            elif not _same_kind(fields, sets[name].fields):
                yield f"looks for {_key(fields)} in {name}, a set of {_key(sets[name].fields)}"
        case SomeRecord(inner, records):
            yield from _match(inner, sets)
            if records < 1:
                yield "one of no records"
            if any(not field.startswith("tls.") for field in _tested(inner)):
                yield "looks for a record by what is not in it"
        case Contains(pattern):
            if not pattern:
                yield "looks for no bytes"
        case ServerName(name):
            if not is_host_name(name):
                yield f"{name!r} is no host name in lower-case ASCII"
        case Protocol(name):
            if name not in PROTOCOLS:
                yield f"protocol {name}; there are {', '.join(PROTOCOLS)}"
        case InState(states):
            if not states:
                yield "a state out of none"
        case Marked(value, mask):
            if value & ~mask or not 0 < mask < 1 << MARK_BITS:
                yield f"mark {value:#x} under mask {mask:#x} does not fit"


def _test(test: Test) -> Iterator[str]:
    width_bits = FIELDS[test.field].width_bits
    if test.mask is not None and not 0 < test.mask < 1 << width_bits:
        yield f"mask {test.mask:#x} does not fit {test.field}, {width_bits} bits"
    if isinstance(test.value, tuple) != (test.op is Op.IN):
        yield f"{test.field} {test.op} takes {'intervals' if test.op is Op.IN else 'an integer'}"
        return
    intervals = test.value if isinstance(test.value, tuple) else ((test.value, test.value),)
    if not intervals:
        yield f"{test.field} in nothing"
    yield from _intervals(intervals, width_bits, test.field)
    if test.mask is not None and any(bound & ~test.mask for pair in intervals for bound in pair):
        yield f"{test.field} under mask {test.mask:#x} can't be such a value"


def _intervals(intervals: Iterable[Interval], width_bits: int, field: str) -> Iterator[str]:
    for low, high in intervals:
        if low < 0 or high >= 1 << width_bits:
            yield f"{low:#x}-{high:#x} does not fit {field}, {width_bits} bits"
        elif low > high:
            yield f"{field} in {low:#x}-{high:#x}, which holds nothing"


def _tested(match: Match) -> Iterator[str]:
    """Fields, or else protocols and connection facts by the name of their class, that a match looks at."""
    match match:
        case And(matches) | Or(matches):
            yield from flatten.from_iterable(map(_tested, matches))
        case Not(inner):
            yield from _tested(inner)
        case Test(field) | Present(field):
            yield field
        case Exceeds(field, _, other):
            yield from (field, other)
        case _:
            yield type(match).__name__


def _fields(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in FIELDS or name.partition(".")[0] not in CARRIER:
            yield f"no field {name}"


def _key(fields: tuple[str, ...]) -> str:
    return " . ".join(fields)


def _same_kind(fields: tuple[str, ...], declared: tuple[str, ...]) -> bool:
    """A set of source addresses may be asked for destination addresses: the widths and the family decide."""
    return len(fields) == len(declared) and all(
        ours in FIELDS
        and theirs in FIELDS
        and FIELDS[ours].width_bits == FIELDS[theirs].width_bits
        and carrier(ours) == carrier(theirs)
        for ours, theirs in zip(fields, declared, strict=True)
    )


def _demanded(matches: Iterable[Match]) -> Iterator[Match]:
    """The leaves that must all hold: those not below an Or or a Not."""
    for match in matches:
        if isinstance(match, And):
            yield from _demanded(match.matches)
        else:
            yield match


def _carriers(match: Match) -> Iterator[str]:
    """Protocols that a packet must be for the match to hold."""
    for leaf in _demanded((match,)):
        match leaf:
            case Test(field) | Exceeds(field) | Present(field):
                if field in FIELDS:
                    yield carrier(field)
            case Lookup(fields):
                yield from (carrier(field) for field in fields if field in FIELDS)
            case Protocol(name):
                yield name
            case SomeRecord() | Contains() | ServerName():
                yield "tcp"
            case Or(matches) if matches:
                yield from set.intersection(*(set(_carriers(part)) for part in matches))


def _contradiction(matches: tuple[Match, ...]) -> str | None:
    """Why the matches can't hold together, as far as tests of the same field tell."""
    carriers = set(_carriers(And(matches)))
    for group in _EXCLUSIVE:
        if group <= carriers:
            return f"a packet is not both {' and '.join(sorted(group))}"
    bounds: dict[str, Interval] = {}
    for leaf in _demanded(matches):
        if isinstance(leaf, Test) and leaf.field in FIELDS and leaf.mask is None:
            low, high = _hull(leaf)
            before = bounds.get(leaf.field, (low, high))
            low, high = max(low, before[0]), min(high, before[1])
            if low > high:
                return f"the tests of {leaf.field} exclude each other"
            bounds[leaf.field] = (low, high)
    return None


def _hull(test: Test) -> Interval:
    """The smallest interval that holds every value which passes the test."""
    top = (1 << FIELDS[test.field].width_bits) - 1
    if isinstance(test.value, tuple):
        return min((low for low, _ in test.value), default=1), max(
            (high for _, high in test.value), default=0
        )
    value = test.value
    return {
        Op.EQ: (value, value),
        Op.LT: (0, value - 1),
        Op.LE: (0, value),
        Op.GT: (value + 1, top),
        Op.GE: (value, top),
    }.get(test.op, (0, top))


def _reachable(chain: Chain) -> Iterator[str]:
    taken: set[Match] = set()
    for rule in chain.rules:
        if ALWAYS in taken:
            yield f"rule {rule.name}: an earlier rule of {chain.name} takes every packet"
        elif rule.match in taken:
            yield f"rule {rule.name}: an earlier rule of {chain.name} takes the same packets"
        if rule.verdict in ENDS and rule.limit is None:
            taken.add(rule.match)


def _sets_used(chain: Chain) -> Iterator[str]:
    for match in (chain.guard, *(rule.match for rule in chain.rules)):
        yield from (leaf.set for leaf in leaves(match) if isinstance(leaf, Lookup))
