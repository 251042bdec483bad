# cython: boundscheck=True
"""Fill in the packet columns of a block: link header, tunnels, IP, TCP or UDP (kernel).

In:  a buffer; where each packet starts in it, captured and wire length, link type.
Out: Columns, every column of schema.PACKETS filled for every packet.
Source: the RFCs at wire.headers; LINKTYPE_ values at wire.linktypes.

The innermost IP header that can be decoded counts, as for Wireshark's tcp.stream. Nothing is read at or after
a packet's captured end: each step compares before it reads, and boundscheck is the net below that.

A packet is walked header by header. `at` is the next header, `end` where the bytes in the file end, `limit`
where the packet itself ends; every length field may lower `limit`, none may raise it.
"""

from __future__ import annotations

from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer.columns.distinct import distinct
from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind
from analyzer.wire.linktypes import SUPPORTED, LinkType

COMPILED: Final[bool] = cython.compiled

_OTHER = cython.declare(cython.int, Kind.OTHER)
_MALFORMED = cython.declare(cython.int, Kind.MALFORMED)
_FRAGMENT = cython.declare(cython.int, Kind.FRAGMENT)
_IP = cython.declare(cython.int, Kind.IP)
_UDP = cython.declare(cython.int, Kind.UDP)
_TCP = cython.declare(cython.int, Kind.TCP)

_MAX_LAYERS = cython.declare(cython.int, 48)
"""Headers walked in one packet: sixteen tunnels of IP, GRE and Ethernet. Real packets have below ten."""
_MAX_EXTENSIONS = cython.declare(cython.int, 16)
"""IPv6 extension headers, and labels of an MPLS stack. RFC 8504 5.3 lets a host stop at eight."""

_AHEAD = cython.declare(cython.int, 16)
"""Packets whose headers are brought into the cache together: a third faster than one after the other."""

# What the next header is: an Ethertype, or below 0x0600 one of these.
_STOP = cython.declare(cython.int, 0)
_ETHERNET = cython.declare(cython.int, 1)
_RAW_IP = cython.declare(cython.int, 2)
_PPP = cython.declare(cython.int, 3)
_CISCO_HDLC = cython.declare(cython.int, 4)
_NULL = cython.declare(cython.int, 5)
_SLL = cython.declare(cython.int, 6)
_SLL2 = cython.declare(cython.int, 7)
_LLC = cython.declare(cython.int, 8)

# Ethertypes, Linux include/uapi/linux/if_ether.h.
_IPV4 = cython.declare(cython.int, 0x0800)
_IPV6 = cython.declare(cython.int, 0x86DD)
_TEB = cython.declare(cython.int, 0x6558)
_PPPOE = cython.declare(cython.int, 0x8864)
_MPLS = cython.declare(cython.int, 0x8847)
_MPLS_MULTICAST = cython.declare(cython.int, 0x8848)
_PPP_IN_GRE = cython.declare(cython.int, 0x880B)
_ERSPAN = cython.declare(cython.int, 0x88BE)
_ERSPAN_III = cython.declare(cython.int, 0x22EB)

_DLT_ETHERNET = cython.declare(cython.int, LinkType.ETHERNET)
_MAX_LENGTH = cython.declare(cython.longlong, 0x7FFFFFFF)

_IPV4_MAPPED = cython.declare(cython.ulonglong, 0xFFFF << 32)
"""Upper half of the low 64 bits of ::ffff:a.b.c.d, RFC 4291 2.5.5.2."""

_START: Final = {
    LinkType.NULL: _NULL,
    LinkType.LOOP: _NULL,
    LinkType.ETHERNET: _ETHERNET,
    LinkType.PPP: _PPP,
    LinkType.PPP_HDLC: _PPP,
    LinkType.PPP_ETHER: _PPPOE,
    LinkType.C_HDLC: _CISCO_HDLC,
    LinkType.DLT_RAW: _RAW_IP,
    LinkType.DLT_RAW_OPENBSD: _RAW_IP,
    LinkType.RAW: _RAW_IP,
    LinkType.IPV4: _IPV4,
    LinkType.IPV6: _IPV6,
    LinkType.LINUX_SLL: _SLL,
    LinkType.LINUX_SLL2: _SLL2,
}
_START_TABLE: Final = np.full(max(SUPPORTED) + 1, _STOP, np.int64)
for _linktype, _first_header in _START.items():
    _START_TABLE[_linktype] = _first_header
_RAW: Final = int(LinkType.RAW)


def decode(
    buffer: npt.NDArray[np.uint8],
    offset: npt.NDArray[np.int64],
    captured: npt.NDArray[np.int64],
    wire: npt.NDArray[np.int64],
    time_ns: npt.NDArray[np.int64],
    linktype: npt.NDArray[np.int64],
    first: int,
) -> Columns:
    """Decode the packets of a block.

    Args:
        buffer: Bytes that hold the packets.
        offset: Where each packet's link header starts in `buffer`.
        captured: Bytes of each packet that are in the buffer.
        wire: Bytes of each packet on the wire; a value below `captured` is taken as `captured`.
        time_ns: Capture times.
        linktype: LINKTYPE_ value of each packet.
        first: Number of the first packet, 1-based.

    Raises:
        ValueError: A packet does not lie within the buffer; the reader never hands over such a one.
    """
    rows = len(offset)
    if rows and (offset.min() < 0 or captured.min() < 0 or (offset + captured).max() > len(buffer)):
        raise ValueError("a packet lies outside the buffer")
    columns = Columns(rows)
    columns.packet[:] = np.arange(first, first + rows)
    columns.time_ns[:] = time_ns
    columns.captured[:] = captured
    wire = np.clip(wire, captured, _MAX_LENGTH)
    columns.wire[:] = wire
    _fill(buffer, offset, captured, wire, linktype, columns, slice(0, rows))
    return columns


def decode_again(buffer: npt.NDArray[np.uint8], columns: Columns, row: int, offset: int, length: int) -> None:
    """Decode one row anew from the `length` bytes at `offset`: an IP datagram that was reassembled there.

    The row keeps the packet's number, time and lengths.
    """
    job = np.array((offset, length, _RAW), np.int64)
    _fill(buffer, job[:1], job[1:2], job[1:2], job[2:], columns, slice(row, row + 1))


def unsupported_linktypes(linktype: npt.NDArray[np.int64]) -> list[int]:
    """The link types that `decode` does not look into, in ascending order."""
    if len(linktype) == 0 or ((linktype == linktype[0]).all() and int(linktype[0]) in SUPPORTED):
        return []
    return sorted(set(distinct(linktype).tolist()) - SUPPORTED)


def _fill(
    buffer: npt.NDArray[np.uint8],
    offset: npt.NDArray[np.int64],
    captured: npt.NDArray[np.int64],
    wire: npt.NDArray[np.int64],
    linktype: npt.NDArray[np.int64],
    columns: Columns,
    rows: slice,
) -> None:
    _decode_loop(
        buffer.data,
        _START_TABLE.data,
        *(np.ascontiguousarray(column).data for column in (offset, captured, wire, linktype)),
        *(getattr(columns, name)[rows].data for name in _FILLED),
    )


_FILLED: Final = (
    "kind",
    "ip_version",
    "src_hi",
    "src_lo",
    "dst_hi",
    "dst_lo",
    "ttl",
    "ip_id",
    "sport",
    "dport",
    "seq",
    "ack",
    "flags",
    "window",
    "network_offset",
    "transport_offset",
    "payload_offset",
    "payload_captured",
    "payload_length",
)
"""Columns that the loop fills, in the order of its arguments."""


@cython.cclass
class _Walk:
    """One packet, header by header; the results are of the innermost IP header that could be decoded."""

    buf = cython.declare(cython.uchar[::1])
    at = cython.declare(cython.longlong)
    end = cython.declare(cython.longlong)
    limit = cython.declare(cython.longlong)

    kind = cython.declare(cython.int)
    version = cython.declare(cython.int)
    network = cython.declare(cython.longlong)
    transport = cython.declare(cython.longlong)
    payload = cython.declare(cython.longlong)
    payload_captured = cython.declare(cython.longlong)
    payload_length = cython.declare(cython.longlong)

    # The results of the packet around the tunnel that is being tried; outer_kind is OTHER without one.
    outer_kind = cython.declare(cython.int)
    outer_version = cython.declare(cython.int)
    outer_network = cython.declare(cython.longlong)
    outer_transport = cython.declare(cython.longlong)
    outer_payload = cython.declare(cython.longlong)
    outer_payload_captured = cython.declare(cython.longlong)
    outer_payload_length = cython.declare(cython.longlong)

    def __init__(self, buffer: memoryview) -> None:
        self.buf = buffer

    @cython.cfunc
    @cython.inline
    @cython.locals(at=cython.longlong)
    @cython.returns(cython.longlong)
    @cython.exceptval(-1, check=True)
    def u16(self, at):  # type: ignore[no-untyped-def]
        return (self.buf[at] << 8) | self.buf[at + 1]

    @cython.cfunc
    @cython.inline
    @cython.locals(at=cython.longlong)
    @cython.returns(cython.longlong)
    @cython.exceptval(-1, check=True)
    def u32(self, at):  # type: ignore[no-untyped-def]
        return (self.u16(at) << 16) | self.u16(at + 2)

    @cython.cfunc
    @cython.inline
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def malformed(self):  # type: ignore[no-untyped-def]
        self.kind = _MALFORMED
        self.payload = self.transport
        return _STOP

    @cython.cfunc
    @cython.inline
    @cython.locals(limit=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def shorten(self, limit):  # type: ignore[no-untyped-def]
        """Lower `limit`: what lies behind, such as link padding, is not looked at."""
        if limit < self.limit:
            self.limit = limit
            if limit < self.end:
                self.end = limit
        return 0

    @cython.cfunc
    @cython.locals(
        at=cython.longlong,
        captured=cython.longlong,
        wire=cython.longlong,
        header=cython.int,
        layers=cython.int,
    )
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def walk(self, at, captured, wire, header):  # type: ignore[no-untyped-def]
        self.at = at
        self.end = at + captured
        self.limit = at + wire
        self.kind = _OTHER
        self.version = 0
        self.network = self.transport = self.payload = at
        self.payload_captured = self.payload_length = 0
        self.outer_kind = _OTHER
        layers = 0
        while header != _STOP:
            if layers >= _MAX_LAYERS:
                self.kind = _MALFORMED
                break
            layers += 1
            if header == _IPV4:
                header = self.ipv4()
            elif header == _IPV6:
                header = self.ipv6()
            elif header in (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300):
                header = self.vlan()
            elif header in (_ETHERNET, _TEB):
                header = self.ethernet()
            else:
                header = self.seldom(header)
        if self.kind <= _MALFORMED and self.outer_kind != _OTHER:
            self.kind = self.outer_kind
            self.version = self.outer_version
            self.network = self.outer_network
            self.transport = self.outer_transport
            self.payload = self.outer_payload
            self.payload_captured = self.outer_payload_captured
            self.payload_length = self.outer_payload_length
        return 0

    @cython.cfunc
    @cython.locals(header=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def seldom(self, header):  # type: ignore[no-untyped-def]
        if header == _SLL:
            return self.linux_cooked(16, 14, 2)
        if header == _SLL2:
            return self.linux_cooked(20, 0, 8)
        if header == _RAW_IP:
            return self.raw_ip()
        if header == _LLC:
            return self.llc()
        if header in (_MPLS, _MPLS_MULTICAST):
            return self.mpls()
        if header == _PPPOE:
            return self.pppoe()
        if header in (_PPP, _PPP_IN_GRE):
            return self.ppp()
        if header == _CISCO_HDLC:
            return self.cisco_hdlc()
        if header == _NULL:
            return self.null()
        return _STOP

    # --- link ---------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.inline
    @cython.locals(kind=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def ethertype(self, kind):  # type: ignore[no-untyped-def]
        """What is below 0x0600 is no Ethertype, and must not be taken for one of our own numbers."""
        return kind if kind >= 0x0600 else _STOP

    @cython.cfunc
    @cython.locals(kind=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def type_or_length(self, kind):  # type: ignore[no-untyped-def]
        """IEEE 802.3 3.2.6: below 0x0600 it is the length of what follows, and that is LLC."""
        if kind >= 0x0600:
            return kind
        self.shorten(self.at + kind)
        return _LLC

    @cython.cfunc
    @cython.locals(kind=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def ethernet(self):  # type: ignore[no-untyped-def]
        if self.end - self.at < 14:
            return self.malformed()
        kind = self.u16(self.at + 12)
        self.at += 14
        return self.type_or_length(kind)

    @cython.cfunc
    @cython.locals(kind=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def vlan(self):  # type: ignore[no-untyped-def]
        if self.end - self.at < 4:
            return self.malformed()
        kind = self.u16(self.at + 2)
        self.at += 4
        return self.type_or_length(kind)

    @cython.cfunc
    @cython.locals(at=cython.longlong, kind=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def llc(self):  # type: ignore[no-untyped-def]
        """IEEE 802.2: SNAP with an Ethertype (RFC 1042), or IP's own service access point 0x06."""
        at = self.at
        if self.end - at < 3:
            return self.malformed()
        if self.buf[at] == 0x06 and self.buf[at + 1] == 0x06 and self.buf[at + 2] == 0x03:
            self.at += 3
            return _IPV4
        if self.buf[at] != 0xAA or self.buf[at + 1] != 0xAA or self.buf[at + 2] != 0x03:
            return _STOP
        if self.end - at < 8:
            return self.malformed()
        # OUI 00-00-00 of RFC 1042, 00-00-F8 of IEEE 802.1H
        if self.u16(at + 3) != 0 or self.buf[at + 5] not in (0x00, 0xF8):
            return _STOP
        kind = self.u16(at + 6)
        self.at += 8
        return self.ethertype(kind)

    @cython.cfunc
    @cython.locals(
        size=cython.int, type_at=cython.int, arphrd_at=cython.int, arphrd=cython.int, kind=cython.int
    )
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def linux_cooked(self, size, type_at, arphrd_at):  # type: ignore[no-untyped-def]
        """LINKTYPE_LINUX_SLL and SLL2; for these ARPHRD_ values the type is not an Ethertype."""
        if self.end - self.at < size:
            return self.malformed()
        arphrd = self.u16(self.at + arphrd_at)
        kind = self.u16(self.at + type_at)
        self.at += size
        # ARPHRD_FRAD, ARPHRD_IEEE80211 to _RADIOTAP, ARPHRD_NETLINK: Linux include/uapi/linux/if_arp.h
        if arphrd == 770 or 801 <= arphrd <= 803 or arphrd == 824:
            return _STOP
        if kind == 0x0004:  # LINUX_SLL_P_802_2
            return _LLC
        return self.ethertype(kind)

    @cython.cfunc
    @cython.locals(version=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def raw_ip(self):  # type: ignore[no-untyped-def]
        if self.end - self.at < 1:
            return self.malformed()
        version = self.buf[self.at] >> 4
        if version == 4:
            return _IPV4
        if version == 6:
            return _IPV6
        return _STOP

    @cython.cfunc
    @cython.locals(family=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def null(self):  # type: ignore[no-untyped-def]
        """BSD loopback: an address family of the capturing host, in either byte order."""
        if self.end - self.at < 4:
            return self.malformed()
        family = self.u32(self.at)
        if family & 0xFFFF == 0:  # a family is below 256: the other byte order
            family = (self.buf[self.at + 1] << 8) | self.buf[self.at]
        self.at += 4
        if family == 2:
            return _IPV4
        # AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, Darwin
        if family in (10, 24, 28, 30):
            return _IPV6
        return _STOP

    @cython.cfunc
    @cython.locals(at=cython.longlong, protocol=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def ppp(self):  # type: ignore[no-untyped-def]
        """RFC 1661 2, with or without RFC 1662's address and control; the protocol may be compressed."""
        at = self.at
        if self.end - at < 2:
            return self.malformed()
        if self.buf[at] == 0xFF and self.buf[at + 1] == 0x03:
            at += 2
        elif self.buf[at] == 0x0F or self.buf[at] == 0x8F:
            return _CISCO_HDLC
        if self.end - at < 2:
            return self.malformed()
        if self.buf[at] & 1:
            protocol = self.buf[at]
            at += 1
        else:
            protocol = self.u16(at)
            at += 2
        self.at = at
        if protocol == 0x0021:
            return _IPV4
        if protocol == 0x0057:
            return _IPV6
        if protocol == 0x0281 or protocol == 0x0283:
            return _MPLS
        return _STOP

    @cython.cfunc
    @cython.locals(kind=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def cisco_hdlc(self):  # type: ignore[no-untyped-def]
        """RFC 1547 4.3.1: address, control, Ethertype."""
        if self.end - self.at < 4:
            return self.malformed()
        kind = self.u16(self.at + 2)
        self.at += 4
        return self.ethertype(kind)

    @cython.cfunc
    @cython.locals(length=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def pppoe(self):  # type: ignore[no-untyped-def]
        """RFC 2516 4: a session packet, whose length counts from behind its six bytes."""
        if self.end - self.at < 6:
            return self.malformed()
        if self.buf[self.at] != 0x11 or self.buf[self.at + 1] != 0:
            return _STOP
        length = self.u16(self.at + 4)
        self.at += 6
        self.shorten(self.at + length)
        return _PPP

    @cython.cfunc
    @cython.locals(at=cython.longlong, labels=cython.int, bottom=cython.int, nibble=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def mpls(self):  # type: ignore[no-untyped-def]
        """RFC 3032; only its first nibble tells what follows the last label (RFC 4928 3, RFC 4385 3)."""
        at = self.at
        labels = 0
        bottom = 0
        while not bottom:
            if labels >= _MAX_EXTENSIONS or self.end - at < 4:
                return self.malformed()
            labels += 1
            bottom = self.buf[at + 2] & 1
            at += 4
        self.at = at
        if self.end - at < 1:
            return self.malformed()
        nibble = self.buf[at] >> 4
        if nibble == 4:
            return _IPV4
        if nibble == 6:
            return _IPV6
        if nibble == 0 and self.known_type(at + 16):
            # an Ethernet pseudowire with its control word, RFC 4448 4.6
            self.at += 4
            return _ETHERNET
        if self.known_type(at + 12):
            return _ETHERNET
        return _STOP

    @cython.cfunc
    @cython.locals(at=cython.longlong, kind=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def known_type(self, at):  # type: ignore[no-untyped-def]
        """Whether an Ethertype worth following lies at `at`: an Ethernet header before it is likely."""
        if self.end - at < 2:
            return 0
        kind = self.u16(at)
        return kind in (_IPV4, _IPV6, 0x8100, 0x88A8, _MPLS, _PPPOE)

    # --- network ------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.locals(at=cython.longlong, size=cython.longlong, total=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def ipv4(self):  # type: ignore[no-untyped-def]
        at = self.at
        if self.end - at < 20 or self.buf[at] >> 4 != 4:
            return self.malformed()
        size = (self.buf[at] & 15) * 4
        total = self.u16(at + 2)
        if total == 0:
            # captured before segmentation offload, Linux net/ipv4/ip_output.c: the wire length counts
            total = self.limit - at
        if size < 20 or total < size or self.end - at < size:
            return self.malformed()
        self.shorten(at + total)
        self.network = at
        self.version = 4
        self.at += size
        if self.u16(at + 6) & 0x3FFF:
            return self.datagram(_FRAGMENT)
        return self.transport_header(self.buf[at + 9])

    @cython.cfunc
    @cython.locals(at=cython.longlong, length=cython.longlong, protocol=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def ipv6(self):  # type: ignore[no-untyped-def]
        at = self.at
        if self.end - at < 40 or self.buf[at] >> 4 != 6:
            return self.malformed()
        length = self.u16(at + 4)
        protocol = self.buf[at + 6]
        self.at += 40
        if length == 0 and protocol == 0:
            length = self.jumbo_length()
        self.shorten(self.at + length)
        self.network = at
        self.version = 6
        return self.transport_header(protocol)

    @cython.cfunc
    @cython.locals(at=cython.longlong, end=cython.longlong, length=cython.longlong)
    @cython.returns(cython.longlong)
    @cython.exceptval(-1, check=True)
    def jumbo_length(self):  # type: ignore[no-untyped-def]
        """RFC 2675 2: the option in the hop-by-hop header here; without one, what the wire had."""
        at = self.at + 2
        if self.end < at:
            return self.limit - self.at
        end = min(self.end, self.at + (self.buf[self.at + 1] + 1) * 8)
        while end - at >= 2:
            if self.buf[at] == 0xC2 and end - at >= 6:
                length = self.u32(at + 2)
                return length if length > 0xFFFF else 0  # RFC 2675 3: a smaller one is an error
            at += 1 if self.buf[at] == 0 else 2 + self.buf[at + 1]
        return self.limit - self.at

    @cython.cfunc
    @cython.locals(protocol=cython.int, headers=cython.int, at=cython.longlong, size=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def transport_header(self, protocol):  # type: ignore[no-untyped-def]
        """Step over extension headers (RFC 8200 4.1; RFC 4302) to the transport header or tunnel."""
        headers = 0
        while headers <= _MAX_EXTENSIONS:
            headers += 1
            at = self.at
            self.transport = at
            if protocol == 6:
                return self.tcp()
            if protocol == 17:
                return self.udp()
            if protocol in (4, 41, 47, 97, 137):
                self.datagram(_IP)
                self.enter()
                return self.tunnel(protocol)
            if protocol == 51:
                if self.end - at < 12:
                    return self.malformed()
                size = (self.buf[at + 1] + 2) * 4
            elif self.version == 6 and (protocol == 0 or protocol == 43 or protocol == 60 or protocol == 44):
                if self.end - at < 8:
                    return self.malformed()
                size = 8 if protocol == 44 else (self.buf[at + 1] + 1) * 8
            else:
                return self.datagram(_IP)
            if self.end - at < size:
                return self.malformed()
            self.at += size
            # offset 0 and no more to come is a whole datagram, RFC 6946
            if protocol == 44 and self.u16(at + 2) & 0xFFF9:
                return self.datagram(_FRAGMENT)
            protocol = self.buf[at]
        return self.malformed()

    @cython.cfunc
    @cython.inline
    @cython.locals(kind=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def datagram(self, kind):  # type: ignore[no-untyped-def]
        """IP whose payload is not taken apart further, or not here."""
        self.kind = kind
        self.transport = self.payload = self.at
        self.payload_captured = self.end - self.at
        self.payload_length = self.limit - self.at
        return _STOP

    # --- transport and tunnels ----------------------------------------------------------------------

    @cython.cfunc
    @cython.locals(at=cython.longlong, size=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def tcp(self):  # type: ignore[no-untyped-def]
        at = self.at
        if self.end - at < 20:
            return self.malformed()
        size = (self.buf[at + 12] >> 4) * 4
        if size < 20 or self.limit - at < size:
            return self.malformed()
        self.kind = _TCP
        # options may be cut by a short snaplen; what counts for following the connection is there
        self.payload = min(at + size, self.end)
        self.payload_captured = self.end - self.payload
        self.payload_length = self.limit - at - size
        return _STOP

    @cython.cfunc
    @cython.locals(at=cython.longlong, length=cython.longlong, port=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def udp(self):  # type: ignore[no-untyped-def]
        at = self.at
        if self.end - at < 8:
            return self.malformed()
        length = self.u16(at + 4)
        if length == 0:  # RFC 2675 4, and segmentation offload
            length = self.limit - at
        if length < 8:
            return self.malformed()
        self.shorten(at + length)
        self.at += 8
        self.datagram(_UDP)
        self.transport = at
        port = self.u16(at + 2)
        if port == 4789 or port == 8472:
            return self.vxlan()
        if port == 6081:
            return self.geneve()
        return _STOP

    @cython.cfunc
    @cython.inline
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def enter(self):  # type: ignore[no-untyped-def]
        """Keep the results so far, for when the tunnel holds nothing that can be decoded."""
        self.outer_kind = self.kind
        self.outer_version = self.version
        self.outer_network = self.network
        self.outer_transport = self.transport
        self.outer_payload = self.payload
        self.outer_payload_captured = self.payload_captured
        self.outer_payload_length = self.payload_length
        self.kind = _OTHER
        return 0

    @cython.cfunc
    @cython.locals(protocol=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def tunnel(self, protocol):  # type: ignore[no-untyped-def]
        """RFC 2003, RFC 4213, RFC 2784, EtherIP (RFC 3378), MPLS in IP (RFC 4023)."""
        if protocol == 4:
            return _IPV4
        if protocol == 41:
            return _IPV6
        if protocol == 47:
            return self.gre()
        if protocol == 137:
            return _MPLS
        if self.end - self.at < 2 or self.buf[self.at] != 0x30:
            return self.malformed()
        self.at += 2
        return _ETHERNET

    @cython.cfunc
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def vxlan(self):  # type: ignore[no-untyped-def]
        """RFC 7348 5. The I flag must be set, which keeps most of what merely uses the port out."""
        if self.end - self.at < 8 or self.buf[self.at] & 0x08 == 0:
            return _STOP
        self.enter()
        self.at += 8
        return _ETHERNET

    @cython.cfunc
    @cython.locals(at=cython.longlong, size=cython.longlong)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def geneve(self):  # type: ignore[no-untyped-def]
        """RFC 8926 3.4: version 0, options in units of four bytes."""
        at = self.at
        if self.end - at < 8 or self.buf[at] >> 6 != 0:
            return _STOP
        size = 8 + (self.buf[at] & 0x3F) * 4
        if self.end - at < size:
            return _STOP
        self.enter()
        self.at += size
        return self.ethertype(self.u16(at + 2))

    @cython.cfunc
    @cython.locals(
        at=cython.longlong,
        bits=cython.int,
        version=cython.int,
        protocol=cython.int,
        routes=cython.int,
        size=cython.int,
    )
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def gre(self):  # type: ignore[no-untyped-def]
        """RFC 2784, RFC 2890, RFC 1701's routing; version 1 is PPTP's, RFC 2637 4.1."""
        at = self.at
        if self.end - at < 4:
            return self.malformed()
        bits = self.u16(at)
        protocol = self.u16(at + 2)
        version = bits & 7
        at += 4
        size = 0
        if bits & 0xC000 and version == 0:
            at += 4  # checksum, offset
        if bits & 0x2000:
            if version == 1:
                if self.end - at < 4:
                    return self.malformed()
                size = self.u16(at)  # the key's upper half is the payload's length
            at += 4
        if bits & 0x1000:
            at += 4  # sequence number
        if version == 1:
            if protocol != _PPP_IN_GRE or bits & 0x3000 != 0x3000:
                return _STOP  # without a sequence number it is an acknowledgment alone
            if bits & 0x0080:
                at += 4
            if self.end < at:
                return self.malformed()
            self.at = at
            self.shorten(at + size)
            return _PPP
        if version != 0:
            return _STOP
        if bits & 0x4000:
            routes = 0
            size = 1
            while size:
                if self.end - at < 4 or routes >= _MAX_EXTENSIONS:
                    return self.malformed()
                routes += 1
                size = self.buf[at + 3]
                at += 4 + size
        if protocol in (_ERSPAN, _ERSPAN_III):
            return self.erspan(at, protocol, bits & 0x1000)
        if self.end < at:
            return self.malformed()
        self.at = at
        return self.ethertype(protocol)

    @cython.cfunc
    @cython.locals(at=cython.longlong, protocol=cython.int, sequence=cython.int)
    @cython.returns(cython.int)
    @cython.exceptval(-1, check=True)
    def erspan(self, at, protocol, sequence):  # type: ignore[no-untyped-def]
        """draft-foschiano-erspan-03: a header of no bytes in type I, 8 in II, 12 or 20 in III."""
        if protocol == _ERSPAN and sequence:
            at += 8
        elif protocol == _ERSPAN_III:
            if self.end - at < 12:
                return self.malformed()
            at += 20 if self.buf[at + 11] & 1 else 12
        if self.end < at:
            return self.malformed()
        self.at = at
        return _ETHERNET


@cython.cfunc
@cython.inline
@cython.locals(buf=cython.uchar[::1], at=cython.longlong)
@cython.returns(cython.ulonglong)
@cython.exceptval(0xFFFFFFFFFFFFFFFF, check=True)
def _u32(buf, at):  # type: ignore[no-untyped-def]
    return (
        (cython.cast(cython.ulonglong, buf[at]) << 24)
        | (buf[at + 1] << 16)
        | (buf[at + 2] << 8)
        | buf[at + 3]
    )


@cython.locals(
    buf=cython.uchar[::1],
    start_table=cython.longlong[::1],
    offset=cython.longlong[::1],
    captured=cython.longlong[::1],
    wire=cython.longlong[::1],
    linktype=cython.longlong[::1],
    kind_of=cython.uchar[::1],
    ip_version=cython.uchar[::1],
    src_hi=cython.ulonglong[::1],
    src_lo=cython.ulonglong[::1],
    dst_hi=cython.ulonglong[::1],
    dst_lo=cython.ulonglong[::1],
    ttl=cython.uchar[::1],
    ip_id=cython.uint[::1],
    sport=cython.ushort[::1],
    dport=cython.ushort[::1],
    seq=cython.uint[::1],
    ack=cython.uint[::1],
    flags=cython.ushort[::1],
    window=cython.ushort[::1],
    network_offset=cython.longlong[::1],
    transport_offset=cython.longlong[::1],
    payload_offset=cython.longlong[::1],
    payload_captured=cython.int[::1],
    payload_length=cython.int[::1],
    found=_Walk,
    row=cython.Py_ssize_t,
    ahead=cython.Py_ssize_t,
    touched=cython.longlong,
    at=cython.longlong,
    end=cython.longlong,
    total=cython.longlong,
    size=cython.longlong,
    network=cython.longlong,
    transport=cython.longlong,
    payload=cython.longlong,
    header=cython.int,
    kind=cython.int,
    version=cython.int,
)
def _decode_loop(  # type: ignore[no-untyped-def]
    buf,
    start_table,
    offset,
    captured,
    wire,
    linktype,
    kind_of,
    ip_version,
    src_hi,
    src_lo,
    dst_hi,
    dst_lo,
    ttl,
    ip_id,
    sport,
    dport,
    seq,
    ack,
    flags,
    window,
    network_offset,
    transport_offset,
    payload_offset,
    payload_captured,
    payload_length,
):
    found = _Walk(buf)
    touched = 0
    for row in range(len(offset)):
        if row % _AHEAD == 0:
            for ahead in range(row, min(row + _AHEAD, len(offset))):
                if captured[ahead] > 60:
                    touched += buf[offset[ahead] + 12] + buf[offset[ahead] + 60]
        at = offset[row]
        size = 0
        # The common case, told apart in six comparisons: Ethernet, IPv4 without options, whole, TCP.
        if (
            linktype[row] == _DLT_ETHERNET
            and captured[row] >= 54
            and buf[at + 12] == 0x08
            and buf[at + 13] == 0x00
            and buf[at + 14] == 0x45
            and buf[at + 23] == 6
            and buf[at + 20] & 0x3F == 0
            and buf[at + 21] == 0
        ):
            total = (buf[at + 16] << 8) | buf[at + 17]
            size = (buf[at + 46] >> 4) * 4
            # whatever is not exactly right is left to the walk, which says what is wrong with it
            if total > wire[row] - 14 or total < 20 + size or size < 20:
                size = 0
        if size:
            kind = _TCP
            version = 4
            network = at + 14
            transport = at + 34
            end = at + min(captured[row], 14 + total)
            payload = min(transport + size, end)
            payload_captured[row] = end - payload
            payload_length[row] = total - 20 - size
        else:
            header = _STOP
            if 0 <= linktype[row] < len(start_table):
                header = start_table[linktype[row]]
            found.walk(at, captured[row], wire[row], header)
            kind = found.kind
            version = found.version
            network = found.network
            transport = found.transport
            payload = found.payload
            payload_captured[row] = found.payload_captured
            payload_length[row] = found.payload_length

        kind_of[row] = kind
        ip_version[row] = version
        network_offset[row] = network
        transport_offset[row] = transport
        payload_offset[row] = payload
        if version == 4:
            src_hi[row] = 0
            src_lo[row] = _IPV4_MAPPED | _u32(buf, network + 12)
            dst_hi[row] = 0
            dst_lo[row] = _IPV4_MAPPED | _u32(buf, network + 16)
            ttl[row] = buf[network + 8]
            ip_id[row] = (buf[network + 4] << 8) | buf[network + 5]
        elif version == 6:
            src_hi[row] = (_u32(buf, network + 8) << 32) | _u32(buf, network + 12)
            src_lo[row] = (_u32(buf, network + 16) << 32) | _u32(buf, network + 20)
            dst_hi[row] = (_u32(buf, network + 24) << 32) | _u32(buf, network + 28)
            dst_lo[row] = (_u32(buf, network + 32) << 32) | _u32(buf, network + 36)
            ttl[row] = buf[network + 7]
            ip_id[row] = 0
        else:
            src_hi[row] = src_lo[row] = dst_hi[row] = dst_lo[row] = 0
            ttl[row] = 0
            ip_id[row] = 0
        if kind >= _UDP:
            sport[row] = (buf[transport] << 8) | buf[transport + 1]
            dport[row] = (buf[transport + 2] << 8) | buf[transport + 3]
        else:
            sport[row] = dport[row] = 0
        if kind == _TCP:
            seq[row] = _u32(buf, transport + 4)
            ack[row] = _u32(buf, transport + 8)
            flags[row] = ((buf[transport + 12] & 1) << 8) | buf[transport + 13]
            window[row] = (buf[transport + 14] << 8) | buf[transport + 15]
        else:
            seq[row] = ack[row] = 0
            flags[row] = window[row] = 0
    return touched  # or the compiler would leave these reads out
