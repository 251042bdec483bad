"""Write rows of JSON from columns.

In:  columns of numbers, or of indices into ready-made pieces of JSON.
Out: the rows' text.
Source: RFC 8259.

A row as a Python object costs more than everything that led to it; a column costs next to nothing, because
what repeats in it is encoded once.
"""

# cython: boundscheck=True

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import cython
import numpy as np
import numpy.typing as npt

COMPILED = cython.compiled

_DIGITS = 20
"""Of the longest 64-bit number, with its sign; a dotted address in quotes is shorter."""

_NUMBERS, _PIECES, _IPV4 = range(3)
_C_PIECES = cython.declare(cython.longlong, _PIECES)
_C_IPV4 = cython.declare(cython.longlong, _IPV4)

_Value = TypeVar("_Value", bound=Hashable)


class Column(NamedTuple):
    """One value of every row, and what stands before it."""

    before: bytes
    """The text between the value before and this one: `,"name":`."""
    values: npt.NDArray[np.int64]
    pieces: Sequence[bytes] = ()
    """The JSON that values are indices of; empty: they are numbers."""
    ipv4: bool = False
    """Values from 0 on are IPv4 addresses; -1 - n stands for the n-th piece."""


def coded(before: bytes, values: Iterable[_Value], encode: Callable[[_Value], bytes]) -> Column:
    """A column of anything: each different value is encoded once."""
    index: dict[_Value, int] = {}
    codes = np.array([index.setdefault(value, len(index)) for value in values], dtype=np.int64)
    return Column(before, codes, [encode(value) for value in index])


def rows(columns: Sequence[Column], *, after: bytes, between: bytes) -> bytes:
    """The rows of the columns, which are all of one length.

    Args:
        columns: The values of a row in their order, at least one.
        after: What ends a row.
        between: What stands between two rows.
    """
    count = len(columns[0].values)
    values = np.stack([column.values for column in columns])
    texts = [*(column.before for column in columns), after, between]
    kinds = np.array([_kind(column) for column in columns], dtype=np.int64)
    first = np.zeros(len(columns), dtype=np.int64)
    room = count * sum(map(len, texts))
    for number, column in enumerate(columns):
        first[number] = len(texts)
        texts += column.pieces
        used = column.values if kinds[number] == _PIECES else -1 - column.values[column.values < 0]
        if column.pieces:
            room += int(np.array([len(piece) for piece in column.pieces])[used].sum())
        if kinds[number] != _PIECES:
            room += count * _DIGITS
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    out = np.empty(room, dtype=np.uint8)
    size = _write(
        np.frombuffer(bytearray(b"".join(texts)), dtype=np.uint8).data,
        ends.data,
        first.data,
        kinds.data,
        values.data.cast("B").cast("q"),
        count,
        out.data,
    )
    return out[:size].tobytes()


def _kind(column: Column) -> int:
    return _IPV4 if column.ipv4 else _PIECES if column.pieces else _NUMBERS


@cython.cfunc
@cython.inline
@cython.returns(cython.Py_ssize_t)
@cython.exceptval(-1, check=True)
@cython.locals(
    texts=cython.uchar[::1], ends=cython.longlong[::1], which=cython.Py_ssize_t, out=cython.uchar[::1],
    at=cython.Py_ssize_t, i=cython.Py_ssize_t, begin=cython.Py_ssize_t, end=cython.Py_ssize_t,
)  # fmt: skip
def _copy(texts, ends, which, out, at):  # type: ignore[no-untyped-def]
    begin = ends[which - 1] if which > 0 else 0
    end = ends[which]
    for i in range(begin, end):
        out[at] = texts[i]
        at += 1
    return at


@cython.cfunc
@cython.returns(cython.Py_ssize_t)
@cython.exceptval(-1, check=True)
@cython.locals(
    value=cython.longlong, out=cython.uchar[::1], at=cython.Py_ssize_t, left=cython.longlong,
    digits=cython.Py_ssize_t, i=cython.Py_ssize_t,
)  # fmt: skip
def _number(value, out, at):  # type: ignore[no-untyped-def]
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits = 1
    left = value // 10
    while left > 0:
        digits += 1
        left //= 10
    for i in range(digits):
        out[at + digits - 1 - i] = 48 + value % 10
        value //= 10
    return at + digits


@cython.locals(
    texts=cython.uchar[::1], ends=cython.longlong[::1], first=cython.longlong[::1],
    kinds=cython.longlong[::1], values=cython.longlong[::1], count=cython.Py_ssize_t,
    out=cython.uchar[::1], width=cython.Py_ssize_t, row=cython.Py_ssize_t, column=cython.Py_ssize_t,
    at=cython.Py_ssize_t, value=cython.longlong, shift=cython.int,
)  # fmt: skip
def _write(texts, ends, first, kinds, values, count, out):  # type: ignore[no-untyped-def]
    width = first.shape[0]
    at = 0
    for row in range(count):
        if row > 0:
            at = _copy(texts, ends, width + 1, out, at)
        for column in range(width):
            at = _copy(texts, ends, column, out, at)
            value = values[column * count + row]
            if kinds[column] == _C_PIECES:
                at = _copy(texts, ends, first[column] + value, out, at)
            elif kinds[column] != _C_IPV4:
                at = _number(value, out, at)
            elif value < 0:
                at = _copy(texts, ends, first[column] - 1 - value, out, at)
            else:
                out[at] = 34
                for shift in range(24, -1, -8):
                    at = _number(value >> shift & 0xFF, out, at + 1)
                    out[at] = 46 if shift > 0 else 34
                at += 1
        at = _copy(texts, ends, width, out, at)
    return at
