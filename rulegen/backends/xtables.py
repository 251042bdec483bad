"""Emit a ruleset as one file of iptables-restore.

In:  Ruleset, checked; a Dialect.
Out: text for `iptables-restore --noflush`; each rule's fidelity; the tool's word on a text.
Source: iptables-restore(8), ipset(8).

A file replaces the chains that it has in one step and touches no others. The jump from the built-in chain
is not in it: a line that a restore adds is added by every restore, and there is no line that is idempotent.
The Load command in the header adds it where it is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rulegen.backends.base import Artifact, Checked
from rulegen.backends.header import header
from rulegen.backends.offline import ask
from rulegen.backends.xtables_rules import BASE, FAMILIES, PLACES, Dialect, Writer
from rulegen.errors import Refused
from rulegen.ir.rule import Ruleset

TOOLS: Final = {"ip": "iptables", "ip6": "ip6tables"}

_SETS: Final = re.compile(r"--(?:match|add)-set (tlswall-[a-z0-9-]+) (\S+)")
_ENTRANCE: Final = re.compile(rf"-t (\w+) -I (\w+) -j {BASE}\b")
_MATCHES: Final = (
    "comment",
    "conntrack",
    "connmark",
    "hashlimit",
    "connlimit",
    "string",
    "multiport",
    "iprange",
    "set",
    "u32",
    "bpf",
)
_TARGETS: Final = {"CONNMARK": "xt_connmark", "SET": "xt_set", "REJECT": "ipt_REJECT or ip6t_REJECT"}

_KINDS: Final = {1: "hash:ip", 2: "hash:ip,port", 3: "hash:ip,port,ip"}
"""Any set with so many parts will do where it is only to be there."""

_TOO_LONG: Final = "Message too long"
"""iptables-nft sends all rules at once, for which the kernel lets only root have a large enough buffer."""

_SCRIPT: Final = """
export XTABLES_LOCKFILE=/dev/null
if [ -n "$1" ]; then printf %s "$1" | ipset restore || exit; fi
exec "$0" --noflush
"""
"""The lock is for those who change the host's rules, and not everybody's to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XtablesBackend:
    """A dialect of iptables, as files of its restore format."""

    dialect: Dialect
    suffix: str
    limits: tuple[str, ...]
    """What the dialect does not look into, for the header."""

    @property
    def name(self) -> str:
        return self.dialect.name

    def emit(self, ruleset: Ruleset) -> Artifact:
        """The file, or Refused with all that the dialect can't say."""
        writer = Writer(ruleset, self.dialect)
        writer.write()
        if writer.refusals:
            raise Refused(writer.refusals)
        lines = list(writer.lines())
        body = "\n".join(lines)
        return Artifact(
            backend=self.name,
            text="\n".join((*self._header(ruleset, body), "", *lines, "")),
            fidelity=tuple(writer.fidelity),
            sets_apart=tuple(dict(_SETS.findall(body))),
        )

    def check(self, text: str) -> Checked:
        """Load it where it does nothing: `--test` does not ask the kernel about everything."""
        checked = Checked(accepted=True, message="")
        for family in self.dialect.families:
            checked = _loaded(TOOLS[family], family, text)
            if not checked.accepted:
                return checked
        return checked

    def _header(self, ruleset: Ruleset, body: str) -> Iterator[str]:
        table, built_in = PLACES[ruleset.hook]
        tools = [TOOLS[family] for family in self.dialect.families]
        sets = "ipset restore -file SETS && " if _SETS.search(body) else ""
        served = " and ".join(FAMILIES[family] for family in self.dialect.families)

        def each(command: str) -> str:
            return "; ".join(command.replace("iptables", tool) for tool in tools)

        yield from header(
            ruleset,
            made_for=f"{' and '.join(tools)} ({served}; version 1.8, -legacy or -nft)",
            place=f"{built_in} of table {table}, from where it jumps to {BASE}, a chain of this file",
            needs=_needs(body),
            commands={
                "Check": each(f"unshare --net sh -c '{sets}iptables-restore FILE'")
                + "    loads it where it does nothing",
                "Load": each(
                    f"iptables-restore --noflush FILE && {{ iptables -t {table} -C {built_in} -j {BASE}"
                    f" 2>/dev/null || iptables -t {table} -I {built_in} -j {BASE}; }}"
                )
                + "    replaces the chains of this file in one step, and nothing else",
                "Watch": each(f"iptables-save -c -t {table} | grep {BASE}")
                + "    counters: [name] is a rule, (name) a step towards it",
                "Remove": each(
                    f"iptables -t {table} -D {built_in} -j {BASE}; for do in F X; do iptables -t {table} -S |"
                    f' sed -n "s/^-N \\({BASE}.*\\)/-$do \\1/p" | xargs -rn2 iptables -t {table}; done'
                ),
            },
            limits=(
                *self.limits,
                "A TCP segment is judged by itself: what of TLS starts further inside a segment, or is cut",
                "in two, is not seen unless a rule says so. Turn off receive offloads, which merge segments",
                "before rules see them: ethtool -K DEVICE gro off lro off",
            ),
        )


def entrance(text: str) -> tuple[str, str, str] | None:
    """Of a file of ours: table, built-in chain, and the chain to jump to from there. None: not ours."""
    found = _ENTRANCE.search(text)
    return (found[1], found[2], BASE) if found else None


def _needs(body: str) -> Iterator[str]:
    used = [f"xt_{name}" for name in _MATCHES if f"-m {name} " in body]
    used += [module for target, module in _TARGETS.items() if f"-j {target} " in body]
    yield f"kernel modules {', '.join(dict.fromkeys(used))}"
    if _SETS.search(body):
        yield "the ruleset's sets: first load the file that --backend ipset makes of the same ruleset"


def _loaded(tool: str, family: str, text: str) -> Checked:
    """Load the text in a network namespace of its own, with empty sets of the names that it looks for."""
    kind = {"ip": "inet", "ip6": "inet6"}[family]
    sets = "".join(
        f"create {name} {_KINDS[sides.count(',') + 1]} family {kind} timeout 0\n"
        for name, sides in dict(_SETS.findall(text)).items()
    )
    restore = f"{tool}-restore"
    asked = ask([restore, "--version"], "", package="iptables")
    if asked.accepted and sets:
        asked = ask(["ipset", "restore"], sets, package="ipset")
    if asked.accepted:
        asked = ask(["sh", "-c", _SCRIPT, restore, sets], text, package="iptables")
    if _TOO_LONG in asked.message and os.geteuid() != 0:
        return Checked(
            accepted=None, message=f"a plain user can't load so many rules at once with {tool}-nft"
        )
    return asked
