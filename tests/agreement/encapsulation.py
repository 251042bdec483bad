"""The same packets in other link layers, tunnels and IP headers, made from nothing but struct."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.agreement.frames import (
    IPV4,
    IPV6,
    UDP,
    Frame,
    checksum,
    ethernet,
    ipv6_header,
    network,
    outer4,
    outer6,
    packet,
    rebuilt,
    segment,
    with_data,
)

Frames = Sequence[Frame]

# --- other link layers ------------------------------------------------------------------------------------


def link(head: Callable[[int], bytes]) -> Callable[[Frames], Iterator[Frame]]:
    """Another header in front of IP, made from the Ethertype; what is not IP is left out."""

    def change(frames: Frames) -> Iterator[Frame]:
        for frame in frames:
            found = network(frame)
            if found is not None:
                yield with_data(frame, head(found[0]) + found[1])

    return change


MACS: Final = bytes.fromhex("000c29000002 001b21000001")


def ether(kind: int) -> bytes:
    return MACS + struct.pack("!H", kind)


def tagged(*tags: tuple[int, int]) -> Callable[[int], bytes]:
    return lambda kind: MACS + b"".join(struct.pack("!HH", *tag) for tag in tags) + struct.pack("!H", kind)


def sll(kind: int) -> bytes:
    return struct.pack("!HHH8sH", 0, 1, 6, MACS[6:] + bytes(2), kind)


def sll2(kind: int) -> bytes:
    return struct.pack("!HHIHBB8s", kind, 0, 3, 1, 0, 6, MACS[6:] + bytes(2))


def ppp(kind: int) -> bytes:
    return b"\xff\x03" + struct.pack("!H", 0x0021 if kind == IPV4 else 0x0057)


def null(order: str) -> Callable[[int], bytes]:
    return lambda kind: struct.pack(f"{order}I", 2 if kind == IPV4 else 30)


def pppoe(frames: Frames) -> Iterator[Frame]:
    for frame in frames:
        found = network(frame)
        if found is not None:
            body = ppp(found[0])[2:] + found[1]
            yield with_data(frame, ether(0x8864) + struct.pack("!BBHH", 0x11, 0, 7, len(body)) + body)


# --- tunnels ------------------------------------------------------------------------------------------------


def tunnel(
    protocol: int | None, head: Callable[[int], bytes], inner_size: int = 0
) -> Callable[[Frames], Iterator[Frame]]:
    """IPv4 around the packet; protocol None is IP in IP."""

    def change(frames: Frames) -> Iterator[Frame]:
        for number, frame in enumerate(frames):
            found = network(frame)
            if found is not None:
                number_of = (4 if found[0] == IPV4 else 41) if protocol is None else protocol
                body = head(found[0]) + found[1]
                if number_of == UDP:
                    body = struct.pack("!HHHH", 40_000, inner_size, 8 + len(body), 0) + body
                yield ethernet(frame, IPV4, outer4(number_of, len(body), number) + body)

    return change


def gre(kind: int) -> bytes:
    return struct.pack("!HH", 0, kind)


def vxlan(kind: int) -> bytes:
    return bytes.fromhex("0800000000000700") + ether(kind)


def geneve(kind: int) -> bytes:
    return struct.pack("!BBHI", 2, 0, 0x6558, 7 << 8) + bytes.fromhex("0102030101020304") + ether(kind)


def in_ipv6(frames: Frames) -> Iterator[Frame]:
    for frame in frames:
        found = network(frame)
        if found is not None:
            protocol = 4 if found[0] == IPV4 else 41
            yield ethernet(frame, IPV6, outer6(protocol, len(found[1])) + found[1])


def six_in_four(frames: Frames) -> Iterator[Frame]:
    return tunnel(None, lambda kind: b"")(list(rewritten()(frames)))


# --- IP -----------------------------------------------------------------------------------------------------

HOP_BY_HOP: Final = (0, b"\0\x05\x02\0\0\1\0")
ROUTING: Final = (43, b"\x02\x00\x00\0\0\0\0" + bytes.fromhex("20010db8000000000000000000000077"))
DESTINATION: Final = (60, b"\x00\1\4\0\0\0\0")
ATOMIC_FRAGMENT: Final = (44, b"\0\0\0\0\0\0\7")
EXTENSIONS: Final = (HOP_BY_HOP, DESTINATION, ROUTING, ATOMIC_FRAGMENT)
"""Next header of the header before, and the header behind its own next header."""


def rewritten(*extensions: tuple[int, bytes]) -> Callable[[Frames], Iterator[Frame]]:
    """TCP over IPv6, with extension headers."""

    def change(frames: Frames) -> Iterator[Frame]:
        for frame in frames:
            part = segment(frame)
            if part is None:
                yield frame
            else:
                head = ipv6_header(part, extensions)
                yield ethernet(frame, IPV6, packet(IPV6, head, part.tcp, part.payload))

    return change


def options(frames: Frames) -> Iterator[Frame]:
    """IPv4 with 8 bytes of options: record route, no operation."""
    for frame in frames:
        part = segment(frame)
        if part is None or part.kind != IPV4:
            yield frame
        else:
            head = bytes([part.ip[0] + 2]) + part.ip[1:] + bytes.fromhex("0707040000000001")
            yield rebuilt(frame, part, ip=head)


PIECE: Final = 280
"""Bytes of payload in a fragment; IP packets over 300 bytes are split."""


def pieces(frame: Frame, number: int) -> list[Frame]:
    """The fragments of an IP packet."""
    part = segment(frame)
    if part is None or len(part.ip + part.tcp + part.payload) <= 300:
        return [frame]
    body = part.tcp + part.payload
    fragments = []
    for at in range(0, len(body), PIECE):
        data, more = body[at : at + PIECE], at + PIECE < len(body)
        if part.kind == IPV4:
            head = part.ip[:2] + struct.pack(
                "!HHH", len(part.ip) + len(data), number & 0xFFFF, more << 13 | at >> 3
            )
            head += part.ip[8:10] + b"\0\0" + part.ip[12:]
            head = head[:10] + checksum(head) + head[12:]
        else:
            fragment = (44, struct.pack("!BHI", 0, at | more, number))
            head = ipv6_header(part, [fragment])
            head = head[:4] + struct.pack("!H", len(head) - 40 + len(data)) + head[6:]
        fragments.append(ethernet(frame, part.kind, head + data))
    return fragments


def fragments(frames: Frames) -> Iterator[Frame]:
    for number, frame in enumerate(frames):
        yield from pieces(frame, number)


def fragments_backwards(frames: Frames) -> Iterator[Frame]:
    for number, frame in enumerate(frames):
        yield from reversed(pieces(frame, number))


def fragments_ipv6(frames: Frames) -> Iterator[Frame]:
    yield from fragments(list(rewritten()(frames)))


def fragments_interleaved(frames: Frames) -> Iterator[Frame]:
    """The last fragment of a packet comes behind the first fragments of the next one."""
    held: list[Frame] = []
    for number, frame in enumerate(frames):
        first, *rest = pieces(frame, number)
        yield first
        yield from held
        held = rest
    yield from held
