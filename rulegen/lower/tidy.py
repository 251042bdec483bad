"""Simplify conjunctions: repetitions, contradictions, implications; and alternatives that are one.

In:  conjunctions of literals.
Out: the same meaning with fewer of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from analyzer.wire.fields import FIELDS, Layer
from rulegen.ir.match import WITHOUT_CONNECTION, InDirection, InState, Interval, reach
from rulegen.lower.literals import Conjunction, Found, Has, Is, Literal, Load, MarkIs, Within, ordered, rank
from rulegen.lower.ranges import intersection, merged

_EXCLUSIVE: Final = {"ip": "ip6", "ip6": "ip", "tcp": "udp", "udp": "tcp"}


def tidy(conjunction: Iterable[Literal]) -> Conjunction | None:
    """The same without repetition, in order; None if it can't hold."""
    kept: dict[object, Literal] = {}
    for literal in conjunction:
        key: object = literal
        match literal:
            case Within(load, ranges):
                key = load
                if isinstance(before := kept.get(key), Within) and before.ranges != ranges:
                    literal = replace(literal, ranges=intersection(before.ranges, ranges))
            case Has(size, lacks):
                key = ("has", lacks)
                if isinstance(before := kept.get(key), Has):
                    sizes = (size, before.payload_bytes)
                    literal = replace(literal, payload_bytes=min(sizes) if lacks else max(sizes))
            case InState(states):
                key = "state"
                if isinstance(before := kept.get(key), InState):
                    literal = InState(states & before.states)
        kept[key] = literal
    literals = tuple(kept.values())
    if any(_impossible(literal, literals) for literal in literals):
        return None
    return ordered(literal for literal in literals if not _implied(literal, literals))


def _impossible(literal: Literal, literals: Conjunction) -> bool:
    """It contradicts one of the others. Only contradictions that lowering itself makes are looked for."""
    match literal:
        case Within(_, ranges):
            return not ranges
        case Is(name, other=False):
            return Is(_EXCLUSIVE[name]) in literals or Is(name, other=True) in literals
        case Has(size, lacks=True):
            return size <= _reached(literals)
        case InDirection(direction):
            return any(isinstance(one, InDirection) and one.direction is not direction for one in literals)
        case MarkIs(_, _, other=False) | Found(_, _, missing=False):
            negative = (
                replace(literal, other=True)
                if isinstance(literal, MarkIs)
                else replace(literal, missing=True)
            )
            return negative in literals
        case InState(states):
            return not states or (
                states <= WITHOUT_CONNECTION
                and any(isinstance(one, InDirection | MarkIs) for one in literals)
            )
    return False


def _implied(literal: Literal, literals: Conjunction) -> bool:
    """The others say it already: the size that a load needs, "not UDP" of a TCP packet."""
    match literal:
        case Has(size, lacks=False):
            return size <= _reached(one for one in literals if not isinstance(one, Has))
        case Is(name, other=True):
            return Is(_EXCLUSIVE[name]) in literals
    return False


def _reached(literals: Iterable[Literal]) -> int:
    """Payload bytes that a packet must have for these literals to hold."""
    result = 0
    for literal in literals:
        match literal:
            case Has(size, lacks=False):
                result = max(result, size)
            case Within(load) if load.layer is Layer.PAYLOAD:
                result = max(result, load.byte_offset + load.width_bytes)
            case Found(fields):
                payload = (field for field in fields if FIELDS[field].layer is Layer.PAYLOAD)
                result = max([result, *map(reach, payload)])
    return result


def aggregated(conjunctions: list[Conjunction]) -> list[Conjunction]:
    """Alternatives that differ only in the ranges of one load become one: ports become a set of ports."""
    distinct = list(dict.fromkeys(conjunctions))
    while (fewer := _merged_once(distinct)) is not None:
        distinct = fewer
    return sorted(distinct, key=lambda conjunction: list(map(rank, conjunction)))


def _merged_once(conjunctions: list[Conjunction]) -> list[Conjunction] | None:
    """Merge what can be merged without looking at a merged one again; None if there is nothing."""
    alike: dict[tuple[frozenset[Literal], Load], list[Conjunction]] = {}
    for conjunction in conjunctions:
        whole = frozenset(conjunction)
        for literal in conjunction:
            if isinstance(literal, Within) and literal.load.whole:
                alike.setdefault((whole - {literal}, literal.load), []).append(conjunction)
    left = dict.fromkeys(conjunctions)
    for (rest, load), members in alike.items():
        present = [member for member in members if member in left]
        if len(present) < 2:
            continue
        intervals: list[Interval] = []
        for member in present:
            del left[member]
            for literal in member:
                if isinstance(literal, Within) and literal.load == load:
                    intervals += literal.ranges
        left[ordered({*rest, Within(load, merged(intervals))})] = None
    return list(left) if len(left) < len(conjunctions) else None
