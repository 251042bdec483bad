"""Finished connections: columns that know which side is the client, and the rows that people read."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.connections import (
    COLUMNS,
    RESUMED,
    Batch,
    address,
    attach_alerts,
    join,
    rows,
    text,
    version_name,
)
from analyzer.streams.reassembly import MIDSTREAM, SYNCED
from analyzer.tls.hello import NO_CLIENT, NO_SERVER
from analyzer.tls.tracker import Event, Kind
from samples.craft.session import begin
from tests.analyzer.detect.crafted import analysis

PLACE = {name: index for index, name in enumerate(COLUMNS)}
ORIGINATOR, RESPONDER = "192.0.2.10", "2001:db8::7"
KEY = (0, 0xFFFF_C000_020A, 0x2001_0DB8_0000_0000, 7, 50_000 << 16 | 443)


def batch(*connections: dict[str, int], sni: list[bytes] | None = None) -> Batch:
    """Connections of ORIGINATOR:50000 and RESPONDER:443 without a ServerHello; what isn't given is 0 or empty."""
    count = len(connections)
    numbers = np.zeros((len(COLUMNS), count), dtype=np.int64)
    for row, values in enumerate(connections):
        for name, value in {"CONNECTION": row, "SERVER_FLAGS": -1, **values}.items():
            numbers[PLACE[name], row] = value
    return Batch(
        numbers,
        np.array([KEY] * count, np.uint64).reshape(-1, 5).T,
        [NO_CLIENT._replace(sni=name) for name in sni or [b""] * count],
        [NO_SERVER] * count,
        [""] * count,
    )


def row(
    values: dict[str, int] | None = None,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The row of a connection, with these texts of its hellos."""
    one = batch(values or {})
    one.clients[0], one.servers[0] = NO_CLIENT._replace(**client or {}), NO_SERVER._replace(**server or {})
    (shown,) = rows(one)
    return shown


# columns


@given(st.integers(0, (1 << 32) - 1).map(IPv4Address) | st.integers(0, (1 << 128) - 1).map(IPv6Address))
def test_an_address_is_its_two_halves(wanted):
    number = int(wanted) if wanted.version == 6 else 0xFFFF << 32 | int(wanted)
    if wanted.version == 6 and wanted.ipv4_mapped:
        wanted = wanted.ipv4_mapped
    assert ip_address(address(number >> 64, number & (1 << 64) - 1)) == wanted


@pytest.mark.parametrize("client", [0, 1])
def test_sides_go_by_the_client_whoever_opened_the_connection(client):
    one = batch({"CLIENT": client, "BYTES_0": 10, "BYTES_1": 20})
    ends, ports, sent = ((ORIGINATOR, RESPONDER), (50_000, 443), (10, 20))
    assert [one.endpoint(0, server) for server in (False, True)] == list(ends[:: -1 if client else 1])
    assert [one.ports(server).tolist() for server in (False, True)] == [
        [port] for port in ports[:: -1 if client else 1]
    ]
    assert [one.side("BYTES", server).tolist() for server in (False, True)] == [
        [count] for count in sent[:: -1 if client else 1]
    ]
    halves = [one.addresses(server) for server in (False, True)]
    assert [address(int(upper[0]), int(lower[0])) for upper, lower in halves] == [
        one.endpoint(0, server) for server in (False, True)
    ]
    assert one.client_first().tolist() == [client == 0]
    (shown,) = rows(one)
    assert [shown[side] for side in ("client", "server")] == [
        {"address": end, "port": port}
        for end, port in list(zip(ends, ports, strict=True))[:: -1 if client else 1]
    ]


def test_taking_rows_by_index_and_by_mask():
    whole = batch({"PACKETS_0": 1}, {"PACKETS_0": 2}, {"PACKETS_0": 3}, sni=[b"a", b"b", b"c"])
    taken = whole.take(np.array([2, 0]))
    assert (taken["PACKETS_0"].tolist(), taken.sni()) == ([3, 1], [b"c", b"a"])
    masked = whole.take(np.array([False, True, True]))
    assert (masked["PACKETS_0"].tolist(), masked.sni()) == ([2, 3], [b"b", b"c"])
    assert len(whole.take(np.array([], dtype=np.int64))) == 0
    assert len(whole) == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_joining(count):
    parts = [batch({"PACKETS_0": number}, {}, sni=[b"%d" % number, b""]) for number in range(count)]
    joined = join(parts)
    assert len(joined) == 2 * count
    assert joined["PACKETS_0"].tolist()[::2] == list(range(count))
    assert joined.sni()[::2] == [b"%d" % number for number in range(count)]
    assert [joined.name(row) for row in range(2 * count)] == [(0, number % 2) for number in range(2 * count)]
    assert joined.keys.shape == (5, 2 * count)


# rows


def test_what_is_not_known_is_none():
    assert row() == {
        "connection": 0,
        "capture": 0,
        "client": {"address": ORIGINATOR, "port": 50_000},
        "server": {"address": RESPONDER, "port": 443},
        "first_packet": 0,
        "last_packet": 0,
        "version": None,
        "client_version": None,
        "cipher_suite": None,
        "cipher_suite_code": None,
        "sni": None,
        "alpn": None,
        "alpn_offered": (),
        "resumed": "unknown",
        "established": False,
        "hello_retry": False,
        "ja3": None,
        "ja3s": None,
        "ja4": None,
        "alerts": (),
        "starttls": None,
        "sync": {"client": "unseen", "server": "unseen"},
    }


def test_a_suite_is_only_told_of_a_server_hello():
    """Code 0 is a suite (TLS_NULL_WITH_NULL_NULL), so that it can't mean that there is none."""
    assert row({"VERSION": 2, "CIPHER_SUITE": 0})["cipher_suite"] is None
    chosen = row({"VERSION": 0x0303, "CIPHER_SUITE": 0, "SERVER_FLAGS": 0})
    assert (chosen["cipher_suite"], chosen["cipher_suite_code"]) == ("TLS_NULL_WITH_NULL_NULL", 0)


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, None), (0x0002, "SSLv2"), (0x0300, "SSLv3"), (0x0303, "TLSv1.2"), (0x0304, "TLSv1.3"), (0x7F1C, "0x7f1c")],
)  # fmt: skip
def test_a_version_that_nobody_named_is_its_number(number, name):
    assert version_name(number) == name
    assert row({"VERSION": number, "CLIENT_MAX": number})["client_version"] == name


def test_resumption_and_the_other_flags():
    assert [row({"RESUMED": number})["resumed"] for number in range(len(RESUMED))] == list(RESUMED)
    assert row({"ESTABLISHED": 1})["established"] is True
    assert row({"RETRIED": 2})["hello_retry"] is True


def test_texts_from_the_wire():
    offered = b"\x02h2\x08http/1.1\x00\x01\xff"
    shown = row(
        client={"sni": b"b\xc3\xbccher.example\xff", "alpn": offered, "ja3": "a"}, server={"alpn": b"h2"}
    )
    assert (shown["sni"], shown["alpn"], shown["ja3"]) == ("b\u00fccher.example\\xff", "h2", "a")
    assert shown["alpn_offered"] == ("h2", "http/1.1", "", "\\xff")


@given(st.binary(max_size=30) | st.text(max_size=9).map(str.encode))
def test_any_bytes_are_a_text(raw):
    """What is UTF-8 is itself; of the rest the bytes can be read."""
    shown = text(raw).encode()
    assert shown == raw or b"\\x" in shown


@pytest.mark.parametrize(
    ("known", "gaps", "sync"),
    [
        (0, 0, "unseen"),
        (0, 3, "unseen"),
        (SYNCED, 0, "synced"),
        (SYNCED, 1, "gap"),
        (MIDSTREAM, 0, "midstream"),
        (MIDSTREAM, 2, "gap"),
    ],
)
def test_what_was_seen_of_each_side(known, gaps, sync):
    assert row({"KNOWN_0": known, "GAPS_0": gaps})["sync"] == {"client": sync, "server": "unseen"}
    assert row({"KNOWN_0": known, "GAPS_0": gaps, "CLIENT": 1})["sync"]["server"] == sync


# alerts


def alert(connection: int, side: int, message: int, packet: int, kind: Kind = Kind.ALERT) -> list[int]:
    event = dict.fromkeys(Event, 0) | {
        Event.KIND: kind, Event.CONNECTION: connection, Event.SIDE: side, Event.MESSAGE: message,
        Event.PACKET: packet - 1, Event.LAST_PACKET: packet,
    }  # fmt: skip
    return [event[column] for column in Event]


def test_alerts_are_of_their_connection_in_their_order():
    both = batch({"CONNECTION": 4}, {"CONNECTION": 7})
    events = [
        alert(7, 1, 0x0228, 9),
        alert(4, 0, 0x0100, 12),
        alert(7, 0, 0x07FE, 15),
        alert(5, 0, 0x0100, 16),  # of a connection that is in another batch
        alert(4, 0, 0x0100, 17, Kind.EMPTY),
    ]
    attach_alerts(both, np.array(events, dtype=np.int64))
    assert [list(one["alerts"]) for one in rows(both)] == [
        [{"side": "client", "level": "warning", "description": "close_notify", "packet": 12}],
        [
            {"side": "server", "level": "fatal", "description": "handshake_failure", "packet": 9},
            {
                "side": "client",
                "level": "alertlevel(7)",
                "description": "alertdescription(254)",
                "packet": 15,
            },
        ],
    ]


# what stands before TLS


def head(data: bytes) -> tuple[int, int, int]:
    """The first 14 bytes of a stream, as the record walk keeps them."""
    first, second = data[:7], data[7:14]
    return int.from_bytes(first, "big"), int.from_bytes(second, "big"), len(first + second)


# fmt: off
PRELUDES = [
    # client                             server                        protocol       source
    (b"CONNECT www.example:443 HTTP/1.1", b"HTTP/1.1 200 OK",          "connect"),    # RFC 9110 9.3.6
    (b"PROXY TCP4 192.0.2.1",            b"",                          "proxy"),      # HAProxy PROXY protocol 2.1
    (b"\r\n\r\n\x00\r\nQUIT\n!",         b"",                          "proxy"),      # the same, 2.2
    (b"\x05\x01\x00",                    b"\x05\x00",                  "socks5"),     # RFC 1928 3
    (b"\x04\x01\x01\xbb",                b"\x00\x5a",                  "socks4"),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"S",                        "postgresql"), # PostgreSQL 55.7 SSLRequest
    (b"<?xml version='1.0'?>",           b"",                          "xmpp"),       # RFC 6120 4.2
    (b"<stream:stream to=",              b"<?xml version",             "xmpp"),
    (b"EHLO client.example",             b"220 mail ESMTP",            "smtp"),       # RFC 3207 4
    (b"LHLO client.example",             b"220 mail LMTP",             "lmtp"),       # RFC 2033 4.1
    (b"AUTH TLS\r\n",                    b"220 ready",                 "ftp"),        # RFC 4217 4
    (b"FEAT\r\n",                        b"220 ready",                 "ftp"),        # RFC 2389 3
    (b"a001 STARTTLS",                   b"* OK IMAP4rev1",            "imap"),       # RFC 9051 6.2.1
    (b"STLS\r\n",                        b"+OK ready",                 "pop3"),       # RFC 2595 4
    (b"STARTTLS\r\n",                    b'"IMPLEMENTATION" "s"',      "sieve"),      # RFC 5804 2.2
    (b"CAP LS 302\r\n",                  b":irc.example CAP",          "irc"),
    (b"QUIT\r\n",                        b":irc.example",              "unknown"),
    (b"STARTTLS\r\n",                    b"200 news",                  "nntp"),       # RFC 4642 2.2
    (b"\x30\x1d\x02\x01\x01\x77",        b"0$",                        "ldap"),       # RFC 4511 4.14
    (b"\x20\x00\x00\x01\x85\xae",        b"\x4a\x00\x00\x00\x0a8.0.3", "mysql"),      # MySQL HandshakeV10
    (b"",                                b"220 mail ESMTP",            "smtp"),
    (b"hello",                           b"world",                     "unknown"),
    (b"\x16\x03\x01\x02\x00\x01",        b"",                          None),         # RFC 8446 5.1
    (b"\x15",                            b"220 mail",                  None),
    (b"\x16\x02",                        b"",                          "unknown"),
    (b"\x80\x2e\x01\x03\x01",            b"",                          None),         # SSL 2.0 draft 2.5
    (b"\x00\x2e\x00\x01\x00\x02",        b"",                          None),
    (b"",                                b"",                          None),
]
# fmt: on


def before_tls(client: bytes, server: bytes, client_known: int = SYNCED) -> str | None:
    columns = {"KNOWN_0": client_known, "KNOWN_1": SYNCED}
    for direction, data in enumerate((client, server)):
        kept = zip(("HEAD_A", "HEAD_B", "HEAD_BYTES"), head(data), strict=True)
        columns |= {f"{name}_{direction}": value for name, value in kept}
    protocol: str | None = row(columns)["starttls"]
    return protocol


@pytest.mark.parametrize(("client", "server", "protocol"), PRELUDES)
def test_what_was_spoken_before_tls(client, server, protocol):
    assert before_tls(client, server) == protocol


@pytest.mark.parametrize(
    ("client", "protocol"),
    [(b"\x30\x1d", None), (b"\x05\x01", None), (b"hello", None), (b"EHLO a", "smtp"), (b"<?xml", "xmpp")],
)
def test_from_the_middle_of_a_stream_only_what_no_chance_makes(client, protocol):
    """A byte or two may be of a record whose beginning was not captured."""
    assert before_tls(client, b"", MIDSTREAM) == protocol


# from a capture


@pytest.mark.parametrize("opener_is_client", [True, False])
def test_a_connection_is_collected_with_all_its_columns(opener_is_client):
    s = begin("collected", opener_is_client=opener_is_client)
    s.full({"alpn": ("h2",)}, {"alpn": "h2"})
    s.close()
    (one,) = analysis(s.capture).batches()
    assert one.client_first().tolist() == [opener_is_client]
    assert (one["CONNECTION"].tolist(), one["FIRST_PACKET"].tolist()) == ([0], [1])
    assert one.side("HEAD_A", False).tolist()[0] >> 32 == 0x160301
    assert one.side("HEAD_A", True).tolist()[0] >> 32 == 0x160303
    assert one.side("KNOWN", True).tolist() == [SYNCED]
    client, server = one.clients[0], one.servers[0]
    assert list(map(len, (client.random, server.random, client.ja3, client.ja4))) == [32, 32, 32, 36]
    (shown,) = rows(one)
    assert (shown["sni"], shown["alpn"], shown["established"]) == ("server.example", "h2", True)
