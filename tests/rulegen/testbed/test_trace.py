"""The kernel's trace: rules whose matches are known by how they are written, with each of the tools."""

from __future__ import annotations

import errno
import socket

import pytest

from analyzer.model import Side
from rulegen.evaluate.base import Fate, Hit
from rulegen.testbed.netns import LabError
from rulegen.testbed.packets import Segment
from rulegen.testbed.trace import received

netns = pytest.mark.netns

NFT = """
table inet first {
 set seen { type inet_service; elements = { 80 } }
 chain in_front {
  type filter hook prerouting priority -500
  tcp dport 7 drop comment "before all"
 }
 chain c {
  type filter hook forward priority 0
  tcp dport 443 counter comment "four four three"
  tcp dport @seen jump inner
  tcp dport 443 jump inner
  tcp dport 443 counter
 }
 chain inner {
  tcp sport 5 return comment "back"
  tcp sport 6 accept
  tcp sport 8 goto last
 }
 chain last {
  counter
 }
}
table ip second {
 chain c { type filter hook forward priority 10; policy drop
  tcp sport != 9 accept
 }
}
"""

XT = """*filter
:FORWARD ACCEPT [0:0]
:INNER - [0:0]
:LAST:ODD - [0:0]
-A FORWARD -p tcp --dport 443 -m comment --comment "four four three"
-A FORWARD -p tcp --dport 80 -j INNER
-A FORWARD -p tcp --dport 443 -j INNER
-A FORWARD -p tcp --dport 443
-A FORWARD -p tcp --sport 9 -m comment --comment "-j ACCEPT" -j DROP
-A INNER -p tcp --sport 5 -m comment --comment "back" -j RETURN
-A INNER -p tcp --sport 6 -j ACCEPT
-A INNER -p tcp --sport 8 -g LAST:ODD
-A LAST:ODD
-A LAST:ODD -j RETURN
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 7 -m comment --comment "before all" -j DROP
COMMIT
"""
TOOLS = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")


def packet(source_port: int, port: int, *, six: bool = False, payload: bytes = b"") -> tuple[Side, bytes]:
    source, destination = ("2001:db8::1", "2001:db8::2") if six else ("192.0.2.1", "192.0.2.2")
    return Side.CLIENT, Segment(
        source=source,
        destination=destination,
        source_port=source_port,
        destination_port=port,
        payload=payload,
    ).packet()


def places(observed) -> list[str]:
    return [f"{hit.chain} {hit.number}" for hit in observed.hits]


@netns
def test_nft_tells_every_rule_that_matched(bench):
    sent = [(1, 443), (5, 80), (6, 443), (8, 443), (9, 443), (9, 80), (1, 7), (1, 1)]
    observed = list(bench.prove([("nft", NFT)], [packet(*ports) for ports in sent]))
    second = "c 1"
    assert [places(one) for one in observed] == [
        ["c 1", "c 3", "c 4", second],
        ["c 2", "inner 1", second],
        ["c 1", "c 3", "inner 2", second],
        ["c 1", "c 3", "inner 3", "last 1", "c 4", second],
        ["c 1", "c 3", "c 4"],
        ["c 2"],
        ["in_front 1"],
        [second],
    ]
    assert [one.fate for one in observed] == [Fate.ACCEPT] * 4 + [Fate.DROP] * 3 + [Fate.ACCEPT]
    assert observed[0].hits[0] == Hit("inet first", "c", 1, "four four three")
    assert observed[1].hits[1] == Hit("inet first", "inner", 1, "back")
    assert observed[0].hits[-1] == Hit("ip second", "c", 1, None)
    assert (observed[4].fate, observed[4].by) == (Fate.DROP, None), "a policy"
    assert (observed[6].fate, observed[6].by) == (Fate.DROP, Hit("inet first", "in_front", 1, "before all"))


@netns
@pytest.mark.parametrize("tool", TOOLS)
def test_iptables_tells_every_rule_that_matched(bench, tool):
    family = "ip6" if "6" in tool else "ip"
    sent = [(1, 443), (5, 80), (6, 443), (8, 443), (9, 443), (1, 7), (1, 1)]
    packets = [packet(*ports, six=family == "ip6") for ports in sent]
    observed = list(bench.prove([(tool, XT)], packets))
    assert [places(one) for one in observed] == [
        ["FORWARD 1", "FORWARD 3", "FORWARD 4"],
        ["FORWARD 2", "INNER 1"],
        ["FORWARD 1", "FORWARD 3", "INNER 2"],
        ["FORWARD 1", "FORWARD 3", "INNER 3", "LAST:ODD 1", "LAST:ODD 2", "FORWARD 4"],
        ["FORWARD 1", "FORWARD 3", "FORWARD 4", "FORWARD 5"],
        ["PREROUTING 1"],
        [],
    ]
    assert [one.fate for one in observed] == [Fate.ACCEPT] * 4 + [Fate.DROP] * 2 + [Fate.ACCEPT]
    assert observed[0].hits[0] == Hit(f"{family} filter", "FORWARD", 1, "four four three")
    assert observed[4].by == Hit(f"{family} filter", "FORWARD", 5, "-j ACCEPT")
    assert observed[5].by == Hit(f"{family} mangle", "PREROUTING", 1, "before all")


@netns
@pytest.mark.parametrize("tool", TOOLS)
def test_a_policy_of_iptables_and_rules_that_match_everything(bench, tool):
    rules = "*filter\n:FORWARD DROP [0:0]\n:OWN - [0:0]\n-A FORWARD -j OWN\n-A FORWARD\n{last}-A OWN -j RETURN\nCOMMIT\n"
    one = packet(1, 2, six="6" in tool)
    (by_policy,) = bench.prove([(tool, rules.format(last=""))], [one])
    (by_rule,) = bench.prove([(tool, rules.format(last="-A FORWARD -j DROP\n"))], [one])
    assert places(by_policy) == ["FORWARD 1", "OWN 1", "FORWARD 2"]
    assert (by_policy.fate, by_policy.by) == (Fate.DROP, None)
    assert places(by_rule) == ["FORWARD 1", "OWN 1", "FORWARD 2", "FORWARD 3"]
    assert by_rule.by == by_rule.hits[-1]


@netns
def test_two_families_at_once(bench):
    text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp --dport 443 -j DROP\nCOMMIT\n"
    for variant in ("nft", "legacy"):
        files = [(f"iptables-{variant}", text), (f"ip6tables-{variant}", text)]
        observed = list(bench.prove(files, [packet(1, 443), packet(1, 443, six=True)]))
        assert [one.by.table for one in observed] == ["ip filter", "ip6 filter"]


@netns
@pytest.mark.parametrize("tool", ["nft", "iptables-legacy"])
def test_no_trace_is_lost_at_full_speed(bench, tool):
    """20,000 packets as fast as they go; what each matches follows from its number."""
    rules = [(16, "1000"), (17, "0100"), (18, "0010"), (19, "0001")]
    if tool == "nft":
        lines = "\n".join(f"  tcp sport & 0x{int(bits, 2):x} != 0 counter" for _, bits in rules)
        text = f"table inet t {{\n chain c {{\n  type filter hook forward priority 0\n{lines}\n }}\n}}\n"
    else:
        lines = "\n".join(
            f'-A FORWARD -p tcp -m u32 --u32 "20>>16&0x{int(bits, 2):x}=1:15"' for _, bits in rules
        )
        text = f"*filter\n:FORWARD ACCEPT [0:0]\n{lines}\nCOMMIT\n"
    kinds = [packet(number, 443) for number in range(16)]
    sent = [kinds[number * 7 % 16] for number in range(20_000)]
    for number, one in enumerate(bench.prove([(tool, text)], sent)):
        port = number * 7 % 16
        assert [hit.number for hit in one.hits] == [
            n for n, (_, b) in enumerate(rules, 1) if port & int(b, 2)
        ]
        assert one.fate == Fate.ACCEPT


@netns
@pytest.mark.parametrize("tool", ["nft", "iptables-nft", "iptables-legacy"])
def test_identical_retransmissions_are_told_apart(bench, tool):
    text = (
        "table ip t {\n chain c {\n  type filter hook forward priority 0\n  numgen inc mod 3 1 drop\n }\n}\n"
    )
    if tool != "nft":
        match = "-m statistic --mode nth --every 3 --packet 1"
        text = f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {match} -j DROP\nCOMMIT\n"
    observed = list(bench.prove([(tool, text)], [packet(1, 443)] * 300))
    assert [one.fate == Fate.DROP for one in observed] == [number % 3 == 1 for number in range(300)]
    assert [len(one.hits) for one in observed] == [int(number % 3 == 1) for number in range(300)]


@netns
@pytest.mark.parametrize("tool", ["nft", "iptables-nft", "iptables-legacy"])
def test_what_rules_log_is_not_taken_for_the_trace(bench, tool):
    text = 'table ip t {\n chain c {\n  type filter hook forward priority 0\n  log prefix "x" group 0\n  log\n }\n}\n'
    if tool != "nft":
        text = '*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j NFLOG --nflog-prefix "x"\n-A FORWARD -j LOG\nCOMMIT\n'
    (one,) = bench.prove([(tool, text)], [packet(1, 443)])
    assert [hit.number for hit in one.hits] == [1, 2]


@netns
def test_rules_that_end_the_trace_are_refused(bench):
    text = "table ip t {\n chain c {\n  type filter hook forward priority 0\n  meta nftrace set 0\n }\n}\n"
    with pytest.raises(LabError, match="nftrace"):
        list(bench.prove([("nft", text)], []))


@netns
def test_nothing_is_traced_without_asking(bench):
    with pytest.raises(LabError, match="no trace"):
        bench.ask("observe", [(0, packet(1, 443)[1])])


def test_a_trace_that_was_lost_is_an_error():
    class Full(socket.socket):
        def recv(self, *_):
            raise OSError(errno.ENOBUFS, "No buffer space available")

    with Full() as full, pytest.raises(LabError, match="larger than the room"):
        received(full)
