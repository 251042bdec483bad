"""Connections as JSON are the rows that `connections.rows` gives, on every sample."""

from __future__ import annotations

import json

import pytest

from analyzer import pipeline
from analyzer.errors import CaptureError
from tests.recut import CRAFTED, SHIPPED


@pytest.mark.parametrize("path", [*SHIPPED, *CRAFTED], ids=lambda path: path.name)
def test_both_say_the_same(path) -> None:
    try:
        analysis = pipeline.analyze(path)
    except CaptureError:
        pytest.skip("nothing of it can be read")
    text = b",".join(analysis.connections_json(begin=b"{", between=b","))
    assert json.loads(b"[" + text + b"]") == json.loads(json.dumps(list(analysis.iter_connections())))


def test_an_object_begins_as_it_is_told() -> None:
    analysis = pipeline.analyze(next(path for path in SHIPPED if path.name == "tls1.2.pcap"))
    lines = b"\n".join(analysis.connections_json(begin=b'{"type":"connection",', between=b"\n")).split(b"\n")
    assert [json.loads(line)["type"] for line in lines] == ["connection"] * analysis.totals["tls_connections"]
