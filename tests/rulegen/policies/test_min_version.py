"""min-version in the kernel, on the bytes of hellos and records."""

from __future__ import annotations

import pytest

from analyzer.model import Side
from rulegen.from_findings import parse_wish
from rulegen.policies.base import Answered, LeftAlone, Observed
from rulegen.policies.min_version import POLICY
from rulegen.testbed.packets import RST, Segment
from tests.rulegen.reference import Packet

SSL3, TLS10, TLS11, TLS12 = 0x0300, 0x0301, 0x0302, 0x0303


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


def sent(side: Side, payload: bytes, version: int = 4) -> tuple[Side, bytes]:
    ends = {4: ("192.0.2.1", "198.51.100.7"), 6: ("2001:db8::1", "2001:db8:1::7")}[version]
    ports = (40000, 443)
    if side is Side.SERVER:
        ends, ports = ends[::-1], ports[::-1]
    segment = Segment(
        source=ends[0], destination=ends[1], source_port=ports[0], destination_port=ports[1], payload=payload
    )
    return side, segment.packet()


C, S = Side.CLIENT, Side.SERVER

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


def test_which_findings_it_answers(finding):
    def judge(identifier: str, version: str, policy: str = "min-version"):
        row = {"version": version, "client_version": version}
        observed = Observed(finding=finding(identifier, "P"), capture="c.pcap", connection=row)
        return POLICY.judge(observed, POLICY.settings(parse_wish(policy).parameters))

    assert judge("DG12", "TLSv1.0") == Answered(("min-version-server-hello", "min-version-record"))
    assert judge("DG13", "TLSv1.1") == Answered(("min-version-client-hello",))
    assert judge("DG14", "TLSv1.2") == Answered(("min-version-sslv2-client",))
    assert judge("DG12", "TLSv1.1", "min-version:min=1.1") == LeftAlone("TLSv1.1 is not below min=1.1")
