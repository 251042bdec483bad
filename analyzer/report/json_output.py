"""JSON: one document, or one object per line (ndjson).

In:  an analysis.
Out: a document of schema `tlswall-analysis/1` (schema.py), or lines of it with a `type`.

The document is written row by row, one row per line: neither this side nor a reader that goes line by line
holds more than some rows. The same analysis gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import orjson

from analyzer.model import Action, Finding, Severity
from analyzer.report.base import Analysed, Format, Options
from analyzer.report.schema import SCHEMA
from analyzer.version import VERSION

if TYPE_CHECKING:
    from analyzer.capture import CaptureInfo

ROWS_AT_ONCE: Final = 256
"""Rows per write: some hundred kilobytes, past which larger writes no longer gain."""

_Row = TypeVar("_Row")

_SEVERITIES: Final = {severity: severity.name.lower() for severity in Severity}
_ACTIONS: Final = {action: action.value for action in Action}
"""Looked up: an enum's own attributes take their time."""


def capture_row(capture: CaptureInfo) -> dict[str, object]:
    return {
        "path": capture.path,
        "format": capture.format,
        "packets": capture.packets,
        "bytes": capture.bytes,
        "first_ns": capture.first_ns,
        "last_ns": capture.last_ns,
        "errors": [{"offset": issue.offset, "why": issue.why} for issue in capture.errors],
    }


def finding_row(finding: Finding) -> dict[str, object]:
    (
        identifier, title, severity, action, connection, packets, evidence, explanation, references, offender,
        capture, policy, victims,
    ) = finding  # fmt: skip
    return {
        "id": identifier,
        "title": title,
        "severity": _SEVERITIES[severity],
        "action": _ACTIONS[action],
        "capture": capture,
        "connection": connection,
        "packets": packets,
        "evidence": evidence,
        "explanation": explanation,
        "references": references,
        "offender": offender,
        "victims": victims,
        "policy": policy,
    }


def dumps(row: object) -> bytes:
    """One row as compact JSON without a character that a terminal acts on."""
    return _harmless(_encoded(row))


def _encoded(row: object) -> bytes:
    try:
        return orjson.dumps(row, default=_plain)
    except orjson.JSONEncodeError:
        return orjson.dumps(_cleaned(row), default=_plain)


def _harmless(text: bytes) -> bytes:
    """JSON, maybe with line feeds between rows, without what a terminal acts on.

    JSON leaves DEL, C1 controls and bidirectional overrides as they are; an escape means the same.
    """
    if text.isascii() and b"\x7f" not in text:
        return text
    import json

    decoded = text.decode()
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in decoded).encode()


def render_json(analysis: Analysed, out: BinaryIO, options: Options) -> None:
    out.write(b"{%s" % dumps(_header(options))[1:-1])
    _array(out, b"captures", _chunks(map(capture_row, analysis.captures), _NEXT_ROW))
    out.write(b',\n"totals":%s' % dumps(dict(analysis.totals)))
    _array(out, b"connections", analysis.connections_json(begin=b"{", between=_NEXT_ROW))
    _array(out, b"findings", _chunks(map(finding_row, analysis.iter_findings()), _NEXT_ROW))
    out.write(b"}\n")


def render_ndjson(analysis: Analysed, out: BinaryIO, options: Options) -> None:
    severities = dict.fromkeys((severity.name.lower() for severity in reversed(Severity)), 0)

    def counted(finding: Finding) -> dict[str, object]:
        severities[finding.severity.name.lower()] += 1
        return {"type": "finding", **finding_row(finding)}

    _lines(
        out, _chunks(({"type": "capture", **capture_row(capture)} for capture in analysis.captures), b"\n")
    )
    _lines(out, analysis.connections_json(begin=b'{"type":"connection",', between=b"\n"))
    _lines(out, _chunks(map(counted, analysis.iter_findings()), b"\n"))
    summary = {"type": "summary", **_header(options), "totals": dict(analysis.totals), "findings": severities}
    out.write(dumps(summary) + b"\n")


JSON: Final = Format(name="json", summary="one JSON document, see `tlswall schema`", render=render_json)
NDJSON: Final = Format(name="ndjson", summary="one JSON object per line, with a type", render=render_ndjson)


def _header(options: Options) -> dict[str, object]:
    return {"schema": SCHEMA, "tool": {"name": "tlswall", "version": VERSION}, "profile": options.profile}


_NEXT_ROW: Final = b",\n"


def _array(out: BinaryIO, name: bytes, chunks: Iterable[bytes]) -> None:
    out.write(b',\n"%s":[' % name)
    before = b"\n"
    for chunk in chunks:
        out.write(before + _harmless(chunk))
        before = _NEXT_ROW
    out.write(b"]" if before == b"\n" else b"\n]")


def _lines(out: BinaryIO, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        out.write(_harmless(chunk) + b"\n")


def _chunks(rows: Iterable[_Row], between: bytes) -> Iterator[bytes]:
    """Some rows at a time, as JSON with `between` in between."""
    source = iter(rows)
    while chunk := list(islice(source, ROWS_AT_ONCE)):
        yield between.join(map(_encoded, chunk))


def _plain(value: object) -> object:
    """What orjson does not know: evidence may hold bytes and any mapping or iterable."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _cleaned(value: object) -> object:
    """The value with what JSON can't carry written out: lone surrogates (from file names), huge integers."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, Mapping):
        return {_cleaned(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
