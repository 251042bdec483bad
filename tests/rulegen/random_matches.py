"""Random matches and random packets that have a chance to meet."""

from __future__ import annotations

import random

from analyzer.wire.fields import FIELDS
from rulegen.ir.match import And, Exceeds, Lookup, Match, Not, Op, Or, Present, Protocol, Test
from rulegen.testbed.packets import Segment

PAYLOAD = (
    "tls.content_type", "tls.version", "tls.length", "tls.handshake_type", "tls.heartbeat_type",
    "tls.heartbeat_payload_length", "tls.client_version", "ssl2.record_length", "ssl2.length",
)  # fmt: skip
HEADER = (
    "tcp.sport",
    "tcp.dport",
    "tcp.flags",
    "tcp.doff",
    "tcp.window",
    "ip.saddr",
    "ip.daddr",
    "ip6.saddr",
    "ip.dscp",
    "ip6.hoplimit",
)
INTERESTING = (
    0,
    1,
    2,
    3,
    16,
    19,
    22,
    24,
    64,
    0xFF,
    0x0300,
    0x0303,
    0x1603,
    0x1803,
    0x8000,
    443,
    40000,
    0xFFFF,
)
CLIENTS = {4: ("192.0.2.1", "192.0.2.9"), 6: ("2001:db8::1", "2001:db8::9")}
SERVERS = {4: "198.51.100.7", 6: "2001:db8:1::7"}


def value_for(chance: random.Random, width_bits: int) -> int:
    value = chance.choice(INTERESTING) if chance.random() < 0.8 else chance.getrandbits(width_bits)
    return value & ((1 << width_bits) - 1)


def random_test(chance: random.Random) -> Test:
    name = chance.choice(PAYLOAD if chance.random() < 0.75 else HEADER)
    width_bits = FIELDS[name].width_bits
    mask = None
    if chance.random() < 0.25:
        mask = chance.getrandbits(width_bits) or 1
    kept = mask if mask is not None else (1 << width_bits) - 1
    op = chance.choice(list(Op))
    if op is not Op.IN:
        return Test(name, op, value_for(chance, width_bits) & kept, mask)
    pairs = []
    for _ in range(chance.choice((1, 2, 3, 30))):
        low, high = sorted(value_for(chance, width_bits) & kept for _ in range(2))
        pairs.append((low, high))
    return Test(name, op, tuple(pairs), mask)


def random_match(chance: random.Random, depth: int = 3) -> Match:
    kind = chance.random()
    if depth and kind < 0.45:
        parts = tuple(random_match(chance, depth - 1) for _ in range(chance.choice((1, 2, 2, 3))))
        return And(parts) if kind < 0.25 else Or(parts)
    if depth and kind < 0.6:
        return Not(random_match(chance, depth - 1))
    if kind < 0.67:
        return Exceeds("tls.heartbeat_payload_length", chance.choice((0, 3, 19, 256, 300)), "tls.length")
    if kind < 0.75:
        return Present(chance.choice(PAYLOAD))
    if kind < 0.8:
        return Protocol(chance.choice(("tcp", "udp", "ip", "ip6")))
    if kind < 0.84:
        return Lookup(("ip.saddr",), "four")
    return random_test(chance)


def random_segment(chance: random.Random) -> Segment:
    version = chance.choice((4, 6))
    payload = b"".join(
        chance.choice(
            (b"\x16", b"\x18", b"\x03", b"\x00", b"\x01", b"\x02", b"\x40", bytes((chance.getrandbits(8),)))
        )
        for _ in range(chance.choice((0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 30)))
    )
    if chance.random() < 0.6:
        record = (
            b"\x18\x03\x02" + value_for(chance, 16).to_bytes(2) + b"\x01" + value_for(chance, 16).to_bytes(2)
        )
        payload = record[: chance.randrange(4, 9)] + payload[: chance.choice((0, 20))]
    return Segment(
        source=chance.choice(CLIENTS[version]),
        destination=SERVERS[version],
        source_port=chance.choice((40000, 443)),
        destination_port=chance.choice((443, 8443)),
        payload=payload,
        tcp_options=bytes.fromhex("01010101") * chance.choice((0, 0, 1, 10)),
    )
