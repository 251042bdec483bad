"""A lab that shows what connection tracking says of each packet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rulegen.evaluate.conntrack_settings import TESTBED
from rulegen.testbed.netns import LabError
from tests.rulegen.evaluate.shown import configure, rules
from tests.rulegen.evaluate.watch import WatchingBench


@pytest.fixture(scope="session")
def lab_that_shows() -> Iterator[WatchingBench]:
    root = str(Path(__file__).parents[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", root)
        try:
            bench = WatchingBench().__enter__()
        except LabError as error:
            pytest.skip(f"no lab: {error}")
    try:
        bench.load(rules())
        yield bench
    finally:
        bench.close()


@pytest.fixture
def shown(lab_that_shows: WatchingBench) -> WatchingBench:
    configure(lab_that_shows, TESTBED)
    lab_that_shows.forget()
    return lab_that_shows
