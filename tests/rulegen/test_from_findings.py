"""Findings and wishes: which policies are chosen, and the account of every finding."""

from __future__ import annotations

import pytest

from rulegen.account import account_lines
from rulegen.errors import WishError
from rulegen.from_findings import EXAMPLES, Wish, parse_asked, parse_wish
from rulegen.ir.rule import Hook


def chosen(answer) -> list[str]:
    return [text.partition(":")[0] for text in answer.ruleset.policies]


def test_without_a_wish_the_policies_that_answer_are_taken(respond, finding):
    assert chosen(respond((finding("HB01"),))) == ["block", "heartbleed"]
    assert chosen(respond((finding("HB02", "B"),))) == ["heartbleed"]
    assert chosen(respond((finding("DG12", "P"),))) == ["min-version"]
    assert chosen(respond((finding("SM18"),))) == ["block"]
    assert chosen(respond((finding("CR01", "P"),))) == []
    assert chosen(respond(())) == []


def test_the_finding_may_name_its_policy(respond, finding):
    assert chosen(respond((finding("XX01", "P", policy="min-version"),))) == ["min-version"]


def test_a_wish_needs_no_finding(respond):
    answer = respond((), "heartbleed:ports=443")
    assert chosen(answer) == ["heartbleed"]
    assert answer.account == ()


def test_every_finding_is_accounted_for(respond, finding):
    findings = (
        finding("HB01"), finding("HB02", "B"), finding("HB05"), finding("DG01", "A*"), finding("DG12", "P"),
        finding("SM03", "B"), finding("DG08", "I"), finding("HB01"), finding("CR01", "P"),
    )  # fmt: skip
    for policies in ((), ("heartbleed",), ("block",), ("block", "heartbleed", "min-version")):
        answer = respond(findings, *policies)
        assert sum(entry.count for entry in answer.account) == len(findings)
        names = {rule.name for rule in answer.ruleset.rules}
        for entry in answer.account:
            assert entry.rules or entry.why
            assert set(entry.rules) <= names


def test_the_account_says_why(respond, finding):
    def why(one, *policies):
        (entry,) = respond((one,), *policies).account
        return entry.why

    assert "both visible addresses are victims" in why(finding("DG01", "A*"))
    assert "class B" in why(finding("SM03", "B"))
    assert "class P" in why(finding("CR01", "P"))
    assert "class I" in why(finding("DG08", "I"))
    assert (
        why(finding("HB01"), "min-version") == "policy block or heartbleed answers it and was not asked for"
    )
    assert "variant=strict" in why(finding("HB05"), "heartbleed")


def test_rules_for_other_ports_or_the_other_direction_are_no_answer(respond, finding):
    def rules(one, *policies):
        (entry,) = respond((one,), *policies).account
        return entry.rules or entry.why

    overread = ("heartbleed-overread",)
    assert rules(finding("HB01"), "heartbleed:ports=400-450") == overread
    assert "port is 443" in rules(finding("HB01"), "heartbleed:ports=8443")
    assert "port is 443" in rules(finding("DG12", "P"), "min-version:ports=8443")
    assert rules(finding("HB10"), "heartbleed:direction=to-client") == overread
    assert "goes to-client" in rules(finding("HB10"), "heartbleed:direction=to-server")
    assert "goes to-server" in rules(finding("HB01"), "heartbleed:direction=to-client")


def test_findings_alike_are_counted_with_a_few_examples(respond, finding):
    findings = tuple(finding("HB01", packets=(n,)) for n in range(10))
    (entry,) = respond(findings).account
    assert entry.count == 10
    assert [observed.finding.packets for observed in entry.examples] == [(n,) for n in range(EXAMPLES)]


def test_rules_cite_the_findings_that_they_answer(respond, finding):
    answer = respond((finding("HB01", packets=(4, 9)), finding("DG12", "P", packets=(2,))))
    cited = {
        rule.name: [(one.finding, one.capture, one.packets) for one in rule.origin.citations]
        for rule in answer.ruleset.rules
    }
    assert cited["heartbleed-overread"] == [("HB01", "incident.pcap", (4, 9))]
    assert cited["block-ipv4"] == [("HB01", "incident.pcap", (4, 9))]
    assert cited["block-ipv6"] == []
    assert cited["min-version-server-hello"] == [("DG12", "incident.pcap", (2,))]


def test_defaults_reach_the_policies_that_take_them(respond):
    answer = respond(
        (), "block", "heartbleed", "min-version:ports=8443", defaults={"ports": "443", "ttl": "7d"}
    )
    given = {wish.policy: wish.parameters for wish in map(parse_wish, answer.ruleset.policies)}
    assert (given["block"]["ttl"], given["block"]["ports"]) == ("7d", "443")
    assert given["heartbleed"]["ports"] == "443"
    assert (given["min-version"]["ports"], given["min-version"]["min"]) == ("8443", "1.2")
    with pytest.raises(WishError, match="takes ttl; block and pin would"):
        respond((), "heartbleed", defaults={"ttl": "7d"})


def test_wishes_as_they_are_written():
    assert parse_wish("block") == Wish(policy="block")
    assert parse_wish("heartbleed:ports=443,8443-8450,direction=both").parameters == {
        "ports": "443,8443-8450",
        "direction": "both",
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("nonsense",), "no policy 'nonsense'; there are block, "),
        (("block:443",), "written key=value"),
        (("block:ttl=1h,ttl=2h",), "ttl is given twice"),
        (("block:colour=red",), "no parameter 'colour'; it has ttl, side, "),
        (("block:side=left",), "one of auto, source, destination, both"),
        (("min-version:min=1.4",), "one of 1.0, 1.1, 1.2"),
    ],
)
def test_wishes_that_are_refused(respond, texts, words):
    with pytest.raises(WishError, match=words):
        respond((), *texts)


def test_asked_as_it_is_written():
    assert parse_asked(["dg06:client", "SM03"]) == {"DG06": "client", "SM03": None}
    for text in ("", ":client", "DG06:victim"):
        with pytest.raises(WishError):
            parse_asked([text])


def test_a_finding_that_was_asked_for_and_is_not_there_is_said(respond, finding):
    answer = respond((finding("DG06", "A*"),), asked=("DG06:client", "DG60"))
    assert answer.missing == ("DG60",)
    assert "--finding DG60: not found in the captures" in [line.text for line in account_lines(answer)]


def test_the_hook_is_passed_on(respond):
    assert respond((), "block", hook="input").ruleset.hook is Hook.INPUT
