"""The matches and targets of iptables and ip6tables, as values.

In:  nothing; the readers beside this file make these values.
Out: Match, Target and their kinds.
Source: iptables(8), iptables-extensions(8) of 1.8.9; Linux net/netfilter/xt_*.c for the meaning.

A rule matches if all its matches do. `inverted` belongs to the one test beside it. Intervals include both
ends. What an option leaves out has the value that iptables gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rulegen.artifacts.u32 import U32
from rulegen.bpf.program import Program

Interval: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """-p: the header that the packet carries, behind IPv6's extension headers."""

    number: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """-s, -d: the address, masked, is the value."""

    side: str
    """source or destination."""
    value: int
    mask: int
    width_bits: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """-i, -o."""

    side: str
    """in or out."""
    name: str
    prefix: bool = False
    """Names that begin so (`eth+`)."""
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """-f: a fragment of IPv4 other than the first."""

    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PortTest:
    low: int
    high: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagsTest:
    """Of the flags in the mask, exactly those in `set` are set."""

    mask: int
    set: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTest:
    kind: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    """-m tcp. Present without tests, it still asks for a whole header."""

    source: PortTest | None = None
    destination: PortTest | None = None
    flags: FlagsTest | None = None
    option: OptionTest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Udp:
    """-m udp, -m udplite."""

    source: PortTest | None = None
    destination: PortTest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Icmp:
    """-m icmp, -m icmp6."""

    type: int
    """0xFF with all codes: any type of ICMPv4."""
    codes: Interval
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiport:
    side: str
    """source, destination or either."""
    ports: tuple[Interval, ...]
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class U32Match:
    program: U32
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bpf:
    program: Program


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesTest:
    """NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED, SNAT, DNAT: one of them."""

    states: frozenset[str]
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTest:
    low: int
    high: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TupleAddress:
    """An address of the connection, masked."""

    side: str
    """origsrc, origdst, replsrc, repldst."""
    value: int
    mask: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TuplePorts:
    side: str
    low: int
    high: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conntrack:
    """-m conntrack, -m state: all its tests hold."""

    states: StatesTest | None = None
    direction: str | None = None
    """original or reply."""
    protocol: Protocol | None = None
    status: StatesTest | None = None
    """NONE, EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED."""
    expires_s: NumberTest | None = None
    tuples: tuple[TupleAddress | TuplePorts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnMark:
    """The connection's mark, masked, is the value; without connection it does not match, inverted or not."""

    value: int
    mask: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    value: int
    mask: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class String:
    pattern: bytes
    algorithm: str
    """bm or kmp."""
    first: int
    """--from: offset from the network header at which the search begins."""
    last: int
    """--to: where it ends; the pattern has to end before."""
    ignore_case: bool = False
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Of the packet, network header included."""

    low: int
    high: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterTest:
    op: str
    """eq, lt or gt."""
    value: int
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMatch:
    """The packet is in an ipset."""

    name: str
    sides: tuple[str, ...]
    """src or dst, for each part of the set's type."""
    inverted: bool = False
    nomatch: bool = False
    update_counters: bool = True
    update_subcounters: bool = True
    packets: CounterTest | None = None
    bytes: CounterTest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    count: int
    unit: str
    """second, minute, hour or day."""
    bytes: bool = False
    """Bytes are counted, not packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    rate: Rate
    burst: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HashLimit:
    name: str
    rate: Rate
    above: bool
    """Matches in excess of the rate; else up to it."""
    burst: int = 5
    """Packets, or bytes."""
    modes: tuple[str, ...] = ()
    """srcip, srcport, dstip, dstport."""
    source_mask: int | None = None
    """Prefix length; None: the whole address."""
    destination_mask: int | None = None
    table_size: int | None = None
    table_max: int | None = None
    expire_ms: int | None = None
    gc_interval_ms: int | None = None
    rate_match: bool = False
    interval_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnLimit:
    count: int
    above: bool
    mask: int | None = None
    """Prefix length; None: the whole address."""
    side: str = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    action: str
    """set, rcheck, update or remove."""
    name: str = "DEFAULT"
    side: str = "source"
    seconds: int | None = None
    hits: int | None = None
    reap: bool = False
    ttl: bool = False
    mask: int | None = None
    """As a number; None: the whole address."""
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TypesTest:
    types: frozenset[str]
    """UNICAST, LOCAL, BROADCAST, MULTICAST, ...: the host's routes tell."""
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AddrType:
    source: TypesTest | None = None
    destination: TypesTest | None = None
    limit: str | None = None
    """in or out: of that interface alone."""


Match: TypeAlias = (
    Protocol | Address | Interface | Fragment | Tcp | Udp | Icmp | Multiport | U32Match | Bpf | Conntrack
    | ConnMark | Mark | String | Length | SetMatch | Limit | HashLimit | ConnLimit | Recent | AddrType
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """ACCEPT, DROP, RETURN, or QUEUE."""

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goto:
    chain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Drop the packet and answer it."""

    kind: str
    """As --reject-with has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMarkTarget:
    """mark = (mark & ~mask) ^ value."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetConnMark:
    """ctmark = (ctmark & ~mask) ^ value."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveConnMark:
    """ctmark = (ctmark & ~ctmask) ^ (mark & nfmask)."""

    nfmask: int
    ctmask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreConnMark:
    """mark = (mark & ~nfmask) ^ (ctmark & ctmask)."""

    nfmask: int
    ctmask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """-j SET."""

    action: str
    """add or del; "map" is Unknown."""
    name: str
    sides: tuple[str, ...]
    exist: bool = False
    """An element that is there gets its time-out anew."""
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """LOG, NFLOG, TRACE: nothing becomes of the packet, the next rule judges."""

    kind: str
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notrack:
    """CT --notrack, NOTRACK."""


Target: TypeAlias = (
    Verdict | Jump | Goto | Reject | SetMarkTarget | SetConnMark | SaveConnMark | RestoreConnMark
    | ChangeSet | Logged | Notrack
)  # fmt: skip
