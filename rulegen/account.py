"""Tell people what a ruleset answers.

In:  an Answer and its artifact.
Out: lines; no control character of a capture gets through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.report.text import count, listed, visible
from rulegen.backends.base import Artifact, Level
from rulegen.from_findings import Answer, Entry
from rulegen.lines import Line
from rulegen.policies.base import Observed

SHOWN_MAX: Final = 3000
"""Characters of a text: a reason, a remark, a rule's origin."""

EMPTY: Final = Line("No policy applies: the ruleset is empty. --policy NAME asks for one.", "bold yellow")

_PACKETS: Final = 5


def account_lines(answer: Answer, artifact: Artifact | None = None) -> Iterator[Line]:
    """Which findings which rules answer, which are left alone and why, and where the backend is not exact."""
    answered = [entry for entry in answer.account if entry.rules]
    alone = [entry for entry in answer.account if not entry.rules]
    total = sum(entry.count for entry in answer.account)
    if answer.account:
        done = sum(entry.count for entry in answered)
        yield Line(f"{count(total, 'finding')}, {done:,} answered", "bold")
    else:
        yield Line("no findings", "bold")
    for head, style, entries in (("Answered", "bold green", answered), ("Left alone", "bold yellow", alone)):
        if entries:
            yield Line(head, style)
        for entry in entries:
            yield from _entry(entry)
    if answer.missing:
        yield Line(
            visible(f"--finding {', '.join(answer.missing)}: not found in the captures"), "bold yellow"
        )
    if not answer.ruleset.chains:
        yield EMPTY
    if answer.ruleset.remarks:
        yield Line("To mind", "bold yellow")
    for remark in answer.ruleset.remarks:
        yield Line(visible(remark, SHOWN_MAX), head="  ")
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
        yield Line(text, "yellow")


def _entry(entry: Entry) -> Iterator[Line]:
    number = f" ({entry.count:,} times)" if entry.count > 1 else ""
    yield Line(visible(f"{entry.finding} {entry.title}{number}"), "bold", head="  ")
    for observed in entry.examples:
        yield Line(visible(_place(observed)), "cyan", head="    ")
    if entry.count > len(entry.examples):
        yield Line(f"and {entry.count - len(entry.examples):,} more", "cyan", head="    ")
    if entry.rules:
        yield Line(f"by {', '.join(entry.rules)}", head="    ")
    if entry.why:
        yield Line(visible(entry.why, SHOWN_MAX), head="    ")


def _place(observed: Observed) -> str:
    finding = observed.finding
    packets = ", ".join(map(str, finding.packets[:_PACKETS]))
    more = "..." if len(finding.packets) > _PACKETS else ""
    connection = "" if finding.connection is None else f", connection {finding.connection}"
    offender = f", from {finding.offender}" if finding.offender else ""
    noun = "packet" if len(finding.packets) == 1 else "packets"
    return f"{observed.capture}: {noun} {packets}{more}{connection}{offender}"
