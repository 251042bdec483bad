"""A packet as nft's expressions see it: where its headers are, by the kernel's own reckoning.

In:  Passing; the names of the devices that its hook knows.
Out: Seen.
Source: Linux include/net/netfilter/nf_tables_ipv4.h, nf_tables_ipv6.h nft_set_pktinfo*;
    net/ipv6/exthdrs_core.c ipv6_find_hdr; net/netfilter/nft_payload.c nft_payload_inner_offset.

The kernel's mistakes are followed, not corrected: an IPv6 fragment that is not the first has its transport
header at the start of the datagram, and a TCP header is as long as it says.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from rulegen.evaluate.base import Passing, Undecidable
from rulegen.evaluate.conntrack_headers import checksum_is_right

TCP: Final = 6
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NONE, _DESTINATION = 0, 43, 44, 51, 59, 60
_EXTENSIONS: Final = frozenset({_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NONE, _DESTINATION})
"""ipv6_ext_hdr()."""

_TCP_BYTES: Final = 20
_RST: Final = 0x04
_OFFSET_MAX: Final = 0xFFFF

NONE: Final = -1
NOT_ASKED: Final = -2

CUT: Final = "the capture cuts the packet before a byte that a rule looks at"


class Place(NamedTuple):
    """An IPv6 header that was found."""

    protocol: int
    offset: int
    fragment_offset: int


class Seen:
    """One packet at one hook.

    Attributes:
        passing: The packet.
        data: From the network header on.
        captured: Bytes of it that are known.
        four: IPv4.
        protocol: Of the transport header (meta l4proto); None where the kernel finds none.
        transport: Its offset.
        fragment_offset: Not 0 in fragments but the first.
        inner: Where the payload of the transport protocol starts; NONE where the kernel knows none, NOT_ASKED
            before `find_inner`.
        interface_in, interface_out: Of the hook; "" where it has none.
    """

    __slots__ = (
        "captured",
        "data",
        "four",
        "fragment_offset",
        "inner",
        "interface_in",
        "interface_out",
        "passing",
        "protocol",
        "transport",
    )

    def __init__(self, passing: Passing, hook: str) -> None:
        data = passing.data
        self.passing = passing
        self.data = data
        self.captured = min(passing.captured, len(data))
        self.interface_in = "" if hook in ("output", "postrouting") else passing.interface_in
        self.interface_out = "" if hook in ("prerouting", "input") else passing.interface_out
        self.four = data[0] >> 4 != 6
        self.inner = NOT_ASKED
        self.protocol: int | None
        if self.four:
            if self.captured < _TCP_BYTES:
                raise Undecidable(CUT)
            self.protocol = data[9]
            self.transport = (data[0] & 15) * 4
            self.fragment_offset = (data[6] & 0x1F) << 8 | data[7]
            return
        found = self.find(None)
        if found is None or found.offset > _OFFSET_MAX:
            self.protocol, self.transport, self.fragment_offset = None, 0, 0
        else:
            self.protocol, self.transport, self.fragment_offset = found

    def bytes_at(self, start: int, length: int) -> bytes | None:
        """Bytes of the packet; None where it ends before them.

        Raises:
            Undecidable: The packet has them and the capture does not.
        """
        end = start + length
        if end <= self.captured:
            return self.data[start:end]
        if end <= len(self.data):
            raise Undecidable(CUT)
        return None

    def find_inner(self) -> int:
        """Find `inner`."""
        self.inner = NONE if self.fragment_offset else self._behind_transport()
        return self.inner

    def _behind_transport(self) -> int:
        match self.protocol:
            case 6:  # TCP
                header = self.bytes_at(self.transport, _TCP_BYTES)
                return NONE if header is None else self.transport + (header[12] >> 4) * 4
            case 17:  # UDP
                return self.transport + 8
            case 47:  # GRE
                return self._behind_gre()
            case 4:  # IPIP
                return self.transport
        return NONE

    def _behind_gre(self) -> int:
        """RFC 2784, RFC 2890: version 0 without routing."""
        header = self.bytes_at(self.transport, 4)
        if header is None or header[1] & 7 or header[0] & 0x40:
            return NONE
        return self.transport + 4 + 4 * sum(bool(header[0] & bit) for bit in (0x80, 0x20, 0x10))

    def find(self, wanted: int | None) -> Place | None:
        """An IPv6 header by its number, or with None the one behind all extensions (AH is not skipped then).

        Returns:
            None where the chain of headers ends before it, or in a fragment that is not the first.
        """
        start = 40
        base = self.bytes_at(6, 1)
        if base is None:
            return None
        following = base[0]
        while True:
            found = following == wanted
            if following not in _EXTENSIONS or following == _NONE:
                return Place(following, start, 0) if found or wanted is None else None
            header = self.bytes_at(start, 2)
            if header is None or (following == _ROUTING and self.bytes_at(start, 4) is None):
                return None
            length = (header[1] + 1) * 8
            if following == _FRAGMENT:
                offset = self.bytes_at(start + 2, 2)
                if offset is None:
                    return None
                units = int.from_bytes(offset) & 0xFFF8
                if units:
                    if wanted is None and (header[0] not in _EXTENSIONS or header[0] == _NONE):
                        return Place(header[0], 0, units)
                    return Place(following, start, units) if found else None
                length = 8
            elif following == _AUTHENTICATION:
                if wanted is None:
                    return Place(following, start, 0)
                length = (header[1] + 2) * 4
            if found:
                return Place(following, start, 0)
            following = header[0]
            start += length


def is_answered(seen: Seen) -> bool:
    """Whether a TCP reset answers the packet: a sound segment, no reset itself (nf_reject_ip_tcphdr_get)."""
    if seen.protocol != TCP or seen.fragment_offset:
        return False
    header = seen.bytes_at(seen.transport, _TCP_BYTES)
    if header is None or header[13] & _RST:
        return False
    if seen.captured < len(seen.data):
        raise Undecidable("the capture cuts the packet; its checksum says whether a reset answers it")
    return checksum_is_right(seen.data, seen.transport, TCP, ipv6=not seen.four)
