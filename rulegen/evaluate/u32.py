"""Evaluate the expressions of xt_u32 over a packet, as the kernel does.

In:  U32; the packet from its network header on.
Out: whether all tests hold.
Source: Linux net/netfilter/xt_u32.c u32_match_it.

Every load is of four bytes; one that is not in the packet as a whole ends the match with "no".
"""

from __future__ import annotations

from typing import Final

from rulegen.artifacts.u32 import U32, U32Test

_MASK: Final = 0xFFFFFFFF


def matches(program: U32, packet: bytes) -> bool:
    """What `-m u32` says, not inverted."""
    return all(_holds(test, packet) for test in program.tests)


def _holds(test: U32Test, packet: bytes) -> bool:
    size = len(packet)
    start = test.location.start
    base = 0
    if start + 4 > size:
        return False
    value = int.from_bytes(packet[start : start + 4])
    for step in test.location.steps:
        number = step.number
        if step.op == "&":
            value &= number
        elif step.op == ">>":
            value >>= number
        elif step.op == "<<":
            value = value << number & _MASK
        else:
            base += value
            # The kernel's sums have 32 bits; what overflows them is far behind any packet.
            if base + number + 4 > size:
                return False
            value = int.from_bytes(packet[base + number : base + number + 4])
    return any(low <= value <= high for low, high in test.ranges)
