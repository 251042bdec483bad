"""scapy, which shares no offset with the decoder, reads the same packet fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, fragment
from scapy.packet import Raw
from scapy.utils import PcapWriter

from analyzer.capture.source import open_capture
from analyzer.columns.decode import decode
from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind
from analyzer.crosscheck.scapy_fields import COLUMNS, packet_columns_from_blocks, packet_columns_from_scapy
from analyzer.errors import CaptureError
from tests.analyzer.columns.encapsulations import CASES, ETHER
from tests.analyzer.columns.tshark import write_pcapng

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*/*.pcap"))

SCAPY_DIFFERS = {
    "802.3 with LLC, SAP of IP": "has no opinion",
    "QinQ, old Ethertype": "has no opinion",
    "SLL, netlink": "takes the netlink family for an Ethertype",
    "IPv4 with AH": "stops at AH",
    "IPv6 with AH": "stops at AH",
    "IPv6 with every extension header": "stops at AH",
    "a jumbogram that is none": "believes any jumbo length",
    "GRE with routing": "stops at the routing",
    "DLT_RAW_OPENBSD, IPv4": "has no opinion",
    "DLT_RAW_OPENBSD, IPv6": "has no opinion",
    "C_HDLC": "has no opinion",
    "PPP_HDLC, Cisco": "has no opinion",
    "MPLS in PPP": "has no opinion",
    **{f"NULL {order}{family}": "knows only IPv4 there" for order in "<>" for family in (24, 28, 30)},
    "NULL >10": "knows only the capturing host's byte order",
    "LOOP 24": "knows only IPv4 there",
}


def decoded(path: Path) -> Iterator[Columns]:
    with open_capture(path) as reader:
        for raw in reader:
            yield decode(raw.buffer, raw.offset, raw.captured, raw.wire, raw.time_ns, raw.linktype, raw.first)


def rows(table: dict[str, list[Any]]) -> list[tuple[Any, ...]]:
    assert tuple(table) == COLUMNS
    return list(zip(*table.values(), strict=True))


def agree(theirs: tuple[Any, ...], ours: tuple[Any, ...]) -> bool:
    """Without an opinion of scapy's, ours must be that there is nothing to know."""
    return theirs == ours or (theirs[1] is None and ours[1] is Kind.OTHER)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_field_of_every_sample(path: Path) -> None:
    theirs, ours = rows(packet_columns_from_scapy(path)), rows(packet_columns_from_blocks(decoded(path)))
    assert all(agree(*pair) for pair in zip(theirs, ours, strict=True))


def test_every_encapsulation(tmp_path: Path) -> None:
    capture = tmp_path / "encapsulations.pcapng"
    write_pcapng(capture, [(case.linktype, case.data) for case in CASES])
    pairs = zip(
        CASES,
        rows(packet_columns_from_scapy(capture)),
        rows(packet_columns_from_blocks(decoded(capture))),
        strict=True,
    )
    assert {case.name for case, *pair in pairs if not agree(*pair)} == set(SCAPY_DIFFERS)


def test_damage_and_snaplen(tmp_path: Path) -> None:
    capture = tmp_path / "damaged.pcap"
    whole = ETHER / IP(src="192.0.2.1", dst="198.51.100.2") / TCP() / Raw(bytes(200))
    writer = PcapWriter(str(capture), linktype=1)
    writer.write(whole)
    writer.write(bytes(whole)[:100])
    for packet in fragment(whole, fragsize=96):
        writer.write(packet)
    writer.write(ETHER / IP() / TCP(dataofs=15))
    writer.write(ETHER / IP(len=60) / TCP() / Raw(bytes(200)))
    writer.write(ETHER / IP(len=0) / TCP() / Raw(bytes(200)))
    writer.close()
    theirs = packet_columns_from_scapy(capture)
    assert rows(theirs) == rows(packet_columns_from_blocks(decoded(capture)))
    assert set(theirs["kind"]) == {Kind.TCP, Kind.FRAGMENT, Kind.MALFORMED}


def test_no_packets(tmp_path: Path) -> None:
    assert packet_columns_from_blocks([]) == {name: [] for name in COLUMNS}


def test_what_scapy_cannot_read_is_a_capture_error(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no capture at all, but a few words that are longer than a header")
    with pytest.raises(CaptureError, match="scapy stopped behind packet 0"):
        packet_columns_from_scapy(text)
    with pytest.raises(CaptureError):
        packet_columns_from_scapy(tmp_path / "missing.pcap")
