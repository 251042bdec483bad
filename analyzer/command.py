"""What every command does alike: where output goes, how failure is said, which exit status it has.

Exit status: 0 done, 1 findings at or above --fail-on (or differences), 2 bad input or usage, 130 interrupted,
141 nobody reads the output any more. The result goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import typer
from typer.main import get_command, get_command_from_info, get_command_name

from analyzer.errors import CaptureError
from analyzer.report.text import visible

FOUND: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT, as a shell reports it."""
BROKEN_PIPE: Final = 141
"""128 + SIGPIPE: what a program has that does not ignore that signal."""


class _OnDemand(dict[str, Any]):
    """Commands by name, each built when it is asked for."""

    def __init__(self, app: typer.Typer) -> None:
        self._build = partial(
            get_command_from_info,
            pretty_exceptions_short=app.pretty_exceptions_short,
            rich_markup_mode=app.rich_markup_mode,
        )
        for info in app.registered_commands:
            assert info.callback is not None
            self[info.name or get_command_name(info.callback.__name__)] = info

    def __getitem__(self, name: str) -> Any:
        return self._build(super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        info = super().get(name)
        return default if info is None else self._build(info)


def on_demand(app: typer.Typer) -> Any:
    """The command that `app` is, with subcommands that are built when they are named.

    Typer builds all of them, which takes longer than to analyse a small capture.
    """
    commands = _OnDemand(app)
    app.registered_commands = []
    group: Any = get_command(app)
    group.commands = commands
    return group


_KEPT: Final[list[object]] = []


def keep(value: object) -> None:
    """Keep a large value until the process ends: to free it piece by piece takes longer than that."""
    _KEPT.append(value)


def say(message: str) -> None:
    """A line on standard error."""
    if sys.stderr is not None:  # None where it was closed at the start
        sys.stderr.write(f"tlswall: {visible(message, 2000)}\n")


def fail(message: str) -> NoReturn:
    """Says what is wrong with the input and ends the command."""
    say(message)
    raise typer.Exit(BAD_INPUT)


@contextmanager
def guarded(interrupted: Callable[[], str] = lambda: "interrupted") -> Iterator[None]:
    """Turns what can go wrong outside the program into a message and an exit status, never a traceback."""
    try:
        yield
    except CaptureError as error:
        fail(str(error))
    except BrokenPipeError:
        # The interpreter flushes standard output once more at its end; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt:
        say(interrupted())
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


@contextmanager
def output(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears under its name only when it is complete."""
    if path is None or str(path) == "-":
        if sys.stdout is None:
            raise OSError("standard output is closed")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = path.resolve()
    if path.exists() and not path.is_file():  # a pipe or a device is written as it is
        with path.open("wb") as out:
            yield out
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as out:
            yield out
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def one_of(names: Sequence[str]) -> Callable[[str | None], str | None]:
    """Checks an option's value against names; a callback for typer."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"'{visible(value)}' is not one of {', '.join(names)}.")
        return value

    return check
