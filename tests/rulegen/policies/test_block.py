"""block: whom it blocks, for how long, and what the kernel makes of it."""

from __future__ import annotations

import re

import pytest

from analyzer.model import Side
from rulegen.backends import BACKENDS, emit
from rulegen.errors import WishError
from rulegen.testbed.packets import Segment

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


def test_sets_are_named_and_time_limited(respond, finding):
    found = (finding(), finding(offender="2001:db8::66"), finding("RL01"))
    text = emit(respond(found, "block:ttl=36h").ruleset, NFT).text
    assert re.search(r"set set_blocked_ipv4 \{\s+typeof ip saddr\s+flags timeout\s+timeout 36h", text)
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
