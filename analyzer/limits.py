"""Every cap and time-out, each with the precedent or the reason for its value."""

from __future__ import annotations

from typing import Final

# --- capture ----------------------------------------------------------------------------------------------

BLOCK_BYTES: Final = 4 << 20
"""Bytes of the capture file in a block: measured best between 2 and 32 MiB (a block's payload stays in
cache)."""

TIDY_BYTES: Final = 8 << 20
"""Bytes of the (decompressed) capture after which time-outs are looked at."""

HEADROOM_BYTES: Final = 32 << 20
"""Room in front of a block for bytes kept from earlier blocks and for reassembled IP datagrams. Untouched
pages cost nothing."""

MAX_PACKET_BYTES: Final = 262_144
"""Largest captured packet: libpcap's MAXIMUM_SNAPLEN (pcap-int.h), the value that Wireshark uses too."""

# --- IP fragments -----------------------------------------------------------------------------------------

FRAGMENT_TIMEOUT_NS: Final = 30_000_000_000
"""Linux net.ipv4.ipfrag_time: 30 s."""

FRAGMENT_BYTES: Final = 4 << 20
"""Linux net.ipv4.ipfrag_high_thresh: 4 MiB of fragments kept at a time."""

# --- connections ------------------------------------------------------------------------------------------

CLOSED_TIMEOUT_NS: Final = 120_000_000_000
"""Linux nf_conntrack_tcp_timeout_time_wait: 120 s after the last packet of a closed connection it is
reported."""

IDLE_TIMEOUT_NS: Final = 432_000_000_000_000
"""Linux nf_conntrack_tcp_timeout_established: 5 days."""

CLOSED_CONNECTIONS: Final = 16_384
"""Closed connections that wait for late segments; the oldest go first. At 10,000 new connections a second
that is over a second."""

OPEN_CONNECTIONS: Final = 262_144
"""Linux nf_conntrack_max on a machine of 16 GiB and more. Past it the closed and the longest idle are
reported early."""

LATE_SYN_BYTES: Final = 65_536
"""A SYN this close before the first bytes seen of its direction belongs to them: a window without scaling
(RFC 9293 3.1). A new connection's sequence number lies beyond the old one's (RFC 6528), or there by a chance
of 2^-16."""

SYSTEM_PORTS: Final = 1024
"""Ports below are servers' (RFC 6335 6)."""

EPHEMERAL_PORTS: Final = 32_768
"""Linux net.ipv4.ip_local_port_range: clients' ports begin here; those of RFC 6335 6 lie within."""

# --- reassembly -------------------------------------------------------------------------------------------

HELD_SEGMENTS_PER_STREAM: Final = 4096
"""Out-of-order segments of one direction: 6 MB at 1460 bytes, Linux's default tcp_rmem maximum."""

HELD_SEGMENTS: Final = 65_536
"""Held segments of all connections."""

HELD_BYTES: Final = 16 << 20
"""Payload of all held segments; half of HEADROOM_BYTES, where it is kept between blocks."""

HELD_PATIENCE_PACKETS: Final = 64
"""Packets of a connection to wait for bytes that were acknowledged but not seen: taps and multi-queue
capture reorder by tens."""

HELD_NS: Final = 30_000_000_000
"""A retransmission after 30 s without another packet would follow five doublings of the 1 s RTO (RFC
6298)."""

HELD_CROWDED_NS: Final = 2_000_000_000
"""The same when half of the room is used."""

FIRST_FLIGHT_BYTES: Final = 14_600
"""RFC 6928 2, initial window: in a capture that begins within a connection, the first packet seen of a
direction may stand this far behind the byte that its peer waits for; what is between is then waited for."""

# --- records ----------------------------------------------------------------------------------------------

RECORD_ROWS: Final = 1 << 18
"""Record rows given at a time; a largest packet of one-byte pieces fits in it."""

PRELUDE_BYTES: Final = 16_384
"""First bytes of a stream in which a ClientHello is looked for behind other bytes of its segment. At the
start of a segment one is found anywhere."""

LOW_RUN_BYTES: Final = 128
"""nf_conntrack_tls, suspicious_sequence_length: a run of more bytes below 0x80 is reported. By chance:
2^-129 a byte."""

TEXT_MIN_BYTES: Final = 64
"""Shortest body judged for printable text (catalogue RL12)."""

ENTROPY_MIN_BYTES: Final = 160
"""Shortest body judged by its entropy (catalogue RL12, correction): 6.5 bits a byte from 192 bytes on, 6.3
below, both seven standard deviations under the mean of random bytes (simulated, 20,000 bodies a length)."""

ENTROPY_MAX_BYTES: Final = 512
"""Bytes of a body that are judged: more make neither verdict surer."""

# --- messages and events ----------------------------------------------------------------------------------

HELLO_BYTES: Final = 1 << 16
"""Largest hello that is kept until it is whole; post-quantum hellos have about 2 KB, a record holds 16 KB."""

HELLO_BYTES_ALL: Final = 32 << 20
"""Unfinished hellos of all connections; what comes on top is not parsed."""

HEARTBEATS_OUTSTANDING: Final = 64
"""Unanswered heartbeats that are paired; RFC 6520 3 allows one."""

HEARTBEAT_ANSWER_NS: Final = 30_000_000_000
"""An answer that comes later is taken for something else; as HELD_NS, five doublings of TCP's 1 s
retransmission time-out."""

HEARTBEATS_KEPT: Final = 64
"""Heartbeats of a connection whose rows are kept, and as many on top of those that ask for too much or are
answered with too much."""

EVENTS_PER_CONNECTION: Final = 512
"""Events of a connection that are kept; what comes on top is counted."""

FINDING_PACKETS: Final = 100
"""Packets that a finding names; evidence["packet_count"] has their number."""

RETIRED_AT_ONCE: Final = 4096
"""Connections that are judged together: large enough for columns, small enough for memory."""

# --- tables -----------------------------------------------------------------------------------------------

CONNECTION_ROW_BYTES: Final = 1800
"""About what a finished connection takes in memory, its texts included; measured."""

SPILL_BYTES: Final = 24 << 20
"""Finished connections that wait in memory before they go to an Arrow file: about 14,000."""

SPILL_FINDINGS: Final = 12_000
"""Findings that wait in memory, likewise: about 20 MB."""

CERTIFICATES_PER_MESSAGE: Final = 100
"""Certificates of one message that are kept; chains have two to four."""
