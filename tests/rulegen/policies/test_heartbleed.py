"""heartbleed in the kernel: exact for every carry, over IPv4 and IPv6, with and without options."""

from __future__ import annotations

import random
from itertools import product

import pytest

from analyzer.model import Side
from rulegen.backends import BACKENDS, emit
from rulegen.backends.base import Level
from rulegen.errors import WishError
from rulegen.from_findings import parse_wish
from rulegen.policies.base import Answered, LeftAlone, Observed
from rulegen.policies.heartbleed import MARK_ORIGINAL, MARK_REPLY, POLICY
from rulegen.testbed.packets import Segment

NFT = BACKENDS[0]
RANDOM_PAIRS = 5000
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
ROUTER_ALERT = bytes.fromhex("94040000")
HOP_BY_HOP = (0, bytes.fromhex("00010400000000"))
DESTINATION = (60, bytes.fromhex("00010400000000"))

V4 = {"source": "192.0.2.1", "destination": "198.51.100.7"}
V6 = {"source": "2001:db8::1", "destination": "2001:db8:1::7"}
CARRIERS = {
    "IPv4": V4,
    "IPv4, TCP options": V4 | {"tcp_options": TIMESTAMPS},
    "IPv4 options": V4 | {"ip_options": ROUTER_ALERT},
    "IPv6": V6,
    "IPv6, TCP options": V6 | {"tcp_options": TIMESTAMPS},
    "IPv6 extension headers": V6 | {"extensions": (HOP_BY_HOP, DESTINATION)},
}


def request(payload_length: int, record_length: int, *, version: int = 0x0302, kind: int = 1) -> bytes:
    return (
        b"\x18"
        + version.to_bytes(2)
        + record_length.to_bytes(2)
        + bytes((kind,))
        + payload_length.to_bytes(2)
    )


def to_server(payload: bytes, **changes) -> tuple[Side, bytes]:
    values = V4 | {"source_port": 40000, "destination_port": 443, "payload": payload} | changes
    return Side.CLIENT, Segment(**values).packet()


def to_client(payload: bytes, **changes) -> tuple[Side, bytes]:
    values = {
        "source": V4["destination"],
        "destination": V4["source"],
        "source_port": 443,
        "destination_port": 40000,
        "payload": payload,
    }
    return Side.SERVER, Segment(**(values | changes)).packet()


def dropped(bench, *packets: tuple[Side, bytes]) -> list[bool]:
    return [not fate.passed for fate in bench.send(packets)]


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


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
def test_exact(bench, rules_text, carrier):
    chance = random.Random(f"{carrier}")
    pairs = boundary_pairs()
    pairs += [(chance.getrandbits(16), chance.getrandbits(16)) for _ in range(RANDOM_PAIRS)]
    assert len(pairs) > 12_000
    bench.load(rules_text("heartbleed:ports=443"))
    verdicts = dropped(bench, *(to_server(request(*pair), **carrier) for pair in pairs))
    expected = [payload_length + 3 + 16 > record_length for payload_length, record_length in pairs]
    wrong = [pair for pair, verdict, right in zip(pairs, verdicts, expected, strict=True) if verdict != right]
    assert not wrong
    assert 0 < sum(expected) < len(pairs)
    assert bench.counters()["heartbleed-overread"] == sum(expected)


ATTACK = request(0x4000, 3)
FAIR = request(16, 35) + bytes(32)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("policy", "client_stopped", "server_stopped"),
    [
        ("heartbleed", True, True),
        ("heartbleed:ports=443", True, True),
        ("heartbleed:ports=8443", False, False),
        ("heartbleed:ports=400-500,direction=to-server", True, False),
        ("heartbleed:ports=443,direction=to-client", False, True),
        ("heartbleed:direction=to-server", True, False),
        ("heartbleed:direction=to-client", False, True),
        ("heartbleed:encrypted=pass", True, True),
        ("heartbleed:variant=strict", True, True),
        ("heartbleed:servers=198.51.100.0/24", True, True),
        ("heartbleed:servers=198.51.100.7,ports=443,direction=to-client", False, True),
        ("heartbleed:servers=203.0.113.7", False, False),
        ("heartbleed:servers=2001:db8:1::/48,ports=443", False, False),
    ],
)
def test_whom_it_protects(bench, rules_text, policy, client_stopped, server_stopped):
    bench.load(rules_text(policy))
    hello, answer = to_server(b"hello"), to_client(b"hello")
    strict = "strict" in policy
    assert dropped(
        bench, hello, answer, to_server(ATTACK), to_client(ATTACK), to_server(FAIR), to_client(FAIR)
    ) == [False, False, client_stopped, server_stopped, strict and client_stopped, strict and server_stopped]


@pytest.mark.netns
def test_what_is_no_heartbeat_request_passes(bench, rules_text):
    bench.load(rules_text("heartbleed"))
    others = (
        b"",
        b"\x18",
        b"\x18\x03",
        request(0x4000, 3, kind=2),
        request(0x4000, 3, version=0x0403),
        b"\x17" + ATTACK[1:],
        b"\x16\x03\x01\x00\x08" + ATTACK,
        b"GET / HTTP/1.1\r\n\r\n",
    )
    assert not any(dropped(bench, *map(to_server, others)))
    assert not any(bench.counters().values())


@pytest.mark.netns
@pytest.mark.parametrize(("policy", "first_judged"), [("heartbleed:ports=443", 1), ("heartbleed", 3)])
def test_a_header_cut_before_its_length_is_refused(bench, rules_text, policy, first_judged):
    bench.load(rules_text(policy))
    pieces = [to_server(ATTACK[:size]) for size in range(1, 8)]
    assert dropped(bench, *pieces) == [size >= first_judged for size in range(1, 8)]
    assert bench.counters()["heartbleed-split"] == 8 - first_judged


@pytest.mark.netns
def test_strict_refuses_cut_headers_too(bench, rules_text):
    bench.load(rules_text("heartbleed:ports=443,variant=strict"))
    assert all(dropped(bench, *(to_server(FAIR[:size]) for size in range(1, len(FAIR)))))


@pytest.mark.netns
@pytest.mark.parametrize(
    "policy", ["heartbleed", "heartbleed:records=8", "heartbleed:records=8,variant=strict"]
)
def test_known_bypass_a_second_record_in_a_segment_is_not_seen(bench, rules_text, respond, policy):
    """As `tlswall policies` says of nft, and nft of the rules that ask for more."""
    bench.load(rules_text(policy))
    behind = to_server(b"\x15\x03\x02\x00\x02\x01\x00" + ATTACK)
    assert dropped(bench, behind, to_server(ATTACK)) == [False, True]
    levels = {one.rule: one.level for one in emit(respond((), policy).ruleset, NFT).fidelity}
    levels.pop("heartbleed-split", None)
    assert set(levels.values()) == {Level.NARROWER if "records" in policy else Level.EXACT}


@pytest.mark.netns
def test_encrypted_heartbeats_pass_per_direction(bench, rules_text):
    change = b"\x14\x03\x03\x00\x01\x01"
    bench.load(rules_text("heartbleed:ports=443,encrypted=pass"))
    assert dropped(
        bench,
        to_server(b"hello"),
        to_client(b"hello"),
        to_server(ATTACK),
        to_server(change),
        to_server(ATTACK),
        to_client(ATTACK),
        to_client(change + b"\x16\x03\x03\x00\x28" + bytes(40)),
        to_client(ATTACK),
        to_server(ATTACK[:6]),
        to_server(ATTACK, source_port=40001),
    ) == [False, False, True, False, False, True, False, False, False, True]
    counters = bench.counters()
    assert (counters["heartbleed-encrypts-original"], counters["heartbleed-encrypts-reply"]) == (1, 1)


FLIGHT = b"".join(
    kind + b"\x03\x03" + len(body).to_bytes(2) + body
    for kind, body in ((b"\x16", b"\x10" + bytes(69)), (b"\x14", b"\x01"), (b"\x16", bytes(40)))
)
"""ClientKeyExchange, ChangeCipherSpec and Finished in one segment, as most clients send them."""


@pytest.mark.netns
def test_what_nft_does_not_see_of_a_flight(bench, rules_text):
    """As `tlswall policies` says, and the rule's fidelity: there the mark is not set, and it goes on judging."""
    bench.load(rules_text("heartbleed:encrypted=pass"))
    assert dropped(bench, to_server(b"hello"), to_client(b"hello"), to_server(FLIGHT), to_server(ATTACK)) == [
        False,
        False,
        False,
        True,
    ]
    assert bench.counters()["heartbleed-encrypts-original"] == 0


@pytest.mark.netns
def test_a_heartbeat_is_not_encrypted_by_what_follows_it(bench, rules_text):
    bench.load(rules_text("heartbleed:encrypted=pass"))
    packets = (to_server(b"hello"), to_client(b"hello"), to_server(ATTACK + b"\x14\x03\x03\x00\x01\x01"))
    assert dropped(bench, *packets) == [False, False, True]


def test_where_a_backend_looks_for_change_cipher_spec_and_says_so(respond):
    ruleset = respond((), "heartbleed:encrypted=pass").ruleset
    names = [rule.name for rule in ruleset.rules]
    assert names.index("heartbleed-overread") < names.index("heartbleed-encrypts-original")
    levels = {one.rule: one.level for one in emit(ruleset, NFT).fidelity}
    assert levels["heartbleed-overread"] is Level.EXACT
    assert levels["heartbleed-encrypts-original"] is Level.NARROWER


OTHER_TABLE = f"""table inet other {{
    chain before {{
        type filter hook forward priority -10
        ct mark set ct mark | 0x7
    }}
    chain after {{
        type filter hook forward priority 10
        ct mark {MARK_ORIGINAL | 7:#x} counter comment "[kept]"
    }}
}}
"""


@pytest.mark.netns
def test_it_keeps_to_its_bits_of_the_mark(bench, rules_text):
    bench.load(rules_text("heartbleed:encrypted=pass"))
    bench.load(OTHER_TABLE)
    dropped(bench, to_server(b"hello"), to_client(b"hello"), to_server(b"\x14\x03\x03\x00\x01\x01"))
    assert bench.counters("other")["kept"] == 1
    assert MARK_ORIGINAL & MARK_REPLY == 0


def test_which_findings_it_answers(finding):
    def judge(identifier: str, policy: str = "heartbleed", **changes):
        observed = Observed(finding=finding(identifier, **changes), capture="c.pcap", connection=None)
        return POLICY.judge(observed, POLICY.settings(parse_wish(policy).parameters))

    assert isinstance(judge("HB01"), Answered)
    assert isinstance(judge("HB05"), LeftAlone)
    assert isinstance(judge("HB05", "heartbleed:variant=strict"), Answered)
    assert isinstance(judge("HB03"), LeftAlone)
    assert isinstance(judge("HB03", evidence={"payload_length": 16365, "record_length": 16368}), Answered)
    assert isinstance(judge("HB03", evidence={"payload_length": 16, "record_length": 35}), LeftAlone)
    assert isinstance(judge("HB15"), Answered)
    assert isinstance(judge("HB15", "heartbleed:encrypted=pass"), LeftAlone)


@pytest.mark.parametrize("ports", ["0", "65536", "x", "443-", "9-8", "443;80"])
def test_ports_that_are_none(rules_text, ports):
    with pytest.raises(WishError, match="is no port"):
        rules_text(f"heartbleed:ports={ports}")
