"""Sweeps for Heartbleed over several servers (catalogue HB14).

In:  of each connection its first heartbeat that tests or attacks the peer (Tls.PROBE_*, as HB01 to HB03 do).
Out: one hit per source and burst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.columns.distinct import distinct
from analyzer.connections import Batch, address
from analyzer.detect.base import Detector, Hit, Rule
from analyzer.model import Action, Severity, Side

TARGETS: Final = 5
WINDOW_NS: Final = 60_000_000_000
"""Catalogue HB14: a sweep is at least five peers in a minute."""
NAMED: Final = 20
"""Peers and connections that the evidence names."""

RULES: Final = (
    Rule("HB14", "Heartbleed sweep over several servers", Severity.HIGH, Action.BLOCK,
         "One source sent heartbeats that test for or exploit Heartbleed to at least five peers within a "
         "minute. If it is a scanner of your own, put it on the list of addresses that rules leave alone.",
         ("CVE-2014-0160",), "heartbleed"),
)  # fmt: skip


def across(batches: Iterable[Batch]) -> Iterator[Hit]:
    """HB14: sources that probed several peers within a minute."""
    numbers, pairs = [], []
    for batch in batches:
        probes = batch.take(batch["PROBE_NS"] != 0)
        if not len(probes):
            continue
        by_server = (probes["PROBE_SIDE"] == Side.SERVER)[:, None]
        client, server = (np.stack(probes.addresses(server), axis=1) for server in (False, True))
        columns = ("PROBE_NS", "CAPTURE", "PROBE_PACKET", "CONNECTION")
        numbers.append(np.stack([probes[name] for name in columns], axis=1))
        pairs.append(
            np.concatenate([np.where(by_server, server, client), np.where(by_server, client, server)], axis=1)
        )
    if not numbers:
        return
    rows, addresses = np.concatenate(numbers), np.concatenate(pairs)
    order = np.lexsort((rows[:, 0], addresses[:, 1], addresses[:, 0]))
    rows, addresses = rows[order], addresses[order]
    changes = np.flatnonzero((addresses[1:, :2] != addresses[:-1, :2]).any(axis=1)) + 1
    for begin, end in zip([0, *changes.tolist()], [*changes.tolist(), len(rows)], strict=True):
        if end - begin >= TARGETS:
            yield from _sweeps(rows[begin:end], addresses[begin:end])


def _sweeps(rows: npt.NDArray[np.int64], pairs: npt.NDArray[np.uint64]) -> Iterator[Hit]:
    """The sweeps of one source: its probes that are within a minute of five different peers, by bursts."""
    times = rows[:, 0].tolist()
    targets = [address(upper, lower) for upper, lower in pairs[:, 2:4].tolist()]
    window: dict[str, int] = {}
    begin = 0
    bursts: list[list[int]] = []
    for end, target in enumerate(targets):
        window[target] = window.get(target, 0) + 1
        while times[end] - times[begin] > WINDOW_NS:
            window[targets[begin]] -= 1
            if not window[targets[begin]]:
                del window[targets[begin]]
            begin += 1
        if len(window) >= TARGETS:
            if bursts and begin <= bursts[-1][1]:
                bursts[-1][1] = end
            else:
                bursts.append([begin, end])
    source = address(*pairs[0, :2].tolist())
    for begin, end in bursts:
        part = rows[begin : end + 1]
        capture = int(part[0, 1])
        here = part[part[:, 1] == capture]
        peers = list(dict.fromkeys(targets[begin : end + 1]))
        evidence: dict[str, object] = {
            "source": source,
            "targets": peers[:NAMED],
            "target_count": len(peers),
            "seconds": round((times[end] - times[begin]) / 1e9, 3),
            "connections": here[:NAMED, 3].tolist(),
        }
        if len(here) < len(part):
            evidence["captures"] = distinct(part[:, 1]).tolist()
        yield Hit(
            rule="HB14",
            packets=tuple(here[:, 2].tolist()),
            evidence=evidence,
            offender=source,
            capture=capture,
        )


DETECTOR: Final = Detector("sweep", RULES, across=across)
