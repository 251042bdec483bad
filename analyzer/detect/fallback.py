"""Fallback over several connections: a client tries lower versions after failures, and who made them fail.

In:  History.
Out: Hits of catalogue DG06, DG07, DG09 and DG11; those about a whole dance are attached to its last
connection, the one that the client ended up with.
Source: RFC 7507; CVE-2014-3566 (POODLE: an attacker breaks handshakes until the client falls back to SSL
3.0); RFC 8446 4.1.3; Weaver, Sommer, Paxson: Detecting Forged TCP Reset Packets, NDSS 2009.

Clients behind one address are told apart by their cipher suites: those that every version has stay in the
list, in their order, when a client falls back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.connections import Batch, text
from analyzer.detect import hellos, lost_capability
from analyzer.detect.base import Detector, Hit, Rule
from analyzer.detect.history import (
    ALERT,
    CLOSE,
    DATA_AFTER_RESET,
    PENDING,
    RESET,
    TTL_OF_ALERT,
    TTL_OF_RESET,
    History,
    Rows,
    in_groups,
)
from analyzer.model import Action, Severity
from analyzer.tls import hello
from analyzer.wire.iana import AlertDescription, name_of

SSL3, TLS10 = 0x0300, 0x0301

FALLBACK_NS: Final = 10_000_000_000
"""Catalogue DG06: the lower offer follows the failure within 10 s."""

SILENCE_NS: Final = 3_000_000_000
"""Catalogue DG06: no answer for 3 s is a failure; the first two retransmissions (RFC 6298: after 1 s and 3 s)
have passed by then."""

ATTEMPTS: Final = 32
"""Versions of a dance that are looked at, from its end: more than there are, but a hello may say anything."""

INAPPROPRIATE_FALLBACK: Final = 86

_RULES: Final = (
    Rule(
        "DG06",
        "Client made to fall back to a lower version",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "A client offered a version, its handshake was broken off, and at once it offered a lower "
        "one. An attacker on the path who breaks handshakes gets old clients to use a version that he "
        "can attack (POODLE). A server that can't stand a new version, a scanner or a bad network "
        "look alike. Where it ends with TLS 1.0 or SSL 3.0, or the server shows that it has more than "
        "was agreed, somebody on the path did it and both addresses are victims.",
        ("CVE-2014-3566", "RFC 7507 1", "RFC 8446 4.1.3"),
    ),
    Rule(
        "DG07",
        "Handshake ended by somebody else",
        Severity.HIGH,
        Action.TAMPERING,
        "The RST or alert that made the client fall back does not come from the endpoint whose "
        "address it bears: its TTL is that of another sender, or the endpoint went on sending after "
        "it. A box on the path, or an attacker, injects it. Compare captures from both ends: only one "
        "of them sees the packet leave.",
        ("RFC 5961 1", "Weaver et al., NDSS 2009"),
    ),
    Rule(
        "DG09",
        "Server refuses an inappropriate fallback",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "The client marked its offer as a fallback, and the server answered that it has a higher "
        "version: the handshake before should not have failed. With that failure in the capture it is "
        "the mark of somebody who breaks handshakes on the path.",
        ("RFC 7507 3",),
    ),
    Rule(
        "DG11",
        "Client falls back without saying so",
        Severity.LOW,
        Action.POSTURE,
        "The client repeats a failed handshake with a lower version and without TLS_FALLBACK_SCSV, so "
        "that the server can't tell a forced fallback from an old client. Its software should not "
        "fall back at all, or at least say so.",
        ("RFC 7507 4",),
    ),
)


def across(batches: Iterable[Batch]) -> Iterator[Hit]:
    """Findings of all connections together."""
    history = History(batches)
    yield from dances(history)
    yield from lost_capability.changes(history)


def dances(history: History) -> Iterator[Hit]:
    """DG06, DG07, DG09 and DG11."""
    refused = (
        (history["FAILURE"] == ALERT)
        & (history["ALERT"] == INAPPROPRIATE_FALLBACK)
        & (history["FAILED_BY"] == 1)
    )
    refused &= history["CLIENT_FLAGS"] & hello.FALLBACK_SCSV != 0
    before = _links(history)
    joined: set[int] = set()
    if (before >= 0).any():
        chains = _Chains(before, history["CLIENT_MAX"].astype(np.int64), refused)
        answered = (history["FAILURE"] == 0) & ((history["SERVER_FLAGS"] >= 0) | (history["VERSION"] != 0))
        followed = np.zeros(len(history), dtype=bool)
        followed[before[before >= 0]] = True
        told = (chains.steps > 1) | answered | (chains.refusals > 0)
        for end in np.flatnonzero((chains.steps > 0) & ~followed & told).tolist():
            dance = _Dance(
                attempts=chains.attempts(end),
                steps=int(chains.steps[end]),
                success=bool(answered[end]),
                refused=bool(chains.refusals[end] > 0),
            )
            joined.update(row for row, _ in dance.attempts if refused[row])
            yield from _describe(history, dance)
        joined.update(np.flatnonzero(refused & (chains.steps > 0)).tolist())
    for row in np.flatnonzero(refused).tolist():
        capture = history.value("CAPTURE", row)
        yield Hit(
            rule="DG09",
            batch=history.batch(row),
            row=0,
            packets=history.packets(capture, (row, "HELLO_PACKET"), (row, "FAILURE_PACKET")),
            evidence={
                "seen_version": hellos.version(history.value("CLIENT_MAX", row)),
                "expected_version": f"above {hellos.version(history.value('CLIENT_MAX', row))}",
                "alert": "inappropriate_fallback",
                **_sni(history, row),
                "bytes": f"02{INAPPROPRIATE_FALLBACK:02x}",
            },
            severity=Severity.HIGH if row in joined else None,
            action=Action.TAMPERING if row in joined else None,
        )


def _links(history: History) -> Rows:
    """For each connection the failed one whose offer it repeats or lowers, -1 for none."""
    before = np.full(len(history), -1, dtype=np.int64)
    if not history["FAILURE"].any():
        return before
    every = np.arange(len(history))
    _link(history, before, *in_groups(history.same_pair(history["SSL3_HASH"], history["SNI_HASH"]), every))
    # an offer without extensions names no server: it may follow any name's
    unnamed = (history["CLIENT_FLAGS"] & hello.SNI == 0) & (history["CLIENT_MAX"] <= TLS10)
    if unnamed.any():
        _link(
            history,
            before,
            *in_groups(history.same_pair(history["SSL3_HASH"]), every),
            only=unnamed & (before < 0),
        )
    return before


def _link(
    history: History, before: Rows, rows: Rows, first: Rows, only: npt.NDArray[np.bool_] | None = None
) -> None:
    """Link neighbours of a group, where the second answers the failure of the first."""
    same = first[1:] != np.arange(1, len(rows))
    earlier, later = rows[:-1][same], rows[1:][same]
    failure = history["FAILURE"]
    keep = (failure[earlier] != 0) & (history["CLIENT_MAX"][later] <= history["CLIENT_MAX"][earlier])
    if only is not None:
        keep &= only[later]
    earlier, later = earlier[keep], later[keep]
    keep = _similar(history, earlier, later) & _in_time(history, earlier, later)
    before[later[keep]] = earlier[keep]


def _similar(history: History, earlier: Rows, later: Rows) -> npt.NDArray[np.bool_]:
    """One client's hellos: the suites that both versions have are the same, in the same order."""
    lowest = history["CLIENT_MAX"][later] <= SSL3
    one = np.where(lowest, history["SSL3_HASH"][earlier], history["COMMON_HASH"][earlier])
    other = np.where(lowest, history["SSL3_HASH"][later], history["COMMON_HASH"][later])
    similar: npt.NDArray[np.bool_] = (one == other) & (one != hello.NO_SUITES)
    similar |= np.equal(history["SUITES_HASH"][earlier], history["SUITES_HASH"][later])
    return similar


def _in_time(history: History, earlier: Rows, later: Rows) -> npt.NDArray[np.bool_]:
    """The failure stood before the next offer, and not long before."""
    began, begins = history["HELLO_NS"][earlier], history["HELLO_NS"][later]
    ended = history["END_NS"][earlier]
    failure = history["FAILURE"][earlier]
    over = (ended <= begins) & (failure != PENDING)
    packet = history["FAILURE_PACKET"][earlier]
    told = (
        (packet > 0)
        & (packet < history["HELLO_PACKET"][later])
        & (history["CAPTURE"][earlier] == history["CAPTURE"][later])
    )
    silent = (failure == PENDING) & (begins - began >= SILENCE_NS)
    since = np.where(over, ended, began)
    in_time: npt.NDArray[np.bool_] = (over | told | silent) & (begins - since <= FALLBACK_NS)
    return in_time


class _Chains:
    """Who repeats or lowers whose offer, followed to the beginning by pointer doubling: chains may be long.

    Attributes:
        steps: Steps down that led to each connection.
        refusals: Offers refused as inappropriate on the way, its own included.
    """

    def __init__(self, before: Rows, highest: Rows, refused: npt.NDArray[np.bool_]) -> None:
        rows = np.arange(len(before))
        parent = np.where(before < 0, rows, before)
        self.refusals, _ = _summed(parent, refused.astype(np.int64))
        same = (before >= 0) & (highest[parent] == highest)
        self._again, first = _summed(np.where(same, before, rows), same.astype(np.int64))
        # the failure after which this version was offered for the first time
        self._above = before[first]
        lower = self._above >= 0
        self.steps, _ = _summed(np.where(lower, self._above, rows), lower.astype(np.int64))

    def attempts(self, end: int) -> list[tuple[int, int]]:
        """The last connection with each version up to `end`, and how often it was tried."""
        found = [end]
        while len(found) < ATTEMPTS and self._above[found[-1]] >= 0:
            found.append(int(self._above[found[-1]]))
        return [(row, int(self._again[row]) + 1) for row in reversed(found)]


def _summed(parent: Rows, values: Rows) -> tuple[Rows, Rows]:
    """Sums of values from each row to its last ancestor, which is its own parent, and that ancestor."""
    root = parent
    ends = root == np.arange(len(root))
    sums = np.where(ends, 0, values)
    while True:
        further = root[root]
        if np.array_equal(further, root):
            return sums + np.where(ends, values, values[root]), root
        sums += sums[root]
        root = further


class _Dance(NamedTuple):
    attempts: list[tuple[int, int]]
    """Rows with the number of tries, the highest version first."""
    steps: int
    success: bool
    refused: bool


def _describe(history: History, dance: _Dance) -> Iterator[Hit]:
    """A dance, who ended its handshakes, and which of its steps the client did not mark."""
    rows = [row for row, _ in dance.attempts]
    end = rows[-1]
    capture = history.value("CAPTURE", end)
    final = history.value("VERSION", end) if dance.success else 0
    offers_13 = history.value("OFFERED", end) & 1 << 4 != 0
    marked = bool(
        dance.success and not offers_13 and hellos.mark_fits(history.value("SERVER_FLAGS", end), final)
    )
    tampering = dance.refused or marked or (dance.success and final <= TLS10)
    proof = "inappropriate_fallback" if dance.refused else "downgrade mark in its random"
    yield Hit(
        rule="DG06",
        batch=history.batch(end),
        row=0,
        packets=history.packets(
            capture,
            *((row, column) for row in rows for column in ("HELLO_PACKET", "FAILURE_PACKET")),
            *([(end, "SERVER_HELLO_PACKET")] if dance.success else []),
        ),
        evidence={
            "expected_version": hellos.version(history.value("CLIENT_MAX", rows[0])),
            "seen_version": hellos.version(final or history.value("CLIENT_MAX", end)),
            "steps_down": dance.steps,
            "negotiated": dance.success,
            **({"server_has_more": proof} if dance.refused or marked else {}),
            **_sni(history, end),
            "attempts": [_attempt(history, row, tries) for row, tries in dance.attempts],
            "bytes": f"{history.value('CLIENT_MAX', end):04x}",
        },
        severity=Severity.HIGH if tampering else None,
        action=Action.TAMPERING if tampering else None,
    )
    for row in rows:
        if history.value("INJECTED", row):
            yield _injected(history, row)
    unmarked = [row for row in rows[1:] if not history.value("CLIENT_FLAGS", row) & hello.FALLBACK_SCSV]
    if unmarked:
        yield Hit(
            rule="DG11",
            batch=history.batch(end),
            row=0,
            packets=history.packets(capture, *((row, "HELLO_PACKET") for row in unmarked)),
            evidence={
                "expected": "TLS_FALLBACK_SCSV (5600) in the cipher suites",
                "expected_version": hellos.version(history.value("CLIENT_MAX", rows[0])),
                "seen_version": hellos.version(history.value("CLIENT_MAX", unmarked[-1])),
                "connections": [history.value("CONNECTION", row) for row in unmarked],
                **_sni(history, end),
                "bytes": f"{history.value('CLIENT_MAX', unmarked[-1]):04x}",
            },
        )


def _attempt(history: History, row: int, tries: int) -> dict[str, Any]:
    """One version of a dance."""
    described: dict[str, Any] = {
        "connection": history.value("CONNECTION", row),
        "capture": history.value("CAPTURE", row),
        "packet": history.value("HELLO_PACKET", row),
        "offered_version": hellos.version(history.value("CLIENT_MAX", row)),
        "tries": tries,
        "fallback_scsv": bool(history.value("CLIENT_FLAGS", row) & hello.FALLBACK_SCSV),
    }
    side = "server" if history.value("FAILED_BY", row) else "client"
    failure = history.value("FAILURE", row)
    if failure == ALERT:
        described["outcome"] = (
            f"alert {name_of(AlertDescription, history.value('ALERT', row)).lower()} from the {side}"
        )
    elif failure == RESET:
        described["outcome"] = f"reset by the {side}"
    elif failure == CLOSE and side == "client" and _waited(history, row):
        described["outcome"] = "no answer, given up by the client"
    elif failure == CLOSE:
        described["outcome"] = f"closed by the {side}"
    elif failure == PENDING:
        described["outcome"] = "no answer"
    else:
        described["outcome"] = f"{hellos.version(history.value('VERSION', row))} negotiated"
    return described


def _waited(history: History, row: int) -> bool:
    return history.value("END_NS", row) - history.value("HELLO_NS", row) >= SILENCE_NS


def _injected(history: History, row: int) -> Hit:
    why = history.value("INJECTED", row)
    reasons = []
    if why & (TTL_OF_RESET | TTL_OF_ALERT):
        reasons.append("its TTL is not that of the endpoint's other packets")
    if why & DATA_AFTER_RESET:
        reasons.append("the endpoint sent data after it")
    capture = history.value("CAPTURE", row)
    reset = history.value("FAILURE", row) == RESET
    evidence: dict[str, object] = {
        "ended_by": "RST"
        if reset
        else f"alert {name_of(AlertDescription, history.value('ALERT', row)).lower()}",
        "bears_address_of": "server" if history.value("FAILED_BY", row) else "client",
        "why": reasons,
        "seen_version": hellos.version(history.value("CLIENT_MAX", row)),
        **_sni(history, row),
    }
    if why & (TTL_OF_RESET | TTL_OF_ALERT):
        evidence |= {"expected_ttl": history.value("TTL", row), "seen_ttl": history.value("ODD_TTL", row)}
    evidence["bytes"] = "04" if reset else f"02{history.value('ALERT', row):02x}"
    return Hit(
        rule="DG07",
        batch=history.batch(row),
        row=0,
        packets=history.packets(capture, (row, "FAILURE_PACKET")),
        evidence=evidence,
    )


def _sni(history: History, row: int) -> dict[str, object]:
    name = history.sni(row)
    return {"sni": text(name)} if name else {}


DETECTOR: Final = Detector("fallback", (*_RULES, *lost_capability.RULES), across=across)
