"""The promise of the families: every policy in every backend, said or refused by name, and taken by the tool.

What is emitted the real tool accepts and the kernel loads, once and again, with the same result; and what the
tool saves it can load.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from rulegen.backends import BACKENDS, emit
from rulegen.cli import _answer
from rulegen.errors import Refused, Unsupported, WishError
from rulegen.explain import REFUSED, explain, say
from rulegen.from_findings import parse_wish
from rulegen.ir.rule import Hook, Ruleset, SetMark
from rulegen.policies import POLICIES
from rulegen.testbed.netns import missing_tools

CAPTURE = Path(__file__).parents[2] / "samples" / "captures" / "tls12-resumption.pcap"
"""With nothing wrong in it."""

TOOLS = {
    "nft": ("nft",),
    "iptables": ("iptables-legacy", "iptables-nft"),
    "ip6tables": ("ip6tables-legacy", "ip6tables-nft"),
    "bpf": ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"),
    "ipset": ("ipset",),
}
"""Backend -> the tools that load its files."""


@cache
def ruleset_of(policy: str, hook: str = "forward") -> Ruleset:
    """A policy as its example has it."""
    (example,) = (one.example for one in POLICIES if one.name == policy)
    return answered(example, hook)


def answered(wish: str, hook: str = "forward") -> Ruleset:
    """What a policy makes; of a capture, if it needs one."""
    options = {"wishes": [parse_wish(wish)], "hook": hook}
    try:
        return _answer([], **options).ruleset
    except WishError:
        return _answer([str(CAPTURE)], **options).ruleset


def emitted(policy: str, backend) -> str:
    try:
        return emit(ruleset_of(policy), backend).text
    except Refused as refused:
        pytest.skip(f"refused: {refused.refusals[0].feature}")


policies = pytest.mark.parametrize("policy", [policy.name for policy in POLICIES])
backends = pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
with_tools = pytest.mark.parametrize(
    ("backend", "tool"),
    [(backend, tool) for backend in BACKENDS for tool in TOOLS[backend.name]],
    ids=[f"{backend.name}-{tool}" for backend in BACKENDS for tool in TOOLS[backend.name]],
)


@policies
@backends
def test_said_or_refused_by_name(policy, backend):
    ruleset = ruleset_of(policy)
    names = {rule.name for rule in ruleset.rules} | {f"guard of {chain.name}" for chain in ruleset.chains}
    names |= {f"set {declaration.name}" for declaration in ruleset.sets}
    refusals: tuple[Unsupported, ...] = ()
    try:
        artifact = emit(ruleset, backend)
    except Refused as refused:
        refusals = refused.refusals
    if refusals:
        assert {one.backend for one in refusals} == {backend.name}
        assert {one.rule for one in refusals} <= names
        assert all(one.feature for one in refusals)
        return
    assert artifact.backend == backend.name
    assert [one.rule for one in artifact.fidelity] == [rule.name for rule in ruleset.rules]
    assert emit(ruleset, backend).text == artifact.text


@policies
def test_what_a_header_says_of_the_policy_makes_the_same_rules(policy):
    ruleset = ruleset_of(policy)
    (written,) = ruleset.policies
    assert answered(written) == ruleset


@policies
def test_some_backend_can_say_it(policy):
    assert [said.backend for said in say(ruleset_of(policy)) if said.level != REFUSED]


@policies
def test_every_rule_has_a_sentence_for_every_backend(policy):
    """That of sets is asked only where there are some."""
    for rule in explain(ruleset_of(policy)).rules:
        asked = [said.backend for said in rule.backends]
        assert asked == [one.name for one in BACKENDS if one.name != "ipset" or "ipset" in asked]
        for said in rule.backends:
            assert said.level == "exact" or said.notes


@pytest.mark.netns
@policies
@backends
def test_the_tool_accepts_it(policy, backend):
    assert_accepted(backend, emitted(policy, backend))


@pytest.mark.netns
@policies
@with_tools
def test_loaded_twice_it_is_the_same_and_what_is_saved_loads(bench, policy, backend, tool):
    text = emitted(policy, backend)
    if missing := missing_tools([tool, "ipset"] if "tables" in tool else [tool]):
        pytest.skip(f"not installed: {', '.join(missing)}")
    load_sets(bench, policy, tool)
    bench.load(text, tool)
    once = bench.listing(tool)
    bench.load(text, tool)
    assert lasting(bench.listing(tool)) == lasting(once)
    assert once.strip() or (tool == "ipset" and not ruleset_of(policy).sets)
    bench.flush()
    load_sets(bench, policy, tool)
    bench.load(once, tool)
    assert lasting(bench.listing(tool)) == lasting(once)


def assert_accepted(backend, text: str) -> None:
    checked = backend.check(text)
    if checked.accepted is None:
        pytest.skip(checked.message)
    assert checked.accepted, checked.message


def lasting(listing: str) -> str:
    """Without the seeds of ipset's hashes, and the seconds that are left of a time-out."""
    return re.sub(r" initval 0x[0-9a-f]+| timeout [1-9]\d*", "", listing)


def load_sets(bench, policy: str, tool: str) -> None:
    """The sets that a file of iptables looks into."""
    if "tables" in tool and ruleset_of(policy).sets:
        (ipset,) = (backend for backend in BACKENDS if backend.name == "ipset")
        bench.load(emitted(policy, ipset), "ipset")


@pytest.mark.netns
@backends
def test_all_policies_at_once(backend):
    """Those that the backend can say; two of them twice."""
    alone = {policy.example: ruleset_of(policy.name) for policy in POLICIES}
    wishes = [wish for wish, ruleset in alone.items() if can_say(ruleset, backend)]
    wishes += ["heartbleed:ports=8443,variant=strict", "rate:ports=8443"]
    options = {"wishes": [parse_wish(wish) for wish in wishes], "hook": "forward"}
    ruleset = _answer([str(CAPTURE)], **options).ruleset
    assert len(ruleset.policies) == len(wishes)
    assert_accepted(backend, emit(ruleset, backend).text)


def can_say(ruleset: Ruleset, backend) -> bool:
    return any(said.backend == backend.name and said.level != REFUSED for said in say(ruleset))


@pytest.mark.parametrize("hook", Hook)
@backends
def test_every_hook(backend, hook):
    assert emit(ruleset_of("heartbleed", hook), backend).text != ""


def test_policies_write_different_bits_of_the_mark():
    bits = {
        policy.name: [
            effect.mask
            for rule in ruleset_of(policy.name).rules
            for effect in rule.effects
            if isinstance(effect, SetMark)
        ]
        for policy in POLICIES
    }
    for one, other in combinations(bits, 2):
        assert not any(mine & theirs for mine in bits[one] for theirs in bits[other]), f"{one} and {other}"
