"""What evaluators have in common: a packet on its way through the hooks, and what becomes of it.

In:  artifacts (rulegen.artifacts), packets of a capture.
Out: Passing, Connection, Hit, Entry; Undecidable for what nobody can know offline.
Source: Linux include/uapi/linux/netfilter.h for hooks and verdicts, net/netfilter/core.c nf_hook_slow for
    their order: entries of a hook by priority, each until one drops.

An evaluator never imports what emits rules (backends, lower, bpf.compile): a shared mistake would agree with
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from rulegen.ir.match import Direction, State


class Undecidable(Exception):
    """A packet's verdict depends on what the capture does not tell: bytes that were cut, the kernel's clock.

    Attributes:
        why: One sentence for the operator.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class NotModelled(Exception):
    """The ruleset uses what no evaluator models; said before the first packet.

    Attributes:
        where: The rule, as an operator finds it.
        feature: In the words of nft or iptables.
    """

    def __init__(self, where: str, feature: str) -> None:
        super().__init__(f"{where}: {feature} is not modelled")
        self.where = where
        self.feature = feature


class Fate(StrEnum):
    """What becomes of a packet at an entry, or in the end."""

    ACCEPT = "accept"
    DROP = "drop"
    """Also with an answer to its sender (reject)."""
    STOLEN = "stolen"
    """Kept: a fragment that waits for the others of its datagram."""
    UNKNOWN = "unknown"


class Hit(NamedTuple):
    """A rule that a packet matched, whatever the rule did."""

    table: str
    """With its family: "inet tlswall", "ip filter"."""
    chain: str
    number: int
    """Of the rule in its chain, from 1."""
    comment: str | None


@dataclass(slots=True, eq=False)
class Connection:
    """An entry of the conntrack table, as far as rules can see it and change it."""

    mark: int = 0
    confirmed: bool = False
    """A packet of it got through; an entry that is not confirmed dies with its packet."""
    packet_counts: list[int] = field(default_factory=lambda: [0, 0])
    """By direction: original, reply."""
    byte_counts: list[int] = field(default_factory=lambda: [0, 0])
    tuples: tuple[tuple[bytes, bytes, int, int, int], ...] = ()
    """By direction: source and destination address as on the wire, source and destination port (ICMP: id),
    protocol."""
    protocol_state: object = None
    """What the tracker of its protocol keeps."""
    expires_ns: int = 0
    """By capture time."""
    assured: bool = False
    seen_reply: bool = False


@dataclass(slots=True, eq=False)
class Passing:
    """One packet on its way: an IP datagram, whole where connection tracking has reassembled it."""

    number: int
    """In its capture, 1-based."""
    time_ns: int
    data: bytes
    """From the network header on; link-layer padding is cut off."""
    captured: int
    """Bytes of `data` that the capture really has; what is behind them is not known (snaplen)."""
    interface_in: str = "br0"
    interface_out: str = "br0"
    mark: int = 0
    """The packet's own (meta mark, nfmark)."""
    state: State | None = None
    """None before connection tracking has seen it, or where it does not run."""
    direction: Direction | None = None
    connection: Connection | None = None
    hits: list[Hit] = field(default_factory=list)
    notrack: bool = False
    fragments: tuple[int, ...] = ()
    """Numbers of the packets that it was reassembled from, this one included: they share its fate."""

    @property
    def family(self) -> str:
        """Of its network header: ip or ip6."""
        return "ip6" if self.data[0] >> 4 == 6 else "ip"


class Decision(NamedTuple):
    """What an entry says of a packet."""

    fate: Fate
    by: Hit | None
    """The rule that decided; None: the chain's policy."""
    resets: bool = False
    """It answers with a TCP reset, which closes the connection for the tracker too."""


class Entry(NamedTuple):
    """A base chain at its place."""

    hook: str
    """prerouting, input, forward, output or postrouting."""
    priority: int
    family: str
    """ip, ip6 or inet: packets of another family don't enter."""
    name: str
    """Table and chain, for messages."""
    judge: Callable[[Passing], Decision]
    """Raises Undecidable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An artifact ready to judge packets."""

    entries: tuple[Entry, ...]
    tracking: bool
    """It makes the kernel track connections, and so reassemble fragments."""
