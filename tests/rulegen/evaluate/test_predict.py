"""What a prediction counts and lists, and that the real kernel does to each packet what was predicted."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from analyzer import pipeline
from analyzer.model import Side
from rulegen.artifacts import read, read_iptables
from rulegen.backends import backend_named, emit
from rulegen.evaluate.base import Fate
from rulegen.evaluate.captured import blocks
from rulegen.evaluate.firewall import Place
from rulegen.evaluate.judge import Meetings, judge
from rulegen.evaluate.predict import Prediction, predict, rows
from rulegen.evaluate.questions import questions
from rulegen.evaluate.ruleset import Loading, firewall, rule_names
from rulegen.evaluate.traffic import Traffic
from rulegen.testbed.packets import fragments, repaired

SAMPLES = Path(__file__).parents[3] / "samples"
HEARTBLEED = SAMPLES / "captures/heartbleed-success.pcap"
ORDINARY = SAMPLES / "captures/tls1.2.pcap"
CUT = {"tcp-snaplen-96.pcap"}
"""Captures that lack what the rules below ask for."""
CAPTURES = sorted(SAMPLES.glob("c*/*.pcap*"))


def xt(*rules: str, policy: str = "ACCEPT"):
    lines = "\n".join(rules)
    return read_iptables(f"*filter\n:FORWARD {policy}\n{lines}\nCOMMIT\n", "ip")


def predicted(
    *paths: Path, rules: tuple[str, ...], place: Place = Place.ROUTER, **options: str
) -> Prediction:
    artifacts = [xt(*rules, **options)]
    meetings = Meetings()
    analysis = pipeline.analyze([str(path) for path in paths], tables=("packets",))
    judged = [
        judge(
            firewall(artifacts, Loading(place=place)),
            str(path),
            meetings,
            senders=Traffic(analysis, number).senders(),
        )
        for number, path in enumerate(paths)
    ]
    return predict(judged, meetings, analysis, list(rule_names(artifacts)))


def test_every_packet_is_accepted_or_dropped_or_unknown():
    told = predicted(HEARTBLEED, rules=("-A FORWARD -p tcp --dport 443 -j DROP",))
    assert (told.packets, told.accepted, told.dropped, told.unknown) == (34, 12, 22, 0)


def test_a_rule_counts_what_it_matches_whatever_it_does():
    told = predicted(
        ORDINARY,
        HEARTBLEED,
        rules=(
            "-A FORWARD -p tcp --dport 443",
            "-A FORWARD -p tcp --dport 443 -m length --length 100:65535 -j DROP",
            "-A FORWARD -p udp -j DROP",
        ),
    )
    counted, drops, never = told.rules
    assert (counted.rule, counted.dropped, counted.connections) == ("ip filter FORWARD 1", 0, 2)
    assert 0 < drops.packets == drops.dropped == told.dropped < counted.packets
    assert drops.bytes > 100 * drops.packets
    assert (never.packets, never.bytes, never.connections, never.findings) == (0, 0, 0, {})


def test_connections_without_an_attack_that_lose_packets_are_collateral():
    told = predicted(HEARTBLEED, ORDINARY, rules=("-A FORWARD -p tcp --dport 443 -j DROP",))
    (lost,) = told.collateral
    assert (lost.capture, lost.connection, lost.protocol) == (str(ORDINARY), 0, "TCP")
    assert (lost.client, lost.server) == ("10.0.0.80:56637", "68.233.76.12:443")
    assert (lost.rules, lost.findings, lost.offender) == (("ip filter FORWARD 1",), (), False)
    assert (lost.packets, lost.first[0]) == (13, 1)


def test_attacks_that_nothing_stops_are_misses():
    told = predicted(HEARTBLEED, rules=("-A FORWARD -p udp -j DROP",))
    assert {(miss.finding, miss.connection, miss.packets) for miss in told.misses} == {("HB03", 0, (11, 21))}


@pytest.mark.parametrize("packet", [11, 4])
def test_an_attack_is_stopped_by_dropping_it_or_what_its_stream_needs_before_it(packet):
    """Packet 4 is the ClientHello: behind that hole TCP delivers nothing."""
    (data,) = [found.data for block in blocks(str(HEARTBLEED)) for _, found in block.packets()][
        packet - 1 : packet
    ]
    number = int.from_bytes(data[4:6])
    told = predicted(
        HEARTBLEED,
        rules=(
            f'-A FORWARD -m u32 --u32 "2&0xFFFF={number} && 12={hex(int.from_bytes(data[12:16]))}" -j DROP',
        ),
    )
    assert told.dropped == 1
    assert told.misses == ()


def test_a_rule_answers_the_findings_that_it_drops_the_proof_of():
    told = predicted(HEARTBLEED, rules=("-A FORWARD -p tcp --dport 443 -j DROP",))
    assert told.rules[0].findings == {"HB02": 1, "HB03": 1}


def test_a_policy_that_drops_is_a_reason():
    told = predicted(ORDINARY, rules=(), policy="DROP")
    assert [(reason.why, reason.packets, reason.first[:3]) for reason in told.dropped_because] == [
        ("policy of ip filter FORWARD", 22, (1, 2, 3))
    ]
    assert told.collateral[0].rules == ("policy of ip filter FORWARD",)


def test_on_the_server_rules_for_input_judge_what_the_client_sends():
    rules = ("-A INPUT -p tcp -j DROP",)
    told = predicted(ORDINARY, rules=rules, place=Place.SERVER)
    client = sum(row["verdict"] == "drop" for row in _rows(ORDINARY, rules, Place.SERVER))
    assert (told.dropped, client) == (13, 13)
    assert predicted(ORDINARY, rules=rules, place=Place.CLIENT).dropped == 9
    assert predicted(ORDINARY, rules=rules).dropped == 0


def _rows(path, rules, place):
    artifacts, meetings = [xt(*rules)], Meetings()
    analysis = pipeline.analyze(str(path), tables=("packets",))
    senders = Traffic(analysis, 0).senders()
    judged = judge(firewall(artifacts, Loading(place=place)), str(path), meetings, senders=senders)
    return list(rows(judged, meetings, str(path)))


def test_the_rows_of_packets_say_what_each_met():
    first, *_ = _rows(ORDINARY, ("-A FORWARD -p tcp", "-A FORWARD -p tcp --dport 443 -j DROP"), Place.ROUTER)
    assert first == {
        "capture": str(ORDINARY),
        "packet": 1,
        "verdict": "drop",
        "rule": "ip filter FORWARD 2",
        "comment": None,
        "why": None,
        "met": ["ip filter FORWARD 1", "ip filter FORWARD 2"],
    }


def write(path: Path, frames: list[bytes], *, cut: int = 65535) -> Path:
    stored = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for number, frame in enumerate(frames):
        kept = frame[:cut]
        stored += struct.pack("<IIII", 1_700_000_000, number, len(kept), len(frame)) + kept
    path.write_bytes(stored)
    return path


@pytest.fixture
def pieces(tmp_path) -> Path:
    """A TCP segment in three fragments, one of another datagram, and a frame of ARP."""
    data = b"".join(found.data for _, found in next(blocks(str(HEARTBLEED))).packets() if found.number == 4)
    data = data[:6] + b"\0\0" + data[8:]
    lonely = fragments(data[:4] + b"\x77\x77" + data[6:], 104)[0]
    lonely = lonely[:4] + b"\x77\x77" + lonely[6:]
    ethernet = bytes(12) + b"\x08\x00"
    frames = [ethernet + piece for piece in (*fragments(data, 104), lonely)]
    return write(tmp_path / "pieces.pcap", [*frames, bytes(12) + b"\x08\x06" + bytes(28)])


def test_fragments_share_the_fate_of_their_datagram_which_counts_once(pieces):
    told = predicted(pieces, rules=("-A FORWARD -m conntrack --ctstate NEW -m length --length 200: -j DROP",))
    whole = told.packets - 1
    assert (told.dropped, told.rules[0].packets, told.without_ip) == (told.packets, 1, 1)
    assert whole > 2
    assert told.dropped_because[0].why == "its datagram never becomes whole"
    assert told.dropped_because[0].packets == 1 or told.rules[0].dropped == 1


def test_what_was_cut_off_is_unknown_where_a_rule_asks_for_it(tmp_path):
    frames = [bytes(12) + b"\x08\x00" + found.data for _, found in next(blocks(str(HEARTBLEED))).packets()]
    path = write(tmp_path / "cut.pcap", frames, cut=60)
    told = predicted(path, rules=('-A FORWARD -m u32 --u32 "100=1" -j DROP',))
    assert told.unknown > 0
    assert told.unknown == sum(reason.packets for reason in told.unknown_because)
    assert predicted(path, rules=("-A FORWARD -p tcp --dport 443 -j DROP",)).unknown == 0


@pytest.mark.netns
@pytest.mark.parametrize(
    "policy", ["heartbleed", "min-version:min=1.3", "first-record:ports=443", "weak-parameters"]
)
@pytest.mark.parametrize("name", ["nft", "bpf", "iptables"])
def test_the_kernel_does_to_every_packet_of_every_sample_what_was_predicted(bench, respond, policy, name):
    ruleset = respond((), policy).ruleset
    tool = {"nft": "nft", "bpf": "iptables-legacy", "iptables": "iptables-nft"}[name]
    text = emit(ruleset, backend_named(name)).text
    if ruleset.sets and name != "nft":
        pytest.skip("looks into ipsets")
    bench.load(text, tool)
    artifacts = [read(text)]
    asked = questions(artifacts)
    wrong, unknown = [], set()
    loading = Loading(variant="legacy" if "legacy" in tool else "nf_tables")
    for path in CAPTURES[:: 1 if name == "nft" and policy == "first-record:ports=443" else 6]:
        meetings = Meetings()
        judged = judge(firewall(artifacts, loading), str(path), meetings, questions=asked)
        sent = [found for block in blocks(str(path)) for _, found in block.packets()]
        if name != "nft":
            sent = [found for found in sent if found.family == "ip"]
        bench.forget()
        fates = bench.send((Side.CLIENT, repaired(found.data)) for found in sent)
        for found, fate in zip(sent, fates, strict=True):
            outcome = meetings.all[judged.meeting[found.number - 1]].outcome
            if outcome.fate is Fate.UNKNOWN:
                unknown.add(path.name)
            elif (outcome.fate is Fate.ACCEPT) != fate.passed:
                wrong.append((path.name, found.number, outcome))
    assert not wrong
    assert unknown <= CUT
