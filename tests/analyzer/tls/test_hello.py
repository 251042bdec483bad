"""The engine's quick reader of hellos and the parser of handshake.py say the same of every whole hello.

Of a damaged one the quick reader only says MALFORMED where the parser finds a fault too, and it never raises.
"""

from __future__ import annotations

import random
import struct
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import pipeline
from analyzer.tls import classify, hello
from analyzer.tls.fingerprint import client_hello_ja3, client_hello_ja4, ja4_version, server_hello_ja3s
from analyzer.tls.handshake import (
    HELLO_RETRY_REQUEST_RANDOM,
    ClientHello,
    ServerHello,
    parse_client_hello,
    parse_server_hello,
    parse_ssl2_client_hello,
)
from analyzer.tls.hello import Fact
from analyzer.wire.iana import GREASE
from samples.craft import tls_bytes as tls
from tests.both_forms import load_uncompiled
from tests.recut import CRAFTED, SHIPPED, pcap, read

UNCOMPILED = load_uncompiled("analyzer.tls.hello")
CLIENT, SERVER = 1, 2
SAID = {
    CLIENT: (
        "FLAGS",
        "LEGACY_VERSION",
        "VERSION",
        "HEARTBEAT",
        "OFFERED",
        "SUITES_HASH",
        "COMMON_HASH",
        "SSL3_HASH",
    ),
    SERVER: ("FLAGS", "LEGACY_VERSION", "VERSION", "HEARTBEAT", "CIPHER_SUITE", "COMPRESSION", "GROUP"),
}
"""What FACTS holds after a hello of a kind."""


@pytest.fixture(
    params=[
        pytest.param(UNCOMPILED, id="uncompiled"),
        pytest.param(
            hello,
            id="compiled",
            marks=pytest.mark.skipif(not hello.COMPILED, reason="the kernel is not compiled"),
        ),
    ]
)
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@cache
def shipped(kind: int) -> tuple[bytes, ...]:
    """The bodies of all hellos of a kind in the samples that differ in more than their random."""
    import tempfile
    from pathlib import Path

    segments = [segment for path in (*CRAFTED, *SHIPPED) for segment in read(path)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.pcap"
        path.write_bytes(pcap(segments))
        messages = pipeline.analyze(path, tables=["messages"]).messages
    chosen = messages[(messages.content_type == 22) & (messages.message_type == kind)]
    by_rest = {body[34:]: bytes(body) for body in chosen.body}
    return tuple(by_rest.values())


def hellos(kind: int) -> st.SearchStrategy[bytes]:
    return st.deferred(lambda: st.sampled_from(shipped(kind)))


def read_with(form: ModuleType, kind: int, body: bytes) -> tuple[dict[str, int], tuple[Any, ...]]:
    """Facts and texts; the hello lies between other bytes, as in a block."""
    buffer = memoryview(bytearray(b"\xff" * 7 + body + b"\xff" * 40))
    texts = (form.client_hello if kind == CLIENT else form.server_hello)(buffer, 7, len(body))
    return {name: int(form.FACTS[Fact[name]]) for name in SAID[kind]}, tuple(texts)


# what the readable parser says, in the words of the quick one


def fnv(codes: list[int]) -> int:
    value = 0x4BF29CE484222325
    for code in codes:
        value = ((value ^ code) * 0x100000001B3) & 0x7FFFFFFFFFFFFFFF
    return value


def hashes(suites: list[int]) -> dict[str, int]:
    real = [suite for suite in suites if suite not in GREASE and suite not in (0x5600, 0x00FF)]
    common = [suite for suite in real if classify.RULES[suite] & classify.EVERY_VERSION]
    old = [suite for suite in common if classify.RULES[suite] & classify.SSL3]
    return {"SUITES_HASH": fnv(real), "COMMON_HASH": fnv(common), "SSL3_HASH": fnv(old)}


def flags(**present: object) -> int:
    return sum(getattr(hello, name) for name, value in present.items() if value)


def of_client(message: ClientHello) -> tuple[dict[str, int], tuple[Any, ...]]:
    types, versions = message.extension_types, message.supported_versions or ()
    known = [version for version in versions if version >> 8 == 3]
    draft = any(version >> 8 == 0x7F for version in versions)
    highest = max(known, default=0x0304 if draft else message.legacy_version)
    alpn = message.alpn or ()
    facts = {
        "FLAGS": flags(
            SUPPORTED_VERSIONS=43 in types, EARLY_DATA=42 in types, TICKET=35 in types,
            TICKET_FILLED=message.session_ticket, PSK=41 in types,
            EXTENDED_MASTER_SECRET=23 in types, ENCRYPT_THEN_MAC=22 in types,
            SNI=0 in types, ALPN=16 in types, FALLBACK_SCSV=0x5600 in message.cipher_suites,
            RENEGOTIATION_SCSV=0x00FF in message.cipher_suites, RENEGOTIATION=0xFF01 in types,
            RENEGOTIATION_FILLED=message.renegotiation_info, STATUS=5 in types or 17 in types,
            KEY_SHARE=51 in types or 40 in types, COMPRESSION=any(message.compression_methods),
            DUPLICATE=len(types) != len(set(types)), ALPN_H2=b"h2" in alpn,
            TRUNCATED_HMAC=4 in types, DRAFT_13=draft,
        ),
        "LEGACY_VERSION": message.legacy_version,
        "VERSION": max(highest, 0x0304) if draft else highest,
        "HEARTBEAT": message.heartbeat or 0,
        "OFFERED": sum(1 << (version & 0xFF) for version in set(known) if version & 0xFF <= 8),
        **hashes(list(message.cipher_suites)),
    }  # fmt: skip
    offered = b"".join(bytes([len(name)]) + name for name in alpn)
    return facts, (
        message.session_id,
        message.random,
        message.server_name or b"",
        offered[:1024],
        client_hello_ja3(message),
        client_hello_ja4(message),
    )


def of_server(message: ServerHello) -> tuple[dict[str, int], tuple[Any, ...]]:
    types, end = message.extension_types, message.random[24:]
    draft = message.version >> 8 == 0x7F
    share = message.key_share
    facts = {
        "FLAGS": flags(
            SUPPORTED_VERSIONS=43 in types, TICKET=35 in types, PSK=41 in types,
            EXTENDED_MASTER_SECRET=23 in types, ENCRYPT_THEN_MAC=22 in types, ALPN=16 in types,
            RENEGOTIATION=0xFF01 in types, STATUS=5 in types or 17 in types,
            KEY_SHARE=51 in types or 40 in types, TRUNCATED_HMAC=4 in types,
            RETRY=message.is_hello_retry_request, DUPLICATE=len(types) != len(set(types)),
            SENTINEL_12=end == b"DOWNGRD\1", SENTINEL_11=end == b"DOWNGRD\0", DRAFT_13=draft,
        ),
        "LEGACY_VERSION": message.legacy_version,
        "VERSION": 0x0304 if draft else message.version,
        "HEARTBEAT": message.heartbeat or 0,
        "CIPHER_SUITE": message.cipher_suite,
        "COMPRESSION": message.compression_method,
        "GROUP": share.group if share else 0,
    }  # fmt: skip
    alpn = (message.alpn or (b"",))[0]
    return facts, (message.session_id, message.random, alpn, server_hello_ja3s(message))


def compare(form: ModuleType, kind: int, body: bytes) -> bool:
    """Whether the hello is whole; if so both have said the same."""
    facts, texts = read_with(form, kind, body)
    message = parse_client_hello(body) if kind == CLIENT else parse_server_hello(body)
    malformed = bool(facts["FLAGS"] & hello.MALFORMED)
    if message.malformed is not None:
        assert facts["LEGACY_VERSION"] == message.legacy_version
        assert texts[1] == body[2:34]
        return False
    assert not malformed
    expected, expected_texts = of_client(message) if kind == CLIENT else of_server(message)
    assert facts == expected
    assert texts == expected_texts
    return True


@pytest.mark.parametrize(("kind", "least"), [(CLIENT, 40), (SERVER, 40)])
def test_every_hello_of_the_samples(form, kind, least):
    whole = [body for body in shipped(kind) if compare(form, kind, body)]
    assert len(whole) >= least


@settings(max_examples=150, deadline=None)
@given(st.sampled_from((CLIENT, SERVER)), st.data())
def test_bytes_of_a_hello_changed(kind, data):
    body = bytearray(data.draw(hellos(kind)))
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=4)
    ):
        body[at] = value
    end = data.draw(st.just(len(body)) | st.integers(0, len(body)))
    compare(hello, kind, bytes(body[:end]))
    assert read_with(UNCOMPILED, kind, bytes(body[:end])) == read_with(hello, kind, bytes(body[:end]))


def vector(size: int, body: bytes) -> bytes:
    return len(body).to_bytes(size, "big") + body


uint16 = st.integers(0, 0xFFFF) | st.sampled_from(
    (0x0A0A, 0x0303, 0x0304, 0x7F1C, 0x5600, 0x00FF, 0x1301, 0x002F)
)
uints16 = st.lists(uint16, max_size=6).map(lambda values: struct.pack(f">{len(values)}H", *values))
CONTENT = {
    0: st.lists(st.tuples(st.sampled_from((0, 0, 0, 7)), st.binary(max_size=12)), max_size=3).map(
        lambda names: vector(2, b"".join(bytes([kind]) + vector(2, name) for kind, name in names))
    ),
    10: uints16.map(lambda body: vector(2, body)),
    11: st.binary(max_size=4).map(lambda body: vector(1, body)),
    13: uints16.map(lambda body: vector(2, body)),
    15: st.binary(min_size=1, max_size=1),
    16: st.lists(st.sampled_from((b"h2", b"http/1.1", b"\xff", b"")) | st.binary(max_size=9), max_size=4).map(
        lambda names: vector(2, b"".join(vector(1, name) for name in names))
    ),
    23: st.just(b""),
    35: st.binary(max_size=5),
    42: st.just(b""),
    43: uints16.map(lambda body: vector(1, body)),
    51: uint16.map(lambda group: vector(2, struct.pack(">H", group) + vector(2, b"key"))),
    0xFF01: st.binary(max_size=3).map(lambda body: vector(1, body)),
    0x2A2A: st.binary(max_size=3),
    17: st.binary(max_size=3),
    60000: st.binary(max_size=3),
}
SERVER_CONTENT = {
    15: CONTENT[15],
    16: st.sampled_from((b"h2", b"http/1.1")).map(lambda name: vector(2, vector(1, name))),
    23: st.just(b""),
    35: st.just(b""),
    41: st.just(b"\0\0"),
    43: uint16.map(lambda version: struct.pack(">H", version)),
    51: uint16.map(lambda group: struct.pack(">H", group) + vector(2, b"key")),
    0xFF01: CONTENT[0xFF01],
    60000: CONTENT[60000],
}


def extension_lists(content: dict[int, st.SearchStrategy[bytes]]) -> st.SearchStrategy[bytes]:
    one = st.sampled_from(sorted(content)).flatmap(
        lambda kind: content[kind].map(lambda body: struct.pack(">H", kind) + vector(2, body))
    )
    return st.lists(one, max_size=8).map(b"".join)


@st.composite
def made(draw: st.DrawFn, kind: int) -> bytes:
    version = struct.pack(">H", draw(st.sampled_from((0x0300, 0x0301, 0x0303, 0x0304, 0x7F15, 0x7F1C))))
    number = draw(
        st.binary(min_size=32, max_size=32)
        | st.sampled_from((bytes(24) + b"DOWNGRD\1", HELLO_RETRY_REQUEST_RANDOM))
    )
    body = version + number + vector(1, draw(st.binary(max_size=32)))
    if kind == CLIENT:
        body += vector(2, draw(uints16)) + vector(1, draw(st.binary(max_size=2)))
    else:
        body += struct.pack(">HB", draw(uint16), draw(st.integers(0, 1)))
    extensions = draw(extension_lists(CONTENT if kind == CLIENT else SERVER_CONTENT))
    return body + vector(2, extensions) if draw(st.booleans()) else body


@settings(max_examples=200, deadline=None)
@given(made(CLIENT))
def test_any_client_hello(body):
    compare(hello, CLIENT, body)
    assert read_with(UNCOMPILED, CLIENT, body) == read_with(hello, CLIENT, body)


@settings(max_examples=100, deadline=None)
@given(made(SERVER))
def test_any_server_hello(body):
    compare(hello, SERVER, body)
    assert read_with(UNCOMPILED, SERVER, body) == read_with(hello, SERVER, body)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from((CLIENT, SERVER)), st.binary(max_size=400))
def test_any_bytes(kind, body):
    compare(hello, kind, body)
    assert read_with(UNCOMPILED, kind, body) == read_with(hello, kind, body)


def test_the_first_extension_of_a_type_counts():
    """RFC 8446 4.2: no type twice; servers differ in which they take, and the parser takes the first."""
    one, two = (vector(2, b"\0" + vector(2, name)) for name in (b"first.example", b"second.example"))
    extensions = b"".join(struct.pack(">H", 0) + vector(2, body) for body in (one, two))
    body = b"\3\3" + bytes(32) + b"\0" + vector(2, b"\x13\1") + vector(1, b"\0") + vector(2, extensions)
    facts, texts = read_with(hello, CLIENT, body)
    assert facts["FLAGS"] & hello.DUPLICATE
    assert texts[2] == b"first.example"


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) - 1])
def test_a_hello_as_large_as_they_are_kept(form, size):
    """Every list as long as it can be: nothing is written beyond the scratch space."""
    suites = struct.pack(">H", 0xC02F) * 32767
    body = b"\3\3" + bytes(32) + b"\0" + vector(2, suites)
    read_with(form, CLIENT, body[:size])
    one = struct.pack(">HH", 60000, 0)
    body = b"\3\3" + bytes(32) + b"\0" + vector(2, b"\x13\1") + vector(1, b"\0")
    body += vector(2, one * ((65535 - len(body) - 2) // 4))
    facts, texts = read_with(form, CLIENT, body[:size])
    assert facts["FLAGS"] & hello.DUPLICATE
    assert texts[5].startswith("t12i0199")


# SSL 2.0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((0x0002, 0x0300, 0x0303)),
    st.lists(
        st.sampled_from((0x010080, 0x00002F, 0x00C013, 0x005600, 0x0000FF)) | st.integers(0, 0xFFFFFF),
        max_size=8,
    ),
    st.sampled_from((b"", bytes(16))),
    st.integers(0, 20),
)
def test_ssl2_client_hello(version, kinds, session_id, cut):
    challenge = random.Random(version).randbytes(16)
    ciphers = b"".join(kind.to_bytes(3, "big") for kind in kinds)
    body = struct.pack(">HHHH", version, len(ciphers), len(session_id), 16) + ciphers + session_id + challenge
    for data in (body, body[: len(body) - cut]):
        message = parse_ssl2_client_hello(data)
        for reader in (hello, UNCOMPILED):
            texts = reader.ssl2_client_hello(memoryview(bytearray(data)), 0, len(data))
            facts = reader.FACTS
            assert message.malformed or not facts[Fact.FLAGS] & hello.MALFORMED
            if message.malformed is None:
                assert (texts.session_id, texts.random) == (message.session_id, message.challenge)
                suites = [kind for kind in message.cipher_kinds if kind < 0x10000]
                assert {name: int(facts[Fact[name]]) for name in hashes([])} == hashes(suites)
                assert bool(facts[Fact.FLAGS] & hello.FALLBACK_SCSV) == (0x5600 in suites)
                assert facts[Fact.VERSION] == facts[Fact.LEGACY_VERSION] == message.version


def test_a_hello_that_the_crafting_code_makes_is_read_as_it_was_meant():
    what = tls.ClientHello(
        noise=tls.Noise("hello"),
        versions=(tls.TLS13, tls.TLS12),
        alpn=("h2", "http/1.1"),
        scsv=True,
        heartbeat_mode=2,
        ticket=b"x",
    )
    facts, texts = read_with(hello, CLIENT, what.message()[4:])
    assert facts["VERSION"] == tls.TLS13
    assert facts["OFFERED"] == 0b11000
    assert facts["HEARTBEAT"] == 2
    for flag in ("FALLBACK_SCSV", "TICKET_FILLED", "ALPN_H2", "SUPPORTED_VERSIONS", "EXTENDED_MASTER_SECRET"):
        assert facts["FLAGS"] & getattr(hello, flag), flag
    assert (texts[2], texts[3]) == (b"server.example", b"\2h2\x08http/1.1")
    assert ja4_version(0x0303, (0x0304,)) == 0x0304
    assert texts[5].startswith("t13d")
