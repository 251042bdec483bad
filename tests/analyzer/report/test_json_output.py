from __future__ import annotations

import io
import json
import time
from pathlib import Path
from types import MappingProxyType

import pytest
from jsonschema import Draft202012Validator

from analyzer import analyze
from analyzer.model import Severity
from analyzer.report import Options
from analyzer.report.json_output import JSON, NDJSON, dumps
from analyzer.report.schema import schema_text

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*/*.pcap*"))


def rendered(format, analysis, **options) -> bytes:
    out = io.BytesIO()
    format.render(analysis, out, Options(**options))
    return out.getvalue()


def closed(schema):
    """The published schema lets fields be added; here nothing may be written that it does not name."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and "additionalProperties" not in schema and "oneOf" not in schema:
            schema["additionalProperties"] = False
    elif isinstance(schema, list):
        schema = [closed(item) for item in schema]
    return schema


@pytest.fixture(scope="module")
def published():
    return json.loads(schema_text())


def test_the_document_follows_the_published_schema(analysis, published):
    document = json.loads(rendered(JSON, analysis))
    Draft202012Validator(published).validate(document)
    Draft202012Validator(closed(published)).validate(document)
    assert document["schema"] == "tlswall-analysis/1"
    assert [row["connection"] for row in document["connections"]] == [0, 1, 2, 4]
    assert [row["id"] for row in document["findings"]] == ["HB03", "HB02", "DG12", "DG12", "DG12", "DG12"]
    assert document["captures"][0]["errors"] == [
        {"offset": 39_000, "why": "the packet is cut: 1,514 bytes announced, 524 left"}
    ]


def test_each_line_follows_the_published_schema(analysis, published):
    lines = [json.loads(line) for line in rendered(NDJSON, analysis).splitlines()]
    assert [line["type"] for line in lines] == ["capture", *["connection"] * 4, *["finding"] * 6, "summary"]
    line_schema = {**published, "$ref": "#/$defs/line"}
    for key in ("type", "required", "properties"):
        line_schema.pop(key)
    strict = closed({"$defs": published["$defs"]})
    for line in lines:
        Draft202012Validator(line_schema).validate(line)
        kind = line.pop("type")
        Draft202012Validator({**strict, "$ref": f"#/$defs/{kind}"}).validate(line)
    assert lines[-1]["findings"] == {"critical": 0, "high": 1, "medium": 1, "low": 4, "info": 0}


@pytest.mark.parametrize("capture", SAMPLES, ids=lambda capture: capture.stem)
def test_every_sample_follows_the_published_schema(capture, published):
    analysis = analyze(capture)
    document = json.loads(rendered(JSON, analysis))
    Draft202012Validator(closed(published)).validate(document)
    assert len(document["findings"]) == document["totals"]["findings"]
    assert len(document["connections"]) == document["totals"]["tls_connections"]


@pytest.mark.parametrize(
    "change",
    [{"resumed": "maybe"}, {"version": 771}, {"client": "192.0.2.1"}, {"first_packet": 0}, {"alerts": None}],
)
def test_the_schema_refuses_what_it_does_not_describe(make, published, change):
    analysis = make.analysis([make.capture()], [make.connection(0, **change)])
    assert not Draft202012Validator(published).is_valid(json.loads(rendered(JSON, analysis)))


def test_an_analysis_without_anything_is_a_document_too(make, published):
    document = json.loads(
        rendered(JSON, make.analysis([make.capture(packets=0, first_ns=None, last_ns=None)], []))
    )
    Draft202012Validator(published).validate(document)
    assert document["connections"] == document["findings"] == []


def test_a_row_is_a_line(analysis):
    lines = rendered(JSON, analysis).splitlines()
    assert sum(line.startswith(b'{"connection":') for line in lines) == 4
    assert sum(line.startswith(b'{"id":') for line in lines) == 6


def test_the_same_analysis_gives_the_same_bytes(analysis):
    for format in (JSON, NDJSON):
        assert rendered(format, analysis) == rendered(format, analysis)


def test_rows_are_written_before_the_last_one_is_read(make):
    """A capture of a hundred thousand connections is never in memory as a document."""
    out = io.BytesIO()
    written = []

    class Long(make.analysis):
        def connections_json(self, *, begin, between):
            for number in range(5000):
                written.append(out.tell())
                yield begin + dumps(make.connection(number))[1:]

    JSON.render(Long([make.capture()], []), out, Options())
    assert written[-1] > 0.9 * out.tell()


def test_no_control_character_gets_out_and_none_is_lost(make):
    text = "".join(map(chr, range(0x250))) + "\u200b\u202e\u2028\u2066\ufeff漢字😀"
    encoded = dumps({"sni": text})
    assert encoded.decode().isprintable()
    assert json.loads(encoded) == {"sni": text}


def test_evidence_may_hold_what_json_does_not_know(make):
    evidence = MappingProxyType(
        {
            "path": "caf\udce9",
            "big": 1 << 80,
            "bytes": b"\x18\x03",
            "set": (1, frozenset({2})),
            "nested": {"a\udc80": [1 << 64]},
        }
    )
    assert json.loads(dumps(evidence)) == {
        "path": "caf\\udce9",
        "big": str(1 << 80),
        "bytes": "1803",
        "set": [1, [2]],
        "nested": {"a\\udc80": [str(1 << 64)]},
    }


def test_severities_are_words(make):
    for severity in Severity:
        analysis = make.analysis([make.capture()], [], [make.finding(severity=severity)])
        assert json.loads(rendered(JSON, analysis))["findings"][0]["severity"] == severity.name.lower()


def test_ten_thousand_connections_take_no_time(make):
    rows = [make.connection(number) for number in range(10_600)]
    analysis = make.analysis(
        [make.capture()], rows, [make.finding(connection=number) for number in range(10_600)]
    )
    start = time.process_time()
    size = len(rendered(JSON, analysis))
    assert size > 10_000_000
    assert time.process_time() - start < 0.5  # 0.1 s on an idle machine
