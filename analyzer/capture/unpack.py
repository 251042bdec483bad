"""Unpack gzip and zstd while reading, in bounded memory.

In:  StoredBytes.
Out: a ByteSource of what was packed.
Source: RFC 1952 (gzip), RFC 8878 (zstd).

A packed stream that ends early or is damaged gives all that can be unpacked before that, then `problem`.
No read unpacks more than it was asked for: a small file may unpack to a huge one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import IO, Final, cast

from analyzer.capture.stored import ByteSource, StoredBytes, describe_error

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
CHUNK_BYTES: Final = 1 << 16
"""Packed bytes that are read at a time."""

ZSTD_STEP_BYTES: Final = 1 << 15
"""Bytes asked of the zstd library at a time: where a frame is damaged, those unpacked before it are lost."""


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
            if not self._packed:
                self._end("the gzip data end early: the file was cut, or is still being written")
            elif self._inside or self._begin_member():
                unpacked = self._unpack(len(view))
                if unpacked:
                    view[: len(unpacked)] = unpacked
                    return len(unpacked)
        return 0

    def _begin_member(self) -> bool:
        self._packed = self._packed.lstrip(b"\0")  # gzip(1) lets zeros pad the end of a file, on tapes
        if len(self._packed) == 1:
            self._packed += self._stored.read(CHUNK_BYTES)
        if not self._packed:
            return False
        if self._packed[:2] != GZIP_MAGIC:
            self._inside = True
            self._end("other data follow the gzip data: they are ignored")
            return False
        self._inflate = zlib.decompressobj(wbits=31)
        self._inside = True
        return True

    def _unpack(self, most: int) -> bytes:
        before = self._inflate.copy()
        try:
            unpacked = self._inflate.decompress(self._packed, most)
        except zlib.error as error:
            self._end(f"the gzip data are damaged ({describe_error(error)})")
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
        self._frames = _ZstdFrames(stored)
        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            cast("IO[bytes]", self._frames),  # it takes whatever has read()
            read_size=CHUNK_BYTES,
            read_across_frames=True,
            closefd=False,
        )
        self._ended = False

    def readinto(self, view: memoryview) -> int:
        """Fill the view's front with the next bytes and return how many; 0 at the end."""
        if self._ended:
            return 0
        try:
            got = self._reader.readinto(view[:ZSTD_STEP_BYTES])
        except self._error as error:
            self.problem = f"the zstd data are damaged ({describe_error(error)})"
            self._ended = True
            return 0
        if not got:
            self._ended = True
            self.problem = self._frames.problem()
        return got


class _ZstdFrames:
    """The stored bytes on their way to the zstd library, with their frame structure followed.

    The library does not tell an end inside a frame from one behind it, and where something else follows a
    frame, what was unpacked just before is lost.
    """

    def __init__(self, stored: StoredBytes) -> None:
        self._stored = stored
        self._wrong: str | None = None
        self._parse: Callable[[bytes], None] = self._parse_magic
        self._wanted = 4
        """Bytes of the header that _parse takes,"""
        self._header = b""
        """those of them that are there,"""
        self._before = 0
        """and the bytes to pass over before it."""
        self._checksum_bytes = 0

    def read(self, size: int) -> bytes:
        """The next bytes that belong to a frame; empty at the end."""
        if self._wrong is not None:
            return b""
        chunk = self._stored.read(size)
        return chunk[: self._follow(chunk)]

    def problem(self) -> str | None:
        """What is wrong with the end, once read() came to it."""
        problem = self._stored.problem or self._wrong
        if problem is None and (self._header or self._before or self._parse != self._parse_magic):
            return "the zstd data end early: the file was cut, or is still being written"
        return problem

    def _follow(self, chunk: bytes) -> int:
        """How many of the bytes belong to frames."""
        at = 0
        while at < len(chunk):
            passed = min(self._before, len(chunk) - at)
            self._before -= passed
            at += passed
            piece = chunk[at : at + self._wanted - len(self._header)]
            self._header += piece
            if len(self._header) == self._wanted:
                self._parse(self._header)
                self._header = b""
            if self._wrong is not None:
                return at
            at += len(piece)
        return at

    def _expect(self, parse: Callable[[bytes], None], wanted: int, *, before: int = 0) -> None:
        self._parse, self._wanted, self._before = parse, wanted, before

    def _parse_magic(self, magic: bytes) -> None:
        if magic == ZSTD_MAGIC:
            self._expect(self._parse_descriptor, 1)
        elif _is_skippable(magic):
            self._expect(self._parse_skippable_length, 4)
        else:
            self._wrong = "other data follow the zstd data: they are ignored"

    def _parse_skippable_length(self, length: bytes) -> None:
        self._expect(self._parse_magic, 4, before=int.from_bytes(length, "little"))

    def _parse_descriptor(self, descriptor: bytes) -> None:  # RFC 8878 3.1.1.1.1
        flags = descriptor[0]
        single_segment = flags >> 5 & 1
        self._checksum_bytes = 4 if flags & 4 else 0
        content_size_bytes = (single_segment, 2, 4, 8)[flags >> 6]
        dictionary_bytes = (0, 1, 2, 4)[flags & 3]
        window_bytes = 1 - single_segment
        self._expect(self._parse_block, 3, before=window_bytes + dictionary_bytes + content_size_bytes)

    def _parse_block(self, header: bytes) -> None:  # RFC 8878 3.1.1.2
        number = int.from_bytes(header, "little")
        is_last, kind, size = number & 1, number >> 1 & 3, number >> 3
        if kind == 3:
            self._wrong = "the zstd data are damaged (a block of the reserved type)"
        content = 1 if kind == 1 else size  # kind 1: one byte, repeated
        if is_last:
            self._expect(self._parse_magic, 4, before=content + self._checksum_bytes)
        else:
            self._expect(self._parse_block, 3, before=content)


def _is_skippable(magic: bytes) -> bool:
    """RFC 8878 3.1.2: a frame with something of the user's."""
    return len(magic) == 4 and magic[0] >> 4 == 5 and magic[1:] == b"\x2a\x4d\x18"
