"""The model of connection tracking says of each packet what the kernel says: state, direction, mark, loss."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rulegen.evaluate.base import Connection, Fate, Passing, Undecidable
from rulegen.evaluate.conntrack import Conntrack
from rulegen.evaluate.conntrack_settings import TESTBED, Settings
from rulegen.evaluate.conntrack_tcp_window import Tcp
from rulegen.ir.match import Direction, State
from rulegen.testbed.packets import repaired
from tests.rulegen.evaluate.conversations import (
    ACK,
    CLIENT,
    DROPPED,
    FIN,
    PSH,
    RST,
    SERVER,
    SYN,
    Talk,
    datagrams,
    ip_packet,
    others,
    questions,
    segment,
    with_checksum,
    wrapped,
)
from tests.rulegen.evaluate.shown import Model, compare, configure, seen

NS = 1_000_000_000
CAPTURES = Path(__file__).parents[3] / "samples/captures"


def talks(chance: random.Random, count: int) -> list[list[tuple[int, bytes]]]:
    return [
        Talk(chance, chance.choice((4, 4, 6)), (10000 + number, 443)).packets() for number in range(count)
    ]


NAMES = ["testbed", "default", "strict", "resets"]
SETTINGS = [
    TESTBED,
    Settings(),
    Settings(checksum=False, tcp_be_liberal=False, tcp_loose=False),
    Settings(checksum=False, tcp_ignore_invalid_rst=True, tcp_max_retrans=0),
]


@pytest.mark.netns
@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
@pytest.mark.parametrize("seed", [1, 2, None])
def test_the_kernel_says_the_same_of_random_tcp(shown, settings, seed):
    seed = random.randrange(1 << 32) if seed is None else seed
    print("seed", seed)
    configure(shown, settings)
    codes: Counter[int] = Counter()
    for talk in talks(random.Random(seed), 60):
        codes += compare(shown, settings, talk)
    print(codes)
    assert all(codes[code] for code in (0, 1, 2, 3, 6))


@pytest.mark.netns
@pytest.mark.parametrize("settings", SETTINGS[:2], ids=["testbed", "default"])
@pytest.mark.parametrize("seed", [1, None])
def test_the_kernel_says_the_same_of_other_protocols(shown, settings, seed):
    seed = random.randrange(1 << 32) if seed is None else seed
    print("seed", seed)
    chance = random.Random(seed)
    configure(shown, settings)
    codes: Counter[int] = Counter()
    for number in range(150):
        version, ports = chance.choice((4, 6)), (20000 + number, 53)
        sent = Talk(chance, version, ports).packets(6)
        for _ in range(3):
            kind = chance.randrange(4)
            if kind == 0:
                sent += datagrams(chance, version, ports)
            elif kind == 1:
                sent += questions(chance, version, sent)
            elif kind == 2:
                sent += wrapped(chance, sent)
            else:
                sent += others(chance, version)
        codes += compare(shown, settings, sent)
    print(codes)
    assert set(codes) >= {1, 2, 3, 4, 5, 6, 7}


A, B, PORTS = 1_000_000, 5_000_000, (40000, 443)
WINDOW = 0xFFFF


def tcp(
    side: int, sequence: int, acknowledgement: int, flags: int, size: int = 0, **more
) -> tuple[int, bytes]:
    return side, segment(4, side, PORTS, sequence, acknowledgement, flags, payload=b"x" * size, **more)


HANDSHAKE = [tcp(CLIENT, A, 0, SYN), tcp(SERVER, B, A + 1, SYN | ACK), tcp(CLIENT, A + 1, B + 1, ACK)]
CLOSING = [
    tcp(CLIENT, A + 1, B + 1, FIN | ACK),
    tcp(SERVER, B + 1, A + 2, FIN | ACK),
    tcp(CLIENT, A + 2, B + 2, ACK),
]
STRICT = Settings(checksum=False, tcp_loose=False)
USUAL = Settings(checksum=False)
CHECKING = Settings()

CASES = {
    # what, settings, packets, states as they come: new, established, related, invalid, - for lost
    "the middle of a connection": (USUAL, [tcp(CLIENT, A, B, ACK, 10), tcp(SERVER, B, A + 10, ACK)], "ne"),
    "the middle, not loose": (STRICT, [tcp(CLIENT, A, B, ACK, 10), tcp(SERVER, B, A + 10, ACK)], "ii"),
    "the answer first": (USUAL, [tcp(SERVER, B, A + 1, SYN | ACK), tcp(CLIENT, A + 1, B + 1, ACK)], "in"),
    "a reset first": (USUAL, [tcp(CLIENT, A, 0, RST)], "i"),
    "an end first": (USUAL, [tcp(CLIENT, A, B, FIN | ACK)], "i"),
    "one side only": (USUAL, [tcp(CLIENT, A, 0, SYN), tcp(CLIENT, A + 1, B + 1, ACK, 9)], "ni"),
    "far ahead": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1_000_000, B + 1, ACK, 9)], "neei"),
    "far ahead, liberal": (TESTBED, [*HANDSHAKE, tcp(CLIENT, A + 1_000_000, B + 1, ACK, 9)], "neee"),
    "far behind": (USUAL, [*HANDSHAKE, tcp(CLIENT, A - 100_000, B + 1, ACK, 9)], "neee"),
    "an ACK of what was not sent": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 5000, ACK)], "neei"),
    "a wrong checksum": (CHECKING, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, ACK, wrong_checksum=True)], "neei"),
    "a wrong checksum, unchecked": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, ACK, wrong_checksum=True)], "neee"),
    "no flags": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, 0)], "neei"),
    "all flags": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, 0x3F)], "neei"),
    "SYN with FIN": (USUAL, [tcp(CLIENT, A, 0, SYN | FIN)], "i"),
    "a header that is too short": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, ACK, words=3)], "neei"),
    "data behind a reset": (USUAL, [*HANDSHAKE, tcp(SERVER, B + 1, A + 1, RST), tcp(CLIENT, A + 1, B + 1, ACK, 9)], "neeee"),
    "SYN in a connection": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, 0, SYN)], "neee"),
    "SYN in a connection, answered": (
        USUAL, [*HANDSHAKE, tcp(CLIENT, 77, 0, SYN), tcp(SERVER, B + 9, 78, SYN | ACK), tcp(CLIENT, 78, B + 10, ACK)],
        "neeeee",
    ),
    "opened again": (USUAL, [*HANDSHAKE, *CLOSING, tcp(CLIENT, 77, 0, SYN)], "neeeeen"),
    "opened again by the server": (USUAL, [*HANDSHAKE, *CLOSING, tcp(SERVER, 77, 0, SYN)], "neeeeen"),
    "keep-alive": (USUAL, [*HANDSHAKE, tcp(CLIENT, A, B + 1, ACK), tcp(SERVER, B + 1, A + 1, ACK)], "neeee"),
    "both open at once": (
        USUAL, [tcp(CLIENT, A, 0, SYN), tcp(SERVER, B, 0, SYN), tcp(CLIENT, A, B + 1, SYN | ACK), tcp(SERVER, B, A + 1, SYN | ACK)],
        "neee",
    ),
    "a large packet": (USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, ACK | PSH, 60_000)], "neee"),
    "the first packet is lost": (
        USUAL, [tcp(CLIENT, A, 0, SYN, urgent=DROPPED), tcp(SERVER, B, A + 1, SYN | ACK), tcp(CLIENT, A, 0, SYN)], "-in",
    ),
    "a later packet is lost": (
        USUAL, [*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, ACK, 9, urgent=DROPPED), tcp(SERVER, B + 1, A + 10, ACK)], "nee-e",
    ),
    "refused": (USUAL, [tcp(CLIENT, A, 0, SYN), tcp(SERVER, 0, A + 1, RST | ACK), tcp(SERVER, 0, A + 1, RST | ACK)], "nei"),
    "related": (USUAL, [tcp(CLIENT, A, 0, SYN), (SERVER, ip_packet(4, SERVER, 1, with_checksum(4, SERVER, 1, bytes((3, 1, 0, 0, 0, 0, 0, 0)) + segment(4, CLIENT, PORTS, A, 0, SYN)[:28], 2)))], "nr"),
    "about nothing": (USUAL, [(SERVER, ip_packet(4, SERVER, 1, with_checksum(4, SERVER, 1, bytes((3, 1, 0, 0, 0, 0, 0, 0)) + segment(4, CLIENT, PORTS, A, 0, SYN)[:28], 2)))], "i"),
}  # fmt: skip


@pytest.mark.netns
@pytest.mark.parametrize("name", CASES)
def test_the_table_of_measured_facts(shown, name):
    settings, packets, expected = CASES[name]
    configure(shown, settings)
    compare(shown, settings, packets)
    model = Model(settings)
    passed = [model.pass_on(packet) for _, packet in packets]
    assert "".join(one.state[0] if fate is Fate.ACCEPT else "-" for fate, one in passed) == expected


@pytest.mark.netns
@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcap")), ids=lambda path: path.stem)
@pytest.mark.parametrize("settings", [TESTBED, CHECKING, STRICT], ids=["testbed", "default", "strict"])
def test_the_kernel_says_the_same_of_real_captures(shown, path, settings):
    packets = captured(path)
    assert packets
    configure(shown, settings)
    compare(shown, settings, packets)


def captured(path: Path) -> list[tuple[int, bytes]]:
    """The IP packets of a pcap file; the side that sends first is the client."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    (link,) = struct.unpack_from(order + "I", data, 20)
    header = {1: 14, 113: 16, 101: 0, 0: 4, 228: 0, 12: 0}[link]
    at, found, clients = 24, [], set()
    while at < len(data):
        (size,) = struct.unpack_from(order + "I", data, at + 8)
        packet = data[at + 16 + header : at + 16 + size]
        at += 16 + size
        if len(packet) < 20 or packet[0] >> 4 not in (4, 6):
            continue
        whole = (
            40 + int.from_bytes(packet[4:6], "big")
            if packet[0] >> 4 == 6
            else int.from_bytes(packet[2:4], "big")
        )
        if not 20 <= whole <= len(packet):
            continue
        packet = repaired(packet[:whole])
        ends = (packet[8:24], packet[24:40]) if packet[0] >> 4 == 6 else (packet[12:16], packet[16:20])
        clients.add(ends if ends[::-1] not in clients else ends[::-1])
        found.append((CLIENT if ends in clients else SERVER, packet))
    return found


@pytest.mark.netns
@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_the_kernel_ends_with_the_same_table(shown, settings):
    """State, time-out, assurance, packets and bytes of every connection after random conversations."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    configure(shown, settings)
    shown.forget()
    shown.command("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1")
    sent = [packet for talk in talks(random.Random(seed), 150) for packet in talk]
    began = time.monotonic()
    shown.watch(sent)
    theirs = dict(map(listed, shown.command("cat", "/proc/net/nf_conntrack").splitlines()))
    late = time.monotonic() - began + 1
    model = Model(settings)
    for _, packet in sent:
        model.pass_on(packet)
    ours = dict(map(known, model.conntrack.connections()))
    assert ours.keys() == theirs.keys()
    for name, (seconds, *facts) in theirs.items():
        assert facts == list(ours[name][1:]), name
        assert 0 <= ours[name][0] - seconds <= late, name


def listed(line: str) -> tuple[tuple[str, int], tuple[object, ...]]:
    """Family and client's port of a line of the kernel's table, and what else it says."""
    words = line.split()
    values = {
        key: [word[len(key) :] for word in words if word.startswith(key)]
        for key in ("sport=", "packets=", "bytes=")
    }
    port = next(int(port) for port in values["sport="] if port != "443")
    counts = [[int(value) for value in values[key]] for key in ("packets=", "bytes=")]
    return (words[0], port), (int(words[4]), words[5], "[ASSURED]" in words, *counts)


def known(connection: Connection) -> tuple[tuple[str, int], tuple[object, ...]]:
    """The same of an entry of the model."""
    name = connection.tuples[0]
    assert isinstance(connection.protocol_state, Tcp)
    state = connection.protocol_state.state.name
    port = name[2] if name[2] != 443 else name[3]
    facts = (
        connection.expires_ns // NS,
        state,
        connection.assured,
        connection.packet_counts,
        connection.byte_counts,
    )
    return ("ipv6" if len(name[0]) == 16 else "ipv4", port), facts


@pytest.mark.netns
def test_the_kernel_forgets_at_the_same_time(shown):
    shown.command("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1")
    try:
        settings = replace(TESTBED, udp_timeout=1)
        model = Model(settings)
        asked, answered = ((side, datagram(side)) for side in (CLIENT, SERVER))
        assert [seen(out) for out in shown.watch([asked, answered, asked])] == [
            model.says(packet, 0) for _, packet in (asked, answered, asked)
        ]
        time.sleep(1.2)
        (late,) = shown.watch([answered])
        assert seen(late) == model.says(answered[1], 12 * NS // 10) == (1, 100)
    finally:
        shown.command("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=30")


def datagram(side: int) -> bytes:
    ports = (5000, 53)[:: -1 if side else 1]
    return ip_packet(4, side, 17, struct.pack("!HHHH", *ports, 8, 0))


def tracked(conntrack: Conntrack, packet: bytes, time_ns: int = 0, **more: object) -> Passing:
    """A packet that gets through."""
    passing = Passing(number=1, time_ns=time_ns, data=packet, captured=len(packet))
    for name, value in more.items():
        setattr(passing, name, value)
    assert conntrack.track(passing) is Fate.ACCEPT
    assert conntrack.confirm(passing) is Fate.ACCEPT
    return passing


@pytest.mark.parametrize(
    ("packets", "timeout"),
    [
        (HANDSHAKE[:1], 120),
        (HANDSHAKE[:2], 60),
        (HANDSHAKE, 432_000),
        ([*HANDSHAKE, tcp(CLIENT, A + 1, B + 1, ACK, 9)], 300),
        ([*HANDSHAKE, *CLOSING[:1]], 120),
        ([*HANDSHAKE, *CLOSING[:2]], 30),
        ([*HANDSHAKE, *CLOSING], 120),
        ([*HANDSHAKE, tcp(SERVER, B + 1, A + 1, RST)], 10),
        ([(CLIENT, datagram(CLIENT))], 30),
        ([(CLIENT, datagram(CLIENT)), (SERVER, datagram(SERVER)), (SERVER, datagram(SERVER))], 30),
        ([(CLIENT, ip_packet(4, CLIENT, 50, b""))], 600),
        ([(CLIENT, ip_packet(4, CLIENT, 1, bytes((8, 0, 0, 0, 0, 1, 0, 1))))], 30),
    ],
)
def test_a_connection_times_out_by_the_time_of_the_capture(packets, timeout):
    for waited, connections in ((timeout * NS - 1, 1), (timeout * NS, 2)):
        conntrack = Conntrack(TESTBED)
        for _, packet in packets:
            first = tracked(conntrack, packet, 1_700_000_000 * NS)
        again = tracked(conntrack, packets[-1][1], 1_700_000_000 * NS + waited)
        assert len({id(first.connection), id(again.connection)}) == connections


def test_a_udp_connection_that_lasts_is_given_more_time():
    conntrack = Conntrack(TESTBED)
    for side, at_s in ((CLIENT, 0), (SERVER, 1), (CLIENT, 1), (SERVER, 3)):
        passing = tracked(conntrack, datagram(side), at_s * NS)
    assert passing.connection.expires_ns == (3 + 120) * NS
    assert passing.connection.packet_counts == [2, 2]
    assert passing.connection.byte_counts == [56, 56]


def test_an_untracked_packet_has_no_connection():
    passing = tracked(Conntrack(), HANDSHAKE[0][1], notrack=True)
    assert (passing.state, passing.direction, passing.connection) == (State.UNTRACKED, None, None)


def test_a_host_that_talks_to_itself_answers_itself():
    """Both names of its connection are the same, and the kernel finds the answer's first."""
    land = bytearray(datagram(CLIENT))
    land[16:20] = land[12:16]
    land[20:22] = land[22:24]
    conntrack = Conntrack(TESTBED)
    assert tracked(conntrack, bytes(land)).direction is Direction.ORIGINAL
    assert tracked(conntrack, bytes(land)).direction is Direction.REPLY


def test_of_two_packets_that_open_a_connection_at_once_one_wins():
    def race(packet: bytes) -> tuple[Fate, list[Passing]]:
        conntrack = Conntrack(TESTBED)
        both = [Passing(number=n, time_ns=0, data=packet, captured=len(packet)) for n in (1, 2)]
        for passing in both:
            conntrack.track(passing)
        assert conntrack.confirm(both[0]) is Fate.ACCEPT
        return conntrack.confirm(both[1]), both

    assert race(HANDSHAKE[0][1])[0] is Fate.DROP
    fate, (one, other) = race(datagram(CLIENT))
    assert fate is Fate.ACCEPT
    assert one.connection is other.connection


def test_a_full_table_loses_packets_or_says_that_it_can_not_know():
    def filled(*packets: tuple[int, bytes]) -> Fate:
        conntrack = Conntrack(replace(TESTBED, max_entries=1))
        for _, packet in packets:
            tracked(conntrack, packet)
        other = datagram(CLIENT)
        return conntrack.track(Passing(number=9, time_ns=NS, data=other, captured=len(other)))

    assert filled(*HANDSHAKE) is Fate.DROP
    assert filled(*HANDSHAKE, tcp(SERVER, B + 1, A + 1, RST)) is Fate.DROP
    with pytest.raises(Undecidable, match="full"):
        filled(HANDSHAKE[0])


@pytest.mark.parametrize(
    ("packet", "captured", "settings"),
    [
        (HANDSHAKE[0][1], 39, TESTBED),
        (HANDSHAKE[0][1], 21, TESTBED),
        (tcp(CLIENT, A, B, ACK, 100)[1], 60, CHECKING),
        (tcp(CLIENT, A, B, ACK, 100, options=b"\1\1\5\x0a" + bytes(8))[1], 51, TESTBED),
        (ip_packet(4, SERVER, 1, bytes((8, 0)) + bytes(90)), 27, TESTBED),
        (ip_packet(6, SERVER, 60, bytes((6, 3)) + bytes(90)), 60, TESTBED),
    ],
)
def test_what_the_capture_lacks_is_unknown_and_so_is_what_follows(packet, captured, settings):
    conntrack = Conntrack(settings)
    with pytest.raises(Undecidable, match="has not all"):
        tracked(conntrack, packet, captured=captured)
    with pytest.raises(Undecidable, match="earlier packet"):
        tracked(conntrack, packet)
    other = bytearray(packet)
    other[15] ^= 1  # another host
    assert tracked(conntrack, bytes(other)).state in (State.NEW, State.INVALID)


def test_only_the_connection_whose_packet_is_cut_is_in_doubt():
    conntrack = Conntrack(TESTBED)
    with pytest.raises(Undecidable, match="has not all"):
        tracked(conntrack, HANDSHAKE[0][1], captured=30)
    with pytest.raises(Undecidable, match="earlier packet"):
        tracked(conntrack, HANDSHAKE[1][1])
    assert tracked(conntrack, segment(4, CLIENT, (40001, 443), A, 0, SYN)).state is State.NEW
    about = bytes((3, 1, 0, 0, 0, 0, 0, 0)) + HANDSHAKE[0][1][:28]
    with pytest.raises(Undecidable, match="earlier packet"):
        tracked(conntrack, ip_packet(4, SERVER, 1, about))
    with pytest.raises(Undecidable, match="has not all"):
        tracked(conntrack, ip_packet(4, SERVER, 1, about), captured=40)
    assert tracked(conntrack, segment(4, CLIENT, (40002, 443), A, 0, SYN)).state is State.NEW


def test_payload_that_the_capture_lacks_is_not_needed():
    packet = tcp(CLIENT, A, B, ACK, 100)[1]
    assert tracked(Conntrack(TESTBED), packet, captured=40).state is State.NEW


def test_whether_a_connection_was_opened_can_be_in_doubt():
    conntrack = Conntrack(TESTBED)
    packet = HANDSHAKE[0][1]
    passing = Passing(number=1, time_ns=0, data=packet, captured=len(packet))
    conntrack.track(passing)
    conntrack.doubt(passing)
    with pytest.raises(Undecidable, match="earlier packet"):
        tracked(conntrack, HANDSHAKE[1][1])
    conntrack = Conntrack(TESTBED)
    conntrack.doubt(tracked(conntrack, packet))
    assert tracked(conntrack, HANDSHAKE[1][1]).state is State.ESTABLISHED


def test_sctp_is_not_modelled_and_says_so():
    with pytest.raises(Undecidable, match="SCTP"):
        tracked(Conntrack(), ip_packet(4, CLIENT, 132, bytes(32)))


def test_what_has_timed_out_needs_no_memory():
    conntrack = Conntrack(TESTBED)
    for second in range(20_000):
        packet = bytearray(datagram(CLIENT))
        packet[20:22] = struct.pack("!H", second)
        tracked(conntrack, bytes(packet), second * NS)
    assert len(conntrack.connections()) < 3000
