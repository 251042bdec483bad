"""The register program that is read means what the rule means: judged by packets, with a machine of our own."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from rulegen.artifacts import ToolMissing, read, unsupported
from rulegen.backends import BACKENDS, emit
from rulegen.errors import InvalidRuleset
from rulegen.ir.match import Exceeds, Lookup, all_of, between, equals
from rulegen.ir.rule import Element, SetDeclaration
from rulegen.testbed.packets import Segment
from tests.rulegen.artifacts.mini_nft import Machine
from tests.rulegen.random_matches import random_match, random_segment
from tests.rulegen.reference import Packet, holds

NFT = BACKENDS[0]
FOUR = SetDeclaration(name="four", fields=("ip.saddr",), elements=(Element(key=((0xC0000201, 0xC0000201),)),))
LOOKS = Lookup(("ip.saddr",), "four")
SETS = {"four": {(0xC0000201,)}}


def machine(text: str) -> Machine:
    try:
        artifact = read(text)
    except ToolMissing as error:
        pytest.skip(str(error))
    assert unsupported(artifact) == ()
    return Machine(artifact)


def hits(judge: Machine) -> Counter[str]:
    """By rule name: a rule's own line has its name in brackets."""
    return Counter(
        {
            found[1]: count
            for text, count in judge.hits.items()
            if (found := re.match(r"\[([a-z0-9-]+)\]", text))
        }
    )


@pytest.mark.netns
@pytest.mark.parametrize("seed", range(2))
def test_random_rules_and_packets(ruleset_of, seed):
    chance = random.Random(seed)
    matches = [LOOKS]
    while len(matches) < 30:
        match = random_match(chance)
        try:
            emit(ruleset_of(LOOKS, match, sets=(FOUR,)), NFT)
        except InvalidRuleset:
            continue
        matches.append(match)
    judge = machine(emit(ruleset_of(*matches, sets=(FOUR,)), NFT).text)
    packets = [Packet.parse(random_segment(chance).packet()) for _ in range(150)]
    for packet in packets:
        judge.send(packet)
    expected = Counter(
        {
            f"m{number}": sum(holds(match, one, SETS) for one in packets)
            for number, match in enumerate(matches)
        }
    )
    assert +hits(judge) == +expected
    assert expected.total() > 300


@pytest.mark.netns
@pytest.mark.parametrize("record_length", [0, 18, 19, 20, 255, 256, 275, 16384])
def test_heartbleed_is_exact(ruleset_of, record_length):
    """Sums by bytes, in sets of intervals with masks: everything at once."""
    match = all_of(
        equals("tls.content_type", 24),
        between("tls.version", 0x0300, 0x0303),
        Exceeds("tls.heartbeat_payload_length", 19, "tls.length"),
    )
    judge = machine(emit(ruleset_of(match), NFT).text)
    lengths = sorted({max(0, record_length - 19 + near) for near in (-257, -256, -1, 0, 1, 2, 255, 256, 257)})
    expected = 0
    for length in lengths:
        payload = b"\x18\x03\x02" + record_length.to_bytes(2) + b"\x01" + length.to_bytes(2)
        packet = Packet.parse(
            Segment(
                source="192.0.2.1",
                destination="198.51.100.7",
                source_port=40000,
                destination_port=443,
                payload=payload,
            ).packet()
        )
        judge.send(packet)
        expected += length + 19 > record_length
    assert hits(judge)["m0"] == expected
