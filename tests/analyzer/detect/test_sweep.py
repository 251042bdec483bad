"""Sweeps over several servers (HB14): at least five peers of one source within a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.model import Finding
from analyzer.pipeline import analyze
from samples.craft import tls_bytes as tls
from samples.craft.conversation import Capture
from samples.craft.heartbeat import PEER_ALLOWED, REQUEST
from samples.craft.session import begin

SCANNER = "192.0.2.66"


def probe(
    capture: Capture, server: str, *, source: str = SCANNER, brought: int = 0, payload_length: int = 0x4000
):
    s = begin("probe", capture=capture, client=source, server=server)
    s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(REQUEST, payload_length, s.noise.take(brought)))
    s.talk.close()
    return asked


def sweeps(folder: Path, *captures: Capture) -> list[Finding]:
    paths = []
    for number, capture in enumerate(captures):
        paths.append(str(folder / f"{number}.pcap"))
        capture.write(Path(paths[-1]))
    return [finding for finding in analyze(paths).iter_findings() if finding.id == "HB14"]


def server(number: int) -> str:
    return f"198.51.100.{number + 1}"


@pytest.mark.parametrize(
    ("targets", "pause", "found"), [(5, 0, True), (4, 0, False), (5, 14.9, True), (5, 15, False)]
)
def test_five_peers_within_a_minute(tmp_path, targets, pause, found):
    capture = Capture()
    asked = []
    for number in range(targets):
        asked.append(probe(capture, server(number)))
        capture.pause(pause)
    result = sweeps(tmp_path, capture)
    assert bool(result) is found
    if found:
        (sweep,) = result
        assert sweep.packets == tuple(packet.number for packet in asked)
        assert (sweep.offender, sweep.action, sweep.connection, sweep.policy) == (
            SCANNER,
            "A",
            None,
            "heartbleed",
        )
        assert sweep.evidence["targets"] == [server(number) for number in range(targets)]
        assert sweep.evidence["connections"] == list(range(targets))
        assert sweep.evidence["seconds"] == pytest.approx(4 * pause, abs=0.1)


def test_one_server_many_times_is_no_sweep(tmp_path):
    capture = Capture()
    for _ in range(9):
        probe(capture, server(0))
    assert not sweeps(tmp_path, capture)


def test_several_sources_are_no_sweep(tmp_path):
    capture = Capture()
    for number in range(6):
        probe(capture, server(number), source=f"192.0.2.{100 + number // 3}")
    assert not sweeps(tmp_path, capture)


def test_harmless_probes_and_early_heartbeats_count(tmp_path):
    capture = Capture()
    probe(capture, server(0))
    probe(capture, server(1), payload_length=20, brought=20)
    for number in (2, 3, 4):
        probe(capture, server(number), payload_length=20, brought=36)
    assert len(sweeps(tmp_path, capture)) == 1


def test_honest_heartbeats_do_not(tmp_path):
    capture = Capture()
    for number in range(5):
        s = begin("honest", capture=capture, client=SCANNER, server=server(number))
        s.full(PEER_ALLOWED, PEER_ALLOWED)
        s.client(s.sealed(0, tls.HEARTBEAT, 40))
        s.server(s.sealed(1, tls.HEARTBEAT, 40))
        s.close()
    assert not sweeps(tmp_path, capture)


def test_bursts_are_told_apart(tmp_path):
    capture = Capture()
    for burst in range(2):
        for number in range(5 + burst):
            probe(capture, server(number))
        capture.pause(300)
    first, second = sorted(sweeps(tmp_path, capture), key=lambda finding: finding.packets)
    assert (first.evidence["target_count"], second.evidence["target_count"]) == (5, 6)
    assert first.packets[-1] < second.packets[0]


def test_a_sweep_goes_on_over_rotated_captures(tmp_path):
    captures = [Capture(), Capture()]
    for number in range(6):
        if number == 3:
            captures[1].now_us = captures[0].now_us
        probe(captures[number // 3], server(number))
    (sweep,) = sweeps(tmp_path, *captures)
    assert sweep.capture == 0
    assert len(sweep.packets) == 3  # those of that capture
    assert sweep.evidence["target_count"] == 6
    assert sweep.evidence["captures"] == [0, 1]


def test_a_server_that_sweeps_its_clients(tmp_path):
    capture = Capture()
    for number in range(5):
        s = begin("reverse", capture=capture, client=f"192.0.2.{number + 1}", server="198.51.100.66")
        s.hellos(PEER_ALLOWED, PEER_ALLOWED)
        s.server(s.heartbeat(REQUEST, 0x4000))
        s.talk.close()
    (sweep,) = sweeps(tmp_path, capture)
    assert sweep.offender == "198.51.100.66"
