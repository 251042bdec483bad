"""Load, list, count and flush the rules of the current network namespace with each of the firewall's tools.

In:  the name of a tool; an artifact's text.
Out: what the tool prints; packets by the name of the rule that counted them.
Source: nft(8), iptables-save(8) -c, ipset(8).

A rule's name is what its comment begins with, in brackets. The process is in the lab: nothing here may ever
run on the host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rulegen.testbed.netns import LabError, missing_tools, run

TOOLS: Final = ("nft", "iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft", "ipset")

_NAME: Final = re.compile(r"\[([a-z0-9-]+)\]")
_SAVED: Final = re.compile(r'\[(\d+):\d+\] -A TLSWALL.* --comment "\[([a-z0-9-]+)\]')
_DROPS: Final = re.compile(r"^(:\S+) DROP ")
_EMPTY: Final = re.compile(r"\*\w+$|:\S+ ACCEPT |COMMIT$")
"""Of a saved ruleset: tables and built-in chains."""
_CHAIN: Final = re.compile(r"(:\S+ \S+) \[\d+:\d+\]")

_LEGACY: Final = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}
"""Files of /proc/net with the tables that the namespace has."""


def load(tool: str, text: str, entrance: tuple[str, str, str] | None) -> None:
    """Load a file.

    Args:
        tool: One of TOOLS.
        text: In the language of the tool.
        entrance: Table, built-in chain, and the chain that it shall jump to, once, for files of iptables.
    """
    if tool == "nft":
        run("nft", "-f", "-", text=text)
    elif tool == "ipset":
        run("ipset", "restore", text=text)
    else:
        run(f"{tool}-restore", "--noflush", text=text)
        if entrance is not None:
            _enter(tool, *entrance)


def _enter(tool: str, table: str, built_in: str, chain: str) -> None:
    try:
        run(tool, "-t", table, "-C", built_in, "-j", chain)
    except LabError:
        run(tool, "-t", table, "-I", built_in, "-j", chain)


def listing(tool: str) -> str:
    """What is loaded, without counters and what else changes by itself; the tool can load it again."""
    if tool == "nft":
        return run("nft", "--stateless", "list", "ruleset")
    if tool == "ipset":
        return run("ipset", "save", "-sorted")
    lines = [line for line in run(f"{tool}-save").splitlines() if not line.startswith("#")]
    return "".join(_CHAIN.sub(r"\1 [0:0]", line) + "\n" for line in lines)


def counters(tool: str, table: str) -> dict[str, int]:
    """Packets that each rule has matched, by its name: of an nft table, or of our chains of iptables."""
    found: dict[str, int] = {}
    for name, packets in _nft_counters(table) if tool == "nft" else _saved_counters(tool):
        found[name] = found.get(name, 0) + packets
    return found


def _nft_counters(table: str) -> Iterator[tuple[str, int]]:
    for item in json.loads(run("nft", "--json", "list", "table", "inet", table))["nftables"]:
        rule = item.get("rule", {})
        name = _NAME.match(rule.get("comment", ""))
        for statement in rule.get("expr", ()):
            if name and "counter" in statement:
                yield name[1], statement["counter"]["packets"]


def _saved_counters(tool: str) -> Iterator[tuple[str, int]]:
    for line in run(f"{tool}-save", "-c").splitlines():
        if saved := _SAVED.match(line):
            yield saved[2], int(saved[1])


def flush() -> None:
    """Remove all rules and sets, and let built-in chains accept again."""
    run("nft", "flush", "ruleset")
    for tool, names in _LEGACY.items():
        tables = Path("/proc/net", names)
        if tables.exists() and tables.read_text().strip():
            lines = (_DROPS.sub(r"\1 ACCEPT ", line) for line in run(f"{tool}-save").splitlines())
            run(f"{tool}-restore", text="".join(f"{line}\n" for line in lines if _EMPTY.match(line)))
    if not missing_tools(["ipset"]):
        run("ipset", "destroy")
