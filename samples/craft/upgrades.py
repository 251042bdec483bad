"""TLS that starts inside another protocol, or is refused there.

Source: RFC 3207 (SMTP), RFC 9051 6.2.1 (IMAP), RFC 2595 4 (POP3), RFC 4217 (FTP), RFC 6120 5 (XMPP), RFC 4511
4.14 (LDAP), RFC 9112 (CONNECT), RFC 1928 (SOCKS5), haproxy proxy-protocol.txt, PostgreSQL protocol 55.2.10,
MySQL connection phase; row DG21.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from samples.craft.conversation import CLIENT, SERVER, Capture
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import begin

POSTGRESQL_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
XMPP_NAMESPACES = b" xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"

Turn = tuple[int, bytes]


def scenarios() -> Iterator[Scenario]:
    yield from accepted()
    yield from refused()


def mysql_packet(sequence: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([sequence]) + body


def mysql_greeting() -> bytes:
    low, high = 0xFFFF, 0xDFFF  # CLIENT_SSL, 0x0800, among them
    body = b"\x0a8.0.36\0" + struct.pack("<I", 12) + b"\x1b\x52\x4c\x29\x60\x0a\x71\x33\0"
    body += (
        struct.pack("<HBHHB", low, 0xFF, 2, high, 21)
        + bytes(10)
        + b"\x45\x2d\x7a\x4f\x19\x66\x28\x30\x5b\x3e\x11\x57\0"
    )
    return mysql_packet(0, body + b"caching_sha2_password\0")


def mysql_login(*, over_tls: bool) -> bytes:
    """SSLRequest, or a whole login that leaves CLIENT_SSL out."""
    capabilities = 0x01FFA685 | (0x0800 if over_tls else 0)
    body = struct.pack("<IIB", capabilities, 1 << 24, 0xFF) + bytes(23)
    if not over_tls:
        body += b"alice\0" + b"\x20" + bytes(range(0x60, 0x80)) + b"caching_sha2_password\0"
    return mysql_packet(1, body)


C, S = CLIENT, SERVER
# fmt: off
DIALOGUES: Sequence[tuple[str, int, Sequence[Turn]]] = (
    ("smtp", 587, (
        (S, b"220 mail.example ESMTP\r\n"), (C, b"EHLO client.example\r\n"),
        (S, b"250-mail.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n"), (C, b"STARTTLS\r\n"),
        (S, b"220 2.0.0 Ready to start TLS\r\n"))),
    ("imap", 143, (
        (S, b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n"), (C, b"a1 STARTTLS\r\n"),
        (S, b"a1 OK Begin TLS negotiation now\r\n"))),
    ("pop3", 110, (
        (S, b"+OK POP3 server ready\r\n"), (C, b"CAPA\r\n"), (S, b"+OK\r\nUSER\r\nSTLS\r\n.\r\n"),
        (C, b"STLS\r\n"), (S, b"+OK Begin TLS negotiation\r\n"))),
    ("ftp", 21, (
        (S, b"220 FTP server ready\r\n"), (C, b"AUTH TLS\r\n"), (S, b"234 AUTH TLS successful\r\n"))),
    ("xmpp", 5222, (
        (C, b"<stream:stream to='chat.example' version='1.0'" + XMPP_NAMESPACES),
        (S, b"<stream:stream from='chat.example' id='1' version='1.0'" + XMPP_NAMESPACES +
            b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"),
        (C, b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        (S, b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"))),
    ("ldap", 389, (
        (C, bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"),
        (S, bytes.fromhex("300c02010178070a010004000400")))),
    ("postgresql", 5432, ((C, POSTGRESQL_SSL_REQUEST), (S, b"S"))),
    ("mysql", 3306, ((S, mysql_greeting()), (C, mysql_login(over_tls=True)))),
    ("connect", 3128, (
        (C, b"CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\n\r\n"),
        (S, b"HTTP/1.1 200 Connection established\r\n\r\n"))),
    ("socks5", 1080, (
        (C, b"\5\1\0"), (S, b"\5\0"), (C, b"\5\1\0\3\x0eserver.example\x01\xbb"),
        (S, b"\5\0\0\1\xc6\x33\x64\x0a\x01\xbb"))),
    ("socks5-password", 1080, (
        (C, b"\5\2\0\2"), (S, b"\5\2"), (C, b"\1\5alice\6pencil"), (S, b"\1\0"),
        (C, b"\5\1\0\1\xc6\x33\x64\x0a\x01\xbb"), (S, b"\5\0\0\1\xc6\x33\x64\x0a\x01\xbb"))),
    ("proxy-v1", 443, ((C, b"PROXY TCP4 203.0.113.7 198.51.100.10 40000 443\r\n"),)),
    ("proxy-v2", 443, ((C, PROXY_V2 + bytes.fromhex("21 11 000c cb007107 c633640a 9c40 01bb")),)),
)
# fmt: on


def accepted() -> Iterator[Scenario]:
    for name, port, turns in DIALOGUES:
        s = begin(f"upgrade-{name}", server_port=port)
        for side, data in turns:
            s.talk.send(side, data)
        s.full()
        s.close()
        yield Scenario(
            name=f"upgrade-{name}",
            what=f"legal: TLS 1.2 after the opening of {name}, port {port}",
            capture=s.capture,
            connection=[{"version": "TLSv1.2", "server_port": port, "resumed": "no", "established": True}],
        )

    s = begin("upgrade-proxy-v1-same-segment")
    s.client(
        b"PROXY TCP4 203.0.113.7 198.51.100.10 40000 443\r\n" + s.client_hello(),
    )
    s.server(s.server_hello(), *s.server_flight())
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.close()
    yield Scenario(
        name="upgrade-proxy-v1-same-segment",
        what="legal: a PROXY line and the ClientHello in one segment",
        capture=s.capture,
        connection=[{"version": "TLSv1.2", "established": True}],
    )


def refused() -> Iterator[Scenario]:
    capture = Capture()
    talk = capture.connect(server_port=5432)
    talk.send(CLIENT, POSTGRESQL_SSL_REQUEST)
    (no,) = talk.send(SERVER, b"N")
    startup = b"\0\3\0\0user\0alice\0database\0shop\0\0"
    talk.send(CLIENT, struct.pack(">I", len(startup) + 4) + startup)
    talk.send(SERVER, b"R" + struct.pack(">II", 12, 5) + b"\x9a\x31\x7c\x04")
    talk.send(CLIENT, b"p" + struct.pack(">I", 40) + b"md5" + b"0123456789abcdef0123456789abcdef" + b"\0")
    talk.send(SERVER, b"R" + struct.pack(">II", 8, 0))
    talk.close()
    yield Scenario(
        name="dg21-postgresql",
        what="PostgreSQL: SSLRequest is answered N and the client logs in in clear",
        capture=capture,
        expected=[Expected("DG21", None, [no])],
    )

    capture = Capture()
    talk = capture.connect(server_port=3306)
    talk.send(SERVER, mysql_greeting())
    (login,) = talk.send(CLIENT, mysql_login(over_tls=False))
    talk.send(SERVER, mysql_packet(2, b"\0\0\0\2\0\0\0"))
    talk.close()
    yield Scenario(
        name="dg21-mysql",
        what="MySQL: the server has TLS, the client logs in without",
        capture=capture,
        expected=[Expected("DG21", None, [login])],
    )
