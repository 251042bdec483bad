"""The nft file: its form, what it refuses, and above all what the kernel makes of it."""

from __future__ import annotations

import ipaddress
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.model import Side
from rulegen.backends import BACKENDS, emit
from rulegen.backends.base import Level
from rulegen.backends.nft_text import quoted
from rulegen.errors import InvalidRuleset, Refused
from rulegen.ir.match import (
    ALWAYS,
    And,
    Contains,
    Direction,
    InDirection,
    InState,
    Lookup,
    Marked,
    Not,
    Present,
    Protocol,
    State,
    all_of,
    any_of,
    equals,
)
from rulegen.ir.rule import (
    Chain,
    Element,
    Learn,
    Limit,
    Origin,
    Rule,
    Ruleset,
    SetDeclaration,
    SetMark,
    Verdict,
)
from rulegen.testbed.packets import Segment, fragments
from tests.rulegen.random_matches import random_match, random_segment
from tests.rulegen.reference import Packet, holds

NFT = BACKENDS[0]
FOUR = SetDeclaration(name="four", fields=("ip.saddr",), elements=(Element(key=((0xC0000201, 0xC0000201),)),))
LOOKS = Lookup(("ip.saddr",), "four")

ALL_POLICIES = ("block", "heartbleed", "min-version")
VARIANTS = (
    ("block",),
    ("block:side=both,ttl=90s",),
    ("heartbleed",),
    ("heartbleed:ports=443,8443-8450",),
    ("heartbleed:ports=443,direction=to-server,variant=strict",),
    ("heartbleed:direction=to-client,encrypted=pass",),
    ("min-version",),
    ("min-version:min=1.0,ports=443,action=reset,split=drop",),
    ALL_POLICIES,
)


def segment(payload: bytes, **changes) -> bytes:
    values = {
        "source": "192.0.2.1",
        "destination": "198.51.100.7",
        "source_port": 40000,
        "destination_port": 443,
        "payload": payload,
        **changes,
    }
    return Segment(**values).packet()


def rule(match, name="r", verdict=Verdict.DROP, **changes) -> Rule:
    return Rule(
        name=name, match=match, verdict=verdict, origin=Origin(policy="t"), meaning="A test.", **changes
    )


def chain(*rules: Rule, name="c", **changes) -> Chain:
    return Chain(name=name, policy="t", rules=rules, **changes)


# --- form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["forward", "input", "output", "prerouting"])
@pytest.mark.parametrize("policies", VARIANTS, ids=" ".join)
def test_nft_accepts_it(rules_text, policies, hook):
    checked = NFT.check(rules_text(*policies, hook=hook))
    if checked.accepted is None:
        pytest.skip(checked.message)
    assert checked.accepted, checked.message


def test_an_empty_ruleset_is_accepted_too(rules_text):
    checked = NFT.check(rules_text())
    assert checked.accepted in (True, None), checked.message


def test_every_rule_has_a_counter_and_an_origin(rules_text):
    text = rules_text("block", "heartbleed:ports=443,encrypted=pass", "min-version:split=drop")
    inside = False
    seen = 0
    for line in text.splitlines():
        if line.startswith("\tchain "):
            inside = True
        elif line == "\t}":
            inside = False
        elif inside and not line.strip().startswith(("#", "type filter")):
            seen += 1
            assert re.search(r"\bcounter\b", line), line
            assert re.search(r'comment "[\[(][a-z0-9-]+[\])] [^"]+"$', line), line
    assert seen > 20


def test_each_rule_has_one_counter_of_its_own(respond):
    answer = respond((), *ALL_POLICIES)
    text = emit(answer.ruleset, NFT).text
    names = Counter(re.findall(r'comment "\[([a-z0-9-]+)\]', text))
    assert names == Counter(one.name for one in answer.ruleset.rules)


def test_the_same_input_gives_the_same_text(respond, finding):
    findings = tuple(finding("HB01", offender=f"192.0.2.{n}", packets=(n,)) for n in range(1, 50))
    texts = {emit(respond(order).ruleset, NFT).text for order in (findings, tuple(findings))}
    assert len(texts) == 1


def test_it_replaces_its_own_table_and_no_other(rules_text):
    text = rules_text(*ALL_POLICIES)
    statements = [line for line in text.splitlines() if line and not line.startswith(("#", "\t"))]
    assert {re.sub(r" (set inet tlswall) \w+$", r" \1", line) for line in statements} == {
        "table inet tlswall {",
        "}",
        "flush table inet tlswall",
        "flush set inet tlswall",
    }


@pytest.mark.netns
def test_a_file_takes_the_place_of_one_with_other_parameters(bench, rules_text):
    """Sets of one name are of one kind, whatever the parameters."""
    texts = [rules_text(*variant) for variant in VARIANTS]
    for text in (*texts, *reversed(texts)):
        bench.load(text)
        names = set(re.findall(r'comment "\[([a-z0-9-]+)\]', text))
        assert set(bench.counters()) == names


@pytest.mark.netns
def test_elements_that_overlap_the_old_ones_replace_them(bench, ruleset_of):
    def elements(low: int, high: int) -> str:
        declaration = replace(FOUR, elements=(Element(key=((low, high),)),))
        return emit(ruleset_of(LOOKS, sets=(declaration,)), NFT).text

    for low, high in ((0xC0000200, 0xC00002FF), (0xC0000201, 0xC0000201), (0xC0000000, 0xC000FFFF)):
        bench.load(elements(low, high))
        listed = bench.listing()
        assert listed.count("elements") == 1
        assert f"{ipaddress.IPv4Address(low)}" in listed


@pytest.mark.netns
def test_what_was_learned_is_forgotten(bench, ruleset_of):
    learned = SetDeclaration(name="seen", fields=("tcp.dport",), dynamic=True, timeout_s=3600)
    text = emit(ruleset_of(Lookup(("tcp.dport",), "seen"), sets=(learned,)), NFT).text
    bench.load(text)
    bench.command("nft", "add element inet tlswall set_seen { 443 timeout 1h }")
    assert "443" in bench.listing()
    bench.load(text)
    assert "443" not in bench.listing()


def test_the_header_says_where_it_comes_from_and_what_to_do_with_it(respond, finding):
    text = emit(respond((finding(),), "heartbleed:ports=443").ruleset, NFT).text
    header = text.partition("\ntable inet")[0]
    for words in (
        "tlswall",
        f"incident.pcap sha256 {'00' * 32}",
        "Policy:   heartbleed:ports=443,direction=both",
        "nft -c -f",
        "nft -f",
        "nft list table inet tlswall",
        "nft delete table inet tlswall",
    ):
        assert words in header


def test_heartbleed_is_a_thousand_elements(rules_text):
    text = rules_text("heartbleed")
    assert 1000 < len(re.findall(r"0x[0-9a-f]{8}", text)) // 2 < 1300
    assert len(text) < 40_000


# --- what it can't say --------------------------------------------------------------------------------------


def test_refusals_are_collected_and_named(ruleset_of):
    anywhere = Contains(b"x")
    with pytest.raises(Refused) as caught:
        emit(ruleset_of(anywhere, equals("tls.length", 1), Not(anywhere)), NFT)
    assert [(one.backend, one.rule) for one in caught.value.refusals] == [("nft", "m0"), ("nft", "m2")]
    assert "anywhere in the payload" in caught.value.refusals[0].feature


def test_a_match_that_can_not_hold_is_refused(ruleset_of):
    with pytest.raises(InvalidRuleset, match="can never match"):
        emit(ruleset_of(any_of(all_of(Marked(1), Not(Marked(1))))), NFT)


def test_fidelity_says_what_fragments_do(ruleset_of):
    matches = (equals("tls.length", 1), equals("tcp.dport", 1), equals("ip.saddr", 1))
    levels = [one.level for one in emit(ruleset_of(*matches), NFT).fidelity]
    assert levels == [Level.EXACT] * 3
    levels = [one.level for one in emit(ruleset_of(*matches, defragment=False), NFT).fidelity]
    assert levels == [Level.NARROWER, Level.WIDER, Level.EXACT]


# --- hostile strings ----------------------------------------------------------------------------------------

hostile = st.text(max_size=300) | st.sampled_from(
    [
        '"',
        '";',
        "\n}",
        '" drop\n',
        "*",
        "abc*",
        "\\",
        '\\"',
        "$x",
        "@set",
        "\x00",
        "\u2028",
        "é" * 200,
        "#",
        "}\n}\nflush ruleset\n",
    ]
)


@given(hostile)
def test_a_quoted_string_has_no_end_but_its_own(text):
    result = quoted(text)
    assert result[0] == result[-1] == '"'
    assert re.fullmatch(r"[A-Za-z0-9 ._,:;/#@()+=<>\[\]?-]{0,128}", result[1:-1])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile, identifier=hostile)
def test_hostile_names_never_break_out(respond, finding, name, identifier):
    found = finding(identifier, title=name)
    ruleset = respond((found,), "block", "heartbleed", name=name).ruleset
    text = emit(ruleset, NFT).text
    harmless = emit(respond((finding(),), "block", "heartbleed").ruleset, NFT).text
    assert _skeleton(text) == _skeleton(harmless)
    checked = NFT.check(text)
    assert checked.accepted in (True, None), checked.message


def _skeleton(text: str) -> list[str]:
    """The file without its comments."""
    return [re.sub(r'comment "[^"]*"', "", line) for line in text.split("\n") if not line.startswith("#")]


# --- in the kernel ------------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("policies", VARIANTS, ids=" ".join)
def test_it_loads_again_and_reads_as_before(bench, respond, finding, policies):
    text = emit(respond((finding(), finding("HB01", offender="2001:db8::1")), *policies).ruleset, NFT).text
    bench.load("table inet other {\n}\n")
    bench.load(text)
    first = _timeless(bench.listing())
    bench.load(text)
    assert _timeless(bench.listing()) == first
    bench.load(f"flush ruleset\n{bench.listing()}")
    assert _timeless(bench.listing()) == first
    assert "table inet other" in first
    bench.command("nft", "delete", "table", "inet", "tlswall")
    assert "tlswall" not in bench.listing()


def _timeless(text: str) -> str:
    return re.sub(r" (expires|timeout) \S+", "", text)


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_rules_match_in_the_kernel_what_they_mean(bench, ruleset_of, seed):
    """Also rules of a form that no policy has yet: alternatives and short packets under every verdict."""
    chance = random.Random(seed)
    matches = [LOOKS]
    while len(matches) < 40:
        match = random_match(chance)
        try:
            emit(ruleset_of(LOOKS, match, sets=(FOUR,)), NFT)
        except InvalidRuleset:
            continue
        matches.append(match)
    verdict = (Verdict.PASS, Verdict.CONTINUE)[seed % 2]
    ruleset = ruleset_of(*matches, sets=(FOUR,), verdict=Verdict.PASS)
    if verdict is Verdict.CONTINUE:
        ruleset = Ruleset(chains=tuple(map(_continuing, ruleset.chains)), sets=ruleset.sets)
    bench.load(emit(ruleset, NFT).text)
    packets = [random_segment(chance).packet() for _ in range(400)]
    assert all(fate.passed for fate in bench.send((Side.CLIENT, packet) for packet in packets))
    expected = {
        f"m{number}": sum(holds(match, Packet.parse(packet), {"four": {(0xC0000201,)}}) for packet in packets)
        for number, match in enumerate(matches)
    }
    counted = bench.counters()
    assert {name: counted[name] for name in expected} == expected


def _continuing(one: Chain) -> Chain:
    (first,) = one.rules
    return chain(
        rule(first.match, first.name, Verdict.CONTINUE, effects=(SetMark(1, 1),)),
        name=one.name,
    )


@pytest.mark.netns
@pytest.mark.parametrize("complicated", [False, True])
def test_pass_leaves_the_chain_and_continue_stays(bench, complicated):
    """The order of rules holds also where a rule needs chains of its own."""
    short = (
        any_of(Not(Present("tls.length")), equals("tls.content_type", 99)) if complicated else Protocol("tcp")
    )
    rules = (
        rule(short, "marks", Verdict.CONTINUE, effects=(SetMark(4, 0xC),)),
        rule(all_of(short, equals("tcp.dport", 443)), "passes", Verdict.PASS),
        rule(short, "accepts", Verdict.ACCEPT),
        rule(ALWAYS, "drops"),
    )
    last = chain(rule(Protocol("tcp"), "last"), name="d")
    bench.load(emit(Ruleset(chains=(chain(*rules), last)), NFT).text)
    to_443, to_80 = (
        segment(b"\x63" if not complicated else b"a", destination_port=port) for port in (443, 80)
    )
    long = segment(b"abcdefgh", destination_port=80)
    fates = [fate.passed for fate in bench.send((Side.CLIENT, packet) for packet in (to_443, to_80, long))]
    if complicated:
        assert fates == [False, True, False]
        assert bench.counters() == {"marks": 2, "passes": 1, "accepts": 1, "drops": 1, "last": 1}
    else:
        assert fates == [False, True, True]
        assert bench.counters() == {"marks": 3, "passes": 1, "accepts": 2, "drops": 0, "last": 1}


@pytest.mark.netns
def test_marks_directions_and_states(bench):
    original, reply = InDirection(Direction.ORIGINAL), InDirection(Direction.REPLY)
    marked = Marked(0x30, 0xF0)
    chains = (
        chain(
            rule(equals("tls.content_type", 1), "sets", Verdict.CONTINUE, effects=(SetMark(0x30, 0xF0),)),
            name="a",
        ),
        chain(
            rule(equals("tls.content_type", 2), "clears", Verdict.CONTINUE, effects=(SetMark(0, 0xF0),)),
            name="b",
        ),
        chain(rule(marked, "marked", Verdict.PASS), name="c"),
        chain(rule(Not(marked), "unmarked", Verdict.PASS), name="d"),
        chain(rule(original, "original", Verdict.PASS), name="e"),
        chain(rule(reply, "reply", Verdict.PASS), name="f"),
        chain(rule(InState(frozenset({State.NEW})), "new", Verdict.PASS), name="g"),
        chain(rule(Not(InState(frozenset({State.NEW}))), "old", Verdict.PASS), name="h"),
        chain(rule(InState(frozenset({State.INVALID})), "invalid", Verdict.PASS), name="i"),
    )
    bench.load(emit(Ruleset(chains=chains), NFT).text)
    back = {
        "source": "198.51.100.7",
        "destination": "192.0.2.1",
        "source_port": 443,
        "destination_port": 40000,
    }
    bench.send(
        [
            (Side.CLIENT, segment(b"x")),
            (Side.SERVER, segment(b"x", **back)),
            (Side.CLIENT, segment(b"\x01")),
            (Side.SERVER, segment(b"x", **back)),
            (Side.SERVER, segment(b"\x02", **back)),
            (Side.CLIENT, segment(b"x", flags=0)),
        ]
    )
    assert bench.counters() == {
        "sets": 1, "clears": 1, "marked": 2, "unmarked": 4, "original": 3, "reply": 3,
        "new": 1, "old": 5, "invalid": 1,
    } or bench.counters() == {
        "sets": 1, "clears": 1, "marked": 2, "unmarked": 4, "original": 2, "reply": 3,
        "new": 1, "old": 5, "invalid": 1,
    }  # fmt: skip


@pytest.mark.netns
def test_learning_limits_and_resets(bench):
    seen = SetDeclaration(name="seen", fields=("ip.saddr", "tls.random"), dynamic=True, timeout_s=60)
    chains = (
        chain(
            rule(
                equals("tls.handshake_type", 1),
                "learns",
                Verdict.CONTINUE,
                effects=(Learn("seen", ("ip.saddr", "tls.random"), 60),),
            ),
            rule(Lookup(("ip.saddr", "tls.random"), "seen"), "knows", Verdict.PASS),
            name="a",
        ),
        chain(
            rule(
                equals("tls.handshake_type", 9),
                "floods",
                Verdict.RESET,
                limit=Limit(packets=1, per="hour", burst=3, key=("ip.saddr",)),
            ),
            name="b",
        ),
        chain(
            rule(equals("tls.handshake_type", 8), "all", limit=Limit(packets=1, per="hour", burst=2)),
            name="c",
        ),
    )
    bench.load(emit(Ruleset(chains=chains, sets=(seen,)), NFT).text)

    def hello(kind: int, random: int = 7) -> tuple[Side, bytes]:
        return Side.CLIENT, segment(
            bytes((22, 3, 3, 0, 40, kind, 0, 0, 36, 3, 3)) + random.to_bytes(32) + b"\0"
        )

    bench.send([hello(2), hello(1), hello(2), hello(2, random=8)])
    assert bench.counters()["knows"] == 2
    fates = bench.send([hello(9)] * 6)
    assert [fate.passed for fate in fates] == [True] * 3 + [False] * 3
    reset = Packet.parse(fates[-1].answers[0])
    assert reset.read("tcp.flags") & 4
    assert reset.read("tcp.sport") == 443
    assert [fate.passed for fate in bench.send([hello(8)] * 4)] == [True] * 2 + [False] * 2


@pytest.mark.netns
@pytest.mark.parametrize("defragment", [True, False])
@pytest.mark.parametrize(
    "addresses", [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8:1::7")], ids=["v4", "v6"]
)
def test_fragments_are_judged_whole_if_asked_for(bench, ruleset_of, addresses, defragment):
    match = And((equals("tls.content_type", 24), equals("tls.length", 5)))
    bench.load(emit(ruleset_of(match, verdict=Verdict.DROP, defragment=defragment), NFT).text)
    source, destination = addresses
    whole = segment(b"\x18\x03\x03\x00\x05" + bytes(40), source=source, destination=destination)
    fates = bench.send((Side.CLIENT, piece) for piece in fragments(whole, 24))
    assert bench.counters() == {"m0": 1 if defragment else 0}
    assert any(fate.passed for fate in fates) is not defragment
