"""A second opinion: what tshark and scapy read in the same capture.

    tshark.py        TLS connections and messages by tshark; the dissection of a packet by pyshark
    scapy_fields.py  packet fields by scapy
    connections.py, messages.py, packets.py
                     what differs, and why where that is known

>>> from analyzer.crosscheck import compare
>>> compare("samples/captures/tls1.2.pcap")
[]
"""

from __future__ import annotations

from pathlib import Path

from analyzer.crosscheck.difference import Difference
from analyzer.errors import CaptureError

__all__ = ["Difference", "compare"]


def compare(path: str | Path) -> list[Difference]:
    """Compare our packets with scapy's, our TLS connections and messages with tshark's.

    Everything is read several times and kept in memory: for captures of up to some hundred thousand packets.

    Raises:
        TsharkMissing: There is no tshark.
        CaptureError: We or tshark can't read the file; where scapy can't, that is a difference.
    """
    from analyzer.analysis import Analysis
    from analyzer.crosscheck.connections import compare_connections
    from analyzer.crosscheck.messages import compare_messages, our_messages
    from analyzer.crosscheck.packets import compare_packets
    from analyzer.crosscheck.scapy_fields import packet_columns_from_blocks, packet_columns_from_scapy
    from analyzer.crosscheck.tshark import tls_connections
    from analyzer.pipeline import Engine, analyze

    if str(path) == "-":
        raise CaptureError("-", 0, "a comparison reads the capture several times, so it must be a file")
    streams = tls_connections(path)
    engine = Engine(Analysis(), 0)
    packets = packet_columns_from_blocks(columns for _, columns in engine.blocks(str(path), lambda _: None))
    analysis = analyze(path, tables=["messages"])
    rows = list(analysis.iter_connections())
    try:
        differences = compare_packets(packets, packet_columns_from_scapy(path))
    except CaptureError as error:
        differences = [
            Difference(
                where="capture",
                field="packets",
                ours=len(packets["packet"]),
                theirs=None,
                opinion="scapy",
                explanation=f"{error.why}; the packets were not compared",
            )
        ]
    return [
        *differences,
        *compare_connections(rows, streams),
        *compare_messages(our_messages(analysis.messages), rows, streams),
    ]
