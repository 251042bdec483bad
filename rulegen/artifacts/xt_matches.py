"""The matches of iptables by name: which options they take, and who reads them.

In:  xt_packet, xt_connection.
Out: MATCHES: name -> options and builder; builders return values of xt_values or raise ValueError.
Source: iptables-extensions(8) of 1.8.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rulegen.artifacts import xt_connection as connection
from rulegen.artifacts import xt_packet as packet
from rulegen.artifacts.xt_names import ICMP, ICMPV6
from rulegen.artifacts.xt_options import (
    Given,
    Options,
    Reader,
    flat,
)
from rulegen.artifacts.xt_values import (
    Match,
)

_PORTS: Final = ((1, "--sport|--source-port"), (1, "--dport|--destination-port"))

_TABLE: Final[tuple[tuple[str, dict[str, tuple[str, int]], Callable[[Reader], Match]], ...]] = (
    ("tcp", flat(*_PORTS, (2, "--tcp-flags"), (0, "--syn"), (1, "--tcp-option")), packet.tcp),
    ("udp", flat(*_PORTS), packet.udp),
    ("udplite", flat(*_PORTS), packet.udp),
    ("icmp", flat((1, "--icmp-type")), packet.icmp("icmp-type", ICMP)),
    ("icmp6", flat((1, "--icmpv6-type")), packet.icmp("icmpv6-type", ICMPV6)),
    ("icmpv6", flat((1, "--icmpv6-type")), packet.icmp("icmpv6-type", ICMPV6)),
    (
        "multiport",
        flat((1, "--sports|--source-ports"), (1, "--dports|--destination-ports"), (1, "--ports")),
        packet.multiport,
    ),
    ("u32", flat((1, "--u32")), packet.u32),
    ("bpf", flat((1, "--bytecode"), (1, "--object-pinned")), packet.bpf),
    (
        "conntrack",
        flat(
            (1, "--ctstate"),
            (1, "--ctdir"),
            (1, "--ctproto"),
            (1, "--ctstatus"),
            (1, "--ctexpire"),
            *((1, f"--{name}") for name in connection.TUPLES),
        ),
        connection.conntrack,
    ),
    ("state", flat((1, "--state")), connection.state),
    ("connmark", flat((1, "--mark")), connection.connmark),
    ("mark", flat((1, "--mark")), connection.mark),
    (
        "string",
        flat((1, "--string"), (1, "--hex-string"), (1, "--algo"), (1, "--from"), (1, "--to"), (0, "--icase")),
        packet.string,
    ),
    ("length", flat((1, "--length")), packet.length),
    (
        "set",
        flat(
            (2, "--match-set"),
            (0, "--return-nomatch"),
            (0, "--update-counters"),
            (0, "--update-subcounters"),
            *((1, f"--{what}-{op}") for what in ("packets", "bytes") for op in ("eq", "lt", "gt")),
        ),
        connection.in_set,
    ),
    ("limit", flat((1, "--limit"), (1, "--limit-burst")), connection.limit),
    (
        "hashlimit",
        flat(
            (1, "--hashlimit-upto|--hashlimit"),
            (1, "--hashlimit-above"),
            (1, "--hashlimit-burst"),
            (1, "--hashlimit-mode"),
            (1, "--hashlimit-name"),
            (1, "--hashlimit-srcmask"),
            (1, "--hashlimit-dstmask"),
            (1, "--hashlimit-htable-size"),
            (1, "--hashlimit-htable-max"),
            (1, "--hashlimit-htable-expire"),
            (1, "--hashlimit-htable-gcinterval"),
            (0, "--hashlimit-rate-match"),
            (1, "--hashlimit-rate-interval"),
        ),
        connection.hashlimit,
    ),
    (
        "connlimit",
        flat(
            (1, "--connlimit-above"),
            (1, "--connlimit-upto"),
            (1, "--connlimit-mask"),
            (0, "--connlimit-saddr"),
            (0, "--connlimit-daddr"),
        ),
        connection.connlimit,
    ),
    (
        "recent",
        flat(
            (0, "--set"),
            (0, "--rcheck"),
            (0, "--update"),
            (0, "--remove"),
            (1, "--name"),
            (1, "--seconds"),
            (1, "--hitcount"),
            (0, "--reap"),
            (0, "--rttl"),
            (1, "--mask"),
            (0, "--rsource"),
            (0, "--rdest"),
        ),
        connection.recent,
    ),
    (
        "addrtype",
        flat((1, "--src-type"), (1, "--dst-type"), (0, "--limit-iface-in"), (0, "--limit-iface-out")),
        packet.addrtype,
    ),
)


def _builder(name: str, build: Callable[[Reader], Match]) -> Callable[[tuple[Given, ...]], Match]:
    return lambda given: build(Reader(name, given))


MATCHES: Final[dict[str, tuple[Options, Callable[[tuple[Given, ...]], Match]]]] = {
    name: (options, _builder(name, build)) for name, options, build in _TABLE
}
