from __future__ import annotations

import json

from jsonschema import Draft202012Validator

from analyzer.columns.schema import PACKETS
from analyzer.report.schema import SCHEMA, columns, schema_text, tables_text


def test_the_schema_is_one_and_needs_nothing_from_elsewhere():
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == schema["$defs"]["schema"]["const"] == SCHEMA
    references = [
        line.split('"$ref": "')[1].split('"')[0] for line in schema_text().splitlines() if "$ref" in line
    ]
    assert references
    assert all(reference.startswith("#/$defs/") for reference in references)


def test_every_column_says_what_it_means():
    rows = list(columns())
    undocumented = {row.name for row in rows if not row.meaning}
    assert undocumented <= {"format", "ja4", "title", "explanation", "server", "packets"}
    assert {row.table for row in rows} == {"captures", "connections", "findings", "packets"}
    assert [row.name for row in rows if row.table == "packets"] == [column.name for column in PACKETS]


def test_tables_as_text():
    text = tables_text()
    assert "\nconnections\n" in text
    assert "  cipher_suite_code" in text
