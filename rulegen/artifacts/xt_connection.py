"""The matches of iptables that remember: connections, marks, sets, rates. What their options mean.

In:  options as given.
Out: values of xt_values, or ValueError.
Source: iptables-extensions(8) of 1.8.9; iptables extensions/libxt_*.c.
"""

from __future__ import annotations

import re
from typing import Final

from rulegen.artifacts.xt_names import SERVICES, protocol_number
from rulegen.artifacts.xt_options import (
    PORT_MAX,
    Given,
    Reader,
    interval,
    listed,
    network,
    number,
    value_and_mask,
)
from rulegen.artifacts.xt_values import (
    ConnLimit,
    ConnMark,
    Conntrack,
    CounterTest,
    HashLimit,
    Limit,
    Mark,
    Match,
    NumberTest,
    Protocol,
    Rate,
    Recent,
    SetMatch,
    StatesTest,
    TupleAddress,
    TuplePorts,
)

_STATES: Final = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"})
_STATUSES: Final = frozenset({"NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"})
_UNITS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_BYTE_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20}

TUPLES: Final = tuple(
    f"ct{direction}{side}{port}"
    for direction in ("orig", "repl")
    for side in ("src", "dst")
    for port in ("", "port")
)


def _states(one: Given | None, known: frozenset[str]) -> StatesTest | None:
    if one is None:
        return None
    return StatesTest(states=listed(one.values[0], known, "state"), inverted=one.inverted)


def conntrack(options: Reader) -> Match:
    direction = options.text("ctdir")
    if direction is not None and direction.lower() not in ("original", "reply"):
        raise ValueError(f"-m conntrack: direction {direction[:20]!r}")
    protocol = None
    if one := options.get("ctproto"):
        protocol = Protocol(number=protocol_number(one.values[0]), inverted=one.inverted)
    expires = None
    if one := options.get("ctexpire"):
        low, high = interval(one.values[0], 0xFFFFFFFF)
        expires = NumberTest(low=low, high=high, inverted=one.inverted)
    return Conntrack(
        states=_states(options.get("ctstate"), _STATES),
        direction=direction and direction.lower(),
        protocol=protocol,
        status=_states(options.get("ctstatus"), _STATUSES),
        expires_s=expires,
        tuples=tuple(_tuple(one) for one in options.given.values() if one.name in TUPLES),
    )


def _tuple(one: Given) -> TupleAddress | TuplePorts:
    side = one.name.removeprefix("ct").removesuffix("port")
    if one.name.endswith("port"):
        low, high = interval(one.values[0], PORT_MAX, SERVICES)
        return TuplePorts(side=side, low=low, high=high, inverted=one.inverted)
    value, mask, _ = network(one.values[0])
    return TupleAddress(side=side, value=value, mask=mask, inverted=one.inverted)


def state(options: Reader) -> Match:
    return Conntrack(states=_states(options.one_of("state"), _STATES - {"SNAT", "DNAT"}))


def connmark(options: Reader) -> Match:
    one = options.one_of("mark")
    value, mask = value_and_mask(one.values[0])
    return ConnMark(value=value, mask=mask, inverted=one.inverted)


def mark(options: Reader) -> Match:
    one = options.one_of("mark")
    value, mask = value_and_mask(one.values[0])
    return Mark(value=value, mask=mask, inverted=one.inverted)


def _counter(options: Reader, what: str) -> CounterTest | None:
    for op in ("eq", "lt", "gt"):
        if one := options.get(f"{what}-{op}"):
            return CounterTest(op=op, value=number(one.values[0], (1 << 64) - 1), inverted=one.inverted)
    return None


def sides(text: str) -> tuple[str, ...]:
    """`src,dst`, for the parts of a set."""
    found = tuple(text.lower().split(","))
    if len(found) > 6 or set(found) - {"src", "dst"}:
        raise ValueError(f"set: {text[:40]!r} is not made of src and dst")
    return found


def _kept(options: Reader, name: str) -> bool:
    one = options.get(name)
    return one is None or not one.inverted


def in_set(options: Reader) -> Match:
    one = options.one_of("match-set")
    return SetMatch(
        name=one.values[0],
        sides=sides(one.values[1]),
        inverted=one.inverted,
        nomatch=options.has("return-nomatch"),
        update_counters=_kept(options, "update-counters"),
        update_subcounters=_kept(options, "update-subcounters"),
        packets=_counter(options, "packets"),
        bytes=_counter(options, "bytes"),
    )


def _rate(text: str, *, in_bytes: bool = False) -> Rate:
    found = re.fullmatch(r"([0-9]{1,10})([km]?)b/(s\w*)", text) if in_bytes else None
    if found:
        return Rate(count=int(found[1]) * _BYTE_UNITS[found[2]], unit="second", bytes=True)
    found = re.fullmatch(r"([0-9]{1,10})(?:/(\w+))?", text)
    unit = _UNITS.get((found[2] or "second")[0].lower()) if found else None
    if found is None or unit is None or not unit.startswith((found[2] or "second").lower()):
        raise ValueError(f"{text[:40]!r} is no rate")
    if not int(found[1]):
        raise ValueError("a rate of zero")
    return Rate(count=int(found[1]), unit=unit)


def limit(options: Reader) -> Match:
    burst = options.number("limit-burst", 10_000)
    return Limit(
        rate=_rate(options.text("limit") or "3/hour"),
        burst=5 if burst is None else burst,
    )


def _prefix_length(options: Reader, name: str) -> int | None:
    return options.number(name, 128)


def hashlimit(options: Reader) -> Match:
    one = options.one_of("hashlimit-upto", "hashlimit-above")
    name = options.text("hashlimit-name")
    if name is None:
        raise ValueError("-m hashlimit: --hashlimit-name has to be given")
    rate = _rate(one.values[0], in_bytes=True)
    burst = options.text("hashlimit-burst")
    modes = options.text("hashlimit-mode")
    known = frozenset({"SRCIP", "SRCPORT", "DSTIP", "DSTPORT"})
    return HashLimit(
        name=name,
        rate=rate,
        above=(one.name == "hashlimit-above") is not one.inverted,
        burst=_burst(burst, rate),
        modes=tuple(sorted(mode.lower() for mode in listed(modes, known, "mode"))) if modes else (),
        source_mask=_prefix_length(options, "hashlimit-srcmask"),
        destination_mask=_prefix_length(options, "hashlimit-dstmask"),
        table_size=options.number("hashlimit-htable-size"),
        table_max=options.number("hashlimit-htable-max"),
        expire_ms=options.number("hashlimit-htable-expire"),
        gc_interval_ms=options.number("hashlimit-htable-gcinterval"),
        rate_match=options.has("hashlimit-rate-match"),
        interval_s=options.number("hashlimit-rate-interval"),
    )


def _burst(text: str | None, rate: Rate) -> int:
    if text is None:
        return rate.count if rate.bytes else 5
    found = re.fullmatch(r"([0-9]{1,10})(?:([km]?)b)?", text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no burst")
    return int(found[1]) * _BYTE_UNITS[found[2] or ""]


def connlimit(options: Reader) -> Match:
    one = options.one_of("connlimit-above", "connlimit-upto")
    if options.has("connlimit-saddr") and options.has("connlimit-daddr"):
        raise ValueError("-m connlimit: --connlimit-saddr beside --connlimit-daddr")
    return ConnLimit(
        count=number(one.values[0]),
        above=(one.name == "connlimit-above") is not one.inverted,
        mask=_prefix_length(options, "connlimit-mask"),
        side="destination" if options.has("connlimit-daddr") else "source",
    )


def recent(options: Reader) -> Match:
    one = options.one_of("set", "rcheck", "update", "remove")
    mask = options.text("mask")
    return Recent(
        action=one.name,
        name=options.text("name") or "DEFAULT",
        side="destination" if options.has("rdest") else "source",
        seconds=options.number("seconds"),
        hits=options.number("hitcount"),
        reap=options.has("reap"),
        ttl=options.has("rttl"),
        mask=None if mask is None else network(mask)[0],
        inverted=one.inverted,
    )
