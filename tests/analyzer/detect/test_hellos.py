"""What hellos say, as evidence."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.detect import hellos
from analyzer.tls import hello

LIST = hello.SUPPORTED_VERSIONS


@pytest.mark.parametrize(
    ("flags", "highest", "bits", "names"),
    [
        (0, 0x0303, 0, ["up to TLSv1.2"]),
        (0, 0x0002, 0, ["up to SSLv2"]),
        (LIST, 0x0304, 0b11110, ["TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1.0"]),
        (LIST, 0x0304, 0b1000, ["TLSv1.2"]),
        (LIST | hello.DRAFT_13, 0x0304, 0b1000, ["TLSv1.2", "TLSv1.3 draft"]),
        (LIST, 0x0305, 0b100000, ["0x0305"]),
    ],
)
def test_offered_versions(flags: int, highest: int, bits: int, names: list) -> None:
    assert hellos.offered(flags, highest, bits) == names


@pytest.mark.parametrize(
    ("flags", "version", "fits"),
    [
        (hello.SENTINEL_12, 0x0303, True),
        (hello.SENTINEL_11, 0x0302, True),
        (hello.SENTINEL_11, 0x0301, True),
        (hello.SENTINEL_11, 0x0300, True),
        (hello.SENTINEL_12, 0x0302, False),
        (hello.SENTINEL_11, 0x0303, False),
        (hello.SENTINEL_12, 0x0304, False),
        (hello.SENTINEL_11, 0x0002, False),
        (0, 0x0303, False),
        (-1, 0x0303, False),  # no ServerHello
    ],
)
def test_the_mark_fits_its_version(flags: int, version: int, fits: bool) -> None:
    assert bool(hellos.mark_fits(flags, version)) == fits
    assert hellos.mark_fits(np.array([flags]), np.array([version])).tolist() == [fits]
