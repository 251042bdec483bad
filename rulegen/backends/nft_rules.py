"""Translate rules into nft's chains, lines and sets.

In:  Ruleset, checked.
Out: Writer: chains in the order in which they are first named, the sets of ranges, fidelity, refusals.
Source: nft(8), grammar of 1.0.6.

A rule is one line where one line can say it. Otherwise the policy's chain has a line with what all
alternatives share, which jumps to a chain of the rule's own, and a single line in the end has the rule's
counter and verdict: one counter per rule, always. Its comment begins with [name]; those of the lines that
lead there with (name).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analyzer.wire.fields import Layer
from rulegen.backends.base import Fidelity, Level, origin_text
from rulegen.backends.header import remark
from rulegen.backends.nft_text import (
    COMPARE_MAX_BITS,
    CantSay,
    effect_words,
    identifier,
    implies,
    limit_words,
    quoted,
    verdict_words,
    words,
)
from rulegen.errors import InvalidRuleset, Unsupported
from rulegen.ir.match import Match
from rulegen.ir.rule import Chain, Limit, Rule, Ruleset, Verdict
from rulegen.lower.first_record import first_record, narrowed
from rulegen.lower.literals import MANY, Conjunction, Has, Is, Literal, Load, Normal, Within
from rulegen.lower.normal import lower_match
from rulegen.lower.ranges import Ranges, complement

NAME: Final = "nft"


class Writer:
    """Rules -> chains of lines and the sets that they need."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self.chains: dict[str, list[str]] = {}
        self.range_sets: dict[tuple[Load, Ranges], str] = {}
        """What a set holds -> its name."""
        self.counting_sets: dict[str, Rule] = {}
        self.entries: list[str] = []
        """Lines of the base chain, one per policy chain."""
        self.fidelity: list[Fidelity] = []
        self.refusals: list[Unsupported] = []

    def write(self) -> None:
        for chain in self.ruleset.chains:
            try:
                self._enter(chain)
            except CantSay as error:
                self.refusals.append(Unsupported(NAME, f"guard of {chain.name}", str(error)))
            lines = self._chain(identifier("policy", chain.name))
            for rule in chain.rules:
                try:
                    lines = self._rule(lines, rule)
                except CantSay as error:
                    self.refusals.append(Unsupported(NAME, rule.name, str(error)))

    def _chain(self, name: str) -> list[str]:
        return self.chains.setdefault(name, [])

    def _enter(self, chain: Chain) -> None:
        """From the base chain to a policy's."""
        normal = _possible(first_record(chain.guard), f"guard of {chain.name}")
        target, note = identifier("policy", chain.name), f"({chain.name}) candidates"
        if _inline(normal):
            self.entries.append(self._line(chain.name, normal.common, f"jump {target}", note))
            return
        inner = identifier("guard", chain.name)
        tests, lacking = _split(normal.common)
        self.entries.append(self._line(chain.name, tests, f"jump {inner}", note))
        self._any(inner, chain.name, lacking, normal.alternatives, f"goto {target}", note)

    def _rule(self, lines: list[str], rule: Rule) -> list[str]:
        """Append a rule to a policy's chain. Returns the chain where the policy's next rule belongs."""
        normal = _possible(first_record(rule.match), f"rule {rule.name}")
        fidelity = _fidelity(rule, normal, self.ruleset)
        self.fidelity.append(fidelity)
        lines += map(remark, (f"{rule.name}: {rule.meaning}", "; ".join((fidelity.level, *fidelity.notes))))
        before, verdict = self._statements(rule), verdict_words(rule.verdict)
        note = f"[{rule.name}] {origin_text(rule.origin)}"
        if _inline(normal):
            lines.append(self._line(rule.name, normal.common, verdict, note, before=before))
            return lines
        name = identifier("rule", rule.name)
        tests, lacking = _split(normal.common)
        candidates = f"({rule.name}) candidates"
        if rule.verdict is not Verdict.PASS:
            lines.append(self._line(rule.name, tests, f"jump {name}", candidates))
            self._any(name, rule.name, lacking, normal.alternatives, verdict, note, before=before)
            return lines
        # `return` has to leave the policy's chain: the rule's chain takes its place and hands on the rest.
        rest = identifier(name, "else")
        lines.append(self._line(rule.name, tests, f"goto {name}", candidates))
        lines.append(self._line(rule.name, (), f"goto {rest}", candidates))
        self._any(name, rule.name, lacking, normal.alternatives, verdict, note, before=before, otherwise=rest)
        return self._chain(rest)

    def _any(
        self,
        name: str,
        rule: str,
        lacking: Sequence[Has],
        alternatives: Sequence[Conjunction],
        verdict: str,
        note: str,
        *,
        before: str = "",
        otherwise: str | None = None,
    ) -> None:
        """A chain that does `verdict` if none of `lacking` is there and an alternative holds.

        nft has no test for a byte that is not there, only for one that is: such a packet is sent away first,
        to where the next alternative is tried.
        """
        leave = "return" if otherwise is None else f"goto {otherwise}"
        candidates = f"({rule}) candidates"
        chain = self._chain(name)
        chain += [self._line(rule, (has,), leave, f"({rule}) long enough to judge") for has in lacking]
        if len(alternatives) > 1 and (before or not verdict.startswith("goto")):
            hit = identifier(name, "hit")
            self._chain(hit).append(self._line(rule, (), verdict, note, before=before))
            before, verdict, note = "", f"goto {hit}", candidates
        for number, alternative in enumerate(alternatives):
            tests, absent = _split(alternative)
            if not absent:
                chain.append(self._line(rule, tests, verdict, note, before=before))
                continue
            inner = identifier(name, str(number))
            chain.append(self._line(rule, tests, f"goto {inner}", candidates))
            away = leave
            last = number == len(alternatives) - 1
            if not last:
                away = f"goto {identifier(inner, 'else')}"
                chain.append(self._line(rule, (), away, candidates))
                chain = self._chain(identifier(inner, "else"))
            self._chain(inner).extend(
                [
                    *(self._line(rule, (has,), away, f"({rule}) long enough to judge") for has in absent),
                    self._line(rule, (), verdict, note, before=before),
                ]
            )
        if otherwise is not None:
            chain.append(self._line(rule, (), leave, candidates))

    def _statements(self, rule: Rule) -> str:
        """What a rule does besides its verdict, and its counter."""
        parts = []
        if rule.limit is not None:
            counted = identifier("counts", rule.name)
            if rule.limit.key:
                self.counting_sets[counted] = rule
            parts.append(limit_words(rule.limit, counted))
        return " ".join((*parts, "counter", *map(effect_words, rule.effects)))

    def _line(self, rule: str, literals: Conjunction, action: str, note: str, *, before: str = "") -> str:
        implied = {implies(literal) for literal in literals}
        tests = (
            self._words(rule, literal)
            for literal in literals
            if not (isinstance(literal, Is) and not literal.other and literal.protocol in implied)
        )
        parts = (*tests, before or "counter", action, f"comment {quoted(note)}")
        return " ".join(filter(None, parts))

    def _words(self, rule: str, literal: Literal) -> str:
        if not isinstance(literal, Within):
            return words(literal)
        load, ranges = literal.load, literal.ranges
        if not _set_apart(load, ranges):
            return words(literal)
        key = (load, ranges)
        if key not in self.range_sets:
            self.range_sets[key] = self._set_name(rule, load, ranges)
        return words(literal, self.range_sets[key])

    def _set_name(self, rule: str, load: Load, ranges: Ranges) -> str:
        """Sets of one name are of one kind, also in files with other parameters: see nft.py."""
        kind = "ranges" if any(low != high for low, high in ranges) else "values"
        place = load.field or f"{load.layer}-{load.byte_offset}-{load.width_bytes}"
        name = identifier(kind, rule, place.replace(".", "-"))
        number = sum(known.startswith(name) for known in self.range_sets.values())
        return identifier(name, str(number + 1)) if number else name


def _set_apart(load: Load, ranges: Ranges) -> bool:
    """In a set with a name: what is too much for a comparison, and intervals that would need a set without.

    A set without a name is a new one whenever its rule is loaded. Linux 6.18 finds no interval in a new set
    for some 100 us after its rule is in force; packets in between would not match.
    """
    listed = min(ranges, complement(ranges, load.width_bits), key=len)
    intervals = len(listed) > 1 and any(low != high for low, high in listed)
    return intervals or len(ranges) > MANY or load.width_bits > COMPARE_MAX_BITS


def _possible(match: Match, where: str) -> Normal:
    normal = lower_match(match)
    if not normal.alternatives:
        raise InvalidRuleset([f"{where}: can never match"])
    return normal


def _inline(normal: Normal) -> bool:
    """One line can say it."""
    return normal.alternatives == ((),) and not _split(normal.common)[1]


def _split(literals: Conjunction) -> tuple[Conjunction, tuple[Has, ...]]:
    """What a line can test, and what the packet must not have."""
    lacking = tuple(literal for literal in literals if isinstance(literal, Has) and literal.lacks)
    return tuple(literal for literal in literals if literal not in lacking), lacking


def _fidelity(rule: Rule, normal: Normal, ruleset: Ruleset) -> Fidelity:
    literals = {literal for part in (normal.common, *normal.alternatives) for literal in part}
    layers = {literal.load.layer for literal in literals if isinstance(literal, Within)}
    payload = Layer.PAYLOAD in layers or any(isinstance(literal, Has) for literal in literals)
    level, notes = Level.EXACT, []
    if payload:
        notes.append("judges the record that starts a packet's payload, none further inside")
        if not ruleset.defragment:
            level = Level.NARROWER
            notes.append("IP fragments pass unjudged")
    elif Layer.TRANSPORT in layers and not ruleset.defragment:
        level = Level.WIDER
        notes.append("the body of an IP fragment may be taken for ports")
    for fewer in sorted(narrowed(rule.match)):
        level = Level.NARROWER if fewer else Level.WIDER
        notes.append("a record behind the first of a packet is not seen")
    if isinstance(rule.limit, Limit):
        notes.append("the rate is counted with the kernel's clock")
    return Fidelity(rule=rule.name, level=level, notes=tuple(notes))
