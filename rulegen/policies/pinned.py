"""Which connection is meant by a wish to pin one, and by what a filter can know it.

In:  settings of the policy pin; connections with their Handshake (rulegen.handshakes).
Out: Pinned, or WishError with what there is instead.
Source: RFC 5246 7.4.1.2, 7.4.1.3 (random, session_id); RFC 5077 3.4 (ticket); OpenSSL 3.0
    ssl/statem/statem_clnt.c tls_process_new_session_ticket (session_id of a ticket).

Nothing is guessed: a connection that the captures do not show, or show without what is needed, is refused by
name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from rulegen.errors import WishError
from rulegen.handshakes import KEY, Handshake
from rulegen.ir.match import Match, all_of, any_of, equals
from rulegen.policies.base import Seen, Settings

WAYS: Final = ("connection", "client", "random", "session_id", "certificate")
"""Parameters that name a connection; one of them is given."""

HASH_BYTES: Final = 32
"""Of a random, of the session_id that servers send, of SHA-256."""

Endpoint: TypeAlias = tuple[IPv4Address | IPv6Address, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A connection by everything that it is to be known by; what it is not known by is empty."""

    label: str
    """For people."""
    client: Endpoint | None = None
    server: Endpoint | None = None
    random: bytes = b""
    certificate: bytes = b""
    """DER."""
    session_ids: tuple[bytes, ...] = ()
    resumed_by: tuple[bytes, ...] = ()
    """A session_id of each, in ServerHellos that resume its session."""
    ticket: bytes = b""
    """With which its session is resumed."""


def choose(settings: Settings) -> Pinned:
    """The connection that the user means.

    Raises:
        WishError: None or more than one is named, or the captures do not show it.
    """
    ways = [way for way in WAYS if settings[way]]
    if len(ways) != 1:
        raise WishError(
            f"pin: name one connection, by {', '.join(f'{way}=' for way in WAYS[:-1])} or {WAYS[-1]}="
        )
    way, value = ways[0], settings[ways[0]]
    if settings["capture"] and way not in ("connection", "certificate"):
        raise WishError(f"pin: {way}= is not looked for in a capture; leave capture= out")
    if settings["by"] != "any" and way != "connection":
        raise WishError(f"pin: {way}= says by what the connection is known; leave by= out")
    return _FINDERS[way](value, settings)


def _connection(value: str, settings: Settings) -> Pinned:
    seen = _seen(value, settings)
    handshake, by = _handshake(seen), settings["by"]
    ids = _session_ids(handshake)
    label = f"connection {int(value)} of {seen.capture}"
    there = {
        "random": handshake.client_random,
        "session_id": ids,
        "certificate": handshake.certificate,
    }
    if not there.get(by, True):
        raise WishError(f"pin: the capture shows no {by} of {label} in clear; {_NOT_IN_1_3}")
    ends = by in ("any", "tuple")
    return Pinned(
        label=label,
        client=_end(seen.row["client"]) if ends else None,
        server=_end(seen.row["server"]) if ends else None,
        random=handshake.client_random if by in ("any", "random") else b"",
        certificate=handshake.certificate if by == "certificate" else b"",
        session_ids=ids if by == "session_id" else (),
        resumed_by=ids,
        ticket=handshake.ticket,
    )


_NOT_IN_1_3: Final = "TLS 1.3 encrypts its certificates and tickets, and its session_id names no session"


def _seen(value: str, settings: Settings) -> Seen:
    """The connection of this number, in the capture that is named or the only one that has it."""
    if not re.fullmatch(r"\d{1,18}", value):
        raise WishError(f"pin: connection={value} is no number; `tlswall analyze` shows the numbers")
    found = [
        seen
        for seen in settings.connections
        if seen.row.get("connection") == int(value) and settings["capture"] in ("", seen.capture)
    ]
    if not found:
        raise WishError(
            f"pin: no TLS connection {int(value)} in {settings['capture'] or 'the captures given'}"
        )
    if len(found) > 1:
        raise WishError(
            f"pin: connection {int(value)} is in {', '.join(seen.capture for seen in found)}; name one with"
            " capture="
        )
    return found[0]


def _client(value: str, settings: Settings) -> Pinned:
    address, _, port = value.rpartition(":")
    try:
        end = ip_address(address.removeprefix("[").removesuffix("]")), int(port)
    except ValueError:
        end = None
    if end is None or not 0 < end[1] <= 0xFFFF:
        raise WishError(f"pin: client={value}: write 192.0.2.1:40000 or [2001:db8::1]:40000")
    return Pinned(label=f"the connection of {end[0]} port {end[1]}", client=end)


def _random(value: str, settings: Settings) -> Pinned:
    return Pinned(label="the connection of this client random", random=_bytes("random", value))


def _session_id(value: str, settings: Settings) -> Pinned:
    return Pinned(label="the session of this session_id", session_ids=(_bytes("session_id", value),))


def _certificate(value: str, settings: Settings) -> Pinned:
    digest = _bytes("certificate", value)
    for seen in settings.connections:
        certificate = _handshake(seen).certificate
        if settings["capture"] in ("", seen.capture) and sha256(certificate).digest() == digest:
            return Pinned(label="connections with this server certificate", certificate=certificate)
    raise WishError(
        f"pin: no capture given shows a server certificate of SHA-256 {value} in clear, and its bytes are"
        f" what is looked for; {_NOT_IN_1_3}"
    )


_FINDERS: Final[Mapping[str, Callable[[str, Settings], Pinned]]] = {
    "connection": _connection,
    "client": _client,
    "random": _random,
    "session_id": _session_id,
    "certificate": _certificate,
}


def _bytes(name: str, value: str) -> bytes:
    """32 bytes in hexadecimal, as openssl prints them: with colons or without."""
    digits = value.replace(":", "")
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * HASH_BYTES}}}", digits):
        raise WishError(f"pin: {name}={value}: write {HASH_BYTES} bytes in hexadecimal")
    return bytes.fromhex(digits)


def _handshake(seen: Seen) -> Handshake:
    handshake = seen.row.get(KEY)
    return handshake if isinstance(handshake, Handshake) else Handshake()


def _session_ids(handshake: Handshake) -> tuple[bytes, ...]:
    """What a ServerHello that resumes the session has for session_id.

    A server repeats what the client sent when it takes a ticket, and OpenSSL and its relatives send the
    SHA-256 of the ticket.
    """
    ids = [handshake.session_id] if len(handshake.session_id) == HASH_BYTES else []
    if handshake.ticket:
        ids.append(sha256(handshake.ticket).digest())
    return tuple(dict.fromkeys(ids))


def _end(end: object) -> Endpoint:
    assert isinstance(end, Mapping)
    return ip_address(end["address"]), end["port"]


def packets_of(pinned: Pinned) -> Match:
    """Packets between the two ends, in both directions; without a server, from and to the client."""
    assert pinned.client is not None
    return any_of(_way(pinned.client, pinned.server), _way(pinned.server, pinned.client))


def _way(source: Endpoint | None, destination: Endpoint | None) -> Match:
    tests: list[Match] = []
    for end, address, port in ((source, "saddr", "sport"), (destination, "daddr", "dport")):
        if end is not None:
            family = "ip" if end[0].version == 4 else "ip6"
            tests += [equals(f"{family}.{address}", int(end[0])), equals(f"tcp.{port}", end[1])]
    return all_of(*tests)
