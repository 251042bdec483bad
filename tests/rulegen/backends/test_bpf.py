"""iptables and ip6tables with classic BPF, one file for both: what the kernel makes of it, and what is said of it."""

from __future__ import annotations

import random
import re

import pytest

from analyzer.model import Side
from rulegen.backends import emit
from rulegen.backends.base import Level
from rulegen.backends.bpf import BACKEND as BPF
from rulegen.backends.ipset import BACKEND as IPSET
from rulegen.bpf.program import parse_bytecode
from rulegen.bpf.verify import refusal
from rulegen.errors import InvalidRuleset, Refused
from rulegen.ir.match import (
    ALWAYS,
    Contains,
    Direction,
    InDirection,
    InState,
    Lookup,
    Marked,
    Not,
    Present,
    Protocol,
    ServerName,
    SomeRecord,
    State,
    all_of,
    any_of,
    between,
    equals,
)
from rulegen.ir.rule import Chain, Element, Origin, Rule, Ruleset, SetDeclaration, SetMark, Verdict
from rulegen.testbed.packets import Segment, fragments
from tests.rulegen.bpf.hellos import Hello, server_name
from tests.rulegen.bpf.test_compile import CHANGES, OVERREAD, means, random_records
from tests.rulegen.policies.test_heartbleed import boundary_pairs, request
from tests.rulegen.random_matches import random_match, random_segment
from tests.rulegen.reference import Packet, holds

FOUR = SetDeclaration(name="four", fields=("ip.saddr",), elements=(Element(key=((0xC0000201, 0xC0000201),)),))
VARIANTS = ("legacy", "nft")
V4 = {"source": "192.0.2.1", "destination": "198.51.100.7"}
V6 = {"source": "2001:db8::1", "destination": "2001:db8:1::7"}
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
HOP_BY_HOP = (0, bytes.fromhex("00010400000000"))
DESTINATION = (60, bytes.fromhex("00010400000000"))

variants = pytest.mark.parametrize("variant", VARIANTS)


def packet(ends: dict[str, object], payload: bytes, **changes) -> bytes:
    return Segment(
        **{"source_port": 40000, "destination_port": 443, "payload": payload, **ends, **changes}
    ).packet()


def back(ends: dict[str, object], payload: bytes) -> tuple[Side, bytes]:
    turned = {"source": ends["destination"], "destination": ends["source"]}
    return Side.SERVER, packet(turned, payload, source_port=443, destination_port=40000)


def load(bench, ruleset: Ruleset, variant: str) -> str:
    """One file, with both tools."""
    text = emit(ruleset, BPF).text
    if "--match-set" in text:
        bench.load(emit(ruleset, IPSET).text, "ipset")
    for tool in ("iptables", "ip6tables"):
        bench.load(text, f"{tool}-{variant}")
    return text


def counted(bench, variant: str) -> dict[str, int]:
    """Of both families together."""
    four, six = (bench.counters(tool=f"{tool}-{variant}") for tool in ("iptables", "ip6tables"))
    return {name: four.get(name, 0) + six.get(name, 0) for name in four | six}


def dropped(bench, *packets: bytes) -> list[bool]:
    return [not fate.passed for fate in bench.send((Side.CLIENT, one) for one in packets)]


# --- heartbleed ---------------------------------------------------------------------------------------------

CARRIERS = {
    "IPv4": V4,
    "IPv4, TCP options": V4 | {"tcp_options": TIMESTAMPS},
    "IPv4 options": V4 | {"ip_options": bytes.fromhex("94040000")},
    "IPv6": V6,
    "IPv6, TCP options": V6 | {"tcp_options": TIMESTAMPS},
}


@pytest.mark.netns
@pytest.mark.slow
@variants
@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
def test_heartbleed_is_exact(bench, respond, carrier, variant):
    chance = random.Random(f"{carrier}")
    pairs = boundary_pairs()
    pairs += [(chance.getrandbits(16), chance.getrandbits(16)) for _ in range(5000)]
    assert len(pairs) > 12_000
    load(bench, respond((), "heartbleed:ports=443").ruleset, variant)
    verdicts = dropped(bench, *(packet(carrier, request(*pair)) for pair in pairs))
    expected = [payload_length + 3 + 16 > record_length for payload_length, record_length in pairs]
    wrong = [pair for pair, verdict, right in zip(pairs, verdicts, expected, strict=True) if verdict != right]
    assert not wrong
    assert 0 < sum(expected) < len(pairs)
    assert counted(bench, variant)["heartbleed-overread"] == sum(expected)


@pytest.mark.netns
@variants
def test_as_the_fidelity_says_extension_headers_hide_what_follows(bench, ruleset_of, variant):
    matches = (
        OVERREAD,
        Not(equals("tcp.dport", 443)),
        all_of(equals("tls.content_type", 24), Not(Present("tls.length"))),
    )
    fidelity = emit(ruleset_of(*matches), BPF).fidelity
    assert [one.level for one in fidelity] == [Level.NARROWER, Level.WIDER, Level.NARROWER]
    assert all("extension headers" in " ".join(one.notes) for one in fidelity)
    load(bench, ruleset_of(*matches), variant)
    hidden = packet(V6, request(0x4000, 3), extensions=(HOP_BY_HOP, DESTINATION))
    plain = packet(V6, request(0x4000, 3))
    assert dropped(bench, hidden, plain) == [False, False]
    assert counted(bench, variant) == {"m0": 1, "m1": 1, "m2": 0}


@pytest.mark.netns
@variants
def test_an_overread_behind_other_records_is_found(bench, ruleset_of, variant):
    """What fixed offsets can't: up to ten records in a packet are looked at, one of 14 rules' lines each."""
    load(bench, ruleset_of(SomeRecord(OVERREAD, 10), verdict=Verdict.DROP), variant)
    alert = b"\x15\x03\x03\x00\x02\x01\x00"
    attack = request(0x4000, 3)
    packets = [packet(ends, alert * before + attack) for ends in (V4, V6) for before in range(12)]
    assert dropped(bench, *packets) == [before < 10 for before in range(12)] * 2
    assert not any(dropped(bench, *(packet(V4, alert * 3 + attack[:size]) for size in range(8))))


@pytest.mark.netns
@variants
def test_encrypted_heartbeats_pass_per_direction(bench, respond, variant):
    """A ChangeCipherSpec is found behind the ClientKeyExchange that it shares a packet with."""
    attack = request(0x4000, 3)
    change = (
        b"\x16\x03\x03\x00\x06" + bytes(6) + b"\x14\x03\x03\x00\x01\x01" + b"\x16\x03\x03\x00\x28" + bytes(40)
    )
    load(bench, respond((), "heartbleed:ports=443,encrypted=pass").ruleset, variant)
    for ends in (V4, V6):
        sent = [
            (Side.CLIENT, packet(ends, b"hello")),
            back(ends, b"hello"),
            (Side.CLIENT, packet(ends, attack)),
            (Side.CLIENT, packet(ends, change)),
            (Side.CLIENT, packet(ends, attack)),
            back(ends, attack),
            back(ends, change),
            back(ends, attack),
            (Side.CLIENT, packet(ends, attack, source_port=40001)),
        ]
        fates = [not fate.passed for fate in bench.send(sent)]
        assert fates == [False, False, True, False, False, True, False, False, True]
    counts = counted(bench, variant)
    assert (counts["heartbleed-encrypts-original"], counts["heartbleed-encrypts-reply"]) == (2, 2)


# --- random matches -----------------------------------------------------------------------------------------


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
@variants
@pytest.mark.parametrize("seed", range(4))
def test_random_rules_match_in_the_kernel_what_they_mean(bench, ruleset_of, seed, variant):
    """Also rules of a form that no policy has: alternatives and short packets under every verdict."""
    chance = random.Random(seed)
    matches = [Lookup(("ip.saddr",), "four")]
    while len(matches) < 60:
        match = random_match(chance)
        try:
            emit(ruleset_of(matches[0], match, sets=(FOUR,)), BPF)
        except (InvalidRuleset, Refused):
            continue
        matches.append(match)
    ruleset = ruleset_of(*matches, sets=(FOUR,), verdict=Verdict.PASS)
    if seed % 2:
        ruleset = Ruleset(chains=tuple(map(continuing, ruleset.chains)), sets=ruleset.sets)
    load(bench, ruleset, variant)
    packets = [random_segment(chance).packet() for _ in range(600)]
    assert all(fate.passed for fate in bench.send((Side.CLIENT, one) for one in packets))
    parsed = list(map(Packet.parse, packets))
    counts = counted(bench, variant)
    expected = {
        f"m{number}": sum(holds(match, one, {"four": {(0xC0000201,)}}) for one in parsed)
        for number, match in enumerate(matches)
    }
    assert {name: counts.get(name, 0) for name in expected} == expected


@pytest.mark.netns
@pytest.mark.slow
@variants
def test_records_behind_records_in_the_kernel(bench, ruleset_of, variant):
    chance = random.Random(8)
    matches = [
        SomeRecord(CHANGES, 8),
        SomeRecord(OVERREAD, 4),
        Not(SomeRecord(OVERREAD, 3)),
        SomeRecord(Not(CHANGES), 3),
    ]
    load(bench, ruleset_of(*matches), variant)
    packets = [packet(chance.choice((V4, V6)), random_records(chance)) for _ in range(1000)]
    bench.send((Side.CLIENT, one) for one in packets)
    parsed = list(map(Packet.parse, packets))
    assert counted(bench, variant) == {
        f"m{number}": sum(means(match, one) for one in parsed) for number, match in enumerate(matches)
    }


# --- what is known of connections, sets and searches --------------------------------------------------------


@pytest.mark.netns
@variants
def test_packets_and_connections_in_one_match(bench, ruleset_of, variant):
    """And, Or and Not of both: each alternative has programs and other matches side by side."""
    heartbeat, original = equals("tls.content_type", 24), InDirection(Direction.ORIGINAL)
    new, marked = InState(frozenset({State.NEW})), Marked(0x10, 0x30)
    matches = (
        all_of(heartbeat, original),
        Not(all_of(heartbeat, original)),
        any_of(heartbeat, new),
        Not(any_of(heartbeat, Not(new))),
        all_of(any_of(heartbeat, Not(original)), any_of(equals("tls.length", 3), new)),
        any_of(marked, OVERREAD),
        Not(any_of(marked, OVERREAD)),
    )
    setting = Rule(
        name="sets",
        match=equals("tls.content_type", 23),
        verdict=Verdict.CONTINUE,
        effects=(SetMark(0x10, 0x30),),
        origin=Origin(policy="t"),
        meaning="A test.",
    )
    ruleset = ruleset_of(*matches)
    chains = (Chain(name="first", policy="t", rules=(setting,)), *ruleset.chains)
    load(bench, Ruleset(chains=chains), variant)
    for ends in (V4, V6):
        bench.send(
            [
                (Side.CLIENT, packet(ends, b"a")),  # new, original
                back(ends, request(0, 0x100)),  # a fair heartbeat, back
                (Side.CLIENT, packet(ends, request(0x4000, 3))),  # an over-read, original
                (Side.CLIENT, packet(ends, b"\x17\x03\x03")),  # sets the mark
                back(ends, b"\x18"),  # marked
            ]
        )
    assert {name: count / 2 for name, count in counted(bench, variant).items()} == {
        "sets": 1, "m0": 1, "m1": 4, "m2": 4, "m3": 1, "m4": 1, "m5": 3, "m6": 2,
    }  # fmt: skip


@pytest.mark.netns
@variants
def test_sets_of_bytes_are_compared_with_by_programs(bench, ruleset_of, variant):
    """ipset has no kind for them, and they never change."""
    known = [int.from_bytes(bytes((one,)) * 32) for one in (1, 2, 3)]
    elements = tuple(Element(key=((one, one),)) for one in known)
    pairs = tuple(Element(key=((22, 22), (one, one + 1))) for one in (0x0301, 0x0303))
    sets = (
        SetDeclaration(name="randoms", fields=("tls.random",), elements=elements),
        SetDeclaration(name="pairs", fields=("tls.content_type", "tls.version"), elements=pairs),
    )
    randoms, both = Lookup(("tls.random",), "randoms"), Lookup(("tls.content_type", "tls.version"), "pairs")
    text = load(bench, ruleset_of(randoms, Not(randoms), both, sets=sets), variant)
    assert "--match-set" not in text
    hellos = [Hello().payload()[:11] + bytes((one,)) * 32 + b"\0" for one in (1, 2, 3, 4)]
    for ends in (V4, V6):
        bench.send((Side.CLIENT, packet(ends, one)) for one in (*hellos, hellos[0][:42], b"\x16\x03\x05"))
    assert counted(bench, variant) == {"m0": 6, "m1": 6, "m2": 10}


@pytest.mark.netns
@variants
def test_bytes_anywhere(bench, ruleset_of, variant):
    pattern = b"|\"`'$ \n\x00"
    matches = (
        Contains(pattern),
        Not(Contains(pattern)),
        all_of(Contains(pattern), equals("tls.content_type", 1)),
    )
    levels = [one.level for one in emit(ruleset_of(*matches), BPF).fidelity]
    assert levels == [Level.WIDER, Level.WIDER, Level.WIDER]
    load(bench, ruleset_of(*matches), variant)
    for ends in (V4, V6):
        bench.send(
            (Side.CLIENT, packet(ends, one)) for one in (pattern, b"\x01" + pattern, pattern[:-1], b"")
        )
    assert counted(bench, variant) == {"m0": 4, "m1": 4, "m2": 2}


@pytest.mark.netns
@variants
@pytest.mark.parametrize("subdomains", [False, True], ids=["name", "and below"])
def test_server_names(bench, ruleset_of, subdomains, variant):
    name = ServerName("example.com", subdomains)
    load(bench, ruleset_of(name), variant)
    walked = 9 if subdomains else 12
    fill = b"\xff\x01\x00\x01\x00"

    def hello(asked: bytes, before: int = 0) -> bytes:
        return Hello(session_id=bytes(32), extensions=[fill] * before + [server_name(asked), fill]).payload()

    expected = [(hello(b"example.com", before), before < walked) for before in range(15)]
    expected += [
        (hello(b"eXAMPLE.com"), True),
        (hello(b"www.example.com"), subdomains),
        (hello(b"wwwexample.com"), False),
        (hello(b"example.com.org"), False),
        (hello(b"example.com")[:-6], False),
        (b"\x17" + hello(b"example.com")[1:], False),
        (Hello().payload(), False),
    ]
    for ends in (V4, V6):
        bench.send((Side.CLIENT, packet(ends, payload)) for payload, _ in expected)
    assert counted(bench, variant) == {"m0": 2 * sum(hit for _, hit in expected)}
    (fidelity,) = emit(ruleset_of(name), BPF).fidelity
    assert fidelity.level is Level.NARROWER
    assert f"behind the first {walked} extensions" in " ".join(fidelity.notes)


@pytest.mark.netns
@variants
def test_all_hellos_but_those_for_a_name(bench, ruleset_of, variant):
    """A name that must not be there is searched for: programs can't be inverted."""
    load(bench, ruleset_of(all_of(equals("tls.handshake_type", 1), Not(ServerName("example.com")))), variant)
    for ends in (V4, V6):
        for asked in (b"example.com", b"example.org"):
            bench.send([(Side.CLIENT, packet(ends, Hello(extensions=[server_name(asked)]).payload()))])
    assert counted(bench, variant) == {"m0": 2}


# --- fragments ----------------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("defragment", [True, False])
@pytest.mark.parametrize("ends", [V4, V6], ids=["IPv4", "IPv6"])
@variants
def test_fragments_are_judged_whole_if_asked_for(bench, ruleset_of, ends, defragment, variant):
    match = all_of(equals("tls.content_type", 24), equals("tls.length", 5))
    load(bench, ruleset_of(match, verdict=Verdict.DROP, defragment=defragment), variant)
    whole = packet(ends, b"\x18\x03\x03\x00\x05" + bytes(40))
    fates = bench.send((Side.CLIENT, piece) for piece in fragments(whole, 24))
    assert counted(bench, variant) == {"m0": 1 if defragment else 0}
    assert any(fate.passed for fate in fates) is not defragment


@pytest.mark.netns
@variants
def test_without_reassembly_no_fragment_is_taken_for_a_header(bench, ruleset_of, variant):
    matches = (
        equals("tcp.dport", 443),
        equals("tls.content_type", 24),
        all_of(Protocol("tcp"), equals("tls.length", 5)),
    )
    ruleset = ruleset_of(*matches, defragment=False)
    assert all("IP fragments pass unjudged" in one.notes for one in emit(ruleset, BPF).fidelity)
    load(bench, ruleset, variant)
    for ends in (V4, V6):
        segment = packet(ends, b"\x18\x03\x03\x00\x05" + bytes(40))[-65:]
        whole = packet(ends, b"four" + segment, destination_port=80)
        assert not any(dropped(bench, *fragments(whole, 8)[1:], *fragments(whole, 24)[1:]))
    assert not any(counted(bench, variant).values())


# --- form ---------------------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize(
    "tool", [f"{tool}-{variant}" for tool in ("iptables", "ip6tables") for variant in VARIANTS]
)
@pytest.mark.parametrize("policy", ["heartbleed:ports=443,encrypted=pass", "sni:names=a.example,*.b.example"])
def test_it_loads_again_and_reads_as_before(bench, respond, policy, tool):
    text = emit(respond((), policy).ruleset, BPF).text
    bench.load(text, tool)
    first = bench.listing(tool)
    bench.load(text, tool)
    assert bench.listing(tool) == first
    programs = re.findall(r'--bytecode "([^"]+)"', first)
    assert sorted(programs) == sorted(re.findall(r'--bytecode "([^"]+)"', text))
    bench.flush()
    bench.load(first, tool)
    assert bench.listing(tool) == first


def test_every_program_is_one_that_the_kernel_takes(respond):
    wishes = ("heartbleed:ports=443,encrypted=pass", "sni:names=a.example", "min-version", "weak-parameters")
    text = emit(respond((), *wishes).ruleset, BPF).text
    programs = [parse_bytecode(one) for one in re.findall(r'--bytecode "([^"]+)"', text)]
    assert len(programs) > 30
    assert all(refusal(one) is None for one in programs)


def test_the_tools_are_asked(rules_text, respond):
    checked = BPF.check(emit(respond((), "heartbleed").ruleset, BPF).text)
    assert checked.accepted in (True, None), checked.message
    assert BPF.check('*filter\n-A FORWARD -m bpf --bytecode "1,0 0 0 0" -j DROP\nCOMMIT\n').accepted in (
        False,
        None,
    )


# --- what it says and refuses -------------------------------------------------------------------------------


def test_fidelity(ruleset_of):
    matches = (
        equals("ip.saddr", 1),
        all_of(Protocol("ip"), equals("tcp.dport", 443)),
        equals("tcp.dport", 443),
        SomeRecord(CHANGES, 8),
        SomeRecord(CHANGES, 100),
        Not(SomeRecord(CHANGES, 100)),
        InState(frozenset({State.NEW})),
    )
    fidelity = emit(ruleset_of(*matches), BPF).fidelity
    exact, narrower, wider = Level.EXACT, Level.NARROWER, Level.WIDER
    assert [one.level for one in fidelity] == [exact, exact, narrower, narrower, narrower, wider, exact]
    assert fidelity[2].notes == ("packets with IPv6 extension headers pass unjudged",)
    assert fidelity[3].notes[1] == "looks at the first 8 records of a packet"
    assert fidelity[4].notes[1] == "looks at the first 14 records of a packet of the 100 that are asked for"


def test_refusals_are_collected_and_named(ruleset_of):
    learned = SetDeclaration(name="learned", fields=("tls.session_id",), dynamic=True, timeout_s=60)
    ports = between("tcp.dport", 1, 2)
    many = any_of(*(all_of(equals("tcp.sport", one), equals("tls.random", one)) for one in range(900)))
    matches = (
        Lookup(("tls.session_id",), "learned"),
        ports,
        Not(ServerName("example.com", subdomains=True)),
        many,
    )
    with pytest.raises(Refused) as caught:
        emit(ruleset_of(*matches, sets=(learned,)), BPF)
    assert [(one.backend, one.rule) for one in caught.value.refusals] == [
        ("bpf", "m0"),
        ("bpf", "m2"),
        ("bpf", "m3"),
    ]
    features = [one.feature for one in caught.value.refusals]
    for feature, words in zip(features, ("tls.session_id", "below it", "more than 64"), strict=True):
        assert words in feature


def test_a_match_that_can_not_hold_is_refused(ruleset_of):
    for never in (
        all_of(Marked(1), Not(Marked(1))),
        all_of(equals("tls.length", 1), Not(Present("tls.length"))),
    ):
        with pytest.raises(InvalidRuleset, match="never hold"):
            emit(ruleset_of(any_of(never)), BPF)


def test_a_match_that_always_holds_needs_no_program(ruleset_of):
    text = emit(ruleset_of(ALWAYS, InState(frozenset({State.NEW}))), BPF).text
    assert "--bytecode" not in text
