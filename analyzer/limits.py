"""Every cap and time-out, each with the precedent or the reason for its value."""

from __future__ import annotations

from typing import Final

# --- capture -------------------------------------------------------------------------------------------------

BLOCK_BYTES: Final = 8 << 20
"""Bytes of the capture file in a block: measured best between 2 and 32 MiB (a block's payload stays in cache)."""

HEADROOM_BYTES: Final = 32 << 20
"""Room in front of a block for bytes kept from earlier blocks and for reassembled IP datagrams. Untouched pages cost nothing."""

MAX_PACKET_BYTES: Final = 262_144
"""Largest captured packet: libpcap's MAXIMUM_SNAPLEN (pcap-int.h), the value that Wireshark uses too."""

# --- IP fragments --------------------------------------------------------------------------------------------

FRAGMENT_TIMEOUT_NS: Final = 30_000_000_000
"""Linux net.ipv4.ipfrag_time: 30 s."""

FRAGMENT_BYTES: Final = 4 << 20
"""Linux net.ipv4.ipfrag_high_thresh: 4 MiB of fragments kept at a time."""
