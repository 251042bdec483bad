"""The tables that are only kept when asked for: packets, records, messages, certificates.

In:  what the stages hand over, block by block (Recorder).
Out: columns, in memory up to a limit and then in Arrow files; frames.py makes DataFrames of them.

A connection's number is Wireshark's tcp.stream in all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.columns.packets import Columns
from analyzer.columns.schema import PACKETS
from analyzer.flows.table import Field, FlowTable
from analyzer.spool import Directory
from analyzer.tls.heartbeat import Beat
from analyzer.tls.records import FIRST, LOW_RUN, SSL2, TEXT, Record
from analyzer.tls.tracker import Event, Kind, Tls, Tracker

TABLES: Final = ("packets", "records", "messages", "certificates")

_HANDSHAKE: Final = 22
_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_HEARTBEAT: Final = 24
_CERTIFICATE: Final = 11

Chunk = Mapping[str, npt.NDArray[Any] | Sequence[Any]]


class TableSpool:
    """Chunks of one table's columns, in order."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._waiting: list[Chunk] = []
        self._bytes = 0
        self._files: list[Path] = []

    def add(self, chunk: Chunk) -> None:
        """Take rows; write what waits once it is too much."""
        rows = len(next(iter(chunk.values())))
        if not rows:
            return
        self._waiting.append(chunk)
        self._bytes += sum(
            column.nbytes if isinstance(column, np.ndarray) else sum(64 + len(value) for value in column)
            for column in chunk.values()
        )
        if self._bytes > limits.SPILL_BYTES:
            self._write()

    def table(self) -> Any:
        """All rows as a pyarrow Table; what is in files is mapped, not read."""
        import pyarrow as pa

        parts = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in self._files]
        parts.extend(pa.table(dict(chunk)) for chunk in self._waiting)
        return pa.concat_tables(parts) if parts else None

    def _write(self) -> None:
        import pyarrow as pa

        path = self._directory.file()
        table = pa.concat_tables([pa.table(dict(chunk)) for chunk in self._waiting])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self._files.append(path)
        self._waiting, self._bytes = [], 0


class Recorder:
    """Keeps the tables that were asked for, for one capture."""

    def __init__(self, spools: Mapping[str, TableSpool], capture: int) -> None:
        self._spools = spools
        self._capture = capture

    @property
    def messages(self) -> bool:
        """Whether message bodies are needed."""
        return "messages" in self._spools or "certificates" in self._spools

    def packets(
        self,
        columns: Columns,
        flow: npt.NDArray[np.int64],
        direction: npt.NDArray[np.uint8],
        flows: FlowTable,
    ) -> None:
        """Keep a block's packets; connection is -1 and direction 0 where there is no TCP."""
        if "packets" not in self._spools:
            return
        chunk: dict[str, npt.NDArray[Any]] = {"capture": np.full(len(columns), self._capture, dtype=np.int32)}
        for column in PACKETS:
            if not column.name.endswith("_offset"):
                chunk[column.name] = getattr(columns, column.name).copy()
        chunk["payload_offset"] = (columns.payload_offset - columns.network_offset).astype(np.int32)
        chunk["connection"] = np.where(flow >= 0, flows.fields[flow, Field.CONNECTION], -1)
        chunk["direction"] = direction
        self._spools["packets"].add(chunk)

    def records(self, rows: npt.NDArray[np.int64], flows: FlowTable, tracker: Tracker) -> None:
        """Keep record rows that the tracker has followed."""
        if "records" not in self._spools:
            return
        rows = rows[
            ((rows[:, Record.FLAGS] & FIRST) != 0) & ((rows[:, Record.FLAGS] & (LOW_RUN | TEXT)) == 0)
        ]
        slots = rows[:, Record.STREAM] >> 1
        ssl2 = rows[:, Record.TYPE] >= SSL2
        self._spools["records"].add(
            {
                "capture": np.full(len(rows), self._capture, dtype=np.int32),
                "connection": flows.fields[slots, Field.CONNECTION],
                "packet": rows[:, Record.PACKET],
                "side": ((rows[:, Record.STREAM] & 1) ^ tracker.state[slots, Tls.CLIENT]).astype(np.uint8),
                "time_ns": rows[:, Record.TIME_NS],
                "stream_offset": rows[:, Record.POSITION],
                "content_type": np.where(ssl2, 0, rows[:, Record.TYPE]).astype(np.uint8),
                "ssl2": ssl2,
                "version": rows[:, Record.VERSION].astype(np.uint16),
                "length": rows[:, Record.LENGTH].astype(np.uint16),
            }
        )

    def events(
        self, events: npt.NDArray[np.int64], beats: Sequence[Beat], flows: FlowTable, bodies: Sequence[bytes]
    ) -> None:
        """Keep messages that can be read: handshake messages, key changes, alerts, heartbeats.

        Args:
            events: Event rows with connection numbers.
            beats: Heartbeat rows since the last call, with slots.
            flows: The flow table.
            bodies: Bodies of the MESSAGE events, in their order.
        """
        if not self.messages:
            return
        rows: list[tuple[Any, ...]] = []
        body = iter(bodies)
        for event in events.tolist():
            kind = event[Event.KIND]
            if kind == Kind.MESSAGE:
                content_type, message, length, data = (
                    _HANDSHAKE,
                    event[Event.MESSAGE],
                    event[Event.VALUE],
                    next(body),
                )
            elif kind == Kind.CHANGE_CIPHER_SPEC:
                content_type, message, length, data = _CHANGE_CIPHER_SPEC, 1, event[Event.LENGTH], b""
            elif kind == Kind.ALERT:
                content_type, message, length = _ALERT, event[Event.MESSAGE] & 0xFF, 2
                data = event[Event.MESSAGE].to_bytes(2, "big")
            else:
                continue
            rows.append(
                (event[Event.CONNECTION], event[Event.PACKET], event[Event.LAST_PACKET], event[Event.SIDE],
                 event[Event.TIME_NS], content_type, message, length, data)
            )  # fmt: skip
        for beat in beats:
            if beat.clear:
                number = int(flows.fields[beat.connection, Field.CONNECTION])
                rows.append(
                    (
                        number,
                        beat.packet,
                        beat.last_packet,
                        int(beat.side),
                        beat.time_ns,
                        _HEARTBEAT,
                        beat.role,
                        beat.length,
                        b"",
                    )
                )
        names = (
            "connection",
            "packet",
            "last_packet",
            "side",
            "time_ns",
            "content_type",
            "message_type",
            "length",
            "body",
        )
        if rows and "messages" in self._spools:
            chunk = {name: [row[at] for row in rows] for at, name in enumerate(names[:-1])}
            self._spools["messages"].add(
                {
                    "capture": np.full(len(rows), self._capture, dtype=np.int32),
                    **{name: np.array(values, dtype=np.int64) for name, values in chunk.items()},
                    "body": [row[-1] for row in rows],
                }
            )
        if "certificates" in self._spools:
            for row in rows:
                if row[5] == _HANDSHAKE and row[6] == _CERTIFICATE:
                    self._certificates(row)

    def _certificates(self, row: tuple[Any, ...]) -> None:
        """Keep the certificates of a Certificate message in clear (RFC 5246 7.4.2)."""
        body: bytes = row[-1]
        ders: list[bytes] = []
        at = 3
        while at + 3 <= len(body) and len(ders) < limits.CERTIFICATES_PER_MESSAGE:
            size = int.from_bytes(body[at : at + 3], "big")
            ders.append(body[at + 3 : at + 3 + size])
            at += 3 + size
        count = len(ders)
        if count:
            self._spools["certificates"].add(
                {
                    "capture": np.full(count, self._capture, dtype=np.int32),
                    "connection": np.full(count, row[0]),
                    "packet": np.full(count, row[2]),
                    "side": np.full(count, row[3]),
                    "time_ns": np.full(count, row[4]),
                    "position": np.arange(count),
                    "der": ders,
                }
            )


def spools(wanted: Collection[str], directory: Directory) -> dict[str, TableSpool]:
    """A spool for each table that is wanted.

    Raises:
        ValueError: an unknown table.
    """
    unknown = set(wanted) - set(TABLES)
    if unknown:
        raise ValueError(f"unknown table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    return {name: TableSpool(directory) for name in TABLES if name in wanted}
