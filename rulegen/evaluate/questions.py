"""Ask of all packets of a block at once what nft rules ask of their bytes.

In:  the artifacts of a firewall; a Block.
Out: for each packet a key: packets with the same key, state, direction and marks meet the same rules. None:
     the packet is no plain TCP packet, or it may come to a rule that remembers more than that.
Source: Linux net/netfilter/nft_payload.c nft_payload_eval, of packets without IP options and fragments.

Nothing is decided here: the first packet of a key is judged by the evaluator, the others like it. So a
question too many costs time, and one that is missing would be a mistake: what is not known by name is never
shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from analyzer.columns.schema import Kind
from rulegen.artifacts.model import Artifact, Dialect, SetContent, Table
from rulegen.artifacts.nft_values import (
    Bitwise,
    Byteorder,
    Compare,
    Counter,
    CtLoad,
    CtSet,
    Decide,
    DynamicSet,
    Expression,
    Immediate,
    Log,
    Lookup,
    MetaLoad,
    MetaSet,
    Notrack,
    ObjectReference,
    PayloadLoad,
    Range,
    Reject,
    Shift,
)
from rulegen.evaluate.captured import Block

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Key: TypeAlias = bytes

_REGISTERS: Final = 64
_WORD: Final = 4
_WIDEST: Final = 7
"""Bytes that are compared as one number."""
_BASES: Final = ("network", "transport", "inner")

_NAME: Final = 16
_META: Final = dict.fromkeys(("l4proto", "nfproto", "protocol", "mark", "iif", "oif"), _WORD) | dict.fromkeys(
    ("iifname", "oifname"), _NAME
)
"""What `meta` loads that follows from the key: plain TCP over one IP version, one way, one mark; and how many
bytes of registers it fills."""
_VERSIONS: Final = {b"\x02": 4, b"\x0a": 6}
"""NFPROTO_IPV4, NFPROTO_IPV6."""
_CT: Final = dict.fromkeys(("state", "direction", "mark"), _WORD)
"""What `ct` loads that is part of the key."""


@dataclass(frozen=True, slots=True)
class _Byte:
    """A byte of the packet in a register."""

    base: str
    offset: int
    mask: int = 0xFF
    xor: int = 0


class _Known:
    """A byte that follows from the key."""


class _Other:
    """A byte that no key has."""


_KNOWN: Final = _Known()
_FAMILY: Final = _Known()
"""What `meta nfproto` loads."""
_OTHER: Final = _Other()
_Symbol: TypeAlias = _Byte | _Known | _Other | int


@dataclass(frozen=True, slots=True)
class _Loads:
    """Whether the packet has all bytes up to `end`."""

    base: str
    end: int


@dataclass(frozen=True, slots=True)
class _Within:
    """Whether bytes are in one of these intervals, as numbers; for short ones."""

    value: tuple[_Byte | int, ...]
    intervals: tuple[tuple[int, int], ...]
    inverted: bool


@dataclass(frozen=True, slots=True)
class _OneOf:
    """Whether bytes are one of these keys of a set, of any width."""

    value: tuple[_Byte | int, ...]
    keys: frozenset[bytes]
    inverted: bool


@dataclass(frozen=True, slots=True)
class _Family:
    """Whether the packet is of this IP version."""

    version: int


_Question: TypeAlias = _Loads | _Within | _OneOf | _Family


@dataclass(slots=True)
class _Rules:
    """What is known of the rules so far."""

    asked: dict[_Question, int] = field(default_factory=dict)
    """In order; with their place."""
    alone: set[tuple[int, ...]] = field(default_factory=set)
    """Questions that are all answered by yes where a packet may come to a rule that is not shared."""


class Questions:
    """All that the rules of a firewall ask of bytes."""

    def __init__(self, asked: Sequence[_Question], alone: Sequence[tuple[int, ...]]) -> None:
        self._asked = asked
        self._alone = alone

    def keys(self, block: Block) -> list[Key | None]:
        """A key for each packet of the block, or None where it has to be judged by itself."""
        plain = _plain(block)
        bases, stop = _bases(block)
        answers = [_answer(question, block, plain, bases, stop) for question in self._asked]
        shared = plain
        for group in self._alone:
            shared = shared & ~np.logical_and.reduce([plain, *(answers[at] for at in group)])
        answers.append(block.columns.ip_version == 6)
        packed = np.packbits(np.stack(answers), axis=0).T.tobytes()
        size = len(packed) // len(plain) if len(plain) else 1
        keys: list[Key | None] = [packed[at : at + size] for at in range(0, len(packed), size)]
        for row in np.flatnonzero(~shared).tolist():
            keys[row] = None
        return keys


def questions(artifacts: Sequence[Artifact]) -> Questions | None:
    """What the rules ask; None where no packet can be judged like another."""
    rules = _Rules()
    for artifact in artifacts:
        if artifact.dialect is not Dialect.NFT:
            return None
        for table in artifact.tables:
            changed = _changed(table)
            for chain in table.chains:
                for rule in chain.rules:
                    if any(isinstance(part, Notrack) for part in rule.parts):
                        return None
                    _Walk(rules, table, changed).walk(rule.parts)
    return None if () in rules.alone else Questions(list(rules.asked), sorted(rules.alone))


def _changed(table: Table) -> set[str]:
    """Sets that rules add to."""
    return {
        part.set
        for chain in table.chains
        for rule in chain.rules
        for part in rule.parts
        if isinstance(part, DynamicSet)
    }


class _Walk:
    """Through the program of one rule, with what its registers hold."""

    def __init__(self, rules: _Rules, table: Table, changed: set[str]) -> None:
        self._rules = rules
        self._sets = {content.name: content for content in table.sets}
        self._changed = changed
        self._registers: list[_Symbol] = [0] * _REGISTERS
        self._before: list[int] = []
        """Questions that are answered by yes where the program comes to here."""

    def walk(self, parts: Sequence[Expression | object]) -> None:
        for part in parts:
            if not self._step(part):
                self._rules.alone.add(tuple(sorted(set(self._before))))
                return

    def _step(self, part: object) -> bool:
        """Take the next expression; False where packets that come to it are not judged alike."""
        match part:
            case Counter() | Log() | Decide() | Reject():
                return True
            case ObjectReference(type="counter"):
                return True
            case PayloadLoad():
                self._load(part)
            case MetaLoad(register=register, key="nfproto"):
                self._set(register, _WORD, _FAMILY)
            case MetaLoad(register=register, key=key):
                self._set(register, _META.get(key, _REGISTERS), _KNOWN if key in _META else _OTHER)
            case CtLoad(register=register, key=key):
                self._set(register, _CT.get(key, _REGISTERS), _KNOWN if key in _CT else _OTHER)
            case Immediate(register=register, value=value):
                self._put(register, list(value))
            case Bitwise():
                self._bitwise(part)
            case Shift(target=target, source=source):
                self._through(target, source, _WORD)
            case Byteorder(target=target, source=source, length=length):
                self._through(target, source, length)
            case Compare(register=register, op=op, value=value):
                return self._compare(register, op, value)
            case Range(register=register, op=op, low=low, high=high):
                interval = (int.from_bytes(low), int.from_bytes(high))
                return self._ask(register, len(low), (interval,), inverted=op == "neq")
            case Lookup():
                return self._look_up(part)
            case CtSet(register=register, key="mark"):
                return self._is_known(register, _WORD)
            case MetaSet(register=register, key="mark" | "nftrace"):
                return self._is_known(register, _WORD)
            case _:
                return False
        return True

    def _load(self, part: PayloadLoad) -> None:
        if part.base not in _BASES:
            self._set(part.register, part.length, _OTHER)
            return
        self._yes(_Loads(part.base, part.offset + part.length))
        self._put(part.register, [_Byte(part.base, part.offset + at) for at in range(part.length)])

    def _put(self, register: int, symbols: Sequence[_Symbol]) -> None:
        padded = [*symbols, *[0] * (-len(symbols) % _WORD)]
        self._registers[register : register + len(padded)] = padded

    def _set(self, register: int, length: int, symbol: _Symbol) -> None:
        """Fill registers; with what no key has more of them than the value may need."""
        end = min(register + length, _REGISTERS)
        self._registers[register:end] = [symbol] * (end - register)

    def _bitwise(self, part: Bitwise) -> None:
        made: list[_Symbol] = []
        for at, (mask, xor) in enumerate(zip(part.mask, part.xor, strict=True)):
            symbol = self._registers[part.source + at]
            if isinstance(symbol, _Byte):
                symbol = _Byte(symbol.base, symbol.offset, symbol.mask & mask, symbol.xor & mask ^ xor)
            elif isinstance(symbol, int):
                symbol = symbol & mask ^ xor
            made.append(symbol)
        self._registers[part.target : part.target + len(made)] = made

    def _through(self, target: int, source: int, length: int) -> None:
        known = self._is_known(source, length)
        self._set(target, length, _KNOWN if known else _OTHER)

    def _is_known(self, register: int, length: int) -> bool:
        return all(isinstance(one, int | _Known) for one in self._registers[register : register + length])

    def _compare(self, register: int, op: str, value: bytes) -> bool:
        if self._registers[register] is _FAMILY and op == "eq" and value in _VERSIONS:
            self._yes(_Family(_VERSIONS[value]))
            return True
        number, most = int.from_bytes(value), (1 << 8 * len(value)) - 1
        interval = {
            "eq": (number, number),
            "neq": (number, number),
            "lt": (0, number - 1),
            "lte": (0, number),
            "gt": (number + 1, most),
            "gte": (number, most),
        }[op]
        return self._ask(register, len(value), (interval,), inverted=op == "neq")

    def _ask(
        self, register: int, length: int, intervals: tuple[tuple[int, int], ...], *, inverted: bool
    ) -> bool:
        """Ask whether the value is in the intervals; False where that can't be asked."""
        value = self._registers[register : register + length]
        if self._is_known(register, length):
            return True
        if any(isinstance(one, _Known | _Other) for one in value):
            return False
        bytes_of = tuple(one for one in value if isinstance(one, _Byte | int))
        pieces = [bytes_of[at : at + _WIDEST] for at in range(0, length, _WIDEST)]
        if len(pieces) > 1:
            # equal where all pieces are; each is asked for by itself
            if len(intervals) != 1 or intervals[0][0] != intervals[0][1]:
                return False
            whole = intervals[0][0].to_bytes(length)
            for at, piece in enumerate(pieces):
                part = int.from_bytes(whole[at * _WIDEST : at * _WIDEST + len(piece)])
                self._number(_Within(piece, ((part, part),), inverted=False))
            return True
        self._yes(_Within(bytes_of, tuple(sorted(intervals)), inverted))
        return True

    def _look_up(self, part: Lookup) -> bool:
        content = self._sets.get(part.set)
        if content is None or content.name in self._changed:
            return False
        size = sum(-(-width // _WORD) * _WORD for width in content.widths)
        known = self._is_known(part.register, size or _WORD)
        timed = content.timeout_s is not None or any(
            element.timeout_s is not None or element.expires_s is not None for element in content.elements
        )
        if part.target is not None:
            sizes = {len(one.value) if isinstance(one.value, bytes) else 0 for one in content.elements}
            self._set(part.target, min(sizes, default=0), _KNOWN)
        if known:
            return not timed
        if timed and part.inverted:
            return False
        if any(not element.key for element in content.elements):
            return False
        short = len(content.widths) == 1 and content.widths[0] <= _WIDEST
        if part.target is not None or part.verdict:
            return short and self._by_value(part, content) and not timed
        if short:
            asked = self._ask(part.register, content.widths[0], _intervals(content), inverted=part.inverted)
        else:
            asked = self._one_of(part, content, size)
        # what is in a set for a time may be gone; what is not in it never will be
        return asked and not timed

    def _one_of(self, part: Lookup, content: SetContent, size: int) -> bool:
        """Ask for long keys, where they are no intervals."""
        value = self._registers[part.register : part.register + size]
        if any(isinstance(one, _Known | _Other) for one in value):
            return False
        if any(low != high for element in content.elements for low, high in element.key):
            return False
        keys = frozenset(
            b"".join(low + bytes(-len(low) % _WORD) for low, _ in element.key) for element in content.elements
        )
        bytes_of = tuple(one for one in value if isinstance(one, _Byte | int))
        self._yes(_OneOf(bytes_of, keys, part.inverted))
        return True

    def _by_value(self, part: Lookup, content: SetContent) -> bool:
        """Of a map: ask for each of its values by itself."""
        values: dict[str, list[tuple[int, int]]] = {}
        for element in content.elements:
            low, high = element.key[0]
            interval = (int.from_bytes(low), int.from_bytes(high))
            values.setdefault(str(element.value), []).append(interval)
        value = self._registers[part.register : part.register + content.widths[0]]
        if any(isinstance(one, _Known | _Other) for one in value):
            return False
        bytes_of = tuple(one for one in value if isinstance(one, _Byte | int))
        for intervals in values.values():
            self._number(_Within(bytes_of, tuple(sorted(intervals)), inverted=False))
        return True

    def _number(self, question: _Question) -> int:
        return self._rules.asked.setdefault(question, len(self._rules.asked))

    def _yes(self, question: _Question) -> None:
        self._before.append(self._number(question))


def _intervals(content: SetContent) -> tuple[tuple[int, int], ...]:
    return tuple((int.from_bytes(one.key[0][0]), int.from_bytes(one.key[0][1])) for one in content.elements)


def _plain(block: Block) -> Bool:
    """TCP over IPv4 without options or IPv6 without extensions, no fragment, all of it in the capture."""
    columns = block.columns
    head = np.where(columns.ip_version == 6, 40, 20)
    found: Bool = (
        (columns.kind == Kind.TCP)
        & (block.start >= 0)
        & (block.length > 0)
        & (block.captured == block.length)
        & (columns.network_offset == block.start)
        & (columns.transport_offset == block.start + head)
        & (columns.payload_offset >= columns.transport_offset + 20)
        & (columns.payload_offset <= block.start + block.length)
    )
    return found


def _bases(block: Block) -> tuple[dict[str, Int64], Int64]:
    columns = block.columns
    starts = (block.start, columns.transport_offset, columns.payload_offset)
    return dict(zip(_BASES, starts, strict=True)), block.start + block.length


def _answer(question: _Question, block: Block, plain: Bool, bases: dict[str, Int64], stop: Int64) -> Bool:
    """Of each packet; False where it lacks the bytes."""
    if isinstance(question, _Loads):
        there: Bool = plain & (bases[question.base] + question.end <= stop)
        return there
    if isinstance(question, _Family):
        same: Bool = plain & (block.columns.ip_version == question.version)
        return same
    needed = [bases[base] + end <= stop for base, end in _needed(question.value)]
    rows = np.flatnonzero(np.logical_and.reduce([plain, *needed]))
    answer = np.zeros(len(plain), bool)
    if isinstance(question, _OneOf):
        answer[rows] = _is_one_of(question, [_byte(one, block, bases, rows) for one in question.value])
    else:
        value = np.zeros(len(rows), np.int64)
        for one in question.value:
            value = value << 8 | _byte(one, block, bases, rows).astype(np.int64)
        if question.intervals:
            low, high = np.array(question.intervals, np.int64).T
            at = np.searchsorted(low, value, side="right") - 1
            answer[rows] = (at >= 0) & (value <= high[at])
    if question.inverted:
        answer[rows] = ~answer[rows]
    return answer


def _byte(one: _Byte | int, block: Block, bases: dict[str, Int64], rows: Int64) -> npt.NDArray[np.uint8]:
    if isinstance(one, int):
        return np.full(len(rows), one, np.uint8)
    loaded = block.buffer[bases[one.base][rows] + one.offset]
    return loaded & np.uint8(one.mask) ^ np.uint8(one.xor)


def _is_one_of(question: _OneOf, columns: list[npt.NDArray[np.uint8]]) -> Bool:
    size = len(columns)
    if not question.keys or not size:
        return np.zeros(len(columns[0]) if columns else 0, bool)
    together = np.stack(columns, axis=1).astype(np.uint8).tobytes()
    return np.array(
        [together[at : at + size] in question.keys for at in range(0, len(together), size)], dtype=bool
    )


def _needed(value: Sequence[_Byte | int]) -> Iterator[tuple[str, int]]:
    """Up to where the packet must have its bytes."""
    ends: dict[str, int] = {}
    for one in value:
        if isinstance(one, _Byte):
            ends[one.base] = max(ends.get(one.base, 0), one.offset + 1)
    yield from ends.items()
