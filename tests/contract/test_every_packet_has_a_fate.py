"""Every sample through every policy in the kernel: each packet has a fate, and each match is in the trace.

The rules' own counters say whether the trace is complete.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from rulegen.backends import BACKENDS
from rulegen.evaluate.base import Fate
from rulegen.testbed.captured import packets_of
from rulegen.testbed.netns import missing_tools
from tests.contract.test_policy_backends import CAPTURE, TOOLS, emitted, policies, ruleset_of

pytestmark = pytest.mark.netns

_NAME = re.compile(r"\[([a-z0-9-]+)\]")
KERNEL_TOOLS = [(backend, tool) for backend in BACKENDS for tool in TOOLS[backend.name] if tool != "ipset"]


@cache
def samples() -> list:
    """The packets of all samples that can be sent."""
    return [
        (one.side, one.data)
        for path in sorted(CAPTURE.parent.glob("*.pcap"))
        for one in packets_of(path)
        if one.why is None
    ]


@policies
@pytest.mark.parametrize(("backend", "tool"), KERNEL_TOOLS, ids=[f"{b.name}-{t}" for b, t in KERNEL_TOOLS])
def test_every_packet_has_a_fate_and_every_match_is_told(bench, policy, backend, tool):
    if missing := missing_tools([tool, "ipset"] if "tables" in tool else [tool]):
        pytest.skip(f"not installed: {', '.join(missing)}")
    files = [(tool, emitted(policy, backend))]
    if "tables" in tool and ruleset_of(policy).sets:
        (ipset,) = (one for one in BACKENDS if one.name == "ipset")
        files.insert(0, ("ipset", emitted(policy, ipset)))
    observed = list(bench.prove(files, samples()))
    assert len(observed) == len(samples())
    told: Counter[str] = Counter()
    for one in observed:
        assert one.entered
        assert one.fate == (Fate.DROP if one.by else Fate.ACCEPT)
        assert one.by is None or one.by == one.hits[-1]
        told.update(name[1] for hit in one.hits if (name := _NAME.match(hit.comment or "")))
    counted = {name: packets for name, packets in bench.counters(tool=tool).items() if packets}
    assert {name: told[name] for name in counted} == counted
