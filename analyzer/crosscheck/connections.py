"""Compare our TLS connections with tshark's.

In:  rows of the published schema (Analysis.iter_connections()), TlsConnections.
Out: Differences; those that follow from how tshark works carry an explanation.

An explanation is a rule below, never a list of captures: a difference without one is to be looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from analyzer.connections import version_name
from analyzer.crosscheck.difference import Difference
from analyzer.crosscheck.tshark import Endpoint, TlsConnection
from analyzer.wire.iana import (
    AlertDescription,
    AlertLevel,
    HandshakeType,
    name_of,
)
from analyzer.wire.suite_properties import Mode, suite_properties

Row = Mapping[str, Any]


def compare_connections(ours: Iterable[Row], theirs: Iterable[TlsConnection]) -> list[Difference]:
    """List the differences between the TLS connections of one capture."""
    rows = {row["connection"]: row for row in ours}
    streams = {stream.connection: stream for stream in theirs}
    differences: list[Difference] = []
    for number in sorted(rows.keys() | streams.keys()):
        row, stream = rows.get(number), streams.get(number)
        if row is None or stream is None:
            differences.append(
                Difference(
                    where=f"connection {number}",
                    field="tls",
                    ours=row is not None,
                    theirs=stream is not None,
                    opinion="tshark",
                    explanation=_why_only_ours(row) if row else _why_only_theirs(stream),
                )
            )
        else:
            differences += _compare(row, stream)
    return differences


def _compare(row: Row, stream: TlsConnection) -> Iterator[Difference]:
    for field, (ours, theirs) in _fields(row, stream).items():
        if ours != theirs:
            reasons = (reason(field, row, stream) for reason in _EXPLANATIONS)
            yield Difference(
                where=f"connection {stream.connection}",
                field=field,
                ours=ours,
                theirs=theirs,
                opinion="tshark",
                explanation=next(filter(None, reasons), None),
            )


def _fields(row: Row, stream: TlsConnection) -> dict[str, tuple[object, object]]:
    """Field -> our value and tshark's, in the same form."""
    sides = stream.client is not None  # without a hello tshark does not say who is who
    fields: dict[str, tuple[object, object]] = {
        "version": (row["version"], None if stream.version is None else version_name(stream.version)),
        "cipher_suite_code": (row["cipher_suite_code"], stream.cipher_suite),
        "sni": (row["sni"], stream.sni),
        "alpn": (row["alpn"], stream.alpn),
        "alpn_offered": (list(row.get("alpn_offered", ())), list(stream.alpn_offered)),
        "hello_retry": (bool(row.get("hello_retry")), stream.hello_retry),
        "ja3": (row["ja3"], stream.ja3),
        "ja3s": (row["ja3s"], stream.ja3s),
        "alerts": ([_our_alert(alert, sides) for alert in row["alerts"]], list(_their_alerts(stream))),
    }
    if (
        stream.client is not None and stream.server is not None
    ):  # without a hello tshark does not say who is who
        fields["client"] = (_endpoint(row["client"]), _text(stream.client))
        fields["server"] = (_endpoint(row["server"]), _text(stream.server))
    return fields


def _endpoint(value: Row) -> str:
    return _text(Endpoint(value["address"], value["port"]))


def _text(endpoint: Endpoint) -> str:
    return f"{endpoint.address} {endpoint.port}"


def _our_alert(alert: Row, sides: bool) -> str:
    side = f"{alert['side']} " if sides else ""
    return f"{alert['packet']} {side}{alert['level']} {alert['description']}"


def _their_alerts(stream: TlsConnection) -> Iterator[str]:
    for alert in stream.alerts:
        level, description = (
            name_of(AlertLevel, alert.level),
            name_of(AlertDescription, alert.description),
        )
        side = "" if alert.side is None else f"{alert.side.name.lower()} "
        yield f"{alert.packet} {side}{level} {description}"


# --- explanations: each looks at one way in which tshark, or tlswall, works -----------------------


def _why_only_ours(row: Row) -> str | None:
    if row.get("starttls"):
        return f"tshark finds TLS behind {row['starttls']} only where its dissector has followed the dialogue"
    if row.get("ja3") is None and row.get("version") is None:
        return "neither hello was captured: tshark then knows TLS by its ports"
    return None


def _why_only_theirs(stream: TlsConnection | None) -> str | None:
    if stream is not None and stream.client is None:
        return "neither hello was captured: tlswall then waits for three records in a row"
    return None


def _null_cipher(field: str, row: Row, stream: TlsConnection) -> str | None:
    properties = suite_properties(row["cipher_suite_code"] or 0) if row["cipher_suite_code"] else None
    if field == "alerts" and properties is not None and properties.mode == Mode.NULL:
        return "the cipher suite does not encrypt, so tshark reads protected alerts too"
    return None


def _after_change_cipher_spec(field: str, row: Row, stream: TlsConnection) -> str | None:
    if field in ("sni", "ja3") and row["ja3"] is not None and stream.ja3 is None:
        hello = any(
            message.kind == "handshake" and message.type == HandshakeType.CLIENT_HELLO
            for message in stream.messages
        )
        if not hello and any(message.kind == "change_cipher_spec" for message in stream.messages):
            return "tshark takes all that follows a ChangeCipherSpec for encrypted, even a ClientHello"
    return None


def _missing_bytes(field: str, row: Row, stream: TlsConnection) -> str | None:
    fewer = len(stream.alerts) < len(row["alerts"])
    if field == "alerts" and fewer and set(row["sync"].values()) != {"synced"}:
        return "bytes are missing in the capture: tshark does not find the next record behind them"
    return None


_EXPLANATIONS: Final[tuple[Callable[[str, Row, TlsConnection], str | None], ...]] = (
    _null_cipher,
    _after_change_cipher_spec,
    _missing_bytes,
)
