"""Runs of low bytes: a scan that looks at every 129th byte finds what one that looks at every byte finds."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from analyzer.limits import LOW_RUN_BYTES
from analyzer.streams.reassembly import Chunk
from analyzer.tls.records import LOW_RUN, Record, RecordWalk

HELLO = b"\x16\x03\x03\x00\x04\x01\x00\x00\x00"


def record(kind: int, body: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body


def walk(stream: bytes, cuts: list[int]) -> list[tuple[int, int, int]]:
    """(offset of the byte that is one too many, length of the run, packet) of each run that is reported."""
    borders = [0, *sorted(set(cuts)), len(stream)]
    chunks = np.zeros((len(borders) - 1, len(Chunk)), dtype=np.int64)
    for index, (begin, end) in enumerate(itertools.pairwise(borders)):
        row = chunks[index]
        row[[Chunk.OFFSET, Chunk.SEQ, Chunk.POSITION]] = begin
        row[Chunk.LENGTH], row[Chunk.PACKET], row[Chunk.SYNC] = end - begin, index + 1, 3
    records = RecordWalk()
    records.reserve(1)
    buffer = np.frombuffer(stream, dtype=np.uint8).copy()
    found, at = [], 0
    while at < len(chunks):
        at, rows = records.walk(buffer, chunks, at)
        runs = rows[(rows[:, Record.FLAGS] & LOW_RUN) != 0]
        found += [tuple(row) for row in runs[:, [Record.END_SEQ, Record.VALUE, Record.LAST_PACKET]].tolist()]
    return [(end - 1, length, packet) for end, length, packet in found]


def runs(bodies: list[tuple[int, bytes]]) -> dict[int, int]:
    """Offset of the byte that is one too many -> length of the run; the bodies stand at these offsets."""
    found: dict[int, int] = {}
    length, passed = 0, None
    for offset, body in bodies:
        for index, byte in enumerate(body):
            if byte >= 0x80:
                length, passed = 0, None
                continue
            length += 1
            if length == LOW_RUN_BYTES + 1:
                passed = offset + index
            if passed is not None:
                found[passed] = length
    return found


@pytest.mark.parametrize("length", [127, 128, 129, 130, 1000])
@pytest.mark.parametrize("cuts", [[], [9 + 5 + 1 + 64], [9 + 5 + 1 + 128], list(range(1, 14)), [14, 15, 16]])
def test_the_limit_is_exact_wherever_segments_are_cut(length, cuts):
    stream = HELLO + record(23, b"\x80" + b"\x7f" * length + b"\x80")
    found = walk(stream, cuts)
    assert [offset for offset, _, _ in found] == (
        [9 + 5 + 1 + LOW_RUN_BYTES] if length > LOW_RUN_BYTES else []
    )
    if found and not cuts:
        assert found[0][1] == length


@pytest.mark.parametrize("kinds", [(23, 23), (23, 21), (20, 23), (23, 20, 23)])
@pytest.mark.parametrize("total", [128, 129])
def test_a_run_goes_on_in_the_next_record(kinds, total):
    change = record(20, b"\1")
    parts = [total // len(kinds)] * (len(kinds) - 1)
    parts.append(total - sum(parts))
    stream = (
        HELLO + change + b"".join(record(kind, b"a" * part) for kind, part in zip(kinds, parts, strict=True))
    )
    assert len(walk(stream, [])) == (total > LOW_RUN_BYTES)


@pytest.mark.parametrize(
    "clear", [record(20, b"\1"), record(21, b"\1\0"), record(22, b"\0" * 200), record(24, b"\1" * 200)]
)
def test_what_is_in_clear_neither_counts_nor_ends_a_run(clear):
    change = record(20, b"\1")
    assert not walk(HELLO + change + record(23, b"a" * 64) + clear + record(23, b"a" * 64), [])
    assert walk(HELLO + change + record(23, b"a" * 64) + clear + record(23, b"a" * 65), [])


@pytest.mark.parametrize("seed", range(300))
def test_it_finds_what_looking_at_every_byte_finds(seed):
    rng = random.Random(seed)
    stream, bodies = HELLO, []
    for _ in range(rng.randint(1, 6)):
        body = b""
        for _ in range(rng.randint(1, 8)):
            if rng.random() < 0.6:
                length = rng.choice([1, 5, 60, 64, 65, 127, 128, 129, 130, 200, 300])
                body += bytes(rng.randrange(0x80) for _ in range(length))
            else:
                body += bytes(rng.randrange(0x80, 0x100) for _ in range(rng.choice([1, 1, 2, 50])))
        bodies.append((len(stream) + 5, body))
        stream += record(23, body)
    cuts = [rng.randrange(1, len(stream)) for _ in range(rng.choice([0, 0, 1, 3, 20]))]
    found, expected = walk(stream, cuts), runs(bodies)
    # a piece of a record tells of its last run only
    assert bool(found) == bool(expected)
    for offset, length, _ in found:
        assert offset in expected
        assert LOW_RUN_BYTES < length <= expected[offset]
        if not cuts and len(bodies) == 1:
            assert length == expected[offset]
