"""What a rule looks at: a tree of tests on one packet and its connection.

In:  names of analyzer.wire.fields.FIELDS, integers, names of the ruleset's sets.
Out: frozen values; backends and evaluators give them their one meaning, which is written here.
Source: RFC 8446, RFC 6520 for the fields; Linux nf_conntrack for states, directions and marks.

Meaning. A match speaks about one packet, its datagram whole (not a fragment) and its headers complete. A
field is at a fixed place; the tls.* and ssl2.* fields are those of the record that *starts* the packet's
payload. A test of bytes that the packet does not have is false, `!=` included; only `Not`, which is
Boolean, makes that true. Whoever translates a match must keep that difference: a short packet is how rules
are evaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias

from analyzer.wire.fields import FIELDS, Field

Interval: TypeAlias = tuple[int, int]
"""Both ends are included."""


class Op(StrEnum):
    """How a field compares with a value, as unsigned integers."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"


class Direction(StrEnum):
    """Of a packet in its connection: ORIGINAL is the direction of the packet that opened it."""

    ORIGINAL = "original"
    REPLY = "reply"


class State(StrEnum):
    """Of a packet in its connection. Every packet has exactly one."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


WITHOUT_CONNECTION: Final = frozenset({State.INVALID, State.UNTRACKED})
"""Packets in these states belong to no connection: they have neither direction nor mark."""


@dataclass(frozen=True, slots=True)
class Test:
    """`field & mask op value`."""

    __test__: ClassVar[bool] = False  # pytest: not a test class

    field: str
    op: Op
    value: int | tuple[Interval, ...]
    """An integer; with IN, intervals."""
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Exceeds:
    """`field + plus > other`, without overflow: what no filter language but cBPF can say directly."""

    field: str
    plus: int
    other: str


@dataclass(frozen=True, slots=True)
class Present:
    """The packet's payload reaches to the end of `field`."""

    field: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """The fields, taken together, are an element of a set of the ruleset."""

    fields: tuple[str, ...]
    set: str


@dataclass(frozen=True, slots=True)
class SomeRecord:
    """The match holds for one of the first records of the payload, each starting where the one before ends.

    The match speaks of tls.* fields alone, as if that record started the payload.
    """

    match: Match
    records: int
    """How many records are looked at."""


@dataclass(frozen=True, slots=True)
class Contains:
    """The packet's payload has these bytes somewhere, whatever they mean there."""

    pattern: bytes


@dataclass(frozen=True, slots=True)
class ServerName:
    """A ClientHello starts the payload and its server_name (RFC 6066 3), whole in the packet, is the name.

    Letters are compared without case. A name that the packet does not have, or cuts, is no match.
    """

    name: str
    """In lower case, ASCII (an A-label where the host has another name)."""
    subdomains: bool = False
    """The names below it too."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """The packet is "ip" (IPv4), "ip6", "tcp" or "udp". Tests of such a protocol's fields imply it."""

    name: str


@dataclass(frozen=True, slots=True)
class InState:
    """The packet's conntrack state is one of these."""

    states: frozenset[State]


@dataclass(frozen=True, slots=True)
class InDirection:
    """The packet belongs to a connection and goes in this direction."""

    direction: Direction


@dataclass(frozen=True, slots=True)
class Marked:
    """The packet belongs to a connection whose mark, under the mask, is the value."""

    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class And:
    """Every one of them; of none: always true."""

    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of them; of none: never true."""

    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Boolean: true also where a test failed because the packet is too short."""

    match: Match


Search: TypeAlias = SomeRecord | Contains | ServerName
"""What is at no fixed place of the packet."""

Leaf: TypeAlias = Test | Exceeds | Present | Lookup | Search | Protocol | InState | InDirection | Marked
Match: TypeAlias = Leaf | And | Or | Not

ALWAYS: Final = And(())

PROTOCOLS: Final = ("ip", "ip6", "tcp", "udp")

CARRIER: Final = {"ip": "ip", "ip6": "ip6", "tcp": "tcp", "udp": "udp", "tls": "tcp", "ssl2": "tcp"}
"""A field's prefix -> the protocol that its packet must be."""


def carrier(field: str) -> str:
    """The protocol that a packet must be to have the field."""
    return CARRIER[field.partition(".")[0]]


def reach(field: str) -> int:
    """Bytes of its layer that a packet must have, so that it has the whole field."""
    place: Field = FIELDS[field]
    return place.byte_offset + place.width_bytes


def leaves(match: Match) -> Iterator[Leaf]:
    """What a match is made of, whether or not it is below a Not."""
    match match:
        case And(matches) | Or(matches):
            for part in matches:
                yield from leaves(part)
        case Not(inner):
            yield from leaves(inner)
        case _:
            yield match


def equals(field: str, value: int) -> Test:
    return Test(field, Op.EQ, value)


def between(field: str, low: int, high: int) -> Test:
    return Test(field, Op.IN, ((low, high),))


def one_of(field: str, values: tuple[Interval, ...]) -> Test:
    return Test(field, Op.IN, values)


def all_of(*matches: Match) -> And:
    return And(matches)


def any_of(*matches: Match) -> Or:
    return Or(matches)
