"""iptables and ip6tables with u32: what the kernel makes of the bytes, and what is said of it."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest

from analyzer.model import Side
from rulegen.backends import emit
from rulegen.backends.base import Level
from rulegen.backends.ipset import BACKEND as IPSET
from rulegen.backends.iptables import IP6TABLES, IPTABLES
from rulegen.errors import InvalidRuleset, Refused
from rulegen.ir.match import (
    Contains,
    Lookup,
    Marked,
    Not,
    Op,
    Present,
    Protocol,
    ServerName,
    SomeRecord,
    Test,
    all_of,
    any_of,
    between,
    equals,
    one_of,
)
from rulegen.ir.rule import Chain, Element, Origin, Rule, Ruleset, SetDeclaration, SetMark, Verdict
from rulegen.testbed.packets import Segment, fragments
from tests.rulegen.random_matches import random_match, random_segment
from tests.rulegen.reference import Packet, holds

FOUR = SetDeclaration(name="four", fields=("ip.saddr",), elements=(Element(key=((0xC0000201, 0xC0000201),)),))
VARIANTS = ("legacy", "nft")
TOOLS = tuple(f"{tool}-{variant}" for variant in VARIANTS for tool in ("iptables", "ip6tables"))
V4 = {"source": "192.0.2.1", "destination": "198.51.100.7"}
V6 = {"source": "2001:db8::1", "destination": "2001:db8:1::7"}
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
NO_OPERATION = bytes.fromhex("01010101")
HOP_BY_HOP = (0, bytes.fromhex("00010400000000"))


def backend_of(tool: str):
    return IP6TABLES if tool.startswith("ip6") else IPTABLES


def ends_of(tool: str) -> dict[str, str]:
    return V6 if tool.startswith("ip6") else V4


def packet(ends: dict[str, object], payload: bytes, **changes) -> bytes:
    return Segment(
        **{"source_port": 40000, "destination_port": 443, "payload": payload, **ends, **changes}
    ).packet()


def load_both(bench, ruleset: Ruleset, variant: str) -> None:
    """The ruleset for both families, and the sets that they look into."""
    if ruleset.sets:
        bench.load(emit(ruleset, IPSET).text, "ipset")
    bench.load(emit(ruleset, IPTABLES).text, f"iptables-{variant}")
    bench.load(emit(ruleset, IP6TABLES).text, f"ip6tables-{variant}")


def counted(bench, variant: str) -> dict[str, int]:
    """Of both families together."""
    four = bench.counters(tool=f"iptables-{variant}")
    six = bench.counters(tool=f"ip6tables-{variant}")
    return {name: four.get(name, 0) + six.get(name, 0) for name in four | six}


# --- in the kernel ------------------------------------------------------------------------------------------


def continuing(chain: Chain) -> Chain:
    (rule,) = chain.rules
    changed = Rule(
        name=rule.name,
        match=rule.match,
        verdict=Verdict.CONTINUE,
        origin=Origin(policy="t"),
        meaning="A test.",
        effects=(SetMark(1, 1), SetMark(2, 2)),
    )
    return Chain(name=chain.name, policy="t", rules=(changed,))


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(4))
def test_random_rules_match_in_the_kernel_what_they_mean(bench, ruleset_of, seed, variant):
    """Also rules of a form that no policy has: alternatives and short packets under every verdict."""
    chance = random.Random(seed)
    matches = [Lookup(("ip.saddr",), "four")]
    while len(matches) < 30:
        match = random_match(chance)
        try:
            emit(ruleset_of(matches[0], match, sets=(FOUR,)), IPTABLES)
            emit(ruleset_of(matches[0], match, sets=(FOUR,)), IP6TABLES)
        except (InvalidRuleset, Refused):
            continue
        matches.append(match)
    ruleset = ruleset_of(*matches, sets=(FOUR,), verdict=Verdict.PASS)
    if seed % 2:
        ruleset = Ruleset(chains=tuple(map(continuing, ruleset.chains)), sets=ruleset.sets)
    load_both(bench, ruleset, variant)
    packets = [random_segment(chance).packet() for _ in range(500)]
    assert all(fate.passed for fate in bench.send((Side.CLIENT, one) for one in packets))
    parsed = list(map(Packet.parse, packets))
    expected = {
        f"m{number}": sum(holds(match, one, {"four": {(0xC0000201,)}}) for one in parsed)
        for number, match in enumerate(matches)
    }
    counts = counted(bench, variant)
    assert {name: counts.get(name, 0) for name in expected} == expected


def boundary_pairs() -> list[tuple[int, int]]:
    """(payload_length, record_length) on both sides of where each low byte's carry changes."""
    pairs = set()
    for record_low, low_step in product(range(256), (-20, -19, -18, -17, 236, 237, 238, 239)):
        payload_low = record_low + low_step
        if not 0 <= payload_low <= 255:
            continue
        for record_high, high_step in product((0, 1, 64, 255), (-3, -2, -1, 0, 1)):
            payload_high = record_high + high_step
            if 0 <= payload_high <= 255:
                pairs.add((payload_high << 8 | payload_low, record_high << 8 | record_low))
    return sorted(pairs)


def request(payload_length: int, record_length: int) -> bytes:
    return b"\x18\x03\x02" + record_length.to_bytes(2) + b"\x01" + payload_length.to_bytes(2)


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("options", [b"", TIMESTAMPS], ids=["plain", "TCP options"])
@pytest.mark.parametrize("tool", TOOLS)
def test_heartbleed_is_exact(bench, respond, tool, options):
    chance = random.Random(tool)
    pairs = boundary_pairs()
    pairs += [(chance.getrandbits(16), chance.getrandbits(16)) for _ in range(5000)]
    assert len(pairs) > 12_000
    bench.load(emit(respond((), "heartbleed:ports=443").ruleset, backend_of(tool)).text, tool)
    ends = ends_of(tool)
    fates = bench.send((Side.CLIENT, packet(ends, request(*pair), tcp_options=options)) for pair in pairs)
    expected = [payload_length + 3 + 16 > record_length for payload_length, record_length in pairs]
    wrong = [pair for pair, fate, right in zip(pairs, fates, expected, strict=True) if fate.passed is right]
    assert not wrong
    assert 0 < sum(expected) < len(pairs)
    assert bench.counters(tool=tool)["heartbleed-overread"] == sum(expected)


@pytest.mark.netns
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_byte_of_the_payload_is_there_exactly_when_it_is(bench, ruleset_of, variant):
    """The first three can't be read from the payload's start: whatever the options, they are found."""
    first = [
        equals("tls.content_type", 24),
        equals("tls.version", 0x0302),
        equals("ssl2.record_length", 0x1803),
    ]
    present = [
        Present(name) for name in ("tls.content_type", "tls.version", "tls.length", "ssl2.record_length")
    ]
    matches = [*first, *present, *map(Not, first), *map(Not, present)]
    load_both(bench, ruleset_of(*matches), variant)
    carriers = [V4 | {"ip_options": NO_OPERATION * words} for words in range(11)]
    carriers += [V4 | {"tcp_options": NO_OPERATION * words} for words in range(1, 11)]
    carriers += [V6 | {"tcp_options": NO_OPERATION * words} for words in range(11)]
    payloads = [b"\x18\x03\x02\x00\x20\x01\x40"[:size] for size in range(8)] + [b"\x17\x03", b"\x18\x02\x02"]
    packets = [packet(carrier, payload) for carrier in carriers for payload in payloads]
    bench.send((Side.CLIENT, one) for one in packets)
    parsed = list(map(Packet.parse, packets))
    assert counted(bench, variant) == {
        f"m{number}": sum(holds(match, one) for one in parsed) for number, match in enumerate(matches)
    }


@pytest.mark.netns
@pytest.mark.parametrize("variant", VARIANTS)
def test_wide_fields_and_many_ports(bench, ruleset_of, variant):
    """What does not fit one u32 test, one multiport match or one line."""
    value = int.from_bytes(bytes(range(32)))
    six, other = (int.from_bytes(Packet.parse(packet(V6, b"")).network[at : at + 16]) for at in (8, 24))
    matches = (
        equals("tls.random", value),
        Test("tls.random", Op.NE, value),
        between("tls.random", value - 1, value + 2**200),
        Test("tls.random", Op.LT, value & ~0xFF, (1 << 256) - 1 - 0xFF),
        one_of("tls.random", ((0, 5), (value, value), (value + 9, value + 2**130))),
        one_of("tcp.dport", tuple((port, port + 1) for port in range(400, 500, 4))),
        Test("tcp.dport", Op.NE, 443),
        one_of("tcp.sport", tuple((port, port) for port in range(39980, 40020, 2))),
        between("ip.saddr", 0xC0000200, 0xC0000202),
        one_of("ip.saddr", ((1, 5), (0xC0000201, 0xC0000201))),
        Test("ip.saddr", Op.NE, 0xC0000201),
        between("ip6.saddr", six - 5, six + 1),
        one_of("ip6.saddr", ((1, 5), (six, six), (other, other))),
        between("ip6.daddr", other >> 96 << 96, (other >> 96 << 96) + (1 << 96) - 1),
        Test("ip6.saddr", Op.GT, six),
        all_of(Not(Protocol("tcp")), Not(Protocol("udp"))),
        any_of(Not(Protocol("tcp")), equals("tcp.dport", 440)),
    )
    load_both(bench, ruleset_of(*matches), variant)
    payloads = [
        b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03" + number.to_bytes(32)
        for number in (
            value,
            value - 1,
            value + 1,
            value + 0x100,
            value - 0x100,
            3,
            value + 9,
            value + 2**131,
        )
    ]
    payloads += [payloads[0][:-1], payloads[0][:12], b""]
    packets = [
        packet(carrier | {"destination_port": port}, payload)
        for carrier in (V4, V6, V4 | {"source": "192.0.2.9"}, V6 | {"source": "2001:db8::5"})
        for payload in payloads
        for port in (443, 440, 441, 442)
    ]
    bench.send((Side.CLIENT, one) for one in packets)
    parsed = list(map(Packet.parse, packets))
    counts = counted(bench, variant)
    expected = {
        f"m{number}": sum(holds(match, one) for one in parsed) for number, match in enumerate(matches)
    }
    assert {name: counts.get(name, 0) for name in expected} == expected


@pytest.mark.netns
@pytest.mark.parametrize("variant", VARIANTS)
def test_as_the_fidelity_says_extension_headers_hide_the_payload_but_not_the_ports(
    bench, ruleset_of, variant
):
    matches = (equals("tls.content_type", 24), Not(Present("tls.length")), equals("tcp.dport", 443))
    ruleset = ruleset_of(*matches)
    levels = [one.level for one in emit(ruleset, IP6TABLES).fidelity]
    assert levels == [Level.NARROWER, Level.NARROWER, Level.EXACT]
    assert "extension headers" in emit(ruleset, IP6TABLES).fidelity[0].notes[-1]
    load_both(bench, ruleset, variant)
    assert bench.send([(Side.CLIENT, packet(V6, b"\x18", extensions=(HOP_BY_HOP,)))])[0].passed
    assert counted(bench, variant) == {"m0": 0, "m1": 0, "m2": 1}
    (advice,) = re.findall(r"^# (ip6tables .*) -j DROP$", emit(ruleset, IP6TABLES).text, re.MULTILINE)
    bench.command("sh", "-c", f"{advice.replace('ip6tables', f'ip6tables-{variant}')} -j DROP")
    extended = packet(V6, b"", extensions=(HOP_BY_HOP,))
    fates = bench.send((Side.CLIENT, one) for one in (extended, packet(V6, b""), packet(V4, b"")))
    assert [fate.passed for fate in fates] == [False, True, True]


@pytest.mark.netns
@pytest.mark.parametrize("defragment", [True, False])
@pytest.mark.parametrize("tool", TOOLS)
def test_fragments_are_judged_whole_if_asked_for(bench, ruleset_of, tool, defragment):
    match = all_of(equals("tls.content_type", 24), equals("tls.length", 5))
    ruleset = ruleset_of(match, verdict=Verdict.DROP, defragment=defragment)
    bench.load(emit(ruleset, backend_of(tool)).text, tool)
    whole = packet(ends_of(tool), b"\x18\x03\x03\x00\x05" + bytes(40))
    fates = bench.send((Side.CLIENT, piece) for piece in fragments(whole, 24))
    assert bench.counters(tool=tool) == {"m0": 1 if defragment else 0}
    assert any(fate.passed for fate in fates) is not defragment


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_without_reassembly_no_fragment_is_taken_for_a_header(bench, ruleset_of, tool):
    """Neither dropped for its lack of ports, as `--dport` would, nor its body read for ports or payload."""
    matches = (equals("tcp.dport", 443), equals("tls.content_type", 24), Not(Present("tls.length")))
    bench.load(emit(ruleset_of(*matches, defragment=False), backend_of(tool)).text, tool)
    segment = packet(ends_of(tool), b"\x18\x03\x03\x00\x05" + bytes(40))[-65:]
    whole = packet(ends_of(tool), b"four" + segment, destination_port=80)
    pieces = [*fragments(whole, 8)[1:], *fragments(whole, 24)[1:]]
    assert all(fate.passed for fate in bench.send((Side.CLIENT, piece) for piece in pieces))
    assert not any(bench.counters(tool=tool).values())


@pytest.mark.netns
@pytest.mark.parametrize("variant", VARIANTS)
def test_bytes_anywhere(bench, ruleset_of, variant):
    pattern = bytes(range(0x60, 0x70))
    matches = (
        Contains(pattern),
        Not(Contains(pattern)),
        all_of(Contains(b'\x00|"\n'), equals("tcp.dport", 443)),
    )
    load_both(bench, ruleset_of(*matches), variant)
    payloads = (b"", pattern, b"x" * 700 + pattern, pattern[1:], b'a\x00|"\nb', pattern.upper())
    for carrier in (V4, V6):
        bench.send((Side.CLIENT, packet(carrier, payload)) for payload in payloads)
    assert counted(bench, variant) == {"m0": 4, "m1": 8, "m2": 2}


@pytest.mark.netns
@pytest.mark.parametrize("variant", VARIANTS)
def test_as_the_fidelity_says_bytes_in_options_are_found_too(bench, ruleset_of, variant):
    ruleset = ruleset_of(Contains(TIMESTAMPS[4:]), Not(Contains(TIMESTAMPS[4:])))
    assert [one.level for one in emit(ruleset, IPTABLES).fidelity] == [Level.WIDER, Level.NARROWER]
    load_both(bench, ruleset, variant)
    bench.send([(Side.CLIENT, packet(carrier, b"", tcp_options=TIMESTAMPS)) for carrier in (V4, V6)])
    assert counted(bench, variant) == {"m0": 2, "m1": 0}


def client_hello(name: bytes, *, before: bytes = b"") -> bytes:
    server_name = b"\0" + len(name).to_bytes(2) + name
    extension = b"\0\0" + (len(server_name) + 2).to_bytes(2) + len(server_name).to_bytes(2) + server_name
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"
    body += (len(before) + len(extension)).to_bytes(2) + before + extension
    message = b"\1" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(message).to_bytes(2) + message


@pytest.mark.netns
@pytest.mark.parametrize("variant", VARIANTS)
def test_server_names(bench, ruleset_of, variant):
    name = ServerName("www.example.com")
    load_both(bench, ruleset_of(name, Not(name)), variant)
    hits = [client_hello(b"www.example.com"), client_hello(b"WWW.Example.com", before=b"\0\x17\0\0" * 50)]
    misses = [
        client_hello(b"www.example.co"),
        client_hello(b"xwww.example.com"),
        client_hello(b"www.example.com.x"),
        hits[0][:-1],
        b"\x17" + hits[0][1:],
        hits[0][:5] + b"\x02" + hits[0][6:],
        b"",
    ]
    for carrier in (V4, V6):
        bench.send((Side.CLIENT, packet(carrier, payload)) for payload in (*hits, *misses))
    assert counted(bench, variant) == {"m0": 2 * len(hits), "m1": 2 * len(misses)}


# --- what it says, leaves out and refuses -------------------------------------------------------------------


def test_fidelity_says_what_fragments_and_records_do(ruleset_of):
    matches = (equals("tls.length", 1), equals("tcp.dport", 1), equals("ip.saddr", 1))
    assert [one.level for one in emit(ruleset_of(*matches), IPTABLES).fidelity] == [Level.EXACT] * 3
    levels = [one.level for one in emit(ruleset_of(*matches, defragment=False), IPTABLES).fidelity]
    assert levels == [Level.NARROWER, Level.NARROWER, Level.EXACT]
    later = SomeRecord(equals("tls.content_type", 24), 3)
    levels = [one.level for one in emit(ruleset_of(later, Not(later)), IPTABLES).fidelity]
    assert levels == [Level.NARROWER, Level.WIDER]


def test_a_rule_of_the_other_family_is_left_out_and_said_to_be(ruleset_of):
    matches = (
        equals("ip.saddr", 1),
        equals("ip6.saddr", 1),
        any_of(equals("ip.saddr", 2), equals("ip6.saddr", 2)),
    )
    for backend, own, other, word in ((IPTABLES, "m0", "m1", "IPv6"), (IP6TABLES, "m1", "m0", "IPv4")):
        artifact = emit(ruleset_of(*matches), backend)
        left_out = {one.rule: one for one in artifact.fidelity}[other]
        assert left_out.level is Level.NARROWER
        assert left_out.notes == (f"is for {word} alone and not in this file",)
        assert f"# narrower; is for {word} alone and not in this file" in artifact.text
        assert f"[{own}]" in artifact.text
        assert f"[{other}]" not in artifact.text
        assert "[m2]" in artifact.text


def test_a_policy_of_the_other_family_is_left_out_whole():
    rule = Rule(
        name="r",
        match=equals("tcp.dport", 1),
        verdict=Verdict.DROP,
        origin=Origin(policy="t"),
        meaning="A test.",
    )
    ruleset = Ruleset(chains=(Chain(name="c", policy="t", rules=(rule,), guard=Protocol("ip6")),))
    assert "DROP" not in emit(ruleset, IPTABLES).text
    assert [one.level for one in emit(ruleset, IPTABLES).fidelity] == [Level.NARROWER]
    assert "DROP" in emit(ruleset, IP6TABLES).text


def test_refusals_are_collected_and_named(ruleset_of):
    declared = SetDeclaration(name="randoms", fields=("tls.random",))
    matches = (
        Lookup(("tls.random",), "randoms"),
        equals("tls.length", 1),
        Contains(bytes(128)),
        ServerName("example.com", subdomains=True),
        ServerName(f"{'a' * 63}.{'b' * 63}"),
    )
    with pytest.raises(Refused) as caught:
        emit(ruleset_of(*matches, sets=(declared,)), IPTABLES)
    assert [one.rule for one in caught.value.refusals] == ["m0", "m2", "m3", "m4"]
    assert [one.backend for one in caught.value.refusals] == ["iptables"] * 4
    features = [one.feature for one in caught.value.refusals]
    for feature, words in zip(features, ("tls.random", "128 bytes", "below it", "136 bytes"), strict=True):
        assert words in feature


def test_a_match_that_can_not_hold_is_refused(ruleset_of):
    with pytest.raises(InvalidRuleset, match=r"rule m0: .* never hold"):
        emit(ruleset_of(any_of(all_of(Marked(1), Not(Marked(1))))), IPTABLES)


def test_heartbleed_is_about_a_hundred_and_fifty_lines(respond):
    text = emit(respond((), "heartbleed:ports=443").ruleset, IPTABLES).text
    assert 110 < sum(line.startswith("-A") for line in text.splitlines()) < 160
