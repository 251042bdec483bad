"""What a reader found and has no value for, and the errors that end reading.

In:  names and texts of the file.
Out: Unknown, Unreadable, ToolMissing.

Damage ends reading; something unknown does not, and is refused by whoever would have to judge packets by it.
"""

from __future__ import annotations

from dataclasses import dataclass


class Unreadable(Exception):
    """The text is damaged, or no firewall file.

    Attributes:
        line: Of the text, from 1; None where the fault has no line.
        why: What is wrong.
    """

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why if line is None else f"line {line}: {why}")
        self.line = line
        self.why = why


class ToolMissing(Exception):
    """A tool or a right that reading needs is not on this host. The message says what to install."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression, match, target or object that is not understood."""

    name: str
    """As the tool calls it."""
    text: str = ""
    """What the file says about it."""

    def __str__(self) -> str:
        return f"{self.name} ({self.text})" if self.text else self.name
