"""The class of a finding binds every policy: no rule is made against an endpoint but for class A.

For each finding that the detectors know, for each policy, and over all captures that are shipped: an address is in
a ruleset because an endpoint attacked (class A), because the user asked for the finding by its id, or because the
policy is made from the connections of a capture, found or not found.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

from analyzer.detect import RULES
from analyzer.model import Action, Finding
from analyzer.pipeline import analyze
from analyzer.wire.fields import FIELDS
from rulegen.errors import WishError
from rulegen.from_findings import Answer, answer, parse_asked, parse_wish
from rulegen.ir.match import And, Match, Not, Or, SomeRecord, Test
from rulegen.ir.rule import Ruleset, Source
from rulegen.policies import POLICIES

SAMPLES = Path(__file__).parents[2] / "samples"
CAPTURES = [
    row["file"]
    for manifest in (SAMPLES / "MANIFEST.toml", SAMPLES / "crafted" / "MANIFEST.toml")
    for row in tomllib.loads(manifest.read_text())["file"]
    if row["file"].endswith((".pcap", ".pcapng"))
]
ADDRESS_FIELDS = {"ip.saddr": 4, "ip.daddr": 4, "ip6.saddr": 6, "ip6.daddr": 6}
HARMLESS = [action for action in Action if action is not Action.BLOCK]
EXAMPLES = [policy.example for policy in POLICIES]
"""What they name themselves is there without a finding, and does not count."""

CLIENT, SERVER, OFFENDER, VICTIM = "192.0.2.1", "2001:db8:1::7", "203.0.113.66", "203.0.113.99"
ROW = {
    "connection": 0,
    "capture": 0,
    "client": {"address": CLIENT, "port": 40000},
    "server": {"address": SERVER, "port": 443},
    "version": "TLSv1.0",
    "client_version": "TLSv1.0",
    "established": True,
    "sync": {"client": "synced", "server": "synced"},
    "starttls": None,
}

Interval = tuple[int, int, int]
"""IP version, first and last address."""


def addresses(ruleset: Ruleset) -> set[Interval]:
    """What a ruleset says about addresses, in sets and in rules."""
    found = {
        (ADDRESS_FIELDS[field], low, high)
        for declaration in ruleset.sets
        for element in declaration.elements
        for field, (low, high) in zip(declaration.fields, element.key, strict=True)
        if field in ADDRESS_FIELDS
    }
    for match in (*(chain.guard for chain in ruleset.chains), *(rule.match for rule in ruleset.rules)):
        found |= set(_tested(match))
    return found


def _tested(match: Match) -> Iterator[Interval]:
    match match:
        case And(matches) | Or(matches):
            for part in matches:
                yield from _tested(part)
        case Not(inner) | SomeRecord(inner):
            yield from _tested(inner)
        case Test(field, _, value) if field in ADDRESS_FIELDS:
            assert FIELDS[field].width_bits in (32, 128)
            intervals = value if isinstance(value, tuple) else ((value, value),)
            yield from ((ADDRESS_FIELDS[field], low, high) for low, high in intervals)


def exactly(text: str) -> Interval:
    address = ip_address(text)
    return address.version, int(address), int(address)


def found(identifier: str, action: Action, policy: str | None = None) -> Finding:
    """One that names everybody it can."""
    rule = RULES[identifier]
    return Finding(
        id=identifier,
        title=rule.title,
        severity=rule.severity,
        action=action,
        connection=0,
        packets=(1,),
        evidence={"source": OFFENDER, "server": SERVER, "bytes": "0301" + "ab" * 32, "payload_length": 9},
        explanation="",
        references=(),
        offender=OFFENDER,
        victims=(VICTIM,),
        policy=policy,
    )


def respond(findings: list[Finding], rows: list[dict], example: str | None, *asked: str) -> Answer | None:
    """The answer; None if the policy can't be made from these connections at all."""
    try:
        return answer(
            (Source(name="c.pcap", sha256=None),),
            findings,
            rows,
            wishes=[parse_wish(example)] if example else (),
            asked=parse_asked(asked),
        )
    except WishError:
        return None


def unfounded(
    findings: list[Finding], rows: list[dict], example: str | None, *asked: str
) -> set[Interval] | None:
    """Addresses that are there because of the findings."""
    withs, without = respond(findings, rows, example, *asked), respond([], rows, example)
    if withs is None:
        return None
    return addresses(withs.ruleset) - (addresses(without.ruleset) if without else set())


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_no_finding_but_of_class_a_brings_an_address(example):
    named = example.partition(":")[0] if example else None
    for identifier, rule in RULES.items():
        for action in HARMLESS:
            for policy in {rule.policy, named}:
                assert not unfounded([found(identifier, action, policy)], [ROW], example)


def test_with_block_an_offender_is_in_a_set_exactly_where_the_catalogue_says_a():
    for identifier, rule in RULES.items():
        blocked = unfounded([found(identifier, rule.action)], [ROW], "block")
        assert blocked == ({exactly(OFFENDER)} if rule.action is Action.BLOCK else set())


@pytest.mark.parametrize("action", HARMLESS)
def test_asked_for_by_id_it_is_the_side_that_was_named(action):
    for identifier in RULES:
        finding = found(identifier, action)
        assert unfounded([finding], [ROW], "block", f"{identifier}:client") == {exactly(CLIENT)}
        assert unfounded([finding], [ROW], "block", f"{identifier}:server") == {exactly(SERVER)}
        other = "SM16" if identifier != "SM16" else "SM08"
        assert unfounded([finding], [ROW], "block", f"{other}:client") == set()


@pytest.mark.parametrize("action", HARMLESS)
def test_prefixes_take_nobody_in_either(action):
    findings = [found(identifier, action) for identifier in RULES]
    assert unfounded(findings, [ROW], "block:prefix4=8,prefix6=19") == set()


@cache
def analysed(name: str) -> tuple[list[Finding], list[dict]]:
    analysis = analyze([SAMPLES / name])
    return list(analysis.iter_findings()), list(analysis.iter_connections())


@pytest.mark.parametrize("name", CAPTURES)
def test_captures_bring_addresses_of_offenders_only(name):
    findings, rows = analysed(name)
    offenders = {
        exactly(finding.offender)
        for finding in findings
        if finding.action is Action.BLOCK and finding.offender is not None
    }
    for example in (None, *EXAMPLES):
        assert (unfounded(findings, rows, example) or set()) <= _spanned(offenders)
        harmless = [finding for finding in findings if finding.action is not Action.BLOCK]
        assert not unfounded(harmless, rows, example)


def _spanned(offenders: set[Interval]) -> set[Interval]:
    """Offenders and, of neighbours, what they are joined to: only they are in it."""
    joined = set(offenders)
    for version, low, high in list(offenders):
        while (version, low, high) in joined and (version, high + 1, high + 1) in offenders:
            high += 1
            joined.add((version, low, high))
    return joined


def test_captures_have_what_the_contract_is_about():
    """Else it would hold for nothing."""
    actions = {finding.action for name in CAPTURES for finding in analysed(name)[0]}
    assert actions == set(Action)
    assert any(unfounded(*analysed(name), "block") for name in CAPTURES if analysed(name)[1])


def test_every_policy_is_made():
    assert all(respond([], [ROW], example) for example in EXAMPLES)
