"""Variants of all shipped captures, made once for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.agreement import tshark
from tests.agreement.frames import Frame, all_frames
from tests.agreement.variants import VARIANTS, Variant

Made = tuple[Path, Path, list[Frame]]
"""Path, path for tshark, packets."""


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Variant], Made]]:
    """Makes a variant. While a test is at work, tshark reads the next ones: its start takes longer than the test."""
    folder = tmp_path_factory.mktemp("variants")
    made = cache(lambda variant: variant.make(folder, all_frames()))
    reader = ThreadPoolExecutor(1)

    def make(variant: Variant) -> Made:
        if shutil.which("tshark"):
            at = VARIANTS.index(variant)
            for one in VARIANTS[at : at + 3]:
                tshark.read_by(reader, made(one)[1])
        return made(variant)

    yield make
    reader.shutdown(cancel_futures=True)
