"""The packet columns: what `decode` fills in for each packet of a block.

One row per column: name, dtype, unit, meaning. The decoder, the pandas frame, the documentation and the tests
read these rows, so that a column is described once.

Every offset lies within the packet (or the datagram that it completed), and network <= transport <= payload,
whatever the kind; a header that a packet lacks has the offset of the one before it, or of the packet. Numbers
that were not in the packet are 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class Kind(IntEnum):
    """What the decoder made of a packet (column `kind`)."""

    OTHER = 0
    """No IP in it (ARP, LLDP), or a link type or encapsulation that is not decoded."""
    MALFORMED = 1
    """Cut before the end of a header that was needed, or a header that contradicts itself."""
    FRAGMENT = 2
    """An IP fragment that did not complete its datagram; the payload columns are those of its data."""
    IP = 3
    """IP with a transport that is neither TCP nor UDP; the payload columns are those of what IP carries."""
    UDP = 4
    TCP = 5


class Column(NamedTuple):
    name: str
    dtype: str
    unit: str
    meaning: str


# fmt: off
PACKETS: Final = (
    Column("packet",            "i8", "",      "number of the packet in the capture, as in Wireshark from 1"),
    Column("time_ns",           "i8", "ns",    "capture time since the epoch"),
    Column("kind",              "u1", "",      "Kind: what the decoder made of it"),
    Column("captured",          "i4", "bytes", "bytes of the packet in the file"),
    Column("wire",              "i4", "bytes", "bytes of the packet on the wire"),
    Column("ip_version",        "u1", "",      "4 or 6 of the innermost IP header, 0 without"),
    Column("src_hi",            "u8", "",      "source address, upper half; IPv4 as ::ffff:a.b.c.d"),
    Column("src_lo",            "u8", "",      "source address, lower half"),
    Column("dst_hi",            "u8", "",      "destination address, upper half"),
    Column("dst_lo",            "u8", "",      "destination address, lower half"),
    Column("ttl",               "u1", "hops",  "IPv4 time to live, IPv6 hop limit"),
    Column("ip_id",             "u4", "",      "IPv4 identification, 0 for IPv6"),
    Column("sport",             "u2", "",      "source port"),
    Column("dport",             "u2", "",      "destination port"),
    Column("seq",               "u4", "",      "TCP sequence number"),
    Column("ack",               "u4", "",      "TCP acknowledgment number"),
    Column("flags",             "u2", "",      "FIN 1 SYN 2 RST 4 PSH 8 ACK 16 URG 32 ECE 64 CWR 128 NS 256"),
    Column("window",            "u2", "",      "TCP window as in the header, not scaled"),
    Column("network_offset",    "i8", "bytes", "innermost IP header: offset in the block's buffer"),
    Column("transport_offset",  "i8", "bytes", "TCP or UDP header: offset in the block's buffer"),
    Column("payload_offset",    "i8", "bytes", "transport payload: offset in the block's buffer"),
    Column("payload_captured",  "i4", "bytes", "transport payload that is in the file"),
    Column("payload_length",    "i4", "bytes", "transport payload by the IP length, without link padding"),
)
# fmt: on
