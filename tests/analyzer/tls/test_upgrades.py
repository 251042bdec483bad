"""First messages of MySQL, RDP and TDS."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.tls.upgrades import PEEK_BYTES, Offer, may_offer, offer
from samples.craft.upgrades import mysql_greeting


def tpkt(kind: int, rest: bytes) -> bytes:
    """An X.224 connection request (E0) or confirm (D0) in TPKT."""
    return struct.pack(">BBHBB5x", 3, 0, 11 + len(rest), 6 + len(rest), kind) + rest


def negotiation(kind: int, protocols: int, flags: int = 0) -> bytes:
    return struct.pack("<BBHI", kind, flags, 8, protocols)


def prelogin(kind: int, encryption: int | None) -> bytes:
    """A TDS PRELOGIN message with VERSION and, unless it is None, ENCRYPTION."""
    options = b"\0" + struct.pack(">HH", 11 if encryption is not None else 6, 6)
    if encryption is not None:
        options += b"\1" + struct.pack(">HH", 17, 1)
    body = options + b"\xff" + b"\x10\0\x07\xd0\0\0" + (b"" if encryption is None else bytes([encryption]))
    return struct.pack(">BBHHBB", kind, 1, 8 + len(body), 0, 0, 0) + body


START_TLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
COOKIE = b"Cookie: mstshash=alice\r\n"
CORRELATION = b"\x06\0\x24\0" + bytes(range(32))


@pytest.mark.parametrize(
    ("message", "kind", "value"),
    [
        (mysql_greeting(), Offer.MYSQL_GREETING, 0xFFFF),
        (tpkt(0xE0, negotiation(1, 3)), Offer.RDP_REQUEST, 3),
        (tpkt(0xE0, COOKIE + negotiation(1, 11)), Offer.RDP_REQUEST, 11),
        (tpkt(0xE0, COOKIE + negotiation(1, 11, flags=8) + CORRELATION), Offer.RDP_REQUEST, 11),
        (tpkt(0xE0, COOKIE), Offer.RDP_REQUEST, 0),
        (tpkt(0xE0, b""), Offer.RDP_REQUEST, 0),
        (tpkt(0xD0, negotiation(2, 0)), Offer.RDP_RESPONSE, 0),
        (tpkt(0xD0, negotiation(2, 2)), Offer.RDP_RESPONSE, 2),
        (tpkt(0xD0, b""), Offer.RDP_RESPONSE, 0),
        (START_TLS, Offer.LDAP_START_TLS, 0),
        (bytes.fromhex("300c02010178070a010204000400"), Offer.LDAP_RESULT, 2),
        (prelogin(0x12, 0), Offer.TDS_PRELOGIN, 0),
        (prelogin(0x04, 2), Offer.TDS_PRELOGIN, 2),
    ],
)
def test_what_is_offered(message: bytes, kind: Offer, value: int) -> None:
    assert may_offer(message[0], message[3], message[4])
    assert divmod(offer(message[:PEEK_BYTES]), 1 << 32) == (kind, value)
    # bytes of a following message change nothing
    if kind != Offer.MYSQL_GREETING:
        assert offer(message + b"\xff" * 20) == offer(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n",
        tpkt(0xD0, negotiation(3, 5)),  # RDP_NEG_FAILURE: the client has to try again
        tpkt(0xF0, b"\x80"),  # X.224 data
        prelogin(0x12, None),
        START_TLS[:-1] + b"8",
        bytes.fromhex("300c02010161070a010004000400"),  # a BindResponse
        b"\x04\x01\x00\x15\x00\x35\x01\x00\xaa\x01\x00\x05",  # another TDS reply
    ],
)
def test_nothing_is_offered(message: bytes) -> None:
    assert offer(message) == 0


@pytest.mark.parametrize(
    "message",
    [
        mysql_greeting(),
        tpkt(0xE0, negotiation(1, 3)),
        tpkt(0xD0, negotiation(2, 0)),
        START_TLS,
        prelogin(4, 2),
    ],
)
def test_a_message_that_is_cut_says_nothing(message: bytes) -> None:
    for size in range(len(message)):
        assert offer(message[:size]) == 0


@given(
    st.binary(max_size=300),
    st.sampled_from((b"", b"\x03\0", b"\x12\1", b"\x04\1", b"\x30\x10\2\1", b"\x4a\0\0\0\x0a")),
)
def test_no_bytes_raise(data: bytes, start: bytes) -> None:
    assert 0 <= offer(start + data) < 1 << 40
