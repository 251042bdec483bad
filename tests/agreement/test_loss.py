"""One packet is lost, late, doubled, cut or out of order: what is said of the rest stays true.

Each packet of a capture is treated in turn. Where nothing is lost, tlswall says exactly what it says of the
original. Where something is, each value is the original's or unknown, and no finding is made against anybody that
the original does not make.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analyzer.model import Action
from analyzer.pipeline import analyze
from tests.agreement import engine
from tests.agreement.containers import pcap
from tests.agreement.frames import CAPTURES, Frame, frames

Frames = Sequence[Frame]
CHOSEN = (
    "certificate-request-failed.pcap",
    "client-hello-mtu300.pcap",
    "heartbleed-success.pcap",
    "smtp-starttls.pcap",
    "tls1.2.pcap",
    "tls12-resumption.pcap",
    "tls13_psk_succesfull.pcap",
)
VALUES = ("version", "client_version", "cipher_suite_code", "sni", "alpn", "ja3", "ja3s", "ja4", "starttls")
AGAINST_SOMEBODY = (Action.BLOCK, Action.TAMPERING)


def swapped(packets: Frames, at: int) -> Frames:
    return (*packets[:at], *packets[at : at + 2][::-1], *packets[at + 2 :])


def late(packets: Frames, at: int) -> Frames:
    return (*packets[:at], *packets[at + 1 : at + 6], packets[at], *packets[at + 6 :])


def doubled(packets: Frames, at: int) -> Frames:
    return (*packets[: at + 3], packets[at], *packets[at + 3 :])


def dropped(packets: Frames, at: int) -> Frames:
    return (*packets[:at], *packets[at + 1 :])


def cut(packets: Frames, at: int) -> Frames:
    half = replace(packets[at], data=packets[at].data[: max(60, len(packets[at].data) // 2)])
    return (*packets[:at], half, *packets[at + 1 :])


def from_there(packets: Frames, at: int) -> Frames:
    return packets[at:]


def up_to_there(packets: Frames, at: int) -> Frames:
    return packets[: at + 1]


def treated(name: str, treat: Callable[[Frames, int], Frames], folder: Path) -> Iterator[Any]:
    """(what was treated, what is said of it) for each packet; first of the original."""
    packets = frames(name)
    yield "original", said(next(path for path in CAPTURES if path.name == name), packets)
    for at in range(len(packets)):
        changed = treat(packets, at)
        yield f"packet {at + 1}", said(pcap(folder / "treated.pcap", changed), changed)


def said(path: Path, packets: Frames) -> list[dict[str, Any]]:
    return engine.shown(analyze(path), [frame.origin for frame in packets])


@pytest.mark.parametrize("treat", [swapped, late, doubled], ids=lambda treat: treat.__name__)
@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_is_lost(name: str, treat: Callable[[Frames, int], Frames], tmp_path: Path) -> None:
    (_, original), *others = treated(name, treat, tmp_path)
    for what, connections in others:
        assert without_findings(connections) == without_findings(original), what
        for row, whole in zip(connections, original, strict=True):
            for finding, expected in zip(row["findings"], whole["findings"], strict=True):
                (*finding, packets), (*expected, all_packets) = finding, expected
                assert finding == expected, what
                assert set(packets) <= set(all_packets), (
                    what
                )  # a record's first packet may have become its last


@pytest.mark.parametrize("treat", [dropped, cut, from_there, up_to_there], ids=lambda treat: treat.__name__)
@pytest.mark.parametrize("name", CHOSEN)
def test_something_is_lost(name: str, treat: Callable[[Frames, int], Frames], tmp_path: Path) -> None:
    (_, original), *others = treated(name, treat, tmp_path)
    known = {frozenset(side["port"] for side in (row["client"], row["server"])): row for row in original}
    for what, connections in others:
        for row in connections:
            whole = known[frozenset((row["client"]["port"], row["server"]["port"]))]
            assert (row["client"], row["server"]) == (whole["client"], whole["server"]), what
            assert row["resumed"] in (whole["resumed"], "unknown"), what
            assert row["established"] <= whole["established"], what
            for name in VALUES:
                assert row[name] in (whole[name], None), (what, name)
            assert set(row["alpn_offered"]) <= set(whole["alpn_offered"]), what
            assert all(alert in whole["alerts"] for alert in row["alerts"]), what
            accused = {finding[:3] for finding in row["findings"] if finding[1] in AGAINST_SOMEBODY}
            assert accused <= {finding[:3] for finding in whole["findings"]}, what


def without_findings(connections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "findings"} for row in connections]
