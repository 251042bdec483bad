"""Unpack gzip and zstd while reading, in bounded memory.

In:  StoredBytes.
Out: a ByteSource of what was packed.
Source: RFC 1952 (gzip), RFC 8878 (zstd).

A packed stream that ends early or is damaged gives all that can be unpacked before that, then `problem`.
No read unpacks much more than it was asked for: a small file may unpack to a huge one.
"""

from __future__ import annotations

import zlib
from typing import Final

from analyzer.capture.stored import ByteSource, StoredBytes, describe_error

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
CHUNK_BYTES: Final = 1 << 16
"""Packed bytes that are read at a time."""

ZSTD_PIECE_BYTES: Final = 1 << 10
"""Packed bytes that the zstd library gets at a time. It unpacks all of them at once, and 4 bytes can make
128 KiB (RFC 8878 3.1.1.2.3), so that a piece makes at most 32 MiB."""


_CUT: Final = "the compressed data end early: the file was cut, or is still being written"
_FOLLOWED: Final = "other data follow the compressed data: they are ignored"


def unpack(stored: StoredBytes) -> ByteSource:
    """What is packed in a file, or the file itself where it is not packed; told by its first bytes."""
    magic = stored.peek(4)
    if magic[:2] == GZIP_MAGIC:
        return GzipBytes(stored)
    if magic == ZSTD_MAGIC or _is_skippable(magic):
        return ZstdBytes(stored)
    return stored


class GzipBytes:
    """The members of a gzip file, one after the other."""

    def __init__(self, stored: StoredBytes) -> None:
        self.problem: str | None = None
        self._stored = stored
        self._inflate = zlib.decompressobj(wbits=31)
        self._packed = b""
        self._inside = False
        """Whether a member was begun and not finished."""
        self._ended = False

    def readinto(self, view: memoryview) -> int:
        """Fill the view's front with the next bytes and return how many; 0 at the end."""
        while not self._ended:
            if not self._packed:
                self._packed = self._stored.read(CHUNK_BYTES)
            at_end = not self._packed
            if self._inside or self._begin_member():
                unpacked = self._unpack(
                    len(view)
                )  # at the end, too: zlib may hold some that had no room before
                if unpacked:
                    view[: len(unpacked)] = unpacked
                    return len(unpacked)
            if at_end:
                self._end(_CUT)
        return 0

    def _begin_member(self) -> bool:
        self._packed = self._packed.lstrip(b"\0")  # gzip(1) lets zeros pad the end of a file, on tapes
        if len(self._packed) == 1:
            self._packed += self._stored.read(CHUNK_BYTES)
        if not self._packed:
            return False
        if self._packed[:2] != GZIP_MAGIC:
            self._inside = True
            self._end(_CUT if GZIP_MAGIC.startswith(self._packed) else _FOLLOWED)
            return False
        self._inflate = zlib.decompressobj(wbits=31)
        self._inside = True
        return True

    def _unpack(self, most: int) -> bytes:
        before = self._inflate.copy()
        try:
            unpacked = self._inflate.decompress(self._packed, most)
        except zlib.error as error:
            self._end(f"the compressed data are damaged ({describe_error(error)})")
            return _salvage(before, self._packed, most)
        if self._inflate.eof:
            self._inside = False
            self._packed = self._inflate.unused_data
        else:
            self._packed = self._inflate.unconsumed_tail
        return unpacked

    def _end(self, why: str) -> None:
        self._ended = True
        if self._stored.problem is not None:
            self.problem = self._stored.problem
        elif self._inside:
            self.problem = why


def _salvage(inflate: zlib._Decompress, packed: bytes, most: int) -> bytes:
    """What can be unpacked before the damage: zlib gives nothing of a piece that has an error in it."""
    pieces = bytearray()
    for at in range(len(packed)):
        if len(pieces) >= most:
            break
        try:
            pieces += inflate.decompress(packed[at : at + 1], most - len(pieces))
        except zlib.error:
            break
    return bytes(pieces)


class ZstdBytes:
    """The frames of a zstd file, one after the other."""

    def __init__(self, stored: StoredBytes) -> None:
        import zstandard  # only for those who have such a file

        self.problem: str | None = None
        self._stored = stored
        self._error = zstandard.ZstdError
        self._library = zstandard.ZstdDecompressor()
        self._frame = self._library.decompressobj()
        self._packed = memoryview(b"")
        self._unpacked = memoryview(b"")
        self._inside = False
        """Whether a frame was begun and not finished."""
        self._ended = False

    def readinto(self, view: memoryview) -> int:
        """Fill the view's front with the next bytes and return how many; 0 at the end."""
        while not self._unpacked and not self._ended:
            if not self._packed:
                self._packed = memoryview(self._stored.read(CHUNK_BYTES))
            if not self._packed:
                self._end(_CUT)
            elif self._inside or self._begin_frame():
                self._unpacked = memoryview(self._unpack())
        got = min(len(view), len(self._unpacked))
        view[:got] = self._unpacked[:got]
        self._unpacked = self._unpacked[got:]
        return got

    def _begin_frame(self) -> bool:
        if len(self._packed) < 4:
            self._packed = memoryview(bytes(self._packed) + self._stored.read(CHUNK_BYTES))
        self._inside = True
        magic = bytes(self._packed[:4])
        if len(magic) < 4 or (magic != ZSTD_MAGIC and not _is_skippable(magic)):
            self._end(_CUT if ZSTD_MAGIC.startswith(magic) else _FOLLOWED)
            return False
        self._frame = self._library.decompressobj()
        return True

    def _unpack(self) -> bytes:
        piece, self._packed = self._packed[:ZSTD_PIECE_BYTES], self._packed[ZSTD_PIECE_BYTES:]
        try:
            unpacked = self._frame.decompress(piece)
        except self._error as error:
            self._end(f"the compressed data are damaged ({describe_error(error)})")
            return b""
        if self._frame.eof:
            self._inside = False
            unused = self._frame.unused_data
            if unused:
                self._packed = memoryview(unused + bytes(self._packed))
        return unpacked

    def _end(self, why: str) -> None:
        self._ended = True
        if self._stored.problem is not None:
            self.problem = self._stored.problem
        elif self._inside:
            self.problem = why


def _is_skippable(magic: bytes) -> bool:
    """RFC 8878 3.1.2: a frame with something of the user's."""
    return len(magic) == 4 and magic[0] >> 4 == 5 and magic[1:] == b"\x2a\x4d\x18"
