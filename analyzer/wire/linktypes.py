"""LINKTYPE_ values of captures: their names, and which of them are decoded.

In:  nothing; these are facts.
Out: LinkType, SUPPORTED, name_of().
Source: tcpdump.org/linktypes.html 2024-12; DLT_ values that old files hold instead: libpcap pcap/bpf.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class LinkType(IntEnum):
    """The link types that are decoded, and the others that a user is likely to meet."""

    NULL = 0
    ETHERNET = 1
    AX25 = 3
    IEEE802_5 = 6
    ARCNET_BSD = 7
    SLIP = 8
    PPP = 9
    FDDI = 10
    DLT_RAW = 12
    """DLT_RAW of most systems, in files that were not written by libpcap."""
    DLT_RAW_OPENBSD = 14
    PPP_HDLC = 50
    PPP_ETHER = 51
    ATM_RFC1483 = 100
    RAW = 101
    C_HDLC = 104
    IEEE802_11 = 105
    FRELAY = 107
    LOOP = 108
    LINUX_SLL = 113
    LTALK = 114
    PFLOG = 117
    IEEE802_11_PRISM = 119
    IP_OVER_FC = 122
    SUNATM = 123
    IEEE802_11_RADIOTAP = 127
    APPLE_IP_OVER_IEEE1394 = 138
    USER0 = 147
    USER15 = 162
    IEEE802_11_AVS = 163
    PPP_WITH_DIR = 166
    BLUETOOTH_HCI_H4 = 187
    USB_LINUX = 189
    PPI = 192
    IEEE802_15_4_WITHFCS = 195
    ERF = 197
    BLUETOOTH_HCI_H4_WITH_PHDR = 201
    CAN_SOCKETCAN = 227
    IPV4 = 228
    IPV6 = 229
    IEEE802_15_4_NOFCS = 230
    DBUS = 231
    NFLOG = 239
    USBPCAP = 249
    WIRESHARK_UPPER_PDU = 252
    NETLINK = 253
    BLUETOOTH_LE_LL = 251
    LINUX_SLL2 = 276


SUPPORTED: Final = frozenset(
    {
        LinkType.NULL,
        LinkType.ETHERNET,
        LinkType.PPP,
        LinkType.DLT_RAW,
        LinkType.DLT_RAW_OPENBSD,
        LinkType.PPP_HDLC,
        LinkType.PPP_ETHER,
        LinkType.RAW,
        LinkType.C_HDLC,
        LinkType.LOOP,
        LinkType.LINUX_SLL,
        LinkType.IPV4,
        LinkType.IPV6,
        LinkType.LINUX_SLL2,
    }
)
"""What columns.decode looks into; packets of any other link type are Kind.OTHER."""


def name_of(linktype: int) -> str:
    """The name of a link type, for messages.

    >>> name_of(127)
    'IEEE802_11_RADIOTAP'
    >>> name_of(4000)
    'unknown'
    """
    try:
        return LinkType(linktype).name
    except ValueError:
        return "unknown"
