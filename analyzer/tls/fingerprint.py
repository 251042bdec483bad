"""JA3, JA3S and JA4 fingerprints of hellos.

In:  values of a ClientHello or ServerHello, in the order of the wire.
Out: the fingerprints, and the strings that are hashed.
Source: github.com/salesforce/ja3 README; github.com/FoxIO-LLC/ja4 technical_details/JA4.md.

Only these three: the rest of JA4+ is under a licence that this project does not take on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Final

from analyzer.wire.iana import GREASE, ExtensionType, ProtocolVersion

if TYPE_CHECKING:  # the engine fingerprints from numbers and must not wait for the full parser
    from analyzer.tls.handshake import ClientHello, ServerHello

JA4_VERSIONS: Final[dict[int, str]] = {
    ProtocolVersion.TLS1_3: "13",
    ProtocolVersion.TLS1_2: "12",
    ProtocolVersion.TLS1_1: "11",
    ProtocolVersion.TLS1_0: "10",
    ProtocolVersion.SSL3: "s3",
    ProtocolVersion.SSL2: "s2",
    ProtocolVersion.DTLS1_0: "d1",
    ProtocolVersion.DTLS1_2: "d2",
    ProtocolVersion.DTLS1_3: "d3",
}
"""What JA4 calls a version; "00" for any other."""

_NOTHING: Final = "000000000000"
"""In place of the hash of an empty list."""

_IN_FIRST_PART: Final = frozenset(
    (ExtensionType.SERVER_NAME, ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION)
)


def ja3_string(
    legacy_version: int,
    cipher_suites: Iterable[int],
    extensions: Iterable[int],
    groups: Iterable[int],
    point_formats: Iterable[int],
) -> str:
    """What JA3 hashes: decimal numbers, without GREASE.

    >>> ja3_string(769, [47, 53, 5, 10], [0x0A0A, 0, 10, 11], [23, 24, 25], [0])
    '769,47-53-5-10,0-10-11,23-24-25,0'
    """
    lists = (cipher_suites, extensions, groups)
    return ",".join((str(legacy_version), *map(_decimal, lists), "-".join(map(str, point_formats))))


def ja3(
    legacy_version: int,
    cipher_suites: Iterable[int],
    extensions: Iterable[int],
    groups: Iterable[int],
    point_formats: Iterable[int],
) -> str:
    """JA3 of a ClientHello; a list that was not sent is empty."""
    return _md5(ja3_string(legacy_version, cipher_suites, extensions, groups, point_formats))


def ja3s_string(legacy_version: int, cipher_suite: int, extensions: Iterable[int]) -> str:
    """What JA3S hashes."""
    return f"{legacy_version},{cipher_suite},{_decimal(extensions)}"


def ja3s(legacy_version: int, cipher_suite: int, extensions: Iterable[int]) -> str:
    """JA3S of a ServerHello."""
    return _md5(ja3s_string(legacy_version, cipher_suite, extensions))


def ja4_version(legacy_version: int, supported_versions: Collection[int] | None) -> int:
    """The version that JA4 shows: the highest of supported_versions without GREASE, else the hello's own."""
    offered = [version for version in supported_versions or () if version not in GREASE]
    return max(offered, default=legacy_version)


def ja4(
    version: int,
    sni_present: bool,
    cipher_suites: Sequence[int],
    extensions: Sequence[int],
    signature_algorithms: Iterable[int],
    alpn_first: bytes,
    *,
    transport: str = "t",
) -> str:
    """JA4 of a ClientHello.

    Args:
        version: As ja4_version() gives it.
        sni_present: The hello has the extension server_name.
        cipher_suites: As sent; GREASE is left out here, as in the following.
        extensions: Their types as sent.
        signature_algorithms: As sent; empty without the extension.
        alpn_first: The first protocol of ALPN; empty without one.
        transport: t TCP, q QUIC, d DTLS.

    >>> ja4(0x0304, True, [0x1301, 0x1302], [0, 16, 43], [], b"h2")
    't13d0203h2_62ed6f6ca7ad_b9a491fefe05'
    """
    ciphers, others, algorithms = _ja4_lists(cipher_suites, extensions, signature_algorithms)
    first = _ja4_first_part(version, sni_present, cipher_suites, extensions, alpn_first, transport)
    protected = "_".join(filter(None, (others, algorithms)))
    return f"{first}_{_sha256(ciphers) if ciphers else _NOTHING}_{_sha256(protected) if others else _NOTHING}"


def ja4_raw(
    version: int,
    sni_present: bool,
    cipher_suites: Sequence[int],
    extensions: Sequence[int],
    signature_algorithms: Iterable[int],
    alpn_first: bytes,
    *,
    transport: str = "t",
) -> str:
    """JA4_r: the lists in place of their hashes; arguments as of ja4()."""
    first = _ja4_first_part(version, sni_present, cipher_suites, extensions, alpn_first, transport)
    return "_".join((first, *_ja4_lists(cipher_suites, extensions, signature_algorithms)))


def client_hello_ja3(hello: ClientHello) -> str:
    """JA3 of a parsed ClientHello."""
    return ja3(
        hello.legacy_version,
        hello.cipher_suites,
        hello.extension_types,
        hello.supported_groups or (),
        hello.ec_point_formats or (),
    )


def client_hello_ja4(hello: ClientHello) -> str:
    """JA4 of a parsed ClientHello."""
    return ja4(
        ja4_version(hello.legacy_version, hello.supported_versions),
        ExtensionType.SERVER_NAME in hello.extension_types,
        hello.cipher_suites,
        hello.extension_types,
        hello.signature_algorithms or (),
        next(iter(hello.alpn or ()), b""),
    )


def server_hello_ja3s(hello: ServerHello) -> str:
    """JA3S of a parsed ServerHello."""
    return ja3s(hello.legacy_version, hello.cipher_suite, hello.extension_types)


def _ja4_first_part(
    version: int,
    sni_present: bool,
    cipher_suites: Iterable[int],
    extensions: Iterable[int],
    alpn_first: bytes,
    transport: str,
) -> str:
    return "".join(
        (
            transport,
            JA4_VERSIONS.get(version, "00"),
            "d" if sni_present else "i",
            f"{min(99, len(_without_grease(cipher_suites))):02}",
            f"{min(99, len(_without_grease(extensions))):02}",
            _first_and_last(alpn_first),
        )
    )


def _ja4_lists(
    cipher_suites: Iterable[int], extensions: Iterable[int], signature_algorithms: Iterable[int]
) -> tuple[str, str, str]:
    ciphers = sorted(_without_grease(cipher_suites))
    others = sorted(extension for extension in _without_grease(extensions) if extension not in _IN_FIRST_PART)
    return _hexadecimal(ciphers), _hexadecimal(others), _hexadecimal(_without_grease(signature_algorithms))


def _first_and_last(protocol: bytes) -> str:
    """First and last character of a protocol's name; of its hexadecimal form if one is not alphanumeric."""
    if not protocol:
        return "00"
    ends = bytes((protocol[0], protocol[-1]))
    if ends.isalnum():  # of bytes: ASCII only
        return ends.decode("ascii")
    digits = protocol.hex()
    return digits[0] + digits[-1]


def _without_grease(values: Iterable[int]) -> list[int]:
    return [value for value in values if value not in GREASE]


def _decimal(values: Iterable[int]) -> str:
    return "-".join(map(str, _without_grease(values)))


def _hexadecimal(values: Iterable[int]) -> str:
    return ",".join(f"{value:04x}" for value in values)


def _md5(text: str) -> str:
    return md5(text.encode("ascii"), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return sha256(text.encode("ascii")).hexdigest()[:12]
