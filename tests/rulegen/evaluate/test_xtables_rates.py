"""What iptables' rules remember, rates, addresses, connections, they remember in the evaluator as in the kernel."""

from __future__ import annotations

import random
import time

import pytest

from analyzer.model import Side
from rulegen.evaluate.base import Fate, Undecidable
from rulegen.evaluate.conntrack import Conntrack
from rulegen.evaluate.conntrack_settings import TESTBED
from rulegen.evaluate.defrag import Reassembly
from rulegen.evaluate.firewall import Firewall
from rulegen.ir.match import State
from tests.rulegen.evaluate.test_xtables import FRESH, LEGACY, by_tool, in_connection
from tests.rulegen.evaluate.xt_bench import (
    TOOLS,
    counted,
    evaluated,
    family_of,
    filter_of,
    hit,
    judge,
    passing,
    segment,
    way,
)
from tests.rulegen.evaluate.xt_random import connections, counting_rules

# The clock. Tests send in bursts and wait, so that no packet comes near the edge between them.


RATES = (
    ("-m limit --limit 2/sec --limit-burst 3",),
    ("-m limit --limit 700/min --limit-burst 2",),
    ("-m limit --limit 7/day --limit-burst 4",),
    ("-m hashlimit --hashlimit-upto 2/sec --hashlimit-burst 4 --hashlimit-name a --hashlimit-mode srcip",),
    ("-m hashlimit --hashlimit-above 1/sec --hashlimit-burst 3 --hashlimit-name b --hashlimit-mode srcip,dstport",),
    ("-m hashlimit --hashlimit-above 3/min --hashlimit-burst 3 --hashlimit-name c --hashlimit-srcmask 24 "
     "--hashlimit-mode srcip",
     "-m hashlimit --hashlimit-upto 3/min --hashlimit-burst 3 --hashlimit-name c --hashlimit-srcmask 24 "
     "--hashlimit-mode srcip"),
    ("-m hashlimit --hashlimit-upto 200/hour --hashlimit-burst 2 --hashlimit-name d --hashlimit-mode dstip",),
    ("-m recent --set --name r", "-m recent --update --seconds 1 --hitcount 3 --name r",
     "-m recent ! --rcheck --seconds 1 --name r", "-m recent --rcheck --name r -m mark --mark 1"),
    ("-m recent --rcheck --name s", "-m recent ! --set --name s --rdest", "-m recent --remove --name s"),
    ("-m recent --rcheck --seconds 1 --hitcount 2 --name u --mask 255.255.255.0",
     "-m recent --set --name u --mask 255.255.255.0"),
)  # fmt: skip
"""Groups of rules; those of a group remember the same."""


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS[:2])
def test_rates_by_the_clock(bench, tool):
    """Where the kernel's clock could decide, nothing is compared; that may not be often."""
    bench.load(filter_of(*(f"-A FORWARD {match}" for group in RATES for match in group)), tool)
    groups, first = [], 1
    for group in RATES:
        text = filter_of(*(f"-A FORWARD {match}" for match in group))
        groups.append((first, len(group), way(evaluated(text, tool))))
        first += len(group)
    kernel, compared, unknown, hits = counted(bench, tool), 0, 0, 0
    for pause_s, sources in ((0, (1,) * 6), (0.7, (1, 2)), (0.02, (1, 2, 2, 2, 2, 2)), (1.4, (1, 1, 1, 1))):
        time.sleep(pause_s)
        for last in sources:
            packet, now = segment(source=f"192.0.2.{last}"), time.monotonic_ns()
            bench.send([(Side.CLIENT, packet)])
            after = counted(bench, tool)
            for first, count, entries in groups:
                one = passing(1, packet, time_ns=now)
                rules = [number for number in range(first, first + count)
                         if after["filter", "FORWARD", number] > kernel["filter", "FORWARD", number]]  # fmt: skip
                try:
                    judge(entries, one)
                except Undecidable:
                    unknown += 1
                else:
                    assert [each.number - 1 + first for each in one.hits] == rules, RATES
                    compared += 1
                    hits += len(rules)
            kernel = after
    assert unknown < 0.1 * compared
    assert hits > 100


@pytest.mark.netns
@by_tool
@pytest.mark.parametrize("seed", [1, FRESH], ids=["1", "fresh"])
def test_connections_are_counted_as_the_kernel_counts_them(bench, tool, seed):
    """The pauses are longer than the kernel's ticks, in which it counts as it can."""
    chance = random.Random(seed)
    text = filter_of(*counting_rules(chance))
    bench.load(text, tool)
    firewall = Firewall([evaluated(text, tool)], Conntrack(TESTBED), Reassembly(TESTBED))
    kernel = counted(bench, tool)
    for number, (side, packet) in enumerate(connections(chance, family_of(tool), 50)):
        time.sleep(0.011)
        one = passing(number, packet, time_ns=time.monotonic_ns())
        (fate,) = bench.send([(side, packet)])
        after = counted(bench, tool)
        outcome = firewall.judge(one)
        assert (outcome.fate is Fate.ACCEPT) is fate.passed, (f"seed {seed}", text, number, outcome)
        assert +hit([one]) == after - kernel, (f"seed {seed}", text, number)
        kernel = after


def test_connections_that_are_not_opened_are_not_counted():
    (entry,) = evaluated(filter_of("-A FORWARD -m connlimit --connlimit-above 1 -j DROP"), LEGACY).entries
    assert entry.judge(in_connection(State.NEW)).fate is Fate.ACCEPT
    with pytest.raises(Undecidable, match="don't open a connection"):
        entry.judge(in_connection(State.ESTABLISHED))
    with pytest.raises(Undecidable, match="don't open a connection"):
        entry.judge(in_connection(State.NEW))


def test_a_rate_about_to_be_reached_is_not_decided():
    (entry,) = evaluated(
        filter_of("-A FORWARD -m limit --limit 1/sec --limit-burst 1 -j DROP"), LEGACY
    ).entries

    def at(time_ns: int) -> Fate:
        one = passing(1, segment())
        one.time_ns = time_ns
        return entry.judge(one).fate

    assert at(0) is Fate.DROP
    assert at(900_000_000) is Fate.ACCEPT
    with pytest.raises(Undecidable, match="clock"):
        at(995_000_000)


def test_members_of_sets_end():
    text = filter_of(
        "-A FORWARD -m set --match-set a src -j DROP", "-A FORWARD -m mark --mark 1 -j SET --add-set a src"
    )
    (entry,) = evaluated(text, LEGACY, "create a hash:ip timeout 2\n").entries

    def at(time_s: float, mark: int) -> Fate:
        one = passing(1, segment(), mark=mark)
        one.time_ns = int(time_s * 1e9)
        return entry.judge(one).fate

    assert [at(0, 0), at(0.5, 1), at(2.4, 0), at(2.6, 0)] == [
        Fate.ACCEPT,
        Fate.ACCEPT,
        Fate.DROP,
        Fate.ACCEPT,
    ]
    at(3, 1)
    with pytest.raises(Undecidable, match="ends just about now"):
        at(5.001, 0)
