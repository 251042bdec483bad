"""Split a line of iptables-save into words, and words into options; read the values that options have.

In:  a line, words.
Out: words; Given options; numbers, intervals, addresses.
Source: iptables 1.8.9 iptables/xshared.c add_param_to_argv for quoting; libxtables xtables.c for values.

A word in double quotes may have spaces; in it, a backslash takes the next character as it is. There is no
other quoting: a single quote is a letter.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

WORD_MAX_CHARS: Final = 1024
"""iptables 1.8.9 struct xt_param_buf: longer words are refused by iptables-restore."""

U32_MAX: Final = 0xFFFFFFFF
PORT_MAX: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """An option as a rule gives it."""

    name: str
    values: tuple[str, ...]
    inverted: bool


Options = Mapping[str, tuple[str, int]]
"""What may be written -> the name by which it is read, and the number of its values."""


@dataclass(slots=True)
class Module:
    """A match or target in the course of reading a rule."""

    name: str
    options: Options | None
    """None: a module that is not known; it takes every option."""
    given: list[Given] = field(default_factory=list)


def words(line: str) -> list[Word]:
    """The words of a line.

    Raises:
        ValueError: A quote is not closed, or a word is too long.
    """
    found: list[Word] = []
    current: list[str] = []
    quoted = inside = escaped = False
    for char in line:
        if escaped:
            current.append(char)
            escaped = False
        elif inside and char == "\\":
            escaped = True
        elif char == '"':
            inside = not inside
            if not inside:
                found.append(_word(current, True))
                current, quoted = [], False
            else:
                quoted = True
        elif not inside and char in " \t\r":
            if current:
                found.append(_word(current, quoted))
                current, quoted = [], False
        else:
            current.append(char)
    if inside:
        raise ValueError("a quote is not closed")
    if current:
        found.append(_word(current, quoted))
    return found


def _word(letters: list[str], quoted: bool) -> Word:
    if len(letters) >= WORD_MAX_CHARS:
        raise ValueError(f"a word of {len(letters)} characters; less than {WORD_MAX_CHARS} are read")
    return Word("".join(letters), quoted)


def flat(*groups: tuple[int, str]) -> dict[str, tuple[str, int]]:
    """Options by their spellings: (number of values, "--first|--other"); the first names it."""
    return {
        spelling: (names.split("|")[0].lstrip("-"), count)
        for count, names in groups
        for spelling in names.split("|")
    }


class Reader:
    """The options given to one module, each to be asked for once."""

    def __init__(self, module: str, given: tuple[Given, ...]) -> None:
        self.module = module
        self.given = {one.name: one for one in given}
        if len(self.given) != len(given):
            raise ValueError(f"-m {module}: an option is given twice")

    def has(self, name: str) -> bool:
        """A flag, which can't be inverted."""
        one = self.get(name)
        if one is not None and one.inverted:
            raise ValueError(f"-m {self.module}: --{name} can't be inverted")
        return one is not None

    def get(self, name: str) -> Given | None:
        return self.given.get(name)

    def text(self, name: str) -> str | None:
        """The value of an option that can't be inverted."""
        one = self.get(name)
        if one is None:
            return None
        if one.inverted:
            raise ValueError(f"-m {self.module}: --{name} can't be inverted")
        return one.values[0]

    def number(self, name: str, high: int = U32_MAX) -> int | None:
        text = self.text(name)
        return None if text is None else number(text, high)

    def one_of(self, *names: str) -> Given:
        """Exactly one of these has to be given."""
        found = [self.given[name] for name in names if name in self.given]
        if len(found) != 1:
            listed = " or ".join(f"--{name}" for name in names)
            raise ValueError(f"-m {self.module}: {listed} has to be given, once")
        return found[0]


def number(text: str, high: int = U32_MAX) -> int:
    """A number as C's strtoul reads it: decimal, 0x, or octal with a leading 0."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}", text):
        raise ValueError(f"{text[:40]!r} is no number")
    base = 16 if text[:2] in ("0x", "0X") else 8 if text[0] == "0" else 10
    try:
        value = int(text, base)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no number") from None
    if value > high:
        raise ValueError(f"{text[:40]} is more than {high}")
    return value


def interval(text: str, high: int, names: Mapping[str, int] | None = None) -> tuple[int, int]:
    """`low:high`; what is left out is the end of all."""

    def one(part: str, default: int) -> int:
        if not part:
            return default
        return names[part] if names and part in names else number(part, high)

    first, colon, last = text.partition(":")
    if not first and not last:
        raise ValueError(f"{text[:40]!r} is no number or range")
    low = one(first, 0)
    top = one(last, high) if colon else low
    if low > top:
        raise ValueError(f"{text[:40]}: the range is empty")
    return low, top


def value_and_mask(text: str) -> tuple[int, int]:
    """`value/mask`, of marks."""
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else U32_MAX


def network(text: str) -> tuple[int, int, int]:
    """An address with prefix length or mask: value, mask, width in bits."""
    address, slash, length = text.partition("/")
    try:
        found = ipaddress.ip_address(address)
        if "%" in address:
            raise ValueError
    except ValueError:
        raise ValueError(f"{address[:60]!r} is no address (host names are not asked for)") from None
    width, full = found.max_prefixlen, (1 << found.max_prefixlen) - 1
    if not slash:
        mask = full
    elif re.fullmatch(r"[0-9]{1,3}", length) and int(length) <= width:
        mask = full ^ (full >> int(length))
    else:
        try:
            mask = int(type(found)(length))
        except ValueError:
            raise ValueError(f"{length[:60]!r} is no mask of {width} bits") from None
    return int(found) & mask, mask, width


def listed(text: str, known: frozenset[str], what: str) -> frozenset[str]:
    """Names joined by commas, in any case."""
    names = frozenset(text.upper().split(","))
    if unknown := sorted(names - known):
        raise ValueError(f"{what} {unknown[0][:40]!r} is not known")
    return names


def given_text(given: tuple[Given, ...]) -> Iterator[str]:
    """As it was written."""
    for one in given:
        yield " ".join((*(("!",) if one.inverted else ()), one.name, *map(_quoted, one.values)))


def _quoted(text: str) -> str:
    if text and not re.search(r'[\s"\\]', text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
