"""TCP segments as the reassembler is given them, and the chunks that it gives back.

    talk = Talk()                      # SYN, SYN/ACK, ACK, as a list of segments
    talk.send(CLIENT, b"...")          # data that acknowledges what the client has seen of the server
    feed(reassembly, talk.segments)    # -> [Piece(stream, position, data, gap, packet), ...]

Segments are seen in the order of the list; what a network or a tap does to them is done to the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT: Final = 0
"""Who opens the connection: direction 0."""
SERVER: Final = 1
MILLISECOND: Final = 1_000_000


class Segment(NamedTuple):
    side: int
    seq: int
    ack: int
    data: bytes = b""
    flags: int = ACK
    flow: int = 0
    captured: int | None = None
    """Payload bytes in the file, where a snaplen cut it."""
    after_ns: int = MILLISECOND
    """Time since the segment before."""


class Piece(NamedTuple):
    """A chunk, with its bytes."""

    stream: int
    position: int
    data: bytes
    gap: int
    packet: int
    ack: int
    sync: int


class Talk:
    """Two endpoints that see all of each other."""

    def __init__(self, isn: tuple[int, int] = (1000, 5000), flow: int = 0, *, opened: bool = True) -> None:
        self.flow = flow
        self.first = [(number + 1) & 0xFFFFFFFF for number in isn]
        self.sent = (bytearray(), bytearray())
        self.segments: list[Segment] = []
        if opened:
            self.add(CLIENT, seq=isn[0], ack=0, flags=SYN)
            self.add(SERVER, seq=isn[1], flags=SYN | ACK)
            self.add(CLIENT)

    def next(self, side: int) -> int:
        """Sequence number of what the side sends next."""
        return (self.first[side] + len(self.sent[side])) & 0xFFFFFFFF

    def add(self, side: int, data: bytes = b"", **how: Any) -> Segment:
        """A segment as it is, at the end of what its side has sent unless told otherwise."""
        how.setdefault("seq", self.next(side))
        how.setdefault("ack", self.next(1 - side))
        self.segments.append(Segment(side, data=data, flow=self.flow, **how))
        return self.segments[-1]

    def send(self, side: int, *parts: bytes, **how: Any) -> list[Segment]:
        """New data, a segment for each part."""
        segments = []
        for part in parts:
            segments.append(self.add(side, part, **how))
            self.sent[side].extend(part)
        return segments

    def acknowledge(self, side: int, times: int = 1) -> None:
        """Segments without data that say how far the side has received."""
        for _ in range(times):
            self.add(side)


def columns(segments: Sequence[Segment], first: int, start: int, now_ns: int) -> tuple[SimpleNamespace, int]:
    """Packet columns of segments whose payloads lie in a row from `start` on, and the time then."""
    sizes = [len(segment.data) if segment.captured is None else segment.captured for segment in segments]
    time_ns = now_ns + np.cumsum([segment.after_ns for segment in segments], dtype=np.int64)
    return SimpleNamespace(
        packet=np.arange(first, first + len(segments), dtype=np.int64),
        time_ns=time_ns,
        seq=np.array([segment.seq for segment in segments], dtype=np.uint32),
        ack=np.array([segment.ack for segment in segments], dtype=np.uint32),
        flags=np.array([segment.flags for segment in segments], dtype=np.uint16),
        payload_offset=start + np.cumsum([0, *sizes], dtype=np.int64)[:-1],
        payload_length=np.array([len(segment.data) for segment in segments], dtype=np.int32),
        payload_captured=np.array(sizes, dtype=np.int32),
    ), int(time_ns[-1])


def feed(
    form: ModuleType,
    segments: Iterable[Segment],
    *,
    block: int = 1 << 30,
    flush: bool = True,
    reassembler: Any = None,
) -> list[Piece]:
    """Run segments through a reassembler as the pipeline does, in blocks of some packets.

    Args:
        form: analyzer.streams.reassembly, compiled or not.
        segments: In capture order.
        block: Packets of a block.
        flush: Whether the connections end with the capture.
        reassembler: One to look at afterwards.
    """
    rest = list(segments)
    capacity = 1 + max(segment.flow for segment in rest)
    reassembler = form.Reassembler() if reassembler is None else reassembler
    begun: set[int] = set()
    carried = np.empty(0, dtype=np.uint8)
    pieces: list[Piece] = []
    now_ns, first = 0, 1

    def read(buffer: np.ndarray, chunks: np.ndarray) -> None:
        for stream, at, size, gap, packet, _, ack, _, position, sync in chunks.tolist():
            pieces.append(Piece(stream, position, buffer[at : at + size].tobytes(), gap, packet, ack, sync))

    buffer = carried
    while rest:
        now, rest = rest[:block], rest[block:]
        payload = b"".join(segment.data[: segment.captured] for segment in now)
        buffer = np.concatenate([carried, np.frombuffer(payload, dtype=np.uint8)])
        packets, now_ns = columns(now, first, len(carried), now_ns)
        first += len(now)
        flow = np.array([segment.flow for segment in now], dtype=np.int64)
        begins = np.zeros(len(now), dtype=np.uint8)
        for index, segment in enumerate(now):
            begins[index] = segment.flow not in begun
            begun.add(segment.flow)
        direction = np.array([segment.side for segment in now], dtype=np.uint8)
        read(buffer, reassembler.reassemble(packets, flow, direction, begins, capacity))
        read(buffer, reassembler.expire(now_ns))
        carried = reassembler.carry(buffer)
    if flush:
        buffer = carried
        read(buffer, reassembler.flush(np.arange(capacity, dtype=np.int32)))
    return pieces


def stream(pieces: Iterable[Piece], number: int = 0) -> bytes:
    """The bytes of one direction of a connection, "_" for each that is missing."""
    data = bytearray()
    for piece in pieces:
        if piece.stream == number:
            data += b"_" * piece.gap + piece.data
            assert piece.position == len(data) - len(piece.data)
    return bytes(data)
