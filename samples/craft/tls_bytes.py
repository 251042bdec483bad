"""TLS and SSLv2 messages as bytes, right or wrong as asked.

In:  field values.
Out: bytes of one record, message or extension.
Source: RFC 8446 4 and 5.1, RFC 5246 6.2 and 7.4, RFC 6101 (SSL 3.0), RFC 6520 (heartbeat), RFC 6066.

Nothing is encrypted: where ciphertext is due there are bytes from `Noise`, as long as the suite makes it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

CCS, ALERT, HANDSHAKE, APPLICATION_DATA, HEARTBEAT = 20, 21, 22, 23, 24
SSL30, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304

HELLO_REQUEST, CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET = 0, 1, 2, 4
CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE = 11, 12, 13, 14
CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE, FINISHED, CERTIFICATE_STATUS = 15, 16, 20, 22

WARNING, FATAL = 1, 2
CLOSE_NOTIFY, UNEXPECTED_MESSAGE, BAD_RECORD_MAC, HANDSHAKE_FAILURE = 0, 10, 20, 40
ILLEGAL_PARAMETER, PROTOCOL_VERSION, INAPPROPRIATE_FALLBACK, UNRECOGNIZED_NAME = 47, 70, 86, 112

SENTINEL_TLS12: Final = bytes.fromhex("444f574e47524401")
SENTINEL_TLS11: Final = bytes.fromhex("444f574e47524400")
"""RFC 8446 4.1.3: how ServerHello.random ends when a TLS 1.3 server picks TLS 1.2, or less."""

HELLO_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

X25519, SECP256R1, SECP384R1 = 29, 23, 24
FALLBACK_SCSV, RENEGOTIATION_SCSV = 0x5600, 0x00FF


class Noise:
    """Bytes that look like ciphertext, the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._taken = 0

    def take(self, count: int) -> bytes:
        self._taken += 1
        return hashlib.shake_256(b"%s/%d" % (self._seed, self._taken)).digest(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    code: int
    key_exchange: Literal["rsa", "ecdhe", "anon", "tls13"]
    sealing: Literal["gcm", "chacha", "cbc", "stream", "tls13"]
    mac_bytes: int = 0
    block_bytes: int = 0
    finished_bytes: int = 16
    """The Finished message: header and verify_data."""


# fmt: off
RSA_NULL       = Suite(code=0x0002, key_exchange="rsa",   sealing="stream", mac_bytes=20)
RSA_RC4        = Suite(code=0x0005, key_exchange="rsa",   sealing="stream", mac_bytes=20)
RSA_3DES       = Suite(code=0x000A, key_exchange="rsa",   sealing="cbc", mac_bytes=20, block_bytes=8)
RSA_AES_SHA    = Suite(code=0x002F, key_exchange="rsa",   sealing="cbc", mac_bytes=20, block_bytes=16)
RSA_AES_GCM    = Suite(code=0x009C, key_exchange="rsa",   sealing="gcm")
ECDHE_3DES     = Suite(code=0xC012, key_exchange="ecdhe", sealing="cbc", mac_bytes=20, block_bytes=8)
ECDHE_AES_SHA  = Suite(code=0xC013, key_exchange="ecdhe", sealing="cbc", mac_bytes=20, block_bytes=16)
ECDHE_AES_GCM  = Suite(code=0xC02F, key_exchange="ecdhe", sealing="gcm")
ECDHE_CHACHA   = Suite(code=0xCCA8, key_exchange="ecdhe", sealing="chacha")
ANON_AES_SHA   = Suite(code=0xC018, key_exchange="anon",  sealing="cbc", mac_bytes=20, block_bytes=16)
TLS13_AES_128  = Suite(code=0x1301, key_exchange="tls13", sealing="tls13", finished_bytes=36)

OFFERED: Final = (  # suite, lowest version it is offered in, in the order of preference
    (0x1301, TLS13), (0x1302, TLS13), (0x1303, TLS13),
    (0xC02B, TLS12), (0xC02F, TLS12), (0xC030, TLS12), (0xCCA8, TLS12),
    (0xC013, TLS10), (0xC014, TLS10),
    (0x009C, TLS12),
    (0x002F, SSL30), (0x0035, SSL30), (0x000A, SSL30),
)
# fmt: on


def offered(version: int) -> list[int]:
    """What a client up to this version offers; for a lower version the same without the newer suites."""
    return [code for code, lowest in OFFERED if lowest <= version]


# records and messages


def vector(body: bytes, length_bytes: int) -> bytes:
    return len(body).to_bytes(length_bytes, "big") + body


def record(kind: int, body: bytes, version: int = TLS12, *, length: int | None = None) -> bytes:
    """One record; `length` overrides what its header says."""
    return struct.pack(">BHH", kind, version, len(body) if length is None else length) + body


def message(kind: int, body: bytes = b"") -> bytes:
    return bytes([kind]) + vector(body, 3)


def extension(kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">H", kind) + vector(body, 2)


def u16s(values: Iterable[int]) -> bytes:
    return b"".join(struct.pack(">H", value) for value in values)


def heartbeat(kind: int, payload_length: int, body: bytes = b"") -> bytes:
    """A HeartbeatMessage whose payload_length may be a lie; `body` is payload and padding."""
    return struct.pack(">BH", kind, payload_length) + body


def sealed_bytes(suite: Suite, version: int, count: int) -> int:
    """Length of the record body that carries `count` bytes of plaintext."""
    if suite.sealing == "tls13":
        return count + 1 + 16
    if suite.sealing == "gcm":
        return 8 + count + 16
    if suite.sealing == "chacha":
        return count + 16
    if suite.sealing == "stream":
        return count + suite.mac_bytes
    block = suite.block_bytes
    return (block if version >= TLS11 else 0) + -(-(count + suite.mac_bytes + 1) // block) * block


# hello messages


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a ClientHello says. Defaults are those of an ordinary client; `noise` gives the rest."""

    noise: Noise
    versions: Sequence[int] = (TLS12,)
    """Highest first. With TLS 1.3 among them they go into supported_versions."""
    legacy_version: int | None = None
    supported_versions: Sequence[int] | None = None
    suites: Sequence[int] | None = None
    scsv: bool = False
    """TLS_FALLBACK_SCSV, RFC 7507."""
    random: bytes | None = None
    session_id: bytes | None = None
    server_name: str | None = "server.example"
    alpn: Sequence[str] = ()
    heartbeat_mode: int | None = None
    ticket: bytes | None = None
    status_request: bool = False
    groups: Sequence[int] = (X25519, SECP256R1, SECP384R1)
    key_share: int | None = X25519
    cookie: bytes | None = None
    psk: bool = False
    early_data: bool = False
    extensions: bool = True
    extra: bytes = b""

    def message(self) -> bytes:
        highest = max(self.versions)
        tls13 = highest >= TLS13
        version = self.legacy_version or min(highest, TLS12)
        suites = offered(highest) if self.suites is None else list(self.suites)
        suites = [*suites, RENEGOTIATION_SCSV, *([FALLBACK_SCSV] if self.scsv else [])]
        random = self.random or self.noise.take(32)
        session_id = self.session_id
        if session_id is None:
            session_id = self.noise.take(32) if tls13 else b""
        body = struct.pack(">H", version) + random + vector(session_id, 1)
        body += vector(u16s(suites), 2) + vector(b"\0", 1)
        if self.extensions and highest > SSL30:
            body += vector(self._extensions(highest), 2)
        return message(CLIENT_HELLO, body)

    def _extensions(self, highest: int) -> bytes:
        parts = []
        if self.server_name:
            parts.append(extension(0, vector(b"\0" + vector(self.server_name.encode(), 2), 2)))
        parts.append(extension(23))  # extended_master_secret
        parts.append(extension(10, vector(u16s(self.groups), 2)))
        parts.append(extension(11, vector(b"\0", 1)))
        if self.ticket is not None:
            parts.append(extension(35, self.ticket))
        if self.alpn:
            parts.append(extension(16, alpn_list(self.alpn)))
        if self.status_request:
            parts.append(extension(5, b"\1\0\0\0\0"))
        if highest >= TLS12:
            parts.append(extension(13, vector(u16s((0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501)), 2)))
        if self.heartbeat_mode is not None:
            parts.append(extension(15, bytes([self.heartbeat_mode])))
        supported = self.supported_versions
        if supported is None and highest >= TLS13:
            supported = self.versions
        if supported:
            parts.append(extension(43, vector(u16s(supported), 1)))
        if highest >= TLS13:
            parts.append(extension(45, b"\1\1"))  # psk_dhe_ke
            share = b"" if self.key_share is None else key_share_entry(self.key_share, self.noise)
            parts.append(extension(51, vector(share, 2)))
            if self.cookie is not None:
                parts.append(extension(44, vector(self.cookie, 2)))
            if self.early_data:
                parts.append(extension(42))
        parts.append(self.extra)
        if self.psk:
            identity = vector(self.noise.take(160), 2) + self.noise.take(4)
            binder = vector(self.noise.take(32), 1)
            parts.append(extension(41, vector(identity, 2) + vector(binder, 2)))
        return b"".join(parts)


def alpn_list(names: Sequence[str]) -> bytes:
    return vector(b"".join(vector(name.encode(), 1) for name in names), 2)


def key_share_entry(group: int, noise: Noise) -> bytes:
    if group == X25519:
        public = noise.take(32)
    else:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        # a real point: a detector may check that it is on the curve
        curve = ec.SECP256R1() if group == SECP256R1 else ec.SECP384R1()
        secret = int.from_bytes(noise.take(31), "big")
        public = (
            ec.derive_private_key(secret, curve)
            .public_key()
            .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        )
    return struct.pack(">H", group) + vector(public, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHello:
    """What a ServerHello says; extensions are only those asked for, since a server may not volunteer any."""

    noise: Noise
    version: int = TLS12
    """TLS13 goes into supported_versions, with 0303 in the old field."""
    suite: int = ECDHE_AES_GCM.code
    random: bytes | None = None
    tail: bytes = b""
    """Replaces the end of the random: a downgrade sentinel."""
    session_id: bytes = b""
    alpn: str | None = None
    heartbeat_mode: int | None = None
    ticket: bool = False
    status_request: bool = False
    extended_master_secret: bool = True
    psk: bool = False
    group: int = X25519
    retry: bool = False
    """A HelloRetryRequest that asks for `group`."""
    selected_version: int | None = None
    extra: bytes = b""

    def message(self) -> bytes:
        random = HELLO_RETRY_RANDOM if self.retry else self.random or self.noise.take(32)
        random = random[: 32 - len(self.tail)] + self.tail
        body = struct.pack(">H", min(self.version, TLS12)) + random + vector(self.session_id, 1)
        body += struct.pack(">HB", self.suite, 0)
        parts = []
        if self.version >= TLS13:
            parts.append(extension(43, struct.pack(">H", self.selected_version or TLS13)))
            share = struct.pack(">H", self.group) if self.retry else key_share_entry(self.group, self.noise)
            parts.append(extension(51, share))
            if self.psk:
                parts.append(extension(41, b"\0\0"))
        elif self.version > SSL30:
            parts.append(extension(0xFF01, b"\0"))
            if self.extended_master_secret:
                parts.append(extension(23))
            if self.ticket:
                parts.append(extension(35))
            if self.status_request:
                parts.append(extension(5))
            if self.alpn:
                parts.append(extension(16, alpn_list([self.alpn])))
            if self.heartbeat_mode is not None:
                parts.append(extension(15, bytes([self.heartbeat_mode])))
        extensions = b"".join(parts) + self.extra
        return message(SERVER_HELLO, body + (vector(extensions, 2) if extensions else b""))


# SSLv2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sslv2Hello:
    """The SSLv2 CLIENT-HELLO, also as newer clients sent it to offer TLS (RFC 5246 E.2)."""

    noise: Noise
    version: int
    kinds: Sequence[int] = field(default=(0x010080, 0x020080, 0x030080, 0x060040, 0x0700C0))

    def record(self) -> bytes:
        ciphers = b"".join(kind.to_bytes(3, "big") for kind in self.kinds)
        challenge = self.noise.take(16)
        body = struct.pack(">BHHHH", 1, self.version, len(ciphers), 0, len(challenge)) + ciphers + challenge
        return sslv2_record(body)


def sslv2_record(body: bytes) -> bytes:
    return struct.pack(">H", 0x8000 | len(body)) + body
