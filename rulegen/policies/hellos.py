"""The hellos, as far as they lie at fixed places: what several policies look for.

In:  nothing; fields of analyzer.wire.fields.
Out: matches.
Source: RFC 8446 4.1.2, 4.1.3, 5.1; RFC 5246 7.4.1; RFC 6101 E and draft-hickman-netscape-ssl-00 for SSL 2.0.

What a ServerHello chooses stands behind its session_id. The choice is looked for where that is empty or has
its full 32 bytes, which is what servers send; a ServerHello with another one is `unjudged`, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rulegen.ir.match import Match, Not, Op, Present, Test, all_of, any_of, between, equals, one_of

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
HEARTBEAT: Final = 24
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
SUPPORTED_VERSIONS: Final = 43

VERSION_3: Final = between("tls.version", 0x0300, 0x03FF)
"""OpenSSL 1.0.1 ssl/s3_pkt.c ssl3_get_record: any minor version will do until a version is negotiated."""

CHOICES: Final = {0: "tls.sid0", 32: "tls.sid32"}
"""Bytes of session_id -> prefix of the fields behind it."""


def hello(kind: int) -> Match:
    """A handshake record that begins with such a message."""
    return all_of(
        equals("tls.content_type", HANDSHAKE),
        VERSION_3,
        equals("tls.handshake_type", kind),
    )


def choice(test: Callable[[str], Match]) -> Match:
    """`test`, given the prefix of the fields, holds for what a ServerHello has behind its session_id."""
    return any_of(
        *(all_of(equals("tls.session_id_length", size), test(prefix)) for size, prefix in CHOICES.items())
    )


def unjudged() -> Match:
    """A ServerHello whose suite and compression lie at no known place or not in this packet.

    A handshake record cut before its message's type may be one.
    """
    return all_of(
        equals("tls.content_type", HANDSHAKE),
        any_of(
            Not(Present("tls.handshake_type")),
            all_of(
                hello(SERVER_HELLO),
                any_of(
                    Not(Present("tls.session_id_length")),
                    between("tls.session_id_length", 1, 31),
                    Test("tls.session_id_length", Op.GT, 32),
                    choice(lambda prefix: Not(Present(f"{prefix}.compression_method"))),
                ),
            ),
        ),
    )


_TWO_BYTE_HEADER: Final = Test("ssl2.record_length", Op.GE, 0x8000)


def ssl2_client_hello() -> Match:
    """Of any version that it may offer; behind a header of two bytes."""
    return all_of(
        _TWO_BYTE_HEADER,
        equals("ssl2.message_type", 1),
        one_of("ssl2.version", ((0x0002, 0x0002), (0x0300, 0x03FF))),
        between("ssl2.cipher_specs_length", 3, 0x1FFF),
        one_of("ssl2.session_id_length", ((0, 0), (16, 16))),
        between("ssl2.challenge_length", 16, 32),
    )


def ssl2_server_hello() -> Match:
    return all_of(
        _TWO_BYTE_HEADER,
        equals("ssl2.message_type", 4),
        between("ssl2.session_id_hit", 0, 1),
        between("ssl2.certificate_type", 0, 1),
        equals("ssl2.server_version", 0x0002),
    )
