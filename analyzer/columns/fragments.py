"""Reassemble IP fragments, so that a datagram is decoded in the packet that completed it.

In:  the rows of kind FRAGMENT of a block, and the fragments that are held from earlier blocks.
Out: the same rows, decoded again from the whole datagram, which is put into the block's headroom.
Source: RFC 791 3.2, RFC 8200 4.5, RFC 5722; Linux net/ipv4/inet_fragment.c, net/ipv6/reassembly.c.

Fragments mean what they mean to Linux since 4.19, or rules would be predicted on bytes that no host accepts:
one that overlaps others discards the datagram, one that adds nothing is ignored, whatever its bytes are.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.capture import RawPackets
from analyzer.columns.decode import decode_again
from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind

_MAX_IP_BYTES: Final = 65_535
_FRAGMENT_OVERHEAD: Final = 256
"""Counted for each fragment besides its bytes: many small ones are bounded too (Linux counts truesize)."""
_MAX_NESTING: Final = 4
"""Fragments in a tunnel that is itself fragmented, and so on."""
_NEXT_FRAGMENT: Final = 44
_NEXT_AH: Final = 51


class _Fragment(NamedTuple):
    key: tuple[int, ...]
    header: bytes
    """All before the data, without IPv6's fragment header; kept of the first fragment only."""
    protocol: int
    """IPv6: the next header behind the fragment header."""
    start: int
    more: bool
    data: bytes


class _Datagram:
    """The fragments of one datagram that came so far."""

    __slots__ = ("created_ns", "first", "held_bytes", "length", "pieces", "received", "runs", "whole_length")

    def __init__(self, created_ns: int) -> None:
        self.created_ns = created_ns
        self.first: _Fragment | None = None
        self.runs: list[tuple[int, int]] = []
        """(start, end) of what came in one go, in order; they never overlap."""
        self.pieces: dict[int, bytes] = {}
        self.received = 0
        self.held_bytes = 0
        self.length = 0
        self.whole_length: int | None = None
        """Known once the last fragment came."""

    def add(self, fragment: _Fragment) -> bool:
        """Take a fragment in; False when it shows that the datagram must be discarded."""
        start, data = fragment.start, fragment.data
        end = start + len(data)
        if fragment.more:
            data = data[: len(data) & ~7]
            end = start + len(data)
            if end > self.length:
                if self.whole_length is not None:
                    return False
                self.length = end
        else:
            if end < self.length or self.whole_length not in (None, end):
                return False
            self.length = self.whole_length = end
        if not data:
            return False
        if not self.runs or start > self.runs[-1][1]:
            self.runs.append((start, end))
        elif end > self.runs[-1][1]:
            last_start, last_end = self.runs[-1]
            if start < last_end:
                return False
            self.runs[-1] = (last_start, end)
        else:
            at = bisect_right(self.runs, (start, end))
            before = self.runs[at - 1] if at else (0, 0)
            # the run that starts where this one does may be the longer one and then sorts behind it
            behind = self.runs[at] if at < len(self.runs) else (end, end)
            if end <= before[1] or (start == behind[0] and end <= behind[1]):
                return True
            if start < before[1] or end > behind[0]:
                return False
            insort(self.runs, (start, end))
        self.pieces[start] = data
        self.received += len(data)
        if start == 0:
            self.first = fragment
        return True

    def whole(self) -> bytes | None:
        """The IP datagram, or None as long as something is missing."""
        if self.first is None or self.received != self.whole_length:
            return None
        header = bytearray(self.first.header)
        data = b"".join(self.pieces[start] for start in sorted(self.pieces))
        if header[0] >> 4 == 4:
            header[2:4] = min(len(header) + len(data), _MAX_IP_BYTES).to_bytes(2)
            header[6:8] = bytes(2)
        else:
            header[4:6] = min(len(header) - 40 + len(data), _MAX_IP_BYTES).to_bytes(2)
            header[_next_header_at(header)] = self.first.protocol
        return bytes(header) + data


def _next_header_at(header: bytearray) -> int:
    """Where the last of these IPv6 headers names what follows it."""
    named_at, at = 6, 40
    while at + 1 < len(header):
        protocol = header[named_at]
        named_at = at
        if protocol == _NEXT_FRAGMENT:
            at += 8
        elif protocol == _NEXT_AH:
            at += (header[at + 1] + 2) * 4
        else:
            at += (header[at + 1] + 1) * 8
    return named_at


class FragmentReassembler:
    """The fragments that are held, over the blocks of one capture."""

    def __init__(self) -> None:
        self._datagrams: dict[tuple[int, ...], _Datagram] = {}
        """Oldest first: dicts keep the order of insertion."""
        self.held_bytes = 0
        """Of all datagrams; never above limits.FRAGMENT_BYTES between packets."""

    def complete(self, raw: RawPackets, columns: Columns, allocate: Callable[[int], int | None]) -> None:
        """Decode again, in place, every row whose fragment completes a datagram.

        Args:
            raw: The block; the datagrams are written into the headroom of its buffer.
            columns: What `decode` made of the block.
            allocate: Reserves bytes of the headroom and returns their offset, or None when there is no room;
                then the row stays a FRAGMENT.
        """
        rows = np.flatnonzero(columns.kind == Kind.FRAGMENT)
        if len(rows) == 0:
            return
        for row, fragment in zip(rows.tolist(), _read(raw.buffer, columns, rows), strict=True):
            nesting = 0
            while fragment is not None and self._complete_row(raw, columns, row, fragment, allocate):
                nesting += 1
                if columns.kind[row] != Kind.FRAGMENT or nesting == _MAX_NESTING:
                    break
                (fragment,) = _read(raw.buffer, columns, np.array([row]))

    def _complete_row(
        self,
        raw: RawPackets,
        columns: Columns,
        row: int,
        fragment: _Fragment,
        allocate: Callable[[int], int | None],
    ) -> bool:
        """Whether the row was decoded again, from a datagram that this fragment completed."""
        datagram = self._hold(fragment, int(columns.time_ns[row]))
        whole = None if datagram is None else datagram.whole()
        if whole is None:
            return False
        self._drop(fragment.key)
        if len(whole) > _MAX_IP_BYTES + (40 if columns.ip_version[row] == 6 else 0):
            return False
        offset = allocate(len(whole))
        if offset is None:
            return False
        raw.buffer[offset : offset + len(whole)] = np.frombuffer(whole, np.uint8)
        decode_again(raw.buffer, columns, row, offset, len(whole))
        return True

    def _hold(self, fragment: _Fragment, time_ns: int) -> _Datagram | None:
        self._expire(time_ns)
        datagram = self._datagrams.get(fragment.key)
        if datagram is None:
            datagram = self._datagrams[fragment.key] = _Datagram(time_ns)
        received = datagram.received
        if not datagram.add(fragment):
            self._drop(fragment.key)
            return None
        size = len(fragment.data) + len(fragment.header) + _FRAGMENT_OVERHEAD
        if datagram.received > received:
            datagram.held_bytes += size
            self.held_bytes += size
        # Linux would refuse new fragments; here the oldest go, or a flood would stop all reassembly
        while self.held_bytes > limits.FRAGMENT_BYTES:
            self._drop(next(iter(self._datagrams)))
        return self._datagrams.get(fragment.key)

    def _expire(self, now_ns: int) -> None:
        while self._datagrams:
            key, datagram = next(iter(self._datagrams.items()))
            if now_ns - datagram.created_ns < limits.FRAGMENT_TIMEOUT_NS:
                break
            self._drop(key)

    def _drop(self, key: tuple[int, ...]) -> None:
        self.held_bytes -= self._datagrams.pop(key).held_bytes


def _read(
    buffer: npt.NDArray[np.uint8], columns: Columns, rows: npt.NDArray[np.int64]
) -> Iterator[_Fragment | None]:
    """The fragment of each row; None when the capture cut it, or when no host would take it."""
    v6 = columns.ip_version[rows] == 6
    network, payload = columns.network_offset[rows], columns.payload_offset[rows]
    length = columns.payload_length[rows].astype(np.int64)
    header_end = np.where(v6, payload - 8, payload)
    # IPv6: in the fragment header, which `decode` found to be there whole; IPv4: in the fixed header
    offset_flags = _pull(buffer, np.where(v6, payload - 6, network + 6), 2)
    number = np.where(v6, _pull(buffer, payload - 4, 4), columns.ip_id[rows])
    protocol = buffer[np.where(v6, payload - 8, network + 9)]
    start = np.where(v6, offset_flags & 0xFFF8, (offset_flags & 0x1FFF) * 8)
    more = np.where(v6, offset_flags & 1, offset_flags & 0x2000) != 0
    taken = columns.payload_captured[rows] == length
    taken &= ~v6 | ((start + length <= _MAX_IP_BYTES) & ~(more & (length & 7 != 0)))
    keys = zip(
        *(half[rows].tolist() for half in (columns.src_hi, columns.src_lo, columns.dst_hi, columns.dst_lo)),
        np.where(v6, 6, 4).tolist(),
        number.tolist(),
        np.where(v6, 0, protocol).tolist(),
        strict=True,
    )
    spans = (column.tolist() for column in (network, header_end, payload, payload + length))
    fields = (column.tolist() for column in (protocol, start, more, taken))
    for key, network_at, header_to, at, end, names, begins, has_more, is_taken in zip(
        keys, *spans, *fields, strict=True
    ):
        if not is_taken:
            yield None
            continue
        header = buffer[network_at:header_to].tobytes() if begins == 0 else b""
        yield _Fragment(key, header, names, begins, has_more, buffer[at:end].tobytes())


def _pull(buffer: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """The big-endian number of `width` bytes at each offset."""
    value = np.zeros(len(at), np.int64)
    for index in range(width):
        value = value << 8 | buffer[at + index]
    return value
