"""All connections of an analysis, in the few columns that rules across connections need.

In:  batches of finished connections.
Out: History: compact columns, one row per ClientHello, in the order of the hellos; groups of rows; one-row
batches for findings.

About 180 bytes a connection stay in memory, names included, so that a million connections fit into 200 MB.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analyzer.connections import COLUMNS, Batch
from analyzer.tls.hello import NO_CLIENT, NO_SERVER
from analyzer.tls.state import State

ALERT: Final = 1
RESET: Final = 2
CLOSE: Final = 3
PENDING: Final = 4
"""No answer, and nobody has ended the connection: a failure once the client has waited long enough."""

FALLBACK_ALERTS: Final = (10, 40, 70, 86)
"""unexpected_message, handshake_failure, protocol_version, inappropriate_fallback."""

TTL_SLACK: Final = 2
"""Hops by which TTLs of one sender may differ: paths of equal cost."""

# where INJECTED says that somebody else ended the handshake
TTL_OF_RESET: Final = 1
DATA_AFTER_RESET: Final = 2
TTL_OF_ALERT: Final = 4

# fmt: off
_FIELDS: Final = (
    ("CAPTURE", "u4"), ("CONNECTION", "u4"), ("HELLO_NS", "i8"), ("END_NS", "i8"),
    ("HELLO_PACKET", "i8"), ("SERVER_HELLO_PACKET", "i8"), ("FAILURE_PACKET", "i8"),
    ("CLIENT_UPPER", "u8"), ("CLIENT_LOWER", "u8"), ("SERVER_UPPER", "u8"), ("SERVER_LOWER", "u8"),
    ("PORT", "u2"), ("CLIENT_MAX", "u2"), ("OFFERED", "u2"), ("VERSION", "u2"), ("CIPHER_SUITE", "u2"),
    ("RESUMED", "u1"), ("CLIENT_FLAGS", "i4"), ("SERVER_FLAGS", "i4"),
    ("SUITES_HASH", "i8"), ("COMMON_HASH", "i8"), ("SSL3_HASH", "i8"), ("SNI_HASH", "i8"), ("JA4_HASH", "i8"),
    ("FAILURE", "u1"), ("FAILED_BY", "u1"), ("ALERT", "u1"), ("INJECTED", "u1"),
    ("TTL", "u1"), ("ODD_TTL", "u1"),
)
_BEFORE_KEYS: Final = np.isin(np.arange(len(State)), [
    State.START, State.WAIT_SH, State.WAIT_SH_13, State.WAIT_SH_0RTT, State.N_SH, State.N_SUPPLEMENTAL,
    State.N_CERTIFICATE, State.N_STATUS, State.N_KEY_EXCHANGE, State.N_REQUEST, State.C_FLIGHT,
    State.C_CERTIFICATE, State.C_KX, State.C_VERIFY, State.C_CCS, State.C_FIN, State.S_TICKET, State.S_CCS,
    State.A_TICKET, State.A_SCCS, State.A_SFIN, State.A_CCCS, State.T_HRR, State.T_WAIT2, State.T_NEG,
    State.T_SERVER, State.V_WAIT, State.V_SH, State.CLOSED,
])
"""States of a handshake that is not complete."""
# fmt: on
_FIN: Final = 1
_SEED: Final = np.uint64(int.from_bytes(os.urandom(8), "little"))

Rows = npt.NDArray[np.int64]


class Texts:
    """Many short byte strings in one buffer."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")

    def extend(self, values: Sequence[bytes]) -> None:
        """Take more of them."""
        end = len(self._bytes)
        self._bytes += b"".join(values)
        self._ends.extend(end + size for size in accumulate(map(len, values)))

    def __getitem__(self, row: int) -> bytes:
        return bytes(self._bytes[self._ends[row - 1] if row else 0 : self._ends[row]])


def _hashes(values: Sequence[bytes | str]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(hash, values), dtype=np.int64, count=len(values))


def group(*columns: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A number per row, equal where all columns are: a seeded hash, so that no capture makes it collide."""
    key = np.full(len(columns[0]), _SEED, dtype=np.uint64)
    for column in columns:
        key ^= column.astype(np.uint64)
        key *= np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
        key *= np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(32)
    return key


class History:
    """Connections with a ClientHello, ordered by its time.

    Attributes:
        sni: The server name asked for, by row.
        alpn: The protocol that the ServerHello names, by row.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._columns: dict[str, npt.NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in _FIELDS}
        self._texts = (Texts(), Texts())
        count = 0
        for batch in batches:
            index = np.flatnonzero(
                (batch["SEEN"] != 0) & (batch["CLIENT_FLAGS"] >= 0) & (batch["HELLO_PACKET"] > 0)
            )
            if not len(index):
                continue
            taken = batch if len(index) == len(batch) else batch.take(index)
            self._reserve(count + len(taken))
            for name, values in _columns(taken).items():
                self._columns[name][count : count + len(taken)] = values
            self._texts[0].extend(taken.sni())
            self._texts[1].extend([texts.alpn for texts in taken.servers])
            count += len(taken)
        order = np.lexsort(tuple(self[name][:count] for name in ("CONNECTION", "CAPTURE", "HELLO_NS")))
        self._order = order.astype(np.uint32 if count < 1 << 32 else np.int64)
        for name, _ in _FIELDS:
            self._columns[name] = self._columns[name][self._order]

    def _reserve(self, count: int) -> None:
        """Have room: arrays grow in place, where that is possible, so that nothing is held twice."""
        if count > len(self["CAPTURE"]):
            capacity = max(count, len(self["CAPTURE"]) * 5 // 4, 4096)
            for values in self._columns.values():
                values.resize(capacity, refcheck=False)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        return self._columns[column]

    def value(self, column: str, row: int) -> int:
        """One number."""
        return int(self._columns[column][row])

    def sni(self, row: int) -> bytes:
        """The server name that the ClientHello asks for."""
        return self._texts[0][int(self._order[row])]

    def alpn(self, row: int) -> bytes:
        """The application protocol that the ServerHello names."""
        return self._texts[1][int(self._order[row])]

    def same_server(self, *more: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """Groups of one server: address, port and name asked for, and what else is given."""
        return group(self["SERVER_UPPER"], self["SERVER_LOWER"], self["PORT"], self["SNI_HASH"], *more)

    def same_pair(self, *more: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """Groups of one client address and one server address and port."""
        columns = ("CLIENT_UPPER", "CLIENT_LOWER", "SERVER_UPPER", "SERVER_LOWER", "PORT")
        return group(*(self[name] for name in columns), *more)

    def batch(self, row: int) -> Batch:
        """The connection as a batch of one row, for a Hit: its place and its addresses."""
        numbers = np.zeros((len(COLUMNS), 1), dtype=np.int64)
        for name in ("CAPTURE", "CONNECTION"):
            numbers[COLUMNS.index(name), 0] = self.value(name, row)
        addresses = [
            self.value(name, row) for name in ("CLIENT_UPPER", "CLIENT_LOWER", "SERVER_UPPER", "SERVER_LOWER")
        ]
        keys = np.array([[value] for value in (*addresses, self.value("PORT", row))], dtype=np.uint64)
        return Batch(numbers, keys, [NO_CLIENT], [NO_SERVER], [""])

    def packets(self, capture: int, *found: tuple[int, str]) -> tuple[int, ...]:
        """Numbers of packets (row, column), those that the capture has."""
        return tuple(
            self.value(column, row)
            for row, column in found
            if self.value("CAPTURE", row) == capture and self.value(column, row)
        )


def in_groups(keys: npt.NDArray[np.uint64], rows: Rows) -> tuple[Rows, Rows]:
    """Rows (in order of time) brought together by their group.

    Returns:
        The rows, and for each the position of its group's first among them.
    """
    order = np.argsort(keys[rows], kind="stable")
    rows = rows[order]
    found = keys[rows]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = found[1:] != found[:-1]
    return rows, np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))


def _columns(batch: Batch) -> dict[str, npt.NDArray[Any]]:
    """The columns of a batch, with who ended its handshakes and how."""
    columns: dict[str, npt.NDArray[Any]] = {name: batch[name] for name, _ in _FIELDS if name in COLUMNS}
    for name, server in (("CLIENT", False), ("SERVER", True)):
        columns[f"{name}_UPPER"], columns[f"{name}_LOWER"] = batch.addresses(server)
    columns["PORT"] = batch.ports(True)
    columns["SNI_HASH"] = _hashes(batch.sni())
    columns["JA4_HASH"] = _hashes([texts.ja4 for texts in batch.clients])
    columns["END_NS"] = np.where(batch["CLOSED_NS"] > 0, batch["CLOSED_NS"], batch["LAST_NS"])
    alert, alert_by, alert_packet = _alerts(batch)
    columns["ALERT"] = alert
    _failures(batch, columns, alert, alert_by, alert_packet)
    _injections(batch, columns, alert_by, alert_packet)
    return columns


def _alerts(batch: Batch) -> tuple[Rows, Rows, Rows]:
    """The fatal alert that ended the handshake: its description, side and packet; 0 without one."""
    description = np.maximum(batch["FATAL"] - 1, 0)
    side, packet = np.zeros_like(description), np.zeros_like(description)
    for row in np.flatnonzero(batch["FATAL"] > 0).tolist():
        for one in batch.alerts[row].split(";")[:-1]:
            by, level, _, at = one.split(" ")
            if level == "2":
                side[row], packet[row] = int(by), int(at)
                break
    return description, side, packet


def _failures(
    batch: Batch, columns: dict[str, npt.NDArray[Any]], alert: Rows, alert_by: Rows, alert_packet: Rows
) -> None:
    """FAILURE, FAILED_BY and FAILURE_PACKET of handshakes that ended before they were complete.

    Where bytes are missing a handshake only counts as failed if nothing shows that it went on.
    """
    state = batch["STATE"]
    answered = (batch["SERVER_FLAGS"] >= 0) | (batch["VERSION"] != 0)
    went_on = answered | (batch.side("CCS", False) > 0) | (batch.side("DATA", False) > 0)
    unknown = (state == State.UNKNOWN) & ~went_on & (batch.side("GAPS", True) == 0)
    incomplete = (
        (batch["ESTABLISHED"] == 0) & (_BEFORE_KEYS[state] | unknown) & (batch.side("PACKETS", True) > 0)
    )
    alerted = (batch["FATAL"] > 0) & (batch["ESTABLISHED"] == 0)
    reset = incomplete & (batch["RST_PACKET"] > 0)
    server_fin = batch.side("FLAGS", True) & _FIN != 0
    closed = incomplete & (server_fin | (batch.side("FLAGS", False) & _FIN != 0))
    failure = np.select(
        (alerted & np.isin(alert, FALLBACK_ALERTS), alerted, reset, closed, incomplete & ~answered),
        (ALERT, 0, RESET, CLOSE, PENDING),
    )
    # a RST often only answers the peer's FIN
    failure[(failure == RESET) & closed & (batch["RST_DIRECTION"] == batch["CLIENT"]) & server_fin] = CLOSE
    columns["FAILURE"] = failure
    columns["FAILED_BY"] = np.select(
        (failure == ALERT, failure == RESET, failure == CLOSE),
        (alert_by, batch["RST_DIRECTION"] ^ batch["CLIENT"], server_fin),
    )
    columns["FAILURE_PACKET"] = np.select(
        (failure == ALERT, failure == RESET), (alert_packet, batch["RST_PACKET"])
    )


def _injections(
    batch: Batch, columns: dict[str, npt.NDArray[Any]], alert_by: Rows, alert_packet: Rows
) -> None:
    """INJECTED: the RST or alert is not from the endpoint whose address it bears; TTL and ODD_TTL show it."""
    failure = columns["FAILURE"]
    direction = np.where(failure == RESET, batch["RST_DIRECTION"], alert_by ^ batch["CLIENT"])
    first, last, odd, odd_packet = (
        np.where(direction == 0, batch[f"{name}_0"], batch[f"{name}_1"])
        for name in ("TTL", "LAST_TTL", "ODD_TTL", "ODD_TTL_PACKET")
    )
    reset, alert = failure == RESET, failure == ALERT
    seen = np.where(reset, batch["RST_TTL"], odd)
    departs = (np.abs(seen - first) > TTL_SLACK) & (np.abs(seen - last) > TTL_SLACK)
    injected = np.where(reset & departs & (last > 0), TTL_OF_RESET, 0)
    injected |= np.where(reset & (batch["DATA_AFTER_RST"] > 0), DATA_AFTER_RESET, 0)
    injected |= np.where(alert & departs & (odd_packet == alert_packet) & (alert_packet > 0), TTL_OF_ALERT, 0)
    columns["INJECTED"], columns["TTL"], columns["ODD_TTL"] = injected, first, seen
