"""Open a capture, whatever holds it, and yield its packets block by block.

In:  a file name, "-" for standard input, or an fsspec URL; plain, gzip or zstd; pcap or pcapng.
Out: RawPackets per block; CaptureInfo, which grows while reading.

Compression and format are told from the first bytes, never from the name. A capture of which nothing can be
understood raises CaptureError when it is opened; what goes wrong later is an entry of `info.errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from analyzer import limits
from analyzer.capture import CaptureInfo, RawPackets, pcap, pcapng
from analyzer.capture.blocks import BlockBuffer
from analyzer.capture.foreign import HEAD_BYTES, describe_foreign
from analyzer.capture.stored import StoredBytes, open_stored
from analyzer.capture.unpack import unpack
from analyzer.errors import CaptureError


class CaptureReader:
    """An open capture. Iterate once; use as a context manager, or close()."""

    def __init__(self, stored: StoredBytes, info: CaptureInfo, packets: Iterator[RawPackets]) -> None:
        self.info = info
        """What was read so far; complete when the iteration has ended."""
        self._stored = stored
        self._packets = packets

    def __iter__(self) -> Iterator[RawPackets]:
        yield from self._packets
        self.info.errors.sort(key=lambda issue: issue.offset)  # those of a block were found in any order

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def position(self) -> int:
        """Bytes of the stored (still compressed) file that were consumed; `info.size` is their total."""
        return self._stored.position()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._stored.close()


def open_capture(
    path: str | Path,
    *,
    block_bytes: int = limits.BLOCK_BYTES,
    headroom: int = limits.HEADROOM_BYTES,
) -> CaptureReader:
    """Open a capture and read its first block.

    Args:
        path: File name, "-" for standard input, or a URL for fsspec (it has "://" in it).
        block_bytes: Bytes of the file that are read at a time.
        headroom: Bytes kept free at the front of RawPackets.buffer.

    Raises:
        CaptureError: It can't be opened, or it is no capture; `why` says what to do.
    """
    name = str(path)
    stored = open_stored(name)
    try:
        info = CaptureInfo(path=name, size=stored.size)
        blocks = BlockBuffer(unpack(stored), info, block_bytes=block_bytes, headroom=headroom)
        return CaptureReader(stored, info, _read_packets(blocks))
    except BaseException:
        stored.close()
        raise


def _read_packets(blocks: BlockBuffer) -> Iterator[RawPackets]:
    """Pick the format by its magic; raises CaptureError at once, not at the first packet."""
    info = blocks.info
    blocks.ensure(pcap.FILE_HEADER_BYTES)
    head = blocks.bytes_at(blocks.at, pcap.FILE_HEADER_BYTES)
    if head[:4] in pcap.MAGICS:
        info.format = "pcap"
        header = pcap.parse_header(head, info.path)
        blocks.at += pcap.FILE_HEADER_BYTES
        return pcap.read_pcap(blocks, header)
    if head[:4] == pcapng.MAGIC:
        info.format = "pcapng"
        return iter(pcapng.PcapngReader(blocks, pcapng.open_section(blocks)))
    if len(head) < 4 and info.errors:
        raise CaptureError(info.path, info.errors[0].offset, info.errors[0].why)
    if not head:
        raise CaptureError(info.path, 0, "the file is empty: nothing was captured, or the copy failed")
    blocks.ensure(HEAD_BYTES)
    raise CaptureError(info.path, 0, describe_foreign(blocks.bytes_at(blocks.at, HEAD_BYTES)))
