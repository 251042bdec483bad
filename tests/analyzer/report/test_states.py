from __future__ import annotations

import re

from analyzer.report.states import mermaid, table
from analyzer.tls.state import ROWS


def test_the_table_has_every_row_with_its_source():
    lines = table(ROWS).splitlines()
    assert len(lines) == len(ROWS) + 1
    assert lines[0].split() == ["machine", "state", "side", "event", "next", "source"]
    for line, row in zip(lines[1:], ROWS, strict=True):
        assert line.split()[:5] == [
            row.machine.name,
            row.state.name,
            row.side.name,
            row.event.name,
            row.next.name,
        ]
        assert line.endswith(f"  {row.source}")


def test_the_diagram_has_every_arrow():
    text = mermaid(ROWS)
    arrows = re.findall(r"^ +(\w+) --> (\w+): (.+)$", text, re.MULTILINE)
    assert {(state, following) for state, following, _ in arrows} == {
        (r.state.name, r.next.name) for r in ROWS
    }
    assert text.count("[*] -->") == text.count("{") == len({row.machine for row in ROWS})
    # Mermaid takes a second colon or a semicolon in a label for syntax.
    assert not any(set(label) & set(":;") for _, _, label in arrows)
