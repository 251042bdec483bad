"""TCP conversations as packets of a capture, with hooks for everything that goes wrong on a wire.

In:  who sends which bytes, in order.
Out: packets, written as a classic pcap file (little-endian, microseconds).
Source: RFC 9293 for the sequence numbers.

    capture = Capture()
    talk = capture.connect()                 # SYN, SYN/ACK, ACK
    hello, = talk.send(CLIENT, b"...")       # the packet that carries the first byte of each argument
    talk.close()
    capture.write(path)
    hello.number                             # as in Wireshark, known once the capture is written or numbered

A packet acknowledges what its sender has received so far: that is what causal order is read from. Loss,
reordering and duplication are done afterwards, on the capture: the endpoints have seen everything.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

CLIENT: Final = 0
"""Who opens the TCP connection. In all but the role-reversed scenarios also the TLS client."""
SERVER: Final = 1

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

START_US: Final = 1_736_942_400_000_000
"""2025-01-15 12:00:00 UTC, within the validity of the certificates beside this file."""

STEP_US: Final = 1_000
"""Time between two packets, unless `pause` adds to it."""

MSS: Final = 1460
ETHERNET: Final = 1


@dataclass(eq=False, slots=True)
class Packet:
    """A TCP segment on its way into the capture."""

    time_us: int
    source: str
    target: str
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    payload: bytes = b""
    ttl: int = 64
    ip_id: int = 0
    window: int = 65_535
    mss: int | None = None
    number: int = 0
    """1-based place in the capture, 0 before numbering and for a packet that the capture lost."""

    def frame(self) -> bytes:
        from scapy.layers.inet import IP, TCP
        from scapy.layers.inet6 import IPv6
        from scapy.layers.l2 import Ether

        link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        network = (
            IPv6(src=self.source, dst=self.target, hlim=self.ttl)
            if ":" in self.source
            else IP(src=self.source, dst=self.target, ttl=self.ttl, id=self.ip_id, flags="DF")
        )
        transport = TCP(
            sport=self.sport,
            dport=self.dport,
            seq=self.seq & 0xFFFFFFFF,
            ack=self.ack & 0xFFFFFFFF,
            flags=self.flags,
            window=self.window,
            options=[("MSS", self.mss)] if self.mss else [],
        )
        return bytes(link / network / transport / self.payload)


@dataclass(eq=False, slots=True)
class Capture:
    """Packets in capture order, and the clock that stamps them."""

    packets: list[Packet] = field(default_factory=list)
    now_us: int = START_US
    snaplen: int = 262_144
    shortest_frame: int = 0
    """Ethernet pads frames to 60 bytes; a capture at the receiver shows the padding."""
    _ip_ids: dict[str, int] = field(default_factory=dict)
    _ports: int = 50_000

    def connect(
        self,
        client: str = "192.0.2.10",
        server: str = "198.51.100.10",
        *,
        client_port: int | None = None,
        server_port: int = 443,
        client_isn: int | None = None,
        server_isn: int | None = None,
        mss: int = MSS,
        established: bool = True,
    ) -> Conversation:
        """Open a TCP connection; every one without a given client port gets the next free one."""
        if client_port is None:
            self._ports += 1
            client_port = self._ports
        talk = Conversation(
            capture=self,
            addresses=(client, server),
            ports=(client_port, server_port),
            next_seq=[
                client_port * 65_537 if client_isn is None else client_isn,
                client_port * 40_009 + 77 if server_isn is None else server_isn,
            ],
            mss=mss,
        )
        if established:
            talk.open()
        return talk

    def pause(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)

    def add(self, packet: Packet) -> Packet:
        """Stamp the packet with the time and its sender's next IPv4 identification."""
        self.now_us += STEP_US
        packet.time_us = self.now_us
        if not packet.ip_id:
            packet.ip_id = self._ip_ids.get(packet.source, 0x1000) + 1 & 0xFFFF
            self._ip_ids[packet.source] = packet.ip_id
        self.packets.append(packet)
        return packet

    # what a network or a tap does to a capture

    def lose(self, *packets: Packet) -> None:
        """The capture misses them; the endpoints did not."""
        for packet in packets:
            self.packets.remove(packet)

    def keep(self, wanted: Callable[[Packet], bool]) -> None:
        self.packets = [packet for packet in self.packets if wanted(packet)]

    def swap(self, one: Packet, other: Packet) -> None:
        """They arrive at the tap in the other order."""
        i, j = self.packets.index(one), self.packets.index(other)
        self.packets[i], self.packets[j] = other, one
        one.time_us, other.time_us = other.time_us, one.time_us

    def again(self, packet: Packet, *, after: float = 0.2) -> Packet:
        """TCP retransmits the segment: same bytes, a new IPv4 identification."""
        self.pause(after)
        return self.add(replace(packet, ip_id=0, number=0))

    def mirror_twice(self) -> None:
        """Every packet comes twice, as from a SPAN port that copies both ingress and egress."""
        twice: list[Packet] = []
        for packet in self.packets:
            twice += [packet, replace(packet, time_us=packet.time_us + 2)]
        self.packets = twice

    def number(self) -> None:
        for place, packet in enumerate(self.packets, 1):
            packet.number = place

    def write(self, path: Path) -> None:
        """Write the file and number the packets."""
        self.number()
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, self.snaplen, ETHERNET))
            for packet in self.packets:
                frame = packet.frame().ljust(self.shortest_frame, b"\0")
                kept = frame[: self.snaplen]
                file.write(struct.pack("<IIII", *divmod(packet.time_us, 1_000_000), len(kept), len(frame)))
                file.write(kept)


@dataclass(eq=False, slots=True)
class Conversation:
    """One TCP connection. `side` is CLIENT or SERVER: who opened it, who accepted it."""

    capture: Capture
    addresses: tuple[str, str]
    ports: tuple[int, int]
    next_seq: list[int]
    """What each side sends next."""
    mss: int = MSS
    ttl: tuple[int, int] = (64, 57)
    received: list[int] = field(default_factory=lambda: [0, 0])
    """What each side acknowledges: everything of the peer's up to here."""
    sent: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    first_seq: list[int] = field(default_factory=lambda: [0, 0])

    def open(self) -> None:
        """SYN, SYN/ACK, ACK."""
        for side in (CLIENT, SERVER):
            self.packet(side, flags=SYN | (ACK if side == SERVER else 0), mss=self.mss)
            self.next_seq[side] += 1
            self.first_seq[side] = self.next_seq[side]
            self.received[1 - side] = self.next_seq[side]
        self.packet(CLIENT)

    def packet(
        self,
        side: int,
        payload: bytes = b"",
        *,
        flags: int = ACK,
        seq: int | None = None,
        ack: int | None = None,
        ttl: int | None = None,
        ip_id: int = 0,
        mss: int | None = None,
    ) -> Packet:
        """Put one segment into the capture as it is; moves no sequence number."""
        return self.capture.add(
            Packet(
                time_us=0,
                source=self.addresses[side],
                target=self.addresses[1 - side],
                sport=self.ports[side],
                dport=self.ports[1 - side],
                seq=self.next_seq[side] if seq is None else seq,
                ack=(self.received[side] if ack is None else ack) if flags & ACK else 0,
                flags=flags,
                payload=payload,
                ttl=self.ttl[side] if ttl is None else ttl,
                ip_id=ip_id,
                mss=mss,
            )
        )

    def send(
        self,
        side: int,
        *parts: bytes,
        cut: Iterable[int] = (),
        ack: bool = True,
        unseen: int | None = None,
    ) -> list[Packet]:
        """Send the parts one after the other in as few segments as the MSS allows.

        Returns, for each part, the packet with its first byte.

        Args:
            side: who sends.
            parts: usually a record each.
            cut: more segment borders, as offsets in the joined parts.
            ack: the peer acknowledges with a packet of its own.
            unseen: an earlier value of `received[side]`: the bytes leave before the peer's later ones arrive.
        """
        data = b"".join(parts)
        borders = sorted({0, len(data), *cut} | set(range(0, len(data), self.mss)))
        starts: list[tuple[int, Packet]] = []
        for start, end in itertools.pairwise(borders):
            flags = ACK | (PSH if end == len(data) else 0)
            starts.append((start, self.packet(side, data[start:end], flags=flags, ack=unseen)))
            self.next_seq[side] += end - start
            self.received[1 - side] = self.next_seq[side]
        self.sent[side].extend(data)
        if ack:
            self.packet(1 - side)
        at, first = 0, []
        for part in parts:
            first.append(next(packet for start, packet in reversed(starts) if start <= at))
            at += len(part)
        return first

    def resend(self, side: int, start: int, end: int) -> Packet:
        """Retransmit bytes [start, end) of the side's stream, whatever segments they were in."""
        self.capture.pause(0.2)
        return self.packet(
            side, bytes(self.sent[side][start:end]), seq=self.first_seq[side] + start, flags=ACK | PSH
        )

    def close(self, side: int = CLIENT) -> None:
        """FIN from `side`, FIN from the peer, ACK."""
        for who in (side, 1 - side):
            self.packet(who, flags=FIN | ACK)
            self.next_seq[who] += 1
            self.received[1 - who] = self.next_seq[who]
        self.packet(side)

    def reset(self, side: int, *, ttl: int | None = None, ip_id: int = 0) -> Packet:
        return self.packet(side, flags=RST | ACK, ttl=ttl, ip_id=ip_id)
