"""Explain a ruleset rule by rule: what it means, where it comes from, and what each backend makes of it.

In:  Ruleset; the backends, each of which is asked to say each rule by itself.
Out: Explanation, and its lines or its JSON; policy -> what the backends make of it.

Nothing is told from memory: a backend's fidelity and its refusals come from its own attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from analyzer.report.text import count, visible
from analyzer.version import VERSION
from rulegen.account import EMPTY, SHOWN_MAX
from rulegen.backends import BACKENDS, ipset
from rulegen.backends.base import Level, origin_text
from rulegen.backends.header import rule_tracked, ruleset_needs, tracked
from rulegen.errors import InvalidRuleset, Refused, WishError
from rulegen.from_findings import answer, parse_wish
from rulegen.ir.match import Lookup, leaves
from rulegen.ir.rule import Chain, ConnectionLimit, Learn, Limit, Rule, Ruleset, SetMark
from rulegen.lines import Line
from rulegen.policies import policy_named
from rulegen.policies.base import Policy

REFUSED: Final = "refused"
WORST: Final = (Level.EXACT, Level.WIDER, Level.NARROWER, REFUSED)

_STYLES: Final = {Level.EXACT: "green", Level.WIDER: "yellow", Level.NARROWER: "yellow", REFUSED: "red"}
_HEAD: Final = 10
_PARAMETER: Final = 21
"""Characters before what is said; longer heads stand in a line of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a backend makes of a rule."""

    backend: str
    level: str
    """exact, wider, narrower, or refused."""
    notes: tuple[str, ...]
    """What differs, or what it can't say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleExplained:
    rule: str
    policy: str
    meaning: str
    does: str
    """Its verdict, effects and limit."""
    origin: str
    needs: str
    """For what connection tracking is needed; may be empty."""
    backends: tuple[Said, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExplained:
    policy: str
    stops: str
    costs: str
    bypass: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    tlswall: str
    """Version."""
    wishes: tuple[str, ...]
    """The policies with their parameters, as the user could write them."""
    remarks: tuple[str, ...]
    needs: tuple[str, ...]
    rules: tuple[RuleExplained, ...]
    policies: tuple[PolicyExplained, ...]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def explain(ruleset: Ruleset) -> Explanation:
    """Ask every backend about every rule."""
    names = dict.fromkeys(chain.policy for chain in ruleset.chains)
    return Explanation(
        tlswall=VERSION,
        wishes=ruleset.policies,
        remarks=ruleset.remarks,
        needs=tuple(ruleset_needs(ruleset)),
        rules=tuple(_rule(ruleset, chain, rule) for chain in ruleset.chains for rule in chain.rules),
        policies=tuple(
            PolicyExplained(policy=name, stops=policy.stops, costs=policy.costs, bypass=policy.bypass)
            for name in names
            for policy in (policy_named(name),)
        ),
    )


def _rule(ruleset: Ruleset, chain: Chain, rule: Rule) -> RuleExplained:
    return RuleExplained(
        rule=rule.name,
        policy=chain.policy,
        meaning=rule.meaning,
        does=_does(rule),
        origin=origin_text(rule.origin)
        if rule.origin.citations
        else "the policy; no finding calls for this rule",
        needs=", ".join(sorted(tracked(chain.guard) | rule_tracked(rule))),
        backends=say(_alone(ruleset, chain, rule)),
    )


def _alone(ruleset: Ruleset, chain: Chain, rule: Rule) -> Ruleset:
    """The rule, with the guard of its chain and the sets that it needs."""
    matches = (*leaves(chain.guard), *leaves(rule.match))
    used = {leaf.set for leaf in matches if isinstance(leaf, Lookup)}
    used |= {effect.set for effect in rule.effects if isinstance(effect, Learn)}
    return replace(
        ruleset,
        chains=(replace(chain, rules=(rule,)),),
        sets=tuple(declaration for declaration in ruleset.sets if declaration.name in used),
    )


def say(ruleset: Ruleset) -> tuple[Said, ...]:
    """What each backend makes of a ruleset: its least faithful rule, or all that it can't say.

    The backend of sets is asked only where there are some.
    """
    said = []
    for backend in BACKENDS:
        if backend.name == ipset.NAME and not ruleset.sets:
            continue
        try:
            fidelity = backend.emit(ruleset).fidelity
        except Refused as refused:
            notes = dict.fromkeys(refusal.feature for refusal in refused.refusals)
            said.append(Said(backend=backend.name, level=REFUSED, notes=tuple(notes)))
            continue
        level = max((one.level for one in fidelity), key=WORST.index, default=Level.EXACT)
        notes = dict.fromkeys(note for one in fidelity for note in one.notes)
        said.append(Said(backend=backend.name, level=level, notes=tuple(notes)))
    return tuple(said)


def _does(rule: Rule) -> str:
    words = [str(rule.verdict)]
    for effect in rule.effects:
        match effect:
            case SetMark(value, mask):
                words.append(f"writes {value:#010x} into the bits {mask:#010x} of the connection mark")
            case Learn(name, fields, timeout_s):
                words.append(f"remembers {' and '.join(fields)} in {name} for {timeout_s:,} s")
    match rule.limit:
        case Limit():
            each = f" for each {' and '.join(rule.limit.key)}" if rule.limit.key else ""
            rate = f"{rule.limit.packets:,} a {rule.limit.per}, {rule.limit.burst:,} at once"
            words.append(f"only packets beyond {rate}{each}")
        case ConnectionLimit():
            each = " and ".join(rule.limit.key)
            words.append(f"only beyond {count(rule.limit.connections, 'open connection')} for each {each}")
    return ", ".join(words)


def possible(policy: Policy) -> tuple[Said, ...]:
    """What each backend makes of the policy's example; nothing where rules come from a capture alone."""
    try:
        return say(answer((), (), (), wishes=[parse_wish(policy.example)]).ruleset)
    except (WishError, InvalidRuleset):
        return ()


# --- lines -------------------------------------------------------------------------------------------------


def explanation_lines(explained: Explanation) -> Iterator[Line]:
    """For a terminal, or for whoever reads a pipe."""
    if not explained.rules:
        yield EMPTY
    for rule in explained.rules:
        yield Line(f"{rule.rule} ({rule.policy})", "bold")
        yield _entry("means", rule.meaning)
        yield _entry("does", rule.does)
        yield _entry("from", rule.origin)
        if rule.needs:
            yield _entry("needs", f"connection tracking, for {rule.needs}")
        yield from map(said_line, rule.backends)
        yield Line("")
    for policy in explained.policies:
        yield Line(f"How {policy.policy} is got around", "bold")
        yield Line(policy.bypass, head="  ")
        yield Line(f"What {policy.policy} costs", "bold")
        yield Line(policy.costs, head="  ")
        yield Line("")
    for head, texts in (("The ruleset needs", explained.needs), ("To mind", explained.remarks)):
        if texts:
            yield Line(head, "bold")
        for text in texts:
            yield Line(visible(text, SHOWN_MAX), head="  ")


def said_line(said: Said) -> Line:
    """One backend, its fidelity and the sentence."""
    text = f"{said.level}: {'; '.join(said.notes)}" if said.notes else said.level
    return _entry(said.backend, text, _STYLES[said.level])


def _entry(head: str, text: str, style: str = "") -> Line:
    return Line(visible(text, SHOWN_MAX), style, head=f"  {head:{_HEAD}}")


def policy_lines(policies: Iterable[Policy]) -> Iterator[Line]:
    """The policies' own words, and what the backends make of each."""
    for policy in policies:
        yield Line(policy.name, "bold")
        yield _entry("stops", policy.stops)
        yield _entry("costs", policy.costs)
        yield _entry("bypass", policy.bypass)
        for parameter in policy.parameters:
            choices = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
            head = f"{parameter.name}={parameter.default}"
            if len(head) >= _PARAMETER:
                yield Line(head, head="  ")
                head = ""
            yield Line(f"{parameter.meaning}{choices}", head=f"  {head:{_PARAMETER}}")
        if policy.example != policy.name:
            yield _entry("example", policy.example)
        said = possible(policy)
        yield from map(said_line, said)
        if not said:
            yield _entry("backends", "not known before there is a capture to make rules from")
        yield Line("")
