"""The promise that matters most: nobody is blocked for what they did not do.

No address of a finding of class A*, B, P or I ever gets into a ruleset unless the user asked for that finding
by its id.
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.model import Action, Finding, Severity
from rulegen.backends import BACKENDS, emit
from rulegen.from_findings import answer, parse_wish
from rulegen.ir.rule import Source
from rulegen.policies import POLICIES

ADDRESSES = tuple(f"192.0.2.{n}" for n in range(1, 9)) + tuple(f"2001:db8::{n}" for n in range(1, 9))
IDS = ("HB01", "HB03", "HB10", "DG01", "DG06", "DG12", "DG14", "SM03", "SM18", "RL05", "NFCT", "LB01", "ZZ99")

findings = st.builds(
    lambda identifier, action, offender, victims, policy: Finding(
        id=identifier,
        title=identifier,
        severity=Severity.CRITICAL,
        action=action,
        connection=0,
        packets=(1,),
        evidence={"side": "client", "address": offender, "payload_length": 9, "record_length": 3},
        explanation="",
        references=(),
        offender=offender,
        victims=victims,
        policy=policy,
    ),
    st.sampled_from(IDS),
    st.sampled_from(Action),
    st.sampled_from(ADDRESSES) | st.none(),
    st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple),
    st.sampled_from([policy.name for policy in POLICIES]) | st.none(),
)
ROW = {
    "connection": 0,
    "capture": 0,
    "client": {"address": "203.0.113.1", "port": 1},
    "server": {"address": "203.0.113.2", "port": 443},
    "version": "TLSv1.0",
}
wishes = st.sampled_from([(), *(tuple(map(parse_wish, names)) for names in (
    ("block",), ("block:side=both",), ("block", "heartbleed:variant=strict", "min-version"),
))])  # fmt: skip


def blocked(ruleset) -> set[str]:
    return {
        str(ipaddress.ip_address(element.key[0][0]) if element.key[0][0] >= 1 << 32 else
            ipaddress.IPv4Address(element.key[0][0]))
        for declaration in ruleset.sets
        for element in declaration.elements
    }  # fmt: skip


@given(st.lists(findings, max_size=12), wishes, st.sets(st.sampled_from(IDS)))
def test_only_offenders_of_class_a_or_asked_for(found, wanted, asked):
    ruleset = answer(
        (Source(name="c.pcap", sha256=None),), found, [ROW], wishes=wanted, asked=dict.fromkeys(asked)
    ).ruleset
    allowed = {finding.offender for finding in found if finding.action is Action.BLOCK or finding.id in asked}
    assert blocked(ruleset) <= allowed
    text = emit(ruleset, BACKENDS[0]).text
    assert not [address for address in ADDRESSES if address not in allowed and f"{address} " in text]
    assert "203.0.113." not in text


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.BLOCK])
@given(st.lists(findings, min_size=1, max_size=8), wishes)
def test_without_asking_the_other_classes_block_nobody(action, found, wanted):
    harmless = [finding._replace(action=action) for finding in found]
    result = answer((Source(name="c.pcap", sha256=None),), harmless, [ROW], wishes=wanted)
    assert blocked(result.ruleset) == set()
    assert not any(rule.startswith("block") for entry in result.account for rule in entry.rules)
