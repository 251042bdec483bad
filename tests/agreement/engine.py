"""What the engine says of the same connections, in the form of tests.agreement.tshark."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

from analyzer.analysis import Analysis
from analyzer.wire.iana import AlertDescription, AlertLevel

VERSIONS: Final = {
    "TLSv1.3": 0x304, "TLSv1.2": 0x303, "TLSv1.1": 0x302, "TLSv1.0": 0x301, "SSLv3": 0x300, "SSLv2": 0x002, None: None,
}  # fmt: skip
LEVELS: Final = {level.name.lower(): level.value for level in AlertLevel}
DESCRIPTIONS: Final = {description.name.lower(): description.value for description in AlertDescription}
AS_READ: Final = (
    "cipher_suite_code",
    "sni",
    "alpn",
    "ja3",
    "ja3s",
    "ja4",
    "hello_retry",
    "first_packet",
    "last_packet",
)

REWRITTEN: Final = "2001:db8:64:"
"""Begins an address that was rewritten to IPv6 (frames.ipv6_address)."""

Fact = dict[str, Any]


def facts(analysis: Analysis) -> dict[int, Fact]:
    """Connection -> what the engine says of it."""
    return {row["connection"]: fact(row) for row in analysis.iter_connections()}  # type: ignore[misc]


def fact(row: dict[str, Any]) -> Fact:
    return {
        **{name: row[name] for name in AS_READ},
        "version": VERSIONS[row["version"]],
        "client": (row["client"]["address"], row["client"]["port"]),
        "server": (row["server"]["address"], row["server"]["port"]),
        "alpn_offered": list(row["alpn_offered"]),
        "alerts": [
            (alert["side"], LEVELS[alert["level"]], DESCRIPTIONS[alert["description"]], alert["packet"])
            for alert in row["alerts"]
        ],
    }


def shown(analysis: Analysis, origin: Sequence[int]) -> list[dict[str, Any]]:
    """Everything that the engine says of a capture, in the packet numbers of the one that it was made from.

    Args:
        analysis: Of the variant.
        origin: For each packet of the variant, its number in the original.
    """
    connections = []
    rows = list(analysis.iter_connections())
    findings = list(analysis.iter_findings())
    for row in rows:
        found: dict[str, Any] = dict(row)
        connection = found.pop("connection")
        found["alerts"] = [{**alert, "packet": origin[alert["packet"] - 1]} for alert in found["alerts"]]
        for name in ("first_packet", "last_packet"):
            del found[name]  # compared with tshark's
        found["findings"] = sorted(
            (
                finding.id,
                finding.action.value,
                finding.offender or "",
                tuple(sorted({origin[number - 1] for number in finding.packets})),
            )
            for finding in findings
            if finding.connection == connection
        )
        connections.append(found)
    return sorted(connections, key=lambda found: (found["client"]["port"], found["client"]["address"]))


def without_rewriting(value: Any) -> Any:
    """Addresses as they were before they were rewritten to IPv6."""
    if isinstance(value, dict):
        return {name: without_rewriting(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_rewriting(item) for item in value)
    if isinstance(value, str) and value.startswith(REWRITTEN):
        return str(ip_address(ip_address(value).packed[12:]))
    return value
