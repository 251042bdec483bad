"""Write the large captures that the speed and memory promises are measured on.

    python tests/bench/make_capture.py handshakes OUT [--packets 400000 | --bytes 2000000000]
    python tests/bench/make_capture.py bulk OUT [--bytes 2000000000] [--connections 4]

`handshakes` replicates samples/captures: each replica has its own client and server address (ports and
everything above TCP stay), valid IP and TCP checksums, and a start time of its own, so that many connections
overlap in time. `bulk` is a few TLS 1.2 connections that carry application data in records of 16 KB, in
segments of 1460 bytes.
Both depend on nothing but their arguments: the same call writes the same bytes.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

CAPTURES: Final = Path(__file__).parents[2] / "samples" / "captures"

# fmt: off
MIX: Final = (  # capture                            replicas of it in a round
    ("smtp-starttls.pcap",                 12),
    ("tls-conn-with-extensions.pcap",       6),
    ("client-hello-mtu300.pcap",            6),
    ("tls12-resumption.pcap",               1),
    ("tls1.2.pcap",                         1),
    ("tls1_1.pcap",                         1),
    ("tls13_psk_succesfull.pcap",           1),
    ("chrome-1250-tls-x25519-kyber.pcap",   1),
    ("certificate-request-failed.pcap",     1),
    ("tls-1.2-handshake-failure.pcap",      1),
    ("client_hello_sslv3.pcap",             1),
    ("heartbleed.pcap",                     1),
    ("heartbleed-success.pcap",             1),
)
# fmt: on
"""38 connections, 1435 packets, 667 KB: 38 packets a connection, as in ordinary browsing and mail."""

START_NS: Final = 1_700_000_000_000_000_000
ROUND_NS: Final = 38_000_000
"""A round starts every 38 ms: 1000 new connections a second, several thousand open at a time."""

SERVERS: Final = 4096
"""Addresses that the replicas' servers are spread over; every replica has a client address of its own."""

PCAP_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
ETHERNET: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One packet of a sample, ready to be stamped out."""

    frame: np.ndarray
    """Record header and packet, u1."""
    after_ns: int
    """Time since the capture's first packet."""
    source_at: int | None
    """Offset in `frame` of the sender's address (in IPv6: of its last 4 bytes); None without IP."""
    target_at: int | None
    from_client: bool
    ip_checksum_at: int | None
    ip_sum: int
    """One's complement sum of the IPv4 header without its checksum and without those 8 bytes."""
    tcp_checksum_at: int | None
    tcp_sum: int


def read_pcap(path: Path) -> list[tuple[int, bytes, int]]:
    """Return (time in ns, captured bytes, wire length) of each packet of a classic pcap file."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    unit = 1 if struct.unpack_from(order + "I", data)[0] == 0xA1B23C4D else 1000
    packets, at = [], 24
    while at < len(data):
        seconds, fraction, captured, wire = struct.unpack_from(order + "IIII", data, at)
        packets.append((seconds * 10**9 + fraction * unit, data[at + 16 : at + 16 + captured], wire))
        at += 16 + captured
    return packets


def ones_sum(data: bytes) -> int:
    """Sum of big-endian 16-bit words, not folded (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    return int(np.frombuffer(data, ">u2").sum(dtype=np.int64))


def template(packet: bytes, wire: int, after_ns: int, clients: set[bytes]) -> Template:
    frame = np.frombuffer(struct.pack("<IIII", 0, 0, len(packet), wire) + packet, np.uint8)
    kind = packet[12:14]
    source_at = target_at = ip_checksum_at = tcp_checksum_at = None
    ip_sum = tcp_sum = 0
    from_client = False
    if kind == b"\x08\x00":
        ip = ETHERNET
        header = (packet[ip] & 15) * 4
        end = ip + struct.unpack_from(">H", packet, ip + 2)[0]
        protocol, transport, low = packet[ip + 9], ip + header, ip + 12
        pseudo = 0  # all of both addresses is patched
        from_client = packet[ip + 12 : ip + 16] in clients
        ip_checksum_at = 16 + ip + 10
        ip_sum = ones_sum(packet[ip : ip + 10] + packet[ip + 20 : ip + header])
        source_at, target_at = 16 + low, 16 + low + 4
    elif kind == b"\x86\xdd":
        ip = ETHERNET
        end = ip + 40 + struct.unpack_from(">H", packet, ip + 4)[0]
        protocol, transport = packet[ip + 6], ip + 40
        pseudo = ones_sum(packet[ip + 8 : ip + 20] + packet[ip + 24 : ip + 36])
        from_client = packet[ip + 8 : ip + 24] in clients
        source_at, target_at = 16 + ip + 20, 16 + ip + 36
    else:
        protocol, transport, end, pseudo = 0, 0, 0, 0
    if protocol == 6 and end <= len(packet):
        segment = packet[transport:end]
        tcp_checksum_at = 16 + transport + 16
        tcp_sum = ones_sum(segment[:16] + segment[18:]) + pseudo + 6 + len(segment)
    return Template(
        frame=frame,
        after_ns=after_ns,
        source_at=source_at,
        target_at=target_at,
        from_client=from_client,
        ip_checksum_at=ip_checksum_at,
        ip_sum=ip_sum,
        tcp_checksum_at=tcp_checksum_at,
        tcp_sum=tcp_sum,
    )


def templates(name: str) -> list[Template]:
    """The packets of a sample; its clients are the senders of a SYN, or of its first packet."""
    packets = read_pcap(CAPTURES / name)
    clients = set()
    for _, packet, _ in packets:
        if packet[12:14] == b"\x08\x00" and packet[23] == 6 and packet[34 + 13] & 0x12 == 2:
            clients.add(packet[26:30])
        elif packet[12:14] == b"\x86\xdd" and packet[20] == 6 and packet[54 + 13] & 0x12 == 2:
            clients.add(packet[22:38])
    if not clients:
        clients.add(packets[0][1][26:30])
    return [template(packet, wire, time - packets[0][0], clients) for time, packet, wire in packets]


def fold(total: np.ndarray) -> np.ndarray:
    """The checksum of a one's complement sum, as two columns of bytes."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).astype(">u2").view(np.uint8).reshape(-1, 2)


def replicas(share: int, slot: int, rounds: int, per_round: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start time, client address and server address of each replica of the sample in `slot`."""
    index = np.arange(rounds * share, dtype=np.int64)
    round_, turn = index // share, index % share
    place = slot + turn
    number = round_ * per_round + place
    start = START_NS + round_ * ROUND_NS + place * (ROUND_NS // per_round)
    client = 0x0A000000 + 1 + number  # 10.0.0.1 and on
    server = 0xAC100000 + 1 + (number * 2_654_435_761 % SERVERS)  # 172.16.0.1 and on
    return start, client, server


def as_bytes(address: np.ndarray) -> np.ndarray:
    return address.astype(">u4").view(np.uint8).reshape(-1, 4)


def stamp(packet: Template, time_ns: np.ndarray, client: np.ndarray, server: np.ndarray) -> np.ndarray:
    """The packet, once per replica: rows of bytes."""
    rows = np.broadcast_to(packet.frame, (len(time_ns), len(packet.frame))).copy()
    rows[:, 0:4] = (time_ns // 10**9).astype("<u4").view(np.uint8).reshape(-1, 4)
    rows[:, 4:8] = (time_ns % 10**9 // 1000).astype("<u4").view(np.uint8).reshape(-1, 4)
    if packet.source_at is None or packet.target_at is None:
        return rows
    source, target = (client, server) if packet.from_client else (server, client)
    rows[:, packet.source_at : packet.source_at + 4] = as_bytes(source)
    rows[:, packet.target_at : packet.target_at + 4] = as_bytes(target)
    addresses = (source >> 16) + (source & 0xFFFF) + (target >> 16) + (target & 0xFFFF)
    if packet.ip_checksum_at is not None:
        rows[:, packet.ip_checksum_at : packet.ip_checksum_at + 2] = fold(addresses + packet.ip_sum)
    if packet.tcp_checksum_at is not None:
        rows[:, packet.tcp_checksum_at : packet.tcp_checksum_at + 2] = fold(addresses + packet.tcp_sum)
    return rows


def write_handshakes(out: Path, packets: int | None, size: int | None) -> int:
    """Write rounds in order of time, cut after `packets` packets or `size` bytes; return how many packets."""
    samples = [(templates(name), share) for name, share in MIX]
    per_round = sum(share for _, share in MIX)
    round_packets = sum(len(sample) * share for sample, share in samples)
    round_bytes = sum(len(packet.frame) * share for sample, share in samples for packet in sample)
    rounds = -(-packets // round_packets) if packets else -(-(size or 0) // round_bytes)

    plan = []  # one row per packet of a sample: template, times, addresses
    slot = 0
    for sample, share in samples:
        start, client, server = replicas(share, slot, rounds, per_round)
        plan += [(packet, start + packet.after_ns, client, server) for packet in sample]
        slot += share
    times = np.concatenate([row[1] for row in plan])
    lengths = np.concatenate([np.full(len(row[1]), len(row[0].frame), np.int64) for row in plan])
    order = np.argsort(times, kind="stable")
    ends = np.cumsum(lengths[order])
    count = min(packets or len(order), len(order))
    if size:
        count = min(count, int(np.searchsorted(ends, size - len(PCAP_HEADER), side="right")))
    total = len(PCAP_HEADER) + int(ends[count - 1])
    offsets = np.empty(len(order), np.int64)
    offsets[order] = len(PCAP_HEADER) + ends - lengths[order]

    with out.open("wb") as file:
        file.write(PCAP_HEADER)
        file.truncate(total)
    image = np.memmap(out, np.uint8, "r+")
    at = 0
    for packet, time_ns, client, server in plan:
        where = offsets[at : at + len(time_ns)]
        at += len(time_ns)
        kept = where < total
        rows = stamp(packet, time_ns[kept], client[kept], server[kept])
        for place, row in zip(where[kept].tolist(), rows, strict=True):
            image[place : place + len(row)] = row
    image.flush()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    handshakes = kinds.add_parser("handshakes", help="many short connections")
    handshakes.add_argument("out", type=Path)
    handshakes.add_argument("--packets", type=int)
    handshakes.add_argument("--bytes", type=float)
    bulk = kinds.add_parser("bulk", help="few connections, much data")
    bulk.add_argument("out", type=Path)
    bulk.add_argument("--bytes", type=float, default=2e9)
    bulk.add_argument("--connections", type=int, default=4)
    arguments = parser.parse_args()
    size = int(arguments.bytes) if arguments.bytes else None
    if arguments.kind == "bulk":
        from bulk_transfer import write_bulk

        count = write_bulk(arguments.out, size or 0, arguments.connections)
    else:
        count = write_handshakes(arguments.out, arguments.packets or (None if size else 400_000), size)
    print(f"{arguments.out}: {count} packets, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
