"""Explanations: from what each backend does, not from memory; and names that want to break out of them."""

from __future__ import annotations

import io
import json
import re

import pytest

from rulegen.backends import BACKENDS
from rulegen.backends.base import Artifact, Fidelity, Level
from rulegen.explain import REFUSED, explain, explanation_lines, policy_lines, possible, say
from rulegen.lines import write
from rulegen.policies import POLICIES, policy_named
from tests.rulegen.hostile_names import HOSTILE


class Second:
    """A backend that can say everything, though not well."""

    name = "all"
    suffix = ".all"

    def emit(self, ruleset):
        notes = ("says half",)
        fidelity = [Fidelity(rule=one.name, level=Level.NARROWER, notes=notes) for one in ruleset.rules]
        return Artifact(backend="all", text="", fidelity=tuple(fidelity))


@pytest.fixture(autouse=True)
def two_backends(monkeypatch):
    monkeypatch.setattr("rulegen.explain.BACKENDS", (BACKENDS[0], Second()))


def text_of(lines) -> str:
    out = io.StringIO()
    write(lines, out)
    return out.getvalue()


def test_every_rule_is_explained(respond, finding):
    answer = respond((finding("HB01", packets=(11,)),), "heartbleed:encrypted=pass", "sni:names=a.example")
    text = text_of(explanation_lines(explain(answer.ruleset)))
    for words in (
        "heartbleed-overread (heartbleed)",
        "means     A heartbeat request asks for more than it brings",
        "does      drop",
        "from      incident.pcap HB01 #11",
        "needs     connection tracking, for directions, marks, states",
        "nft       exact: judges the record that starts a packet's payload, none further inside",
        "writes 0x10000000 into the bits 0x10000000 of the connection mark",
        "sni-deny-1 (sni)",
        "from      the policy; no finding calls for this rule",
        "nft       refused: the server_name of a ClientHello, which is at no fixed place",
        "all       narrower: says half",
        "How heartbleed is got around",
        "The ruleset needs",
    ):
        assert words in text


def test_limits_are_said_and_levels_kept(respond):
    explained = explain(respond((), "rate").ruleset).plain()
    rules = {one["rule"]: one for one in explained["rules"]}
    assert "for each ip.saddr" in rules["rate-handshakes-ipv4"]["does"]
    assert {said["backend"]: said["level"] for said in rules["rate-open-ipv4"]["backends"]} == {
        "nft": "exact",
        "all": "narrower",
    }
    assert {one["policy"] for one in explained["policies"]} == {"rate"}


def test_a_ruleset_is_as_faithful_as_its_least_faithful_rule(respond):
    first, _ = say(respond((), "heartbleed:encrypted=pass").ruleset)
    assert first.level is Level.NARROWER
    first, _ = say(respond((), "heartbleed", "sni:names=a.example").ruleset)
    assert first.level == REFUSED
    assert len(first.notes) == 1


def test_policies_tell_what_the_backends_make_of_them():
    text = text_of(policy_lines([policy_named("sni"), policy_named("heartbleed")]))
    assert "nft       refused: the server_name of a ClientHello" in text
    assert "nft       exact: judges the record that starts a packet's payload" in text
    assert "example   sni:names=a.example" in text
    assert "example   heartbleed" not in text


def test_ipset_is_told_of_only_where_there_are_sets(respond, monkeypatch):
    monkeypatch.setattr("rulegen.explain.BACKENDS", BACKENDS)
    told = {
        policy: {
            said.backend for rule in explain(respond((), policy).ruleset).rules for said in rule.backends
        }
        for policy in ("block", "heartbleed")
    }
    assert told["block"] - told["heartbleed"] == {"ipset"}


def test_what_only_a_capture_can_tell_is_not_told():
    assert possible(policy_named("learned")) == ()
    assert "not known before there is a capture" in text_of(policy_lines([policy_named("learned")]))
    assert all(possible(policy) for policy in POLICIES if policy.name != "learned")


# --- names that want to break out --------------------------------------------------------------------------


def bare(text: str) -> str:
    """An artifact without comments, in which names may stand."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r'comment "[^"]*"', "comment", "\n".join(lines))


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
def test_a_capture_by_any_name_makes_the_same_rules(respond, finding, backend, name):
    found = (finding("HB01"), finding("DG12", "P"))
    wishes = () if backend.name != "ipset" else ("block",)
    fair, foul = (
        backend.emit(respond(found, *wishes, name=one).ruleset).text for one in ("incident.pcap", name)
    )
    assert bare(foul) == bare(fair)
    longest = 1024 if backend.name == "ipset" else 10_240  # buffers of the restore tools
    assert max(len(line.encode()) for line in foul.splitlines()) < longest
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in foul)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_an_explanation_shows_any_name_harmless(respond, finding, name):
    explained = explain(respond((finding("HB01"),), name=name).ruleset)
    text = text_of(explanation_lines(explained))
    assert text.replace("\n", "").isprintable()
    assert json.loads(json.dumps(explained.plain()))["rules"][0]["origin"].startswith(name)
