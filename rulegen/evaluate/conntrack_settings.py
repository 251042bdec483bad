"""What an administrator can set of Linux's connection tracking and reassembly, as values.

In:  nothing.
Out: Settings with the kernel's defaults; TESTBED, what the testbed sets.
Source: Linux Documentation/networking/nf_conntrack-sysctl.rst, ip-sysctl.rst; measured with sysctl on 6.18.

Times are seconds, as the sysctls have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class TcpState(IntEnum):
    """Of a TCP connection as the tracker sees it; the kernel's numbers.

    Source: Linux include/uapi/linux/netfilter/nf_conntrack_tcp.h enum tcp_conntrack.
    """

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9
    REFUSED = 10
    """No state, but what the table has for segments that are invalid."""
    IGNORED = 11
    """No state: the segment passes, and nothing is believed of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The defaults are those of a kernel that nobody has configured."""

    checksum: bool = True
    """A wrong checksum of TCP, UDP or ICMP makes a packet invalid."""
    tcp_loose: bool = True
    """A connection may be picked up in its middle."""
    tcp_be_liberal: bool = False
    """Only a RST out of window is invalid."""
    tcp_ignore_invalid_rst: bool = False
    tcp_max_retrans: int = 3
    tcp_timeouts: tuple[int, ...] = (120, 120, 60, 432000, 120, 60, 30, 120, 10, 120)
    """By TcpState; the first is not used."""
    tcp_timeout_max_retrans: int = 300
    tcp_timeout_unacknowledged: int = 300
    udp_timeout: int = 30
    udp_timeout_stream: int = 120
    gre_timeout: int = 30
    gre_timeout_stream: int = 180
    icmp_timeout: int = 30
    generic_timeout: int = 600
    max_entries: int = 262_144
    """nf_conntrack_max, on a machine with more than 4 GiB; 0: no limit."""
    ipv4_fragment_timeout: int = 30
    ipv6_fragment_timeout: int = 60
    fragment_memory: int = 4 << 20
    """Bytes that fragments may occupy while they wait, for each of IPv4 and IPv6 (high_thresh)."""
    ipv4_fragment_distance: int = 64
    """ipfrag_max_dist: so many other fragments of a sender may come between two of one datagram; 0: any."""


TESTBED: Final = Settings(checksum=False, tcp_be_liberal=True)
"""As rulegen.testbed.netns sets it: captures miss packets and have been through checksum offloading."""
