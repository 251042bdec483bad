"""Rows of JSON from columns: what a JSON reader makes of them, in both forms."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.columns import json_rows
from analyzer.columns.json_rows import Column, coded
from tests.both_forms import load_uncompiled

FORMS = (json_rows, load_uncompiled("analyzer.columns.json_rows"))
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("form", FORMS, ids=("compiled or not", "uncompiled"))
@given(
    rows=st.lists(st.tuples(NUMBERS, st.text(max_size=8), st.none() | st.booleans()), min_size=1, max_size=20)
)
def test_a_reader_gets_what_was_put_in(form, rows) -> None:
    numbers, texts, flags = zip(*rows, strict=True)
    columns = [
        Column(b'{"n":', np.array(numbers, dtype=np.int64)),
        coded(b',"t":', texts, encode),
        coded(b',"f":', flags, encode),
    ]
    written = form.rows(columns, after=b"}", between=b",\n")
    assert json.loads(b"[" + written + b"]") == [
        {"n": number, "t": text, "f": flag} for number, text, flag in rows
    ]
    assert written.count(b",\n{") == len(rows) - 1


@pytest.mark.parametrize("form", FORMS, ids=("compiled or not", "uncompiled"))
@given(numbers=st.lists(st.none() | st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_addresses_are_dotted_and_others_are_pieces(form, numbers) -> None:
    others = [index for index, number in enumerate(numbers) if number is None]
    values = [
        number if number is not None else -1 - others.index(index) for index, number in enumerate(numbers)
    ]
    pieces = [b'"2001:db8::%x"' % index for index in others]
    column = Column(b"[", np.array(values, dtype=np.int64), pieces, ipv4=True)
    written = form.rows([column], after=b"]", between=b",")
    assert json.loads(b"[" + written + b"]") == [
        [f"2001:db8::{index:x}" if number is None else str(IPv4Address(number))]
        for index, number in enumerate(numbers)
    ]


def test_what_repeats_is_encoded_once() -> None:
    asked = []

    def remember(value: str) -> bytes:
        asked.append(value)
        return encode(value)

    column = coded(b"", ["a", "b", "a", "a"], remember)
    assert asked == ["a", "b"]
    assert column.values.tolist() == [0, 1, 0, 0]
