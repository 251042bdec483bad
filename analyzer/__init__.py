"""Offline analysis of TLS in packet captures.

    capture -> columns -> flows -> streams -> tls records -> tls events -> findings
    analyzer/pipeline.py, top to bottom

    wire/      facts: headers, fields, link types, IANA registries
    capture/   file -> blocks of raw packets
    columns/   raw packets -> packet columns
    flows/     packets -> TCP connections
    streams/   segments -> ordered bytes of each direction
    tls/       bytes -> records -> messages -> events; state.py holds the machines as tables
    detect/    events and connections -> findings
    report/    findings and connections -> terminal, JSON
    crosscheck/  the same facts from tshark and scapy

>>> import analyzer
>>> analysis = analyzer.analyze("samples/captures/tls1.2.pcap")
>>> analysis.totals["tls_connections"]
1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.errors import CaptureError
from analyzer.model import Action, Finding, Severity, Side

if TYPE_CHECKING:
    from analyzer.analysis import Analysis
    from analyzer.pipeline import analyze

__all__ = ["Action", "Analysis", "CaptureError", "Finding", "Severity", "Side", "analyze"]


def __getattr__(name: str) -> Any:
    # numpy and the kernels are only loaded by whoever analyses: help and schema must not wait for them
    if name == "analyze":
        from analyzer.pipeline import analyze

        return analyze
    if name == "Analysis":
        from analyzer.analysis import Analysis

        return Analysis
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
