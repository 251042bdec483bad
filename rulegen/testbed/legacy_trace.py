"""Every rule of iptables-legacy that a packet matched, by the kernel's own trace.

In:  the network namespace that this process is in; packets that trace.py has marked.
Out: Step for each line of the trace.
Source: Linux net/ipv4/netfilter/ip_tables.c trace_packet, net/netfilter/nfnetlink_log.c.

The kernel logs "TRACE: table:chain:rule:number " for each rule that matches, before the rule's target is
asked, and "policy" or "return" in its place behind a chain's last rule. It says "policy" and "return" also
of rules that match everything and decide: the number tells them apart.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from rulegen.testbed.netlink import (
    BODY_AT,
    FAMILIES,
    FAMILY_AT,
    NLM_F_ACK,
    NLM_F_REQUEST,
    attribute,
    command,
    message,
    messages,
    opened,
)
from rulegen.testbed.netns import LabError, sysctl
from rulegen.testbed.trace import POLICY, RETURN, RULE, Step, received

_GROUP: Final = 0
"""Of NFLOG: where the kernel's own messages go."""
_LOGGERS: Final = ("net/netfilter/nf_log/2", "net/netfilter/nf_log/10")

# NFNL_SUBSYS_ULOG and NFULNL_MSG_, NFULA_CFG_, NFULA_: linux/netfilter/nfnetlink_log.h
_PACKET: Final = 4 << 8 | 0
_CONFIGURE: Final = 4 << 8 | 1
_COMMAND, _MODE, _ROOM, _THRESHOLD = 1, 2, 3, 5
_BIND: Final = b"\x01"
_COPY_NOTHING: Final = struct.pack("!IBx", 0, 0)
_SMALL: Final = struct.pack("!I", 512)
"""Bytes for a message; a larger one gets what it needs."""
_AT_ONCE: Final = struct.pack("!I", 1)
_PREFIX: Final = 10
_PREFIX_AT: Final = BODY_AT + 8
"""Behind NFULA_PACKET_HDR, which is always first: nfnetlink_log.c __build_packet_message."""

_SETTINGS: Final = (
    (_COMMAND, _BIND),
    (_MODE, _COPY_NOTHING),
    (_ROOM, _SMALL),
    (_THRESHOLD, _AT_ONCE),
)

_TRACE: Final = b"TRACE: "
_KINDS: Final = {"policy": POLICY, "return": RETURN, "rule": RULE}


class LegacyTrace:
    """A reader of the trace, beside an NftTrace, which marks the packets."""

    def __init__(self, netlink: socket.socket) -> None:
        self._netlink = netlink
        self._steps: dict[tuple[int, bytes], Step] = {}

    @classmethod
    def start(cls) -> LegacyTrace:
        """Have the kernel's log messages from here on; LabError if the kernel has no nfnetlink_log."""
        for name in _LOGGERS:
            try:
                sysctl(name, "nfnetlink_log")
            except OSError as error:
                raise LabError(f"the kernel has no nfnetlink_log for iptables-legacy: {error}") from error
        netlink = opened()
        for kind, value in _SETTINGS:
            flags, body = NLM_F_REQUEST | NLM_F_ACK, attribute(kind, value)
            command(netlink, message(_CONFIGURE, flags, body, resource=_GROUP))
        return cls(netlink)

    def close(self) -> None:
        """Close the reader."""
        self._netlink.close()

    def read(self) -> tuple[Step, ...]:
        """What has been told since the last reading; LabError where the kernel could not tell all."""
        steps: list[Step] = []
        while (datagram := received(self._netlink)) is not None:
            for kind, told in messages(datagram):
                if kind == _PACKET and (step := self._step(told)) is not None:
                    steps.append(step)
        return tuple(steps)

    def _step(self, told: bytes) -> Step | None:
        """None: a message of a rule that logs."""
        size, kind = struct.unpack_from("=HH", told, _PREFIX_AT)
        prefix = told[_PREFIX_AT + 4 : _PREFIX_AT + size]
        if kind != _PREFIX or not prefix.startswith(_TRACE):
            return None
        key = (told[FAMILY_AT], prefix)
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = parsed(FAMILIES[told[FAMILY_AT]], prefix)
        return step


def parsed(family: str, prefix: bytes) -> Step:
    """A line of the trace; chains' names may have colons in them, the rest has none."""
    line = prefix[len(_TRACE) :].rstrip(b"\0 ").decode(errors="replace")
    place, kind, number = line.rsplit(":", 2)
    table, _, chain = place.partition(":")
    return Step(family, table, chain, _KINDS[kind], int(number), None)
