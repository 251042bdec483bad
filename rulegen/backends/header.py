"""The comment that opens every file: what made it, from what, what it needs, and how to use it.

In:  Ruleset; the backend's words for its place, needs, commands and limits.
Out: comment lines, for tools that take `#` to the end of the line for a comment.
Source: the restore tools of iptables 1.8 read lines of 10,240 bytes and take what follows for a line of its
    own, so that a comment must never be longer.

The one rule not to break: names of captures and what the user wrote reach a file through `remark` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from analyzer.version import VERSION
from rulegen.ir.match import InDirection, InState, Marked, Match, leaves
from rulegen.ir.rule import ConnectionLimit, Rule, Ruleset, SetMark

REMARK_MAX: Final = 1000
"""Characters; a character has four bytes at most."""

_INDENT: Final = 10


def header(
    ruleset: Ruleset,
    *,
    made_for: str,
    place: str,
    needs: Iterable[str],
    commands: Mapping[str, str],
    limits: Iterable[str],
) -> Iterator[str]:
    """The comment lines.

    Args:
        ruleset: What the file says.
        made_for: The tool and the versions that can read it.
        place: Where in the host's rules it sits.
        needs: What the backend needs, kernel modules for example, besides what the ruleset itself does.
        commands: What the user may want to do (Check, Load, Watch, Remove) -> how, the file being FILE.
        limits: Lines on what the backend does not look into.
    """
    captures = (f"{source.name} sha256 {source.sha256 or '(not a file)'}" for source in ruleset.sources)
    policies = ruleset.policies or ("none; there was nothing to answer",)
    yield remark(f"Made by tlswall {VERSION} for {made_for}.")
    yield "#"
    yield from _entries("Capture", captures)
    yield from _entries("Policy", policies)
    yield from _entries("Mind", ruleset.remarks)
    yield from _entries("Hook", (place,))
    yield from _entries("Needs", (*ruleset_needs(ruleset), *needs))
    yield "#"
    for head, command in commands.items():
        yield from _entries(head, (command,))
    yield "#"
    yield from map(remark, limits)


def _entries(head: str, texts: Iterable[str]) -> Iterator[str]:
    """What is too long for a line goes on in the next."""
    room = REMARK_MAX - _INDENT
    for text in texts:
        for start in range(0, len(text), room):
            yield remark(f"{'' if start else f'{head}:':{_INDENT}}{text[start : start + room]}")


def remark(text: str) -> str:
    """A line of the file for readers."""
    harmless = "".join(char if char.isprintable() else "?" for char in text).rstrip()
    return f"# {harmless if len(harmless) <= REMARK_MAX else f'{harmless[: REMARK_MAX - 3]}...'}".rstrip()


def ruleset_needs(ruleset: Ruleset) -> Iterator[str]:
    """What a ruleset needs of the host, whatever the backend."""
    words = set().union(
        *(tracked(chain.guard) for chain in ruleset.chains), *map(rule_tracked, ruleset.rules)
    )
    why = sorted(words)
    if ruleset.defragment:
        why.append("the reassembly of IP fragments")
    if why:
        yield f"connection tracking, for {', '.join(why)}"
    if not ruleset.defragment:
        yield "no reassembly of IP fragments, which pass unjudged unless something else tracks connections"


def rule_tracked(rule: Rule) -> set[str]:
    """For what a rule needs connection tracking."""
    words = tracked(rule.match)
    if any(isinstance(effect, SetMark) for effect in rule.effects):
        words.add("marks")
    if isinstance(rule.limit, ConnectionLimit):
        words.add("open connections")
    return words


def tracked(match: Match) -> set[str]:
    """For what a match needs connection tracking."""
    kinds = {InState: "states", InDirection: "directions", Marked: "marks"}
    return {kinds[type(leaf)] for leaf in leaves(match) if type(leaf) in kinds}
