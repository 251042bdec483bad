"""Take values off bytes in the order of a presentation-language structure.

In:  bytes, and whether more of them may come.
Out: integers, opaque vectors, and cursors over blocks.
Source: RFC 8446 3 (presentation language).

Running out of bytes means two things, kept apart: NeedMore, where the rest may still come (a stream), and
Malformed, where it never will (inside a vector whose length was given).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")


class NeedMore(Exception):
    """The structure is not complete yet."""


class Malformed(Exception):
    """The structure contradicts itself: no more bytes would mend it."""


class Cursor:
    """A place in bytes, moved by pulling."""

    __slots__ = ("_at", "_complete", "_data", "_end")

    def __init__(self, data: bytes, *, complete: bool = True) -> None:
        """Start at the first byte.

        Args:
            data: What there is.
            complete: No more will come, so running out is Malformed and not NeedMore.
        """
        self._data = data
        self._at = 0
        self._end = len(data)
        self._complete = complete

    @property
    def at(self) -> int:
        """Bytes pulled so far, from the start of the data, also in a block."""
        return self._at

    @property
    def left(self) -> int:
        """Bytes not pulled yet."""
        return self._end - self._at

    def pull_bytes(self, length: int, what: str) -> bytes:
        """Pull so many bytes; `what` names them in the error."""
        if length > self.left:
            problem = f"{what}: {length} bytes needed, {self.left} there"
            raise Malformed(problem) if self._complete else NeedMore(problem)
        self._at += length
        return self._data[self._at - length : self._at]

    def pull_uint(self, size: int, what: str) -> int:
        """Pull an unsigned integer of so many bytes, in network byte order."""
        return int.from_bytes(self.pull_bytes(size, what), "big")

    def pull_opaque(self, length_size: int, what: str) -> bytes:
        """Pull a vector of bytes whose length comes before it, in so many bytes."""
        return self.pull_bytes(self.pull_uint(length_size, what), what)

    def pull_block(self, length_size: int, what: str) -> Cursor:
        """Pull such a vector as a cursor of its own: running out of it is Malformed."""
        return Cursor(self.pull_opaque(length_size, what))

    def pull_list(self, length_size: int, item: Callable[[Cursor], Item], what: str) -> tuple[Item, ...]:
        """Pull a vector of items up to its end; an item that crosses the end is Malformed."""
        block = self.pull_block(length_size, what)
        items = []
        while block.left:
            items.append(item(block))
        return tuple(items)

    def pull_uints(self, length_size: int, size: int, what: str) -> tuple[int, ...]:
        """Pull a vector of integers of so many bytes each."""
        return self.pull_list(length_size, lambda block: block.pull_uint(size, what), what)

    def expect_end(self, what: str) -> None:
        """Raise Malformed if bytes are left over."""
        if self.left:
            raise Malformed(f"{what}: {self.left} bytes left over")
