"""content-type in the kernel: which records it takes for such, in which packets, and which it can't see."""

from __future__ import annotations

from itertools import product

import pytest

from rulegen.backends import BACKENDS, emit
from rulegen.backends.base import Level
from rulegen.errors import WishError
from rulegen.policies.content_type import NAMES
from rulegen.testbed.packets import RST
from tests.rulegen.policies.handshakes import (
    TLS10,
    TLS12,
    TLS13,
    C,
    S,
    client_hello,
    record,
    refused,
    sent,
    server_hello,
)
from tests.rulegen.reference import Packet

pytestmark = pytest.mark.netns

NFT = BACKENDS[0]
TYPES = range(256)


def header(kind: int, *, version: int = TLS12, length: int = 40) -> bytes:
    return bytes((kind,)) + version.to_bytes(2) + length.to_bytes(2) + bytes(16)


def of_each_type() -> list:
    return [sent(C, header(kind)) for kind in TYPES]


@pytest.mark.parametrize(
    ("types", "codes"),
    [
        ("change_cipher_spec", {20}),
        ("alert", {21}),
        ("handshake", {22}),
        ("application_data", {23}),
        ("heartbeat", {24}),
        ("HEARTBEAT, 23,alert", {21, 23, 24}),
        ("0,99,255", {0, 99, 255}),
    ],
)
def test_blocking_types(bench, rules_text, types, codes):
    bench.load(rules_text(f"content-type:types={types}"))
    assert refused(bench, of_each_type()) == [kind in codes for kind in TYPES]
    assert bench.counters() == {"content-type": len(codes)}


@pytest.mark.parametrize(
    ("types", "codes"),
    [("handshake,application_data,alert,change_cipher_spec", {20, 21, 22, 23}), ("23", {23}), ("99", set())],
)
def test_allowing_types_refuses_the_other_registered_ones(bench, rules_text, types, codes):
    bench.load(rules_text(f"content-type:types={types},mode=allow"))
    others = set(NAMES.values()) - codes
    assert refused(bench, of_each_type()) == [kind in others for kind in TYPES]


# fmt: off
STARTS = (
    # what                                       bytes                                   taken for a heartbeat record
    ("TLS 1.0",                                  header(24, version=TLS10),              True),
    ("TLS 1.2",                                  header(24),                             True),
    ("TLS 1.3, as no record says",               header(24, version=TLS13),              True),
    ("a minor version that there is not",        header(24, version=0x0305),             False),
    ("version 2.0",                              header(24, version=0x0200),             False),
    ("version 4.0",                              header(24, version=0x0400),             False),
    ("empty",                                    header(24, length=0),                   True),
    ("the longest",                              header(24, length=18432),               True),
    ("longer than can be",                       header(24, length=18433),               False),
    ("a header alone",                           header(24)[:5],                         True),
    ("a header that is cut",                     header(24)[:4],                         False),
    ("SSH that begins alike",                    b"\x18SSH-2.0-x\r\n",                   False),
    ("nothing",                                  b"",                                    False),
)
# fmt: on


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("policy", ["types=heartbeat", "types=20,21,22,23,25,26,27,mode=allow"])
def test_what_is_taken_for_a_record(bench, rules_text, policy, family):
    bench.load(rules_text(f"content-type:{policy}"))
    verdicts = refused(bench, (sent(C, row[1], family) for row in STARTS))
    assert dict(zip((row[0] for row in STARTS), verdicts, strict=True)) == {row[0]: row[2] for row in STARTS}


@pytest.mark.parametrize(
    ("parameters", "client_4", "server_4", "client_6", "server_6"),
    [
        ("", True, True, True, True),
        (",direction=to-server", True, False, True, False),
        (",direction=to-client", False, True, False, True),
        (",ports=443", True, True, True, True),
        (",ports=443,direction=to-client", False, True, False, True),
        (",ports=8443,9000-9010", False, False, False, False),
        (",servers=198.51.100.7", True, True, False, False),
        (",servers=198.51.100.7,direction=to-server", True, False, False, False),
        (",servers=198.51.100.0/24,2001:db8:1::/48,ports=443", True, True, True, True),
    ],
)
def test_in_which_packets(bench, rules_text, parameters, client_4, server_4, client_6, server_6):
    bench.load(rules_text(f"content-type:types=heartbeat{parameters}"))
    beat = header(24)
    opened = [sent(side, b"hello", family) for family in (4, 6) for side in (C, S)]
    packets = [sent(side, beat, family) for family in (4, 6) for side in (C, S)]
    assert refused(bench, [*opened, *packets])[4:] == [client_4, server_4, client_6, server_6]


NOTRACK = """table inet other {
    chain raw {
        type filter hook prerouting priority raw
        tcp sport 40001 notrack
    }
}"""


@pytest.mark.parametrize(
    ("state", "new", "established", "untracked"),
    [
        ("any", True, True, True),
        ("new", True, False, False),
        ("established", False, True, False),
        ("untracked", False, False, True),
        ("invalid", False, False, False),
    ],
)
def test_per_connection_state(bench, rules_text, state, new, established, untracked):
    """A first packet with data is new; once the other side has answered, the connection is established."""
    bench.load(rules_text(f"content-type:types=heartbeat,state={state}"))
    bench.load(NOTRACK)
    beat = header(24)
    packets = [
        sent(C, beat, source_port=39999),
        sent(C, b"hello"),
        sent(S, b"hello"),
        sent(C, beat),
        sent(C, beat, source_port=40001),
    ]
    assert refused(bench, packets) == [new, False, False, established, untracked]


def test_allowing_nothing_but_the_handshake_until_established_is_possible(bench, rules_text):
    """The question that this policy comes from: a server that may shake hands and send nothing."""
    bench.load(rules_text("content-type:types=22,20,21,mode=allow,servers=198.51.100.7,direction=to-client"))
    packets = [
        sent(C, client_hello()),
        sent(S, server_hello()),
        sent(C, record(20, b"\x01")),
        sent(S, record(20, b"\x01")),
        sent(C, record(23, bytes(40))),
        sent(S, record(23, bytes(40))),
    ]
    assert refused(bench, packets) == [False, False, False, False, False, True]


def test_reset_tells_the_sender(bench, rules_text):
    bench.load(rules_text("content-type:types=heartbeat,action=reset"))
    (fate,) = bench.send([sent(C, header(24))])
    assert not fate.passed
    (answer,) = fate.answers
    assert Packet.parse(answer).read("tcp.flags") & RST


@pytest.mark.parametrize("split", ["pass", "drop"])
def test_a_header_that_is_cut(bench, rules_text, split):
    """Known bypass, unless split=drop. Of two bytes it looks at the type alone, of more at the version too."""
    bench.load(rules_text(f"content-type:types=heartbeat,split={split}"))
    beat = header(24)
    assert (
        refused(bench, (sent(C, beat[:size]) for size in range(1, 7))) == [split == "drop"] * 4 + [True] * 2
    )
    others = [b"\x17", b"\x18\x04", b"\x18\x03\x05", b"\x18\x02\x03", b"\x18SSH", b"exit"]
    assert refused(bench, (sent(C, payload) for payload in others)) == [
        split == "drop" and payload == b"\x18\x04" for payload in others
    ]


@pytest.mark.parametrize("records", [1, 2, 8])
def test_known_bypass_behind_another_record_or_the_rest_of_one(bench, rules_text, respond, records):
    """As `tlswall policies` says; nft looks at the first record whatever is asked for, and says so."""
    policy = f"content-type:types=heartbeat,records={records}"
    bench.load(rules_text(policy))
    assert refused(
        bench, [sent(C, record(21, b"\x01\x70") + header(24)), sent(C, bytes(7) + header(24))]
    ) == [False, False]
    (fidelity,) = emit(respond((), policy).ruleset, NFT).fidelity
    assert fidelity.level is (Level.EXACT if records == 1 else Level.NARROWER)


def test_known_bypass_what_tls_1_3_hides(bench, rules_text):
    """An encrypted heartbeat, alert or handshake message is application_data outside."""
    bench.load(rules_text("content-type:types=heartbeat,alert,handshake"))
    assert refused(bench, [sent(C, record(23, bytes(40)))]) == [False]


@pytest.mark.parametrize("mode", ["types=heartbeat", "types=handshake,application_data,mode=allow"])
def test_the_rest_of_a_record_passes_but_for_the_chance_that_is_stated(bench, rules_text, mode):
    """Every two first bytes that a segment in the middle of a record can have, with a version or without."""
    bench.load(rules_text(f"content-type:{mode}"))
    starts = [bytes(pair) + b"\x55" * 20 for pair in product(range(0, 256, 5), range(0, 256, 3))]
    assert not any(refused(bench, (sent(S, start) for start in starts)))
    assert refused(bench, [sent(S, b"\x18\x03\x03\x07\x55" + bytes(20))]) == [True]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("", "which types"),
        ("types=", "which types"),
        ("types=heartbeats", "'heartbeats' is no content type"),
        ("types=256", "'256' is no content type"),
        ("types=-1", "'-1' is no content type"),
        ("types=²", "is no content type"),
        ("types=20,21,22,23,24,25,26,27,mode=allow", "refuses nothing"),
        ("types=23,state=closed", "one of any, new"),
        ("types=23,records=9", "one of 1, 2"),
    ],
)
def test_what_it_does_not_know(rules_text, parameters, words):
    with pytest.raises(WishError, match=words):
        rules_text(f"content-type:{parameters}")
