"""Say single literals, effects and verdicts in nft's language.

In:  rulegen.lower.literals, rulegen.ir.rule.
Out: nft expressions and statements (grammar of nft 1.0.6).
Source: nft(8); what the kernel does with each form was measured: a load past the packet's end makes the rule
    not match, whatever the operator, so `>= 0` asks whether a byte is there.

Nothing from the wire becomes text but through `quoted` and header.remark.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from analyzer.wire.fields import Layer
from rulegen.ir.match import Contains, InDirection, InState, ServerName, SomeRecord, State, carrier
from rulegen.ir.rule import ConnectionLimit, Learn, Limit, SetMark, Verdict
from rulegen.lower.literals import Finds, Found, Has, Is, Literal, Load, MarkIs, Within, load_of
from rulegen.lower.ranges import Ranges, complement

OFFSET_MAX: Final = 255
"""Linux net/netfilter/nft_payload.c: offsets were u8 until 6.18; rules have to load on older kernels."""

COMMENT_MAX: Final = 128
"""libnftnl include/libnftnl/udata.h NFTNL_UDATA_COMMENT_MAXLEN."""

COMPARE_MAX_BITS: Final = 128
"""Linux net/netfilter/nf_tables.h NFT_DATA_VALUE_MAXLEN: what a comparison can hold. Sets hold more."""

_BASES: Final = {Layer.NETWORK: "@nh", Layer.TRANSPORT: "@th", Layer.PAYLOAD: "@ih"}

_SYMBOLS: Final = {
    name: name.replace(".", " ")
    for name in (
        "ip.saddr",
        "ip.daddr",
        "ip6.saddr",
        "ip6.daddr",
        "tcp.sport",
        "tcp.dport",
        "udp.sport",
        "udp.dport",
    )
}
"""Fields that nft has under the same name. Naming one also makes nft test for its protocol."""

_ADDRESSES: Final = {
    "ip.saddr": ipaddress.IPv4Address,
    "ip.daddr": ipaddress.IPv4Address,
    "ip6.saddr": ipaddress.IPv6Address,
    "ip6.daddr": ipaddress.IPv6Address,
}

_PROTOCOLS: Final = {
    "ip": "meta nfproto {}ipv4",
    "ip6": "meta nfproto {}ipv6",
    "tcp": "meta l4proto {}tcp",
    "udp": "meta l4proto {}udp",
}

_VERDICTS: Final = {
    Verdict.DROP: "drop",
    Verdict.RESET: "reject with tcp reset",
    Verdict.ACCEPT: "accept",
    Verdict.PASS: "return",
    Verdict.CONTINUE: "",
}

_SEARCHES: Final = {
    Contains: "bytes anywhere in the payload",
    ServerName: "the server_name of a ClientHello",
    SomeRecord: "a record behind the first",
}

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 ._,:;/#@()+=<>\[\]-]")


class CantSay(Exception):
    """nft has no words for it; the message says for what."""


def identifier(*parts: str) -> str:
    """A name for a chain or set. It begins with a word that is no keyword of nft; never with wire strings."""
    return "_".join(part.replace("-", "_") for part in parts)


def quoted(text: str) -> str:
    """A string of nft, which has no escapes, and where `*` has a meaning: what may do harm becomes a `?`."""
    harmless = _UNSAFE.sub("?", text)
    if len(harmless) > COMMENT_MAX:
        harmless = f"{harmless[: COMMENT_MAX - 3]}..."
    return f'"{harmless}"'


def words(literal: Literal, ranges_set: str | None = None) -> str:
    """A literal as an expression; `ranges_set` names the set that holds its ranges, if they are in one."""
    match literal:
        case Is(protocol, other):
            return _PROTOCOLS[protocol].format("!= " if other else "")
        case Has(payload_bytes):
            if payload_bytes - 1 > OFFSET_MAX:
                raise CantSay(f"a payload of at least {payload_bytes} bytes")
            return f"@ih,{8 * (payload_bytes - 1)},8 >= 0"
        case Found(fields, name, missing):
            return f"{key_of(fields)} {'!= ' if missing else ''}@{identifier('set', name)}"
        case Finds(search):
            raise CantSay(f"{_SEARCHES[type(search)]}, which is at no fixed place")
        case InState(states):
            return f"ct state {','.join(state for state in State if state in states)}"
        case InDirection(direction):
            return f"ct direction {direction}"
        case MarkIs(value, mask, other):
            masked = "" if mask == 0xFFFFFFFF else f" & {mask:#010x}"
            return f"ct mark{masked} {'!=' if other else '=='} {value:#010x}"
    if ranges_set is not None:
        return f"{load_words(literal.load)} @{ranges_set}"
    return _within(literal.load, literal.ranges)


def key_of(fields: Iterable[str]) -> str:
    """Fields as the key of a set."""
    return " . ".join(load_words(load_of(field)) for field in fields)


def load_words(load: Load) -> str:
    """A load as an expression, masked if it has to be."""
    if load.byte_offset > OFFSET_MAX:
        raise CantSay(f"bytes at offset {load.byte_offset}, beyond {OFFSET_MAX}")
    if load.field in _SYMBOLS:
        return _SYMBOLS[load.field]
    raw = f"{_BASES[load.layer]},{8 * load.byte_offset},{load.width_bits}"
    return raw if load.whole else f"{raw} & {load.mask:#x}"


def _within(load: Load, ranges: Ranges) -> str:
    key = load_words(load)
    if ranges == ((0, (1 << load.width_bits) - 1),):
        return f"{key} >= {value(load, 0)}"
    outside = complement(ranges, load.width_bits)
    negative = len(outside) < len(ranges)
    listed = ", ".join(interval(load, *pair) for pair in (outside if negative else ranges))
    if len(outside if negative else ranges) > 1:
        listed = f"{{ {listed} }}"
    symbolic = load.field in _SYMBOLS
    return f"{key} {'!= ' if negative else '' if symbolic else '== '}{listed}"


def value(load: Load, number: int) -> str:
    """A value that the load is compared with."""
    if load.field in _ADDRESSES:
        return str(_ADDRESSES[load.field](number))
    return str(number) if load.field in _SYMBOLS else f"{number:#0{2 * load.width_bytes + 2}x}"


def interval(load: Load, low: int, high: int) -> str:
    return value(load, low) if low == high else f"{value(load, low)}-{value(load, high)}"


def element(fields: tuple[str, ...], key: tuple[tuple[int, int], ...]) -> str:
    """A set element's key."""
    return " . ".join(interval(load_of(field), *pair) for field, pair in zip(fields, key, strict=True))


def implies(literal: Literal) -> str | None:
    """The protocol that nft tests by itself when it reads this literal."""
    name: str | None = None
    if isinstance(literal, Found):
        name = literal.fields[0]
    elif isinstance(literal, Within):
        name = literal.load.field
    return carrier(name) if name in _SYMBOLS else None


def duration(seconds: int) -> str:
    """In the largest unit that leaves no rest."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def effect_words(effect: SetMark | Learn) -> str:
    match effect:
        case SetMark(number, mask):
            if mask == 0xFFFFFFFF:
                return f"ct mark set {number:#010x}"
            kept = "ct mark" if number == mask else f"ct mark & {mask ^ 0xFFFFFFFF:#010x}"
            return f"ct mark set {kept}" + (f" | {number:#010x}" if number else "")
        case Learn(name, fields, timeout_s):
            return f"update @{identifier('set', name)} {{ {key_of(fields)} timeout {duration(timeout_s)} }}"


def limit_words(limit: Limit | ConnectionLimit, counted: str) -> str:
    """`counted` names the set that counts per key, for a limit that has a key."""
    if isinstance(limit, ConnectionLimit):
        return f"add @{counted} {{ {key_of(limit.key)} ct count over {limit.connections} }}"
    rate = f"limit rate over {limit.packets}/{limit.per} burst {limit.burst} packets"
    return f"update @{counted} {{ {key_of(limit.key)} {rate} }}" if limit.key else rate


def verdict_words(verdict: Verdict) -> str:
    return _VERDICTS[verdict]
