"""Columns has exactly what the schema names, and type checkers are told the same."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np

from analyzer.columns.packets import Columns
from analyzer.columns.schema import PACKETS


def test_columns_are_those_of_the_schema() -> None:
    columns = Columns(3)
    assert Columns.__slots__ == tuple(column.name for column in PACKETS)
    for column in PACKETS:
        array = getattr(columns, column.name)
        assert (array.dtype, array.shape) == (np.dtype(column.dtype), (3,))
        assert array.flags.c_contiguous
    assert len(columns) == 3


def test_annotations_repeat_the_schema() -> None:
    annotated = {
        name: np.dtype(get_args(get_args(hint)[1])[0]) for name, hint in get_type_hints(Columns).items()
    }
    assert annotated == {column.name: np.dtype(column.dtype) for column in PACKETS}


def test_every_column_is_described() -> None:
    assert len({column.name for column in PACKETS}) == len(PACKETS)
    assert all(column.meaning for column in PACKETS)
    assert all(
        (column.unit == "bytes") == column.name.endswith(("_offset", "_length", "captured", "wire"))
        for column in PACKETS
    )
