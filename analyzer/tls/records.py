"""Chunks of a byte stream -> TLS and SSL 2.0 records.

In:  Chunk rows of streams.reassembly and the block's buffer.
Out: Record rows (int64[n, Record]); a handshake record gives a row per piece, any other record one row when
its head is known.
Source: RFC 8446 5.1, 5.2; RFC 5246 6.2.1; SSL 2.0 draft 1.1 (Hickman 1995) for its two headers; RFC 5246
E.2 for the hello in its format.

TLS is found by content, on any port and behind any prefix (STARTTLS, CONNECT, SOCKS, PROXY): a stream is
looked at until a chunk begins with a hello. A record is never guessed across a gap: when the gap ends
inside a body its length still frames the stream, else the walk searches for a chain of headers and reports
nothing before three of them fit.
"""

# cython: boundscheck=True

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.streams.reassembly import Chunk
from analyzer.tls import upgrades

COMPILED = cython.compiled


class Framing(IntEnum):
    """State of one direction's record walk."""

    MODE = 0
    """0 UNDECIDED, 1 TLS, 2 LOST, 3 SSL2."""
    REMAINING = 1
    """Bytes of the current body that are still to come."""
    HEADER_BYTES = 2
    HEADER = 3
    TYPE = 4
    VERSION = 5
    LENGTH = 6
    POSITION = 7
    """Stream offset of the current record's header."""
    PACKET = 8
    """Packet in which the current record begins."""
    RECORDS = 9
    """Good records since the walk is in step."""
    RUN = 10
    """Bytes below 0x80 in a row at the end of what was scanned."""
    CCS = 11
    """1 after a ChangeCipherSpec of this direction."""
    BODY = 12
    """The first bytes (up to 7) of the current body, big-endian."""
    BODY_BYTES = 13
    HEAD_A = 14
    """Bytes 0 to 6 of the stream, big-endian; HEAD_B the next seven: who speaks before TLS."""
    HEAD_B = 15
    HEAD_BYTES = 16
    REPORTED = 17
    """1 once the current record has given its row."""
    CONFIRM = 18
    """Headers still needed before rows are given."""
    EVER = 19
    """1 once a row was given: what follows is TLS out of step, not something else."""
    LOW_RUN = 20
    """Length of the run that passed the limit last, as far as it was seen."""
    OFFER = 21
    """What the first message says about TLS inside another protocol: upgrades.offer."""


class Record(IntEnum):
    """Columns of a record row."""

    STREAM = 0
    PACKET = 1
    """Packet in which the record's header begins."""
    LAST_PACKET = 2
    """Packet that completed what this row tells."""
    TYPE = 3
    """Content type; SSL2 + message type for SSL 2.0."""
    VERSION = 4
    LENGTH = 5
    POSITION = 6
    OFFSET = 7
    """Handshake and SSL 2.0: where this piece of the body is in the buffer."""
    SIZE = 8
    FLAGS = 9
    BODY = 10
    """The first bytes of the body, big-endian, up to 7; with LOSS what stood where a header should be."""
    BODY_BYTES = 11
    TIME_NS = 12
    ACK = 13
    END_SEQ = 14
    """Sequence number after this piece."""
    SYNC = 15
    VALUE = 16
    """LOW_RUN: length of the run; TEXT: entropy in millibits per byte; LOSS: content type of the last good
    record; GAP: bytes missing; SSL 2.0: bytes 0 to 6 of the stream, for a hello of which chunks before had
    BODY_BYTES bytes from offset BODY on."""
    VALUE_2 = 17
    """TEXT: printable bytes per mille; SSL 2.0: bytes 7 to 13 of the stream."""


# flags of a row
FIRST: Final = 1
"""The record's header is complete with this row."""
LAST: Final = 2
"""The record's body is complete with this row."""
RESYNC: Final = 4
"""First record after framing was found again."""
LOSS: Final = 8
"""Framing was lost here: TYPE and VERSION are what stood in a header's place."""
GAP: Final = 16
"""Bytes are missing before this."""
LOW_RUN: Final = 32
TEXT: Final = 64
AFTER_OTHER: Final = 128
"""The connection's first record, and its sender's peer has sent something that was not taken for TLS."""

SSL2: Final = 0x100
UNDECIDED: Final = 0
TLS: Final = 1
LOST: Final = 2
MODE_SSL2: Final = 3

FRAMING_FIELDS: Final = len(Framing)
RECORD_FIELDS: Final = len(Record)

MAX_CIPHERTEXT: Final = 16384 + 2048
"""RFC 5246 6.2.3; RFC 8446 5.2 allows less."""

_N = cython.declare(cython.Py_ssize_t, len(Framing))
_R = cython.declare(cython.Py_ssize_t, len(Record))
_C = cython.declare(cython.Py_ssize_t, len(Chunk))
_MODE = cython.declare(cython.Py_ssize_t, int(Framing.MODE))
_REMAINING = cython.declare(cython.Py_ssize_t, int(Framing.REMAINING))
_HEADER_BYTES = cython.declare(cython.Py_ssize_t, int(Framing.HEADER_BYTES))
_HEADER = cython.declare(cython.Py_ssize_t, int(Framing.HEADER))
_TYPE = cython.declare(cython.Py_ssize_t, int(Framing.TYPE))
_VERSION = cython.declare(cython.Py_ssize_t, int(Framing.VERSION))
_LENGTH = cython.declare(cython.Py_ssize_t, int(Framing.LENGTH))
_POSITION = cython.declare(cython.Py_ssize_t, int(Framing.POSITION))
_PACKET = cython.declare(cython.Py_ssize_t, int(Framing.PACKET))
_RECORDS = cython.declare(cython.Py_ssize_t, int(Framing.RECORDS))
_RUN = cython.declare(cython.Py_ssize_t, int(Framing.RUN))
_CCS = cython.declare(cython.Py_ssize_t, int(Framing.CCS))
_BODY = cython.declare(cython.Py_ssize_t, int(Framing.BODY))
_BODY_BYTES = cython.declare(cython.Py_ssize_t, int(Framing.BODY_BYTES))
_HEAD_A = cython.declare(cython.Py_ssize_t, int(Framing.HEAD_A))
_HEAD_B = cython.declare(cython.Py_ssize_t, int(Framing.HEAD_B))
_HEAD_BYTES = cython.declare(cython.Py_ssize_t, int(Framing.HEAD_BYTES))
_REPORTED = cython.declare(cython.Py_ssize_t, int(Framing.REPORTED))
_CONFIRM = cython.declare(cython.Py_ssize_t, int(Framing.CONFIRM))
_EVER = cython.declare(cython.Py_ssize_t, int(Framing.EVER))
_LOW_RUN_LENGTH = cython.declare(cython.Py_ssize_t, int(Framing.LOW_RUN))
_OFFER = cython.declare(cython.Py_ssize_t, int(Framing.OFFER))
_PEEK_BYTES = cython.declare(cython.longlong, upgrades.PEEK_BYTES)

_FIRST = cython.declare(cython.int, FIRST)
_LAST = cython.declare(cython.int, LAST)
_RESYNC = cython.declare(cython.int, RESYNC)
_LOSS = cython.declare(cython.int, LOSS)
_GAP = cython.declare(cython.int, GAP)
_LOW_RUN = cython.declare(cython.int, LOW_RUN)
_TEXT = cython.declare(cython.int, TEXT)
_AFTER_OTHER = cython.declare(cython.int, AFTER_OTHER)
_SSL2 = cython.declare(cython.int, SSL2)
_M_UNDECIDED = cython.declare(cython.int, UNDECIDED)
_M_TLS = cython.declare(cython.int, TLS)
_M_LOST = cython.declare(cython.int, LOST)
_M_SSL2 = cython.declare(cython.int, MODE_SSL2)
_MAX_LENGTH = cython.declare(cython.int, MAX_CIPHERTEXT)
_RUN_LIMIT = cython.declare(cython.longlong, limits.LOW_RUN_BYTES)
_TEXT_MIN = cython.declare(cython.longlong, limits.TEXT_MIN_BYTES)
_ENTROPY_MIN = cython.declare(cython.longlong, limits.ENTROPY_MIN_BYTES)
_JUDGED = cython.declare(cython.longlong, limits.ENTROPY_MAX_BYTES)
# declared, because a bare literal of 32 bits and more would be a Python object
_MASK32 = cython.declare(cython.longlong, 0xFFFFFFFF)
_CONFIRM_HEADERS = cython.declare(cython.longlong, 3)
_PRELUDE = cython.declare(cython.longlong, limits.PRELUDE_BYTES)
_SSL2_HEAD = cython.declare(cython.longlong, 12)  # bytes that tell a CLIENT-HELLO of SSL 2.0


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    out=cython.longlong[::1], count=cython.longlong[::1], st=cython.longlong[::1],
    chunks=cython.longlong[::1], s=cython.Py_ssize_t, c=cython.Py_ssize_t, kind=cython.longlong,
    offset=cython.longlong, size=cython.longlong, end=cython.longlong, flags=cython.int,
    value=cython.longlong, value2=cython.longlong, o=cython.Py_ssize_t,
)  # fmt: skip
def _emit(out, count, st, chunks, s, c, kind, offset, size, end, flags, value, value2):  # type: ignore[no-untyped-def]
    """Append a row; `end` is the buffer offset after what the row tells."""
    o = count[0] * _R
    count[0] += 1
    st[s + _EVER] = 1
    out[o] = chunks[c]
    out[o + 1] = st[s + _PACKET]
    out[o + 2] = chunks[c + 4]
    out[o + 3] = kind
    out[o + 4] = st[s + _VERSION]
    out[o + 5] = st[s + _LENGTH]
    out[o + 6] = st[s + _POSITION]
    out[o + 7] = offset
    out[o + 8] = size
    out[o + 9] = flags
    out[o + 10] = st[s + _BODY]
    out[o + 11] = st[s + _BODY_BYTES]
    out[o + 12] = chunks[c + 5]
    out[o + 13] = chunks[c + 6]
    out[o + 14] = (chunks[c + 7] + end - chunks[c + 1]) & _MASK32
    out[o + 15] = chunks[c + 9]
    out[o + 16] = value
    out[o + 17] = value2
    return 0


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(check=False)
@cython.locals(kind=cython.int, version=cython.int, length=cython.int)
def _plausible(kind, version, length):  # type: ignore[no-untyped-def]
    """A header that TLS software sends: for a walk that is not in step, so stricter than the walk."""
    return (
        kind >= 20
        and kind <= 24
        and version >= 0x0300
        and version <= 0x0304
        and length > 0
        and length <= _MAX_LENGTH
    )


@cython.cfunc
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(
    buf=cython.uchar[::1], i=cython.longlong, end=cython.longlong, length=cython.int, version=cython.int
)
def _search(buf, i, end):  # type: ignore[no-untyped-def]
    """The first place from i on that could be a record header, or end."""
    while i + 5 <= end:
        if buf[i] >= 20 and buf[i] <= 24 and buf[i + 1] == 3:
            version = 0x0300 | buf[i + 2]
            length = (buf[i + 3] << 8) | buf[i + 4]
            if _plausible(buf[i], version, length):
                return i
        i += 1
    return end


@cython.cfunc
@cython.inline
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(st=cython.longlong[::1], s=cython.Py_ssize_t, k=cython.longlong, count=cython.longlong)
def _head(st, s, k):  # type: ignore[no-untyped-def]
    """Byte k of the stream, one of its first fourteen."""
    count = st[s + _HEAD_BYTES]
    if k >= 7:
        return (st[s + _HEAD_B] >> (8 * (count - 1 - k))) & 0xFF
    if count > 7:
        count = 7
    return (st[s + _HEAD_A] >> (8 * (count - 1 - k))) & 0xFF


@cython.cfunc
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(
    st=cython.longlong[::1], s=cython.Py_ssize_t, n=cython.longlong, at=cython.longlong,
    length=cython.longlong, version=cython.longlong,
)  # fmt: skip
def _ssl2_hello(st, s):  # type: ignore[no-untyped-def]
    """Header length of an SSL 2.0 CLIENT-HELLO that begins the stream, else 0: its lengths must add up."""
    if _head(st, s, 0) & 0x80:
        length = ((_head(st, s, 0) & 0x7F) << 8) | _head(st, s, 1)
        at = 2
    else:
        length = (((_head(st, s, 0) & 0x3F) << 8) | _head(st, s, 1)) - _head(st, s, 2)
        at = 3
    version = (_head(st, s, at + 1) << 8) | _head(st, s, at + 2)
    if _head(st, s, at) != 1 or (version != 0x0002 and (version < 0x0300 or version > 0x0304)):
        return 0
    n = 9
    n += (_head(st, s, at + 3) << 8) | _head(st, s, at + 4)
    n += (_head(st, s, at + 5) << 8) | _head(st, s, at + 6)
    n += (_head(st, s, at + 7) << 8) | _head(st, s, at + 8)
    return at if n == length else 0


@cython.cfunc
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(buf=cython.uchar[::1], i=cython.longlong, end=cython.longlong, k=cython.longlong)
def _proxy_header(buf, i, end):  # type: ignore[no-untyped-def]
    """Length of a PROXY protocol header at i (haproxy proxy-protocol.txt 2.1, 2.2), 0 without."""
    if (
        buf[i] == 0x50
        and buf[i + 1] == 0x52
        and buf[i + 2] == 0x4F
        and buf[i + 3] == 0x58
        and buf[i + 4] == 0x59
        and buf[i + 5] == 0x20
    ):
        k = i + 6
        while k + 1 < end and k < i + 106:
            if buf[k] == 0x0D and buf[k + 1] == 0x0A:
                return k + 2 - i
            k += 1
    elif (
        buf[i] == 0x0D
        and buf[i + 1] == 0x0A
        and buf[i + 2] == 0x0D
        and buf[i + 3] == 0x0A
        and buf[i + 4] == 0
        and buf[i + 5] == 0x0D
    ):
        k = 16 + ((buf[i + 14] << 8) | buf[i + 15])
        if i + k <= end:
            return k
    return 0


@cython.cfunc
@cython.returns(cython.bint)
@cython.exceptval(-1, check=True)
@cython.locals(
    buf=cython.uchar[::1], st=cython.longlong[::1], s=cython.Py_ssize_t,
    i=cython.longlong, end=cython.longlong, position=cython.longlong, sync=cython.longlong,
    gap=cython.longlong, n=cython.longlong, b=cython.int, length=cython.longlong, hello=cython.bint,
)  # fmt: skip
def _record_begins(buf, st, s, i, end, position, sync, gap):  # type: ignore[no-untyped-def]
    """The chunk of an undecided stream begins with a record, as far as it shows; CONFIRM: how sure."""
    n = end - i
    b = buf[i]
    if b < 20 or b > 24 or (n >= 2 and buf[i + 1] != 3):
        return False
    hello = b == 22 and (n < 6 or buf[i + 5] == 1 or buf[i + 5] == 2) and (n < 7 or buf[i + 6] <= 1)
    if n >= 3 and buf[i + 2] > 4 and not (hello and (n >= 9 or position == 0)):
        return False  # no version in use: only a hello behind it makes it a record
    hello = hello and n >= 9
    if n < 5:
        return position == 0 or b == 22
    length = (buf[i + 3] << 8) | buf[i + 4]
    if length > _MAX_LENGTH:
        return False
    if hello or (position == 0 and sync & 1):
        return True
    if (sync & 1) == 0 or gap > 0 or sync & 4:
        # joined late: any record may come first, so several must fit
        if length == 0:
            return False
        if i + 5 + length != end:
            st[s + _CONFIRM] = _CONFIRM_HEADERS
        return True
    return n < 9 and b == 22


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(-1, check=True)
@cython.locals(buf=cython.uchar[::1], i=cython.longlong, n=cython.longlong)
def _client_hello_begins(buf, i, n):  # type: ignore[no-untyped-def]
    """The record of a ClientHello stands at i, as far as its first bytes show of n."""
    return (
        buf[i] == 22
        and (n < 2 or buf[i + 1] == 3)
        and (n < 3 or buf[i + 2] <= 4)
        and (n < 4 or buf[i + 3] <= 0x48)
        and (n < 6 or buf[i + 5] == 1)
        and (n < 7 or buf[i + 6] <= 1)
    )


@cython.cfunc
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(
    buf=cython.uchar[::1], st=cython.longlong[::1], s=cython.Py_ssize_t,
    i=cython.longlong, offset=cython.longlong, end=cython.longlong, position=cython.longlong,
    sync=cython.longlong, gap=cython.longlong, packet=cython.longlong, at=cython.longlong,
    stop=cython.longlong, k=cython.longlong,
)  # fmt: skip
def _begin(buf, st, s, i, offset, end, position, sync, gap, packet):  # type: ignore[no-untyped-def]
    """Where in a chunk of an undecided stream, from i on, its first record begins; -1 if nowhere.

    Behind other bytes of a segment (a PROXY header, a pipelined STARTTLS) only a ClientHello counts.
    """
    st[s + _CONFIRM] = 0
    st[s + _RECORDS] = 0
    st[s + _HEADER_BYTES] = 0
    st[s + _REMAINING] = 0
    if i == offset:
        if position == 0:
            st[s + _PACKET] = packet
            st[s + _POSITION] = 0
            if end - i > 16:
                i += _proxy_header(buf, i, end)
                if i == end:
                    return -1
        if _record_begins(buf, st, s, i, end, position, sync, gap):
            st[s + _MODE] = _M_TLS
            return i
        if position < _SSL2_HEAD <= st[s + _HEAD_BYTES]:
            at = _ssl2_hello(st, s)
            if at:
                st[s + _MODE] = _M_SSL2
                if position < at:
                    st[s + _HEADER_BYTES] = position
                    st[s + _HEADER] = 0
                    for k in range(position):
                        st[s + _HEADER] = (st[s + _HEADER] << 8) | _head(st, s, k)
                    st[s + _TYPE] = _head(st, s, 0)
                else:
                    # what stood before this chunk is in HEAD_A and HEAD_B
                    st[s + _LENGTH] = ((_head(st, s, 0) & (0x7F if at == 2 else 0x3F)) << 8) | _head(st, s, 1)
                    st[s + _REMAINING] = st[s + _LENGTH] - (position - at)
                    st[s + _BODY] = at
                    st[s + _BODY_BYTES] = position - at
                    st[s + _REPORTED] = 0
                    st[s + _VERSION] = 2
                    st[s + _RECORDS] = 1
                return i
    stop = offset + _PRELUDE - position
    if stop > end:
        stop = end
    while i < stop:
        if buf[i] == 22 and _client_hello_begins(buf, i, end - i):
            st[s + _MODE] = _M_TLS
            return i
        i += 1
    return -1


@cython.cfunc
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(
    buf=cython.uchar[::1], st=cython.longlong[::1], s=cython.Py_ssize_t, i=cython.longlong,
    end=cython.longlong, run=cython.longlong, at=cython.longlong, j=cython.longlong, k=cython.longlong,
    hit=cython.longlong,
)  # fmt: skip
def _scan_run(buf, st, s, i, end):  # type: ignore[no-untyped-def]
    """Follow the run of bytes below 0x80 through buf[i:end]; the offset where the last one passes, or -1.

    A window one longer than the limit is looked at from its end: in ciphertext every second byte ends the
    search, so that a body costs two looks per window instead of one per byte.
    """
    run = st[s + _RUN]
    at = i
    hit = -1
    if run > _RUN_LIMIT:  # reported: wait for its end
        while at < end and buf[at] < 0x80:
            at += 1
        if at == end:
            st[s + _RUN] = run + end - i
            return -1
        run = 0
        at += 1
    while at + _RUN_LIMIT + 1 - run <= end:
        j = at + _RUN_LIMIT - run
        k = j
        while k >= at and buf[k] < 0x80:
            k -= 1
        if k < at:
            hit = j
            k = j + 1
            while k < end and buf[k] < 0x80:
                k += 1
            st[s + _LOW_RUN_LENGTH] = run + k - at
            if k == end:
                st[s + _RUN] = run + end - at
                return hit
        at = k + 1
        run = 0
    k = end - 1
    while k >= at and buf[k] < 0x80:
        k -= 1
    if k < at:
        st[s + _RUN] = run + end - at
    else:
        st[s + _RUN] = end - 1 - k
    return hit


@cython.cfunc
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(
    buf=cython.uchar[::1], xlog=cython.double[::1], histogram=cython.int[::1], i=cython.longlong,
    n=cython.longlong, k=cython.Py_ssize_t, step=cython.longlong, high=cython.int, distinct=cython.int,
    total=cython.double, b=cython.int, printable=cython.longlong, millibits=cython.longlong,
    limit=cython.longlong,
)  # fmt: skip
def _judge_text(buf, xlog, histogram, i, n):  # type: ignore[no-untyped-def]
    """0 where buf[i:i+n] looks like ciphertext, else entropy in millibits * 10000 + printable per mille + 1.

    64 bytes spread over the body decide whether it is worth counting: ciphertext has 57 different values
    among them.
    """
    if n > _JUDGED:
        n = _JUDGED
    step = n // 64
    high = 0
    distinct = 0
    for k in range(64):
        b = buf[i + k * step]
        high += b >> 7
        if histogram[b] == 0:
            distinct += 1
        histogram[b] += 1
    for k in range(64):
        histogram[buf[i + k * step]] = 0
    if high > 12 and high < 52 and distinct > 52:
        return 0
    printable = 0
    for k in range(n):
        b = buf[i + k]
        histogram[b] += 1
        if (b >= 32 and b < 127) or (b >= 9 and b <= 13):
            printable += 1
    total = 0.0
    for k in range(256):
        total += xlog[histogram[k]]
        histogram[k] = 0
    # xlog[n] = n log2 n, so this is log2 n - sum(c log2 c) / n
    millibits = cython.cast(cython.longlong, 1000.0 * (xlog[n] - total) / n)
    printable = printable * 1000 // n
    limit = 6500
    if n < 192:
        limit = 6300
    if printable >= 950 or (n >= _ENTROPY_MIN and millibits < limit):
        return millibits * 10000 + printable + 1
    return 0


@cython.locals(
    buf=cython.uchar[::1], chunks=cython.longlong[::1], st=cython.longlong[::1], out=cython.longlong[::1],
    count=cython.longlong[::1], xlog=cython.double[::1], histogram=cython.int[::1],
    begin=cython.Py_ssize_t, rows=cython.Py_ssize_t, index=cython.Py_ssize_t, c=cython.Py_ssize_t,
    s=cython.Py_ssize_t, peer=cython.Py_ssize_t, room=cython.longlong, i=cython.longlong,
    end=cython.longlong, offset=cython.longlong, gap=cython.longlong, n=cython.longlong, k=cython.longlong,
    m=cython.longlong, b=cython.longlong, kind=cython.longlong, length=cython.longlong,
    version=cython.longlong, flags=cython.int, sync=cython.longlong, position=cython.longlong,
    bad=cython.bint, need=cython.longlong, verdict=cython.longlong, hit=cython.longlong, resync=cython.int,
    carried=cython.longlong, untried=cython.longlong,
)  # fmt: skip
def _walk(buf, chunks, st, out, count, xlog, histogram, begin):  # type: ignore[no-untyped-def]
    """Walk chunks from `begin` on while there is room for their rows; returns the first chunk not walked."""
    rows = chunks.shape[0] // _C
    room = out.shape[0] // _R
    for index in range(begin, rows):
        c = index * _C
        offset = chunks[c + 1]
        n = chunks[c + 2]
        if count[0] + n // 2 + 8 > room and count[0] > 0:
            return index
        gap = chunks[c + 3]
        sync = chunks[c + 9]
        position = chunks[c + 8]
        s = chunks[c] * _N
        peer = (chunks[c] ^ 1) * _N
        i = offset
        end = offset + n
        if position < 14 and st[s + _HEAD_BYTES] == position:
            while i < end and st[s + _HEAD_BYTES] < 14:
                if st[s + _HEAD_BYTES] < 7:
                    st[s + _HEAD_A] = (st[s + _HEAD_A] << 8) | buf[i]
                else:
                    st[s + _HEAD_B] = (st[s + _HEAD_B] << 8) | buf[i]
                st[s + _HEAD_BYTES] += 1
                i += 1
            i = offset
            if position == 0 and n >= 11 and upgrades.may_offer(buf[i], buf[i + 3], buf[i + 4]):
                st[s + _OFFER] = upgrades.offer(bytes(buf[i : min(end, i + _PEEK_BYTES)]))
        resync = 0
        if gap > 0 and st[s + _MODE] != _M_UNDECIDED:
            st[s + _RUN] = 0
            resync = _GAP
            if st[s + _MODE] != _M_LOST:
                if st[s + _HEADER_BYTES] == 0 and st[s + _REMAINING] > 0 and gap <= st[s + _REMAINING]:
                    st[s + _REMAINING] -= gap  # the body is damaged, its end is known
                    if st[s + _TYPE] != 23:
                        flags = _GAP
                        if (
                            st[s + _TYPE] != 22
                            and not st[s + _REPORTED]
                            and st[s + _MODE] == _M_TLS
                            and st[s + _CONFIRM] == 0
                        ):
                            flags |= _FIRST  # its header is all that is known of it
                            st[s + _REPORTED] = 1
                        _emit(out, count, st, chunks, s, c, st[s + _TYPE], offset, 0, offset, flags, gap, 0)
                        resync = 0
                else:
                    if st[s + _CONFIRM] == 0:
                        _emit(out, count, st, chunks, s, c, 0, offset, 0, offset, _GAP, gap, 0)
                    resync = 0
                    st[s + _MODE] = _M_LOST
                    st[s + _REMAINING] = 0
                    st[s + _HEADER_BYTES] = 0
        untried = offset
        if st[s + _MODE] == _M_UNDECIDED:
            i = _begin(buf, st, s, i, offset, end, position, sync, gap, chunks[c + 4])
            if i < 0:
                continue
            untried = i + 1
        elif (
            st[s + _MODE] == _M_TLS
            and st[s + _RECORDS] == 0
            and st[s + _HEADER_BYTES] == 0
            and st[s + _REMAINING] == 0
        ):
            # answer to a hello in SSL 2.0 format, in that format too
            if st[peer + _VERSION] == 2 and buf[i] & 0x80:
                st[s + _MODE] = _M_SSL2
        if st[s + _MODE] == _M_LOST:
            i = _search(buf, i, end)
            if i == end:
                continue
            st[s + _MODE] = _M_TLS
            st[s + _CONFIRM] = _CONFIRM_HEADERS
            if (
                i == offset
                and n >= 9
                and buf[i] == 22
                and (buf[i + 5] == 1 or buf[i + 5] == 2)
                and buf[i + 6] <= 1
            ):
                st[s + _CONFIRM] = 0  # a hello at the start of a segment needs no more proof
            st[s + _RECORDS] = 0
            st[s + _HEADER_BYTES] = 0
            st[s + _REMAINING] = 0
            resync |= _RESYNC
        # in step: header, body, header, ...
        while i < end:
            if st[s + _REMAINING] == 0:
                if st[s + _HEADER_BYTES] == 0:
                    st[s + _PACKET] = chunks[c + 4]
                    st[s + _POSITION] = position + i - offset
                    st[s + _HEADER] = 0
                if st[s + _MODE] == _M_SSL2:
                    b = buf[i]
                    i += 1
                    st[s + _HEADER] = (st[s + _HEADER] << 8) | b
                    st[s + _HEADER_BYTES] += 1
                    if st[s + _HEADER_BYTES] == 1:
                        st[s + _TYPE] = b
                    need = 3
                    if st[s + _TYPE] & 0x80:
                        need = 2
                    if st[s + _HEADER_BYTES] < need:
                        continue
                    if need == 2:
                        length = st[s + _HEADER] & 0x7FFF
                    else:
                        length = (st[s + _HEADER] >> 8) & 0x3FFF
                    st[s + _HEADER_BYTES] = 0
                    st[s + _LENGTH] = length
                    st[s + _REMAINING] = length
                    st[s + _BODY] = 0
                    st[s + _BODY_BYTES] = 0
                    st[s + _REPORTED] = 0
                    st[s + _VERSION] = 2
                    st[s + _RECORDS] += 1
                    continue
                bad = False
                carried = st[s + _HEADER_BYTES]
                if carried == 0 and end - i >= 5:
                    kind = buf[i]
                    version = (buf[i + 1] << 8) | buf[i + 2]
                    length = (buf[i + 3] << 8) | buf[i + 4]
                    bad = kind < 20 or kind > 24 or version >> 8 != 3
                    if not bad:
                        i += 5
                else:
                    b = buf[i]
                    k = st[s + _HEADER_BYTES]
                    if (k == 0 and (b < 20 or b > 24)) or (k == 1 and b != 3):
                        bad = True
                        kind = b
                        version = 0
                        if k == 1:
                            kind = st[s + _HEADER]
                            version = b << 8
                        elif i + 1 < end:
                            version = buf[i + 1] << 8
                        length = 0
                    else:
                        st[s + _HEADER] = (st[s + _HEADER] << 8) | b
                        st[s + _HEADER_BYTES] = k + 1
                        i += 1
                        if k < 4:
                            continue
                        kind = st[s + _HEADER] >> 32
                        version = (st[s + _HEADER] >> 16) & 0xFFFF
                        length = st[s + _HEADER] & 0xFFFF
                if not bad and st[s + _CONFIRM] > 0 and not _plausible(kind, version, length):
                    bad = True
                if (
                    version > 0x0304
                    and st[s + _RECORDS] == 0
                    and not st[s + _EVER]
                    and (st[s + _POSITION] > 0 or kind != 22)
                ):
                    bad = True  # but for a hello at its start a stream begins with a version in use
                    version = 0
                if bad:
                    st[s + _HEADER_BYTES] = 0
                    if st[s + _CONFIRM] > 0 or (st[s + _RECORDS] == 0 and version >> 8 != 3):
                        # nothing was certain yet
                        st[s + _MODE] = _M_LOST if st[s + _EVER] else _M_UNDECIDED
                        if st[s + _MODE] == _M_UNDECIDED:
                            i = _begin(buf, st, s, untried, offset, end, position, sync, gap, chunks[c + 4])
                            if i >= 0:
                                untried = i + 1
                                continue
                        break
                    st[s + _VERSION] = version
                    st[s + _LENGTH] = length
                    # what stood there: header bytes of earlier chunks, and those that follow
                    st[s + _BODY] = st[s + _HEADER]
                    st[s + _BODY_BYTES] = carried
                    k = i
                    while st[s + _BODY_BYTES] < 7 and k < end:
                        st[s + _BODY] = (st[s + _BODY] << 8) | buf[k]
                        st[s + _BODY_BYTES] += 1
                        k += 1
                    _emit(out, count, st, chunks, s, c, kind, i, 0, i, _LOSS, st[s + _TYPE], 0)
                    st[s + _MODE] = _M_LOST
                    break
                st[s + _HEADER_BYTES] = 0
                st[s + _TYPE] = kind
                st[s + _VERSION] = version
                st[s + _LENGTH] = length
                st[s + _REMAINING] = length
                st[s + _BODY] = 0
                st[s + _BODY_BYTES] = 0
                st[s + _REPORTED] = 0
                st[s + _RECORDS] += 1
                if st[s + _CONFIRM] > 0:
                    st[s + _CONFIRM] -= 1
                    if st[s + _CONFIRM] > 0 and i + length == end:
                        st[s + _CONFIRM] = 0  # it ends with its segment
                    if st[s + _CONFIRM] == 0:
                        resync |= _RESYNC
                if st[peer + _MODE] == _M_UNDECIDED and st[s + _CONFIRM] == 0:
                    if st[peer + _HEAD_BYTES] > 0:
                        resync |= _AFTER_OTHER
                    if sync & 2 and not sync & 8:
                        st[peer + _MODE] = _M_TLS
                    elif st[peer + _HEAD_BYTES] != 0:
                        st[peer + _MODE] = _M_LOST
                    st[peer + _RECORDS] = 0
                if length == 0 and st[s + _CONFIRM] == 0:
                    _emit(out, count, st, chunks, s, c, kind, i, 0, i, _FIRST | _LAST | resync, 0, 0)
                    resync = 0
                if kind == 20:
                    st[s + _CCS] = 1
                continue
            # body
            m = end - i
            if m > st[s + _REMAINING]:
                m = st[s + _REMAINING]
            st[s + _REMAINING] -= m
            kind = st[s + _TYPE]
            length = st[s + _LENGTH]
            if st[s + _CONFIRM] > 0:
                i += m
                continue
            flags = resync
            if st[s + _REMAINING] == 0:
                flags |= _LAST
            if st[s + _MODE] == _M_SSL2:
                if not st[s + _REPORTED]:
                    st[s + _TYPE] = buf[i] if st[s + _BODY_BYTES] == 0 else _head(st, s, st[s + _BODY])
                    st[s + _REPORTED] = 1
                    flags |= _FIRST
                k = 0
                if st[s + _BODY_BYTES] > 0:
                    k = st[s + _HEAD_B] << (8 * (14 - st[s + _HEAD_BYTES]))
                _emit(
                    out, count, st, chunks, s, c, _SSL2 | st[s + _TYPE], i, m, i + m, flags,
                    st[s + _HEAD_A], k,
                )  # fmt: skip
                st[s + _BODY] = 0
                st[s + _BODY_BYTES] = 0
                i += m
                if st[s + _REMAINING] == 0 and st[s + _RECORDS] == 1 and st[peer + _MODE] == _M_UNDECIDED:
                    # the hello that any server understood: the answer may be in either format
                    st[peer + _MODE] = _M_TLS
                    st[peer + _RECORDS] = 0
                if st[s + _REMAINING] == 0 and st[s + _RECORDS] == 1 and st[s + _HEAD_BYTES] >= 6:
                    # HEAD_A: 2-byte header, type, version; or 3-byte header, type, version
                    version = (
                        (st[s + _HEAD_A] >> 16) & 0xFFFF
                        if (st[s + _HEAD_A] >> 48) & 0x80
                        else (st[s + _HEAD_A] >> 8) & 0xFFFF
                    )
                    if version >= 0x0300:
                        st[s + _MODE] = _M_TLS
                        st[s + _RECORDS] = 1
                continue
            if kind == 22:
                if not st[s + _REPORTED]:
                    st[s + _REPORTED] = 1
                    flags |= _FIRST
                _emit(out, count, st, chunks, s, c, 22, i, m, i + m, flags, 0, 0)
                resync = 0
            else:
                if not st[s + _REPORTED]:
                    need = 3
                    if length < need:
                        need = length
                    if kind == 23:
                        need = 0
                    k = i
                    while st[s + _BODY_BYTES] < need and k < i + m:
                        st[s + _BODY] = (st[s + _BODY] << 8) | buf[k]
                        st[s + _BODY_BYTES] += 1
                        k += 1
                    if st[s + _BODY_BYTES] >= need:
                        while st[s + _BODY_BYTES] < 7 and k < i + m:
                            st[s + _BODY] = (st[s + _BODY] << 8) | buf[k]
                            st[s + _BODY_BYTES] += 1
                            k += 1
                        st[s + _REPORTED] = 1
                        _emit(out, count, st, chunks, s, c, kind, i, m, i + m, flags | _FIRST, 0, 0)
                        resync = 0
                elif flags & _LAST and (kind == 23 or kind == 24):
                    _emit(out, count, st, chunks, s, c, kind, i, m, i + m, flags, 0, 0)
                    resync = 0
                if kind == 23:
                    if m >= _TEXT_MIN:
                        verdict = _judge_text(buf, xlog, histogram, i, m)
                        if verdict:
                            _emit(
                                out,
                                count,
                                st,
                                chunks,
                                s,
                                c,
                                kind,
                                i,
                                m,
                                i + m,
                                _TEXT,
                                verdict // 10000,
                                (verdict - 1) % 10000,
                            )
                # what should be ciphertext: application data, and once keys changed alerts and key changes,
                # which are then
                # longer than in clear; a handshake record may still be in clear (TLS 1.3 after
                # HelloRetryRequest)
                if kind == 23 or ((kind == 20 or kind == 21) and st[s + _CCS] and length > 2):
                    hit = _scan_run(buf, st, s, i, i + m)
                    if hit >= 0:
                        _emit(
                            out,
                            count,
                            st,
                            chunks,
                            s,
                            c,
                            kind,
                            i,
                            m,
                            hit + 1,
                            _LOW_RUN,
                            st[s + _LOW_RUN_LENGTH],
                            0,
                        )
            i += m
    return rows


class RecordWalk:
    """Walks the records of all open connections.

    Attributes:
        state: int64[slots * 2, Framing].
    """

    def __init__(self) -> None:
        self.state: npt.NDArray[np.int64] = np.zeros((0, FRAMING_FIELDS), dtype=np.int64)
        self._out: npt.NDArray[np.int64] = np.empty((limits.RECORD_ROWS, RECORD_FIELDS), dtype=np.int64)
        self._count: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self._histogram: npt.NDArray[np.int32] = np.zeros(256, dtype=np.int32)
        self._xlog = np.array([0.0] + [c * math.log2(c) for c in range(1, limits.ENTROPY_MAX_BYTES + 1)])

    def reserve(self, capacity: int) -> None:
        """Have state for the flow table's slots."""
        if len(self.state) < 2 * capacity:
            state = np.zeros((2 * capacity, FRAMING_FIELDS), dtype=np.int64)
            state[: len(self.state)] = self.state
            self.state = state

    def clear(self, slots: npt.NDArray[np.int64]) -> None:
        """Fresh state for connections that begin where others were."""
        self.state[2 * slots] = 0
        self.state[2 * slots + 1] = 0

    def walk(
        self, buffer: npt.NDArray[np.uint8], chunks: npt.NDArray[np.int64], begin: int
    ) -> tuple[int, npt.NDArray[np.int64]]:
        """Rows of the chunks from `begin` on.

        Returns:
            The first chunk that was not walked, for the next call, and int64[n, Record]; the rows stand
            until the next call.
        """
        self._count[0] = 0
        reached = _walk(
            buffer.data,
            chunks.data.cast("B").cast("q"),
            self.state.data.cast("B").cast("q"),
            self._out.data.cast("B").cast("q"),
            self._count.data,
            self._xlog.data,
            self._histogram.data,
            begin,
        )
        return int(reached), self._out[: int(self._count[0])]
