from __future__ import annotations

import io
import os

import pytest

from analyzer.report import progress
from analyzer.report.progress import Progress


class Terminal(io.StringIO):
    def fileno(self):
        return 2


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda fileno: os.terminal_size((60, 24)))
    return Terminal()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_fast_capture_shows_nothing(terminal, clock):
    with Progress(1000, terminal, clock) as bar:
        clock.now += 0.9
        bar(999)
    assert terminal.getvalue() == ""


def test_a_slow_one_shows_share_rate_and_time_left(terminal, clock):
    bar = Progress(2_000_000_000, terminal, clock)
    clock.now += 2
    bar(500_000_000, 2_400_000)
    assert bar.line() == "[######..................]  25%  1,200,000 packets/s  250 MB/s  6 s left"


def test_the_line_is_cut_at_the_terminal_and_wiped(terminal, clock):
    with Progress(2_000_000_000, terminal, clock) as bar:
        clock.now += 2
        bar(500_000_000, 2_400_000)
        assert len(terminal.getvalue()) == len("\r") + 59 + len("\x1b[K")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_it_is_redrawn_ten_times_a_second_at_most(terminal, clock):
    bar = Progress(None, terminal, clock)
    for _ in range(1000):
        clock.now += 0.002
        bar(1)
    assert terminal.getvalue().count("\r") == 10


def test_a_stream_has_no_share(terminal, clock):
    bar = Progress(None, terminal, clock)
    clock.now += 2
    bar(3_000_000)
    assert bar.line() == "3.0 MB read  1.5 MB/s"


@pytest.mark.parametrize(("size", "done"), [(0, 0), (10, 20), (None, 0), (10, 0)])
def test_odd_sizes(terminal, clock, size, done):
    bar = Progress(size, terminal, clock)
    bar(done)
    assert bar.line().isprintable()


def test_nobody_to_see_it(terminal, clock):
    with Progress(1000, None, clock) as bar:
        clock.now += 60
        bar(500)
    assert terminal.getvalue() == ""
