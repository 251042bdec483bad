"""Lines for people, as wide as what they are read on.

In:  Line: words, what stands in front of them, a style.
Out: text, in colour where it goes to a terminal that has it.

A line holds no control character from the wire: whoever makes it has asked `visible`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final, NamedTuple, TextIO

WIDTH: Final = 100
"""At most, and where there is no terminal: longer lines are hard to read."""


class Line(NamedTuple):
    """Some words. Where they need more than a line, the next ones begin below the first word."""

    text: str
    style: str = ""
    """Of rich; empty for plain text."""
    head: str = ""
    """What stands in front of the words, spaces for one."""


def write(lines: Iterable[Line], out: TextIO) -> None:
    """Print lines, in colour where `out` is a terminal that has it."""
    if not out.isatty():
        out.writelines(f"{text}\n" for line in lines for text in wrapped(line, WIDTH))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, markup=False, emoji=False, highlight=False)
    for line in lines:
        for text in wrapped(line, min(WIDTH, console.width)):
            console.print(Text(text, style=line.style), soft_wrap=True)


def wrapped(line: Line, width: int) -> list[str]:
    """The words in lines of so many characters; a longer word stays whole, so that it can be copied."""
    lines = textwrap.wrap(
        line.text,
        width,
        initial_indent=line.head,
        subsequent_indent=" " * len(line.head),
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines or [line.head.rstrip()]
