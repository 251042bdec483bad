"""Link types are named for messages, whatever number a file holds."""

from __future__ import annotations

from analyzer.wire.linktypes import SUPPORTED, LinkType, name_of


def test_a_known_number_has_its_name() -> None:
    assert name_of(127) == "IEEE802_11_RADIOTAP"
    assert name_of(LinkType.ETHERNET) == "ETHERNET"


def test_an_unknown_number_has_none() -> None:
    assert name_of(4000) == name_of(-1) == "unknown"


def test_what_the_issue_asks_for_is_supported() -> None:
    assert {0, 1, 9, 12, 14, 50, 101, 108, 113, 228, 229, 276} <= SUPPORTED
