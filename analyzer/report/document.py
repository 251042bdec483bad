"""An analysis condensed for people: what every format that is read, not parsed, has to say.

In:  an analysis.
Out: Report: sentences, findings grouped by kind, connections, and what was not seen.

Strings are already safe to show (text.visible): a format only lays them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from analyzer.model import Action, Finding, Severity
from analyzer.report import sentences
from analyzer.report.base import Analysed, Detail, Options
from analyzer.report.json_output import dumps
from analyzer.report.sentences import version_name
from analyzer.report.tally import Kind, Row, Tally, key, tally
from analyzer.report.text import hexadecimal, packet_filter, visible

FILTER_PACKETS: Final = 8
"""Packets named in a display filter before it gets too long to copy."""

EXPLANATION: Final = 2000
"""Longest explanation: ours, so only a slip is ever cut."""

ANSWERS: Final = {
    Action.BLOCK: "the offending endpoint may be blocked",
    Action.TAMPERING: "tampering on the path: both endpoints are victims, block neither",
    Action.CORROBORATE: "suspicious: needs corroboration before anything is blocked",
    Action.POSTURE: "a weakness of client or server, not an attack",
    Action.INFORM: "worth knowing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One finding of a group."""

    where: str
    """Connection and endpoints, in words."""
    packets: str
    filter: str
    """Wireshark display filter; empty without packets."""
    evidence: tuple[tuple[str, str], ...]
    explanation: str
    """Empty where the group's says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All findings of one kind."""

    id: str
    title: str
    severity: Severity
    answer: str
    """Action class, and what it means for a rule."""
    policy: str
    """Rule policy that answers it; empty without one."""
    count: int
    connections: int
    explanation: str
    references: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def more(self) -> int:
        """Findings that are counted but not among the examples."""
        return self.count - len(self.examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A row of the connections table, as text."""

    number: str
    client: str
    server: str
    version: str
    cipher_suite: str
    name: str
    alpn: str
    handshake: str
    packets: str
    ja4: str
    worst: Severity | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    summary: tuple[str, ...]
    groups: tuple[Group, ...]
    connections: tuple[Connection, ...]
    connection_count: int
    unseen: tuple[str, ...]


def condense(analysis: Analysed, options: Options) -> Report:
    """The report of an analysis; `options.detail` decides how much of it is kept."""
    counted = tally(analysis, full=options.detail is Detail.FULL)
    several = len(analysis.captures) > 1
    return Report(
        summary=sentences.summary(analysis, counted),
        groups=tuple(_group(kind, analysis, counted) for kind in counted.kinds),
        connections=tuple(_connection(row, counted.worst.get(key(row)), several) for row in counted.shown),
        connection_count=counted.connections,
        unseen=sentences.unseen(analysis, counted),
    )


def _group(kind: Kind, analysis: Analysed, counted: Tally) -> Group:
    first = kind.first
    same = all(finding.explanation == first.explanation for finding in kind.kept)
    return Group(
        id=visible(first.id),
        title=visible(first.title),
        severity=first.severity,
        answer=f"{first.action}: {ANSWERS[first.action]}",
        policy=visible(first.policy or ""),
        count=kind.count,
        connections=kind.connections,
        explanation=visible(first.explanation, EXPLANATION) if same else "",
        references=tuple(map(visible, first.references)),
        examples=tuple(
            _example(finding, analysis, counted, "" if same else finding.explanation) for finding in kind.kept
        ),
    )


def _example(finding: Finding, analysis: Analysed, counted: Tally, explanation: str) -> Example:
    where = "several connections"
    if finding.connection is not None:
        row = counted.named.get((finding.capture, finding.connection))
        ends = f"  {_endpoint(row['client'])} → {_endpoint(row['server'])}" if row is not None else ""
        where = f"connection {finding.connection}{ends}"
    if len(analysis.captures) > 1:
        where = f"{visible(analysis.captures[finding.capture].path)}: {where}"
    total = finding.evidence.get("packet_count")
    total = total if isinstance(total, int) else len(finding.packets)
    named = finding.packets[:FILTER_PACKETS]
    more = f" and {total - len(named):,} more" if total > len(named) else ""
    return Example(
        where=where,
        packets=", ".join(map(str, named)) + more,
        filter=packet_filter(named) if named else "",
        evidence=tuple(
            (visible(name).replace("_", " "), _value(name, value)) for name, value in finding.evidence.items()
        ),
        explanation=visible(explanation, EXPLANATION),
    )


def _value(name: str, value: object) -> str:
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case float():
            return f"{value:.3g}"
        case str() if name == "bytes" or name.endswith("_bytes"):
            return visible(hexadecimal(value))
        case str():
            return visible(value)
        case _:
            return visible(dumps(value).decode())


def _connection(row: Row, worst: Severity | None, several: bool) -> Connection:
    resumed = {"no": "full", "unknown": "?"}.get(
        row["resumed"], f"resumed ({row['resumed']})".replace("_", " ")
    )
    return Connection(
        number=f"{row['capture']}:{row['connection']}" if several else str(row["connection"]),
        client=_endpoint(row["client"]),
        server=_endpoint(row["server"]),
        version=version_name(row["version"] or "?"),
        cipher_suite=visible(row["cipher_suite"] or "?"),
        name=visible(row["sni"] or ""),
        alpn=visible(row["alpn"] or ""),
        handshake=visible(resumed if row["established"] else "not completed"),
        packets=f"{row['first_packet']}–{row['last_packet']}",
        ja4=visible(row["ja4"] or ""),
        worst=worst,
    )


def _endpoint(endpoint: Mapping[str, Any]) -> str:
    address = visible(str(endpoint["address"]))
    return f"[{address}]:{endpoint['port']}" if ":" in address else f"{address}:{endpoint['port']}"
