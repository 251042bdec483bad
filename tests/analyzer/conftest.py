"""An analysis made by hand: what the formats and the commands are given, without reading a capture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from analyzer.capture import CaptureInfo, CaptureIssue
from analyzer.model import Action, Finding, Severity
from analyzer.report.json_output import dumps

HOSTILE = "evil\x1b]0;owned\x07\x9b31m[red]\u202etxt.\ud800.example"
"""What a host name from the wire may hold: terminal controls, rich's markup, a bidirectional override."""


def connection(number: int, **changes: object) -> dict[str, object]:
    return {
        "connection": number,
        "capture": 0,
        "client": {"address": "192.0.2.10", "port": 41459},
        "server": {"address": "198.51.100.7", "port": 443},
        "first_packet": 10 * number + 1,
        "last_packet": 10 * number + 9,
        "version": "TLSv1.2",
        "client_version": "TLSv1.2",
        "cipher_suite": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "cipher_suite_code": 0xC02F,
        "sni": "www.example.net",
        "alpn": "h2",
        "alpn_offered": ("h2", "http/1.1"),
        "resumed": "no",
        "established": True,
        "hello_retry": False,
        "ja3": "e7d705a3286e19ea42f587b344ee6865",
        "ja3s": "303951d4c50efb2e991652225a6f02b1",
        "ja4": "t12d1516h2_8daaf6152771_e5627efa2ab1",
        "alerts": [],
        "starttls": None,
        "sync": {"client": "synced", "server": "synced"},
        **changes,
    }


def finding(identifier: str = "HB03", **changes: object) -> Finding:
    values: dict[str, object] = {
        "id": identifier,
        "title": "Heartbeat before the handshake is complete",
        "severity": Severity.HIGH,
        "action": Action.BLOCK,
        "connection": 0,
        "packets": (11,),
        "evidence": {
            "payload_length": 16365,
            "record_length": 16368,
            "answered": True,
            "bytes": "180302400001",
        },
        "explanation": "No TLS stack sends a heartbeat before encryption began. Scanners do.",
        "references": ("RFC 6520 3", "CVE-2014-0160"),
        "offender": "192.0.2.10",
        "policy": "heartbleed",
        **changes,
    }
    return Finding(**values)  # type: ignore[arg-type]


@dataclass
class FakeAnalysis:
    captures: list[CaptureInfo]
    connections: list[dict[str, object]]
    findings: list[Finding] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def totals(self) -> dict[str, int]:
        return {
            "packets": sum(capture.packets for capture in self.captures),
            "tcp_connections": len(self.connections),
            "tls_connections": len(self.connections),
        }

    def close(self) -> None:
        pass

    def iter_connections(self) -> Iterator[dict[str, object]]:
        return iter(self.connections)

    def connections_json(self, *, begin: bytes, between: bytes) -> Iterator[bytes]:
        if self.connections:
            yield between.join(begin + dumps(row)[1:] for row in self.connections)

    def iter_findings(self) -> Iterator[Finding]:
        return iter(sorted(self.findings, key=lambda found: (-found.severity, found.connection or 0)))


def capture(path: str = "incident.pcap", **changes: object) -> CaptureInfo:
    values: dict[str, object] = {
        "path": path,
        "format": "pcap",
        "packets": 34,
        "bytes": 39_524,
        "size": 39_524,
        "first_ns": 1_397_056_323_000_000_000,
        "last_ns": 1_397_056_325_100_000_000,
        **changes,
    }
    return CaptureInfo(**values)  # type: ignore[arg-type]


@pytest.fixture
def analysis() -> FakeAnalysis:
    """Four connections, one of them hostile, three kinds of findings, a capture cut at its end."""
    return FakeAnalysis(
        captures=[
            capture(errors=[CaptureIssue(39_000, "the packet is cut: 1,514 bytes announced, 524 left")])
        ],
        connections=[
            connection(0, established=False),
            connection(1, version="TLSv1.3", alpn=None, resumed="psk"),
            connection(
                2,
                client={"address": "2001:db8::10", "port": 50000},
                server={"address": "2001:db8:ffff:ffff:ffff:ffff:ffff:1", "port": 8443},
                version=None,
                cipher_suite=None,
                cipher_suite_code=None,
                sni=HOSTILE,
                resumed="unknown",
                established=False,
                sync={"client": "synced", "server": "gap"},
                alerts=[
                    {"side": "server", "level": "fatal", "description": "handshake_failure", "packet": 25}
                ],
            ),
            connection(4, starttls="smtp", sni=None),
        ],
        findings=[
            finding(),
            finding(
                "HB02", title="Heartbeat without padding", severity=Severity.MEDIUM, action=Action.CORROBORATE
            ),
            *(
                finding(
                    "DG12",
                    title="Deprecated version negotiated",
                    severity=Severity.LOW,
                    action=Action.POSTURE,
                    connection=number,
                    packets=tuple(range(1, 31)),
                    evidence={"packet_count": 4711, "sni": HOSTILE},
                    offender=None,
                    policy="min-version",
                )
                for number in (0, 1, 2, 4)
            ),
        ],
    )


@pytest.fixture
def make() -> SimpleNamespace:
    """What the analysis is made of, for tests that need another one."""
    return SimpleNamespace(
        capture=capture, connection=connection, finding=finding, analysis=FakeAnalysis, hostile=HOSTILE
    )
