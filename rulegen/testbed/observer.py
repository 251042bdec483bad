"""See what the kernel does with a packet: what comes out where, and every rule that it matched.

In:  the Lab; whether iptables-legacy's rules are loaded; packets with their side.
Out: Seen for each packet.
Source: ends.py, trace.py, legacy_trace.py.

One packet at a time, so that what is seen belongs to it: also the answers of a rule, and what comes out when
the last fragment of a datagram goes in. Standard library only, as all that runs in the lab.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from rulegen.testbed.ends import (
    HEADER_BYTES,
    answers_to,
    frame_of,
    link_addresses,
    sentinel_of,
    until,
    waiting,
)
from rulegen.testbed.legacy_trace import LegacyTrace
from rulegen.testbed.netns import Lab
from rulegen.testbed.packets import is_fragment
from rulegen.testbed.trace import Listed, NftTrace, Step, rules

_LIBC: Final = ctypes.CDLL(None)


class Seen(NamedTuple):
    """What the kernel did with a packet."""

    passed: bool
    """It came out at the other side, byte for byte."""
    instead: tuple[bytes, ...]
    """IP packets that came out at the other side and were not sent so: the fragments of a datagram that was
    put together, or a packet that a rule changed."""
    answers: tuple[bytes, ...]
    """IP packets that came back to its sender."""
    entered: bool
    """It came to the first hook."""
    whole: bool
    """Of a fragment: it, or its datagram, came to the hooks behind the reassembly of fragments."""
    steps: tuple[Step, ...]


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Stay on this processor: a packet's way through the kernel is over before the next one's begins."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_LIBC.sched_getcpu()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Observer:
    """Traces of a loaded ruleset. Close it before rules change."""

    def __init__(self, lab: Lab, nft: NftTrace, legacy: LegacyTrace | None) -> None:
        self._ends = (lab.client, lab.server)
        self._nft = nft
        self._legacy = legacy
        self._sent = 0

    @classmethod
    def start(cls, lab: Lab, *, legacy: bool) -> Observer:
        """Trace all packets from here on."""
        for end in (lab.client, lab.server):
            waiting(end)
        return cls(lab, NftTrace.start(), LegacyTrace.start() if legacy else None)

    def close(self) -> None:
        """End the trace; its table stays until the ruleset is flushed."""
        self._nft.close()
        if self._legacy is not None:
            self._legacy.close()

    def rules(self) -> list[Listed]:
        """The rules of nf_tables that steps refer to."""
        return rules()

    def observe(self, side: int, packet: bytes) -> Seen:
        """Send an IP packet and see all that becomes of it."""
        self._sent += 1
        addresses = link_addresses(side, self._sent)
        frame, sentinel = frame_of(addresses, packet), sentinel_of(addresses)
        if is_fragment(packet):
            self._nft.tell_whole()
        here, there = self._ends[side], self._ends[1 - side]
        here.send(frame)
        here.send(sentinel)
        arrived = until(there, sentinel)
        answers = waiting(here)
        trace = self._nft.read(addresses)
        steps = trace.steps if self._legacy is None else trace.steps + self._legacy.read()
        passed = frame in arrived
        if passed and len(arrived) == 1 and not answers:
            return Seen(True, (), (), trace.entered, trace.whole, steps)
        return Seen(
            passed,
            # What the firewall itself sends to all, such as multicast listener reports, has another source.
            tuple(one[HEADER_BYTES:] for one in arrived if one != frame and one[6:8] == frame[6:8]),
            tuple(answers_to(packet, answers)),
            trace.entered,
            trace.whole,
            steps,
        )
