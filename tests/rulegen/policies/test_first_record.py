"""first-record in the kernel: how a connection may begin, and what this can't hold it to."""

from __future__ import annotations

import pytest

from rulegen.errors import WishError
from rulegen.policies.first_record import OWES_CLIENT, OWES_SERVER
from rulegen.testbed.packets import ACK, RST, SYN
from tests.rulegen.policies.handshakes import (
    SSL3,
    TLS10,
    TLS12,
    TLS13,
    C,
    S,
    client_hello,
    message,
    opening,
    record,
    refused,
    sent,
    server_hello,
)

pytestmark = pytest.mark.netns

POLICY = "first-record:ports=443"
SID = bytes(range(100, 132))
HELLO, ANSWER = client_hello(), server_hello()
DATA = record(23, bytes(40))
SSL2_HELLO = bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16)
SSL2_ANSWER = bytes.fromhex("8021040001000200000003001001008002008003008004") + bytes(12)


def begin(bench, side, *payloads: bytes, family: int = 4) -> list[bool]:
    """Which of these, each the first payload of its sender on a connection of its own, are refused."""
    packets = []
    for port, payload in enumerate(payloads, 20000):
        packets += opening(family, port)
        if side is S:
            packets += [sent(C, HELLO, family, source_port=port)]
        packets += [sent(side, payload, family, **{"source_port" if side is C else "destination_port": port})]
    verdicts = refused(bench, packets)
    each = 4 if side is C else 5
    assert not any(verdict for number, verdict in enumerate(verdicts, 1) if number % each)
    return verdicts[each - 1 :: each]


def resized(hello: bytes, length: int) -> bytes:
    """The same bytes in a record that claims another length."""
    return hello[:3] + length.to_bytes(2) + hello[5:]


# fmt: off
CLIENT_BEGINS = (
    # what                                                 bytes                                          refused
    ("ClientHello of TLS 1.2",                             HELLO,                                         False),
    ("ClientHello of TLS 1.2 in a record of SSL 3.0",      client_hello(record_version=SSL3),             False),
    ("ClientHello of SSL 3.0",                             client_hello(SSL3, record_version=SSL3),       False),
    ("ClientHello with a session_id",                      client_hello(session_id=SID),                  False),
    ("ClientHello with half a session_id",                 client_hello(session_id=SID[:16]),             False),
    ("ClientHello, its first segment",                     client_hello(extensions=bytes(1600))[:1400],   False),
    ("the shortest ClientHello",                           client_hello(suites=(0x002F,)),                False),
    ("ClientHello with early data behind",                 HELLO + DATA,                                  False),
    ("ClientHello that claims version 0x0304",             client_hello(TLS13),                           True),
    ("ClientHello in a record of 0x0304",                  client_hello(record_version=TLS13),            True),
    ("ClientHello of SSL 2.0 in a TLS record",             client_hello(0x0002),                          True),
    ("ClientHello in a record too long",                   resized(HELLO, 16385),                         True),
    ("ClientHello in a record of the greatest length",     resized(HELLO, 16384),                         False),
    ("ClientHello cut into records: its header",           resized(HELLO, 4),                             True),
    ("ClientHello cut into records: one byte missing",     resized(client_hello(suites=(0x002F,)), 44),   True),
    ("ClientHello cut into records in its session_id",     resized(client_hello(session_id=SID), 76),     True),
    ("session_id longer than can be",                      client_hello(session_id=bytes(33)),            True),
    ("message longer than can be",                         HELLO[:6] + b"\xff" + HELLO[7:],               True),
    ("ServerHello",                                        ANSWER,                                        True),
    ("SSLv2 ClientHello",                                  SSL2_HELLO,                                    True),
    ("heartbeat request",                                  record(24, b"\x01\x40\x00"),                   True),
    ("alert",                                              record(21, b"\x02\x28"),                       True),
    ("ChangeCipherSpec",                                   record(20, b"\x01"),                           True),
    ("application data",                                   DATA,                                          True),
    ("Finished",                                           record(22, message(20, bytes(40))),            True),
    ("HTTP",                                               b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",          True),
    ("PROXY protocol",                                     b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n" + HELLO, True),
    ("keepalive",                                          b"\x00",                                       True),
)
SERVER_BEGINS = (
    ("ServerHello of TLS 1.2 or 1.3",                      ANSWER,                                        False),
    ("ServerHello of TLS 1.0",                             server_hello(TLS10, record_version=TLS10),     False),
    ("ServerHello with a session_id",                      server_hello(session_id=SID),                  False),
    ("ServerHello with half a session_id",                 server_hello(session_id=SID[:16]),             False),
    ("ServerHello with its whole flight behind",           ANSWER + record(22, message(11, bytes(900))),  False),
    ("ServerHello and Certificate in one record",          record(22, ANSWER[5:] + message(11, bytes(900))), False),
    ("fatal alert",                                        record(21, b"\x02\x28"),                       False),
    ("warning alert",                                      record(21, b"\x01\x70"),                       False),
    ("alert of a level that is none",                      record(21, b"\x03\x28"),                       True),
    ("half an alert",                                      record(21, b"\x02\x28")[:6],                   True),
    ("alert with a heartbeat behind",                      record(21, b"\x01\x70") + record(24, bytes(3)), True),
    ("ServerHello cut into records: its header",           resized(ANSWER, 4),                            True),
    ("ServerHello cut into records: one byte missing",     resized(ANSWER, 41),                           True),
    ("ServerHello cut into records in its session_id",     resized(server_hello(session_id=SID), 73),     True),
    ("ClientHello",                                        HELLO,                                         True),
    ("SSLv2 ServerHello",                                  SSL2_ANSWER,                                   True),
    ("HelloRequest",                                       record(22, message(0, b"")),                   True),
    ("Certificate",                                        record(22, message(11, bytes(900))),           True),
    ("heartbeat",                                          record(24, b"\x01\x40\x00"),                   True),
    ("HTTP",                                               b"HTTP/1.1 400 Bad Request\r\n\r\n",           True),
    ("banner",                                             b"220 mail.example ESMTP\r\n",                 True),
)
# fmt: on


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("side", "cases"), [(C, CLIENT_BEGINS), (S, SERVER_BEGINS)], ids=["client", "server"]
)
def test_how_a_connection_may_begin(bench, rules_text, side, cases, family):
    bench.load(rules_text(POLICY))
    verdicts = begin(bench, side, *(row[1] for row in cases), family=family)
    assert dict(zip((row[0] for row in cases), verdicts, strict=True)) == {row[0]: row[2] for row in cases}
    counters = bench.counters()
    assert counters["first-record-opens"] == len(cases)
    assert counters[f"first-record-{'server' if side is S else 'client'}"] == sum(verdicts)


@pytest.mark.parametrize(
    ("side", "hello", "least"),
    [
        (C, HELLO, 44),
        (C, client_hello(session_id=SID), 76),
        (S, ANSWER, 47),
        (S, server_hello(session_id=SID), 79),
    ],
    ids=["client", "client, session_id", "server", "server, session_id"],
)
def test_how_much_of_a_hello_the_first_segment_must_have(bench, rules_text, side, hello, least):
    """A whole header (at least 11 bytes), the random and the session_id; for a server, what it chooses too."""
    bench.load(rules_text(POLICY))
    sizes = range(1, len(hello) + 1)
    assert begin(bench, side, *(hello[:size] for size in sizes)) == [size < least for size in sizes]


def test_a_refused_beginning_can_be_made_good(bench, rules_text):
    """What is refused leaves the debt: the same connection goes on once it begins properly."""
    bench.load(rules_text(POLICY))
    assert refused(
        bench,
        [
            *opening(),
            sent(C, HELLO[:10]),
            sent(C, HELLO[10:], sequence=11),
            sent(C, HELLO),
            sent(S, ANSWER[:10]),
            sent(S, ANSWER),
            sent(C, DATA, sequence=1 + len(HELLO)),
            sent(S, DATA, sequence=1 + len(ANSWER)),
        ],
    ) == [False] * 3 + [True, True, False, True, False, False, False]


def test_an_alert_is_no_hello(bench, rules_text):
    """A server that warns first still owes its hello."""
    bench.load(rules_text(POLICY))
    warning = record(21, b"\x01\x70")
    assert refused(
        bench,
        [
            *opening(),
            sent(C, HELLO),
            sent(S, warning),
            sent(S, record(24, b"\x01\x40\x00"), sequence=8),
            sent(S, ANSWER, sequence=8),
            sent(S, DATA, sequence=8 + len(ANSWER)),
        ],
    ) == [False, False, False, False, False, True, False, False]


def test_hellos_of_ssl2_where_they_may_be(bench, rules_text):
    bench.load(rules_text(f"{POLICY},sslv2=allow"))
    assert begin(bench, C, SSL2_HELLO, HELLO, SSL2_HELLO[:10], b"\x80\x2e" + HELLO) == [
        False,
        False,
        True,
        True,
    ]
    bench.forget()
    assert begin(bench, S, SSL2_ANSWER, ANSWER, SSL2_HELLO) == [False, False, True]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("ports=443", [True, True]),
        ("ports=8443", [False, False]),
        ("ports=400-500,servers=198.51.100.7", [True, False]),
        ("ports=443,servers=2001:db8:1::/64", [False, True]),
    ],
)
def test_whose_connections(bench, rules_text, parameters, expected):
    bench.load(rules_text(f"first-record:{parameters}"))
    assert refused(bench, [*opening(), sent(C, DATA), *opening(6), sent(C, DATA, 6)])[3::4] == expected


def test_connections_out_of_a_guarded_port_are_not_its_business(bench, rules_text):
    """The server opens one itself, from port 443."""
    bench.load(rules_text(POLICY))
    back = {"source_port": 443, "destination_port": 25}
    assert not any(
        refused(
            bench,
            [
                sent(S, b"", flags=SYN, sequence=0, acknowledgement=0, **back),
                sent(C, b"", flags=SYN | ACK, sequence=0, source_port=25, destination_port=443),
                sent(S, b"", flags=ACK, **back),
                sent(C, b"220 mail.example\r\n", source_port=25, destination_port=443),
                sent(S, b"EHLO a\r\n", **back),
            ],
        )
    )


def test_connections_from_before_the_rules_pass(bench, rules_text):
    """If conntrack knew them; its entries have no mark."""
    bench.load(rules_text())
    assert not any(refused(bench, [*opening(), sent(C, HELLO), sent(S, ANSWER), *opening(port=40001)]))
    bench.load(rules_text(POLICY))
    assert not any(refused(bench, [sent(C, DATA, sequence=1 + len(HELLO)), sent(C, DATA, source_port=40001)]))
    assert bench.counters()["first-record-paid"] == 2


@pytest.mark.parametrize(("midstream", "no"), [("refuse", True), ("pass", False)])
def test_connections_met_in_their_midst(bench, rules_text, midstream, no):
    """With midstream=pass a known bypass: conntrack can be made to forget a connection."""
    bench.load(rules_text(f"{POLICY},midstream={midstream}"))
    assert not any(refused(bench, opening()))
    bench.forget()
    packets = [sent(C, b"", flags=ACK), sent(S, DATA), sent(C, DATA), sent(C, b"", 6, flags=ACK)]
    assert refused(bench, packets) == [no] * 4


def test_payload_without_a_connection_is_refused(bench, rules_text):
    """Out of conntrack's window, or not tracked: held to nothing, so not let through."""
    bench.load(rules_text(POLICY))
    bench.load(
        """table inet other {
            chain raw {
                type filter hook prerouting priority raw
                tcp sport 40002 notrack
            }
        }"""
    )
    late = sent(S, b"", flags=SYN | ACK, sequence=0, acknowledgement=1, destination_port=40001)
    assert refused(bench, [late, sent(C, DATA, source_port=40002)]) == [False, True]
    assert bench.counters()["first-record-stray"] == 1


def test_reset_tells_the_sender(bench, rules_text):
    bench.load(rules_text(f"{POLICY},action=reset"))
    *_, fate = bench.send([*opening(), sent(C, b"GET / HTTP/1.0\r\n\r\n")])
    assert not fate.passed
    (answer,) = fate.answers
    assert answer[20 + 13] & RST


def test_it_keeps_to_its_bits_of_the_mark(bench, rules_text):
    def counting(value: int, name: str) -> str:
        return f'ct mark {value:#x} counter comment "[{name}]"'

    bench.load(rules_text(POLICY))
    bench.load(
        f"""table inet other {{
            chain before {{
                type filter hook forward priority -10
                ct mark set ct mark | 0x7
            }}
            chain after {{
                type filter hook forward priority 10
                {counting(OWES_CLIENT | OWES_SERVER | 7, "both")}
                {counting(OWES_SERVER | 7, "server")}
                {counting(7, "none")}
            }}
        }}"""
    )
    refused(bench, [*opening(), sent(C, HELLO), sent(S, ANSWER)])
    assert bench.counters("other") == {"both": 3, "server": 1, "none": 1}


def test_where_only_one_direction_comes_by_it_says_so(respond):
    """A server's own host, for one; what it sends is in another hook."""
    (remark,) = respond((), POLICY, hook="input").ruleset.remarks
    assert "held to nothing" in remark
    assert respond((), POLICY, hook="forward").ruleset.remarks == ()


def test_known_bypass_later_records_are_held_to_nothing(bench, rules_text):
    """As `tlswall policies` says; if this starts to fail, that text is wrong."""
    bench.load(rules_text(POLICY))
    beat = record(24, b"\x01\x40\x00", TLS12)
    packets = [sent(C, beat[:3], sequence=1 + len(HELLO)), sent(C, beat[3:], sequence=4 + len(HELLO))]
    assert not any(refused(bench, [*opening(), sent(C, HELLO), sent(S, ANSWER), *packets]))


def test_known_bypass_a_hello_that_dies_on_its_way_pays_for_another(bench, rules_text):
    """As `tlswall policies` says: the same bytes of the stream, once for the rules and once for the server."""
    bench.load(rules_text(POLICY))
    assert not any(refused(bench, [*opening(), sent(C, HELLO), sent(C, b"GET / HTTP/1.1\r\n\r\n")]))


@pytest.mark.parametrize("parameters", ["first-record", "first-record:servers=192.0.2.1"])
def test_it_needs_ports(rules_text, parameters):
    with pytest.raises(WishError, match="which ports speak TLS"):
        rules_text(parameters)
