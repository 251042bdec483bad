"""The matches of iptables that look at one packet, as the kernel's modules judge it.

In:  values of xt_values; Packet.
Out: for each kind of match a test that says whether the packet matches.
Source: Linux net/ipv4/netfilter/ip_tables.c, net/ipv6/netfilter/ip6_tables.c; net/netfilter/xt_tcpudp.c,
    xt_multiport.c, xt_u32.c, xt_bpf.c, xt_length.c, xt_string.c, xt_mark.c, xt_addrtype.c.

iptables-nft says some of them in nft's own words, which judge fragments and cut headers differently: those
are in xtables_native.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from rulegen.artifacts.xt_values import (
    Address,
    AddrType,
    Bpf,
    Fragment,
    Icmp,
    Interface,
    Length,
    Mark,
    Multiport,
    OptionTest,
    PortTest,
    Protocol,
    String,
    Tcp,
    TypesTest,
    U32Match,
    Udp,
)
from rulegen.evaluate import cbpf, text_search, u32
from rulegen.evaluate.base import Undecidable
from rulegen.evaluate.xtables_packet import TCP_HEADER, HotDrop, Packet

Test: TypeAlias = Callable[[Packet], bool]

UDP_HEADER: Final = 8
ICMP_HEADER: Final = 8


def protocol(match: Protocol) -> Test:
    number, inverted = match.number, match.inverted

    def test(packet: Packet) -> bool:
        if packet.upper is None:
            raise HotDrop
        return (packet.upper == number) is not inverted

    return test


def address(match: Address) -> Test:
    size = match.width_bits // 8
    start = (12 if size == 4 else 8) + (0 if match.side == "source" else size)
    end, value, mask, inverted = start + size, match.value, match.mask, match.inverted

    def test(packet: Packet) -> bool:
        return (int.from_bytes(packet.data[start:end]) & mask == value) is not inverted

    return test


def interface(match: Interface) -> Test:
    inside, name, prefix, inverted = match.side == "in", match.name, match.prefix, match.inverted

    def test(packet: Packet) -> bool:
        its = packet.interface_in if inside else packet.interface_out
        return (its.startswith(name) if prefix else its == name) is not inverted

    return test


def fragment(match: Fragment) -> Test:
    return lambda packet: (packet.fragment != 0) is not match.inverted


def _port(test: PortTest | None, packet: Packet, at: int) -> bool:
    if test is None:
        return True
    port = int.from_bytes(packet.upper_bytes(at, at + 2))
    return (test.low <= port <= test.high) is not test.inverted


def tcp(match: Tcp) -> Test:
    def test(packet: Packet) -> bool:
        if packet.fragment:
            if packet.fragment == 1:
                raise HotDrop  # it would overwrite the flags of the first fragment
            return False
        if not packet.has(TCP_HEADER):
            raise HotDrop
        if not (_port(match.source, packet, 0) and _port(match.destination, packet, 2)):
            return False
        flags = match.flags
        if flags and (packet.upper_bytes(13, 14)[0] & flags.mask == flags.set) is flags.inverted:
            return False
        return match.option is None or _has_option(match.option, packet)

    return test


def _has_option(option: OptionTest, packet: Packet) -> bool:
    size = 4 * (packet.upper_bytes(12, 13)[0] >> 4)
    if size < TCP_HEADER or not packet.has(size):
        raise HotDrop
    rest = packet.upper_bytes(TCP_HEADER, size)
    at = 0
    while at < len(rest):
        if rest[at] == option.kind:
            return not option.inverted
        # The length of an option that is cut off does not matter: nothing is behind it.
        at += 1 if rest[at] < 2 or at + 1 == len(rest) else rest[at + 1] or 1
    return option.inverted


def udp(match: Udp) -> Test:
    def test(packet: Packet) -> bool:
        if packet.fragment:
            return False
        if not packet.has(UDP_HEADER):
            raise HotDrop
        return _port(match.source, packet, 0) and _port(match.destination, packet, 2)

    return test


def icmp(match: Icmp) -> Test:
    low, high = match.codes

    def test(packet: Packet) -> bool:
        if packet.fragment:
            return False
        if not packet.has(ICMP_HEADER):
            raise HotDrop
        if match.type == 0xFF and not packet.ip6:
            return not match.inverted
        kind, code = packet.upper_bytes(0, 2)
        return (kind == match.type and low <= code <= high) is not match.inverted

    return test


def multiport(match: Multiport) -> Test:
    first, behind = {"source": (0, 2), "destination": (2, 4), "either": (0, 4)}[match.side]

    def test(packet: Packet) -> bool:
        if packet.fragment:
            return False
        if not packet.has(4):
            raise HotDrop
        both = packet.upper_bytes(first, behind)
        asked = {int.from_bytes(both[:2]), int.from_bytes(both[-2:])}
        held = any(low <= port <= high for low, high in match.ports for port in asked)
        return held is not match.inverted

    return test


def u32_match(match: U32Match) -> Test:
    return lambda packet: u32.matches(match.program, packet.data) is not match.inverted


def bpf(match: Bpf) -> Test:
    def test(packet: Packet) -> bool:
        try:
            return cbpf.matches(match.program, packet.data)
        except cbpf.NotInPacket as error:
            raise Undecidable(f"-m bpf asks for what the packet does not tell: {error}") from None

    return test


def length(match: Length) -> Test:
    def test(packet: Packet) -> bool:
        at = 4 if packet.ip6 else 2
        its = int.from_bytes(packet.data[at : at + 2]) + (40 if packet.ip6 else 0)
        return (match.low <= its <= match.high) is not match.inverted

    return test


def string(match: String) -> Test:
    def test(packet: Packet) -> bool:
        held = text_search.found(match, packet.data, packet.passing.captured)
        if held and match.algorithm == "bm" and len(packet.passing.fragments) > 1:
            raise Undecidable("-m string --algo bm misses what lies in two fragments of a datagram")
        return held is not match.inverted

    return test


def mark(match: Mark) -> Test:
    return lambda packet: (packet.passing.mark & match.mask == match.value) is not match.inverted


DECIDABLE_TYPES: Final = {"ip": frozenset({"UNICAST", "LOCAL", "BROADCAST", "MULTICAST"}),
                          "ip6": frozenset({"UNICAST", "MULTICAST", "UNSPEC"})}  # fmt: skip


def addrtype(match: AddrType) -> Test:
    def test(packet: Packet) -> bool:
        size = 16 if packet.ip6 else 4
        start = 8 if packet.ip6 else 12
        for asked in (match.source, match.destination):
            if asked is not None and not _is(asked, packet.data[start : start + size], packet.hook):
                return False
            start += size
        return True

    return test


def _is(test: TypesTest, its: bytes, hook: str) -> bool:
    """What passes through a bridge is neither from it nor for it; it has no addresses but loopback's."""
    if len(its) == 16:
        multicast, unspecified = its[0] == 0xFF, not any(its)
        # xt_addrtype's IPv6 asks for all of the types, IPv4's for one of them.
        held = (
            ("MULTICAST" not in test.types or multicast)
            and ("UNICAST" not in test.types or not (multicast or unspecified))
            and ("UNSPEC" not in test.types or unspecified)
        )
        return held is not test.inverted
    if its[0] == 0 or its == b"\xff\xff\xff\xff":
        kind = "BROADCAST"
    elif its[0] == 127:
        if its in (b"\x7f\0\0\0", b"\x7f\xff\xff\xff"):
            raise Undecidable(
                "-m addrtype: kernels differ on whether loopback's first and last are broadcast"
            )
        kind = "LOCAL"
    else:
        kind = "MULTICAST" if 0xE0 <= its[0] <= 0xEF else "UNICAST"
        if kind == "UNICAST" and hook in ("input", "output"):
            raise Undecidable("-m addrtype: the addresses of the host are not known")
    return (kind in test.types) is not test.inverted
