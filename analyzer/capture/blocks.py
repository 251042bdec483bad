"""Keep one window of the capture's bytes in memory and move it forward.

In:  a ByteSource (stored.py, unpack.py).
Out: `buffer[at:end]`, the bytes not framed yet, behind a headroom that belongs to later stages.

The buffer never grows: it is allocated with room for a block and for the longest incomplete record before it,
and pages that nothing is written to cost no memory. So a consumer may rely on the same buffer in every block.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.capture import CaptureInfo, CaptureIssue, RawPackets, framing
from analyzer.capture.stored import ByteSource

MAX_ISSUES: Final = 64
"""Issues that one capture reports: a hostile file can have one per record."""


class BlockBuffer:
    """The window, and where it stands in the (decompressed) file."""

    def __init__(self, source: ByteSource, info: CaptureInfo, *, block_bytes: int, headroom: int) -> None:
        self.info = info
        self.headroom = headroom
        self.capacity = framing.LONGEST_RECORD + max(block_bytes, 4096)
        """Most bytes of the file that are held at a time."""
        self.buffer = np.empty(headroom + self.capacity, dtype=np.uint8)
        self.at = headroom
        """First byte that is not framed yet; the formats move it on."""
        self.end = headroom
        self.ended = False
        """Whether the source has no more."""
        self._source = source
        self._block_bytes = block_bytes
        self._view = self.buffer.data

    def fill(self) -> bool:
        """Move what is left to the front and read up to a block behind it; False at the end."""
        rest = self.end - self.at
        if self.at != self.headroom:
            self.buffer[self.headroom : self.headroom + rest] = self.buffer[self.at : self.end]
            self.at, self.end = self.headroom, self.headroom + rest
        stop = min(self.end + self._block_bytes, len(self.buffer))
        before = self.end
        while self.end < stop and not self.ended:  # pipes give a little at a time
            self._read(stop)
        return self.end > before

    def ensure(self, count: int) -> bool:
        """Hold the next `count` bytes, at most `capacity`; False where the capture ends before."""
        while self.end - self.at < count:
            if not self.fill():
                return False
        return True

    def skip(self, count: int) -> bool:
        """Pass over bytes without holding them; False where the capture ends before."""
        while True:
            step = min(count, self.end - self.at)
            self.at += step
            count -= step
            if not count:
                return True
            if not self.fill():
                return False

    def packets(self, columns: npt.NDArray[np.int64]) -> RawPackets:
        """The packets that were framed, counted in `info`. The columns are copied: framing reuses them."""
        info = self.info
        own = columns.copy()
        times = own[framing.TIME_NS]
        earliest, latest = int(times.min()), int(times.max())
        info.first_ns = earliest if info.first_ns is None else min(info.first_ns, earliest)
        info.last_ns = latest if info.last_ns is None else max(info.last_ns, latest)
        first = info.packets + 1
        info.packets += own.shape[1]
        return RawPackets(
            buffer=self.buffer,
            headroom=self.headroom,
            first=first,
            offset=own[framing.OFFSET],
            captured=own[framing.CAPTURED],
            wire=own[framing.WIRE],
            time_ns=times,
            linktype=own[framing.LINKTYPE],
        )

    def file_offset(self, index: int) -> int:
        """Offset in the (decompressed) file of a byte of the buffer."""
        return self.info.bytes - self.end + index

    def report(self, offset: int, why: str) -> None:
        """Add an issue at an offset of the (decompressed) file."""
        errors = self.info.errors
        if len(errors) < MAX_ISSUES:
            errors.append(CaptureIssue(offset, why))
        elif len(errors) == MAX_ISSUES:
            errors.append(CaptureIssue(offset, "more is wrong from here on; not listed"))

    def bytes_at(self, index: int, count: int) -> bytes:
        """Some bytes of the buffer, as Python wants them for a header that is read once."""
        return bytes(self._view[index : min(index + count, self.end)])

    def _read(self, stop: int) -> None:
        got = self._source.readinto(self._view[self.end : stop])
        self.end += got
        self.info.bytes += got
        if not got:
            self.ended = True
            if self._source.problem is not None:
                self.report(self.info.bytes, self._source.problem)
