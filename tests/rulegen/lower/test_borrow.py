"""left + plus > right by single bytes: exhaustively for heartbleed's 19, by sampling for other constants."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rulegen.lower.borrow import TOP, rows, steps

BYTES = np.arange(256)


def table(window, *, by_left=False) -> np.ndarray:
    """[left, right] as `rows` spell a window out."""
    result = np.zeros((256, 256), dtype=bool)
    for outer, (low, high) in rows(window, by_left=by_left):
        inner = slice(low, high + 1)
        if by_left:
            result[outer, inner] = True
        else:
            result[inner, outer] = True
    return result


@pytest.mark.parametrize("plus", [0, 1, 18, 19, 20, 255, 256, 257, 65535])
def test_rows_are_windows_of_the_difference(plus):
    difference = BYTES[:, None] - BYTES[None, :]
    for step in steps(plus):
        for low, high in (step.low, step.high):
            expected = (low <= difference) & (difference <= high)
            for by_left in (False, True):
                assert (table((low, high), by_left=by_left) == expected).all()


def test_exact_for_all_pairs_of_heartbleed():
    """2^32 pairs: the windows depend on the differences of the bytes alone, of which there are 511 x 511."""
    low_difference, high_difference = np.meshgrid(np.arange(-TOP, TOP + 1), np.arange(-TOP, TOP + 1))
    expected = 256 * high_difference + low_difference + 19 > 0
    said = np.zeros_like(expected)
    times = np.zeros(expected.shape, dtype=int)
    for step in steps(19):
        low = (step.low[0] <= low_difference) & (low_difference <= step.low[1])
        said |= low & (step.high[0] <= high_difference) & (high_difference <= step.high[1])
        times += low
    assert (said == expected).all()
    assert (times == 1).all(), "the low bytes choose exactly one step"


def test_the_second_carry_is_there():
    assert len(steps(19)) == 3
    assert max(step.low for step in steps(19)) == (238, 493)


def test_other_constants():
    random.seed(1)
    for _ in range(20_000):
        plus = random.choice((0, 1, 19, 255, 256, 300, 65535))
        left, right = random.randrange(65536), random.randrange(65536)
        said = any(
            step.low[0] <= left % 256 - right % 256 <= step.low[1]
            and step.high[0] <= left // 256 - right // 256 <= step.high[1]
            for step in steps(plus)
        )
        assert said == (left + plus > right), (left, plus, right)
