"""What a rule's registers hold, followed before any packet comes.

In:  values as expressions put them in.
Out: Value of any stretch of registers.
Source: Linux include/net/netfilter/nf_tables.h: 64 bytes, loads padded with zeros to whole words of 4 bytes.

A value is what computes it from a packet, so that no bytes are moved where an expression's result is used
once. That is right as long as computing changes nothing, and the packet's facts do not change in between:
`Registers.settle` at every statement that changes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rulegen.artifacts.nft_values import CtLoad, MetaLoad, PayloadLoad
from rulegen.evaluate.nft_loads import Getter, Unmodelled
from rulegen.evaluate.nft_packet import Seen

WORD: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """`get` gives `length` bytes."""

    get: Getter
    length: int
    load: PayloadLoad | MetaLoad | CtLoad | None = None
    """It is just this; its tests have faster forms."""
    mask: tuple[Value, int] | None = None
    """It is this value & mask."""


def padded(length: int) -> int:
    """In whole words."""
    return -(-length // WORD) * WORD


class Registers:
    """Of one rule."""

    def __init__(self) -> None:
        self._held: dict[int, Value] = {}
        self._unread: dict[int, Value] = {}

    def write(self, start: int, value: Value) -> None:
        """What an expression puts into registers from `start` on."""
        for other, held in list(self._held.items()):
            if other < start + padded(value.length) and start < other + padded(held.length):
                del self._held[other]
        self._held[start] = self._unread[start] = value

    def read(self, start: int, length: int) -> Value:
        """The first `length` bytes from `start` on.

        Raises:
            Unmodelled: Nothing was put there in this rule since it last changed something.
        """
        parts: list[Value] = []
        at = start
        while at < start + length:
            value = self._held.get(at)
            if value is None:
                raise Unmodelled("a register that is read before it is loaded")
            self._unread.pop(at, None)
            parts.append(value)
            at += padded(value.length)
        if not parts:
            raise Unmodelled("a register that is read before it is loaded")
        if len(parts) == 1:
            return _resized(parts[0], length)
        return _joined(parts, length)

    def length(self, start: int) -> int:
        """Of what was put at `start`; 0: nothing."""
        return self._held[start].length if start in self._held else 0

    def settle(self) -> list[Getter]:
        """Forget what is held.

        Returns:
            What nobody has read: it must still be computed, a load outside of the packet ends the rule.
        """
        unread = [value.get for value in self._unread.values()]
        self._held.clear()
        self._unread.clear()
        return unread


def _resized(value: Value, length: int) -> Value:
    if length == value.length:
        return value
    get = value.get
    if length < value.length:

        def shorter(seen: Seen) -> bytes | None:
            found = get(seen)
            return None if found is None else found[:length]

        return Value(shorter, length)
    filler = bytes(length - value.length)

    def longer(seen: Seen) -> bytes | None:
        found = get(seen)
        return None if found is None else found + filler

    return Value(longer, length)


def _joined(parts: Sequence[Value], length: int) -> Value:
    getters = [_resized(part, padded(part.length)).get for part in parts]

    def get(seen: Seen) -> bytes | None:
        found = []
        for one in getters:
            part = one(seen)
            if part is None:
                return None
            found.append(part)
        return b"".join(found)[:length]

    return Value(get, length)
