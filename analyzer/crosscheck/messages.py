"""Compare the messages that can be read without keys with tshark's.

In:  Analysis.messages and the rows of the connections; tshark's connections.
Out: Differences, one per message; those that follow from how tshark works carry an explanation.

Messages are handshake messages, heartbeats and ChangeCipherSpecs; alerts are compared with the connections.
SSL 2.0 messages are not in our table. Without a hello tshark does not say who is who, nor are sides compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from analyzer.crosscheck.difference import Difference
from analyzer.crosscheck.tshark import Message, TlsConnection
from analyzer.model import Side
from analyzer.wire.iana import ContentType, HandshakeType, HeartbeatMessageType, name_of

if TYPE_CHECKING:
    import pandas as pd

_HEARTBEAT_TYPES: Final = frozenset(HeartbeatMessageType)


def our_messages(frame: pd.DataFrame) -> list[Message]:
    """The rows of Analysis.messages that tshark can have too."""
    if frame.empty:
        return []
    columns = ("connection", "last_packet", "side", "content_type", "message_type", "length")
    messages = []
    for connection, packet, side, content, number, length in zip(
        *(frame[name].tolist() for name in columns), strict=True
    ):
        sender = Side[side.upper()]
        if content == ContentType.HANDSHAKE:
            messages.append(Message(connection, packet, sender, "handshake", number, length))
        elif content == ContentType.CHANGE_CIPHER_SPEC:
            messages.append(Message(connection, packet, sender, "change_cipher_spec", content))
        elif content == ContentType.HEARTBEAT and number in _HEARTBEAT_TYPES:
            messages.append(Message(connection, packet, sender, "heartbeat", number))
    return messages


@dataclass(frozen=True, slots=True)
class Pair:
    """A message and its counterpart, if there is one, in a connection."""

    ours: Message | None
    theirs: Message | None
    row: Mapping[str, Any]
    stream: TlsConnection


def compare_messages(
    ours: Iterable[Message], rows: Iterable[Mapping[str, Any]], streams: Iterable[TlsConnection]
) -> list[Difference]:
    """List the messages that only one of both has, or of which they name different packets.

    Args:
        ours: What our_messages() gives.
        rows: Analysis.iter_connections().
        streams: tshark's connections. Those that only one of both has are not looked at.
    """
    mine: dict[int, list[Message]] = defaultdict(list)
    for message in ours:
        mine[message.connection].append(message)
    theirs = {stream.connection: stream for stream in streams}
    return [
        difference
        for row in rows
        if row["connection"] in theirs
        for pair in _pairs(mine[row["connection"]], row, theirs[row["connection"]])
        if (difference := _difference(pair)) is not None
    ]


def _pairs(ours: Iterable[Message], row: Mapping[str, Any], stream: TlsConnection) -> Iterator[Pair]:
    """Like with like, in order; what is left over stands alone."""
    groups: dict[Message, tuple[list[Message], list[Message]]] = defaultdict(lambda: ([], []))
    for index, messages in enumerate((ours, stream.messages)):
        for message in messages:
            if message.kind != "ssl2":
                side = None if stream.client is None else message.side
                groups[replace(message, packet=0, side=side)][index].append(message)
    for one, other in groups.values():
        for left, right in zip_longest(one, other):
            yield Pair(left, right, row, stream)


def _difference(pair: Pair) -> Difference | None:
    ours, theirs = pair.ours, pair.theirs
    if ours is not None and theirs is not None and (ours.packet == theirs.packet or ours.kind == "heartbeat"):
        return None  # a heartbeat is judged, and named, before it is complete
    return Difference(
        where=f"connection {pair.stream.connection}",
        field="message",
        ours=_text(ours),
        theirs=_text(theirs),
        opinion="tshark",
        explanation=next(filter(None, (reason(pair) for reason in _EXPLANATIONS)), None),
    )


def _text(message: Message | None) -> str | None:
    if message is None:
        return None
    name = message.kind
    if message.kind == "handshake":
        name = name_of(HandshakeType, message.type)
    elif message.kind == "heartbeat":
        name = name_of(HeartbeatMessageType, message.type)
    side = "" if message.side is None else f" {message.side.name.lower()}"
    return f"packet {message.packet}{side} {name} of {message.length} bytes"


# --- explanations: each looks at one way in which tshark, or tlswall, works -----------------------

_LONGEST_HANDSHAKE_MESSAGE: Final = 0x40000
"""Beyond it tshark 4.0 takes a handshake message for an encrypted one."""


def _out_of_order(pair: Pair) -> str | None:
    if pair.ours is not None and pair.theirs is not None and pair.theirs.packet > pair.ours.packet:
        return "tshark names the packet that put the segments in order, tlswall the one with the last byte"
    return None


def _very_long(pair: Pair) -> str | None:
    if pair.theirs is None and pair.ours is not None and pair.ours.length > _LONGEST_HANDSHAKE_MESSAGE:
        return "tshark takes a handshake message above 256 KiB for an encrypted one"
    return None


def _behind_change_cipher_spec(pair: Pair) -> str | None:
    message = pair.ours or pair.theirs
    assert message is not None
    changed = any(
        other.kind == "change_cipher_spec"
        and other.side in (message.side, None)
        and other.packet <= message.packet
        for other in pair.stream.messages
    )
    if not changed or message.kind == "change_cipher_spec":
        return None
    if pair.theirs is None:
        return "tshark takes all that follows a ChangeCipherSpec for encrypted"
    if pair.ours is None:
        return "this side has sent ChangeCipherSpec: tlswall judges what looks like a message, but reads none"
    return None


def _behind_tls13_server_hello(pair: Pair) -> str | None:
    if pair.ours is None and pair.row["version"] == "TLSv1.3" and pair.theirs is not None:
        return "protected in TLS 1.3: tlswall judges what looks like a message in clear, but reads none"
    return None


def _missing_bytes(pair: Pair) -> str | None:
    if set(pair.row["sync"].values()) == {"synced"}:
        return None
    if pair.ours is None:
        return "bytes are missing in the capture: tlswall does not say what is in clear behind them"
    if pair.theirs is None:
        return "bytes are missing in the capture: tshark does not find the next record behind them"
    return None


def _unfinished(pair: Pair) -> str | None:
    if pair.theirs is not None or pair.ours is None or pair.ours.kind != "heartbeat":
        return None
    theirs = sum(message.kind == "heartbeat" for message in pair.stream.messages)
    if sum(pair.stream.records[side, ContentType.HEARTBEAT] for side in (*Side, None)) == theirs:
        return "its record is not complete in the capture: tlswall judges a heartbeat by its beginning"
    return None


_EXPLANATIONS: Final[tuple[Callable[[Pair], str | None], ...]] = (
    _out_of_order,
    _very_long,
    _missing_bytes,
    _behind_change_cipher_spec,
    _behind_tls13_server_hello,
    _unfinished,
)
