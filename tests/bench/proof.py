"""Packets per second that the kernel's own trace gives, and whether the trace is complete.

    python tests/bench/proof.py CAPTURE [--check]

A policy's rules are loaded with each of the tools, the capture is replayed, and what the trace tells is held
against the rules' counters. The lab's process and this one work at the same time, so that the slower one's
CPU time counts; on a machine that does nothing else it is also the time that passes. `--check` exits with 1
where the promise is broken or a match is missing.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from rulegen.backends import BACKENDS, emit
from rulegen.from_findings import answer, parse_wish
from rulegen.testbed.captured import packets_of
from rulegen.testbed.netns import missing_tools
from rulegen.testbed.replay import Bench

WISHES: Final = ("heartbleed", "first-record:ports=443")
TOOLS: Final = {"nft": "nft", "iptables-nft": "bpf", "iptables-legacy": "bpf"}
"""Tool -> the backend that writes for it."""
PROMISE: Final = 15_000
"""Packets per second, at least."""
_NAME: Final = re.compile(r"\[([a-z0-9-]+)\]")


def cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measure(tool: str, text: str, capture: Path) -> list[str]:
    """Print a line. Returns what is broken."""
    told: Counter[str] = Counter()
    packets = 0
    here, lab, start = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN), time.monotonic()
    with Bench() as bench:
        sent = ((one.side, one.data) for one in packets_of(capture) if one.why is None)
        for one in bench.prove([(tool, text)], sent):
            packets += 1
            told.update(name[1] for hit in one.hits if (name := _NAME.match(hit.comment or "")))
        wall = time.monotonic() - start
        counted = {name: count for name, count in bench.counters(tool=tool).items() if count}
    here, lab = cpu_s(resource.RUSAGE_SELF) - here, cpu_s(resource.RUSAGE_CHILDREN) - lab
    rate = packets / max(here, lab)
    print(f"{tool:16}{packets:9}{packets / wall:11.0f}{rate:12.0f}{sum(told.values()):10}")
    broken = [f"{tool}: {rate:.0f} packets/s, promised {PROMISE}"] if rate < PROMISE else []
    if dict(told) != counted:
        broken.append(f"{tool}: the trace tells {dict(told)}, the rules counted {counted}")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the promise is broken")
    arguments = parser.parse_args()
    ruleset = answer([], [], [], wishes=[parse_wish(wish) for wish in WISHES]).ruleset
    backends = {backend.name: backend for backend in BACKENDS}
    print("tool              packets packets/s per CPU s   matches")
    broken = [
        line
        for tool, backend in TOOLS.items()
        if not missing_tools([tool])
        for line in measure(tool, emit(ruleset, backends[backend]).text, arguments.capture)
    ]
    for line in broken:
        print(f"broken: {line}")
    return 1 if broken and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
