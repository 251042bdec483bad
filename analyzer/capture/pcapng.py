"""Read pcapng files: sections, each with its byte order and its interfaces, and the packets of all of them.

In:  a BlockBuffer at the start of the file.
Out: RawPackets per block.
Source: draft-ietf-opsawg-pcapng-02.

A block that is not understood is passed over by its length; decryption secrets are among them. Reading ends
where the length itself can't be right, because nothing else says where the next block starts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.capture import RawPackets, framing
from analyzer.capture.blocks import BlockBuffer
from analyzer.errors import CaptureError

MAGIC: Final = bytes.fromhex("0a0d0d0a")
SECTION_HEADER_BYTES: Final = 28
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
VERSIONS: Final = ((1, 0), (1, 2))
"""1.2 was written by some programs and is 1.0 in all but the number (draft-ietf-opsawg-pcapng-02 4.1)."""

MAX_DESCRIPTIONS: Final = 1 << 18
"""Sections and interfaces that a capture may describe: more than any concatenation of files has, while a file
of nothing else still ends after seconds."""

MAX_DISAGREEMENTS: Final = 16
"""Blocks whose two lengths differ that are passed over; a file with more of them is not what it seems."""

IF_TSRESOL: Final = 9
IF_TSOFFSET: Final = 14

KNOWN_BLOCKS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x0A0D_0D0A, 0x0BAD, 0x4000_0BAD})
"""Block types that the draft names: one must follow a block whose lengths differ, for reading to go on."""

_INTERFACE_DESCRIPTION: Final = 1
_PACKET_BLOCKS: Final = frozenset({2, 3, 6})
_SECTION_HEADER: Final = 0x0A0D_0D0A
_MIN_INT64: Final = -(1 << 63)
_MAX_INT64: Final = (1 << 63) - 1


_SKIPPED: Final = (
    (
        framing.NO_INTERFACE,
        framing.NO_INTERFACE_AT,
        "of an interface that the section does not describe",
    ),
    (
        framing.NO_FIT,
        framing.NO_FIT_AT,
        f"longer than the block around it, or than {limits.MAX_PACKET_BYTES} bytes",
    ),
)
"""The counters of packets that were skipped, the index of the first one, and why."""


@dataclass(slots=True)
class Section:
    """What the blocks of a section are read with."""

    big: bool
    """Numbers are big-endian."""
    count: int = 0
    """Interfaces described so far."""
    table: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((4, framing.INTERFACE_FIELDS), dtype=np.int64)
    )

    @property
    def order(self) -> str:
        """The byte order as struct writes it."""
        return ">" if self.big else "<"

    @property
    def interfaces(self) -> npt.NDArray[np.int64]:
        """A row per interface."""
        return self.table[: self.count]

    def add(self, interface: tuple[int, ...]) -> None:
        """Append an interface."""
        if self.count == len(self.table):
            self.table = np.concatenate((self.table, np.zeros_like(self.table)))
        self.table[self.count] = interface
        self.count += 1


def parse_section_header(header: bytes) -> tuple[bool, tuple[int, int]] | None:
    """Whether a section is big-endian, and its version; None where the byte-order magic is missing."""
    for big, order in ((False, "<"), (True, ">")):
        magic, major, minor = struct.unpack_from(f"{order}IHH", header, 8)
        if magic == BYTE_ORDER_MAGIC:
            return big, (major, minor)
    return None


def parse_interface(block: bytes, order: str) -> tuple[tuple[int, ...], str | None]:
    """Parse a complete interface description block.

    Returns:
        The interface as a row of framing.INTERFACE_FIELDS, and what is wrong with its options.
    """
    link, snaplen = struct.unpack_from(f"{order}HxxI", block, 8)
    resolution, offset_s, wrong = 6, 0, None
    at, end = 16, len(block) - 4
    while at + 4 <= end:
        code, length = struct.unpack_from(f"{order}HH", block, at)
        at += 4
        if code == 0:
            break
        if at + length > end:
            wrong = "an option of this interface is longer than its block: what follows it is ignored"
            break
        if code == IF_TSRESOL and length == 1:
            resolution = block[at]
        elif code == IF_TSOFFSET and length == 8:
            (offset_s,) = struct.unpack_from(f"{order}q", block, at)
        at += (length + 3) & ~3
    offset_ns = max(_MIN_INT64, min(offset_s * 1_000_000_000, _MAX_INT64))
    return (link, snaplen, *_time_scale(resolution), offset_ns), wrong


def _time_scale(resolution: int) -> tuple[int, int, int]:
    """The fields multiply, divide and binary of an interface for the value of if_tsresol."""
    exponent = resolution & 0x7F
    if resolution & 0x80:
        return (1, 1, exponent) if exponent else (1_000_000_000, 1, 0)
    if exponent <= 9:
        return 10 ** (9 - exponent), 1, 0
    if exponent <= 27:
        return 1, 10 ** (exponent - 9), 0
    return 1, 1, 127  # all 64 bits of such a time are less than 2 ns: 0, as those of 2**-127 s


def open_section(blocks: BlockBuffer) -> Section:
    """Check the section header that the file starts with; CaptureError where it is none that can be read."""
    path = blocks.info.path
    complete = blocks.ensure(SECTION_HEADER_BYTES)
    header = blocks.bytes_at(blocks.at, SECTION_HEADER_BYTES)
    if not complete:
        why = (
            f"the file ends inside the pcapng section header ({len(header)} of {SECTION_HEADER_BYTES} "
            "bytes): the capture was cut, copy it again"
        )
        raise CaptureError(path, len(header), why)
    parsed = parse_section_header(header)
    if parsed is None:
        why = (
            f"the file starts as pcapng, but its byte-order magic is {header[8:12].hex()} instead of "
            "1a2b3c4d or 4d3c2b1a: the file is damaged, copy it again in binary mode"
        )
        raise CaptureError(path, 8, why)
    big, version = parsed
    if version not in VERSIONS:
        why = (
            f"pcapng version {version[0]}.{version[1]} is not known, only 1.0 is: "
            "convert the file with the program that wrote it"
        )
        raise CaptureError(path, 12, why)
    return Section(big)


class PcapngReader:
    """Reads the sections of a file from the one that `open_section` found. Iterate once."""

    def __init__(self, blocks: BlockBuffer, section: Section) -> None:
        self._blocks = blocks
        self._section = section
        self._state = np.zeros(framing.STATE_FIELDS, dtype=np.int64)
        self._skipped: dict[int, int] = {}
        """File offset of the first packet that a counter of _SKIPPED counted."""
        self._trusted = False
        """Take the next block by its leading length."""
        self._disagreements = 0
        self._descriptions = 0

    def __iter__(self) -> Iterator[RawPackets]:
        blocks = self._blocks
        columns = np.empty((framing.COLUMNS, blocks.capacity // 16 + 1), dtype=np.int64)
        used = 0
        go_on = True
        while go_on:
            why, used = self._frame(columns, used)
            # The buffer may move only when its packets were handed out. That is not done for every section or
            # interface: a hostile file has millions of them.
            if why in (framing.INTERFACE, framing.SECTION) and self._describe(why):
                continue
            if used:
                yield blocks.packets(columns[:, :used])
                used = 0
            go_on = self._go_on(why)
        self._report_skipped()

    def _frame(self, columns: npt.NDArray[np.int64], used: int) -> tuple[int, int]:
        blocks = self._blocks
        before = blocks.at
        why, blocks.at, count = framing.frame_pcapng(
            blocks.buffer,
            before,
            blocks.end,
            big=self._section.big,
            trusted=self._trusted,
            interfaces=self._section.interfaces,
            state=self._state,
            columns=columns,
            count=used,
        )
        if blocks.at != before:
            self._trusted = False
        for counter, at, reason in _SKIPPED:
            if self._state[counter] and counter not in self._skipped:
                self._skipped[counter] = blocks.file_offset(int(self._state[at]))
                blocks.report(self._skipped[counter], f"a packet {reason}: it is skipped")
        return why, count

    def _header(self, order: str) -> tuple[int, int, int]:
        """Type and length of the block at `at`, and the bytes it takes with its padding."""
        kind, total = struct.unpack(f"{order}II", self._blocks.bytes_at(self._blocks.at, 8))
        return kind, total, (total + 3) & ~3

    def _describe(self, why: int) -> bool:
        """Take up a section header or an interface description; False where that can't be."""
        blocks = self._blocks
        self._descriptions += 1
        if self._descriptions > MAX_DESCRIPTIONS:
            return False
        if why == framing.SECTION:
            parsed = parse_section_header(blocks.bytes_at(blocks.at, SECTION_HEADER_BYTES))
            if parsed is None or parsed[1] not in VERSIONS:
                return False
            self._section = Section(parsed[0])
        _, total, span = self._header(self._section.order)
        if why == framing.INTERFACE:
            interface, wrong = parse_interface(blocks.bytes_at(blocks.at, total), self._section.order)
            self._section.add(interface)
            if wrong is not None:
                blocks.report(blocks.file_offset(blocks.at), wrong)
        blocks.at += span
        self._trusted = False
        return True

    def _go_on(self, why: int) -> bool:
        """Do what the block needs where framing stopped; False to stop reading."""
        blocks = self._blocks
        match why:
            case framing.NO_ROOM:
                return True
            case framing.NEED_MORE:
                if blocks.fill():
                    return True
                self._report_cut(blocks.file_offset(blocks.at), blocks.bytes_at(blocks.at, 8))
            case framing.TOO_LONG:
                return self._pass_long_block()
            case framing.LENGTHS_DIFFER:
                return self._pass_disagreement()
            case framing.TOO_SHORT:
                kind, _, _ = self._header(self._section.order)
                self._stop(f"a block of type {kind:#x} starts here that is too short for its kind")
            case framing.NO_BYTE_ORDER:
                self._stop("a section starts here without a byte-order magic")
            case framing.SECTION | framing.INTERFACE:
                if self._descriptions > MAX_DESCRIPTIONS:
                    self._stop(f"there are more than {MAX_DESCRIPTIONS} sections and interfaces")
                else:
                    self._stop("a section starts here whose pcapng version is not known")
            case _:
                raise ValueError(why)
        return False

    def _stop(self, why: str) -> None:
        """Report why nothing can be read from here on."""
        blocks = self._blocks
        reason = f"{why}: the capture is damaged and can't be read from here on"
        blocks.report(blocks.file_offset(blocks.at), reason)

    def _pass_long_block(self) -> bool:
        """Pass over a block that is longer than the buffer may hold, without holding it."""
        blocks, order = self._blocks, self._section.order
        offset, start = blocks.file_offset(blocks.at), blocks.bytes_at(blocks.at, 8)
        kind, total, span = self._header(order)
        if kind in (_SECTION_HEADER, _INTERFACE_DESCRIPTION):
            self._stop(f"a block of type {kind:#x} and {total} bytes starts here, which no program writes")
            return False
        if kind in _PACKET_BLOCKS:
            blocks.report(offset, f"a packet in a block of {total} bytes: it is skipped")
        if not blocks.skip(span - 4) or not blocks.ensure(4):
            self._report_cut(offset, start)
            return False
        (trailing,) = struct.unpack(f"{order}I", blocks.bytes_at(blocks.at, 4))
        if trailing != total:
            self._stop(f"a block of {total} bytes ends here with the length {trailing}")
            return False
        blocks.at += 4
        return True

    def _pass_disagreement(self) -> bool:
        """Go on after a block whose two lengths differ, where the first one leads to another block."""
        blocks = self._blocks
        _, total, span = self._header(self._section.order)
        self._disagreements += 1
        if self._disagreements > MAX_DISAGREEMENTS or not self._block_follows(span):
            self._stop(f"the length of this block ({total}) is not repeated at its end")
            return False
        why = f"the length of this block ({total}) is not repeated at its end; reading goes on behind it"
        blocks.report(blocks.file_offset(blocks.at), why)
        self._trusted = True
        return True

    def _block_follows(self, span: int) -> bool:
        blocks = self._blocks
        if not blocks.ensure(span + 8):
            return blocks.end - blocks.at == span
        kind, total = struct.unpack(f"{self._section.order}II", blocks.bytes_at(blocks.at + span, 8))
        return kind in KNOWN_BLOCKS and total >= 12

    def _report_cut(self, offset: int, start: bytes) -> None:
        """Report the block at which the file ends, where there is one."""
        there = self._blocks.info.bytes - offset
        if len(start) == 8:
            _, total = struct.unpack(f"{self._section.order}II", start)
            self._blocks.report(
                offset, f"the capture ends inside a block: {there} of {total} bytes are there"
            )
        elif there:
            self._blocks.report(
                offset, f"the capture ends inside a block header: {there} of 8 bytes are there"
            )

    def _report_skipped(self) -> None:
        """Say how many packets were skipped, where it was more than the one that was reported."""
        for counter, _, reason in _SKIPPED:
            count = int(self._state[counter])
            if count > 1:
                self._blocks.report(
                    self._skipped[counter], f"{count} packets in all {reason}: they are skipped"
                )
