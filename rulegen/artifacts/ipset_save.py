"""Read `ipset save` text, and files for `ipset restore` that people write.

In:  text.
Out: the sets that are there when all lines have been obeyed.
Source: ipset(8) 7.17; Linux net/netfilter/ipset/ip_set_*.c for the types.

Intervals stay intervals: a set of 65,536 ports is one member. What a set does with a member that another
member contains is the evaluator's to know, by the set's type.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from rulegen.artifacts.model import (
    TEXT_MAX_BYTES,
    Addresses,
    Artifact,
    Dialect,
    IpSet,
    Mac,
    Member,
    Name,
    Numbers,
    Part,
    Ports,
)
from rulegen.artifacts.unknown import Unreadable
from rulegen.artifacts.xt_names import ICMP, ICMPV6, SERVICES, protocol_number
from rulegen.artifacts.xt_options import network, number

LINE_MAX_BYTES: Final = 1023
"""ipset lib/ipset.c: the buffer of a line has 1,024 bytes."""

MEMBERS_MAX: Final = 4_000_000
NAME_MAX: Final = 31
"""Linux uapi ip_set.h IPSET_MAXNAMELEN, less its end."""

_COMMANDS: Final = {"-N": "create", "n": "create", "-A": "add", "a": "add", "-D": "del", "-F": "flush",
                    "-X": "destroy", "-W": "swap", "-E": "rename"}  # fmt: skip
_TYPE: Final = re.compile(r"(?:hash|bitmap|list):(?:ip|net|port|mac|mark|iface|set)(?:,\w+){0,2}")
_FLAGS: Final = frozenset({"counters", "comment", "skbinfo", "forceadd", "wildcard"})
_TOKEN: Final = re.compile(r'"([^"]*)"|([^\s"]+)')
_FAMILIES: Final = {"inet": "ip", "inet6": "ip6"}
_ICMP: Final = {1: ICMP, 58: ICMPV6}


@dataclass(slots=True)
class _Set:
    type: str
    family: str | None
    options: dict[str, str]
    members: dict[tuple[Part, ...], Member] = field(default_factory=dict)


def read_ipset(text: str) -> Artifact:
    """Read a file of ipset.

    Raises:
        Unreadable: A line that ipset would refuse, or a file that is too large.
    """
    if len(text) > TEXT_MAX_BYTES:
        raise Unreadable(f"{len(text)} characters; at most {TEXT_MAX_BYTES} are read")
    sets: dict[str, _Set] = {}
    count = 0
    for at, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if len(line.encode()) > LINE_MAX_BYTES:
                raise ValueError(f"a line of more than {LINE_MAX_BYTES} bytes")
            tokens = _tokens(line)
            if tokens == ["COMMIT"]:
                continue
            _obey(tokens, sets)
        except ValueError as error:
            raise Unreadable(str(error), at) from None
        count += 1
        if count > MEMBERS_MAX:
            raise Unreadable(f"more than {MEMBERS_MAX} lines", at)
    return Artifact(dialect=Dialect.IPSET, ipsets=tuple(_value(name, one) for name, one in sets.items()))


def _tokens(line: str) -> list[str]:
    rest = _TOKEN.sub("", line)
    if rest.strip(" \t\r") or "\0" in line:
        raise ValueError("a quote is not closed, or a zero byte")
    return [quoted if word == "" else word for quoted, word in _TOKEN.findall(line)]


def _obey(tokens: list[str], sets: dict[str, _Set]) -> None:
    exist = [word for word in tokens if word in ("-exist", "-!", "--exist")]
    tokens = [word for word in tokens if word not in ("-exist", "-!", "--exist")]
    match [_COMMANDS.get(tokens[0], tokens[0]), *tokens[1:]] if tokens else []:
        case ["create", name, kind, *options]:
            if name in sets and not exist:
                raise ValueError(f"set {name[:40]!r} is there already")
            made = _create(name, kind, options)
            if name not in sets:
                sets[name] = made
        case ["add", name, entry, *options]:
            one = _of(name, sets)
            member = _member(one, entry, options)
            one.members[member.parts] = member
        case ["del", name, entry, *_]:
            one = _of(name, sets)
            one.members.pop(tuple(_parts(one, entry)), None)
        case ["flush", name]:
            _of(name, sets).members.clear()
        case ["destroy", name]:
            _of(name, sets)
            del sets[name]
        case ["swap", first, second]:
            sets[first], sets[second] = _of(second, sets), _of(first, sets)
        case ["rename", old, new] if new not in sets:
            sets[new] = _of(old, sets)
            del sets[old]
        case _:
            raise ValueError(f"{' '.join(tokens)[:60]!r} is no line of ipset")


def _of(name: str, sets: dict[str, _Set]) -> _Set:
    if name not in sets:
        raise ValueError(f"there is no set {name[:40]!r}")
    return sets[name]


def _create(name: str, kind: str, words: list[str]) -> _Set:
    if not _TYPE.fullmatch(kind):
        raise ValueError(f"set type {kind[:40]!r} is not known")
    if not 1 <= len(name.encode()) <= NAME_MAX:
        raise ValueError(f"{name[:60]!r} is no name for a set")
    options = _options(words, _FLAGS)
    family = options.pop("family", "inet" if "ip" in kind or "net" in kind else None)
    if family is not None and family not in _FAMILIES:
        raise ValueError(f"family {family[:20]!r} is not known")
    for numeric in ("timeout", "maxelem"):
        number(options.get(numeric, "0"))
    return _Set(kind, None if family is None else _FAMILIES[family], options)


def _options(words: list[str], flags: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        value = "" if word in flags else next(rest, None)
        if value is None:
            raise ValueError(f"{word[:40]} needs a value")
        found[word] = value
    return found


def _member(one: _Set, entry: str, words: list[str]) -> Member:
    options = _options(words, frozenset({"nomatch"}))
    timeout = options.get("timeout")
    return Member(
        parts=tuple(_parts(one, entry)),
        timeout_s=None if timeout is None else number(timeout),
        comment=options.get("comment"),
        nomatch="nomatch" in options,
    )


def _parts(one: _Set, entry: str) -> Iterator[Part]:
    kinds = one.type.partition(":")[2].split(",")
    texts = entry.split(",")
    if len(texts) != len(kinds) and not (one.type == "bitmap:ip,mac" and len(texts) == 1):
        raise ValueError(f"{entry[:60]!r} is no member of a {one.type}")
    for kind, text in zip(kinds, texts, strict=False):
        match kind:
            case "ip" | "net":
                yield _addresses(text, one.family)
            case "port" if one.type == "bitmap:port":
                yield Numbers(*_interval(text, 0xFFFF, SERVICES))
            case "port":
                yield _ports(text)
            case "mark":
                yield Numbers(*_interval(text, 0xFFFFFFFF, {}))
            case "mac":
                yield _mac(text)
            case "iface" | "set":
                yield Name(text)
            case _:
                raise ValueError(f"set type {one.type} is not known")


def _addresses(text: str, family: str | None) -> Addresses:
    first, dash, last = text.partition("-")
    low, mask, width = network(first)
    if ("ip" if width == 32 else "ip6") != family:
        raise ValueError(f"{text[:60]!r} is an address of the other family")
    full = (1 << width) - 1
    if mask & (mask ^ full) >> 1 or (mask ^ full) & ((mask ^ full) + 1):
        raise ValueError(f"{text[:60]!r} has no prefix length")
    if not dash:
        return Addresses(low, low | mask ^ full, width)
    try:
        high = int(ipaddress.ip_address(last))
    except ValueError:
        raise ValueError(f"{last[:60]!r} is no address") from None
    if not low <= high <= full:
        raise ValueError(f"{text[:60]!r} is no range")
    return Addresses(low, high, width)


def _ports(text: str) -> Ports:
    name, colon, rest = text.rpartition(":")
    protocol = protocol_number(name) if colon else 6
    if protocol in _ICMP:
        if rest.lower() in _ICMP[protocol]:
            kind, (low, high) = _ICMP[protocol][rest.lower()]
            code = low if low == high else 0
        else:
            first, _, last = rest.partition("/")
            kind, code = number(first, 255), number(last or "0", 255)
        return Ports(protocol, kind << 8 | code, kind << 8 | code)
    return Ports(protocol, *_interval(rest, 0xFFFF, SERVICES))


def _interval(text: str, high: int, names: dict[str, int]) -> tuple[int, int]:
    if text in names:
        return names[text], names[text]
    first, dash, last = text.partition("-")
    low = number(first, high)
    top = number(last, high) if dash else low
    if low > top:
        raise ValueError(f"{text[:40]}: the range is empty")
    return low, top


def _mac(text: str) -> Mac:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", text):
        raise ValueError(f"{text[:40]!r} is no MAC address")
    return Mac(bytes.fromhex(text.replace(":", "")))


def _value(name: str, one: _Set) -> IpSet:
    options = dict(one.options)
    timeout, most = options.pop("timeout", None), options.pop("maxelem", None)
    return IpSet(
        name=name,
        type=one.type,
        family=one.family,
        members=tuple(one.members.values()),
        timeout_s=None if timeout is None else number(timeout),
        max_elements=None if most is None else number(most),
        options=tuple(options.items()),
    )
