"""Analysis -> report: what people and programs see.

    base.py         what a format is, and what it is given
    tally.py        one pass over findings and connections: counts, and the few that are shown
    sentences.py    what it amounts to, in plain words
    document.py     the analysis condensed for people, as text
    terminal.py     the report on a terminal (layout.py draws it with rich)
    json_output.py  JSON and ndjson
    schema.py       the published JSON Schema, and the public tables
    states.py       the state machines as table and diagram
    progress.py     the progress line while a capture is read
    text.py         strings from the wire made harmless, numbers made readable

A new format is a new file that exports a Format, and a line in FORMATS. `render` gets the analysis and a
binary stream; it must write row by row, give the same bytes for the same analysis, and pass every string from
the wire through `text.visible` unless its own syntax escapes it. What is costly to import is imported in
`render`.
"""

from __future__ import annotations

from typing import Final

from analyzer.report.base import Analysed, Detail, Format, Options
from analyzer.report.json_output import JSON, NDJSON
from analyzer.report.terminal import TERMINAL

FORMATS: Final = (TERMINAL, JSON, NDJSON)
"""The first is the default."""

__all__ = ["FORMATS", "Analysed", "Detail", "Format", "Options"]
