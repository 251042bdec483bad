"""Arithmetic on sets of unsigned integers, kept as sorted disjoint intervals.

In:  intervals in any order, touching or overlapping.
Out: Ranges: sorted, disjoint, not adjacent; equal sets are equal tuples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from rulegen.ir.match import Interval, Op

Ranges: TypeAlias = tuple[Interval, ...]


def merged(intervals: Iterable[Interval]) -> Ranges:
    result: list[Interval] = []
    for low, high in sorted(intervals):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        else:
            result.append((low, high))
    return tuple(result)


def complement(ranges: Ranges, width_bits: int) -> Ranges:
    """What of 0 to 2^width_bits - 1 is not in the (sorted, disjoint) ranges."""
    result: list[Interval] = []
    start = 0
    for low, high in ranges:
        if start < low:
            result.append((start, low - 1))
        start = high + 1
    if start < 1 << width_bits:
        result.append((start, (1 << width_bits) - 1))
    return tuple(result)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    result: list[Interval] = []
    i = j = 0
    while i < len(one) and j < len(other):
        low, high = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if low <= high:
            result.append((low, high))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(result)


def passing(op: Op, value: int | Iterable[Interval], width_bits: int) -> Ranges:
    """The values of a field of that width that pass a test; may be empty."""
    if not isinstance(value, int):
        return merged(value)
    top = (1 << width_bits) - 1
    bounds = {
        Op.EQ: (value, value),
        Op.NE: (value, value),
        Op.LT: (0, value - 1),
        Op.LE: (0, value),
        Op.GT: (value + 1, top),
        Op.GE: (value, top),
    }[op]
    ranges = (bounds,) if bounds[0] <= bounds[1] else ()
    return complement(ranges, width_bits) if op is Op.NE else ranges
