"""A packet as a rule of iptables sees it: where its upper header begins, and which bytes a capture lacks.

In:  Passing.
Out: Packet; HotDrop; whether a reset answers a packet.
Source: Linux net/ipv4/netfilter/ip_tables.c ipt_do_table; net/ipv6/netfilter/ip6_tables.c ip6_packet_match;
    net/ipv6/exthdrs_core.c ipv6_find_hdr, ipv6_skip_exthdr; include/net/netfilter/nf_tables_ipv6.h.

A byte that the capture cut off is never guessed: whoever loads it raises Undecidable.
"""

from __future__ import annotations

from typing import Final, SupportsIndex

from rulegen.evaluate.base import Passing, Undecidable
from rulegen.evaluate.conntrack_headers import checksum_is_right

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
EXTENSIONS: Final = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION})
"""Linux net/ipv6/exthdrs_core.c ipv6_ext_hdr."""

TCP: Final = 6
TCP_HEADER: Final = 20
RST: Final = 4

OFFSET_MASK: Final = 0x1FFF


class HotDrop(Exception):
    """A match drops the packet, whatever the rule would do with it."""


class Cut(bytes):
    """Bytes of which only the first `known` are known; slices beyond raise Undecidable."""

    known: int

    def __getitem__(self, where: SupportsIndex | slice) -> bytes:  # type: ignore[override]
        assert isinstance(where, slice)
        if (len(self) if where.stop is None else where.stop) > self.known:
            raise Undecidable(f"a rule looks behind the {self.known} bytes that were captured")
        return super().__getitem__(where)


class Packet:
    """What matches need of a packet, found once for all rules of a chain.

    Attributes:
        data: From the network header on.
        upper: Number of the upper protocol; None: its header can't be found.
        offset: Where the upper header begins.
        fragment: Its fragment offset, in units of eight bytes for IPv4 and in bytes for IPv6.
        interface_in, interface_out: Names; empty where the hook has none.
        hook: Where it is.
    """

    __slots__ = (
        "data",
        "fragment",
        "hook",
        "interface_in",
        "interface_out",
        "ip6",
        "offset",
        "passing",
        "upper",
    )

    def __init__(self, passing: Passing, hook: str, *, behind_authentication: bool) -> None:
        data = passing.data
        if passing.captured < len(data):
            data = Cut(data)
            data.known = passing.captured
        self.passing = passing
        self.data = data
        self.hook = hook
        # br_netfilter: the way out is not known before forward, the way in no more behind it.
        self.interface_in = "" if hook in ("postrouting", "output") else passing.interface_in
        self.interface_out = "" if hook in ("prerouting", "input") else passing.interface_out
        self.upper: int | None
        self.ip6 = passing.family == "ip6"
        if self.ip6:
            self.upper, self.offset, self.fragment = find_upper(data, behind_authentication)
        else:
            head = data[:20]
            self.upper = head[9]
            self.offset = 4 * (head[0] & 15)
            self.fragment = (head[6] << 8 | head[7]) & OFFSET_MASK

    def has(self, size: int) -> bool:
        """Whether the packet has so much of the upper header, captured or not."""
        return self.offset + size <= len(self.data)

    def upper_bytes(self, first: int, behind: int) -> bytes:
        """Of the upper header, which has them."""
        return self.data[self.offset + first : self.offset + behind]


def is_answered(packet: Packet) -> bool:
    """Whether a TCP reset answers the packet: a sound segment, no reset itself (nf_reject_ip_tcphdr_get)."""
    if packet.upper != TCP or packet.fragment or not packet.has(TCP_HEADER):
        return False
    if packet.upper_bytes(13, 14)[0] & RST:
        return False
    data = packet.data
    if packet.passing.captured < len(data):
        raise Undecidable("the capture cuts the packet; its checksum says whether a reset answers it")
    return checksum_is_right(data, packet.offset, TCP, ipv6=packet.ip6)


def _length(kind: int, second: int) -> int:
    """Bytes of an extension header, by its second byte."""
    if kind == FRAGMENT:
        return 8
    return 4 * (second + 2) if kind == AUTHENTICATION else 8 * (second + 1)


def find_upper(data: bytes, behind_authentication: bool) -> tuple[int | None, int, int]:
    """Upper protocol, where its header begins, fragment offset: ipv6_find_hdr with target -1.

    Of a fragment that is not the first, protocol and offset are known, and the header "begins" at 0.
    """
    kind, start = data[6:7][0], 40
    while kind in EXTENSIONS and kind != NO_NEXT:
        if start + 2 > len(data):
            return None, 0, 0
        following, second = data[start : start + 2]
        if kind == ROUTING and start + 4 > len(data):
            return None, 0, 0
        if kind == FRAGMENT:
            if start + 4 > len(data):
                return None, 0, 0
            if at := int.from_bytes(data[start + 2 : start + 4]) & ~7:
                last = following not in EXTENSIONS or following == NO_NEXT
                return (following, 0, at) if last else (None, 0, 0)
        if kind == AUTHENTICATION and not behind_authentication:
            break
        kind, start = following, start + _length(kind, second)
    return kind, start, 0


def skip_extensions(data: bytes) -> tuple[int, int, int] | None:
    """Protocol, where it begins, fragment offset: ipv6_skip_exthdr. None: the chain is broken."""
    kind, start = data[6:7][0], 40
    while kind in EXTENSIONS:
        if kind == NO_NEXT or start + 2 > len(data):
            return None
        following, second = data[start : start + 2]
        if kind == FRAGMENT:
            if start + 4 > len(data):
                return None
            if at := int.from_bytes(data[start + 2 : start + 4]) & ~7:
                return kind, start, at
        kind, start = following, start + _length(kind, second)
    return kind, start, 0
