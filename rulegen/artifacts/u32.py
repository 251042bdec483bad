"""The expressions of xt_u32 as values: read, print, and hold to the module's limits.

In:  text: `6&0xFF=17 && 0>>22&0x3C@ 0>>16=53,100:200`.
Out: U32; the same text again, as iptables-save prints it.
Source: iptables-extensions(8) u32; iptables extensions/libxt_u32.c; Linux net/netfilter/xt_u32.c.

Numbers are C's: 0x is hexadecimal and a leading 0 is octal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

TESTS_MAX: Final = 10
"""Linux uapi xt_u32.h XT_U32_MAXSIZE: of tests, of numbers in a location, and of ranges in a test."""

VALUE_MAX: Final = 0xFFFFFFFF
SHIFT_MAX: Final = 31
"""Of what is longer, C does not say what the kernel makes."""

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_OPERATORS: Final = ("<<", ">>", "&", "@")


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with the value so far."""

    op: str
    """& << >>, or @: load from value + number on, counted from where the last @ led."""
    number: int


@dataclass(frozen=True, slots=True)
class Location:
    """Load four bytes at `start`, then do the steps."""

    start: int
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.start:#x}" + "".join(f"{step.op}{step.number:#x}" for step in self.steps)


@dataclass(frozen=True, slots=True)
class U32Test:
    """The value at the location is in one of the ranges, both ends included."""

    location: Location
    ranges: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        listed = (f"{low:#x}" if low == high else f"{low:#x}:{high:#x}" for low, high in self.ranges)
        return f"{self.location}={','.join(listed)}"


@dataclass(frozen=True, slots=True)
class U32:
    """All of the tests hold."""

    tests: tuple[U32Test, ...]

    def __str__(self) -> str:
        return "&&".join(map(str, self.tests))


@dataclass(slots=True)
class _Cursor:
    text: str
    at: int = 0

    def take(self, word: str) -> bool:
        self.skip()
        if self.text.startswith(word, self.at):
            self.at += len(word)
            return True
        return False

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\n\v\f\r":
            self.at += 1

    def number(self) -> int:
        self.skip()
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise ValueError(f"u32: a number is missing at character {self.at + 1}")
        octal = found[0][0] == "0" and found[0][1:2] not in ("x", "X")
        try:
            value = int(found[0], 8 if octal else 0)
        except ValueError:
            raise ValueError(f"u32: {found[0][:20]} is no octal number") from None
        if value > VALUE_MAX:
            raise ValueError(f"u32: {found[0][:20]} has more than 32 bits")
        self.at = found.end()
        return value

    @property
    def over(self) -> bool:
        self.skip()
        return self.at == len(self.text)


def parse_u32(text: str) -> U32:
    """Read an expression.

    Raises:
        ValueError: It does not follow the grammar, or exceeds the module's limits; with the place.
    """
    cursor = _Cursor(text)
    tests = [_test(cursor)]
    while cursor.take("&&"):
        if len(tests) == TESTS_MAX:
            raise ValueError(f"u32: more than {TESTS_MAX} tests")
        tests.append(_test(cursor))
    if not cursor.over:
        raise ValueError(f"u32: ',' or '&&' is missing at character {cursor.at + 1}")
    return U32(tuple(tests))


def _test(cursor: _Cursor) -> U32Test:
    location = _location(cursor)
    ranges = [_range(cursor)]
    while cursor.take(","):
        if len(ranges) == TESTS_MAX:
            raise ValueError(f"u32: more than {TESTS_MAX} ranges in a test")
        ranges.append(_range(cursor))
    return U32Test(location, tuple(ranges))


def _location(cursor: _Cursor) -> Location:
    start = cursor.number()
    steps: list[Step] = []
    while not cursor.take("="):
        op = next((op for op in _OPERATORS if cursor.take(op)), None)
        if op is None:
            raise ValueError(f"u32: an operator or '=' is missing at character {cursor.at + 1}")
        if len(steps) + 1 == TESTS_MAX:
            raise ValueError(f"u32: more than {TESTS_MAX} numbers in a location")
        number = cursor.number()
        if op in ("<<", ">>") and number > SHIFT_MAX:
            raise ValueError(f"u32: a shift by {number} bits, more than {SHIFT_MAX}")
        steps.append(Step(op, number))
    return Location(start, tuple(steps))


def _range(cursor: _Cursor) -> tuple[int, int]:
    low = cursor.number()
    return low, cursor.number() if cursor.take(":") else low
