"""What the first message of a stream says about TLS inside another protocol, where it is not text.

In:  the first bytes of one direction of a TCP stream.
Out: a number: Offer << 32 | value, 0 for anything else.
Source: MySQL 8.0 "Protocol::HandshakeV10" (capability flags); MS-RDPBCGR 2.2.1.1.1 and 2.2.1.2.1
(RDP_NEG_REQ, RDP_NEG_RSP) in X.224 behind TPKT (RFC 1006 6); MS-TDS 2.2.6.5 (PRELOGIN); RFC 4511 4.12 and
4.14 (LDAP extended operations).

Only a message that is whole is read: a first segment that ends early says nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

PEEK_BYTES: Final = 256
"""Bytes that `offer` wants to see: a MySQL greeting and an RDP request with a cookie fit."""

START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
"""RFC 4511 4.14.1."""


class Offer(IntEnum):
    """What the value is."""

    MYSQL_GREETING = 1
    """The server's lower 16 capability flags."""
    RDP_REQUEST = 2
    """requestedProtocols, 0 where the client asks for none."""
    RDP_RESPONSE = 3
    """selectedProtocol, 0 where the server doesn't negotiate."""
    TDS_PRELOGIN = 4
    """ENCRYPTION."""
    LDAP_START_TLS = 5
    """The client asks for it."""
    LDAP_RESULT = 6
    """resultCode of an extended operation."""


def may_offer(first: int, fourth: int, fifth: int) -> bool:
    """Whether bytes 0, 3 and 4 of a stream are worth a look."""
    return first in (0x03, 0x04, 0x12, 0x30) or (fourth == 0 and fifth == 0x0A)


def offer(data: bytes) -> int:
    """Read the first message of a stream."""
    if data[3:5] == b"\0\x0a":
        return _mysql(data)
    if data[:2] == b"\x03\0":
        return _rdp(data)
    if data[:1] == b"\x30":
        return _ldap(data)
    if data[:1] in (b"\x12", b"\x04") and data[1:2] == b"\x01":
        return _tds(data)
    return 0


def _mysql(data: bytes) -> int:
    end = data.find(b"\0", 5)  # of the server's version; thread id, salt and a filler follow
    if end < 0 or end + 16 > len(data) or int.from_bytes(data[:3], "little") + 4 > len(data) < PEEK_BYTES:
        return 0
    return Offer.MYSQL_GREETING << 32 | int.from_bytes(data[end + 14 : end + 16], "little")


def _rdp(data: bytes) -> int:
    size = int.from_bytes(data[2:4], "big")
    if not 11 <= size <= len(data) or data[4] != size - 5:
        return 0
    kind, negotiation = data[5], data[size - 8 : size]
    if kind == 0xE0:
        if data[size - 36 : size - 34] == b"\x06\0" and size >= 55:  # RDP_NEG_CORRELATION_INFO behind it
            negotiation = data[size - 44 : size - 36]
        asked = negotiation[0] == 1 and negotiation[2:4] == b"\x08\0" and size >= 19
        return Offer.RDP_REQUEST << 32 | (int.from_bytes(negotiation[4:8], "little") if asked else 0)
    if kind == 0xD0 and size == 11:
        return Offer.RDP_RESPONSE << 32
    if kind == 0xD0 and size == 19 and negotiation[0] == 2:
        return Offer.RDP_RESPONSE << 32 | int.from_bytes(negotiation[4:8], "little")
    return 0


def _ldap(data: bytes) -> int:
    message = _ber(data, 0, len(data))
    number = message and _ber(data, message[1], message[2])
    operation = message and number and number[0] == 0x02 and _ber(data, number[2], message[2])
    content = operation and _ber(data, operation[1], operation[2])
    if not operation or not content:
        return 0
    value = data[content[1] : content[2]]
    if operation[0] == 0x77 and content[0] == 0x80 and value == START_TLS:
        return Offer.LDAP_START_TLS << 32
    if operation[0] == 0x78 and content[0] == 0x0A and len(value) == 1:
        return Offer.LDAP_RESULT << 32 | value[0]
    return 0


def _ber(data: bytes, at: int, end: int) -> tuple[int, int, int] | None:
    """Tag, begin and end of the content of the element at `at`, None where it is cut (X.690 8.1)."""
    if at + 2 > end:
        return None
    size, begin = data[at + 1], at + 2
    if size > 0x80:
        begin += size & 0x7F
        size = int.from_bytes(data[at + 2 : begin], "big")
    return (data[at], begin, begin + size) if begin + size <= end else None


def _tds(data: bytes) -> int:
    size = int.from_bytes(data[2:4], "big")
    if not 8 < size <= len(data) or data[8:9] != b"\0":  # VERSION always comes first
        return 0
    at = 8
    while at + 5 <= size and data[at] != 0xFF:
        if data[at] == 1:
            value = 8 + int.from_bytes(data[at + 1 : at + 3], "big")
            return Offer.TDS_PRELOGIN << 32 | data[value] if value < size else 0
        at += 5
    return 0
