"""Every shipped capture gives the findings that its manifest expects, and no attack where none is.

The manifests (samples/MANIFEST.toml, samples/crafted/MANIFEST.toml) were written from the catalogue, not
from our output; the head of each says what its keys mean.
"""

import tomllib
from pathlib import Path

import pytest

import analyzer
from analyzer.detect import RULES

SAMPLES = Path(__file__).parents[1] / "samples"
MANIFESTS = (SAMPLES / "MANIFEST.toml", SAMPLES / "crafted" / "MANIFEST.toml")
ROWS = [
    row
    for manifest in MANIFESTS
    for row in tomllib.loads(manifest.read_text())["file"]
    if row["file"].endswith((".pcap", ".pcapng"))
]


NOT_BUILT = {"SM05"}  # in the catalogue, expected of a capture, not detected yet


def fits(finding, expected):
    return (
        finding.id == expected["id"]
        and finding.action == expected.get("action", finding.action)
        and finding.offender == expected.get("offender", finding.offender)
        and set(expected.get("packets", ())) <= set(finding.packets)
        and all(finding.evidence.get(name) == value for name, value in expected.get("evidence", {}).items())
    )


def shown(finding):
    return finding.id, str(finding.action), finding.packets, finding.offender, dict(finding.evidence)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_capture(row):
    analysis = analyzer.analyze(SAMPLES / row["file"])
    found = list(analysis.iter_findings())
    assert not analysis.failures
    for expected in row.get("expected", ()):
        if expected["id"] in NOT_BUILT:
            assert expected["id"] not in RULES
            continue
        assert expected["id"] in RULES
        same = [finding for finding in found if finding.id == expected["id"]]
        assert any(fits(finding, expected) for finding in same), (
            expected,
            [shown(finding) for finding in same],
        )
    absent = [shown(finding) for finding in found if finding.id in row.get("absent", ())]
    assert not absent
    known = {expected["id"] for expected in row.get("expected", ())} | set(row.get("allowed", ()))
    if row.get("exact"):
        extra = [
            shown(finding)
            for finding in found
            if finding.action in ("A", "A*", "B") and finding.id not in known
        ]
        assert not extra
    for family in row.get("clean", ()):
        attacks = [
            shown(finding) for finding in found if finding.action == "A" and finding.id.startswith(family)
        ]
        assert not [attack for attack in attacks if attack[0] not in known]
    connections = list(analysis.iter_connections())
    for connection, facts in zip(connections, row.get("connection", ()), strict="connection" in row):
        for name, value in facts.items():
            side = name.removesuffix("_port")
            ours = connection[side]["port"] if name.endswith("_port") else connection[name]
            assert ours == value, (name, ours, value)


def test_findings_survive_any_division_into_blocks(monkeypatch):
    """What an analysis says does not depend on where a block ends."""
    path = SAMPLES / "captures" / "heartbleed-success.pcap"
    whole = [shown(finding) for finding in analyzer.analyze(path).iter_findings()]
    reader = analyzer.pipeline.open_capture
    for size in (512, 4096, 20_000):
        monkeypatch.setattr(
            analyzer.pipeline, "open_capture", lambda name, size=size: reader(name, block_bytes=size)
        )
        assert [shown(finding) for finding in analyzer.analyze(path).iter_findings()] == whole
