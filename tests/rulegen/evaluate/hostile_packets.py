"""Packets that headers, options, fragments and lengths make hard to read, each of which a bridge forwards."""

from __future__ import annotations

import random
import struct

from rulegen.testbed.packets import checksum

ADDRESSES = {
    4: (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 9)), bytes((198, 51, 100, 7))),
    6: (bytes.fromhex("20010db8") + bytes(11) + b"\1", bytes.fromhex("20010db8") + bytes(11) + b"\7"),
}
PORTS = (443, 80, 40000, 0x1603)
RECORDS = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x18\x03\x02\x00\x03\x01\x40\x00",
    b"\x17\x03\x03\x00\x20",
    b"\x15\x03\x03\x00\x02\x02\x28",
)
OPTIONS = (
    b"\1\1\1\1", b"\2\4\5\xb4", b"\4\2\1\1", b"\3\3\7\1", b"\x08\x0a" + bytes(range(8)) + b"\1\1",
    b"\2\0\1\1", b"\2\x28\1\1", b"\0\2\4\5", b"\x08\x06\1\2\3\4\1\2",
)  # fmt: skip


def packet(chance: random.Random) -> bytes:
    """One of IPv4 or IPv6."""
    return _four(chance) if chance.random() < 0.5 else _six(chance)


def payload(chance: random.Random) -> bytes:
    whole = chance.choice(RECORDS) + bytes(chance.getrandbits(8) for _ in range(chance.choice((0, 3, 40))))
    return whole[: chance.choice((0, 1, 2, 3, 5, 6, 8, 20, 60))]


def _tcp(chance: random.Random) -> bytes:
    options = b"".join(chance.choice(OPTIONS) for _ in range(chance.choice((0, 0, 1, 2, 3))))[:40]
    doff = 5 + len(options) // 4
    if chance.random() < 0.15:
        doff = chance.randrange(16)
    header = struct.pack(
        "!HHIIBBHHH",
        chance.choice(PORTS),
        chance.choice(PORTS),
        chance.choice((1, 1000, chance.getrandbits(32))),
        chance.getrandbits(32),
        doff << 4,
        chance.choice((0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0)),
        chance.choice((0, 512, 0xFFFF)),
        0,
        0,
    )
    whole = header + options + payload(chance)
    return whole[: chance.randrange(len(whole) + 1)] if chance.random() < 0.1 else whole


def _transport(chance: random.Random) -> tuple[int, bytes]:
    kind = chance.random()
    if kind < 0.65:
        return 6, _tcp(chance)
    data = payload(chance)
    if kind < 0.78:
        header = struct.pack("!HHHH", chance.choice(PORTS), chance.choice(PORTS), 8 + len(data), 0)
        return 17, (header + data)[: chance.choice((4, 100, 100))]
    if kind < 0.86:
        flags = chance.choice((0, 0x80, 0x20, 0x10, 0xB0, 0x40, 0x30))
        return 47, bytes((flags, chance.choice((0, 0, 1)), 8, 0)) + bytes(4 * (flags & 0x30 != 0)) + data
    if kind < 0.9:
        return 4, data
    if kind < 0.95:
        return chance.choice((132, 50, 41, 255)), struct.pack("!HH", 443, 80) + data
    return chance.choice((1, 58)), bytes((8, 0, 0, 0, 0, 1, 0, 1)) + data


def _four(chance: random.Random) -> bytes:
    protocol, body = _transport(chance)
    options = bytes((1,)) * chance.choice((0, 0, 0, 4, 8, 40))
    fragment = 0x4000
    if chance.random() < 0.2:
        fragment = chance.choice((0x2000, 1, 2, 0x2001, 0x2005, 185))
    if chance.random() < 0.03:
        body = body[:3]
    source, _, destination = ADDRESSES[4]
    if chance.random() < 0.5:
        source, destination = destination, ADDRESSES[4][1]
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH", 0x40 | words, chance.choice((0, 8)), 4 * words + len(body), 7, fragment,
        chance.choice((1, 64)), protocol, 0,
    )  # fmt: skip
    head += source + destination + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def _six(chance: random.Random) -> bytes:
    protocol, body = _transport(chance)
    following = protocol
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 3))):
        kind = chance.choice((60, 43, 44, 44, 51, 60))
        if kind == 44:
            offset = chance.choice((0, 0, 1, 8, 1480, 1481))
            header = bytes((following, 0)) + struct.pack("!HI", offset, 5)
        elif kind == 51:
            header = bytes((following, 4)) + bytes(22)
        elif kind == 43:
            header = bytes((following, chance.choice((0, 2)), 4, chance.choice((0, 1)))) + bytes(20)
            header = header[: 8 * (header[1] + 1)]
        else:
            header = bytes((following, 0, 1, 4, 0, 0, 0, 0))
        body, following = header + body, kind
    if chance.random() < 0.1:
        body, following = bytes((following, 0, 1, 4, 0, 0, 0, 0)) + body, 0
    if chance.random() < 0.05:
        following = chance.choice((59, 43, 44, 60, 51))
    if chance.random() < 0.06:
        body = body[: chance.randrange(len(body) + 1)]
    label = chance.choice((0, 443, 0x12345))
    source, destination = ADDRESSES[6] if chance.random() < 0.5 else reversed(ADDRESSES[6])
    return struct.pack("!IHBB", 0x60000000 | label, len(body), following, 64) + source + destination + body
