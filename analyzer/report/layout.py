"""Lays a Report out with rich.

In:  Report (its strings are already harmless).
Out: paragraphs and a table on a console.

Every string becomes a Text, never markup: `[red]` from the wire stays `[red]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from analyzer.model import Severity
from analyzer.report.base import Detail, Options
from analyzer.report.document import Connection, Example, Group, Report
from analyzer.report.text import count

PARAGRAPH: Final = 100
"""Longer lines are hard to read, however wide the terminal."""

NAME: Final = 10
"""Columns of a field's name."""

STYLES: Final = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "bold yellow",
    Severity.LOW: "bold cyan",
    Severity.INFO: "bold",
}

HEADERS: Final = {
    "number": "#",
    "worst": "worst",
    "ends": "client → server",
    "client": "client",
    "server": "server",
    "version": "version",
    "handshake": "handshake",
    "name": "server name",
    "cipher_suite": "cipher suite",
    "alpn": "ALPN",
    "packets": "packets",
    "ja4": "JA4",
}

_CORE: Final = ("number", "worst", "client", "server", "version", "handshake", "name")
LAYOUTS: Final = (
    (*_CORE, "alpn", "cipher_suite", "packets", "ja4"),
    (*_CORE, "alpn", "cipher_suite", "packets"),
    (*_CORE, "cipher_suite"),
    _CORE,
    ("number", "worst", "ends", "version", "handshake", "name"),
)
"""Columns of the connections table: the first layout that fits is taken, and the last one is made to fit."""

FOLDED_NAME: Final = 40
"""A server name is folded at this width where that saves a layout."""

NARROW: Final = 11
"""What no column is folded below."""

GAP: Final = 2


def show(report: Report, console: Console, options: Options) -> None:
    brief = options.detail is Detail.BRIEF
    console.print(Text("Summary", style="bold"))
    console.print()
    for sentence in report.summary:
        _paragraph(console, Text(sentence, style="bold" if sentence is report.summary[-1] else ""))

    if brief and report.groups:
        _heading(console, "Findings")
        for group in report.groups:
            severity = f"{group.severity.name.lower():<{NAME}}"
            _paragraph(console, Text.assemble((severity, STYLES[group.severity]), _title(group)))
    elif not brief:
        _findings(console, report.groups)

    if report.connections and not brief:
        _heading(console, "TLS connections")
        console.print(_connections(report.connections, console.width), end="", crop=False)
        _more(console, report.connection_count - len(report.connections))

    if report.unseen:
        _heading(console, "Not seen, so not judged")
        for note in report.unseen:
            _paragraph(console, Text(note), prefix="- ")


def _findings(console: Console, groups: tuple[Group, ...]) -> None:
    severity = None
    for group in groups:
        if group.severity is not severity:
            severity = group.severity
            _heading(console, f"{severity.name.capitalize()} findings", STYLES[severity])
        else:
            console.print()
        _group(console, group)


def _title(group: Group) -> Text:
    title = Text.assemble((group.id, STYLES[group.severity]), "  ", (group.title, "bold"))
    if group.count > 1:
        where = f" in {count(group.connections, 'connection')}" if group.connections else ""
        title.append(f"  ({count(group.count, 'finding')}{where})")
    return title


def _group(console: Console, group: Group) -> None:
    _paragraph(console, _title(group))
    if group.explanation:
        _paragraph(console, Text(group.explanation), prefix="  ")
    for example in group.examples:
        _example(console, example)
    _more(console, group.more, prefix="  ")
    _field(console, "action", group.answer, prefix="  ")
    if group.policy:
        _field(console, "answer", f"tlswall rules CAPTURE --policy {group.policy}", prefix="  ")
    if group.references:
        _field(console, "see", ", ".join(group.references), prefix="  ")


def _example(console: Console, example: Example) -> None:
    _paragraph(console, Text(example.where, style="cyan"), prefix="  ")
    if example.explanation:
        _paragraph(console, Text(example.explanation), prefix="    ")
    if example.filter:
        _field(console, "packets", example.packets, prefix="    ")
        _field(console, "filter", example.filter, prefix="    ")
    if example.evidence:
        evidence = "; ".join(f"{name} {value}" for name, value in example.evidence)
        _field(console, "evidence", evidence, prefix="    ")


def _connections(rows: tuple[Connection, ...], width: int) -> Segments:
    """The table. rich's own takes a millisecond per row, and there may be a hundred thousand."""
    cells = [_cells(row) for row in rows]
    natural = {
        name: max(cell_len(header), *(cell_len(line) for row in cells for line in row[name].split("\n")))
        for name, header in HEADERS.items()
    }
    layout, widths = _fit(natural, width)
    bold = Style(bold=True)
    segments = list(_row(HEADERS, layout, widths, dict.fromkeys(layout, bold)))
    styles = {severity: Style.parse(style) for severity, style in STYLES.items()}
    for row, texts in zip(rows, cells, strict=True):
        style = {} if row.worst is None else {"worst": styles[row.worst]}
        segments += _row(texts, layout, widths, style)
    return Segments(segments)


def _row(
    texts: Mapping[str, str], layout: tuple[str, ...], widths: Mapping[str, int], styles: Mapping[str, Style]
) -> Iterator[Segment]:
    folded = [
        [part for line in texts[name].split("\n") for part in chop_cells(line, widths[name]) or [""]]
        for name in layout
    ]
    for parts in zip_longest(*folded, fillvalue=""):
        for name, part in zip(layout, parts, strict=True):
            space = " " * (widths[name] - cell_len(part))
            if name == "number":
                yield Segment(space)
                space = ""
            yield Segment(part, styles.get(name))
            yield Segment(space + " " * GAP)
        yield Segment.line()


def _cells(row: Connection) -> dict[str, str]:
    return {
        "number": row.number,
        "worst": "-" if row.worst is None else row.worst.name.lower(),
        "ends": f"{row.client}\n→ {row.server}",
        "client": row.client,
        "server": row.server,
        "version": row.version,
        "handshake": row.handshake,
        "name": row.name,
        "cipher_suite": row.cipher_suite,
        "alpn": row.alpn,
        "packets": row.packets,
        "ja4": row.ja4,
    }


def _fit(natural: Mapping[str, int], width: int) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """The richest layout that fits, and the width of each of its columns."""
    for layout in LAYOUTS:
        others = sum(natural[name] + GAP for name in layout if name != "name")
        if others + min(natural["name"], FOLDED_NAME) <= width:
            return layout, {**natural, "name": min(natural["name"], width - others)}
    room = width - others + natural["ends"]
    name = min(natural["name"], max(room // 2, NARROW))
    return layout, {**natural, "name": name, "ends": min(natural["ends"], max(room - name, NARROW))}


def _heading(console: Console, text: str, style: str = "bold") -> None:
    console.print()
    console.print(Text(text, style=style))
    console.print()


def _more(console: Console, number: int, prefix: str = "") -> None:
    if number:
        _paragraph(
            console, Text(f"… and {number:,} more; use --verbose or --format json", style="dim"), prefix
        )


def _field(console: Console, name: str, text: str, prefix: str) -> None:
    _paragraph(console, Text(text), f"{prefix}{name:<{NAME}}")


def _paragraph(console: Console, text: Text, prefix: str = "") -> None:
    """The text behind a prefix, wrapped so that its lines stand below one another."""
    width = max(min(console.width, PARAGRAPH) - len(prefix), 20)
    for line in text.wrap(console, width, overflow="fold"):
        line.rstrip()
        console.print(Text.assemble((prefix, "dim"), line), soft_wrap=True)
        prefix = " " * len(prefix)
