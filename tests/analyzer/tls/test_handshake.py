"""Hellos are read in full, and what can't be read never hides what can."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.tls import handshake
from analyzer.tls.cursor import Cursor, NeedMore
from analyzer.tls.handshake import (
    HELLO_RETRY_REQUEST_RANDOM,
    ClientHello,
    KeyShareEntry,
    OfferedPsks,
    parse_client_hello,
    parse_server_hello,
    parse_ssl2_client_hello,
    parse_ssl2_server_hello,
    pull_handshake_message,
)
from analyzer.wire.iana import ExtensionType, HandshakeType

RANDOM = bytes(range(32))


def vector(size, *parts):
    data = b"".join(parts)
    return len(data).to_bytes(size, "big") + data


def uints(size, *values):
    return b"".join(value.to_bytes(size, "big") for value in values)


def extension(number, *content):
    return uints(2, number) + vector(2, *content)


def client_hello(*extensions, ciphers=(0x1301,), session_id=b"", version=0x0303):
    hello = uints(2, version) + RANDOM + vector(1, session_id) + vector(2, uints(2, *ciphers)) + b"\x01\x00"
    return hello + vector(2, *extensions) if extensions else hello


def server_hello(*extensions, random=RANDOM, version=0x0303):
    hello = uints(2, version) + random + vector(1, b"id") + uints(2, 0x1301) + b"\x00"
    return hello + vector(2, *extensions) if extensions else hello


X = ExtensionType
ALPN = X.APPLICATION_LAYER_PROTOCOL_NEGOTIATION
# fmt: off
CLIENT_EXTENSIONS = [
    # number, content, field, value
    (X.SERVER_NAME,                vector(2, b"\0", vector(2, b"a.example")), "server_name", b"a.example"),
    (X.SERVER_NAME,                vector(2, b"\7", vector(2, b"x")), "server_name", b""),
    (X.MAX_FRAGMENT_LENGTH,        b"\x02", "max_fragment_length", 2),
    (X.STATUS_REQUEST,             b"\x01\0\0\0\0", "status_request", 1),
    (X.SUPPORTED_GROUPS,           vector(2, uints(2, 0x2A2A, 29)), "supported_groups", (0x2A2A, 29)),
    (X.EC_POINT_FORMATS,           b"\x02\0\x01", "ec_point_formats", (0, 1)),
    (X.SIGNATURE_ALGORITHMS,       vector(2, uints(2, 0x0403)), "signature_algorithms", (0x0403,)),
    (X.HEARTBEAT,                  b"\x01", "heartbeat", 1),
    (ALPN,                         vector(2, b"\x02h2\x03foo"), "alpn", (b"h2", b"foo")),
    (X.ENCRYPT_THEN_MAC,           b"", "encrypt_then_mac", True),
    (X.EXTENDED_MASTER_SECRET,     b"", "extended_master_secret", True),
    (X.COMPRESS_CERTIFICATE,       b"\x02\0\x02", "compress_certificate", (2,)),
    (X.RECORD_SIZE_LIMIT,          b"\x40\x01", "record_size_limit", 0x4001),
    (X.SESSION_TICKET,             b"", "session_ticket", b""),
    (X.SESSION_TICKET,             b"ticket", "session_ticket", b"ticket"),
    (X.EARLY_DATA,                 b"", "early_data", True),
    (X.SUPPORTED_VERSIONS,         b"\x04\x03\x04\x03\x03", "supported_versions", (0x0304, 0x0303)),
    (X.COOKIE,                     b"\0\x01c", "cookie", b"c"),
    (X.PSK_KEY_EXCHANGE_MODES,     b"\x01\x01", "psk_key_exchange_modes", (1,)),
    (X.SIGNATURE_ALGORITHMS_CERT,  vector(2, uints(2, 0x0804)), "signature_algorithms_cert", (0x0804,)),
    (X.RENEGOTIATION_INFO,         b"\x00", "renegotiation_info", b""),
    (X.KEY_SHARE,                  vector(2, uints(2, 29), vector(2, b"key")),
     "key_share", (KeyShareEntry(group=29, key_exchange=b"key"),)),
    (X.PRE_SHARED_KEY,             vector(2, vector(2, b"psk"), uints(4, 7)) + vector(2, b"\6binder"),
     "pre_shared_key", OfferedPsks(identities=((b"psk", 7),), binders=(b"binder",))),
    (X.PADDING,                    bytes(9), "other_extensions", ((X.PADDING, bytes(9)),)),
    (0x0A0A,                       b"\0", "other_extensions", ((0x0A0A, b"\0"),)),
]
SERVER_EXTENSIONS = [
    (X.MAX_FRAGMENT_LENGTH,        b"\x02", "max_fragment_length", 2),
    (X.TRUNCATED_HMAC,             b"", "truncated_hmac", True),
    (X.STATUS_REQUEST,             b"", "status_request", True),
    (X.EC_POINT_FORMATS,           b"\x01\0", "ec_point_formats", (0,)),
    (X.HEARTBEAT,                  b"\x02", "heartbeat", 2),
    (ALPN,                         b"\0\x03\x02h2", "alpn", (b"h2",)),
    (X.ENCRYPT_THEN_MAC,           b"", "encrypt_then_mac", True),
    (X.EXTENDED_MASTER_SECRET,     b"", "extended_master_secret", True),
    (X.SESSION_TICKET,             b"", "session_ticket", True),
    (X.PRE_SHARED_KEY,             b"\0\x01", "pre_shared_key", 1),
    (X.SUPPORTED_VERSIONS,         b"\x03\x04", "supported_version", 0x0304),
    (X.KEY_SHARE,                  b"\0\x1d\0\x01k", "key_share", KeyShareEntry(group=29, key_exchange=b"k")),
    (X.RENEGOTIATION_INFO,         b"\x00", "renegotiation_info", b""),
    (X.SERVER_NAME,                b"", "other_extensions", ((0, b""),)),
]
# fmt: on


def changed(message, empty):
    """The fields in which a message differs from one without extensions."""
    pairs = ((f.name, getattr(message, f.name), getattr(empty, f.name)) for f in dataclasses.fields(message))
    return {name: value for name, value, without in pairs if value != without and name != "extension_types"}


@pytest.mark.parametrize(("number", "content", "field", "value"), CLIENT_EXTENSIONS)
def test_client_extension(number, content, field, value):
    hello = parse_client_hello(client_hello(extension(number, content)))
    assert changed(hello, parse_client_hello(client_hello())) == {field: value}
    assert hello.extension_types == (number,)
    assert getattr(hello, field) == value


@pytest.mark.parametrize(("number", "content", "field", "value"), SERVER_EXTENSIONS)
def test_server_extension(number, content, field, value):
    hello = parse_server_hello(server_hello(extension(number, content)))
    assert changed(hello, parse_server_hello(server_hello())) == {field: value}
    assert hello.extension_types == (number,)


def test_every_extension_field_is_tested():
    for rows, table in (
        (CLIENT_EXTENSIONS, handshake._CLIENT_EXTENSIONS),
        (SERVER_EXTENSIONS, handshake._SERVER_EXTENSIONS),
    ):
        assert {row[2] for row in rows} >= {field for field, _ in table.values()}


def test_client_hello_without_extensions():
    hello = parse_client_hello(
        client_hello(ciphers=(0x0A0A, 0x002F, 0x00FF), session_id=b"s" * 32, version=0x0301)
    )
    assert hello == ClientHello(
        legacy_version=0x0301,
        random=RANDOM,
        session_id=b"s" * 32,
        cipher_suites=(0x0A0A, 0x002F, 0x00FF),
        compression_methods=(0,),
    )
    assert hello.sni is None


def test_extensions_keep_their_order():
    numbers = (0x3A3A, 43, 13172, 0, 21)
    hello = parse_client_hello(client_hello(*(extension(number) for number in numbers)))
    assert hello.extension_types == numbers


def test_of_a_repeated_extension_the_first_counts():
    first, second = (extension(X.COOKIE, vector(2, value)) for value in (b"first", b"second"))
    hello = parse_client_hello(client_hello(first, second))
    assert hello.cookie == b"first"
    assert hello.other_extensions == ((X.COOKIE, vector(2, b"second")),)
    assert hello.extension_types == (X.COOKIE, X.COOKIE)


def test_a_malformed_extension_does_not_hide_the_next():
    broken = extension(X.SUPPORTED_GROUPS, b"\x00\x03\x00\x1d\x00")
    hello = parse_client_hello(client_hello(broken, extension(X.HEARTBEAT, b"\x01")))
    assert hello.supported_groups is None
    assert hello.other_extensions == ((X.SUPPORTED_GROUPS, b"\x00\x03\x00\x1d\x00"),)
    assert hello.heartbeat == 1
    assert "supported_groups" in hello.malformed


def test_bytes_left_over_in_an_extension():
    hello = parse_client_hello(client_hello(extension(X.HEARTBEAT, b"\x01\x01")))
    assert hello.heartbeat is None
    assert hello.malformed == "extension heartbeat: heartbeat: 1 bytes left over"


def test_bytes_left_over_in_the_message():
    hello = parse_client_hello(client_hello(extension(X.HEARTBEAT, b"\x01")) + b"xy")
    assert hello.heartbeat == 1
    assert hello.malformed == "message: 2 bytes left over"


def test_an_extension_block_that_claims_too_much():
    body = client_hello(extension(X.HEARTBEAT, b"\x01"), extension(X.COOKIE, vector(2, b"c")))
    hello = parse_client_hello(body[:-1])
    assert hello.extension_types == (X.HEARTBEAT, X.COOKIE)
    assert hello.heartbeat == 1
    assert hello.cookie is None
    assert hello.malformed.startswith("extensions: 12 bytes needed, 11 there; extension cookie")


def test_sni_is_text_whatever_was_sent():
    name = vector(2, b"\0", vector(2, b"\xff\n.example"))
    assert parse_client_hello(client_hello(extension(X.SERVER_NAME, name))).sni == "\\xff\n.example"


def test_server_hello():
    hello = parse_server_hello(server_hello())
    assert (hello.legacy_version, hello.random, hello.session_id) == (0x0303, RANDOM, b"id")
    assert (hello.cipher_suite, hello.compression_method) == (0x1301, 0)
    assert (hello.version, hello.is_hello_retry_request, hello.malformed) == (0x0303, False, None)


def test_negotiated_version_is_the_extensions():
    assert parse_server_hello(server_hello(extension(43, b"\x03\x04"))).version == 0x0304


def test_hello_retry_request():
    body = server_hello(
        extension(43, b"\x03\x04"),
        extension(X.KEY_SHARE, uints(2, 24)),
        extension(X.COOKIE, vector(2, b"c")),
        random=HELLO_RETRY_REQUEST_RANDOM,
    )
    hello = parse_server_hello(body)
    assert hello.is_hello_retry_request
    assert hello.key_share == KeyShareEntry(group=24, key_exchange=b"")
    assert hello.cookie == b"c"
    assert hello.malformed is None


def test_server_hello_of_an_early_draft_of_tls_1_3():
    body = uints(2, 0x7F12) + RANDOM + uints(2, 0x1301) + vector(2, extension(X.PRE_SHARED_KEY, b"\0\0"))
    hello = parse_server_hello(body)
    assert (hello.cipher_suite, hello.pre_shared_key, hello.malformed) == (0x1301, 0, None)


def test_ssl2_client_hello():
    body = uints(2, 0x0002, 6, 0, 16) + bytes.fromhex("010080 00002f") + b"c" * 16
    hello = parse_ssl2_client_hello(body)
    assert (hello.version, hello.cipher_kinds, hello.session_id) == (0x0002, (0x010080, 0x00002F), b"")
    assert (hello.challenge, hello.malformed) == (b"c" * 16, None)
    assert parse_ssl2_client_hello(body[:-1]).malformed == "challenge: 16 bytes needed, 15 there"
    assert parse_ssl2_client_hello(body[:-1]).cipher_kinds == (0x010080, 0x00002F)


def test_ssl2_server_hello():
    body = b"\0\x01" + uints(2, 0x0002, 4, 3, 2) + b"cert" + bytes.fromhex("010080") + b"id"
    hello = parse_ssl2_server_hello(body)
    assert (hello.session_id_hit, hello.certificate_type, hello.version) == (0, 1, 0x0002)
    assert (hello.certificate, hello.cipher_kinds, hello.connection_id) == (b"cert", (0x010080,), b"id")
    assert hello.malformed is None


def test_handshake_message_off_a_stream():
    stream = b"\x01\x00\x00\x03abc\x0e\x00\x00\x00\x02"
    cursor = Cursor(stream, complete=False)
    first, second = pull_handshake_message(cursor), pull_handshake_message(cursor)
    assert (first.msg_type, first.body) == (HandshakeType.CLIENT_HELLO, b"abc")
    assert (second.msg_type, second.body) == (HandshakeType.SERVER_HELLO_DONE, b"")
    with pytest.raises(NeedMore):
        pull_handshake_message(cursor)


PARSERS = [parse_client_hello, parse_server_hello, parse_ssl2_client_hello, parse_ssl2_server_hello]
FULL_CLIENT_HELLO = client_hello(
    *{number: extension(number, content) for number, content, *_ in CLIENT_EXTENSIONS}.values()
)
FULL_SERVER_HELLO = server_hello(*(extension(number, content) for number, content, *_ in SERVER_EXTENSIONS))


@pytest.mark.parametrize(
    ("parse", "body"), [(parse_client_hello, FULL_CLIENT_HELLO), (parse_server_hello, FULL_SERVER_HELLO)]
)
def test_truncated_at_every_byte(parse, body):
    """Whatever is left is a part of the whole, and the loss is said, except between body and extensions."""
    whole = parse(body)
    assert whole.malformed is None
    without_extensions = len(client_hello() if parse is parse_client_hello else server_hello())
    for size in range(len(body)):
        part = parse(body[:size])
        assert (part.malformed is None) == (size == without_extensions)
        assert part.extension_types == whole.extension_types[: len(part.extension_types)]
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if (
                field.name not in ("malformed", "extension_types", "other_extensions")
                and value != field.default
            ):
                assert value == getattr(whole, field.name)


@given(st.sampled_from(PARSERS), st.binary(max_size=300))
def test_any_bytes(parse, body):
    parse(body)


@given(st.integers(0, len(FULL_CLIENT_HELLO) - 1), st.binary(min_size=1, max_size=4))
def test_a_valid_hello_with_bytes_overwritten(at, junk):
    parse_client_hello(FULL_CLIENT_HELLO[:at] + junk + FULL_CLIENT_HELLO[at + len(junk) :])


def test_a_hello_of_malformed_extensions_says_so_briefly():
    hello = parse_client_hello(client_hello(*(extension(X.COOKIE, b"\0") for _ in range(10_000))))
    assert len(hello.malformed) < 1000
    assert len(hello.other_extensions) == 10_000
