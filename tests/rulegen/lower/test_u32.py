"""u32: an interpreter written after xt_u32.c reads the emitted text as the literals mean it, within its limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.wire.fields import Layer
from rulegen.lower.literals import Has, Is, Load, Normal, Within
from rulegen.lower.ranges import merged
from rulegen.lower.u32 import needs_whole, reach_of, steps, words
from rulegen.testbed.packets import IPV6_FRAGMENT, TCP, Segment, ipv4, ipv6
from tests.rulegen.reference import Packet, holds_normal

TESTS_MAX = RANGES_MAX = NUMBERS_MAX = 10
"""Linux uapi/linux/netfilter/xt_u32.h XT_U32_MAXSIZE: of a match, of a test, and of its location."""
TEXT_MAX = 1023
"""What iptables-restore takes for one word."""

NO_OPERATION = bytes.fromhex("01010101")


# --- the interpreter ----------------------------------------------------------------------------------------


def u32_holds(text: str, data: bytes) -> bool:
    """One `--u32` argument, as Linux net/netfilter/xt_u32.c u32_match_it evaluates it."""
    return all(test_holds(*test.split("="), data) for test in text.split(" && "))


def test_holds(location: str, values: str, data: bytes) -> bool:
    first, *rest = re.findall(r"(&|>>|<<|@)?\s*(0x[0-9A-Fa-f]+|\d+)", location)
    start, value = 0, load(data, 0, int(first[1], 0))
    for operator, operand in rest:
        if value is None:
            return False
        number = int(operand, 0)
        if operator == "&":
            value &= number
        elif operator == ">>":
            value >>= number
        elif operator == "@":
            start += value
            value = load(data, start, number)
    return value is not None and any(low <= value <= high for low, high in map(bounds, values.split(",")))


test_holds.__test__ = False


def load(data: bytes, start: int, position: int) -> int | None:
    word = data[start + position : start + position + 4]
    return int.from_bytes(word) if len(word) == 4 else None


def bounds(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    return int(low, 0), int(high or low, 0)


def line_holds(words_of_line: str, data: bytes) -> bool:
    matches = re.findall(r'-m u32 (! )?--u32 "([^"]*)"', words_of_line)
    assert words_of_line == " ".join(f'-m u32 {sign}--u32 "{text}"' for sign, text in matches), words_of_line
    for _, text in matches:
        assert len(text) <= TEXT_MAX
        tests = text.split(" && ")
        assert len(tests) <= TESTS_MAX
        for test in tests:
            location, values = test.split("=")
            assert len(re.findall(r"0x[0-9A-Fa-f]+|\d+", location)) <= NUMBERS_MAX
            assert len(values.split(",")) <= RANGES_MAX
    return all(u32_holds(text, data) is not bool(sign) for sign, text in matches)


def steps_hold(found: list[tuple[str, ...]], data: bytes) -> bool:
    """Of a step one variant holds; never two."""
    results = []
    for step in found:
        holding = sum(line_holds(variant, data) for variant in step)
        assert holding <= 1, step
        results.append(holding == 1)
    return all(results)


# --- what it is held to ---------------------------------------------------------------------------------------


@st.composite
def ranges_of(draw, width_bytes: int):
    top = (1 << 8 * width_bytes) - 1
    number = st.integers(0, top) | st.sampled_from((0, 1, top, top >> 1))
    pairs = draw(st.lists(st.tuples(number, number), min_size=1, max_size=30))
    return merged(tuple(sorted(pair)) for pair in pairs)


@st.composite
def literals(draw):
    found = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)) == 0:
            found.append(Has(draw(st.integers(1, 9)), lacks=draw(st.booleans())))
            continue
        layer = draw(st.sampled_from((Layer.PAYLOAD, Layer.PAYLOAD, Layer.TRANSPORT, Layer.NETWORK)))
        width_bytes = draw(st.integers(1, 12 if layer is not Layer.NETWORK else 4))
        top = (1 << 8 * width_bytes) - 1
        mask = draw(st.just(top) | st.integers(1, top))
        offset = draw(st.integers(0, 8))
        found.append(Within(Load(layer, offset, width_bytes, mask, None), draw(ranges_of(width_bytes))))
    return found


@st.composite
def packets(draw):
    payload = draw(st.binary(max_size=24))
    common = {"source_port": 1, "destination_port": 2, "payload": payload}
    common["tcp_options"] = NO_OPERATION * draw(st.integers(0, 10))
    if draw(st.booleans()):
        return "ip6", Segment(source="2001:db8::1", destination="2001:db8::2", **common).packet()
    common["ip_options"] = NO_OPERATION * draw(st.integers(0, 10))
    return "ip", Segment(source="192.0.2.1", destination="198.51.100.7", **common).packet()


@given(literals(), packets())
def test_steps_mean_what_the_literals_mean(found, packet):
    family, data = packet
    normal = Normal((Is(family), Is("tcp"), *found), ((),))
    emitted = steps(found, family=family, protocol="tcp", reach=0)
    assert steps_hold(emitted, data) is holds_normal(normal, Packet.parse(data))


@given(literals(), packets(), st.integers(4, 24))
def test_what_is_known_of_the_length_only_makes_it_simpler(found, packet, reach):
    """Where other literals demand a payload of 4 bytes, no case of a shorter one has to be told apart."""
    family, data = packet
    parsed = Packet.parse(data)
    emitted = steps(found, family=family, protocol="tcp", reach=reach)
    if len(parsed.payload) >= reach:
        assert steps_hold(emitted, data) is holds_normal(Normal((*found,), ((),)), parsed)
    alone = steps(found, family=family, protocol="tcp", reach=0)
    assert sum(map(len, emitted)) <= sum(map(len, alone))


@pytest.mark.parametrize("size", range(1, 4))
@pytest.mark.parametrize("ip_words", range(11))
@pytest.mark.parametrize("tcp_words", [0, 3, 10])
def test_a_payload_of_one_byte_is_read(size, ip_words, tcp_words):
    data = Segment(
        source="192.0.2.1",
        destination="198.51.100.7",
        source_port=1,
        destination_port=2,
        payload=b"\x18\x03\x02"[:size],
        ip_options=NO_OPERATION * ip_words,
        tcp_options=NO_OPERATION * tcp_words,
    ).packet()
    for value, offset, width_bytes in ((0x18, 0, 1), (0x03, 1, 1), (0x0302, 1, 2), (0x180302, 0, 3)):
        whole = Load(Layer.PAYLOAD, offset, width_bytes, (1 << 8 * width_bytes) - 1, None)
        found = [Within(whole, ((value, value),))]
        there = steps_hold(steps(found, family="ip", protocol="tcp", reach=0), data)
        assert there is (size >= offset + width_bytes)


def test_what_is_no_whole_datagram_or_has_extension_headers_meets_nothing():
    ones = bytes(range(1, 60))
    tcp = Segment(source="192.0.2.1", destination="198.51.100.7", source_port=1, destination_port=2).packet()[
        20:
    ]
    looks = (
        [Has(1)],
        [Has(40, lacks=True)],
        [Within(Load(Layer.TRANSPORT, 0, 2, 0xFFFF, None), ((0, 0xFFFF),))],
    )
    fragment = ipv4(bytes(4), bytes(4), ones, fragment=5)
    extended = ipv6(bytes(16), bytes(16), IPV6_FRAGMENT, bytes((TCP, 0, 0, 0, 0, 0, 0, 1)) + tcp + ones)
    first = ipv4(bytes(4), bytes(4), tcp + b"abc", fragment=0x2000)
    for found in looks:
        assert needs_whole(found)
        assert not steps_hold(steps(found, family="ip", protocol="tcp", reach=0), fragment)
        assert not steps_hold(steps(found, family="ip6", protocol="tcp", reach=0), extended)
        assert steps_hold(steps(found, family="ip", protocol="tcp", reach=0), first)
    in_header = [Within(Load(Layer.NETWORK, 8, 1, 0xFF, None), ((64, 64),))]
    assert not needs_whole(in_header)
    assert steps_hold(steps(in_header, family="ip", protocol="tcp", reach=0), fragment)


def test_udp_is_told_from_tcp_in_ipv6():
    datagram = ipv6(bytes(16), bytes(16), 17, bytes((0, 53, 0, 53, 0, 9, 0, 0, 7)))
    length = [Within(Load(Layer.TRANSPORT, 4, 2, 0xFFFF, None), ((9, 9),))]
    assert steps_hold(steps(length, family="ip6", protocol="udp", reach=0), datagram)
    assert not steps_hold(steps(length, family="ip6", protocol="tcp", reach=0), datagram)


@given(st.integers(1, 5), st.data())
def test_a_wide_load_is_cut_into_words_that_exclude_each_other(width_words, data):
    width_bytes = data.draw(st.integers(4 * width_words - 3, 4 * width_words))
    ranges = data.draw(ranges_of(width_bytes))
    number = data.draw(
        st.integers(0, (1 << 8 * width_bytes) - 1) | st.sampled_from([end for pair in ranges for end in pair])
    )
    text = number.to_bytes(width_bytes)
    variants = list(words(Load(Layer.PAYLOAD, 0, width_bytes, (1 << 8 * width_bytes) - 1, None), ranges))
    holding = 0
    for variant in variants:
        assert any(word.byte_offset + word.width_bytes == width_bytes for word in variant), (
            "all bytes are there"
        )
        holding += all(
            any(
                low <= int.from_bytes(text[word.byte_offset : word.byte_offset + word.width_bytes]) <= high
                for low, high in word.ranges
            )
            for word in variant
        )
    assert holding == any(low <= number <= high for low, high in ranges)


def test_the_reach_of_literals_is_what_the_longest_needs():
    byte = Load(Layer.PAYLOAD, 6, 2, 0xFFFF, None)
    assert reach_of([Within(byte, ((1, 1),)), Has(3), Has(40, lacks=True), Is("tcp")]) == 8
    assert reach_of([Within(Load(Layer.TRANSPORT, 12, 2, 0xFFFF, None), ((1, 1),))]) == 0


def test_the_forms_of_the_manual():
    """The text that people know from iptables-extensions(8)."""
    kind = Within(Load(Layer.PAYLOAD, 0, 1, 0xFF, None), ((0x16, 0x16),))
    assert steps([kind], family="ip", protocol="tcp", reach=6) == [
        ('-m u32 --u32 "4&0x1FFF=0x0 && 0>>22&0x3C@ 12>>26&0x3C@ 0>>24=0x16"',)
    ]
    assert steps([kind], family="ip6", protocol="tcp", reach=0) == [
        ('-m u32 --u32 "3&0xFF=0x6 && 52>>26&0x3C@ 37&0xFF=0x16"',)
    ]
