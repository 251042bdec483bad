"""Part what a program can ask of a packet from what other matches of the same line have to ask.

In:  Match.
Out: alternatives of which one has to hold: literals, and matches of which each is asked by programs.
Source: Boolean algebra. What programs can ask stays whole: sums and Not would multiply in a normal form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeAlias

from analyzer.wire.fields import FIELDS, Layer
from rulegen.bpf.server_name import HELLO
from rulegen.ir.match import (
    And,
    Contains,
    InDirection,
    InState,
    Lookup,
    Marked,
    Match,
    Not,
    Or,
    Present,
    Protocol,
    ServerName,
    all_of,
    carrier,
)
from rulegen.lower.literals import Conjunction, Finds, Found, Literal
from rulegen.lower.normal import lower_match
from rulegen.lower.tidy import tidy

Alternative: TypeAlias = tuple[Conjunction, tuple[Match, ...]]
"""Literals on what is not in a packet's headers and records, and matches on what is: all have to hold."""


def separated(match: Match) -> list[Alternative]:
    """Alternatives of which one has to hold; what a program can ask stays together in each."""
    joined: dict[Conjunction, list[Match]] = {}
    for literals, packet in _alternatives(match, True):
        if (possible := tidy(literals)) is not None:
            joined.setdefault(possible, []).append(packet[0] if len(packet) == 1 else And(packet))
    return [
        (literals, () if And(()) in packets else (packets[0] if len(packets) == 1 else Or(tuple(packets)),))
        for literals, packets in joined.items()
    ]


def _alternatives(match: Match, wanted: bool) -> list[Alternative]:
    if not any(map(_elsewhere, leaves(match))):
        return [((), (match if wanted else Not(match),))]
    match match:
        case Not(inner):
            return _alternatives(inner, not wanted)
        case And(matches) | Or(matches):
            parts = [_alternatives(part, wanted) for part in matches]
            if isinstance(match, And) is not wanted:
                return [alternative for part in parts for alternative in part]
            return [_both(chosen) for chosen in product(*parts)]
        case Lookup(fields, name):
            there = all_of(*map(_has, fields))
            if wanted and FIELDS[fields[0]].layer is Layer.NETWORK and len(fields) == 1:
                there = And(())  # a line with a set of addresses is for their family
            return _searched(Found(fields, name, missing=not wanted), there, wanted)
        case ServerName() if wanted:
            return [((Finds(match),), (HELLO,))]
        case Contains() | ServerName():
            return _searched(Finds(match, fails=not wanted), Protocol("tcp"), wanted)
    normal = lower_match(match if wanted else Not(match))
    return [((*normal.common, *alternative), ()) for alternative in normal.alternatives]


def _searched(literal: Literal, there: Match, wanted: bool) -> list[Alternative]:
    """A literal on what a packet may not have; where it does not, what is not wanted holds too."""
    found: list[Alternative] = [((literal,), (there,))]
    return found if wanted else [*found, ((), (Not(there),))]


def _both(chosen: Sequence[Alternative]) -> Alternative:
    literals: Conjunction = ()
    packet: tuple[Match, ...] = ()
    for some_literals, some_packet in chosen:
        literals, packet = literals + some_literals, packet + some_packet
    return literals, packet


def _elsewhere(leaf: Match) -> bool:
    """It asks for what no program can tell, or not one that may ask for anything else too."""
    return isinstance(leaf, Lookup | Contains | ServerName | InState | InDirection | Marked)


def _has(field: str) -> Match:
    return Present(field) if FIELDS[field].layer is Layer.PAYLOAD else Protocol(carrier(field))


def leaves(match: Match) -> Iterator[Match]:
    """What the match is made of."""
    match match:
        case And(matches) | Or(matches):
            for part in matches:
                yield from leaves(part)
        case Not(inner):
            yield from leaves(inner)
        case _:
            yield match
