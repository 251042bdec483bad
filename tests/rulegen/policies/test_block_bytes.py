"""block-bytes in the kernel: tools by their hellos, randoms that come back, bytes that the user writes."""

from __future__ import annotations

import pytest

from rulegen.backends import BACKENDS, emit
from rulegen.cli import _answer
from rulegen.errors import Refused, WishError
from rulegen.from_findings import Answer, answer, parse_wish
from rulegen.handshakes import KEY, Handshake
from rulegen.ir.check import check
from rulegen.ir.rule import Source
from rulegen.policies.base import Answered, LeftAlone, Observed
from rulegen.policies.block_bytes import POLICY, TOOLS
from rulegen.testbed.packets import RST
from samples.craft import tls_bytes as tls
from samples.craft.conversation import Capture
from samples.craft.session import begin
from tests.rulegen.policies.handshakes import (
    TLS10,
    TLS12,
    C,
    S,
    client_hello,
    record,
    refused,
    sent,
    server_hello,
)
from tests.rulegen.policies.ways import WAYS, load_by
from tests.rulegen.reference import Packet, holds

NFT = BACKENDS[0]
RANDOMS = [random for tool in TOOLS for random in tool.randoms]
HONEST = bytes(range(100, 132))


def test_the_tools_bytes_are_whole():
    for tool in TOOLS:
        assert all(len(value) == 32 for value in (*tool.randoms, *tool.session_ids))
    assert len(set(RANDOMS)) == len(RANDOMS)


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_tools_are_told_by_their_randoms(bench, rules_text, family):
    bench.load(rules_text("block-bytes:ports=443"))
    hellos = [client_hello(version, random=random) for random in RANDOMS for version in (TLS10, TLS12)]
    assert all(refused(bench, [sent(C, hello, family) for hello in hellos]))
    assert bench.counters() == {
        "block-bytes-ssltest": 2,
        "block-bytes-testssl": 4,
        "block-bytes-testssl-session": 0,
        "block-bytes-robot-detect": 4,
    }


@pytest.mark.netns
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_iptables_tells_them_too(bench, respond, family, way):
    load_by(bench, respond((), f"block-bytes:pattern=4e6d617020,session_id={HONEST.hex()}").ruleset, way)
    (known,) = (value for tool in TOOLS for value in tool.session_ids)
    scans = [
        *(client_hello(random=random) for random in RANDOMS),
        client_hello(session_id=known),
        client_hello(session_id=HONEST),
        b"....Nmap ssl-heartbleed",
    ]
    others = [client_hello(random=HONEST), client_hello(session_id=bytes(32)), b"....Nma", b"Nmap"]
    assert all(refused(bench, [sent(C, payload, family) for payload in scans]))
    assert not any(refused(bench, [sent(C, payload, family) for payload in others]))


@pytest.mark.netns
def test_one_other_byte_is_another_random(bench, rules_text):
    """The known bypass; and nobody else's hello is hit."""
    bench.load(rules_text("block-bytes"))
    changed = [
        bytes((*random[:at], random[at] ^ 1, *random[at + 1 :])) for random in RANDOMS for at in (0, 15, 31)
    ]
    others = [
        *(sent(C, client_hello(random=random)) for random in (*changed, HONEST, bytes(32))),
        sent(S, server_hello(random=RANDOMS[0])),
        sent(C, record(23, client_hello(random=RANDOMS[0]))),
        sent(C, client_hello(random=RANDOMS[0])[:42]),
        sent(C, record(21, b"\1\0") + client_hello(random=RANDOMS[0])),
    ]
    assert not any(refused(bench, others))


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_session_ids(bench, rules_text, family):
    (known,) = (value for tool in TOOLS for value in tool.session_ids)
    bench.load(rules_text(f"block-bytes:session_id={HONEST.hex()}"))
    hellos = [
        client_hello(session_id=known),
        client_hello(session_id=HONEST),
        client_hello(session_id=HONEST[:31]),
        client_hello(session_id=bytes(32)),
        server_hello(session_id=HONEST),
    ]
    assert refused(bench, [sent(C, hello, family) for hello in hellos]) == [True, True, False, False, False]
    counters = bench.counters()
    assert (counters["block-bytes-testssl-session"], counters["block-bytes-session"]) == (1, 1)


@pytest.mark.netns
def test_randoms_that_are_given(bench, rules_text):
    given = [bytes((number,)) * 32 for number in range(5)]
    bench.load(rules_text(f"block-bytes:tools=none,random={','.join(random.hex() for random in given)}"))
    hellos = [sent(C, client_hello(random=random)) for random in (*given, HONEST, RANDOMS[0])]
    assert refused(bench, hellos) == [True] * 5 + [False] * 2
    assert bench.counters() == {"block-bytes-random": 5}


@pytest.mark.netns
def test_ports_servers_and_reset(bench, rules_text):
    bench.load(rules_text("block-bytes:ports=443,servers=198.51.100.0/24,action=reset"))
    hello = client_hello(random=RANDOMS[0])
    first, second, third = bench.send(
        [sent(C, hello), sent(C, hello, destination_port=8443), sent(C, hello, destination="203.0.113.7")]
    )
    assert [first.passed, second.passed, third.passed] == [False, True, True]
    assert Packet.parse(first.answers[0]).read("tcp.flags") & RST


def test_a_pattern_is_anywhere_in_the_payload(respond):
    ruleset = respond((), "block-bytes:tools=none,pattern=4e6d617020,ports=443").ruleset
    check(ruleset)
    (rule,) = ruleset.rules
    for payload, found in (
        (b"....Nmap ssl-heartbleed", True),
        (b"Nmap", False),
        (b"nmap ssl", False),
        (b"", False),
    ):
        assert holds(rule.match, Packet.parse(sent(C, payload)[1])) is found
    with pytest.raises(Refused, match="block-bytes-pattern-1: bytes anywhere in the payload"):
        emit(ruleset, NFT)


def captured(
    *randoms: bytes, policy: str = "block-bytes:tools=none", captures: int = 1, findings=()
) -> Answer:
    """The answer to captures with a connection for each random."""
    rows = [
        {"capture": capture, "connection": number, KEY: Handshake(client_random=random)}
        for capture in range(captures)
        for number, random in enumerate(randoms)
    ]
    sources = [Source(name=f"{capture}.pcap", sha256=None) for capture in range(captures)]
    return answer(sources, findings, rows, wishes=[parse_wish(policy)])


@pytest.mark.netns
def test_a_random_that_came_back_is_refused(bench):
    other = bytes(range(200, 232))
    bench.load(emit(captured(HONEST, other, HONEST, b"", b"").ruleset, NFT).text)
    hellos = [sent(C, client_hello(random=random)) for random in (HONEST, other, bytes(32))]
    assert refused(bench, hellos) == [True, False, False]
    assert bench.counters() == {"block-bytes-repeated": 1}


def test_what_is_no_repetition():
    def names(*randoms: bytes, **changes: object) -> list[str]:
        return [rule.name for rule in captured(*randoms, **changes).ruleset.rules]

    assert names(HONEST, HONEST) == ["block-bytes-repeated"]
    for nothing in (
        {"policy": "block-bytes:tools=none,repeated=3"},
        {"policy": "block-bytes:tools=none,repeated=off"},
    ):
        with pytest.raises(WishError, match="no bytes are known"):
            names(HONEST, HONEST, **nothing)
    with pytest.raises(WishError, match="no bytes are known"):
        names(HONEST, bytes(32), captures=2)  # the same capture twice
    tools = [
        "block-bytes-ssltest",
        "block-bytes-testssl",
        "block-bytes-testssl-session",
        "block-bytes-robot-detect",
    ]
    assert names(RANDOMS[0], RANDOMS[0], policy="block-bytes") == tools


def test_rules_cite_what_was_found_in_those_connections(finding):
    found = (finding("HB01", connection=1, packets=(7,)), finding("HB01", connection=2, packets=(9,)))
    ruleset = captured(HONEST, HONEST, bytes(32), findings=found).ruleset
    (rule,) = ruleset.rules
    assert [(one.finding, one.capture, one.packets) for one in rule.origin.citations] == [
        ("HB01", "0.pcap", (7,))
    ]


def test_from_a_capture_that_is_read(tmp_path):
    """A scanner that says the same hello three times, among honest clients; and one of the tools."""
    capture = Capture()
    for random in (HONEST, None, HONEST, None, HONEST):
        begin("client", capture=capture).full({"random": random})
    begin("tool", tls.TLS11, tls.ECDHE_AES_SHA, capture=capture).full({"random": RANDOMS[0]})
    path = tmp_path / "scan.pcap"
    capture.write(path)

    wished = _answer([str(path)], wishes=[parse_wish("block-bytes")], hook="forward").ruleset
    rules = {rule.name: rule for rule in wished.rules}
    hello = Packet.parse(sent(C, client_hello(random=HONEST))[1])
    assert holds(rules["block-bytes-repeated"].match, hello)
    assert {one.finding for one in rules["block-bytes-ssltest"].origin.citations} >= {"DG13"}
    unasked = _answer([str(path)], wishes=[], hook="forward")
    assert "block-bytes" in {chain.policy for chain in unasked.ruleset.chains}


def test_which_findings_it_answers(finding):
    hello = finding("DG13", "P", evidence={"bytes": f"0302{RANDOMS[0].hex()}"})
    other = finding("DG13", "P", evidence={"bytes": f"0302{HONEST.hex()}"})
    wrapped = finding("DG15", "B", evidence={"bytes": "160303", "hello_bytes": f"0302{RANDOMS[3].hex()}"})
    assert POLICY.claims(hello, {})
    assert POLICY.claims(wrapped, {})
    assert not POLICY.claims(other, {})
    assert not POLICY.claims(finding("HB01"), {})

    def judge(one, policy: str = "block-bytes"):
        row = {"server": {"address": "198.51.100.7", "port": 443}}
        observed = Observed(finding=one, capture="c.pcap", connection=row)
        return POLICY.judge(observed, POLICY.settings(parse_wish(policy).parameters))

    assert judge(hello) == Answered(("block-bytes-ssltest",))
    assert judge(wrapped) == Answered(("block-bytes-robot-detect",))
    assert isinstance(judge(hello, "block-bytes:ports=8443"), LeftAlone)
    assert "tools=known answers it" in judge(hello, f"block-bytes:tools=none,random={HONEST.hex()}").why
    assert "no hello of a known tool" in judge(finding(policy="block-bytes")).why


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("random=xyz", "in hexadecimal"),
        ("random=00", "32 bytes, not 1"),
        (f"session_id={'00' * 16}", "32 bytes, not 16"),
        ("pattern=000000", "4 to 127 bytes, not 3"),
        (f"pattern={'00' * 128}", "4 to 127 bytes, not 128"),
        ("repeated=1", "2 or more"),
        ("repeated=often", "2 or more"),
        ("tools=none", "no bytes are known"),
    ],
)
def test_bytes_that_are_none(rules_text, parameters, words):
    with pytest.raises(WishError, match=words):
        rules_text(f"block-bytes:{parameters}")
