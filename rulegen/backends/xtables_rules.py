"""Translate rules into chains of iptables, whatever the dialect in which packets are tested.

In:  Ruleset, checked; a Dialect, which says how to test whether a match holds.
Out: Writer: chains in the order in which they are first named, fidelity, refusals.
Source: iptables(8) of 1.8.9; Linux net/ipv4/netfilter/ip_tables.c ipt_do_table for jump, goto and RETURN.

    FORWARD --jump--> TLSWALL --jump--> a policy's guard --goto--> its rules --jump--> what a rule needs

The policies are called one after the other, and RETURN leaves one: that is PASS. To a policy that may ACCEPT
it goes by goto, and from there to the rest of the policies, so that RETURN leaves them all; the host's own
rules still judge the packet. A rule is one line where one line can say it. Otherwise it has chains of its
own, and a single line in the end has its counter and verdict. That line's comment begins with [name]; those
of the lines that lead there with (name).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from rulegen.backends.base import Fidelity, Level, origin_text
from rulegen.backends.header import remark
from rulegen.backends.xtables_text import (
    CHAIN_MAX,
    LINE_MAX,
    WORD_MAX,
    WORDS_MAX,
    CantSay,
    Variants,
    effect_words,
    limit_words,
    quoted,
)
from rulegen.errors import InvalidRuleset, Unsupported
from rulegen.ir.match import Match
from rulegen.ir.rule import Chain, Hook, Rule, Ruleset, Verdict

BASE: Final = "TLSWALL"

PLACES: Final = {
    Hook.FORWARD: ("filter", "FORWARD"),
    Hook.INPUT: ("filter", "INPUT"),
    Hook.OUTPUT: ("filter", "OUTPUT"),
    Hook.PREROUTING: ("mangle", "PREROUTING"),
}
"""Table and built-in chain. In prerouting behind conntrack and before NAT: addresses are the wire's."""

DEPTH_MAX: Final = 15
"""Linux net/netfilter/nf_tables.h NFT_JUMP_STACK_SIZE: 16 chains with the built-in one, gotos included."""

_TOO_DEEP: Final = (
    f"chains that call each other more than {DEPTH_MAX} deep, which iptables-nft does not load: give a run of"
    " the policy fewer values, or use another backend"
)

LINES_MAX: Final = 16
"""In the chain of a policy, for a rule that leaves it; each is tried."""

FAMILIES: Final = {"ip": "IPv4", "ip6": "IPv6"}

_WORDS: Final = re.compile(r'"[^"]*"|[^" ]+')

Way: TypeAlias = tuple[Variants, ...]
"""Steps that all have to hold. Of a step's variants one has to hold, and only one can."""


@dataclass(frozen=True, slots=True)
class Plan:
    """When a match holds: all steps of `common`, and all steps of at least one of the ways."""

    common: Way
    ways: tuple[Way, ...]

    @property
    def joined(self) -> Plan:
        """The same with nothing behind `common` if there is only one way."""
        return Plan(self.common + self.ways[0], ((),)) if len(self.ways) == 1 else self

    def lines(self) -> Variants:
        """Words of which one line's have to hold; none if a way needs more than a line, or there are many."""
        if len(self.common) > 1 or any(len(way) > 1 for way in self.ways):
            return ()
        (before,) = self.common or (("",),)
        every = [words for way in self.ways for words in (way[0] if way else ("",))]
        found = tuple(_joined(one, other) for one in before for other in every)
        fit = all(len(words) <= WORDS_MAX and f" {words}".count(" -p ") <= 1 for words in found)
        return found if fit and len(found) <= LINES_MAX else ()

    def split(self) -> tuple[Variants, Plan]:
        """The first step, and the rest."""
        first, *steps = self.common or (("",),)
        return first, Plan(tuple(steps), self.ways)


ALWAYS_PLAN: Final = Plan((), ((),))


class Dialect(Protocol):
    """How a backend tests packets."""

    @property
    def name(self) -> str:
        """The backend's."""

    @property
    def families(self) -> tuple[str, ...]:
        """Those of FAMILIES that its files are for."""

    def plan(self, match: Match) -> Plan | None:
        """How to test the match; None if it can't hold for packets of these families.

        Raises:
            CantSay: There are no words for it.
            InvalidRuleset: It can't hold for any packet.
        """

    def fidelity(self, rule: Rule, ruleset: Ruleset) -> Fidelity:
        """How faithful the plan of the rule's match is."""


class Writer:
    """Rules -> chains of lines."""

    def __init__(self, ruleset: Ruleset, dialect: Dialect) -> None:
        self.ruleset = ruleset
        self.dialect = dialect
        self.chains: dict[str, list[str]] = {BASE: []}
        self.fidelity: list[Fidelity] = []
        self.refusals: list[Unsupported] = []
        self._targets: dict[str, list[str]] = {BASE: []}
        """Chain -> chains that it jumps or goes to."""
        self._labels: dict[str, str] = {BASE: BASE}
        """Chain -> the rule or policy that it is for."""

    def write(self) -> None:
        base = BASE
        if self.ruleset.defragment:
            note = "(tracking) on, so that fragments are reassembled"
            self._line(base, "-m conntrack --ctstate INVALID", "", note)
        for chain in self.ruleset.chains:
            try:
                guard = self._plan(f"guard of {chain.name}", chain.guard)
            except CantSay as error:
                self._refuse(f"guard of {chain.name}", error)
                guard = ALWAYS_PLAN
            if guard is None:
                for rule in chain.rules:
                    self._leave_out(base, rule)
            else:
                base = self._policy(base, chain, guard)
        self._hold_to_depth()

    def _policy(self, base: str, chain: Chain, guard: Plan) -> str:
        """A policy's chains, and the way there. Returns the chain where the next policy belongs."""
        first, rest = guard.split()
        here = self._new(chain.name)
        entry = here if rest == ALWAYS_PLAN else self._new(chain.name, "guard")
        after = None
        if any(rule.verdict is Verdict.ACCEPT for rule in chain.rules):
            after = self._new(chain.name, "next")
        jump = "-j" if after is None else "-g"
        for words in first:
            self._line(base, words, f"{jump} {entry}", f"({chain.name}) candidates")
        self._go_on(base, chain.name, after)
        if entry != here:
            self._any(chain.name, entry, rest, f"-g {here}", after)
        for rule in chain.rules:
            try:
                here = self._rule(here, rule, after)
            except CantSay as error:
                self._refuse(rule.name, error)
        self._go_on(here, chain.name, after)
        return after or base

    def _refuse(self, where: str, why: CantSay) -> None:
        self.refusals.append(Unsupported(self.dialect.name, where, str(why)))

    def _hold_to_depth(self) -> None:
        """Refuse what iptables-nft would not load."""
        deepest = {BASE: 1}
        waiting = [BASE]
        while waiting:
            chain = waiting.pop()
            for target in set(self._targets[chain]):
                if deepest.get(target, 0) <= deepest[chain]:
                    deepest[target] = deepest[chain] + 1
                    waiting.append(target)
        labels = dict.fromkeys(self._labels[name] for name, depth in deepest.items() if depth > DEPTH_MAX)
        for label in labels:
            self._refuse(label, CantSay(_TOO_DEEP))

    def lines(self) -> Iterator[str]:
        """The table, from its head to COMMIT."""
        yield f"*{PLACES[self.ruleset.hook][0]}"
        yield from (f":{name} - [0:0]" for name in self.chains)
        for lines in self.chains.values():
            yield from lines
        yield "COMMIT"

    def _plan(self, where: str, match: Match) -> Plan | None:
        try:
            plan = self.dialect.plan(match)
        except InvalidRuleset as error:
            raise InvalidRuleset([f"{where}: {problem}" for problem in error.problems]) from None
        return None if plan is None else plan.joined

    def _rule(self, chain: str, rule: Rule, after: str | None) -> str:
        """Append a rule to a chain. Returns the chain where the policy's next rule belongs."""
        families = self.dialect.families
        plan = self._plan(f"rule {rule.name}", rule.match)
        limits = limit_words(rule.name, rule.limit, families)
        targets = [*(effect_words(effect, families) for effect in rule.effects), *self._verdict(rule, after)]
        if plan is None or not limits or not all(targets):
            self._leave_out(chain, rule)
            return chain
        self._remarks(chain, rule, self.dialect.fidelity(rule, self.ruleset))
        leaving = rule.verdict in (Verdict.ACCEPT, Verdict.PASS)
        jump = "-g" if leaving else "-j"
        first, rest = plan.split()
        if rest == ALWAYS_PLAN and len(first) == 1:
            if len(targets) == 1 and rule.verdict is not Verdict.RESET:
                self._end(chain, rule, targets, before=tuple(_joined(first[0], limit) for limit in limits))
                return chain
            name = self._new(rule.name)
            for limit in limits:
                self._line(chain, _joined(first[0], limit), f"{jump} {name}", f"({rule.name}) candidates")
            self._end(name, rule, targets)
            return chain
        if leaving and rule.limit is None and (lines := plan.lines()):
            # No chain in between: those of rules that leave would stand one behind the other.
            hit = self._new(rule.name)
            for words in lines:
                self._line(chain, words, f"-g {hit}", f"({rule.name}) candidates")
            self._end(hit, rule, targets)
            return chain
        name = self._new(rule.name)
        for words in first:
            self._line(chain, words, f"{jump} {name}", f"({rule.name}) candidates")
        otherwise = None
        if leaving and (rule.limit is not None or rest != ALWAYS_PLAN):
            # To leave the policies, a rule's chain takes the place of the policy's instead of being called.
            otherwise = self._new(rule.name, "else")
            self._line(chain, "", f"-g {otherwise}", f"({rule.name}) no candidates")
        hit = name
        if rest != ALWAYS_PLAN:
            hit = self._new(rule.name, "hit")
            ends = rule.verdict in (Verdict.DROP, Verdict.RESET) and rule.limit is None
            self._any(rule.name, name, rest, f"-g {hit}", otherwise, ends=ends)
        if rule.limit is not None and len(targets) > 1:
            within, hit = hit, self._new(rule.name, "limit")
            for limit in limits:
                self._line(within, limit, f"-g {hit}", f"({rule.name}) candidates")
            self._go_on(within, rule.name, otherwise)
            self._end(hit, rule, targets)
        else:
            self._end(hit, rule, targets, before=limits)
            self._go_on(hit, rule.name, otherwise if rule.limit is not None else None)
        return otherwise or chain

    def _any(
        self, label: str, chain: str, plan: Plan, target: str, otherwise: str | None, *, ends: bool = False
    ) -> None:
        """Fill a chain: `target` if the plan holds, else go to `otherwise` or back to where it was called.

        Args:
            label: The rule or policy.
            chain: To be filled.
            plan: What has to hold.
            target: Where to go then, once, even if several ways hold.
            otherwise: None where the chain is called.
            ends: No packet comes back from the target, so that more ways may be tried after one.
        """
        plan = plan.joined
        if plan.common and len(plan.ways) > 1:
            inner = self._new(label, "ways")
            self._way(label, chain, plan.common, f"-g {inner}", otherwise)
            self._go_on(chain, label, otherwise)
            chain, plan = inner, Plan((), plan.ways)
        for number, way in enumerate(plan.ways, start=1):
            whole = plan.common + way
            if len(whole) < 2 or number == len(plan.ways):
                self._way(label, chain, whole, target, otherwise)
            elif ends:
                self._way(label, chain, whole, target, None, "-j")
            else:
                following = self._new(label, "else")
                self._way(label, chain, whole, target, following)
                self._go_on(chain, label, following)
                chain = following
        self._go_on(chain, label, otherwise)

    def _way(
        self, label: str, chain: str, way: Way, target: str, failing: str | None, jump: str = "-g"
    ) -> None:
        """Lines to `target` if all steps hold. If the first does not, it goes on in the chain itself."""
        start = chain
        for number, step in enumerate(way or (("",),), start=1):
            inner = chain if number >= len(way) else self._new(label, "step")
            goal = target if inner == chain else f"{jump if chain == start else '-g'} {inner}"
            for words in step:
                self._line(chain, words, goal, f"({label}) candidates")
            if chain != start:
                self._go_on(chain, label, failing)
            chain = inner

    def _go_on(self, chain: str, label: str, target: str | None) -> None:
        if target is not None:
            self._line(chain, "", f"-g {target}", f"({label}) no candidates")

    def _verdict(self, rule: Rule, after: str | None) -> Iterator[Variants]:
        match rule.verdict:
            case Verdict.DROP:
                yield ("-j DROP",)
            case Verdict.RESET:
                if self.ruleset.hook is Hook.PREROUTING:
                    raise CantSay("a TCP reset in prerouting; there is one in forward, input and output")
                yield ("-p tcp -j REJECT --reject-with tcp-reset",)
            case Verdict.PASS if after is not None:
                yield (f"-g {after}",)
            case Verdict.PASS | Verdict.ACCEPT:
                yield ("-j RETURN",)

    def _end(self, chain: str, rule: Rule, targets: list[Variants], *, before: Variants = ("",)) -> None:
        """What a rule does; the last line has its counter."""
        for number, target in enumerate(targets, start=1):
            note = f"({rule.name}) candidates"
            if number == len(targets):
                note = f"[{rule.name}] {origin_text(rule.origin)}"
            for words in before:
                for one in target:
                    self._line(chain, words, one, note)

    def _leave_out(self, chain: str, rule: Rule) -> None:
        other = " and ".join(text for name, text in FAMILIES.items() if name not in self.dialect.families)
        notes = (f"is for {other} alone and not in this file",)
        self._remarks(chain, rule, Fidelity(rule=rule.name, level=Level.NARROWER, notes=notes))

    def _remarks(self, chain: str, rule: Rule, fidelity: Fidelity) -> None:
        self.fidelity.append(fidelity)
        texts = (f"{rule.name}: {rule.meaning}", "; ".join((fidelity.level, *fidelity.notes)))
        self.chains[chain] += map(remark, texts)

    def _line(self, chain: str, words: str, target: str, note: str) -> None:
        line = _joined(f"-A {chain}", words, f"-m comment --comment {quoted(note)}", target)
        longest = max(len(word) for word in _WORDS.findall(line))
        if len(line) > LINE_MAX or longest > WORD_MAX:
            raise CantSay(f"a line of {len(line)} bytes with a word of {longest}")
        self.chains[chain].append(line)
        kind, _, name = target.partition(" ")
        if kind in ("-j", "-g") and name in self.chains:
            self._targets[chain].append(name)

    def _new(self, *parts: str) -> str:
        """A chain that is not there yet. Its name tells what it is for, as far as there is room."""
        whole = "-".join((BASE, *parts))
        name, number = whole, 1
        while name in self.chains or len(name) > CHAIN_MAX:
            number += 1
            name = f"{whole[: CHAIN_MAX - len(str(number)) - 1]}-{number}"
        self.chains[name] = []
        self._targets[name] = []
        self._labels[name] = parts[0]
        return name


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))
