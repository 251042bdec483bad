"""The matches of iptables that measure time: limit and hashlimit, by the clock of the capture.

In:  values of xt_values; Packet with its time.
Out: tests that remember.
Source: Linux net/netfilter/xt_limit.c, xt_hashlimit.c, nft_limit.c; iptables 1.8.9 iptables/nft.c add_limit;
    extensions/libxt_hashlimit.c for what an option leaves out.

The kernel counts time in jiffies, whose length (HZ) and phase no capture tells, and removes idle entries of a
hashlimit some time after they have run out. Each bucket is therefore kept in several ways at once; where they
differ on a packet, it is Undecidable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Final, NamedTuple

from rulegen.artifacts.xt_values import HashLimit, Limit
from rulegen.evaluate.base import Undecidable
from rulegen.evaluate.xtables_matches import Test
from rulegen.evaluate.xtables_packet import HotDrop, Packet, skip_extensions

NANOSECONDS: Final = 1_000_000_000
SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

HASHLIMIT_MAX: Final = 65_536
"""Entries of a table that says nothing else: eight for each of 8,192 buckets, on hosts above 1 GB."""
_PORTS_AT: Final = {6: 0, 17: 0, 33: 0, 50: 0, 51: 4, 132: 0, 136: 0}
"""Linux net/core/utils.c proto_ports_offset."""


class Clock(NamedTuple):
    """How a kernel may count time."""

    hz: int
    phase: float
    late: bool
    """Idle entries are removed as late as the collector's interval allows."""

    def jiffies(self, time_ns: int) -> int:
        """Time in whole jiffies."""
        return int(
            time_ns * self.hz // NANOSECONDS + (time_ns * self.hz % NANOSECONDS / NANOSECONDS + self.phase)
        )


HZ: Final = (100, 250, 300, 1000)
"""What Linux is built with."""
CLOCKS: Final = tuple(Clock(*one) for one in product(HZ, (0.0, 0.5, 0.99), (False, True)))


@dataclass(slots=True)
class Bucket:
    """Credit for one clock."""

    clock: Clock
    credit: int
    last: int
    """In jiffies."""


def _agreed(answers: set[bool]) -> bool:
    if len(answers) > 1:
        raise Undecidable("a rate is about to be reached, and it depends on the kernel's clock on which side")
    return answers.pop()


def _below(limit: int) -> int:
    """The highest power of two that is not above: POW2_BELOW32, POW2_BELOW64."""
    return 1 << limit.bit_length() - 1


class _Shape:
    """What a rate costs by a clock."""

    def __init__(self, per_jiffy: int, cost: int, cap: int) -> None:
        self.per_jiffy = per_jiffy
        self.cost = cost
        self.cap = cap

    def spend(self, bucket: Bucket, now: int) -> bool:
        """Whether there was credit for a packet more."""
        bucket.credit = min(self.cap, bucket.credit + (now - bucket.last) * self.per_jiffy)
        bucket.last = now
        if bucket.credit < self.cost:
            return False
        bucket.credit -= self.cost
        return True


def _limit_shape(match: Limit, hz: int) -> _Shape:
    """xt_limit.c user2credits, in 32 bits."""
    per_jiffy = _below(0xFFFFFFFF // (hz * 86400))
    second, scale = hz * per_jiffy, 10_000

    def credits(average: int) -> int:
        if average > 0xFFFFFFFF // second:
            return average // scale * second & 0xFFFFFFFF
        return average * second // scale

    average = scale * SECONDS[match.rate.unit] // match.rate.count
    return _Shape(per_jiffy, credits(average), credits(average * match.burst))


def _hashlimit_shape(match: HashLimit, hz: int) -> _Shape:
    """xt_hashlimit.c user2credits, in 64 bits."""
    per_jiffy = _below(((1 << 64) - 1) // (hz * 86400))
    unit, scale = hz * per_jiffy // 1_000_000, 1_000_000
    average = scale * SECONDS[match.rate.unit] // match.rate.count
    return _Shape(per_jiffy, average * unit, average * match.burst * unit)


def limit(match: Limit) -> Test:
    """The kernel's own xt_limit, which is full when it is loaded."""
    shapes = {hz: _limit_shape(match, hz) for hz in HZ}
    buckets: list[Bucket] = []
    clocks = [one for one in CLOCKS if not one.late]

    def test(packet: Packet) -> bool:
        time_ns = packet.passing.time_ns
        if not buckets:
            buckets.extend(Bucket(one, shapes[one.hz].cap, one.jiffies(time_ns)) for one in clocks)
        return _agreed(
            {shapes[one.clock.hz].spend(one, max(one.last, one.clock.jiffies(time_ns))) for one in buckets}
        )

    return test


def native_limit(match: Limit) -> Test:
    """The limit of nft, as iptables-nft writes it: exact to the nanosecond."""
    average = 10_000 * SECONDS[match.rate.unit] // match.rate.count
    chosen = 86400
    for seconds in (3600, 60, 1):
        scaled = 10_000 * seconds
        if average > scaled or scaled // average < scaled % average:
            break
        chosen = seconds
    cost = chosen * NANOSECONDS // (10_000 * chosen // average)
    cap = cost * (match.burst or 5)
    tokens, last = cap, 0

    def test(packet: Packet) -> bool:
        nonlocal tokens, last
        now = packet.passing.time_ns
        tokens = min(cap, tokens + max(0, now - last))
        last = max(last, now)
        if tokens < cost:
            return False
        tokens -= cost
        return True

    return test


@dataclass(slots=True)
class HashTable:
    """What hashlimits of one name have in common."""

    settings: HashLimit
    shapes: dict[int, _Shape]
    entries: dict[tuple[bytes, ...], list[Bucket]] = field(default_factory=dict)


def hash_table(match: HashLimit) -> HashTable:
    """The table that the first rule with its name makes."""
    shapes = {hz: _hashlimit_shape(match, hz) for hz in HZ}
    return HashTable(match, shapes)


def hashlimit(match: HashLimit, table: HashTable) -> Test:
    settings = table.settings
    expire_ms = settings.expire_ms or 1000 * SECONDS[settings.rate.unit]
    collect_ms = settings.gc_interval_ms or 1000
    limit = settings.table_max or HASHLIMIT_MAX

    def test(packet: Packet) -> bool:
        key = _key(settings, packet)
        time_ns = packet.passing.time_ns
        buckets = table.entries.get(key)
        if buckets is None:
            if len(table.entries) >= limit:
                raise Undecidable(f"hashlimit {match.name} may be full")
            buckets = table.entries[key] = [
                Bucket(one, table.shapes[one.hz].cap, one.jiffies(time_ns)) for one in CLOCKS
            ]
        answers = set()
        for one in buckets:
            shape, now = table.shapes[one.clock.hz], max(one.last, one.clock.jiffies(time_ns))
            idle_ms = expire_ms + collect_ms * one.clock.late
            if (now - one.last) * 1000 > idle_ms * one.clock.hz:
                one.credit = shape.cap  # removed, and made anew
            answers.add(shape.spend(one, now))
        return _agreed(answers) is not match.above

    return test


def _masked(address: bytes, prefix: int | None) -> bytes:
    width = 8 * len(address)
    keep = width if prefix is None else prefix
    return (int.from_bytes(address) >> width - keep << width - keep).to_bytes(len(address))


def _key(settings: HashLimit, packet: Packet) -> tuple[bytes, ...]:
    """hashlimit_init_dst."""
    found: dict[str, bytes] = {}
    start, size = (8, 16) if packet.ip6 else (12, 4)
    found["srcip"] = _masked(packet.data[start : start + size], settings.source_mask)
    found["dstip"] = _masked(packet.data[start + size : start + 2 * size], settings.destination_mask)
    if {"srcport", "dstport"} & set(settings.modes):
        ports = _port_bytes(packet)
        found["srcport"], found["dstport"] = ports[:2], ports[2:]
    return tuple(found[mode] for mode in settings.modes)


def _port_bytes(packet: Packet) -> bytes:
    if packet.ip6:
        behind = skip_extensions(packet.data)
        if behind is None:
            raise HotDrop
        upper, start, _ = behind
    else:
        assert packet.upper is not None
        upper, start = packet.upper, packet.offset
    if upper not in _PORTS_AT:
        return bytes(4)
    start += _PORTS_AT[upper]
    if start + 4 > len(packet.data):
        raise HotDrop
    return packet.data[start : start + 4]
