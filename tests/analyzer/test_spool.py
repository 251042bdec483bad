"""What waits for the end of an analysis: in order, whole, and never more of it in memory than the limits say."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import limits, pipeline
from analyzer.connections import COLUMNS, Batch, join
from analyzer.model import Action, Finding, Severity
from analyzer.spool import ConnectionSpool, Directory, FindingSpool
from analyzer.tls.hello import ClientTexts, ServerTexts
from tests.recut import CRAFTED, SHIPPED, json_of

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # as is meant here
CAPTURE, CONNECTION = COLUMNS.index("CAPTURE"), COLUMNS.index("CONNECTION")
HOSTILE = b"\x00\xff\r\n\x1b[31m"


def batch(names: Iterable[tuple[int, int]]) -> Batch:
    """A row per (capture, connection), each different from all others in every column and text."""
    keys = list(names)
    seeds = np.array([capture * 1_000_003 + connection for capture, connection in keys], dtype=np.int64)
    numbers = seeds * 131 + np.arange(len(COLUMNS))[:, None]
    numbers[[CAPTURE, CONNECTION]] = np.array(keys, dtype=np.int64).reshape(-1, 2).T
    raw = [HOSTILE + b"%d" % seed for seed in seeds]
    text = [f"{seed}\u202e" for seed in seeds]
    return Batch(
        numbers,
        (seeds * 7 + np.arange(5)[:, None]).astype(np.uint64) << np.uint64(20),
        [
            ClientTexts(b"1" + r, b"2" + r, b"3" + r, b"4" + r, "5" + t, "6" + t)
            for r, t in zip(raw, text, strict=True)
        ],
        [ServerTexts(b"7" + r, b"8" + r, b"9" + r, "0" + t) for r, t in zip(raw, text, strict=True)],
        text,
    )


def content(batches: Iterable[Batch]) -> tuple[Any, ...]:
    whole = join(list(batches))
    return whole.numbers.tolist(), whole.keys.tolist(), whole.clients, whole.servers, whole.alerts


def names(batches: Iterable[Batch]) -> list[tuple[int, int]]:
    return [one.name(row) for one in batches for row in range(len(one))]


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture(autouse=True)
def _gone() -> Iterator[None]:
    """What a test wrote goes with it."""
    yield
    gc.collect()


def files(directory: Directory) -> int:
    """How many files were written before this one."""
    return int(directory.file().stem) - 1


# connections


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 35)), unique=True, max_size=60),
    st.lists(st.integers(0, 12), max_size=12),
    st.integers(0, 30),
)
def test_whatever_the_order_of_ends_connections_come_in_the_order_of_their_numbers(
    keys, sizes, rows_in_memory
):
    spool = ConnectionSpool(Directory())
    rest = keys
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SPILL_BYTES", rows_in_memory * limits.CONNECTION_ROW_BYTES)
        for size in [*sizes, len(keys)]:
            spool.add(batch(rest[:size]))
            rest = rest[size:]
    assert spool.count == len(keys)
    for _ in range(2):  # and again
        assert content(spool.in_order()) == content([batch(sorted(keys))])
        assert sorted(names(spool.batches())) == sorted(keys)


def test_an_empty_batch_is_none(directory):
    spool = ConnectionSpool(directory)
    spool.add(batch([]))
    assert spool.count == 0
    assert list(spool.batches()) == list(spool.in_order()) == []


def test_runs_longer_than_what_is_read_at_once_are_merged_too(directory, monkeypatch):
    monkeypatch.setattr(limits, "SPILL_BYTES", 9_000 * limits.CONNECTION_ROW_BYTES)
    spool = ConnectionSpool(directory)
    keys = [(0, number) for number in np.random.default_rng(1).permutation(40_000).tolist()]
    for begin in range(0, len(keys), 1_000):
        spool.add(batch(keys[begin : begin + 1_000]))
    assert names(spool.in_order()) == sorted(keys)
    assert sorted(names(spool.batches())) == sorted(keys)
    assert files(directory) == 4


def test_connections_go_to_a_file_when_they_are_more_than_the_limit(directory, monkeypatch):
    monkeypatch.setattr(limits, "SPILL_BYTES", 10 * limits.CONNECTION_ROW_BYTES)
    spool = ConnectionSpool(directory)
    spool.add(batch((0, number) for number in range(10)))
    spool.add(batch([]))
    written = files(directory)
    spool.add(batch([(0, 10)]))
    assert files(directory) == written + 2, "this one, and the one that was asked for"


def test_a_row_takes_what_the_limit_takes_it_for():
    tracemalloc.start()
    try:
        kept = batch((0, number) for number in range(1000))
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.5 < size / len(kept) / limits.CONNECTION_ROW_BYTES < 1.5


def test_memory_is_bounded_whatever_the_number_of_connections(directory, monkeypatch):
    """Writing and reading: a few times the limit, not the 30 times that the connections have."""
    monkeypatch.setattr(limits, "SPILL_BYTES", 2 << 20)
    spool = ConnectionSpool(directory)
    spool.add(batch((0, number) for number in range(2000)))  # pyarrow is imported
    many = (60 << 20) // limits.CONNECTION_ROW_BYTES
    tracemalloc.start()
    try:
        for begin in range(0, many, 200):
            spool.add(batch((1, many - number) for number in range(begin, begin + 200)))
        added = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        read = sum(len(one) for one in spool.batches())
        batches = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == spool.count
    assert added < 5 * limits.SPILL_BYTES
    assert batches < 5 * limits.SPILL_BYTES


# findings


def finding(**changes: Any) -> Finding:
    values: dict[str, Any] = {
        "id": "HB01",
        "title": "title",
        "severity": Severity.HIGH,
        "action": Action.BLOCK,
        "connection": 0,
        "packets": (8, 10),
        "evidence": {"bytes": "1803", "nested": [{"address": "2001:db8::1"}], "share": 0.5, "none": None},
        "explanation": "What it means.",
        "references": ("RFC 6520 4", "CVE-2014-0160"),
        "offender": "192.0.2.10",
        "victims": ("198.51.100.10",),
        "policy": "heartbleed",
        **changes,
    }
    return Finding(**values)


some = st.builds(
    lambda **changes: finding(**changes),
    id=st.sampled_from(("HB01", "HB03", "DG12")),
    severity=st.sampled_from(Severity),
    action=st.sampled_from(Action),
    capture=st.integers(0, 2),
    connection=st.none() | st.integers(0, 5),
    packets=st.lists(st.integers(1, 99), max_size=3).map(tuple),
    offender=st.none() | st.just("2001:db8::7"),
    victims=st.lists(st.just("192.0.2.1"), max_size=2).map(tuple),
)


@settings(max_examples=60)
@given(st.lists(st.lists(some, max_size=6), max_size=8), st.integers(0, 10))
def test_findings_come_worst_first_and_unchanged(portions, in_memory):
    spool = FindingSpool(Directory())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SPILL_FINDINGS", in_memory)
        for portion in portions:
            spool.add(portion)
    everything = [one for portion in portions for one in portion]
    found = list(spool.in_order())
    assert spool.count == len(found) == len(everything)
    assert found == list(spool.in_order())
    assert sorted(map(repr, found)) == sorted(map(repr, everything))
    assert [place(one) for one in found] == sorted(place(one) for one in everything)


def place(one: Finding) -> tuple[Any, ...]:
    """By severity, capture, connection (a finding about several last) and id."""
    last = one.connection is None
    return (-one.severity, one.capture, last, 0 if last else one.connection, one.id, one.packets)


def test_findings_go_to_a_file_when_they_are_more_than_the_limit(directory, monkeypatch):
    monkeypatch.setattr(limits, "SPILL_FINDINGS", 2)
    spool = FindingSpool(directory)
    spool.add([finding(), finding()])
    written = files(directory)
    spool.add([finding()])
    assert files(directory) == written + 2


# the directory


def test_the_directory_is_there_when_it_is_needed_and_goes_with_its_owner():
    directory = Directory()
    first, second = directory.file(), directory.file()
    folder = first.parent
    assert first != second
    assert folder == second.parent
    first.write_bytes(b"run")
    del directory
    gc.collect()
    assert not folder.exists()


def test_a_small_capture_needs_no_pyarrow():
    code = (
        "import sys, analyzer\n"
        f"analysis = analyzer.analyze({str(SHIPPED[0])!r})\n"
        "list(analysis.iter_connections()), list(analysis.iter_findings())\n"
        "print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# the whole analysis


def test_an_analysis_says_the_same_when_everything_goes_to_files(monkeypatch):
    """The detectors that look across connections read them from files too."""
    paths: list[Path] = [*CRAFTED, *SHIPPED]
    whole = json_of(pipeline.analyze(paths))
    monkeypatch.setattr(limits, "SPILL_BYTES", 0)
    monkeypatch.setattr(limits, "SPILL_FINDINGS", 0)
    assert json_of(pipeline.analyze(paths)) == whole
