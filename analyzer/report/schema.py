"""The published JSON Schema, and the public tables as text.

The schema is the file analysis-1.schema.json beside this one, written by hand: it is a promise, not an echo
of the code. A change that would break a reader makes analysis-2, a new field does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

SCHEMA: Final = "tlswall-analysis/1"
"""Value of `schema` in every document."""


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) as published."""
    from importlib import resources  # of a start, this is two milliseconds

    return resources.files("analyzer.report").joinpath("analysis-1.schema.json").read_text("utf-8")


class Column(NamedTuple):
    table: str
    name: str
    type: str
    meaning: str


def columns() -> Iterator[Column]:
    """Every column of the public tables: the rows of the JSON output, then the packet columns."""
    document: Mapping[str, Any] = orjson.loads(schema_text())
    for table, definition in (
        ("captures", "capture"),
        ("connections", "connection"),
        ("findings", "finding"),
    ):
        for name, described in document["$defs"][definition]["properties"].items():
            yield Column(table, name, _type(described, document), _meaning(described, document))

    from analyzer.columns.schema import PACKETS

    for column in PACKETS:
        yield Column("packets", column.name, column.dtype, column.meaning)


def tables_text() -> str:
    """The columns as aligned text, a table after the other."""
    rows = list(columns())
    widths = [max(len(row[at]) for row in rows) for at in (1, 2)]
    lines: list[str] = []
    table = ""
    for row in rows:
        if row.table != table:
            table = row.table
            lines += ["", table] if lines else [table]
        lines.append(f"  {row.name:<{widths[0]}}  {row.type:<{widths[1]}}  {row.meaning}".rstrip())
    return "\n".join(lines) + "\n"


def _resolved(described: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in described:
        target = document["$defs"][described["$ref"].removeprefix("#/$defs/")]
        described = {**target, **{key: value for key, value in described.items() if key != "$ref"}}
    return described


def _type(described: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    described = _resolved(described, document)
    if "enum" in described:
        return "string"
    if "anyOf" in described:
        return " or ".join(_type(choice, document) for choice in described["anyOf"])
    if described.get("type") == "array":
        return f"list of {_type(described['items'], document)}"
    kind = described.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _meaning(described: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    described = _resolved(described, document)
    words = ", ".join(described.get("enum", ()))
    text = str(described.get("description", ""))
    return f"{text} One of: {words}." if words else text
