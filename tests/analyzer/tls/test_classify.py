"""What a suite's key exchange and cipher make of a handshake's messages, by what its name says."""

from __future__ import annotations

import re

import pytest

from analyzer.tls import classify
from analyzer.tls.classify import (
    CERTIFICATE_FORBIDDEN,
    CERTIFICATE_REQUIRED,
    CLEAR,
    EVERY_VERSION,
    KEY_EXCHANGE_FORBIDDEN,
    KEY_EXCHANGE_REQUIRED,
    REQUEST_FORBIDDEN,
    RULES,
    SSL3,
)
from analyzer.wire.iana import cipher_suite_name

NAMES = {code: cipher_suite_name(code) for code in range(0x10000)}
SUITES = {code: name for code, name in NAMES.items() if re.match(r"TLS_.+_WITH_", name)}
PAIRS = (
    (CERTIFICATE_REQUIRED, CERTIFICATE_FORBIDDEN),
    (KEY_EXCHANGE_REQUIRED, KEY_EXCHANGE_FORBIDDEN),
)


def key_exchange(name: str) -> str:
    return re.fullmatch(r"TLS_(.+)_WITH_.+", name)[1]


def test_most_suites_are_named():
    assert len(SUITES) > 300


@pytest.mark.parametrize(
    ("pattern", "required", "forbidden"),
    [
        # key exchange           what must come                                  what must not
        (r"RSA",                 CERTIFICATE_REQUIRED,                           KEY_EXCHANGE_FORBIDDEN),
        (r"RSA_EXPORT(1024)?",   CERTIFICATE_REQUIRED,                           0),
        (r"(EC)?DHE_(RSA|DSS|ECDSA)(_EXPORT)?", CERTIFICATE_REQUIRED | KEY_EXCHANGE_REQUIRED, 0),
        (r"(EC)?DH_(RSA|DSS|ECDSA)(_EXPORT)?", CERTIFICATE_REQUIRED,             KEY_EXCHANGE_FORBIDDEN),
        (r"(EC)?DH_anon(_EXPORT)?", KEY_EXCHANGE_REQUIRED,                       CERTIFICATE_FORBIDDEN | REQUEST_FORBIDDEN),
        (r"PSK",                 0,                                              CERTIFICATE_FORBIDDEN | REQUEST_FORBIDDEN),
        (r"RSA_PSK",             CERTIFICATE_REQUIRED,                           0),
        (r"(EC)?DHE_PSK",        KEY_EXCHANGE_REQUIRED,                          CERTIFICATE_FORBIDDEN | REQUEST_FORBIDDEN),
        (r"SRP_SHA",             KEY_EXCHANGE_REQUIRED,                          CERTIFICATE_FORBIDDEN | REQUEST_FORBIDDEN),
        (r"SRP_SHA_(RSA|DSS)",   CERTIFICATE_REQUIRED | KEY_EXCHANGE_REQUIRED,   REQUEST_FORBIDDEN),
    ],
)  # fmt: skip
def test_messages_of_a_key_exchange(pattern, required, forbidden):
    """RFC 5246 7.3, RFC 4279 2 to 4, RFC 5489 2, RFC 5054 2.2."""
    some = 0
    for code, name in SUITES.items():
        if re.fullmatch(pattern, key_exchange(name)):
            some += 1
            flags = int(RULES[code]) & ~(CLEAR | EVERY_VERSION | SSL3)
            assert flags == required | forbidden, name
    assert some


def test_a_suite_that_does_not_encrypt_leaves_bodies_in_clear():
    for code, name in SUITES.items():
        assert bool(RULES[code] & CLEAR) == ("_WITH_NULL_" in name), name


def test_what_stays_in_the_offer_of_a_client_that_falls_back():
    """TLS 1.0 has no AEAD and no SHA-2; SSL 3.0 has no elliptic curves and no PSK either."""
    for code, name in SUITES.items():
        if RULES[code] & EVERY_VERSION:
            assert re.search(r"_(SHA|MD5)$", name), name
            assert not re.search(r"GCM|CCM|CHACHA", name), name
        if RULES[code] & SSL3:
            assert RULES[code] & EVERY_VERSION
            assert not re.search(r"ECDH|PSK|SRP", name), name
    for code in (0x002F, 0x0035, 0x000A, 0x0016, 0x0005):
        assert RULES[code] & SSL3
    for code in (0xC013, 0xC014, 0xC009):
        assert RULES[code] & EVERY_VERSION
        assert not RULES[code] & SSL3


def test_nothing_is_demanded_of_a_suite_that_nobody_has_named_nor_of_tls13():
    without = [code for code, name in NAMES.items() if "_WITH_" not in name]
    assert {0x1301, 0x1302, 0x1303, 0x0A0A, 0x5600, 0x00FF, 0xFFFF} < set(without)
    assert not RULES[without].any()


def test_no_suite_both_demands_and_forbids():
    for one, other in PAIRS:
        assert not ((RULES & one != 0) & (RULES & other != 0)).any()
    assert RULES.dtype.itemsize == 1
    assert len(classify.RULES) == 0x10000
