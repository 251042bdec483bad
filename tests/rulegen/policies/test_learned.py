"""learned: what a capture teaches, what the kernel makes of it, and what it is said not to prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.pipeline import analyze
from rulegen.account import account_lines
from rulegen.backends import BACKENDS, emit
from rulegen.errors import WishError
from rulegen.from_findings import Answer, answer, parse_wish
from rulegen.ir.rule import Source
from rulegen.policies.learned import MARK_OWES
from rulegen.testbed.packets import SYN
from tests.rulegen.policies.handshakes import (
    SSL3,
    TLS10,
    TLS11,
    TLS12,
    C,
    S,
    client_hello,
    opening,
    record,
    refused,
    sent,
    server_hello,
)
from tests.rulegen.policies.test_samples import packets
from tests.rulegen.policies.ways import WAYS, load_by

NFT = BACKENDS[0]
CAPTURES = Path(__file__).parents[3] / "samples/captures"
SERVER4, SERVER6, OTHER4, OTHER6 = "198.51.100.7", "2001:db8:1::7", "203.0.113.9", "2001:db8:9::9"
SSL2 = bytes.fromhex("801f 01 0303 0006 0000 0010 000035 00002f") + bytes(16)


def row(server: str = SERVER4, port: int = 443, **changes: object) -> dict[str, object]:
    """A connection of the table, complete and good."""
    return {
        "client": {"address": "192.0.2.1", "port": 40000},
        "server": {"address": server, "port": port},
        "version": "TLSv1.2",
        "client_version": "TLSv1.3",
        "established": True,
        "resumed": "no",
        "hello_retry": False,
        "starttls": None,
        "sync": {"client": "synced", "server": "synced"},
        **changes,
    }


def learned(*rows: dict[str, object], policy: str = "learned", findings=()) -> Answer:
    numbered = [{"capture": 0, "connection": number, **one} for number, one in enumerate(rows)]
    return answer(
        (Source(name="good.pcap", sha256="00" * 32),), findings, numbered, wishes=[parse_wish(policy)]
    )


GOOD = (
    row(),
    row(SERVER6),
    row(OTHER4, 8443, version="TLSv1.0", client_version="TLSv1.0"),
    row(OTHER4, 25, starttls="smtp"),
)


def to(server: str, payload: bytes, port: int = 443, **changes):
    family = 6 if ":" in server else 4
    return sent(C, payload, family, destination=server, destination_port=port, **changes)


def of(server: str, payload: bytes, port: int = 443, **changes):
    family = 6 if ":" in server else 4
    return sent(S, payload, family, source=server, source_port=port, **changes)


# fmt: off
CASES = (
    # what                                                packet                                         refused, with strangers=pass
    ("ClientHello 1.2 to a learned server",               to(SERVER4, client_hello()),                        False, False),
    ("the same over IPv6",                                to(SERVER6, client_hello()),                        False, False),
    ("ClientHello 1.0 to it",                             to(SERVER4, client_hello(TLS10)),                   True,  True),
    ("ClientHello 1.1 over IPv6",                         to(SERVER6, client_hello(TLS11)),                   True,  True),
    ("ClientHello SSL 3.0 to it",                         to(SERVER4, client_hello(SSL3)),                    True,  True),
    ("ClientHello 1.0 to the one that had it",            to(OTHER4, client_hello(TLS10), 8443),              False, False),
    ("ClientHello 1.2 to that one",                       to(OTHER4, client_hello(TLS12), 8443),              True,  True),
    ("SSLv2 ClientHello",                                 to(SERVER4, SSL2),                                  True,  True),
    ("ClientHello cut before its version",                to(SERVER4, client_hello()[:10]),                   True,  True),
    ("ServerHello 1.2 or 1.3",                            of(SERVER4, server_hello()),                        False, False),
    ("ServerHello 1.1",                                   of(SERVER4, server_hello(TLS11)),                   True,  True),
    ("ServerHello 1.0 over IPv6",                         of(SERVER6, server_hello(TLS10)),                   True,  True),
    ("ServerHello cut before its version",                of(SERVER4, server_hello()[:7]),                    True,  True),
    ("a ServerHelloDone",                                 of(SERVER4, record(22, b"\x0e\0\0\0")),             False, False),
    ("an encrypted record that begins like a hello",      of(SERVER4, record(22, b"\2\0" + b"\xaa" * 38)),    False, False),
    ("ClientHello to the learned address, other port",    to(SERVER4, client_hello(), 8443),                  True,  False),
    ("ClientHello to a stranger",                         to("198.51.100.8", client_hello()),                 True,  False),
    ("ClientHello to a stranger over IPv6",               to(OTHER6, client_hello()),                         True,  False),
    ("SSLv2 ClientHello to a stranger",                   to(OTHER6, SSL2),                                   True,  False),
    ("ClientHello to a stranger, cut",                    to(OTHER6, client_hello()[:5]),                     True,  False),
    ("a lone byte to a stranger",                         to(OTHER6, b"\x16"),                                False, False),
    ("HTTP to a stranger",                                to(OTHER6, b"GET / HTTP/1.1\r\n\r\n", 80),          False, False),
    ("SMTP to the mail server",                           to(OTHER4, b"EHLO a.example\r\n", 25),              False, False),
    ("ClientHello 1.2 to it after STARTTLS",              to(OTHER4, client_hello(), 25),                     False, False),
    ("ClientHello 1.0 to it after STARTTLS",              to(OTHER4, client_hello(TLS10), 25),                True,  True),
)
# fmt: on


@pytest.mark.netns
@pytest.mark.parametrize(("policy", "column"), [("learned", 2), ("learned:strangers=pass", 3)])
def test_what_it_refuses(bench, policy, column):
    bench.load(emit(learned(*GOOD, policy=policy).ruleset, NFT).text)
    verdicts = {}
    for case in CASES:
        bench.forget()
        verdicts[case[0]] = refused(bench, [case[1]])[0]
    assert verdicts == {case[0]: case[column] for case in CASES}


@pytest.mark.netns
@pytest.mark.parametrize("way", WAYS)
def test_iptables_refuses_the_same(bench, way):
    load_by(bench, learned(*GOOD).ruleset, way)
    verdicts = {}
    for case in CASES:
        bench.forget()
        verdicts[case[0]] = refused(bench, [case[1]])[0]
    assert verdicts == {case[0]: case[2] for case in CASES}


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_a_connection_has_to_begin_with_a_hello(bench, family):
    bench.load(emit(learned(*GOOD).ruleset, NFT).text)
    http, data = b"GET / HTTP/1.1\r\n\r\n", record(23, bytes(40))
    assert (
        refused(
            bench,
            [
                *opening(family),
                sent(C, http, family),
                sent(C, data, family),
                sent(S, b"SSH-2.0-x\r\n", family),
                sent(C, client_hello(TLS11), family),
                sent(C, client_hello(), family),
                sent(S, server_hello(), family),
                sent(S, data, family),
                sent(C, data, family),
            ],
        )
        == [False] * 3 + [True] * 4 + [False] * 4
    )


@pytest.mark.netns
def test_data_in_the_syn_is_its_first_record(bench):
    bench.load(emit(learned(*GOOD).ruleset, NFT).text)
    start = {"flags": SYN, "sequence": 0, "acknowledgement": 0}
    assert refused(bench, [sent(C, b"GET /", source_port=1, **start), sent(C, client_hello(), **start)]) == [
        True,
        False,
    ]


@pytest.mark.netns
def test_connections_from_before_the_rules_go_on(bench):
    data = sent(C, record(23, bytes(40)))
    assert not any(refused(bench, [*opening(), data]))
    bench.load(emit(learned(*GOOD).ruleset, NFT).text)
    assert refused(bench, [data, sent(S, record(23, bytes(40))), sent(C, client_hello(TLS10))]) == [
        False,
        False,
        True,
    ]


@pytest.mark.netns
def test_known_bypass_a_connection_met_in_its_midst_owes_nothing(bench):
    """As `tlswall policies` says; if this starts to fail, that text is wrong."""
    bench.load(emit(learned(*GOOD).ruleset, NFT).text)
    assert refused(bench, [sent(C, b"GET / HTTP/1.1\r\n\r\n")]) == [False]


@pytest.mark.netns
def test_known_bypass_a_hello_behind_another_record_reaches_strangers(bench):
    bench.load(emit(learned(*GOOD).ruleset, NFT).text)
    assert refused(bench, [to(OTHER6, record(21, b"\1\0") + client_hello())]) == [False]


@pytest.mark.netns
def test_it_keeps_to_its_bit_of_the_mark(bench):
    bench.load(emit(learned(*GOOD).ruleset, NFT).text)
    bench.load(
        "table inet other {\n chain before {\n type filter hook forward priority -10\n"
        " ct mark set ct mark | 0x7\n }\n chain after {\n type filter hook forward priority 10\n"
        f' ct mark {MARK_OWES | 7:#x} counter comment "[owes]"\n'
        ' ct mark 0x7 counter comment "[owes-not]"\n }\n}\n'
    )
    refused(bench, [*opening(), sent(C, client_hello())])
    assert bench.counters("other") == {"owes": 3, "owes-not": 1}


def servers(result: Answer) -> list[list[tuple[int, int]]]:
    return [[(one.key[0][0], one.key[1][0]) for one in found.elements] for found in result.ruleset.sets]


def test_servers_that_are_alike_share_a_set():
    result = learned(*GOOD, row(port=8443), row("198.51.100.1"), row())
    assert servers(result) == [
        [(0xCB007109, 8443)],
        [(0xC6336401, 443), (0xC6336407, 443), (0xC6336407, 8443)],
        [(0xCB007109, 25)],
        [(0x20010DB8000100000000000000000007, 443)],
    ]
    again = learned(row(), row("198.51.100.1"), row(port=8443), *GOOD)
    assert again.ruleset.sets == result.ruleset.sets
    assert again.ruleset.chains == result.ruleset.chains


# fmt: off
USELESS = (
    ("without a completed handshake",           {"established": False}),
    ("not seen from their start",               {"sync": {"client": "midstream", "server": "synced"}}),
    ("not seen from their start",               {"sync": {"client": "synced", "server": "unseen"}}),
    ("of a version that is not at a fixed",     {"version": "SSLv2"}),
    ("of a version that is not at a fixed",     {"client_version": "0x7f1c"}),
    ("of a version that is not at a fixed",     {"client_version": None}),
)
# fmt: on


@pytest.mark.parametrize(("why", "changes"), USELESS)
def test_connections_that_teach_nothing(why, changes):
    with pytest.raises(WishError, match=why):
        learned(row(**changes))
    result = learned(row(), row(OTHER4, **changes))
    assert servers(result) == [[(0xC6336407, 443)]]
    assert any(f"taught nothing: 1 {why}" in remark for remark in result.ruleset.remarks)


@pytest.mark.parametrize(("action", "taught"), [("A", 1), ("A*", 1), ("B", 1), ("P", 2), ("I", 2)])
def test_suspicious_connections_teach_nothing(finding, action, taught):
    result = learned(row(), row(OTHER4), findings=(finding("XX01", action, connection=1),))
    assert sum(map(len, servers(result))) == taught
    assert any("1 suspicious (XX01)" in remark for remark in result.ruleset.remarks) is (taught == 1)


def test_only_servers_that_were_asked_for():
    assert servers(learned(*GOOD, policy="learned:ports=8443")) == [[(0xCB007109, 8443)]]
    only = learned(*GOOD, policy="learned:servers=198.51.100.0/24")
    assert servers(only) == [[(0xC6336407, 443)]]
    assert any("3 to other servers" in remark for remark in only.ruleset.remarks)
    assert [rule.name for rule in only.ruleset.chains[-1].rules] == ["learned-stranger-ipv4"]


def remarks(*rows: dict[str, object], policy: str = "learned") -> str:
    return "\n".join(learned(*rows, policy=policy).ruleset.remarks)


def test_what_the_capture_does_not_prove():
    text = remarks(*[row()] * 3, row(OTHER4))
    for words in (
        "2 servers learned from 4 connections",
        "2 servers had fewer than 10 connections, 1 only one",
        "2 servers had one client only",
        "No IPv6 server was learned: all TLS over it is refused",
        "No resumed session was seen",
        "No HelloRetryRequest was seen",
        "No handshake failed",
        "TLS 1.2 and 1.3 have the same version",
        "What did not happen while the captures ran",
    ):
        assert words in text
    assert "TLS over it is not judged" in remarks(row(), policy="learned:strangers=pass")


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ([None], None),
        ([(0, 3)], "The captures ran for 3 h 0 min, from 2026-03-01 00:00:00 UTC on."),
        ([(0, 2), (1, 3), None], "The captures ran for 3 h 0 min, from 2026-03-01 00:00:00 UTC on."),
        ([(8, 9), (0, 1)], "The captures ran for 2 h 0 min in 9 h 0 min, from 2026-03-01 00:00:00 UTC on."),
    ],
)
def test_how_long_the_captures_ran(hours, said):
    """Time that two captures have counts once."""
    start_s = 1_772_323_200
    times = [one and tuple((start_s + 3600 * hour) * 10**9 for hour in one) for one in hours]
    sources = [Source(name="good.pcap", sha256=None, times_ns=one) for one in times]
    found = answer(sources, (), [row(capture=0, connection=0)], wishes=[parse_wish("learned")])
    ran = [remark for remark in found.ruleset.remarks if "captures ran for" in remark]
    assert ran == ([said] if said else [])


def test_what_the_capture_does_show_is_not_called_missing():
    other = {"client": {"address": "192.0.2.2", "port": 1}}
    text = remarks(
        *[row()] * 5, *[row(**other)] * 5, *[row(SERVER6), row(SERVER6, **other)] * 5,
        row(resumed="psk"), row(hello_retry=True), row(established=False),
    )  # fmt: skip
    for words in (
        "fewer than",
        "one client",
        "No IPv6",
        "No resumed",
        "No HelloRetry",
        "No handshake failed",
    ):
        assert words not in text
    assert "1 without a completed handshake" in text


def test_the_remarks_are_in_the_file_and_in_the_account():
    result = learned(*GOOD)
    artifact = emit(result.ruleset, NFT)
    account = [line.text for line in account_lines(result, artifact)]
    for remark in result.ruleset.remarks:
        assert f"# Mind:     {remark}\n" in artifact.text
        assert remark in account


@pytest.mark.netns
@pytest.mark.parametrize("name", ["tls1.2", "tls12-resumption", "tls13_psk_succesfull", "smtp-starttls"])
def test_what_was_learned_from_passes_again(bench, name):
    path = CAPTURES / f"{name}.pcap"
    rows = list(analyze([path]).iter_connections())
    result = answer((Source(name=path.name, sha256=None),), (), rows, wishes=[parse_wish("learned")])
    bench.load(emit(result.ruleset, NFT).text)
    assert not any(refused(bench, [(side, data) for _, side, data in packets(path)]))
    hellos = [count for rule, count in bench.counters().items() if rule.endswith("-hello")]
    assert sum(hellos) >= 1


def test_without_a_capture_nothing_is_learned(respond):
    with pytest.raises(WishError, match="no capture that was given has a TLS connection"):
        respond((), "learned", connections=())
