"""One TCP segment in everything that can carry it, and what must not be taken for one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, GRE, GRE_PPTP, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether, GRErouting
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from analyzer.columns.schema import Kind
from analyzer.wire.linktypes import LinkType

PAYLOAD: Final = bytes.fromhex("160301000401000000")
SEGMENT: Final = TCP(
    sport=50123,
    dport=443,
    seq=0xFEDCBA98,
    ack=0x89ABCDEF,
    flags="PA",
    window=0xABCD,
    options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))],
) / Raw(PAYLOAD)
V4: Final = IP(src="192.0.2.1", dst="198.51.100.200", ttl=61, id=0xBEEF) / SEGMENT
V6: Final = IPv6(src="2001:db8::1", dst="2001:db8:ffff::abcd", hlim=62) / SEGMENT

MACS: Final = {"src": "00:1b:21:00:00:01", "dst": "00:0c:29:00:00:02"}
"""Of known vendors: tshark tells a pseudowire without control word from one with it by that."""
ETHER: Final = Ether(**MACS)
OUTER4: Final = IP(src="203.0.113.1", dst="203.0.113.2")
OUTER6: Final = IPv6(src="2001:db8:1::1", dst="2001:db8:2::2")
DATAGRAM: Final = UDP(sport=5353, dport=5000) / Raw(b"datagram")


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    data: bytes
    inner: Packet | None = None
    """What the columns describe: V4, V6 or SEGMENT-less packets; None where there is no IP."""
    kind: Kind = Kind.TCP
    linktype: int = LinkType.ETHERNET
    tshark_differs: str = ""
    """Why tshark says something else, where it does."""


def sll(ethertype: int, arphrd: int = 1) -> bytes:
    return struct.pack("!HHH8sH", 0, arphrd, 6, bytes(8), ethertype)


def sll2(ethertype: int, arphrd: int = 1) -> bytes:
    return struct.pack("!HHIHBB8s", ethertype, 0, 3, arphrd, 0, 6, bytes(8))


def vxlan(inner: Packet, port: int = 4789) -> Packet:
    return UDP(sport=40000, dport=port) / VXLAN(vni=7, flags=8) / inner


def pptp(inner: Packet, acknowledged: bool = True) -> Packet:
    ack = {"acknum_present": 1, "ack_number": 9} if acknowledged else {}
    return GRE_PPTP(seqnum_present=1, sequence_number=5, call_id=3, **ack) / inner


def _link() -> Iterator[Case]:
    yield Case("ethernet, IPv4", bytes(ETHER / V4), V4)
    yield Case("ethernet, IPv6", bytes(ETHER / V6), V6)
    yield Case("ethernet, padded to 60 bytes", bytes(ETHER / V4) + bytes(4), V4)
    yield Case("ethernet, ARP", bytes(ETHER / ARP()), None, Kind.OTHER)
    yield Case(
        "802.3 with LLC and SNAP", bytes(Dot3(**MACS) / LLC(ctrl=3) / SNAP(OUI=0, code=0x0800) / V4), V4
    )
    yield Case(
        "802.3 with LLC and SNAP, IPv6", bytes(Dot3(**MACS) / LLC(ctrl=3) / SNAP(OUI=0, code=0x86DD) / V6), V6
    )
    yield Case(
        "802.3 with LLC and SNAP, bridged",
        bytes(Dot3(**MACS) / LLC(ctrl=3) / SNAP(OUI=0xF8, code=0x0800) / V4),
        V4,
    )
    yield Case("802.3 with LLC, SAP of IP", bytes(Dot3(**MACS) / LLC(dsap=6, ssap=6, ctrl=3) / V4), V4)
    stp = bytes(Dot3(**MACS) / LLC(dsap=0x42, ssap=0x42, ctrl=3)) + bytes(35)
    yield Case("802.3 with spanning tree", stp, None, Kind.OTHER)
    yield Case("802.1Q", bytes(ETHER / Dot1Q(vlan=5) / V4), V4)
    yield Case("802.1Q, priority tag", bytes(ETHER / Dot1Q(vlan=0, prio=3) / V6), V6)
    yield Case("802.1ad", bytes(ETHER / Dot1AD(vlan=5) / Dot1Q(vlan=6) / V4), V4)
    yield Case(
        "QinQ, old Ethertype", bytes(Ether(type=0x9100, **MACS) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / V4), V4
    )
    yield Case(
        "seven VLAN tags",
        bytes(ETHER / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / V6),
        V6,
    )
    tagged = (
        Ether(type=0x8100, **MACS)
        / Dot1Q(vlan=9, type=len(V4) + 8)
        / LLC(ctrl=3)
        / SNAP(OUI=0, code=0x0800)
        / V4
    )
    yield Case("802.1Q with LLC and SNAP", bytes(tagged), V4)
    yield Case("SLL", sll(0x0800) + bytes(V4), V4, linktype=LinkType.LINUX_SLL)
    yield Case("SLL, VLAN", sll(0x8100) + bytes(Dot1Q(vlan=3) / V6), V6, linktype=LinkType.LINUX_SLL)
    yield Case("SLL, netlink", sll(0x0800, 824) + bytes(V4), None, Kind.OTHER, LinkType.LINUX_SLL)
    yield Case("SLL2", sll2(0x86DD) + bytes(V6), V6, linktype=LinkType.LINUX_SLL2)
    yield Case("SLL2, loopback", sll2(0x0800, 772) + bytes(V4), V4, linktype=LinkType.LINUX_SLL2)
    for linktype in (LinkType.RAW, LinkType.DLT_RAW, LinkType.DLT_RAW_OPENBSD):
        yield Case(f"{linktype.name}, IPv4", bytes(V4), V4, linktype=linktype)
        yield Case(f"{linktype.name}, IPv6", bytes(V6), V6, linktype=linktype)
    yield Case("LINKTYPE_IPV4", bytes(V4), V4, linktype=LinkType.IPV4)
    yield Case("LINKTYPE_IPV6", bytes(V6), V6, linktype=LinkType.IPV6)
    for order in "<>":
        yield Case(f"NULL {order}2", struct.pack(f"{order}I", 2) + bytes(V4), V4, linktype=LinkType.NULL)
        for family in (24, 28, 30):
            data = struct.pack(f"{order}I", family) + bytes(V6)
            yield Case(f"NULL {order}{family}", data, V6, linktype=LinkType.NULL)
        data = struct.pack(f"{order}I", 10) + bytes(V6)
        yield Case(f"NULL {order}10", data, V6, linktype=LinkType.NULL, tshark_differs="knows no Linux here")
    yield Case("LOOP 2", struct.pack(">I", 2) + bytes(V4), V4, linktype=LinkType.LOOP)
    yield Case("LOOP 24", struct.pack(">I", 24) + bytes(V6), V6, linktype=LinkType.LOOP)
    yield Case("PPP", bytes(PPP() / V4), V4, linktype=LinkType.PPP)
    yield Case("PPP, protocol compressed", b"\x57" + bytes(V6), V6, linktype=LinkType.PPP)
    yield Case("PPP, framed as HDLC", bytes(HDLC() / PPP() / V6), V6, linktype=LinkType.PPP)
    yield Case("PPP_HDLC", bytes(HDLC() / PPP() / V4), V4, linktype=LinkType.PPP_HDLC)
    yield Case("PPP_HDLC, LCP", b"\xff\x03\xc0\x21\x01\x01\x00\x04", None, Kind.OTHER, LinkType.PPP_HDLC)
    yield Case("PPP_HDLC, Cisco", b"\x0f\x00\x08\x00" + bytes(V4), V4, linktype=LinkType.PPP_HDLC)
    yield Case("C_HDLC", b"\x0f\x00\x86\xdd" + bytes(V6), V6, linktype=LinkType.C_HDLC)
    yield Case("PPPoE", bytes(ETHER / PPPoE(sessionid=7) / PPP() / V4), V4)
    yield Case("PPPoE, IPv6, padded", bytes(ETHER / PPPoE(sessionid=7) / PPP() / V6) + bytes(7), V6)
    yield Case(
        "PPPoE without Ethernet", bytes(PPPoE(sessionid=7) / PPP() / V4), V4, linktype=LinkType.PPP_ETHER
    )
    yield Case("a link type that is not decoded", bytes(V4), None, Kind.OTHER, LinkType.USER0)


def _mpls() -> Iterator[Case]:
    one, two = MPLS(label=100, s=1), MPLS(label=99, s=0) / MPLS(label=100, s=1)
    label = bytes(MPLS(label=100, s=1, ttl=9))
    head = bytes(Ether(type=0x8847, **MACS))
    yield Case("MPLS, IPv4", bytes(ETHER / one / V4), V4)
    yield Case("MPLS, two labels, IPv6", bytes(ETHER / two / V6), V6)
    yield Case("MPLS in PPP", b"\xff\x03\x02\x81" + label + bytes(V4), V4, linktype=LinkType.PPP_HDLC)
    yield Case("MPLS, pseudowire with control word", head + label + bytes(4) + bytes(ETHER / V4), V4)
    yield Case("MPLS, pseudowire without", head + label + bytes(ETHER / V4), V4)
    yield Case("MPLS, associated channel", head + label + b"\x10\x00\x00\x07" + bytes(20), None, Kind.OTHER)


def _ip() -> Iterator[Case]:
    options = IP(
        src="192.0.2.1", dst="198.51.100.200", ttl=61, id=0xBEEF, options=[IPOption_NOP(), IPOption_RR()]
    )
    yield Case("IPv4 options", bytes(ETHER / options / SEGMENT), options / SEGMENT)
    offload = IP(src="192.0.2.1", dst="198.51.100.200", ttl=61, id=0xBEEF, len=0) / SEGMENT
    yield Case("IPv4 length 0, before segmentation offload", bytes(ETHER / offload), V4)
    yield Case("IPv4 with AH", bytes(ETHER / _ah(V4)), V4)
    yield Case("IPv4, UDP", bytes(ETHER / OUTER4 / DATAGRAM), OUTER4 / DATAGRAM, Kind.UDP)
    yield Case("IPv6, UDP", bytes(ETHER / OUTER6 / DATAGRAM), OUTER6 / DATAGRAM, Kind.UDP)
    yield Case("IPv4, OSPF", bytes(ETHER / OUTER4.__class__(src="203.0.113.1", proto=89) / Raw(b"x" * 30)),
               IP(src="203.0.113.1", proto=89) / Raw(b"x" * 30), Kind.IP)  # fmt: skip
    esp = OUTER6 / ESP(spi=5, data=b"\x06" * 40)
    yield Case("IPv6, ESP", bytes(ETHER / esp), esp, Kind.IP)
    nothing = IPv6(src="2001:db8:1::1", dst="2001:db8:2::2", nh=59) / Raw(bytes(24))
    yield Case("IPv6, no next header", bytes(ETHER / nothing), nothing, Kind.IP)
    addresses = {"src": "2001:db8::1", "dst": "2001:db8:ffff::abcd", "hlim": 62}
    for name, headers in (
        ("hop-by-hop", IPv6ExtHdrHopByHop()),
        ("routing", IPv6ExtHdrRouting(addresses=["2001:db8::77"])),
        ("destination options", IPv6ExtHdrDestOpt()),
        ("atomic fragment", IPv6ExtHdrFragment(id=7)),
        ("AH", AH(nh=6, spi=1, seq=2, payloadlen=4, icv=bytes(12))),
        (
            "every extension header",
            IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrRouting(addresses=["2001:db8::77"])
            / IPv6ExtHdrFragment(id=7)
            / AH(spi=1, seq=2, payloadlen=4, icv=bytes(12))
            / IPv6ExtHdrDestOpt(),
        ),
    ):
        yield Case(f"IPv6 with {name}", bytes(ETHER / IPv6(**addresses) / headers / SEGMENT), V6)
    jumbo = (
        IPv6(**addresses, plen=0) / IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=len(SEGMENT) + 8)]) / SEGMENT
    )
    yield Case("a jumbogram that is none", bytes(ETHER / jumbo), None, Kind.MALFORMED)


def _ah(packet: Packet) -> Packet:
    head = packet.copy()
    del head.payload
    head.proto = 51
    return head / AH(nh=6, spi=1, seq=2, payloadlen=4, icv=bytes(12)) / SEGMENT


def _tunnels() -> Iterator[Case]:
    yield Case("IP in IP", bytes(ETHER / OUTER4 / V4), V4)
    yield Case("6in4", bytes(ETHER / OUTER4 / V6), V6)
    yield Case("4in6", bytes(ETHER / OUTER6 / V4), V4)
    yield Case("6in6", bytes(ETHER / OUTER6 / V6), V6)
    yield Case("EtherIP", bytes(ETHER / OUTER4.__class__(proto=97) / Raw(b"\x30\x00") / ETHER / V4), V4)
    yield Case("MPLS in IP", bytes(ETHER / OUTER4.__class__(proto=137) / Raw(bytes(MPLS(s=1))) / V4), V4)
    yield Case("GRE", bytes(ETHER / OUTER4 / GRE() / V4), V4)
    yield Case("GRE over IPv6", bytes(ETHER / OUTER6 / GRE(proto=0x86DD) / V6), V6)
    every = GRE(chksum_present=1, key_present=1, seqnum_present=1, key=9, sequence_number=1)
    yield Case("GRE with checksum, key, sequence number", bytes(ETHER / OUTER4 / every / V4), V4)
    routed = GRErouting(address_family=0x800, SRE_len=4, routing_info=b"\x01\x02\x03\x04") / GRErouting()
    yield Case(
        "GRE with routing",
        bytes(ETHER / OUTER4 / GRE(proto=0x0800, routing_present=1) / routed / Raw(bytes(V4))),
        V4,
    )
    yield Case(
        "GRE, transparent Ethernet bridging", bytes(ETHER / OUTER4 / GRE(proto=0x6558) / ETHER / V6), V6
    )
    yield Case("GRE, MPLS", bytes(ETHER / OUTER4 / GRE(proto=0x8847) / MPLS(s=1) / V4), V4)
    erspan2 = GRE(proto=0x88BE, seqnum_present=1, sequence_number=1) / Raw(
        b"\x10\x01\x00\x02\x00\x00\x00\x03"
    )
    yield Case("ERSPAN II", bytes(ETHER / OUTER4 / erspan2 / Raw(bytes(ETHER / V4))), V4)
    erspan3 = GRE(proto=0x22EB, seqnum_present=1, sequence_number=1) / Raw(b"\x20\x01\x00\x02" + bytes(8))
    yield Case("ERSPAN III", bytes(ETHER / OUTER4 / erspan3 / Raw(bytes(ETHER / V4))), V4)
    yield Case("PPTP", bytes(ETHER / OUTER4 / pptp(HDLC() / PPP() / V4)), V4)
    yield Case("PPTP, no acknowledgment", bytes(ETHER / OUTER4 / pptp(PPP() / V6, acknowledged=False)), V6)
    keepalive = OUTER4 / GRE(proto=0)
    yield Case("GRE keepalive", bytes(ETHER / keepalive), keepalive, Kind.IP)
    yield Case("VXLAN", bytes(ETHER / OUTER4 / vxlan(ETHER / V4)), V4)
    linux = bytes(ETHER / OUTER6 / vxlan(ETHER / Dot1Q(vlan=2) / V6, 8472))
    yield Case("VXLAN, Linux's own port", linux, V6, tshark_differs="knows the registered port only")
    arp = OUTER4 / vxlan(ETHER / ARP())
    yield Case("VXLAN with ARP stays UDP", bytes(ETHER / arp), arp, Kind.UDP)
    no_vxlan = OUTER4 / UDP(sport=53, dport=4789) / Raw(b"\x00" * 60)
    yield Case("a datagram that only uses VXLAN's port", bytes(ETHER / no_vxlan), no_vxlan, Kind.UDP)
    yield Case(
        "GENEVE",
        bytes(ETHER / OUTER4 / UDP(sport=40000, dport=6081) / GENEVE(vni=1, proto=0x6558) / ETHER / V4),
        V4,
    )
    options = GENEVE(vni=1, proto=0x86DD, options=bytes.fromhex("0102030101020304"))
    yield Case(
        "GENEVE with options, IPv6", bytes(ETHER / OUTER4 / UDP(sport=40000, dport=6081) / options / V6), V6
    )
    yield Case(
        "VXLAN in GRE in 6in4", bytes(ETHER / OUTER4 / OUTER6 / GRE() / OUTER4 / vxlan(ETHER / V4)), V4
    )
    nested = V4
    for _ in range(16):
        nested = OUTER4 / nested
    yield Case("sixteen times IP in IP", bytes(ETHER / nested), V4)


CASES: Final = (*_link(), *_mpls(), *_ip(), *_tunnels())
