"""The command starts with what has to be set before numpy is imported."""

from __future__ import annotations

import subprocess
import sys
from copy import copy

import pytest
from typer.main import get_command

from analyzer.command import on_demand
from analyzer.version import VERSION
from rulegen.cli import app


def test_it_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "rulegen", "--version"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"tlswall {VERSION}\n", "")


def test_importing_it_sets_nothing_and_loads_nothing():
    code = (
        "import gc, os, sys; before = gc.get_threshold(), dict(os.environ); import rulegen.__main__;"
        "print(before == (gc.get_threshold(), dict(os.environ)), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_commands_that_are_built_when_they_are_named_are_the_same(capsys):
    eager, lazy = get_command(app), on_demand(copy(app))
    assert list(lazy.commands) == list(eager.commands)

    def run(command, *arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as end:
            command(arguments, prog_name="tlswall")
        return end.value.code, *capsys.readouterr()

    for arguments in (
        (),
        ("--help",),
        ("anlyze",),
        ("states",),
        *((name, "--help") for name in eager.commands),
    ):
        assert run(lazy, *arguments) == run(eager, *arguments)
