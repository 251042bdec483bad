"""What a backend gives: text, how faithful it is, and whether the real tool accepts it.

In:  Ruleset, checked.
Out: Artifact, Checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from rulegen.ir.rule import Citation, Origin, Ruleset

CITED_PACKETS: Final = 3
"""Packet numbers that a comment gives of a finding."""


class Level(StrEnum):
    """How the packets that an emitted rule matches compare with those that the rule means."""

    EXACT = "exact"
    WIDER = "wider"
    NARROWER = "narrower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How faithful a backend is to one rule."""

    rule: str
    level: Level
    notes: tuple[str, ...]
    """What differs, and what of the rule's own limits the operator has to know; one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What a backend makes of a ruleset."""

    backend: str
    text: str
    fidelity: tuple[Fidelity, ...]
    """One per rule, in their order."""
    sets_apart: tuple[str, ...] = ()
    """Names of sets that it looks into and that are in the file of another backend, which comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the real tool says about an artifact."""

    accepted: bool | None
    """None: the tool could not be asked."""
    message: str
    """Why not, or what to install."""


class Backend(Protocol):
    """A way to filter packets."""

    @property
    def name(self) -> str:
        """As `--backend` knows it."""

    @property
    def suffix(self) -> str:
        """Of a file that holds its text."""

    def emit(self, ruleset: Ruleset) -> Artifact:
        """Translate, or raise Refused."""

    def check(self, text: str) -> Checked:
        """Ask the real tool, in a network namespace of its own, whether it would load the text."""


def origin_text(origin: Origin) -> str:
    """Why a rule is there, the findings with most packets nearest; a comment cuts it where it must."""
    if not origin.citations:
        return f"policy {origin.policy}"
    by_capture: dict[str, list[Citation]] = {}
    for citation in origin.citations:
        by_capture.setdefault(citation.capture, []).append(citation)
    total = len(origin.citations)
    count = f"{total} findings: " if total > 1 else ""
    return count + "; ".join(f"{name} {_cited(cited)}" for name, cited in by_capture.items())


def _cited(citations: Iterable[Citation]) -> str:
    packets: dict[str, list[int]] = {}
    for citation in citations:
        packets.setdefault(citation.finding, []).extend(citation.packets)
    return ", ".join(
        f"{finding} {' '.join(f'#{packet}' for packet in sorted(set(numbers))[:CITED_PACKETS])}".rstrip()
        for finding, numbers in packets.items()
    )
