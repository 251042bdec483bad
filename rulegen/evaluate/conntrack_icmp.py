"""What connection tracking makes of ICMP: messages about packets of other connections, and questions.

In:  the bytes of a packet whose ICMP header is at an offset.
Out: the name of the connection that it is about, a state, or None if it has a connection of its own.
Source: Linux net/netfilter/nf_conntrack_proto_icmp.c nf_conntrack_icmpv4_error, nf_conntrack_inet_error,
    nf_conntrack_icmp_packet; nf_conntrack_proto_icmpv6.c nf_conntrack_icmpv6_error,
    nf_conntrack_icmpv6_redirect; RFC 792, RFC 4443, RFC 4861.

The packet inside an error is named the other way round: the error goes to where that packet came from.
"""

from __future__ import annotations

from typing import Final

from rulegen.evaluate.conntrack_headers import (
    ICMP,
    ICMPV6,
    Tuple,
    checksum_is_right,
    inverse,
    transport,
    tuple_of,
)
from rulegen.evaluate.conntrack_settings import Settings
from rulegen.ir.match import State

_HEADER: Final = 8
_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_LAST_TYPE: Final = 18
_BEGINNING: Final = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128, 139})}
_NEIGHBOURS: Final = frozenset({130, 131, 132, 133, 134, 135, 136, 143, 151, 152})
"""Multicast listener, neighbour and multicast router discovery: never tracked. The last two (RFC 4286) are
measured on 6.18."""
_FIRST_QUESTION: Final = 128
_REDIRECT: Final = 137
_REDIRECT_SIZE: Final = 40
_REDIRECTED_HEADER: Final = 4
_HOP_LIMIT_AT: Final = 7


def may_begin(original: Tuple, *, ipv6: bool) -> bool:
    """Whether a connection of this name can exist: its first packet is a question."""
    protocol = original[4]
    return protocol == (ICMPV6 if ipv6 else ICMP) and original[3] >> 8 in _BEGINNING[protocol]


def reads(data: bytes, at: int, *, ipv6: bool) -> int:
    """Bytes of the message that are looked at, at most."""
    number = data[at] if at < len(data) else 0
    is_error = (number < _FIRST_QUESTION or number == _REDIRECT) if ipv6 else number in _ERRORS
    return _REDIRECT_SIZE + 8 + 60 + _HEADER if is_error else _HEADER


def judge_icmp(data: bytes, at: int, settings: Settings) -> Tuple | State | None:
    """Judge an ICMP message before it is looked up."""
    if at + _HEADER > len(data):
        return State.INVALID
    if settings.checksum and not checksum_is_right(data, at, ICMP, ipv6=False):
        return State.INVALID
    number = data[at]
    if number > _LAST_TYPE:
        return State.INVALID
    return _about(data, at + _HEADER, ipv6=False) if number in _ERRORS else None


def judge_icmpv6(data: bytes, at: int, settings: Settings) -> Tuple | State | None:
    """Judge an ICMPv6 message before it is looked up."""
    if at + _HEADER > len(data):
        return State.INVALID
    if settings.checksum and not checksum_is_right(data, at, ICMPV6, ipv6=True):
        return State.INVALID
    number = data[at]
    if number in _NEIGHBOURS:
        return State.UNTRACKED
    if number == _REDIRECT:
        return _redirect(data, at)
    return _about(data, at + _HEADER, ipv6=True) if number < _FIRST_QUESTION else None


def _redirect(data: bytes, at: int) -> Tuple | State | None:
    """RFC 4861 section 8: tells a host of a better first hop for the packet in it."""
    option = at + _REDIRECT_SIZE
    if option > len(data):
        return State.INVALID
    if data[at + 1] != 0:
        return None
    link_local = data[8] == 0xFE and data[9] & 0xC0 == 0x80
    if data[_HOP_LIMIT_AT] != 255 or not link_local:
        return State.INVALID
    if option + 2 > len(data) or data[option + 1] == 0:
        return State.INVALID
    if data[option] != _REDIRECTED_HEADER:
        return None
    return _about(data, option + 8, ipv6=True)


def _about(data: bytes, at: int, *, ipv6: bool) -> Tuple | State:
    """The name, in the error's direction, of the connection whose packet is at `at`."""
    located = transport(data, at, ipv6=ipv6)
    if located is None:
        return State.INVALID
    name = tuple_of(data, at, *located, ipv6=ipv6)
    opposite = None if name is None else inverse(name)
    return State.INVALID if opposite is None else opposite
