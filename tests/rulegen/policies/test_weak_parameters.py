"""weak-parameters in the kernel: which ServerHellos it refuses, which it can't see, which findings it answers."""

from __future__ import annotations

import pytest

from analyzer.wire.cipher_suites import CIPHER_SUITES, UNREGISTERED_CIPHER_SUITES
from analyzer.wire.suite_properties import suite_properties
from rulegen.errors import WishError
from rulegen.from_findings import parse_wish
from rulegen.policies.base import Answered, LeftAlone, Observed
from rulegen.policies.weak_parameters import CLASSES, POLICY, weak_suites
from rulegen.testbed.packets import RST
from tests.rulegen.policies.handshakes import TLS10, C, S, client_hello, record, refused, sent, server_hello
from tests.rulegen.reference import Packet

SID = bytes(range(100, 132))
EVERY_SUITE = sorted({*CIPHER_SUITES, *UNREGISTERED_CIPHER_SUITES, 0x0A0A, 0xFFFF})

# fmt: off
EXAMPLES = {
    "export":    (0x0003, 0x0006, 0x0008, 0x0014, 0x0017, 0x0062, 0x0029),
    "null":      (0x0000, 0x0001, 0x0002, 0x003B, 0x00B0, 0xC006, 0xC0B4),
    "anonymous": (0x0018, 0x0034, 0x00A7, 0xC019),
    "rc4":       (0x0004, 0x0005, 0x0066, 0xC007, 0xC011),
    "3des":      (0x000A, 0x0016, 0x001F, 0xC008, 0xC012, 0xFEFF),
    "des":       (0x0009, 0x0015, 0x0008, 0x001E, 0xFEFE),
    "rc2":       (0x0006, 0x0061),
    "idea":      (0x0007, 0x0021),
}
SOUND = (0x002F, 0x0035, 0x0041, 0x0096, 0x009C, 0x00FF, 0x1301, 0x1302, 0x1303, 0x5600, 0xC02B, 0xC02F, 0xCCA8)
# fmt: on


def test_the_classes_are_what_they_say():
    assert EXAMPLES.keys() == CLASSES.keys()
    for name, codes in EXAMPLES.items():
        assert set(codes) <= set(weak_suites((name,)))
    assert not set(SOUND) & set(weak_suites(tuple(CLASSES)))


def test_md5_needs_no_class():
    """Each suite with MD5 is weak by its cipher; if this starts to fail, one is missing."""
    weak = weak_suites(tuple(CLASSES))
    named = (suite_properties(code) for code in (*CIPHER_SUITES, *UNREGISTERED_CIPHER_SUITES))
    assert all(suite.code in weak for suite in named if suite is not None and suite.mac == "MD5")


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("session_id", [b"", SID], ids=["no session_id", "session_id"])
@pytest.mark.parametrize("classes", ["export", "3des,rc4", "null,anonymous", ",".join(CLASSES)])
def test_every_suite_there_is(bench, rules_text, classes, session_id, family):
    bench.load(rules_text(f"weak-parameters:classes={classes}"))
    hellos = (sent(S, server_hello(suite=suite, session_id=session_id), family) for suite in EVERY_SUITE)
    verdicts = dict(zip(EVERY_SUITE, refused(bench, hellos), strict=True))
    assert [code for code, no in verdicts.items() if no] == list(weak_suites(classes.split(",")))
    assert bench.counters()["weak-parameters-suite"] == sum(verdicts.values())


@pytest.mark.netns
def test_compression(bench, rules_text):
    packets = [
        sent(S, server_hello(session_id=session_id, compression=method))
        for session_id in (b"", SID)
        for method in (0, 1, 64, 255)
    ]
    bench.load(rules_text("weak-parameters:classes=none"))
    assert refused(bench, packets) == [False, True, True, True] * 2
    assert bench.counters() == {"weak-parameters-compression": 6}
    bench.load(rules_text("weak-parameters:compression=allow"))
    assert not any(refused(bench, packets))


WEAK = server_hello(suite=0x0005)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("parameters", "v4", "v6"),
    [
        ("", True, True),
        (":ports=443", True, True),
        (":ports=8443,9000-9010", False, False),
        (":servers=198.51.100.7", True, False),
        (":servers=198.51.100.0/24,2001:db8:1::/48", True, True),
        (":servers=2001:db8:1::7,ports=443", False, True),
        (":servers=192.0.2.1", False, False),
    ],
)
def test_whose_hellos(bench, rules_text, parameters, v4, v6):
    bench.load(rules_text(f"weak-parameters{parameters}"))
    assert refused(bench, [sent(S, WEAK), sent(S, WEAK, 6)]) == [v4, v6]


@pytest.mark.netns
def test_what_is_no_server_hello_passes(bench, rules_text):
    """Bytes of a weak choice at its place, in what is something else."""
    hello = bytearray(WEAK)
    bench.load(rules_text("weak-parameters:unjudged=refuse"))
    others = [
        client_hello(TLS10, suites=(0x0005, 0x0004)),
        bytes((23, *hello[1:])),
        bytes((22, 4, *hello[2:])),
        bytes((*hello[:5], 11, *hello[6:])),
        record(21, b"\x02\x28"),
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(80),
        b"",
    ]
    assert not any(refused(bench, (sent(S, payload) for payload in others)))
    assert not any(refused(bench, [sent(C, b"\x17" + bytes(hello[1:]))]))


@pytest.mark.netns
def test_reset_tells_the_server(bench, rules_text):
    bench.load(rules_text("weak-parameters:action=reset"))
    (fate,) = bench.send([sent(S, WEAK)])
    assert not fate.passed
    (answer,) = fate.answers
    assert Packet.parse(answer).read("tcp.flags") & RST
    assert Packet.parse(answer).read("tcp.dport") == 443


@pytest.mark.netns
@pytest.mark.parametrize("session_id", [b"", SID], ids=["no session_id", "session_id"])
def test_a_cut_hello(bench, rules_text, session_id):
    """Known bypass, unless unjudged=refuse; from the compression_method on there is nothing to hide."""
    whole = server_hello(suite=0x0005, session_id=session_id)
    pieces = [sent(S, whole[:size]) for size in range(1, len(whole) + 1)]
    suite, compression = 46 + len(session_id), 47 + len(session_id)
    assert len(whole) == compression
    bench.load(rules_text("weak-parameters"))
    assert refused(bench, pieces) == [size >= suite for size in range(1, len(whole) + 1)]
    bench.load(rules_text("weak-parameters:unjudged=refuse"))
    assert all(refused(bench, pieces))
    sound = server_hello(session_id=session_id)
    assert refused(bench, (sent(S, sound[:size]) for size in range(1, len(sound) + 1))) == [
        size < compression for size in range(1, len(sound) + 1)
    ]


@pytest.mark.netns
def test_known_bypass_a_session_id_of_another_size(bench, rules_text):
    """As `tlswall policies` says, unless unjudged=refuse."""
    packets = [sent(S, server_hello(suite=0x0005, session_id=SID[:size])) for size in range(33)]
    bench.load(rules_text("weak-parameters"))
    assert refused(bench, packets) == [size in (0, 32) for size in range(33)]
    bench.load(rules_text("weak-parameters:unjudged=refuse"))
    assert all(refused(bench, packets))


@pytest.mark.netns
def test_known_bypass_a_hello_behind_a_warning(bench, rules_text):
    """As `tlswall policies` says; if this starts to fail, that text is wrong."""
    bench.load(rules_text("weak-parameters"))
    assert refused(bench, [sent(S, record(21, b"\x01\x70") + WEAK)]) == [False]


def test_which_findings_it_answers(finding, respond):
    def judge(parameters: str = "", suite: str = "TLS_RSA_WITH_RC4_128_SHA", port: int = 443):
        observed = Observed(
            finding=finding("DG20", "B", evidence={"cipher_suite": suite}),
            capture="c.pcap",
            connection={"server": {"address": "198.51.100.7", "port": port}},
        )
        return POLICY.judge(observed, POLICY.settings(parse_wish(f"weak-parameters:{parameters}").parameters))

    assert judge() == Answered(("weak-parameters-suite",))
    assert judge("servers=198.51.100.0/24,ports=443") == Answered(("weak-parameters-suite",))
    assert isinstance(judge("classes=export,3des"), LeftAlone)
    assert isinstance(judge("ports=8443"), LeftAlone)
    assert isinstance(judge("servers=192.0.2.0/24"), LeftAlone)
    weak = finding("DG20", "B", evidence={"cipher_suite": "TLS_RSA_WITH_RC4_128_SHA"})
    lesser = finding("DG20", "B", evidence={"cipher_suite": "TLS_RSA_WITH_AES_128_CBC_SHA"})
    assert respond((weak,)).ruleset.policies[0].startswith("weak-parameters:")
    assert respond((lesser,)).ruleset.policies == ()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [("classes=rc5", "no class rc5"), ("classes=none,compression=allow", "neither a class nor compression")],
)
def test_what_it_does_not_know(rules_text, parameters, words):
    with pytest.raises(WishError, match=words):
        rules_text(f"weak-parameters:{parameters}")
