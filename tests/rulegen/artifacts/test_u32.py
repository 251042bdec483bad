"""xt_u32's grammar and limits."""

from __future__ import annotations

import random
import shutil
import subprocess

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


def nearly(chance: random.Random) -> str:
    """An expression at the limits, often with a fault in it."""

    def some(parts, *counts):
        return [chance.choice(parts) for _ in range(chance.choice(counts))]

    def test() -> str:
        steps = some(("&0xF", ">>4", "@ 2", " << 3", "@0x1", "& 010"), 0, 0, 1, 2, 3, 4, 9, 10)
        values = some(("1", "2:3", " 4 : 5", "010", "0:0xffffffff", "4294967295"), 1, 1, 1, 2, 3, 10, 11)
        return f"{chance.choice(('0', ' 6 ', '0x3C'))}{''.join(steps)}={','.join(values)}"

    text = chance.choice(("&&", " && ")).join(test() for _ in range(chance.choice((1, 1, 1, 2, 3, 10, 11))))
    if chance.random() < 0.5:
        at = chance.randrange(len(text))
        text = (
            text[:at]
            + chance.choice(("", "&", "<", ":", ",", "=", "08", "-1", "4294967296", "@", "x"))
            + text[at + 1 :]
        )
    return text


@pytest.mark.netns
@pytest.mark.parametrize("seed", range(2))
def test_iptables_reads_the_same(seed):
    """What the tool takes is taken, and means what it saves; what it refuses is refused."""
    if shutil.which("iptables-legacy") is None:
        pytest.skip("iptables-legacy is not installed")
    chance = random.Random(seed)
    texts = [nearly(chance) for _ in range(120)]
    script = (
        "iptables-legacy -S >/dev/null || exit 3\n"
        'while IFS= read -r text; do if iptables-legacy -A FORWARD -m u32 --u32 "$text" 2>/dev/null >&2; then '
        "iptables-legacy -S FORWARD | sed -n 2p; iptables-legacy -F; else echo refused; fi; done"
    )
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", script]
    done = subprocess.run(command, input="\n".join((*texts, "")), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel has no iptables-legacy: {done.stderr.strip()}")
    answers = done.stdout.splitlines()
    assert answers.count("refused") > 20
    assert len(answers) - answers.count("refused") > 20
    for text, answer in zip(texts, answers, strict=True):
        try:
            expected = f'-A FORWARD -m u32 --u32 "{parse_u32(text)}"'
        except ValueError:
            expected = "refused"
        assert answer == expected, text
