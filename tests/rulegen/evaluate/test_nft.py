"""What an nft ruleset would do with packets, held to what the kernel does.

TLSWALL_SEEDS=20 makes the random tests longer.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

from analyzer.model import Side
from rulegen.artifacts import ToolMissing, read
from rulegen.evaluate.base import Connection, Decision, Fate, NotModelled, Undecidable
from rulegen.evaluate.nft import evaluate_nft
from rulegen.ir.match import Direction, State
from rulegen.testbed.netns import LabError
from rulegen.testbed.packets import ACK, FIN, PSH, RST, SYN, Segment, checksum, repaired
from tests.rulegen.evaluate import hostile_packets
from tests.rulegen.evaluate.nft_kernel import agree, passing
from tests.rulegen.evaluate.random_nft import Rules, conversation_rules

SEEDS = [*range(int(os.environ.get("TLSWALL_SEEDS", "2"))), random.randrange(1 << 32)]
CORPUS = Path(__file__).parent / "corpus"
CAPTURES = sorted((Path(__file__).parents[3] / "samples/captures").glob("*.pcap"))
SECOND = 1_000_000_000

CLIENT = "192.0.2.1"
SERVER = "198.51.100.7"


def segment(payload: bytes = b"", *, flags: int = PSH | ACK, port: int = 40000, **changes) -> bytes:
    return Segment(
        source=CLIENT,
        destination=SERVER,
        source_port=port,
        destination_port=443,
        payload=payload,
        flags=flags,
        **changes,
    ).packet()


def evaluated(rules: str, *, sets: str = "", family: str = "inet", hook: str = "forward"):
    text = (
        f"table {family} t {{\n{sets}\nchain other {{\n}}\nchain c {{\n"
        f"type filter hook {hook} priority 0; policy accept;\n{rules}\n}}\n}}\n"
    )
    try:
        return evaluate_nft(read(text))
    except ToolMissing as error:
        pytest.skip(str(error))


def fates(rules: str, *packets, sets: str = "") -> list[Fate]:
    """Of packets that meet these rules one after the other; a rule drops what it matches."""
    (entry,) = evaluated(rules, sets=sets).entries
    return [entry.judge(one).fate for one in packets]


def matched(rules: str, *packets, sets: str = "") -> list[bool]:
    return [fate is Fate.DROP for fate in fates(f"{rules} drop", *packets, sets=sets)]


# --- the kernel decides -------------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("seed", SEEDS)
def test_random_rules_meet_hostile_packets(bench, seed):
    print("seed", seed)
    chance = random.Random(seed)
    packets = [(Side.CLIENT, hostile_packets.packet(chance)) for _ in range(600)]
    # A bridge refuses a few of them itself.
    packets = [packet for packet, fate in zip(packets, bench.send(packets), strict=True) if fate.passed]
    predicted = agree(
        bench, loadable(bench, lambda: Rules(chance, [data for _, data in packets]).text()), packets
    )
    assert predicted.packets.total() > 300


@pytest.mark.netns
@pytest.mark.parametrize("seed", SEEDS)
def test_random_rules_about_connections(bench, seed):
    print("seed", seed)
    chance = random.Random(seed)
    packets = [conversation(chance) for _ in range(300)]
    agree(bench, loadable(bench, lambda: conversation_rules(chance)), packets)


def loadable(bench, make) -> str:
    """The first text that nft 1.0.6 takes: some combinations of keys it refuses, and some end it."""
    while True:
        text = make()
        try:
            bench.load(text)
        except LabError:
            continue
        bench.flush()
        bench.forget()
        return text


def conversation(chance: random.Random) -> tuple[Side, bytes]:
    side = chance.choice((Side.CLIENT, Side.CLIENT, Side.SERVER))
    port = chance.choice((1001, 1002, 1003, 1004))
    ends = chance.choice(((CLIENT, SERVER), ("192.0.2.2", SERVER), ("2001:db8::1", "2001:db8::7")))
    ports = (port, 443)
    if side is Side.SERVER:
        ends, ports = ends[::-1], ports[::-1]
    flags = (SYN, SYN, SYN | ACK, SYN | ACK, ACK, ACK, ACK | PSH, ACK | PSH, FIN | ACK, RST, RST | ACK, 0)
    return side, Segment(
        source=ends[0],
        destination=ends[1],
        source_port=ports[0],
        destination_port=ports[1],
        flags=chance.choice(flags),
        sequence=chance.choice((1, 1, 2, 5)),
        acknowledgement=chance.choice((0, 1, 2, 2)),
        payload=chance.choice((b"", b"", b"\x16\3\1", b"x" * 30)),
    ).packet()


@pytest.mark.netns
def test_connections_open_at_once(bench):
    """A connection counts until it is closed; what is dropped at once does not stay."""
    packets = []
    for port in (1001, 1002, 1003):
        packets += handshake(port)
    packets += [(Side.CLIENT, segment(flags=FIN | ACK, port=1001, sequence=2, acknowledgement=2))]
    packets += [(Side.SERVER, reply(FIN | ACK, 1001, sequence=2, acknowledgement=3))]
    packets += [(Side.CLIENT, segment(flags=ACK, port=1001, sequence=3, acknowledgement=3))]
    packets += [packet for port in (1004, 1005, 1002) for packet in handshake(port)]
    text = table(
        "ct count over 2 counter",
        "ct count 3 counter",
        "tcp flags syn add @few { ip daddr ct count over 2 } counter drop",
        sets="set few { type ipv4_addr; flags dynamic; }",
    )
    agree(bench, text, packets, pause_s=0.015)


COUNTS = (
    "tcp flags & (fin | syn | rst | ack) == syn ct count over {} counter drop",
    "ct state new ct count over {} counter drop",
    "ct state new add @s {{ ip saddr ct count over {} }} counter drop",
    "ct state new,established ct count {} counter",
)


@pytest.mark.netns
@pytest.mark.parametrize("seed", range(3))
def test_counts_of_random_connections(bench, seed):
    print("seed", seed)
    chance = random.Random(seed)
    text = table(
        chance.choice(COUNTS).format(chance.choice((1, 2, 3))),
        "tcp sport 1002 counter drop",
        sets="set s { type ipv4_addr; flags dynamic; }",
    )
    # Ticks are 10 ms at most; in one, the kernel may count what has ended.
    agree(bench, text, [conversation(chance) for _ in range(70)], pause_s=0.0125, unknown=3)


def handshake(port: int) -> list[tuple[Side, bytes]]:
    return [
        (Side.CLIENT, segment(flags=SYN, port=port)),
        (Side.SERVER, reply(SYN | ACK, port, sequence=1, acknowledgement=2)),
        (Side.CLIENT, segment(flags=ACK, port=port, sequence=2, acknowledgement=2)),
    ]


def reply(flags: int, port: int, **numbers: int) -> bytes:
    return Segment(
        source=SERVER, destination=CLIENT, source_port=443, destination_port=port, flags=flags, **numbers
    ).packet()


def table(*rules: str, sets: str = "") -> str:
    lines = "\n".join(rules)
    return f"table inet t {{\n{sets}\nchain c {{\ntype filter hook forward priority 0\n{lines}\n}}\n}}\n"


@pytest.mark.netns
def test_limits_and_time_outs(bench):
    """Six packets at once, every 220 ms: tokens and time-outs end at least 9 ms before or after."""
    text = table(
        "limit rate 10/second burst 3 packets counter",
        "limit rate over 10/second burst 3 packets counter",
        "limit rate 320 bytes/second burst 100 bytes counter",
        "limit rate over 320 bytes/second burst 100 bytes counter",
        "ip daddr @short counter",
        "add @short { ip daddr timeout 250ms } counter",
        "ip daddr @long counter",
        "update @long { ip daddr timeout 200ms } counter",
        "update @each { ip daddr limit rate over 12/second burst 2 packets } counter drop",
        "quota over 400 bytes counter",
        "quota 400 bytes counter",
        sets="set short { type ipv4_addr; flags dynamic,timeout; timeout 1h; }\n"
        "set long { type ipv4_addr; flags dynamic,timeout; }\n"
        "set each { type ipv4_addr; flags dynamic; }\n",
    )
    agree(bench, text, [(Side.CLIENT, segment())] * 24, pause_s=0.22, at_once=6)


@pytest.mark.netns
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.nft")), ids=lambda path: path.stem)
def test_rulesets_that_tlswall_did_not_write(bench, path):
    """Servers, routers and careful hosts, as people write them."""
    chance = random.Random(path.stem)
    packets = [conversation(chance) for _ in range(250)] + mixed(chance)
    chance.shuffle(packets)
    agree(bench, path.read_text(), packets)


def mixed(chance: random.Random) -> list[tuple[Side, bytes]]:
    """Other protocols, whole."""
    found = []
    while len(found) < 250:
        data = hostile_packets.packet(chance)
        whole = data[0] >> 4 == 4 and not struct.unpack_from("!H", data, 6)[0] & 0x3FFF and data[9] in (6, 17)
        if whole and len(data) >= 40 and checksum(data[: 4 * (data[0] & 15)]) == 0:
            found.append((chance.choice((Side.CLIENT, Side.SERVER)), data))
    return found


WISHES = (
    "heartbleed", "heartbleed:encrypted=pass,ports=443", "min-version:sentinel=refuse",
    "weak-parameters:unjudged=refuse", "first-record:ports=443", "content-type:types=20,21,22,23,mode=allow",
    "rate",
)  # fmt: skip


@pytest.mark.netns
@pytest.mark.parametrize("policy", WISHES)
def test_policies_on_captures(bench, rules_text, policy):
    """Policies on every packet of the sample captures."""
    agree(bench, rules_text(policy), [packet for path in CAPTURES for packet in capture(path)])


def capture(path: Path) -> list[tuple[Side, bytes]]:
    sides: dict[frozenset[str], str] = {}
    found = []
    with PcapReader(str(path)) as reader:
        for frame in reader:
            layer = IP if IP in frame else IPv6
            if layer not in frame:
                continue
            one = frame[layer]
            first = sides.setdefault(frozenset((one.src, one.dst)), one.src)
            size = one.len if layer is IP else one.plen + 40
            data = repaired(bytes(one.original)[:size])
            if len(data) == size:
                found.append((Side.CLIENT if one.src == first else Side.SERVER, data))
    return found


# --- what no replay shows -----------------------------------------------------------------------------------


def test_bytes_behind_the_end_of_a_capture_are_unknown():
    whole = passing(segment(b"\x16\3\1\0\0\1"))
    cut = passing(segment(b"\x16\3\1\0\0\1"))
    cut.captured = 42
    assert matched("@ih,0,16 0x1603", whole, cut) == [True, True]
    assert matched("@ih,0,24 0x160301", whole) == [True]
    for rule in ("@ih,0,24 0x160301", "@ih,16,8 != 1", "@th,160,48 { 1, 2 }"):
        with pytest.raises(Undecidable, match="cuts the packet"):
            matched(rule, cut)
    assert matched("@ih,64,8 >= 0", cut) == [False]
    assert matched("tcp dport 80 @ih,32,8 0", cut) == [False]


def test_state_before_and_without_tracking():
    fresh, untracked = passing(segment()), passing(segment(), state=State.UNTRACKED)
    assert matched("ct state invalid", fresh, untracked) == [True, False]
    assert matched("ct state untracked", fresh, untracked) == [False, True]
    assert matched("ct direction original", fresh) == matched("ct mark 0", fresh) == [False]
    known = passing(
        segment(), state=State.ESTABLISHED, direction=Direction.REPLY, connection=Connection(mark=5)
    )
    assert matched("ct state established ct direction reply ct mark 5", known) == [True]


def test_marks_are_written_to_packet_and_connection():
    one = passing(segment(), mark=0x0F, state=State.NEW, connection=Connection(mark=0x100))
    fates("ct mark set ct mark or 0x3 meta mark set meta mark and 0xf0 xor 0x81", one)
    assert (one.connection.mark, one.mark) == (0x103, 0x81)


def at(*seconds: float) -> list:
    return [passing(segment(), int(moment * SECOND)) for moment in seconds]


def test_limits_run_by_the_clock_of_the_capture():
    assert matched("limit rate 1/second burst 2 packets", *at(0, 0, 0, 0.5, 1.2, 9, 9, 9)) == [
        *(True, True, False, False, True),
        *(True, True, False),
    ]
    with pytest.raises(Undecidable, match="limit"):
        matched("limit rate 1/second burst 1 packets", *at(0, 0.999_95))
    assert matched("limit rate over 60/minute burst 1 packets", *at(5, 4)) == [False, True]


def test_elements_expire_by_the_clock_of_the_capture():
    learned = "set s { type ipv4_addr; flags dynamic,timeout; timeout 5s; }"
    rules = "ip saddr @s drop\nadd @s { ip saddr }"
    moments = at(0, 4.9, 5.1, 10.2)
    assert fates(rules, *moments, sets=learned) == [Fate.ACCEPT, Fate.DROP, Fate.ACCEPT, Fate.ACCEPT]
    assert (
        fates(rules.replace("add @", "update @") + "\nip saddr @s drop", *at(0, 4), sets=learned)[1]
        is Fate.DROP
    )
    brought = f"set s {{ type ipv4_addr; flags timeout; elements = {{ {CLIENT} timeout 10s }}\n}}"
    assert matched("ip saddr @s", *at(100, 109, 111), sets=brought) == [True, True, False]
    with pytest.raises(Undecidable, match="expires"):
        matched("ip saddr @s", *at(100, 110), sets=brought)


def test_less_than_a_second_is_refused():
    """nft lists whole seconds."""
    with pytest.raises(NotModelled, match="less than a second"):
        matched("ip saddr @s", sets="set s { type ipv4_addr; flags dynamic,timeout; timeout 250ms; }")


def test_a_set_of_every_key():
    everything = "set s { type ipv4_addr; flags interval; elements = { 0.0.0.0/0 }\n}"
    assert matched("ip saddr @s", passing(segment()), sets=everything) == [True]
    other = "map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : accept, * : drop }\n}"
    assert fates("ip saddr vmap @m", passing(segment()), sets=other) == [Fate.DROP]


def test_hits_name_every_rule_that_was_met():
    (entry,) = evaluated('tcp dport 443 jump other comment "web"\ncounter\ntcp dport 80\nreject').entries
    one = passing(segment())
    decision = entry.judge(one)
    assert [(hit.table, hit.chain, hit.number, hit.comment) for hit in one.hits] == [
        ("inet t", "c", 1, "web"),
        ("inet t", "c", 2, None),
        ("inet t", "c", 4, None),
    ]
    assert (decision.fate, decision.by) == (Fate.DROP, one.hits[-1])
    assert (entry.hook, entry.priority, entry.family, entry.name) == ("forward", 0, "inet", "inet t c")


def test_a_policy_decides_without_a_rule():
    text = "table ip t {\nchain c {\ntype filter hook forward priority 0; policy drop;\n}\n}\n"
    (entry,) = evaluate_nft(read(text)).entries
    assert entry.judge(passing(segment())) == Decision(Fate.DROP, None)


def test_a_reset_closes_the_connection():
    """Whose packet is no RST itself and can be answered."""
    (entry,) = evaluated("meta l4proto tcp reject with tcp reset").entries
    damaged = segment()[:-1] + b"\1"
    answered = [entry.judge(passing(data)).resets for data in (segment(b"x"), segment(flags=RST), damaged)]
    assert answered == [True, False, False]
    (entry,) = evaluated("reject").entries
    assert not entry.judge(passing(segment())).resets


@pytest.mark.parametrize(
    ("rule", "feature"),
    [
        ("numgen random mod 2 0 drop", "random"),
        ("jhash ip saddr mod 2 0 drop", "jhash"),
        ("fib saddr oif missing drop", "fib"),
        ("rt classid 1 drop", "rt"),
        ("tcp dport set 80", "changing the packet"),
        ("tcp option maxseg size set 1200", "tcp option set"),
        ("ether saddr 02:00:00:00:00:01 drop", "a load from the link header"),
        ("meta cpu 1 drop", "meta cpu"),
        ("meta pkttype broadcast drop", "meta pkttype"),
        ("ct expiration > 5s drop", "ct expiration"),
        ("@th,81,16 & 0x1441 != 0 drop", "a shift of 3 bytes"),
        ("tcp dport vmap { 80 : continue } ip ttl 3 drop", "a verdict map that goes on within its rule"),
    ],
)
def test_what_has_no_model_is_refused_by_name(rule, feature):
    with pytest.raises(NotModelled) as refused:
        evaluated(f"counter\n{rule}")
    assert refused.value.feature == feature
    assert "table inet t, chain c, rule 2 (handle " in refused.value.where


def test_nat_and_bridges_are_refused_where_packets_meet_them():
    with pytest.raises(NotModelled, match="type nat"):
        evaluate_nft(
            read("table ip t {\nchain c {\ntype nat hook postrouting priority 100\nmasquerade\n}\n}\n")
        )
    with pytest.raises(NotModelled, match="family bridge"):
        evaluate_nft(read("table bridge t {\nchain c {\ntype filter hook forward priority 0\ndrop\n}\n}\n"))


def test_chains_that_no_packet_meets_may_use_anything():
    unused = "table inet t {\nchain c {\nfib saddr oif missing drop\n}\n}\n"
    assert evaluate_nft(read(unused)).entries == ()
    received = (
        "table inet t {\nchain c {\ntype filter hook input priority 0\nfib saddr oif missing drop\n}\n}\n"
    )
    assert evaluate_nft(read(received), hooks=("prerouting", "forward", "postrouting")).entries == ()
    with pytest.raises(NotModelled, match="fib"):
        evaluate_nft(read(received))
    dormant = "table inet t {\nflags dormant\nchain c {\ntype filter hook forward priority 0\ndrop\n}\n}\n"
    assert evaluate_nft(read(dormant)).entries == ()


def test_what_makes_the_kernel_track_connections():
    assert not evaluated("tcp dport 443 counter drop").tracking
    assert evaluated("ct state new").tracking
    assert evaluated(
        "add @s { ip saddr ct count over 3 }", sets="set s { type ipv4_addr; flags dynamic; }"
    ).tracking


def test_devices_of_a_hook():
    two = (passing(segment(), interface_in="lan0", interface_out="wan0") for _ in range(2))
    before, after = (
        evaluated('iifname "lan0" oifname != "wan0" drop\niifname != "lan*" oifname "wan0" drop', hook=hook)
        for hook in ("prerouting", "postrouting")
    )
    for one, hook in zip(two, (before, after), strict=True):
        assert hook.entries[0].judge(one).fate is Fate.DROP
