"""Follow what lies in the registers, to know how many bytes of a printed value count.

In:  programs of nft_bytecode.
Out: the same programs with values of their true length; for each set, the widths of its key's components.
Source: Linux net/netfilter/nft_meta.c, nft_ct.c for what a key gives; nf_tables.h for padding.

A value never gets longer. Where a load is not known, the value stays whole words, which compares alike:
registers are padded with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from rulegen.artifacts.nft_bytecode import WORD
from rulegen.artifacts.nft_values import (
    Bitwise,
    Byteorder,
    Compare,
    CtLoad,
    DynamicSet,
    Expression,
    ExthdrLoad,
    Fib,
    Hash,
    Immediate,
    Ipsec,
    Lookup,
    MetaLoad,
    Numgen,
    ObjectMap,
    OsFingerprint,
    PayloadLoad,
    Range,
    Route,
    Shift,
    Socket,
)
from rulegen.artifacts.unknown import Unknown

NAME: Final = 16
"""Bytes of an interface's name (IFNAMSIZ) and of other names."""

_META: Final = {
    "protocol": 2, "iiftype": 2, "oiftype": 2, "nfproto": 1, "l4proto": 1, "pkttype": 1, "nftrace": 1,
    "secpath": 1, "day": 1, "time": 8, "bri_iifpvid": 2, "bri_iifvproto": 2,
    "iifname": NAME, "oifname": NAME, "iifkind": NAME, "oifkind": NAME, "bri_iifname": NAME,
    "bri_oifname": NAME, "sdifname": NAME,
}  # fmt: skip
_CT: Final = {
    "direction": 1, "l3protocol": 1, "protocol": 1, "proto_src": 2, "proto_dst": 2, "zone": 2,
    "packets": 8, "bytes": 8, "avgpkt": 8, "helper": NAME, "label": NAME,
    "src_ip": 4, "dst_ip": 4, "src_ip6": 16, "dst_ip6": 16,
}  # fmt: skip

Shape = Callable[[str], tuple[int | None, int | None]]
"""A set's name -> components of its key, words of its key; None: not known."""


def measure(
    program: Iterable[Expression | Unknown], family: str, text: str, shape: Shape
) -> tuple[tuple[Expression | Unknown, ...], dict[str, tuple[int, ...]]]:
    """Give a program's values their true length, and the widths of the keys that it looks up.

    Args:
        program: Of one rule.
        family: Of its table.
        text: The rule as nft lists it; it tells `"eth*"` from "eth".
        shape: What is known of the keys of sets.
    """
    held: dict[int, int] = {}
    widths: dict[str, tuple[int, ...]] = {}
    made = []
    for one in program:
        made.append(_sized(one, held, text))
        if isinstance(one, Lookup | DynamicSet | ObjectMap):
            key = _key(held, one.register, *shape(one.set))
            if key:
                widths[one.set] = key
        loaded = _loads(one, held, family)
        if loaded is not None:
            _hold(held, *loaded)
    return tuple(made), widths


def _hold(held: dict[int, int], start: int, length: int) -> None:
    for other, size in list(held.items()):
        if other < start + padded(length) and start < other + padded(size):
            del held[other]
    held[start] = length


def padded(length: int) -> int:
    """In whole words."""
    return -(-length // WORD) * WORD


def _key(held: dict[int, int], start: int, parts: int | None, key_words: int | None) -> tuple[int, ...]:
    """Widths of what lies one behind the other; () where it isn't what the set has."""
    found: list[int] = []
    at = start
    while (
        at in held
        and (parts is None or len(found) < parts)
        and (key_words is None or at < start + WORD * key_words)
    ):
        found.append(held[at])
        at += padded(held[at])
    if (parts is not None and len(found) != parts) or (
        key_words is not None and at != start + WORD * key_words
    ):
        return ()
    return tuple(found)


def _loads(one: Expression | Unknown, held: dict[int, int], family: str) -> tuple[int, int] | None:
    """Where an expression writes, and how many bytes."""
    match one:
        case PayloadLoad() | ExthdrLoad():
            return one.register, one.length
        case MetaLoad(register, key):
            return register, _META.get(key, 4)
        case CtLoad(register, key):
            address = 4 if family == "ip" else 16
            return register, address if key in ("src", "dst") else _CT.get(key, 4)
        case Fib():
            return one.register, NAME if one.result == "oifname" and not one.present else 4
        case Immediate(register, value):
            return register, len(value)
        case OsFingerprint(register):
            return register, NAME
        case Route() | Socket() | Ipsec() | Numgen() | Hash():
            return one.register, 4
        case Bitwise() | Shift() | Byteorder():
            return one.target, held.get(one.source, 4)
        case Lookup(target=int(target)):
            return target, 4
    return None


def _sized(one: Expression | Unknown, held: dict[int, int], text: str) -> Expression | Unknown:
    match one:
        case Compare(register, _, value):
            return replace(one, value=_compared(value, held.get(register), text))
        case Range(register, _, low, high) if register in held:
            return replace(one, low=low[: held[register]], high=high[: held[register]])
        case Bitwise(_, source, mask, xor) if source in held:
            return replace(one, mask=mask[: held[source]], xor=xor[: held[source]])
    return one


def _compared(value: bytes, length: int | None, text: str) -> bytes:
    if length == NAME:
        name = value.rstrip(b"\0")
        # "eth*" compares three bytes, "eth" all sixteen; what is printed are words in either case.
        if len(value) < NAME or f'"{name.decode(errors="replace")}*"' in text:
            return name
    return value if length is None else value[:length]
