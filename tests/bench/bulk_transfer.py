"""A capture of a few TLS 1.2 connections that carry bulk data: full records, full segments, delayed ACKs.

In:  how many bytes of capture, how many connections.
Out: a pcap file; the connections' segments alternate, two of data and one acknowledgement at a time.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python adds

from samples.craft.conversation import CLIENT, SERVER, Capture
from samples.craft.session import Session, begin

SEGMENT: Final = 1460
RECORD: Final = 5 + 8 + 16384 + 16
"""Header, explicit nonce, 2^14 bytes of data, GCM tag."""
LINK_IP_TCP: Final = 14 + 20 + 20
ROW: Final = 3 * (16 + LINK_IP_TCP) + 2 * SEGMENT
"""Two segments of data and the acknowledgement for both (RFC 5681 4.2), as in the file."""
ROW_US: Final = 26
"""About what a row takes at 1 Gbit/s."""
BLOCK_ROWS: Final = 4096


def write_bulk(out: Path, size: int, connections: int) -> int:
    """Write about `size` bytes; return how many packets."""
    capture = Capture()
    sessions = [begin("bulk", capture=capture, client=f"192.0.2.{10 + n}") for n in range(connections)]
    for session in sessions:
        session.full(data=False)
        session.exchange(400, 300)
    rows = whole_records(size // (ROW * connections))
    with out.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        packets = flush(capture, file)
        streams = [np.random.PCG64(place) for place in range(connections)]
        for first in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - first)
            block = np.empty((count, connections, ROW), np.uint8)
            for place, session in enumerate(sessions):
                when = capture.now_us + (np.arange(first, first + count) * connections + place) * ROW_US
                data = stream(streams[place], first * 2 * SEGMENT, count * 2 * SEGMENT, rows * 2 * SEGMENT)
                fill(block[:, place], session, first, when, data.reshape(count, 2, SEGMENT))
            file.write(block.tobytes())
        packets += 3 * rows * connections
        capture.now_us += rows * connections * ROW_US
        for session in sessions:
            session.talk.next_seq[SERVER] += rows * 2 * SEGMENT
            session.talk.received[CLIENT] = session.talk.next_seq[SERVER]
            session.close()
        packets += flush(capture, file)
    return packets


def whole_records(rows: int) -> int:
    """At most `rows`, so that what is left for the last record is none or a plausible one."""
    while 0 < rows * 2 * SEGMENT % RECORD < 100:
        rows -= 1
    return rows


def flush(capture: Capture, file: BinaryIO) -> int:
    """Write the packets that the conversations have made so far."""
    for packet in capture.packets:
        frame = packet.frame()
        file.write(struct.pack("<IIII", *divmod(packet.time_us, 1_000_000), len(frame), len(frame)) + frame)
    count = len(capture.packets)
    capture.packets = []
    return count


def stream(source: np.random.PCG64, start: int, count: int, total: int) -> np.ndarray:
    """Bytes [start, start + count) of a stream of `total` bytes: record headers, nonces, noise."""
    data = source.random_raw(-(-count // 8)).view(np.uint8)[:count]
    numbers = np.arange(start // RECORD, -(-(start + count) // RECORD))
    lengths = np.minimum(RECORD, total - numbers * RECORD) - 5
    head = np.empty((len(numbers), 13), np.uint8)
    head[:, 0:3] = 23, 3, 3
    head[:, 3:5] = lengths.astype(">u2").view(np.uint8).reshape(-1, 2)
    head[:, 5:13] = (numbers + (0x5A << 56)).astype(">u8").view(np.uint8).reshape(-1, 8)
    places = (numbers * RECORD - start)[:, None] + np.arange(13)
    inside = (places >= 0) & (places < count)
    data[places[inside]] = head[inside]
    return data


def fill(rows: np.ndarray, session: Session, first: int, when: np.ndarray, data: np.ndarray) -> None:
    """Fill the rows of one connection: record headers, frames, checksums."""
    talk = session.talk
    sent = (first + np.arange(len(rows))) * 2 * SEGMENT
    at = 0
    for turn, side in ((0, SERVER), (1, SERVER), (2, CLIENT)):
        payload = data[:, turn] if side == SERVER else data[:, 0, :0]
        width = LINK_IP_TCP + payload.shape[1]
        packet = rows[:, at : at + 16 + width]
        at += 16 + width
        stamp = when + (0, 12, 20)[turn]
        for place, column in enumerate((stamp // 1_000_000, stamp % 1_000_000, width, width)):
            packet[:, place * 4 : place * 4 + 4] = u4(np.broadcast_to(column, len(rows)), "<u4")
        frame = packet[:, 16:]
        model = talk.packet(side, flags=0x10, ip_id=1).frame()
        talk.capture.packets.pop()
        frame[:, :LINK_IP_TCP] = np.frombuffer(model, np.uint8)
        frame[:, 16:18] = u4(np.full(len(rows), width - 14), ">u4")[:, 2:]
        frame[:, 18:20] = u4((sent // SEGMENT + turn) & 0xFFFF, ">u4")[:, 2:]
        frame[:, 24:26] = 0
        frame[:, 24:26] = checksum(frame[:, 14:34])
        ahead = talk.next_seq[SERVER] + sent + (0, SEGMENT, 2 * SEGMENT)[turn]
        field = 38 if side == SERVER else 42
        frame[:, field : field + 4] = u4(ahead & 0xFFFFFFFF, ">u4")
        frame[:, 50:52] = 0
        frame[:, LINK_IP_TCP:] = payload
        pseudo = checksum_words(frame[:, 26:34]) + sum(
            struct.unpack("<HH", struct.pack(">HH", 6, width - 34))
        )
        frame[:, 50:52] = folded(checksum_words(frame[:, 34:]) + pseudo)


def u4(values: np.ndarray, order: str) -> np.ndarray:
    return np.ascontiguousarray(values).astype(order).view(np.uint8).reshape(-1, 4)


def checksum_words(part: np.ndarray) -> np.ndarray:
    """Sum of 16-bit words, little-endian: RFC 1071 2(B) lets it be, if the result is stored so too."""
    return np.ascontiguousarray(part).view("<u2").sum(axis=1, dtype=np.int64)


def folded(total: np.ndarray) -> np.ndarray:
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).astype("<u2").view(np.uint8).reshape(-1, 2)


def checksum(part: np.ndarray) -> np.ndarray:
    return folded(checksum_words(part))
