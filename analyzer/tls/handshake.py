"""Hello messages as dataclasses, in the order of the RFC.

In:  the body of a complete handshake message: what follows its type and length.
Out: ClientHello, ServerHello; for SSL 2.0 Ssl2ClientHello, Ssl2ServerHello.
Source: RFC 8446 4.1, RFC 5246 7.4.1, draft-hickman-netscape-ssl 2.5 and 2.6; of extensions at their lines.

Nothing raises on what the peer sent: what could be read is kept, and `malformed` says what is wrong. Integers
stay integers, wire/iana.py names them. The engine's own reader of the few facts it needs is tls/hello.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from analyzer.tls.cursor import Cursor, Malformed
from analyzer.wire.iana import ExtensionType, name_of

HELLO_RETRY_REQUEST_RANDOM: Final = bytes.fromhex(
    "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
)
"""SHA-256 of "HelloRetryRequest": a ServerHello with this random is one (RFC 8446 4.1.3)."""

_PROBLEMS_SHOWN: Final = 8
"""A hostile hello can hold sixteen thousand malformed extensions."""

_SHORT_SERVER_HELLO: Final = range(0x7F00, 0x7F16)
"""Drafts of TLS 1.3 up to 21: no session id and no compression method in the ServerHello."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeMessage:
    """A handshake message before its body is looked at (RFC 8446 4)."""

    msg_type: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShareEntry:
    """RFC 8446 4.2.8."""

    group: int
    key_exchange: bytes
    """Empty in a HelloRetryRequest, which only names the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedPsks:
    """RFC 8446 4.2.11."""

    identities: tuple[tuple[bytes, int], ...]
    """Identity and obfuscated ticket age of each."""
    binders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """RFC 8446 4.1.2. An extension that is not there is None (or False where it has no content)."""

    legacy_version: int = 0
    random: bytes = b""
    session_id: bytes = b""
    cipher_suites: tuple[int, ...] = ()
    compression_methods: tuple[int, ...] = ()

    extension_types: tuple[int, ...] = ()
    """Every extension in order, GREASE and repeated ones too."""
    server_name: bytes | None = None
    """The first host_name; empty if the list has none."""
    max_fragment_length: int | None = None
    status_request: int | None = None
    """CertificateStatusType."""
    supported_groups: tuple[int, ...] | None = None
    ec_point_formats: tuple[int, ...] | None = None
    signature_algorithms: tuple[int, ...] | None = None
    heartbeat: int | None = None
    """HeartbeatMode."""
    alpn: tuple[bytes, ...] | None = None
    encrypt_then_mac: bool = False
    extended_master_secret: bool = False
    compress_certificate: tuple[int, ...] | None = None
    record_size_limit: int | None = None
    session_ticket: bytes | None = None
    """Empty asks for a ticket."""
    pre_shared_key: OfferedPsks | None = None
    early_data: bool = False
    supported_versions: tuple[int, ...] | None = None
    cookie: bytes | None = None
    psk_key_exchange_modes: tuple[int, ...] | None = None
    signature_algorithms_cert: tuple[int, ...] | None = None
    key_share: tuple[KeyShareEntry, ...] | None = None
    renegotiation_info: bytes | None = None
    other_extensions: tuple[tuple[int, bytes], ...] = ()
    """What is not above, repeated or malformed, as it came."""

    malformed: str | None = None
    """What is wrong with it, if anything."""

    @property
    def sni(self) -> str | None:
        """The server name as text; bytes that are not UTF-8 as escapes."""
        return None if self.server_name is None else self.server_name.decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHello:
    """RFC 8446 4.1.3; a HelloRetryRequest too (4.1.4)."""

    legacy_version: int = 0
    random: bytes = b""
    session_id: bytes = b""
    cipher_suite: int = 0
    compression_method: int = 0

    extension_types: tuple[int, ...] = ()
    max_fragment_length: int | None = None
    ec_point_formats: tuple[int, ...] | None = None
    heartbeat: int | None = None
    alpn: tuple[bytes, ...] | None = None
    """One protocol if the server keeps to RFC 7301 3.1."""
    encrypt_then_mac: bool = False
    extended_master_secret: bool = False
    truncated_hmac: bool = False
    status_request: bool = False
    session_ticket: bool = False
    pre_shared_key: int | None = None
    """Index of the identity that was taken."""
    supported_version: int | None = None
    cookie: bytes | None = None
    key_share: KeyShareEntry | None = None
    renegotiation_info: bytes | None = None
    other_extensions: tuple[tuple[int, bytes], ...] = ()

    malformed: str | None = None

    @property
    def is_hello_retry_request(self) -> bool:
        """It asks for another ClientHello."""
        return self.random == HELLO_RETRY_REQUEST_RANDOM

    @property
    def version(self) -> int:
        """The version that is negotiated (RFC 8446 4.2.1)."""
        return self.legacy_version if self.supported_version is None else self.supported_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssl2ClientHello:
    """CLIENT-HELLO of SSL 2.0, also the one that offers SSL 3.0 and later (RFC 5246 E.2)."""

    version: int = 0
    cipher_kinds: tuple[int, ...] = ()
    """Three bytes each; 0x00xxxx is the TLS cipher suite xxxx."""
    session_id: bytes = b""
    challenge: bytes = b""
    malformed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssl2ServerHello:
    """SERVER-HELLO of SSL 2.0."""

    session_id_hit: int = 0
    certificate_type: int = 0
    version: int = 0
    certificate: bytes = b""
    cipher_kinds: tuple[int, ...] = ()
    connection_id: bytes = b""
    malformed: str | None = None


def pull_handshake_message(cursor: Cursor) -> HandshakeMessage:
    """Pull one message off a stream of handshake records' content; NeedMore until all of it is there."""
    msg_type = cursor.pull_uint(1, "handshake type")
    return HandshakeMessage(msg_type=msg_type, body=cursor.pull_opaque(3, "handshake message"))


def parse_client_hello(body: bytes) -> ClientHello:
    """Read a ClientHello."""
    return ClientHello(**_fields(body, _client_hello))


def parse_server_hello(body: bytes) -> ServerHello:
    """Read a ServerHello or HelloRetryRequest."""
    return ServerHello(**_fields(body, _server_hello))


def parse_ssl2_client_hello(body: bytes) -> Ssl2ClientHello:
    """Read an SSL 2.0 CLIENT-HELLO, from behind its message type."""
    return Ssl2ClientHello(**_fields(body, _ssl2_client_hello))


def parse_ssl2_server_hello(body: bytes) -> Ssl2ServerHello:
    """Read an SSL 2.0 SERVER-HELLO, from behind its message type."""
    return Ssl2ServerHello(**_fields(body, _ssl2_server_hello))


_Fields = dict[str, Any]
_Extension = tuple[str, Callable[[Cursor], object]]
"""Field of the dataclass, and what reads its content."""


def _fields(body: bytes, pull: Callable[[Cursor, _Fields], None]) -> _Fields:
    """The fields that could be read, and `malformed`."""
    fields: _Fields = {}
    try:
        cursor = Cursor(body)
        pull(cursor, fields)
        cursor.expect_end("message")
    except Malformed as problem:
        fields["malformed"] = "; ".join(filter(None, (fields.get("malformed"), str(problem))))
    return fields


def _client_hello(cursor: Cursor, fields: _Fields) -> None:
    fields["legacy_version"] = cursor.pull_uint(2, "legacy_version")
    fields["random"] = cursor.pull_bytes(32, "random")
    fields["session_id"] = cursor.pull_opaque(1, "session_id")
    fields["cipher_suites"] = cursor.pull_uints(2, 2, "cipher_suites")
    fields["compression_methods"] = cursor.pull_uints(1, 1, "compression_methods")
    if cursor.left:  # none at all before RFC 3546
        _pull_extensions(cursor, fields, _CLIENT_EXTENSIONS)


def _server_hello(cursor: Cursor, fields: _Fields) -> None:
    version = fields["legacy_version"] = cursor.pull_uint(2, "legacy_version")
    fields["random"] = cursor.pull_bytes(32, "random")
    if version not in _SHORT_SERVER_HELLO:
        fields["session_id"] = cursor.pull_opaque(1, "session_id")
    fields["cipher_suite"] = cursor.pull_uint(2, "cipher_suite")
    if version not in _SHORT_SERVER_HELLO:
        fields["compression_method"] = cursor.pull_uint(1, "compression_method")
    if cursor.left:
        retry = fields["random"] == HELLO_RETRY_REQUEST_RANDOM
        _pull_extensions(cursor, fields, _RETRY_EXTENSIONS if retry else _SERVER_EXTENSIONS)


def _ssl2_client_hello(cursor: Cursor, fields: _Fields) -> None:
    fields["version"] = cursor.pull_uint(2, "version")
    lengths = [cursor.pull_uint(2, "lengths") for _ in range(3)]
    fields["cipher_kinds"] = _ssl2_cipher_kinds(cursor.pull_bytes(lengths[0], "cipher_kinds"))
    fields["session_id"] = cursor.pull_bytes(lengths[1], "session_id")
    fields["challenge"] = cursor.pull_bytes(lengths[2], "challenge")


def _ssl2_server_hello(cursor: Cursor, fields: _Fields) -> None:
    fields["session_id_hit"] = cursor.pull_uint(1, "session_id_hit")
    fields["certificate_type"] = cursor.pull_uint(1, "certificate_type")
    fields["version"] = cursor.pull_uint(2, "version")
    lengths = [cursor.pull_uint(2, "lengths") for _ in range(3)]
    fields["certificate"] = cursor.pull_bytes(lengths[0], "certificate")
    fields["cipher_kinds"] = _ssl2_cipher_kinds(cursor.pull_bytes(lengths[1], "cipher_kinds"))
    fields["connection_id"] = cursor.pull_bytes(lengths[2], "connection_id")


def _ssl2_cipher_kinds(data: bytes) -> tuple[int, ...]:
    cursor = Cursor(data)
    kinds = []
    while cursor.left:
        kinds.append(cursor.pull_uint(3, "cipher_kinds"))
    return tuple(kinds)


def _pull_extensions(cursor: Cursor, fields: _Fields, known: Mapping[int, _Extension]) -> None:
    """Read the extensions into fields; one that can't be read goes to other_extensions."""
    types: list[int] = []
    others: list[tuple[int, bytes]] = []
    problems: list[str] = []
    try:
        block = cursor.pull_block(2, "extensions")
    except Malformed as problem:  # the length claims more than there is: read what is there
        problems.append(str(problem))
        block = Cursor(cursor.pull_bytes(cursor.left, "extensions"))
    try:
        while block.left:
            extension = block.pull_uint(2, "extension type")
            types.append(extension)
            data = block.pull_opaque(2, f"extension {name_of(ExtensionType, extension)}")
            field, pull = known.get(extension, ("", None))
            if pull is None or field in fields:
                others.append((extension, data))
                continue
            try:
                content = Cursor(data)
                value = pull(content)
                content.expect_end(field)
                fields[field] = value
            except Malformed as problem:
                problems.append(f"extension {name_of(ExtensionType, extension)}: {problem}")
                others.append((extension, data))
    except Malformed as problem:
        problems.append(str(problem))
    fields["extension_types"] = tuple(types)
    fields["other_extensions"] = tuple(others)
    if problems:
        fields["malformed"] = "; ".join(problems[:_PROBLEMS_SHOWN])


def _uint(size: int) -> Callable[[Cursor], int]:
    return lambda content: content.pull_uint(size, "content")


def _uints(length_size: int, size: int) -> Callable[[Cursor], tuple[int, ...]]:
    return lambda content: content.pull_uints(length_size, size, "content")


def _opaque(length_size: int) -> Callable[[Cursor], bytes]:
    return lambda content: content.pull_opaque(length_size, "content")


def _pull_rest(content: Cursor) -> bytes:
    return content.pull_bytes(content.left, "content")


def _pull_nothing(_content: Cursor) -> bool:
    """For an extension that says all by being there."""
    return True


def _pull_server_name(content: Cursor) -> bytes:
    def pull_name(names: Cursor) -> tuple[int, bytes]:
        return names.pull_uint(1, "name_type"), names.pull_opaque(2, "name")

    names = content.pull_list(2, pull_name, "server_name_list")
    return next((name for name_type, name in names if name_type == 0), b"")


def _pull_status_request(content: Cursor) -> int:
    status_type = content.pull_uint(1, "status_type")
    _pull_rest(content)
    return status_type


def _pull_protocols(content: Cursor) -> tuple[bytes, ...]:
    return content.pull_list(2, lambda names: names.pull_opaque(1, "protocol"), "protocol_name_list")


def _pull_key_share_entry(content: Cursor) -> KeyShareEntry:
    group = content.pull_uint(2, "group")
    return KeyShareEntry(group=group, key_exchange=content.pull_opaque(2, "key_exchange"))


def _pull_key_shares(content: Cursor) -> tuple[KeyShareEntry, ...]:
    return content.pull_list(2, _pull_key_share_entry, "client_shares")


def _pull_retry_group(content: Cursor) -> KeyShareEntry:
    return KeyShareEntry(group=content.pull_uint(2, "selected_group"), key_exchange=b"")


def _pull_offered_psks(content: Cursor) -> OfferedPsks:
    def pull_identity(identities: Cursor) -> tuple[bytes, int]:
        return identities.pull_opaque(2, "identity"), identities.pull_uint(4, "obfuscated_ticket_age")

    return OfferedPsks(
        identities=content.pull_list(2, pull_identity, "identities"),
        binders=content.pull_list(2, lambda binders: binders.pull_opaque(1, "binder"), "binders"),
    )


# fmt: off
_X: Final = ExtensionType
_ALPN: Final = _X.APPLICATION_LAYER_PROTOCOL_NEGOTIATION

_CLIENT_EXTENSIONS: Final[Mapping[int, _Extension]] = {
    _X.SERVER_NAME:                ("server_name",               _pull_server_name),      # RFC 6066 3
    _X.MAX_FRAGMENT_LENGTH:        ("max_fragment_length",       _uint(1)),               # RFC 6066 4
    _X.STATUS_REQUEST:             ("status_request",            _pull_status_request),   # RFC 6066 8
    _X.SUPPORTED_GROUPS:           ("supported_groups",          _uints(2, 2)),           # RFC 8446 4.2.7
    _X.EC_POINT_FORMATS:           ("ec_point_formats",          _uints(1, 1)),           # RFC 8422 5.1.2
    _X.SIGNATURE_ALGORITHMS:       ("signature_algorithms",      _uints(2, 2)),           # RFC 8446 4.2.3
    _X.HEARTBEAT:                  ("heartbeat",                 _uint(1)),               # RFC 6520 2
    _ALPN:                         ("alpn",                      _pull_protocols),        # RFC 7301 3.1
    _X.ENCRYPT_THEN_MAC:           ("encrypt_then_mac",          _pull_nothing),          # RFC 7366 2
    _X.EXTENDED_MASTER_SECRET:     ("extended_master_secret",    _pull_nothing),          # RFC 7627 5.1
    _X.COMPRESS_CERTIFICATE:       ("compress_certificate",      _uints(1, 2)),           # RFC 8879 3
    _X.RECORD_SIZE_LIMIT:          ("record_size_limit",         _uint(2)),               # RFC 8449 4
    _X.SESSION_TICKET:             ("session_ticket",            _pull_rest),             # RFC 5077 3.2
    _X.PRE_SHARED_KEY:             ("pre_shared_key",            _pull_offered_psks),     # RFC 8446 4.2.11
    _X.EARLY_DATA:                 ("early_data",                _pull_nothing),          # RFC 8446 4.2.10
    _X.SUPPORTED_VERSIONS:         ("supported_versions",        _uints(1, 2)),           # RFC 8446 4.2.1
    _X.COOKIE:                     ("cookie",                    _opaque(2)),             # RFC 8446 4.2.2
    _X.PSK_KEY_EXCHANGE_MODES:     ("psk_key_exchange_modes",    _uints(1, 1)),           # RFC 8446 4.2.9
    _X.SIGNATURE_ALGORITHMS_CERT:  ("signature_algorithms_cert", _uints(2, 2)),           # RFC 8446 4.2.3
    _X.KEY_SHARE:                  ("key_share",                 _pull_key_shares),       # RFC 8446 4.2.8
    _X.RENEGOTIATION_INFO:         ("renegotiation_info",        _opaque(1)),             # RFC 5746 3.2
}

_SERVER_EXTENSIONS: Final[Mapping[int, _Extension]] = {
    _X.MAX_FRAGMENT_LENGTH:        ("max_fragment_length",       _uint(1)),               # RFC 6066 4
    _X.TRUNCATED_HMAC:             ("truncated_hmac",            _pull_nothing),          # RFC 6066 7
    _X.STATUS_REQUEST:             ("status_request",            _pull_nothing),          # RFC 6066 8
    _X.EC_POINT_FORMATS:           ("ec_point_formats",          _uints(1, 1)),           # RFC 8422 5.2
    _X.HEARTBEAT:                  ("heartbeat",                 _uint(1)),               # RFC 6520 2
    _ALPN:                         ("alpn",                      _pull_protocols),        # RFC 7301 3.1
    _X.ENCRYPT_THEN_MAC:           ("encrypt_then_mac",          _pull_nothing),          # RFC 7366 2
    _X.EXTENDED_MASTER_SECRET:     ("extended_master_secret",    _pull_nothing),          # RFC 7627 5.1
    _X.SESSION_TICKET:             ("session_ticket",            _pull_nothing),          # RFC 5077 3.2
    _X.PRE_SHARED_KEY:             ("pre_shared_key",            _uint(2)),               # RFC 8446 4.2.11
    _X.SUPPORTED_VERSIONS:         ("supported_version",         _uint(2)),               # RFC 8446 4.2.1
    _X.KEY_SHARE:                  ("key_share",                 _pull_key_share_entry),  # RFC 8446 4.2.8
    _X.RENEGOTIATION_INFO:         ("renegotiation_info",        _opaque(1)),             # RFC 5746 3.2
}

_RETRY_EXTENSIONS: Final[Mapping[int, _Extension]] = {
    **_SERVER_EXTENSIONS,
    _X.COOKIE:                     ("cookie",                    _opaque(2)),             # RFC 8446 4.2.2
    _X.KEY_SHARE:                  ("key_share",                 _pull_retry_group),      # RFC 8446 4.2.8
}
# fmt: on
