"""Every rule of nf_tables that a packet matched, by the kernel's own trace.

In:  the network namespace that this process is in; the trace messages of one packet at a time.
Out: Step for each line of the trace; the rules with their handles (also those of iptables-nft).
Source: Linux net/netfilter/nf_tables_trace.c; NFTA_TRACE_* and NFTA_RULE_* of linux/netfilter/nf_tables.h.

A table of our own marks packets for the trace and changes nothing else. Its chain comes before all others,
and so tells which frames have entered; where there are fragments, a second one behind their reassembly tells
what came out of that. The mark (skb->nf_trace) is iptables' too: legacy_trace.py.

Standard library only, as all that runs in the lab.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, NamedTuple

from rulegen.testbed.netlink import (
    BODY_AT,
    FAMILIES,
    FAMILY_AT,
    MESSAGE_MAX,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attributes,
    dump,
    message,
    opened,
)
from rulegen.testbed.netns import LabError, run

TABLE: Final = "tlswall-trace"
_WHOLE: Final = "whole"
_MARKS: Final = f"""
create table inet {TABLE}
table inet {TABLE} {{
 chain entered {{
  type filter hook prerouting priority -2147483648
  meta nftrace set 1 accept
 }}
}}
"""
_TELL_WHOLE: Final = f"""
table inet {TABLE} {{
 chain {_WHOLE} {{
  type filter hook prerouting priority -399
  accept
 }}
}}
"""
"""-399 is right behind NF_IP_PRI_CONNTRACK_DEFRAG, linux/netfilter_ipv4.h."""

_NFNLGRP_NFTRACE: Final = 9
_GET_RULE: Final = 10 << 8 | 7
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_GETRULE."""

# NFTA_TRACE_*
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _POLICY = 1, 2, 3, 4, 5, 16
# NFTA_RULE_*, NFTA_EXPR_*, NFTA_MATCH_*
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_MATCH_NAME, _MATCH_INFO = 1, 3
_UDATA_COMMENT: Final = 0
"""NFTNL_UDATA_RULE_COMMENT, libnftnl include/udata.h."""

_ID_AT: Final = 36
_ID_END: Final = 44
"""Where the id is: behind NFTA_TRACE_NFPROTO and NFTA_TRACE_TYPE, nf_tables_trace.c nft_trace_notify."""
POLICY: Final = 1
RETURN: Final = 2
RULE: Final = 3
"""NFT_TRACETYPE_*, nf_tables.h."""

NF_DROP: Final = 0
NF_ACCEPT: Final = 1


class Step(NamedTuple):
    """A line of the kernel's trace."""

    family: str
    table: str
    chain: str
    kind: int
    """POLICY, RETURN or RULE."""
    rule: int
    """nf_tables: the rule's handle; 0: the end of the chain. iptables-legacy: its number."""
    verdict: int | None
    """nf_tables: NF_DROP and so on, negative where the packet goes on in a chain. iptables-legacy: None."""


class Trace(NamedTuple):
    """What the kernel tells of one frame."""

    entered: bool
    """It came to the first hook; the kernel throws away before what has a damaged header."""
    whole: bool
    """It came to the hooks behind the reassembly of fragments; told after `tell_whole`."""
    steps: tuple[Step, ...]


class Listed(NamedTuple):
    """A rule of nf_tables."""

    family: str
    table: str
    chain: str
    handle: int
    comment: str | None


class NftTrace:
    """A reader of the trace. The table for it is there until the ruleset is flushed."""

    def __init__(self, netlink: socket.socket) -> None:
        self._netlink = netlink
        self._steps: dict[bytes, Step] = {}
        self._tells_whole = False

    @classmethod
    def start(cls) -> NftTrace:
        """Mark all packets from here on."""
        run("nft", "-f", "-", text=_MARKS)
        return cls(opened(_NFNLGRP_NFTRACE))

    def close(self) -> None:
        """Close the reader."""
        self._netlink.close()

    def tell_whole(self) -> None:
        """Have `Trace.whole` told from here on; every line of a trace costs time."""
        if not self._tells_whole:
            run("nft", "-f", "-", text=_TELL_WHOLE)
            self._tells_whole = True

    def read(self, addresses: bytes) -> Trace:
        """What has been told since the last reading.

        Args:
            addresses: Link-layer addresses of the only frame that was sent since.

        Raises:
            LabError: The kernel could not tell all, or tells of another frame.
        """
        entered = whole = False
        steps: list[Step] = []
        while (told := received(self._netlink)) is not None:
            key = told[FAMILY_AT:_ID_AT] + told[_ID_END:]
            step = self._steps.get(key) or self._step(told)
            if step.table != TABLE:
                steps.append(step)
            elif step.chain == _WHOLE:
                whole = True
            elif addresses in told:
                entered = True
            else:
                raise LabError("the lab's trace tells of another packet than the one that was sent")
        return Trace(entered, whole, tuple(steps))

    def _step(self, told: bytes) -> Step:
        """What a message says up to the verdict; the packet's own bytes and marks, if any, come behind it."""
        at, kind = _ID_END, 0
        while kind not in (_VERDICT, _POLICY) and at < len(told):
            size, kind = struct.unpack_from("=HH", told, at)
            at += size + 3 & ~3
        key = told[FAMILY_AT:_ID_AT] + told[_ID_END:at]
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = _parsed(told[:at])
        return step


def _parsed(told: bytes) -> Step:
    values = dict(attributes(told, BODY_AT))
    verdict = None
    if _POLICY in values:
        (verdict,) = struct.unpack("!i", values[_POLICY])
    elif _VERDICT in values:
        (verdict,) = struct.unpack_from("!i", values[_VERDICT], 4)  # NFTA_VERDICT_CODE comes first in it
    return Step(
        FAMILIES.get(told[FAMILY_AT], str(told[FAMILY_AT])),
        _text(values[_TABLE]),
        _text(values[_CHAIN]),
        int.from_bytes(values[_TYPE], "big"),
        int.from_bytes(values.get(_HANDLE, b""), "big"),
        verdict,
    )


def received(netlink: socket.socket) -> bytes | None:
    """The next message that is there already; LabError where the kernel had no room for one."""
    try:
        return netlink.recv(MESSAGE_MAX, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            raise LabError("the kernel's trace of a packet is larger than the room for it") from error
        raise


def rules() -> list[Listed]:
    """The rules of the current namespace, in the order of their chains, without those of the trace."""
    with opened() as netlink:
        listed = [_listed(answer) for answer in dump(netlink, message(_GET_RULE, NLM_F_REQUEST | NLM_F_DUMP))]
    return [rule for rule in listed if rule.table != TABLE]


def _listed(answer: bytes) -> Listed:
    values = dict(attributes(answer, BODY_AT))
    return Listed(
        FAMILIES.get(answer[FAMILY_AT], str(answer[FAMILY_AT])),
        _text(values[_RULE_TABLE]),
        _text(values[_RULE_CHAIN]),
        int.from_bytes(values[_RULE_HANDLE], "big"),
        _comment(values),
    )


def _comment(values: dict[int, bytes]) -> str | None:
    """Kept beside the rule by nft, among its matches by iptables-nft."""
    beside = values.get(_RULE_USERDATA, b"")
    while len(beside) > 2:
        kind, size = beside[0], beside[1]
        if kind == _UDATA_COMMENT:
            return _text(beside[2 : 2 + size])
        beside = beside[2 + size :]
    for _, expression in attributes(values.get(_RULE_EXPRESSIONS, b"")):
        parts = dict(attributes(expression))
        if parts[_EXPRESSION_NAME] == b"match\0":
            match = dict(attributes(parts[_EXPRESSION_DATA]))
            if match[_MATCH_NAME] == b"comment\0":
                return _text(match[_MATCH_INFO])
    return None


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")
