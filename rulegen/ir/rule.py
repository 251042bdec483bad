"""What a rule does, why it exists, and the ruleset that holds it.

In:  rulegen.ir.match.
Out: Rule, Chain, SetDeclaration, Ruleset: frozen, equal for equal input, so that output is deterministic.
Source: netfilter's own notions: verdicts, chains, sets with time-outs, connection marks, limits.

A chain is one policy's answer. Its rules are tried in order; the first whose match holds and whose verdict
is not CONTINUE ends the chain. Policies are independent of each other: a chain that is content with a
packet says PASS, and the next chain judges it; ACCEPT ends the judgement of all of them and is for policies
that decide alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from rulegen.ir.match import ALWAYS, Interval, Match


class Verdict(StrEnum):
    """What becomes of a packet that a rule matches."""

    DROP = "drop"
    RESET = "reset"
    """Dropped, and its sender gets a TCP reset; of a connection's two ends only the sender learns of it."""
    ACCEPT = "accept"
    """No later chain of this ruleset sees it. Other tables still do."""
    PASS = "pass"
    """This chain has no objection; the next chain judges."""
    CONTINUE = "continue"
    """Effects only; the next rule judges."""


ENDS: Final = frozenset({Verdict.DROP, Verdict.RESET, Verdict.ACCEPT, Verdict.PASS})
"""Verdicts after which no later rule of the chain sees the packet."""


@dataclass(frozen=True, slots=True)
class SetMark:
    """Write the value into the bits of the connection's mark that the mask has."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Learn:
    """Add the packet's fields to a dynamic set, or renew them there, for so many seconds."""

    set: str
    fields: tuple[str, ...]
    timeout_s: int


Effect: TypeAlias = SetMark | Learn


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The rule applies only to packets in excess of a rate, counted per value of `key` (or all together)."""

    packets: int
    per: str
    """second, minute, hour or day."""
    burst: int
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimit:
    """The rule applies only to connections in excess of a number that are open at once, per value of `key`.

    Counted are connections of which the rule's match has seen a packet, as long as conntrack knows them.
    """

    connections: int
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A finding that a rule answers."""

    finding: str
    """Its id, HB01 for example."""
    capture: str
    """Name of the capture, without its folder."""
    packets: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Why a rule is there."""

    policy: str
    citations: tuple[Citation, ...] = ()
    """Empty: the user wished for the policy, no finding did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    name: str
    """Unique in the ruleset: lower-case words joined by hyphens."""
    match: Match
    verdict: Verdict
    origin: Origin
    meaning: str
    """One sentence for the operator who finds the rule in a firewall."""
    effects: tuple[Effect, ...] = ()
    limit: Limit | ConnectionLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    name: str
    policy: str
    rules: tuple[Rule, ...]
    guard: Match = ALWAYS
    """What all rules of the chain have in common: other packets do not enter it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Of a set: one interval per key field."""

    key: tuple[Interval, ...]
    timeout_s: int | None = None
    note: str = ""
    """Where it comes from; may hold strings from the wire, so a backend must make it harmless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDeclaration:
    name: str
    fields: tuple[str, ...]
    """The fields that an element's key is compared with."""
    elements: tuple[Element, ...] = ()
    timeout_s: int | None = None
    """For elements that say nothing else. None: elements stay."""
    dynamic: bool = False
    """Rules add elements (Learn)."""
    size: int | None = None
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A capture that the ruleset was made from."""

    name: str
    sha256: str | None
    """None: it was no file, standard input for example, and is gone."""
    times_ns: tuple[int, int] | None = None
    """Of its first and its last packet, since 1970 UTC; None: not known, or it has no packet."""


class Hook(StrEnum):
    """Where in the packet's way through the host the rules sit."""

    FORWARD = "forward"
    INPUT = "input"
    OUTPUT = "output"
    PREROUTING = "prerouting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    chains: tuple[Chain, ...]
    sets: tuple[SetDeclaration, ...] = ()
    hook: Hook = Hook.FORWARD
    sources: tuple[Source, ...] = ()
    policies: tuple[str, ...] = ()
    """As the user could write them: `heartbleed:ports=443,direction=both`."""
    remarks: tuple[str, ...] = ()
    """What the operator has to know of the rules as a whole; a header and the account show it."""
    defragment: bool = True
    """Have connection tracking reassemble fragments before the rules see them. Without, a fragment passes
    every rule that looks at the payload."""

    @property
    def rules(self) -> Iterator[Rule]:
        """All rules, in the order in which a packet meets them."""
        for chain in self.chains:
            yield from chain.rules
