"""Names that iptables takes for numbers: protocols, services, ICMP types, address types.

In:  nothing.
Out: tables; protocol_number.
Source: IANA protocol-numbers, service-names, icmp-parameters, icmpv6-parameters; iptables
    extensions/libipt_icmp.c, libip6t_icmp6.c, libxt_addrtype.c.

/etc/services and /etc/protocols are not asked: what a file means must not depend on the host that reads it.
"""

from __future__ import annotations

import re
from typing import Final

PROTOCOLS: Final = {
    "all": 0, "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "udp": 17, "dccp": 33, "ipv6": 41,
    "ipv6-route": 43, "ipv6-frag": 44, "gre": 47, "esp": 50, "ipsec-esp": 50, "ah": 51, "ipsec-ah": 51,
    "icmpv6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ospf": 89, "ipip": 94, "pim": 103,
    "ipcomp": 108, "vrrp": 112, "l2tp": 115, "sctp": 132, "mh": 135, "ipv6-mh": 135, "mobility-header": 135,
    "udplite": 136, "mpls-in-ip": 137,
}  # fmt: skip

SERVICES: Final = {
    "ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68,
    "tftp": 69, "http": 80, "pop3": 110, "sunrpc": 111, "auth": 113, "ntp": 123, "netbios-ns": 137,
    "netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143, "snmp": 161, "snmp-trap": 162, "bgp": 179,
    "ldap": 389, "https": 443, "microsoft-ds": 445, "submissions": 465, "isakmp": 500, "syslog": 514,
    "submission": 587, "ldaps": 636, "domain-s": 853, "imaps": 993, "pop3s": 995, "openvpn": 1194,
    "ms-sql-s": 1433, "nfs": 2049, "mysql": 3306, "ipsec-nat-t": 4500, "mdns": 5353, "postgresql": 5432,
    "http-alt": 8080,
}  # fmt: skip

_ANY: Final = (0, 255)

# Name -> type, and the codes that it stands for.
ICMP: Final[dict[str, tuple[int, tuple[int, int]]]] = {
    "any": (255, _ANY),
    "echo-reply": (0, _ANY),
    "pong": (0, _ANY),
    "destination-unreachable": (3, _ANY),
    "network-unreachable": (3, (0, 0)),
    "host-unreachable": (3, (1, 1)),
    "protocol-unreachable": (3, (2, 2)),
    "port-unreachable": (3, (3, 3)),
    "fragmentation-needed": (3, (4, 4)),
    "source-route-failed": (3, (5, 5)),
    "network-unknown": (3, (6, 6)),
    "host-unknown": (3, (7, 7)),
    "network-prohibited": (3, (9, 9)),
    "host-prohibited": (3, (10, 10)),
    "tos-network-unreachable": (3, (11, 11)),
    "tos-host-unreachable": (3, (12, 12)),
    "communication-prohibited": (3, (13, 13)),
    "host-precedence-violation": (3, (14, 14)),
    "precedence-cutoff": (3, (15, 15)),
    "source-quench": (4, _ANY),
    "redirect": (5, _ANY),
    "network-redirect": (5, (0, 0)),
    "host-redirect": (5, (1, 1)),
    "tos-network-redirect": (5, (2, 2)),
    "tos-host-redirect": (5, (3, 3)),
    "echo-request": (8, _ANY),
    "ping": (8, _ANY),
    "router-advertisement": (9, _ANY),
    "router-solicitation": (10, _ANY),
    "time-exceeded": (11, _ANY),
    "ttl-exceeded": (11, _ANY),
    "ttl-zero-during-transit": (11, (0, 0)),
    "ttl-zero-during-reassembly": (11, (1, 1)),
    "parameter-problem": (12, _ANY),
    "ip-header-bad": (12, (0, 0)),
    "required-option-missing": (12, (1, 1)),
    "timestamp-request": (13, _ANY),
    "timestamp-reply": (14, _ANY),
    "address-mask-request": (17, _ANY),
    "address-mask-reply": (18, _ANY),
}

ICMPV6: Final[dict[str, tuple[int, tuple[int, int]]]] = {
    "destination-unreachable": (1, _ANY),
    "no-route": (1, (0, 0)),
    "communication-prohibited": (1, (1, 1)),
    "beyond-scope": (1, (2, 2)),
    "address-unreachable": (1, (3, 3)),
    "port-unreachable": (1, (4, 4)),
    "failed-policy": (1, (5, 5)),
    "reject-route": (1, (6, 6)),
    "packet-too-big": (2, _ANY),
    "time-exceeded": (3, _ANY),
    "ttl-exceeded": (3, _ANY),
    "ttl-zero-during-transit": (3, (0, 0)),
    "ttl-zero-during-reassembly": (3, (1, 1)),
    "parameter-problem": (4, _ANY),
    "bad-header": (4, (0, 0)),
    "unknown-header-type": (4, (1, 1)),
    "unknown-option": (4, (2, 2)),
    "echo-request": (128, _ANY),
    "ping": (128, _ANY),
    "echo-reply": (129, _ANY),
    "pong": (129, _ANY),
    "router-solicitation": (133, _ANY),
    "router-advertisement": (134, _ANY),
    "neighbour-solicitation": (135, _ANY),
    "neighbor-solicitation": (135, _ANY),
    "neighbour-advertisement": (136, _ANY),
    "neighbor-advertisement": (136, _ANY),
    "redirect": (137, _ANY),
}

ADDRESS_TYPES: Final = frozenset(
    {
        "UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE",
        "PROHIBIT", "THROW", "NAT", "XRESOLVE",
    }
)  # fmt: skip


def protocol_number(text: str) -> int:
    """A protocol by name or number.

    Raises:
        ValueError: Neither.
    """
    if text.lower() in PROTOCOLS:
        return PROTOCOLS[text.lower()]
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > 255:
        raise ValueError(f"protocol {text[:40]!r} is not known")
    return int(text)
