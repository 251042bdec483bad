"""The facts of a hello that the tracker and the detectors need, read in one pass.

In:  the body of a ClientHello or ServerHello (without its four-byte header), as a writable byte buffer.
Out: FACTS (numbers), and ClientTexts or ServerTexts.
Source: RFC 8446 4.1.2, 4.1.3, 4.2; RFC 5246 7.4.1; RFC 6066 3; RFC 7301; RFC 6520 2; RFC 7507; RFC 8701
(GREASE).

handshake.py parses the same messages in full and readably, for people; a test holds the two equal. A
damaged hello gives what stood before the damage, with MALFORMED set; nothing here raises.
"""

# cython: boundscheck=True

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

import cython
import numpy as np
import numpy.typing as npt

from analyzer.tls import classify
from analyzer.tls.fingerprint import ja3, ja3s, ja4

COMPILED = cython.compiled

# flags of a hello, Fact.FLAGS
SUPPORTED_VERSIONS: Final = 1 << 0
EARLY_DATA: Final = 1 << 1
TICKET: Final = 1 << 2
"""session_ticket extension present."""
TICKET_FILLED: Final = 1 << 3
PSK: Final = 1 << 4
EXTENDED_MASTER_SECRET: Final = 1 << 5
ENCRYPT_THEN_MAC: Final = 1 << 6
SNI: Final = 1 << 7
ALPN: Final = 1 << 8
FALLBACK_SCSV: Final = 1 << 9
RENEGOTIATION_SCSV: Final = 1 << 10
RENEGOTIATION: Final = 1 << 11
RENEGOTIATION_FILLED: Final = 1 << 12
STATUS: Final = 1 << 13
KEY_SHARE: Final = 1 << 14
COMPRESSION: Final = 1 << 15
MALFORMED: Final = 1 << 16
DUPLICATE: Final = 1 << 17
SSL2_FORMAT: Final = 1 << 18
RETRY: Final = 1 << 19
"""ServerHello that is a HelloRetryRequest."""
SENTINEL_12: Final = 1 << 20
"""ServerHello random ends in DOWNGRD 01."""
SENTINEL_11: Final = 1 << 21
"""ServerHello random ends in DOWNGRD 00."""
ALPN_H2: Final = 1 << 22
TRUNCATED_HMAC: Final = 1 << 23
DRAFT_13: Final = 1 << 24
"""supported_versions names a draft of TLS 1.3."""


class Fact(IntEnum):
    """What FACTS holds after a hello was read; what the other kind of hello has is undefined."""

    FLAGS = 0
    LEGACY_VERSION = 1
    VERSION = 2
    """ClientHello: highest version offered, supported_versions included, GREASE not. ServerHello: the
    negotiated one."""
    HEARTBEAT = 3
    """Mode of the heartbeat extension, 0 without."""
    OFFERED = 4
    """Bit n: version 0x0300 + n is named in supported_versions."""
    SUITES_HASH = 5
    """Of the suites in order, without GREASE and signalling values."""
    COMMON_HASH = 6
    """Of the suites among them that every version has: the same for a client that falls back."""
    CIPHER_SUITE = 7
    COMPRESSION = 8
    GROUP = 9
    SSL3_HASH = 10
    """Like COMMON_HASH, of the suites that SSL 3.0 has as well."""


FACTS: Final[npt.NDArray[np.int64]] = np.zeros(len(Fact), dtype=np.int64)
"""Numbers of the hello read last. One array instead of an object for each hello: there are two per
connection."""


class ClientTexts(NamedTuple):
    session_id: bytes
    random: bytes
    sni: bytes
    alpn: bytes
    """The list as in the extension: each protocol behind its length byte."""
    ja3: str
    ja4: str


class ServerTexts(NamedTuple):
    session_id: bytes
    random: bytes
    alpn: bytes
    ja3s: str


NO_CLIENT: Final = ClientTexts(b"", b"", b"", b"", "", "")
NO_SERVER: Final = ServerTexts(b"", b"", b"", "")
"""Of a hello that was not seen."""

# fmt: off
_F_SV = cython.declare(cython.longlong, SUPPORTED_VERSIONS)
_F_EARLY = cython.declare(cython.longlong, EARLY_DATA)
_F_TICKET = cython.declare(cython.longlong, TICKET)
_F_TICKET_FILLED = cython.declare(cython.longlong, TICKET_FILLED)
_F_PSK = cython.declare(cython.longlong, PSK)
_F_EMS = cython.declare(cython.longlong, EXTENDED_MASTER_SECRET)
_F_ETM = cython.declare(cython.longlong, ENCRYPT_THEN_MAC)
_F_SNI = cython.declare(cython.longlong, SNI)
_F_ALPN = cython.declare(cython.longlong, ALPN)
_F_FALLBACK = cython.declare(cython.longlong, FALLBACK_SCSV)
_F_RENEG_SCSV = cython.declare(cython.longlong, RENEGOTIATION_SCSV)
_F_RENEG = cython.declare(cython.longlong, RENEGOTIATION)
_F_RENEG_FILLED = cython.declare(cython.longlong, RENEGOTIATION_FILLED)
_F_STATUS = cython.declare(cython.longlong, STATUS)
_F_KEY_SHARE = cython.declare(cython.longlong, KEY_SHARE)
_F_COMPRESSION = cython.declare(cython.longlong, COMPRESSION)
_F_MALFORMED = cython.declare(cython.longlong, MALFORMED)
_F_DUPLICATE = cython.declare(cython.longlong, DUPLICATE)
_F_RETRY = cython.declare(cython.longlong, RETRY)
_F_SENTINEL_12 = cython.declare(cython.longlong, SENTINEL_12)
_F_SENTINEL_11 = cython.declare(cython.longlong, SENTINEL_11)
_F_H2 = cython.declare(cython.longlong, ALPN_H2)
_F_TRUNCATED = cython.declare(cython.longlong, TRUNCATED_HMAC)
_F_DRAFT = cython.declare(cython.longlong, DRAFT_13)
# fmt: on
NO_SUITES: Final = 0x4BF29CE484222325
"""What the hashes of suites are where none of theirs is offered."""

# FNV-1a, kept below 2^63; declared, because a bare literal of 32 bits and more would be a Python object
_FNV_BASIS = cython.declare(cython.ulonglong, NO_SUITES)
_FNV_PRIME = cython.declare(cython.ulonglong, 0x100000001B3)
_MASK63 = cython.declare(cython.ulonglong, 0x7FFFFFFFFFFFFFFF)
_TURN_MAX = cython.declare(cython.uint, 0x7FFFFFFF)
_EVERY_VERSION = cython.declare(cython.int, classify.EVERY_VERSION)
_SSL3 = cython.declare(cython.int, classify.SSL3)

RETRY_RANDOM: Final = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
"""RFC 8446 4.1.3: the random of a HelloRetryRequest."""

_SCRATCH = np.zeros(1 << 18, dtype=np.uint8)
_SEEN = np.zeros(1 << 16, dtype=np.uint32)
_TURN = np.zeros(1, dtype=np.uint32)
_scratch = cython.declare(cython.uchar[::1], _SCRATCH.data)
_SPANS = np.zeros(6, dtype=np.intp)
_spans = cython.declare(cython.Py_ssize_t[::1], _SPANS.data)  # where the texts of the hello read last lie
_LONGEST = cython.declare(cython.Py_ssize_t, 1 << 16)
_new = tuple.__new__  # a NamedTuple's own __new__ takes its fields by name, and its time
_seen = cython.declare(cython.uint[::1], _SEEN.data)
_turn = cython.declare(cython.uint[::1], _TURN.data)
_rules = cython.declare(
    cython.uchar[::1], np.array(classify.RULES).data
)  # a copy: the view asks for a writable array
_retry = cython.declare(cython.uchar[::1], memoryview(bytearray(RETRY_RANDOM)))
_sentinel = cython.declare(cython.uchar[::1], memoryview(bytearray(b"DOWNGRD")))  # RFC 8446 4.1.3
_facts = cython.declare(cython.longlong[::1], FACTS.data)


def _numbers(shape: bytes, at: int) -> tuple[list[int], int]:
    count = int.from_bytes(shape[at : at + 2], "big")
    end = at + 2 + 2 * count
    return np.frombuffer(shape, dtype=">u2", count=count, offset=at + 2).tolist(), end


def _fingerprints(shape: bytes) -> tuple[str, str]:
    """JA3 and JA4 of a hello's shape: everything in it that they read, GREASE left out."""
    legacy_version = int.from_bytes(shape[0:2], "big")
    version = int.from_bytes(shape[2:4], "big")
    sni = bool(shape[4])
    alpn_end = 6 + shape[5]
    alpn = shape[6:alpn_end]
    suites, at = _numbers(shape, alpn_end)
    extensions, at = _numbers(shape, at)
    groups, at = _numbers(shape, at)
    formats, at = _numbers(shape, at)
    signatures, at = _numbers(shape, at)
    return (
        ja3(legacy_version, suites, extensions, groups, formats),
        ja4(version, sni, suites, extensions, signatures, alpn),
    )


@cython.cfunc
@cython.locals(view=cython.uchar[::1], at=cython.Py_ssize_t, size=cython.Py_ssize_t)
def _bytes(view, at, size):  # type: ignore[no-untyped-def]
    """A copy of view[at : at + size]; what is not in the view is left out."""
    size = min(size, view.shape[0] - at)
    if size <= 0:
        return b""
    if cython.compiled:
        return cython.cast(cython.p_char, cython.address(view[at]))[:size]
    return bytes(view[at : at + size])


def _server_print(shape: bytes) -> str:
    """JA3S of a hello's shape: version, suite and the types of its extensions."""
    legacy_version, suite, *types = np.frombuffer(shape, dtype=">u2").tolist()
    return ja3s(legacy_version, suite, tuple(types))


_fingerprints_cached = lru_cache(maxsize=4096)(_fingerprints)
_server_print_cached = lru_cache(maxsize=4096)(_server_print)


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(check=False)
@cython.locals(value=cython.int)
def _grease(value):  # type: ignore[no-untyped-def]
    """RFC 8701: 0x0A0A, 0x1A1A, ... 0xFAFA."""
    return (value & 0x0F0F) == 0x0A0A and (value >> 8) == (value & 0xFF)


@cython.cfunc
@cython.returns(cython.Py_ssize_t)
@cython.exceptval(-1, check=True)
@cython.locals(
    body=cython.uchar[::1], out=cython.uchar[::1], at=cython.Py_ssize_t, begin=cython.Py_ssize_t,
    size=cython.Py_ssize_t, i=cython.Py_ssize_t, count=cython.Py_ssize_t, value=cython.int,
    head=cython.Py_ssize_t, wide=cython.bint,
)  # fmt: skip
def _put_list(body, out, at, begin, size, wide):  # type: ignore[no-untyped-def]
    """Append a list of the body to the shape, as 16-bit values without GREASE, behind its count."""
    head = at
    at += 2
    count = 0
    i = 0
    while i + (2 if wide else 1) <= size:
        if wide:
            value = (body[begin + i] << 8) | body[begin + i + 1]
            i += 2
            if _grease(value):
                continue
        else:
            value = body[begin + i]
            i += 1
        out[at] = value >> 8
        out[at + 1] = value & 0xFF
        at += 2
        count += 1
    out[head] = count >> 8
    out[head + 1] = count & 0xFF
    return at


@cython.cfunc
@cython.returns(cython.Py_ssize_t)
@cython.exceptval(-1, check=True)
@cython.locals(
    body=cython.uchar[::1], n=cython.Py_ssize_t, i=cython.Py_ssize_t, end=cython.Py_ssize_t,
    size=cython.Py_ssize_t, at=cython.Py_ssize_t,
    flags=cython.longlong, legacy=cython.int, top=cython.int, offered=cython.int, heartbeat=cython.int,
    value=cython.int, kind=cython.int, ciphers=cython.Py_ssize_t, ciphers_size=cython.Py_ssize_t,
    groups=cython.Py_ssize_t, groups_size=cython.Py_ssize_t, formats=cython.Py_ssize_t,
    formats_size=cython.Py_ssize_t, signatures=cython.Py_ssize_t, signatures_size=cython.Py_ssize_t,
    name=cython.Py_ssize_t, name_size=cython.Py_ssize_t, proto=cython.Py_ssize_t,
    proto_size=cython.Py_ssize_t, types=cython.Py_ssize_t, count=cython.Py_ssize_t, h=cython.ulonglong,
    g=cython.ulonglong, g3=cython.ulonglong, session=cython.Py_ssize_t, session_size=cython.Py_ssize_t,
    offers=cython.Py_ssize_t, offers_size=cython.Py_ssize_t, j=cython.Py_ssize_t, stop=cython.Py_ssize_t,
    ja4_version=cython.int, tops=cython.int, k=cython.Py_ssize_t,
)  # fmt: skip
def _client(body, n):  # type: ignore[no-untyped-def]
    flags = 0
    legacy = 0
    top = 0
    tops = -1
    offered = 0
    heartbeat = 0
    ciphers = ciphers_size = groups = groups_size = formats = formats_size = signatures = signatures_size = 0
    name = name_size = proto = proto_size = offers = offers_size = session = session_size = 0
    types = 1 << 17  # the upper half of the scratch collects extension types
    count = 0
    h = _FNV_BASIS
    g = _FNV_BASIS
    g3 = _FNV_BASIS
    while True:  # left at the first damage
        flags |= _F_MALFORMED
        if n < 35:
            if n >= 2:
                legacy = (body[0] << 8) | body[1]
            break
        legacy = (body[0] << 8) | body[1]
        session = 35
        session_size = body[34]
        i = 35 + session_size
        if i + 2 > n:
            session_size = 0
            break
        size = (body[i] << 8) | body[i + 1]
        i += 2
        if i + size > n:
            break
        ciphers = i
        ciphers_size = size
        j = i
        while j + 2 <= i + size:
            value = (body[j] << 8) | body[j + 1]
            j += 2
            if value == 0x5600:
                flags |= _F_FALLBACK
            elif value == 0x00FF:
                flags |= _F_RENEG_SCSV
            elif not _grease(value):
                h = ((h ^ value) * _FNV_PRIME) & _MASK63
                if _rules[value] & _EVERY_VERSION:
                    g = ((g ^ value) * _FNV_PRIME) & _MASK63
                    if _rules[value] & _SSL3:
                        g3 = ((g3 ^ value) * _FNV_PRIME) & _MASK63
        i += size
        if i + 1 > n:
            break
        size = body[i]
        i += 1
        if i + size > n:
            break
        for k in range(size):
            if body[i + k] != 0:
                flags |= _F_COMPRESSION
        i += size
        if i == n:  # no extensions, as before RFC 3546
            flags &= ~_F_MALFORMED
            break
        if i + 2 > n:
            break
        size = (body[i] << 8) | body[i + 1]
        i += 2
        stop = i + size
        if stop > n:
            stop = n
        elif stop == n:
            flags &= ~_F_MALFORMED
        _turn[0] = (_turn[0] + 1) & _TURN_MAX
        while i < stop:
            if i + 4 > stop:
                flags |= _F_MALFORMED
                break
            kind = (body[i] << 8) | body[i + 1]
            size = (body[i + 2] << 8) | body[i + 3]
            i += 4
            end = i + size
            if end > stop:
                flags |= _F_MALFORMED
                break
            if not _grease(kind):
                _scratch[types + 2 * count] = kind >> 8
                _scratch[types + 2 * count + 1] = kind & 0xFF
                count += 1
            if _seen[kind] == _turn[0]:
                flags |= _F_DUPLICATE  # RFC 8446 4.2: no type twice; the first one counts
                i = end
                continue
            _seen[kind] = _turn[0]
            if kind == 0:
                flags |= _F_SNI
                # ServerNameList: length, then of each name its type (0 host_name), length and bytes
                j = i + 2
                while j + 3 <= end:
                    name = j + 3
                    name_size = (body[j + 1] << 8) | body[j + 2]
                    if name + name_size > end:
                        name_size = end - name
                        flags |= _F_MALFORMED
                    if body[j] == 0:
                        break
                    j = name + name_size
                    name_size = 0
            elif kind == 10:
                if size >= 2:
                    groups = i + 2
                    groups_size = (body[i] << 8) | body[i + 1]
                    if groups_size > size - 2:
                        groups_size = size - 2
                        flags |= _F_MALFORMED
            elif kind == 11:
                if size >= 1:
                    formats = i + 1
                    formats_size = body[i]
                    if formats_size > size - 1:
                        formats_size = size - 1
                        flags |= _F_MALFORMED
            elif kind == 13:
                if size >= 2:
                    signatures = i + 2
                    signatures_size = (body[i] << 8) | body[i + 1]
                    if signatures_size > size - 2:
                        signatures_size = size - 2
                        flags |= _F_MALFORMED
            elif kind == 16:
                flags |= _F_ALPN
                if size >= 3:
                    offers = i + 2
                    offers_size = size - 2
                    if offers_size > 1024:
                        offers_size = 1024
                    proto = i + 3
                    proto_size = body[i + 2]
                    if proto + proto_size > end:
                        proto_size = end - proto
                        flags |= _F_MALFORMED
                    j = i + 2
                    while j + 2 < end:
                        if body[j] == 2 and body[j + 1] == 0x68 and body[j + 2] == 0x32:
                            flags |= _F_H2
                        j += 1 + body[j]
            elif kind == 5 or kind == 17:
                flags |= _F_STATUS
            elif kind == 15:
                if size >= 1:
                    heartbeat = body[i]
            elif kind == 22:
                flags |= _F_ETM
            elif kind == 23:
                flags |= _F_EMS
            elif kind == 4:
                flags |= _F_TRUNCATED
            elif kind == 35:
                flags |= _F_TICKET
                if size > 0:
                    flags |= _F_TICKET_FILLED
            elif kind == 41:
                flags |= _F_PSK
            elif kind == 42:
                flags |= _F_EARLY
            elif kind == 43:
                flags |= _F_SV
                j = i + 1
                while j + 2 <= end:
                    value = (body[j] << 8) | body[j + 1]
                    j += 2
                    if value >> 8 == 3:
                        if value > top:
                            top = value
                        if value & 0xFF <= 8:
                            offered |= 1 << (value & 0xFF)
                    elif value >> 8 == 0x7F:
                        flags |= _F_DRAFT
                    if not _grease(value) and value > tops:
                        tops = value
            elif kind == 51 or kind == 40:
                flags |= _F_KEY_SHARE
            elif kind == 0xFF01:
                flags |= _F_RENEG
                if size > 0 and body[i] != 0:
                    flags |= _F_RENEG_FILLED
            i = end
        break
    if flags & _F_SV == 0 or (top == 0 and flags & _F_DRAFT == 0):
        top = legacy
    elif flags & _F_DRAFT and top < 0x0304:
        top = 0x0304
    ja4_version = legacy
    if flags & _F_SV and tops >= 0:
        ja4_version = tops
    # the shape
    _scratch[0] = legacy >> 8
    _scratch[1] = legacy & 0xFF
    _scratch[2] = ja4_version >> 8
    _scratch[3] = ja4_version & 0xFF
    _scratch[4] = 1 if flags & _F_SNI else 0
    _scratch[5] = proto_size
    for k in range(proto_size):
        _scratch[6 + k] = body[proto + k]
    at = 6 + proto_size
    at = _put_list(body, _scratch, at, ciphers, ciphers_size, True)
    _scratch[at] = count >> 8
    _scratch[at + 1] = count & 0xFF
    at += 2
    for k in range(2 * count):
        _scratch[at + k] = _scratch[types + k]
    at += 2 * count
    at = _put_list(body, _scratch, at, groups, groups_size, True)
    at = _put_list(body, _scratch, at, formats, formats_size, False)
    at = _put_list(body, _scratch, at, signatures, signatures_size, True)
    _facts[0] = flags
    _facts[1] = legacy
    _facts[2] = top
    _facts[3] = heartbeat
    _facts[4] = offered
    _facts[5] = h
    _facts[6] = g
    _facts[10] = g3
    _spans[0] = session
    _spans[1] = session + session_size
    _spans[2] = name
    _spans[3] = name + name_size
    _spans[4] = offers
    _spans[5] = offers + offers_size
    return at


@cython.locals(view=cython.uchar[::1], at=cython.Py_ssize_t, size=cython.Py_ssize_t, end=cython.Py_ssize_t)  # type: ignore[untyped-decorator]
def client_hello(view: memoryview, at: int, size: int) -> ClientTexts:
    """Read a ClientHello that is view[at : at + size]; its numbers are in FACTS then."""
    size = min(size, _LONGEST)
    end = _client(view[at : at + size], size)
    shape = _bytes(_scratch, 0, end)
    prints = _fingerprints_cached(shape) if end < 2048 else _fingerprints(shape)
    body = _bytes(view, at, size)
    return _new(
        ClientTexts,
        (
            body[_spans[0] : _spans[1]],
            body[2:34],
            body[_spans[2] : _spans[3]],
            body[_spans[4] : _spans[5]],
            prints[0],
            prints[1],
        ),
    )


@cython.cfunc
@cython.returns(cython.Py_ssize_t)
@cython.exceptval(-1, check=True)
@cython.locals(
    body=cython.uchar[::1], n=cython.Py_ssize_t, i=cython.Py_ssize_t, stop=cython.Py_ssize_t,
    end=cython.Py_ssize_t, size=cython.Py_ssize_t, flags=cython.longlong, legacy=cython.int,
    version=cython.int, suite=cython.int, compression=cython.int, heartbeat=cython.int, group=cython.int,
    kind=cython.int, session_size=cython.Py_ssize_t, proto=cython.Py_ssize_t,
    proto_size=cython.Py_ssize_t, at=cython.Py_ssize_t,
)  # fmt: skip
def _server(body, n):  # type: ignore[no-untyped-def]
    flags = _F_MALFORMED
    legacy = version = suite = compression = heartbeat = group = 0
    session_size = proto = proto_size = 0
    at = 4  # the shape: version, suite, and the types of the extensions
    if n >= 2:
        legacy = (body[0] << 8) | body[1]
        version = legacy
    i = 0
    if 0x7F00 <= legacy <= 0x7F15:  # drafts of TLS 1.3 up to 21: no session id, no compression method
        if n >= 36:
            i = 36
            suite = (body[34] << 8) | body[35]
    elif n >= 38 and 38 + body[34] <= n:
        session_size = body[34]
        i = 38 + session_size
        suite = (body[i - 3] << 8) | body[i - 2]
        compression = body[i - 1]
    if i > 0:
        if i == n:
            flags = 0
        elif i + 2 <= n:
            stop = i + 2 + ((body[i] << 8) | body[i + 1])
            i += 2
            if stop == n:
                flags = 0
            else:
                stop = min(stop, n)
            _turn[0] = (_turn[0] + 1) & _TURN_MAX
            while i < stop:
                if i + 4 > stop:
                    flags |= _F_MALFORMED
                    break
                kind = (body[i] << 8) | body[i + 1]
                size = (body[i + 2] << 8) | body[i + 3]
                i += 4
                end = i + size
                if end > stop:
                    flags |= _F_MALFORMED
                    break
                _scratch[at] = kind >> 8
                _scratch[at + 1] = kind & 0xFF
                at += 2
                if _seen[kind] == _turn[0]:
                    flags |= _F_DUPLICATE
                    i = end
                    continue
                _seen[kind] = _turn[0]
                if kind == 43:
                    flags |= _F_SV
                    if size >= 2:
                        version = (body[i] << 8) | body[i + 1]
                elif kind == 16:
                    flags |= _F_ALPN
                    if size >= 3:
                        proto = i + 3
                        proto_size = body[i + 2]
                        if proto + proto_size > end:
                            proto_size = end - proto
                            flags |= _F_MALFORMED
                elif kind == 15:
                    if size >= 1:
                        heartbeat = body[i]
                elif kind == 35:
                    flags |= _F_TICKET
                elif kind == 5 or kind == 17:
                    flags |= _F_STATUS
                elif kind == 22:
                    flags |= _F_ETM
                elif kind == 23:
                    flags |= _F_EMS
                elif kind == 4:
                    flags |= _F_TRUNCATED
                elif kind == 41:
                    flags |= _F_PSK
                elif kind == 51 or kind == 40:
                    flags |= _F_KEY_SHARE
                    if size >= 2:
                        group = (body[i] << 8) | body[i + 1]
                elif kind == 0xFF01:
                    flags |= _F_RENEG
                i = end
    i = 0
    if n >= 34:
        while i < 7 and body[26 + i] == _sentinel[i]:
            i += 1
    if i == 7:
        if body[33] == 1:
            flags |= _F_SENTINEL_12
        elif body[33] == 0:
            flags |= _F_SENTINEL_11
    if version >> 8 == 0x7F:
        flags |= _F_DRAFT
        version = 0x0304
    i = 0
    if n >= 34:
        while i < 32 and body[2 + i] == _retry[i]:
            i += 1
    if i == 32:
        flags |= _F_RETRY
    _scratch[0] = legacy >> 8
    _scratch[1] = legacy & 0xFF
    _scratch[2] = suite >> 8
    _scratch[3] = suite & 0xFF
    _facts[0] = flags
    _facts[1] = legacy
    _facts[2] = version
    _facts[3] = heartbeat
    _facts[7] = suite
    _facts[8] = compression
    _facts[9] = group
    _spans[0] = 35 + session_size
    _spans[1] = proto
    _spans[2] = proto + proto_size
    return at


@cython.locals(view=cython.uchar[::1], at=cython.Py_ssize_t, size=cython.Py_ssize_t, end=cython.Py_ssize_t)  # type: ignore[untyped-decorator]
def server_hello(view: memoryview, at: int, size: int) -> ServerTexts:
    """Read a ServerHello or HelloRetryRequest that is view[at : at + size]; its numbers are in FACTS then."""
    size = min(size, _LONGEST)
    end = _server(view[at : at + size], size)
    shape = _bytes(_scratch, 0, end)
    print_ = _server_print_cached(shape) if end < 2048 else _server_print(shape)
    body = _bytes(view, at, size)
    return _new(ServerTexts, (body[35 : _spans[0]], body[2:34], body[_spans[1] : _spans[2]], print_))


def ssl2_client_hello(view: memoryview, at: int, size: int) -> ClientTexts:
    """Read an SSL 2.0 CLIENT-HELLO after its message type (SSL 2.0 draft 2.5; RFC 5246 E.2)."""
    data = view[at : at + min(size, 4096)].tobytes()
    version = int.from_bytes(data[0:2], "big")
    spec, session, challenge = (int.from_bytes(data[i : i + 2], "big") for i in (2, 4, 6))
    flags = SSL2_FORMAT | (MALFORMED if 8 + spec + session + challenge > size else 0)
    kinds = [int.from_bytes(data[i : i + 3], "big") for i in range(8, min(8 + spec, len(data)) - 2, 3)]
    h = g = g3 = _FNV_BASIS
    for suite in kinds:
        if suite == 0x5600:
            flags |= FALLBACK_SCSV
        elif suite == 0x00FF:
            flags |= RENEGOTIATION_SCSV
        elif suite < 0x10000:
            h = ((h ^ suite) * _FNV_PRIME) & _MASK63
            if classify.RULES[suite] & classify.EVERY_VERSION:
                g = ((g ^ suite) * _FNV_PRIME) & _MASK63
                if classify.RULES[suite] & classify.SSL3:
                    g3 = ((g3 ^ suite) * _FNV_PRIME) & _MASK63
    FACTS[:7] = (flags, version, version, 0, 0, h, g)
    FACTS[Fact.SSL3_HASH] = g3
    i = 8 + spec
    return ClientTexts(data[i : i + session], data[i + session : i + session + challenge], b"", b"", "", "")
