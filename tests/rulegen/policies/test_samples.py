"""The shipped captures through the policies in the real kernel: attacks stop, everything else passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

from analyzer.model import Side
from rulegen.ir.rule import Verdict
from rulegen.testbed.packets import repaired

pytestmark = pytest.mark.netns

CAPTURES = sorted((Path(__file__).parents[3] / "samples/captures").glob("*.pcap"))

TLS10_DATA = [
    # tshark: tcp.payload[0:3] == 17:03:01 or 14:03:01, and both hellos
    4, 6, 10, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 49, 51, 52, 54, 56, 57,
]  # fmt: skip
OLD = {"client_hello_sslv3.pcap": [1], "tls1_1.pcap": [4, 6], "tls-conn-with-extensions.pcap": TLS10_DATA}
HEARTBEATS = {"heartbleed.pcap": [11], "heartbleed-success.pcap": [11, 23]}

# fmt: off
REFUSED = {
    "heartbleed": {
        "heartbleed.pcap": [11],
        "heartbleed-success.pcap": [11],
    },
    "heartbleed:encrypted=pass": {
        "heartbleed.pcap": [11],
        "heartbleed-success.pcap": [11],
    },
    # tshark: tls.handshake.type == 2 and a ciphersuite of RC4; all else that the servers chose is sound
    "weak-parameters:unjudged=refuse": {
        "tls1.2.pcap": [5],
        "tls-conn-with-extensions.pcap": [6],
    },
    "min-version": OLD,
    # A server with TLS 1.3 answers a client that has 1.2 at most: no downgrade, and refused as the policy says.
    "min-version:sentinel=refuse": OLD | {"client-hello-mtu300.pcap": [10]},
    # Every ServerHello of TLS 1.2; none of tls13_psk_succesfull and chrome-1250-tls-x25519-kyber.
    "min-version:min=1.3,split=drop": OLD | {
        "certificate-request-failed.pcap": [6],
        "client-hello-mtu300.pcap": [10],
        "heartbleed-success.pcap": [6],
        "heartbleed.pcap": [6],
        "smtp-starttls.pcap": [14],
        "tls-fragmented-handshake.pcap": [6],
        "tls1.2.pcap": [5],
        "tls12-resumption.pcap": [13, 15, 34, 46, 89],
    },
    # It begins in the midst of its connection. Port 25 speaks TLS later and is not guarded.
    "first-record:ports=443,3000,4433": {
        "client_hello_sslv3.pcap": [1],
    },
    "content-type:types=heartbeat,split=drop": HEARTBEATS,
    "content-type:types=20,21,22,23,mode=allow": HEARTBEATS,
    # tshark: tcp.payload[0:2] == 15:03 and from the server
    "content-type:types=alert,direction=to-client": {
        "certificate-request-failed.pcap": [9],
        "tls-1.2-handshake-failure.pcap": [6],
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
def test_what_of_a_capture_is_refused(bench, rules_text, respond, path, policy):
    bench.load(rules_text(policy))
    sent = packets(path)
    fates = bench.send((side, data) for _, side, data in sent)
    refused = [number for (number, _, _), fate in zip(sent, fates, strict=True) if not fate.passed]
    assert refused == REFUSED[policy].get(path.name, [])
    refusing = {rule.name for rule in respond((), policy).ruleset.rules if rule.verdict is Verdict.DROP}
    assert sum(count for name, count in bench.counters().items() if name in refusing) == len(refused)
