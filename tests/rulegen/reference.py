"""The meaning of a match, written a second time and as plainly as possible, to judge what emits it."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.wire.fields import FIELDS, Layer
from rulegen.ir.match import (
    And,
    Contains,
    Exceeds,
    Lookup,
    Match,
    Not,
    Op,
    Or,
    Present,
    Protocol,
    ServerName,
    Test,
    carrier,
)
from rulegen.lower.literals import Found, Has, Is, Normal, Within


@dataclass(frozen=True)
class Packet:
    """A whole packet with complete headers."""

    protocols: frozenset[str]
    network: bytes
    transport: bytes
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Packet:
        """From IP without options or extensions that matter: the TCP or UDP header is found by its length."""
        four = data[0] >> 4 == 4
        head = (data[0] & 15) * 4 if four else 40
        number = data[9] if four else data[6]
        transport = data[head:]
        length = (transport[12] >> 4) * 4 if number == 6 else 8
        name = {6: "tcp", 17: "udp"}[number]
        return cls(
            protocols=frozenset(("ip" if four else "ip6", name)),
            network=data[:head],
            transport=transport[:length],
            payload=transport[length:],
        )

    def layer(self, layer: Layer) -> bytes:
        return {
            Layer.NETWORK: self.network,
            Layer.TRANSPORT: self.transport,
            Layer.PAYLOAD: self.payload,
        }[layer]

    def read(self, name: str) -> int | None:
        """A field's value; None where the packet does not have it."""
        field = FIELDS[name]
        data = self.layer(field.layer)
        if carrier(name) not in self.protocols or len(data) < field.byte_offset + field.width_bytes:
            return None
        whole = int.from_bytes(data[field.byte_offset : field.byte_offset + field.width_bytes])
        below = 8 * field.width_bytes - field.bit_offset - field.width_bits
        return whole >> below & ((1 << field.width_bits) - 1)


COMPARE = {
    Op.EQ: lambda left, right: left == right,
    Op.NE: lambda left, right: left != right,
    Op.LT: lambda left, right: left < right,
    Op.LE: lambda left, right: left <= right,
    Op.GT: lambda left, right: left > right,
    Op.GE: lambda left, right: left >= right,
    Op.IN: lambda left, right: any(low <= left <= high for low, high in right),
}


def holds(match: Match, packet: Packet, sets: dict[str, set[tuple[int, ...]]] | None = None) -> bool:
    """Whether a stateless match holds for a packet."""
    match match:
        case And(matches):
            return all(holds(part, packet, sets) for part in matches)
        case Or(matches):
            return any(holds(part, packet, sets) for part in matches)
        case Not(inner):
            return not holds(inner, packet, sets)
        case Test(field, op, value, mask):
            number = packet.read(field)
            return number is not None and COMPARE[op](number if mask is None else number & mask, value)
        case Exceeds(field, plus, other):
            left, right = packet.read(field), packet.read(other)
            return left is not None and right is not None and left + plus > right
        case Present(field):
            return packet.read(field) is not None
        case Protocol(name):
            return name in packet.protocols
        case Lookup(fields, name):
            key = tuple(packet.read(field) for field in fields)
            return None not in key and key in (sets or {})[name]
        case Contains(pattern):
            return "tcp" in packet.protocols and pattern in packet.payload
        case ServerName(name, subdomains):
            asked = server_name(packet.payload) if "tcp" in packet.protocols else None
            asked = None if asked is None else asked.lower()
            below = asked is not None and asked.endswith(b"." + name.encode())
            return asked == name.encode() or (subdomains and below)
    raise AssertionError(match)


def server_name(payload: bytes) -> bytes | None:
    """The first host_name in the ClientHello that starts the payload, where all of it is there."""
    if payload[:2] != b"\x16\x03" or payload[5:6] != b"\x01":
        return None
    at = 43
    at += 1 + int.from_bytes(payload[at : at + 1])  # session_id
    at += 2 + int.from_bytes(payload[at : at + 2])  # cipher_suites
    at += 1 + int.from_bytes(payload[at : at + 1])  # compression_methods
    at += 2
    while at + 4 <= len(payload):
        kind, length = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 4])
        at += 4
        if kind == 0:
            size = int.from_bytes(payload[at + 3 : at + 5])
            name = payload[at + 5 : at + 5 + size]
            return name if payload[at + 2 : at + 3] == b"\0" and len(name) == size else None
        at += length
    return None


def holds_normal(normal: Normal, packet: Packet, sets: dict[str, set[tuple[int, ...]]] | None = None) -> bool:
    """The same for the normal form."""

    def literal_holds(literal) -> bool:
        match literal:
            case Is(name, other):
                return (name in packet.protocols) is not other
            case Has(size, lacks):
                return (len(packet.payload) >= size) is not lacks
            case Within(load, ranges):
                data = packet.layer(load.layer)[load.byte_offset : load.byte_offset + load.width_bytes]
                if len(data) < load.width_bytes:
                    return False
                return any(low <= int.from_bytes(data) & load.mask <= high for low, high in ranges)
            case Found(fields, name, missing):
                key = tuple(packet.read(field) for field in fields)
                return None not in key and (key in (sets or {})[name]) is not missing
        raise AssertionError(literal)

    return all(map(literal_holds, normal.common)) and any(
        all(map(literal_holds, alternative)) for alternative in normal.alternatives
    )
