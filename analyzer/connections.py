"""Finished connections: their numbers as columns, their texts, and the rows that people and programs read.

In:  the flow table, the streams, the record walk and the tracker, for slots that are retired.
Out: Batch (columns), `rows` (dicts as in the published schema).

A batch is columns because detectors ask it questions as a whole; a row is only made on its way out.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analyzer.flows.table import Field, FlowTable
from analyzer.streams.reassembly import MIDSTREAM, SYNCED, Reassembler, Stream
from analyzer.tls.records import Framing, RecordWalk
from analyzer.tls.tracker import Event, Kind, Tls, Tracker
from analyzer.wire.iana import AlertDescription, AlertLevel, cipher_suite_name, name_of

_STREAM_COLUMNS: Final = (Stream.KNOWN, Stream.POSITION, Stream.GAPS, Stream.GAP_BYTES, Stream.FIN)
_FRAMING_COLUMNS: Final = (Framing.HEAD_A, Framing.HEAD_B, Framing.HEAD_BYTES, Framing.OFFER)

COLUMNS: Final = (
    "CAPTURE",
    *(field.name for field in Field),
    *(f"{column.name}_{direction}" for direction in (0, 1) for column in _STREAM_COLUMNS),
    *(f"{column.name}_{direction}" for direction in (0, 1) for column in _FRAMING_COLUMNS),
    *(field.name for field in Tls),
)
"""Numeric columns of a batch; _0 and _1 are directions, 0 the TCP originator."""

_INDEX: Final = {name: index for index, name in enumerate(COLUMNS)}
assert len(_INDEX) == len(COLUMNS)

TEXTS: Final = (
    "sni",
    "alpn_offered",
    "alpn",
    "ja3",
    "ja4",
    "ja3s",
    "alerts",
    "client_random",
    "server_random",
    "session_id",
)

RESUMED: Final = ("unknown", "no", "session_id", "ticket", "psk")
VERSION_NAMES: Final = {
    0x0002: "SSLv2", 0x0300: "SSLv3", 0x0301: "TLSv1.0", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2",
    0x0304: "TLSv1.3",
}  # fmt: skip


def version_name(version: int) -> str | None:
    """Name of a protocol version; None for 0, the number for one that nobody has named."""
    if not version:
        return None
    return VERSION_NAMES.get(version) or f"0x{version:04x}"


@lru_cache(maxsize=65_536)
def address(upper: int, lower: int) -> str:
    """Text of an address column pair; IPv4 is ::ffff:a.b.c.d there."""
    if upper == 0 and lower >> 32 == 0xFFFF:
        return socket.inet_ntop(socket.AF_INET, (lower & 0xFFFFFFFF).to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, upper.to_bytes(8, "big") + lower.to_bytes(8, "big"))


@dataclass(slots=True)
class Batch:
    """Finished connections.

    Attributes:
        numbers: int64[n, COLUMNS].
        keys: uint64[n, 5]: originator address (upper, lower half), responder address, originator port << 16
            | responder port.
        texts: Name -> n values, bytes from the wire or str.
    """

    numbers: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    texts: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, column: str) -> npt.NDArray[np.int64]:
        """A numeric column by its name."""
        return self.numbers[:, _INDEX[column]]

    def take(self, order: npt.NDArray[Any]) -> Batch:
        """The rows named by an index or mask, in that order."""
        index = np.flatnonzero(order) if order.dtype == bool else order
        positions = index.tolist()
        return Batch(
            self.numbers[index],
            self.keys[index],
            {name: [values[i] for i in positions] for name, values in self.texts.items()},
        )

    def side(self, name: str, server: bool) -> npt.NDArray[np.int64]:
        """A column that exists per direction, of the client or the server."""
        direction = self["CLIENT"] ^ int(server)
        return np.where(direction == 0, self[f"{name}_0"], self[f"{name}_1"])

    def client_first(self) -> npt.NDArray[np.bool_]:
        """Where the TLS client is the TCP originator."""
        return np.equal(self["CLIENT"], 0)

    def addresses(self, server: bool) -> npt.NDArray[np.uint64]:
        """uint64[n, 2]: address of the client or server."""
        responder = (self["CLIENT"] ^ int(server)) != 0
        return np.where(responder[:, None], self.keys[:, 2:4], self.keys[:, 0:2])

    def ports(self, server: bool) -> npt.NDArray[np.int64]:
        """Port of the client or server."""
        responder = (self["CLIENT"] ^ int(server)) != 0
        both = self.keys[:, 4].astype(np.int64)
        return np.where(responder, both & 0xFFFF, both >> 16)

    def endpoint(self, row: int, server: bool) -> str:
        """Address of the client or server of one connection, as text."""
        at = 2 * (int(self.numbers[row, _INDEX["CLIENT"]]) ^ int(server))
        upper, lower = self.keys[row, at : at + 2].tolist()
        return address(upper, lower)


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of several."""
    if not batches:
        return Batch(
            np.empty((0, len(COLUMNS)), np.int64), np.empty((0, 5), np.uint64), {name: [] for name in TEXTS}
        )
    if len(batches) == 1:
        return batches[0]
    return Batch(
        np.concatenate([batch.numbers for batch in batches]),
        np.concatenate([batch.keys for batch in batches]),
        {name: [value for batch in batches for value in batch.texts[name]] for name in TEXTS},
    )


def collect(
    slots: npt.NDArray[np.int32],
    capture: int,
    table: FlowTable,
    streams: Reassembler,
    walk: RecordWalk,
    tracker: Tracker,
) -> Batch:
    """The finished connections of these slots, in that order."""
    parts = [np.full((len(slots), 1), capture, dtype=np.int64), table.fields[slots]]
    parts.extend(streams.state[2 * slots + direction][:, _STREAM_COLUMNS] for direction in (0, 1))
    parts.extend(walk.state[2 * slots + direction][:, _FRAMING_COLUMNS] for direction in (0, 1))
    parts.append(tracker.state[slots])
    texts: dict[str, list[Any]] = {name: [] for name in TEXTS}
    nothing = (b"", b"", b"", "", "", "", "", b"", b"", b"")
    columns = tuple(texts[name] for name in TEXTS)
    for slot in slots.tolist():
        client, server = tracker.client.get(slot), tracker.server.get(slot)
        if client is None and server is None:
            values: tuple[object, ...] = nothing
        else:
            values = (
                client.sni if client else b"",
                client.alpn if client else b"",
                server.alpn if server else b"",
                client.ja3 if client else "",
                client.ja4 if client else "",
                server.ja3s if server else "",
                "",
                client.random if client else b"",
                server.random if server else b"",
                client.session_id if client else b"",
            )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Batch(np.concatenate(parts, axis=1), table.keys[slots], texts)


def attach_alerts(batch: Batch, events: npt.NDArray[np.int64]) -> None:
    """Put the alerts in clear into the texts: 'side level description packet' each, separated by ';'."""
    alerts = events[events[:, Event.KIND] == Kind.ALERT]
    if not len(alerts):
        return
    position = {connection: row for row, connection in enumerate(batch["CONNECTION"].tolist())}
    column = batch.texts["alerts"]
    for connection, side, message, packet in alerts[
        :, [Event.CONNECTION, Event.SIDE, Event.MESSAGE, Event.LAST_PACKET]
    ].tolist():
        row = position.get(connection)
        if row is not None:
            column[row] += f"{side} {message >> 8} {message & 0xFF} {packet};"


# The first bytes of a stream, seven at a time, decide who speaks before TLS.
_CLIENT_PRELUDES: Final = (
    (b"CONNECT", "connect"),
    (b"PROXY ", "proxy"),
    (b"\r\n\r\n\x00\r\n", "proxy"),
    (b"\x05", "socks5"),
    (b"\x04\x01", "socks4"),
    (b"\x00\x00\x00\x08\x04\xd2\x16", "postgresql"),
    (b"<?xml", "xmpp"),
    (b"<stream", "xmpp"),
    (b"EHLO", "smtp"),
    (b"HELO", "smtp"),
    (b"LHLO", "lmtp"),
    (b"AUTH TL", "ftp"),
    (b"AUTH SS", "ftp"),
    (b"\x30", "ldap"),
)
_SERVER_PRELUDES: Final = (
    (b"220", "smtp"),
    (b"* ", "imap"),
    (b"+OK", "pop3"),
    (b"<?xml", "xmpp"),
    (b"<stream", "xmpp"),
    (b'"IMPLEM', "sieve"),
    (b":", "irc"),
    (b"200", "nntp"),
    (b"201", "nntp"),
)

UNKNOWN_PRELUDE: Final = "unknown"
_BY_CHANCE: Final = frozenset(
    (UNKNOWN_PRELUDE, *(name for start, name in (*_CLIENT_PRELUDES, *_SERVER_PRELUDES) if len(start) < 3))
)
"""What the middle of a record may be taken for."""


def _prelude(client: bytes, server: bytes) -> str:
    for start, name in _CLIENT_PRELUDES:
        if client.startswith(start):
            return name
    if len(server) > 5 and server[3:5] == b"\x00\x0a":
        return "mysql"
    for start, name in _SERVER_PRELUDES:
        if server.startswith(start):
            # FTP and SMTP greet alike; a client of FTP has said AUTH TLS above, or FEAT, or HOST
            if name == "smtp" and client[:4].upper() in (b"FEAT", b"HOST", b"USER", b"SYST"):
                return "ftp"
            if name == "irc" and not client[:4].upper().startswith((b"CAP", b"STAR", b"NICK")):
                continue
            return name
    return UNKNOWN_PRELUDE


def _head(first: int, second: int, count: int) -> bytes:
    """The first bytes of a stream as the record walk keeps them, seven to a number."""
    if count <= 7:
        return first.to_bytes(count, "big")
    return first.to_bytes(7, "big") + second.to_bytes(count - 7, "big")


def _begins_tls(head: bytes) -> bool:
    """A TLS record, or a hello in SSL 2.0 format with its two-byte or three-byte header."""
    if 20 <= head[0] <= 24:
        return head[1:2] in (b"", b"\x03")
    return (head[0] & 0x80 != 0 and head[2:3] == b"\x01") or (
        head[0] & 0xC0 == 0 and head[3:6] == b"\x01\x00\x02"
    )


@lru_cache(maxsize=4096)
def starttls(
    client: tuple[int, int, int], server: tuple[int, int, int], client_known: int, server_known: int
) -> str | None:
    """Which protocol, if any, was spoken before TLS, by the first bytes of each side."""
    client_head, server_head = _head(*client), _head(*server)
    head, known = (client_head, client_known) if client_head else (server_head, server_known)
    if not head or _begins_tls(head):
        return None
    name = _prelude(client_head, server_head)
    return None if known != SYNCED and name in _BY_CHANCE else name


@lru_cache(maxsize=4096)
def _offered(raw: bytes) -> tuple[str, ...]:
    names = []
    at = 0
    while at < len(raw):
        names.append(text(raw[at + 1 : at + 1 + raw[at]]))
        at += 1 + raw[at]
    return tuple(names)


def text(raw: bytes) -> str:
    """Bytes from the wire as text: what is not UTF-8 is shown as backslash escapes."""
    return raw.decode("utf-8", "backslashreplace")


def _alerts(packed: str) -> list[dict[str, object]]:
    alerts: list[dict[str, object]] = []
    for one in packed.split(";")[:-1]:
        side, level, description, packet = map(int, one.split(" "))
        alerts.append(
            {
                "side": "server" if side else "client",
                "level": name_of(AlertLevel, level).lower(),
                "description": name_of(AlertDescription, description).lower(),
                "packet": packet,
            }
        )
    return alerts


def _sync(known: int, gaps: int) -> str:
    if known == 0:
        return "unseen"
    if gaps:
        return "gap"
    return "midstream" if known == MIDSTREAM else "synced" if known == SYNCED else "unseen"


_ESTABLISHED: Final = "ESTABLISHED"


def rows(batch: Batch) -> Iterator[dict[str, object]]:
    """The connections as the published schema has them."""

    def column(name: str) -> list[int]:
        values: list[int] = batch[name].tolist()
        return values

    def sides(name: str) -> tuple[list[int], list[int]]:
        return batch.side(name, False).tolist(), batch.side(name, True).tolist()

    known, gaps = sides("KNOWN"), sides("GAPS")
    head_a, head_b, head_bytes = sides("HEAD_A"), sides("HEAD_B"), sides("HEAD_BYTES")
    cached_sync = lru_cache(maxsize=64)(_sync)
    texts = batch.texts
    for (
        connection, capture, first, last, version, client_max, suite, server_flags, resumed, established,
        retried,
        client_address, server_address, client_port, server_port, known_c, known_s, gaps_c, gaps_s,
        a_c, a_s, b_c, b_s, n_c, n_s, sni, offered, selected, ja3, ja4, ja3s, alerts,
    ) in zip(
        column("CONNECTION"), column("CAPTURE"), column("FIRST_PACKET"), column("LAST_PACKET"),
        column("VERSION"), column("CLIENT_MAX"), column("CIPHER_SUITE"), column("SERVER_FLAGS"),
        column("RESUMED"), column("ESTABLISHED"), column("RETRIED"),
        batch.addresses(False).tolist(), batch.addresses(True).tolist(),
        batch.ports(False).tolist(), batch.ports(True).tolist(),
        *known, *gaps, *head_a, *head_b, *head_bytes,
        texts["sni"], texts["alpn_offered"], texts["alpn"], texts["ja3"], texts["ja4"], texts["ja3s"],
        texts["alerts"],
        strict=True,
    ):  # fmt: skip
        negotiated = version != 0 and server_flags >= 0
        yield {
            "connection": connection,
            "capture": capture,
            "client": {"address": address(*client_address), "port": client_port},
            "server": {"address": address(*server_address), "port": server_port},
            "first_packet": first,
            "last_packet": last,
            "version": version_name(version),
            "client_version": version_name(client_max),
            "cipher_suite": cipher_suite_name(suite) if negotiated else None,
            "cipher_suite_code": suite if negotiated else None,
            "sni": text(sni) if sni else None,
            "alpn": text(selected) if selected else None,
            "alpn_offered": _offered(offered) if offered else (),
            "resumed": RESUMED[resumed],
            "established": bool(established),
            "hello_retry": bool(retried),
            "ja3": ja3 or None,
            "ja3s": ja3s or None,
            "ja4": ja4 or None,
            "alerts": _alerts(alerts) if alerts else (),
            "starttls": starttls((a_c, b_c, n_c), (a_s, b_s, n_s), known_c, known_s),
            "sync": {"client": cached_sync(known_c, gaps_c), "server": cached_sync(known_s, gaps_s)},
        }
