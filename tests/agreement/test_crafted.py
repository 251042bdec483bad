"""The crafted captures, attacks and what looks like them, in other forms: found is what is found in the original.

tests.recut has them in other segments. Here are the forms that change what lies around a segment, and the order.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from analyzer.pipeline import analyze
from tests.agreement import engine
from tests.agreement.frames import CRAFTED, frames
from tests.agreement.variants import VARIANTS, Variant

FORMS = ("qinq", "ipv6", "ipv4-fragments-mixed", "sequence-wraps", "mirrored", "swapped", "shuffled")

COPY = "of a segment and its copy the other one comes first, and is named"
REUSED = "what comes before the new connection's SYN counts for the connection before it"
FIN_FIRST = "the first packet with another sender's TTL is no longer the alert, but the FIN behind it"
BEFORE_SYN = "the server's hello comes before its SYN+ACK: it is unknown whether it had sent something before"
NO_HELLO = "all of the server is there when the client begins, with a later segment: its hello is too late"

# fmt: off
DIFFERENCES: dict[str, dict[str, tuple[str, set[tuple[int, str]]]]] = {
    # variant: capture: why, and the (connection, field) of which something else is said
    "swapped": {
        "dg07-alert.pcap":              (FIN_FIRST,    {(0, "findings")}),
        "hb01-mirrored.pcap":           (COPY,         {(0, "findings")}),
        "tcp-reuse-after-fin.pcap":     (REUSED,       {(1, "sync")}),
        "tcp-reuse-after-reset.pcap":   (REUSED,       {(1, "sync")}),
        "tcp-reuse-at-once.pcap":       (REUSED,       {(1, "sync")}),
    },
    "shuffled": {
        "hb01-mirrored.pcap":           (COPY,         {(0, "findings")}),
        "hb01-retransmitted.pcap":      (COPY,         {(0, "findings")}),
        "sm02-hello-unasked.pcap":      (BEFORE_SYN,   {(0, "findings")}),
        "tcp-reuse-at-once.pcap":       (REUSED,       {(0, "sync"), (1, "sync"), (1, "version"), (1, "cipher_suite"), (1, "ja3s"),
                                                        (1, "cipher_suite_code"), (1, "resumed"), (1, "established")}),
        "tcp-server-first.pcap":        (NO_HELLO,     {(0, "sync"), (0, "client_version"), (0, "sni"), (0, "established"),
                                                        (0, "ja3"), (0, "ja4")}),
    },
}
# fmt: on


def said(path: Path, origin: Any) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = engine.without_rewriting(engine.shown(analyze(path), origin))
    return sorted(shown, key=lambda row: (row["client"]["port"], row["client"]["address"]))


@cache
def of_the_original(path: Path) -> list[dict[str, Any]]:
    return said(path, range(1, len(frames(path.name)) + 1))


def accused(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(id, offender) of what is found against somebody."""
    return {
        (rule, offender)
        for row in rows
        for rule, action, offender, _ in row["findings"]
        if action in ("A", "A*")
    }


def different(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> set[tuple[int, str]]:
    return {
        (number, name)
        for number, (row, other) in enumerate(zip(rows, others, strict=True))
        for name in row.keys() | other.keys()
        if row.get(name) != other.get(name)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [variant for variant in VARIANTS if variant.name in FORMS],
    ids=lambda variant: variant.name,
)
def test_a_variant_of_every_crafted_capture(variant: Variant, tmp_path: Path) -> None:
    found = {}
    for path in CRAFTED:
        made, _, packets = variant.make(tmp_path, frames(path.name))
        original, rows = of_the_original(path), said(made, [frame.origin for frame in packets])
        if fields := different(original, rows):
            found[path.name] = fields
        assert accused(rows) <= accused(original), path.name
    assert found == {name: fields for name, (_, fields) in DIFFERENCES.get(variant.name, {}).items()}
