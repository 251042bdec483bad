"""The header of every file: nothing is left out of it, and nothing gets out of it."""

from __future__ import annotations

import pytest

from analyzer.version import VERSION
from rulegen.backends import BACKENDS
from rulegen.backends.header import REMARK_MAX, header, remark
from rulegen.ir.match import Direction, InDirection, InState, Marked, Not, Protocol, State, all_of
from rulegen.ir.rule import Source


def lines(ruleset) -> list[str]:
    return list(
        header(
            ruleset,
            made_for="some tool",
            place="forward",
            needs=("a module",),
            commands={"Load": "tool FILE"},
            limits=("Not looked into: tunnels.",),
        )
    )


def test_it_says_what_made_the_file_and_how_to_use_it(ruleset_of):
    ruleset = ruleset_of(
        Protocol("tcp"),
        sources=(Source(name="a.pcap", sha256="12" * 32), Source(name="-", sha256=None)),
        policies=("heartbleed:ports=443", "block"),
        remarks=("Mind the gap.",),
    )
    assert lines(ruleset) == [
        f"# Made by tlswall {VERSION} for some tool.",
        "#",
        f"# Capture:  a.pcap sha256 {'12' * 32}",
        "# Capture:  - sha256 (not a file)",
        "# Policy:   heartbleed:ports=443",
        "# Policy:   block",
        "# Mind:     Mind the gap.",
        "# Hook:     forward",
        "# Needs:    connection tracking, for the reassembly of IP fragments",
        "# Needs:    a module",
        "#",
        "# Load:     tool FILE",
        "#",
        "# Not looked into: tunnels.",
    ]


@pytest.mark.parametrize(
    ("match", "why"),
    [
        (InState(frozenset({State.NEW})), "states"),
        (all_of(InDirection(Direction.REPLY), Not(Marked(1))), "directions, marks"),
    ],
)
def test_it_says_for_what_connections_are_tracked(ruleset_of, match, why):
    assert f"# Needs:    connection tracking, for {why}, the reassembly of IP fragments" in lines(
        ruleset_of(match)
    )


def test_it_says_that_fragments_pass_where_they_do(ruleset_of):
    text = "\n".join(lines(ruleset_of(Protocol("tcp"), defragment=False)))
    assert "no reassembly of IP fragments, which pass unjudged" in text
    assert "connection tracking, for" not in text


def test_a_long_policy_is_all_there(ruleset_of):
    names = ",".join(f"host-{number}.example" for number in range(400))
    found = [
        line
        for line in lines(ruleset_of(Protocol("tcp"), policies=(f"sni:names={names}",)))
        if "host" in line
    ]
    assert len(found) > 1
    assert (
        "".join(line.removeprefix("# ").removeprefix("Policy:").strip() for line in found)
        == f"sni:names={names}"
    )


@pytest.mark.parametrize("text", ["a\nb", "a\r\x00b", "\x1b[2J", "\u2028\u202e\x85", "\ud800"])
def test_a_remark_is_one_line_of_what_can_be_printed(text):
    assert remark(text).isprintable()
    remark(text).encode()


def test_a_remark_is_not_longer_than_a_line_of_the_restore_tools():
    assert len(remark("\U0001f600" * 50_000).encode()) < 10_240
    assert remark("x" * 50_000).endswith("x...")
    assert len(remark("x" * REMARK_MAX)) == REMARK_MAX + 2


@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
def test_every_backend_has_it(respond, backend):
    text = backend.emit(respond((), "block").ruleset).text
    for word in ("Made by", "Capture:", "Policy:", "Hook:", "Needs:", "Check:", "Load:", "Watch:", "Remove:"):
        assert f"\n# {word}" in f"\n{text}"
