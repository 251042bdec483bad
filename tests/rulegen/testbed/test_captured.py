"""Packets of a capture as the kernel takes them: what goes, what is put right, what can't be sent."""

from __future__ import annotations

import struct

import pytest

from analyzer.model import Side
from rulegen.testbed.captured import packets_of
from rulegen.testbed.packets import ACK, SYN, Segment, fragments, repaired

CLIENT, SERVER = "192.0.2.1", "192.0.2.2"
ETHERNET = bytes(12) + b"\x08\x00"
ETHERNET_6 = bytes(12) + b"\x86\xdd"


def segment(source=CLIENT, destination=SERVER, **changes) -> bytes:
    values = {"source_port": 40000, "destination_port": 443, "payload": b"hello", **changes}
    return Segment(source=source, destination=destination, **values).packet()


@pytest.fixture
def read(tmp_path):
    def make(*frames: bytes | tuple[bytes, int], linktype: int = 1) -> list:
        """Frames, or frames with their length on the wire."""
        records = b""
        for number, frame in enumerate(frames):
            data, wire = frame if isinstance(frame, tuple) else (frame, len(frame))
            records += struct.pack("<IIII", 1_700_000_000, number, len(data), wire) + data
        path = tmp_path / "c.pcap"
        path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, linktype) + records)
        return list(packets_of(path))

    return make


def test_numbers_times_and_bytes(read):
    first, second = read(ETHERNET + segment(), ETHERNET_6 + segment("2001:db8::1", "2001:db8::2"))
    assert (first.number, second.number) == (1, 2)
    assert (first.time_ns, second.time_ns) == (1_700_000_000_000_000_000, 1_700_000_000_000_001_000)
    assert (first.data, second.data) == (segment(), segment("2001:db8::1", "2001:db8::2"))
    assert (first.captured, first.why) == (len(first.data), None)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(bytes(12) + b"\x81\x00\x00\x05\x08\x00" + segment(), id="VLAN"),
        pytest.param(ETHERNET + segment() + b"\xff" * 9, id="padding"),
        pytest.param(bytes(12) + b"\x88\x64\x11\x00\0\1\0\x60\x00\x21" + segment(), id="PPPoE"),
        pytest.param(ETHERNET + segment()[:10] + b"\0\0" + segment()[12:], id="checksum left to the card"),
    ],
)
def test_what_is_around_it_goes(read, frame):
    (one,) = read(frame)
    assert (one.data, one.why) == (segment(), None)


def test_tunnels_are_opened(read):
    inner = segment("2001:db8::1", "2001:db8::2")
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), 1, 0, 64, 41, 0) + bytes(8)
    (one,) = read(ETHERNET + outer + inner)
    assert one.data == inner


def test_segmentation_offload_leaves_the_length_empty(read):
    whole = segment(payload=bytes(9000))
    (one,) = read(ETHERNET + whole[:2] + b"\0\0" + whole[4:])
    assert (one.data, one.why) == (whole, None)
    six = segment("2001:db8::1", "2001:db8::2", payload=bytes(9000))
    (one,) = read(ETHERNET_6 + six[:4] + b"\0\0" + six[6:])
    assert (one.data, one.why) == (six, None)


def test_what_the_capture_cut_off_is_zeros(read):
    whole = segment(payload=b"x" * 100)
    cut = ETHERNET + whole[:70]
    (one,) = read((cut, len(ETHERNET) + len(whole)))
    assert (one.data, one.captured) == (whole[:70] + bytes(70), 70)
    header = ETHERNET + whole[:30]
    (one,) = read((header, len(ETHERNET) + len(whole)))
    assert (one.captured, len(one.data), one.why) == (30, 140, None)


def test_fragments_stay_fragments(read):
    pieces = fragments(segment(payload=bytes(100)), 64)
    assert [one.data for one in read(*(ETHERNET + piece for piece in pieces))] == pieces


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (bytes(12) + b"\x08\x06" + bytes(28), "no IP"),
        (ETHERNET + segment()[:15], "cut"),
        (ETHERNET + b"\x44" + segment()[1:], "contradicts"),
        (ETHERNET + segment()[:2] + b"\x01\x00" + segment()[4:], "contradicts its length"),
        (ETHERNET + segment()[:2] + b"\0\0" + segment()[4:] + bytes(70_000), "65535 bytes"),
        (ETHERNET_6 + struct.pack("!IHBB", 6 << 28, 0, 0, 64) + bytes(32) + bytes(70_000), "65535 bytes"),
        (ETHERNET_6 + struct.pack("!IHBB", 6 << 28, 65535, 6, 64) + bytes(32) + bytes(65535), "65535 bytes"),
    ],
)
def test_what_can_not_be_sent_says_why(read, frame, why):
    (one,) = read(frame)
    assert why in one.why
    assert (one.data, one.captured) == (b"", 0)


def test_bad_tcp_is_sent_all_the_same(read):
    bad = segment()[:32] + b"\x00" + segment()[33:]
    (one,) = read(ETHERNET + bad)
    assert (one.data, one.why) == (bad, None)


def test_who_speaks_first_is_the_client(read):
    there, back = segment(), segment(SERVER, CLIENT, source_port=443, destination_port=40000)
    sides = [one.side for one in read(ETHERNET + there, ETHERNET + back, ETHERNET + there)]
    assert sides == [Side.CLIENT, Side.SERVER, Side.CLIENT]


def test_who_answers_a_syn_is_the_server(read):
    answer = segment(SERVER, CLIENT, flags=SYN | ACK)
    sides = [one.side for one in read(ETHERNET + answer, ETHERNET + segment())]
    assert sides == [Side.SERVER, Side.CLIENT]


def test_sides_go_by_addresses_so_that_fragments_have_one(read):
    first, second = fragments(segment(SERVER, CLIENT, payload=bytes(100)), 64)
    sides = [one.side for one in read(ETHERNET + segment(), ETHERNET + second, ETHERNET + first)]
    assert sides == [Side.CLIENT, Side.SERVER, Side.SERVER]


def test_repairing_changes_nothing_else(read):
    (one,) = read(ETHERNET + segment(ip_options=b"\x94\x04\0\0"))
    assert one.data == repaired(segment(ip_options=b"\x94\x04\0\0"))
