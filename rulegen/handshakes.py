"""What the handshakes of a capture showed in clear, by which a connection can be known again.

In:  rows of the connections table; the messages table (analyzer.tables).
Out: the same rows, each with a Handshake under "handshake".
Source: RFC 5246 7.4.1.2, 7.4.1.3, 7.4.2; RFC 5077 3.3; RFC 8446 4.1.3 for what TLS 1.3 no longer shows.

A session of TLS 1.3 has no name on the wire: the client makes its session_id up, and the ticket is encrypted
when it is issued.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from analyzer.tls.cursor import Cursor, Malformed
from analyzer.tls.handshake import parse_client_hello, parse_server_hello
from analyzer.wire.iana import ContentType, HandshakeType

if TYPE_CHECKING:
    import pandas as pd

KEY: Final = "handshake"
_TLS_1_3: Final = 0x0304
_COLUMNS: Final = ("capture", "connection", "side", "message_type", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """Of one connection; what was not seen is empty."""

    client_random: bytes = b""
    """32 bytes, of the first ClientHello."""
    session_id: bytes = b""
    """Of the ServerHello, 32 bytes at most; empty in TLS 1.3, where it names nothing."""
    ticket: bytes = b""
    """The last NewSessionTicket in clear."""
    certificate: bytes = b""
    """The server's own certificate, DER."""


def with_handshakes(
    connections: Iterable[Mapping[str, object]], messages: pd.DataFrame
) -> Iterator[Mapping[str, object]]:
    """The connections, each with its Handshake.

    Args:
        connections: Rows of the connections table.
        messages: `Analysis.messages`.
    """
    known = read_handshakes(messages)
    for row in connections:
        yield {**row, KEY: known.get((row.get("capture", 0), row.get("connection")), Handshake())}


def read_handshakes(messages: pd.DataFrame) -> dict[tuple[object, object], Handshake]:
    """Index of the capture and number of the connection -> what its handshake showed."""
    known: dict[tuple[object, object], Handshake] = {}
    if messages.empty:
        return known
    rows = messages.loc[messages["content_type"] == ContentType.HANDSHAKE, list(_COLUMNS)]
    for capture, connection, side, kind, body in rows.itertuples(index=False, name=None):
        before = known.get((capture, connection), Handshake())
        known[(capture, connection)] = _with_message(before, side, kind, body)
    return known


def _with_message(before: Handshake, side: str, kind: int, body: bytes) -> Handshake:
    """What is known once the message was seen. One that contradicts itself adds nothing."""
    if kind == HandshakeType.CLIENT_HELLO:
        return replace(before, client_random=before.client_random or parse_client_hello(body).random)
    if kind == HandshakeType.SERVER_HELLO:
        hello = parse_server_hello(body)
        return before if hello.version >= _TLS_1_3 else replace(before, session_id=hello.session_id)
    cursor = Cursor(body)
    try:
        if kind == HandshakeType.NEW_SESSION_TICKET:
            cursor.pull_uint(4, "ticket_lifetime_hint")
            return replace(before, ticket=cursor.pull_opaque(2, "ticket"))
        if kind == HandshakeType.CERTIFICATE and side == "server":
            cursor.pull_uint(3, "certificate_list")
            return replace(before, certificate=cursor.pull_opaque(3, "certificate"))
    except Malformed:
        pass
    return before
