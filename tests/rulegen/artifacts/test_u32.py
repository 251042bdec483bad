"""xt_u32's grammar and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.artifacts.u32 import U32, Location, Step, U32Test, parse_u32

numbers = st.integers(0, 0xFFFFFFFF)
steps = st.builds(Step, st.sampled_from("&@"), numbers) | st.builds(
    Step, st.sampled_from(("<<", ">>")), st.integers(0, 31)
)
locations = st.builds(Location, numbers, st.lists(steps, max_size=9).map(tuple))
ranges = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=10).map(tuple)
expressions = st.builds(
    U32, st.lists(st.builds(U32Test, locations, ranges), min_size=1, max_size=10).map(tuple)
)


def test_what_the_manual_shows():
    program = parse_u32("0 & 0xFFFF = 0x100:0xFFFF && 6&0xFF=1 && 4&0x3FFF=0 && 0>>22&0x3C@0>>24=0,010,3:5")
    assert [test.ranges for test in program.tests] == [
        ((0x100, 0xFFFF),), ((1, 1),), ((0, 0),), ((0, 0), (8, 8), (3, 5)),
    ]  # fmt: skip
    assert program.tests[3].location == Location(
        0, (Step(">>", 22), Step("&", 0x3C), Step("@", 0), Step(">>", 24))
    )


@given(expressions)
def test_what_is_printed_reads_as_before(program):
    assert parse_u32(str(program)) == program


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a number is missing"),
        ("0", "operator or '='"),
        ("0=", "a number is missing"),
        ("=1", "a number is missing"),
        ("0=1&&", "a number is missing"),
        ("0=1 2", "',' or '&&'"),
        ("0=1,", "a number is missing"),
        ("0&=1", "a number is missing"),
        ("0<1=1", "operator or '='"),
        ("0=-1", "a number is missing"),
        ("0=0x100000000", "more than 32 bits"),
        ("0=09", "no octal"),
        ("0=" + "9" * 10_000, "u32"),
        ("0>>32=1", "shift"),
        ("&&".join(["0=1"] * 11), "more than 10 tests"),
        ("0=" + ",".join("1" * 11), "more than 10 ranges"),
        ("0" + "&1" * 10 + "=1", "more than 10 numbers"),
    ],
)
def test_what_the_grammar_does_not_have(text, why):
    with pytest.raises(ValueError, match=f"(?s).*{why}"):
        parse_u32(text)


@given(st.text(alphabet="0123456789abcxX&<>@=,: -", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        program = parse_u32(text)
    except ValueError:
        return
    assert parse_u32(str(program)) == program
