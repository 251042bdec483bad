"""Which test stands for which match of iptables, and which effect for which target.

In:  rules of an Artifact; sets of ipset.
Out: Rule, ready to be asked; NotModelled for what has no model.
Source: iptables 1.8.9 iptables/nft.c nft_ipv4_add, nft_ipv6_add: what iptables-nft says in nft's words.

State that rules share by name (hashlimit, recent, sets) is made here, once for the family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final, cast

from rulegen.artifacts import xt_values as xt
from rulegen.artifacts.model import Chain, IpSet, Name, RuleLine, Table, place
from rulegen.artifacts.unknown import Unknown
from rulegen.evaluate import xtables_connection as connection
from rulegen.evaluate import xtables_matches as matches
from rulegen.evaluate import xtables_native as native
from rulegen.evaluate import xtables_rates as rates
from rulegen.evaluate import xtables_recent as recents
from rulegen.evaluate.base import Decision, Fate, Hit, NotModelled
from rulegen.evaluate.xtables_connection import Effect
from rulegen.evaluate.xtables_connlimit import Known, connlimit
from rulegen.evaluate.xtables_matches import Test
from rulegen.evaluate.xtables_sets import Sets, change_refusal, refusal

NF_TABLES: Final = "nf_tables"
LEGACY: Final = "legacy"


class Step(IntEnum):
    """Where a packet goes that matched."""

    NEXT = auto()
    DECIDE = auto()
    RETURN = auto()
    EFFECT = auto()
    """To the next rule, changed."""
    JUMP = auto()
    GOTO = auto()


@dataclass(slots=True)
class Rule:
    tests: tuple[Test, ...]
    hit: Hit
    where: str
    step: Step
    decision: Decision | None = None
    effect: Effect | None = None
    chain: str = ""
    pure: bool = True
    """Its tests remember nothing, so that they may be asked again."""


_PURE: Final[dict[type, Callable[..., Test]]] = {
    xt.Protocol: matches.protocol,
    xt.Address: matches.address,
    xt.Interface: matches.interface,
    xt.Fragment: matches.fragment,
    xt.Tcp: matches.tcp,
    xt.Udp: matches.udp,
    xt.Icmp: matches.icmp,
    xt.Multiport: matches.multiport,
    xt.U32Match: matches.u32_match,
    xt.Bpf: matches.bpf,
    xt.Length: matches.length,
    xt.String: matches.string,
    xt.Mark: matches.mark,
    xt.AddrType: matches.addrtype,
    xt.Conntrack: connection.conntrack,
    xt.ConnMark: connection.connmark,
}
"""Matches that remember nothing."""

_EFFECTS: Final[dict[type, Callable[..., Effect]]] = {
    xt.SetMarkTarget: connection.set_mark,
    xt.SetConnMark: connection.set_connmark,
    xt.SaveConnMark: connection.save_connmark,
    xt.RestoreConnMark: connection.restore_connmark,
    xt.Notrack: lambda _: connection.notrack,
}

_TRACKING: Final = (
    xt.Conntrack,
    xt.ConnMark,
    xt.ConnLimit,
    xt.SetConnMark,
    xt.SaveConnMark,
    xt.RestoreConnMark,
)
"""What makes the kernel track connections when it is loaded."""

_ASKED_FIRST: Final = (xt.Interface, xt.Address, xt.Protocol, xt.Fragment)
"""The head of a rule, which has no matches of modules; in the order in which legacy asks."""


class Translator:
    """Makes rules of one family, with what they remember."""

    def __init__(self, variant: str, family: str, ipsets: Iterable[IpSet]) -> None:
        self.tracking = False
        self.known: Known | None = None
        """Where some rule counts connections: all that packets have."""
        self._native = variant == NF_TABLES
        self._family = family
        self._sets = Sets(ipsets)
        self._tables: dict[str, rates.HashTable] = {}
        self._lists: dict[str, recents.RecentList] = {}

    def rule(self, line: RuleLine, hit: Hit, table: Table, chain: Chain) -> Rule:
        """A rule to be asked.

        Raises:
            NotModelled: It uses what is not modelled.
        """
        where = place(table, chain, line)
        parts = cast(tuple[xt.Match | Unknown, ...], line.parts)
        head = [part for kind in _ASKED_FIRST for part in parts if isinstance(part, kind)]
        rest = [part for part in parts if not isinstance(part, _ASKED_FIRST)]
        found = [(part, self._test(part, where)) for part in (*head, *rest)]
        tests = tuple(test for _, test in found)
        pure = all(type(part) in _PURE for part, _ in found)
        rule = Rule(tests, hit, where, Step.NEXT, pure=pure)
        self._aim(rule, line.target, where)
        self.tracking |= any(isinstance(part, _TRACKING) for part in (*line.parts, line.target))
        return rule

    def _test(self, part: xt.Match | Unknown, where: str) -> Test:
        if self._native and (test := self._in_nft_words(part)) is not None:
            return test
        if isinstance(part, Unknown):
            raise NotModelled(where, f"-m {part}")
        if (feature := _not_modelled(part, self._family)) is not None:
            raise NotModelled(where, feature)
        if isinstance(part, xt.SetMatch):
            return self._set_test(part, where)
        if isinstance(part, xt.HashLimit):
            return self._hashlimit(part, where)
        if isinstance(part, xt.Recent):
            shared = self._lists.setdefault(part.name, recents.RecentList())
            return recents.recent(part, shared)
        if isinstance(part, xt.Limit):
            return rates.limit(part)
        if isinstance(part, xt.ConnLimit):
            self.known = self.known or Known()
            return connlimit(part, self.known)
        return _PURE[type(part)](part)

    def _in_nft_words(self, part: xt.Match | Unknown) -> Test | None:
        if isinstance(part, xt.Protocol):
            return native.protocol(part)
        if isinstance(part, xt.Tcp | xt.Udp):
            return native.tcp_or_udp(part)
        return rates.native_limit(part) if isinstance(part, xt.Limit) else None

    def _hashlimit(self, part: xt.HashLimit, where: str) -> Test:
        table = self._tables.setdefault(part.name, rates.hash_table(part))
        if dataclasses.replace(part, above=table.settings.above) != table.settings:
            raise NotModelled(where, f"hashlimit {part.name} with other settings than in an earlier rule")
        return rates.hashlimit(part, table)

    def _set_test(self, part: xt.SetMatch, where: str) -> Test:
        self._ask_set(part.name, where)
        return lambda packet: self._sets.has(part, packet)

    def _ask_set(self, name: str, where: str) -> IpSet:
        one = self._sets.by_name.get(name)
        if one is None:
            raise NotModelled(where, f"ipset {name}, which is not given,")
        if (feature := refusal(one)) is not None:
            raise NotModelled(where, feature)
        if one.type == "list:set":
            for member in one.members:
                for inner in member.parts:
                    assert isinstance(inner, Name)
                    self._ask_set(inner.name, where)
        return one

    def _aim(self, rule: Rule, target: xt.Target | Unknown | None, where: str) -> None:
        match target:
            case None | xt.Logged():
                return
            case Unknown():
                raise NotModelled(where, f"-j {target}")
            case xt.Verdict(kind="RETURN"):
                rule.step = Step.RETURN
            case xt.Verdict(kind="ACCEPT"):
                rule.step, rule.decision = Step.DECIDE, Decision(Fate.ACCEPT, rule.hit)
            case xt.Verdict(kind="DROP"):
                rule.step, rule.decision = Step.DECIDE, Decision(Fate.DROP, rule.hit)
            case xt.Reject():
                resets = target.kind in ("tcp-reset", "tcp-rst")
                rule.step, rule.decision = Step.DECIDE, Decision(Fate.DROP, rule.hit, resets)
            case xt.Verdict():
                raise NotModelled(where, f"-j {target.kind}")
            case xt.Jump():
                rule.step, rule.chain = Step.JUMP, target.chain
            case xt.Goto():
                rule.step, rule.chain = Step.GOTO, target.chain
            case xt.ChangeSet():
                if (feature := change_refusal(self._ask_set(target.name, where))) is not None:
                    raise NotModelled(where, feature)
                changed = target
                rule.step, rule.effect = Step.EFFECT, lambda packet: self._sets.change(changed, packet)
            case _:
                rule.step, rule.effect = Step.EFFECT, _EFFECTS[type(target)](target)


def _not_modelled(part: xt.Match, family: str) -> str | None:
    """What of a match has no model."""
    match part:
        case xt.Conntrack(expires_s=xt.NumberTest()):
            return "-m conntrack --ctexpire"
        case xt.SetMatch() if part.packets or part.bytes:
            return "-m set with counters"
        case xt.HashLimit() if part.rate.bytes or part.rate_match:
            return "-m hashlimit by bytes or with --hashlimit-rate-match"
        case xt.Recent() if part.reap or part.ttl:
            return "-m recent with --reap or --rttl"
        case xt.AddrType():
            asked = (part.source, part.destination)
            unknown = {name for one in asked if one for name in one.types} - matches.DECIDABLE_TYPES[family]
            if unknown or part.limit:
                return f"-m addrtype {', '.join(sorted(unknown)) or f'--limit-iface-{part.limit}'}"
    return None
