"""The tools in the lab: each one's files, what it lists and counts, and that nothing of them is left."""

from __future__ import annotations

import pytest

from analyzer.model import Side
from rulegen.testbed.netns import LabError
from rulegen.testbed.packets import Segment
from rulegen.testbed.tools import TOOLS

pytestmark = pytest.mark.netns

IPTABLES = [tool for tool in TOOLS if "tables" in tool]
SAVED = """*filter
:FORWARD ACCEPT [0:0]
:TLSWALL - [0:0]
-A FORWARD -j TLSWALL
-A TLSWALL -p tcp -m comment --comment "[first] a test"
-A TLSWALL -p tcp -m comment --comment "(first) a step" -j RETURN
-A TLSWALL -p tcp -m comment --comment "[never] a test"
-A FORWARD -p tcp -m comment --comment "[others] not ours"
COMMIT
"""
OURS = "# Load: iptables -t mangle -I PREROUTING -j TLSWALL\n*mangle\n:TLSWALL - [0:0]\nCOMMIT\n"


def packet(tool: str) -> tuple[Side, bytes]:
    source, destination = ("2001:db8::1", "2001:db8::2") if "6" in tool else ("192.0.2.1", "192.0.2.2")
    return Side.CLIENT, Segment(
        source=source, destination=destination, source_port=1, destination_port=2
    ).packet()


@pytest.mark.parametrize("tool", IPTABLES)
def test_rules_are_counted_by_their_names(bench, tool):
    bench.load(SAVED, tool)
    bench.send([packet(tool)] * 3)
    assert bench.counters(tool=tool) == {"first": 3, "never": 0}


@pytest.mark.parametrize("tool", IPTABLES)
def test_a_listing_can_be_loaded_and_has_no_counters(bench, tool):
    bench.load(SAVED, tool)
    before = bench.listing(tool)
    bench.send([packet(tool)])
    assert bench.listing(tool) == before
    bench.flush()
    assert "TLSWALL" not in bench.listing(tool)
    bench.load(before, tool)
    assert bench.listing(tool) == before


@pytest.mark.parametrize("tool", IPTABLES)
def test_a_file_of_tlswall_is_entered_once(bench, tool):
    for _ in range(2):
        bench.load(OURS, tool)
        assert bench.listing(tool).count("-A PREROUTING -j TLSWALL\n") == 1


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_refuses_is_an_error_with_its_words(bench, tool):
    with pytest.raises(LabError, match=r"(?i)syntax error|unknown|line 1 failed"):
        bench.load("nonsense\n", tool)


def test_flushing_leaves_nothing(bench):
    bench.load("create tlswall-a hash:ip\n", "ipset")
    for tool in IPTABLES:
        bench.load(SAVED.replace("COMMIT", "-A TLSWALL -j DROP\nCOMMIT"), tool)
        bench.load(OURS, tool)
    bench.load("table inet tlswall {\n}\n")
    bench.flush()
    assert bench.listing() == ""
    assert bench.listing("ipset") == ""
    assert not any("TLSWALL" in bench.listing(tool) for tool in IPTABLES)


@pytest.mark.parametrize("tool", IPTABLES)
def test_a_policy_does_not_outlive_its_file(bench, tool):
    bench.load(
        "*mangle\n:PREROUTING DROP [0:0]\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n:O - [0:0]\nCOMMIT\n", tool
    )
    assert not bench.send([packet(tool)])[0].passed
    bench.flush()
    assert bench.send([packet(tool)])[0].passed
    assert ":O " not in bench.listing(tool)
