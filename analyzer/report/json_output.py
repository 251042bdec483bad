"""JSON: one document, or one object per line (ndjson).

In:  an analysis.
Out: a document of schema `tlswall-analysis/1` (schema.py), or lines of it with a `type`.

The document is written row by row, one row per line: neither this side nor a reader that goes line by line
holds more than some rows. The same analysis gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import orjson

from analyzer.model import Finding, Severity
from analyzer.report.base import Analysed, Format, Options
from analyzer.report.schema import SCHEMA
from analyzer.version import VERSION

if TYPE_CHECKING:
    from analyzer.capture import CaptureInfo

ROWS_AT_ONCE: Final = 256
"""Rows per write: some hundred kilobytes, past which larger writes no longer gain."""

_Row = TypeVar("_Row")


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
    return {
        "id": finding.id,
        "title": finding.title,
        "severity": finding.severity.name.lower(),
        "action": finding.action.value,
        "capture": finding.capture,
        "connection": finding.connection,
        "packets": finding.packets,
        "evidence": finding.evidence,
        "explanation": finding.explanation,
        "references": finding.references,
        "offender": finding.offender,
        "victims": finding.victims,
        "policy": finding.policy,
    }


def dumps(row: object) -> bytes:
    """One row as compact JSON without a character that a terminal acts on."""
    try:
        text = orjson.dumps(row, default=_plain)
    except orjson.JSONEncodeError:
        text = orjson.dumps(_cleaned(row), default=_plain)
    if text.isascii() and b"\x7f" not in text:
        return text
    # JSON leaves DEL, C1 controls and bidirectional overrides as they are; an escape means the same.
    decoded = text.decode()
    if decoded.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in decoded).encode()


def render_json(analysis: Analysed, out: BinaryIO, options: Options) -> None:
    out.write(b"{%s" % dumps(_header(options))[1:-1])
    _array(out, b"captures", map(capture_row, analysis.captures))
    out.write(b',\n"totals":%s' % dumps(dict(analysis.totals)))
    _array(out, b"connections", analysis.iter_connections())
    _array(out, b"findings", map(finding_row, analysis.iter_findings()))
    out.write(b"}\n")


def render_ndjson(analysis: Analysed, out: BinaryIO, options: Options) -> None:
    severities = dict.fromkeys((severity.name.lower() for severity in reversed(Severity)), 0)

    def counted(finding: Finding) -> dict[str, object]:
        severities[finding.severity.name.lower()] += 1
        return {"type": "finding", **finding_row(finding)}

    _lines(out, ({"type": "capture", **capture_row(capture)} for capture in analysis.captures))
    _lines(out, ({"type": "connection", **row} for row in analysis.iter_connections()))
    _lines(out, map(counted, analysis.iter_findings()))
    summary = {"type": "summary", **_header(options), "totals": dict(analysis.totals), "findings": severities}
    out.write(dumps(summary) + b"\n")


JSON: Final = Format(name="json", summary="one JSON document, see `tlswall schema`", render=render_json)
NDJSON: Final = Format(name="ndjson", summary="one JSON object per line, with a type", render=render_ndjson)


def _header(options: Options) -> dict[str, object]:
    return {"schema": SCHEMA, "tool": {"name": "tlswall", "version": VERSION}, "profile": options.profile}


def _array(out: BinaryIO, name: bytes, rows: Iterable[object]) -> None:
    out.write(b',\n"%s":[' % name)
    before = b"\n"
    for chunk in _chunks(rows):
        out.write(before + b",\n".join(map(dumps, chunk)))
        before = b",\n"
    out.write(b"]" if before == b"\n" else b"\n]")


def _lines(out: BinaryIO, rows: Iterable[object]) -> None:
    for chunk in _chunks(rows):
        out.write(b"\n".join(map(dumps, chunk)) + b"\n")


def _chunks(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    source = iter(rows)
    while chunk := list(islice(source, ROWS_AT_ONCE)):
        yield chunk


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
