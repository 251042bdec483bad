"""Compare our packet columns with scapy's.

In:  the tables of scapy_fields.py, ours and scapy's.
Out: Differences. A packet of which scapy has no opinion gives none.
Source: crosscheck.scapy_fields says what scapy can't do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from analyzer.columns.schema import Kind
from analyzer.crosscheck.difference import Difference

Table = Mapping[str, Sequence[Any]]


def compare_packets(ours: Table, theirs: Table) -> list[Difference]:
    """List the differences between the packets of one capture."""
    names = list(theirs)
    differences: list[Difference] = []
    mine, other = (zip(*(table[name] for name in names), strict=True) for table in (ours, theirs))
    for number, (row, opinion) in enumerate(zip_longest(mine, other), start=1):
        if row is None or opinion is None:
            differences.append(_difference(number, "packet", row is not None, opinion is not None))
            continue
        one, two = dict(zip(names, row, strict=True)), dict(zip(names, opinion, strict=True))
        if two["kind"] is None:
            continue
        if one["kind"] != two["kind"]:  # then nothing else is comparable
            differences.append(
                _difference(
                    number,
                    "kind",
                    one["kind"].name,
                    two["kind"].name,
                    "scapy does not put fragments together" if two["kind"] == Kind.FRAGMENT else None,
                )
            )
            continue
        differences += [
            _difference(number, name, one[name], two[name]) for name in names if one[name] != two[name]
        ]
    return differences


def _difference(
    packet: int, field: str, ours: object, theirs: object, explanation: str | None = None
) -> Difference:
    return Difference(
        where=f"packet {packet}",
        field=field,
        ours=ours,
        theirs=theirs,
        opinion="scapy",
        explanation=explanation,
    )
