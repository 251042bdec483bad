"""min-version in the kernel, on the bytes of hellos and records."""

from __future__ import annotations

import pytest

from rulegen.from_findings import parse_wish
from rulegen.policies.base import Answered, LeftAlone, Observed
from rulegen.policies.min_version import POLICY
from rulegen.testbed.packets import RST
from tests.rulegen.policies.handshakes import (
    SSL3,
    TLS10,
    TLS11,
    TLS12,
    C,
    S,
    client_hello,
    extension,
    refused,
    sent,
    server_hello,
)
from tests.rulegen.reference import Packet


def hello(kind: int, version: int, *, record: int = 0x0301, length: int = 60) -> bytes:
    body = bytes((kind,)) + (length - 9).to_bytes(3) + version.to_bytes(2) + bytes(length - 6)
    return b"\x16" + record.to_bytes(2) + len(body).to_bytes(2) + body


def record(kind: int, version: int) -> bytes:
    return bytes((kind,)) + version.to_bytes(2) + b"\x00\x20" + bytes(32)


def ssl2_client(version: int, *, session_id: int = 0, challenge: int = 16) -> bytes:
    body = b"\x01" + version.to_bytes(2) + (6).to_bytes(2) + session_id.to_bytes(2) + challenge.to_bytes(2)
    body += bytes(6 + session_id + challenge)
    return (0x8000 | len(body)).to_bytes(2) + body


def ssl2_server() -> bytes:
    body = b"\x04\x00\x01\x00\x02" + bytes(6) + bytes(16)
    return (0x8000 | len(body)).to_bytes(2) + body


# fmt: off
CASES = (
    # what                                 side  bytes                            refused below 1.0, 1.1, 1.2
    ("ClientHello SSL 3.0",                 C, hello(1, SSL3, record=SSL3),              True,  True,  True),
    ("ClientHello TLS 1.0",                 C, hello(1, TLS10),                          False, True,  True),
    ("ClientHello TLS 1.1",                 C, hello(1, TLS11),                          False, False, True),
    ("ClientHello TLS 1.2 in a 1.0 record", C, hello(1, TLS12),                          False, False, False),
    ("ClientHello TLS 1.2 in a 3.0 record", C, hello(1, TLS12, record=SSL3),             False, False, False),
    ("ClientHello SSL 2.0 in a TLS record", C, hello(1, 0x0002),                         True,  True,  True),
    ("ServerHello SSL 3.0",                 S, hello(2, SSL3, record=SSL3),              True,  True,  True),
    ("ServerHello TLS 1.0",                 S, hello(2, TLS10),                          False, True,  True),
    ("ServerHello TLS 1.1",                 S, hello(2, TLS11, record=TLS11),            False, False, True),
    ("ServerHello TLS 1.2 or 1.3",          S, hello(2, TLS12, record=TLS12),            False, False, False),
    ("Certificate in a 1.0 record",         S, hello(11, TLS10),                         False, False, False),
    ("application data SSL 3.0",            C, record(23, SSL3),                         True,  True,  True),
    ("application data TLS 1.0",            S, record(23, TLS10),                        False, True,  True),
    ("application data TLS 1.2",            S, record(23, TLS12),                        False, False, False),
    ("ChangeCipherSpec TLS 1.1",            C, record(20, TLS11),                        False, False, True),
    ("alert TLS 1.0",                       S, record(21, TLS10),                        False, False, False),
    ("SSLv2 ClientHello of SSL 2.0",        C, ssl2_client(0x0002),                      True,  True,  True),
    ("SSLv2 ClientHello of TLS 1.2",        C, ssl2_client(TLS12, challenge=32),         True,  True,  True),
    ("SSLv2 ClientHello that resumes",      C, ssl2_client(0x0002, session_id=16),       True,  True,  True),
    ("SSLv2 ServerHello",                   S, ssl2_server(),                            True,  True,  True),
    ("almost an SSLv2 hello: challenge",    C, ssl2_client(0x0002, challenge=15),        False, False, False),
    ("almost an SSLv2 hello: session id",   C, ssl2_client(0x0002, session_id=8),        False, False, False),
    ("almost an SSLv2 hello: version",      C, ssl2_client(0x0102),                      False, False, False),
    ("HTTP",                                C, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",     False, False, False),
    ("nothing",                             C, b"",                                      False, False, False),
)
# fmt: on


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("ports", ["", ",ports=443"], ids=["any port", "port 443"])
@pytest.mark.parametrize(("lowest", "column"), [("1.0", 3), ("1.1", 4), ("1.2", 5)])
def test_what_it_refuses(bench, rules_text, lowest, column, ports, family):
    bench.load(rules_text(f"min-version:min={lowest}{ports}"))
    fates = bench.send(sent(row[1], row[2], family) for row in CASES)
    assert {row[0]: not fate.passed for row, fate in zip(CASES, fates, strict=True)} == {
        row[0]: row[column] for row in CASES
    }
    assert sum(bench.counters().values()) == sum(row[column] for row in CASES)


@pytest.mark.netns
def test_the_counters_say_which_rule_it_was(bench, rules_text):
    bench.load(rules_text("min-version"))
    bench.send(sent(row[1], row[2]) for row in CASES)
    assert bench.counters() == {
        "min-version-client-hello": 4,
        "min-version-server-hello": 3,
        "min-version-selected": 0,
        "min-version-record": 3,
        "min-version-sslv2-client": 3,
        "min-version-sslv2-server": 1,
    }


@pytest.mark.netns
def test_with_ports_a_hello_the_wrong_way_is_not_its_business(bench, rules_text):
    bench.load(rules_text("min-version:ports=443"))
    fates = bench.send([sent(S, hello(1, TLS10)), sent(C, hello(2, TLS10))])
    assert all(fate.passed for fate in fates)


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("side", [C, S])
def test_reset_tells_the_sender(bench, rules_text, side, family):
    bench.load(rules_text("min-version:action=reset"))
    packet = sent(side, hello(1 if side is C else 2, TLS10), family)
    (fate,) = bench.send([packet])
    (answer,) = fate.answers
    assert not fate.passed
    assert Packet.parse(answer).read("tcp.flags") & RST
    assert Packet.parse(answer).read("tcp.dport") == Packet.parse(packet[1]).read("tcp.sport")


@pytest.mark.netns
def test_a_hello_cut_before_its_version(bench, rules_text):
    """By default it passes, as `tlswall policies` says; split=drop refuses it and no other handshake."""
    whole = hello(1, TLS10)
    pieces = [sent(C, whole[:size]) for size in range(1, 11)]
    done = sent(S, b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00")
    bench.load(rules_text("min-version"))
    assert all(fate.passed for fate in bench.send([*pieces, done]))
    bench.load(rules_text("min-version:split=drop"))
    assert [fate.passed for fate in bench.send([*pieces, done])] == [False] * 10 + [True]


# --- TLS 1.3 ----------------------------------------------------------------------------------------------

SID = bytes(range(100, 132))
VERSIONS_13 = extension(43, b"\x03\x04")
KEY_SHARE = extension(51, b"\x00\x1d\x00\x20" + bytes(32))
HYBRID_KEY_SHARE = extension(51, b"\x11\xec\x04\x60" + bytes(1120))
PRE_SHARED_KEY = extension(41, b"\x00\x00")
TLS13_SUITES = (0x1301, 0x1302, 0x1303, 0x1304, 0x1305, 0x00C6, 0xC0B4)
TLS12_SUITES = (0x0005, 0x002F, 0x009C, 0xC02B, 0xC02F, 0xCCA8, 0xC0AC, 0x00C5)

ANSWERS_13 = {
    "OpenSSL": VERSIONS_13 + KEY_SHARE,
    "OpenSSL, resumed": VERSIONS_13 + KEY_SHARE + PRE_SHARED_KEY,
    "BoringSSL": KEY_SHARE + VERSIONS_13,
    "BoringSSL, post-quantum": HYBRID_KEY_SHARE + VERSIONS_13,
    "BoringSSL, resumed": PRE_SHARED_KEY + KEY_SHARE + VERSIONS_13,
    "HelloRetryRequest": VERSIONS_13 + extension(51, b"\x00\x17"),
}
"""What its ServerHello has for extensions, in the order in which they are written."""
ANSWERS_12 = {
    "none": b"",
    "renegotiation_info": extension(0xFF01, b"\x00"),
    "several": extension(0xFF01, b"\x00") + extension(11, b"\x01\x00") + extension(23, b""),
}


@pytest.mark.netns
@pytest.mark.parametrize("session_id", [b"", SID], ids=["no session_id", "session_id"])
@pytest.mark.parametrize("lowest", ["1.2", "1.3"])
def test_answers_of_tls_1_3(bench, rules_text, lowest, session_id):
    """None is refused, wherever supported_versions is, and every one of TLS 1.2 is with min=1.3."""

    def answers(extensions: dict[str, bytes], suites: tuple[int, ...]):
        return [
            sent(S, server_hello(suite=suite, session_id=session_id, extensions=each))
            for each in extensions.values()
            for suite in suites
        ]

    bench.load(rules_text(f"min-version:min={lowest}"))
    assert not any(refused(bench, answers(ANSWERS_13, TLS13_SUITES)))
    assert set(refused(bench, answers(ANSWERS_12, TLS12_SUITES))) == {lowest == "1.3"}
    expected = len(ANSWERS_12) * len(TLS12_SUITES) if lowest == "1.3" else 0
    assert sum(bench.counters().values()) == bench.counters().get("min-version-suite", 0) == expected


@pytest.mark.netns
@pytest.mark.parametrize("session_id", [b"", SID], ids=["no session_id", "session_id"])
def test_supported_versions_that_say_less(bench, rules_text, session_id):
    """Where they are the first extension. 0x7f1c is draft 28 of TLS 1.3."""

    def selecting(version: int, before: bytes = b"") -> tuple:
        chosen = before + extension(43, version.to_bytes(2)) + KEY_SHARE
        return sent(S, server_hello(suite=0x1301, session_id=session_id, extensions=chosen))

    versions = (0x0002, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x7F1C)
    for lowest, number in (("1.0", 0x0301), ("1.2", 0x0303), ("1.3", 0x0304)):
        bench.load(rules_text(f"min-version:min={lowest}"))
        verdicts = refused(bench, map(selecting, versions))
        assert verdicts == [version < number for version in versions]
        assert bench.counters()["min-version-selected"] == sum(verdicts)
        assert refused(bench, [selecting(0x0300, PRE_SHARED_KEY)]) == [False]


@pytest.mark.netns
def test_what_else_min_1_3_refuses_and_what_not(bench, rules_text):
    """Known bypasses, as `tlswall policies` says: ClientHellos and records of TLS 1.2 look alike."""
    bench.load(rules_text("min-version:min=1.3"))
    assert refused(
        bench,
        [
            sent(C, client_hello(TLS11)),
            sent(S, server_hello(TLS11)),
            sent(C, record(23, TLS11)),
            sent(C, ssl2_client(0x0002)),
            sent(C, client_hello(TLS12)),
            sent(C, record(23, TLS12)),
        ],
    ) == [True, True, True, True, False, False]


@pytest.mark.netns
def test_a_session_id_of_another_size(bench, rules_text):
    """Known bypass, unless split=drop."""
    hellos = [sent(S, server_hello(session_id=SID[:size])) for size in range(33)]
    bench.load(rules_text("min-version:min=1.3"))
    assert refused(bench, hellos) == [size in (0, 32) for size in range(33)]
    bench.load(rules_text("min-version:min=1.3,split=drop"))
    assert all(refused(bench, hellos))


@pytest.mark.netns
@pytest.mark.parametrize(
    ("parameters", "suite", "session_id", "least"),
    [
        ("", 0xC02F, b"", 11),
        (",sentinel=refuse", 0xC02F, b"", 43),
        (",min=1.3", 0x1301, b"", 47),
        (",min=1.3,sentinel=refuse", 0x1301, SID, 79),
    ],
)
def test_how_much_of_a_server_hello_must_be_there(bench, rules_text, parameters, suite, session_id, least):
    bench.load(rules_text(f"min-version:ports=443,split=drop{parameters}"))
    sound = server_hello(suite=suite, session_id=session_id)
    sizes = range(1, len(sound) + 1)
    assert refused(bench, (sent(S, sound[:size]) for size in sizes)) == [size < least for size in sizes]
    assert refused(bench, [sent(C, sound[:20]), sent(C, client_hello()[:11])]) == [False, False]


# --- the downgrade sentinel -------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_the_downgrade_sentinel(bench, rules_text, family):
    def marked(version: int, last: bytes) -> tuple:
        random = bytes(24) + last.rjust(8, b"D")
        return sent(S, server_hello(version, random=random, record_version=version), family)

    has_12, has_13 = b"DOWNGRD\x00", b"DOWNGRD\x01"
    packets = [
        marked(version, last)
        for version in (SSL3, TLS10, TLS11, TLS12)
        for last in (has_12, has_13, b"DOWNGRD\x02", b"\0OWNGRD\x01", b"")
    ]
    bench.load(rules_text("min-version:min=1.0,sentinel=refuse"))
    assert refused(bench, packets) == [
        *[True, True, True, True, True],  # SSL 3.0 is below 1.0
        *[True, False, False, False, False],
        *[True, False, False, False, False],
        *[False, True, False, False, False],
    ]
    assert bench.counters()["min-version-sentinel"] == 3
    bench.load(rules_text("min-version:min=1.0"))
    assert not any(refused(bench, packets[5:]))


@pytest.mark.netns
@pytest.mark.parametrize(
    ("parameters", "v4", "v6"),
    [
        ("servers=198.51.100.7", True, False),
        ("servers=2001:db8:1::/48,ports=443", False, True),
        ("servers=198.51.100.0/24,ports=8443", False, False),
    ],
)
def test_whose_hellos(bench, rules_text, parameters, v4, v6):
    bench.load(rules_text(f"min-version:{parameters}"))
    packets = [
        sent(side, payload, family)
        for family in (4, 6)
        for side, payload in ((C, client_hello(TLS10)), (S, server_hello(TLS10)), (C, record(23, TLS10)))
    ]
    assert refused(bench, packets) == [v4] * 3 + [v6] * 3


def test_which_findings_it_answers(finding):
    def judge(identifier: str, version: str, policy: str = "min-version"):
        row = {"version": version, "client_version": version}
        observed = Observed(finding=finding(identifier, "P"), capture="c.pcap", connection=row)
        return POLICY.judge(observed, POLICY.settings(parse_wish(policy).parameters))

    assert judge("DG12", "TLSv1.0") == Answered(("min-version-server-hello", "min-version-record"))
    assert judge("DG13", "TLSv1.1") == Answered(("min-version-client-hello",))
    assert judge("DG14", "TLSv1.2") == Answered(("min-version-sslv2-client",))
    assert judge("DG12", "TLSv1.1", "min-version:min=1.1") == LeftAlone("TLSv1.1 is not below min=1.1")
