"""Say what a ruleset would do with captures: to packets, by rule, to connections, against attacks.

In:  Judged captures, their Analysis, the names of all rules.
Out: Prediction, ready for JSON and for people.

Collateral are connections that lose packets although nothing of class A was found in them; misses are
packets of findings of class A that get through. What is not known counts as neither, and is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.analysis import Analysis
from rulegen.evaluate.base import Fate, Hit
from rulegen.evaluate.judge import WITHOUT_IP, Judged, Meetings
from rulegen.evaluate.traffic import NONE, Traffic

Int64 = npt.NDArray[np.int64]

EXAMPLES: Final = 10
"""Packets that are named of a connection or a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleName:
    """A rule of the rulesets, whether a packet met it or not."""

    table: str
    chain: str
    number: int
    comment: str | None
    text: str

    @property
    def key(self) -> tuple[str, str, int]:
        return self.table, self.chain, self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRow:
    rule: str
    """Table, chain and number."""
    comment: str | None
    text: str
    packets: int
    """That matched, whatever the rule did with them."""
    bytes: int
    dropped: int
    """Packets whose fate the rule decided so."""
    connections: int
    """TCP connections that the packets belong to."""
    findings: dict[str, int]
    """Findings of which it drops a packet that proves them, by their id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """A connection that nothing of class A was found in and that loses packets."""

    capture: str
    connection: int | None
    """None: not TCP."""
    protocol: str
    client: str
    server: str
    packets: int
    """That it loses."""
    first: tuple[int, ...]
    """At most EXAMPLES of them."""
    rules: tuple[str, ...]
    """That drop them; or why they are dropped."""
    findings: tuple[str, ...]
    """Findings of other classes in it."""
    offender: bool
    """One of its ends attacked, in another connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A finding of class A that gets through."""

    capture: str
    connection: int | None
    finding: str
    title: str
    packets: tuple[int, ...]
    """That did it, in connections where none of them is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why the fate of packets is not known, or why they are dropped although no rule says so."""

    why: str
    packets: int
    first: tuple[int, ...]
    """At most EXAMPLES, of the first capture that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    packets: int
    """With IP."""
    accepted: int
    dropped: int
    unknown: int
    without_ip: int
    """Frames that no rule of IP sees."""
    rules: tuple[RuleRow, ...]
    collateral: tuple[Collateral, ...]
    misses: tuple[Miss, ...]
    unknown_because: tuple[Reason, ...]
    dropped_because: tuple[Reason, ...]
    """Without a rule: a chain's policy, connection tracking, fragments."""

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def predict(
    judged: Sequence[Judged],
    meetings: Meetings,
    analysis: Analysis,
    rules: Sequence[RuleName],
) -> Prediction:
    """Count what became of the packets of all captures, in the order in which they were analysed."""
    traffic = [Traffic(analysis, capture) for capture in range(len(judged))]
    fates = Counter[Fate]()
    for one in judged:
        numbers, counts = np.unique(one.meeting[one.meeting != WITHOUT_IP], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            fates[meetings.all[number].outcome.fate] += count
    paths = [capture.path for capture in analysis.captures]
    offenders = {
        finding.offender for one in traffic for finding in one.attacks() if finding.offender is not None
    }
    return Prediction(
        packets=fates.total(),
        accepted=fates[Fate.ACCEPT],
        dropped=fates[Fate.DROP],
        unknown=fates[Fate.UNKNOWN],
        without_ip=sum(int((one.meeting == WITHOUT_IP).sum()) for one in judged),
        rules=tuple(_rules(judged, meetings, traffic, rules)),
        collateral=tuple(
            sorted(
                (
                    row
                    for path, one, own in zip(paths, judged, traffic, strict=True)
                    for row in _collateral(path, one, meetings, own, offenders)
                ),
                # what nothing speaks against comes first, then who loses most
                key=lambda row: (bool(row.findings) or row.offender, -row.packets),
            )
        ),
        misses=tuple(
            miss
            for path, one, own in zip(paths, judged, traffic, strict=True)
            for miss in _misses(path, one, meetings, own)
        ),
        unknown_because=_reasons(judged, meetings, Fate.UNKNOWN),
        dropped_because=_reasons(judged, meetings, Fate.DROP),
    )


def rows(judged: Judged, meetings: Meetings, path: str) -> Iterable[dict[str, object]]:
    """A row per packet, ready for JSON."""
    told = [
        {
            "verdict": outcome.fate.value,
            "rule": " ".join(map(str, outcome.by[:3])) if outcome.by else None,
            "comment": outcome.by.comment if outcome.by else None,
            "why": outcome.why or None,
            "met": [" ".join(map(str, hit[:3])) for hit in hits],
        }
        for outcome, hits in meetings.all
    ]
    without: dict[str, object] = {"verdict": None, "rule": None, "comment": None, "why": "no IP", "met": []}
    for packet, meeting in zip(judged.packet.tolist(), judged.meeting.tolist(), strict=True):
        yield {"capture": path, "packet": packet} | (without if meeting == WITHOUT_IP else told[meeting])


def rule_text(hit: Hit) -> str:
    """A rule for people: what tlswall calls it, or table, chain and number."""
    if hit.comment and hit.comment.startswith("["):
        return hit.comment[1:].partition("]")[0]
    return f"{hit.table} {hit.chain} {hit.number}"


def _rules(
    judged: Sequence[Judged], meetings: Meetings, traffic: Sequence[Traffic], rules: Sequence[RuleName]
) -> Iterable[RuleRow]:
    """A row per rule, in the order of the files."""
    packets, sizes, dropped = Counter[object](), Counter[object](), Counter[object]()
    connections: dict[object, set[int]] = {}
    findings: dict[object, Counter[str]] = {}
    for capture, (one, own) in enumerate(zip(judged, traffic, strict=True)):
        seen = one.meeting != WITHOUT_IP
        numbers, inverse, counts = np.unique(one.meeting[seen], return_inverse=True, return_counts=True)
        volume = np.bincount(inverse, weights=one.length[seen], minlength=len(numbers))
        members = _members(inverse, own.connection[seen], len(numbers), capture)
        for at, number in enumerate(numbers.tolist()):
            outcome, hits = meetings.all[number]
            for hit in hits:
                packets[hit[:3]] += int(counts[at])
                sizes[hit[:3]] += int(volume[at])
            for key in {hit[:3] for hit in hits}:
                connections.setdefault(key, set()).update(members[at])
            if outcome.fate is Fate.DROP and outcome.by is not None:
                dropped[outcome.by[:3]] += int(counts[at])
        for finding in own.findings:
            for by in {_dropped_by(one, meetings, row) for row in own.proof(finding)} - {None}:
                findings.setdefault(by, Counter())[finding.id] += 1
    for rule in rules:
        yield RuleRow(
            rule=f"{rule.table} {rule.chain} {rule.number}",
            comment=rule.comment,
            text=rule.text,
            packets=packets[rule.key],
            bytes=sizes[rule.key],
            dropped=dropped[rule.key],
            connections=len(connections.get(rule.key, ())),
            findings=dict(sorted(findings.get(rule.key, {}).items())),
        )


def _members(inverse: Int64, connection: Int64, count: int, capture: int) -> list[list[int]]:
    """The connections of the packets of each meeting, as numbers that no other capture has."""
    found: list[list[int]] = []
    there = connection != NONE
    order = np.argsort(inverse[there], kind="stable")
    ends = np.searchsorted(inverse[there][order], np.arange(count + 1))
    sorted_by = connection[there][order] + (capture << 40)
    for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        found.append(np.unique(sorted_by[begin:end]).tolist())
    return found


def _dropped_by(judged: Judged, meetings: Meetings, row: int) -> tuple[str, str, int] | None:
    number = int(judged.meeting[row])
    if number == WITHOUT_IP:
        return None
    outcome = meetings.all[number].outcome
    return outcome.by[:3] if outcome.fate is Fate.DROP and outcome.by is not None else None


def _fates(judged: Judged, meetings: Meetings, fate: Fate) -> Int64:
    """Rows of the packets with this fate."""
    has = np.array([meeting.outcome.fate is fate for meeting in meetings.all] + [False])
    return np.flatnonzero(has[judged.meeting])


def _collateral(
    path: str, judged: Judged, meetings: Meetings, traffic: Traffic, offenders: set[str]
) -> Iterable[Collateral]:
    attacked: set[int | None] = {finding.connection for finding in traffic.attacks()}
    attacked |= {
        int(traffic.connection[row]) for finding in traffic.attacks() for row in traffic.proof(finding)
    }
    others: dict[int | None, set[str]] = {}
    for finding in traffic.findings:
        others.setdefault(finding.connection, set()).add(finding.id)
    lost: dict[object, list[int]] = {}
    for row in _fates(judged, meetings, Fate.DROP).tolist():
        connection = int(traffic.connection[row])
        if connection == NONE:
            lost.setdefault(traffic.ends(row), []).append(row)
        elif connection not in attacked:
            lost.setdefault(connection, []).append(row)
    for rows in lost.values():
        ends = traffic.ends(rows[0])
        because = dict.fromkeys(
            rule_text(outcome.by) if outcome.by else outcome.why
            for outcome in (meetings.all[int(judged.meeting[row])].outcome for row in rows)
        )
        yield Collateral(
            capture=path,
            connection=ends.connection,
            protocol=ends.protocol,
            client=ends.client,
            server=ends.server,
            packets=len(rows),
            first=tuple(judged.packet[rows[:EXAMPLES]].tolist()),
            rules=tuple(because),
            findings=tuple(sorted(others.get(ends.connection, ()))) if ends.connection is not None else (),
            offender=bool(offenders & {traffic.source(rows[0]), traffic.destination(rows[0])}),
        )


def _misses(path: str, judged: Judged, meetings: Meetings, traffic: Traffic) -> Iterable[Miss]:
    """Findings of class A that are stopped in none of their connections.

    One is stopped in a connection where a packet that did it is dropped, or comes behind a hole in its
    sender's stream: TCP delivers nothing of that.
    """
    dropped = _fates(judged, meetings, Fate.DROP)
    passes = np.zeros(len(judged.meeting) + 1, bool)
    passes[_fates(judged, meetings, Fate.ACCEPT)] = True
    passes[:-1] |= judged.meeting == WITHOUT_IP
    holes = traffic.holes(dropped, passes[:-1])
    gone = set(dropped.tolist())
    for finding in traffic.attacks():
        by_connection: dict[int, list[int]] = {}
        for row in traffic.proof(finding):
            by_connection.setdefault(int(traffic.connection[row]), []).append(row)
        through = [
            row
            for connection, rows in by_connection.items()
            if connection == NONE or not any(row in gone or holes.behind(row) for row in rows)
            for row in rows
            if passes[row]
        ]
        if through:
            yield Miss(
                capture=path,
                connection=finding.connection,
                finding=finding.id,
                title=finding.title,
                packets=tuple(judged.packet[through].tolist()),
            )


def _reasons(judged: Sequence[Judged], meetings: Meetings, fate: Fate) -> tuple[Reason, ...]:
    counts = Counter[str]()
    first: dict[str, tuple[int, ...]] = {}
    for one in judged:
        rows = _fates(one, meetings, fate)
        for number in np.unique(one.meeting[rows]).tolist():
            outcome = meetings.all[number].outcome
            if outcome.by is None:
                with_it = rows[one.meeting[rows] == number]
                counts[outcome.why] += len(with_it)
                # several meetings may have the same reason
                named = sorted({*first.get(outcome.why, ()), *one.packet[with_it[:EXAMPLES]].tolist()})
                first[outcome.why] = tuple(named[:EXAMPLES])
    return tuple(Reason(why=why, packets=number, first=first[why]) for why, number in counts.most_common())
