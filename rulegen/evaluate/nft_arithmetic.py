"""What nft's expressions compute of what registers hold.

In:  Bitwise, Byteorder, Shift; the Value that they start from.
Out: Value.
Source: Linux net/netfilter/nft_bitwise.c, nft_byteorder.c.

Shifts are of a word in the host's byte order.
"""

from __future__ import annotations

import sys

from rulegen.artifacts.nft_values import Bitwise, Byteorder, Shift
from rulegen.evaluate.nft_loads import Unmodelled, host
from rulegen.evaluate.nft_packet import Seen
from rulegen.evaluate.nft_registers import WORD, Value


def masked(part: Bitwise, value: Value) -> Value:
    """(value & mask) ^ xor."""
    mask, xor = int.from_bytes(part.mask), int.from_bytes(part.xor)
    length, get = value.length, value.get

    def compute(seen: Seen) -> bytes | None:
        found = get(seen)
        return None if found is None else (int.from_bytes(found) & mask ^ xor).to_bytes(length)

    return Value(compute, length, mask=None if xor else (value, mask))


def turned(part: Byteorder, value: Value) -> Value:
    """Every number of the value in the other byte order."""
    if sys.byteorder == "big":
        return value
    get, length, size = value.get, part.length, part.size

    def compute(seen: Seen) -> bytes | None:
        found = get(seen)
        if found is None or size == length:
            return None if found is None else found[::-1]
        return b"".join(found[at : at + size][::-1] for at in range(0, length, size))

    return Value(compute, length)


def shifted(part: Shift, value: Value) -> Value:
    """Value << bits, or >>.

    Raises:
        Unmodelled: The value is no word: nft does not print how many bytes it compares afterwards.
    """
    if value.length != WORD:
        raise Unmodelled(f"a shift of {value.length} bytes")
    get, left, bits = value.get, part.op == "<<", part.bits

    def compute(seen: Seen) -> bytes | None:
        found = get(seen)
        if found is None:
            return None
        number = int.from_bytes(found, sys.byteorder)
        return host((number << bits if left else number >> bits) & 0xFFFFFFFF)

    return Value(compute, WORD)
