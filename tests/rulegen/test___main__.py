"""The command starts with what has to be set before numpy is imported."""

from __future__ import annotations

import subprocess
import sys

from analyzer.version import VERSION


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
