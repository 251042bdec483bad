"""`python -m analyzer`: the analyser's commands without the rule generator."""

from __future__ import annotations

from typing import Annotated

import typer

from analyzer.cli import app, show_version


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Offline TLS capture analyser."""


if __name__ == "__main__":
    app(prog_name="python -m analyzer")
