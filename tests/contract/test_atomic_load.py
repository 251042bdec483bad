"""The promise of every file: loading it again replaces its rules in one step, and not one packet slips through."""

from __future__ import annotations

import pytest

from analyzer.model import Side
from rulegen.backends import backend_named, emit
from rulegen.cli import _answer
from rulegen.from_findings import parse_wish
from rulegen.testbed.netns import missing_tools
from rulegen.testbed.packets import Segment

RELOADS = 25
BATCH = 500
LOADS = {
    "nft": ("nft", "nft -f"),
    "iptables-legacy": ("iptables", "iptables-legacy-restore --noflush"),
    "iptables-nft": ("iptables", "iptables-nft-restore --noflush"),
}
"""Tool -> the backend, and the command that loads a file again."""
WISHES = ("heartbleed", "heartbleed:variant=strict,ports=443,8443-8450")
"""Intervals of bytes, and of ports: what nft has in sets."""


def overread(port: int) -> tuple[Side, bytes]:
    """What the rules must never let pass, of another connection each."""
    segment = Segment(
        source="192.0.2.1",
        destination="198.51.100.7",
        source_port=port,
        destination_port=443,
        payload=bytes.fromhex("1803020003014000"),
    )
    return Side.CLIENT, segment.packet()


@pytest.mark.netns
@pytest.mark.parametrize("tool", LOADS)
@pytest.mark.parametrize("wish", WISHES)
def test_no_packet_slips_through_while_rules_are_replaced(bench, tmp_path, tool, wish):
    if missing := missing_tools([tool]):
        pytest.skip(f"not installed: {', '.join(missing)}")
    backend, command = LOADS[tool]
    ruleset = _answer([], wishes=[parse_wish(wish)], hook="forward").ruleset
    rules, done = tmp_path / "rules", tmp_path / "done"
    rules.write_text(emit(ruleset, backend_named(backend)).text)
    bench.load(rules.read_text(), tool)
    again = f"{command} {rules} && echo >> {done}.part || exit"
    loop = f"for i in $(seq {RELOADS}); do {again}; done; mv {done}.part {done}"
    bench.command("sh", "-c", f"({loop}) < /dev/null > /dev/null 2>&1 &")
    sent = 0
    while not done.exists():
        fates = bench.send(overread(1024 + (sent + n) % 60_000) for n in range(BATCH))
        assert not any(fate.passed for fate in fates)
        sent += BATCH
        assert sent < 1_000_000, "the rules were not reloaded"
    assert len(done.read_text().splitlines()) == RELOADS
    assert sent > BATCH
