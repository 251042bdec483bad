"""Tell people what a ruleset answers.

In:  an Answer and its artifact.
Out: lines with a style each; no control character of a capture gets through.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final, TextIO, TypeAlias

from analyzer.report.text import count, listed, visible
from rulegen.backends.base import Artifact, Level
from rulegen.from_findings import Answer, Entry
from rulegen.policies.base import Observed

Line: TypeAlias = tuple[str, str]
"""Text, and a style of rich; an empty one is plain."""

WIDTH: Final = 100
"""Of paragraphs."""
_PACKETS: Final = 5
_PLAIN: Final = ""


def account_lines(answer: Answer, artifact: Artifact | None = None) -> Iterator[Line]:
    """Which findings which rules answer, which are left alone and why, and where the backend is not exact."""
    answered = [entry for entry in answer.account if entry.rules]
    alone = [entry for entry in answer.account if not entry.rules]
    total = sum(entry.count for entry in answer.account)
    if answer.account:
        done = sum(entry.count for entry in answered)
        yield f"{count(total, 'finding')}, {done:,} answered", "bold"
    else:
        yield "no findings", "bold"
    for head, style, entries in (("Answered", "bold green", answered), ("Left alone", "bold yellow", alone)):
        if entries:
            yield head, style
        for entry in entries:
            yield from _entry(entry)
    if not answer.ruleset.chains:
        yield "No policy applies: the ruleset is empty. --policy NAME asks for one.", "bold yellow"
    if answer.ruleset.remarks:
        yield "To mind", "bold yellow"
    for remark in answer.ruleset.remarks:
        yield from paragraph(visible(remark), "  ")
    if artifact:
        yield from _unfaithful(artifact)


def _unfaithful(artifact: Artifact) -> Iterator[Line]:
    """Rules that the backend can't say exactly, those that differ alike together."""
    alike: dict[tuple[Level, tuple[str, ...]], list[str]] = {}
    for fidelity in artifact.fidelity:
        if fidelity.level is not Level.EXACT:
            alike.setdefault((fidelity.level, fidelity.notes), []).append(fidelity.rule)
    for (level, notes), rules in alike.items():
        verb = "is" if len(rules) == 1 else "are"
        text = f"{listed(rules)} {verb} {level} in {artifact.backend}: {'; '.join(notes)}"
        yield from paragraph(text, "", "yellow")


def _entry(entry: Entry) -> Iterator[Line]:
    number = f" ({entry.count:,} times)" if entry.count > 1 else ""
    yield visible(f"  {entry.finding} {entry.title}{number}"), "bold"
    for observed in entry.examples:
        yield f"    {visible(_place(observed))}", "cyan"
    if entry.count > len(entry.examples):
        yield f"    and {entry.count - len(entry.examples):,} more", "cyan"
    if entry.rules:
        yield f"    by {', '.join(entry.rules)}", _PLAIN
    if entry.why:
        yield from paragraph(visible(entry.why), "    ")


def _place(observed: Observed) -> str:
    finding = observed.finding
    packets = ", ".join(map(str, finding.packets[:_PACKETS]))
    more = "..." if len(finding.packets) > _PACKETS else ""
    connection = "" if finding.connection is None else f", connection {finding.connection}"
    offender = f", from {finding.offender}" if finding.offender else ""
    noun = "packet" if len(finding.packets) == 1 else "packets"
    return f"{observed.capture}: {noun} {packets}{more}{connection}{offender}"


def paragraph(text: str, prefix: str, style: str = _PLAIN) -> Iterator[Line]:
    """Lines of a text that begin with the prefix, or below it."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=" " * len(prefix),
        break_on_hyphens=False,
        break_long_words=False,
    )
    yield from ((line, style) for line in lines)


def write(lines: Iterator[Line], out: TextIO) -> None:
    """Print lines, in colour where `out` is a terminal that has it."""
    if not out.isatty():
        out.writelines(f"{text}\n" for text, _ in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, markup=False, emoji=False, highlight=False)
    for text, style in lines:
        console.print(Text(text, style=style), soft_wrap=True)
