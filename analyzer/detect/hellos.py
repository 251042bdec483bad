"""What the two hellos of a connection say, as evidence for findings.

In:  a batch of connections and a row of it.
Out: names, packets and the bytes of a hello, JSON-ready.
Source: RFC 8446 4.1.2, 4.1.3 and 4.2.1; RFC 5246 E.2 and the SSL 2.0 draft 2.5 for the hello in SSL 2.0
format.
"""

from __future__ import annotations

from typing import Any, Final

from analyzer.connections import Batch, text, version_name
from analyzer.tls import hello
from analyzer.wire.iana import cipher_suite_name

SENTINELS: Final = hello.SENTINEL_12 | hello.SENTINEL_11


def mark_fits(server_flags: Any, negotiated: Any) -> Any:
    """Whether a ServerHello has the downgrade mark of its version (RFC 8446 4.1.3); also of columns."""
    of_12 = (server_flags & hello.SENTINEL_12 != 0) & (negotiated == 0x0303)
    below = (server_flags & hello.SENTINEL_11 != 0) & (negotiated >= 0x0300) & (negotiated <= 0x0302)
    return (server_flags >= 0) & (of_12 | below)


def version(value: int) -> str:
    """Name of a protocol version."""
    return version_name(value) or "none"


def offered(flags: int, highest: int, bits: int) -> list[str]:
    """The versions that a ClientHello offers, highest first: a list, or "up to" the highest."""
    if not flags & hello.SUPPORTED_VERSIONS:
        return [f"up to {version(highest)}"]
    names = [version(0x0300 + bit) for bit in range(8, -1, -1) if bits >> bit & 1]
    return [*names, "TLSv1.3 draft"] if flags & hello.DRAFT_13 else names


class Hellos(dict[str, list[int]]):
    """The hellos of a batch: columns by name, as Python numbers, made once and not for every finding."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __missing__(self, column: str) -> list[int]:
        values: list[int] = self._batch[column].tolist()
        self[column] = values
        return values

    def offered(self, row: int) -> list[str]:
        """The versions that the ClientHello offers."""
        return offered(self["CLIENT_FLAGS"][row], self["CLIENT_MAX"][row], self["OFFERED"][row])

    def client_packets(self, row: int) -> tuple[int, ...]:
        """Packets of the ClientHello, which may be cut in two: it is nearly always the first record."""
        first, last = self["FIRST_TLS_PACKET"][row], self["HELLO_PACKET"][row]
        return (first, last) if 0 < first < last else (last,)

    def server_packets(self, row: int) -> tuple[int, ...]:
        """The packet of the ServerHello."""
        return (self["SERVER_HELLO_PACKET"][row],)

    def client_bytes(self, row: int) -> str:
        """A ClientHello's version and random in hex; in SSL 2.0 format its header, type and version."""
        if self["CLIENT_FLAGS"][row] & hello.SSL2_FORMAT:
            direction = self["CLIENT"][row]
            head, count = self[f"HEAD_A_{direction}"][row], self[f"HEAD_BYTES_{direction}"][row]
            return head.to_bytes(7, "big")[7 - min(count, 7) :].hex()
        random: bytes = self._batch.clients[row].random
        return f"{self['CLIENT_VERSION'][row]:04x}{random.hex()}"

    def server_bytes(self, row: int) -> str:
        """A ServerHello's version and random as on the wire, in hex."""
        random: bytes = self._batch.servers[row].random
        return f"{self['SERVER_LEGACY'][row]:04x}{random.hex()}"

    def suite(self, row: int) -> dict[str, object]:
        """The negotiated cipher suite, where one is known."""
        if self["SERVER_FLAGS"][row] < 0:
            return {}
        return {"cipher_suite": cipher_suite_name(self["CIPHER_SUITE"][row])}

    def sni(self, row: int) -> dict[str, object]:
        """The server name asked for, where there is one."""
        name = self._batch.clients[row].sni
        return {"sni": text(name)} if name else {}
