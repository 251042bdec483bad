"""ClientHellos with any extensions, and the server_name that a server would read in them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


def vector(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size) + body


def server_name(name: bytes, kind: int = 0) -> bytes:
    return b"\0\0" + vector(2, vector(2, bytes((kind,)) + vector(2, name)))


@dataclass
class Hello:
    """RFC 8446 4.1.2, in a record."""

    extensions: list[bytes] = field(default_factory=list)
    session_id: bytes = b""
    cipher_suites: bytes = b"\x13\x01"
    compression_methods: bytes = b"\0"
    behind: bytes = b""
    """What follows the record in its packet."""

    def payload(self) -> bytes:
        body = b"\x03\x03" + bytes(range(32)) + vector(1, self.session_id) + vector(2, self.cipher_suites)
        body += vector(1, self.compression_methods) + vector(2, b"".join(self.extensions))
        return b"\x16\x03\x01" + vector(2, b"\x01" + vector(3, body)) + self.behind


def named(payload: bytes) -> tuple[bytes, int, bool] | None:
    """The host_name whose bytes the payload has.

    In lower case; how many extensions are before it; whether it ends where its extension does or before.
    """
    try:
        return _named(payload)
    except IndexError:
        return None


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size])


def _named(data: bytes) -> tuple[bytes, int, bool] | None:
    if _number(data, 0, 2) != 0x1603 or _number(data, 5, 1) != 1:
        return None
    at = 44 + _number(data, 43, 1)
    at += 2 + _number(data, at, 2)
    at += 1 + _number(data, at, 1)
    end = at + 2 + _number(data, at, 2)
    at += 2
    before = 0
    while at < end:
        kind, size = _number(data, at, 2), _number(data, at + 2, 2)
        if kind == 0:
            length = _number(data, at + 7, 2)
            name = data[at + 9 : at + 9 + length]
            whole = len(name) == length and at + 9 + length <= end
            return (
                (name.lower(), before, length + 5 <= size)
                if whole and _number(data, at + 6, 1) == 0
                else None
            )
        at += 4 + size
        before += 1
    return None


def random_hello(chance: random.Random, names: tuple[bytes, ...]) -> Hello:
    """With none to fourteen extensions before server_name, if it has one."""
    others = [
        chance.choice((0xFF01, 10, 11, 16, 43, 51, 0x0A0A)).to_bytes(2)
        + vector(2, bytes(chance.choice((0, 1, 4, 30))))
        for _ in range(chance.choice((0, 0, 1, 2, 3, 5, 6, 8, 10, 11, 12, 13, 14)))
    ]
    name = bytearray(chance.choice(names))
    if name and chance.random() < 0.3:
        name[chance.randrange(len(name))] ^= chance.choice((0x20, 0x20, 0x01, 0x80))
    kind = 0 if chance.random() < 0.95 else 1
    mine = [server_name(bytes(name), kind)] if chance.random() < 0.9 else []
    after = [b"\x00\x15" + vector(2, bytes(chance.choice((0, 9))))] if chance.random() < 0.5 else []
    return Hello(
        extensions=[*others, *mine, *after],
        session_id=bytes(chance.choice((0, 32))),
        cipher_suites=bytes(chance.choice((2, 4, 60))),
        compression_methods=bytes(chance.choice((1, 1, 2))),
        behind=chance.choice((b"", b"", b"\x17\x03\x03\x00\x20" + server_name(names[0]))),
    )
