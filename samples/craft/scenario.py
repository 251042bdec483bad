"""A crafted capture and what must be found in it; the manifest that lists them.

In:  scenarios, as the family modules yield them.
Out: samples/crafted/NAME.pcap and samples/crafted/MANIFEST.toml.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from samples.craft.conversation import Capture, Packet
from samples.craft.profile import first_drops

SAMPLES: Final = Path(__file__).parents[1]
CRAFTED: Final = SAMPLES / "crafted"


@dataclass(frozen=True, slots=True)
class Expected:
    """A finding that must be made."""

    id: str
    action: str | None
    """None: the catalogue leaves the class open."""
    packets: Sequence[Packet | int]
    """Packets that it must name at least: those with the first byte of each record that proves it."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    offender: str | None = None
    """Address of the endpoint that did it."""


@dataclass(slots=True, kw_only=True)
class Scenario:
    name: str
    what: str
    capture: Capture | None
    """None: the file was recorded from real endpoints and is only listed."""
    expected: Sequence[Expected] = ()
    exact: bool = True
    """No finding of class A, A* or B may be made beyond the expected and the allowed ones."""
    allowed: Sequence[str] = ()
    """Ids that may be reported as well: rows of the catalogue that overlap here."""
    absent: Sequence[str] = ()
    """Ids that must not be reported, of whatever class."""
    connection: Sequence[Mapping[str, Any]] = ()
    profiled: bool = True
    """What the profile nf_conntrack_tls says goes into the manifest: it follows from the bytes."""

    @property
    def file(self) -> str:
        return f"crafted/{self.name}.pcap"


def toml_value(value: Any) -> str:
    """A value in TOML; dictionaries become inline tables."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(toml_value(item) for item in value) + "]"


def table(key: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{key} = [", *(f"    {toml_value(row)}," for row in rows), "]"]


def expected_row(scenario: Scenario, finding: Expected) -> dict[str, Any]:
    numbers = [packet if isinstance(packet, int) else packet.number for packet in finding.packets]
    assert all(numbers), f"{scenario.name}: {finding.id} names a packet that the capture lost"
    row: dict[str, Any] = {"id": finding.id}
    if finding.action is not None:
        row["action"] = finding.action
    row["packets"] = sorted(set(numbers))
    if finding.evidence:
        row["evidence"] = finding.evidence
    if finding.offender:
        row["offender"] = finding.offender
    return row


def entry(scenario: Scenario, maker: str, path: Path) -> str:
    lines = [
        "[[file]]",
        f"file = {toml_value(scenario.file)}",
        f"sha256 = {toml_value(hashlib.sha256(path.read_bytes()).hexdigest())}",
        f"origin = {toml_value(maker)}",
        'licence = "Apache-2.0"',
        f"what = {toml_value(scenario.what)}",
        f"synthetic = {toml_value(scenario.capture is not None)}",
        f"exact = {toml_value(scenario.exact)}",
    ]
    lines += [
        f"{key} = {toml_value(list(value))}"
        for key, value in (("allowed", scenario.allowed), ("absent", scenario.absent))
        if value
    ]
    if scenario.expected:
        lines += table("expected", [expected_row(scenario, finding) for finding in scenario.expected])
    if scenario.connection:
        lines += table("connection", scenario.connection)
    if scenario.profiled:
        lines.append(f"profile = {toml_value(first_drops(path))}")
    return "\n".join(lines) + "\n"


def write(scenarios: Iterable[tuple[str, Scenario]], folder: Path) -> None:
    """Write every capture and the manifest; `scenarios` come with the path of the module that makes them."""
    entries: list[str] = []
    for maker, scenario in scenarios:
        path = folder / f"{scenario.name}.pcap"
        if scenario.capture is None:
            path = CRAFTED / path.name
        else:
            scenario.capture.write(path)
        entries.append(entry(scenario, maker, path))
    (folder / "MANIFEST.toml").write_text(HEAD + "\n".join(entries), encoding="utf-8")


HEAD: Final = """\
# The captures of samples/crafted/ and what must be found in them. Written by `python -m samples.craft`:
# edit the scenario in samples/craft/, not this file. The form is that of samples/MANIFEST.toml, and more:
#   synthetic    true: written byte for byte by the module named in `origin`
#                false: recorded from real endpoints
#   exact        true: no finding of class A, A* or B beyond the expected ones, compared by id and class
#   allowed      ids that may be reported as well, of whatever class: rows of the catalogue that overlap
#   expected     without `action`: the catalogue leaves the class open
#     packets    [] where the catalogue does not say which packets prove it
#     offender   the address that a class A finding blames
#   profile      first drop of each connection to port 443 by the profile nf_conntrack_tls, in capture order;
#                left out where the capture has cut packets, which the module would have seen whole

schema = 1

"""
