"""The expressions of nft's register program, as values.

In:  nothing; nft_bytecode makes these values.
Out: Expression and its kinds, NftVerdict.
Source: Linux net/netfilter/nf_tables_api.c and nft_*.c; the names are those of libnftnl, which prints them.

Registers. A rule has 64 bytes of registers, zeroed for every rule, and one register for the verdict. A
`register` here is the byte at which it starts, 0 to 60. What is loaded starts there and is padded with zeros
to a whole word of 4 bytes.

Byte order. A value is the bytes as they lie in the register: what comes from a packet is in network order;
a number of the kernel (a mark, a state, the length of a packet) is in the order of the host that read the
file, and `byteorder` turns it. Comparisons are of bytes, the first one first (memcmp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rulegen.artifacts.unknown import Unknown


@dataclass(frozen=True, slots=True)
class NftVerdict:
    """What becomes of a packet; `break` and `continue` end the rule alone."""

    kind: str
    """accept, drop, return, continue, break, jump, goto."""
    chain: str | None = None
    """Of a jump or goto."""


@dataclass(frozen=True, slots=True)
class PayloadLoad:
    register: int
    base: str
    """link, network, transport or inner: where offsets are counted from; inner is what TCP or UDP carries."""
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PayloadWrite:
    """Change the packet."""

    register: int
    base: str
    offset: int
    length: int
    checksum_type: int
    checksum_offset: int
    checksum_flags: int


@dataclass(frozen=True, slots=True)
class MetaLoad:
    register: int
    key: str


@dataclass(frozen=True, slots=True)
class MetaSet:
    register: int
    key: str


@dataclass(frozen=True, slots=True)
class CtLoad:
    register: int
    key: str
    direction: str | None
    """original, reply, or None: the packet's own, or both together."""


@dataclass(frozen=True, slots=True)
class CtSet:
    register: int
    key: str
    direction: str | None


@dataclass(frozen=True, slots=True)
class ExthdrLoad:
    """Of an IPv6 extension header, TCP option, IPv4 option or SCTP chunk."""

    register: int
    header: str
    """ipv6, tcpopt, ipv4; sctp is printed without a name by libnftnl 1.2.4 and is Unknown then."""
    length: int
    type: int
    offset: int
    present: bool
    """Load 1 or 0: whether there is one."""


@dataclass(frozen=True, slots=True)
class ExthdrWrite:
    register: int
    header: str
    length: int
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class ExthdrReset:
    header: str
    type: int


@dataclass(frozen=True, slots=True)
class Fib:
    """Ask the host's routes."""

    register: int
    flags: tuple[str, ...]
    """saddr, daddr, mark, iif, oif."""
    result: str
    """oif, oifname or type."""
    present: bool


@dataclass(frozen=True, slots=True)
class Route:
    register: int
    key: str


@dataclass(frozen=True, slots=True)
class Socket:
    """Ask for the local socket that the packet belongs to."""

    register: int
    key: str


@dataclass(frozen=True, slots=True)
class OsFingerprint:
    register: int


@dataclass(frozen=True, slots=True)
class Ipsec:
    register: int
    direction: str
    policy: int
    key: str


@dataclass(frozen=True, slots=True)
class Numgen:
    register: int
    type: str
    """random or inc."""
    modulus: int
    offset: int


@dataclass(frozen=True, slots=True)
class Hash:
    register: int
    type: str
    """jhash (of a register) or symhash (of the packet's flow)."""
    source: int | None
    length: int | None
    seed: int | None
    modulus: int
    offset: int


@dataclass(frozen=True, slots=True)
class Immediate:
    """Load a constant; it may be longer than what a later expression uses of it."""

    register: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Decide:
    """The rule's verdict."""

    verdict: NftVerdict


@dataclass(frozen=True, slots=True)
class Compare:
    """The first len(value) bytes of the register `op` value; else the rule does not match."""

    register: int
    op: str
    """eq, neq, lt, lte, gt, gte."""
    value: bytes


@dataclass(frozen=True, slots=True)
class Range:
    register: int
    op: str
    """eq or neq: within, or not."""
    low: bytes
    high: bytes
    """Included."""


@dataclass(frozen=True, slots=True)
class Bitwise:
    """target = (source & mask) ^ xor."""

    target: int
    source: int
    mask: bytes
    xor: bytes


@dataclass(frozen=True, slots=True)
class Shift:
    """target = source << bits, word by word of the host's order."""

    target: int
    source: int
    op: str
    """<< or >>."""
    bits: int


@dataclass(frozen=True, slots=True)
class Byteorder:
    target: int
    source: int
    op: str
    """hton or ntoh."""
    length: int
    """Bytes in all."""
    size: int
    """Bytes of each number: 2, 4 or 8."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Find the key that starts at `register` in a set; not found: the rule does not match."""

    register: int
    set: str
    inverted: bool
    target: int | None
    """Where a map's data go."""
    verdict: bool
    """The map's element is the rule's verdict."""


@dataclass(frozen=True, slots=True)
class DynamicSet:
    """Add, renew or delete the element whose key starts at `register`."""

    op: str
    """add, update or delete."""
    register: int
    set: str
    data: int | None
    timeout_ms: int
    """0: as the set says."""
    expressions: tuple[Expression | Unknown, ...]
    """What the element has for itself; the rule goes on only if they let it."""
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Counter:
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket; `over`: the rule matches in excess of it."""

    rate: int
    unit: str
    """second, minute, hour, day or week."""
    burst: int
    type: str
    """packets or bytes."""
    over: bool


@dataclass(frozen=True, slots=True)
class Quota:
    bytes: int
    consumed: int
    over: bool


@dataclass(frozen=True, slots=True)
class ConnectionCount:
    """Connections open at once; `over`: the rule matches in excess of them."""

    count: int
    over: bool


@dataclass(frozen=True, slots=True)
class ObjectReference:
    type: str
    """counter, quota, limit, ...; "type N" where libnftnl has no name."""
    name: str


@dataclass(frozen=True, slots=True)
class ObjectMap:
    """The object that a map has for the key."""

    register: int
    set: str


@dataclass(frozen=True, slots=True)
class Log:
    text: str
    """As printed: prefix, group or level."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop the packet and answer it."""

    type: int
    """Linux uapi nf_tables.h enum nft_reject_types: 0 ICMP of the family, 1 TCP reset, 2 ICMP of either."""
    code: int


@dataclass(frozen=True, slots=True)
class Notrack:
    pass


@dataclass(frozen=True, slots=True)
class Last:
    """When the rule was last met."""

    text: str


@dataclass(frozen=True, slots=True)
class Nat:
    """Rewrite an address or port, for the whole connection."""

    kind: str
    """snat, dnat, masq, redir or tproxy."""
    family: str | None
    registers: tuple[tuple[str, int], ...]
    """addr_min, addr_max, proto_min, proto_max; addr, port of tproxy."""
    flags: int


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The packet, or a copy of it, goes to where no rule can tell its fate."""

    kind: str
    """queue, dup, fwd, synproxy, flow_offload."""
    text: str


Expression: TypeAlias = (
    PayloadLoad | PayloadWrite | MetaLoad | MetaSet | CtLoad | CtSet | ExthdrLoad | ExthdrWrite | ExthdrReset
    | Fib | Route | Socket | OsFingerprint | Ipsec | Numgen | Hash | Immediate | Decide | Compare | Range
    | Bitwise | Shift | Byteorder | Lookup | DynamicSet | Counter | Limit | Quota | ConnectionCount
    | ObjectReference | ObjectMap | Log | Reject | Notrack | Last | Nat | Elsewhere
)  # fmt: skip
