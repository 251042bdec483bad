"""The matches that iptables-nft says in nft's own words, as nft judges them.

In:  values of xt_values; Packet.
Out: tests, where nft has words for the match; None where it has none.
Source: iptables 1.8.9 iptables/nft.c add_match, add_nft_tcp, add_nft_udp, add_limit; Linux
    net/netfilter/nf_tables_core.c nft_payload_fast_eval.

nft's short way to load bytes knows no fragments: ports are what lies at their place, whatever it is. A load
that is not in the packet matches nothing, inverted or not.
"""

from __future__ import annotations

from collections.abc import Iterator

from rulegen.artifacts.xt_values import FlagsTest, PortTest, Protocol, Tcp, Udp
from rulegen.evaluate.xtables_matches import Test
from rulegen.evaluate.xtables_packet import Packet


def protocol(match: Protocol) -> Test:
    number, inverted = match.number, match.inverted
    return lambda packet: packet.upper is not None and (packet.upper == number) is not inverted


def tcp_or_udp(match: Tcp | Udp) -> Test | None:
    """Tests of ports and flags. None: the kernel's own module is asked."""
    flags = match.flags if isinstance(match, Tcp) else None
    if isinstance(match, Tcp) and match.option:
        return None
    if not (flags and (flags.mask or flags.set or flags.inverted)) and all(
        _is_every(ports) and not (ports and ports.inverted) for ports in (match.source, match.destination)
    ):
        return None
    tests = tuple(_tests(match.source, match.destination, flags))

    def test(packet: Packet) -> bool:
        return packet.upper is not None and all(one(packet) for one in tests)

    return test


def _is_every(ports: PortTest | None) -> bool:
    return ports is None or (ports.low, ports.high) == (0, 0xFFFF)


def _tests(source: PortTest | None, destination: PortTest | None, flags: FlagsTest | None) -> Iterator[Test]:
    if flags and flags.mask:
        yield _flags(flags)
    if (
        source and destination and _is_one(source) and _is_one(destination)
        and source.inverted is destination.inverted
    ):  # fmt: skip
        yield _both(source.low << 16 | destination.low, source.inverted)
        return
    for ports, at in ((source, 0), (destination, 2)):
        # `! --dport 0:65535` matches every packet: iptables-nft leaves out what is every port.
        if ports is not None and not _is_every(ports):
            yield _ports(ports, at)


def _is_one(ports: PortTest) -> bool:
    return ports.low == ports.high != 0


def _both(value: int, inverted: bool) -> Test:
    """Two single ports are one compare of four bytes: inverted, it is enough that one port differs."""

    def test(packet: Packet) -> bool:
        start = packet.offset
        if start + 4 > len(packet.data):
            return False
        return (int.from_bytes(packet.data[start : start + 4]) == value) is not inverted

    return test


def _flags(flags: FlagsTest) -> Test:
    def test(packet: Packet) -> bool:
        at = packet.offset + 13
        if at >= len(packet.data):
            return False
        return (packet.data[at : at + 1][0] & flags.mask == flags.set) is not flags.inverted

    return test


def _ports(ports: PortTest, at: int) -> Test:
    low, high, inverted = ports.low, ports.high, ports.inverted

    def test(packet: Packet) -> bool:
        start = packet.offset + at
        if start + 2 > len(packet.data):
            return False
        return (low <= int.from_bytes(packet.data[start : start + 2]) <= high) is not inverted

    return test
