"""Packets as an attacker sends them, whole, damaged and in pieces: each match that a rule counted is told."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from analyzer.model import Side
from rulegen.evaluate.base import Fate
from rulegen.testbed.packets import Segment, ends_in_headers, fragments, is_fragment, repaired
from rulegen.testbed.replay import Bench

pytestmark = pytest.mark.netns

SEEDS = (1, random.SystemRandom().randrange(1 << 32))
PACKETS = 1500

NFT_MATCHES = (
    "tcp dport 443",
    "meta l4proto tcp @ih,0,8 > 64",
    "@nh,0,8 69",
    "tcp sport 1-3",
    "ip6 nexthdr 0",
    "{new}",
    "{invalid}",
)
XT_MATCHES = (
    "-p tcp --dport 443",
    '-m u32 --u32 "0>>24=0x45"',
    "-m length --length 60:70",
    '-m bpf --bytecode "1,6 0 0 1"',
    "{new}",
    "{invalid}",
)


def hostile(seed: int) -> list[tuple[Side, bytes]]:
    random_ = random.Random(seed)
    return [packet for _ in range(PACKETS) for packet in _some(random_)]


def _some(random_: random.Random) -> list[tuple[Side, bytes]]:
    six, side = random_.random() < 0.4, random_.choice(list(Side))
    addresses = ["2001:db8::1", "2001:db8::2"] if six else ["192.0.2.1", "192.0.2.2"]
    if side is Side.SERVER:
        addresses.reverse()
    extended = six and random_.random() < 0.2
    packet = Segment(
        source=addresses[0],
        destination=addresses[1],
        source_port=random_.randrange(1, 6),
        destination_port=random_.choice((443, 80)),
        payload=random_.randbytes(random_.randrange(80)),
        flags=random_.randrange(64),
        sequence=random_.randrange(1 << 32),
        tcp_options=b"\1\1\1\1" * random_.randrange(4),
        extensions=((random_.choice((0, 43, 60)), bytes(7)),) if extended else (),
    ).packet()
    what = random_.random()
    if what < 0.1 and not extended:
        pieces = fragments(packet, 8 * random_.randrange(1, 6))
        random_.shuffle(pieces)
        return [(side, piece) for piece in pieces]
    if what < 0.2:
        at = random_.randrange(20, len(packet))
        packet = repaired(packet[:at] + bytes((packet[at] ^ 1 << random_.randrange(8),)) + packet[at + 1 :])
    return [(side, packet)]


def nft(states: dict[str, str]) -> str:
    rules = [f'{match} counter comment "[m{n}]"' for n, match in enumerate(NFT_MATCHES)]
    rules += ['tcp sport 4 counter drop comment "[drop]"']
    rules += ['tcp sport 5 counter reject with tcp reset comment "[reset]"']
    lines = "\n".join(rules).format(**states)
    return f"table inet tlswall {{\n chain c {{\n type filter hook forward priority 0\n{lines}\n }}\n}}\n"


def xt(states: dict[str, str]) -> str:
    rules = [f'-A TLSWALL {match} -m comment --comment "[m{n}]"' for n, match in enumerate(XT_MATCHES)]
    rules += ['-A TLSWALL -p tcp --sport 4 -m comment --comment "[drop]" -j DROP']
    rules += ['-A TLSWALL -p tcp --sport 5 -m comment --comment "[reset]" -j REJECT --reject-with tcp-reset']
    lines = "\n".join(rules).format(**states)
    return f"*filter\n:FORWARD ACCEPT [0:0]\n:TLSWALL - [0:0]\n-A FORWARD -j TLSWALL\n{lines}\nCOMMIT\n"


TRACKING = {"new": "ct state new", "invalid": "ct state invalid"}
XT_TRACKING = {"new": "-m conntrack --ctstate NEW", "invalid": "-m conntrack --ctstate INVALID"}
FILES = {
    "nft": [("nft", nft(TRACKING))],
    "nft, stateless": [("nft", nft({"new": "meta mark 0", "invalid": "meta mark 1"}))],
    "iptables-nft": [(f"{tool}-nft", xt(XT_TRACKING)) for tool in ("iptables", "ip6tables")],
    "iptables-legacy": [(f"{tool}-legacy", xt(XT_TRACKING)) for tool in ("iptables", "ip6tables")],
    "iptables-legacy, stateless": [
        (f"{tool}-legacy", xt({"new": "", "invalid": "-p udp"})) for tool in ("iptables", "ip6tables")
    ],
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_every_match_that_a_rule_counted_is_told(lab, files, seed):
    assert lab is not None  # a lab can be built here; fragments want one of their own
    packets = [(side, packet) for side, packet in hostile(seed) if not ends_in_headers(packet)]
    told: dict[str, Counter[str]] = {"ip": Counter(), "ip6": Counter()}
    with Bench() as bench:
        for (_, packet), one in zip(packets, bench.prove(files, packets), strict=True):
            family = told["ip6" if packet[0] >> 4 == 6 else "ip"]
            family.update(name[1] for hit in one.hits if (name := re.match(r"\[(\w+)]", hit.comment or "")))
            assert one.traced
            assert one.entered or (one.fate == Fate.DROP and not one.hits)  # bad hop-by-hop options
            assert one.fate != Fate.STOLEN or (is_fragment(packet) and not one.hits and not one.answers)
            assert one.by is None or (one.fate == Fate.DROP and one.by == one.hits[-1])
        for tool, _ in files:
            expected = told["ip"] + told["ip6"] if tool == "nft" else told["ip6" if "6" in tool else "ip"]
            counted = {name: n for name, n in bench.counters(tool=tool).items() if n}
            assert dict(expected) == counted, f"seed {seed}"
