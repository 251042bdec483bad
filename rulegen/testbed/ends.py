"""Frames at the two ends of the lab: how a packet is put on the wire, and what has arrived behind it.

In:  the AF_PACKET sockets of a Lab; IP packets.
Out: frames.
Source: packet(7); IEEE 802.3 3.2 for the frame, IEEE 802 9.2.4 for the local experimental EtherType.

Behind each packet goes a sentinel frame that no rule sees and that overtakes nothing. When it arrives, the
packet has either arrived before it or never will.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterable
from typing import Final

from rulegen.testbed.netns import LabError

_ETHERTYPE_LOCAL: Final = b"\x88\xb5"
"""IEEE 802 local experimental EtherType 1: unknown to the inet hooks."""

HEADER_BYTES: Final = 14

_ADDRESSES: Final = {
    # of whom a side sends to, and its own but for the number; locally administered
    0: (bytes.fromhex("020000000002"), bytes.fromhex("0201")),
    1: (bytes.fromhex("020000000001"), bytes.fromhex("0202")),
}
_IP_HEADER_MIN: Final = 20
_PLACES: Final = {False: (slice(12, 16), slice(16, 20)), True: (slice(8, 24), slice(24, 40))}
"""Source and destination in the headers of IPv4 and IPv6."""
_FRAME_MAX: Final = 1 << 17
_PATIENCE_S: Final = 10.0
"""A sentinel arrives within microseconds; after this long the machine or the lab is broken."""


def frame_of(addresses: bytes, packet: bytes) -> bytes:
    """A frame with an IP packet, and with `link_addresses`.

    Raises:
        ValueError: It is no IP packet.
    """
    if len(packet) < _IP_HEADER_MIN:
        raise ValueError(f"a packet of {len(packet)} bytes is shorter than an IP header")
    network_type = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    return addresses + network_type + packet


def sentinel_of(addresses: bytes) -> bytes:
    """The frame that goes behind it."""
    return addresses + _ETHERTYPE_LOCAL


def link_addresses(side: int, number: int) -> bytes:
    """Destination and source of a side's frame; the number is in the source, so that no two are alike."""
    there, here = _ADDRESSES[side]
    return there + here + struct.pack("!I", number & 0xFFFFFFFF)


def answers_to(packet: bytes, arrived: Iterable[bytes]) -> list[bytes]:
    """The IP packets among frames that go to whom this one came from.

    The firewall also sends what nobody asked for, multicast listener reports for instance.
    """
    source, destination = _PLACES[packet[0] >> 4 == 6]
    return [
        frame[HEADER_BYTES:]
        for frame in arrived
        if len(frame) > HEADER_BYTES
        and frame[HEADER_BYTES] >> 4 == packet[0] >> 4
        and frame[HEADER_BYTES:][destination] == packet[source]
    ]


def until(end: socket.socket, sentinel: bytes) -> list[bytes]:
    """What arrives before the sentinel."""
    arrived: list[bytes] = []
    while True:
        try:
            frame = end.recv(_FRAME_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            readable, _, _ = select.select([end], [], [], _PATIENCE_S)
            if not readable:
                raise LabError("the lab lost a sentinel frame") from None
            continue
        if frame == sentinel:
            return arrived
        arrived.append(frame)


def waiting(end: socket.socket) -> list[bytes]:
    """What has arrived already."""
    arrived: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            arrived.append(end.recv(_FRAME_MAX, socket.MSG_DONTWAIT))
    return arrived
