"""What tlswall writes reads back whole: no unknown part, and every rule, comment and element is there."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from rulegen.artifacts import Dialect, ToolMissing, read, read_ipset, unsupported
from rulegen.artifacts.model import BaseChain
from rulegen.artifacts.nft_values import Counter as Counts
from rulegen.artifacts.xt_values import Jump
from rulegen.backends import BACKENDS, backend_named, emit
from rulegen.errors import Refused, WishError
from rulegen.policies import POLICIES
from tests.rulegen.backends.test_nft import VARIANTS

ASKED = (*VARIANTS, *((policy.example,) for policy in POLICIES))
OFFENDERS = ("192.0.2.1", "192.0.2.9", "2001:db8::1")


@pytest.fixture
def written(respond, finding):
    """The text of a backend for policies as on the command line."""

    def make(policies, backend, **options):
        findings = tuple(finding("HB01", offender=offender) for offender in OFFENDERS)
        try:
            return emit(respond(findings, *policies, **options).ruleset, backend).text
        except (Refused, WishError) as error:
            pytest.skip(f"not said: {error}")

    return make


@pytest.fixture
def artifact():
    def make(text):
        try:
            return read(text)
        except ToolMissing as error:
            pytest.skip(str(error))

    return make


@pytest.mark.netns
def test_a_set_for_intervals_may_be_empty(respond, artifact):
    found = artifact(emit(respond((), "block").ruleset, BACKENDS[0]).text)
    assert unsupported(found) == ()
    assert {one.name: one.elements for table in found.tables for one in table.sets} == {
        "set_blocked_ipv4": (),
        "set_blocked_ipv6": (),
    }


@pytest.mark.netns
@pytest.mark.parametrize("policies", ASKED, ids=" ".join)
@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
def test_everything_is_understood(written, artifact, policies, backend):
    text = written(policies, backend)
    if backend.name == "ipset":
        sets = read_ipset(text).ipsets  # the file of a ruleset without sets has but comments
        assert sum(len(one.members) for one in sets) == len(re.findall("(?m)^add ", text))
        assert {one.name for one in sets} == set(re.findall("(?m)^create (\\S+[^.]) ", text))
        return
    found = artifact(text)
    assert unsupported(found) == ()
    assert found.dialect is (Dialect.NFT if backend.name == "nft" else Dialect.XTABLES)
    lines = rule_lines(text)
    assert Counter(chain.name for _, chain, _ in found.rules) == Counter(name for name, _ in lines)
    assert Counter(rule.comment for _, _, rule in found.rules) == Counter(map(comment, lines))


@pytest.mark.netns
@pytest.mark.parametrize("policies", [("block", "heartbleed"), ("block:side=both,ttl=90s",)], ids=" ".join)
def test_sets_have_their_elements(written, artifact, policies):
    text = written(policies, BACKENDS[0])
    (table,) = artifact(text).tables
    declared = dict(re.findall(r"(?s)\tset (\S+) \{(.*?)\n\t\}", text))
    named = {content.name: content for content in table.sets if not content.anonymous}
    assert named.keys() == declared.keys()
    for name, body in declared.items():
        listed = re.search(r"(?s)elements = \{(.*)\}", re.sub(r'"[^"]*"', "", body))
        expected = [one for one in (listed[1] if listed else "").split(",") if one.strip()]
        assert len(named[name].elements) == len(expected), name
    blocked = named["set_blocked_ipv4"]
    assert [one.key for one in blocked.elements] == [((bytes((192, 0, 2, last)),) * 2,) for last in (1, 9)]
    lifetime_s = 90 if "ttl=90s" in policies[0] else 86400
    assert {one.timeout_s or blocked.timeout_s for one in blocked.elements} == {lifetime_s}
    assert all("HB01 incident.pcap #4" in one.comment for one in blocked.elements)
    assert named["set_blocked_ipv6"].widths == (16,)


@pytest.mark.netns
@pytest.mark.parametrize("hook", ["forward", "input", "output", "prerouting"])
def test_the_base_chain_says_where_it_is(written, artifact, hook):
    (table,) = artifact(written(("heartbleed",), BACKENDS[0], hook=hook)).tables
    assert (table.family, table.name, table.dormant) == ("inet", "tlswall", False)
    (base,) = (chain for chain in table.chains if isinstance(chain, BaseChain))
    assert (base.hook, base.priority, base.policy) == (hook, -145 if hook == "prerouting" else -5, "accept")
    assert all(any(isinstance(part, Counts) for part in rule.parts) for rule in base.rules)


@pytest.mark.parametrize("name", ["iptables", "ip6tables", "bpf"])
@pytest.mark.parametrize("hook", ["forward", "prerouting"])
def test_the_jump_that_a_restore_can_not_make(written, artifact, name, hook):
    """It stands in the file's head, as a command; its rules would else be reached by no packet."""
    text = written(("block",), backend_named(name), hook=hook)
    table = artifact(text).tables[0]
    assert table.family == {"iptables": "ip", "ip6tables": "ip6", "bpf": None}[name]
    base = table.chain(hook.upper())
    assert (base.policy, base.declared) == ("accept", False)
    assert [rule.target for rule in base.rules] == [Jump(chain="TLSWALL")]
    assert text.splitlines()[base.rules[0].line - 1].startswith("# Load:")
    foreign = text.replace("# Made by tlswall", "# Made by hand", 1)
    assert [chain.name for chain in artifact(foreign).tables[0].chains if isinstance(chain, BaseChain)] == []


def rule_lines(text: str) -> list[tuple[str, str]]:
    """Chain and text of every rule, read from the emitted file as plainly as possible."""
    found = []
    chain = ""
    for line in text.splitlines():
        if line.startswith("\tchain "):
            chain = line.split()[1]
        elif line == "\t}":
            chain = ""
        elif found_entrance := re.search(r"^# Load: .*? -I (\w+) -j TLSWALL;", line):
            found.append((found_entrance[1], ""))
        elif line.startswith("-A "):
            found.append((line.split()[1], line))
        elif chain and not line.strip().startswith(("#", "type ")):
            found.append((chain, line))
    return found


def comment(line: tuple[str, str]) -> str | None:
    found = re.search(r'(?:--)?comment "((?:[^"\\]|\\.)*)"', line[1])
    return re.sub(r"\\(.)", r"\1", found[1]) if found else None
