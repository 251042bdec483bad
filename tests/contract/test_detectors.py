"""What every detector promises, whatever it looks for.

Whether a capture's findings are the right ones is tests/test_expectations.py; how a detector decides is
tests/analyzer/detect/.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import pipeline
from analyzer.capture import source
from analyzer.capture.blocks import BlockBuffer
from analyzer.detect import DETECTORS, RULES
from analyzer.detect.base import Detector, Evidence, Hit
from analyzer.model import Action, Finding
from rulegen.policies import POLICIES
from tests.agreement.frames import frames, segment
from tests.analyzer.detect.test_order import CASES
from tests.recut import CRAFTED, SAMPLES, SHIPPED, json_of, pcap, together

CATALOGUE = {"HB": 15, "DG": 21, "CR": 25, "OR": 8, "SM": 23, "RN": 12, "RS": 12, "RL": 14, "HE": 21, "CT": 20, "FP": 8, "TC": 15,
             "AP": 17, "LB": 1}  # fmt: skip
"""The catalogue of detections: its families, and how many rows each has."""
PATHS = {path.name: path for path in (*CRAFTED, *SHIPPED)}


@cache
def found() -> dict[str, list[Finding]]:
    """Capture -> what is found in it."""
    return {name: list(pipeline.analyze(path).iter_findings()) for name, path in PATHS.items()}


def every_finding() -> Iterator[tuple[str, Finding]]:
    return ((name, finding) for name, findings in found().items() for finding in findings)


# rules


def test_an_id_is_of_one_rule_and_of_the_catalogue():
    ids = [rule.id for detector in DETECTORS for rule in detector.rules]
    assert len(ids) == len(set(ids))
    for name in ids:
        assert re.fullmatch(r"[A-Z]{2}\d\d", name)
        assert 1 <= int(name[2:]) <= CATALOGUE[name[:2]], name
    names = [detector.name for detector in DETECTORS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_explains_itself(rule):
    assert rule.title[0].isupper()
    assert rule.title[-1] not in ".!"
    assert len(rule.title) <= 80
    assert rule.explanation.endswith(".")
    assert len(rule.explanation.split()) >= 8
    assert rule.references
    assert rule.policy is None or rule.policy in {policy.name for policy in POLICIES}


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_a_detector_is_called_at_least_once(detector):
    assert detector.within or detector.across
    assert detector.rules


def test_a_detector_hits_with_its_own_rules_only(monkeypatch):
    hits: set[tuple[str, str]] = set()
    attempt = pipeline.attempt

    def spy(detector: Detector, analysis: Any, yielded: Iterator[Hit]) -> Iterator[Hit]:
        for hit in attempt(detector, analysis, yielded):
            hits.add((detector.name, hit.rule))
            yield hit

    monkeypatch.setattr(pipeline, "attempt", spy)
    pipeline.analyze(list(PATHS.values()))
    assert hits <= {(detector.name, rule.id) for detector in DETECTORS for rule in detector.rules}
    assert {name for name, _ in hits} == {detector.name for detector in DETECTORS}


def test_one_that_fails_is_named_and_the_others_still_run(monkeypatch):
    def broken(evidence: Evidence) -> Iterator[Hit]:
        yield from ()
        raise KeyError("SEEN")

    path = PATHS["hb01-answered.pcap"]
    failing = Detector("failing", (), within=broken, across=broken)
    monkeypatch.setattr(pipeline, "DETECTORS", (failing, *DETECTORS))
    analysis = pipeline.analyze(path)
    assert analysis.failures == {"failing": "KeyError: 'SEEN'"}
    assert list(analysis.iter_findings()) == found()[path.name]


# findings


def test_evidence_is_json_and_the_same_when_it_is_read_back():
    """A finding may wait in a file until the analysis is over: nothing of it may change its type there."""
    for name, finding in every_finding():
        assert json.loads(json.dumps(finding.evidence, allow_nan=False)) == finding.evidence, (
            name,
            finding.id,
        )


BUILT = {
    ("DG07", "dg07-reset.pcap"),
}
"""Findings whose `bytes` stand for a TCP flag and are not read from the packet."""


def test_the_bytes_that_prove_it_stand_in_the_packets_that_it_names():
    for name, finding in every_finding():
        assert finding.evidence, (name, finding.id)
        if "bytes" in finding.evidence and (finding.id, name) not in BUILT:
            proof = bytes.fromhex(str(finding.evidence["bytes"]))
            named = [frames(name)[packet - 1].data for packet in finding.packets]
            streams = sent(name, finding.packets[0], finding.packets[-1])
            assert proof, (name, finding.id)
            assert any(proof in data for data in (*named, *streams)), (name, finding.id)


def sent(name: str, first: int, last: int) -> Iterator[bytes]:
    """What each side sent in the packets from the first to the last: a record may lie in several."""
    sides: dict[Any, dict[int, bytes]] = defaultdict(dict)
    for frame in frames(name)[first - 1 : last]:
        part = segment(frame)
        if part is not None and part.payload:
            sides[part.addresses, part.ports][part.seq] = part.payload
    for segments in sides.values():
        yield b"".join(payload for _, payload in sorted(segments.items()))


def test_packets_are_of_the_capture():
    for name, path in PATHS.items():
        count = pipeline.analyze(path).captures[0].packets
        for finding in found()[name]:
            assert finding.packets, (name, finding.id)
            assert finding.packets == tuple(sorted(set(finding.packets))), (name, finding.id)
            assert 1 <= finding.packets[0] <= finding.packets[-1] <= count, (name, finding.id)


def test_class_a_names_who_did_it_and_no_other_class_does():
    """Its victim is the other end; of tampering both ends are victims, and nobody may be blocked for it."""
    for name, path in PATHS.items():
        ends = {
            row["connection"]: {row[side]["address"] for side in ("client", "server")}
            for row in pipeline.analyze(path).iter_connections()
        }
        for finding in found()[name]:
            where = (name, finding.id)
            assert (finding.offender is not None) == (finding.action == Action.BLOCK), where
            if finding.action == Action.BLOCK and finding.connection is not None:
                assert {finding.offender, *finding.victims} == ends[finding.connection], where
            elif finding.action == Action.TAMPERING:
                assert set(finding.victims) == ends[finding.connection], where
            else:
                assert finding.victims == (), where


# samples

NEAR = {
    # a capture that nearly has it, where no manifest names one
    "DG13": ("dg02-tls11.pcap", "TLS 1.1 is chosen, and the client offered better"),
    "DG14": ("upgrade-mysql.pcap", "a greeting that begins with a length, as a hello of SSL 2.0 does"),
    "DG16": ("dg01-tls12.pcap", "TLS 1.2 is chosen beside TLS 1.3, and was offered"),
    "DG18": ("legal-tls13-early-data.pcap", "early data, and TLS 1.3 is chosen"),
    "DG19": ("tls12-resumption.pcap", "ALPN is offered five times, and never chosen"),
    "DG21": ("upgrade-postgresql.pcap", "SSLRequest, and the server takes it"),
    "HB15": ("sm03-client-vulnerable.pcap", "the ChangeCipherSpec, and no heartbeat behind it"),
    "RS09": ("tcp-early-data-in-flight.pcap", "early data after the HelloRetryRequest, sent before it arrived"),
    "SM07": ("sm22-in-fragment.pcap", "another record inside a message"),
    "SM09": ("legal-resumed-id.pcap", "half of the handshake is skipped, as a resumption may"),
    "SM10": ("legal-anonymous.pcap", "no Certificate, and the suite has none"),
    "SM11": ("legal-full.pcap", "no ServerKeyExchange with RSA, and one with ECDHE"),
    "SM16": ("hb15-bogus-ccs.pcap", "a connection that is closed in the middle"),
    "SM17": ("legal-hello-request.pcap", "HelloRequest from the server of TLS 1.2"),
    "SM19": ("legal-tls13-retry.pcap", "one HelloRetryRequest"),
    "SM22": ("sm07-in-fragment.pcap", "a ChangeCipherSpec inside a message"),
}  # fmt: skip


def in_manifests(key: str) -> dict[str, list[str]]:
    """Id -> the captures that a manifest says have it (`expected`), or have it not (`absent`)."""
    rows: dict[str, list[str]] = defaultdict(list)
    for manifest in (SAMPLES / "MANIFEST.toml", SAMPLES / "crafted" / "MANIFEST.toml"):
        for row in tomllib.loads(manifest.read_text())["file"]:
            for one in row.get(key, ()):
                rows[one if key == "absent" else one["id"]].append(Path(row["file"]).name)
    return rows


def test_every_rule_has_a_capture_that_hits():
    """test_expectations.py holds the engine to those of the manifests, test_order.py to its own."""
    assert RULES.keys() - in_manifests("expected").keys() - CASES.keys() == set()


def test_every_rule_has_a_capture_that_nearly_hits():
    """Those of the manifests are held by test_expectations.py too."""
    assert RULES.keys() - in_manifests("absent").keys() == NEAR.keys()


@pytest.mark.parametrize("name", NEAR)
def test_what_is_nearly_it_is_not_found(name):
    capture, _ = NEAR[name]
    assert name not in {finding.id for finding in found()[capture]}


# the same every time


def test_the_output_is_the_same_whatever_the_hash_seed(tmp_path):
    path = tmp_path / "joined.pcap"
    path.write_bytes(pcap(together(PATHS.values())))
    command = [sys.executable, "-m", "analyzer", "analyze", "--format", "json", str(path)]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert outputs[0] == outputs[1]


@pytest.fixture(scope="module")
def at_once(tmp_path_factory) -> tuple[Path, bytes]:
    """All captures at the same time, and what is said of them in one block."""
    path = tmp_path_factory.mktemp("joined") / "joined.pcap"
    path.write_bytes(pcap(together(PATHS.values(), at_once=True)))
    return path, json_of(pipeline.analyze(path))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([200, 5_000, 200_000]))
def test_the_output_is_the_same_wherever_blocks_end(at_once, seed: int, longest: int):
    dice = random.Random(seed)

    class Uneven(BlockBuffer):
        def fill(self) -> bool:
            self._block_bytes = dice.randint(1, longest)
            return super().fill()

    path, whole = at_once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BlockBuffer", Uneven)
        assert json_of(pipeline.analyze(path)) == whole
