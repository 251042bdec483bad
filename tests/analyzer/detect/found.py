"""Conversations of samples/craft through the engine: what is found in them."""

from __future__ import annotations

from pathlib import Path

from analyzer.model import Finding
from analyzer.pipeline import analyze
from samples.craft.conversation import Capture

SAMPLES = Path(__file__).parents[3] / "samples"
CLIENT, SERVER = "192.0.2.10", "198.51.100.10"
"""Addresses of a crafted conversation."""


def findings(capture: Capture, folder: Path) -> dict[str, Finding]:
    """The findings of a capture of one connection, by id."""
    path = folder / "conversation.pcap"
    capture.write(path)
    return in_file(path)


def in_file(path: Path) -> dict[str, Finding]:
    found = list(analyze(str(path)).iter_findings())
    by_id = {finding.id: finding for finding in found}
    assert len(by_id) == len(found)
    return by_id


def ids(found: dict[str, Finding], family: str) -> dict[str, str]:
    """Id -> action class, of one family or id."""
    return {name: finding.action.value for name, finding in sorted(found.items()) if name.startswith(family)}
