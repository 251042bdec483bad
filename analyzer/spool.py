"""Rows that wait for the end of the analysis: in memory up to a limit, then sorted into Arrow files.

In:  batches of connections and findings, in the order in which connections end.
Out: the same in the order of their keys, whatever their number: runs are sorted when written and merged
when read.

pyarrow is only imported when something is written: a small capture never needs it.
"""

from __future__ import annotations

import heapq
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from analyzer import limits
from analyzer.connections import COLUMNS, Batch, join
from analyzer.model import Action, Finding, Severity
from analyzer.tls.hello import ClientTexts, ServerTexts

if TYPE_CHECKING:
    import tempfile

_READ_ROWS = 1024

FindingKey = tuple[int, int, int, str, tuple[int, ...]]


class Directory:
    """A temporary directory that is made when it is first needed and goes with its owner."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def close(self) -> None:
        """Remove it now."""
        if self._directory is not None:
            self._directory.cleanup()

    def file(self) -> Path:
        """A path for one more file."""
        if self._directory is None:
            import tempfile

            self._directory = tempfile.TemporaryDirectory(prefix="tlswall-", ignore_cleanup_errors=True)
            weakref.finalize(self, self._directory.cleanup)
        self._files += 1
        return Path(self._directory.name) / f"{self._files}.arrow"


class ConnectionSpool:
    """Finished connections."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._waiting: list[Batch] = []
        self._bytes = 0
        self._files: list[tuple[int, Path]] = []
        """With the first key of each."""
        self.count = 0

    def add(self, batch: Batch) -> None:
        """Take a batch; write what waits once it is too much."""
        if not len(batch):
            return
        self.count += len(batch)
        self._waiting.append(batch)
        self._bytes += len(batch) * limits.CONNECTION_ROW_BYTES
        if self._bytes > limits.SPILL_BYTES:
            self._write(self._run())
            self._waiting, self._bytes = [], 0

    def batches(self) -> Iterator[Batch]:
        """All connections in batches of bounded size, in any order."""
        for _, path in self._files:
            yield from self._read(path)
        yield from self._waiting

    def in_order(self) -> Iterator[Batch]:
        """All connections in batches, by capture and number over all."""
        if self._waiting and not _ordered(self._waiting):
            self._waiting = [self._run()]
        if not self._files:
            yield from self._waiting
            return
        runs = [(first, self._read(path)) for first, path in self._files]
        if self._waiting:
            slices = (part for batch in self._waiting for part in _slices(batch))
            runs.append((int(_keys(self._waiting[0])[0]), slices))
        yield from _merged(runs)

    def _run(self) -> Batch:
        """What waits, as one batch in order."""
        batch = join(self._waiting)
        return batch.take(np.argsort(_keys(batch), kind="stable"))

    def _write(self, batch: Batch) -> None:
        import pyarrow as pa

        columns: dict[str, Any] = {
            **{name: pa.array(values) for name, values in zip(COLUMNS, batch.numbers, strict=True)},
            **{f"key_{index}": pa.array(values) for index, values in enumerate(batch.keys)},
            "alerts": pa.array(batch.alerts, type=pa.string()),
        }
        for prefix, texts in (("client", batch.clients), ("server", batch.servers)):
            for name, values in zip(texts[0]._fields, zip(*texts, strict=True), strict=True):
                kind = pa.string() if isinstance(values[0], str) else pa.binary()
                columns[f"{prefix}_{name}"] = pa.array(values, type=kind)
        table = pa.table(columns)
        path = self._directory.file()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=_READ_ROWS)
        self._files.append((int(_keys(batch)[0]), path))

    @staticmethod
    def _read(path: Path) -> Iterator[Batch]:
        import pyarrow as pa

        with pa.OSFile(str(path), "rb") as source:
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                rows = reader.get_batch(index)
                keys = [name for name in rows.schema.names if name.startswith("key_")]
                yield Batch(
                    np.stack([rows[name].to_numpy() for name in COLUMNS]),
                    np.stack([rows[name].to_numpy() for name in keys]),
                    [ClientTexts(*texts) for texts in _texts(rows, "client", ClientTexts._fields)],
                    [ServerTexts(*texts) for texts in _texts(rows, "server", ServerTexts._fields)],
                    rows["alerts"].to_pylist(),
                )


def _texts(rows: Any, prefix: str, fields: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows[f"{prefix}_{name}"].to_pylist() for name in fields), strict=True)


def _ordered(batches: list[Batch]) -> bool:
    """Whether their rows, one batch after the other, are in order."""
    keys = np.concatenate([_keys(batch) for batch in batches])
    return bool((keys[1:] >= keys[:-1]).all())


def _slices(batch: Batch) -> Iterator[Batch]:
    for begin in range(0, len(batch), _READ_ROWS):
        yield batch.take(np.arange(begin, min(begin + _READ_ROWS, len(batch))))


def _merged(runs: list[tuple[int, Iterator[Batch]]]) -> Iterator[Batch]:
    """Merge sorted runs: always take what is below the smallest last key of the runs' current batches.

    Args:
        runs: The first key of each and its batches; a run is opened when its first key is due.
    """
    waiting = sorted(runs, key=lambda run: run[0], reverse=True)
    current: list[tuple[Iterator[Batch], Batch]] = []
    while current or waiting:
        last = min((int(_keys(batch)[-1]) for _, batch in current), default=waiting[-1][0] if waiting else 0)
        while waiting and waiting[-1][0] <= last:
            run = waiting.pop()[1]
            batch = next(run)
            last = min(last, int(_keys(batch)[-1])) if current else int(_keys(batch)[-1])
            current.append((run, batch))
        ready = []
        rest = []
        for run, batch in current:
            upto = int(np.searchsorted(_keys(batch), last, side="right"))
            if upto:
                ready.append(batch.take(np.arange(upto)))
            left: Batch | None = batch.take(np.arange(upto, len(batch)))
            if left is not None and not len(left):
                left = next(run, None)
            if left is not None:
                rest.append((run, left))
        merged = join(ready)
        yield merged.take(np.argsort(_keys(merged), kind="stable"))
        current = rest


def _keys(batch: Batch) -> Any:
    return (batch["CAPTURE"] << 40) | batch["CONNECTION"]


class FindingSpool:
    """Findings, worst first when read."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._waiting: list[Finding] = []
        self._files: list[Path] = []
        self.count = 0

    def add(self, findings: list[Finding]) -> None:
        """Take findings; write what waits once it is too much."""
        self.count += len(findings)
        self._waiting.extend(findings)
        if len(self._waiting) > limits.SPILL_FINDINGS:
            self._write(sorted(self._waiting, key=_finding_key))
            self._waiting = []

    def in_order(self) -> Iterator[Finding]:
        """Findings by severity (worst first), capture, connection and id."""
        self._waiting.sort(key=_finding_key)
        if not self._files:
            return iter(self._waiting)
        return heapq.merge(*(self._read(path) for path in self._files), self._waiting, key=_finding_key)

    def _write(self, findings: list[Finding]) -> None:
        import pyarrow as pa

        path = self._directory.file()
        schema = pa.schema([("finding", pa.binary())])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for begin in range(0, len(findings), _READ_ROWS):
                rows = [_packed(finding) for finding in findings[begin : begin + _READ_ROWS]]
                writer.write_batch(pa.record_batch([pa.array(rows, type=pa.binary())], schema=schema))
        self._files.append(path)

    @staticmethod
    def _read(path: Path) -> Iterator[Finding]:
        import pyarrow as pa

        with pa.OSFile(str(path), "rb") as source:
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                for packed in reader.get_batch(index)["finding"].to_pylist():
                    yield _unpacked(packed)


def _finding_key(finding: Finding) -> FindingKey:
    connection = finding.connection if finding.connection is not None else 1 << 62
    return -int(finding.severity), finding.capture, connection, finding.id, finding.packets


def _packed(finding: Finding) -> bytes:
    row = finding._asdict()
    row["severity"], row["action"] = int(finding.severity), str(finding.action)
    return orjson.dumps(row)


def _unpacked(packed: bytes) -> Finding:
    row = orjson.loads(packed)
    row["severity"], row["action"] = Severity(row["severity"]), Action(row["action"])
    for name in ("packets", "references", "victims"):
        row[name] = tuple(row[name])
    return Finding(**row)
