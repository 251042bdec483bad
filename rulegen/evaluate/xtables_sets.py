"""Sets of ipset in the course of a capture: which packets are in them, and what rules change.

In:  IpSet; Packet with its time.
Out: Sets: `has` for -m set, `change` for -j SET.
Source: ipset(8) 7.17; Linux net/netfilter/ipset/ip_set_core.c ip_set_test, ip_set_getport.c, and
    ip_set_hash_*.c, ip_set_bitmap_*.c, ip_set_list_set.c for what each type takes from a packet.

Where several members contain a packet, the one with the longest prefixes counts: it may be an exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, summarize_address_range
from itertools import product
from typing import Final, TypeAlias

from rulegen.artifacts.model import Addresses, IpSet, Member, Name, Numbers, Ports
from rulegen.artifacts.xt_values import ChangeSet, SetMatch
from rulegen.evaluate.base import Undecidable
from rulegen.evaluate.xtables_packet import Packet, skip_extensions

Key: TypeAlias = tuple[int, ...]

MEMBERS_MAX: Final = 65_536
"""ipset's maxelem where it is not given."""
TYPES: Final = frozenset({
    "hash:ip", "hash:net", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net", "hash:net,port",
    "bitmap:ip", "bitmap:port", "list:set",
})  # fmt: skip
OPTIONS: Final = frozenset({"hashsize", "bucketsize", "initval", "comment", "counters", "netmask", "range",
                            "size"})  # fmt: skip
_HEADERS: Final = {6: 20, 132: 12, 17: 8, 136: 8, 1: 8, 58: 8}
_JIFFY_NS: Final = 10_000_000


def refusal(one: IpSet) -> str | None:
    """What of a set is not modelled."""
    if one.type not in TYPES:
        return f"ipset type {one.type}"
    for name, _ in one.options:
        if name not in OPTIONS:
            return f"ipset {one.name}: {name}"
    most = one.max_elements or MEMBERS_MAX
    if sum(_size(one, member) for member in one.members) > (
        MEMBERS_MAX if one.type.startswith("bitmap") else most
    ):
        return f"ipset {one.name}: more members than {most}, which the kernel refuses,"
    if one.type == "list:set" and any(member.timeout_s for member in one.members):
        return "ipset type list:set with timeouts"
    return None


def _size(one: IpSet, member: Member) -> int:
    """Members of the kernel's that a line makes; a network is one."""
    kinds = one.type.partition(":")[2].split(",")
    step = 1 << 32 - int(dict(one.options).get("netmask", 32)) if one.family == "ip" else 1
    count = 1
    for part, kind in zip(member.parts, kinds, strict=True):
        if isinstance(part, Ports | Numbers):
            count *= part.high - part.low + 1
        elif isinstance(part, Addresses) and kind == "ip":
            count *= (part.high - part.low) // step + 1
    return count


def change_refusal(one: IpSet) -> str | None:
    """What of -j SET on a set is not modelled."""
    if "net" in one.type or one.type.startswith(("list", "bitmap")):
        return f"-j SET of an ipset of type {one.type}"
    return None


@dataclass(slots=True)
class _Live:
    """A set of hashed keys. A key has the masked address, protocol and port of each part."""

    source: IpSet
    kinds: tuple[str, ...]
    netmask: int | None
    """Prefix length to which addresses are cut."""
    members: dict[Key, dict[Key, tuple[int | None, bool]]] = field(default_factory=dict)
    """By prefix lengths, the longest first: key -> when it ends (None: never), and whether it is nomatch."""


class Sets:
    """All sets that rules may ask for."""

    def __init__(self, sets: Iterable[IpSet]) -> None:
        self.by_name: Mapping[str, IpSet] = {one.name: one for one in sets}
        self._live: dict[str, _Live] = {}
        self._start_ns: int | None = None

    def has(self, match: SetMatch, packet: Packet) -> bool:
        """What -m set says, `inverted` included."""
        held = self._test(self.by_name[match.name], match.sides, match.nomatch, packet)
        return held is not match.inverted

    def change(self, target: ChangeSet, packet: Packet) -> None:
        """Do what -j SET does."""
        one = self.by_name[target.name]
        live = self._loaded(one, packet)
        key = self._key(live, target.sides, packet)
        if key is None:
            return
        longest = tuple(32 if one.family == "ip" else 128 for kind in live.kinds if kind == "ip")
        members = live.members.setdefault(longest, {})
        now = packet.passing.time_ns
        there = key in members and _alive(members[key][0], now)
        if target.action == "del":
            members.pop(key, None)
        elif not there or target.exist:
            if not there and len(members) >= (one.max_elements or MEMBERS_MAX):
                raise Undecidable(f"ipset {one.name} may be full")
            asked = one.timeout_s if target.timeout_s is None else target.timeout_s
            timed = one.timeout_s is not None and asked
            members[key] = (now + asked * 1_000_000_000 if timed and asked else None, False)

    def _test(self, one: IpSet, sides: tuple[str, ...], exceptions: bool, packet: Packet) -> bool:
        """Whether a member that is no exception, or one that is, has the packet."""
        if one.type == "list:set":
            names = [part.name for member in one.members for part in member.parts if isinstance(part, Name)]
            return any(self._test(self.by_name[name], sides, exceptions, packet) for name in names)
        live = self._loaded(one, packet)
        key = self._key(live, sides, packet)
        if key is None:
            return False
        now = packet.passing.time_ns
        for ends, nomatch in _found(live, key, packet.ip6):
            if _alive(ends, now):
                return nomatch is (exceptions and "net" in one.type)
        return False

    def _loaded(self, one: IpSet, packet: Packet) -> _Live:
        if self._start_ns is None:
            self._start_ns = packet.passing.time_ns
        live = self._live.get(one.name)
        if live is None:
            live = self._live[one.name] = _load(one, self._start_ns)
        return live

    def _key(self, live: _Live, sides: tuple[str, ...], packet: Packet) -> Key | None:
        """What a packet is looked up by; None: the packet has no such parts."""
        family = live.source.family
        if len(sides) < len(live.kinds) or (family is not None and family != packet.passing.family):
            return None
        found: list[int] = []
        for kind, side in zip(live.kinds, sides, strict=False):
            if kind in ("ip", "net"):
                found.append(_address(packet, side, live.netmask))
            else:
                port = _port(packet, side)
                if port is None or (live.source.type == "bitmap:port" and port[0] not in (6, 17)):
                    return None
                found.append(port[1] if live.source.type == "bitmap:port" else port[0] << 16 | port[1])
        return tuple(found)


def _alive(ends: int | None, now: int) -> bool:
    if ends is None:
        return True
    if abs(now - ends) <= _JIFFY_NS:
        raise Undecidable("a member of an ipset ends just about now")
    return now < ends


def _found(live: _Live, key: Key, ip6: bool) -> Iterator[tuple[int | None, bool]]:
    width = 128 if ip6 else 32
    where = [at for at, kind in enumerate(live.kinds) if kind in ("ip", "net")]
    for lengths in sorted(live.members, reverse=True):
        masked = list(key)
        for at, length in zip(where, lengths, strict=True):
            masked[at] = key[at] >> width - length << width - length
        if (one := live.members[lengths].get(tuple(masked))) is not None:
            yield one


def _load(one: IpSet, start_ns: int) -> _Live:
    options = dict(one.options)
    live = _Live(
        source=one,
        kinds=tuple(one.type.partition(":")[2].split(",")),
        netmask=int(options["netmask"]) if "netmask" in options else None,
    )
    for member in one.members:
        seconds = one.timeout_s if member.timeout_s is None else member.timeout_s
        ends = start_ns + seconds * 1_000_000_000 if seconds else None
        _put(live, member, ends)
    return live


def _put(live: _Live, member: Member, ends: int | None) -> None:
    choices = [list(_choices(part, kind, live)) for part, kind in zip(member.parts, live.kinds, strict=True)]
    for chosen in product(*choices):
        lengths = tuple(length for _, length in chosen if length is not None)
        live.members.setdefault(lengths, {})[tuple(number for number, _ in chosen)] = (ends, member.nomatch)


def _choices(part: object, kind: str, live: _Live) -> Iterator[tuple[int, int | None]]:
    """What the kernel makes of a part: networks, or each address and each port; with prefix lengths."""
    match part:
        case Addresses() if kind == "net":
            yield from _networks(part.low, part.high, part.width_bits)
        case Addresses():
            keep = part.width_bits if live.netmask is None else live.netmask
            step = 1 << part.width_bits - keep
            for number in range(part.low & -step, part.high + 1, step):
                yield number, part.width_bits
        case Ports():
            for port in range(part.low, part.high + 1):
                yield part.protocol << 16 | port, None
        case Numbers():
            for port in range(part.low, part.high + 1):
                yield port, None


def _networks(low: int, high: int, width: int) -> Iterator[tuple[int, int]]:
    """The networks that make up an interval: first address, prefix length."""
    if low == high:
        yield low, width
        return
    packed = width // 8
    first, last = ip_address(low.to_bytes(packed)), ip_address(high.to_bytes(packed))
    for network in summarize_address_range(first, last):
        yield int(network.network_address), network.prefixlen


def _address(packet: Packet, side: str, keep: int | None) -> int:
    start, size = (8, 16) if packet.ip6 else (12, 4)
    if side == "dst":
        start += size
    address = int.from_bytes(packet.data[start : start + size])
    return address if keep is None else address & -(1 << 8 * size - keep)


def _port(packet: Packet, side: str) -> tuple[int, int] | None:
    """Protocol and port (of ICMP type and code): ip_set_get_ip4_port, ip_set_get_ip6_port."""
    if packet.ip6:
        behind = skip_extensions(packet.data)
        if behind is None or behind[2]:
            return None
        upper, start, _ = behind
    else:
        assert packet.upper is not None
        upper, start = packet.upper, packet.offset
        if not upper:
            return None
        if packet.fragment:
            return None if upper in _HEADERS and upper != 58 else (upper, 0)
    size = _HEADERS.get(upper)
    if size is None:
        return upper, 0
    if start + size > len(packet.data):
        return None
    if upper not in (1, 58) and side == "dst":
        start += 2
    return upper, int.from_bytes(packet.data[start : start + 2])
