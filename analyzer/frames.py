"""The tables as pandas DataFrames.

Times are in UTC at nanosecond resolution, sides are "client" and "server", addresses are text. Only this
file and report/ know pandas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from analyzer.connections import address
from analyzer.wire.iana import ContentType, HandshakeType, name_of

if TYPE_CHECKING:
    from analyzer.analysis import Analysis
    from analyzer.tables import TableSpool

_SIDES = pd.Index(["client", "server"])


def connections(analysis: Analysis) -> pd.DataFrame:
    """TLS connections, one row each; what has sides is flattened: client_address, sync_server, ..."""

    def flat() -> Iterator[dict[str, object]]:
        for row in analysis.iter_connections():
            flattened: dict[str, object] = {}
            for name, value in row.items():
                if name in ("client", "server", "sync") and isinstance(value, dict):
                    flattened.update({f"{name}_{key}": inner for key, inner in value.items()})
                else:
                    flattened[name] = value
            yield flattened

    frame = pd.DataFrame(flat())
    if "cipher_suite_code" in frame:
        frame["cipher_suite_code"] = frame["cipher_suite_code"].astype("Int64")
    return frame


def findings(analysis: Analysis) -> pd.DataFrame:
    """Findings, worst first, one row each."""
    frame = pd.DataFrame(
        {
            "id": finding.id,
            "title": finding.title,
            "severity": finding.severity.name.lower(),
            "action": str(finding.action),
            "capture": finding.capture,
            "connection": finding.connection,
            "packets": list(finding.packets),
            "offender": finding.offender,
            "evidence": dict(finding.evidence),
            "explanation": finding.explanation,
            "references": list(finding.references),
            "policy": finding.policy,
        }
        for finding in analysis.iter_findings()
    )
    if "connection" in frame:
        frame["connection"] = frame["connection"].astype("Int64")
    return frame


def table(name: str, spool: TableSpool) -> pd.DataFrame:
    """One of the tables that are kept on request."""
    rows = spool.table()
    frame: pd.DataFrame = rows.to_pandas() if rows is not None else pd.DataFrame()
    if frame.empty:
        return frame
    if "time_ns" in frame:
        frame.insert(1, "time", pd.to_datetime(frame.pop("time_ns"), unit="ns", utc=True))
    if "side" in frame:
        frame["side"] = pd.Categorical.from_codes(frame["side"].to_numpy(dtype=int), categories=_SIDES)
    if name == "packets":
        for end, column in (("src", "source"), ("dst", "destination")):
            pairs = zip(
                frame.pop(f"{end}_hi").tolist(),
                frame.pop(f"{end}_lo").tolist(),
                frame["ip_version"].tolist(),
                strict=True,
            )
            frame[column] = [address(upper, lower) if version else None for upper, lower, version in pairs]
    elif name == "messages":
        frame["message"] = [
            _message_name(*pair)
            for pair in zip(frame["content_type"].tolist(), frame["message_type"].tolist(), strict=True)
        ]
        frame["fields"] = [
            _fields(*triple)
            for triple in zip(
                frame["content_type"].tolist(),
                frame["message_type"].tolist(),
                frame["body"].tolist(),
                strict=True,
            )
        ]
    elif name == "certificates":
        described = pd.DataFrame([_certificate(der) for der in frame["der"].tolist()])
        frame = pd.concat([frame, described], axis=1)
    if name in ("records", "messages"):
        frame["content"] = [name_of(ContentType, value) for value in frame["content_type"].tolist()]
    return frame


def _message_name(content_type: int, message_type: int) -> str:
    if content_type == ContentType.HANDSHAKE:
        return name_of(HandshakeType, message_type).lower()
    if content_type == ContentType.ALERT:
        from analyzer.wire.iana import AlertDescription

        return name_of(AlertDescription, message_type).lower()
    if content_type == ContentType.HEARTBEAT:
        return {1: "heartbeat_request", 2: "heartbeat_response", 3: "heartbeat_response_continued"}.get(
            message_type, "heartbeat"
        )
    return "change_cipher_spec"


def _fields(content_type: int, message_type: int, body: bytes) -> Any:
    """A hello in full (analyzer.tls.handshake), None for other messages."""
    from analyzer.tls.handshake import parse_client_hello, parse_server_hello

    if content_type != ContentType.HANDSHAKE or not body:
        return None
    if message_type == HandshakeType.CLIENT_HELLO:
        return parse_client_hello(body)
    if message_type == HandshakeType.SERVER_HELLO:
        return parse_server_hello(body)
    return None


def _certificate(der: bytes) -> dict[str, object]:
    """What a certificate says; `malformed` where it can't be read."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    described: dict[str, object] = {"sha256": hashlib.sha256(der).hexdigest(), "malformed": None}
    try:
        certificate = x509.load_der_x509_certificate(der)
        described |= {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "not_before": certificate.not_valid_before_utc,
            "not_after": certificate.not_valid_after_utc,
            "serial": f"{certificate.serial_number:x}",
            "signature": certificate.signature_algorithm_oid._name,
        }
        key = certificate.public_key()
        described["key"] = (
            f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey)
            else f"EC {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey)
            else type(key).__name__.strip("_")
        )  # fmt: skip
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        described["names"] = [str(name.value) for name in names]
    except x509.ExtensionNotFound:
        described["names"] = []
    except Exception as error:  # hostile DER: whatever the parser raises, the row says so
        described["malformed"] = f"{type(error).__name__}: {error}"
    return described
