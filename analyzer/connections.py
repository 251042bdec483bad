"""Finished connections: their numbers as columns, their texts, and the rows that people and programs read.

In:  the flow table, the streams, the record walk and the tracker, for slots that are retired.
Out: Batch (columns), `rows` (dicts as in the published schema).

A batch is columns because detectors ask it questions as a whole; a row is only made on its way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from analyzer.flows.table import Field, FlowTable
from analyzer.streams.reassembly import MIDSTREAM, SYNCED, Reassembler, Stream
from analyzer.tls.hello import ClientTexts, ServerTexts
from analyzer.tls.records import Framing, RecordWalk
from analyzer.tls.tracker import Event, Kind, Tls, Tracker
from analyzer.wire.iana import AlertDescription, AlertLevel, cipher_suite_name, name_of

_Name = TypeVar("_Name")

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
        return f"{lower >> 24 & 0xFF}.{lower >> 16 & 0xFF}.{lower >> 8 & 0xFF}.{lower & 0xFF}"
    import socket  # only where there is IPv6: it takes two milliseconds of the start

    return socket.inet_ntop(socket.AF_INET6, upper.to_bytes(8, "big") + lower.to_bytes(8, "big"))


@dataclass(slots=True)
class Batch:
    """Finished connections.

    Attributes:
        numbers: int64[COLUMNS, n].
        keys: uint64[5, n]: originator address (upper, lower half), responder address, originator port << 16
            | responder port.
        clients: Texts of n first ClientHellos.
        servers: Texts of n first ServerHellos.
        alerts: n times the alerts in clear, 'side level description packet' each, separated by ';'.
    """

    numbers: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    clients: list[ClientTexts]
    servers: list[ServerTexts]
    alerts: list[str]
    _names: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.numbers.shape[1])

    def __getitem__(self, column: str) -> npt.NDArray[np.int64]:
        """A numeric column by its name."""
        values: npt.NDArray[np.int64] = self.numbers[_INDEX[column]]
        return values

    def take(self, order: npt.NDArray[Any]) -> Batch:
        """The rows named by an index or mask, in that order."""
        if order.dtype == bool:
            if order.all():
                return self
            order = np.flatnonzero(order)
        positions = order.tolist()
        clients, servers, alerts = self.clients, self.servers, self.alerts
        return Batch(
            self.numbers[:, order],
            self.keys[:, order],
            [clients[i] for i in positions],
            [servers[i] for i in positions],
            [alerts[i] for i in positions],
        )

    def sni(self) -> list[bytes]:
        """The server names asked for, empty where none is."""
        return [texts.sni for texts in self.clients]

    def name(self, row: int) -> tuple[int, int]:
        """Capture and number of one connection."""
        if not self._names:
            self._names = list(zip(self["CAPTURE"].tolist(), self["CONNECTION"].tolist(), strict=True))
        return self._names[row]

    def side(self, name: str, server: bool) -> npt.NDArray[np.int64]:
        """A column that exists per direction, of the client or the server."""
        return np.where(self["CLIENT"] == server, self[f"{name}_0"], self[f"{name}_1"])

    def client_first(self) -> npt.NDArray[np.bool_]:
        """Where the TLS client is the TCP originator."""
        return np.equal(self["CLIENT"], 0)

    def addresses(self, server: bool) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Address of the client or server: upper and lower halves."""
        originator = self["CLIENT"] == server
        upper, lower = (np.where(originator, self.keys[i], self.keys[i + 2]) for i in (0, 1))
        return upper, lower

    def ports(self, server: bool) -> npt.NDArray[np.int64]:
        """Port of the client or server."""
        both = self.keys[4].astype(np.int64)
        ports: npt.NDArray[np.int64] = np.where(self["CLIENT"] == server, both >> 16, both & 0xFFFF)
        return ports

    def endpoint(self, row: int, server: bool) -> str:
        """Address of the client or server of one connection, as text."""
        at = 0 if self.numbers[_INDEX["CLIENT"], row] == server else 2
        upper, lower = self.keys[at : at + 2, row].tolist()
        return address(upper, lower)


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of several."""
    if not batches:
        return Batch(np.empty((len(COLUMNS), 0), np.int64), np.empty((5, 0), np.uint64), [], [], [])
    if len(batches) == 1:
        return batches[0]
    return Batch(
        np.concatenate([batch.numbers for batch in batches], axis=1),
        np.concatenate([batch.keys for batch in batches], axis=1),
        [texts for batch in batches for texts in batch.clients],
        [texts for batch in batches for texts in batch.servers],
        [alerts for batch in batches for alerts in batch.alerts],
    )


def collect(
    slots: npt.NDArray[np.int32],
    capture: int,
    table: FlowTable,
    streams: Reassembler,
    walk: RecordWalk,
    tracker: Tracker,
) -> Batch:
    """The finished connections of these slots, in that order; the tracker forgets their hellos' texts."""
    pairs = [2 * slots + direction for direction in (0, 1)]
    parts = [table.fields.take(slots, axis=0)]
    parts += [streams.state.take(pair, axis=0)[:, _STREAM_COLUMNS] for pair in pairs]
    parts += [walk.state.take(pair, axis=0)[:, _FRAMING_COLUMNS] for pair in pairs]
    parts += [tracker.state.take(slots, axis=0)]
    numbers = np.empty((len(COLUMNS), len(slots)), dtype=np.int64)
    numbers[0] = capture
    at = 1
    for part in parts:
        numbers[at : at + part.shape[1]] = part.T
        at += part.shape[1]
    clients, servers = tracker.take_texts(slots)
    return Batch(numbers, np.ascontiguousarray(table.keys[slots].T), clients, servers, [""] * len(slots))


def attach_alerts(batch: Batch, events: npt.NDArray[np.int64]) -> None:
    """Put the alerts in clear where they belong."""
    alerts = events[events[:, Event.KIND] == Kind.ALERT]
    if not len(alerts):
        return
    position = {connection: row for row, connection in enumerate(batch["CONNECTION"].tolist())}
    for connection, side, message, packet in alerts[
        :, [Event.CONNECTION, Event.SIDE, Event.MESSAGE, Event.LAST_PACKET]
    ].tolist():
        row = position.get(connection)
        if row is not None:
            batch.alerts[row] += f"{side} {message >> 8} {message & 0xFF} {packet};"


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
def starttls(heads: tuple[int, ...]) -> str | None:
    """Which protocol, if any, was spoken before TLS, by the first bytes of each side.

    Args:
        heads: HEAD_A, HEAD_B, HEAD_BYTES and KNOWN, of the client and of the server each.
    """
    client_a, server_a, client_b, server_b, client_bytes, server_bytes, client_known, server_known = heads
    client_head = _head(client_a, client_b, client_bytes)
    server_head = _head(server_a, server_b, server_bytes)
    head, known = (client_head, client_known) if client_head else (server_head, server_known)
    if not head or _begins_tls(head):
        return None
    name = _prelude(client_head, server_head)
    return None if known != SYNCED and name in _BY_CHANCE else name


@lru_cache(maxsize=4096)
def protocols(raw: bytes) -> tuple[str, ...]:
    """The protocols of an ALPN list as on the wire."""
    names = []
    at = 0
    while at < len(raw):
        names.append(text(raw[at + 1 : at + 1 + raw[at]]))
        at += 1 + raw[at]
    return tuple(names)


def text(raw: bytes) -> str:
    """Bytes from the wire as text: what is not UTF-8 is shown as backslash escapes."""
    return raw.decode("utf-8", "backslashreplace")


def alert_rows(packed: str) -> list[dict[str, object]]:
    """The alerts of a connection, from Batch.alerts."""
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


def rows(batch: Batch) -> Iterator[dict[str, object]]:
    """The connections as the published schema has them; what rows have in common they share."""
    negotiated = (batch["VERSION"] != 0) & (batch["SERVER_FLAGS"] >= 0)
    for (
        connection, capture, client, server, first, last, version, client_max, suite, resumed, established,
        retried, (_, _, sni, offered, ja3, ja4), (_, _, selected, ja3s), alerts, prelude, sync,
    ) in zip(
        batch["CONNECTION"].tolist(), batch["CAPTURE"].tolist(),
        _endpoints(batch, False), _endpoints(batch, True),
        batch["FIRST_PACKET"].tolist(), batch["LAST_PACKET"].tolist(),
        _named(version_name, batch["VERSION"]), _named(version_name, batch["CLIENT_MAX"]),
        np.where(negotiated, batch["CIPHER_SUITE"], -1).tolist(),
        map(RESUMED.__getitem__, batch["RESUMED"].tolist()),
        (batch["ESTABLISHED"] != 0).tolist(), (batch["RETRIED"] != 0).tolist(),
        batch.clients, batch.servers, batch.alerts, preludes(batch), _named(sync_of, sync_codes(batch)),
        strict=True,
    ):  # fmt: skip
        yield {
            "connection": connection,
            "capture": capture,
            "client": client,
            "server": server,
            "first_packet": first,
            "last_packet": last,
            "version": version,
            "client_version": client_max,
            "cipher_suite": cipher_suite_name(suite) if suite >= 0 else None,
            "cipher_suite_code": suite if suite >= 0 else None,
            "sni": text(sni) if sni else None,
            "alpn": text(selected) if selected else None,
            "alpn_offered": protocols(offered),
            "resumed": resumed,
            "established": established,
            "hello_retry": retried,
            "ja3": ja3 or None,
            "ja3s": ja3s or None,
            "ja4": ja4 or None,
            "alerts": alert_rows(alerts) if alerts else (),
            "starttls": prelude,
            "sync": sync,
        }


def _endpoints(batch: Batch, server: bool) -> Iterator[dict[str, object]]:
    upper, lower = batch.addresses(server)
    hosts = map(address, upper.tolist(), lower.tolist())
    ports = batch.ports(server).tolist()
    return ({"address": host, "port": port} for host, port in zip(hosts, ports, strict=True))


def _named(name: Callable[[int], _Name], values: npt.NDArray[np.int64]) -> Iterator[_Name]:
    """A name for each value, asked for once."""
    numbers = values.tolist()
    return map({number: name(number) for number in set(numbers)}.__getitem__, numbers)


def sync_codes(batch: Batch) -> npt.NDArray[np.int64]:
    """Since when each side is known, as a number that sync_of explains: there are a few combinations."""
    known = [batch.side("KNOWN", server) for server in (False, True)]
    gaps = [batch.side("GAPS", server) != 0 for server in (False, True)]
    codes: npt.NDArray[np.int64] = known[0] << 5 | gaps[0] << 4 | known[1] << 1 | gaps[1]
    return codes


def sync_of(code: int) -> dict[str, str]:
    """Since when the sides are known, in words."""
    return {"client": _sync(code >> 5 & 3, code >> 4 & 1), "server": _sync(code >> 1 & 3, code & 1)}


def preludes(batch: Batch) -> list[str | None]:
    """What was spoken before TLS; nothing, where the client or else the server begins with a TLS record."""
    names = ("HEAD_A", "HEAD_B", "HEAD_BYTES")
    heads = [batch.side(name, server) for name in names for server in (False, True)]
    first = np.where(heads[4] > 0, heads[0], heads[1]) >> 40
    whole = np.where(heads[4] > 0, heads[4], heads[5]) >= 7
    records = whole & (first >= 0x1403) & (first <= 0x1803) & (first & 0xFF == 3)
    found: list[str | None] = [None] * len(batch)
    others = np.flatnonzero(~records)
    heads += [batch.side("KNOWN", server) for server in (False, True)]
    for row, *head in zip(others.tolist(), *(column[others].tolist() for column in heads), strict=True):
        found[row] = starttls(tuple(head))
    return found
