"""The distinct values of a column.

In:  a one-dimensional array of integers.
Out: its values, each once, in ascending order.
Source: numpy.unique does the same, and imports numpy.ma for it: ten milliseconds of a start.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Integer = TypeVar("_Integer", bound=np.integer)


def distinct(values: npt.NDArray[_Integer]) -> npt.NDArray[_Integer]:
    """Each value once, ascending."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
