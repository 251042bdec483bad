"""One pass over the findings and one over the connections: what is counted, and the few that are kept.

In:  an analysis.
Out: kinds of findings with some examples, counts of connections with the rows that will be shown.

What is kept is bounded by the two limits below, not by the capture; without them (full detail) it is
everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from analyzer.model import Action, Finding, Severity
from analyzer.report.base import Analysed

EXAMPLES: Final = 3
"""Findings of a kind that are shown one by one."""

CONNECTIONS: Final = 25
"""Connections that are listed: about a screen."""

UNKNOWN: Final = "unknown"

Key = tuple[int, int]
"""Capture and connection."""

Row = Any
"""A row of iter_connections. Its shape is the published schema's, which the tests hold."""


@dataclass(slots=True)
class Kind:
    """The findings of one severity and id."""

    first: Finding
    count: int = 0
    connections: int = 0
    kept: list[Finding] = field(default_factory=list)
    last: Key | None = None


@dataclass(slots=True)
class Tally:
    kinds: list[Kind]
    worst: dict[Key, Severity]
    """Of the connections that are shown or named."""
    connections: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    starttls: Counter[str] = field(default_factory=Counter)
    established: int = 0
    incomplete: int = 0
    """Connections not seen whole."""
    shown: list[Row] = field(default_factory=list)
    named: dict[Key, Row] = field(default_factory=dict)
    """Connections that a kept finding is about."""


def tally(analysis: Analysed, *, full: bool) -> Tally:
    """Counts an analysis; `full` keeps every finding and every connection."""
    shown = None if full else {key(row) for row in islice(analysis.iter_connections(), CONNECTIONS)}
    kinds, worst = _findings(analysis.iter_findings(), None if full else EXAMPLES, shown)
    result = Tally(kinds=kinds, worst=worst)
    about = {(kept.capture, kept.connection) for kind in kinds for kept in kind.kept}
    row: Row
    for row in analysis.iter_connections():
        result.connections += 1
        result.versions[row["version"] or UNKNOWN] += 1
        result.resumed[row["resumed"]] += 1
        if row["starttls"]:
            result.starttls[row["starttls"]] += 1
        result.established += bool(row["established"])
        result.incomplete += not _whole(row["sync"])
        if key(row) in about:
            result.named[key(row)] = row
        if shown is None or key(row) in shown:
            result.shown.append(row)
    return result


def key(row: Row) -> Key:
    return row["capture"], row["connection"]


def _findings(
    findings: Iterator[Finding], examples: int | None, shown: Container[Key] | None
) -> tuple[list[Kind], dict[Key, Severity]]:
    kinds: dict[tuple[Severity, str], Kind] = {}
    worst: dict[Key, Severity] = {}
    for finding in findings:
        kind = kinds.get((finding.severity, finding.id))
        if kind is None:
            kind = kinds[finding.severity, finding.id] = Kind(finding)
        kind.count += 1
        if examples is None or len(kind.kept) < examples:
            kind.kept.append(finding)
        if finding.connection is None:
            continue
        connection = (finding.capture, finding.connection)
        # They come ordered by connection within a severity, so a change is a further one.
        if kind.last != connection:
            kind.last = connection
            kind.connections += 1
        if shown is None or connection in shown:
            worst.setdefault(connection, finding.severity)
    return sorted(kinds.values(), key=_rank), worst


def _rank(kind: Kind) -> tuple[int, int, str]:
    """Worst first, then attacks before suspicions and postures."""
    return -kind.first.severity, list(Action).index(kind.first.action), kind.first.id


def _whole(sync: Mapping[str, str]) -> bool:
    """Whether nothing is missing: a side that never sent anything hides nothing."""
    return set(sync.values()) <= {"synced", "unseen"}
