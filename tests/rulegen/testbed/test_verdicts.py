"""Fates: what came out, what waits, what was answered, and what never came to a rule."""

from __future__ import annotations

import pytest

from analyzer.model import Side
from rulegen.evaluate.base import Fate, Hit
from rulegen.testbed.netns import LabError
from rulegen.testbed.observer import Seen
from rulegen.testbed.packets import RST, SYN, Segment, fragments
from rulegen.testbed.trace import RULE, Step
from rulegen.testbed.verdicts import Places, observed

netns = pytest.mark.netns

STATELESS = "table inet t {\n chain c {\n  type filter hook forward priority 0\n  counter\n }\n}\n"
TRACKING = STATELESS.replace("  counter\n", "  ct state new counter\n  @ih,0,8 0x42 drop\n")


def segment(*, six: bool = False, **changes) -> bytes:
    addresses = ("2001:db8::1", "2001:db8::2") if six else ("192.0.2.1", "192.0.2.2")
    values = {"source_port": 40000, "destination_port": 443, "payload": b"A" * 100, **changes}
    return Segment(source=addresses[0], destination=addresses[1], **values).packet()


def sent(*packets: bytes) -> list[tuple[Side, bytes]]:
    return [(Side.CLIENT, packet) for packet in packets]


@netns
@pytest.mark.parametrize("six", [False, True])
def test_a_fragment_waits_and_the_last_has_the_datagrams_fate(bench, six):
    pieces = fragments(segment(six=six), 48)
    held, waits, last = bench.prove([("nft", TRACKING)], sent(*pieces))
    for one in (held, waits):
        assert (one.fate, one.hits, one.entered) == (Fate.STOLEN, (), True)
    assert (last.fate, [hit.number for hit in last.hits]) == (Fate.ACCEPT, [1])
    assert len(last.instead) == 3, "its fragments come out together"


@netns
@pytest.mark.parametrize("six", [False, True])
def test_fragments_in_any_order_and_dropped_as_one(bench, six):
    pieces = fragments(segment(six=six, payload=b"\x42" * 100, source_port=41000), 48)
    *held, last = bench.prove([("nft", TRACKING)], sent(*reversed(pieces)))
    assert [one.fate for one in held] == [Fate.STOLEN] * 2
    assert (last.fate, last.by) == (Fate.DROP, Hit("inet t", "c", 2, None))
    assert last.instead == ()


@netns
def test_without_connection_tracking_every_fragment_is_a_packet(bench):
    bench.command("nft", "flush", "ruleset")
    from rulegen.testbed.replay import prove

    pieces = fragments(segment(source_port=42000), 48)
    for one in prove([("nft", STATELESS)], sent(*pieces)):
        assert (one.fate, [hit.number for hit in one.hits]) == (Fate.ACCEPT, [1])


@netns
def test_a_fragment_that_the_kernel_itself_drops_does_not_wait(bench):
    """iptables-legacy's tcp match drops fragments that begin 8 bytes into the datagram; no rule says so."""
    from rulegen.testbed.replay import prove

    text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -m tcp --dport 443\nCOMMIT\n"
    packet = fragments(segment(), 8)[1]
    (one,) = prove([("iptables-legacy", text)], sent(packet))
    assert (one.fate, one.by, one.hits) == (Fate.DROP, None, ())


@netns
def test_a_damaged_header_comes_to_no_rule(bench):
    whole = segment()
    broken = whole[:10] + b"\0\0" + whole[12:]
    one, other = bench.prove([("nft", STATELESS)], sent(broken, whole))
    assert (one.fate, one.by, one.entered, one.hits) == (Fate.DROP, None, False, ())
    assert (other.fate, other.entered) == (Fate.ACCEPT, True)


@netns
@pytest.mark.parametrize("tool", ["nft", "ip6tables-nft", "ip6tables-legacy"])
def test_what_the_kernel_can_not_trace_is_said(bench, tool):
    """An extension header that is longer than the packet: nf_tables' trace has no line for it."""
    long = segment(six=True)
    long = long[:6] + b"\x3c" + long[7:40] + b"\x06\x7f" + bytes(6) + long[48:]
    text = STATELESS
    if tool != "nft":
        text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD\nCOMMIT\n"
    one, whole = bench.prove([(tool, text)], sent(long, segment(six=True)))
    assert (one.fate, one.entered) == (Fate.ACCEPT, True)
    assert (one.traced, len(one.hits)) == ((True, 1) if "legacy" in tool else (False, 0))
    assert (whole.traced, len(whole.hits)) == (True, 1)


@netns
@pytest.mark.parametrize("tool", ["nft", "iptables-nft", "iptables-legacy", "ip6tables-legacy"])
def test_answers_belong_to_the_packet_that_they_answer(bench, tool):
    six = "6" in tool
    if tool == "nft":
        text = STATELESS.replace("counter", "tcp dport 443 reject with tcp reset")
    else:
        reject = "-p tcp --dport 443 -j REJECT --reject-with tcp-reset"
        text = f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {reject}\nCOMMIT\n"
    packets = [segment(six=six, destination_port=port, flags=SYN, payload=b"") for port in (443, 80, 443)]
    first, second, third = bench.prove([(tool, text)], sent(*packets))
    for one in (first, third):
        assert (one.fate, one.by) == (Fate.DROP, one.hits[0])
        (answer,) = one.answers
        assert answer[53 if six else 33] & RST
    assert (second.fate, second.answers, second.hits) == (Fate.ACCEPT, (), ())


@netns
def test_a_packet_that_a_rule_changed_comes_out_in_its_place(bench):
    text = STATELESS.replace("counter", "ip ttl set 7")
    (one,) = bench.prove([("nft", text)], sent(segment()))
    (changed,) = one.instead
    assert (one.fate, changed[8], changed[12:]) == (Fate.ACCEPT, 7, segment()[12:])


@pytest.mark.parametrize("verdict", [None, 1])
def test_a_rule_that_is_not_loaded_is_an_error(verdict):
    step = Step("ip", "filter", "FORWARD", RULE, 7, verdict)
    seen = Seen(passed=True, instead=(), answers=(), entered=True, whole=True, steps=(step,))
    with pytest.raises(LabError, match="unknown rule"):
        observed(segment(), seen, Places())
