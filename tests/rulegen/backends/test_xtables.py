"""Files for iptables-restore: that they load, again and beside others' rules, and the order of verdicts."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from analyzer.model import Side
from rulegen.backends import emit, xtables
from rulegen.backends.base import Checked
from rulegen.backends.ipset import BACKEND as IPSET
from rulegen.backends.iptables import IP6TABLES, IPTABLES
from rulegen.backends.xtables_rules import BASE, DEPTH_MAX
from rulegen.backends.xtables_text import CHAIN_MAX, quoted
from rulegen.errors import Refused
from rulegen.ir.match import (
    ALWAYS,
    Direction,
    InDirection,
    InState,
    Lookup,
    Marked,
    Not,
    Present,
    Protocol,
    State,
    all_of,
    any_of,
    equals,
    one_of,
)
from rulegen.ir.rule import (
    Chain,
    ConnectionLimit,
    Hook,
    Learn,
    Limit,
    Origin,
    Rule,
    Ruleset,
    SetDeclaration,
    SetMark,
    Verdict,
)
from rulegen.testbed.netns import LabError
from rulegen.testbed.packets import RST, SYN
from tests.rulegen.backends.test_iptables import TOOLS, backend_of, ends_of, packet
from tests.rulegen.backends.test_nft import hostile
from tests.rulegen.reference import Packet

VARIANTS = (
    (),
    ("block:side=both,ttl=90s",),
    ("heartbleed:ports=443,8443-8450",),
    ("heartbleed:ports=443,direction=to-server,variant=strict",),
    ("heartbleed:direction=to-client,encrypted=pass",),
    ("min-version:min=1.0,ports=443,action=reset,split=drop",),
    ("block", "heartbleed", "min-version"),
)


def rule(match, name="r", verdict=Verdict.DROP, **changes) -> Rule:
    return Rule(
        name=name, match=match, verdict=verdict, origin=Origin(policy="t"), meaning="A test.", **changes
    )


def chain(*rules: Rule, name="c", **changes) -> Chain:
    return Chain(name=name, policy="t", rules=rules, **changes)


def load(bench, ruleset: Ruleset, tool: str) -> None:
    if ruleset.sets:
        bench.load(emit(ruleset, IPSET).text, "ipset")
    bench.load(emit(ruleset, backend_of(tool)).text, tool)


def to_server(tool: str, payload: bytes = b"", **changes) -> tuple[Side, bytes]:
    return Side.CLIENT, packet(ends_of(tool), payload, **changes)


def to_client(tool: str, payload: bytes = b"", **changes) -> tuple[Side, bytes]:
    ends = ends_of(tool)
    back = {"source": ends["destination"], "destination": ends["source"]}
    return Side.SERVER, packet(back, payload, **{"source_port": 443, "destination_port": 40000, **changes})


def passed(bench, *packets: tuple[Side, bytes]) -> list[bool]:
    return [fate.passed for fate in bench.send(packets)]


# --- loading ------------------------------------------------------------------------------------------------


@pytest.fixture
def wished(respond, finding):
    """The ruleset for policies, with somebody to block; skipped where a backend refuses it by name."""

    def make(policies: tuple[str, ...], backend, **options: object) -> tuple[Ruleset, str]:
        found = (finding(), finding(offender="2001:db8::1")) if "block" in policies else ()
        ruleset = respond(found, *policies, **options).ruleset
        try:
            if ruleset.sets:
                emit(ruleset, IPSET)
            return ruleset, emit(ruleset, backend).text
        except Refused as refused:
            pytest.skip(str(refused))

    return make


@pytest.mark.netns
@pytest.mark.parametrize("policies", VARIANTS, ids=" ".join)
@pytest.mark.parametrize("tool", TOOLS)
def test_it_loads_again_and_reads_as_before(bench, wished, tool, policies):
    ruleset, text = wished(policies, backend_of(tool))
    if ruleset.sets:
        bench.load(emit(ruleset, IPSET).text, "ipset")
    bench.load("*filter\n:OTHER - [0:0]\n-A FORWARD -j OTHER\nCOMMIT\n", tool)
    bench.load(text, tool)
    first = bench.listing(tool)
    bench.load(text, tool)
    assert bench.listing(tool) == first
    assert first.count(f"-A FORWARD -j {BASE}") == 1
    bench.command("sh", "-c", f"{tool}-save > /dev/null")
    bench.load(first.replace(f"-A FORWARD -j {BASE}\n", "").replace("-A FORWARD -j OTHER\n", ""), tool)
    assert bench.listing(tool) == first
    assert "-A FORWARD -j OTHER" in first


@pytest.mark.netns
@pytest.mark.parametrize("hook", list(Hook))
@pytest.mark.parametrize("tool", TOOLS)
def test_as_its_header_says_it_is_loaded_watched_and_removed(bench, respond, tool, hook, tmp_path):
    """The commands are tried as they stand there; twice, because that is how they are used."""
    ruleset = respond((), "heartbleed:ports=443", "min-version", hook=hook).ruleset
    file = tmp_path / "rules"
    file.write_text(emit(ruleset, backend_of(tool)).text)
    plain = tool.partition("-")[0]
    commands = {
        head: command.replace("FILE", str(file))
        .replace(f"{plain}-", f"{tool}-")
        .replace(f"{plain} ", f"{tool} ")
        for head, command in re.findall(r"^# (\w+):\s+(.+?)(?:    .*)?$", file.read_text(), re.MULTILINE)
    }
    bench.command("sh", "-c", commands["Check"])
    assert BASE not in bench.listing(tool)
    for _ in range(2):
        bench.command("sh", "-c", commands["Load"])
        assert bench.listing(tool).count(f"-j {BASE}\n") == 1
    assert "[heartbleed-overread]" in bench.command("sh", "-c", commands["Watch"])
    if hook is Hook.FORWARD:
        assert passed(bench, to_server(tool, b"\x18")) == [False]
        assert bench.counters(tool=tool)["heartbleed-split"] == 1
    bench.command("sh", "-c", commands["Remove"])
    assert BASE not in bench.listing(tool)


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_a_refused_file_changes_nothing(bench, respond, tool):
    text = emit(respond((), "heartbleed:ports=443").ruleset, backend_of(tool)).text
    bench.load(text, tool)
    before = bench.listing(tool)
    with pytest.raises(LabError):
        bench.load(text.replace("COMMIT", f"-A {BASE} -m nonsense\nCOMMIT").replace("0x18", "0x19"), tool)
    assert bench.listing(tool) == before


@pytest.mark.parametrize("backend", [IPTABLES, IP6TABLES], ids=lambda backend: backend.name)
def test_the_check_asks_the_real_tool(respond, finding, backend):
    text = emit(respond((finding(),), "block", "heartbleed").ruleset, backend).text
    checked = backend.check(text)
    if checked.accepted is None:
        pytest.skip(checked.message)
    assert checked.accepted, checked.message
    for wrong in (
        "-m nonsense",
        "-j NOWHERE",
        '-m u32 --u32 "0&0xFF"',
        "-m set --match-set unknown src",
    ):
        assert backend.check(text.replace("COMMIT", f"-A {BASE} {wrong}\nCOMMIT")).accepted is False, wrong


def test_a_tool_that_can_not_be_asked_is_no_refusal(respond, finding, monkeypatch):
    text = emit(respond((finding(),), "block").ruleset, IPTABLES).text
    fine = Checked(accepted=True, message="")
    answers = {}
    monkeypatch.setattr(xtables, "ask", lambda command, *_, **__: answers.get(command[0], fine))
    monkeypatch.setattr(xtables.os, "geteuid", lambda: 1000)
    assert IPTABLES.check(text).accepted
    for tool, answer in (
        ("iptables-restore", Checked(accepted=None, message="iptables-restore is not installed")),
        ("ipset", Checked(accepted=None, message="ipset is not installed")),
        ("sh", Checked(accepted=False, message="sendmsg() failed: Message too long")),
    ):
        answers.clear()
        answers[tool] = answer
        assert IPTABLES.check(text).accepted is None
    monkeypatch.setattr(xtables.os, "geteuid", lambda: 0)
    assert IPTABLES.check(text).accepted is False


# --- verdicts -----------------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("complicated", [False, True], ids=["simple", "complicated"])
@pytest.mark.parametrize("tool", TOOLS)
def test_pass_leaves_the_chain_and_continue_stays(bench, tool, complicated):
    """The order of rules holds also where a rule needs chains of its own."""
    short = (
        any_of(Not(Present("tls.length")), equals("tls.content_type", 99)) if complicated else Protocol("tcp")
    )
    rules = (
        rule(short, "marks", Verdict.CONTINUE, effects=(SetMark(4, 0xC), SetMark(1, 1))),
        rule(all_of(short, equals("tcp.dport", 443)), "passes", Verdict.PASS),
        rule(short, "accepts", Verdict.ACCEPT),
        rule(ALWAYS, "drops"),
    )
    last = chain(rule(Protocol("tcp"), "last"), name="d")
    load(bench, Ruleset(chains=(chain(*rules), last)), tool)
    first = b"a" if complicated else b"\x63"
    packets = (
        to_server(tool, first),
        to_server(tool, first, destination_port=80),
        to_server(tool, b"abcdefgh", destination_port=80),
    )
    if complicated:
        assert passed(bench, *packets) == [False, True, False]
        assert bench.counters(tool=tool) == {"marks": 2, "passes": 1, "accepts": 1, "drops": 1, "last": 1}
    else:
        assert passed(bench, *packets) == [False, True, True]
        assert bench.counters(tool=tool) == {"marks": 3, "passes": 1, "accepts": 2, "drops": 0, "last": 1}


MANY = tuple((port, port) for port in range(1, 60000, 7))
"""More ports than a line can test."""


@pytest.mark.netns
@pytest.mark.parametrize("tool", ["iptables-legacy", "ip6tables-nft"])
@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("limited", [False, True], ids=["", "limited"])
def test_a_rule_acts_once_however_many_alternatives_hold(bench, tool, verdict, limited):
    wide = tuple((number, number) for number in range(0, 256, 2))
    match = any_of(
        all_of(one_of("tls.content_type", wide), one_of("tls.handshake_type", wide)),
        all_of(one_of("tls.heartbeat_type", wide), one_of("tls.content_type", ((0, 100),))),
        equals("tls.length", 0),
    )
    limit = Limit(packets=1, per="hour", burst=2) if limited else None
    match = all_of(Protocol("tcp"), match)
    acts = rule(match, "acts", verdict, effects=(SetMark(1, 1), SetMark(2, 2)), limit=limit)
    behind = rule(Protocol("tcp"), "behind", Verdict.PASS)
    load(
        bench,
        Ruleset(chains=(chain(acts, behind), chain(rule(ALWAYS, "next", Verdict.PASS), name="d"))),
        tool,
    )
    holding, other = b"\x16\x03\x03\x00\x00\x02\x00", b"\x15\x03\x03\x00\x07\x01\x00"
    passed(bench, *(to_server(tool, holding) for _ in range(5)), to_server(tool, other))
    acted = 3 if limited else 5
    assert bench.counters(tool=tool) == {
        "acts": acted,
        "behind": 6 if verdict is Verdict.CONTINUE else 6 - acted,
        "next": 6 if verdict in (Verdict.CONTINUE, Verdict.PASS) else 6 - acted,
    }


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_accept_leaves_the_hosts_own_rules_their_say(bench, tool):
    bench.load("*filter\n-A FORWARD -p tcp --dport 80 -j DROP\nCOMMIT\n", tool)
    load(bench, Ruleset(chains=(chain(rule(Protocol("tcp"), verdict=Verdict.ACCEPT)),)), tool)
    assert passed(bench, to_server(tool), to_server(tool, destination_port=80)) == [True, False]


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_marks_directions_and_states(bench, tool):
    new, marked = InState(frozenset({State.NEW})), Marked(0x30, 0xF0)
    sets = rule(equals("tls.content_type", 1), "sets", Verdict.CONTINUE, effects=(SetMark(0x30, 0xF0),))
    clears = rule(equals("tls.content_type", 2), "clears", Verdict.CONTINUE, effects=(SetMark(0, 0xF0),))
    seen = {
        "marked": marked,
        "unmarked": Not(marked),
        "original": InDirection(Direction.ORIGINAL),
        "reply": InDirection(Direction.REPLY),
        "not-reply": Not(InDirection(Direction.REPLY)),
        "new": new,
        "old": Not(new),
        "new-reply": all_of(new, InDirection(Direction.REPLY)),
        "invalid": InState(frozenset({State.INVALID})),
        "invalid-original": all_of(InState(frozenset(State)), InDirection(Direction.ORIGINAL)),
    }
    chains = [chain(sets, name="a"), chain(clears, name="b")]
    chains += [chain(rule(match, name, Verdict.PASS), name=name) for name, match in seen.items()]
    load(bench, Ruleset(chains=tuple(chains)), tool)
    passed(
        bench,
        to_server(tool, b"x"),
        to_client(tool, b"x"),
        to_server(tool, b"\x01"),
        to_client(tool, b"x"),
        to_client(tool, b"\x02"),
        to_server(tool, b"x", flags=0),
    )
    assert bench.counters(tool=tool) == {
        "sets": 1, "clears": 1, "marked": 2, "unmarked": 4, "original": 2, "reply": 3, "not-reply": 3,
        "new": 1, "old": 5, "new-reply": 0, "invalid": 1, "invalid-original": 2,
    }  # fmt: skip


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_marks_keep_to_their_mask(bench, tool):
    bench.load("*mangle\n-A PREROUTING -j CONNMARK --set-xmark 0x7/0x7\nCOMMIT\n", tool)
    writes = rule(Protocol("tcp"), "writes", Verdict.CONTINUE, effects=(SetMark(0x10, 0xF0),))
    kept = rule(Marked(0x17), "kept", Verdict.PASS)
    load(bench, Ruleset(chains=(chain(writes, name="a"), chain(kept, name="b"))), tool)
    passed(bench, to_server(tool), to_server(tool))
    assert bench.counters(tool=tool) == {"writes": 2, "kept": 2}


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_resets_and_rates(bench, tool):
    source = "ip6.saddr" if tool.startswith("ip6") else "ip.saddr"
    slow = {"packets": 1, "per": "hour"}
    floods = rule(
        equals("tls.content_type", 9), "floods", Verdict.RESET, limit=Limit(**slow, burst=3, key=(source,))
    )
    every = rule(equals("tls.content_type", 8), "every", limit=Limit(**slow, burst=2))
    load(bench, Ruleset(chains=(chain(floods, every),)), tool)
    fates = bench.send([to_server(tool, b"\x09")] * 6)
    assert [fate.passed for fate in fates] == [True] * 3 + [False] * 3
    reset = Packet.parse(fates[-1].answers[0])
    assert reset.read("tcp.flags") & RST
    assert reset.read("tcp.sport") == 443
    assert passed(bench, *[to_server(tool, b"\x08")] * 4) == [True] * 2 + [False] * 2
    assert bench.counters(tool=tool) == {"floods": 3, "every": 2}


@pytest.mark.netns
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
def test_a_changed_rate_is_a_rate_from_the_start(bench, tool):
    """The kernel keeps a table of rates by its name, and its rate with it, while any rule still has it."""
    for burst in (3, 1):
        limited = rule(Protocol("tcp"), limit=Limit(packets=1, per="hour", burst=burst, key=("ip.saddr",)))
        load(bench, Ruleset(chains=(chain(limited),)), tool)
        assert passed(bench, *[to_server(tool)] * 4) == [True] * burst + [False] * (4 - burst)


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_open_connections(bench, tool):
    source = "ip6.saddr" if tool.startswith("ip6") else "ip.saddr"
    limited = rule(equals("tcp.flags", SYN), limit=ConnectionLimit(connections=2, key=(source,)))
    load(bench, Ruleset(chains=(chain(limited),)), tool)
    opened = [to_server(tool, flags=SYN, source_port=port) for port in (1, 2, 3)]
    another = to_server(tool, flags=SYN, source="2001:db8::7" if source == "ip6.saddr" else "192.0.2.7")
    assert passed(bench, *opened, another) == [True, True, False, True]


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
def test_learning_into_a_set_of_ipset(bench, tool):
    family = "ip6" if tool.startswith("ip6") else "ip"
    key = (f"{family}.saddr", "tcp.dport")
    seen = SetDeclaration(name="seen", fields=key, dynamic=True, timeout_s=60)
    learns = rule(
        equals("tls.content_type", 1), "learns", Verdict.CONTINUE, effects=(Learn("seen", key, 60),)
    )
    knows = rule(Lookup(key, "seen"), "knows", Verdict.PASS)
    load(bench, Ruleset(chains=(chain(learns, knows),), sets=(seen,)), tool)
    other = to_server(tool, b"\x02", destination_port=80)
    passed(bench, to_server(tool, b"\x02"), to_server(tool, b"\x01"), to_server(tool, b"\x02"), other)
    assert bench.counters(tool=tool) == {"learns": 1, "knows": 2}
    assert re.search(r"add tlswall-seen \S+,tcp:443 timeout (60|59)", bench.listing("ipset"))


# --- form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [IPTABLES, IP6TABLES], ids=lambda backend: backend.name)
@pytest.mark.parametrize("policies", VARIANTS, ids=" ".join)
def test_each_rule_has_one_counter_of_its_own(wished, backend, policies):
    ruleset, text = wished(policies, backend)
    names = Counter(re.findall(r'--comment "\[([a-z0-9-]+)\]', text))
    artifact = emit(ruleset, backend)
    left_out = {one.rule for one in artifact.fidelity if "not in this file" in " ".join(one.notes)}
    assert names == Counter(one.name for one in ruleset.rules if one.name not in left_out)
    assert [one.rule for one in artifact.fidelity] == [one.name for one in ruleset.rules]
    for line in text.splitlines():
        if line.startswith("-A"):
            assert re.search(r'-m comment --comment "[\[(][a-z0-9-]+[\])] [^"]+"( -|$)', line), line


def test_names_of_chains_fit_and_differ():
    names = [f"{'a-rule-with-a-name-of-the-greatest'[:34]}-{number}" for number in range(10)]
    ways = (all_of(one_of("tcp.dport", MANY[: 30 + n]), equals("tls.length", n)) for n in range(3))
    match = any_of(*ways)
    rules = [rule(all_of(match, equals("tls.version", n)), name) for n, name in enumerate(names)]
    text = emit(Ruleset(chains=(chain(*rules, name=names[0]),)), IPTABLES).text
    declared = re.findall(r"^:(\S+) ", text, re.MULTILINE)
    assert len(declared) == len(set(declared)) > 20
    assert all(len(name) <= CHAIN_MAX and name.startswith(BASE) for name in declared)
    assert set(re.findall(r"-A (\S+)", text)) <= set(declared)
    assert set(re.findall(r"-[jg] (TLSWALL\S*)", text.partition("*filter")[2])) <= set(declared)


def test_the_header_says_where_it_comes_from_and_what_to_do_with_it(respond, finding):
    text = emit(respond((finding(),), "block", "heartbleed:ports=443").ruleset, IPTABLES).text
    head = text.partition("\n*filter")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line)
    for words in (
        "tlswall",
        f"incident.pcap sha256 {'00' * 32}",
        "Policy:   heartbleed:ports=443,direction=both",
        "FORWARD of table filter",
        "xt_comment, xt_conntrack, xt_multiport, xt_set, xt_u32",
        "--backend ipset",
        "Check:    unshare --net sh -c 'ipset restore -file SETS && iptables-restore FILE'",
        "Load:     iptables-restore --noflush FILE && { iptables -t filter -C FORWARD -j TLSWALL",
        "Watch:    iptables-save -c",
        "Remove:   iptables -t filter -D FORWARD -j TLSWALL",
    ):
        assert words in head, words


def test_what_it_can_not_say_is_refused_by_name(ruleset_of):
    rules = (
        rule(Protocol("tcp"), "per-option", limit=Limit(packets=1, per="day", burst=1, key=("tcp.window",))),
        rule(equals("tcp.dport", 1), "open", limit=ConnectionLimit(connections=1, key=("tcp.dport",))),
        rule(equals("tcp.dport", 2), "reset", Verdict.RESET),
        rule(equals("tcp.dport", 3), "fine"),
    )
    with pytest.raises(Refused) as caught:
        emit(Ruleset(chains=(chain(*rules),), hook=Hook.PREROUTING), IPTABLES)
    refused = {one.rule: one.feature for one in caught.value.refusals}
    assert list(refused) == ["per-option", "open", "reset"]
    for feature, words in zip(refused.values(), ("tcp.window", "tcp.dport", "prerouting"), strict=True):
        assert words in feature


def test_chains_deeper_than_iptables_nft_allows_are_refused(ruleset_of):
    wide = tuple((number, number) for number in range(0, 256, 2))
    ways = [
        all_of(
            equals("tls.length", n), one_of("tls.content_type", wide), one_of("tls.handshake_type", wide[n:])
        )
        for n in range(DEPTH_MAX)
    ]
    emit(ruleset_of(any_of(*ways), verdict=Verdict.DROP), IPTABLES)
    with pytest.raises(Refused, match="m0: chains that call each other more than 15 deep"):
        emit(ruleset_of(any_of(*ways), verdict=Verdict.PASS), IPTABLES)


# --- hostile strings ----------------------------------------------------------------------------------------


@given(hostile)
def test_a_quoted_string_has_no_end_but_its_own(text):
    assert re.fullmatch(r'"[A-Za-z0-9 ._,:;/#@()+=<>\[\]?-]{0,255}"', quoted(text))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile, identifier=hostile)
def test_hostile_names_never_break_out(respond, finding, name, identifier):
    ruleset = respond((finding(identifier, title=name),), "block", "heartbleed", name=name).ruleset
    harmless = respond((finding(),), "block", "heartbleed").ruleset
    text = emit(ruleset, IPTABLES).text
    assert skeleton(text) == skeleton(emit(harmless, IPTABLES).text)
    checked = IPTABLES.check(text)
    assert checked.accepted in (True, None), checked.message


def skeleton(text: str) -> list[str]:
    """The file without its comments."""
    return [re.sub(r'--comment "[^"]*"', "", line) for line in text.split("\n") if not line.startswith("#")]
