"""Find the IP packets of a capture as the kernel of a firewall would meet them.

In:  a capture.
Out: Block: where the outermost IP header of each packet lies and how long the packet is; `packets` makes the
     values that evaluators take.
Source: Linux net/ipv4/ip_input.c ip_rcv_core, net/ipv6/ip6_input.c ip6_rcv_core for what never gets to a
    hook; LINKTYPE_ values at analyzer.wire.linktypes.

Links are stripped (Ethernet, VLAN tags, MPLS, PPP, PPPoE, cooked headers), tunnels are not: rules see the
packet that carries the tunnel. The analyser's own columns are of the innermost header, and serve here only
to find connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.analysis import Analysis
from analyzer.columns.packets import Columns
from analyzer.pipeline import Engine
from analyzer.wire.linktypes import LinkType
from rulegen.evaluate.base import Passing

Int64 = npt.NDArray[np.int64]

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLAN: Final = frozenset((0x8100, 0x88A8, 0x9100, 0x9200, 0x9300))
_MPLS: Final = frozenset((0x8847, 0x8848))
_PPPOE: Final = 0x8864
_PPP: Final = (0x0021, 0x0057)
"""IANA PPP numbers: IPv4 and IPv6."""
_TCP: Final = 6

_START: Final = {
    LinkType.LINUX_SLL: (14, 16),
    LinkType.LINUX_SLL2: (0, 20),
    LinkType.C_HDLC: (2, 4),
    LinkType.ETHERNET: (12, 14),
}
"""Where the Ethertype is, and what comes behind the link header."""
_RAW: Final = frozenset(
    (LinkType.RAW, LinkType.DLT_RAW, LinkType.DLT_RAW_OPENBSD, LinkType.IPV4, LinkType.IPV6)
)
_LAYERS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Block:
    """The packets of a block of the capture, a row for each.

    `length` is that of the IP header, 0 where there is no IP or no host takes it; `captured` is what the
    capture has of it.
    """

    buffer: npt.NDArray[np.uint8]
    columns: Columns
    start: Int64
    """Where the outermost IP header lies in the buffer; -1: there is none, no rule of IP sees the frame."""
    length: Int64
    captured: Int64

    def packets(self) -> Iterator[tuple[int, Passing]]:
        """The packets that a host takes, each with its row."""
        bytes_of = self.buffer.data
        rows = np.flatnonzero(self.length)
        lists = (self.start, self.captured, self.length, self.columns.packet, self.columns.time_ns)
        for row, start, captured, length, number, time_ns in zip(
            rows.tolist(), *(column[rows].tolist() for column in lists), strict=True
        ):
            data = bytes(bytes_of[start : start + captured])
            if captured < length:
                data += bytes(length - captured)
            yield row, Passing(number, time_ns, _with_length(data), captured)


def blocks(path: str, report: Callable[[int], None] = lambda position: None) -> Iterator[Block]:
    """Read a capture.

    Raises:
        CaptureError: Nothing of it is readable.
    """
    for raw, columns in Engine(Analysis(), 0).blocks(path, report):
        start = _starts(raw.buffer, raw.offset, raw.captured, raw.linktype)
        length, captured = _lengths(
            raw.buffer, start, raw.offset + raw.captured, raw.offset + np.maximum(raw.wire, raw.captured)
        )
        yield Block(raw.buffer, columns, start, length, captured)


def _starts(buffer: npt.NDArray[np.uint8], offset: Int64, captured: Int64, linktype: Int64) -> Int64:
    """Of each packet where its outermost IP header is, or -1."""
    start = np.full(len(offset), -1, np.int64)
    plain = (linktype == LinkType.ETHERNET) & (captured >= 15)
    at = np.where(plain, offset, 0)
    kind = buffer[at + 12].astype(np.int64) << 8 | buffer[at + 13] if len(at) else at
    version = buffer[at + 14] >> 4 if len(at) else at
    plain &= ((kind == _IPV4) & (version == 4)) | ((kind == _IPV6) & (version == 6))
    start[plain] = offset[plain] + 14
    for row in np.flatnonzero(~plain & (captured > 0)).tolist():
        first = int(offset[row])
        frame = buffer[first : first + int(captured[row])].tobytes()
        found = _ip_at(frame, int(linktype[row]))
        if found is not None:
            start[row] = first + found
    return start


def _ip_at(frame: bytes, linktype: int) -> int | None:
    """Where in a frame the outermost IP header is."""
    if linktype in _RAW:
        return _version(frame, 0)
    if linktype in (LinkType.NULL, LinkType.LOOP):
        return _version(frame, 4)
    if linktype in (LinkType.PPP, LinkType.PPP_HDLC):
        return _ppp(frame, 2 if frame[:2] == b"\xff\x03" else 0)
    if linktype == LinkType.PPP_ETHER:
        return _ppp(frame, 6)
    if linktype not in _START:
        return None
    named_at, at = _START[LinkType(linktype)]
    for _ in range(_LAYERS_MAX):
        kind = int.from_bytes(frame[named_at : named_at + 2])
        if kind in (_IPV4, _IPV6):
            return _version(frame, at)
        if kind in _MPLS:
            return _mpls(frame, at)
        if kind == _PPPOE:
            return _ppp(frame, at + 6)
        if kind not in _VLAN:
            return None
        named_at, at = at + 2, at + 4
    return None


def _ppp(frame: bytes, at: int) -> int | None:
    return _version(frame, at + 2) if int.from_bytes(frame[at : at + 2]) in _PPP else None


def _mpls(frame: bytes, at: int) -> int | None:
    """Behind the label with the bottom-of-stack bit, RFC 3032 2.1."""
    while at + 4 < len(frame):
        at += 4
        if frame[at - 2] & 1:
            return _version(frame, at)
    return None


def _version(frame: bytes, at: int) -> int | None:
    return at if at < len(frame) and frame[at] >> 4 in (4, 6) else None


def _lengths(buffer: npt.NDArray[np.uint8], start: Int64, end: Int64, wire_end: Int64) -> tuple[Int64, Int64]:
    """Length by the IP header, and how much of it the capture has; 0 for what a host does not take."""
    length = np.zeros(len(start), np.int64)
    for version, least, at, behind in ((4, 20, 2, 0), (6, 40, 4, 40)):
        rows = np.flatnonzero((start >= 0) & (end - start >= least))
        rows = rows[buffer[start[rows]] >> 4 == version]
        first = start[rows]
        told = (buffer[first + at].astype(np.int64) << 8 | buffer[first + at + 1]) + behind
        on_wire = wire_end[rows] - first
        # segmentation offload: the capture was taken before the card wrote the length
        unwritten = (told == behind) & ((version == 4) | (buffer[first + 6] == _TCP))
        told = np.where(unwritten, on_wire, told)
        head = np.maximum((buffer[first] & 15).astype(np.int64) * 4, 0) if version == 4 else behind
        sound = (told <= on_wire) & (told <= 0xFFFF + behind) & (told >= head) & (told >= least)
        if version == 4:
            sound &= head >= least
        length[rows] = np.where(sound, told, 0)
    return length, np.minimum(length, np.maximum(end - start, 0))


def _with_length(data: bytes) -> bytes:
    """With the length that the sender's card has written, where the capture lacks it."""
    if data[0] >> 4 == 4:
        return data if data[2:4] != b"\0\0" else data[:2] + len(data).to_bytes(2) + data[4:]
    if data[4:6] != b"\0\0" or data[6] != _TCP:
        return data
    return data[:4] + (len(data) - 40).to_bytes(2) + data[6:]
