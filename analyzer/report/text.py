"""Text for people: strings from the wire made harmless, numbers made readable.

Rule: whatever comes from a capture or from a file name goes through `visible` before it goes to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

MAX_TEXT: Final = 300
"""Longest string from the wire that is shown whole: a host name has up to 253 characters (RFC 1035 2.3.4)."""

_BYTE_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


def visible(text: str, limit: int = MAX_TEXT) -> str:
    r"""The text, every character written out that would not print as itself, so that it steers no terminal.

    That is what `str.isprintable` refuses: controls (C0, DEL, C1), bidirectional overrides, zero-width
    characters, line separators, lone surrogates, unassigned and private code points.

    >>> visible("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    rest = len(text) - limit
    if rest > 0:
        text = text[:limit]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f"{text}… ({rest:,} more)" if rest > 0 else text


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 packet`, `1,204 packets`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = items
    return f"{', '.join(head)} and {last}" if head else last


def byte_count(number: float) -> str:
    """`512 bytes`, `39.5 kB`, `2.0 GB`: powers of 1000, as in Wireshark's status line and in `ls --si`."""
    unit = 0
    while number >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        number /= 1000
        unit += 1
    if unit == 0:
        return count(int(number), "byte")
    return f"{number:.1f} {_BYTE_UNITS[unit]}" if number < 99.95 else f"{number:.0f} {_BYTE_UNITS[unit]}"


def duration(seconds: float, digits: int = 2) -> str:
    """`0.35 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 days 4 h`; `digits` is for less than ten seconds."""
    if seconds < 10:
        return f"{seconds:.{digits}f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} days {whole % 86_400 // 3600} h"


def moment(time_ns: int) -> str:
    """`2014-04-09 15:12:03 UTC`; a time-stamp beyond the calendar is given as it is."""
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time_ns / 1e9:.0f} s after 1970"


def packet_filter(packets: Iterable[int]) -> str:
    """The Wireshark display filter that shows these packets."""
    numbers = [str(packet) for packet in packets]
    if len(numbers) == 1:
        return f"frame.number == {numbers[0]}"
    return f"frame.number in {{{', '.join(numbers)}}}"


def hexadecimal(digits: str, limit_bytes: int = 32) -> str:
    """`1803014000` as `18 03 01 40 00`, cut after some bytes."""
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    shown = " ".join(pairs[:limit_bytes])
    return f"{shown} … ({count(len(pairs), 'byte')})" if len(pairs) > limit_bytes else shown
