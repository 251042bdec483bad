"""A capture made in a test, through the whole engine: what is found in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from analyzer.analysis import Analysis
from analyzer.model import Finding
from analyzer.pipeline import analyze
from samples.craft.conversation import Capture


def analysis(*captures: Capture) -> Analysis:
    """Write the captures (which numbers their packets) and analyse them together."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index, capture in enumerate(captures):
            paths.append(Path(folder) / f"{index}.pcap")
            capture.write(paths[-1])
        return analyze(paths)


def findings(*captures: Capture, family: str = "DG") -> list[Finding]:
    """The findings of a family, ordered by id."""
    found = analysis(*captures).iter_findings()
    return sorted(
        (finding for finding in found if finding.id.startswith(family)), key=lambda finding: finding.id
    )


def ids(found: Iterable[Finding]) -> list[str]:
    return [finding.id for finding in found]


def one(found: Iterable[Finding], name: str) -> Finding:
    """The one finding with an id."""
    (finding,) = (finding for finding in found if finding.id == name)
    return finding
