"""Packets that share a key meet the same rules: judged with keys and without, everything comes out alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.artifacts import ToolMissing, read, read_iptables
from rulegen.evaluate.captured import blocks
from rulegen.evaluate.judge import Meetings, judge
from rulegen.evaluate.questions import questions
from rulegen.evaluate.ruleset import Loading, firewall

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("c*/*.pcap*"))
HEARTBLEED = Path(__file__).parents[3] / "samples/captures/heartbleed-success.pcap"

TABLE = """
table inet t {
    set some {
        type ipv4_addr
        elements = { 192.168.177.131, 10.0.0.80 }
    }
    set short {
        type ipv4_addr
        flags timeout
        elements = { 10.0.0.80 timeout 1h }
    }
    set learned {
        type ipv4_addr
        flags dynamic
        size 1000
    }
    set six {
        type ipv6_addr
        elements = { 2001:db8::1, ::1 }
    }
    set pairs {
        typeof ip saddr . tcp dport
        elements = { 10.0.0.80 . 443 }
    }
    set randoms {
        typeof @ih,88,256
    }
    chain other {
        tcp flags fin counter return
        counter
    }
    chain f {
        type filter hook forward priority 0; policy accept;
        RULES
    }
}
"""
RULES = {
    "addresses": [
        "ip saddr @some counter",
        "ip6 saddr @six counter",
        "ip saddr != @some tcp dport 443 counter",
    ],
    "ports": [
        "tcp dport { 25, 443, 1000-2000 } counter",
        "tcp sport 443 jump other",
        "tcp dport != 443 counter",
    ],
    "payload": ["@ih,0,8 22 counter", "@ih,0,16 > 0x1500 counter", "@ih,24,16 & 0xff00 != 0x0100 counter"],
    "verdict map": ["tcp dport vmap { 443 : jump other, 25 : drop }", "counter"],
    "concatenation": ["ip saddr . tcp dport @pairs drop", "counter"],
    "long keys": ["@ih,88,256 @randoms drop", "@ih,0,128 0x16030100 counter", "counter"],
    "connection": ["ct state new counter", "ct direction reply @ih,0,8 22 ct mark set 5", "ct mark 5 drop"],
    "marks": [
        "tcp dport 443 meta mark set 3",
        "meta mark 3 ct mark set meta mark counter",
        "ct mark 3 counter",
    ],
    "bytes into a mark": ["@ih,0,8 22 ct mark set @ih,0,32", "ct mark 0x01030116 counter drop"],
    "for a time": ["ip saddr @short drop", "ip saddr != @short counter"],
    "learned": ["tcp flags syn add @learned { ip daddr }", "ip saddr @learned counter"],
    "options": ["tcp option maxseg size 1460 drop", "meta length > 500 counter"],
    "quota": ["@ih,0,8 22 quota over 500 bytes drop", "counter"],
}


def rules(*lines: str) -> str:
    return TABLE.replace("RULES", "\n        ".join(lines))


@pytest.fixture(params=RULES)
def artifacts(request):
    try:
        return [read(rules(*RULES[request.param]))]
    except ToolMissing as error:
        pytest.skip(str(error))


def met(artifacts, path, asked):
    meetings = Meetings()
    judged = judge(firewall(artifacts, Loading()), str(path), meetings, questions=asked)
    return [meetings.all[number] if number >= 0 else None for number in judged.meeting.tolist()]


def test_all_samples_meet_the_same_rules_with_keys_and_without(artifacts):
    asked = questions(artifacts)
    for path in SAMPLES[::3]:
        assert met(artifacts, path, asked) == met(artifacts, path, None), path.name


@pytest.fixture
def shared():
    """How many packets of the sample have a key."""

    def make(*lines: str) -> int:
        try:
            asked = questions([read(rules(*lines))])
        except ToolMissing as error:
            pytest.skip(str(error))
        return (
            0
            if asked is None
            else sum(key is not None for block in blocks(str(HEARTBLEED)) for key in asked.keys(block))
        )

    return make


def test_rules_that_only_compare_let_all_plain_packets_share(shared):
    assert shared(*RULES["payload"]) == 34


@pytest.mark.parametrize("name", ["learned", "quota", "bytes into a mark", "options"])
def test_packets_that_may_come_to_a_rule_that_remembers_are_judged_by_themselves(shared, name):
    assert shared(*RULES[name]) < 34


def test_a_rule_that_is_behind_a_test_keeps_only_what_passes_the_test_apart(shared):
    assert shared("tcp dport 25 limit rate 1/second counter") == 34
    assert shared("limit rate 1/second counter") == 0


def test_without_tracking_nothing_is_shared(shared):
    assert shared("tcp dport 443 notrack") == 0


def test_iptables_is_not_asked():
    assert questions([read_iptables("*filter\nCOMMIT\n")]) is None
