"""Tests of nft's rules, each in its fastest form.

In:  Value of a stretch of registers, a constant.
Out: Step: whether the rule goes on with a packet.
Source: Linux net/netfilter/nft_cmp.c, nft_range.c: comparisons are of bytes, the first one first (memcmp).

A value that can't be computed ends the rule, whatever the test: `!=` too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rulegen.artifacts.nft_values import CtLoad, MetaLoad, PayloadLoad
from rulegen.evaluate.nft_loads import STATES, Getter, is_fast
from rulegen.evaluate.nft_packet import Seen
from rulegen.evaluate.nft_registers import Value

Step = Callable[[Seen], bool]

_NFPROTO: Final = {b"\2": True, b"\x0a": False}
"""NFPROTO_IPV4 and NFPROTO_IPV6: whether it is IPv4."""


def compare(value: Value, op: str, constant: bytes) -> Step:
    """`value op constant`; op is eq, neq, lt, lte, gt or gte."""
    if op == "eq":
        return _equals(value, constant)
    get = value.get
    if op == "neq":
        if value.mask is not None and not any(constant):
            return _any_bit(*value.mask)

        def differs(seen: Seen) -> bool:
            found = get(seen)
            return found is not None and found != constant

        return differs
    holds = _ORDER[op]

    def step(seen: Seen) -> bool:
        found = get(seen)
        return found is not None and holds(found, constant)

    return step


_ORDER: Final[dict[str, Callable[[bytes, bytes], bool]]] = {
    "lt": lambda found, constant: found < constant,
    "lte": lambda found, constant: found <= constant,
    "gt": lambda found, constant: found > constant,
    "gte": lambda found, constant: found >= constant,
}


def _equals(value: Value, constant: bytes) -> Step:
    """The test that is met most."""
    match value.load:
        case PayloadLoad() as load if (step := _payload_is(load, constant)) is not None:
            return step
        case MetaLoad(key="l4proto"):
            protocol = constant[0]
            return lambda seen: seen.protocol == protocol
        case MetaLoad(key="nfproto"):
            four = _NFPROTO.get(constant)
            return lambda seen: seen.four is four
    if value.mask is not None:
        whole, mask = value.mask
        read, number = whole.get, int.from_bytes(constant)

        def masked(seen: Seen) -> bool:
            found = read(seen)
            return found is not None and int.from_bytes(found) & mask == number

        return masked
    get = value.get
    return lambda seen: get(seen) == constant


def _payload_is(load: PayloadLoad, value: bytes) -> Step | None:
    """None: that step is not worth its own code."""
    offset, length = load.offset, load.length
    if load.base == "inner":

        def inner_is(seen: Seen) -> bool:
            start = seen.inner
            if start < 0 and (start := seen.find_inner()) < 0:
                return False
            start += offset
            if start + length <= seen.captured:
                return seen.data.startswith(value, start)
            return seen.bytes_at(start, length) == value

        return inner_is
    if load.base == "transport" and is_fast(load):

        def transport_is(seen: Seen) -> bool:
            if seen.protocol is None:
                return False
            start = seen.transport + offset
            if start + length <= seen.captured:
                return seen.data.startswith(value, start)
            return seen.bytes_at(start, length) == value

        return transport_is
    return None


def _any_bit(value: Value, mask: int) -> Step:
    if isinstance(value.load, CtLoad) and value.load.key == "state":
        wanted = {state: int.from_bytes(bit) & mask != 0 for state, bit in STATES.items()}
        return lambda seen: wanted[seen.passing.state]
    get = value.get

    def step(seen: Seen) -> bool:
        found = get(seen)
        return found is not None and int.from_bytes(found) & mask != 0

    return step


def within(value: Value, low: bytes, high: bytes, *, inside: bool) -> Step:
    """`value low-high`, or its opposite."""
    get = value.get

    def step(seen: Seen) -> bool:
        found = get(seen)
        return found is not None and (low <= found <= high) is inside

    return step


def all_of(steps: Sequence[Step]) -> Step | None:
    """One step for all of them, in their order."""
    match steps:
        case []:
            return None
        case [one]:
            return one
        case [one, two]:
            return lambda seen: one(seen) and two(seen)
        case [one, two, three]:
            return lambda seen: one(seen) and two(seen) and three(seen)
        case [one, two, *others]:
            rest = all_of(others)
            return rest and (lambda seen: one(seen) and two(seen) and rest(seen))
    raise AssertionError(steps)


def present(get: Getter) -> Step:
    """The value can be computed."""
    return lambda seen: get(seen) is not None
