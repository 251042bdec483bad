"""Write TCP packets over IPv4 and IPv6, with the options and headers that evade careless rules.

In:  addresses, ports, payload.
Out: IP packets as bytes, checksums right.
Source: RFC 791, RFC 8200, RFC 9293; RFC 1071 for the checksum.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))

TCP: Final = 6
IPV6_FRAGMENT: Final = 44
_DF: Final = 0x4000
_MORE: Final = 0x2000
_FRAGMENTED: Final = 0x3FFF
"""IPv4: more fragments, or an offset."""
_FRAGMENTED_6: Final = 0xFFF9
_AUTHENTICATION: Final = 51
_CHAINED: Final = (0, 43, IPV6_FRAGMENT, 60)
"""IPv6 headers in front of which, and among which, the fragment header stands, RFC 8200 4.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A TCP segment and what carries it."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    payload: bytes = b""
    sequence: int = 1
    acknowledgement: int = 1
    flags: int = PSH | ACK
    tcp_options: bytes = b""
    """A multiple of 4 bytes, 40 at most."""
    ip_options: bytes = b""
    """IPv4 only; a multiple of 4 bytes, 40 at most."""
    extensions: tuple[tuple[int, bytes], ...] = ()
    """IPv6 only: (protocol number, header without its first byte), in order."""

    def packet(self) -> bytes:
        """As it is on the wire."""
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        tcp = self._tcp(source.packed, destination.packed)
        if source.version == 4:
            return ipv4(source.packed, destination.packed, tcp, options=self.ip_options)
        headers, following = b"", TCP
        for number, rest in reversed(self.extensions):
            headers = bytes((following,)) + rest + headers
            following = number
        return ipv6(source.packed, destination.packed, following, headers + tcp)

    def _tcp(self, source: bytes, destination: bytes) -> bytes:
        words = 5 + len(self.tcp_options) // 4
        head = struct.pack(
            "!HHIIBBHHH",
            self.source_port,
            self.destination_port,
            self.sequence & 0xFFFFFFFF,
            self.acknowledgement & 0xFFFFFFFF,
            words << 4,
            self.flags,
            0xFFFF,
            0,
            0,
        )
        whole = head + self.tcp_options + self.payload
        pseudo = source + destination + struct.pack("!IHBB", len(whole), 0, 0, TCP)
        return whole[:16] + struct.pack("!H", checksum(pseudo + whole)) + whole[18:]


def ipv4(
    source: bytes, destination: bytes, body: bytes, *, options: bytes = b"", fragment: int = _DF
) -> bytes:
    """An IPv4 packet that carries (a part of) a TCP segment."""
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 4 * words + len(body), 1, fragment, 64, TCP, 0)
    head += source + destination + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(source: bytes, destination: bytes, following: int, body: bytes) -> bytes:
    """An IPv6 packet."""
    return struct.pack("!IHBB", 0x60000000, len(body), following, 64) + source + destination + body


def fragments(packet: bytes, size: int) -> list[bytes]:
    """Cut an IP packet without options or extensions into fragments of `size` bytes, a multiple of 8."""
    version = packet[0] >> 4
    head = 20 if version == 4 else 40
    body = packet[head:]
    pieces = []
    for start in range(0, len(body), size):
        more = start + size < len(body)
        piece = body[start : start + size]
        if version == 4:
            flags = start // 8 | (_MORE if more else 0)
            pieces.append(ipv4(packet[12:16], packet[16:20], piece, fragment=flags))
        else:
            header = struct.pack("!BBHI", packet[6], 0, start | int(more), 1)
            pieces.append(ipv6(packet[8:24], packet[24:40], IPV6_FRAGMENT, header + piece))
    return pieces


def is_fragment(packet: bytes) -> bool:
    """Whether an IP packet is a part of a datagram."""
    if packet[0] >> 4 == 4:
        return int.from_bytes(packet[6:8], "big") & _FRAGMENTED != 0
    following, at = packet[6], 40
    while following in _CHAINED and at + 8 <= len(packet):
        if following == IPV6_FRAGMENT:
            return int.from_bytes(packet[at + 2 : at + 4], "big") & _FRAGMENTED_6 != 0
        following, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return False


def ends_in_headers(packet: bytes) -> bool:
    """Whether IPv6 extension headers say that the transport header is behind the packet's end.

    Source: Linux net/ipv6/exthdrs_core.c ipv6_find_hdr, which believes them.
    """
    if packet[0] >> 4 != 6:
        return False
    following, at = packet[6], 40
    while following in (*_CHAINED, _AUTHENTICATION) and at + 2 <= len(packet):
        size = 8 * (packet[at + 1] + 1)
        if following == IPV6_FRAGMENT:
            size = 8
            if int.from_bytes(packet[at + 2 : at + 4], "big") & ~7 & 0xFFFF:
                return False
        elif following == _AUTHENTICATION:
            size = 4 * (packet[at + 1] + 2)
        following, at = packet[at], at + size
    return at > len(packet)


def repaired(packet: bytes) -> bytes:
    """The packet with the IPv4 header checksum of the wire, which a capture on its sender lacks."""
    if packet[0] >> 4 != 4:
        return packet
    size = 4 * (packet[0] & 15)
    # Whole numbers modulo 2^16 - 1 are the Internet checksum's arithmetic (RFC 1071 2), and fast.
    if int.from_bytes(packet[:size], "big") % 0xFFFF == 0:
        return packet
    head = packet[:10] + b"\0\0" + packet[12:size]
    return packet[:10] + struct.pack("!H", checksum(head)) + packet[12:]


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
