"""Ask the kernel and the evaluator the same, and compare verdicts and counters."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterable

from analyzer.model import Side
from rulegen.artifacts import read_ipset, read_iptables
from rulegen.evaluate.base import Evaluated, Fate, Passing
from rulegen.evaluate.xtables import evaluate_xtables
from rulegen.testbed.netns import LabError
from rulegen.testbed.packets import Segment
from rulegen.testbed.replay import Bench

TOOLS = ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft")
HOOKS = ("prerouting", "forward", "postrouting")

C4, S4 = "192.0.2.1", "198.51.100.7"

_COUNTED = re.compile(r"\[(\d+):(\d+)\] -A (\S+)")


def family_of(tool: str) -> str:
    return "ip6" if tool.startswith("ip6") else "ip"


def variant_of(tool: str) -> str:
    return "nf_tables" if tool.endswith("nft") else "legacy"


def evaluated(text: str, tool: str, ipsets: str = "") -> Evaluated:
    sets = read_ipset(ipsets).ipsets if ipsets else ()
    return evaluate_xtables(
        read_iptables(text, family_of(tool)), variant=variant_of(tool), family=family_of(tool), ipsets=sets
    )


def way(one: Evaluated) -> list:
    return sorted(one.entries, key=lambda entry: (HOOKS.index(entry.hook), entry.priority))


def judge(entries: list, passing: Passing) -> bool:
    """Whether a packet without connection gets through."""
    return all(entry.judge(passing).fate is Fate.ACCEPT for entry in entries)


def passing(number: int, packet: bytes, **changes: object) -> Passing:
    return Passing(number=number, **{"time_ns": 0, "data": packet, "captured": len(packet), **changes})


def counted(bench: Bench, tool: str) -> Counter[tuple[str, str, int]]:
    """Packets by table, chain and number of the rule, as the kernel has counted."""
    found: Counter[tuple[str, str, int]] = Counter()
    table = ""
    for line in bench.command(f"{tool}-save", "-c").splitlines():
        if line.startswith("*"):
            table, last, number = line[1:], "", 0
        elif one := _COUNTED.match(line):
            number = number + 1 if one[3] == last else 1
            last = one[3]
            found[table, last, number] = int(one[1])
    return found


def flush(bench: Bench) -> None:
    """Rules of nf_tables are gone a little later, and hold their sets until then."""
    for attempt in range(50):
        try:
            bench.flush()
            return
        except LabError:
            if attempt == 49:
                raise
            with contextlib.suppress(LabError):  # a list holds its sets
                bench.command("ipset", "destroy", "z")
            time.sleep(0.02)


def hit(passed: Iterable[Passing]) -> Counter[tuple[str, str, int]]:
    return Counter(
        (one.table.partition(" ")[2], one.chain, one.number) for each in passed for one in each.hits
    )


def differences(bench: Bench, text: str, tool: str, packets: list[bytes], ipsets: str = "") -> list[str]:
    """Where kernel and evaluator differ over packets that are sent one after the other."""
    entries = way(evaluated(text, tool, ipsets))
    if ipsets:
        bench.load(ipsets, "ipset")
    bench.load(text, tool)
    fates = bench.send((Side.CLIENT, packet) for packet in packets)
    asked = [passing(number, packet) for number, packet in enumerate(packets)]
    found = [
        f"packet {one.number} {one.data.hex()}: evaluator {verdict}, kernel {fate.passed}; hits {one.hits}"
        for one, fate in zip(asked, fates, strict=True)
        if (verdict := judge(entries, one)) != fate.passed
    ]
    kernel, ours = counted(bench, tool), hit(asked)
    wrong = [place for place in sorted(kernel.keys() | ours.keys()) if kernel[place] != ours[place]]
    found += [f"{at}: evaluator {ours[at]}, kernel {kernel[at]}: {line_of(text, at)}" for at in wrong]
    return found


def line_of(text: str, place: tuple[str, str, int]) -> str:
    table, chain, number = place
    part = text.split(f"*{table}\n")[1].split("COMMIT")[0]
    return [line for line in part.splitlines() if line.startswith(f"-A {chain} ")][number - 1]


def segment(**changes: object) -> bytes:
    values = {"source": C4, "destination": S4, "source_port": 40000, "destination_port": 443, **changes}
    return Segment(**values).packet()


def filter_of(*rules: str, policy: str = "ACCEPT", chains: tuple[str, ...] = ()) -> str:
    own = [f":{name} - [0:0]" for name in chains]
    return "\n".join(("*filter", f":FORWARD {policy} [0:0]", *own, *rules, "COMMIT", ""))
