"""Read classic pcap files: both byte orders, micro- and nanoseconds, and the modified format of old Linux.

In:  a BlockBuffer at the start of the file.
Out: RawPackets per block.
Source: draft-ietf-opsawg-pcap-04; libpcap sf-pcap.c for the old versions.

A record that can't be right ends the reading: nothing in the format says where the next one would start.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from analyzer import limits
from analyzer.capture import RawPackets, framing
from analyzer.capture.blocks import BlockBuffer
from analyzer.errors import CaptureError

FILE_HEADER_BYTES: Final = 24
MICROSECONDS: Final = 0xA1B2C3D4
NANOSECONDS: Final = 0xA1B23C4D
MODIFIED: Final = 0xA1B2CD34
"""Written by Alexey Kuznetzov's patched libpcap, with 8 more bytes in each record header: interface index,
protocol and packet type."""

MAGICS: Final = {
    number.to_bytes(4, order): (number, order == "big")
    for number in (MICROSECONDS, NANOSECONDS, MODIFIED)
    for order in ("little", "big")
}


class PcapHeader(NamedTuple):
    """What the file header says about the records."""

    big: bool
    """Numbers are big-endian."""
    tick_ns: int
    """Nanoseconds of a unit of the second timestamp field."""
    record_header_bytes: int
    lengths: int
    """Order of the two lengths in a record, as framing.frame_pcap takes it."""
    linktype: int


def parse_header(header: bytes, path: str) -> PcapHeader:
    """Parse the file header, whose magic is one of MAGICS; CaptureError where that fails."""
    if len(header) < FILE_HEADER_BYTES:
        why = (
            f"the file ends inside the pcap header ({len(header)} of {FILE_HEADER_BYTES} bytes): "
            "the capture was cut, copy it again"
        )
        raise CaptureError(path, len(header), why)
    magic, big = MAGICS[header[:4]]
    fields = struct.unpack(">4xHHiIII" if big else "<4xHHiIII", header[:FILE_HEADER_BYTES])
    major, minor, link = fields[0], fields[1], fields[5]
    if (major, minor) == (543, 0) or (major == 2 and minor < 3):
        lengths = framing.WIRE_FIRST  # libpcap sf-pcap.c: DG/UX tcpdump, and all before version 2.3
    elif (major, minor) == (2, 3):
        lengths = framing.SMALLER_IS_CAPTURED  # libpcap sf-pcap.c: writers of 2.3 differ
    elif major == 2:
        lengths = framing.CAPTURED_FIRST
    else:
        why = f"pcap version {major}.{minor} does not exist (2.4 is usual): the header is damaged"
        raise CaptureError(path, 4, why)
    return PcapHeader(
        big=big,
        tick_ns=1 if magic == NANOSECONDS else 1000,
        record_header_bytes=24 if magic == MODIFIED else 16,
        lengths=lengths,
        linktype=link & 0xFFFF,  # above it: the length of the frame check sequence, and reserved bits
    )


def read_pcap(blocks: BlockBuffer, header: PcapHeader) -> Iterator[RawPackets]:
    """Yield the packets of each block; `blocks` stands at the first record."""
    room = blocks.capacity // header.record_header_bytes + 1
    columns = np.empty((framing.COLUMNS, room), dtype=np.int64)
    more = True
    while more:
        why, blocks.at, count = framing.frame_pcap(
            blocks.buffer,
            blocks.at,
            blocks.end,
            big=header.big,
            header_bytes=header.record_header_bytes,
            tick_ns=header.tick_ns,
            lengths=header.lengths,
            columns=columns,
        )
        if count:
            columns[framing.LINKTYPE, :count] = header.linktype
            yield blocks.packets(columns[:, :count])
        if why == framing.TOO_LONG:
            claimed = _claimed_bytes(blocks, header)
            reason = (
                f"a packet of {claimed} bytes is announced here, more than the {limits.MAX_PACKET_BYTES} "
                "that a packet can have: the capture is damaged and can't be read from here on"
            )
            if blocks.info.packets < 2:
                reason += ", or a rare variant of pcap that `editcap -F pcap IN OUT` may know"
            blocks.report(blocks.file_offset(blocks.at), reason)
            return
        more = why == framing.NO_ROOM or blocks.fill()
    rest = blocks.end - blocks.at
    if rest:
        what, needed = "packet header", header.record_header_bytes
        if rest >= needed:
            what, needed = "packet", needed + _claimed_bytes(blocks, header)
        blocks.report(
            blocks.file_offset(blocks.at),
            f"the capture ends inside a {what}: {rest} of {needed} bytes are there",
        )


def _claimed_bytes(blocks: BlockBuffer, header: PcapHeader) -> int:
    order = ">" if header.big else "<"
    lengths: tuple[int, int] = struct.unpack(f"{order}II", blocks.bytes_at(blocks.at + 8, 8))
    if header.lengths == framing.SMALLER_IS_CAPTURED:
        return min(lengths)
    return lengths[1 if header.lengths == framing.WIRE_FIRST else 0]
