"""What a firewall file says, as values: tables, chains, rules and sets, whoever wrote the file.

In:  nothing; the readers beside this file make these values.
Out: Artifact and what it is made of; the errors of reading.
Source: nft(8), iptables-save(8), ipset(8); Linux netfilter for hooks, priorities and verdicts.

Nothing of a file is dropped: what a reader has no value for is an Unknown with its name, and `unsupported`
lists them, so that an evaluator refuses by name before it starts. No packet is judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from rulegen.artifacts.nft_values import DynamicSet, Expression, NftVerdict
from rulegen.artifacts.unknown import Unknown
from rulegen.artifacts.xt_values import Match, Target

TEXT_MAX_BYTES: Final = 64 << 20
"""A ruleset of 100,000 rules has 20 MB; what is larger is a mistake or an attack."""


class Dialect(StrEnum):
    """Which tool the file is for."""

    NFT = "nft"
    XTABLES = "iptables"
    """iptables-save or ip6tables-save; `Artifact.family` says which, where the file does."""
    IPSET = "ipset"


class UnsupportedExpression(Exception):
    """A rule or a set of the file uses something that has no value here.

    Attributes:
        where: The rule or set, as an operator finds it.
        feature: What it uses, in nft's, iptables' or ipset's words.
    """

    def __init__(self, where: str, feature: str) -> None:
        super().__init__(f"{where}: {feature}")
        self.where = where
        self.feature = feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a counter had when the file was saved."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    number: int
    """In its chain, from 1."""
    line: int | None = None
    """Of the file, from 1. None: nft, which gives a handle."""
    handle: int | None = None
    """nft's; None for iptables."""
    comment: str | None = None
    text: str = ""
    """As the tool lists it (nft) or as the file has it (iptables), without its place."""
    parts: tuple[Expression | Match | Unknown, ...] = ()
    """nft: the register program, verdicts included. iptables: the matches, all of which must hold."""
    target: Target | Unknown | None = None
    """iptables: what becomes of the packet; None: nothing, the next rule judges."""
    counted: Counted | None = None
    only: str | None = None
    """ip or ip6: the family whose iptables-restore takes the line (-4, -6); None: both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    name: str
    rules: tuple[RuleLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseChain(Chain):
    """A chain that packets enter from the kernel."""

    hook: str
    """prerouting, input, forward, output, postrouting, ingress or egress."""
    priority: int
    """Lower ones are entered first."""
    policy: str
    """accept or drop: for packets that come to the chain's end."""
    type: str = "filter"
    """filter, nat or route."""
    device: str | None = None
    """Of family netdev: the interface."""
    declared: bool = True
    """False: iptables, and the file uses the chain without saying its policy, which then is accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Of a set: one interval per component of the key, both ends included, as bytes in the register."""

    key: tuple[tuple[bytes, bytes], ...]
    """Empty: the element stands for every key that no other has (`*`)."""
    value: bytes | NftVerdict | str | None = None
    """Of a map: data, padded to whole words; a verdict; the name of an object."""
    timeout_s: int | None = None
    """None: as the set says."""
    expires_s: int | None = None
    """Given only where the file itself says so."""
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetContent:
    """A set or map of nft."""

    name: str
    types: tuple[str, ...] = ()
    """nft's names of the key's components; empty for an anonymous set."""
    data: str | None = None
    """Of a map: nft's name of what it gives, "verdict" for example. Anonymous maps: None."""
    widths: tuple[int, ...] = ()
    """Bytes of each component of the key, without the padding that registers have."""
    intervals: bool = False
    elements: tuple[Element, ...] = ()
    timeout_s: int | None = None
    """Of elements that say nothing else. None: they stay."""
    size: int | None = None
    statements: tuple[Expression | Unknown, ...] = ()
    """What every element has for itself: a counter, a limit."""
    comment: str | None = None

    @property
    def anonymous(self) -> bool:
        return self.name.startswith(("__set", "__map"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedObject:
    """An object that rules of nft refer to by name."""

    kind: str
    """counter, quota, limit, "ct helper", flowtable and so on."""
    name: str
    body: Expression | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    family: str | None
    """ip, ip6, inet, arp, bridge or netdev. None: iptables, and the file serves ip and ip6."""
    name: str
    chains: tuple[Chain, ...] = ()
    sets: tuple[SetContent, ...] = ()
    objects: tuple[NamedObject, ...] = ()
    dormant: bool = False
    """Packets do not enter its base chains."""

    def chain(self, name: str) -> Chain:
        """The chain of that name.

        Raises:
            KeyError: There is none.
        """
        for chain in self.chains:
            if chain.name == name:
                return chain
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Of an ipset: one part per component of the set's type."""

    parts: tuple[Part, ...]
    timeout_s: int | None = None
    comment: str | None = None
    nomatch: bool = False
    """An exception from a wider member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpSet:
    """A set of ipset(8)."""

    name: str
    type: str
    """hash:ip,port for example."""
    family: str | None
    """ip, ip6, or None for types without addresses."""
    members: tuple[Member, ...] = ()
    timeout_s: int | None = None
    """Of members that say nothing else. None: members have no time-out; 0: they stay unless they have."""
    max_elements: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    """The other options of `create`, as written."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """An interval of addresses, both ends included, as numbers."""

    low: int
    high: int
    width_bits: int


@dataclass(frozen=True, slots=True)
class Ports:
    """An interval of ports of a protocol; ICMP's type and code are the high and low byte."""

    protocol: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """An interval of marks, or of ports of a bitmap:port, which has no protocol."""

    low: int
    high: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Mac:
    address: bytes


@dataclass(frozen=True, slots=True)
class Name:
    """Of an interface, or of another set."""

    name: str


Part: TypeAlias = Addresses | Ports | Numbers | Mac | Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """All that a file says."""

    dialect: Dialect
    tables: tuple[Table, ...] = ()
    ipsets: tuple[IpSet, ...] = ()
    variant: str | None = None
    """iptables-save: "nf_tables" or "legacy", which differ on fragments; None: the file does not say."""
    interfaces: tuple[tuple[int, str], ...] = ()
    """nft: number and name of the interfaces that `meta iif` and `meta oif` are compared with."""

    @property
    def rules(self) -> Iterator[tuple[Table, Chain, RuleLine]]:
        """All rules with their table and chain, in the file's order."""
        for table in self.tables:
            for chain in table.chains:
                for rule in chain.rules:
                    yield table, chain, rule


def place(table: Table, chain: Chain, rule: RuleLine) -> str:
    """A rule for a message, as an operator finds it."""
    found = f"line {rule.line}" if rule.line is not None else f"handle {rule.handle}"
    family = f"{table.family} " if table.family else ""
    return f"table {family}{table.name}, chain {chain.name}, rule {rule.number} ({found})"


def of_family(table: Table, family: str) -> Table:
    """The table as that family's iptables-restore loads it: without the lines that are for the other."""

    def chain(one: Chain) -> Chain:
        rules = [rule for rule in one.rules if rule.only in (None, family)]
        return replace(one, rules=tuple(replace(rule, number=at) for at, rule in enumerate(rules, 1)))

    return replace(table, family=family, chains=tuple(map(chain, table.chains)))


def unsupported(artifact: Artifact) -> tuple[UnsupportedExpression, ...]:
    """Everything in the file that has no value here, in its order; empty: all of it was understood."""
    found: list[tuple[str, Unknown]] = []
    for table in artifact.tables:
        for content in table.sets:
            where = f"table {table.family} {table.name}, set {content.name}"
            found += ((where, part) for part in _unknown(content.statements))
        for named in table.objects:
            where = f"table {table.family} {table.name}, {named.kind} {named.name}"
            found += ((where, part) for part in _unknown((named.body,)))
    for table, chain, rule in artifact.rules:
        where = place(table, chain, rule)
        found += ((where, part) for part in _unknown((*rule.parts, rule.target)))
    return tuple(UnsupportedExpression(where, str(part)) for where, part in found)


def _unknown(parts: Iterable[Expression | Match | Target | Unknown | None]) -> Iterator[Unknown]:
    for part in parts:
        if isinstance(part, Unknown):
            yield part
        elif isinstance(part, DynamicSet):
            yield from _unknown(part.expressions)
