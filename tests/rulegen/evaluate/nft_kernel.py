"""Hold the evaluator of nft to the kernel: every packet's fate, every rule's counter."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from analyzer.model import Side
from rulegen.artifacts import read, unsupported
from rulegen.artifacts.model import Artifact
from rulegen.artifacts.nft_values import Counter as Counts
from rulegen.artifacts.nft_values import Decide, Log, Reject
from rulegen.evaluate.base import Entry, Evaluated, Fate, Passing, Undecidable
from rulegen.evaluate.conntrack import Conntrack
from rulegen.evaluate.conntrack_settings import TESTBED
from rulegen.evaluate.nft import evaluate_nft
from rulegen.testbed.replay import Bench

Place = tuple[str, str, int]
"""Table with its family, chain, number of the rule."""

HOOKS = ("prerouting", "forward", "postrouting")
CONNTRACK = -200


def passing(data: bytes, time_ns: int = 0, **facts: object) -> Passing:
    return Passing(number=1, time_ns=time_ns, data=data, captured=len(data), **facts)  # type: ignore[arg-type]


@dataclass
class Predicted:
    """What the evaluator says of packets that a bridge forwards, one after the other. No fragments."""

    evaluated: Evaluated
    packets: Counter[Place] = field(default_factory=Counter)
    bytes: Counter[Place] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.conntrack = Conntrack(TESTBED) if self.evaluated.tracking else None

    def judge(self, data: bytes, time_ns: int) -> Fate:
        one = passing(data, time_ns)
        fate = self._pass(one)
        for hit in one.hits:
            self.packets[hit.table, hit.chain, hit.number] += 1
            self.bytes[hit.table, hit.chain, hit.number] += len(data)
        return fate

    def _pass(self, one: Passing) -> Fate:
        for hook in HOOKS:
            own = [
                entry
                for entry in self.evaluated.entries
                if entry.hook == hook and entry.family in (one.family, "inet")
            ]
            early = [entry for entry in own if entry.priority < CONNTRACK]
            late = [entry for entry in own if entry.priority >= CONNTRACK]
            if self._drop(early, one):
                return Fate.DROP
            if hook == "prerouting" and self.conntrack and self.conntrack.track(one) is Fate.DROP:
                return Fate.DROP
            if self._drop(late, one):
                return Fate.DROP
        return self.conntrack.confirm(one) if self.conntrack else Fate.ACCEPT

    def _drop(self, entries: Sequence[Entry], one: Passing) -> bool:
        for entry in sorted(entries, key=lambda entry: entry.priority):
            decision = entry.judge(one)
            if decision.resets and self.conntrack:
                self.conntrack.reset(one)
            if decision.fate is Fate.DROP:
                return True
        return False


def counters(bench: Bench) -> dict[Place, tuple[int, int]]:
    """Packets and bytes of every rule that has a counter."""
    found: dict[Place, tuple[int, int]] = {}
    numbers: Counter[tuple[str, str]] = Counter()
    for item in json.loads(bench.command("nft", "-j", "list", "ruleset"))["nftables"]:
        if (rule := item.get("rule")) is None:
            continue
        place = f"{rule['family']} {rule['table']}", rule["chain"]
        numbers[place] += 1
        for statement in rule["expr"]:
            if isinstance(count := statement.get("counter"), dict):
                found[*place, numbers[place]] = count["packets"], count["bytes"]
    return found


def counts_hits(artifact: Artifact) -> set[Place]:
    """Rules whose counter stands behind all tests."""
    found = set()
    for table, chain, rule in artifact.rules:
        parts = [part for part in rule.parts if not isinstance(part, Decide | Reject | Log)]
        if parts and isinstance(parts[-1], Counts):
            found.add((f"{table.family} {table.name}", chain.name, rule.number))
    return found


def agree(
    bench: Bench,
    text: str,
    packets: Iterable[tuple[Side, bytes]],
    *,
    pause_s: float = 0,
    at_once: int = 1,
    unknown: int = 0,
) -> Predicted:
    """Load the text, send the packets, and assert that evaluator and kernel agree on every fate and counter.

    Args:
        bench: Empty.
        text: Of an nft file.
        packets: No fragments where the text makes the kernel track connections.
        pause_s: For rules that the clock decides.
        at_once: Packets between two pauses.
        unknown: Packets that may be Undecidable; their rules' counters are not compared then.
    """
    bench.load(text)
    artifact = read(text)
    assert unsupported(artifact) == ()
    predicted = Predicted(evaluate_nft(artifact))
    sent = list(packets)
    fates, times = [], []
    if pause_s:
        for at, packet in enumerate(sent):
            if at % at_once == 0:
                time.sleep(pause_s)
            times.append(time.monotonic_ns())
            fates += bench.send([packet])
    else:
        began = time.monotonic_ns()
        fates = bench.send(sent)
        step = (time.monotonic_ns() - began) // max(1, len(sent))
        times = [began + step * at for at in range(len(sent))]
    doubts = []
    for at, ((_, data), fate, time_ns) in enumerate(zip(sent, fates, times, strict=True)):
        try:
            assert (predicted.judge(data, time_ns) is Fate.ACCEPT) is fate.passed, (
                f"packet {at}: {data.hex()}\n{text}"
            )
        except Undecidable as error:
            doubts.append(error.why)
    assert len(doubts) <= unknown, doubts
    if not doubts:
        kernel = counters(bench)
        places = counts_hits(artifact)
        assert places <= kernel.keys()
        ours = {place: (predicted.packets[place], predicted.bytes[place]) for place in places}
        assert ours == {place: kernel[place] for place in places}, text
    return predicted
