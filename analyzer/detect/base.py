"""What a detector is given and what it gives.

In:  Evidence (finished connections with their events) or, for what shows only across connections, all
batches.
Out: Hits, which `findings` joins to one Finding per rule and connection.

A detector asks columns; it makes an object only for what it found. It prints nothing and knows no rule
generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.connections import Batch
from analyzer.model import Action, Finding, Severity, Side
from analyzer.tls.heartbeat import Beat
from analyzer.tls.tracker import Event, Kind


class Rule(NamedTuple):
    """A row of the catalogue."""

    id: str
    title: str
    severity: Severity
    action: Action
    explanation: str
    """For a network engineer: what it means and what to look at. No values; those are the evidence."""
    references: tuple[str, ...]
    policy: str | None = None
    """The rule policy that answers it."""


@dataclass(slots=True)
class Evidence:
    """Finished connections of one capture.

    Attributes:
        batch: The connections that have TLS.
        events: int64[n, Event] of them, in causal order per connection; CONNECTION is the connection's
            number.
        beats: Their heartbeat records, Beat.connection likewise.
        plain: The connections without TLS.
    """

    batch: Batch
    events: npt.NDArray[np.int64]
    beats: Sequence[Beat]
    plain: Batch
    _rows: dict[int, int] = field(default_factory=dict)

    def row(self, connection: int) -> int:
        """Row of a connection in the batch."""
        if not self._rows:
            self._rows = {number: row for row, number in enumerate(self.batch["CONNECTION"].tolist())}
        return self._rows[connection]

    def of_kind(self, kind: Kind) -> npt.NDArray[np.int64]:
        """The events of a kind."""
        of_kind: npt.NDArray[np.int64] = self.events[self.events[:, Event.KIND] == kind]
        return of_kind


@dataclass(slots=True, kw_only=True)
class Hit:
    """One piece of evidence for a rule. Hits of one rule in one connection become one finding."""

    rule: str
    batch: Batch | None = None
    row: int | None = None
    """The connection: a row of `batch`; None for a finding about several."""
    packets: tuple[int, ...] = ()
    evidence: Mapping[str, object] = field(default_factory=dict)
    """JSON-ready. A later hit of the same finding adds keys, and replaces those in `replaces`."""
    replaces: tuple[str, ...] = ()
    severity: Severity | None = None
    """Where it differs from the rule's."""
    action: Action | None = None
    offender: Side | str | None = None
    """Who did it, for class A: a side of the connection, or an address."""
    capture: int = 0
    """For a hit without a row."""


class Detector(NamedTuple):
    """A family of rules that look at the same things."""

    name: str
    rules: tuple[Rule, ...]
    within: Callable[[Evidence], Iterator[Hit]] | None = None
    """Called with each batch of finished connections."""
    across: Callable[[Iterable[Batch]], Iterator[Hit]] | None = None
    """Called once at the end with all batches, and what `within` has found is known to it by nothing but
    the batches."""


def findings(rules: Mapping[str, Rule], hits: Iterable[Hit]) -> list[Finding]:
    """Join hits to findings: one per rule and connection, in the order of first hits.

    The strongest severity and action of the joined hits stand, a tampering class before a block.
    """
    joined: dict[tuple[object, ...], list[Hit]] = {}
    for number, hit in enumerate(hits):
        if hit.row is None or hit.batch is None:
            key: tuple[object, ...] = (hit.rule, None, number)
        else:
            key = (hit.rule, hit.batch.name(hit.row))
        group = joined.get(key)
        if group is None:
            joined[key] = [hit]
        else:
            group.append(hit)
    return [_join(rules[group[0].rule], group) for group in joined.values()]


_BLOCK, _TAMPERING = Action.BLOCK, Action.TAMPERING  # Python 3.11 takes its time to find an enum's member

_ACTION_RANK = (Action.INFORM, Action.POSTURE, Action.CORROBORATE, Action.BLOCK, Action.TAMPERING)


def _join(rule: Rule, hits: Sequence[Hit]) -> Finding:
    first = hits[0]
    batch, row = first.batch, first.row
    severity, action = rule.severity, first.action or rule.action
    evidence, packets = first.evidence, first.packets
    if len(hits) > 1:
        evidence = {"count": len(hits), **_together(hits)}
        packets = tuple(packet for hit in hits for packet in hit.packets)
        severity = max(rule.severity if hit.severity is None else hit.severity for hit in hits)
        action = max((hit.action or rule.action for hit in hits), key=_ACTION_RANK.index)
    elif first.severity is not None:
        severity = first.severity  # INFO is 0
    if len(packets) > 1:
        packets = tuple(sorted(set(packets)))
        if len(packets) > limits.FINDING_PACKETS:
            evidence = {**evidence, "packet_count": len(packets)}
            packets = packets[: limits.FINDING_PACKETS]
    capture, connection = (first.capture, None) if batch is None or row is None else batch.name(row)
    offender: str | None = None
    victims: tuple[str, ...] = ()
    if action is _BLOCK:
        offender, victims = _blame(hits)
    elif action is _TAMPERING and batch is not None and row is not None:
        victims = (batch.endpoint(row, False), batch.endpoint(row, True))
    return Finding(
        rule.id,
        rule.title,
        severity,
        action,
        connection,
        packets,
        evidence,
        rule.explanation,
        rule.references,
        offender,
        capture,
        rule.policy or ("block" if offender else None),
        victims,
    )


def _together(hits: Sequence[Hit]) -> dict[str, object]:
    """The evidence of several hits; the first that says something says it, unless a later one replaces it."""
    evidence: dict[str, object] = {}
    for hit in hits:
        for name, value in hit.evidence.items():
            if name not in evidence or name in hit.replaces:
                evidence[name] = value
    return evidence


def _blame(hits: Sequence[Hit]) -> tuple[str | None, tuple[str, ...]]:
    """Address of who did it, by the first hit that names somebody, and of whom it was done to."""
    for hit in hits:
        if isinstance(hit.offender, Side):
            assert hit.batch is not None
            assert hit.row is not None
            by_server = hit.offender == Side.SERVER
            return hit.batch.endpoint(hit.row, by_server), (hit.batch.endpoint(hit.row, not by_server),)
        if hit.offender is not None:
            return hit.offender, ()
    return None, ()
