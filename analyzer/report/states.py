"""The state machines, printed from their rows: nobody draws them, so no picture can be out of date.

In:  rows of analyzer.tls.state.
Out: a Mermaid state diagram, or an aligned table with the source of each row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from analyzer.tls.state import Transition

LABEL_EVENTS: Final = 6
"""Events named on an arrow; past that a diagram can't be read, and the table has them all."""


def table(rows: Iterable[Transition]) -> str:
    """A line per row: machine, state, side, event, next state, source."""
    head = ("machine", "state", "side", "event", "next", "source")
    cells = [
        head,
        *((r.machine.name, r.state.name, r.side.name, r.event.name, r.next.name, r.source) for r in rows),
    ]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head) - 1)]
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[-1]}\n"
        for row in cells
    )


def mermaid(rows: Iterable[Transition]) -> str:
    """One diagram, a composite state per machine; rows between the same two states share an arrow."""
    machines: dict[str, dict[tuple[str, str], dict[str, list[str]]]] = {}
    for row in rows:
        arrows = machines.setdefault(row.machine.name, {})
        events = arrows.setdefault((row.state.name, row.next.name), {})
        events.setdefault(row.side.name.lower(), []).append(row.event.name)

    lines = ["stateDiagram-v2"]
    for machine, arrows in machines.items():
        start = next(iter(arrows))[0]
        lines += [f"    state {machine} {{", f"        [*] --> {start}"]
        for (state, following), events in arrows.items():
            lines.append(f"        {state} --> {following}: {_label(events)}")
        lines.append("    }")
    return "\n".join(lines) + "\n"


def _label(events: dict[str, list[str]]) -> str:
    if len(events) == 2 and len(sides := list(events.values())) == 2 and sides[0] == sides[1]:
        events = {"both": sides[0]}
    return ", ".join(f"{side} {_names(names)}" for side, names in events.items())


def _names(names: list[str]) -> str:
    shown = " ".join(names[:LABEL_EVENTS])
    return f"{shown} and {len(names) - LABEL_EVENTS} more" if len(names) > LABEL_EVENTS else shown
