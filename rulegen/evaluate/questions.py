"""Ask of all packets of a block at once what nft rules ask of their bytes.

In:  the artifacts of a firewall; a Block.
Out: for each packet a key: packets with the same key, state, direction and marks meet the same rules. None:
     the packet is no plain TCP packet, or it may come to a rule that remembers more than that.
Source: Linux net/netfilter/nf_tables_core.c nft_do_chain: registers are zeroed for every rule.

Nothing is decided here: the first packet of a key is judged by the evaluator, the others like it. So a
question too many costs time, and one that is missing would be a mistake: what is not known by name is never
shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

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
from rulegen.evaluate.answers import (
    BASES,
    Byte,
    Family,
    Loads,
    OneOf,
    Packets,
    Question,
    Within,
    answer_of,
    plain_packets,
)
from rulegen.evaluate.captured import Block

Key: TypeAlias = bytes

_REGISTERS: Final = 64
_WORD: Final = 4
_WIDEST: Final = 7
"""Bytes that are compared as one number."""

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


class _Known:
    """A byte that follows from the key."""


class _Other:
    """A byte that no key has."""


_KNOWN: Final = _Known()
_FAMILY: Final = _Known()
"""What `meta nfproto` loads."""
_OTHER: Final = _Other()
_Symbol: TypeAlias = Byte | _Known | _Other | int


@dataclass(slots=True)
class _Rules:
    """What is known of the rules so far."""

    asked: dict[Question, int] = field(default_factory=dict)
    """In order; with their place."""
    alone: set[tuple[int, ...]] = field(default_factory=set)
    """Questions that are all answered by yes where a packet may come to a rule that is not shared."""


class Questions:
    """All that the rules of a firewall ask of bytes."""

    def __init__(self, asked: Sequence[Question], alone: Sequence[tuple[int, ...]]) -> None:
        self._asked = asked
        self._alone = alone

    def keys(self, block: Block) -> list[Key | None]:
        """A key for each packet of the block, or None where it has to be judged by itself."""
        plain = plain_packets(block)
        packets = Packets(block, plain)
        answers = [answer_of(question, packets) for question in self._asked]
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
        if part.base not in BASES:
            self._set(part.register, part.length, _OTHER)
            return
        self._yes(Loads(part.base, part.offset + part.length))
        self._put(part.register, [Byte(part.base, part.offset + at) for at in range(part.length)])

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
            if isinstance(symbol, Byte):
                symbol = Byte(symbol.base, symbol.offset, symbol.mask & mask, symbol.xor & mask ^ xor)
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
            self._yes(Family(_VERSIONS[value]))
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
        bytes_of = tuple(one for one in value if isinstance(one, Byte | int))
        pieces = [bytes_of[at : at + _WIDEST] for at in range(0, length, _WIDEST)]
        if len(pieces) > 1:
            # equal where all pieces are; each is asked for by itself
            if len(intervals) != 1 or intervals[0][0] != intervals[0][1]:
                return False
            whole = intervals[0][0].to_bytes(length)
            for at, piece in enumerate(pieces):
                part = int.from_bytes(whole[at * _WIDEST : at * _WIDEST + len(piece)])
                self._number(Within(piece, ((part, part),), inverted=False))
            return True
        self._yes(Within(bytes_of, tuple(sorted(intervals)), inverted))
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
        bytes_of = tuple(one for one in value if isinstance(one, Byte | int))
        self._yes(OneOf(bytes_of, keys, part.inverted))
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
        bytes_of = tuple(one for one in value if isinstance(one, Byte | int))
        for intervals in values.values():
            self._number(Within(bytes_of, tuple(sorted(intervals)), inverted=False))
        return True

    def _number(self, question: Question) -> int:
        return self._rules.asked.setdefault(question, len(self._rules.asked))

    def _yes(self, question: Question) -> None:
        self._before.append(self._number(question))


def _intervals(content: SetContent) -> tuple[tuple[int, int], ...]:
    return tuple((int.from_bytes(one.key[0][0]), int.from_bytes(one.key[0][1])) for one in content.elements)
