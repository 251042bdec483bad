"""The plain tests of which a lowered match is made, and their order.

In:  FIELDS.
Out: Load, the literals, Normal.
Source: what nft, u32 and cBPF have in common: a masked load, compared with constants.

A literal is false where the packet lacks the bytes. "Lacks", "other" and "missing" are literals of their
own, so that no backend has to negate anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from analyzer.wire.fields import FIELDS, Layer
from rulegen.ir.match import InDirection, InState, Search
from rulegen.lower.ranges import Ranges

MANY: Final = 16
"""More ranges than this are looked up in a set, and cost as much."""


@dataclass(frozen=True, slots=True)
class Load:
    """Whole bytes of a packet, read as a number in network byte order and masked."""

    layer: Layer
    byte_offset: int
    width_bytes: int
    mask: int
    field: str | None
    """The field that it is, whole and unmasked. None: part of one, or of several."""

    @property
    def width_bits(self) -> int:
        return 8 * self.width_bytes

    @property
    def whole(self) -> bool:
        return self.mask == (1 << self.width_bits) - 1


def load_of(name: str, mask: int | None = None) -> Load:
    """Where a field is read. What is not whole bytes becomes a mask; `shift_of` places values under it."""
    field = FIELDS[name]
    full = (1 << field.width_bits) - 1
    used = (full if mask is None else mask) << shift_of(name)
    whole = used == (1 << 8 * field.width_bytes) - 1
    return Load(field.layer, field.byte_offset, field.width_bytes, used, name if whole else None)


def shift_of(name: str) -> int:
    """Bits below the field in the bytes that hold it."""
    field = FIELDS[name]
    return 8 * field.width_bytes - field.bit_offset - field.width_bits


@dataclass(frozen=True, slots=True)
class Is:
    """The packet is of the protocol; with `other`, it is not."""

    protocol: str
    other: bool = False


@dataclass(frozen=True, slots=True)
class Within:
    """The load's value is in the ranges."""

    load: Load
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Has:
    """The payload has at least so many bytes; with `lacks`, it has fewer (none is fewer)."""

    payload_bytes: int
    lacks: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The fields are an element of the set; with `missing`, the packet has the fields and they are none."""

    fields: tuple[str, ...]
    set: str
    missing: bool = False


@dataclass(frozen=True, slots=True)
class MarkIs:
    """There is a connection, and its mark under the mask is the value; with `other`, it is another."""

    value: int
    mask: int
    other: bool = False


@dataclass(frozen=True, slots=True)
class Finds:
    """The search succeeds; with `fails`, it does not."""

    search: Search
    fails: bool = False


Literal: TypeAlias = Is | Within | Has | Found | InState | InDirection | MarkIs | Finds
Conjunction: TypeAlias = tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Normal:
    """`common`, and any one of `alternatives`; no alternatives: the match can't hold. A single one is ()."""

    common: Conjunction
    alternatives: tuple[Conjunction, ...]


def ordered(literals: Iterable[Literal]) -> Conjunction:
    """Cheap ones first, the protocol before what reads its header; the same for the same literals."""
    return tuple(sorted(literals, key=rank))


def rank(literal: Literal) -> tuple[int, int, int, str]:
    """Sort key: kind, place, size, and the literal itself in an order that does not vary between runs."""
    match literal:
        case Is(name, other):
            return 0, int(other), 0, name
        case Within(load, ranges):
            kind = {Layer.NETWORK: 1, Layer.TRANSPORT: 2, Layer.PAYLOAD: 4}[load.layer]
            return kind + (len(ranges) > MANY), load.byte_offset, load.width_bytes, f"{load.mask} {ranges}"
        case InState(states):
            return 3, 0, 0, " ".join(sorted(states))
        case InDirection(direction):
            return 3, 1, 0, direction
        case MarkIs(value, mask, other):
            return 3, 2, mask, f"{value} {other}"
        case Found(fields, name, missing):
            return 6, len(fields), int(missing), f"{fields} {name}"
        case Has(payload_bytes, lacks):
            return 7, payload_bytes, int(lacks), ""
        case Finds(search, fails):
            return 8, 0, int(fails), str(search)
