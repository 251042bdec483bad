"""As numpy.unique, which it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.columns.distinct import distinct


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
@given(values=st.lists(st.integers(0, 255) | st.integers(0, 3), max_size=40))
def test_each_value_once_ascending(dtype, values):
    column = np.array(values, dtype=dtype)
    found = distinct(column)
    assert found.dtype == dtype
    assert found.tolist() == sorted(set(values))
    assert column.tolist() == values, "what is given stays as it is"
