"""Read the elements of nft's sets and maps.

In:  elements as `--debug=netlink` prints them (bytes, exact); the set as `-j` lists it (time-outs, objects).
Out: SetContent.
Source: libnftnl 1.2.4 src/set_elem.c; libnftnl include/libnftnl/udata.h for comments; nft 1.0.6 src/json.c.

Sets of intervals are printed as starts and ends, an end being the first key that is no longer inside.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from typing import Any, Final

from rulegen.artifacts.model import Element, SetContent
from rulegen.artifacts.nft_bytecode import verdict, words
from rulegen.artifacts.nft_values import Counter, Expression, Limit, NftVerdict, Quota
from rulegen.artifacts.nft_widths import padded
from rulegen.artifacts.unknown import Unknown, Unreadable

_ELEMENT: Final = re.compile(
    r"\telement (?P<low>[0-9a-f ]*?)(?: - (?P<high>[0-9a-f ]+?))? *: (?P<data>.*?)(?P<flags>\d+) \[end\]"
    r"(?:\s+userdata = \{ (?P<user>.*) \})?"
)
_DATA: Final = re.compile(r"[0-9a-f]{8}")
_INTERVAL_END: Final = 1
"""NFT_SET_ELEM_INTERVAL_END."""

_COMMENT: Final = 0
"""NFTNL_UDATA_SET_ELEM_COMMENT."""

_FLAGS: Final = 1
"""NFTNL_UDATA_SET_ELEM_FLAGS, of the host's byte order."""

_INTERVAL_OPEN: Final = 1
"""nft 1.0.6 src/netlink.c SET_ELEM_F_INTERVAL_OPEN."""

_MILLISECONDS: Final = re.compile(r"\btimeout\s+(?:\d+[a-z]+)*\d+ms\b")
"""`-j` cuts them off."""

_UNITS: Final = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20}

_TYPES: Final = {
    "ipv4_addr": 4, "ipv6_addr": 16, "ether_addr": 6, "inet_proto": 1, "inet_service": 2, "mark": 4,
    "ifname": 16, "iface_index": 4, "ct_state": 4, "icmp_type": 1, "icmpv6_type": 1, "ether_type": 2,
}  # fmt: skip
"""Widths of nft's types, for a set that no rule uses."""


@dataclass(frozen=True, slots=True)
class Printed:
    """An element as printed: keys padded to words."""

    low: bytes
    high: bytes | None
    """Of a concatenation with intervals: the last key inside."""
    end: bool
    """Not an element, but the first key behind one."""
    value: bytes | NftVerdict | None
    comment: str | None
    open: bool
    """An interval that ends with the last key of all."""


def printed_element(line: str) -> Printed:
    """One line.

    Raises:
        Unreadable: It is none.
    """
    found = _ELEMENT.fullmatch(line)
    if found is None:
        raise Unreadable(f"nft prints a set element that is not understood: {line.strip()[:200]}")
    data = found["data"].strip()
    try:
        value = None if not data else words(data) if _DATA.match(data) else verdict(data)
        high = words(found["high"]) if found["high"] else None
        low = words(found["low"])
    except ValueError as error:
        raise Unreadable(f"nft prints a set element that is not understood: {error}") from None
    end = bool(int(found["flags"]) & _INTERVAL_END)
    user = _triples(found["user"] or "")
    comment = user[_COMMENT].rstrip(b"\0").decode(errors="replace") if _COMMENT in user else None
    is_open = bool(int.from_bytes(user.get(_FLAGS, b""), sys.byteorder) & _INTERVAL_OPEN)
    return Printed(low, high, end, value, comment, is_open)


def _triples(user: str) -> dict[int, bytes]:
    r"""Values by type of type-length-value triples; bytes that are no letters are printed as \x00."""
    data = re.sub(
        rb"\\x([0-9a-f]{2})", lambda code: bytes((int(code[1], 16),)), user.encode(errors="replace")
    )
    found: dict[int, bytes] = {}
    at = 0
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1]
        found.setdefault(kind, data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def content(
    name: str, printed: Iterable[Printed], widths: tuple[int, ...], listed: Mapping[str, Any], saved: str
) -> SetContent:
    """Put a set together.

    Args:
        name: Of the set.
        printed: Its elements, in any order.
        widths: Of the key's components, as rules load them; () where no rule does.
        listed: The set as `-j` lists it; empty for an anonymous set.
        saved: The file's text, which tells whether `expires` is its wish or the clock's.
    """
    types = _types(listed.get("type"))
    elements = sorted(printed, key=lambda one: (one.low, not one.end))
    known = tuple(_TYPES.get(kind, 0) for kind in types)
    if not widths and all(known):
        widths = known
    flags = _types(listed.get("flags"))
    # An interval of all keys has no end either: there is no key behind it.
    ranged = "interval" in flags or any(one.open for one in elements)
    alone = ranged and len(widths) == 1 and not any(one.high for one in elements)
    intervals = alone or any(one.end for one in elements)
    size = len(elements[-1].low) if elements else 0
    if not widths or sum(map(padded, widths)) != size:
        widths = (size,) if size else widths
    made = tuple(_closed(elements, widths[0]) if intervals else (_element(one, widths) for one in elements))
    timed, unclear = _timed(made, widths, listed.get("elem") or (), "expires" in saved)
    if listed and _in_milliseconds(name, saved):
        unclear += (Unknown("timeout", "of milliseconds"),)
    data = listed.get("map")
    return SetContent(
        name=name,
        types=types,
        data=None if data is None else " . ".join(_types(data)),
        widths=widths,
        intervals=intervals or any(one.high for one in elements) or "interval" in flags,
        elements=timed,
        timeout_s=listed.get("timeout"),
        size=listed.get("size"),
        statements=tuple(_statements(listed)) + unclear,
        comment=listed.get("comment"),
    )


def _in_milliseconds(name: str, saved: str) -> bool:
    """A time-out of the set or its elements is not of whole seconds; those that rules give are elsewhere."""
    declared = rf"\b(?:set|map)\s+{re.escape(name)}\s*\{{.*?(?=\b(?:set|map|chain)\s+\w+\s*\{{|\Z)"
    added = rf"\belement\s+\S+\s+\S+\s+{re.escape(name)}\s*\{{[^}}]*\}}"
    places = (*re.findall(declared, saved, re.DOTALL), *re.findall(added, saved))
    return any(map(_MILLISECONDS.search, places))


def _types(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _statements(listed: Mapping[str, Any]) -> Iterator[Expression | Unknown]:
    for statement in listed.get("stmt") or ():
        for kind, body in statement.items():
            yield stateful(kind, body or {})


def stateful(kind: str, body: Mapping[str, Any]) -> Expression | Unknown:
    """An object with state, as `-j` lists it."""
    match kind:
        case "counter":
            return Counter(body.get("packets", 0), body.get("bytes", 0))
        case "quota" if "bytes" in body:
            return Quota(body["bytes"], body.get("used", 0), bool(body.get("inv")))
        case "limit":
            unit = body.get("rate_unit", "packets")
            scale, burst = _UNITS.get(unit, 1), _UNITS.get(body.get("burst_unit", "bytes"), 1)
            return Limit(
                body["rate"] * scale, body["per"], body.get("burst", 0) * burst,
                "packets" if unit == "packets" else "bytes", bool(body.get("inv")),
            )  # fmt: skip
    told = {name: value for name, value in body.items() if name not in ("family", "table", "name", "handle")}
    return Unknown(kind, json.dumps(told, sort_keys=True))


def _element(one: Printed, widths: tuple[int, ...]) -> Element:
    high = one.low if one.high is None else one.high
    key = tuple(zip(_split(one.low, widths), _split(high, widths), strict=True)) if one.low else ()
    return Element(key=key, value=one.value, comment=one.comment)


def _split(key: bytes, widths: tuple[int, ...]) -> Iterator[bytes]:
    at = 0
    for width in widths:
        yield key[at : at + width]
        at += padded(width)


def _closed(ordered: list[Printed], width: int) -> Iterator[Element]:
    """Intervals from starts and ends; a start without an end goes on to the last key of all."""
    last = (1 << 8 * width) - 1
    starts = [one for one in ordered if one.low]
    for one, behind in zip_longest(starts, starts[1:]):
        if one.end:
            continue
        high = last if behind is None else int.from_bytes(behind.low[:width]) - 1
        key = ((one.low[:width], high.to_bytes(width)),)
        yield Element(key=key, value=one.value, comment=one.comment)
    for one in ordered:
        if not one.low:
            yield Element(key=(), value=one.value, comment=one.comment)


def _timed(
    elements: tuple[Element, ...], widths: tuple[int, ...], listed: Iterable[Any], expires: bool
) -> tuple[tuple[Element, ...], tuple[Unknown, ...]]:
    """Add what only `-j` tells, or tells without doubt: time-outs, the names of objects, comments."""
    places = {tuple(low for low, _ in one.key): at for at, one in enumerate(elements)}
    changed = list(elements)
    unclear = []
    for item in listed:
        key, value = item if isinstance(item, list) else (item, None)
        changes: dict[str, Any] = {}
        comment = None
        if isinstance(key, dict) and "elem" in key:
            body = key["elem"]
            key, comment = body.get("val"), body.get("comment")
            changes["timeout_s"] = body.get("timeout")
            changes["expires_s"] = body.get("expires") if expires else None
            others = body.keys() - {"val", "timeout", "expires", "comment", "counter"}
            unclear += [Unknown(f"{other} of an element", str(body[other])) for other in sorted(others)]
        if isinstance(value, str) and elements and elements[0].value is None:
            changes["value"] = value
        changes = {field: new for field, new in changes.items() if new is not None}
        if not changes and comment is None:
            continue
        found = next((places[one] for one in _keys(key, widths) if one in places), None)
        if found is not None:
            changed[found] = replace(changed[found], **changes, comment=comment or changed[found].comment)
        elif changes:
            unclear.append(Unknown("element", str(key)[:200]))
    return tuple(changed), tuple(unclear)


def _keys(value: object, widths: tuple[int, ...]) -> Iterator[tuple[bytes, ...]]:
    """The keys that a value of `-j` may stand for: its byte order depends on its type."""
    if value == "*":
        yield ()
        return
    parts = value["concat"] if isinstance(value, dict) and "concat" in value else [value]
    if len(parts) == len(widths):
        yield from product(*(tuple(_bytes(part, width)) for part, width in zip(parts, widths, strict=True)))


def _bytes(value: object, width: int) -> Iterator[bytes]:
    if isinstance(value, dict):
        bounds = value.get("range") or [value.get("prefix", {}).get("addr")]
        value = bounds[0]
    if isinstance(value, str) and value.startswith("0x"):
        value = int(value, 16)
    if isinstance(value, int):
        if value < 1 << 8 * width:
            yield value.to_bytes(width)
            yield value.to_bytes(width, sys.byteorder)
    elif isinstance(value, str):
        try:
            yield ipaddress.ip_address(value).packed
        except ValueError:
            if re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", value):
                yield bytes.fromhex(value.replace(":", ""))
            yield value.rstrip("*").encode(errors="replace").ljust(width, b"\0")
