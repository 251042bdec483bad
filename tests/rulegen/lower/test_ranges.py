"""Interval arithmetic against plain sets of integers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.ir.match import Op
from rulegen.lower.ranges import complement, intersection, merged, passing

BITS = 6
numbers = st.integers(0, 2**BITS - 1)
intervals = st.lists(st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair))), max_size=6)


def values(ranges) -> set[int]:
    return {value for low, high in ranges for value in range(low, high + 1)}


def is_canonical(ranges) -> bool:
    return all(low <= high for low, high in ranges) and all(
        before[1] + 1 < after[0] for before, after in pairwise(ranges)
    )


@given(intervals, intervals)
def test_arithmetic_is_that_of_sets(one, other):
    first, second = merged(one), merged(other)
    assert values(first) == values(one)
    assert values(complement(first, BITS)) == set(range(2**BITS)) - values(one)
    assert values(intersection(first, second)) == values(one) & values(other)
    assert all(map(is_canonical, (first, complement(first, BITS), intersection(first, second))))


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.IN])
@given(value=numbers)
def test_an_operator_passes_what_it_says(op, value):
    symbol = {
        "==": int.__eq__,
        "!=": int.__ne__,
        "<": int.__lt__,
        "<=": int.__le__,
        ">": int.__gt__,
        ">=": int.__ge__,
    }
    expected = {number for number in range(2**BITS) if symbol[op](number, value)}
    assert values(passing(op, value, BITS)) == expected
    assert is_canonical(passing(op, value, BITS))
