"""The normal form means what the match means, and says it once."""

from __future__ import annotations

import random

import pytest

from analyzer.wire.fields import Layer
from rulegen.errors import InvalidRuleset
from rulegen.ir.match import (
    ALWAYS,
    WITHOUT_CONNECTION,
    And,
    Direction,
    Exceeds,
    InDirection,
    InState,
    Marked,
    Not,
    Or,
    Present,
    State,
    all_of,
    any_of,
    equals,
    one_of,
)
from rulegen.lower.literals import Has, Is, Load, MarkIs, Normal, Within
from rulegen.lower.normal import ALTERNATIVES_MAX, lower_match
from tests.rulegen.random_matches import random_match, random_segment
from tests.rulegen.reference import Packet, holds, holds_normal

SETS = {"four": {(0xC0000201,)}}
TCP = Is("tcp")


@pytest.mark.parametrize("seed", range(150))
def test_lowering_keeps_the_meaning(seed):
    chance = random.Random(seed)
    match = random_match(chance)
    normal = lower_match(match)
    for _ in range(40):
        packet = Packet.parse(random_segment(chance).packet())
        assert holds(match, packet, SETS) == holds_normal(normal, packet, SETS), (match, normal, packet)


def test_alternatives_that_differ_in_one_range_become_one():
    ports = any_of(*(equals("tcp.dport", port) for port in (443, 8443, 444)))
    (literal,) = [one for one in lower_match(ports).common if isinstance(one, Within)]
    assert literal.ranges == ((443, 444), (8443, 8443))


def test_what_all_alternatives_share_is_said_once():
    normal = lower_match(
        all_of(equals("tls.content_type", 24), Exceeds("tls.heartbeat_payload_length", 19, "tls.length"))
    )
    content_type = Within(Load(Layer.PAYLOAD, 0, 1, 0xFF, "tls.content_type"), ((24, 24),))
    assert normal.common == (TCP, content_type)
    assert [len(alternative) for alternative in normal.alternatives] == [2, 2, 2]


def test_heartbleed_takes_a_thousand_intervals_not_sixty_thousand():
    normal = lower_match(Exceeds("tls.heartbeat_payload_length", 19, "tls.length"))
    intervals = {literal for alternative in normal.alternatives for literal in alternative}
    assert sum(len(literal.ranges) for literal in intervals if isinstance(literal, Within)) < 1300


def test_not_says_that_a_short_packet_passes_too():
    normal = lower_match(all_of(equals("tls.content_type", 24), Not(Present("tls.length"))))
    assert Has(5, lacks=True) in normal.common


def test_without_a_connection_there_is_no_direction_and_no_mark():
    for match, literal in (
        (Not(InDirection(Direction.ORIGINAL)), InDirection(Direction.REPLY)),
        (Not(Marked(1, 1)), MarkIs(1, 1, other=True)),
    ):
        assert set(lower_match(match).alternatives) == {(literal,), (InState(WITHOUT_CONNECTION),)}


def test_states_are_a_set():
    assert lower_match(Not(InState(frozenset({State.NEW, State.ESTABLISHED, State.RELATED})))) == Normal(
        (InState(WITHOUT_CONNECTION),), ((),)
    )


@pytest.mark.parametrize(
    "match",
    [
        Or(()),
        all_of(equals("tcp.dport", 1), equals("udp.dport", 1)),
        all_of(equals("ip.saddr", 1), equals("ip6.saddr", 1)),
        all_of(equals("tcp.dport", 1), equals("tcp.dport", 2)),
        all_of(equals("tls.length", 1), Not(Present("tls.content_type"))),
        all_of(
            InDirection(Direction.REPLY), Not(InDirection(Direction.REPLY)), InState(frozenset({State.NEW}))
        ),
        all_of(Marked(1), Not(Marked(1))),
        Not(ALWAYS),
    ],
    ids=repr,
)
def test_what_can_not_hold_has_no_alternatives(match):
    assert lower_match(match).alternatives == ()


def test_always_is_one_alternative_without_tests():
    assert lower_match(ALWAYS) == Normal((), ((),))


def test_a_match_that_explodes_is_refused():
    wide = And(tuple(any_of(equals("tls.length", n), equals("tls.version", n)) for n in range(20)))
    assert ALTERNATIVES_MAX < 2**20
    with pytest.raises(InvalidRuleset, match="alternatives"):
        lower_match(wide)


def test_sums_are_of_16_bits():
    with pytest.raises(InvalidRuleset, match="16 bits"):
        lower_match(Exceeds("tls.content_type", 1, "tls.handshake_type"))


def test_the_order_of_writing_does_not_show():
    parts = (
        equals("tls.content_type", 22),
        one_of("tcp.dport", ((443, 443),)),
        equals("tls.handshake_type", 1),
    )
    assert lower_match(And(parts)) == lower_match(And(parts[::-1]))
