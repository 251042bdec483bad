"""Where two opinions differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A value that another program reads otherwise than tlswall."""

    where: str
    """The connection or packet, as in "connection 3"."""
    field: str
    ours: object
    theirs: object
    opinion: str
    """Whose: tshark or scapy."""
    explanation: str | None = None
    """Why both can be right, where that is known."""

    def __str__(self) -> str:
        reason = f" ({self.explanation})" if self.explanation else ""
        return f"{self.where}: {self.field}: tlswall {self.ours}, {self.opinion} {self.theirs}{reason}"
