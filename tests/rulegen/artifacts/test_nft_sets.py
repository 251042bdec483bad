"""Sets whose form nft prints in a way of its own."""

from __future__ import annotations

import pytest

from rulegen.artifacts import ToolMissing, read, unsupported


def sets(rules: str, declared: str = ""):
    chain = f"chain c {{\ntype filter hook forward priority 0; policy accept;\n{rules}\n}}"
    try:
        artifact = read(f"table inet t {{\n{declared}\n{chain}\n}}\n")
    except ToolMissing as error:
        pytest.skip(str(error))
    return artifact, [content for table in artifact.tables for content in table.sets]


@pytest.mark.parametrize(
    ("rule", "keys"),
    [
        ("tcp dport vmap { 0-65535 : drop }", [(0, 65535)]),
        ("tcp dport vmap { 0-79 : accept, 80-65535 : drop }", [(0, 79), (80, 65535)]),
        ("tcp sport { 22, 1024-65535 } counter", [(22, 22), (1024, 65535)]),
        ("tcp sport { 22, 23 } counter", [(22, 22), (23, 23)]),
    ],
)
def test_an_anonymous_set_of_intervals_may_reach_to_the_last_key(rule, keys):
    _, (content,) = sets(rule)
    found = [tuple(int.from_bytes(bound) for bound in element.key[0]) for element in content.elements]
    assert found == keys


@pytest.mark.parametrize(("timeout", "known"), [("2s", True), ("1500ms", False), ("1s500ms", False)])
def test_a_time_out_of_milliseconds_is_refused_by_name(timeout, known):
    """nft's JSON has whole seconds alone."""
    artifact, (content,) = sets("ip saddr @s drop", f"set s {{\ntype ipv4_addr; timeout {timeout};\n}}")
    assert [found.feature for found in unsupported(artifact)] == (
        [] if known else ["timeout (of milliseconds)"]
    )
    assert not known or content.timeout_s == 2
