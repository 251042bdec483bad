"""The whole flow, top to bottom: analyze(path) -> Analysis.

    capture -> columns -> flows -> streams -> tls records -> tls events -> findings

A capture is read in blocks. Each block passes the stages; what must survive it lives in their tables, one
slot per open connection. Connections that are over leave the tables as a batch of columns, are judged by
the detectors and go to the store.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analyzer import connections, limits
from analyzer.analysis import Analysis
from analyzer.capture import CaptureInfo, CaptureIssue, RawPackets, framing
from analyzer.capture.source import open_capture
from analyzer.columns import decode, json_rows
from analyzer.columns.fragments import FragmentReassembler
from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind as PacketKind
from analyzer.detect import DETECTORS, RULES
from analyzer.detect.base import Detector, Evidence, Hit, findings
from analyzer.errors import CaptureError, SlowKernels
from analyzer.flows import table
from analyzer.flows.table import Field, FlowTable
from analyzer.profile import ProfileJudge
from analyzer.streams import reassembly
from analyzer.streams.reassembly import Reassembler
from analyzer.tls import hello, nf_conntrack_tls, records, tracker
from analyzer.tls.records import RecordWalk
from analyzer.tls.tracker import Event, Tracker
from analyzer.wire.linktypes import name_of

PROFILES = ("default", "nf_conntrack_tls")

Progress = Callable[[int, int], None]
"""Called with the bytes of the stored captures consumed so far, and the packets."""


def analyze(
    paths: str | Path | Sequence[str | Path],
    *,
    profile: str = "default",
    ports: Sequence[int] = (443,),
    tables: Collection[str] = (),
    progress: Progress | None = None,
) -> Analysis:
    """Analyse captures.

    Args:
        paths: A capture, or several: files, "-" for standard input, fsspec URLs.
        profile: "default", or "nf_conntrack_tls" for just the verdicts of that kernel module.
        ports: Server ports that the profile nf_conntrack_tls looks at.
        tables: Tables to keep besides connections and findings: packets, records, messages, certificates.
        progress: Called after each block.

    Raises:
        CaptureError: nothing of a capture was readable.
        ValueError: an unknown profile or table.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; there are {', '.join(PROFILES)}")
    slow = uncompiled()
    if slow:
        warnings.warn(
            f"{len(slow)} kernels are not compiled, so this is slow: install a C compiler and reinstall",
            SlowKernels,
            stacklevel=2,
        )
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    analysis = Analysis(tables)
    done = packets = 0
    unreadable: list[CaptureError] = []
    for index, path in enumerate(named):
        engine = Engine(
            analysis,
            index,
            judge=ProfileJudge(index, tuple(ports)) if profile == "nf_conntrack_tls" else None,
        )

        def report(position: int, base: int = done, count: int = packets, engine: Engine = engine) -> None:
            if progress is not None:
                progress(base + position, count + engine.info.packets)

        try:
            engine.run(str(path), report)
            if not engine.info.packets and engine.info.errors:
                first = engine.info.errors[0]
                raise CaptureError(engine.info.path, first.offset, first.why)
        except CaptureError as error:
            if len(named) == 1:
                raise
            engine.info = CaptureInfo(error.path, errors=[CaptureIssue(error.offset, error.why)])
            unreadable.append(error)
        analysis.captures.append(engine.info)
        done += engine.position
        packets += engine.info.packets
    if len(unreadable) == len(named):
        raise unreadable[0]
    if profile == "default":
        across = (
            hit
            for detector in DETECTORS
            if detector.across
            for hit in attempt(detector, analysis, detector.across(analysis.batches()))
        )
        analysis.add(connections.join([]), findings(RULES, across))
    return analysis


def uncompiled() -> tuple[str, ...]:
    """Kernels that run as plain Python, because no compiler worked when tlswall was installed."""
    kernels = (framing, decode, table, reassembly, records, tracker, hello, nf_conntrack_tls, json_rows)
    return tuple(kernel.__name__ for kernel in kernels if not kernel.COMPILED)


def attempt(detector: Detector, analysis: Analysis, hits: Iterator[Hit]) -> Iterator[Hit]:
    """A detector's hits; one that fails is named in the analysis, and the others still run."""
    try:
        yield from hits
    except Exception as error:
        analysis.failures[detector.name] = f"{type(error).__name__}: {error}"


class Engine:
    """The stages with their tables, for one capture."""

    def __init__(self, analysis: Analysis, capture: int, *, judge: ProfileJudge | None = None) -> None:
        self._recorder = analysis.recorder(capture)
        self.info = CaptureInfo("")
        self.position = 0
        self.flows = FlowTable()
        self.streams = Reassembler()
        self.walk = RecordWalk()
        self.tracker = Tracker(messages=self._recorder is not None and self._recorder.messages)
        self._analysis = analysis
        self._capture = capture
        self._judge = judge
        self._events: list[npt.NDArray[np.int64]] = []
        self._carried = np.empty(0, dtype=np.uint8)
        self._headroom = self._top = 0

    def blocks(self, path: str, report: Callable[[int], None]) -> Iterator[tuple[RawPackets, Columns]]:
        """The decoded blocks of a capture; each buffer begins with what the block before left over."""
        with open_capture(path) as reader:
            self.info = reader.info
            fragments = FragmentReassembler()
            unsupported: set[int] = set()
            for raw in reader:
                self._headroom, self._top = raw.headroom, len(self._carried)
                raw.buffer[: self._top] = self._carried
                columns = decode.decode(
                    raw.buffer, raw.offset, raw.captured, raw.wire, raw.time_ns, raw.linktype, raw.first
                )
                if (columns.kind == PacketKind.FRAGMENT).any():
                    fragments.complete(raw, columns, self._allocate)
                unsupported.update(decode.unsupported_linktypes(raw.linktype))
                yield raw, columns
                self.position = reader.position()
                report(self.position)
            self.position = reader.position()
            for linktype in sorted(unsupported):
                self.info.errors.append(
                    CaptureIssue(
                        0,
                        f"link type {linktype} ({name_of(linktype)}) is not decoded, only counted",
                    )
                )

    def _allocate(self, count: int) -> int | None:
        """Room for a reassembled datagram in front of the block."""
        if self._top + count > self._headroom:
            return None
        self._top += count
        return self._top - count

    def run(self, path: str, report: Callable[[int], None]) -> None:
        """Read a capture to its end, and retire what is over."""
        buffer = np.empty(0, dtype=np.uint8)
        tidied = 0
        for raw, columns in self.blocks(path, report):
            buffer = raw.buffer
            flow, direction, begins = self.flows.track(columns)
            if self._judge is not None:
                self._analysis.add(
                    connections.join([]),
                    list(self._judge.judge(raw, columns, flow, direction, begins, self.flows)),
                )
            if self._recorder is not None:
                self._recorder.packets(columns, flow, direction, self.flows)
            capacity = self.flows.capacity
            self.walk.reserve(capacity)
            self.tracker.reserve(capacity)
            if len(self.flows.reused):
                self.walk.clear(self.flows.reused)
                self.tracker.clear(self.flows.reused)
            chunks = self.streams.reassemble(columns, flow, direction, begins, capacity)
            self._follow(buffer, chunks)
            if self.info.bytes >= tidied + limits.TIDY_BYTES and len(columns):
                tidied = self.info.bytes
                now_ns = int(columns.time_ns.max())
                self._follow(buffer, self.streams.expire(now_ns))
                self._retire(buffer, self.flows.due(now_ns))
            self._carried = self.streams.carry(buffer)
        buffer[: len(self._carried)] = self._carried
        self._retire(buffer, self.flows.live())
        totals = self._analysis.totals
        totals["packets"] += self.info.packets
        totals["tcp_connections"] += self.flows.connections

    def _follow(self, buffer: npt.NDArray[np.uint8], chunks: npt.NDArray[np.int64]) -> None:
        """Chunks -> records -> events."""
        at = 0
        beats = len(self.tracker.beats)
        while at < len(chunks):
            at, records = self.walk.walk(buffer, chunks, at)
            row = 0
            while row < len(records):
                row, events = self.tracker.track(buffer, records, self.flows.fields, Field.OPENER, row)
                if len(events):
                    events[:, Event.CONNECTION] = self.flows.fields[
                        events[:, Event.CONNECTION], Field.CONNECTION
                    ]
                    self._events.append(events)
                if self._recorder is not None:
                    self._recorder.events(events, self.tracker.beats[beats:], self.flows, self.tracker.bodies)
                    self.tracker.bodies.clear()
                    beats = len(self.tracker.beats)
            if self._recorder is not None:
                self._recorder.records(records, self.flows, self.tracker)

    def _retire(self, buffer: npt.NDArray[np.uint8], slots: npt.NDArray[np.int32]) -> None:
        """Judge connections that are over, some at a time, and free their slots."""
        slots = slots[np.argsort(self.flows.fields[slots, Field.CONNECTION], kind="stable")]
        for begin in range(0, len(slots), limits.RETIRED_AT_ONCE):
            self._retire_some(buffer, slots[begin : begin + limits.RETIRED_AT_ONCE])

    def _retire_some(self, buffer: npt.NDArray[np.uint8], slots: npt.NDArray[np.int32]) -> None:
        self._follow(buffer, self.streams.flush(slots))
        batch = connections.collect(slots, self._capture, self.flows, self.streams, self.walk, self.tracker)
        events = np.concatenate(self._events) if self._events else np.empty((0, len(Event)), dtype=np.int64)
        over = np.isin(events[:, Event.CONNECTION], batch["CONNECTION"])
        self._events = [events[~over]] if not over.all() else []
        beats = self.tracker.take_beats(slots, batch["CONNECTION"])
        has_tls = batch["SEEN"] != 0
        evidence = Evidence(batch.take(has_tls), events[over], beats, batch.take(~has_tls))
        connections.attach_alerts(evidence.batch, evidence.events)
        self._analysis.add(
            evidence.batch, findings(RULES, self._hits(evidence)) if self._judge is None else []
        )
        self.tracker.retire(slots)
        self.flows.retire(slots)

    def _hits(self, evidence: Evidence) -> Iterator[Hit]:
        for detector in DETECTORS:
            if detector.within is not None:
                yield from attempt(detector, self._analysis, detector.within(evidence))
