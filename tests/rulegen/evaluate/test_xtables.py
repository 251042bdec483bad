"""What the evaluator of iptables says of hostile packets is what the kernel does, with each of the four tools."""

from __future__ import annotations

import random
import time

import pytest

from rulegen.artifacts import read_ipset, read_iptables
from rulegen.backends import emit
from rulegen.backends.bpf import BACKEND as BPF
from rulegen.backends.ipset import BACKEND as IPSET
from rulegen.backends.iptables import IP6TABLES, IPTABLES
from rulegen.errors import Refused
from rulegen.evaluate.base import Connection, Fate, NotModelled, Passing, Undecidable
from rulegen.evaluate.conntrack import Conntrack
from rulegen.evaluate.conntrack_settings import TESTBED
from rulegen.evaluate.defrag import Reassembly
from rulegen.evaluate.firewall import Firewall
from rulegen.evaluate.xtables import evaluate_xtables
from rulegen.ir.match import Direction, State
from rulegen.testbed.packets import fragments
from tests.rulegen.evaluate.xt_bench import (
    TOOLS,
    counted,
    differences,
    evaluated,
    family_of,
    filter_of,
    flush,
    hit,
    judge,
    passing,
    segment,
    way,
)
from tests.rulegen.evaluate.xt_random import PACKETS, ruleset, set_rules, sets
from tests.rulegen.policies.test_samples import CAPTURES
from tests.rulegen.policies.test_samples import packets as packets_of

FRESH = random.SystemRandom().randrange(1 << 32)

by_tool = pytest.mark.parametrize("tool", TOOLS)


@pytest.mark.netns
@by_tool
@pytest.mark.parametrize("seed", [1, 2, 3, 4, FRESH], ids=["1", "2", "3", "4", "fresh"])
def test_random_rules_meet_the_same_packets(bench, tool, seed):
    chance = random.Random(seed)
    family = family_of(tool)
    text = ruleset(chance, family, 12, decides=0.1 * (seed % 2))
    packets = [PACKETS[family](chance) for _ in range(300)]
    found = differences(bench, text, tool, packets)
    assert not found, (f"seed {seed}", *found[:8])
    assert sum(counted(bench, tool).values()) > 20


@pytest.mark.netns
@by_tool
@pytest.mark.parametrize("seed", [1, 2, FRESH], ids=["1", "2", "fresh"])
def test_random_sets_have_the_same_packets(bench, tool, seed):
    chance = random.Random(seed)
    family = family_of(tool)
    text, ipsets = set_rules(chance, family, 25), sets(chance, family)
    packets = [PACKETS[family](chance) for _ in range(300)]
    try:
        found = differences(bench, text, tool, packets, ipsets)
        assert not found, (f"seed {seed}", ipsets, *found[:8])
        assert sum(counted(bench, tool).values()) > 20
    finally:
        flush(bench)


def fates(text: str, tool: str, *packets: bytes) -> list[bool]:
    entries = way(evaluated(text, tool))
    return [judge(entries, passing(number, one)) for number, one in enumerate(packets)]


LEGACY, NFT = "iptables-legacy", "iptables-nft"
CUT = (
    segment()[:2] + b"\0\x20" + segment()[4:32]
)  # twelve bytes of TCP; the header's checksum is not asked here
SECOND = fragments(segment(payload=bytes(4) + b"\x01\xbb" * 40), 24)[1]
NEXT = fragments(segment(payload=bytes(40)), 8)[1]


@pytest.mark.parametrize(("rule", "packet", "legacy", "nft"), [
    # legacy drops what could hide TCP flags, whatever the rule says; nft reads what lies there
    ("-p tcp -m tcp --dport 1 -j ACCEPT", NEXT, False, True),
    ("-p tcp -m tcp --dport 1 -j ACCEPT", CUT, False, True),
    ("-p tcp -m tcp --dport 443 -j DROP", CUT, False, False),
    # and without tests nft asks the kernel's module too
    ("-p tcp -m tcp -j ACCEPT", CUT, False, False),
    ("-p tcp -j ACCEPT", CUT, True, True),
    # the body of a fragment has a "port"
    ("-p tcp -m tcp --dport 443 -j DROP", SECOND, True, False),
    # iptables-nft compares two inverted ports as one number
    ("-p tcp -m tcp ! --sport 1 ! --dport 443 -j DROP", segment(), True, False),
    ("-p tcp -m tcp ! --dport 0:65535 -j DROP", segment(), True, False),
])  # fmt: skip
def test_where_the_variants_differ(rule, packet, legacy, nft):
    text = filter_of(f"-A FORWARD {rule}")
    assert fates(text, LEGACY, packet) == [legacy]
    assert fates(text, NFT, packet) == [nft]


def test_user_chains_return_to_their_callers_and_goto_does_not():
    text = filter_of(
        "-A FORWARD -j A", "-A FORWARD -j DROP",
        "-A A -g B", "-A A -j DROP",
        "-A B -m mark --mark 1 -j ACCEPT", "-A B -m mark --mark 2 -j DROP", "-A B -m mark --mark 3 -j RETURN",
        chains=("A", "B"),
    )  # fmt: skip
    entries = way(evaluated(text, LEGACY))
    found = {}
    for mark in range(1, 5):
        one = passing(1, segment(), mark=mark)
        found[mark] = (judge(entries, one), [(each.chain, each.number) for each in one.hits])
    begin = [("FORWARD", 1), ("A", 1)]
    assert found == {
        1: (True, [*begin, ("B", 1)]),
        2: (False, [*begin, ("B", 2)]),
        3: (False, [*begin, ("B", 3), ("FORWARD", 2)]),
        4: (False, [*begin, ("FORWARD", 2)]),
    }


def test_who_decided():
    text = filter_of('-A FORWARD -s 192.0.2.1 -m comment --comment "[x] why" -j REJECT', policy="DROP")
    (entry,) = evaluated(text, NFT).entries
    decision = entry.judge(passing(1, segment()))
    assert decision.fate is Fate.DROP
    assert decision.by == ("ip filter", "FORWARD", 1, "[x] why")
    assert entry.judge(passing(1, segment(source="192.0.2.2")))[:2] == (Fate.DROP, None)
    assert (entry.hook, entry.priority, entry.family, entry.name) == ("forward", 0, "ip", "ip filter FORWARD")


def test_what_a_reset_answers():
    """The tracker closes the connection then."""
    text = filter_of("-A FORWARD -p tcp -j REJECT --reject-with tcp-reset")
    (entry,) = evaluated(text, NFT).entries
    whole = segment(payload=b"x")
    assert entry.judge(passing(1, whole)) == (Fate.DROP, ("ip filter", "FORWARD", 1, None), True)
    assert not entry.judge(passing(1, whole[:-1] + b"y")).resets
    assert not entry.judge(passing(1, segment(flags=4))).resets
    assert not entry.judge(passing(1, NEXT)).resets
    with pytest.raises(Undecidable, match="reset"):
        entry.judge(passing(1, whole, captured=40))


def test_chains_are_entered_where_the_kernel_enters_them():
    text = "*raw\n-A PREROUTING -j CT --notrack\nCOMMIT\n*mangle\n-A POSTROUTING\nCOMMIT\n" + filter_of(
        "-A FORWARD"
    )
    one = evaluated(text, NFT)
    places = {(entry.hook, entry.priority) for entry in one.entries}
    assert places == {("prerouting", -300), ("postrouting", -150), ("forward", 0)}
    assert not one.tracking


# What a rule asks of a connection, by hand: state, direction, mark, status, addresses.


def in_connection(state: State, direction: Direction = Direction.ORIGINAL, **changes: object) -> Passing:
    source, destination = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 7))
    connection = Connection(
        tuples=((source, destination, 40000, 443, 6), (destination, source, 443, 40000, 6)), **changes
    )
    return passing(1, segment(), state=state, direction=direction, connection=connection)


CONNTRACK = [
    ("-m conntrack --ctstate NEW", in_connection(State.NEW), True),
    ("-m conntrack ! --ctstate NEW", in_connection(State.NEW), False),
    ("-m state --state RELATED,ESTABLISHED", in_connection(State.ESTABLISHED), True),
    ("-m conntrack --ctstate INVALID", passing(1, segment(), state=State.INVALID), True),
    ("-m conntrack --ctstate INVALID", passing(1, segment()), True),
    ("-m conntrack --ctstate UNTRACKED", passing(1, segment(), notrack=True), True),
    ("-m conntrack --ctstate UNTRACKED", passing(1, segment(), state=State.UNTRACKED), True),
    # without connection the state alone is asked, and nothing else matches
    ("-m conntrack --ctstate INVALID --ctdir REPLY", passing(1, segment(), state=State.INVALID), True),
    ("-m conntrack --ctdir ORIGINAL", passing(1, segment(), state=State.INVALID), False),
    ("-m conntrack ! --ctproto udp", passing(1, segment(), state=State.INVALID), False),
    ("-m connmark ! --mark 1", passing(1, segment(), state=State.INVALID), False),
    ("-m conntrack --ctdir REPLY", in_connection(State.ESTABLISHED, Direction.REPLY), True),
    ("-m conntrack --ctdir REPLY", in_connection(State.ESTABLISHED), False),
    ("-m connmark --mark 0x10/0x30", in_connection(State.NEW, mark=0x1D), True),
    ("-m connmark ! --mark 0x10/0x30", in_connection(State.NEW, mark=0x1D), False),
    ("-m conntrack --ctstatus CONFIRMED", in_connection(State.NEW), False),
    ("-m conntrack --ctstatus SEEN_REPLY,ASSURED", in_connection(State.ESTABLISHED, seen_reply=True), True),
    ("-m conntrack ! --ctstatus ASSURED", in_connection(State.ESTABLISHED, assured=True), False),
    ("-m conntrack --ctproto 6 --ctorigsrc 192.0.2.0/24 --ctorigdstport 443", in_connection(State.NEW), True),
    ("-m conntrack --ctreplsrc 198.51.100.7 --ctrepldstport 40000", in_connection(State.NEW), True),
    ("-m conntrack ! --ctreplsrcport 400:450", in_connection(State.NEW), False),
]


@pytest.mark.parametrize(("match", "one", "held"), CONNTRACK)
def test_what_a_rule_asks_of_a_connection(match, one, held):
    result = evaluated(filter_of(f"-A FORWARD {match} -j DROP"), LEGACY)
    assert result.tracking
    assert (result.entries[0].judge(one).fate is Fate.DROP) is held


def test_marks_are_written_under_their_mask():
    text = filter_of(
        "-A FORWARD -j MARK --set-xmark 0x5/0xf",
        "-A FORWARD -j CONNMARK --set-xmark 0x100/0xf00",
        "-A FORWARD -j CONNMARK --save-mark --nfmask 0xf --ctmask 0xf",
        "-A FORWARD -j CONNMARK --restore-mark --nfmask 0xf00 --ctmask 0xf00",
    )
    one = in_connection(State.NEW, mark=0x30F03)
    one.mark = 0xF7
    judge(way(evaluated(text, NFT)), one)
    assert (one.mark, one.connection.mark) == (0x1F5, 0x30105)


# What the capture lacks.


@pytest.mark.parametrize(("rule", "captured", "expected"), [
    ("-p tcp -m tcp --dport 443", 40, True),
    ("-p tcp -m tcp --dport 443", 24, True),
    ("-p tcp -m tcp --dport 443", 23, None),
    ("-d 192.0.2.99 -p tcp -m tcp --dport 443", 23, False),
    ("-m string --string abc --algo kmp", 43, True),
    ("-m string --string abc --algo kmp", 42, None),
    ("-m string --string abc --algo kmp --to 42", 42, False),
    ("-m string --string abd --algo kmp", 43, None),
    ('-m u32 --u32 "40=0x61626364"', 44, True),
    ('-m u32 --u32 "40=0x61626364"', 43, None),
    ('-m u32 --u32 "40=0x61626364&&0=1"', 43, None),
    ('-m u32 --u32 "40=0x61626364" -m length --length 1', 43, False),
    ('-m bpf --bytecode "4,32 0 0 40,21 0 1 1633837924,6 0 0 1,6 0 0 0"', 44, True),
    ('-m bpf --bytecode "4,32 0 0 40,21 0 1 1633837924,6 0 0 1,6 0 0 0"', 43, None),
    # it is long enough, whatever its bytes are
    ('-m u32 ! --u32 "60=0:0xFFFFFFFF"', 40, True),
    ("-m length --length 46", 40, True),
])  # fmt: skip
@pytest.mark.parametrize("tool", TOOLS[:2])
def test_bytes_that_were_not_captured(rule, captured, expected, tool):
    whole = segment(payload=b"abcdef")
    one = Passing(
        number=1, time_ns=0, data=whole[:captured] + bytes(len(whole) - captured), captured=captured
    )
    (entry,) = evaluated(filter_of(f"-A FORWARD {rule} -j DROP"), tool).entries
    if expected is None:
        with pytest.raises(Undecidable, match=r"rule 1 \(line 3\): a rule (looks|searches) behind the"):
            entry.judge(one)
    else:
        assert (entry.judge(one).fate is Fate.DROP) is expected


OWN = [
    "heartbleed:encrypted=pass",
    "rate:handshakes=3/minute/4",
    "block:ttl=1h",
    "sni:names=a.example,mode=deny",
]


@pytest.mark.netns
@pytest.mark.parametrize("policy", OWN)
@pytest.mark.parametrize(("backend", "tool"), [(IPTABLES, "iptables-nft"), (IP6TABLES, "ip6tables-legacy"),
                                               (BPF, "iptables-legacy"), (BPF, "ip6tables-nft")],
                         ids=["iptables", "ip6tables", "bpf", "bpf-ip6"])  # fmt: skip
def test_what_tlswall_writes(bench, respond, finding, backend, tool, policy):
    """Over all samples, one after the other: verdicts and counters, with connections and sets."""
    ruleset = respond((finding(),), policy).ruleset
    try:
        text = emit(ruleset, backend).text
    except Refused as refused:
        pytest.skip(f"refused: {refused.refusals[0].feature}")
    ipsets = emit(ruleset, IPSET).text if ruleset.sets else ""
    if ipsets:
        bench.load(ipsets, "ipset")
    bench.load(text, tool)
    firewall = Firewall([evaluated(text, tool, ipsets)], Conntrack(TESTBED), Reassembly(TESTBED))
    sent = [(side, packet) for path in CAPTURES for _, side, packet in packets_of(path)]
    start = time.monotonic_ns()
    fates = bench.send(sent)
    each = (time.monotonic_ns() - start) // len(sent)
    asked = [passing(at, packet, time_ns=start + at * each) for at, (_, packet) in enumerate(sent)]
    outcomes = [firewall.judge(one) for one in asked]
    if all(outcome.fate is not Fate.UNKNOWN for outcome in outcomes):
        assert hit(asked) == +counted(bench, tool)
    assert sum(outcome.fate is Fate.UNKNOWN for outcome in outcomes) <= 2
    wrong = [
        (at, outcome)
        for at, (outcome, fate) in enumerate(zip(outcomes, fates, strict=True))
        if outcome.fate is not Fate.UNKNOWN and (outcome.fate is Fate.ACCEPT) is not fate.passed
    ]
    assert wrong == []
    flush(bench)


def test_a_pattern_in_two_fragments_is_found_by_kmp_alone():
    for algorithm, fragments_of, held in (("kmp", (1, 2), True), ("bm", (2,), True), ("bm", (1, 2), None)):
        rule = f"-A FORWARD -m string --string abc --algo {algorithm} -j DROP"
        (entry,) = evaluated(filter_of(rule), LEGACY).entries
        one = passing(2, segment(payload=b"xabcx"), fragments=fragments_of)
        if held is None:
            with pytest.raises(Undecidable, match="two fragments"):
                entry.judge(one)
        else:
            assert entry.judge(one).fate is Fate.DROP


# What is refused before the first packet.


@pytest.mark.parametrize(("rule", "feature"), [
    ("-m statistic --mode random --probability 0.5", "-m statistic"),
    ("-m mac --mac-source 00:11:22:33:44:55", "-m mac"),
    ("-j TCPMSS --clamp-mss-to-pmtu", "-j TCPMSS"),
    ("-j QUEUE", "-j QUEUE"),
    ("-m conntrack --ctexpire 5", "-m conntrack --ctexpire"),
    ("-m addrtype --dst-type ANYCAST", "-m addrtype ANYCAST"),
    ("-m addrtype --dst-type UNICAST --limit-iface-in", "-m addrtype --limit-iface-in"),
    ("-m recent --rcheck --rttl", "-m recent"),
    ("-m hashlimit --hashlimit-above 1kb/s --hashlimit-name x", "-m hashlimit by bytes"),
    ("-m set --match-set nowhere src", "ipset nowhere, which is not given,"),
    ("-m set --match-set iface src,src", "ipset type hash:net,iface"),
    ("-m set --match-set nets src -j SET --add-set nets src", "-j SET of an ipset of type hash:net"),
    ("-m set --match-set nets src --packets-gt 5", "-m set with counters"),
])  # fmt: skip
def test_what_is_not_modelled_is_refused_by_name(rule, feature):
    ipsets = read_ipset("create iface hash:net,iface\ncreate nets hash:net\n").ipsets
    artifact = read_iptables(filter_of(f"-A FORWARD {rule}"))
    with pytest.raises(NotModelled) as refused:
        evaluate_xtables(artifact, variant="legacy", family="ip", ipsets=ipsets)
    assert refused.value.feature.startswith(feature)
    assert "chain FORWARD, rule 1 (line 3)" in refused.value.where


def test_address_translation_is_refused_where_there_is_some():
    nothing = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"
    assert evaluated(nothing, NFT).entries == ()
    with pytest.raises(
        NotModelled, match="table ip nat, chain POSTROUTING: address translation is not modelled"
    ):
        evaluated("*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n", NFT)


def test_a_file_of_the_other_family_is_refused():
    with pytest.raises(NotModelled, match="a file of ip6"):
        evaluate_xtables(read_iptables(filter_of("-A FORWARD"), "ip6"), variant="legacy", family="ip")


BOTH = filter_of(
    "-A FORWARD -4 -s 192.0.2.1 -j DROP",
    "-A FORWARD -6 -s 2001:db8::1 -j DROP",
    '-A FORWARD -p tcp -m tcp --dport 443 -m comment --comment "both" -j DROP',
)


@pytest.mark.netns
@by_tool
def test_lines_for_one_family_are_not_there_for_the_other(bench, tool):
    family = family_of(tool)
    packets = [segment() if family == "ip" else segment(source="2001:db8::1", destination="2001:db8::7")]
    packets += [
        segment(source="192.0.2.2") if family == "ip" else segment(source="fe80::1", destination="fe80::2")
    ]
    assert differences(bench, BOTH, tool, packets) == []
    assert list(counted(bench, tool).values()) == [1, 1]
    artifact = read_iptables(BOTH)
    assert artifact.tables[0].family is None
    (entry,) = evaluate_xtables(artifact, variant="legacy", family=family).entries
    assert entry.judge(passing(1, packets[1])).by == (f"{family} filter", "FORWARD", 2, "both")


# Rules as people write them.

SERVER = """# a router before a web server, by hand
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP
-A PREROUTING -p tcp -m tcp --tcp-flags SYN,FIN SYN,FIN -j DROP
-A PREROUTING -s 224.0.0.0/4 -j DROP
COMMIT
*mangle
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -p tcp -m multiport --sports 80,443 -j MARK --set-mark 7
-A POSTROUTING -m mark --mark 7 -m length --length 100:65535 -j RETURN
COMMIT
*filter
:FORWARD DROP [0:0]
:tcp-in - [0:0]
:log-drop - [0:0]
-A FORWARD -i br0 -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A FORWARD -f -j DROP
-A FORWARD -p tcp -g tcp-in
-A FORWARD -p udp -m udp --dport 53 -j ACCEPT
-A FORWARD -p udp -m udp --sport 53 -j ACCEPT
-A FORWARD -j log-drop
-A tcp-in -p tcp -m tcp --dport 22 ! -s 192.0.2.0/24 -j log-drop
-A tcp-in -p tcp -m multiport --dports 22,80,443 -j ACCEPT
-A tcp-in -p tcp -m tcp ! --syn -j ACCEPT
-A tcp-in -p tcp -m tcp --dport 1023:1024 -j REJECT --reject-with tcp-reset
-A log-drop -m addrtype --dst-type MULTICAST -j DROP
-A log-drop -j LOG --log-prefix "dropped "
-A log-drop -j DROP
COMMIT
"""

SERVER6 = """*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p ipv6-icmp -m icmp6 --icmpv6-type 128/0 -j ACCEPT
-A PREROUTING -s fe80::/10 -j DROP
COMMIT
*filter
:FORWARD DROP [0:0]
:web - [0:0]
-A FORWARD -p ipv6-icmp -j ACCEPT
-A FORWARD -p tcp -m multiport --dports 80,443 -j web
-A FORWARD -p udp -m udp --dport 53 -j ACCEPT
-A FORWARD -p tcp -m tcp --sport 80 ! --syn -j ACCEPT
-A FORWARD -j REJECT --reject-with icmp6-adm-prohibited
-A web -m u32 --u32 "6&0xFF=6 && 52>>26&0x3C@40>>24=0x61" -j RETURN
-A web -m string --algo bm --hex-string "|1603|" -j DROP
-A web -j ACCEPT
COMMIT
"""


@pytest.mark.netns
@by_tool
def test_rules_by_hand(bench, tool):
    family = family_of(tool)
    chance = random.Random(9)
    packets = [PACKETS[family](chance) for _ in range(1500)]
    text = SERVER if family == "ip" else SERVER6
    assert differences(bench, text, tool, packets) == []
    assert min(counted(bench, tool).values()) >= (1 if family == "ip" else 0)
