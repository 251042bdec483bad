"""File -> blocks of raw packets.

    source.py    opens a capture and picks the format by its magic: start here
    stored.py    bytes as stored: file, standard input, fsspec URL
    unpack.py    gzip and zstd
    blocks.py    the window of the file that is in memory
    pcap.py      classic pcap: both byte orders, micro- and nanoseconds
    pcapng.py    pcapng: sections, interfaces and their clocks
    framing.py   (kernel) the loops over the record headers of both formats
    foreign.py   what a file is that is no capture

A block's packets live in one byte buffer; everything later refers to them by offset and copies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(slots=True)
class RawPackets:
    """The packets of one block of a capture.

    The first `headroom` bytes of `buffer` hold no packet: later stages keep there what must survive a block
    and what they reassemble. The reader never reads or writes them, and it uses the same buffer for the next
    block. The other arrays are new in every block.
    """

    buffer: npt.NDArray[np.uint8]
    headroom: int
    first: int
    """Number of the first packet, 1-based in its capture."""
    offset: npt.NDArray[np.int64]
    """Where each packet starts in `buffer`, its link header first."""
    captured: npt.NDArray[np.int64]
    wire: npt.NDArray[np.int64]
    time_ns: npt.NDArray[np.int64]
    linktype: npt.NDArray[np.int64]
    """LINKTYPE_ value of each packet's interface; framing.NO_LINKTYPE for a row without bytes: a pcapng block
    that is no packet but has a number in Wireshark."""

    def __len__(self) -> int:
        return len(self.offset)


class CaptureIssue(NamedTuple):
    """Where a capture could not be read, and why; what came before (and, where possible, after) was read."""

    offset: int
    why: str


@dataclass(slots=True)
class CaptureInfo:
    """What was read of one capture."""

    path: str
    format: str = ""
    """pcap or pcapng."""
    packets: int = 0
    """As Wireshark counts: the number of the last packet."""
    bytes: int = 0
    """Bytes of the decompressed file that were read."""
    size: int | None = None
    """Bytes of the file as stored, for progress; None for a stream."""
    first_ns: int | None = None
    last_ns: int | None = None
    errors: list[CaptureIssue] = field(default_factory=list)
