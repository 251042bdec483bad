"""JA3, JA3S and JA4 equal what their authors published."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.tls import fingerprint
from analyzer.tls.fingerprint import (
    client_hello_ja3,
    client_hello_ja4,
    ja3,
    ja3_string,
    ja3s,
    ja3s_string,
    ja4,
    ja4_raw,
    ja4_version,
)
from analyzer.tls.handshake import parse_client_hello
from analyzer.wire.iana import GREASE

# salesforce/ja3 README
JA3_PUBLISHED = [
    (
        "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0",
        "ada70206e40642a3e4461f35503241d5",
    ),
    ("769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6"),
]
JA3S_PUBLISHED = ("769,47,65281-0-11-35-5-16", "836ce314215654b5b1f85f97c73e506f")


def numbers(text):
    return [int(number) for number in text.split("-")] if text else []


def test_examples():
    assert doctest.testmod(fingerprint).failed == 0


@pytest.mark.parametrize(("string", "md5"), JA3_PUBLISHED)
def test_ja3_published(string, md5):
    version, *lists = string.split(",")
    values = (int(version), *map(numbers, lists))
    assert ja3_string(*values) == string
    assert ja3(*values) == md5


def test_ja3s_published():
    string, md5 = JA3S_PUBLISHED
    version, cipher, extensions = string.split(",")
    assert ja3s_string(int(version), int(cipher), numbers(extensions)) == string
    assert ja3s(int(version), int(cipher), numbers(extensions)) == md5


def test_ja3_without_extensions():
    assert ja3_string(768, [4, 5], [], [], []) == "768,4-5,,,"
    assert ja3s_string(768, 4, []) == "768,4,"


@given(grease=st.lists(st.sampled_from(sorted(GREASE)), min_size=1), at=st.integers(0, 3))
def test_grease_changes_nothing(grease, at):
    suites, extensions, groups, schemes = [0x1301, 0xC02F, 0x002F], [0, 10, 43], [29, 23], [0x0403, 0x0804]
    greased = [[*values[:at], *grease, *values[at:]] for values in (suites, extensions, groups, schemes)]
    assert ja3(771, *greased[:3], [0]) == ja3(771, suites, extensions, groups, [0])
    assert ja3s(771, 0x1301, greased[1]) == ja3s(771, 0x1301, extensions)
    assert ja4(771, True, greased[0], greased[1], greased[3], b"h2") == ja4(
        771, True, suites, extensions, schemes, b"h2"
    )


# FoxIO-LLC/ja4 technical_details/JA4.md, in the order of its JA4_ro
CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
EXTENSIONS = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
SCHEMES = "0403,0804,0401,0503,0805,0501,0806,0601"
PUBLISHED_RAW = (
    "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_"
    "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_"
    "0403,0804,0401,0503,0805,0501,0806,0601"
)


def codes(text):
    return [int(code, 16) for code in text.split(",")]


def test_ja4_published():
    values = (0x0304, True, codes(CIPHERS), codes(EXTENSIONS), codes(SCHEMES), b"h2")
    assert ja4(*values) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4_raw(*values) == PUBLISHED_RAW


def test_ja4_without_signature_algorithms():
    """The published hash of the extension list alone, without an underscore behind it."""
    assert ja4(0x0304, True, [], codes(EXTENSIONS), [], b"h2").endswith("_6d807ffa2a79")


# FoxIO-LLC/ja4: the first ClientHello of pcap/tls-sni.pcapng and of pcap/socks-https-example.pcap, whose
# fingerprints are in python/test/testdata.
TLS_SNI = (
    "03030f9e38acb9a54a7c6e00e29a70ac2feee180ff76d7f25dca84932a66a42d1e5a20bc58b92f865e6b9aa4a6371cadcb0afe1da1"
    "c0f705209a11d52357f56d5dd9620020aaaa130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035010001939a"
    "9a0000ff010001000033002b00290a0a000100001d0020cf55af2603e92f59eb321779706a18fa6b96b16c16404c2264ed687a5940"
    "1878002d00020101000500050100000000446900050003026832000d00120010040308040401050308050501080606010010000e00"
    "0c02683208687474702f312e3100230000001b0003020002002b0007060a0a0304030300000022002000001d636c69656e74736572"
    "76696365732e676f6f676c65617069732e636f6d00120000000a000a00080a0a001d0017001800170000000b000201006a6a000100"
    "001500ba" + "00" * 186
)
SOCKS_HTTPS = (
    "0301529cbff829e8f23edf4bb09e1feaadd0131b7bc56eab3d7567b17e0374bd6b7500002e00390038003500160013000a00330032"
    "002f009a00990096000500040015001200090014001100080006000300ff0100001800000014001200000f7777772e6578616d706c"
    "652e636f6d"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (TLS_SNI, "t13d1516h2_8daaf6152771_e5627efa2ab1"),
        (SOCKS_HTTPS, "t10d230100_6a57a6f57151_000000000000"),
    ],
)
def test_ja4_of_published_captures(body, expected):
    hello = parse_client_hello(bytes.fromhex(body))
    assert hello.malformed is None
    assert client_hello_ja4(hello) == expected


def test_ja3_of_a_parsed_hello():
    hello = parse_client_hello(bytes.fromhex(SOCKS_HTTPS))
    suites = "57-56-53-22-19-10-51-50-47-154-153-150-5-4-21-18-9-20-17-8-6-3-255"
    assert client_hello_ja3(hello) == ja3(769, numbers(suites), [0], [], [])


# fmt: off
ALPN = [  # JA4.md, "ALPN Extension Value"
    (b"h2",               "h2"),
    (b"http/1.1",         "h1"),
    (b"",                 "00"),
    (b"x",                "xx"),
    (b"\xab",             "ab"),
    (b"\xab\xcd",         "ad"),
    (b"\x30\xab",         "3b"),
    (b"\x30\x31\xab\xcd", "3d"),
    (b"\x30\xab\xcd\x31", "01"),
    (b"h\xc3",            "63"),
]
VERSIONS = [
    (0x0304, "13"), (0x0303, "12"), (0x0302, "11"), (0x0301, "10"), (0x0300, "s3"), (0x0002, "s2"),
    (0xFEFF, "d1"), (0xFEFD, "d2"), (0xFEFC, "d3"), (0x7F1C, "00"), (0x0305, "00"),
]
SUPPORTED_VERSIONS = [
    # legacy_version, supported_versions, what JA4 shows
    (0x0303, None,                     0x0303),
    (0x0303, (),                       0x0303),
    (0x0303, (0xFAFA, 0x0304, 0x0303), 0x0304),
    (0x0303, (0x0301, 0x0302),         0x0302),
    (0x0303, (0x0A0A,),                0x0303),
]
# fmt: on


@pytest.mark.parametrize(("alpn", "shown"), ALPN)
def test_ja4_alpn(alpn, shown):
    assert ja4(0x0303, False, [], [], [], alpn)[8:10] == shown


@pytest.mark.parametrize(("version", "shown"), VERSIONS)
def test_ja4_versions(version, shown):
    assert ja4(version, False, [], [], [], b"")[1:3] == shown


@pytest.mark.parametrize(("legacy", "supported", "version"), SUPPORTED_VERSIONS)
def test_ja4_takes_the_highest_supported_version(legacy, supported, version):
    assert ja4_version(legacy, supported) == version


def test_ja4_first_part():
    assert ja4(0x0304, False, [], [], [], b"", transport="q") == "q13i000000_000000000000_000000000000"
    assert ja4(0x0303, True, [1] * 100, [0] * 100, [], b"").startswith("t12d999900_")
