"""A register machine of nft, as small as possible: enough for rules about the bytes of one packet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rulegen.artifacts.model import Artifact, Table
from rulegen.artifacts.nft_values import (
    Bitwise,
    Byteorder,
    Compare,
    CtLoad,
    CtSet,
    Decide,
    Immediate,
    Lookup,
    MetaLoad,
    NftVerdict,
    PayloadLoad,
    Range,
)
from rulegen.artifacts.nft_values import Counter as Counts
from tests.rulegen.reference import Packet

COMPARE = {
    "eq": lambda left, right: left == right,
    "neq": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}
META = {
    "nfproto": lambda packet: b"\x02" if "ip" in packet.protocols else b"\x0a",
    "l4proto": lambda packet: b"\x06" if "tcp" in packet.protocols else b"\x11",
}
STATES = {"state": b"\x08\0\0\0", "direction": b"\0", "mark": b"\0\0\0\0"}
"""Of the first packet of a connection, on a host that keeps the low byte first."""


class Broken(Exception):
    """The rule does not match."""


@dataclass
class Machine:
    """Counts the rules that match, by their comment."""

    artifact: Artifact
    hits: Counter[str] = field(default_factory=Counter)

    def send(self, packet: Packet) -> str:
        """Through every base chain of the tables."""
        for table in self.artifact.tables:
            for chain in table.chains:
                if hasattr(chain, "hook") and self.chain(table, chain.name, packet) == "drop":
                    return "drop"
        return "accept"

    def chain(self, table: Table, name: str, packet: Packet) -> str | None:
        for rule in table.chain(name).rules:
            verdict = self.rule(table, rule, packet)
            match verdict:
                case NftVerdict("accept" | "drop"):
                    return verdict.kind
                case NftVerdict("return"):
                    return None
                case NftVerdict("jump", other):
                    if ended := self.chain(table, other, packet):
                        return ended
                case NftVerdict("goto", other):
                    return self.chain(table, other, packet)
        return None

    def rule(self, table, rule, packet) -> NftVerdict | None:
        registers = bytearray(64)
        verdict = None
        try:
            for part in rule.parts:
                verdict = self.step(table, rule, part, packet, registers) or verdict
        except Broken:
            return None
        return verdict

    def step(self, table, rule, part, packet, registers) -> NftVerdict | None:
        def read(at, length):
            return bytes(registers[at : at + length])

        def write(at, data):
            registers[at : at + -(-len(data) // 4) * 4] = data + bytes(-len(data) % 4)

        match part:
            case PayloadLoad(at, base, offset, length):
                transport = packet.transport + packet.payload
                data = {
                    "network": packet.network + transport,
                    "transport": transport,
                    "inner": packet.payload,
                }[base][offset : offset + length]
                if len(data) < length:
                    raise Broken
                write(at, data)
            case MetaLoad(at, key):
                write(at, META[key](packet))
            case CtLoad(at, key):
                write(at, STATES[key])
            case Immediate(at, value):
                write(at, value)
            case Bitwise(target, source, mask, xor):
                data = read(source, len(mask))
                write(target, bytes(a & m ^ x for a, m, x in zip(data, mask, xor, strict=True)))
            case Byteorder(target, source, _, length, size):
                data = read(source, length)
                write(target, b"".join(data[i : i + size][::-1] for i in range(0, length, size)))
            case Compare(at, op, value):
                if not COMPARE[op](read(at, len(value)), value):
                    raise Broken
            case Range(at, op, low, high):
                if (low <= read(at, len(low)) <= high) is not (op == "eq"):
                    raise Broken
            case Lookup():
                return self.lookup(table, part, registers)
            case Counts():
                self.hits[rule.comment] += 1
            case CtSet():
                pass
            case Decide(verdict):
                return verdict
            case _:
                raise AssertionError(part)
        return None

    @staticmethod
    def lookup(table, part, registers) -> NftVerdict | None:
        (content,) = (one for one in table.sets if one.name == part.set)
        key, at = [], part.register
        for width in content.widths:
            key.append(bytes(registers[at : at + width]))
            at += -(-width // 4) * 4
        found = [
            element
            for element in content.elements
            if all(low <= value <= high for value, (low, high) in zip(key, element.key, strict=True))
        ]
        if bool(found) is part.inverted:
            raise Broken
        return found[0].value if part.verdict else None
