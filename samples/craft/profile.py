"""What the kernel module nf_conntrack_tls would say of a capture, read from its description a second time.

In:  a pcap file of Ethernet frames, as the other modules here write it.
Out: for each connection whose server port is 443, the packet of the first drop, and why.
Source: what the profile of that name says of the module. Slow and plain: the engine is compared with it.

Packets are judged one by one, in capture order: nothing is reassembled, a retransmission is read again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SERVER_PORT: Final = 443
LONGEST_RUN: Final = 128
SMALLEST_HEARTBEAT: Final = 19
WRONG_WAY: Final = {
    (1, 1): "ssl2-client-hello-wrong-direction",
    (4, 0): "ssl2-server-hello-wrong-direction",
    (2, 1): "ssl2-client-master-key-wrong-direction",
}
"""SSLv2 message type and direction; 0 is the direction of the connection's first packet."""


class Drop(Exception):
    pass


@dataclass(slots=True)
class Direction:
    header: bytes = b""
    left: int = 0
    scanned: bool = False
    run: int = 0
    answer_length: int = 0
    """Length that this direction's next heartbeat must have, 0 for any."""


@dataclass(slots=True)
class Connection:
    originator: tuple[bytes, int]
    isn: int
    ways: tuple[Direction, Direction] = field(default_factory=lambda: (Direction(), Direction()))
    dropped: bool = False

    def judge(self, way: int, payload: bytes) -> None:
        """Read a packet's payload; raise Drop with the reason."""
        mine = self.ways[way]
        for byte in payload:
            if mine.left:
                mine.left -= 1
                if mine.scanned:
                    mine.run = 0 if byte >= 0x80 else mine.run + 1
                    if mine.run > LONGEST_RUN:
                        raise Drop("data-smuggling")
                continue
            mine.header += bytes([byte])
            if self.header_complete(mine, way):
                mine.header = b""

    def header_complete(self, mine: Direction, way: int) -> bool:
        header = mine.header
        if header[0] & 0xC0:
            size = 2 if header[0] & 0x80 else 3
            if len(header) < size:
                return False
            if size == 2:
                length = (header[0] & 0x7F) << 8 | header[1]
            else:
                length = ((header[0] & 0x3F) << 8 | header[1]) + header[2]
            if length == 0:
                raise Drop("zero-length-ssl2-record")
            if len(header) == size:
                return False  # the type comes next
            kind = header[size]
            if size == 2 and (kind, way) in WRONG_WAY:
                raise Drop(WRONG_WAY[kind, way])
            mine.left, mine.scanned = length - 1, size == 3 or kind not in (1, 2, 4)
            return True
        if not 20 <= header[0] <= 24:
            raise Drop("invalid-record-type")
        if len(header) < 5:
            return False
        kind, length = header[0], struct.unpack(">H", header[3:5])[0]
        if kind == 24:
            if length < SMALLEST_HEARTBEAT:
                raise Drop("heartbeat-too-short")
            if mine.answer_length:
                if length != mine.answer_length:
                    raise Drop("heartbleed-response")
                mine.answer_length = 0
            else:
                self.ways[1 - way].answer_length = length
        mine.left, mine.scanned = length, kind in (20, 21, 23)
        return True


def segments(path: Path) -> Iterator[tuple[int, tuple[bytes, int], tuple[bytes, int], int, int, bytes]]:
    """Packet number, sender, receiver, flags, sequence number and payload of each TCP segment."""
    data = path.read_bytes()
    order = "<" if data[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    at, number = 24, 0
    while at < len(data):
        captured = struct.unpack_from(order + "I", data, at + 8)[0]
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        number += 1
        if frame[12:14] == b"\x08\x00" and frame[23] == 6:
            transport = 14 + (frame[14] & 15) * 4
            end = 14 + struct.unpack_from(">H", frame, 16)[0]
            source, target = frame[26:30], frame[30:34]
        elif frame[12:14] == b"\x86\xdd" and frame[20] == 6:
            transport, end = 54, 54 + struct.unpack_from(">H", frame, 18)[0]
            source, target = frame[22:38], frame[38:54]
        else:
            continue
        sport, dport, seq = struct.unpack_from(">HHI", frame, transport)
        payload = frame[transport + (frame[transport + 12] >> 4) * 4 : end]
        yield number, (source, sport), (target, dport), frame[transport + 13], seq, payload


def first_drops(path: Path) -> list[dict[str, int | str]]:
    """Each connection's first drop, in capture order."""
    connections: dict[frozenset[tuple[bytes, int]], Connection] = {}
    drops: list[dict[str, int | str]] = []
    for number, source, target, flags, seq, payload in segments(path):
        key = frozenset((source, target))
        opens = flags & 0x12 == 2
        if key not in connections or (opens and connections[key].isn != seq):
            connections[key] = Connection(source, seq)
        connection = connections[key]
        way = 0 if source == connection.originator else 1
        server_port = target[1] if way == 0 else source[1]
        if connection.dropped or server_port != SERVER_PORT:
            continue
        try:
            connection.judge(way, payload)
        except Drop as drop:
            connection.dropped = True
            drops.append({"packet": number, "reason": str(drop)})
    return drops
