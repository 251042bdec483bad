"""Files that are loaded together: one firewall, all names, and all that has no model at once."""

from __future__ import annotations

import pytest

from rulegen.artifacts import ToolMissing, read, read_ipset, read_iptables
from rulegen.evaluate.base import Fate, Passing
from rulegen.evaluate.firewall import Place
from rulegen.evaluate.ruleset import Loading, firewall, likely_place, refusals, rule_names
from rulegen.testbed.packets import Segment

FILTER = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n{}\nCOMMIT\n"


def xt(*rules: str, family: str | None = None):
    return read_iptables(FILTER.format("\n".join(rules)), family)


def nft(text: str):
    try:
        return read(text)
    except ToolMissing as error:
        pytest.skip(str(error))


def packet(source: str = "192.0.2.1", destination: str = "198.51.100.7", port: int = 443) -> Passing:
    data = Segment(source=source, destination=destination, source_port=4000, destination_port=port).packet()
    return Passing(number=1, time_ns=0, data=data, captured=len(data))


def fate(artifacts, passing: Passing, **loading: object) -> Fate:
    return firewall(artifacts, Loading(**loading)).judge(passing).fate


def test_what_any_of_the_files_drops_is_dropped():
    first = xt("-A FORWARD -p tcp --dport 443 -j ACCEPT")
    second = nft(
        "table ip b {\n chain f {\n type filter hook forward priority 5;\n tcp dport 443 drop\n }\n}\n"
    )
    assert fate([first], packet()) is Fate.ACCEPT
    assert fate([first, second], packet()) is Fate.DROP


def test_a_file_without_a_family_serves_both_and_one_with_a_family_only_that():
    drop = "-A FORWARD -p tcp --dport 443 -j DROP"
    six = packet("2001:db8::1", "2001:db8::2")
    assert [fate([xt(drop)], one) for one in (packet(), six)] == [Fate.DROP, Fate.DROP]
    assert [fate([xt(drop, family="ip6")], one) for one in (packet(), six)] == [Fate.ACCEPT, Fate.DROP]


def test_rules_look_into_the_sets_of_other_files():
    rule = xt("-A FORWARD -m set --match-set bad src -j DROP", family="ip")
    sets = read_ipset("create bad hash:ip family inet\nadd bad 192.0.2.1\n")
    assert [str(error) for error in refusals([rule], Loading())]
    assert refusals([rule, sets], Loading()) == ()
    assert fate([rule, sets], packet()) is Fate.DROP


def test_all_that_has_no_model_is_told_at_once_by_its_place():
    artifact = xt(
        "-A FORWARD -m geoip --src-cc XY -j DROP",
        "-A FORWARD -p tcp -j ACCEPT",
        "-A FORWARD -j NFQUEUE --queue-num 1",
        family="ip",
    )
    places = [error.where for error in refusals([artifact], Loading())]
    assert [place.split(", ")[2][:6] for place in places] == ["rule 1", "rule 3"]


def test_what_is_refused_of_nft_is_told_at_once_too():
    artifact = nft(
        "table ip t {\n chain f {\n type filter hook forward priority 0;\n"
        " counter\n meta random < 9 drop\n tcp dport 80 drop\n fib saddr oif 0 drop\n }\n}\n"
    )
    assert len(refusals([artifact], Loading())) == 2


def test_all_rules_are_named_in_the_order_of_the_files():
    artifact = xt('-A FORWARD -j ACCEPT -m comment --comment "[one] more"', "-A INPUT -j DROP", family="ip")
    names = list(rule_names([artifact]))
    assert [(name.table, name.chain, name.number, name.comment) for name in names] == [
        ("ip filter", "INPUT", 1, None),
        ("ip filter", "FORWARD", 1, "[one] more"),
    ]
    assert [name.table for name in rule_names([xt("-A FORWARD -j DROP")])] == ["ip filter", "ip6 filter"]


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        (("-A FORWARD -j ACCEPT",), Place.ROUTER),
        (("-A FORWARD -j ACCEPT", "-A INPUT -j DROP"), Place.ROUTER),
        (("-A INPUT -j DROP",), Place.SERVER),
        (("-A OUTPUT -j DROP",), Place.SERVER),
        ((), Place.ROUTER),
    ],
)
def test_rules_only_for_the_host_itself_are_taken_for_a_servers(rules, place):
    assert likely_place([xt(*rules)]) is place


def test_a_firewall_begins_anew_each_time():
    artifact = xt("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", "-A FORWARD -j DROP", family="ip")
    wall = firewall([artifact], Loading())
    answer = Segment(
        source="198.51.100.7", destination="192.0.2.1", source_port=443, destination_port=4000
    ).packet()
    back = Passing(number=2, time_ns=1, data=answer, captured=len(answer))
    assert (wall.judge(packet()).fate, wall.judge(back).fate) == (Fate.ACCEPT, Fate.DROP)
    assert firewall([artifact], Loading()).judge(back).fate is Fate.ACCEPT
