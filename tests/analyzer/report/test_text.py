from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.report import text
from analyzer.report.text import (
    byte_count,
    count,
    duration,
    hexadecimal,
    listed,
    moment,
    packet_filter,
    visible,
)


def test_examples():
    assert doctest.testmod(text).failed == 0


@given(st.text(st.characters(codec=None), max_size=400))
def test_nothing_that_steers_a_terminal_is_left(string):
    assert visible(string).isprintable()


def test_every_control_character_is_written_out():
    others = (0x200B, 0x202E, 0x2028, 0x2066, 0xFEFF, 0xD800, 0xE0001, 0x10FFFF)
    for code in (*range(0x20), *range(0x7F, 0xA0), *others):
        assert visible(chr(code)).startswith("\\")
        assert visible(chr(code)).isascii()


def test_what_is_printed_as_itself_stays():
    assert (
        visible("www.example.net bücher.example 漢字 [red] 😀")
        == "www.example.net bücher.example 漢字 [red] 😀"
    )


def test_long_strings_are_cut_and_say_so():
    assert visible("a" * 1000, 10) == "aaaaaaaaaa… (990 more)"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (39_524, "39.5 kB"),
        (188_000_000, "188 MB"),
        (999_999_999, "1.0 GB"),
        (2 << 40, "2.2 TB"),
        (10**18, "1000000 TB"),
    ],
)
def test_byte_count(number, expected):
    assert byte_count(number) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.00 s"),
        (2.1, "2.10 s"),
        (59.4, "59 s"),
        (59.9, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (172_800, "2 days 0 h"),
        (10**9, "11574 days 1 h"),
    ],
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected


def test_moment_of_any_time_stamp():
    assert moment(1_397_056_323_999_999_999) == "2014-04-09 15:12:03 UTC"
    for time_ns in (0, -1, -(1 << 63), (1 << 63) - 1):
        assert moment(time_ns).isprintable()


def test_words():
    assert count(1, "packet") == "1 packet"
    assert count(1204, "packet") == "1,204 packets"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_display_filters_are_wireshark_syntax():
    assert packet_filter([7]) == "frame.number == 7"
    assert packet_filter([7, 9]) == "frame.number in {7, 9}"


def test_bytes_are_read_in_pairs():
    assert hexadecimal("1803014000") == "18 03 01 40 00"
    assert hexadecimal("00" * 100, 2) == "00 00 … (100 bytes)"
