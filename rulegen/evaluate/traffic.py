"""Whose a packet is: its connection, its ends, and the findings that it proves.

In:  an Analysis with its table of packets.
Out: Traffic of one capture: columns by packet, and names for people.

Packets that belong to no TCP connection (UDP, ICMP, fragments) are told apart by addresses and ports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.analysis import Analysis
from analyzer.columns.schema import Kind
from analyzer.connections import address
from analyzer.model import Action, Finding, Side

Int64 = npt.NDArray[np.int64]

NONE: Final = -1
_COLUMNS: Final = (
    "kind", "src_hi", "src_lo", "dst_hi", "dst_lo", "sport", "dport", "connection", "direction",
    "seq", "payload_length",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ends:
    """Of a connection, or of packets between the same two ends."""

    connection: int | None
    """As in the analysis; None: not TCP."""
    protocol: str
    client: str
    server: str


class Holes:
    """Where streams lack what was dropped and never sent again."""

    def __init__(self, streams: Int64, first: dict[int, int]) -> None:
        self._streams = streams
        self._first = first

    def behind(self, row: int) -> bool:
        """Whether the packet of this row comes later than a hole in its stream."""
        return self._first.get(int(self._streams[row]), row) < row


class Traffic:
    """The packets of one capture."""

    def __init__(self, analysis: Analysis, capture: int) -> None:
        table = analysis.arrow("packets")
        rows = None
        if table is not None:
            # the rows of a capture come together, in the captures' order
            begin, end = np.searchsorted(table["capture"].to_numpy(), (capture, capture + 1))
            rows = table.slice(int(begin), int(end - begin))
        self._columns = {
            name: rows[name].to_numpy() if rows is not None else np.empty(0, np.int64) for name in _COLUMNS
        }
        self.connection: Int64 = self._columns["connection"].astype(np.int64)
        """Number of each packet's connection, or NONE."""
        self._client_sends = self._directions(analysis, capture)
        self.findings = [finding for finding in analysis.iter_findings() if finding.capture == capture]

    def __len__(self) -> int:
        return len(self.connection)

    def _directions(self, analysis: Analysis, capture: int) -> npt.NDArray[np.uint8]:
        """By connection, the direction that the client sends in; where no TLS tells, that of the first."""
        numbers, first = np.unique(self.connection, return_index=True)
        rows = dict(zip(numbers.tolist(), first.tolist(), strict=True))
        found = np.zeros(max(rows, default=NONE) + 2, np.uint8)
        for one in analysis.iter_connections():
            number, client = one["connection"], one["client"]
            assert isinstance(number, int)
            assert isinstance(client, dict)
            if one["capture"] == capture and number in rows:
                row = rows[number]
                sent = (self.source(row), int(self._columns["sport"][row]))
                direction = int(self._columns["direction"][row])
                found[number] = direction if sent == (client["address"], client["port"]) else 1 - direction
        return found

    def source(self, row: int) -> str:
        """Address of who sent the packet of this row."""
        return address(int(self._columns["src_hi"][row]), int(self._columns["src_lo"][row]))

    def destination(self, row: int) -> str:
        """Address of whom it was sent to."""
        return address(int(self._columns["dst_hi"][row]), int(self._columns["dst_lo"][row]))

    def senders(self) -> npt.NDArray[np.uint8]:
        """Side of each packet's sender. Without TCP: who sent first between two addresses is the client."""
        side = self._columns["direction"].astype(np.uint8) ^ self._client_sends[self.connection]
        first: dict[frozenset[str], str] = {}
        for row in np.flatnonzero(self.connection == NONE).tolist():
            source, pair = self.source(row), frozenset((self.source(row), self.destination(row)))
            side[row] = Side.CLIENT if first.setdefault(pair, source) == source else Side.SERVER
        return side

    def ends(self, row: int) -> Ends:
        """Connection of the packet of this row, with the client first where that is known."""
        number = int(self.connection[row])
        sent = _end(self.source(row), int(self._columns["sport"][row]))
        to = _end(self.destination(row), int(self._columns["dport"][row]))
        if number == NONE:
            kind = Kind(int(self._columns["kind"][row]))
            # both directions are the same conversation
            client, server = sorted((sent, to))
            return Ends(None, "UDP" if kind is Kind.UDP else "IP", client, server)
        if int(self._columns["direction"][row]) != int(self._client_sends[number]):
            sent, to = to, sent
        return Ends(number, "TCP", sent, to)

    def holes(self, dropped: Int64, passes: npt.NDArray[np.bool_]) -> Holes:
        """The first packet of each stream with payload that was dropped and does not get through later.

        Args:
            dropped: Rows of packets that were dropped.
            passes: Of each row whether it gets through.
        """
        streams = np.where(self.connection == NONE, NONE, self.connection * 2 + self._columns["direction"])
        begin = self._columns["seq"].astype(np.int64)
        end = begin + self._columns["payload_length"]
        attacking = np.unique([streams[row] for one in self.attacks() for row in self.proof(one)])
        carries = (streams != NONE) & (end > begin) & np.isin(streams, attacking)
        again: dict[int, list[int]] = {}
        for row in np.flatnonzero(carries & passes).tolist():
            again.setdefault(int(streams[row]), []).append(row)
        first: dict[int, int] = {}
        for row in dropped[carries[dropped]].tolist():
            stream = int(streams[row])
            if stream not in first and not any(
                other > row and begin[other] <= begin[row] and end[other] >= end[row]
                for other in again.get(stream, ())
            ):
                first[stream] = row
        return Holes(streams, first)

    def attacks(self) -> Iterator[Finding]:
        """Findings of class A: this endpoint attacked."""
        return (finding for finding in self.findings if finding.action is Action.BLOCK)

    def proof(self, finding: Finding) -> list[int]:
        """Rows of the packets that did it: the offender's, where that is known, or all that prove it."""
        rows = [number - 1 for number in finding.packets if 0 < number <= len(self)]
        if finding.offender is None:
            return rows
        return [row for row in rows if self.source(row) == finding.offender] or rows


def _end(name: str, port: int) -> str:
    if not port:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
