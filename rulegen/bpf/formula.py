"""What a match asks of a packet's bytes, as a formula of questions that classic BPF can answer.

In:  Match: of tests on the packet alone, no connection, no set, no search but SomeRecord.
Out: Formula of Questions.
Source: RFC 791 (IHL, fragment offset), RFC 8200 (next header), RFC 9293 (data offset), RFC 8446 5.1.

A value is asked for only behind the questions whether its bytes are there: All((Holds(...), Value(...))). A
program that loads what is not there ends, and must not do so where the formula could still be true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from analyzer.wire.fields import FIELDS, Layer
from rulegen.ir.match import (
    And,
    Exceeds,
    Interval,
    Match,
    Not,
    Or,
    Present,
    Protocol,
    SomeRecord,
    Test,
    carrier,
    reach,
)
from rulegen.lower.literals import load_of, shift_of
from rulegen.lower.ranges import Ranges, complement, intersection, merged, passing

Base: TypeAlias = int
"""What an offset counts from: NETWORK, TRANSPORT, or the start of a record; record 0 starts the payload."""

NETWORK: Final = -2
TRANSPORT: Final = -1
PAYLOAD: Final = 0

RECORD_HEADER_BYTES: Final = 5
NUMBERS: Final = {"tcp": 6, "udp": 17}
WORD_BYTES: Final = 4
SUM_BYTES: Final = 2
"""Of fields that are added up: the sum of two larger ones could overflow."""


class CantCompile(Exception):
    """Classic BPF has no words for it; the message says for what."""


@dataclass(frozen=True, slots=True)
class Four:
    """The packet is IPv4; it is IPv6 otherwise."""


@dataclass(frozen=True, slots=True)
class Carries:
    """The IP header names this protocol as the next one."""

    number: int


@dataclass(frozen=True, slots=True)
class Headed:
    """It is no later fragment: the transport header follows the IP header."""


@dataclass(frozen=True, slots=True)
class Holds:
    """So many bytes of the packet are there from the base on."""

    base: Base
    size: int


@dataclass(frozen=True, slots=True)
class Value:
    """The bytes there, masked, are in the ranges. `width` is 1, 2 or 4."""

    base: Base
    offset: int
    width: int
    mask: int
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sum:
    """The two bytes at `offset`, plus `plus`, are more than the two at `other`."""

    base: Base
    offset: int
    plus: int
    other: int


Question: TypeAlias = Four | Carries | Headed | Holds | Value | Sum


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Any:
    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class No:
    part: Formula


Formula: TypeAlias = bool | Question | All | Any | No


def every(parts: Iterable[Formula]) -> Formula:
    """All of them, without what repeats or is certain; questions of one value or one length become one."""
    kept: dict[object, Formula] = {}
    for part in _flat(parts, All):
        if part is False:
            return False
        key: object = part
        if isinstance(part, Value):
            key = replace(part, ranges=())
            if isinstance(before := kept.get(key), Value):
                part = replace(part, ranges=intersection(before.ranges, part.ranges))
                if not part.ranges:
                    return False
        elif isinstance(part, Holds):
            key = Holds, part.base
            if isinstance(before := kept.get(key), Holds):
                part = max(part, before, key=lambda one: one.size)
        if part is not True:
            kept[key] = part
    return _joined(tuple(kept.values()), All, True)


def some(parts: Iterable[Formula]) -> Formula:
    """At least one of them."""
    kept: dict[Formula, None] = {}
    for part in _flat(parts, Any):
        if part is True:
            return True
        if part is not False:
            kept[part] = None
    return _joined(tuple(kept), Any, False)


def negated(part: Formula) -> Formula:
    if isinstance(part, bool):
        return not part
    return part.part if isinstance(part, No) else No(part)


def _flat(parts: Iterable[Formula], kind: type[All] | type[Any]) -> Iterator[Formula]:
    for part in parts:
        if isinstance(part, kind):
            yield from part.parts
        else:
            yield part


def _joined(parts: tuple[Formula, ...], kind: type[All] | type[Any], none: bool) -> Formula:
    if not parts:
        return none
    return parts[0] if len(parts) == 1 else kind(parts)


def formula(match: Match, records: int, base: Base = PAYLOAD) -> Formula:
    """The match as a formula.

    Args:
        match: What is asked.
        records: How many records are looked at where a match asks for more.
        base: The record that the match's tls.* fields are of.

    Raises:
        CantCompile: Something in it can't be asked of a packet, or not by classic BPF.
    """
    match match:
        case And(matches):
            return every(formula(part, records, base) for part in matches)
        case Or(matches):
            return some(formula(part, records, base) for part in matches)
        case Not(inner):
            return negated(formula(inner, records, base))
        case Test():
            return _test(match, base)
        case Exceeds(field, plus, other):
            return _sum(field, plus, other, base)
        case Present(field):
            return _has(field, base)
        case Protocol("ip"):
            return Four()
        case Protocol("ip6"):
            return No(Four())
        case Protocol(name):
            return Carries(NUMBERS[name])
        case SomeRecord(inner, asked):
            return _some_record(inner, min(asked, records))
    raise CantCompile(f"{type(match).__name__}, which is no test of a packet's headers and records")


def _some_record(match: Match, records: int) -> Formula:
    """One of the records; each is there if the one before has its length, and a byte follows its end."""
    alternatives = []
    there: list[Formula] = [Carries(NUMBERS["tcp"]), Headed()]
    for record in range(records):
        if record:
            there += (Holds(record - 1, RECORD_HEADER_BYTES), Holds(record, 1))
        alternatives.append(every((*there, formula(match, records, record))))
    return some(alternatives)


def _has(field: str, base: Base) -> Formula:
    """The packet has the whole field."""
    match carrier(field):
        case "ip":
            return Four()
        case "ip6":
            return No(Four())
        case name:
            head: tuple[Formula, ...] = (Carries(NUMBERS[name]), Headed())
    if FIELDS[field].layer is Layer.PAYLOAD:
        head = (*head, Holds(base, reach(field)))
    return every(head)


def _base(field: str, base: Base) -> Base:
    """What the field's offset counts from."""
    return {Layer.NETWORK: NETWORK, Layer.TRANSPORT: TRANSPORT}.get(FIELDS[field].layer, base)


def _test(test: Test, base: Base) -> Formula:
    load, shift = load_of(test.field, test.mask), shift_of(test.field)
    ranges = passing(test.op, test.value, FIELDS[test.field].width_bits)
    placed = merged((low << shift, high << shift) for low, high in _reachable(ranges, load.mask >> shift))
    value = _value(_base(test.field, base), load.byte_offset, load.width_bytes, load.mask, placed)
    return every((_has(test.field, base), value))


def _reachable(ranges: Ranges, mask: int) -> Ranges:
    """The ranges as far as a masked value gets; bits above the mask are never set."""
    return intersection(ranges, ((0, mask),))


def _value(base: Base, offset: int, width: int, mask: int, ranges: Ranges) -> Formula:
    """A value of any width: what is not 1, 2 or 4 bytes is compared by words, the highest deciding first."""
    if not ranges:
        return False
    if ranges[0][0] == 0 and ranges[0][1] >= mask:
        return True
    half = 8 * width // 2
    if width in (2, WORD_BYTES) and all(_even(one, half) for one in ranges):
        return _value(base, offset, width // 2, mask >> half, _halved(ranges, half))
    if width in (1, 2, WORD_BYTES):
        return Value(base, offset, width, mask, ranges)
    if width < WORD_BYTES and offset > 0:
        # Three bytes: loaded with the one before, which is there too.
        return Value(base, offset - 1, WORD_BYTES, mask, ranges)
    head = 1 if width < WORD_BYTES else width % WORD_BYTES or WORD_BYTES
    low_bits = 8 * (width - head)
    low_mask = mask & ((1 << low_bits) - 1)

    def high(intervals: Ranges) -> Formula:
        return _value(base, offset, head, mask >> low_bits, intervals)

    def low(intervals: Ranges) -> Formula:
        return _value(base, offset + head, width - head, low_mask, intervals)

    # The last bytes first: the load that reaches furthest tells whether all of them are there.
    return some(every((low(rest), high(tops))) for tops, rest in _by_top(ranges, low_bits, low_mask))


def _even(interval: Interval, bits: int) -> bool:
    """The lower bits do not matter to whether a value is in the interval."""
    low, high = interval
    return low % (1 << bits) == 0 and (high + 1) % (1 << bits) == 0


def _halved(ranges: Ranges, bits: int) -> Ranges:
    return tuple((low >> bits, high >> bits) for low, high in ranges)


def _by_top(ranges: Ranges, low_bits: int, low_mask: int) -> Iterator[tuple[Ranges, Ranges]]:
    """Cut ranges into those that agree on which low parts they take: (high parts, low parts)."""
    full = (1 << low_bits) - 1
    parts: dict[int, list[tuple[int, int]]] = {}
    whole: list[tuple[int, int]] = []
    for start, end in ranges:
        first, last = start >> low_bits, end >> low_bits
        if first == last:
            parts.setdefault(first, []).append((start & full, end & full))
            continue
        if start & full:
            parts.setdefault(first, []).append((start & full, full))
            first += 1
        if end & full < low_mask:
            parts.setdefault(last, []).append((0, end & full))
            last -= 1
        if first <= last:
            whole.append((first, last))
    by_rest: dict[Ranges, list[tuple[int, int]]] = {}
    if whole:
        by_rest[((0, full),)] = whole
    for top, pieces in parts.items():
        by_rest.setdefault(merged(pieces), []).append((top, top))
    for rest, tops in by_rest.items():
        yield merged(tops), rest


def _sum(field: str, plus: int, other: str, base: Base) -> Formula:
    left, right = load_of(field), load_of(other)
    if not (left.width_bytes == right.width_bytes == SUM_BYTES and left.whole and right.whole):
        raise CantCompile(f"{field} + {plus} > {other}: only for fields of 16 bits")
    asked = Sum(_base(field, base), left.byte_offset, plus, right.byte_offset)
    return every((_has(field, base), _has(other, base), asked))


# --- what follows from an answer --------------------------------------------------------------------------


def implied(question: Question, answered: Question, answer: bool) -> bool | None:
    """What an answer to one question says about another; None: nothing."""
    if question == answered:
        return answer
    match question, answered:
        case Carries(), Carries() if answer:
            return False
        case Headed(), Four() if not answer:
            return True
        case Holds(base, size), Holds(other, known):
            # A record starts behind the header of each before it.
            further = RECORD_HEADER_BYTES * (other - base)
            if answer and other >= base and known + further >= size:
                return True
            if not answer and other <= base and known + further <= size:
                return False
        case Value(), Value() if replace(question, ranges=()) == replace(answered, ranges=()):
            bits = 8 * answered.width
            possible = answered.ranges if answer else complement(answered.ranges, bits)
            shared = intersection(possible, question.ranges)
            if not shared:
                return False
            if shared == possible:
                return True
    return None
