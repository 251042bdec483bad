"""Expressions of nft that remember packets: limit, quota, numgen inc; ct count is nft_connections.

In:  Limit, Quota, Numgen of an artifact; packets in their order.
Out: Stateful: called with a packet, says whether the rule goes on; Increment.
Source: Linux net/netfilter/nft_limit.c, nft_quota.c, nft_numgen.c.

The clock is that of the capture: a rule is met at the instant at which the packet was captured. A limit's
verdict that would be another one 100 us earlier or later is Undecidable: so far may the firewall's clock be
from the capture's. The bucket then goes on as if the capture's time were right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rulegen.artifacts.nft_values import ConnectionCount, Counter, Expression, Last, Limit, Quota
from rulegen.artifacts.unknown import Unknown
from rulegen.evaluate.base import Undecidable
from rulegen.evaluate.nft_connections import Known, OpenConnections
from rulegen.evaluate.nft_loads import Unmodelled, host
from rulegen.evaluate.nft_packet import Seen

Stateful = Callable[[Seen], bool]

CLOCK_MARGIN_NS: Final = 100_000
"""Between a packet's time in a capture and the moment when a firewall's rules meet it."""

_SECOND_NS: Final = 1_000_000_000
_UNITS_S: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_PACKETS_BURST: Final = 5
"""NFT_LIMIT_PKT_BURST_DEFAULT."""


def stateful(part: Expression | Unknown, known: Known) -> Stateful | None:
    """A fresh state of an expression; None for what only counts.

    Args:
        part: The expression.
        known: What the ruleset knows of connections.

    Raises:
        Unmodelled: It has no model.
    """
    match part:
        case Counter() | Last():
            return None
        case Limit():
            return TokenBucket(part)
        case Quota():
            return Volume(part)
        case ConnectionCount():
            return OpenConnections(part, known)
    raise Unmodelled(str(part))


class TokenBucket:
    """A limit: tokens are nanoseconds."""

    def __init__(self, limit: Limit) -> None:
        unit_ns = _UNITS_S[limit.unit] * _SECOND_NS
        self._by_bytes = limit.type == "bytes"
        self._unit_ns = unit_ns
        self._rate = limit.rate
        self._over = limit.over
        if self._by_bytes:
            self._full = unit_ns * (limit.rate + limit.burst) // limit.rate
        else:
            self._full = unit_ns // limit.rate * (limit.burst or _PACKETS_BURST)
        self._tokens = self._full
        self._last_ns: int | None = None

    def __call__(self, seen: Seen) -> bool:
        cost = self._unit_ns * (len(seen.data) if self._by_bytes else 1) // self._rate
        now = seen.passing.time_ns
        # A capture's clock may step back; the kernel's does not.
        passed = 0 if self._last_ns is None else max(0, now - self._last_ns)
        self._last_ns = now if self._last_ns is None else max(now, self._last_ns)
        least = min(self._full, self._tokens + max(0, passed - CLOCK_MARGIN_NS))
        most = min(self._full, self._tokens + passed + CLOCK_MARGIN_NS)
        tokens = min(self._full, self._tokens + passed)
        within = tokens >= cost
        self._tokens = tokens - cost if within else tokens
        if (least >= cost) is not (most >= cost):
            raise Undecidable("a limit's next token comes within 100 us of the packet")
        return within is not self._over


class Volume:
    """A quota: bytes that have passed since the rules were loaded."""

    def __init__(self, quota: Quota) -> None:
        self._most = quota.bytes
        self._consumed = quota.consumed
        self._over = quota.over

    def __call__(self, seen: Seen) -> bool:
        self._consumed += len(seen.data)
        return (self._consumed > self._most) is self._over


class Increment:
    """numgen inc."""

    def __init__(self, modulus: int, offset: int) -> None:
        self._modulus = modulus
        self._offset = offset
        self._value = modulus - 1

    def step(self, _: Seen) -> bool:
        """Met by a packet."""
        self._value = self._value + 1 if self._value + 1 < self._modulus else 0
        return True

    def get(self, _: Seen) -> bytes:
        """For the packet that met it last."""
        return host(self._value + self._offset)
