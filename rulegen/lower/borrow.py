"""Say `left + plus > right` about two 16-bit numbers with tests of their single bytes.

In:  the constant `plus`.
Out: Steps: how far the left low byte may be above the right one, and likewise the high bytes.
Source: subtraction by hand, base 256.

With low and high bytes, left + plus > right is 256 (Lhi - Rhi) + (Llo - Rlo + plus) > 0. With b = ceil((Llo
- Rlo + plus) / 256) that is Lhi + b > Rhi: the low bytes choose b, and b is not only 0 or 1. With plus 19,
b is 2 when Llo >= Rlo + 238; forgetting that loses 2.6 % of the over-reads.

A table of whole pairs would need 65,518 intervals; by bytes about a thousand are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rulegen.ir.match import Interval

TOP: Final = 255


@dataclass(frozen=True, slots=True)
class Step:
    """One value of b: both windows have to hold. A window bounds left - right, both ends included."""

    low: Interval
    high: Interval


def steps(plus: int) -> tuple[Step, ...]:
    """The steps that together say left + plus > right; of any low bytes, exactly one's low window holds."""
    return tuple(
        # b = ceil(d / 256) iff 256 (b - 1) < d <= 256 b, where d = Llo - Rlo + plus
        Step(low=(256 * (b - 1) + 1 - plus, 256 * b - plus), high=(1 - b, TOP))
        for b in range(_ceil(plus - TOP), _ceil(plus + TOP) + 1)
    )


def _ceil(value: int) -> int:
    return -(-value // 256)


def rows(window: Interval, *, by_left: bool) -> Iterator[tuple[int, Interval]]:
    """For each value of one byte, the values of the other with which the window holds.

    Args:
        window: Bounds of left - right.
        by_left: Give rights for each left; otherwise lefts for each right.
    """
    low, high = (-window[1], -window[0]) if by_left else window
    for outer in range(TOP + 1):
        first, last = max(0, outer + low), min(TOP, outer + high)
        if first <= last:
            yield outer, (first, last)
