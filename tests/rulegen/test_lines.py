"""Lines for people: as wide as what they are read on, in colour where there is some."""

from __future__ import annotations

import io

import pytest

from rulegen.lines import WIDTH, Line, wrapped, write

WORDS = "every heartbeat record " * 20


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_a_terminal_gets_colour(terminal):
    write([Line("heartbleed", "bold")], terminal)
    assert terminal.getvalue() == "\x1b[1mheartbleed\x1b[0m\n"


@pytest.mark.parametrize(("columns", "width"), [(60, 60), (80, 80), (300, WIDTH)])
def test_lines_are_as_wide_as_the_terminal_but_never_too_long(terminal, monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", str(columns))
    write([Line(WORDS, head="  stops  ")], terminal)
    lines = terminal.getvalue().splitlines()
    assert width - len("heartbeat ") < max(map(len, lines)) <= width
    assert lines[0].startswith("  stops  every")
    assert all(line.startswith(" " * 9) for line in lines[1:])


def test_a_pipe_gets_text_of_one_width():
    out = io.StringIO()
    write([Line("no findings", "bold"), Line(""), Line(WORDS)], out)
    assert out.getvalue().startswith("no findings\n\nevery")
    assert max(map(len, out.getvalue().splitlines())) <= WIDTH


def test_a_word_is_never_cut():
    name = "a" * 150
    assert wrapped(Line(f"learned from {name}", head="  "), 80) == ["  learned from", f"  {name}"]
