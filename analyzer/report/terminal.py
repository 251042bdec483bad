"""The report on a terminal, or as plain text in a pipe.

In:  an analysis.
Out: text: colour only where the terminal has it (and NO_COLOR is not set), lines as wide as the terminal. In
     a pipe a row of a table stays on one line: text that is searched must not be wrapped.

rich is imported when something is rendered, not before: the other formats start without it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

from analyzer.report.base import Analysed, Format, Options

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH: Final = 10_000
"""Columns in a pipe: more than any row of a table needs."""


def render_terminal(analysis: Analysed, out: BinaryIO, options: Options) -> None:
    from analyzer.report import layout
    from analyzer.report.document import condense

    report = condense(analysis, options)
    text = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    try:
        console = _console(text, options)
        with console.capture() as captured:
            layout.show(report, console, options)
        # rich fills its lines up with spaces, which a pipe would carry and a copied line would keep.
        text.write("\n".join(line.rstrip(" ") for line in captured.get().split("\n")))
    finally:
        text.detach()


TERMINAL: Final = Format(name="terminal", summary="a report to read", render=render_terminal)


def _console(text: io.TextIOWrapper, options: Options) -> Console:
    from rich.console import Console

    # Nothing is markup, emoji or a link here: the text comes from the wire.
    console = Console(file=text, markup=False, emoji=False, highlight=False)
    if options.width:
        console.width = options.width
    elif not console.is_terminal:
        console.width = PIPE_WIDTH
    return console
