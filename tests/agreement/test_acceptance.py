"""Heartbleed is found in the captures that have it, and nobody is accused in those that have nothing, in every form."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from analyzer.model import Action, Finding
from analyzer.pipeline import analyze
from tests.agreement.conftest import Made
from tests.agreement.frames import CAPTURES, NAMES
from tests.agreement.variants import VARIANTS, Variant

ATTACKS = ("heartbleed.pcap", "heartbleed-success.pcap")
CLIENT = "173.203.79.216"
REQUEST = 11
"""The packet of the request, in both captures."""
TOOLS = ("editcap", "mergecap", "reordercap", "text2pcap")
needs_tools = [
    pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed") for tool in TOOLS
]


def of(name: str) -> list[Finding]:
    return list(analyze(next(path for path in CAPTURES if path.name == name)).iter_findings())


@pytest.mark.parametrize("name", ATTACKS)
def test_heartbleed(name: str) -> None:
    by_id = {finding.id: finding for finding in of(name)}
    assert {"HB02", "HB03"} <= by_id.keys()
    for rule in ("HB02", "HB03"):
        assert by_id[rule].packets[0] == REQUEST
    assert {rule for rule, finding in by_id.items() if finding.action == Action.BLOCK} <= {"HB02", "HB03"}
    assert by_id["HB03"].offender == CLIENT
    answered = name == "heartbleed-success.pcap"
    assert by_id["HB02"].evidence["answered"] is answered
    if answered:
        assert by_id["HB02"].evidence["leaked_bytes"] == 0
        assert 23 in by_id["HB02"].packets


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ATTACKS])
def test_nobody_is_accused_in_a_benign_capture(name: str) -> None:
    assert [finding for finding in of(name) if finding.action in (Action.BLOCK, Action.TAMPERING)] == []


@pytest.mark.parametrize(
    "variant", [pytest.param(variant, id=variant.name, marks=needs_tools) for variant in VARIANTS]
)
def test_variants(variant: Variant, make: Callable[[Variant], Made]) -> None:
    """Of everything at once, with loss too, nothing of class A but the request's findings."""
    path, _, packets = make(variant)
    found = {
        (packets[packet - 1].capture, finding.id)
        for finding in analyze(path).iter_findings()
        if finding.action in (Action.BLOCK, Action.TAMPERING)
        for packet in finding.packets[:1]
    }
    assert found <= set(accused())
    if variant.same:
        assert found == set(accused())


def accused() -> Iterator[tuple[str, str]]:
    for name in ATTACKS:
        yield name, "HB03"
