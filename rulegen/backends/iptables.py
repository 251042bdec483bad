"""Emit a ruleset for iptables or ip6tables, with u32 for the bytes of packets.

In:  Ruleset, checked.
Out: text for `iptables-restore --noflush` or `ip6tables-restore --noflush`; each rule's fidelity.
Source: iptables-extensions(8) of 1.8.9; Linux net/netfilter/xt_multiport.c, xt_u32.c.

One file is for one family. A rule, or an alternative of one, that needs the other family is not in it.

Ports are tested by multiport, never by `--dport`: that makes iptables-legacy drop packets of which it can't
read the ports, and iptables-nft read ports in the middle of fragments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from analyzer.wire.fields import Layer
from rulegen.backends.base import Fidelity, Level
from rulegen.backends.xtables import XtablesBackend
from rulegen.backends.xtables_rules import Plan, Way
from rulegen.backends.xtables_text import Variants, connection_words
from rulegen.errors import InvalidRuleset
from rulegen.ir.match import (
    And,
    Contains,
    Interval,
    Match,
    Not,
    Or,
    ServerName,
    SomeRecord,
    all_of,
    equals,
)
from rulegen.ir.rule import Limit, Rule, Ruleset
from rulegen.lower.first_record import first_record
from rulegen.lower.literals import Conjunction, Finds, Has, Is, Normal, Within
from rulegen.lower.normal import lower_match
from rulegen.lower.ranges import Ranges, complement
from rulegen.lower.u32 import needs_whole, reach_of, steps

PORTS_MAX: Final = 15
"""Linux uapi/linux/netfilter/xt_multiport.h XT_MULTI_PORTS; a range counts for two."""

FEW: Final = 10
"""So many lines may repeat what they share; more of them get a chain for what they differ in."""

HANDSHAKE: Final = 22
CLIENT_HELLO: Final = 1

_OTHER: Final = {"ip": "ip6", "ip6": "ip"}
_ADDRESSES: Final = {"ip": ipaddress.IPv4Address, "ip6": ipaddress.IPv6Address}
_ADDRESS_BITS: Final = {"ip": 32, "ip6": 128}
_OPTIONS: Final = {"saddr": ("-s", "--src-range"), "daddr": ("-d", "--dst-range")}
_PORTS: Final = {"sport": "--sports", "dport": "--dports"}


@dataclass(frozen=True, slots=True)
class Step:
    """Variants of words, and `-p` for all of them, which a line can have only once."""

    variants: Variants
    protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class U32Dialect:
    """Bytes by u32, ports and addresses by their own matches."""

    name: str
    family: str

    @property
    def families(self) -> tuple[str, ...]:
        return (self.family,)

    def plan(self, match: Match) -> Plan | None:
        normal = _lowered(match)
        if not normal.alternatives:
            raise InvalidRuleset([f"{self.name}: a match that can never hold"])
        every = [(*normal.common, *alternative) for alternative in normal.alternatives]
        reaches = [reach_of(literals) for literals in every]
        common = self._way(normal.common, min(reaches), _protocol(normal.common))
        ways = [
            self._way(alternative, reach, _protocol(literals), needs_whole(self._inside(normal.common)))
            for alternative, literals, reach in zip(normal.alternatives, every, reaches, strict=True)
        ]
        possible = tuple(way for way in ways if way is not None)
        return None if common is None or not possible else Plan(common, possible)

    def _way(self, literals: Conjunction, reach: int, protocol: str, whole: bool = False) -> Way | None:
        """The conjunction as steps; None if this family can't meet it."""
        found: list[Step] = []
        searches: list[Step] = []
        for literal in literals:
            match literal:
                case Is(name, other) if name in _OTHER:
                    if (name == self.family) is other:
                        return None
                case Is(name, other):
                    found.append(Step(("",), f"{'! ' if other else ''}-p {name}"))
                case Within(load, ranges):
                    named = self._named(load.field, ranges)
                    found += [named] if named is not None else []
                case Has():
                    pass
                case Finds():
                    searches.append(Step(connection_words(literal, self.families)))
                case _:
                    found.append(Step(connection_words(literal, self.families)))
        inside = steps(
            self._inside(literals), family=self.family, protocol=protocol, reach=reach, whole=whole
        )
        every = [*found, *map(Step, inside), *searches]
        return tuple(_merged(every)) if all(step.variants for step in every) else None

    def _inside(self, literals: Conjunction) -> list[Within | Has]:
        """Those that u32 has to test."""
        return [
            literal
            for literal in literals
            if isinstance(literal, Has)
            or (isinstance(literal, Within) and self._named(literal.load.field, literal.ranges) is None)
        ]

    def _named(self, field: str | None, ranges: Ranges) -> Step | None:
        """Addresses and ports by their own matches; None where u32 is the way."""
        protocol, _, name = (field or "").rpartition(".")
        if name in _PORTS:
            return Step(tuple(_ports(_PORTS[name], ranges)), f"-p {protocol}")
        if name not in _OPTIONS or protocol != self.family:
            return None
        option, range_option = _OPTIONS[name]
        kind = _ADDRESSES[self.family]
        width_bits = _ADDRESS_BITS[self.family]
        for negation, chosen in (("", ranges), ("! ", complement(ranges, width_bits))):
            if len(chosen) == 1 and (network := _network(chosen[0], width_bits)) is not None:
                return Step((f"{negation}{option} {kind(chosen[0][0])}/{network}",))
        if self.family == "ip":
            return None  # one u32 test compares with ten ranges of 4 bytes
        return Step(tuple(f"-m iprange {range_option} {kind(low)}-{kind(high)}" for low, high in ranges))

    def fidelity(self, rule: Rule, ruleset: Ruleset) -> Fidelity:
        """What differs; if packets too many and too few match, the level is WIDER: that is what breaks."""
        normal = _lowered(rule.match)
        literals = {literal for part in (normal.common, *normal.alternatives) for literal in part}
        payload = any(
            isinstance(literal, Has) or (isinstance(literal, Within) and literal.load.layer is Layer.PAYLOAD)
            for literal in literals
        )
        transport = any(isinstance(literal, Is) and literal.protocol not in _OTHER for literal in literals)
        notes: list[str] = []
        levels: set[bool] = set()
        if payload:
            notes.append("judges the record that starts a packet's payload, none further inside")
        if self.family == "ip6" and needs_whole(self._inside(tuple(literals))):
            levels.add(True)
            notes.append("packets with IPv6 extension headers pass unjudged")
        if (payload or transport) and not ruleset.defragment:
            levels.add(True)
            notes.append("IP fragments pass unjudged")
        for kind, fewer, note in (
            (SomeRecord, True, "a record behind the first of a packet is not seen"),
            (Contains, False, "bytes in IP and TCP options and in IPv6 extension headers are searched too"),
            (
                ServerName,
                False,
                "the name is found wherever it stands in the ClientHello as in a server_name",
            ),
        ):
            senses = _senses(rule.match, kind)
            levels |= {sense is fewer for sense in senses}
            notes += [note] if senses else []
        if isinstance(rule.limit, Limit):
            notes.append("the rate is counted with the kernel's clock")
        level = Level.WIDER if False in levels else Level.NARROWER if levels else Level.EXACT
        return Fidelity(rule=rule.name, level=level, notes=tuple(notes))


def _protocol(literals: Conjunction) -> str:
    return "udp" if Is("udp") in literals else "tcp"


def _lowered(match: Match) -> Normal:
    return lower_match(first_record(_with_hello(match)))


def _with_hello(match: Match) -> Match:
    """What u32 can say of a server_name: that a ClientHello starts the payload."""
    match match:
        case ServerName():
            hello = equals("tls.content_type", HANDSHAKE), equals("tls.handshake_type", CLIENT_HELLO)
            return all_of(*hello, match)
        case And(matches):
            return And(tuple(map(_with_hello, matches)))
        case Or(matches):
            return Or(tuple(map(_with_hello, matches)))
        case Not(inner):
            return Not(_with_hello(inner))
    return match


def _senses(match: Match, kind: type, wanted: bool = True) -> set[bool]:
    """Whether leaves of a kind make the match hold, or keep it from holding."""
    match match:
        case And(matches) | Or(matches):
            return set().union(*(_senses(part, kind, wanted) for part in matches))
        case Not(inner):
            return _senses(inner, kind, not wanted)
    return {wanted} if isinstance(match, kind) else set()


def _network(interval: tuple[int, int], width_bits: int) -> int | None:
    """The length of the prefix that the interval is, if it is one."""
    low, high = interval
    host_bits = (high - low).bit_length()
    whole = high - low + 1 == 1 << host_bits and low % (1 << host_bits) == 0
    return width_bits - host_bits if whole else None


def _ports(option: str, ranges: Ranges) -> Iterator[str]:
    """As few multiport matches as its limit allows."""
    outside = complement(ranges, 16)
    if outside and _slots(outside) < _slots(ranges) and _slots(outside) <= PORTS_MAX:
        yield f"-m multiport ! {option} {_listed(outside)}"
        return
    chosen: list[Interval] = []
    for one in ranges:
        if _slots((*chosen, one)) > PORTS_MAX:
            yield f"-m multiport {option} {_listed(chosen)}"
            chosen = []
        chosen.append(one)
    yield f"-m multiport {option} {_listed(chosen)}"


def _slots(ranges: Iterable[Interval]) -> int:
    return sum(1 if low == high else 2 for low, high in ranges)


def _listed(ranges: Iterable[Interval]) -> str:
    return ",".join(f"{low}" if low == high else f"{low}:{high}" for low, high in ranges)


def _merged(every: Iterable[Step]) -> Iterator[Variants]:
    """As few steps as few lines can say."""
    pending = Step(("",))
    for step in sorted(every, key=lambda one: len(one.variants)):
        clash = "" not in (pending.protocol, step.protocol) and pending.protocol != step.protocol
        if pending != Step(("",)) and (clash or len(pending.variants) * len(step.variants) > FEW):
            yield _said(pending)
            pending = Step(("",))
        joined = tuple(f"{one} {other}".strip() for one in pending.variants for other in step.variants)
        pending = Step(joined, pending.protocol or step.protocol)
    if pending != Step(("",)):
        yield _said(pending)


def _said(step: Step) -> Variants:
    return tuple(f"{step.protocol} {words}".strip() for words in step.variants)


_TUNNELS: Final = "Not looked into: TCP inside tunnels or IPsec."
_EXTENSIONS: Final = (
    "Nor, but for its ports, TCP behind IPv6 extension headers. Where nobody needs them, refuse them:",
    'ip6tables -I FORWARD -p tcp -m u32 ! --u32 "3&0xFF=6" -j DROP',
)

IPTABLES: Final = XtablesBackend(
    dialect=U32Dialect(name="iptables", family="ip"), suffix=".iptables.rules", limits=(_TUNNELS,)
)
IP6TABLES: Final = XtablesBackend(
    dialect=U32Dialect(name="ip6tables", family="ip6"),
    suffix=".ip6tables.rules",
    limits=(_TUNNELS, *_EXTENSIONS),
)
BACKENDS: Final = (IPTABLES, IP6TABLES)
