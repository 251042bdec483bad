"""Bring a match to the form that filter languages have: alternatives of conjunctions of plain tests.

In:  Match (rulegen.ir.match), checked.
Out: Normal (rulegen.lower.literals); equal input gives equal output.
Source: Boolean algebra; rulegen.lower.borrow for sums.

`Not` is resolved here and nowhere else. A test fails on a packet that is too short or of another protocol, so
its negation has alternatives for both: leaving them out would let short packets through a "not" rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from analyzer.wire.fields import FIELDS, Layer
from rulegen.errors import InvalidRuleset
from rulegen.ir.match import (
    WITHOUT_CONNECTION,
    And,
    Contains,
    Direction,
    Exceeds,
    InDirection,
    InState,
    Interval,
    Leaf,
    Lookup,
    Marked,
    Match,
    Not,
    Or,
    Present,
    Protocol,
    ServerName,
    SomeRecord,
    State,
    Test,
    carrier,
    reach,
)
from rulegen.lower.borrow import TOP, rows, steps
from rulegen.lower.literals import (
    Conjunction,
    Finds,
    Found,
    Has,
    Is,
    Load,
    MarkIs,
    Normal,
    Within,
    load_of,
    ordered,
    shift_of,
)
from rulegen.lower.ranges import complement, passing
from rulegen.lower.tidy import aggregated, tidy

ALTERNATIVES_MAX: Final = 4096
"""Far above what any policy needs; a match that explodes beyond it is a mistake of the policy."""


def lower_match(match: Match) -> Normal:
    """The normal form of a match."""
    possible = (tidy(conjunction) for conjunction in _alternatives(match, True))
    conjunctions = aggregated([conjunction for conjunction in possible if conjunction is not None])
    if not conjunctions:
        return Normal((), ())
    common = frozenset.intersection(*map(frozenset, conjunctions))
    return Normal(ordered(common), tuple(ordered(set(one) - common) for one in conjunctions))


def _alternatives(match: Match, wanted: bool) -> list[Conjunction]:
    """Conjunctions of which at least one holds iff the match is (or, if not wanted, is not) true."""
    match match:
        case Not(inner):
            return _alternatives(inner, not wanted)
        case And(matches) | Or(matches):
            parts = [_alternatives(part, wanted) for part in matches]
            if isinstance(match, And) is not wanted:
                return [conjunction for part in parts for conjunction in part]
            size = 1
            for part in parts:
                size *= len(part)
            if size > ALTERNATIVES_MAX:
                raise InvalidRuleset([f"a match of {size} alternatives; {ALTERNATIVES_MAX} at most"])
            return [sum(chosen, ()) for chosen in product(*parts)]
        case _:
            return list(_leaf(match, wanted))


def _leaf(leaf: Leaf, wanted: bool) -> Iterator[Conjunction]:
    match leaf:
        case Test():
            yield from _test(leaf, wanted)
        case Exceeds():
            yield from _exceeds(leaf, wanted)
        case Present(name) if wanted:
            yield Is(carrier(name)), Has(reach(name))
        case Present(name):
            yield from _without(name)
        case Lookup(names, set_name):
            yield *map(Is, map(carrier, names)), Found(names, set_name, missing=not wanted)
            if not wanted:
                yield from _without(*names)
        case SomeRecord() | Contains() | ServerName():
            yield Is("tcp"), Finds(leaf, fails=not wanted)
            if not wanted:
                yield (Is("tcp", other=True),)
        case Protocol(name):
            yield (Is(name, other=not wanted),)
        case InState(states):
            yield (InState(states if wanted else frozenset(State) - states),)
        case InDirection(direction):
            yield (InDirection(direction if wanted else opposite(direction)),)
            if not wanted:
                yield (InState(WITHOUT_CONNECTION),)
        case Marked(value, mask):
            yield (MarkIs(value, mask, other=not wanted),)
            if not wanted:
                yield (InState(WITHOUT_CONNECTION),)


def opposite(direction: Direction) -> Direction:
    return Direction.REPLY if direction is Direction.ORIGINAL else Direction.ORIGINAL


def _without(*names: str) -> Iterator[Conjunction]:
    """Packets that do not have all these fields: of another protocol, or too short."""
    for name in names:
        yield (Is(carrier(name), other=True),)
        if FIELDS[name].layer is Layer.PAYLOAD:
            yield Is(carrier(name)), Has(reach(name), lacks=True)


def _test(test: Test, wanted: bool) -> Iterator[Conjunction]:
    width_bits, shift = FIELDS[test.field].width_bits, shift_of(test.field)
    ranges = passing(test.op, test.value, width_bits)
    if not wanted:
        ranges = complement(ranges, width_bits)
        yield from _without(test.field)
    placed = tuple((low << shift, high << shift) for low, high in ranges)
    yield Is(carrier(test.field)), Within(load_of(test.field, test.mask), placed)


def _exceeds(leaf: Exceeds, wanted: bool) -> Iterator[Conjunction]:
    left, right = load_of(leaf.field), load_of(leaf.other)
    if not (left.width_bytes == right.width_bytes == 2 and left.whole and right.whole):
        raise InvalidRuleset([f"{leaf.field} + {leaf.plus} > {leaf.other}: only for fields of 16 bits"])
    if not wanted:
        yield from _without(leaf.field, leaf.other)
    for step in steps(leaf.plus):
        high = step.high if wanted else (-TOP, step.high[0] - 1)
        yield (
            Is(carrier(leaf.field)),
            Is(carrier(leaf.other)),
            _pair(left.layer, left.byte_offset + 1, right.byte_offset + 1, step.low),
            _pair(left.layer, left.byte_offset, right.byte_offset, high),
        )


def _pair(layer: Layer, left_at: int, right_at: int, window: Interval) -> Within:
    """Two bytes read with one load, masked; the first of them chooses the range of the other."""
    first, last = min(left_at, right_at), max(left_at, right_at)
    shift = 8 * (last - first)
    ranges = (
        (outer << shift | low, outer << shift | high)
        for outer, (low, high) in rows(window, by_left=left_at < right_at)
    )
    return Within(Load(layer, first, last - first + 1, 0xFF << shift | 0xFF, None), tuple(ranges))
