"""The sets of ipset: what it accepts, what the kernel finds in them, and that they are filled in one step."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings

from analyzer.model import Side
from rulegen.backends import emit
from rulegen.backends.ipset import BACKEND as IPSET
from rulegen.backends.ipset import LINE_MAX
from rulegen.backends.iptables import IP6TABLES, IPTABLES
from rulegen.backends.xtables_text import SET_MAX, set_name
from rulegen.errors import Refused
from rulegen.ir.match import Lookup, Not, equals
from rulegen.ir.rule import Element, SetDeclaration, Verdict
from rulegen.testbed.netns import LabError
from rulegen.testbed.packets import Segment
from tests.rulegen.backends.test_nft import hostile
from tests.rulegen.reference import Packet, holds


def number(address: str) -> int:
    return int(ip_address(address))


def declared(fields: tuple[str, ...], *keys, name: str = "some", **changes) -> SetDeclaration:
    """A set whose elements are given as (low, high) or a single value per field."""
    elements = tuple(
        Element(key=tuple(part if isinstance(part, tuple) else (part, part) for part in key)) for key in keys
    )
    return SetDeclaration(name=name, fields=fields, elements=elements, **changes)


def text_of(ruleset_of, *sets: SetDeclaration) -> str:
    return emit(ruleset_of(*(Lookup(one.fields, one.name) for one in sets), sets=sets), IPSET).text


FOUR = declared(("ip.saddr",), (number("192.0.2.1"),), ((number("198.51.100.0"), number("198.51.100.130")),))
SIX = declared(("ip6.saddr",), ((number("2001:db8::"), number("2001:db8::ffff")),), name="six")
EVERYBODY = declared(("ip.daddr",), ((0, 2**32 - 1),), name="everybody")
SERVICES = declared(
    ("ip6.daddr", "tcp.dport"),
    (number("2001:db8::2"), (440, 443)),
    (number("2001:db8::3"), 22),
    name="services",
)
FLOWS = declared(
    ("ip.saddr", "tcp.dport", "ip.daddr"),
    (number("192.0.2.1"), 443, (number("198.51.100.0"), number("198.51.100.255"))),
    name="flows",
)
PORTS = declared(("tcp.dport",), (22,), ((440, 450),), name="ports")
ALL = (FOUR, SIX, EVERYBODY, SERVICES, FLOWS, PORTS)


@pytest.mark.netns
@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_the_kernel_finds_what_is_in_them(bench, ruleset_of, variant):
    matches = [
        match for one in ALL for match in (Lookup(one.fields, one.name), Not(Lookup(one.fields, one.name)))
    ]
    ruleset = ruleset_of(*matches, sets=ALL)
    bench.load(emit(ruleset, IPSET).text, "ipset")
    bench.load(emit(ruleset, IPTABLES).text, f"iptables-{variant}")
    bench.load(emit(ruleset, IP6TABLES).text, f"ip6tables-{variant}")
    packets = [
        Segment(source=source, destination=destination, source_port=1, destination_port=port).packet()
        for ends in (
            (
                ("192.0.2.1", "192.0.2.2", "198.51.100.0", "198.51.100.130", "198.51.100.131"),
                ("198.51.100.7", "203.0.113.9"),
            ),
            (("2001:db8::", "2001:db8::ffff", "2001:db8::1:0"), ("2001:db8::2", "2001:db8::3")),
        )
        for source in ends[0]
        for destination in ends[1]
        for port in (22, 439, 440, 443, 444, 450, 451)
    ]
    bench.send((Side.CLIENT, one) for one in packets)
    elements = {one.name: members(one) for one in ALL}
    parsed = list(map(Packet.parse, packets))
    counts = bench.counters(tool=f"iptables-{variant}")
    for name, count in bench.counters(tool=f"ip6tables-{variant}").items():
        counts[name] = counts.get(name, 0) + count
    assert counts == {
        f"m{index}": sum(holds(match, one, elements) for one in parsed) for index, match in enumerate(matches)
    }


class members:
    """The elements of a set, too many to be listed."""

    def __init__(self, declaration: SetDeclaration) -> None:
        self.declaration = declaration

    def __contains__(self, key: tuple[int, ...]) -> bool:
        return any(
            all(low <= value <= high for value, (low, high) in zip(key, element.key, strict=True))
            for element in self.declaration.elements
        )


@pytest.mark.netns
def test_loading_again_changes_nothing_and_other_elements_replace_the_old_ones(bench, ruleset_of):
    bench.load("create other hash:ip\nadd other 192.0.2.77\n", "ipset")
    bench.load(text_of(ruleset_of, *ALL), "ipset")
    first = bench.listing("ipset")
    bench.load(text_of(ruleset_of, *ALL), "ipset")
    assert timeless(bench.listing("ipset")) == timeless(first)
    changed = declared(("ip.saddr",), (number("192.0.2.5"),), timeout_s=90)
    bench.load(text_of(ruleset_of, changed, *ALL[1:]), "ipset")
    listed = bench.listing("ipset")
    assert re.findall(r"add tlswall-some (\S+)", listed) == ["192.0.2.5"]
    assert "add other 192.0.2.77" in listed
    assert len(re.findall("^create", listed, re.MULTILINE)) == len(ALL) + 1, "none is left over"


def timeless(text: str) -> str:
    return re.sub(r" (initval|timeout) \S+", "", text)


@pytest.mark.netns
def test_a_set_is_replaced_while_rules_look_into_it(bench, ruleset_of):
    ruleset = ruleset_of(Lookup(FOUR.fields, FOUR.name), sets=(FOUR,), verdict=Verdict.DROP)
    bench.load(emit(ruleset, IPSET).text, "ipset")
    bench.load(emit(ruleset, IPTABLES).text, "iptables-nft")
    first, second = (
        (
            Side.CLIENT,
            Segment(source=source, destination="198.51.100.7", source_port=1, destination_port=2).packet(),
        )
        for source in ("192.0.2.1", "192.0.2.5")
    )
    assert [fate.passed for fate in bench.send((first, second))] == [False, True]
    bench.load(text_of(ruleset_of, declared(("ip.saddr",), (number("192.0.2.5"),))), "ipset")
    assert [fate.passed for fate in bench.send((first, second))] == [True, False]


@pytest.mark.netns
def test_what_rules_have_learned_stays(bench, ruleset_of):
    learned = declared(("ip.saddr",), dynamic=True, timeout_s=60)
    bench.load(text_of(ruleset_of, learned), "ipset")
    bench.load("add tlswall-some 192.0.2.8 timeout 50\n", "ipset")
    bench.load(text_of(ruleset_of, learned), "ipset")
    assert "add tlswall-some 192.0.2.8" in bench.listing("ipset")


@pytest.mark.netns
def test_elements_are_forgotten_in_time(bench, ruleset_of):
    one = Element(key=((1, 1),), timeout_s=3000, note="why")
    other = Element(key=((2, 2),))
    bench.load(
        text_of(ruleset_of, SetDeclaration(name="a", fields=("ip.saddr",), elements=(one, other))), "ipset"
    )
    listed = bench.listing("ipset")
    assert re.search(r'add tlswall-a 0\.0\.0\.1 timeout (3000|2999) comment "why"', listed)
    assert re.search(r"add tlswall-a 0\.0\.0\.2 timeout 0\n", listed)


@pytest.mark.netns
def test_what_ipset_refuses_is_reported_with_its_words(bench):
    with pytest.raises(LabError, match="Syntax error"):
        bench.load("create a hash:ip\nadd a nonsense here\n", "ipset")


# --- form ---------------------------------------------------------------------------------------------------


def test_ipset_accepts_it(ruleset_of):
    checked = IPSET.check(text_of(ruleset_of, *ALL))
    if checked.accepted is None:
        pytest.skip(checked.message)
    assert checked.accepted, checked.message
    assert IPSET.check("create x hash:nonsense\n").accepted is False


def test_without_sets_there_is_only_the_header(ruleset_of):
    text = emit(ruleset_of(), IPSET).text
    assert all(line.startswith("#") for line in text.splitlines() if line)


def test_names_fit_and_differ():
    long = [f"{'a-very-long-name-of-a-set-of-addresses'[:38]}-{letter}" for letter in "abc"]
    names = [set_name(name) for name in ("short", *long)]
    assert names[0] == "tlswall-short"
    assert len(set(names)) == len(names)
    assert all(len(name) <= SET_MAX for name in names)


def test_refusals_are_collected_and_named(ruleset_of):
    sets = (
        declared(("tls.random",), (1,), name="randoms"),
        FOUR,
        declared(("tcp.dport", "ip.saddr"), (1, 1), name="reversed"),
        declared(("ip.saddr",), (1,), name="forever", timeout_s=2_147_484),
        declared(("ip.saddr", "tcp.dport", "ip.daddr"), ((0, 255), 1, 1), name="networks"),
        declared(("ip.saddr", "tcp.dport"), *((host, (0, 65535)) for host in range(20)), name="huge"),
    )
    with pytest.raises(Refused) as caught:
        text_of(ruleset_of, *sets)
    refused = {one.rule: one.feature for one in caught.value.refusals}
    assert list(refused) == ["set randoms", "set reversed", "set forever", "set networks", "set huge"]
    for feature, words in zip(
        refused.values(),
        ("tls.random", "tcp.dport . ip.saddr", "2147484 s", "networks", "1310720"),
        strict=True,
    ):
        assert words in feature


def test_every_rule_is_said_to_be_elsewhere(ruleset_of):
    ruleset = ruleset_of(Lookup(FOUR.fields, FOUR.name), sets=(FOUR,))
    assert [(one.rule, len(one.notes)) for one in emit(ruleset, IPSET).fidelity] == [("m0", 1)]


@pytest.mark.netns
def test_what_the_header_says_works(bench, ruleset_of, tmp_path):
    file = tmp_path / "rules.ipset"
    file.write_text(text_of(ruleset_of, *ALL))
    commands = {
        head: command.replace("FILE", str(file))
        for head, command in re.findall(r"^# (\w+):\s+(.+?)(?:    .*)?$", file.read_text(), re.MULTILINE)
    }
    bench.command("sh", "-c", commands["Check"])
    assert "tlswall" not in bench.command("ipset", "list", "-n")
    for _ in range(2):
        bench.command("sh", "-c", commands["Load"])
    assert "192.0.2.1" in bench.command("sh", "-c", commands["Watch"])
    bench.command("ipset", "create", "somebody", "hash:ip")
    bench.command("sh", "-c", commands["Remove"])
    assert bench.command("ipset", "list", "-n").split() == ["somebody"]


def test_a_file_without_sets_says_so(ruleset_of):
    artifact = emit(ruleset_of(Not(Lookup(FOUR.fields, FOUR.name)), sets=(FOUR,)), IPSET)
    nothing = emit(ruleset_of(equals("tcp.dport", 443)), IPSET)
    assert "# Load:" in artifact.text
    assert "only the sets are in this file" in artifact.fidelity[0].notes[0]
    assert "# Hook:     none; no rule of this ruleset looks into a set" in nothing.text
    assert "# Load:" not in nothing.text
    assert "there is no set in this file" in nothing.fidelity[0].notes[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile, identifier=hostile)
def test_hostile_names_never_break_out(respond, finding, name, identifier):
    """ipset takes what is behind the 1,023rd byte of a line for another line, in comments too."""
    ruleset = respond((finding(identifier, title=name),), "block", name=name * 20).ruleset
    text = emit(ruleset, IPSET).text
    harmless = emit(respond((finding(),), "block").ruleset, IPSET).text
    assert skeleton(text) == skeleton(harmless)
    assert all(len(line.encode()) <= LINE_MAX for line in text.split("\n"))
    checked = IPSET.check(text)
    assert checked.accepted in (True, None), checked.message


def skeleton(text: str) -> list[str]:
    """The file without its comments."""
    lines = (line for line in text.split("\n") if line and not line.startswith("#"))
    return [re.sub(r'comment "[^"]*"', "", line) for line in lines]
