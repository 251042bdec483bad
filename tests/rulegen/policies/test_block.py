"""block: whom it blocks, for how long, and what the kernel makes of it."""

from __future__ import annotations

import ipaddress
import re

import pytest

from analyzer.model import Side
from rulegen.backends import BACKENDS, emit
from rulegen.errors import WishError
from rulegen.testbed.packets import Segment
from tests.rulegen.policies.ways import WAYS, load_by

NFT = BACKENDS[0]


def between(source: str, destination: str) -> bytes:
    return Segment(source=source, destination=destination, source_port=1, destination_port=2).packet()


def entry(answer):
    (only,) = answer.account
    return only


@pytest.mark.netns
@pytest.mark.parametrize(
    ("policy", "hook", "expected"),
    [
        ("block", "forward", [False, False, True, True, True, True]),
        ("block", "prerouting", [False, False, True, True, True, True]),
        ("block:side=destination", "forward", [True, True, False, False, True, True]),
        ("block:side=both", "forward", [False, False, False, False, True, True]),
    ],
)
def test_in_the_kernel(bench, respond, finding, policy, hook, expected):
    found = (finding(), finding(offender="2001:db8::66"))
    bench.load(emit(respond(found, policy, hook=hook).ruleset, NFT).text)
    packets = [
        (Side.CLIENT, between("192.0.2.1", "198.51.100.7")),
        (Side.CLIENT, between("2001:db8::66", "2001:db8:1::7")),
        (Side.SERVER, between("198.51.100.7", "192.0.2.1")),
        (Side.SERVER, between("2001:db8:1::7", "2001:db8::66")),
        (Side.CLIENT, between("192.0.2.2", "198.51.100.7")),
        (Side.CLIENT, between("2001:db8::67", "2001:db8:1::7")),
    ]
    assert [fate.passed for fate in bench.send(packets)] == expected
    blocked = expected.count(False) // 2
    assert bench.counters() == {"block-ipv4": blocked, "block-ipv6": blocked}


@pytest.mark.netns
def test_an_address_is_let_go_and_more_can_be_added(bench, rules_text):
    bench.load(rules_text("block:ttl=1h"))
    packet = (Side.CLIENT, between("192.0.2.9", "198.51.100.7"))
    (fate,) = bench.send([packet])
    assert fate.passed
    bench.command(
        "nft", "add", "element", "inet", "tlswall", "set_blocked_ipv4", "{ 192.0.2.9 timeout 200ms }"
    )
    (fate,) = bench.send([packet])
    assert not fate.passed
    bench.command("sleep", "0.5")
    (fate,) = bench.send([packet])
    assert fate.passed


@pytest.mark.netns
@pytest.mark.parametrize("tool", ["nft", "ipset"])
def test_loading_it_again_forgets_what_was_added_by_hand(bench, respond, tool):
    ruleset = respond((), "block:ttl=1h").ruleset
    (backend,) = (one for one in BACKENDS if one.name == tool)
    text = emit(ruleset, backend).text
    bench.load(text, tool)
    add = {
        "nft": "nft add element inet tlswall set_blocked_ipv4 '{ 192.0.2.9 timeout 1h }'; nft list ruleset",
        "ipset": "ipset add tlswall-blocked-ipv4 192.0.2.9; ipset list",
    }[tool]
    assert "192.0.2.9" in bench.command("sh", "-c", add)
    bench.load(text, tool)
    assert "192.0.2.9" not in bench.command("sh", "-c", add.partition("; ")[2])


NEIGHBOURS = ("192.0.2.1", "192.0.2.200", "192.0.3.9", "2001:db8::66", "2001:db8:0:1::1")
"""Two in one /24, a third in the next /24 of the same /23; two in neighbouring /64."""


def blocked(answer) -> list[str]:
    """The elements of both sets, as prefixes."""
    return [
        str(network)
        for declaration in answer.ruleset.sets
        for element in declaration.elements
        for network in ipaddress.summarize_address_range(
            *map(
                ipaddress.IPv4Address if declaration.fields[0] == "ip.saddr" else ipaddress.IPv6Address,
                element.key[0],
            )
        )
    ]


@pytest.mark.netns
def test_prefixes_in_the_kernel(bench, respond, finding):
    found = tuple(finding(offender=address) for address in NEIGHBOURS)
    bench.load(emit(respond(found, "block:prefix4=24,prefix6=64").ruleset, NFT).text)
    refused = ("192.0.2.0", "192.0.3.255", "2001:db8::", "2001:db8:0:1:ffff:ffff:ffff:ffff")
    passed = ("192.0.1.255", "192.0.4.0", "2001:db8:0:2::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff")
    fates = bench.send(
        (Side.CLIENT, between(source, "2001:db8:9::7" if ":" in source else "198.51.100.7"))
        for source in (*refused, *passed)
    )
    assert [fate.passed for fate in fates] == [False] * 4 + [True] * 4


@pytest.mark.netns
@pytest.mark.parametrize("way", WAYS)
def test_prefixes_in_ipset_and_iptables(bench, respond, finding, way):
    found = tuple(finding(offender=address) for address in NEIGHBOURS)
    load_by(bench, respond(found, "block:prefix4=24,prefix6=64").ruleset, way)
    inside = ("192.0.2.0", "192.0.3.255", "2001:db8::", "2001:db8:0:1:ffff:ffff:ffff:ffff")
    outside = ("192.0.1.255", "192.0.4.0", "2001:db8:0:2::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff")
    fates = bench.send(
        (Side.CLIENT, between(source, "2001:db8:9::7" if ":" in source else "198.51.100.7"))
        for source in (*inside, *outside)
    )
    assert [fate.passed for fate in fates] == [False] * 4 + [True] * 4


def test_prefixes_are_joined_and_never_wider_than_asked(respond, finding):
    found = tuple(finding(offender=address) for address in NEIGHBOURS)
    assert blocked(respond(found, "block")) == [
        f"{address}/{128 if ':' in address else 32}" for address in NEIGHBOURS
    ]
    assert blocked(respond(found, "block:prefix4=24")) == [
        "192.0.2.0/23", "2001:db8::66/128", "2001:db8:0:1::1/128"
    ]  # fmt: skip
    assert blocked(respond(found, "block:prefix4=24,prefix6=64")) == ["192.0.2.0/23", "2001:db8::/63"]
    text = emit(respond(found, "block:prefix4=24").ruleset, NFT).text
    assert '192.0.2.0-192.0.3.255 timeout 1d comment "3 findings, first HB01 incident.pcap #4"' in text
    pair = (finding(offender="192.0.2.2"), finding(offender="192.0.2.3"))
    assert blocked(respond(pair, "block")) == ["192.0.2.2/31"]


def test_a_prefix_with_somebody_who_was_attacked_is_not_taken(respond, finding):
    found = (
        finding(offender="192.0.2.1", victims=("192.0.2.99",)),
        finding(offender="198.51.100.99"),
        finding(offender="203.0.113.5"),
    )
    assert blocked(respond(found, "block:prefix4=24")) == [
        "192.0.2.1/32",
        "198.51.100.99/32",  # the connection's server is 198.51.100.7
        "203.0.113.0/24",
    ]


@pytest.mark.parametrize(
    "text", ["prefix4=7", "prefix4=33", "prefix4=/24", "prefix6=18", "prefix6=129", "prefix6="]
)
def test_prefixes_that_are_none(rules_text, text):
    with pytest.raises(WishError, match="a number from"):
        rules_text(f"block:{text}")


@pytest.mark.netns
def test_only_towards_ports_and_servers(bench, respond, finding):
    bench.load(
        emit(respond((finding(),), "block:side=both,ports=443,servers=198.51.100.0/24").ruleset, NFT).text
    )
    one, server, other = "192.0.2.1", "198.51.100.7", "203.0.113.7"
    ends = (
        (one, 40000, server, 443), (one, 40000, server, 80), (one, 40000, other, 443), ("192.0.2.2", 40000, server, 443),
        (server, 443, one, 40000), (server, 80, one, 40000), (other, 443, one, 40000),
    )  # fmt: skip
    packets = (
        Segment(source=source, source_port=sport, destination=destination, destination_port=dport).packet()
        for source, sport, destination, dport in ends
    )
    fates = bench.send((Side.CLIENT, packet) for packet in packets)
    assert [not fate.passed for fate in fates] == [True, False, False, False, True, False, False]
    assert bench.counters() == {"block-ipv4": 2}


def test_findings_that_a_limit_does_not_answer(respond, finding):
    def why(policy, **changes):
        left = entry(respond((finding(**changes),), policy))
        assert not left.rules
        return left.why

    assert "port is 443" in why("block:ports=8443")
    assert "server is 198.51.100.7" in why("block:servers=203.0.113.0/24")
    assert "its offender is the server" in why("block:ports=443", offender="198.51.100.7")
    assert "none of the servers asked for has an IPv6 address" in why(
        "block:servers=198.51.100.0/24", offender="2001:db8::66", connection=None
    )


def test_sets_are_named_and_time_limited(respond, finding):
    found = (finding(), finding(offender="2001:db8::66"), finding("RL01"))
    text = emit(respond(found, "block:ttl=36h").ruleset, NFT).text
    assert re.search(
        r"set set_blocked_ipv4 \{\s+typeof ip saddr\s+flags interval,timeout\s+timeout 36h", text
    )
    assert '192.0.2.1 timeout 36h comment "2 findings, first HB01 incident.pcap #4",' in text
    assert '2001:db8::66 timeout 36h comment "HB01 incident.pcap #4",' in text


def test_in_the_output_hook_it_is_the_destination(respond, finding):
    assert (
        "ip daddr @set_blocked_ipv4" in emit(respond((finding(),), "block", hook="output").ruleset, NFT).text
    )
    assert (
        "ip saddr @set_blocked_ipv4" in emit(respond((finding(),), "block", hook="input").ruleset, NFT).text
    )


# fmt: off
UNFIT = (
    ("0.0.0.0",          "unspecified"), ("127.0.0.1",        "loopback"),  ("224.0.0.251",  "multicast"),
    ("255.255.255.255",  "broadcast"),   ("::",               "unspecified"), ("::1",        "loopback"),
    ("ff02::1",          "multicast"),   ("::ffff:192.0.2.1", "IPv4-mapped"), ("<script>",   "no IP address"),
)
# fmt: on


@pytest.mark.parametrize(("address", "words"), UNFIT)
def test_addresses_that_are_nobody(respond, finding, address, words):
    answer = respond((finding(offender=address),), "block")
    assert not entry(answer).rules
    assert words in entry(answer).why
    assert not any(declaration.elements for declaration in answer.ruleset.sets)


def test_without_an_offender_nobody_is_guessed(respond, finding):
    left = entry(respond((finding(offender=None),), "block"))
    assert not left.rules
    assert "no offender known" in left.why


def test_a_victim_is_not_blocked(respond, finding):
    left = entry(respond((finding(victims=("192.0.2.1",)),), "block"))
    assert not left.rules
    assert "victim" in left.why


def test_asked_for_by_id_it_needs_to_be_told_whom(respond, finding):
    tampering = finding("DG06", "A*")
    left = entry(respond((tampering,), "block", asked=("DG06",)))
    assert not left.rules
    assert "--finding DG06:client" in left.why
    answer = respond((tampering,), "block", asked=("dg06:server",))
    assert entry(answer).rules == ("block-ipv4",)
    (element,) = answer.ruleset.sets[0].elements
    assert element.key == ((0xC6336407, 0xC6336407),)


@pytest.mark.parametrize("ttl", ["0", "-1h", "soon", "1.5h", "366d", "24 h", ""])
def test_times_that_are_none(rules_text, ttl):
    with pytest.raises(WishError, match="is no duration"):
        rules_text(f"block:ttl={ttl}")
