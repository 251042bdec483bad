"""The shipped captures through the policies in the real kernel: attacks stop, everything else passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

from analyzer.model import Side
from rulegen.testbed.packets import repaired

pytestmark = pytest.mark.netns

CAPTURES = sorted((Path(__file__).parents[3] / "samples/captures").glob("*.pcap"))

# fmt: off
REFUSED = {
    "heartbleed": {
        "heartbleed.pcap": [11],
        "heartbleed-success.pcap": [11],
    },
    "min-version": {
        "client_hello_sslv3.pcap": [1],
        "tls1_1.pcap": [4, 6],
        # tshark: tcp.payload[0:3] == 17:03:01 or 14:03:01, and both hellos
        "tls-conn-with-extensions.pcap": [
            4, 6, 10, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 49, 51, 52, 54,
            56, 57,
        ],
    },
}
# fmt: on


def packets(path: Path) -> list[tuple[int, Side, bytes]]:
    """Number, sender and IP packet. The first sender on a pair of addresses is the client's side."""
    sides: dict[frozenset[str], str] = {}
    found = []
    with PcapReader(str(path)) as reader:
        for number, frame in enumerate(reader, 1):
            layer = IP if IP in frame else IPv6
            if layer not in frame:
                continue
            packet = frame[layer]
            size = packet.len if layer is IP else 40 + packet.plen
            client = sides.setdefault(frozenset((packet.src, packet.dst)), packet.src)
            data = bytes(packet.original)[:size]
            if len(data) == size:
                side = Side.CLIENT if packet.src == client else Side.SERVER
                found.append((number, side, repaired(data)))
    return found


@pytest.mark.parametrize("policy", REFUSED)
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_what_of_a_capture_is_refused(bench, rules_text, path, policy):
    bench.load(rules_text(policy))
    sent = packets(path)
    fates = bench.send((side, data) for _, side, data in sent)
    refused = [number for (number, _, _), fate in zip(sent, fates, strict=True) if not fate.passed]
    assert refused == REFUSED[policy].get(path.name, [])
    assert sum(bench.counters().values()) == len(refused)
