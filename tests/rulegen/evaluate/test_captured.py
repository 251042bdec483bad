"""Where the packets of a capture are that a firewall's rules see, whatever link carries them."""

from __future__ import annotations

import struct

import pytest

from rulegen.evaluate.captured import blocks
from rulegen.testbed.packets import Segment, ipv4

IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
MACS = bytes(12)


def segment(source="192.0.2.1", destination="198.51.100.7", payload=b"hello", **changes) -> bytes:
    return Segment(
        source=source,
        destination=destination,
        source_port=40000,
        destination_port=443,
        payload=payload,
        **changes,
    ).packet()


PACKET = segment()
PACKET6 = segment("2001:db8::1", "2001:db8::2")


@pytest.fixture
def read(tmp_path):
    def make(*frames: bytes | tuple[bytes, int], linktype: int = 1):
        """The only block; frames, or frames with their length on the wire."""
        stored = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, linktype)
        for number, frame in enumerate(frames):
            data, wire = frame if isinstance(frame, tuple) else (frame, len(frame))
            stored += struct.pack("<IIII", 1_700_000_000, number, len(data), wire) + data
        path = tmp_path / "some.pcap"
        path.write_bytes(stored)
        (block,) = blocks(str(path))
        return block

    return make


@pytest.mark.parametrize(
    ("linktype", "head"),
    [
        pytest.param(1, MACS, id="Ethernet"),
        pytest.param(1, MACS + b"\x81\x00\x00\x05", id="VLAN tag"),
        pytest.param(1, MACS + b"\x88\xa8\x00\x05\x81\x00\x00\x07", id="two VLAN tags"),
        pytest.param(113, bytes(14), id="cooked"),
        pytest.param(276, b"", id="cooked 2"),
    ],
)
@pytest.mark.parametrize("packet", [PACKET, PACKET6], ids=["IPv4", "IPv6"])
def test_the_link_header_is_stripped(read, linktype, head, packet):
    named = IPV4 if packet is PACKET else IPV6
    frame = head + named + (bytes(18) if linktype == 276 else b"") + packet
    ((row, found),) = read(frame, linktype=linktype).packets()
    assert (row, found.number, found.data, found.captured) == (0, 1, packet, len(packet))
    assert found.time_ns == 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    ("linktype", "head"),
    [
        pytest.param(101, b"", id="raw"),
        pytest.param(228, b"", id="raw IPv4"),
        pytest.param(0, b"\x02\0\0\0", id="loopback"),
        pytest.param(9, b"\xff\x03\x00\x21", id="PPP"),
        pytest.param(1, MACS + b"\x88\x64\x11\0\0\x01\0\x2f\x00\x21", id="PPPoE"),
        pytest.param(1, MACS + b"\x88\x47" + b"\0\1\0\x40" + b"\0\2\1\x40", id="two MPLS labels"),
    ],
)
def test_links_without_an_ethertype_are_stripped_too(read, linktype, head):
    assert [found.data for _, found in read(head + PACKET, linktype=linktype).packets()] == [PACKET]


def test_a_tunnel_is_not_stripped_since_rules_see_what_carries_it(read):
    outer = bytearray(ipv4(b"\x0a\0\0\1", b"\x0a\0\0\2", PACKET))
    outer[9] = 4  # IP in IP
    assert [found.data for _, found in read(MACS + IPV4 + outer).packets()] == [bytes(outer)]


def test_padding_is_cut_off_and_what_the_capture_lacks_is_told(read):
    padded = MACS + IPV4 + PACKET + b"\xee" * 9
    cut = (MACS + IPV4 + PACKET[:42], len(MACS + IPV4 + PACKET))
    found = [one for _, one in read(padded, cut).packets()]
    assert [one.data for one in found] == [PACKET, PACKET[:42] + bytes(len(PACKET) - 42)]
    assert [one.captured for one in found] == [len(PACKET), 42]


def test_a_length_that_the_card_wrote_later_is_put_in(read):
    unwritten = PACKET[:2] + b"\0\0" + PACKET[4:]
    unwritten6 = PACKET6[:4] + b"\0\0" + PACKET6[6:]
    found = read(MACS + IPV4 + unwritten, MACS + IPV6 + unwritten6)
    assert [one.data for _, one in found.packets()] == [PACKET, PACKET6]


def test_frames_without_ip_and_packets_that_no_host_takes_have_no_length(read):
    arp = MACS + b"\x08\x06" + bytes(46)
    too_long = MACS + IPV4 + PACKET[:2] + b"\xff\xff" + PACKET[4:]
    no_header = MACS + IPV4 + b"\x44" + PACKET[1:]
    block = read(arp, too_long, no_header, MACS + IPV4 + PACKET)
    assert block.start.tolist()[0] == -1
    assert block.length.tolist() == [0, 0, 0, len(PACKET)]
    assert [row for row, _ in block.packets()] == [3]
