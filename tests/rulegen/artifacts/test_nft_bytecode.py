"""What nft prints becomes values: every form that libnftnl has, bytes in the order of the register."""

from __future__ import annotations

import sys

import pytest

from rulegen.artifacts.nft_bytecode import expression, register, verdict, words
from rulegen.artifacts.nft_sets import content, printed_element
from rulegen.artifacts.nft_values import (
    Bitwise,
    Byteorder,
    Compare,
    ConnectionCount,
    Counter,
    CtLoad,
    CtSet,
    Decide,
    DynamicSet,
    Elsewhere,
    ExthdrLoad,
    ExthdrReset,
    ExthdrWrite,
    Fib,
    Hash,
    Immediate,
    Ipsec,
    Limit,
    Log,
    Lookup,
    MetaLoad,
    MetaSet,
    Nat,
    NftVerdict,
    Notrack,
    Numgen,
    ObjectMap,
    ObjectReference,
    OsFingerprint,
    PayloadLoad,
    PayloadWrite,
    Quota,
    Range,
    Reject,
    Route,
    Shift,
    Socket,
)
from rulegen.artifacts.nft_widths import measure
from rulegen.artifacts.unknown import Unknown

LITTLE = pytest.mark.skipif(sys.byteorder == "big", reason="the examples are of a little-endian host")

FORMS = {
    "payload load 4b @ network header + 12 => reg 1": PayloadLoad(0, "network", 12, 4),
    "payload load 2b @ inner header + 3 => reg 9": PayloadLoad(4, "inner", 3, 2),
    "payload write reg 1 => 2b @ network header + 8 csum_type 1 csum_off 10 csum_flags 0x1": PayloadWrite(
        0, "network", 8, 2, 1, 10, 1
    ),
    "meta load l4proto => reg 1": MetaLoad(0, "l4proto"),
    "meta set mark with reg 1": MetaSet(0, "mark"),
    "ct load state => reg 1": CtLoad(0, "state", None),
    "ct load packets => reg 1 , dir original": CtLoad(0, "packets", "original"),
    "ct set mark with reg 1": CtSet(0, "mark", None),
    "exthdr load ipv6 1b @ 44 + 0 present => reg 1": ExthdrLoad(0, "ipv6", 1, 44, 0, True),
    "exthdr load tcpopt 2b @ 2 + 2 => reg 1": ExthdrLoad(0, "tcpopt", 2, 2, 2, False),
    "exthdr write tcpopt reg 1 => 2b @ 2 + 2": ExthdrWrite(0, "tcpopt", 2, 2, 2),
    "exthdr reset tcpopt 4": ExthdrReset("tcpopt", 4),
    "cmp eq reg 1 0x04030201": Compare(0, "eq", b"\1\2\3\4"),
    "cmp gte reg 1 0x00000000 0xa0860100": Compare(0, "gte", b"\0\0\0\0\0\1\x86\xa0"),
    "range neq reg 1 0x00001600 0x00001900": Range(0, "neq", b"\0\x16\0\0", b"\0\x19\0\0"),
    "bitwise reg 1 = ( reg 2 & 0x00ffffff ) ^ 0x00000001": Bitwise(0, 16, b"\xff\xff\xff\0", b"\1\0\0\0"),
    "bitwise reg 1 = ( reg 1 >> 0x00000004 )": Shift(0, 0, ">>", 4),
    "byteorder reg 1 = hton(reg 1, 2, 4)": Byteorder(0, 0, "hton", 4, 2),
    "immediate reg 1 0x00000005": Immediate(0, b"\5\0\0\0"),
    "immediate reg 0 accept": Decide(NftVerdict("accept")),
    "immediate reg 0 jump -> a_chain": Decide(NftVerdict("jump", "a_chain")),
    "lookup reg 1 set s 0x0": Lookup(0, "s", False, None, False),
    "lookup reg 1 set __set0 0x1": Lookup(0, "__set0", True, None, False),
    "lookup reg 1 set m dreg 0 0x0": Lookup(0, "m", False, None, True),
    "lookup reg 1 set m dreg 2 0x0": Lookup(0, "m", False, 16, False),
    "dynset update reg_key 1 set s timeout 30000ms": DynamicSet("update", 0, "s", None, 30000, ()),
    "dynset add reg_key 1 set m sreg_data 2 timeout 0ms": DynamicSet("add", 0, "m", 16, 0, ()),
    "dynset add reg_key 1 set s timeout 0ms expr [ connlimit count 20 flags 1 ]": DynamicSet(
        "add", 0, "s", None, 0, (ConnectionCount(20, True),)
    ),
    "counter pkts 1 bytes 20": Counter(1, 20),
    "limit rate 5/minute burst 7 type packets flags 0x1": Limit(5, "minute", 7, "packets", True),
    "quota bytes 100 consumed 3 flags 0": Quota(100, 3, False),
    "connlimit count 4 flags 0": ConnectionCount(4, False),
    "objref type 1 name cn": ObjectReference("counter", "cn"),
    "objref type 99 name x": ObjectReference("type 99", "x"),
    "objref sreg 1 set om": ObjectMap(0, "om"),
    "log prefix a ] b level 4 group 5": Log("prefix a ] b level 4 group 5"),
    "reject type 1 code 0": Reject(1, 0),
    "notrack": Notrack(),
    "fib saddr . iif oif present => reg 1": Fib(0, ("saddr", "iif"), "oif", True),
    "fib daddr type => reg 1": Fib(0, ("daddr",), "type", False),
    "rt load tcpmss => reg 1": Route(0, "tcpmss"),
    "socket load transparent => reg 1": Socket(0, "transparent"),
    "osf dreg 1": OsFingerprint(0),
    "xfrm load in 0 reqid => reg 1": Ipsec(0, "in", 0, "reqid"),
    "numgen reg 1 = random mod 2": Numgen(0, "random", 2, 0),
    "numgen reg 1 = inc mod 2 offset 5": Numgen(0, "inc", 2, 5),
    "hash reg 1 = jhash(reg 2, 4, 0x1f) % mod 3": Hash(0, "jhash", 16, 4, 0x1F, 3, 0),
    "hash reg 1 = symhash() % mod 3 offset 9": Hash(0, "symhash", None, None, None, 3, 9),
    "nat snat ip addr_min reg 1 addr_max reg 2 flags 0xd": Nat(
        "snat", "ip", (("addr_min", 0), ("addr_max", 16)), 13
    ),
    "masq": Nat("masq", None, (), 0),
    "masq flags 0x4": Nat("masq", None, (), 4),
    "redir proto_min reg 1 proto_max reg 1 flags 0x2": Nat(
        "redir", None, (("proto_min", 0), ("proto_max", 0)), 2
    ),
    "tproxy ip addr reg 1 port reg 2": Nat("tproxy", "ip", (("addr", 0), ("port", 16)), 0),
    "queue num 1-3 bypass": Elsewhere("queue", "num 1-3 bypass"),
    "fwd sreg_dev 1": Elsewhere("fwd", "sreg_dev 1"),
    "synproxy mss 1460 wscale 7": Elsewhere("synproxy", "mss 1460 wscale 7"),
    "ct load unknown => reg 1": Unknown("ct", "load unknown => reg 1"),
    "match name u32 rev 0": Unknown("match", "name u32 rev 0"),
    "cmp eq reg 5 0x00000001": Unknown("cmp", "eq reg 5 0x00000001"),
    "exthdr load 1b @ 0 + 0 present => reg 1": Unknown("exthdr", "load 1b @ 0 + 0 present => reg 1"),
}


@LITTLE
@pytest.mark.parametrize("text", FORMS)
def test_every_form(text):
    assert expression(text) == FORMS[text]


@pytest.mark.parametrize(
    ("order", "data"), [("little", b"\4\3\2\1\0\0\0\x16"), ("big", b"\1\2\3\4\x16\0\0\0")]
)
def test_words_are_of_the_host(monkeypatch, order, data):
    monkeypatch.setattr(sys, "byteorder", order)
    assert words("0x01020304 0x16000000") == data


def test_registers_are_bytes_of_one_file():
    assert [register(str(number)) for number in (1, 2, 3, 4, 8, 9, 12, 23)] == [0, 16, 32, 48, 0, 4, 16, 60]
    for number in (0, 5, 7, 24):
        with pytest.raises(ValueError, match="no register"):
            register(str(number))


@pytest.mark.parametrize("text", ["", "jump", "jump -> ", "accept -> c", "explode"])
def test_no_verdict(text):
    with pytest.raises(ValueError, match="no verdict"):
        verdict(text)


# --- how many bytes count -----------------------------------------------------------------------------------


def measured(*lines: str, text: str = "", family: str = "inet", shape=lambda _: (None, None)):
    return measure([expression(line) for line in lines], family, text, shape)


@LITTLE
def test_values_are_as_long_as_what_was_loaded():
    program, _ = measured(
        "payload load 2b @ transport header + 2 => reg 1",
        "bitwise reg 1 = ( reg 1 & 0x0000f0ff ) ^ 0x00000000",
        "cmp eq reg 1 0x0000b001",
        "range eq reg 1 0x00001600 0x00001900",
        "meta load l4proto => reg 1",
        "cmp eq reg 1 0x00000006",
    )
    assert program[1:4] == (
        Bitwise(0, 0, b"\xff\xf0", b"\0\0"),
        Compare(0, "eq", b"\x01\xb0"),
        Range(0, "eq", b"\0\x16", b"\0\x19"),
    )
    assert program[5] == Compare(0, "eq", b"\6")


@LITTLE
@pytest.mark.parametrize(
    ("compared", "text", "value"),
    [
        ("0x00687465", 'iifname "eth*"', b"eth"),
        ("0x30687465 0x00000000 0x00000000 0x00000000", 'iifname "eth0"', b"eth0" + bytes(12)),
        (
            "0x64636261 0x68676665 0x6c6b6a69 0x0000006d",
            'iifname "abcdefghijklm"',
            b"abcdefghijklm" + bytes(3),
        ),
        ("0x64636261 0x68676665 0x6c6b6a69 0x0000006d", 'iifname "abcdefghijklm*"', b"abcdefghijklm"),
    ],
)
def test_names_that_begin_so_are_shorter(compared, text, value):
    """13 letters and a star are printed like 13 letters; the listing tells them apart."""
    program, _ = measured("meta load iifname => reg 1", f"cmp eq reg 1 {compared}", text=text)
    assert program[1] == Compare(0, "eq", value)


def test_keys_have_the_widths_of_what_lies_in_the_registers():
    key = (
        "meta load iifname => reg 1",
        "payload load 2b @ transport header + 2 => reg 2",
        "payload load 4b @ network header + 12 => reg 13",
    )
    for shape, expected in (
        (lambda _: (3, None), (16, 2, 4)),
        (lambda _: (None, 6), (16, 2, 4)),
        (lambda _: (1, 4), (16,)),
        (lambda _: (2, 6), ()),
    ):
        _, widths = measured(*key, "lookup reg 1 set s 0x0", shape=shape)
        assert widths.get("s", ()) == expected


def test_a_later_load_replaces_an_earlier_one():
    _, widths = measured(
        "payload load 16b @ network header + 8 => reg 1",
        "payload load 4b @ network header + 12 => reg 1",
        "lookup reg 1 set s 0x0",
    )
    assert widths == {"s": (4,)}


# --- sets ---------------------------------------------------------------------------------------------------


def elements(*lines: str):
    return [printed_element(f"\telement {line}") for line in lines]


@LITTLE
def test_intervals_end_before_their_end():
    printed = elements(
        "00005200  : 1 [end]", "00005100  : drop 0 [end]", "00005100  : 1 [end]",
        "00005000  : accept 0 [end]", "00000000  : 1 [end]", "0000ff00  : jump -> c 0 [end]",
    )  # fmt: skip
    made = content("m", printed, (2,), {"type": "inet_service", "map": "verdict"}, "")
    assert [(one.key, one.value.kind) for one in made.elements] == [
        (((b"\0\x50", b"\0\x50"),), "accept"),
        (((b"\0\x51", b"\0\x51"),), "drop"),
        (((b"\0\xff", b"\xff\xff"),), "jump"),
    ]
    assert made.intervals


@LITTLE
def test_concatenations_have_intervals_part_by_part():
    (one,) = content(
        "s", elements("0000000a 00005000  - ffffff0a 00005a00  : 0 [end]"), (4, 2), {}, ""
    ).elements
    assert one.key == ((b"\x0a\0\0\0", b"\x0a\xff\xff\xff"), (b"\0\x50", b"\0\x5a"))


@LITTLE
def test_time_outs_and_objects_find_their_element():
    listed = {
        "type": ["ipv4_addr", "mark"],
        "map": "counter",
        "elem": [
            [{"elem": {"val": {"concat": ["192.0.2.1", 7]}, "timeout": 30, "expires": 9}}, "one"],
            [{"concat": ["192.0.2.2", 7]}, "two"],
        ],
    }
    printed = elements("020200c0 00000007  : 0 [end]", "010200c0 00000007  : 0 [end]")
    first, second = content("m", printed, (4, 4), listed, "").elements
    assert (first.timeout_s, first.expires_s, first.value) == (30, None, "one")
    assert (second.timeout_s, second.value) == (None, "two")
    assert content("m", printed, (4, 4), listed, "expires 9s").elements[0].expires_s == 9


@LITTLE
def test_an_element_that_is_not_found_is_named():
    listed = {"type": "integer", "elem": [{"elem": {"val": 5, "timeout": 30}}]}
    made = content("s", elements("00000016  : 0 [end]"), (1,), listed, "")
    assert made.statements == (Unknown("element", "5"),)


def test_comments_of_elements():
    (one,) = elements(r"010200c0  : 0 [end]  userdata = { \x01\x04\x01\x00\x00\x00\x00\x05a } b\x00 }")
    assert one.comment == "a } b"
