"""A compiled match says of every packet what the match means, at every length, whatever had to be cut in two."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from analyzer.wire.fields import FIELDS
from rulegen.bpf import split
from rulegen.bpf.formula import CantCompile
from rulegen.bpf.split import Programs, programs
from rulegen.evaluate.cbpf import matches
from rulegen.ir.match import (
    And,
    Contains,
    Exceeds,
    InDirection,
    InState,
    Lookup,
    Marked,
    Match,
    Not,
    Op,
    Or,
    Present,
    Protocol,
    ServerName,
    SomeRecord,
    State,
    Test,
    all_of,
    any_of,
    between,
    equals,
)  # fmt: skip
from rulegen.policies.heartbleed import OVERHEAD_BYTES
from rulegen.testbed.packets import Segment, fragments
from tests.rulegen.random_matches import CLIENTS, SERVERS, random_match, random_segment
from tests.rulegen.reference import Packet, holds

OVERREAD = all_of(
    equals("tls.content_type", 24),
    between("tls.version", 0x0300, 0x03FF),
    equals("tls.heartbeat_type", 1),
    Exceeds("tls.heartbeat_payload_length", OVERHEAD_BYTES, "tls.length"),
)
CHANGES = all_of(
    equals("tls.content_type", 20), between("tls.version", 0x0300, 0x03FF), equals("tls.length", 1)
)


def means(match: Match, packet: Packet) -> bool:
    """`holds`, and the record walk: a record starts where the one before ends, if there is a byte."""
    match match:
        case And(parts):
            return all(means(part, packet) for part in parts)
        case Or(parts):
            return any(means(part, packet) for part in parts)
        case Not(inner):
            return not means(inner, packet)
        case SomeRecord(inner, records):
            return "tcp" in packet.protocols and any(
                means(inner, replace(packet, payload=payload)) for payload in starts(packet.payload, records)
            )
    return holds(match, packet, {})


def starts(payload: bytes, records: int) -> list[bytes]:
    """The payload from each of its first records on."""
    found = [payload]
    while len(found) < records and len(payload) >= 5:
        payload = payload[5 + int.from_bytes(payload[3:5]) :]
        if not payload:
            break
        found.append(payload)
    return found


def says(compiled: Programs, packet: bytes) -> bool:
    return any(all(matches(one, packet) for one in way) for way in compiled.alternatives)


def asks_for(match: Match, kind: type) -> bool:
    match match:
        case And(parts) | Or(parts):
            return any(asks_for(part, kind) for part in parts)
        case Not(inner) | SomeRecord(inner):
            return isinstance(match, kind) or asks_for(inner, kind)
    return isinstance(match, kind)


def segment(payload: bytes, version: int = 4, **changes) -> bytes:
    values = {
        "source": CLIENTS[version][0], "destination": SERVERS[version], "source_port": 40000, "destination_port": 443,
        "payload": payload,
    } | changes  # fmt: skip
    return Segment(**values).packet()


# --- random matches -----------------------------------------------------------------------------------------


@pytest.fixture(params=[64, 28], ids=["whole", "cut"])
def size(request, monkeypatch):
    """Programs of a size that makes nothing, or much, be cut in several."""
    fits = split.fits
    monkeypatch.setattr(split, "fits", lambda program: len(program) <= request.param and fits(program))
    programs.cache_clear()
    yield request.param
    programs.cache_clear()


@pytest.mark.slow
def test_random_matches(size):
    chance = random.Random(5)
    judged = matched = cut = 0
    for _ in range(800):
        match = random_match(chance, chance.choice((1, 2, 3, 4)))
        if asks_for(match, Lookup):
            continue
        try:
            compiled = programs(match)
        except CantCompile:
            assert size < 64
            continue
        cut += len(compiled.alternatives) > 1 or any(len(way) > 1 for way in compiled.alternatives)
        for _ in range(30):
            packet = random_segment(chance).packet()
            expected = means(match, Packet.parse(packet))
            assert says(compiled, packet) is expected, (match, packet.hex())
            judged, matched = judged + 1, matched + expected
    assert judged > 13_000
    assert 0.2 < matched / judged < 0.8
    assert cut > (130 if size < 64 else 0)


WIDE = (
    "tls.random",
    "tls.session_id",
    "tls.handshake_length",
    "ip6.saddr",
    "ip6.daddr",
    "tcp.sequence",
    "tls.sid32.cipher_suite",
)
MASKS = (0xFF, 0xFF00FF, 0xFFFF0000, 0xFFFFFF << 40, (1 << 64) - 1 << 96, 0xF << 252 | 1)


def wide_test(chance: random.Random, centre: bytes) -> Test:
    """A test of a wide field whose bounds share leading and trailing bytes with what packets have."""
    name = chance.choice(WIDE)
    bits = FIELDS[name].width_bits
    full = (1 << bits) - 1
    mask = chance.choice((None, None, *MASKS))
    mask = None if mask is None else mask & full or None
    kept = full if mask is None else mask

    def near() -> int:
        value = int.from_bytes(centre) & full
        for _ in range(chance.randrange(3)):
            value ^= chance.choice((1, 0x80, 0xFF, 0xFFFFFFFF)) << 8 * chance.randrange(bits // 8)
        return value & full & kept

    op = chance.choice(list(Op))
    if op is not Op.IN:
        return Test(name, op, near(), mask)
    return Test(
        name, op, tuple(tuple(sorted((near(), near()))) for _ in range(chance.choice((1, 1, 2)))), mask
    )


@pytest.mark.slow
def test_wide_fields(size):
    """256 bits are compared by words of 32, intervals and masks too, in packets that end anywhere."""
    chance = random.Random(6)
    centre = bytes.fromhex("00ff80017f0000ffffffff0000000100112233445566778899aabbccddeeff00")
    judged = matched = 0
    for number in range(280):
        one, other = wide_test(chance, centre), wide_test(chance, centre)
        match = (one, Not(one), And((one, other)), Or((one, Not(other))))[number % 4]
        try:
            compiled = programs(match)
        except CantCompile:
            assert size < 64
            continue
        for _ in range(30):
            value = bytearray(centre)
            if chance.random() < 0.6:
                value[chance.randrange(32)] ^= chance.choice((1, 0x80, 0xFF))
            body = (
                b"\x16\x03\x03\x00\x50\x02"
                + bytes(value[-3:])
                + b"\x03\x03"
                + value
                + b"\x20"
                + value
                + value[-4:]
            )
            payload = body[
                : chance.choice((len(body), len(body), 9, 8, 43, 42, 76, 75, 78, chance.randrange(len(body))))
            ]
            address = bytes(value[16:32])
            addresses = {"source": "2001:db8::1", "destination": "2001:db8::2"}
            if chance.random() < 0.5:
                addresses = {
                    "source": ":".join(f"{address[i]:02x}{address[i + 1]:02x}" for i in range(0, 16, 2)),
                    "destination": "::1",
                }
            if chance.random() < 0.2:
                addresses = {"source": "192.0.2.1", "destination": "192.0.2.2"}
            packet = segment(payload, **addresses, sequence=int.from_bytes(value[-4:]))
            expected = means(match, Packet.parse(packet))
            assert says(compiled, packet) is expected, (match, packet.hex())
            judged, matched = judged + 1, matched + expected
    assert judged > 2800
    assert 0.1 < matched / judged < 0.9


# --- records ------------------------------------------------------------------------------------------------


def random_records(chance: random.Random) -> bytes:
    """Records, most of them whole, the last one often cut."""
    payload = b""
    for _ in range(chance.randrange(6)):
        body = chance.choice((b"", b"\x01", b"\x01\x40\x00", b"\x01\x00\x00" + bytes(16), bytes(20)))
        said = len(body) + chance.choice((0, 0, 0, 0, 0, 1, -1, 300))
        payload += chance.choice((b"\x14", b"\x18", b"\x16")) + b"\x03\x03" + max(said, 0).to_bytes(2) + body
    return payload[: chance.choice((len(payload), chance.randrange(len(payload) + 1)))]


@pytest.mark.slow
def test_records_behind_records(size):
    chance = random.Random(7)
    judged = matched = 0
    for _ in range(70):
        inner = chance.choice(
            (CHANGES, OVERREAD, Not(OVERREAD), random_match(chance, 1), Present("tls.heartbeat_type"))
        )
        if asks_for(inner, Lookup) or asks_for(inner, Protocol) or "tcp" in str(inner) or "ip" in str(inner):
            continue
        match: Match = SomeRecord(inner, chance.choice((1, 2, 3, 5)))
        if chance.random() < 0.5:
            match = chance.choice(
                (
                    Not(match),
                    any_of(match, equals("tcp.dport", 1)),
                    all_of(match, equals("tls.content_type", 20)),
                )
            )
        try:
            compiled = programs(match)
        except CantCompile:
            continue
        asked = split._records(match)
        if compiled.records != asked:
            assert size < 64
            continue
        for _ in range(100):
            packet = segment(random_records(chance), chance.choice((4, 6)))
            expected = means(match, Packet.parse(packet))
            assert says(compiled, packet) is expected, (match, packet.hex())
            judged, matched = judged + 1, matched + expected
    assert judged > (1000 if size < 64 else 3500)
    assert 0.2 < matched / judged < 0.8


def test_how_many_records_it_can_look_at():
    assert (programs(SomeRecord(CHANGES, 8)).records, len(programs(SomeRecord(CHANGES, 8)).alternatives)) == (
        8,
        2,
    )
    assert programs(SomeRecord(OVERREAD, 8)).records == 8
    assert programs(SomeRecord(OVERREAD, 100)).records == 14
    assert programs(all_of(CHANGES)).records is None


# --- carriers -----------------------------------------------------------------------------------------------

HIT = b"\x18\x03\x03\x00\x03\x01\x40\x00"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("options", range(11))
def test_headers_of_any_length(version, options):
    compiled = programs(OVERREAD)
    words = bytes.fromhex("01010101") * options
    assert says(compiled, segment(HIT, version, tcp_options=words))
    assert not says(compiled, segment(HIT[:-1], version, tcp_options=words))
    if version == 4:
        assert says(compiled, segment(HIT, ip_options=words))


def test_what_is_no_transport_header():
    """Later fragments have none; behind IPv6 extension headers it is not looked for."""
    port, no_port = programs(equals("tcp.sport", 0x1803)), programs(Not(equals("tcp.sport", 0x1803)))
    later = fragments(segment(bytes(4) + HIT + bytes(40)), 24)[1]
    assert later[20:22] == b"\x18\x03"
    assert not says(port, later)
    assert says(no_port, later)
    first = fragments(segment(HIT + bytes(40)), 32)[0]
    assert says(programs(OVERREAD), first)
    extended = segment(HIT, 6, extensions=((60, bytes.fromhex("00010400000000")),))
    assert not says(programs(Protocol("tcp")), extended)
    assert not says(programs(OVERREAD), extended)


def test_broken_headers_match_nothing():
    """The data offset points behind the packet, or before the TCP header's end."""
    compiled = programs(all_of(Present("tls.content_type")))
    assert says(compiled, segment(b"x"))
    assert not says(compiled, segment(b""))
    packet = bytearray(segment(b"x" * 10))
    packet[32] = 0xF0
    assert not says(compiled, bytes(packet))
    assert says(programs(Not(Present("tls.content_type"))), bytes(packet))
    assert not says(programs(OVERREAD), segment(HIT)[:30])


# --- size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "most"),
    [
        (equals("tcp.dport", 443), 15),
        (OVERREAD, 30),
        (Not(OVERREAD), 34),
        (equals("tls.random", 7), 34),
        (equals("ip6.saddr", 7), 12),
        (all_of(equals("tls.content_type", 24), Not(Present("tls.heartbeat_payload_length"))), 23),
    ],
)
def test_programs_stay_short(match, most):
    ((program,),) = programs(match).alternatives
    assert len(program) <= most


def test_what_can_not_hold_has_no_program():
    assert programs(Or(())).alternatives == ()


@pytest.mark.parametrize(
    "match",
    [
        Contains(b"x"), ServerName("example.com"), InState(frozenset({State.NEW})), InDirection("original"), Marked(1),
        Lookup(("ip.saddr",), "s"),
    ],
)  # fmt: skip
def test_what_is_not_in_headers_and_records(match):
    with pytest.raises(CantCompile, match=type(match).__name__):
        programs(match)


def test_a_sum_that_might_overflow():
    with pytest.raises(CantCompile, match="only for fields of 16 bits"):
        programs(Exceeds("tcp.sequence", 1, "tcp.ackseq"))


def test_many_ranges_become_several_rules():
    ports = Test("tcp.dport", Op.IN, tuple((port, port) for port in range(1, 400, 2)))
    compiled = programs(ports)
    assert len(compiled.alternatives) > 3
    assert [says(compiled, segment(b"", destination_port=port)) for port in (1, 2, 199, 200, 399, 401)] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    with pytest.raises(CantCompile, match="more than 64"):
        programs(Test("tcp.dport", Op.IN, tuple((port, port) for port in range(1, 0xFFFF, 2))))
