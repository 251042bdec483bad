"""The shipped captures as lists of packets, and IP packets taken apart and built without the engine's help."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "samples"
CAPTURES = sorted((SAMPLES / "captures").glob("*.pcap"))
NAMES = [path.name for path in CAPTURES]
CRAFTED = sorted((SAMPLES / "crafted").glob("*.pcap"))
_PATHS = {path.name: path for path in (*CAPTURES, *CRAFTED)}

IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A packet, with the place that it came from."""

    capture: str
    origin: int
    """Its number in that capture."""
    time_ns: int
    data: bytes
    wire: int


@cache
def frames(name: str) -> tuple[Frame, ...]:
    """The packets of a sample, all of which are little-endian pcap with microseconds and Ethernet."""
    data = _PATHS[name].read_bytes()
    magic, *_, linktype = struct.unpack_from("<IHHiIII", data)
    assert (magic, linktype) == (0xA1B2C3D4, 1)
    at, found = 24, []
    while at < len(data):
        seconds, micros, captured, wire = struct.unpack_from("<IIII", data, at)
        at += 16
        found.append(
            Frame(
                capture=name,
                origin=len(found) + 1,
                time_ns=(seconds * 1_000_000 + micros) * 1000,
                data=data[at : at + captured],
                wire=wire,
            )
        )
        at += captured
    return tuple(found)


@cache
def all_frames() -> tuple[Frame, ...]:
    """All captures one after the other, the oldest first: their connections have nothing in common."""
    order = sorted(NAMES, key=lambda name: frames(name)[0].time_ns)
    return tuple(frame for name in order for frame in frames(name))


def with_data(frame: Frame, data: bytes) -> Frame:
    return replace(frame, data=data, wire=len(data))


def network(frame: Frame) -> tuple[int, bytes] | None:
    """Ethertype and IP packet of an Ethernet frame, without padding; None for anything but IP."""
    (kind,) = struct.unpack_from("!H", frame.data, 12)
    packet = frame.data[14:]
    if kind == IPV4:
        return kind, packet[: struct.unpack_from("!H", packet, 2)[0]]
    if kind == IPV6:
        return kind, packet[: 40 + struct.unpack_from("!H", packet, 4)[0]]
    return None


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment in its IP header."""

    kind: int
    ip: bytes
    tcp: bytes
    payload: bytes

    @property
    def seq(self) -> int:
        return struct.unpack_from("!I", self.tcp, 4)[0]

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack_from("!HH", self.tcp)

    @property
    def ttl(self) -> int:
        return self.ip[8 if self.kind == IPV4 else 7]

    @property
    def syn(self) -> bool:
        return bool(self.tcp[13] & 2)

    @property
    def addresses(self) -> tuple[bytes, bytes]:
        at, size = (12, 4) if self.kind == IPV4 else (8, 16)
        return self.ip[at : at + size], self.ip[at + size : at + 2 * size]


def segment(frame: Frame) -> Segment | None:
    """The TCP segment in a frame, None without."""
    found = network(frame)
    if found is None:
        return None
    kind, packet = found
    head = (packet[0] & 15) * 4 if kind == IPV4 else 40
    if packet[9 if kind == IPV4 else 6] != TCP:
        return None
    size = head + (packet[head + 12] >> 4) * 4
    return Segment(kind, packet[:head], packet[head:size], packet[size:])


def packet(kind: int, ip: bytes, tcp: bytes, payload: bytes) -> bytes:
    """An IP packet of these parts, its lengths and checksums made anew."""
    body = tcp + payload
    if kind == IPV4:
        ip = ip[:2] + struct.pack("!H", len(ip) + len(body)) + ip[4:10] + b"\0\0" + ip[12:]
        ip = ip[:10] + checksum(ip) + ip[12:]
    else:
        ip = ip[:4] + struct.pack("!H", len(ip) - 40 + len(body)) + ip[6:]
    body = body[:16] + b"\0\0" + body[18:]
    addresses = b"".join(Segment(kind, ip, tcp, payload).addresses)
    return ip + body[:16] + checksum(addresses + struct.pack("!II", len(body), TCP) + body) + body[18:]


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", total ^ 0xFFFF)


def ethernet(frame: Frame, kind: int, ip: bytes) -> Frame:
    """The frame with another packet in it."""
    return with_data(frame, frame.data[:12] + struct.pack("!H", kind) + ip)


def rebuilt(frame: Frame, part: Segment, **changes: bytes) -> Frame:
    """The frame with parts of its segment replaced."""
    new = replace(part, **changes)
    return ethernet(frame, new.kind, packet(new.kind, new.ip, new.tcp, new.payload))


def outer4(protocol: int, size: int, number: int) -> bytes:
    """The IPv4 header of a tunnel."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, number & 0xFFFF, 0, 64, protocol, 0)
    head += IPv4Address("203.0.113.1").packed + IPv4Address("203.0.113.2").packed
    return head[:10] + checksum(head) + head[12:]


def outer6(next_header: int, size: int) -> bytes:
    """The IPv6 header of a tunnel."""
    head = struct.pack("!IHBB", 6 << 28, size, next_header, 64)
    return head + IPv6Address("2001:db8:1::1").packed + IPv6Address("2001:db8:2::2").packed


def ipv6_address(address: bytes) -> bytes:
    """What an IPv4 address becomes where packets are rewritten to IPv6."""
    return IPv6Address("2001:db8:64::").packed[:12] + address


def ipv6_header(part: Segment, extensions: Iterable[tuple[int, bytes]] = (), protocol: int = TCP) -> bytes:
    """The IPv6 header for a segment, with extension headers (type, what follows their next-header byte)."""
    chain: Sequence[tuple[int, bytes]] = [*extensions]
    kinds = [*(kind for kind, _ in chain), protocol]
    if part.kind == IPV4:
        source, destination = map(ipv6_address, part.addresses)
    else:
        source, destination = part.addresses
    head = struct.pack("!IHBB", 6 << 28, 0, kinds[0], part.ttl) + source + destination
    return head + b"".join(bytes([after]) + rest for (_, rest), after in zip(chain, kinds[1:], strict=True))
