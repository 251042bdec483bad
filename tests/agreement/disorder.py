"""What networks, taps, clocks and people do to a capture: order, copies, segments, times, loss."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from tests.agreement.frames import Frame, Segment, rebuilt, segment

Frames = Sequence[Frame]


def bursts(frames: Frames) -> Iterator[list[Frame]]:
    """The packets of each capture, parted where nothing came for a second: no tap reorders over that."""
    burst: list[Frame] = []
    for frame in frames:
        if burst and (
            frame.capture != burst[-1].capture or frame.time_ns - burst[-1].time_ns > 1_000_000_000
        ):
            yield burst
            burst = []
        burst.append(frame)
    yield burst


def swapped(frames: Frames) -> Iterator[Frame]:
    """Every packet in the place of its neighbour; times stay in order."""
    for burst in bursts(frames):
        for at in range(0, len(burst) - 1, 2):
            first, second = burst[at : at + 2]
            yield replace(second, time_ns=first.time_ns)
            yield replace(first, time_ns=second.time_ns)
        if len(burst) % 2:
            yield burst[-1]


def shuffled(frames: Frames) -> Iterator[Frame]:
    """Packets out of order by up to eight, as several capture queues leave them."""
    shake = random.Random(1)
    for burst in bursts(frames):
        order = sorted(range(len(burst)), key=lambda at: at + shake.random() * 8)
        for place, at in enumerate(order):
            yield replace(burst[at], time_ns=burst[place].time_ns)


def ticking(frames: Frames) -> Iterator[Frame]:
    """Every packet later than the one before it."""
    now = 0
    for frame in frames:
        now = max(now + 1, frame.time_ns)
        yield replace(frame, time_ns=now)


def shuffled_with_times(frames: Frames) -> Iterator[Frame]:
    """Out of order, but each packet has kept its time."""
    ticked = list(ticking(frames))
    times = {(frame.capture, frame.origin): frame.time_ns for frame in ticked}
    for frame in shuffled(ticked):
        yield replace(frame, time_ns=times[frame.capture, frame.origin])


def mirrored(frames: Frames) -> Iterator[Frame]:
    """Every packet twice, as a SPAN port of both directions gives them."""
    for frame in frames:
        yield frame
        yield replace(frame, time_ns=frame.time_ns + 1000)


def resent(frames: Frames) -> Iterator[Frame]:
    """Each segment with data comes again three packets later."""
    waiting: list[Frame] = []
    for frame in frames:
        yield frame
        if len(waiting) >= 3:
            old = waiting.pop(0)
            part = segment(old)
            if part is not None and part.payload and old.capture == frame.capture:
                yield replace(old, time_ns=frame.time_ns)
        waiting.append(frame)


def overlapping(frames: Frames) -> Iterator[Frame]:
    """Segments are cut in two, and the second half begins with the last byte of the first."""
    for frame in frames:
        part = segment(frame)
        if part is None or len(part.payload) < 2:
            yield frame
            continue
        half = len(part.payload) // 2
        yield rebuilt(frame, part, payload=part.payload[:half])
        yield rebuilt(frame, part, tcp=advanced(part, half - 1), payload=part.payload[half - 1 :])


def advanced(part: Segment, by: int) -> bytes:
    """The TCP header with another sequence number."""
    return part.tcp[:4] + struct.pack("!I", (part.seq + by) & 0xFFFFFFFF) + part.tcp[8:]


def small_segments(frames: Frames) -> Iterator[Frame]:
    """No segment with more than 100 bytes of data."""
    for frame in frames:
        part = segment(frame)
        if part is None or len(part.payload) <= 100:
            yield frame
            continue
        for at in range(0, len(part.payload), 100):
            yield rebuilt(frame, part, tcp=advanced(part, at), payload=part.payload[at : at + 100])


def wrapping(frames: Frames) -> Iterator[Frame]:
    """Sequence numbers pass 2^32 in the first hundred bytes of each direction."""
    begins: dict[tuple[object, ...], int] = {}
    for frame in frames:
        part = segment(frame)
        if part is None:
            yield frame
            continue
        end = (part.addresses, part.ports)
        peer = (part.addresses[::-1], part.ports[::-1])
        (ack,) = struct.unpack_from("!I", part.tcp, 8)
        shift = begins.setdefault(end, (0xFFFFFFFF - 100 - part.seq) & 0xFFFFFFFF)
        back = begins.setdefault(peer, (0xFFFFFFFF - 100 - ack + 1) & 0xFFFFFFFF) if part.tcp[13] & 16 else 0
        yield rebuilt(
            frame,
            part,
            tcp=advanced(part, shift)[:8] + struct.pack("!I", ack + back & 0xFFFFFFFF) + part.tcp[12:],
        )


def without_syn(frames: Frames) -> Iterator[Frame]:
    """The capture began after the connection."""
    for frame in frames:
        part = segment(frame)
        if part is None or not part.syn:
            yield frame


def one_way(client: bool) -> Callable[[Frames], Iterator[Frame]]:
    """Only the packets of one side were captured: the side of the first packet, or its peer."""

    def change(frames: Frames) -> Iterator[Frame]:
        opener: dict[frozenset[object], object] = {}
        for frame in frames:
            part = segment(frame)
            if part is None:
                continue
            end = tuple(zip(part.addresses, part.ports, strict=True))
            if (opener.setdefault(frozenset(end), end[0]) == end[0]) == client:
                yield frame

    return change


def first_half(frames: Frames) -> Iterator[Frame]:
    """The first half of each capture."""
    for _, group in groupby(frames, key=lambda frame: frame.capture):
        packets = list(group)
        yield from packets[: len(packets) // 2]


def second_half(frames: Frames) -> Iterator[Frame]:
    """The second half of each capture."""
    for _, group in groupby(frames, key=lambda frame: frame.capture):
        packets = list(group)
        yield from packets[len(packets) // 2 :]


def cut(size: int) -> Callable[[Frames], Iterator[Frame]]:
    """A snapshot length, as by editcap -s."""

    def change(frames: Frames) -> Iterator[Frame]:
        for frame in frames:
            yield replace(frame, data=frame.data[:size])

    return change


def dropped(which: int) -> Callable[[Frames], Iterator[Frame]]:
    """The n-th packet with data of each capture is missing."""

    def change(frames: Frames) -> Iterator[Frame]:
        for _, group in groupby(frames, key=lambda frame: frame.capture):
            seen = 0
            for frame in group:
                part = segment(frame)
                seen += part is not None and bool(part.payload)
                if seen != which or part is None or not part.payload:
                    yield frame

    return change


def without_times(frames: Frames) -> Iterator[Frame]:
    """All packets at the same time."""
    for frame in frames:
        yield replace(frame, time_ns=1_000_000_000)


def newest_first(frames: Frames) -> Iterator[Frame]:
    """Captures appended in the wrong order: between two of them the clock goes back by years."""
    groups = [list(group) for _, group in groupby(frames, key=lambda frame: frame.capture)]
    for packets in reversed(groups):
        yield from packets


def backwards(frames: Frames) -> Iterator[Frame]:
    """A clock that runs backwards."""
    for frame in frames:
        yield replace(frame, time_ns=4_000_000_000_000_000_000 - frame.time_ns)
