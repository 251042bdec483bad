"""`--profile nf_conntrack_tls` gives what the kernel module gives, on every capture and in every form of it.

For the shipped captures that is samples/captures/profile_verdicts.json, made with the module's own parser. For the
variants it is the reference of tests/analyzer/tls/test_nf_conntrack_tls.py (the description of the module, one byte
at a time), fed with the payloads that tshark reads.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analyzer.analysis import Analysis
from analyzer.model import Finding
from analyzer.pipeline import analyze
from rulegen.cli import app
from tests.agreement import tshark
from tests.agreement.conftest import Made
from tests.agreement.frames import CAPTURES, NAMES
from tests.agreement.variants import VARIANTS, Variant
from tests.analyzer.tls.test_nf_conntrack_tls import Reference

FOLDER = CAPTURES[0].parent
VERDICTS = json.loads((FOLDER / "profile_verdicts.json").read_text())
CUT = ("snaplen-96", "snaplen-300")
"""Of packets that are not whole the module's verdict can't be known."""


def verdicts(analysis: Analysis) -> set[tuple[int, int, str]]:
    """(connection, packet, reason); nothing but that is reported."""
    return {verdict(finding) for finding in analysis.iter_findings()}


def verdict(finding: Finding) -> tuple[int, int, str]:
    assert finding.id == "NFCT"
    assert finding.evidence.keys() == {"reason"}
    assert finding.connection is not None
    (packet,) = finding.packets
    return finding.connection, packet, str(finding.evidence["reason"])


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_capture(name: str) -> None:
    expected = VERDICTS.get(name, {"connections_on_port_443": 0, "first_drops": []})
    analysis = analyze(FOLDER / name, profile="nf_conntrack_tls")
    rows = {row["connection"]: row for row in analysis.iter_connections()}
    assert sum(row["server"]["port"] == 443 for row in rows.values()) == expected["connections_on_port_443"]
    found = []
    for connection, packet, reason in sorted(verdicts(analysis)):
        client, server = rows[connection]["client"], rows[connection]["server"]
        found.append(
            {"client": client["address"], "cport": client["port"], "packet": packet, "reason": reason}
            | {"server": server["address"], "sport": server["port"]}
        )
    assert found == expected["first_drops"]
    assert len(found) == analysis.totals["findings"]


def test_every_listed_capture_is_shipped() -> None:
    assert VERDICTS.keys() <= set(NAMES)


def reference(path: Path, ports: tuple[int, ...] = (443,)) -> set[tuple[int, int, str]]:
    """What the module would say first of each connection."""
    found = set()
    for stream, rows in tshark.streams(path).items():
        originator = tshark.source(rows[0])
        if tshark.destination(rows[0])[1] not in ports:
            continue
        module = Reference()
        for row in rows:
            payload = bytes.fromhex(row.get("tcp.payload", [""])[-1].replace(":", ""))
            reason = module.feed(int(tshark.source(row) != originator), payload)
            if reason:
                found.add((stream, int(row["frame.number"][0]), reason))
                break
    return found


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize(
    "variant", [variant for variant in VARIANTS if variant.name not in CUT], ids=lambda variant: variant.name
)
def test_a_variant(variant: Variant, make: Callable[[Variant], Made]) -> None:
    path, plain, _ = make(variant)
    assert verdicts(analyze(path, profile="nf_conntrack_tls")) == reference(plain)


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("ports", [(443,), (25,), (4433, 3000), (25, 80, 443, 3000, 4433, 8443, 993, 995)])
def test_ports(ports: tuple[int, ...], make: Callable[[Variant], Made]) -> None:
    """SMTP on a watched port is no TLS to the module; a server elsewhere is not looked at."""
    path, plain, packets = make(VARIANTS[0])
    found = verdicts(analyze(path, profile="nf_conntrack_tls", ports=ports))
    assert found == reference(plain, ports)
    captures = {packets[packet - 1].capture: reason for _, packet, reason in found}
    assert captures.get("smtp-starttls.pcap") == ("invalid-record-type" if 25 in ports else None)
    assert captures.get("heartbleed-success.pcap") == ("heartbleed-response" if 443 in ports else None)


def test_the_command() -> None:
    capture = str(FOLDER / "heartbleed-success.pcap")
    arguments = ["analyze", capture, "--format", "json", "--profile", "nf_conntrack_tls"]
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert document["profile"] == "nf_conntrack_tls"
    assert [finding["packets"] for finding in document["findings"]] == [[23]]
    document = json.loads(CliRunner().invoke(app, [*arguments, "--ports", "8443"]).stdout)
    assert document["findings"] == []
