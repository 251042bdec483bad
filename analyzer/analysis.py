"""What `analyze` gives: captures, connections and findings, as rows and as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from analyzer import connection_json, connections
from analyzer.capture import CaptureInfo
from analyzer.connections import Batch
from analyzer.model import Finding
from analyzer.spool import ConnectionSpool, Directory, FindingSpool
from analyzer.tables import Recorder, TableSpool, spools

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Analysis:
    """The outcome of an analysis.

    Attributes:
        captures: What was read of each capture, in the order given.
        totals: packets, tcp_connections, tls_connections, findings.
        failures: Detectors that failed, by name, and how: their findings are incomplete.
    """

    def __init__(self, tables: Collection[str] = ()) -> None:
        self.captures: list[CaptureInfo] = []
        self.totals: dict[str, int] = {
            "packets": 0,
            "tcp_connections": 0,
            "tls_connections": 0,
            "findings": 0,
        }
        self.failures: dict[str, str] = {}
        self._directory = Directory()
        self._connections = ConnectionSpool(self._directory)
        self._findings = FindingSpool(self._directory)
        self._tables = spools(tables, self._directory)

    def close(self) -> None:
        """Remove what was written to disk; rows that were there can't be read any more."""
        self._directory.close()

    def recorder(self, capture: int) -> Recorder | None:
        """Who keeps the tables on request for a capture; None where none was asked for."""
        return Recorder(self._tables, capture) if self._tables else None

    def add(self, batch: Batch, findings: list[Finding]) -> None:
        """Take finished connections and what was found in them."""
        self._connections.add(batch)
        self._findings.add(findings)
        self.totals["tls_connections"] += len(batch)
        self.totals["findings"] += len(findings)

    def batches(self) -> Iterator[Batch]:
        """The connections as columns, in batches."""
        return self._connections.batches()

    def iter_connections(self) -> Iterator[dict[str, object]]:
        """TLS connections as rows of the published schema, by capture and number."""
        for batch in self._connections.in_order():
            yield from connections.rows(batch)

    def connections_json(self, *, begin: bytes, between: bytes) -> Iterator[bytes]:
        """The same rows as JSON objects, several at a time.

        Args:
            begin: What an object begins with: `{`, or what else is to be in it with a comma behind.
            between: What stands between two objects.
        """
        for batch in self._connections.in_order():
            yield connection_json.connections_json(batch, begin=begin, between=between)

    def iter_findings(self) -> Iterator[Finding]:
        """Findings, worst first, then by capture and connection."""
        return iter(self._findings.in_order())

    @cached_property
    def connections(self) -> pd.DataFrame:
        """TLS connections, one row each."""
        from analyzer import frames

        return frames.connections(self)

    @cached_property
    def findings(self) -> pd.DataFrame:
        """Findings, one row each."""
        from analyzer import frames

        return frames.findings(self)

    @cached_property
    def packets(self) -> pd.DataFrame:
        """Packets, one row each (analyze(..., tables=["packets"]))."""
        return self._frame("packets")

    @cached_property
    def records(self) -> pd.DataFrame:
        """TLS records, one row each (analyze(..., tables=["records"]))."""
        return self._frame("records")

    @cached_property
    def messages(self) -> pd.DataFrame:
        """Messages that can be read, one row each (analyze(..., tables=["messages"]))."""
        return self._frame("messages")

    @cached_property
    def certificates(self) -> pd.DataFrame:
        """Certificates sent in clear (analyze(..., tables=["certificates"]))."""
        return self._frame("certificates")

    def arrow(self, name: str) -> pa.Table | None:
        """A table that was kept, as it was stored; None where it has no rows."""
        return self._kept(name).table()

    def _frame(self, name: str) -> pd.DataFrame:
        from analyzer import frames

        return frames.table(name, self._kept(name))

    def _kept(self, name: str) -> TableSpool:
        if name not in self._tables:
            raise ValueError(f'the table was not kept: call analyze(..., tables=["{name}"])')
        return self._tables[name]
