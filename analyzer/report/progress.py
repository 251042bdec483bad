"""A progress line on standard error, where there is somebody to see it and something to wait for.

In:  stored bytes read so far (and packets, where the reader counts them).
Out: a line that is redrawn: share, rate and time left. Nothing in the first second, nothing without a
terminal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TextIO

from analyzer.report.text import byte_count, duration

QUIET_SECONDS: Final = 1.0
REDRAW_SECONDS: Final = 0.1
BAR: Final = 24


class Progress:
    """Called with the number of stored bytes read so far; a context manager that wipes the line."""

    def __init__(
        self, size: int | None, terminal: TextIO | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Starts the clock.

        Args:
            size: Stored bytes in all, None where nobody knows.
            terminal: Where the line is drawn, None for nowhere.
            clock: Seconds.
        """
        self.done = 0
        self.packets = 0
        self.size = size
        self._terminal = terminal
        self._clock = clock
        self._start = clock()
        self._next = self._start + QUIET_SECONDS
        self._drawn = False

    def __call__(self, done: int, packets: int = 0) -> None:
        self.done, self.packets = done, packets
        if self._terminal is not None and self._clock() >= self._next:
            self._next = self._clock() + REDRAW_SECONDS
            width = (
                os.get_terminal_size(self._terminal.fileno()).columns or 80
            )  # 0: the terminal does not say
            self._terminal.write(f"\r{self.line()[: width - 1]}\x1b[K")
            self._terminal.flush()
            self._drawn = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal is not None and self._drawn:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()

    @property
    def elapsed(self) -> float:
        return max(self._clock() - self._start, 1e-9)

    def line(self) -> str:
        """What there is to say now: `[#####......]  21%  1,204,331 packets/s  612 MB/s  4 s left`."""
        rate = self.done / self.elapsed
        parts = [f"{byte_count(self.done)} read"]
        if self.size:
            share = min(self.done / self.size, 1.0)
            filled = int(share * BAR)
            parts = [f"[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%}"]
        if self.packets:
            parts.append(f"{self.packets / self.elapsed:,.0f} packets/s")
        parts.append(f"{byte_count(rate)}/s")
        if self.size and rate:
            parts.append(f"{duration(max(self.size - self.done, 0) / rate, digits=0)} left")
        return "  ".join(parts)
