"""Reassembly gives what the kernel gives: which fragments wait, which are lost, and the datagram in the end."""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import replace

import pytest

from rulegen.evaluate.base import Fate, Passing, Undecidable
from rulegen.evaluate.conntrack_settings import TESTBED, Settings
from rulegen.evaluate.defrag import Reassembly
from rulegen.testbed.packets import checksum
from tests.rulegen.evaluate.conversations import ACK, CLIENT, addresses, segment, with_checksum
from tests.rulegen.evaluate.shown import CODES, Model, seen

NS = 1_000_000_000
ROOMY = replace(TESTBED, fragment_memory=256 << 20)
MEMORY = ("net.ipv4.ipfrag_high_thresh", "net.netfilter.nf_conntrack_frag6_high_thresh")


def piece(
    version: int,
    protocol: int,
    body: bytes,
    offset: int,
    *,
    more: bool,
    identification: int = 1,
    ecn: int = 0,
    keep: bool = False,
    extensions: bytes = b"",
    side: int = CLIENT,
) -> bytes:
    """A fragment; `extensions` are destination options in front of the fragment header."""
    source, destination = addresses(version, side)
    if version == 4:
        field = offset // 8 | (0x2000 if more else 0) | (0x4000 if keep else 0)
        head = struct.pack("!BBHHHBBH", 0x45, ecn, 20 + len(body), identification, field, 64, protocol, 0)
        head += source + destination
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
    fragment = struct.pack("!BBHI", protocol, 0, offset & 0xFFF8 | int(more), identification)
    following = 44
    if extensions:
        following, fragment = 60, bytes((44,)) + extensions + fragment
    payload = fragment + body
    first = 0x60000000 | ecn << 20
    return struct.pack("!IHBB", first, len(payload), following, 64) + source + destination + payload


def gathered(
    reassembly: Reassembly, packet: bytes, time_ns: int = 0, number: int = 1
) -> tuple[Fate, Passing]:
    passing = Passing(number=number, time_ns=time_ns, data=packet, captured=len(packet))
    return reassembly.gather(passing), passing


def random_fragments(chance: random.Random, version: int, identification: int) -> list[bytes]:
    """A datagram in fragments, with damage."""
    port = chance.randrange(1024, 60000)
    payload = chance.randbytes(chance.choice((0, 40, 300, 1000, 3000)))
    protocol = chance.choice((6, 6, 17, 58 if version == 6 else 1, 253))
    if protocol == 6:
        whole = segment(version, CLIENT, (port, 443), 1, 1, ACK, payload=payload)
        body = whole[40 if version == 6 else 20 :]
    elif protocol == 17:
        body = struct.pack("!HHHH", port, 53, 8 + len(payload), 0) + payload
        body = with_checksum(version, CLIENT, 17, body, 6)
    elif protocol == 253:
        body = payload
    else:
        body = bytes((128 if version == 6 else 8, 0, 0, 0)) + struct.pack("!HH", port, 1) + payload
        body = with_checksum(version, CLIENT, protocol, body, 2)
    extensions = b""
    if version == 6 and chance.random() < 0.2:
        units = chance.choice((0, 0, 1, 30))
        extensions = bytes((units, 1, 4, 0, 0, 0, 0)) + (b"\1\6" + bytes(6)) * units
    ecns = chance.choice(((0,), (0,), (1,), (2,), (1, 2), (2, 3), (3,), (0, 2), (0, 3)))
    keep = chance.choice(((False,), (False,), (True,), (False, True)))
    size = (
        8 * chance.choice((1, 2, 5, 20, 100, 184)) if len(body) < 400 else 8 * chance.choice((40, 100, 184))
    )
    parts = [(at, body[at : at + size], at + size < len(body)) for at in range(0, len(body), size)] or [
        (0, b"", False)
    ]
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 3))):
        at = chance.randrange(len(parts))
        offset, data, more = parts[at]
        match chance.randrange(11):
            case 0:
                parts.insert(chance.randrange(len(parts) + 1), parts[at])
            case 1:
                parts.insert(chance.randrange(len(parts) + 1), (max(0, offset - 8), data, more))
            case 2:
                parts.insert(chance.randrange(len(parts) + 1), (offset + 8, data, more))
            case 3:
                parts.insert(chance.randrange(len(parts) + 1), (offset, data[:8], True))
            case 4:
                parts[at] = (offset, data, not more)
            case 5:
                parts[at] = (offset, data + b"x" * chance.choice((1, 4, 8)), more)
            case 6:
                parts[at] = (offset, data[:-1], more)
            case 7:
                parts[at] = (offset, b"", more)
            case 8 if len(parts) > 1:
                del parts[at]
            case 9:
                parts.insert(
                    chance.randrange(len(parts) + 1), (65528, b"y" * chance.choice((7, 8, 60)), more)
                )
            case 10 if at + 1 < len(parts):
                joined = parts[at][1] + parts[at + 1][1]
                parts.insert(chance.randrange(len(parts) + 1), (offset, joined, parts[at + 1][2]))
    if chance.random() < 0.5:
        chance.shuffle(parts)
    return [
        piece(
            version, protocol, data, offset, more=more, identification=identification,
            ecn=chance.choice(ecns), keep=chance.choice(keep), extensions=extensions,
        )
        for offset, data, more in parts
    ]  # fmt: skip


def bare(packet: bytes) -> bytes:
    """A packet without what the rules of the tests write, DF, and the checksum of the header."""
    if packet[0] >> 4 == 6:
        return bytes((0x60, packet[1] & 0x3F)) + packet[2:7] + b"\0" + packet[8:]
    field = bytes((packet[6] & 0xBF, packet[7]))  # whatever is sent on as fragments has lost DF
    head = bytes((packet[0], packet[1] & 3)) + packet[2:6] + field
    return head + b"\0" + packet[9:10] + b"\0\0" + packet[12:]


@pytest.mark.netns
@pytest.mark.parametrize(("first", "seed"), [(1000, 1), (2000, 2), (3000, None)])
def test_the_kernel_does_the_same_with_random_fragments(shown, first, seed):
    """Each run has identifications of its own: what waits in the kernel can't be flushed."""
    seed = random.randrange(1 << 32) if seed is None else seed
    print("seed", seed)
    chance = random.Random(seed)
    packets: list[bytes] = []
    for number in range(400):
        version = chance.choice((4, 6))
        ours = random_fragments(chance, version, first + number)
        if packets and chance.random() < 0.3:  # two datagrams at once
            at = max(0, len(packets) - 3)
            packets[at:] = chance.sample(packets[at:] + ours, len(packets[at:] + ours))
        else:
            packets += ours
    counts = compare_fragments(shown, packets)
    print(counts)
    assert min(counts["whole"], counts["lost"]) > 100
    assert counts["as it is"] > 5


def compare_fragments(bench, packets: list[bytes]) -> Counter[str]:
    for name in MEMORY:
        bench.command("sysctl", "-qw", f"{name}={ROOMY.fragment_memory}")
    model = Model(ROOMY)
    counts: Counter[str] = Counter()
    for number, (packet, out) in enumerate(
        zip(packets, bench.watch((CLIENT, p) for p in packets), strict=True)
    ):
        fate, passing = model.pass_on(packet)
        if fate is not Fate.ACCEPT:
            assert out == [], (number, fate)
            counts["lost"] += 1
            continue
        assert out, (number, "the kernel kept it", packet.hex())
        code = CODES[passing.state, passing.direction]
        assert seen(out)[0] == code, (number, seen(out), code)
        if passing.data == packet:
            counts["as it is"] += 1
            assert bare(out[0]) == bare(packet)
            continue
        counts["whole"] += 1
        again = Reassembly(Settings(ipv4_fragment_distance=0))
        ends = [gathered(again, one) for one in out]
        assert ends[-1][0] is Fate.ACCEPT
        assert bare(ends[-1][1].data) == bare(passing.data), number
    return counts


@pytest.mark.netns
def test_behind_long_headers_the_kernel_writes_the_protocol_to_another_place(shown):
    """Where the fragment header is named is a byte there: 296 becomes 40, the first byte of the options."""
    options = bytes((60, 31, 1, 4, 0, 0, 0, 0)) + (b"\1\6" + bytes(6)) * 31 + bytes((44, 0, 1, 4, 0, 0, 0, 0))
    body = segment(6, CLIENT, (700, 443), 1, 1, ACK, payload=bytes(200))[40:]
    packets = []
    for offset, end in ((0, 104), (104, len(body))):
        plain = piece(6, 6, body[offset:end], offset, more=end < len(body), identification=9)
        payload = options + plain[40:]
        packets.append(plain[:4] + struct.pack("!HB", len(payload), 60) + plain[7:40] + payload)
    assert compare_fragments(shown, packets) == Counter(lost=1, whole=1)


def fragments_of(version: int, identification: int = 1, **more: object) -> list[bytes]:
    body = segment(version, CLIENT, (4000, 443), 1, 1, ACK, payload=bytes(range(100)))[
        20 if version == 4 else 40 :
    ]
    return [
        piece(
            version,
            6,
            body[at : at + 48],
            at,
            more=at + 48 < len(body),
            identification=identification,
            **more,
        )
        for at in range(0, len(body), 48)
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_is_whole_with_its_last_fragment_whatever_their_order(version):
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        reassembly = Reassembly(TESTBED)
        pieces = fragments_of(version)
        fates = [gathered(reassembly, pieces[at], number=10 + at) for at in order]
        assert [fate for fate, _ in fates] == [Fate.STOLEN, Fate.STOLEN, Fate.ACCEPT]
        whole = fates[-1][1]
        assert whole.fragments == tuple(10 + at for at in order)
        assert whole.captured == len(whole.data)
        if version == 4:
            assert checksum(whole.data[:20]) == 0
            assert bare(whole.data) == bare(
                segment(4, CLIENT, (4000, 443), 1, 1, ACK, payload=bytes(range(100)))
            )
        else:
            assert whole.data == segment(6, CLIENT, (4000, 443), 1, 1, ACK, payload=bytes(range(100)))


@pytest.mark.parametrize(("version", "timeout"), [(4, 30), (6, 60)])
def test_fragments_wait_by_the_time_of_the_capture(version, timeout):
    for waited, last in ((timeout * NS - 1, Fate.ACCEPT), (timeout * NS, Fate.STOLEN)):
        reassembly = Reassembly(TESTBED)
        first, *rest, final = fragments_of(version)
        for one in (first, *rest):
            assert gathered(reassembly, one, 1000 * NS)[0] is Fate.STOLEN
        assert gathered(reassembly, final, 1000 * NS + waited)[0] is last


@pytest.mark.netns
@pytest.mark.parametrize(("others", "is_whole"), [(64, True), (65, False)])
def test_of_a_busy_sender_fragments_that_lie_far_apart_do_not_belong_together(shown, others, is_whole):
    first, *rest = fragments_of(4, identification=20_000 + others)
    between = [fragments_of(4, identification=30_000 + 100 * others + at)[0] for at in range(others - 1)]
    counts = compare_fragments(shown, [first, *between, *rest])
    assert counts["whole"] == is_whole


def test_what_the_capture_lacks_of_a_fragment_it_lacks_of_the_whole():
    reassembly = Reassembly(TESTBED)
    pieces = fragments_of(4)
    for number, captured in enumerate((68, 30, len(pieces[2]))):
        data = pieces[number]
        passing = Passing(number=number, time_ns=0, data=data, captured=captured)
        fate = reassembly.gather(passing)
    assert fate is Fate.ACCEPT
    assert passing.captured == 20 + 48 + 10
    with pytest.raises(Undecidable, match="headers"):
        reassembly.gather(Passing(number=9, time_ns=0, data=pieces[0], captured=19))


def test_when_many_fragments_wait_the_kernel_may_have_no_memory_for_more():
    reassembly = Reassembly(replace(TESTBED, fragment_memory=100_000))
    pieces = (fragments_of(6, identification=number)[0] for number in range(50))
    with pytest.raises(Undecidable, match="memory"):
        assert [gathered(reassembly, one)[0] for one in pieces] == []
    assert gathered(reassembly, fragments_of(6, identification=0)[0], 60 * NS)[0] is Fate.STOLEN


def test_untracked_fragments_do_not_wait():
    passing = Passing(number=1, time_ns=0, data=fragments_of(4)[0], captured=68, notrack=True)
    assert Reassembly().gather(passing) is Fate.ACCEPT
