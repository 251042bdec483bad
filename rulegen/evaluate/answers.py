"""Answer questions about the bytes of all packets of a block at once.

In:  questions; a Block.
Out: of each packet yes or no.
Source: Linux net/netfilter/nft_payload.c nft_payload_eval, of packets without IP options and fragments.

Only plain packets are asked, whose headers are where they always are; of all others the answer is no.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from analyzer.columns.schema import Kind
from rulegen.evaluate.captured import Block

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

BASES: Final = ("network", "transport", "inner")
"""Where nft counts offsets from."""


@dataclass(frozen=True, slots=True)
class Byte:
    """A byte of the packet in a register."""

    base: str
    offset: int
    mask: int = 0xFF
    xor: int = 0


@dataclass(frozen=True, slots=True)
class Loads:
    """Whether the packet has all bytes up to `end`."""

    base: str
    end: int


@dataclass(frozen=True, slots=True)
class Within:
    """Whether bytes are in one of these intervals, as numbers; for short ones."""

    value: tuple[Byte | int, ...]
    intervals: tuple[tuple[int, int], ...]
    inverted: bool


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whether bytes are one of these keys of a set, of any width."""

    value: tuple[Byte | int, ...]
    keys: frozenset[bytes]
    inverted: bool


@dataclass(frozen=True, slots=True)
class Family:
    """Whether the packet is of this IP version."""

    version: int


Question: TypeAlias = Loads | Within | OneOf | Family


def plain_packets(block: Block) -> Bool:
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


class Packets:
    """The plain packets of a block, and bytes of them that were asked for before."""

    def __init__(self, block: Block, plain: Bool) -> None:
        columns = block.columns
        self.plain = plain
        self.version = columns.ip_version
        self._buffer = block.buffer
        self._starts = dict(
            zip(BASES, (block.start, columns.transport_offset, columns.payload_offset), strict=True)
        )
        self._stop = block.start + block.length
        self._there: dict[tuple[str, int], Bool] = {}
        self._numbers: dict[tuple[Byte | int, ...], tuple[Int64, Int64]] = {}

    def have(self, base: str, end: int) -> Bool:
        """Whether each packet has its bytes up to there."""
        there = self._there.get((base, end))
        if there is None:
            there = self._there[base, end] = self.plain & (self._starts[base] + end <= self._stop)
        return there

    def rows(self, value: Sequence[Byte | int]) -> Int64:
        """Those that have all bytes of a value."""
        needed = [self.have(base, end) for base, end in _needed(value)]
        return np.flatnonzero(np.logical_and.reduce([self.plain, *needed]))

    def number(self, value: tuple[Byte | int, ...]) -> tuple[Int64, Int64]:
        """The rows that have a value, and the value as a number."""
        found = self._numbers.get(value)
        if found is None:
            rows = self.rows(value)
            number = np.zeros(len(rows), np.int64)
            for one in value:
                number = number << 8 | self.byte(one, rows)
            found = self._numbers[value] = rows, number
        return found

    def byte(self, one: Byte | int, rows: Int64) -> npt.NDArray[np.int64]:
        """A byte of each of these rows."""
        if isinstance(one, int):
            return np.full(len(rows), one, np.int64)
        loaded = self._buffer[self._starts[one.base][rows] + one.offset]
        return (loaded & np.uint8(one.mask) ^ np.uint8(one.xor)).astype(np.int64)


def answer_of(question: Question, packets: Packets) -> Bool:
    """Of each packet; False where it lacks the bytes."""
    if isinstance(question, Loads):
        return packets.have(question.base, question.end)
    if isinstance(question, Family):
        same: Bool = packets.plain & (packets.version == question.version)
        return same
    answer = np.zeros(len(packets.plain), bool)
    if isinstance(question, OneOf):
        rows = packets.rows(question.value)
        answer[rows] = _is_one_of(question, [packets.byte(one, rows) for one in question.value])
    else:
        rows, number = packets.number(question.value)
        if question.intervals:
            low, high = np.array(question.intervals, np.int64).T
            at = np.searchsorted(low, number, side="right") - 1
            answer[rows] = (at >= 0) & (number <= high[at])
    if question.inverted:
        answer[rows] = ~answer[rows]
    return answer


def _is_one_of(question: OneOf, columns: list[Int64]) -> Bool:
    size = len(columns)
    if not question.keys or not size:
        return np.zeros(len(columns[0]) if columns else 0, bool)
    together = np.stack(columns, axis=1).astype(np.uint8).tobytes()
    return np.array(
        [together[at : at + size] in question.keys for at in range(0, len(together), size)], dtype=bool
    )


def _needed(value: Sequence[Byte | int]) -> Iterator[tuple[str, int]]:
    """Up to where the packet must have its bytes."""
    ends: dict[str, int] = {}
    for one in value:
        if isinstance(one, Byte):
            ends[one.base] = max(ends.get(one.base, 0), one.offset + 1)
    yield from ends.items()
