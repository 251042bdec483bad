"""Properties of cipher suites follow from their names; record lengths follow from the properties."""

import doctest
import re
import shutil
import subprocess

import numpy as np
import pytest

from analyzer.wire import suite_properties as module
from analyzer.wire.cipher_suites import CIPHER_SUITES, UNREGISTERED_CIPHER_SUITES
from analyzer.wire.iana import GREASE, ProtocolVersion
from analyzer.wire.suite_properties import KX_CLASS, KeyExchange, Mode, record_length, suite_properties

SSL3, TLS1_0, TLS1_1 = ProtocolVersion.SSL3, ProtocolVersion.TLS1_0, ProtocolVersion.TLS1_1
TLS1_2, TLS1_3 = ProtocolVersion.TLS1_2, ProtocolVersion.TLS1_3
CODES = {name: code for code, name in CIPHER_SUITES.items()}


def test_examples():
    assert doctest.testmod(module).failed == 0


def test_every_named_suite_has_properties():
    for code, name in (CIPHER_SUITES | UNREGISTERED_CIPHER_SUITES).items():
        properties = suite_properties(code)
        if name.endswith("_SCSV"):
            assert properties is None
            continue
        assert (properties.code, properties.name) == (code, name)
        assert properties.key_exchange != KeyExchange.UNKNOWN
        assert properties.export == ("EXPORT" in name)
        assert (properties.block_bytes > 0) == (properties.mode == Mode.CBC)
        assert (properties.tag_bytes > 0) == (properties.mode == Mode.AEAD)
        assert properties.export <= (properties.key_bits <= 56)


@pytest.mark.parametrize("code", [*sorted(GREASE), 0x00FF, 0x5600, 0x1234, 0xFFFF])
def test_unknown_has_none(code):
    assert suite_properties(code) is None
    assert record_length(1, code, TLS1_2) is None
    assert KX_CLASS[code] == KeyExchange.UNKNOWN


# fmt: off
PROPERTIES = [
    # name, key exchange, authentication, cipher, bits, mode
    ("RSA_EXPORT_WITH_RC4_40_MD5",            "RSA_EXPORT", "RSA",    "RC4_40",            40,  Mode.STREAM),
    ("DHE_DSS_EXPORT_WITH_DES40_CBC_SHA",     "DHE",        "DSS",    "DES40_CBC",         40,  Mode.CBC),
    ("DH_anon_EXPORT_WITH_RC4_40_MD5",        "DH_ANON",    "anon",   "RC4_40",            40,  Mode.STREAM),
    ("KRB5_EXPORT_WITH_RC2_CBC_40_MD5",       "KRB5",       "KRB5",   "RC2_CBC_40",        40,  Mode.CBC),
    ("ECDH_ECDSA_WITH_NULL_SHA",              "ECDH",       "ECDSA",  "NULL",              0,   Mode.NULL),
    ("RSA_WITH_3DES_EDE_CBC_SHA",             "RSA",        "RSA",    "3DES_EDE_CBC",      112, Mode.CBC),
    ("ECDHE_ECDSA_WITH_AES_128_CCM_8",        "ECDHE",      "ECDSA",  "AES_128_CCM_8",     128, Mode.AEAD),
    ("PSK_DHE_WITH_AES_256_CCM_8",            "DHE_PSK",    "PSK",    "AES_256_CCM_8",     256, Mode.AEAD),
    ("RSA_PSK_WITH_CHACHA20_POLY1305_SHA256", "RSA_PSK",    "RSA",    "CHACHA20_POLY1305", 256, Mode.AEAD),
    ("SRP_SHA_DSS_WITH_AES_256_CBC_SHA",      "SRP_DSS",    "DSS",    "AES_256_CBC",       256, Mode.CBC),
    ("GOSTR341112_256_WITH_28147_CNT_IMIT",   "GOST",       "GOST12", "28147_CNT",         256, Mode.STREAM),
    ("GOSTR341112_256_WITH_MAGMA_MGM_S",      "TLS13",      "",       "MAGMA_MGM_S",       256, Mode.AEAD),
    ("AES_128_CCM_8_SHA256",                  "TLS13",      "",       "AES_128_CCM_8",     128, Mode.AEAD),
    ("SHA256_SHA256",                         "TLS13",      "",       "SHA256",            0,   Mode.AEAD),
    ("NULL_WITH_NULL_NULL",                   "NULL",       "anon",   "NULL",              0,   Mode.NULL),
]
# fmt: on


@pytest.mark.parametrize(("name", "exchange", "authentication", "cipher", "bits", "mode"), PROPERTIES)
def test_properties(name, exchange, authentication, cipher, bits, mode):
    properties = suite_properties(CODES[f"TLS_{name}"])
    assert properties.key_exchange.name == exchange
    assert properties.authentication == authentication
    assert (properties.cipher, properties.key_bits, properties.mode) == (cipher, bits, mode)


# fmt: off
LENGTHS = [
    # plaintext, suite, version, length; 16 is a Finished, 2 an alert, 4 a HelloRequest
    (16, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",         TLS1_2, 40),
    (16, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",   TLS1_2, 32),
    (16, "TLS_RSA_WITH_AES_128_CCM",                      TLS1_2, 40),
    (16, "TLS_RSA_WITH_AES_128_CCM_8",                    TLS1_2, 32),
    (16, "TLS_RSA_WITH_AES_128_CBC_SHA",                  TLS1_2, 64),
    (16, "TLS_RSA_WITH_AES_128_CBC_SHA",                  TLS1_1, 64),
    (16, "TLS_RSA_WITH_AES_128_CBC_SHA",                  TLS1_0, 48),
    (40, "TLS_RSA_WITH_AES_128_CBC_SHA",                  SSL3,   64),
    (16, "TLS_RSA_WITH_AES_128_CBC_SHA256",               TLS1_2, 80),
    (16, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",         TLS1_2, 96),
    (16, "TLS_RSA_WITH_3DES_EDE_CBC_SHA",                 TLS1_2, 48),
    (16, "TLS_RSA_WITH_3DES_EDE_CBC_SHA",                 TLS1_0, 40),
    (16, "TLS_RSA_WITH_RC4_128_SHA",                      TLS1_0, 36),
    (16, "TLS_RSA_WITH_RC4_128_MD5",                      TLS1_0, 32),
    (16, "TLS_RSA_WITH_NULL_SHA256",                      TLS1_2, 48),
    (16, "TLS_NULL_WITH_NULL_NULL",                       TLS1_2, 16),
    (2,  "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",         TLS1_2, 26),
    (4,  "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",         TLS1_2, 28),
    (2,  "TLS_AES_128_GCM_SHA256",                        TLS1_3, 19),
    (5,  "TLS_AES_128_GCM_SHA256",                        TLS1_3, 22),  # KeyUpdate
    (36, "TLS_AES_128_GCM_SHA256",                        TLS1_3, 53),  # Finished alone
    (52, "TLS_AES_256_GCM_SHA384",                        TLS1_3, 69),
    (0,  "TLS_AES_128_CCM_8_SHA256",                      TLS1_3, 9),
    (0,  "TLS_SHA384_SHA384",                             TLS1_3, 49),
    (16, "TLS_GOSTR341112_256_WITH_28147_CNT_IMIT",       TLS1_2, 20),
    (16, "TLS_GOSTR341112_256_WITH_MAGMA_CTR_OMAC",       TLS1_2, 24),
    (16, "TLS_GOSTR341112_256_WITH_KUZNYECHIK_CTR_OMAC",  TLS1_2, 32),
]
# fmt: on


@pytest.mark.parametrize(("plaintext", "name", "version", "length"), LENGTHS)
def test_record_length(plaintext, name, version, length):
    assert record_length(plaintext, CODES[name], version) == length


def test_cbc_lengths_are_the_formula_of_the_rfcs():
    for plaintext in range(0, 70):
        for name, block, mac in (
            ("TLS_RSA_WITH_AES_128_CBC_SHA", 16, 20),
            ("TLS_RSA_WITH_DES_CBC_SHA", 8, 20),
            ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", 16, 48),
        ):
            blocks = -(-(plaintext + mac + 1) // block)
            assert record_length(plaintext, CODES[name], TLS1_0) == block * blocks
            assert record_length(plaintext, CODES[name], TLS1_2) == block + block * blocks
            blocks = -(-(plaintext + 1) // block)
            assert record_length(plaintext, CODES[name], TLS1_2, True) == block + block * blocks + mac


def test_extensions_change_only_what_they_concern():
    aead = CODES["TLS_RSA_WITH_AES_128_GCM_SHA256"]
    stream = CODES["TLS_RSA_WITH_RC4_128_SHA"]
    cbc = CODES["TLS_RSA_WITH_AES_128_CBC_SHA"]
    for code in (aead, stream):
        assert record_length(16, code, TLS1_2, True) == record_length(16, code, TLS1_2)
    assert record_length(16, cbc, TLS1_2, True) == 16 + 32 + 20
    assert record_length(16, aead, TLS1_2, truncated_hmac=True) == 40
    assert record_length(16, stream, TLS1_2, truncated_hmac=True) == 26
    assert record_length(16, cbc, TLS1_2, truncated_hmac=True) == 16 + 32


def test_lookup_arrays():
    for table in (KX_CLASS, module.MODE, module.BLOCK_BYTES, module.MAC_BYTES, module.TAG_BYTES):
        assert table.shape == (65536,)
        assert table.dtype == np.uint8
        assert not table.flags.writeable
    assert KX_CLASS[CODES["TLS_RSA_EXPORT_WITH_RC4_40_MD5"]] == KeyExchange.RSA_EXPORT
    assert KX_CLASS[CODES["TLS_DHE_RSA_EXPORT_WITH_DES40_CBC_SHA"]] == KeyExchange.DHE
    assert module.BLOCK_BYTES[CODES["TLS_RSA_WITH_3DES_EDE_CBC_SHA"]] == 8
    assert module.EXPLICIT_NONCE_BYTES[CODES["TLS_RSA_WITH_AES_128_GCM_SHA256"]] == 8


# openssl's words for the same things
KX = {
    "RSA": {"RSA"}, "DH": {"DHE", "DH_ANON"}, "ECDH": {"ECDHE", "ECDH_ANON"}, "any": {"TLS13"},
    "PSK": {"PSK"}, "RSAPSK": {"RSA_PSK"}, "DHEPSK": {"DHE_PSK"}, "ECDHEPSK": {"ECDHE_PSK"},
    "SRP": {"SRP", "SRP_RSA", "SRP_DSS"},
}  # fmt: skip
AUTHENTICATION = {
    "RSA": "RSA",
    "DSS": "DSS",
    "ECDSA": "ECDSA",
    "PSK": "PSK",
    "None": "anon",
    "SRP": "SRP",
    "any": "",
}
ENCRYPTION = {
    "AESGCM": "AES_{}_GCM", "AESCCM": "AES_{}_CCM", "AESCCM8": "AES_{}_CCM_8", "AES": "AES_{}_CBC",
    "Camellia": "CAMELLIA_{}_CBC", "ARIAGCM": "ARIA_{}_GCM", "CHACHA20/POLY1305": "CHACHA20_POLY1305",
    "None": "NULL", "SEED": "SEED_CBC", "3DES": "3DES_EDE_CBC", "IDEA": "IDEA_CBC", "RC4": "RC4_128",
}  # fmt: skip


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees():
    command = ["openssl", "ciphers", "-stdname", "-V", "ALL:COMPLEMENTOFALL@SECLEVEL=0"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) > 100
    for line in lines:
        code, _, name = line.split()[:3]
        theirs = dict(word.split("=") for word in line.split() if "=" in word)
        properties = suite_properties(int(code[2:4] + code[7:9], 16))
        assert properties.key_exchange.name in KX[theirs["Kx"]], name
        if properties.key_exchange != KeyExchange.RSA_PSK:
            assert properties.authentication == AUTHENTICATION[theirs["Au"]], name
        cipher, bits = re.fullmatch(r"([^(]+)(?:\((\d+)\))?", theirs["Enc"]).groups()
        assert properties.cipher == ENCRYPTION[cipher].format(bits), name
        if theirs["Mac"] == "AEAD":
            assert properties.mode == Mode.AEAD
        else:
            assert properties.mac == {"SHA1": "SHA"}.get(theirs["Mac"], theirs["Mac"])
