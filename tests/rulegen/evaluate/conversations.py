"""Random conversations over TCP, UDP and ICMP, with random damage: what a tracker of connections must survive."""

from __future__ import annotations

import ipaddress
import random
import struct

from rulegen.testbed.packets import checksum, ipv4, ipv6

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))
CLIENT, SERVER = 0, 1
DROPPED, REJECTED = 0xDEAD, 0xBEEF
"""The urgent pointer of segments that the rules of the tests drop, and answer with a reset."""

_SHIFTS = (1, 2, 100, 1460, 30000, 65535, 66001, 70000, 1_000_000, 1 << 30, 1 << 31, 0xF0000000)
_ENDS = {
    4: ("192.0.2.1", "198.51.100.7"),
    6: ("2001:db8::1", "2001:db8:ffff::7"),
}


def addresses(version: int, side: int) -> tuple[bytes, bytes]:
    """Source and destination of what a side sends."""
    ends = [ipaddress.ip_address(text).packed for text in _ENDS[version]]
    return ends[side], ends[1 - side]


def ip_packet(version: int, side: int, protocol: int, body: bytes) -> bytes:
    """An IP packet of a protocol whose checksum, if it has one, is filled in already."""
    source, destination = addresses(version, side)
    if version == 6:
        return ipv6(source, destination, protocol, body)
    head = bytearray(ipv4(source, destination, body)[:20])
    head[9] = protocol
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", checksum(bytes(head)))
    return bytes(head) + body


def with_checksum(version: int, side: int, protocol: int, body: bytes, at: int) -> bytes:
    """The body with its transport checksum at an offset."""
    source, destination = addresses(version, side)
    pseudo = source + destination + struct.pack("!II", len(body), protocol)
    if protocol == 1:
        pseudo = b""
    return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]


def segment(
    version: int,
    side: int,
    ports: tuple[int, int],
    sequence: int,
    acknowledgement: int,
    flags: int,
    *,
    payload: bytes = b"",
    window: int = 0xFFFF,
    options: bytes = b"",
    urgent: int = 0,
    words: int | None = None,
    wrong_checksum: bool = False,
) -> bytes:
    """A TCP packet that a side sends."""
    size = 5 + len(options) // 4 if words is None else words
    body = struct.pack(
        "!HHIIBBHHH", *ports[:: -1 if side else 1], sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF,
        size << 4, flags, window, 0, urgent,
    )  # fmt: skip
    body = with_checksum(version, side, 6, body + options + payload, 16)
    if wrong_checksum:
        body = body[:16] + bytes((body[16] ^ 1,)) + body[17:]
    return ip_packet(version, side, 6, body)


class Talk:
    """Two ends of a TCP connection, as the sender of the next segment knows it."""

    def __init__(self, chance: random.Random, version: int, ports: tuple[int, int]) -> None:
        self.chance = chance
        self.version = version
        self.ports = ports
        self.sent: list[tuple[int, bytes]] = []
        self.damage = chance.choice((0.0, 0.1, 0.3, 0.6))
        self.begin()

    def begin(self) -> None:
        """Choose the ends' first numbers and the segments of a whole connection."""
        chance = self.chance
        self.next = [chance.getrandbits(32), chance.getrandbits(32)]
        self.acknowledged = [0, 0]
        opening = chance.choice((SYN, SYN, SYN, None))
        script: list[tuple[int, int, int]] = []
        if opening:
            script = [(CLIENT, SYN, 0), (SERVER, SYN | ACK, 0), (CLIENT, ACK, 0)]
            if chance.random() < 0.1:  # simultaneous open
                script = [(CLIENT, SYN, 0), (SERVER, SYN, 0), (CLIENT, SYN | ACK, 0), (SERVER, SYN | ACK, 0)]
        for _ in range(chance.randrange(12)):
            side = chance.randrange(2)
            script.append((side, ACK | PSH, chance.choice((0, 1, 10, 536, 1400))))
            if chance.random() < 0.7:
                script.append((1 - side, ACK, 0))
        first = chance.randrange(2)
        end = chance.choice(("fin", "fin", "fin both", "rst", "none"))
        if end.startswith("fin"):
            script.append((first, FIN | ACK, 0))
            if end == "fin":
                script.append((1 - first, ACK, 0))
            script += [(1 - first, FIN | ACK, 0), (first, ACK, 0)]
        elif end == "rst":
            script.append((first, chance.choice((RST, RST | ACK)), 0))
        self.script = script

    def packets(self, most: int = 40) -> list[tuple[int, bytes]]:
        """All that is sent, by side."""
        chance = self.chance
        while len(self.sent) < most:
            if chance.random() < self.damage / 3 and self.sent:
                self.sent.append(chance.choice(self.sent))
            elif chance.random() < self.damage / 3:
                self._stray()
            elif not self.script:
                if chance.random() < 0.4:
                    break
                self.begin()
            else:
                self._step(*self.script.pop(0))
        return self.sent

    def _step(self, side: int, flags: int, size: int) -> None:
        chance = self.chance
        acknowledgement = (
            self.next[1 - side] if flags & ACK else chance.choice((0, 0, chance.getrandbits(32)))
        )
        before = self.next[side]
        counted = size + (flags & SYN != 0) + (flags & FIN != 0)
        changes: dict[str, object] = {"payload": chance.randbytes(size), "options": self._options(flags)}
        if chance.random() < self.damage:
            before, acknowledgement, flags, counted = self._damaged(
                changes, side, before, acknowledgement, flags, counted
            )
        self._send(side, before, acknowledgement, flags, **changes)
        self.next[side] = (self.next[side] + counted) & 0xFFFFFFFF

    def _damaged(
        self,
        changes: dict[str, object],
        side: int,
        sequence: int,
        acknowledgement: int,
        flags: int,
        counted: int,
    ) -> tuple[int, int, int, int]:
        chance = self.chance
        shift = chance.choice((1, -1)) * chance.choice(_SHIFTS)
        match chance.randrange(10):
            case 0:
                sequence += shift
            case 1:
                acknowledgement += shift
            case 2:
                changes["window"] = chance.choice((0, 1, 5, 100, 1000, 40000))
            case 3:
                flags = chance.choice(
                    (0, FIN, SYN | FIN, SYN | RST, 0x3F, URG, ACK | URG, ACK | 0xC0, PSH, RST)
                )
            case 4:
                changes["urgent"] = chance.choice((DROPPED, REJECTED))
            case 5:
                changes["words"] = chance.choice((0, 3, 4, 6, 15))
            case 6:
                counted = 0  # the sender forgets that it has sent this
            case 7:
                changes["wrong_checksum"] = True
            case 8:
                sequence += shift
                acknowledgement += shift
            case 9:
                self.next[side] += shift  # segments are missing
        return sequence, acknowledgement, flags, counted

    def _stray(self) -> None:
        """A segment that nobody expects."""
        chance = self.chance
        side = chance.randrange(2)
        shift = chance.choice((0, 0, 1, -1, chance.choice(_SHIFTS), -chance.choice(_SHIFTS)))
        flags = chance.choice((SYN, SYN, SYN | ACK, RST, RST | ACK, RST, FIN | ACK, ACK, ACK))
        sequence = chance.choice(
            (0, self.next[side] + shift, self.next[side] + shift, chance.getrandbits(32))
        )
        acknowledgement = chance.choice((0, self.next[1 - side], self.next[1 - side] + shift))
        options = self._options(flags)
        self._send(
            side, sequence, acknowledgement, flags, options=options, window=chance.choice((0, 1, 0xFFFF))
        )
        if flags == SYN and chance.random() < 0.5:
            # What answers it: a SYN-ACK, a challenge, a reset.
            answer = chance.choice((SYN | ACK, SYN | ACK, ACK, RST | ACK, RST))
            answering = chance.choice((sequence + 1, self.next[side]))
            self._send(1 - side, self.next[1 - side], answering, answer, options=self._options(answer))
            if answer == SYN | ACK and chance.random() < 0.7:
                self.next[side] = (sequence + 1) & 0xFFFFFFFF
                self.next[1 - side] = (self.next[1 - side] + 1) & 0xFFFFFFFF

    def _options(self, flags: int) -> bytes:
        chance = self.chance
        options = b""
        if flags & SYN:
            if chance.random() < 0.6:
                options += bytes((1, 3, 3, chance.choice((0, 2, 7, 14, 200))))
            if chance.random() < 0.6:
                options += b"\1\1\4\2"
            if chance.random() < 0.2:
                options += chance.choice(
                    (b"\0\0\0\0", b"\2\4\5\xb4", b"\3\1\1\1", b"\5\xff\1\1", b"\4\3\1\1")
                )
        elif chance.random() < 0.2:
            base = self.next[chance.randrange(2)] + chance.choice((0, 0, 1, -1, 1000, *_SHIFTS))
            edges = [
                (base + chance.choice((0, 100, -100))) & 0xFFFFFFFF for _ in range(2 * chance.randrange(1, 4))
            ]
            options = (
                b"\1\1" + bytes((5, 2 + 4 * len(edges))) + b"".join(struct.pack("!I", edge) for edge in edges)
            )
        elif chance.random() < 0.2:
            options = b"\1\1\x08\x0a" + chance.randbytes(8)
        return options

    def _send(self, side: int, sequence: int, acknowledgement: int, flags: int, **changes: object) -> None:
        packet = segment(self.version, side, self.ports, sequence, acknowledgement, flags, **changes)
        self.sent.append((side, packet))


def datagrams(chance: random.Random, version: int, ports: tuple[int, int]) -> list[tuple[int, bytes]]:
    """UDP and UDP-Lite, with wrong lengths and checksums, and with none."""
    sent = []
    for _ in range(chance.randrange(1, 8)):
        side, protocol = chance.randrange(2), chance.choice((17, 17, 17, 136))
        payload = chance.randbytes(chance.choice((0, 1, 9, 40)))
        length = 8 + len(payload)
        length = chance.choice((length, length, length, 0, 7, 8, length + 1, length - 1))
        body = struct.pack("!HHHH", *ports[:: -1 if side else 1], length & 0xFFFF, 0) + payload
        match chance.randrange(4):
            case 0:
                pass
            case 1:
                body = body[:6] + b"\x12\x34" + body[8:]
            case _:
                body = with_checksum(version, side, 17, body, 6)
        sent.append((side, ip_packet(version, side, protocol, body)))
    return sent


def questions(chance: random.Random, version: int, known: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """ICMP: questions and answers, neighbour discovery, errors about packets sent before."""
    number = 58 if version == 6 else 1
    sent = []
    types = (128, 129, 128, 129, 139, 140, 133, 135, 143, 137, 1, 2, 3, 4, 100, 127, 200) if version == 6 else (
        8, 0, 8, 0, 13, 14, 15, 16, 17, 18, 3, 4, 5, 11, 12, 3, 11, 9, 19, 40)  # fmt: skip
    for _ in range(chance.randrange(1, 8)):
        side = chance.randrange(2)
        kind = chance.choice(types)
        head = struct.pack("!BBHHH", kind, chance.choice((0, 0, 0, 1)), 0, chance.choice((1, 1, 2)), 1)
        body = chance.randbytes(chance.choice((0, 8, 40)))
        if known and chance.random() < 0.8:
            about_side, about = chance.choice(known)
            if chance.random() < 0.8:
                side = 1 - about_side
            body = about[: chance.choice((len(about), 28, 48, 24, 44, 20, 40))]
            if kind == 137:
                body = (
                    chance.randbytes(32)
                    + bytes((chance.choice((4, 4, 1)), chance.choice((0, 1, 5))))
                    + bytes(6)
                    + body
                )
        message = head + body
        if chance.random() < 0.05:
            message = message[: chance.randrange(1, 8)]
        elif chance.random() < 0.9:
            message = with_checksum(version, side, number, message, 2)
        packet = ip_packet(version, side, number, message)
        if kind == 137:
            packet = packet[:7] + bytes((chance.choice((255, 64)),)) + b"\xfe\x80" + packet[10:]
        sent.append((side, packet))
    return sent


def others(chance: random.Random, version: int) -> list[tuple[int, bytes]]:
    """Protocols without a tracker of their own, GRE, and those of the other version."""
    sent = []
    for _ in range(chance.randrange(1, 6)):
        side = chance.randrange(2)
        protocol = chance.choice((47, 47, 50, 4, 253, 1, 58, 6, 17))
        body = chance.randbytes(chance.choice((0, 3, 4, 8, 20)))
        if protocol == 47:
            body = chance.choice(
                (b"\0\0\x08\0", b"\x30\x01\x88\x0b\0\4\0\7", b"\x30\1\x08\0\0\0\0\1", b"\0", b"\0\1\x88\x0b")
            )
        sent.append((side, ip_packet(version, side, protocol, body)))
    return sent


def wrapped(chance: random.Random, known: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Packets sent before, behind IPv4 options or IPv6 extension headers, whole and damaged."""
    sent = []
    for side, packet in chance.sample(known, min(4, len(known))):
        if packet[0] >> 4 == 4:
            options = chance.choice((b"\1\1\1\0", bytes(40), b"\x94\4\0\0"))
            head = bytearray(packet[:20]) + options
            head[0] = 0x40 | len(head) // 4
            head[2:4] = struct.pack("!H", len(packet) + len(options))
            head[10:12] = b"\0\0"
            head[10:12] = struct.pack("!H", checksum(bytes(head)))
            sent.append((side, bytes(head) + packet[20:]))
            continue
        chain = chance.choices((60, 43, 51, 44, 59), k=chance.choice((1, 1, 2, 3)))
        if chance.random() < 0.3:
            chain.insert(0, 0)
        body, following = packet[40:], packet[6]
        for number in reversed(chain):
            rest = bytes((0, 1, 4, 0, 0, 0, 0))
            if number == 51:
                rest = bytes((1, 0, 0)) + bytes(8)
            elif number == 44:
                rest = bytes((0, 0, 0)) + chance.randbytes(4)
            elif number == 60 and chance.random() < 0.1:
                rest = b"\xff" + rest[1:]  # it ends behind the packet
            body, following = bytes((following,)) + rest + body, number
        sent.append((side, packet[:4] + struct.pack("!HB", len(body), following) + packet[7:40] + body))
    return sent
