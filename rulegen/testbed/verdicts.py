"""The kernel's word on packets as values that an evaluator's can be compared with.

In:  what the observer saw of each packet (observer.Seen), the rules as they are loaded.
Out: Observed: fate, rules matched, answers.
Source: Linux net/netfilter/core.c nf_hook_slow, net/ipv4/netfilter/nf_defrag_ipv4.c.

A line of the trace that belongs to no loaded rule is an error, never left out: an agreement of which a part
was not looked at would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from rulegen.artifacts import read_iptables
from rulegen.artifacts.xt_values import Reject, Verdict
from rulegen.evaluate.base import Fate, Hit
from rulegen.testbed.netns import LabError
from rulegen.testbed.observer import Seen
from rulegen.testbed.packets import ends_in_headers, is_fragment
from rulegen.testbed.trace import NF_DROP, POLICY, RULE, Listed, Step

LEGACY: Final = {"iptables-legacy": "ip", "ip6tables-legacy": "ip6"}
"""Tools whose rules the kernel traces through NFLOG, with the family of their tables."""

_CODE: Final = 0xFF
"""NF_VERDICT_MASK, linux/netfilter.h: above it NF_DROP has an error number."""


class Observed(NamedTuple):
    """What the kernel did with a packet."""

    fate: Fate
    """STOLEN: a fragment that did not get through the reassembly of its datagram. The kernel does not tell
    whether it waits there or was thrown away. Where the datagram is complete, its last fragment has the
    datagram's fate and hits."""
    by: Hit | None
    """The rule that dropped it; None: a policy, the kernel itself, or nothing did."""
    hits: tuple[Hit, ...]
    """Every rule that it matched, in order."""
    answers: tuple[bytes, ...] = ()
    """IP packets that came back to its sender, a TCP reset for instance."""
    instead: tuple[bytes, ...] = ()
    """IP packets that came out in its place: its datagram's fragments, or the packet as a rule changed it."""
    entered: bool = True
    """It came to the first hook. The kernel throws away before, unseen by any rule, what has a damaged IP
    header."""
    traced: bool = True
    """False: `hits` and `by` are not known. The kernel can't write a line of nf_tables' trace for a packet of
    IPv6 whose headers say that the transport header is behind its end (nf_tables_trace.c nft_trace_notify).
    """


class Places:
    """Where the rules are that the trace names by handle or number."""

    def __init__(self) -> None:
        self._nft: dict[tuple[str, int], tuple[Hit, bool]] = {}
        self._legacy: dict[tuple[str, str, int], tuple[Hit, bool]] = {}
        self._found: dict[Step, tuple[Hit, bool] | None] = {}

    @property
    def nft(self) -> bool:
        """Whether there are rules of nf_tables."""
        return bool(self._nft)

    def add_nft(self, rules: Iterable[Listed]) -> None:
        """Rules of nf_tables, also those of iptables-nft, in the order of their chains."""
        counts: dict[tuple[str, str], int] = {}
        for rule in rules:
            table = f"{rule.family} {rule.table}"
            number = counts[table, rule.chain] = counts.get((table, rule.chain), 0) + 1
            hit = Hit(table, rule.chain, number, rule.comment)
            self._nft[table, rule.handle] = (hit, False)

    def add_legacy(self, family: str, saved: str) -> None:
        """Rules of iptables-legacy, as iptables-legacy-save lists them; nothing if there is no table."""
        if not saved:
            return
        for table, chain, rule in read_iptables(saved, family).rules:
            decides = isinstance(rule.target, Reject) or rule.target == Verdict(kind="DROP")
            hit = Hit(f"{family} {table.name}", chain.name, rule.number, rule.comment)
            self._legacy[f"{family} {table.name}", chain.name, rule.number] = (hit, decides)

    def find(self, step: Step) -> tuple[Hit, bool] | None:
        """The rule of a line of the trace and whether it drops; None: the line tells of no rule.

        Raises:
            LabError: The line tells of a rule that is not loaded.
        """
        if step not in self._found:
            self._found[step] = self._find(step)
        return self._found[step]

    def _find(self, step: Step) -> tuple[Hit, bool] | None:
        table = f"{step.family} {step.table}"
        if step.verdict is None and step.rule:
            return self._find_legacy(table, step)
        if step.kind != RULE or not step.rule:
            return None
        try:
            hit, _ = self._nft[table, step.rule]
        except KeyError:
            raise LabError(f"the trace tells of an unknown rule: {step}") from None
        return hit, _drops(step)

    def _find_legacy(self, table: str, step: Step) -> tuple[Hit, bool] | None:
        # Also a rule without conditions that decides is called policy or return.
        found = self._legacy.get((table, step.chain, step.rule))
        if found is None and step.kind == RULE:
            raise LabError(f"the trace tells of an unknown rule: {step}")
        return found


def observed(packet: bytes, seen: Seen, places: Places) -> Observed:
    """What the kernel did with an IP packet.

    Raises:
        LabError: The trace tells of a rule that is not loaded.
    """
    hits: list[Hit] = []
    by: Hit | None = None
    dropped = False
    for step in seen.steps:
        found = places.find(step)
        if found is not None:
            hits.append(found[0])
        if found is not None and found[1]:
            by, dropped = found[0], True
        elif step.kind == POLICY and _drops(step):
            by, dropped = None, True
    fate = Fate.DROP
    if seen.passed or seen.instead:
        fate, by = Fate.ACCEPT, None
    elif seen.entered and not seen.whole and not dropped and is_fragment(packet):
        fate = Fate.STOLEN
    if seen.entered or not ends_in_headers(packet):
        return Observed(fate, by, tuple(hits), seen.answers, seen.instead, seen.entered)
    return Observed(fate, by, tuple(hits), seen.answers, seen.instead, traced=not places.nft)


def _drops(step: Step) -> bool:
    return step.verdict is not None and step.verdict >= 0 and step.verdict & _CODE == NF_DROP
