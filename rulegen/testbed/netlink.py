"""Messages of netlink, as nf_tables and nfnetlink_log use them.

In:  numbers and bytes.
Out: messages and their attributes.
Source: Linux include/uapi/linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from rulegen.testbed.netns import NETLINK_NETFILTER, LabError

BODY_AT: Final = 20
"""struct nlmsghdr and struct nfgenmsg come before the attributes."""
FAMILY_AT: Final = 16
"""The address family of nfgenmsg."""

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_TYPE_MASK: Final = 0x3FFF
"""NLA_TYPE_MASK: without the flags for nested and big-endian."""

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BYTES: Final = 64 << 20
MESSAGE_MAX: Final = 1 << 17

FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""NFPROTO_, linux/netfilter.h, by nft's names."""


def opened(group: int | None = None) -> socket.socket:
    """A socket to netfilter in the current network namespace, and in a multicast group of it."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    # Only root may have more than net.core.rmem_max; what is lost for lack of room is an error, never silent.
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    with contextlib.suppress(PermissionError):
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
    netlink.bind((0, 0))
    if group is not None:
        netlink.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    return netlink


def message(kind: int, flags: int, body: bytes = b"", *, family: int = 0, resource: int = 0) -> bytes:
    """A request; `kind` is the subsystem's number and the message's."""
    size = BODY_AT + len(body)
    return struct.pack("=IHHIIBBH", size, kind, flags, 1, 0, family, 0, socket.htons(resource)) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to whole words."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute from `at` on."""
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        yield kind & _TYPE_MASK, data[at + 4 : at + size]
        at += max(4, size + 3 & ~3)


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and whole message of each in a datagram."""
    at = 0
    while at + 16 <= len(datagram):
        size, kind = struct.unpack_from("=IH", datagram, at)
        yield kind, datagram[at : at + size]
        at += max(16, size + 3 & ~3)


def command(netlink: socket.socket, request: bytes) -> None:
    """Send a request and wait until it is acknowledged; LabError if the kernel refuses it."""
    netlink.send(request)
    for kind, answer in messages(netlink.recv(MESSAGE_MAX)):
        if kind == _NLMSG_ERROR:
            _refused(answer)


def dump(netlink: socket.socket, request: bytes) -> Iterator[bytes]:
    """The messages that answer a request for a list."""
    netlink.send(request)
    while True:
        for kind, answer in messages(netlink.recv(MESSAGE_MAX)):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                _refused(answer)
            else:
                yield answer


def _refused(answer: bytes) -> None:
    (error,) = struct.unpack_from("=i", answer, 16)
    if error:
        raise LabError(f"netfilter: {os.strerror(-error)}")
