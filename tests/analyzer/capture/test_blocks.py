"""The window on the file keeps what is not framed yet, knows where it stands, and never grows."""

from __future__ import annotations

import random
from typing import Any

import pytest

from analyzer.capture import CaptureInfo, framing
from analyzer.capture.blocks import MAX_ISSUES, BlockBuffer

FILE = bytes(random.Random(1).randbytes(5000))


class Dribble:
    """A pipe that gives at most `step` bytes at a time, and then has a problem."""

    def __init__(self, data: bytes, step: int = 3, problem: str | None = None) -> None:
        self.problem: str | None = None
        self._data = data
        self._step = step
        self._last_problem = problem

    def readinto(self, view: memoryview) -> int:
        piece = self._data[: min(self._step, len(view))]
        self._data = self._data[len(piece) :]
        view[: len(piece)] = piece
        if not piece:
            self.problem = self._last_problem
        return len(piece)


def window(data: bytes = FILE, *, block_bytes: int = 64, headroom: int = 10, **options: Any) -> BlockBuffer:
    source = Dribble(data, **options)
    return BlockBuffer(source, CaptureInfo("test"), block_bytes=block_bytes, headroom=headroom)


def test_what_is_not_framed_moves_to_the_front_and_the_headroom_is_left_alone() -> None:
    blocks = window()
    blocks.buffer[:10] = 0xEE
    buffer, seen = blocks.buffer, b""
    while blocks.fill():
        assert blocks.at == blocks.headroom
        while blocks.end - blocks.at >= 37:
            assert blocks.file_offset(blocks.at) == len(seen)
            seen += blocks.bytes_at(blocks.at, 37)
            blocks.at += 37
    assert seen + blocks.bytes_at(blocks.at, 37) == FILE
    assert blocks.info.bytes == len(FILE)
    assert blocks.buffer is buffer
    assert (buffer[:10] == 0xEE).all()


def test_a_pipe_that_gives_little_fills_the_block_all_the_same() -> None:
    blocks = window(block_bytes=1000)
    blocks.fill()
    assert blocks.end - blocks.at == 1000


def test_the_longest_record_fits_however_small_the_blocks_are() -> None:
    blocks = window(bytes(framing.LONGEST_RECORD + 100), block_bytes=50_000, headroom=0, step=1 << 20)
    assert blocks.ensure(framing.LONGEST_RECORD)


def test_ensure_and_skip_end_with_the_file() -> None:
    blocks = window()
    assert blocks.ensure(4000)
    assert blocks.skip(4500)
    assert blocks.bytes_at(blocks.at, 10) == FILE[4500:4510]
    assert not blocks.ensure(501)
    assert blocks.ensure(500)
    assert not blocks.skip(501)
    assert blocks.file_offset(blocks.at) == 5000


def test_the_problem_of_the_source_is_an_issue_at_the_end() -> None:
    blocks = window(problem="the disk broke")
    while blocks.fill():
        pass
    assert [(issue.offset, issue.why) for issue in blocks.info.errors] == [(5000, "the disk broke")]
    assert not blocks.fill()
    assert len(blocks.info.errors) == 1


def test_issues_are_bounded() -> None:
    blocks = window()
    for offset in range(1000):
        blocks.report(offset, "wrong")
    assert len(blocks.info.errors) == MAX_ISSUES + 1
    assert "not listed" in blocks.info.errors[-1].why


@pytest.mark.parametrize("block_bytes", [1, 5000, 10_000])
def test_an_empty_file(block_bytes: int) -> None:
    blocks = window(b"", block_bytes=block_bytes)
    assert not blocks.fill()
    assert not blocks.ensure(1)
    assert blocks.bytes_at(blocks.at, 4) == b""
