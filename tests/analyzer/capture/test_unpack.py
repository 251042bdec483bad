"""gzip and zstd are unpacked piece by piece; what a damaged stream still holds is given."""

from __future__ import annotations

import gzip
import io
import random
import resource
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from analyzer.capture.stored import StoredBytes
from analyzer.capture.unpack import unpack

WORDS = [random.Random(1).randbytes(length) for length in (1, 5, 30, 200)]
CONTENT = b"".join(random.Random(2).choices(WORDS, k=20_000))
CUT = "the compressed data end early: the file was cut, or is still being written"
FOLLOWED = "other data follow the compressed data: they are ignored"
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"user data"


def pack_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK = {"gzip": gzip.compress, "zstd": pack_zstd}


@pytest.fixture(params=sorted(PACK))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def unpacked(packed: bytes, step: int = 10_000) -> tuple[bytes, str | None]:
    source = unpack(StoredBytes(io.BytesIO(packed), size=None))
    pieces, piece = [], bytearray(step)
    while got := source.readinto(memoryview(piece)):
        pieces.append(bytes(piece[:got]))
    assert source.readinto(memoryview(piece)) == 0
    return b"".join(pieces), source.problem


@pytest.mark.parametrize("step", [1, 999, 1 << 16, 1 << 23])
def test_the_content_comes_whole(kind: str, step: int) -> None:
    content = CONTENT[:5000] if step == 1 else CONTENT
    assert unpacked(PACK[kind](content), step) == (content, None)


def test_what_is_not_packed_comes_as_it_is() -> None:
    for content in (b"", b"a", b"\x1f", b"\x28\xb5\x2f", CONTENT):
        assert unpacked(content) == (content, None)


def test_members_and_frames_follow_each_other(kind: str) -> None:
    pack = PACK[kind]
    packed = pack(CONTENT) + pack(b"") + pack(b"end") + pack(b"")
    assert unpacked(packed) == (CONTENT + b"end", None)


def test_skippable_frames_of_zstd() -> None:
    assert unpacked(SKIPPABLE + pack_zstd(b"a") + SKIPPABLE + pack_zstd(b"b")) == (b"ab", None)
    assert unpacked(SKIPPABLE) == (b"", None)


def test_streams_of_flushed_pieces() -> None:
    deflate = zlib.compressobj(wbits=31)
    gzipped = b"".join(deflate.compress(b"ab") + deflate.flush(zlib.Z_SYNC_FLUSH) for _ in range(5000))
    assert unpacked(gzipped + deflate.flush()) == (b"ab" * 5000, None)
    frame = zstandard.ZstdCompressor().compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    zstd = b"".join(frame.compress(b"ab") + frame.flush(flush) for _ in range(5000))
    assert unpacked(zstd + frame.flush()) == (b"ab" * 5000, None)


def test_zeros_that_pad_a_gzip_file() -> None:
    assert unpacked(gzip.compress(b"a") + bytes(100_000)) == (b"a", None)
    assert unpacked(gzip.compress(b"a") + bytes(100_000) + gzip.compress(b"b")) == (b"ab", None)


@pytest.mark.parametrize("junk", [b"x", b"xy", b"junk that is no member", bytes(3) + b"x"])
def test_other_data_behind(kind: str, junk: bytes) -> None:
    assert unpacked(PACK[kind](CONTENT) + junk) == (CONTENT, FOLLOWED)


def test_cut_at_every_byte(kind: str) -> None:
    content = CONTENT[:3000]
    packed = PACK[kind](content) + PACK[kind](b"second")
    for size in range(4, len(packed)):
        for step in (100, 10_000):
            got, problem = unpacked(packed[:size], step)
            assert (content + b"second").startswith(got)
            assert problem == (None if size == len(PACK[kind](content)) else CUT)
            if kind == "gzip" and size < len(PACK[kind](content)):
                assert got == zlib.decompressobj(wbits=31).decompress(packed[:size])


def test_all_before_the_damage_is_given(kind: str) -> None:
    content = random.Random(3).randbytes(1_000_000)
    packed = bytearray(PACK[kind](content))
    at = len(packed) - (6 if kind == "gzip" else 2)  # in the checksum
    packed[at] ^= 0x40
    got, problem = unpacked(bytes(packed))
    assert content.startswith(got)
    assert len(got) >= len(content) - (0 if kind == "gzip" else 1 << 10)
    assert problem is not None
    assert problem.startswith("the compressed data are damaged")


@given(kind=st.sampled_from(sorted(PACK)), data=st.data())
def test_flipped_bits_never_raise(kind: str, data: st.DataObject) -> None:
    content = CONTENT[:2000]
    packed = bytearray(PACK[kind](content) * 2)
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(4, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    unpacked(bytes(packed), 1000)


def test_a_bomb_does_not_fill_the_memory(kind: str) -> None:
    size = 200 << 20
    source = unpack(StoredBytes(io.BytesIO(PACK[kind](bytes(size))), size=None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total, piece = 0, memoryview(bytearray(1 << 20))
    while got := source.readinto(piece):
        total += got
    assert total == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "in KiB"
