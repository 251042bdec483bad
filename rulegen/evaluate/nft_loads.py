"""What nft's expressions load into registers.

In:  PayloadLoad, MetaLoad, CtLoad, ExthdrLoad.
Out: Getter: gives a packet's bytes, or None where the kernel ends the rule (NFT_BREAK).
Source: Linux net/netfilter/nft_payload.c, nf_tables_core.c nft_payload_fast_eval, nft_meta.c, nft_ct.c,
    nft_exthdr.c.

Loads of 1, 2 or 4 aligned bytes take the kernel's fast path, which does not ask whether the packet is a
fragment without transport header. Numbers of the kernel are in the host's byte order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from rulegen.artifacts.nft_values import CtLoad, ExthdrLoad, MetaLoad, PayloadLoad
from rulegen.evaluate.base import Connection
from rulegen.evaluate.nft_packet import TCP, Seen
from rulegen.ir.match import Direction, State

Getter = Callable[[Seen], bytes | None]

_BYTES: Final = tuple(bytes((value,)) for value in range(256))
_NAME_BYTES: Final = 16
_SECOND_NS: Final = 1_000_000_000
_TCP_BYTES: Final = 20
_ETHERNET: Final = 1
"""ARPHRD_ETHER."""


class Unmodelled(Exception):
    """The expression has no model; its name in nft's words."""


def host(number: int, size: int = 4) -> bytes:
    """A number of the kernel, as it lies in a register."""
    return number.to_bytes(size, sys.byteorder)


# --- payload ------------------------------------------------------------------------------------------------


def payload(load: PayloadLoad) -> Getter:
    """Bytes of the packet.

    Raises:
        Unmodelled: They are of the link layer, which a packet here does not have.
    """
    match load.base:
        case "network":
            return _network(load.offset, load.length)
        case "transport" if is_fast(load):
            return _transport_fast(load.offset, load.length)
        case "transport":
            return _transport(load.offset, load.length)
        case "inner":
            return _inner(load.offset, load.length)
    raise Unmodelled(f"a load from the {load.base} header")


def is_fast(load: PayloadLoad) -> bool:
    """Whether the kernel chooses nft_payload_fast_ops."""
    return (
        load.base in ("network", "transport") and load.length in (1, 2, 4) and load.offset % load.length == 0
    )


def _network(offset: int, length: int) -> Getter:
    end = offset + length

    def get(seen: Seen) -> bytes | None:
        if end <= seen.captured:
            return seen.data[offset:end]
        return seen.bytes_at(offset, length)

    return get


def _transport_fast(offset: int, length: int) -> Getter:
    def get(seen: Seen) -> bytes | None:
        if seen.protocol is None:
            return None
        start = seen.transport + offset
        if start + length <= seen.captured:
            return seen.data[start : start + length]
        return seen.bytes_at(start, length)

    return get


def _transport(offset: int, length: int) -> Getter:
    def get(seen: Seen) -> bytes | None:
        if seen.protocol is None or seen.fragment_offset:
            return None
        return seen.bytes_at(seen.transport + offset, length)

    return get


def _inner(offset: int, length: int) -> Getter:
    def get(seen: Seen) -> bytes | None:
        start = seen.inner
        if start < 0 and (start := seen.find_inner()) < 0:
            return None
        start += offset
        if start + length <= seen.captured:
            return seen.data[start : start + length]
        return seen.bytes_at(start, length)

    return get


# --- meta ---------------------------------------------------------------------------------------------------


def meta(load: MetaLoad, interfaces: Mapping[str, int]) -> Getter:
    """A fact about the packet that is not in its bytes.

    Args:
        load: The expression.
        interfaces: Numbers of those that the file compares with by number.

    Raises:
        Unmodelled: It depends on the host.
    """
    if load.key in _META:
        return _META[load.key]
    if load.key in ("iif", "oif"):
        incoming = load.key == "iif"

        def number(seen: Seen) -> bytes:
            name = seen.interface_in if incoming else seen.interface_out
            # Any number that the file does not name: it can only be compared for equality.
            return host(interfaces.get(name, 0x7FFFFFFF) if name else 0)

        return number
    raise Unmodelled(f"meta {load.key}")


def _name(name: str) -> bytes:
    return name.encode()[: _NAME_BYTES - 1].ljust(_NAME_BYTES, b"\0")


def _clock(seen: Seen) -> datetime:
    return datetime.fromtimestamp(seen.passing.time_ns // _SECOND_NS, UTC)


def _hour(seen: Seen) -> bytes:
    clock = _clock(seen)
    return host(clock.hour * 3600 + clock.minute * 60 + clock.second)


_META: Final[dict[str, Getter]] = {
    "len": lambda seen: host(len(seen.data)),
    "protocol": lambda seen: b"\x08\0" if seen.four else b"\x86\xdd",
    "nfproto": lambda seen: b"\2" if seen.four else b"\x0a",
    "l4proto": lambda seen: None if seen.protocol is None else _BYTES[seen.protocol],
    "mark": lambda seen: host(seen.passing.mark),
    "iifname": lambda seen: _name(seen.interface_in),
    "oifname": lambda seen: _name(seen.interface_out),
    "iiftype": lambda seen: host(_ETHERNET, 2) if seen.interface_in else None,
    "oiftype": lambda seen: host(_ETHERNET, 2) if seen.interface_out else None,
    # A packet that is forwarded belongs to no local socket.
    "skuid": lambda seen: None,
    "skgid": lambda seen: None,
    "time": lambda seen: host(seen.passing.time_ns, 8),
    # The kernel's time zone is taken as UTC, which nft assumes too where TZ says nothing else.
    "day": lambda seen: _BYTES[_clock(seen).isoweekday() % 7],
    "hour": _hour,
}


# --- conntrack ----------------------------------------------------------------------------------------------

_INVALID_BIT, _ESTABLISHED_BIT, _RELATED_BIT, _NEW_BIT, _UNTRACKED_BIT = 1, 2, 4, 8, 64
STATES: Final[dict[State | None, bytes]] = {
    None: host(_INVALID_BIT),  # not seen by conntrack yet: no entry, and no note that it is untracked
    State.INVALID: host(_INVALID_BIT),
    State.ESTABLISHED: host(_ESTABLISHED_BIT),
    State.RELATED: host(_RELATED_BIT),
    State.NEW: host(_NEW_BIT),
    State.UNTRACKED: host(_UNTRACKED_BIT),
}
"""Linux uapi nf_conntrack_common.h NF_CT_STATE_BIT."""

_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
"""IPS_*."""


def ct(load: CtLoad) -> Getter:
    """A fact about the packet's connection.

    Raises:
        Unmodelled: Connection does not have it.
    """
    if load.key == "state":
        return lambda seen: STATES[seen.passing.state]
    if load.key == "direction":
        return lambda seen: (
            None if seen.passing.connection is None else _BYTES[seen.passing.direction is Direction.REPLY]
        )
    read = _of_connection(load.key, load.direction)

    def get(seen: Seen) -> bytes | None:
        connection = seen.passing.connection
        return None if connection is None else read(connection)

    return get


def _of_connection(key: str, direction: str | None) -> Callable[[Connection], bytes | None]:
    if key in _CONNECTION:
        return _CONNECTION[key]
    ways = (0, 1) if direction is None else (int(direction == "reply"),)

    def packets(one: Connection) -> int:
        return sum(one.packet_counts[way] for way in ways)

    def octets(one: Connection) -> int:
        return sum(one.byte_counts[way] for way in ways)

    match key:
        case "packets":
            return lambda one: host(packets(one), 8)
        case "bytes":
            return lambda one: host(octets(one), 8)
        case "avgpkt":
            return lambda one: host(octets(one) // max(1, packets(one)), 8)
        case "src" | "src_ip" | "src_ip6":
            return _address(0, ways[0], key)
        case "dst" | "dst_ip" | "dst_ip6":
            return _address(1, ways[0], key)
        case "proto_src":
            return lambda one: one.tuples[ways[0]][2].to_bytes(2)
        case "proto_dst":
            return lambda one: one.tuples[ways[0]][3].to_bytes(2)
    raise Unmodelled(f"ct {key}")


def _address(which: int, way: int, key: str) -> Callable[[Connection], bytes | None]:
    length = {"src_ip": 4, "dst_ip": 4, "src_ip6": 16, "dst_ip6": 16}.get(key)

    def get(one: Connection) -> bytes | None:
        source, destination, *_ = one.tuples[way]
        address = destination if which else source
        return address if length in (None, len(address)) else None

    return get


def _status(one: Connection) -> bytes:
    return host(_SEEN_REPLY * one.seen_reply | _ASSURED * one.assured | _CONFIRMED * one.confirmed)


_CONNECTION: Final[dict[str, Callable[[Connection], bytes | None]]] = {
    "mark": lambda one: host(one.mark),
    "status": _status,
    "l3protocol": lambda one: b"\2" if len(one.tuples[0][0]) == 4 else b"\x0a",
    "protocol": lambda one: _BYTES[one.tuples[0][4]],
    "zone": lambda one: host(0, 2),
}


# --- extension headers and TCP options ----------------------------------------------------------------------


def exthdr(load: ExthdrLoad) -> Getter:
    """Bytes of an IPv6 extension header or TCP option, or whether there is one.

    Raises:
        Unmodelled: It is of something else.
    """
    match load.header:
        case "ipv6":
            return _extension(load)
        case "tcpopt":
            return _tcp_option(load)
    raise Unmodelled(f"exthdr {load.header}")


def _extension(load: ExthdrLoad) -> Getter:
    def get(seen: Seen) -> bytes | None:
        if seen.four:
            return None
        found = seen.find(load.type)
        if load.present:
            return _BYTES[found is not None]
        return None if found is None else seen.bytes_at(found.offset + load.offset, load.length)

    return get


def _tcp_option(load: ExthdrLoad) -> Getter:
    absent = b"\0" if load.present else None

    def get(seen: Seen) -> bytes | None:
        header = _tcp_header(seen)
        if header is None:
            return absent
        at, end = _TCP_BYTES, len(header)
        while at < end - 1:
            length = 1 if header[at] <= 1 or header[at + 1] == 0 else header[at + 1]
            if header[at] == load.type:
                if at + length > end or load.offset + load.length > length:
                    return absent
                start = at + load.offset
                return b"\1" if load.present else header[start : start + load.length]
            at += length
        return absent

    return get


def _tcp_header(seen: Seen) -> bytes | None:
    """With its options, all of which must be there."""
    if seen.protocol != TCP or seen.fragment_offset:
        return None
    fixed = seen.bytes_at(seen.transport, _TCP_BYTES)
    if fixed is None or (fixed[12] >> 4) * 4 < _TCP_BYTES:
        return None
    return seen.bytes_at(seen.transport, (fixed[12] >> 4) * 4)
