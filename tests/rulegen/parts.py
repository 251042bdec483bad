"""Parts of rulesets, written in few words."""

from __future__ import annotations

from rulegen.compose import compose
from rulegen.ir.match import ALWAYS, Match
from rulegen.ir.rule import Chain, Citation, Origin, Rule, SetDeclaration, Verdict
from rulegen.policies.base import Part

DROP, RESET, ACCEPT, PASS, CONTINUE = Verdict


def rule(
    name: str, match: Match, verdict: Verdict = DROP, policy: str = "p", finding: str = "", **more
) -> Rule:
    citations = (Citation(finding=finding, capture="c.pcap", packets=(1,)),) if finding else ()
    return Rule(
        name=name,
        match=match,
        verdict=verdict,
        origin=Origin(policy=policy, citations=citations),
        meaning=f"The rule {name}.",
        **more,
    )


def chain(*rules: Rule, name: str = "p", policy: str = "p", guard: Match = ALWAYS) -> Chain:
    return Chain(name=name, policy=policy, rules=rules, guard=guard)


def part(*rules: Rule, sets: tuple[SetDeclaration, ...] = (), **about) -> Part:
    return Part(chains=(chain(*rules, **about),), sets=sets)


def composed(*parts: Part) -> Part:
    return compose(parts).part
