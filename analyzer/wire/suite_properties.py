"""What a cipher suite's name says: key exchange, cipher, and how long its records are.

In:  a cipher suite code.
Out: SuiteProperties; record_length(); KX_CLASS and the other lookup arrays, indexed by the code.
Source: RFC 5246 6.2.3 and 7.3, RFC 8446 5.2, RFC 7366 (encrypt-then-MAC), RFC 6066 7 (truncated_hmac), and
for each cipher the RFC that the registry names.

Properties are parsed out of the name, never listed a second time. A suite that has no name has no properties.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.wire.cipher_suites import CIPHER_SUITES, UNREGISTERED_CIPHER_SUITES
from analyzer.wire.iana import ProtocolVersion


class KeyExchange(IntEnum):
    """What decides which messages a handshake must, may and must not have."""

    UNKNOWN = 0
    """A suite without a name here, or one that only signals (SCSV)."""
    TLS13 = 1
    """A TLS 1.3 suite says nothing about the key exchange."""
    RSA = 2
    RSA_EXPORT = 3
    DH = 4
    """Static, the key in the certificate."""
    ECDH = 5
    DHE = 6
    """Ephemeral and signed."""
    ECDHE = 7
    DH_ANON = 8
    ECDH_ANON = 9
    PSK = 10
    RSA_PSK = 11
    DHE_PSK = 12
    ECDHE_PSK = 13
    SRP = 14
    SRP_RSA = 15
    SRP_DSS = 16
    KRB5 = 17
    GOST = 18
    ECCPWD = 19
    ECJPAKE = 20
    FORTEZZA = 21
    TLCP = 22
    """The key exchanges of GB/T 38636."""
    NULL = 23
    """TLS_NULL_WITH_NULL_NULL, with which a connection begins."""


class Mode(IntEnum):
    """How a record is protected."""

    UNKNOWN = 0
    NULL = 1
    """A MAC, no encryption."""
    STREAM = 2
    CBC = 3
    AEAD = 4


class SuiteProperties(NamedTuple):
    """A cipher suite, taken apart."""

    code: int
    name: str
    key_exchange: KeyExchange
    key_exchange_name: str
    """As in the name, DHE_RSA for example; empty for a TLS 1.3 suite."""
    authentication: str
    """RSA, DSS, ECDSA, PSK, anon, ...: what proves the server; empty for a TLS 1.3 suite."""
    export: bool
    tls13: bool
    """Only for TLS 1.3, which the others are not for."""
    cipher: str
    """AES_128, 3DES_EDE, NULL, ..."""
    key_bits: int
    """Effective strength of the key: 40 for an export suite, 112 for 3DES."""
    mode: Mode
    block_bytes: int
    """0 for what is not CBC."""
    mac: str
    """The name's last word: the MAC's hash, with AEAD that of the key derivation; empty if it isn't named."""
    mac_bytes: int
    """0 with AEAD."""
    tag_bytes: int
    """Authentication tag of AEAD, 0 otherwise."""
    explicit_nonce_bytes: int
    """Part of the nonce that every TLS 1.2 record carries, 0 without one."""


# fmt: off
_MAC_BYTES: Final = {
    "MD5": 16, "SHA": 20, "SHA1": 20, "SHA256": 32, "SHA384": 48, "SM3": 32, "GOSTR3411": 32,
    "IMIT": 4,   # RFC 9189 4.2.3
    "OMAC": 16,  # RFC 9189 4.1: the cipher's block, so 8 for Magma
    "NULL": 0,
}

_CIPHERS: Final = {
    # name in the suite: (key bits, block bytes); 0 for a stream cipher
    "NULL":           (0, 0),
    "RC4_40":         (40, 0),
    "RC4_56":         (56, 0),
    "RC4_128":        (128, 0),
    "RC2_CBC_40":     (40, 8),
    "RC2_CBC_56":     (56, 8),
    "DES40_CBC":      (40, 8),
    "DES_CBC_40":     (40, 8),
    "DES_CBC":        (56, 8),
    "3DES_EDE_CBC":   (112, 8),
    "IDEA_CBC":       (128, 8),
    "FORTEZZA_CBC":   (80, 8),
    "SEED_CBC":       (128, 16),
    "SM1":            (128, 16),
    "28147_CNT":      (256, 0),
    "KUZNYECHIK_CTR": (256, 0),
    "MAGMA_CTR":      (256, 0),
    "SM4_CBC":        (128, 16),
    **{f"{name}_{bits}_CBC": (bits, 16) for name in ("AES", "CAMELLIA", "ARIA") for bits in (128, 256)},
}

_AEADS: Final = {
    # name in the suite: (key bits, tag bytes, nonce bytes in each TLS 1.2 record)
    "CHACHA20_POLY1305": (256, 16, 0),  # RFC 7905 2
    "AEGIS_256":         (256, 16, 0),
    "AEGIS_128L":        (128, 16, 0),
    "SM4_GCM":           (128, 16, 8),
    "SM4_CCM":           (128, 16, 8),
    "KUZNYECHIK_MGM_L":  (256, 16, 0),  # RFC 9367 4.1
    "KUZNYECHIK_MGM_S":  (256, 16, 0),
    "MAGMA_MGM_L":       (256, 8, 0),
    "MAGMA_MGM_S":       (256, 8, 0),
    **{
        f"{name}_{bits}_{mode}": (bits, tag, 8)  # RFC 5288 3, RFC 6655 3
        for name in ("AES", "CAMELLIA", "ARIA")
        for bits in (128, 256)
        for mode, tag in (("GCM", 16), ("CCM", 16), ("CCM_8", 8))
    },
}

_KEY_EXCHANGES: Final = {
    # name in the suite: (class, authentication)
    "NULL":             (KeyExchange.NULL,      "anon"),
    "RSA":              (KeyExchange.RSA,       "RSA"),
    "RSA_FIPS":         (KeyExchange.RSA,       "RSA"),
    "DH_DSS":           (KeyExchange.DH,        "DSS"),
    "DH_RSA":           (KeyExchange.DH,        "RSA"),
    "DHE_DSS":          (KeyExchange.DHE,       "DSS"),
    "DHE_RSA":          (KeyExchange.DHE,       "RSA"),
    "DH_anon":          (KeyExchange.DH_ANON,   "anon"),
    "ECDH_ECDSA":       (KeyExchange.ECDH,      "ECDSA"),
    "ECDH_RSA":         (KeyExchange.ECDH,      "RSA"),
    "ECDHE_ECDSA":      (KeyExchange.ECDHE,     "ECDSA"),
    "ECDHE_RSA":        (KeyExchange.ECDHE,     "RSA"),
    "ECDH_anon":        (KeyExchange.ECDH_ANON, "anon"),
    "PSK":              (KeyExchange.PSK,       "PSK"),
    "RSA_PSK":          (KeyExchange.RSA_PSK,   "RSA"),
    "DHE_PSK":          (KeyExchange.DHE_PSK,   "PSK"),
    "PSK_DHE":          (KeyExchange.DHE_PSK,   "PSK"),  # the registry's spelling in RFC 6655
    "ECDHE_PSK":        (KeyExchange.ECDHE_PSK, "PSK"),
    "SRP_SHA":          (KeyExchange.SRP,       "SRP"),
    "SRP_SHA_RSA":      (KeyExchange.SRP_RSA,   "RSA"),
    "SRP_SHA_DSS":      (KeyExchange.SRP_DSS,   "DSS"),
    "KRB5":             (KeyExchange.KRB5,      "KRB5"),
    "ECCPWD":           (KeyExchange.ECCPWD,    "PWD"),
    "ECJPAKE":          (KeyExchange.ECJPAKE,   "PWD"),
    "FORTEZZA_KEA":     (KeyExchange.FORTEZZA,  "KEA"),
    "GOSTR341094":      (KeyExchange.GOST,      "GOST94"),
    "GOSTR341001":      (KeyExchange.GOST,      "GOST01"),
    "GOSTR341112_256":  (KeyExchange.GOST,      "GOST12"),
}
# fmt: on

_TLCP_NAME: Final = re.compile(r"(ECDHE|ECC|IBSDH|IBC|RSA)_(SM1|SM4_CBC|SM4_GCM)_(SM3|SHA1|SHA256)")
_EXPORTS: Final = ("_EXPORT", "_EXPORT1024")
_HASHES: Final = frozenset((*_MAC_BYTES, "SHA512"))


@lru_cache(maxsize=1024)
def suite_properties(code: int) -> SuiteProperties | None:
    """Take a suite apart; None for one without a name here, for GREASE and for the signalling values."""
    name = CIPHER_SUITES.get(code) or UNREGISTERED_CIPHER_SUITES.get(code)
    if name is None or name.endswith("_SCSV"):
        return None
    exchange, with_, protection = name[len("TLS_") :].partition("_WITH_")
    tlcp = None if with_ else _TLCP_NAME.fullmatch(name)
    tls13 = not with_ and tlcp is None
    export = False
    if tlcp is not None:
        exchange, protection = tlcp[1], f"{tlcp[2]}_{tlcp[3]}"
        key_exchange, authentication = KeyExchange.TLCP, exchange
    elif with_:
        export = exchange.endswith(_EXPORTS)
        exchange = exchange.partition("_EXPORT")[0]
        protection = protection.removesuffix("_OLD")
        key_exchange, authentication = _KEY_EXCHANGES[exchange]
        if "_MGM_" in protection:  # RFC 9367: suites of TLS 1.3, named like older ones
            tls13, key_exchange, exchange, authentication = True, KeyExchange.TLS13, "", ""
        elif export and key_exchange == KeyExchange.RSA:
            key_exchange = KeyExchange.RSA_EXPORT
    else:
        exchange, authentication, key_exchange = "", "", KeyExchange.TLS13
        protection = name.removeprefix("TLS_")
    cipher, _, mac = protection.rpartition("_")
    if not cipher or mac not in _HASHES:
        cipher, mac = protection, ""
    key_bits, mode, block, mac_bytes, tag, nonce = _protection(cipher, mac)
    return SuiteProperties(
        code=code,
        name=name,
        key_exchange=key_exchange,
        key_exchange_name=exchange,
        authentication=authentication,
        export=export,
        tls13=tls13,
        cipher=cipher,
        key_bits=key_bits,
        mode=mode,
        block_bytes=block,
        mac=mac,
        mac_bytes=mac_bytes,
        tag_bytes=tag,
        explicit_nonce_bytes=0 if tls13 else nonce,
    )


def _protection(cipher: str, mac: str) -> tuple[int, Mode, int, int, int, int]:
    """Key bits, mode, block, MAC, tag and explicit nonce bytes."""
    if cipher in _AEADS:
        key_bits, tag, nonce = _AEADS[cipher]
        return key_bits, Mode.AEAD, 0, 0, tag, nonce
    if cipher in ("SHA256", "SHA384"):  # RFC 9150 5: TLS 1.3 without encryption, an HMAC as the tag
        return 0, Mode.AEAD, 0, 0, _MAC_BYTES[cipher], 0
    key_bits, block = _CIPHERS[cipher]
    mac_bytes = 8 if cipher == "MAGMA_CTR" else _MAC_BYTES[mac]
    if block:
        return key_bits, Mode.CBC, block, mac_bytes, 0, 0
    return key_bits, Mode.NULL if cipher == "NULL" else Mode.STREAM, 0, mac_bytes, 0, 0


def record_length(
    plaintext_length: int,
    suite: int,
    version: int,
    encrypt_then_mac: bool = False,
    truncated_hmac: bool = False,
) -> int | None:
    """The length field of the shortest record that protects so many bytes; exact where nobody pads.

    TLS 1.3 counts its inner content type and no padding, CBC the least padding, and nobody compresses.

    Args:
        plaintext_length: Bytes of the fragment.
        suite: The negotiated cipher suite.
        version: The negotiated ProtocolVersion.
        encrypt_then_mac: The extension is in the ServerHello (RFC 7366); it only concerns CBC.
        truncated_hmac: The extension is in the ServerHello (RFC 6066 7): 10 bytes of MAC, not with AEAD.

    Returns:
        None if the suite is unknown.

    >>> record_length(16, 0xC02F, ProtocolVersion.TLS1_2)  # a Finished under AES-GCM
    40
    >>> record_length(2, 0x1301, ProtocolVersion.TLS1_3)  # an alert
    19
    """
    properties = suite_properties(suite)
    if properties is None:
        return None
    if properties.mode == Mode.AEAD:
        if properties.tls13:
            return plaintext_length + 1 + properties.tag_bytes
        return properties.explicit_nonce_bytes + plaintext_length + properties.tag_bytes
    mac = min(10, properties.mac_bytes) if truncated_hmac else properties.mac_bytes
    if properties.mode != Mode.CBC:
        return plaintext_length + mac
    block = properties.block_bytes
    explicit_iv = 0 if ProtocolVersion.SSL3 <= version <= ProtocolVersion.TLS1_0 else block
    padded = plaintext_length + 1 + (0 if encrypt_then_mac else mac)
    padded += -padded % block
    return explicit_iv + padded + (mac if encrypt_then_mac else 0)


def _lookup(column: str) -> npt.NDArray[np.uint8]:
    table = np.zeros(0x10000, np.uint8)
    table[[properties.code for properties in _ALL]] = [getattr(properties, column) for properties in _ALL]
    table.flags.writeable = False
    return table


_ALL: Final = tuple(filter(None, map(suite_properties, (*CIPHER_SUITES, *UNREGISTERED_CIPHER_SUITES))))

KX_CLASS: Final = _lookup("key_exchange")
"""KeyExchange of each cipher suite code."""
MODE: Final = _lookup("mode")
"""Mode of each cipher suite code."""
BLOCK_BYTES: Final = _lookup("block_bytes")
MAC_BYTES: Final = _lookup("mac_bytes")
TAG_BYTES: Final = _lookup("tag_bytes")
EXPLICIT_NONCE_BYTES: Final = _lookup("explicit_nonce_bytes")
