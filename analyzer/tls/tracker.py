"""TLS records -> events: walks the machines of state.py for every connection.

In:  Record rows of tls.records and the block's buffer.
Out: Event rows (int64[n, Event]), state per connection (int64[slots, Tls]), and for each hello its facts.
Source: state.py for every transition; RFC 8446 5.1 and RFC 5246 6.2.1 for how handshake messages lie in
records.

What a record or message is in its place is decided here, and named as an event; whether it may come there
is the table's matter. A violation is only reported while the order is known: no bytes lost in either
direction, and both seen.
"""

# cython: boundscheck=True

from __future__ import annotations

from enum import IntEnum, unique
from itertools import repeat
from typing import Final

import cython
import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.model import Side
from analyzer.tls import classify, hello, records
from analyzer.tls.heartbeat import SHORTEST_SEALED, Beat, Heartbeats, reads_as_overread
from analyzer.tls.records import RECORD_FIELDS, Record
from analyzer.tls.state import Ev, State, dense
from analyzer.wire.suite_properties import MAC_BYTES

COMPILED = cython.compiled


@unique
class Tls(IntEnum):
    """State of a connection's TLS. _0 and _1 are directions, as in the flow table."""

    SEEN = 0
    """1 once a record came."""
    STATE = 1
    CLIENT = 2
    """Direction of the client."""
    ROLE = 3
    """How CLIENT is known: 0 assumed, 1 from a SYN, 2 from a ServerHello, 3 from a ClientHello."""
    PROTECTION_0 = 4
    PROTECTION_1 = 5
    CLOSING_0 = 6
    CLOSING_1 = 7
    NEED_0 = 8
    """Handshake message in assembly: body bytes still to come; -1 in a record of which bytes are missing,
    where no message can be found any more."""
    NEED_1 = 9
    MESSAGE_HEAD_0 = 10
    """Its header bytes so far, big-endian."""
    MESSAGE_HEAD_1 = 11
    MESSAGE_HEAD_BYTES_0 = 12
    MESSAGE_HEAD_BYTES_1 = 13
    MARK_0 = 14
    """Sequence number after the last record of the direction that moved the handshake."""
    MARK_1 = 15
    CCS_0 = 16
    CCS_1 = 17
    DATA_0 = 18
    """Application data records."""
    DATA_1 = 19
    RECORDS_0 = 20
    RECORDS_1 = 21
    VERSION = 22
    """Negotiated; 0x0002 for SSL 2.0, 0 if unknown."""
    CIPHER_SUITE = 23
    CLIENT_FLAGS = 24
    """hello flags; -1 without a ClientHello."""
    SERVER_FLAGS = 25
    CLIENT_HEARTBEAT = 26
    SERVER_HEARTBEAT = 27
    CLIENT_VERSION = 28
    """legacy_version of the ClientHello."""
    CLIENT_MAX = 29
    RULES = 30
    """classify.RULES of the suite."""
    SESSION_ECHOED = 31
    """1 where the ServerHello repeats the ClientHello's session id and it is not empty."""
    CERTIFICATES_SENT = 32
    """1 the server's Certificate was seen, 2 a non-empty one of the client."""
    REQUESTED = 33
    """1 after a CertificateRequest."""
    ESTABLISHED = 34
    RESUMED = 35
    """0 unknown, 1 no, 2 session id, 3 ticket, 4 PSK."""
    EARLY_CCS = 36
    """1 after a ChangeCipherSpec out of order from the client, 2 from the server, 3 both."""
    EVENTS = 37
    UNORDERED = 38
    """1 once bytes are missing or framing was lost: no more ordering verdicts."""
    HELLO_PACKET = 39
    """Packet that completed the first ClientHello."""
    SERVER_HELLO_PACKET = 40
    HELLO_NS = 41
    FIRST_RECORD_VERSION = 42
    VERSION_ODD = 43
    """Bit per direction: a record version anomaly was reported."""
    LAST_SEQ_0 = 44
    """Sequence number after the direction's last record."""
    LAST_SEQ_1 = 45
    KX_SEEN = 46
    """1 ServerKeyExchange was seen."""
    ALERTS = 47
    RETRIED = 48
    FATAL = 49
    """Description + 1 of a fatal alert in clear that ended the handshake."""
    HELLOS = 50
    OFFERED = 51
    SUITES_HASH = 52
    COMMON_HASH = 53
    SERVER_LEGACY = 54
    COMPRESSION = 55
    GROUP = 56
    RENEGOTIATIONS = 57
    FIRST_TLS_PACKET = 58
    CLIENT_FIRST_RECORD = 59
    """Record version of the ClientHello's record; 2 for an SSL 2.0 record."""
    SSL3_HASH = 60
    NOTED_0 = 61
    """Bit per Ev: a side (0 the client) was noted for that violation."""
    NOTED_1 = 62
    NOTED_KINDS = 63
    """Bit per Kind of the other events, the server's 32 higher."""
    PROBE_NS = 64
    """Time of the first heartbeat that tests or attacks the peer; 0 without."""
    PROBE_PACKET = 65
    PROBE_SIDE = 66
    UNSETTLED_0 = 67
    """1 while less than four bytes of a handshake record's body have come, and they must tell whether it is
    in clear."""
    UNSETTLED_1 = 68


@unique
class Event(IntEnum):
    """Columns of an event row."""

    KIND = 0
    CONNECTION = 1
    """Slot of the connection; the pipeline puts its number."""
    SIDE = 2
    PACKET = 3
    """Packet in which the record begins."""
    LAST_PACKET = 4
    TIME_NS = 5
    STATE = 6
    """State before the event."""
    EV = 7
    TYPE = 8
    """Content type."""
    VERSION = 9
    LENGTH = 10
    MESSAGE = 11
    """Handshake type, or alert level << 8 | description."""
    VALUE = 12
    VALUE_2 = 13
    POSITION = 14
    NEGOTIATED = 15
    """Version negotiated at that time."""
    BODY = 16
    """First bytes of the record's body, big-endian, where the record walk keeps them (no handshake
    records); FRAMING_LOST: what stood where a header should be."""
    BODY_BYTES = 17


class Kind(IntEnum):
    """Kinds of events."""

    VIOLATION = 1
    """VALUE: bit 0 the side is protected, bit 1 the bytes were readable."""
    ALERT = 2
    LOW_RUN = 3
    """VALUE: length of the run."""
    TEXT = 4
    """VALUE: entropy in millibits a byte; VALUE_2: printable bytes per mille."""
    OVERSIZED = 5
    """VALUE: the limit."""
    EMPTY = 6
    RECORD_VERSION = 7
    """VALUE: what was expected."""
    FRAMING_LOST = 8
    """VALUE: 1 the side is protected; VALUE_2: content type of its last good record."""
    MESSAGE = 9
    """A handshake message, only where messages are asked for."""
    CHANGE_CIPHER_SPEC = 10
    """Likewise."""


TLS_FIELDS: Final = len(Tls)
EVENT_FIELDS: Final = len(Event)
assert max(Ev) < 63, "Tls.NOTED_0 has a bit for each"
assert max(Kind) < 31

# fmt: off
_T = cython.declare(cython.Py_ssize_t, len(Tls))
_E = cython.declare(cython.Py_ssize_t, len(Event))
_R = cython.declare(cython.Py_ssize_t, len(Record))
_SEEN = cython.declare(cython.Py_ssize_t, int(Tls.SEEN))
_STATE = cython.declare(cython.Py_ssize_t, int(Tls.STATE))
_CLIENT = cython.declare(cython.Py_ssize_t, int(Tls.CLIENT))
_ROLE = cython.declare(cython.Py_ssize_t, int(Tls.ROLE))
_PROTECTION = cython.declare(cython.Py_ssize_t, int(Tls.PROTECTION_0))
_CLOSING = cython.declare(cython.Py_ssize_t, int(Tls.CLOSING_0))
_NEED = cython.declare(cython.Py_ssize_t, int(Tls.NEED_0))
_HEAD = cython.declare(cython.Py_ssize_t, int(Tls.MESSAGE_HEAD_0))
_HEAD_BYTES = cython.declare(cython.Py_ssize_t, int(Tls.MESSAGE_HEAD_BYTES_0))
_MARK = cython.declare(cython.Py_ssize_t, int(Tls.MARK_0))
_CCS = cython.declare(cython.Py_ssize_t, int(Tls.CCS_0))
_DATA = cython.declare(cython.Py_ssize_t, int(Tls.DATA_0))
_RECORDS = cython.declare(cython.Py_ssize_t, int(Tls.RECORDS_0))
_VERSION = cython.declare(cython.Py_ssize_t, int(Tls.VERSION))
_CLIENT_FLAGS = cython.declare(cython.Py_ssize_t, int(Tls.CLIENT_FLAGS))
_SERVER_FLAGS = cython.declare(cython.Py_ssize_t, int(Tls.SERVER_FLAGS))
_RULES = cython.declare(cython.Py_ssize_t, int(Tls.RULES))
_SESSION_ECHOED = cython.declare(cython.Py_ssize_t, int(Tls.SESSION_ECHOED))
_CERTIFICATES = cython.declare(cython.Py_ssize_t, int(Tls.CERTIFICATES_SENT))
_REQUESTED = cython.declare(cython.Py_ssize_t, int(Tls.REQUESTED))
_ESTABLISHED = cython.declare(cython.Py_ssize_t, int(Tls.ESTABLISHED))
_RESUMED = cython.declare(cython.Py_ssize_t, int(Tls.RESUMED))
_EARLY_CCS = cython.declare(cython.Py_ssize_t, int(Tls.EARLY_CCS))
_EVENTS = cython.declare(cython.Py_ssize_t, int(Tls.EVENTS))
_UNORDERED = cython.declare(cython.Py_ssize_t, int(Tls.UNORDERED))
_HELLO_PACKET = cython.declare(cython.Py_ssize_t, int(Tls.HELLO_PACKET))
_SERVER_HELLO_PACKET = cython.declare(cython.Py_ssize_t, int(Tls.SERVER_HELLO_PACKET))
_HELLO_NS = cython.declare(cython.Py_ssize_t, int(Tls.HELLO_NS))
_FIRST_RECORD_VERSION = cython.declare(cython.Py_ssize_t, int(Tls.FIRST_RECORD_VERSION))
_VERSION_ODD = cython.declare(cython.Py_ssize_t, int(Tls.VERSION_ODD))
_LAST_SEQ = cython.declare(cython.Py_ssize_t, int(Tls.LAST_SEQ_0))
_KX_SEEN = cython.declare(cython.Py_ssize_t, int(Tls.KX_SEEN))
_ALERTS = cython.declare(cython.Py_ssize_t, int(Tls.ALERTS))
_FATAL = cython.declare(cython.Py_ssize_t, int(Tls.FATAL))
_RENEGOTIATIONS = cython.declare(cython.Py_ssize_t, int(Tls.RENEGOTIATIONS))
_FIRST_TLS_PACKET = cython.declare(cython.Py_ssize_t, int(Tls.FIRST_TLS_PACKET))
_CLIENT_FIRST_RECORD = cython.declare(cython.Py_ssize_t, int(Tls.CLIENT_FIRST_RECORD))
_NOTED = cython.declare(cython.Py_ssize_t, int(Tls.NOTED_0))
_NOTED_KINDS = cython.declare(cython.Py_ssize_t, int(Tls.NOTED_KINDS))
_UNSETTLED = cython.declare(cython.Py_ssize_t, int(Tls.UNSETTLED_0))

_START = cython.declare(cython.int, int(State.START))
_WAIT_SH = cython.declare(cython.int, int(State.WAIT_SH))
_WAIT_SH_13 = cython.declare(cython.int, int(State.WAIT_SH_13))
_WAIT_SH_0RTT = cython.declare(cython.int, int(State.WAIT_SH_0RTT))
_N_SH = cython.declare(cython.int, int(State.N_SH))
_A_TICKET = cython.declare(cython.int, int(State.A_TICKET))
_A_SCCS = cython.declare(cython.int, int(State.A_SCCS))
_A_SFIN = cython.declare(cython.int, int(State.A_SFIN))
_C_KX = cython.declare(cython.int, int(State.C_KX))
_C_FIN = cython.declare(cython.int, int(State.C_FIN))
_S_TICKET = cython.declare(cython.int, int(State.S_TICKET))
_EST = cython.declare(cython.int, int(State.EST))
_R_CLIENT = cython.declare(cython.int, int(State.R_CLIENT))
_T_HRR = cython.declare(cython.int, int(State.T_HRR))
_T_WAIT2 = cython.declare(cython.int, int(State.T_WAIT2))
_T_NEG = cython.declare(cython.int, int(State.T_NEG))
_T_SERVER = cython.declare(cython.int, int(State.T_SERVER))
_T_EST = cython.declare(cython.int, int(State.T_EST))
_V_WAIT = cython.declare(cython.int, int(State.V_WAIT))
_V_SH = cython.declare(cython.int, int(State.V_SH))
_V_KEYED = cython.declare(cython.int, int(State.V_KEYED))
_CLOSED = cython.declare(cython.int, int(State.CLOSED))
_UNKNOWN = cython.declare(cython.int, int(State.UNKNOWN))
_PLAIN = cython.declare(cython.int, int(State.PLAIN))
_PROTECTED = cython.declare(cython.int, int(State.PROTECTED))
_OPEN = cython.declare(cython.int, int(State.OPEN))

_HELLO_REQUEST = cython.declare(cython.int, int(Ev.HELLO_REQUEST))
_CLIENT_HELLO = cython.declare(cython.int, int(Ev.CLIENT_HELLO))
_CLIENT_HELLO_13 = cython.declare(cython.int, int(Ev.CLIENT_HELLO_13))
_CLIENT_HELLO_0RTT = cython.declare(cython.int, int(Ev.CLIENT_HELLO_0RTT))
_CLIENT_HELLO_SSL2 = cython.declare(cython.int, int(Ev.CLIENT_HELLO_SSL2))
_SERVER_HELLO = cython.declare(cython.int, int(Ev.SERVER_HELLO))
_SERVER_HELLO_13 = cython.declare(cython.int, int(Ev.SERVER_HELLO_13))
_HELLO_RETRY_REQUEST = cython.declare(cython.int, int(Ev.HELLO_RETRY_REQUEST))
_SUPPLEMENTAL_DATA = cython.declare(cython.int, int(Ev.SUPPLEMENTAL_DATA))
_CERTIFICATE = cython.declare(cython.int, int(Ev.CERTIFICATE))
_CERTIFICATE_FORBIDDEN = cython.declare(cython.int, int(Ev.CERTIFICATE_FORBIDDEN))
_CERTIFICATE_STATUS = cython.declare(cython.int, int(Ev.CERTIFICATE_STATUS))
_CERTIFICATE_STATUS_FORBIDDEN = cython.declare(cython.int, int(Ev.CERTIFICATE_STATUS_FORBIDDEN))
_SERVER_KEY_EXCHANGE = cython.declare(cython.int, int(Ev.SERVER_KEY_EXCHANGE))
_SERVER_KEY_EXCHANGE_FORBIDDEN = cython.declare(cython.int, int(Ev.SERVER_KEY_EXCHANGE_FORBIDDEN))
_CERTIFICATE_REQUEST = cython.declare(cython.int, int(Ev.CERTIFICATE_REQUEST))
_CERTIFICATE_REQUEST_FORBIDDEN = cython.declare(cython.int, int(Ev.CERTIFICATE_REQUEST_FORBIDDEN))
_SERVER_HELLO_DONE = cython.declare(cython.int, int(Ev.SERVER_HELLO_DONE))
_SERVER_HELLO_DONE_NO_CERTIFICATE = cython.declare(cython.int, int(Ev.SERVER_HELLO_DONE_NO_CERTIFICATE))
_SERVER_HELLO_DONE_NO_KEY_EXCHANGE = cython.declare(cython.int, int(Ev.SERVER_HELLO_DONE_NO_KEY_EXCHANGE))
_CLIENT_KEY_EXCHANGE = cython.declare(cython.int, int(Ev.CLIENT_KEY_EXCHANGE))
_CLIENT_KEY_EXCHANGE_NO_CERTIFICATE = cython.declare(cython.int, int(Ev.CLIENT_KEY_EXCHANGE_NO_CERTIFICATE))
_CERTIFICATE_VERIFY = cython.declare(cython.int, int(Ev.CERTIFICATE_VERIFY))
_CERTIFICATE_VERIFY_FORBIDDEN = cython.declare(cython.int, int(Ev.CERTIFICATE_VERIFY_FORBIDDEN))
_NEW_SESSION_TICKET = cython.declare(cython.int, int(Ev.NEW_SESSION_TICKET))
_NEW_SESSION_TICKET_FORBIDDEN = cython.declare(cython.int, int(Ev.NEW_SESSION_TICKET_FORBIDDEN))
_FINISHED_CLEAR = cython.declare(cython.int, int(Ev.FINISHED_CLEAR))
_HANDSHAKE_OTHER = cython.declare(cython.int, int(Ev.HANDSHAKE_OTHER))
_EV_CCS = cython.declare(cython.int, int(Ev.CCS))
_CCS_RESUMING = cython.declare(cython.int, int(Ev.CCS_RESUMING))
_CCS_UNSEEN = cython.declare(cython.int, int(Ev.CCS_UNSEEN))
_CCS_REPEATED = cython.declare(cython.int, int(Ev.CCS_REPEATED))
_CCS_NO_VERIFY = cython.declare(cython.int, int(Ev.CCS_NO_VERIFY))
_CCS_IN_MESSAGE = cython.declare(cython.int, int(Ev.CCS_IN_MESSAGE))
_RECORD_IN_MESSAGE = cython.declare(cython.int, int(Ev.RECORD_IN_MESSAGE))
_ENC_HANDSHAKE = cython.declare(cython.int, int(Ev.ENC_HANDSHAKE))
_ENC_CCS = cython.declare(cython.int, int(Ev.ENC_CCS))
_ENC_ALERT = cython.declare(cython.int, int(Ev.ENC_ALERT))
_ENC_HEARTBEAT = cython.declare(cython.int, int(Ev.ENC_HEARTBEAT))
_APP = cython.declare(cython.int, int(Ev.APP))
_APP_EARLY = cython.declare(cython.int, int(Ev.APP_EARLY))
_APP_CLEAR = cython.declare(cython.int, int(Ev.APP_CLEAR))
_CLEAR_HANDSHAKE = cython.declare(cython.int, int(Ev.CLEAR_HANDSHAKE))
_CLEAR_ALERT = cython.declare(cython.int, int(Ev.CLEAR_ALERT))
_CLEAR_HEARTBEAT_13 = cython.declare(cython.int, int(Ev.CLEAR_HEARTBEAT_13))
_ALERT_WARNING = cython.declare(cython.int, int(Ev.ALERT_WARNING))
_ALERT_FATAL = cython.declare(cython.int, int(Ev.ALERT_FATAL))
_HEARTBEAT = cython.declare(cython.int, int(Ev.HEARTBEAT))
_SSL2_SERVER_HELLO = cython.declare(cython.int, int(Ev.SSL2_SERVER_HELLO))
_SSL2_SERVER_HELLO_HIT = cython.declare(cython.int, int(Ev.SSL2_SERVER_HELLO_HIT))
_SSL2_MASTER_KEY = cython.declare(cython.int, int(Ev.SSL2_MASTER_KEY))
_SSL2_ERROR = cython.declare(cython.int, int(Ev.SSL2_ERROR))
_SSL2_OTHER = cython.declare(cython.int, int(Ev.SSL2_OTHER))
_EV_GAP = cython.declare(cython.int, int(Ev.GAP))
_JOINED_LATE = cython.declare(cython.int, int(Ev.JOINED_LATE))
_CLOSE_NOTIFY = cython.declare(cython.int, int(Ev.CLOSE_NOTIFY))
_EV_FATAL = cython.declare(cython.int, int(Ev.FATAL))
_EV_DATA = cython.declare(cython.int, int(Ev.DATA))

# declared, because a bare literal of 32 bits and more would be a Python object
_MASK32 = cython.declare(cython.longlong, 0xFFFFFFFF)
_HALF = cython.declare(cython.longlong, 0x80000000)
_N_EV = cython.declare(cython.Py_ssize_t, len(Ev))
_MAX_EVENTS = cython.declare(cython.longlong, limits.EVENTS_PER_CONNECTION)

_K_VIOLATION = cython.declare(cython.int, int(Kind.VIOLATION))
_K_ALERT = cython.declare(cython.int, int(Kind.ALERT))
_K_LOW_RUN = cython.declare(cython.int, int(Kind.LOW_RUN))
_K_TEXT = cython.declare(cython.int, int(Kind.TEXT))
_K_OVERSIZED = cython.declare(cython.int, int(Kind.OVERSIZED))
_K_EMPTY = cython.declare(cython.int, int(Kind.EMPTY))
_K_RECORD_VERSION = cython.declare(cython.int, int(Kind.RECORD_VERSION))
_K_FRAMING_LOST = cython.declare(cython.int, int(Kind.FRAMING_LOST))
_K_MESSAGE = cython.declare(cython.int, int(Kind.MESSAGE))
_K_CCS = cython.declare(cython.int, int(Kind.CHANGE_CIPHER_SPEC))

_FIRST = cython.declare(cython.int, records.FIRST)
_LAST = cython.declare(cython.int, records.LAST)
_AFTER_OTHER = cython.declare(cython.int, records.AFTER_OTHER)
_GAP = cython.declare(cython.int, records.GAP)
_LOSS = cython.declare(cython.int, records.LOSS)
_LOW_RUN = cython.declare(cython.int, records.LOW_RUN)
_TEXT = cython.declare(cython.int, records.TEXT)
_RESYNC = cython.declare(cython.int, records.RESYNC)
_SSL2 = cython.declare(cython.int, records.SSL2)

_SENT_CERTIFICATE = cython.declare(cython.int, classify.CERTIFICATE_REQUIRED)
_NO_CERTIFICATE = cython.declare(cython.int, classify.CERTIFICATE_FORBIDDEN)
_NEEDS_KX = cython.declare(cython.int, classify.KEY_EXCHANGE_REQUIRED)
_NO_KX = cython.declare(cython.int, classify.KEY_EXCHANGE_FORBIDDEN)
_NO_REQUEST = cython.declare(cython.int, classify.REQUEST_FORBIDDEN)
_CLEAR_SUITE = cython.declare(cython.int, classify.CLEAR)
_F_EARLY = cython.declare(cython.longlong, hello.EARLY_DATA)
_F_SUPPORTED = cython.declare(cython.longlong, hello.SUPPORTED_VERSIONS)
_F_SSL2 = cython.declare(cython.longlong, hello.SSL2_FORMAT)
_F_RETRY = cython.declare(cython.longlong, hello.RETRY)
_F_PSK = cython.declare(cython.longlong, hello.PSK)
_CLIENT_VERSION = cython.declare(cython.Py_ssize_t, int(Tls.CLIENT_VERSION))
_CLIENT_MAX = cython.declare(cython.Py_ssize_t, int(Tls.CLIENT_MAX))
_CLIENT_HEARTBEAT = cython.declare(cython.Py_ssize_t, int(Tls.CLIENT_HEARTBEAT))
_SERVER_HEARTBEAT = cython.declare(cython.Py_ssize_t, int(Tls.SERVER_HEARTBEAT))
_OFFERED = cython.declare(cython.Py_ssize_t, int(Tls.OFFERED))
_SUITES_HASH = cython.declare(cython.Py_ssize_t, int(Tls.SUITES_HASH))
_COMMON_HASH = cython.declare(cython.Py_ssize_t, int(Tls.COMMON_HASH))
_SSL3_HASH = cython.declare(cython.Py_ssize_t, int(Tls.SSL3_HASH))
_HELLOS = cython.declare(cython.Py_ssize_t, int(Tls.HELLOS))
_RETRIED = cython.declare(cython.Py_ssize_t, int(Tls.RETRIED))
_SERVER_LEGACY = cython.declare(cython.Py_ssize_t, int(Tls.SERVER_LEGACY))
_CIPHER_SUITE = cython.declare(cython.Py_ssize_t, int(Tls.CIPHER_SUITE))
_COMPRESSION = cython.declare(cython.Py_ssize_t, int(Tls.COMPRESSION))
_GROUP = cython.declare(cython.Py_ssize_t, int(Tls.GROUP))
_facts = cython.declare(cython.longlong[::1], hello.FACTS.data)
_suite_rules = cython.declare(cython.uchar[::1], np.array(classify.RULES).data)
_F_TICKET = cython.declare(cython.longlong, hello.TICKET)
_F_TICKET_FILLED = cython.declare(cython.longlong, hello.TICKET_FILLED)
_F_STATUS = cython.declare(cython.longlong, hello.STATUS)
# fmt: on


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(check=False)
@cython.locals(kind=cython.longlong)
def _known_message(kind):  # type: ignore[no-untyped-def]
    """A handshake type that stands in the registry."""
    return (
        kind <= 6
        or kind == 8
        or (kind >= 11 and kind <= 16)
        or (kind >= 20 and kind <= 26)
        or kind == 67
        or kind == 203
        or kind == 254
    )


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    ts=cython.longlong[::1], rows=cython.longlong[::1], out=cython.longlong[::1],
    count=cython.longlong[::1], b=cython.Py_ssize_t, r=cython.Py_ssize_t, kind=cython.int, side=cython.int,
    state=cython.longlong, ev=cython.int, message=cython.longlong, value=cython.longlong,
    value2=cython.longlong, o=cython.Py_ssize_t, noted=cython.Py_ssize_t, bit=cython.longlong,
)  # fmt: skip
def _note(ts, rows, out, count, b, r, kind, side, state, ev, message, value, value2):  # type: ignore[no-untyped-def]
    """Append an event row, unless the connection has had its share: then only what it did for the first time.

    Otherwise a flood of one harmless oddity would hide the attack behind it.
    """
    if kind != _K_MESSAGE and kind != _K_CCS:
        ts[b + _EVENTS] += 1
        bit = 1
        if kind == _K_VIOLATION:
            noted = b + _NOTED + side
            bit <<= ev
        else:
            noted = b + _NOTED_KINDS
            bit <<= kind + 32 * side
        if ts[b + _EVENTS] > _MAX_EVENTS and ts[noted] & bit:
            return 0
        ts[noted] |= bit
    o = count[0] * _E
    count[0] += 1
    out[o] = kind
    out[o + 1] = rows[r] >> 1
    out[o + 2] = side
    out[o + 3] = rows[r + 1]
    out[o + 4] = rows[r + 2]
    out[o + 5] = rows[r + 12]
    out[o + 6] = state
    out[o + 7] = ev
    out[o + 8] = rows[r + 3]
    out[o + 9] = rows[r + 4]
    out[o + 10] = rows[r + 5]
    out[o + 11] = message
    out[o + 12] = value
    out[o + 13] = value2
    out[o + 14] = rows[r + 6]
    out[o + 15] = ts[b + _VERSION]
    out[o + 16] = rows[r + 10]
    out[o + 17] = rows[r + 11]
    return 0


@cython.cfunc
@cython.inline
@cython.returns(cython.longlong)
@cython.exceptval(-2, check=True)
@cython.locals(matrix=cython.schar[::1], state=cython.longlong, side=cython.longlong, ev=cython.longlong)
def _next(matrix, state, side, ev):  # type: ignore[no-untyped-def]
    """What the tables say of an event: the next state, -1 where they have no row."""
    return matrix[(state * 2 + side) * _N_EV + ev]


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    ts=cython.longlong[::1], matrix=cython.schar[::1], rows=cython.longlong[::1], out=cython.longlong[::1],
    count=cython.longlong[::1], b=cython.Py_ssize_t, r=cython.Py_ssize_t, d=cython.Py_ssize_t,
    ev=cython.int, message=cython.longlong, state=cython.longlong, following=cython.longlong,
    side=cython.int, legal=cython.int, sync=cython.longlong,
)  # fmt: skip
def _step(ts, matrix, rows, out, count, b, r, d, ev, message):  # type: ignore[no-untyped-def]
    """One event on the handshake and protection machines; 1 where the table has it or order is unknown."""
    side = 1
    if ts[b + _CLIENT] == d:
        side = 0
    state = ts[b + _STATE]
    following = _next(matrix, state, side, ev)
    legal = 1
    if following < 0:
        sync = rows[r + 15]
        if ts[b + _UNORDERED] or sync & 31 != 3:  # something of either side may not have been captured
            ts[b + _STATE] = _UNKNOWN
        else:
            legal = 0
            _note(
                ts,
                rows,
                out,
                count,
                b,
                r,
                _K_VIOLATION,
                side,
                state,
                ev,
                message,
                ts[b + _PROTECTION + d] == _PROTECTED,
                0,
            )
    elif following != state:
        ts[b + _STATE] = following
        ts[b + _MARK + d] = rows[r + 14]
        if following == _EST:
            ts[b + _ESTABLISHED] = 1
            if state != _A_SCCS and ts[b + _RESUMED] == 0:
                ts[b + _RESUMED] = 1
        elif following == _T_EST:
            ts[b + _ESTABLISHED] = 1
        elif following == _R_CLIENT:
            ts[b + _RENEGOTIATIONS] += 1
    elif ev == _APP and side == 1 and state == _T_SERVER:
        ts[b + _MARK + d] = rows[r + 14]  # the flight that the client must have seen goes on
    if legal:
        following = _next(matrix, ts[b + _PROTECTION + d], side, ev)
        if following >= 0 and not (ts[b + _VERSION] == 0x0304 and ev == _EV_CCS):
            # in TLS 1.3 the key change is not where ChangeCipherSpec is (RFC 8446 D.4)
            if not (
                ev == _EV_CCS
                and (state == _WAIT_SH_13 or state == _WAIT_SH_0RTT or state == _T_HRR or state == _T_WAIT2)
            ):
                ts[b + _PROTECTION + d] = following
    return legal


@cython.cfunc
@cython.inline
@cython.returns(cython.bint)
@cython.exceptval(check=False)
@cython.locals(ack=cython.longlong, mark=cython.longlong, d=cython.longlong)
def _seen(ack, mark):  # type: ignore[no-untyped-def]
    """The acknowledgment number covers everything before `mark` (RFC 9293 3.4)."""
    d = (ack - mark) & _MASK32
    return d < _HALF


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    ts=cython.longlong[::1], b=cython.Py_ssize_t, d=cython.Py_ssize_t, kind=cython.longlong,
    length=cython.longlong, rules=cython.longlong,
)  # fmt: skip
def _name_message(ts, b, d, kind, length):  # type: ignore[no-untyped-def]
    """The event that a handshake message in clear is here; hellos are named where they are read."""
    rules = ts[b + _RULES]
    if kind == 0:
        return _HELLO_REQUEST
    if kind == 4:
        if ts[b + _SERVER_FLAGS] >= 0 and not ts[b + _SERVER_FLAGS] & _F_TICKET:
            return _NEW_SESSION_TICKET_FORBIDDEN
        return _NEW_SESSION_TICKET
    if kind == 11:
        if ts[b + _CLIENT] == d:
            if not ts[b + _REQUESTED]:
                return _CERTIFICATE_FORBIDDEN
            if length > 3:
                ts[b + _CERTIFICATES] |= 2
            ts[b + _CERTIFICATES] |= 4
            return _CERTIFICATE
        if rules & _NO_CERTIFICATE:
            return _CERTIFICATE_FORBIDDEN
        ts[b + _CERTIFICATES] |= 1
        if ts[b + _RESUMED] == 0:
            ts[b + _RESUMED] = 1
        return _CERTIFICATE
    if kind == 12:
        ts[b + _KX_SEEN] = 1
        if rules & _NO_KX:
            return _SERVER_KEY_EXCHANGE_FORBIDDEN
        return _SERVER_KEY_EXCHANGE
    if kind == 13:
        ts[b + _REQUESTED] = 1
        if rules & _NO_REQUEST:
            return _CERTIFICATE_REQUEST_FORBIDDEN
        return _CERTIFICATE_REQUEST
    if kind == 14:
        if rules & _NEEDS_KX and not ts[b + _KX_SEEN]:
            return _SERVER_HELLO_DONE_NO_KEY_EXCHANGE
        if rules & _SENT_CERTIFICATE and not ts[b + _CERTIFICATES] & 1:
            return _SERVER_HELLO_DONE_NO_CERTIFICATE
        return _SERVER_HELLO_DONE
    if kind == 15:
        if ts[b + _CERTIFICATES] & 2:
            return _CERTIFICATE_VERIFY
        return _CERTIFICATE_VERIFY_FORBIDDEN
    if kind == 16:
        # SSL 3.0 refuses with a warning instead of an empty Certificate (RFC 6101 5.6.6)
        if ts[b + _REQUESTED] and not ts[b + _CERTIFICATES] & 4 and ts[b + _VERSION] > 0x0300:
            return _CLIENT_KEY_EXCHANGE_NO_CERTIFICATE
        return _CLIENT_KEY_EXCHANGE
    if kind == 20:
        return _FINISHED_CLEAR
    if kind == 22:
        if ts[b + _CLIENT_FLAGS] >= 0 and not ts[b + _CLIENT_FLAGS] & _F_STATUS:
            return _CERTIFICATE_STATUS_FORBIDDEN
        return _CERTIFICATE_STATUS
    if kind == 23:
        return _SUPPLEMENTAL_DATA
    return _HANDSHAKE_OTHER


@cython.cfunc
@cython.returns(cython.int)
@cython.exceptval(-1, check=True)
@cython.locals(
    ts=cython.longlong[::1], f=cython.Py_ssize_t, d=cython.Py_ssize_t, message=cython.longlong,
    at=cython.longlong, size=cython.longlong, packet=cython.longlong, time_ns=cython.longlong,
    record_version=cython.longlong, b=cython.Py_ssize_t, flags=cython.longlong, version=cython.longlong,
)  # fmt: skip
def _hello(ts, f, d, message, view, at, size, packet, time_ns, record_version, owner):  # type: ignore[no-untyped-def]
    """Read a hello into the connection's state and name its event."""
    b = f * _T
    if message == 1:
        texts = (
            hello.ssl2_client_hello(view, at, size)
            if record_version == 2
            else hello.client_hello(view, at, size)
        )
        flags = _facts[0]
        version = _facts[2]
        if ts[b + _HELLO_PACKET] == 0:
            owner.client[f] = texts
            ts[b + _CLIENT_FLAGS] = flags
            ts[b + _CLIENT_VERSION] = _facts[1]
            ts[b + _CLIENT_MAX] = version
            ts[b + _CLIENT_HEARTBEAT] = _facts[3]
            ts[b + _OFFERED] = _facts[4]
            ts[b + _SUITES_HASH] = _facts[5]
            ts[b + _COMMON_HASH] = _facts[6]
            ts[b + _SSL3_HASH] = _facts[10]
            ts[b + _HELLO_PACKET] = packet
            ts[b + _HELLO_NS] = time_ns
            ts[b + _CLIENT_FIRST_RECORD] = record_version
        ts[b + _HELLOS] += 1
        if flags & _F_SSL2:
            return _CLIENT_HELLO_SSL2 if _facts[1] == 2 else _CLIENT_HELLO
        if flags & _F_SUPPORTED and version >= 0x0304:
            return _CLIENT_HELLO_0RTT if flags & _F_EARLY else _CLIENT_HELLO_13
        return _CLIENT_HELLO
    answer = hello.server_hello(view, at, size)
    flags = _facts[0]
    version = _facts[2]
    if flags & _F_RETRY:
        if ts[b + _CLIENT] != d:
            ts[b + _RETRIED] += 1
        return _HELLO_RETRY_REQUEST
    if ts[b + _CLIENT] != d and ts[b + _SERVER_FLAGS] < 0:
        owner.server[f] = answer
        ts[b + _SERVER_FLAGS] = flags
        ts[b + _SERVER_LEGACY] = _facts[1]
        ts[b + _VERSION] = version
        ts[b + _SERVER_HEARTBEAT] = _facts[3]
        ts[b + _CIPHER_SUITE] = _facts[7]
        ts[b + _COMPRESSION] = _facts[8]
        ts[b + _GROUP] = _facts[9]
        ts[b + _RULES] = 0
        if version != 0x0304:
            ts[b + _RULES] = _suite_rules[_facts[7]]
        ts[b + _SERVER_HELLO_PACKET] = packet
        client = owner.client.get(f)
        if client is not None and client[0] and client[0] == answer[0]:
            ts[b + _SESSION_ECHOED] = 1
        if version == 0x0304:
            ts[b + _RESUMED] = 4 if flags & _F_PSK else 1
    return _SERVER_HELLO_13 if version == 0x0304 else _SERVER_HELLO


@cython.locals(
    buf=cython.uchar[::1], rows=cython.longlong[::1], ts=cython.longlong[::1], matrix=cython.schar[::1],
    out=cython.longlong[::1], count=cython.longlong[::1], opener=cython.longlong[::1],
    opener_step=cython.Py_ssize_t, opener_at=cython.Py_ssize_t, n=cython.Py_ssize_t,
    index=cython.Py_ssize_t, r=cython.Py_ssize_t, f=cython.Py_ssize_t, d=cython.Py_ssize_t,
    b=cython.Py_ssize_t, kind=cython.longlong, flags=cython.int, length=cython.longlong,
    version=cython.longlong, sync=cython.longlong, state=cython.longlong, i=cython.longlong,
    end=cython.longlong, m=cython.longlong, ev=cython.int, side=cython.int, protected=cython.bint,
    clear=cython.bint, message=cython.longlong, size=cython.longlong, limit=cython.longlong,
    expected=cython.longlong, body=cython.longlong, body_bytes=cython.longlong, tls13=cython.bint,
    key=cython.longlong, room=cython.longlong, following=cython.longlong, want=cython.bint,
    early=cython.bint, first=cython.longlong, second=cython.longlong,
)  # fmt: skip
def _track(view, rows, ts, matrix, out, count, opener, opener_step, opener_at, begin, want, pending, owner):  # type: ignore[no-untyped-def]
    """Follow record rows from `begin` on while there is room; returns the first row not followed."""
    buf = view
    n = rows.shape[0] // _R
    room = out.shape[0] // _E
    for index in range(begin, n):
        r = index * _R
        if count[0] + rows[r + 8] + 8 > room and count[0] > 0:
            return index
        f = rows[r] >> 1
        d = rows[r] & 1
        b = f * _T
        kind = rows[r + 3]
        version = rows[r + 4]
        length = rows[r + 5]
        flags = rows[r + 9]
        sync = rows[r + 15]
        i = rows[r + 7]
        if not ts[b + _SEEN]:
            ts[b + _SEEN] = 1
            ts[b + _FIRST_TLS_PACKET] = rows[r + 1]
            ts[b + _PROTECTION] = _PLAIN
            ts[b + _PROTECTION + 1] = _PLAIN
            ts[b + _CLOSING] = _OPEN
            ts[b + _CLOSING + 1] = _OPEN
            ts[b + _CLIENT_FLAGS] = -1
            ts[b + _SERVER_FLAGS] = -1
            ts[b + _CLIENT] = 0
            first = opener[f * opener_step + opener_at]
            if first != 0:
                ts[b + _CLIENT] = (first - 1) & 1
                if first <= 2:
                    ts[b + _ROLE] = 1
            first = -1
            if rows[r + 8] > 0 and flags & _FIRST and (kind == 22 or kind & _SSL2):
                first = buf[i] if kind == 22 else kind & 0xFF
            if (kind == 22 or kind == _SSL2 + 1) and first == 1:
                ts[b + _CLIENT] = d
                ts[b + _ROLE] = 3
            elif kind == 22 and first == 2 and (ts[b + _ROLE] == 0 or sync & 16):
                ts[b + _CLIENT] = 1 - d
                ts[b + _ROLE] = 2
            if (
                sync & 28
                or (sync & 3 != 3 and first != 1)
                or flags & _RESYNC
                or (flags & _AFTER_OTHER and first != 1)
            ):  # with AFTER_OTHER: what the peer sent may have been a hello that was not recognised
                ts[b + _STATE] = _next(matrix, _START, d, _JOINED_LATE)
                if first != 1 or sync & 16:
                    ts[b + _UNORDERED] = 1
        if flags & _LOW_RUN or flags & _TEXT:
            # what should be ciphertext: application data after keys changed, or any in TLS 1.3
            state = ts[b + _STATE]
            protected = ts[b + _PROTECTION + d] == _PROTECTED or ts[b + _VERSION] == 0x0304
            early = state == _WAIT_SH_0RTT or state == _T_HRR
            if not ts[b + _RULES] & _CLEAR_SUITE and (protected or early or state == _UNKNOWN):
                side = 1 if ts[b + _CLIENT] != d else 0
                if flags & _LOW_RUN:
                    _note(ts, rows, out, count, b, r, _K_LOW_RUN, side, ts[b + _STATE], 0, 0, rows[r + 16], 0)
                else:
                    _note(
                        ts,
                        rows,
                        out,
                        count,
                        b,
                        r,
                        _K_TEXT,
                        side,
                        ts[b + _STATE],
                        0,
                        0,
                        rows[r + 16],
                        rows[r + 17],
                    )
            continue
        if flags & (_GAP | _RESYNC):
            ts[b + _UNORDERED] = 1
            ts[b + _NEED + d] = -1 if kind == 22 and not flags & _FIRST else 0
            ts[b + _HEAD_BYTES + d] = 0
            ts[b + _HEAD + d] = 0
            ts[b + _UNSETTLED + d] = 0
            if pending:
                _drop(pending, owner, f * 2 + d)
            _step(ts, matrix, rows, out, count, b, r, d, _EV_GAP, 0)
            if not flags & _FIRST:
                continue
        side = 1
        if ts[b + _CLIENT] == d:
            side = 0
        if flags & _LOSS:
            protected = ts[b + _PROTECTION + d] == _PROTECTED
            _note(
                ts,
                rows,
                out,
                count,
                b,
                r,
                _K_FRAMING_LOST,
                side,
                ts[b + _STATE],
                0,
                0,
                protected,
                rows[r + 16],
            )
            ts[b + _UNORDERED] = 1
            ts[b + _NEED + d] = 0
            ts[b + _HEAD_BYTES + d] = 0
            ts[b + _HEAD + d] = 0
            ts[b + _UNSETTLED + d] = 0
            if pending:
                _drop(pending, owner, f * 2 + d)
            _step(ts, matrix, rows, out, count, b, r, d, _EV_GAP, 0)
            continue
        if kind == 23 and not flags & _FIRST:
            continue
        state = ts[b + _STATE]
        protected = ts[b + _PROTECTION + d] == _PROTECTED
        tls13 = ts[b + _VERSION] == 0x0304
        if kind & _SSL2:
            _ssl2(buf, view, rows, ts, matrix, out, count, r, f, d, pending, owner)
            continue
        if flags & _FIRST:
            ts[b + _RECORDS + d] += 1
            ts[b + _LAST_SEQ + d] = rows[r + 14]
            # record layer: versions, lengths (RFC 8446 5.1, 5.2; RFC 5246 6.2)
            if not ts[b + _VERSION_ODD] & (1 << d):
                expected = 0
                if ts[b + _VERSION] >= 0x0300:
                    expected = 0x0303 if tls13 else ts[b + _VERSION]
                    if (tls13 and version <= 0x0303 and not protected) or ts[
                        b + _SERVER_HELLO_PACKET
                    ] >= rows[r + 1]:
                        expected = version
                    if side == 0 and ts[b + _RECORDS + d] <= 1:
                        expected = version
                elif version > 0x0303:
                    expected = 0x0303
                if expected != 0 and version != expected:
                    ts[b + _VERSION_ODD] |= 1 << d
                    _note(ts, rows, out, count, b, r, _K_RECORD_VERSION, side, state, 0, 0, expected, 0)
            limit = 16384
            if protected or kind == 23 or state == _UNKNOWN:
                limit = 16384 + 256 if tls13 else 16384 + 2048
            if length > limit:
                _note(ts, rows, out, count, b, r, _K_OVERSIZED, side, state, 0, 0, limit, 0)
            elif length == 0:
                if kind != 23 or (protected and not ts[b + _RULES] & _CLEAR_SUITE):
                    _note(ts, rows, out, count, b, r, _K_EMPTY, side, state, 0, 0, protected, 0)
                if kind != 23 and kind != 24:
                    continue
        if ts[b + _CLOSING + d] != _OPEN or kind != 21:
            following = _next(matrix, ts[b + _CLOSING + d], side, _EV_DATA)
            if following < 0 and kind != 21 and flags & _FIRST:
                if not ts[b + _UNORDERED]:
                    _note(
                        ts,
                        rows,
                        out,
                        count,
                        b,
                        r,
                        _K_VIOLATION,
                        side,
                        ts[b + _CLOSING + d],
                        _EV_DATA,
                        0,
                        protected,
                        0,
                    )
        if want and kind == 20:
            _note(ts, rows, out, count, b, r, _K_CCS, side, state, 0, 0, 0, 0)
        if (
            (ts[b + _NEED + d] > 0 or ts[b + _HEAD_BYTES + d] > 0)
            and kind != 22
            and kind != 21
            and flags & _FIRST
            and state != _UNKNOWN
        ):
            # between two records of one handshake message (RFC 8446 5.1); TLS 1.2 tolerates alerts there
            _step(
                ts,
                matrix,
                rows,
                out,
                count,
                b,
                r,
                d,
                _CCS_IN_MESSAGE if kind == 20 else _RECORD_IN_MESSAGE,
                0,
            )
            if kind != 24:
                continue
        if kind == 23:
            ts[b + _DATA + d] += 1
            ev = _APP
            if tls13:
                if (
                    side == 0
                    and not protected
                    and ts[b + _CLIENT_FLAGS] > 0
                    and ts[b + _CLIENT_FLAGS] & _F_EARLY
                ):
                    if state == _T_NEG or not _seen(rows[r + 13], ts[b + _MARK + 1 - d]):
                        ev = _APP_EARLY
            elif not protected:
                ev = _APP_CLEAR
                if state == _UNKNOWN:
                    ev = _APP
                elif side == 0 and ts[b + _CLIENT_FLAGS] > 0 and ts[b + _CLIENT_FLAGS] & _F_EARLY:
                    if state == _WAIT_SH_0RTT or (
                        (state == _T_HRR or state == _N_SH) and not _seen(rows[r + 13], ts[b + _MARK + 1 - d])
                    ):
                        ev = _APP_EARLY
                    elif state == _T_HRR:
                        ev = _APP
                elif ts[b + _EARLY_CCS]:
                    ev = _APP
            _step(ts, matrix, rows, out, count, b, r, d, ev, 0)
        elif kind == 22:
            end = i + rows[r + 8]
            if ts[b + _NEED + d] < 0:
                if not flags & _FIRST:
                    continue
                ts[b + _NEED + d] = 0
            if ts[b + _UNSETTLED + d] or (
                flags & _FIRST and ts[b + _NEED + d] == 0 and ts[b + _HEAD_BYTES + d] == 0
            ):
                # the first four bytes tell: they may have come in pieces
                ts[b + _UNSETTLED + d] = 0
                clear = not protected
                m = ts[b + _HEAD_BYTES + d]
                body = ts[b + _HEAD + d]
                while m < 4 and i < end:
                    body = (body << 8) | buf[i]
                    m += 1
                    i += 1
                i = rows[r + 7]
                if m < 4 <= length and (protected or state == _UNKNOWN or ts[b + _EARLY_CCS]):
                    ts[b + _UNSETTLED + d] = 1
                    ts[b + _HEAD_BYTES + d] = m
                    ts[b + _HEAD + d] = body
                    continue
                message = body >> 24
                size = body & 0xFFFFFF
                if m < 4:
                    pass
                elif protected:
                    # TLS 1.3 has no outer type 22 under keys; before, its body must not read as a message of
                    # just its length
                    if tls13 or (
                        _known_message(message) and size + 4 == length and not ts[b + _RULES] & _CLEAR_SUITE
                    ):
                        ts[b + _HEAD_BYTES + d] = 0
                        ts[b + _HEAD + d] = 0
                        _step(ts, matrix, rows, out, count, b, r, d, _CLEAR_HANDSHAKE, message)
                        continue
                elif (state == _UNKNOWN or ts[b + _EARLY_CCS]) and (
                    # a HelloRequest stands alone; zeros begin the explicit nonce of a first GCM record
                    not _known_message(message) or size > 0x20000 or (message == 0 and length != 4)
                ):
                    clear = False
                if not clear:
                    ts[b + _HEAD_BYTES + d] = 0
                    ts[b + _HEAD + d] = 0
                    if ts[b + _EARLY_CCS]:
                        # keys were changed out of order and both went on: nothing more can be said about
                        # order
                        ts[b + _STATE] = _UNKNOWN
                        ts[b + _PROTECTION + d] = _PROTECTED
                        continue
                    _step(ts, matrix, rows, out, count, b, r, d, _ENC_HANDSHAKE, 0)
                    continue
                if m > 0 and side == 1 and ts[b + _HELLO_PACKET] == 0 and body >> (8 * (m - 1)) == 1:
                    # the ClientHello says who the client is
                    ts[b + _CLIENT] = d
                    ts[b + _ROLE] = 3
                    side = 0
            elif (
                protected and ts[b + _NEED + d] == 0 and (ts[b + _HEAD_BYTES + d] == 0 or not flags & _FIRST)
            ):
                continue
            while i < end:
                if ts[b + _HEAD_BYTES + d] < 4:
                    ts[b + _HEAD + d] = (ts[b + _HEAD + d] << 8) | buf[i]
                    ts[b + _HEAD_BYTES + d] += 1
                    i += 1
                    if ts[b + _HEAD_BYTES + d] < 4:
                        continue
                    ts[b + _NEED + d] = ts[b + _HEAD + d] & 0xFFFFFF
                    if state == _UNKNOWN and not _known_message(ts[b + _HEAD + d] >> 24):
                        # bytes of something whose beginning was not seen
                        ts[b + _NEED + d] = 0
                        ts[b + _HEAD_BYTES + d] = 0
                        ts[b + _HEAD + d] = 0
                        break
                    if ts[b + _NEED + d] > 0 and i < end:
                        continue
                    if ts[b + _NEED + d] > 0:
                        break
                message = ts[b + _HEAD + d] >> 24
                size = ts[b + _HEAD + d] & 0xFFFFFF
                m = end - i
                if m > ts[b + _NEED + d]:
                    m = ts[b + _NEED + d]
                key = f * 2 + d
                if m < size and (message == 1 or message == 2 or want):
                    # in pieces: kept until it is whole
                    _keep(pending, owner, key, view[i : i + m])
                ts[b + _NEED + d] -= m
                i += m
                if ts[b + _NEED + d] > 0:
                    break
                ts[b + _HEAD_BYTES + d] = 0
                ts[b + _HEAD + d] = 0
                whole = None
                if m < size and (message == 1 or message == 2 or want):
                    whole = pending.pop(key, bytearray())  # without what there was no room for
                    owner.kept -= len(whole)
                if message == 1 or message == 2:
                    if whole is not None:
                        ev = _hello(
                            ts,
                            f,
                            d,
                            message,
                            memoryview(whole),
                            0,
                            len(whole),
                            rows[r + 2],
                            rows[r + 12],
                            version,
                            owner,
                        )
                    else:
                        ev = _hello(
                            ts, f, d, message, view, i - m, m, rows[r + 2], rows[r + 12], version, owner
                        )
                else:
                    ev = _name_message(ts, b, d, message, size)
                if want:
                    owner.bodies.append(bytes(view[i - m : i]) if whole is None else bytes(whole))
                    _note(
                        ts,
                        rows,
                        out,
                        count,
                        b,
                        r,
                        _K_MESSAGE,
                        1 if ts[b + _CLIENT] != d else 0,
                        state,
                        ev,
                        message,
                        size,
                        0,
                    )
                _step(ts, matrix, rows, out, count, b, r, d, ev, message)
                if ev == _SERVER_HELLO_DONE_NO_CERTIFICATE or ev == _SERVER_HELLO_DONE_NO_KEY_EXCHANGE:
                    # reported; the flight is over all the same
                    _step(ts, matrix, rows, out, count, b, r, d, _SERVER_HELLO_DONE, message)
                if ev == _NEW_SESSION_TICKET and ts[b + _STATE] == _A_TICKET:
                    ts[b + _RESUMED] = 3
                state = ts[b + _STATE]
        elif kind == 20:
            ts[b + _CCS + d] += 1
            if protected and not tls13:
                ev = _ENC_CCS
            elif ts[b + _CCS + d] > 1 and not ts[b + _EARLY_CCS] & (1 << side):
                ev = _CCS_REPEATED
            else:
                ev = _EV_CCS
                if not tls13:
                    if side == 1:
                        if state == _N_SH or state == _A_TICKET:
                            if ts[b + _SESSION_ECHOED] or (
                                ts[b + _CLIENT_FLAGS] > 0 and ts[b + _CLIENT_FLAGS] & _F_TICKET_FILLED
                            ):
                                ev = _CCS_RESUMING
                                if ts[b + _CLIENT_FLAGS] & _F_TICKET_FILLED:
                                    ts[b + _RESUMED] = 3
                                else:
                                    ts[b + _RESUMED] = 2
                        elif (state == _C_FIN or state == _S_TICKET) and not _seen(
                            rows[r + 13], ts[b + _MARK + 1 - d]
                        ):
                            ev = _CCS_UNSEEN
                    elif state == _A_SFIN and not _seen(rows[r + 13], ts[b + _MARK + 1 - d]):
                        ev = _CCS_UNSEEN
                    elif state == _C_KX and ts[b + _CERTIFICATES] & 2:
                        ev = _CCS_NO_VERIFY
            if ev == _CCS_NO_VERIFY:
                if _step(ts, matrix, rows, out, count, b, r, d, ev, 0) == 0:
                    _step(ts, matrix, rows, out, count, b, r, d, _EV_CCS, 0)
            elif (
                _step(ts, matrix, rows, out, count, b, r, d, ev, 0) == 0
                and ev != _ENC_CCS
                and ev != _CCS_REPEATED
            ):
                ts[b + _EARLY_CCS] |= 1 << side
        elif kind == 21:
            body = rows[r + 10]
            body_bytes = rows[r + 11]
            if length == 2 and body_bytes >= 2 and (not protected or (not ts[b + _RULES] & _CLEAR_SUITE)):
                first = body >> (8 * (body_bytes - 1))
                second = (body >> (8 * (body_bytes - 2))) & 0xFF
                ts[b + _ALERTS] += 1
                _note(
                    ts, rows, out, count, b, r, _K_ALERT, side, state, 0, (first << 8) | second, protected, 0
                )
                if protected:
                    ev = _CLEAR_ALERT
                elif first == 2:
                    ev = _ALERT_FATAL
                    if ts[b + _FATAL] == 0:
                        ts[b + _FATAL] = second + 1
                elif second == 0:
                    ev = _ALERT_WARNING  # close_notify
                else:
                    ev = _ALERT_WARNING
                _step(ts, matrix, rows, out, count, b, r, d, ev, (first << 8) | second)
                if ev != _CLEAR_ALERT:
                    following = _EV_FATAL if first == 2 else (_CLOSE_NOTIFY if second == 0 else -1)
                    if following >= 0:
                        following = _next(matrix, ts[b + _CLOSING + d], side, following)
                        if following >= 0:
                            ts[b + _CLOSING + d] = following
            elif length > 2 and not (tls13 and protected):
                _step(ts, matrix, rows, out, count, b, r, d, _ENC_ALERT, 0)
            elif tls13 and protected:
                _step(ts, matrix, rows, out, count, b, r, d, _CLEAR_ALERT, 0)
        elif kind == 24:
            if not flags & _FIRST:
                owner.heartbeat_ends(f, side, rows[r + 2])
                continue
            owner.heartbeat(f, d, side, rows[r : r + _R])
            if protected and not tls13:
                _step(ts, matrix, rows, out, count, b, r, d, _ENC_HEARTBEAT, 0)
    return n


def _keep(pending: dict[int, bytearray], owner: Tracker, key: int, piece: memoryview | bytes) -> None:
    """Add a piece to the message that this direction is sending, as far as there is room for it."""
    kept = pending.setdefault(key, bytearray())
    piece = piece[: max(0, min(limits.HELLO_BYTES - len(kept), limits.HELLO_BYTES_ALL - owner.kept))]
    kept.extend(piece)
    owner.kept += len(piece)


def _earlier(head_a: int, head_b: int, at: int, count: int) -> bytes:
    """Bytes of a stream's head, from `at` on."""
    return ((head_a << 56) | head_b).to_bytes(14, "big")[at : at + count]


def _drop(pending: dict[int, bytearray], owner: Tracker, key: int) -> None:
    gone = pending.pop(key, None)
    if gone is not None:
        owner.kept -= len(gone)


@cython.cfunc
@cython.exceptval(-1, check=True)
@cython.returns(cython.int)
@cython.locals(
    buf=cython.uchar[::1], rows=cython.longlong[::1], ts=cython.longlong[::1], matrix=cython.schar[::1],
    out=cython.longlong[::1], count=cython.longlong[::1], r=cython.Py_ssize_t, f=cython.Py_ssize_t,
    d=cython.Py_ssize_t, b=cython.Py_ssize_t, ev=cython.int, kind=cython.longlong, i=cython.longlong,
    m=cython.longlong, flags=cython.int, key=cython.longlong,
)  # fmt: skip
def _ssl2(buf, view, rows, ts, matrix, out, count, r, f, d, pending, owner):  # type: ignore[no-untyped-def]
    """A piece of a record in SSL 2.0 format: its hellos once they are whole, the SSL 2.0 that follows."""
    b = f * _T
    kind = rows[r + 3] & 0xFF
    flags = rows[r + 9]
    i = rows[r + 7]
    m = rows[r + 8]
    if ts[b + _STATE] == _V_KEYED:
        if flags & _FIRST:
            _step(ts, matrix, rows, out, count, b, r, d, _SSL2_OTHER, kind)
        return 0
    if kind == 1 and flags & _FIRST and ts[b + _HELLO_PACKET] == 0:
        ts[b + _CLIENT] = d
        ts[b + _ROLE] = 3
    if kind != 1 and kind != 4:
        if flags & _FIRST:
            ev = _SSL2_OTHER
            if kind == 2:
                ev = _SSL2_MASTER_KEY
            elif kind == 0:
                ev = _SSL2_ERROR
            _step(ts, matrix, rows, out, count, b, r, d, ev, kind)
        return 0
    if not flags & _FIRST or not flags & _LAST or rows[r + 11] > 0:
        key = f * 2 + d
        if flags & _FIRST:
            _drop(pending, owner, key)
            _keep(pending, owner, key, _earlier(rows[r + 16], rows[r + 17], rows[r + 10], rows[r + 11]))
        _keep(pending, owner, key, view[i : i + m])
        if not flags & _LAST:
            return 0
        whole = pending.pop(key)
        owner.kept -= len(whole)
        view = memoryview(whole)
        i = 0
        m = len(whole)
    if kind == 1:
        ev = _hello(ts, f, d, 1, view, i + 1, m - 1, rows[r + 2], rows[r + 12], 2, owner)
    else:
        ev = _SSL2_SERVER_HELLO
        if m >= 2 and view[i + 1] != 0:
            ev = _SSL2_SERVER_HELLO_HIT
        ts[b + _VERSION] = 2
        if ts[b + _SERVER_HELLO_PACKET] == 0:
            ts[b + _SERVER_HELLO_PACKET] = rows[r + 2]
    _step(ts, matrix, rows, out, count, b, r, d, ev, kind)
    return 0


def walk(state: int, side: int, event: int) -> int:
    """Where the kernel goes from a state on an event, -1 for a violation; tests hold it equal to step().

    A state of the handshake is taken through everything that the kernel does about an event, where order is
    known.
    """
    matrix = dense().data.cast("B").cast("b")
    if state > State.UNKNOWN:
        return int(_next(matrix, state, side, event))
    connection = np.zeros(TLS_FIELDS, dtype=np.int64)
    connection[[Tls.STATE, Tls.PROTECTION_0, Tls.PROTECTION_1]] = state, State.PLAIN, State.PLAIN
    record = np.zeros(RECORD_FIELDS, dtype=np.int64)
    record[Record.SYNC] = 3
    out = np.zeros(EVENT_FIELDS, dtype=np.int64)
    legal = _step(
        connection.data, matrix, record.data, out.data, np.zeros(1, dtype=np.int64).data, 0, 0, side, event, 0
    )
    assert legal == (out[Event.KIND] != Kind.VIOLATION)
    return int(connection[Tls.STATE]) if legal else -1


class Tracker:
    """Follows the TLS of all open connections.

    Attributes:
        state: int64[slots, Tls].
        client: Slot -> texts of the first ClientHello.
        server: Slot -> texts of the first ServerHello.
        beats: Heartbeat rows since the last take().
        bodies: Message bodies, aligned with the MESSAGE events, only where messages are asked for.
    """

    def __init__(self, *, messages: bool = False) -> None:
        self.state: npt.NDArray[np.int64] = np.zeros((0, TLS_FIELDS), dtype=np.int64)
        self.client: dict[int, hello.ClientTexts] = {}
        self.server: dict[int, hello.ServerTexts] = {}
        self.beats: list[Beat] = []
        self.bodies: list[bytes] = []
        self.kept = 0
        self._messages = messages
        self._pending: dict[int, bytearray] = {}
        self._heartbeats: dict[int, Heartbeats] = {}
        self._matrix = dense()
        self._out: npt.NDArray[np.int64] = np.empty((limits.RECORD_ROWS // 2, EVENT_FIELDS), dtype=np.int64)
        self._count: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def reserve(self, capacity: int) -> None:
        """Have state for the flow table's slots."""
        if len(self.state) < capacity:
            state = np.zeros((capacity, TLS_FIELDS), dtype=np.int64)
            state[: len(self.state)] = self.state
            self.state = state

    def clear(self, slots: npt.NDArray[np.int64]) -> None:
        """Fresh state for connections that begin where others were."""
        self.state[slots] = 0

    def track(
        self,
        buffer: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64],
        flow_fields: npt.NDArray[np.int64],
        opener_column: int,
        begin: int = 0,
    ) -> tuple[int, npt.NDArray[np.int64]]:
        """Follow record rows from `begin` on.

        Args:
            buffer: The block's buffer.
            rows: int64[n, Record].
            flow_fields: The flow table's fields.
            opener_column: Where in them stands who opened the connection.
            begin: First row to follow.

        Returns:
            The first row that was not followed, and int64[n, Event] (a copy).
        """
        self._count[0] = 0
        reached = _track(
            buffer.data,
            rows.data.cast("B").cast("q"),
            self.state.data.cast("B").cast("q"),
            self._matrix.data.cast("B").cast("b"),
            self._out.data.cast("B").cast("q"),
            self._count.data,
            flow_fields.data.cast("B").cast("q"),
            flow_fields.shape[1],
            opener_column,
            begin,
            self._messages,
            self._pending,
            self,
        )
        return int(reached), self._out[: int(self._count[0])].copy()

    def heartbeat(self, slot: int, direction: int, side: int, record: memoryview) -> None:
        """Pair a heartbeat record and keep its row."""
        machine = self._heartbeats.get(slot)
        if machine is None:
            machine = self._heartbeats[slot] = Heartbeats()
        row = list(record)
        length, body, body_bytes = row[Record.LENGTH], row[Record.BODY], row[Record.BODY_BYTES]
        state: list[int] = self.state[slot].tolist()
        tls13 = state[Tls.VERSION] == 0x0304
        whole = row[Record.SYNC] & (1 | 2 | 4 | 8 | 16) == 3 and not state[Tls.UNORDERED]
        changed = state[Tls.CCS_0] > 0 and state[Tls.CCS_1] > 0
        clear, mac_bytes = self._readable(state, direction, length, body, body_bytes, row[Record.SYNC])
        client_known = state[Tls.CLIENT_FLAGS] >= 0 and not state[Tls.CLIENT_FLAGS] & hello.MALFORMED
        server_known = state[Tls.SERVER_FLAGS] >= 0 and not state[Tls.SERVER_FLAGS] & hello.MALFORMED
        beat = Beat(
            connection=slot,
            side=Side(side),
            packet=row[Record.PACKET],
            last_packet=row[Record.LAST_PACKET],
            time_ns=row[Record.TIME_NS],
            clear=clear,
            sealed=not clear and state[Tls.PROTECTION_0 + direction] == State.PROTECTED,
            length=length,
            message_length=max(0, length - mac_bytes),
            record_version=row[Record.VERSION],
            version=state[Tls.VERSION],
            state=state[Tls.STATE],
            cipher_suite=state[Tls.CIPHER_SUITE],
            client_mode=state[Tls.CLIENT_HEARTBEAT] if client_known else -1,
            server_mode=state[Tls.SERVER_HEARTBEAT] if server_known else -1,
            before_keys=whole and not tls13 and not changed,
            whole=whole,
            early_ccs=bool(state[Tls.EARLY_CCS]),
            after_data=bool(state[Tls.DATA_0] or state[Tls.DATA_1]),
            body=body,
            body_bytes=body_bytes,
        )
        if machine.follow(beat, row[Record.POSITION]):
            self.beats.append(beat)
        if state[Tls.PROBE_NS] == 0 and beat.probes:
            self.state[slot, Tls.PROBE_NS] = beat.time_ns
            self.state[slot, Tls.PROBE_PACKET] = beat.packet
            self.state[slot, Tls.PROBE_SIDE] = side

    @staticmethod
    def _readable(
        state: list[int], direction: int, length: int, body: int, body_bytes: int, sync: int
    ) -> tuple[bool, int]:
        """Whether a heartbeat's body is the message itself, and how many bytes of MAC stand behind it."""
        if state[Tls.VERSION] == 0x0304:
            return False, 0
        protected = state[Tls.PROTECTION_0 + direction] == State.PROTECTED
        if protected and state[Tls.RULES] & classify.CLEAR:
            mac_bytes = int(MAC_BYTES[state[Tls.CIPHER_SUITE]])
            return True, min(10, mac_bytes) if state[Tls.SERVER_FLAGS] & hello.TRUNCATED_HMAC else mac_bytes
        ordered = state[Tls.STATE] not in (State.START, State.UNKNOWN)
        changed = state[Tls.CCS_0 + direction] > 0
        if not protected and not changed and (ordered or sync & 5 == 1):  # from its SYN on, without a gap
            return True, 0
        # after a bogus ChangeCipherSpec, which may be there to blind the observer (catalogue HB15), or after
        # one that the capture may have missed
        bogus = not protected and changed and ordered
        doubtful = not protected or bool(state[Tls.EARLY_CCS])
        short = length < SHORTEST_SEALED
        return doubtful and (bogus or short) and reads_as_overread(body, body_bytes, length), 0

    def heartbeat_ends(self, slot: int, side: int, packet: int) -> None:
        """The end of the side's last heartbeat record was seen."""
        machine = self._heartbeats.get(slot)
        beat = machine.last[side] if machine else None
        if beat is not None:
            beat.last_packet = packet

    def take_texts(
        self, slots: npt.NDArray[np.int32]
    ) -> tuple[list[hello.ClientTexts], list[hello.ServerTexts]]:
        """The texts of these slots' hellos, which are forgotten; NO_CLIENT or NO_SERVER for one not seen."""
        keys = slots.tolist()
        return (
            list(map(self.client.pop, keys, repeat(hello.NO_CLIENT))),
            list(map(self.server.pop, keys, repeat(hello.NO_SERVER))),
        )

    def take_beats(self, slots: npt.NDArray[np.int32], connections: npt.NDArray[np.int64]) -> list[Beat]:
        """The heartbeat rows of these slots, under their connections' numbers."""
        if not self.beats:
            return []
        number = dict(zip(slots.tolist(), connections.tolist(), strict=True))
        taken = [beat for beat in self.beats if beat.connection in number]
        if taken:
            self.beats = [beat for beat in self.beats if beat.connection not in number]
        for beat in taken:
            beat.connection = number[beat.connection]
        return taken

    def retire(self, slots: npt.NDArray[np.int32]) -> None:
        """Forget connections whose rows have been read."""
        if not self._heartbeats and not self._pending:
            return
        for slot in slots.tolist():
            self._heartbeats.pop(slot, None)
            for direction in (0, 1):
                _drop(self._pending, self, 2 * slot + direction)
