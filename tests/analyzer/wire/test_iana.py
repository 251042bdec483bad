"""Registries give the names that tshark knows, and numbers survive where there is no name."""

import doctest
import functools
import shutil
import subprocess

import pytest

from analyzer.wire import iana
from analyzer.wire.iana import (
    GREASE,
    AlertDescription,
    AlertLevel,
    CompressionMethod,
    ContentType,
    ECPointFormat,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    ProtocolVersion,
    SignatureScheme,
    cipher_suite_name,
    name_of,
    ssl2_cipher_kind_name,
)

REGISTRIES = [
    value for value in vars(iana).values() if isinstance(value, type) and value.__module__ == iana.__name__
]


def test_examples():
    assert doctest.testmod(iana).failed == 0


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_name_is_unique(registry):
    names = [name_of(registry, member) for member in registry]
    assert len(set(names)) == len(names)
    assert len(registry.__members__) == len(registry)  # no alias


# fmt: off
NAMES = [
    (ContentType,       23,     "application_data"),
    (ContentType,       99,     "ContentType(99)"),
    (HandshakeType,     254,    "message_hash"),
    (AlertLevel,        2,      "fatal"),
    (AlertLevel,        3,      "AlertLevel(3)"),
    (AlertDescription,  40,     "handshake_failure"),
    (ExtensionType,     16,     "application_layer_protocol_negotiation"),
    (ExtensionType,     0x1A1A, "GREASE(0x1a1a)"),
    (ExtensionType,     4660,   "ExtensionType(0x1234)"),
    (NamedGroup,        29,     "x25519"),
    (NamedGroup,        4588,   "X25519MLKEM768"),
    (NamedGroup,        31,     "brainpoolP256r1tls13"),
    (SignatureScheme,   0x0804, "rsa_pss_rsae_sha256"),
    (SignatureScheme,   0x081A, "ecdsa_brainpoolP256r1tls13_sha256"),
    (ProtocolVersion,   0x0002, "SSLv2"),
    (ProtocolVersion,   0x0300, "SSLv3"),
    (ProtocolVersion,   0x0301, "TLSv1.0"),
    (ProtocolVersion,   0x0304, "TLSv1.3"),
    (ProtocolVersion,   0x7F12, "TLSv1.3-draft18"),
    (ProtocolVersion,   0x0305, "ProtocolVersion(0x0305)"),
    (ProtocolVersion,   0xFAFA, "GREASE(0xfafa)"),
    (CompressionMethod, 1,      "DEFLATE"),
]
# fmt: on


@pytest.mark.parametrize(("registry", "value", "name"), NAMES)
def test_name_of(registry, value, name):
    assert name_of(registry, value) == name


def test_grease():
    assert len(GREASE) == 16
    assert all(value >> 8 == value & 0xFF and value & 0x0F == 0x0A for value in GREASE)
    assert {0x0A0A, 0xFAFA} <= GREASE
    assert sorted(iana.GREASE_PSK_MODES) == [0x0B, 0x2A, 0x49, 0x68, 0x87, 0xA6, 0xC5, 0xE4]  # RFC 8701 2


def test_cipher_suite_names():
    assert cipher_suite_name(0xC02F) == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert cipher_suite_name(0xCC13) == "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256_OLD"
    assert ssl2_cipher_kind_name(0x0700C0) == "SSL_CK_DES_192_EDE3_CBC_WITH_MD5"


@functools.cache
def tshark_values():
    command = ["tshark", "-G", "values"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def tshark_names(field):
    """Number -> name, as `tshark -G values` prints the value strings of a field."""
    rows = (line.split("\t") for line in tshark_values() if line.startswith(f"V\t{field}\t"))
    return {int(value, 0): name for _, _, value, name in rows}


def normal(name):
    return name.lower().replace(" ", "_").replace("-", "_")


# Where tshark 4.0 differs, and why.
OTHER_WORDS = {
    (ExtensionType, "delegated_credentials"): "delegated_credential",  # the draft's name
    (ExtensionType, "reserved_(key_share)"): "key_share_draft",
    (ExtensionType, "reserved_(ticket_early_data_info)"): "ticket_early_data_info",
    (ExtensionType, "connection_id_(deprecated)"): "connection_id_deprecated",
    (ExtensionType, "quic_transport_parameters_(drafts_version)"): "quic_transport_parameters_draft",
    (ContentType, "connection_id"): "tls12_cid",
}


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize(
    ("registry", "field"),
    [
        (ContentType, "tls.record.content_type"),
        (AlertLevel, "tls.alert_message.level"),
        (AlertDescription, "tls.alert_message.desc"),
        (ExtensionType, "tls.handshake.extension.type"),
        (NamedGroup, "tls.handshake.extensions_supported_group"),
        (SignatureScheme, "tls.handshake.sig_hash_alg"),
        (CompressionMethod, "tls.handshake.comp_method"),
        (ECPointFormat, "tls.handshake.extensions_ec_point_format"),
    ],
)
def test_tshark_agrees(registry, field):
    theirs = tshark_names(field)
    if registry is NamedGroup:  # 0x0200 to 0x2fff: experiments of liboqs on numbers that IANA gave to others
        theirs = {value: name for value, name in theirs.items() if not 0x0200 <= value <= 0x2FFF}
    if registry is SignatureScheme:  # private use: experiments of liboqs
        theirs = {value: name for value, name in theirs.items() if value < 0xFE00}
    assert theirs
    for value, name in theirs.items():
        if value in GREASE:
            continue
        expected = OTHER_WORDS.get((registry, normal(name)), normal(name))
        assert normal(name_of(registry, value)) == expected
