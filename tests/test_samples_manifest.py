"""The sample captures are those that the manifests describe.

What must be found in them is not tested here: that is the engine's test.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
MANIFESTS = (SAMPLES / "MANIFEST.toml", SAMPLES / "crafted" / "MANIFEST.toml")
ROWS = [row for path in MANIFESTS for row in tomllib.loads(path.read_text(encoding="utf-8"))["file"]]
CAPTURES = [row for row in ROWS if row["file"].endswith(".pcap")]

KEYS = {
    "file",
    "sha256",
    "origin",
    "licence",
    "what",
    "synthetic",
    "clean",
    "exact",
    "allowed",
    "absent",
    "expected",
    "connection",
    "profile",
}
FACTS = {"version", "cipher_suite_code", "client_port", "server_port", "resumed", "established"}
ID = re.compile(r"[A-Z]{2}[0-9]{2}")


def test_every_file_is_listed_once() -> None:
    listed = [row["file"] for row in ROWS]
    there = [
        str(path.relative_to(SAMPLES))
        for folder in ("captures", "crafted")
        for path in (SAMPLES / folder).iterdir()
        if path.name != "MANIFEST.toml"
    ]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_a_file_is_what_its_row_says(row: dict) -> None:
    data = (SAMPLES / row["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    assert set(row) <= KEYS
    assert row["licence"] in {"BSD-3-Clause", "MIT", "Apache-2.0"}
    assert row["origin"]
    assert row["what"]
    if row["file"].startswith("crafted/"):
        assert len(data) < 50_000


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_expectations_are_well_formed(row: dict) -> None:
    expected = row.get("expected", [])
    for finding in expected:
        assert set(finding) <= {"id", "action", "packets", "evidence", "offender"}
        assert ID.fullmatch(finding["id"])
        assert finding.get("action", "A") in {"A", "A*", "B", "P", "I"}
        assert finding["packets"] == sorted(set(finding["packets"]))
    for key in ("allowed", "absent"):
        assert all(ID.fullmatch(name) for name in row.get(key, []))
    assert not {finding["id"] for finding in expected} & set(row.get("absent", []))
    assert all(set(facts) <= FACTS for facts in row.get("connection", []))


def test_profile_rows_say_of_the_real_captures_what_the_kernel_module_said() -> None:
    """The plain reading in samples/craft is right where the module's own verdicts are known."""
    script = (
        "import sys, json, pathlib; from samples.craft.profile import first_drops; folder = sys.argv[1]; "
        "print(json.dumps({name: first_drops(pathlib.Path(folder, name)) for name in sys.argv[2:]}))"
    )
    verdicts = json.loads((SAMPLES / "captures" / "profile_verdicts.json").read_text())
    command = [sys.executable, "-c", script, str(SAMPLES / "captures"), *verdicts]
    said = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    for name, row in verdicts.items():
        assert said[name] == [{"packet": d["packet"], "reason": d["reason"]} for d in row["first_drops"]]


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("capinfos") is None, reason="capinfos is missing")
def test_wireshark_reads_every_capture_and_knows_the_packets_that_are_named() -> None:
    paths = [str(SAMPLES / row["file"]) for row in CAPTURES]
    listing = subprocess.run(
        ["capinfos", "-TrmcM", *paths], check=True, capture_output=True, text=True
    ).stdout
    packets = dict(line.split(",") for line in listing.splitlines())
    assert len(packets) == len(CAPTURES)
    for row in CAPTURES:
        count = int(packets[str(SAMPLES / row["file"])])
        named = [number for finding in row.get("expected", []) for number in finding["packets"]]
        assert max(named, default=1) <= count, row["file"]


def test_synthetic_captures_are_written_again_byte_for_byte(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "samples.craft", "--into", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    written = {path.name for path in tmp_path.iterdir()}
    synthetic = {Path(row["file"]).name for row in ROWS if row.get("synthetic")}
    assert written == synthetic | {"MANIFEST.toml"}
    for name in written:
        assert (tmp_path / name).read_bytes() == (SAMPLES / "crafted" / name).read_bytes(), name
