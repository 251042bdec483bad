"""Where connection tracking finds the transport header of a packet, and what it takes from it.

In:  the bytes of an IP packet, or of one inside an ICMP error.
Out: protocol and offset; the tuple that names a connection's direction; whether a checksum is right.
Source: Linux net/netfilter/nf_conntrack_core.c ipv4_get_l4proto, ipv6_get_l4proto, nf_ct_get_tuple,
    nf_ct_invert_tuple; net/ipv6/exthdrs_core.c ipv6_skip_exthdr; nf_conntrack_proto_gre.c gre_pkt_to_tuple.

It reads past an authentication header, which other parts of netfilter (ipv6_find_hdr) do not.
"""

from __future__ import annotations

import struct
from typing import Final

ICMP, TCP, UDP, GRE, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 47, 58, 132, 136
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NOTHING, DESTINATION = 0, 43, 44, 51, 59, 60
"""IANA protocol numbers."""

EXTENSIONS: Final = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NOTHING, DESTINATION})
FRAGMENT_OFFSET: Final = 0xFFF8
"""Of the field in an IPv6 fragment header; bits that the offset does not use are left out."""

_IPV4_OFFSET: Final = 0x1FFF
_WITH_PORTS: Final = frozenset({TCP, UDP, UDPLITE, SCTP})
_PPP: Final = 0x880B
_PORTS: Final = struct.Struct("!HH")
_GRE: Final = struct.Struct("!HHHH")
_ICMP_HEADER: Final = 8

Tuple = tuple[bytes, bytes, int, int, int]
"""Source and destination address, source and destination port, protocol. For ICMP the first port is the
identifier, the second type and code; protocols without ports have 0."""

_ANSWERS: Final = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    ICMPV6: {128: 129, 129: 128, 139: 140, 140: 139},
}
"""By type; other types have no opposite direction."""


def transport(data: bytes, at: int = 0, *, ipv6: bool) -> tuple[int, int] | None:
    """Protocol and offset of the transport header of the IP packet at `at`.

    Returns:
        None if there is none: a later fragment, a header that is not all there. The offset may be the
        packet's end.
    """
    if ipv6:
        return _transport6(data, at)
    if at + 20 > len(data):
        return None
    if (data[at + 6] << 8 | data[at + 7]) & _IPV4_OFFSET:
        return None
    start = at + 4 * (data[at] & 15)
    return None if start > len(data) else (data[at + 9], start)


def _transport6(data: bytes, at: int) -> tuple[int, int] | None:
    if at + 40 > len(data):
        return None
    found = skip_extensions(data, at + 40, data[at + 6])
    if found is None or found[2] & FRAGMENT_OFFSET:
        return None
    return found[0], found[1]


def skip_extensions(data: bytes, at: int, following: int) -> tuple[int, int, int] | None:
    """Protocol, offset and the last fragment header's offset field, behind the extension headers at `at`.

    Returns:
        None if a header is not all there or says that nothing follows. At a later fragment the walk ends.
    """
    offset_field = 0
    while following in EXTENSIONS:
        if following == NOTHING or at + 2 > len(data):
            return None
        if following == FRAGMENT:
            if at + 4 > len(data):
                return None
            offset_field = data[at + 2] << 8 | data[at + 3]
            if offset_field & FRAGMENT_OFFSET:
                break
            size = 8
        else:
            size = extension_size(following, data[at + 1])
        following, at = data[at], at + size
    return following, at, offset_field


def extension_size(number: int, length: int) -> int:
    """Bytes of an extension header, by the length field in it; not of a fragment header."""
    return 4 * (length + 2) if number == AUTHENTICATION else 8 * (length + 1)


def tuple_of(data: bytes, at: int, protocol: int, transport_at: int, *, ipv6: bool) -> Tuple | None:
    """What names the connection and direction of the IP packet at `at`.

    Returns:
        None if the transport header is too short for it.
    """
    if ipv6:
        source, destination = data[at + 8 : at + 24], data[at + 24 : at + 40]
    else:
        source, destination = data[at + 12 : at + 16], data[at + 16 : at + 20]
    if protocol in _WITH_PORTS:
        if transport_at + 4 > len(data):
            return None
        ports = _PORTS.unpack_from(data, transport_at)
        return source, destination, ports[0], ports[1], protocol
    if protocol in (ICMP, ICMPV6):
        if transport_at + _ICMP_HEADER > len(data):
            return None
        type_and_code, _, identifier = struct.unpack_from("!HHH", data, transport_at)
        return source, destination, identifier, type_and_code, protocol
    call = 0
    if protocol == GRE and transport_at + _GRE.size <= len(data):
        flags, carried, _, call_id = _GRE.unpack_from(data, transport_at)
        if flags & 7 == 1:
            if carried != _PPP:
                return None
            call = call_id
    return source, destination, 0, call, protocol


def inverse(one: Tuple) -> Tuple | None:
    """The tuple of the other direction; None for ICMP messages that nothing answers."""
    source, destination, source_port, destination_port, protocol = one
    answers = _ANSWERS.get(protocol)
    if answers is None:
        return destination, source, destination_port, source_port, protocol
    answer = answers.get(destination_port >> 8)
    if answer is None:
        return None
    return destination, source, source_port, answer << 8 | destination_port & 0xFF, protocol


def ipv4_checksum(header: bytes | bytearray) -> int:
    """Of an IPv4 header whose checksum field is 0 (RFC 1071)."""
    return 0xFFFF - (int.from_bytes(header, "big") % 0xFFFF or 0xFFFF)


def checksum_is_right(data: bytes, at: int, protocol: int, *, ipv6: bool, covered: int | None = None) -> bool:
    """Whether the transport checksum at `at` is right: of the whole packet, or of `covered` bytes of it.

    Source: Linux net/netfilter/utils.c nf_checksum, nf_checksum_partial: the length that is summed up is that
    of the packet, also where UDP has a length of its own.
    """
    length = len(data) - at
    body = data[at:] if covered is None else data[at : at + covered]
    if protocol == ICMP:
        pseudo = b""
    elif ipv6:
        pseudo = data[8:40] + struct.pack("!II", length, protocol)
    else:
        pseudo = data[12:20] + struct.pack("!II", length, protocol)
    whole = int.from_bytes(pseudo + body + b"\0" * (len(body) % 2), "big")
    # The words' sum with its carries folded in is the number modulo 2^16 - 1 (RFC 1071).
    return whole != 0 and whole % 0xFFFF == 0
