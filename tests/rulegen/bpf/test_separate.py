"""What programs ask and what other matches ask, side by side, is what the match asks: for any packet and connection."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rulegen.bpf.separate import Alternative, separated
from rulegen.bpf.server_name import HELLO
from rulegen.ir.match import (
    WITHOUT_CONNECTION,
    And,
    Contains,
    Direction,
    InDirection,
    InState,
    Lookup,
    Marked,
    Match,
    Not,
    Or,
    ServerName,
    State,
    all_of,
    any_of,
    equals,
)
from rulegen.lower.literals import Finds, Found, Literal, MarkIs
from tests.rulegen.bpf.test_compile import means
from tests.rulegen.random_matches import random_match, random_segment
from tests.rulegen.reference import Packet, holds

SETS = {"four": {(0xC0000201,)}}
PATTERN = b"\x18\x03"
NAME = ServerName("example.com")


@dataclass(frozen=True)
class Seen:
    """A packet, and what is known of its connection."""

    packet: Packet
    state: State
    direction: Direction
    mark: int
    names: bool
    """Whether its server_name is the one that is looked for, if it is a ClientHello."""

    @property
    def connected(self) -> bool:
        return self.state not in WITHOUT_CONNECTION


def asked(match: Match, seen: Seen) -> bool:
    """The meaning of a match, once more."""
    match match:
        case And(parts):
            return all(asked(part, seen) for part in parts)
        case Or(parts):
            return any(asked(part, seen) for part in parts)
        case Not(inner):
            return not asked(inner, seen)
        case InState(states):
            return seen.state in states
        case InDirection(direction):
            return seen.connected and seen.direction is direction
        case Marked(value, mask):
            return seen.connected and seen.mark & mask == value
        case Contains(pattern):
            return pattern in seen.packet.payload
        case ServerName():
            return seen.names and means(HELLO, seen.packet)
        case Lookup():
            return holds(match, seen.packet, SETS)
    return means(match, seen.packet)


def said(alternative: Alternative, seen: Seen) -> bool:
    """What a line would do."""
    literals, packet = alternative
    return all(_found(one, seen) for one in literals) and all(means(one, seen.packet) for one in packet)


def _found(literal: Literal, seen: Seen) -> bool:
    match literal:
        case InState() | InDirection():
            return asked(literal, seen)
        case MarkIs(value, mask, other):
            return seen.connected and (seen.mark & mask == value) is not other
        case Found(fields, name, missing):
            here = holds(Lookup(fields, name), seen.packet, SETS)
            return "ip" in seen.packet.protocols and here is not missing
        case Finds(Contains(pattern), fails):
            return (pattern in seen.packet.payload) is not fails
        case Finds(
            ServerName(), fails
        ):  # as far as programs: whether it is a ClientHello is another's question
            return seen.names if not fails else not asked(literal.search, seen)
    raise AssertionError(literal)


def random_mix(chance: random.Random, depth: int) -> Match:
    kind = chance.random()
    if depth and kind < 0.55:
        parts = tuple(random_mix(chance, depth - 1) for _ in range(chance.choice((1, 2, 2, 3))))
        return chance.choice((And, Or))(parts)
    if depth and kind < 0.7:
        return Not(random_mix(chance, depth - 1))
    return chance.choice(
        (
            InState(frozenset(chance.sample(list(State), chance.choice((1, 2, 4))))),
            InDirection(chance.choice(list(Direction))),
            Marked(chance.choice((0, 0x10)), 0x30),
            Contains(PATTERN),
            NAME,
            Lookup(("ip.saddr",), "four"),
            random_match(chance, 1),
            random_match(chance, 1),
        )
    )


def test_random_mixes():
    chance = random.Random(9)
    judged = matched = several = 0
    for _ in range(600):
        match = random_mix(chance, 3)
        alternatives = separated(match)
        several += len(alternatives) > 1
        for _ in range(20):
            segment = random_segment(chance)
            seen = Seen(
                packet=Packet.parse(segment.packet()),
                state=chance.choice(list(State)),
                direction=chance.choice(list(Direction)),
                mark=chance.choice((0, 0x10, 0x30)),
                names=chance.random() < 0.5,
            )
            expected = asked(match, seen)
            assert any(said(one, seen) for one in alternatives) is expected, match
            judged, matched = judged + 1, matched + expected
    assert several > 150
    assert 0.2 < matched / judged < 0.8


def test_what_programs_can_ask_stays_whole():
    heartbeat, short = equals("tls.content_type", 24), equals("tls.length", 3)
    match = all_of(any_of(heartbeat, short), InDirection(Direction.ORIGINAL), Not(all_of(heartbeat, short)))
    ((literals, packet),) = separated(match)
    assert literals == (InDirection(Direction.ORIGINAL),)
    assert packet == (And((any_of(heartbeat, short), Not(all_of(heartbeat, short)))),)


def test_alternatives_that_differ_in_packets_alone_are_one():
    new = InState(frozenset({State.NEW}))
    first, second = equals("tls.content_type", 1), equals("tls.content_type", 2)
    ((literals, packet),) = separated(any_of(all_of(new, first), all_of(new, second)))
    assert (literals, packet) == ((new,), (Or((first, second)),))


def test_what_can_not_be_has_no_alternative():
    assert separated(all_of(Marked(1), Not(Marked(1)))) == []
