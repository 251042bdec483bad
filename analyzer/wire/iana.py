"""The registries of TLS: what the numbers on the wire are called.

In:  an integer as read.
Out: its name, spelt as in the registry; name_of(ContentType, 99) is "ContentType(99)".
Source: IANA tls-parameters and tls-extensiontype-values, 2025-06; a value that is not registered says so.

Structures keep the integer, a registry only names it: GREASE and unknown values survive to the report.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from analyzer.wire.cipher_suites import CIPHER_SUITES, SSL2_CIPHER_KINDS, UNREGISTERED_CIPHER_SUITES

GREASE: Final = frozenset(0x1010 * nibble + 0x0A0A for nibble in range(16))
"""Cipher suites, extensions, groups, signature schemes and versions that mean nothing (RFC 8701 2)."""

GREASE_PSK_MODES: Final = frozenset(0x0B + 0x1F * n for n in range(8))
"""The same for PskKeyExchangeMode, which is one byte (RFC 8701 2)."""


class ContentType(IntEnum):
    """IANA TLS ContentType."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    HEARTBEAT = 24
    TLS12_CID = 25  # DTLS only, RFC 9146
    ACK = 26  # DTLS only, RFC 9147
    RETURN_ROUTABILITY_CHECK = 27  # DTLS only, draft-ietf-tls-dtls-rrc


class HandshakeType(IntEnum):
    """IANA TLS HandshakeType."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HELLO_VERIFY_REQUEST = 3
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    HELLO_RETRY_REQUEST = 6  # drafts of TLS 1.3 up to 21; RFC 8446 sends a ServerHello instead
    ENCRYPTED_EXTENSIONS = 8
    REQUEST_CONNECTION_ID = 9
    NEW_CONNECTION_ID = 10
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    CLIENT_CERTIFICATE_REQUEST = 17
    FINISHED = 20
    CERTIFICATE_URL = 21
    CERTIFICATE_STATUS = 22
    SUPPLEMENTAL_DATA = 23
    KEY_UPDATE = 24
    COMPRESSED_CERTIFICATE = 25
    EKT_KEY = 26
    NEXT_PROTOCOL = 67  # not registered: draft-agl-tls-nextprotoneg
    CHANNEL_ID = 203  # not registered: draft-balfanz-tls-channelid
    MESSAGE_HASH = 254  # never on the wire, RFC 8446 4.4.1


class Ssl2MessageType(IntEnum):
    """The message types of SSL 2.0 (draft-hickman-netscape-ssl, 2.5 to 2.7)."""

    ERROR = 0
    CLIENT_HELLO = 1
    CLIENT_MASTER_KEY = 2
    CLIENT_FINISHED = 3
    SERVER_HELLO = 4
    SERVER_VERIFY = 5
    SERVER_FINISHED = 6
    REQUEST_CERTIFICATE = 7
    CLIENT_CERTIFICATE = 8


class HeartbeatMessageType(IntEnum):
    """IANA TLS Heartbeat Message Types (RFC 6520 3)."""

    HEARTBEAT_REQUEST = 1
    HEARTBEAT_RESPONSE = 2


class HeartbeatMode(IntEnum):
    """IANA TLS Heartbeat Modes (RFC 6520 2)."""

    PEER_ALLOWED_TO_SEND = 1
    PEER_NOT_ALLOWED_TO_SEND = 2


class AlertLevel(IntEnum):
    """RFC 5246 7.2."""

    WARNING = 1
    FATAL = 2


class AlertDescription(IntEnum):
    """IANA TLS Alerts."""

    CLOSE_NOTIFY = 0
    END_OF_EARLY_DATA = 1  # not registered: drafts of TLS 1.3 up to 20
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    DECRYPTION_FAILED = 21
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30
    HANDSHAKE_FAILURE = 40
    NO_CERTIFICATE = 41
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    TOO_MANY_CIDS_REQUESTED = 52
    EXPORT_RESTRICTION = 60
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_UNOBTAINABLE = 111
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    BAD_CERTIFICATE_HASH_VALUE = 114
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    GENERAL_ERROR = 117
    NO_APPLICATION_PROTOCOL = 120
    ECH_REQUIRED = 121


class ExtensionType(IntEnum):
    """IANA TLS ExtensionType Values."""

    SERVER_NAME = 0
    MAX_FRAGMENT_LENGTH = 1
    CLIENT_CERTIFICATE_URL = 2
    TRUSTED_CA_KEYS = 3
    TRUNCATED_HMAC = 4
    STATUS_REQUEST = 5
    USER_MAPPING = 6
    CLIENT_AUTHZ = 7
    SERVER_AUTHZ = 8
    CERT_TYPE = 9
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SRP = 12
    SIGNATURE_ALGORITHMS = 13
    USE_SRTP = 14
    HEARTBEAT = 15
    APPLICATION_LAYER_PROTOCOL_NEGOTIATION = 16
    STATUS_REQUEST_V2 = 17
    SIGNED_CERTIFICATE_TIMESTAMP = 18
    CLIENT_CERTIFICATE_TYPE = 19
    SERVER_CERTIFICATE_TYPE = 20
    PADDING = 21
    ENCRYPT_THEN_MAC = 22
    EXTENDED_MASTER_SECRET = 23
    TOKEN_BINDING = 24
    CACHED_INFO = 25
    TLS_LTS = 26
    COMPRESS_CERTIFICATE = 27
    RECORD_SIZE_LIMIT = 28
    PWD_PROTECT = 29
    PWD_CLEAR = 30
    PASSWORD_SALT = 31
    TICKET_PINNING = 32
    TLS_CERT_WITH_EXTERN_PSK = 33
    DELEGATED_CREDENTIAL = 34
    SESSION_TICKET = 35
    TLMSP = 36
    TLMSP_PROXYING = 37
    TLMSP_DELEGATE = 38
    SUPPORTED_EKT_CIPHERS = 39
    KEY_SHARE_DRAFT = 40  # reserved: key_share of the drafts of TLS 1.3 up to 22
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    TICKET_EARLY_DATA_INFO = 46  # reserved: drafts of TLS 1.3
    CERTIFICATE_AUTHORITIES = 47
    OID_FILTERS = 48
    POST_HANDSHAKE_AUTH = 49
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    TRANSPARENCY_INFO = 52
    CONNECTION_ID_DEPRECATED = 53
    CONNECTION_ID = 54
    EXTERNAL_ID_HASH = 55
    EXTERNAL_SESSION_ID = 56
    QUIC_TRANSPORT_PARAMETERS = 57
    TICKET_REQUEST = 58
    DNSSEC_CHAIN = 59
    SEQUENCE_NUMBER_ENCRYPTION_ALGORITHMS = 60
    RRC = 61
    TLS_FLAGS = 62
    NEXT_PROTOCOL_NEGOTIATION = 13172  # not registered: draft-agl-tls-nextprotoneg
    APPLICATION_SETTINGS = 17513  # not registered: draft-vvv-tls-alps, Chrome up to 132
    APPLICATION_SETTINGS_NEW = 17613  # not registered: the same, Chrome from 133
    CHANNEL_ID_OLD = 30031  # not registered: draft-balfanz-tls-channelid
    CHANNEL_ID = 30032  # not registered: the same, its second number
    ECH_OUTER_EXTENSIONS = 64768
    ENCRYPTED_CLIENT_HELLO = 65037
    RENEGOTIATION_INFO = 65281
    QUIC_TRANSPORT_PARAMETERS_DRAFT = 65445  # not registered: drafts of QUIC up to 32
    ENCRYPTED_SERVER_NAME = 65486  # not registered: draft-ietf-tls-esni up to 06


class NamedGroup(IntEnum):
    """IANA TLS Supported Groups."""

    SECT163K1 = 1
    SECT163R1 = 2
    SECT163R2 = 3
    SECT193R1 = 4
    SECT193R2 = 5
    SECT233K1 = 6
    SECT233R1 = 7
    SECT239K1 = 8
    SECT283K1 = 9
    SECT283R1 = 10
    SECT409K1 = 11
    SECT409R1 = 12
    SECT571K1 = 13
    SECT571R1 = 14
    SECP160K1 = 15
    SECP160R1 = 16
    SECP160R2 = 17
    SECP192K1 = 18
    SECP192R1 = 19
    SECP224K1 = 20
    SECP224R1 = 21
    SECP256K1 = 22
    SECP256R1 = 23
    SECP384R1 = 24
    SECP521R1 = 25
    BRAINPOOLP256R1 = 26
    BRAINPOOLP384R1 = 27
    BRAINPOOLP512R1 = 28
    X25519 = 29
    X448 = 30
    BRAINPOOLP256R1TLS13 = 31
    BRAINPOOLP384R1TLS13 = 32
    BRAINPOOLP512R1TLS13 = 33
    GC256A = 34
    GC256B = 35
    GC256C = 36
    GC256D = 37
    GC512A = 38
    GC512B = 39
    GC512C = 40
    CURVESM2 = 41
    FFDHE2048 = 256
    FFDHE3072 = 257
    FFDHE4096 = 258
    FFDHE6144 = 259
    FFDHE8192 = 260
    MLKEM512 = 512
    MLKEM768 = 513
    MLKEM1024 = 514
    SECP256R1MLKEM768 = 4587
    X25519MLKEM768 = 4588
    SECP384R1MLKEM1024 = 4589
    CURVESM2MLKEM768 = 4590
    X25519KYBER768DRAFT00 = 25497
    SECP256R1KYBER768DRAFT00 = 25498
    ARBITRARY_EXPLICIT_PRIME_CURVES = 65281
    ARBITRARY_EXPLICIT_CHAR2_CURVES = 65282


class SignatureScheme(IntEnum):
    """IANA TLS SignatureScheme."""

    RSA_PKCS1_SHA1 = 0x0201
    ECDSA_SHA1 = 0x0203
    RSA_PKCS1_SHA256 = 0x0401
    ECDSA_SECP256R1_SHA256 = 0x0403
    RSA_PKCS1_SHA256_LEGACY = 0x0420
    RSA_PKCS1_SHA384 = 0x0501
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PKCS1_SHA384_LEGACY = 0x0520
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PKCS1_SHA512_LEGACY = 0x0620
    ECCSI_SHA256 = 0x0704
    ISO_IBS1 = 0x0705
    ISO_IBS2 = 0x0706
    ISO_CHINESE_IBS = 0x0707
    SM2SIG_SM3 = 0x0708
    GOSTR34102012_256A = 0x0709
    GOSTR34102012_256B = 0x070A
    GOSTR34102012_256C = 0x070B
    GOSTR34102012_256D = 0x070C
    GOSTR34102012_512A = 0x070D
    GOSTR34102012_512B = 0x070E
    GOSTR34102012_512C = 0x070F
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    ED448 = 0x0808
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B
    ECDSA_BRAINPOOLP256R1TLS13_SHA256 = 0x081A
    ECDSA_BRAINPOOLP384R1TLS13_SHA384 = 0x081B
    ECDSA_BRAINPOOLP512R1TLS13_SHA512 = 0x081C
    MLDSA44 = 0x0904
    MLDSA65 = 0x0905
    MLDSA87 = 0x0906


class HashAlgorithm(IntEnum):
    """IANA TLS HashAlgorithm: the first byte of a TLS 1.2 signature algorithm."""

    NONE = 0
    MD5 = 1
    SHA1 = 2
    SHA224 = 3
    SHA256 = 4
    SHA384 = 5
    SHA512 = 6
    INTRINSIC = 8


class SignatureAlgorithm(IntEnum):
    """IANA TLS SignatureAlgorithm: its second byte."""

    ANONYMOUS = 0
    RSA = 1
    DSA = 2
    ECDSA = 3
    ED25519 = 7
    ED448 = 8
    GOSTR34102012_256 = 64
    GOSTR34102012_512 = 65


class CompressionMethod(IntEnum):
    """IANA comp-meth-ids."""

    NULL = 0
    DEFLATE = 1
    LZS = 64


class ECPointFormat(IntEnum):
    """IANA TLS EC Point Formats."""

    UNCOMPRESSED = 0
    ANSIX962_COMPRESSED_PRIME = 1
    ANSIX962_COMPRESSED_CHAR2 = 2


class PskKeyExchangeMode(IntEnum):
    """IANA TLS PskKeyExchangeMode."""

    PSK_KE = 0
    PSK_DHE_KE = 1


class ProtocolVersion(IntEnum):
    """The versions that a record, a hello or supported_versions can name."""

    SSL2 = 0x0002
    TLCP = 0x0101  # GB/T 38636
    SSL3 = 0x0300
    TLS1_0 = 0x0301
    TLS1_1 = 0x0302
    TLS1_2 = 0x0303
    TLS1_3 = 0x0304
    DTLS1_3 = 0xFEFC
    DTLS1_2 = 0xFEFD
    DTLS1_0 = 0xFEFF


_SPELLING: Final[dict[type[IntEnum], dict[int, str]]] = {
    ContentType: {26: "ACK"},
    SignatureScheme: {
        0x081A: "ecdsa_brainpoolP256r1tls13_sha256",
        0x081B: "ecdsa_brainpoolP384r1tls13_sha384",
        0x081C: "ecdsa_brainpoolP512r1tls13_sha512",
    },
    NamedGroup: {
        26: "brainpoolP256r1",
        27: "brainpoolP384r1",
        28: "brainpoolP512r1",
        31: "brainpoolP256r1tls13",
        32: "brainpoolP384r1tls13",
        33: "brainpoolP512r1tls13",
        **{code: NamedGroup(code).name for code in (*range(34, 41), 512, 513, 514, 4588)},
        41: "curveSM2",
        4587: "SecP256r1MLKEM768",
        4589: "SecP384r1MLKEM1024",
        4590: "curveSM2MLKEM768",
        25497: "X25519Kyber768Draft00",
        25498: "SecP256r1Kyber768Draft00",
    },
    ExtensionType: {36: "TLMSP", 37: "TLMSP_proxying", 38: "TLMSP_delegate"},
    CompressionMethod: {1: "DEFLATE", 64: "LZS"},
    ECPointFormat: {1: "ansiX962_compressed_prime", 2: "ansiX962_compressed_char2"},
    ProtocolVersion: {
        0x0002: "SSLv2",
        0x0101: "TLCP",
        0x0300: "SSLv3",
        0x0301: "TLSv1.0",
        0x0302: "TLSv1.1",
        0x0303: "TLSv1.2",
        0x0304: "TLSv1.3",
        0xFEFC: "DTLSv1.3",
        0xFEFD: "DTLSv1.2",
        0xFEFF: "DTLSv1.0",
    },
}
"""Where the registry's spelling is not the member's name in lower case."""

_TWO_BYTES: Final = (ExtensionType, NamedGroup, SignatureScheme, ProtocolVersion)
"""Written in hexadecimal where the value has no name, and GREASE has a meaning."""


def name_of(registry: type[IntEnum], value: int) -> str:
    """The registry's name of a value, or the value in a form that can't be taken for a name.

    >>> name_of(ContentType, 22), name_of(ContentType, 99)
    ('handshake', 'ContentType(99)')
    >>> name_of(NamedGroup, 26), name_of(NamedGroup, 0x2A2A), name_of(NamedGroup, 0xFE30)
    ('brainpoolP256r1', 'GREASE(0x2a2a)', 'NamedGroup(0xfe30)')
    >>> name_of(ProtocolVersion, 0x0303), name_of(ProtocolVersion, 0x7F1C)
    ('TLSv1.2', 'TLSv1.3-draft28')
    """
    spelling = _SPELLING.get(registry, {}).get(value)
    if spelling is not None:
        return spelling
    try:
        return registry(value).name.lower()
    except ValueError:
        pass
    if registry is ProtocolVersion and value >> 8 == 0x7F:  # RFC 8446 drafts, 4.2.1
        return f"TLSv1.3-draft{value & 0xFF}"
    if registry in _TWO_BYTES:
        return f"GREASE({value:#06x})" if value in GREASE else f"{registry.__name__}({value:#06x})"
    return f"{registry.__name__}({value})"


def cipher_suite_name(code: int) -> str:
    """The IANA name of a cipher suite; names of suites that IANA does not list; a number in words otherwise.

    >>> cipher_suite_name(0x1301), cipher_suite_name(0x0A0A), cipher_suite_name(0xFF01)
    ('TLS_AES_128_GCM_SHA256', 'GREASE(0x0a0a)', 'CipherSuite(0xff01)')
    """
    name = CIPHER_SUITES.get(code) or UNREGISTERED_CIPHER_SUITES.get(code)
    if name is not None:
        return name
    return f"GREASE({code:#06x})" if code in GREASE else f"CipherSuite({code:#06x})"


def ssl2_cipher_kind_name(code: int) -> str:
    """The name of a three-byte SSL 2.0 cipher kind; an SSLv2-framed hello lists TLS suites as 00 xx xx.

    >>> ssl2_cipher_kind_name(0x010080), ssl2_cipher_kind_name(0x00002F), ssl2_cipher_kind_name(0x090000)
    ('SSL_CK_RC4_128_WITH_MD5', 'TLS_RSA_WITH_AES_128_CBC_SHA', 'Ssl2CipherKind(0x090000)')
    """
    if code <= 0xFFFF:
        return cipher_suite_name(code)
    return SSL2_CIPHER_KINDS.get(code, f"Ssl2CipherKind({code:#08x})")
