"""The match of iptables that remembers addresses: recent.

In:  Recent; Packet with its time.
Out: tests that remember, over the lists that rules share by name.
Source: Linux net/netfilter/xt_recent.c.

The kernel compares in jiffies, up to a hundredth of a second; nearer than that is Undecidable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rulegen.artifacts.xt_values import Recent
from rulegen.evaluate.base import Undecidable
from rulegen.evaluate.xtables_matches import Test
from rulegen.evaluate.xtables_packet import Packet

ADDRESSES_MAX: Final = 100
"""xt_recent's ip_list_tot."""
STAMPS: Final = 32
"""Of an address, where no rule asks for more hits."""
_JIFFY_NS: Final = 10_000_000


@dataclass(slots=True)
class _Seen:
    stamps: list[int]
    """Times, the newest last."""


@dataclass(slots=True)
class RecentList:
    """What rules of one name share."""

    stamps_max: int = 0
    seen: dict[int, _Seen] = field(default_factory=dict)
    """By masked address, the one longest without news first."""


def recent(match: Recent, shared: RecentList) -> Test:
    """The test of one rule, over the list of its name."""
    wanted = 1 << (match.hits - 1).bit_length() if match.hits else STAMPS
    shared.stamps_max = max(shared.stamps_max, wanted)

    def test(packet: Packet) -> bool:
        data = packet.data
        start, size = (8, 16) if packet.ip6 else (12, 4)
        if match.side == "destination":
            start += size
        address = int.from_bytes(data[start : start + size])
        if match.mask is not None:
            address &= match.mask
        return _holds(match, shared, address, packet.passing.time_ns) is not match.inverted

    return test


def _holds(match: Recent, shared: RecentList, address: int, now: int) -> bool:
    found = shared.seen.get(address)
    if found is None:
        if match.action != "set":
            return False
        if len(shared.seen) >= ADDRESSES_MAX:
            del shared.seen[next(iter(shared.seen))]
        shared.seen[address] = _Seen([now])
        return True
    if match.action == "remove":
        del shared.seen[address]
        return True
    held = match.action == "set" or _often_enough(match, found, now)
    if match.action == "set" or (match.action == "update" and held is not match.inverted):
        found.stamps = [*found.stamps, now][-shared.stamps_max :]
        shared.seen[address] = shared.seen.pop(address)
    return held


def _often_enough(match: Recent, found: _Seen, now: int) -> bool:
    if match.seconds is None:
        return len(found.stamps) >= (match.hits or 1)
    since = now - match.seconds * 1_000_000_000
    sure = sum(stamp >= since + _JIFFY_NS for stamp in found.stamps) >= (match.hits or 1)
    perhaps = sum(stamp >= since - _JIFFY_NS for stamp in found.stamps) >= (match.hits or 1)
    if sure != perhaps:
        raise Undecidable("-m recent: an address was seen just about as long ago as the rule asks")
    return sure
