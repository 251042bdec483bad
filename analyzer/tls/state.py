"""The TLS machines as tables, and nothing but the tables and `step()`.

In:  (state, side, event), the event made by classify.py and tracker.py from a record or a message.
Out: a Transition, or a Violation where there is no row.
Source: RFC 8446 (TLS 1.3), RFC 5246 (1.2; 1.0 and 1.1 agree in order), RFC 6101 (SSL 3.0), RFC 6520
(heartbeat), the SSL 2.0 draft (Hickman 1995) for its hello; each row cites its section.

Rule 1: every transition is a row of this file. A condition is not a guard on a row but another event.
Rule 2: we watch, we do not take part. A missing row is a value (Violation), the state stays, and tracking
goes on.

Four small machines, never a product: HANDSHAKE is joint for the connection; PROTECTION, HEARTBEAT and
CLOSING exist once per side. Loss and a late start are events (GAP, JOINED_LATE) with rows of their own: in
UNKNOWN nothing is a violation.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.model import Side


class Machine(IntEnum):
    HANDSHAKE = 0
    PROTECTION = 1
    HEARTBEAT = 2
    CLOSING = 3


class State(IntEnum):
    """States of all machines; a machine uses its own block."""

    # HANDSHAKE, joint
    START = 0
    WAIT_SH = 1
    """ClientHello without TLS 1.3 is out."""
    WAIT_SH_13 = 2
    """ClientHello that offers TLS 1.3 is out: a compatibility ChangeCipherSpec may follow."""
    WAIT_SH_0RTT = 3
    """ClientHello with early_data is out: ChangeCipherSpec and early data may follow."""
    N_SH = 4
    """TLS 1.2 and below negotiated, only the ServerHello seen: a full or an abbreviated handshake may
    follow."""
    N_SUPPLEMENTAL = 5
    N_CERTIFICATE = 6
    N_STATUS = 7
    N_KEY_EXCHANGE = 8
    N_REQUEST = 9
    C_FLIGHT = 10
    """ServerHelloDone seen: the client's flight is due."""
    C_CERTIFICATE = 11
    C_KX = 12
    C_VERIFY = 13
    C_CCS = 14
    C_FIN = 15
    """Client Finished seen: the server's ChangeCipherSpec is due; a client may already send data (false
    start)."""
    S_TICKET = 16
    S_CCS = 17
    A_TICKET = 18
    """Abbreviated handshake: NewSessionTicket seen."""
    A_SCCS = 19
    A_SFIN = 20
    A_CCCS = 21
    EST = 22
    """Established, TLS 1.2 and below."""
    R_REQUEST = 23
    """Encrypted handshake record from the server in EST: HelloRequest, by its place."""
    R_CLIENT = 24
    R_SERVER = 25
    R_CLIENT_CCS = 26
    R_SERVER_CCS = 27
    R_LAST_SERVER = 28
    """Both have changed keys again; the server's Finished ends the renegotiation."""
    R_LAST_CLIENT = 29
    T_HRR = 30
    """HelloRetryRequest seen."""
    T_WAIT2 = 31
    """Second ClientHello seen."""
    T_NEG = 32
    """TLS 1.3 negotiated: the server is encrypted from here on."""
    T_SERVER = 33
    """First encrypted record of the server seen."""
    T_CLIENT = 34
    """First record under the client's own handshake keys seen."""
    T_EST = 35
    """Application data (or tickets) of the server after the client's flight."""
    V_WAIT = 36
    """SSL 2.0 CLIENT-HELLO seen."""
    V_SH = 37
    V_KEYED = 38
    """SSL 2.0, encrypted."""
    CLOSED = 39
    """A fatal alert in clear ended the handshake."""
    UNKNOWN = 40
    """Bytes are missing, or the capture began late: no ordering verdict."""
    # PROTECTION, per side
    PLAIN = 41
    PROTECTED = 42
    # HEARTBEAT, per side that asks
    IDLE = 43
    WAITING = 44
    # CLOSING, per side
    OPEN = 45
    SHUT = 46


class Ev(IntEnum):
    """Events. Names ending in a condition are that condition made into an event (Rule 1)."""

    # handshake messages in clear
    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    CLIENT_HELLO_13 = 2
    CLIENT_HELLO_0RTT = 3
    CLIENT_HELLO_SSL2 = 4
    """SSL 2.0 CLIENT-HELLO whose version is 0002."""
    SERVER_HELLO = 5
    SERVER_HELLO_13 = 6
    HELLO_RETRY_REQUEST = 7
    SUPPLEMENTAL_DATA = 8
    CERTIFICATE = 9
    CERTIFICATE_FORBIDDEN = 10
    """From a server whose key exchange has none, or from a client that was not asked."""
    CERTIFICATE_STATUS = 11
    CERTIFICATE_STATUS_FORBIDDEN = 12
    SERVER_KEY_EXCHANGE = 13
    SERVER_KEY_EXCHANGE_FORBIDDEN = 14
    CERTIFICATE_REQUEST = 15
    CERTIFICATE_REQUEST_FORBIDDEN = 16
    SERVER_HELLO_DONE = 17
    SERVER_HELLO_DONE_NO_CERTIFICATE = 18
    SERVER_HELLO_DONE_NO_KEY_EXCHANGE = 19
    CLIENT_KEY_EXCHANGE = 20
    CLIENT_KEY_EXCHANGE_NO_CERTIFICATE = 21
    """The server asked for a certificate and the client sent none, not even an empty one."""
    CERTIFICATE_VERIFY = 22
    CERTIFICATE_VERIFY_FORBIDDEN = 23
    NEW_SESSION_TICKET = 24
    NEW_SESSION_TICKET_FORBIDDEN = 25
    """The ServerHello did not announce a ticket."""
    FINISHED_CLEAR = 26
    HANDSHAKE_OTHER = 27
    # change cipher spec
    CCS = 28
    CCS_RESUMING = 29
    """From a server, right after its ServerHello, where the client offered a session that it may resume."""
    CCS_UNSEEN = 30
    """Sent before its sender can have seen what must come first (its acknowledgment number proves it)."""
    CCS_REPEATED = 31
    CCS_NO_VERIFY = 32
    """From a client that sent a certificate and no CertificateVerify."""
    CCS_IN_MESSAGE = 60
    """Between two records of one handshake message."""
    RECORD_IN_MESSAGE = 61
    """The same for application data and heartbeats."""
    # after protection began: only the content type is known
    ENC_HANDSHAKE = 33
    ENC_CCS = 34
    ENC_ALERT = 35
    ENC_HEARTBEAT = 36
    APP = 37
    APP_EARLY = 38
    """Early data: offered, and sent before its sender can have seen the server's answer."""
    APP_CLEAR = 39
    """Application data from a side that is not protected yet."""
    CLEAR_HANDSHAKE = 40
    """A readable handshake message from a side that is protected."""
    CLEAR_ALERT = 41
    """A readable alert from a side that is protected."""
    CLEAR_HEARTBEAT_13 = 42
    """Outer content type 24 in TLS 1.3."""
    # alerts and heartbeats in clear
    ALERT_WARNING = 43
    ALERT_FATAL = 44
    HEARTBEAT = 45
    # SSL 2.0
    SSL2_SERVER_HELLO = 46
    SSL2_SERVER_HELLO_HIT = 47
    SSL2_MASTER_KEY = 48
    SSL2_ERROR = 49
    SSL2_OTHER = 50
    # loss
    GAP = 51
    JOINED_LATE = 52
    # heartbeat pairing
    HB_REQUEST = 53
    HB_REQUEST_AGAIN = 54
    """A request while one is unanswered."""
    HB_RESPONSE = 55
    """The last answer due."""
    HB_RESPONSE_MORE = 56
    """An answer, and more are due."""
    # closing
    CLOSE_NOTIFY = 57
    FATAL = 58
    DATA = 59


class Transition(NamedTuple):
    machine: Machine
    state: State
    side: Side
    event: Ev
    next: State
    source: str


class Violation(NamedTuple):
    """There is no row for this: the state stays."""

    state: State
    side: Side
    event: Ev


_H, _P, _B, _L = Machine.HANDSHAKE, Machine.PROTECTION, Machine.HEARTBEAT, Machine.CLOSING
_C, _S = Side.CLIENT, Side.SERVER
_X = State  # short, for the table

# fmt: off
_HELLO: Final = (
    # until the ServerHello
    (_H, _X.START,        _C, Ev.CLIENT_HELLO,        _X.WAIT_SH,      "RFC 5246 7.4.1.2"),
    (_H, _X.START,        _C, Ev.CLIENT_HELLO_13,     _X.WAIT_SH_13,   "RFC 8446 4.1.2"),
    (_H, _X.START,        _C, Ev.CLIENT_HELLO_0RTT,   _X.WAIT_SH_0RTT, "RFC 8446 4.2.10"),
    (_H, _X.START,        _C, Ev.CLIENT_HELLO_SSL2,   _X.V_WAIT,       "SSL 2.0 draft 2.5"),
    (_H, _X.START,        _S, Ev.HELLO_REQUEST,       _X.START,        "RFC 5246 7.4.1.1"),
    (_H, _X.START,        _C, Ev.ALERT_WARNING,       _X.START,        "RFC 5246 7.2"),
    (_H, _X.START,        _C, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 5246 7.2.2"),
    (_H, _X.WAIT_SH,      _S, Ev.SERVER_HELLO,        _X.N_SH,         "RFC 5246 7.4.1.3"),
    (_H, _X.WAIT_SH,      _S, Ev.SERVER_HELLO_13,     _X.T_NEG,        "RFC 8446 4.1.3; not offered, which the hello detectors judge"),
    (_H, _X.WAIT_SH,      _S, Ev.HELLO_REQUEST,       _X.WAIT_SH,      "RFC 5246 7.4.1.1"),
    (_H, _X.WAIT_SH,      _S, Ev.ALERT_WARNING,       _X.WAIT_SH,      "RFC 6066 3 (unrecognized_name)"),
    (_H, _X.WAIT_SH,      _S, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 5246 7.2.2"),
    (_H, _X.WAIT_SH,      _C, Ev.ALERT_WARNING,       _X.WAIT_SH,      "RFC 5246 7.2"),
    (_H, _X.WAIT_SH,      _C, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 5246 7.2.2"),
    (_H, _X.WAIT_SH,      _S, Ev.SSL2_SERVER_HELLO,   _X.V_SH,         "SSL 2.0 draft 2.6; RFC 5246 E.2"),
    (_H, _X.WAIT_SH,      _S, Ev.SSL2_SERVER_HELLO_HIT, _X.V_KEYED,    "SSL 2.0 draft 2.6"),
    (_H, _X.WAIT_SH,      _S, Ev.SSL2_ERROR,          _X.CLOSED,       "SSL 2.0 draft 2.7"),
    (_H, _X.WAIT_SH_13,   _S, Ev.SERVER_HELLO,        _X.N_SH,         "RFC 8446 D.1"),
    (_H, _X.WAIT_SH_13,   _S, Ev.SERVER_HELLO_13,     _X.T_NEG,        "RFC 8446 4.1.3"),
    (_H, _X.WAIT_SH_13,   _S, Ev.HELLO_RETRY_REQUEST, _X.T_HRR,        "RFC 8446 4.1.4"),
    (_H, _X.WAIT_SH_13,   _S, Ev.HELLO_REQUEST,       _X.WAIT_SH_13,   "RFC 5246 7.4.1.1"),
    (_H, _X.WAIT_SH_13,   _S, Ev.ALERT_WARNING,       _X.WAIT_SH_13,   "RFC 6066 3 (unrecognized_name)"),
    (_H, _X.WAIT_SH_13,   _S, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 8446 6.2"),
    (_H, _X.WAIT_SH_13,   _C, Ev.CCS,                 _X.WAIT_SH_13,   "RFC 8446 D.4"),
    (_H, _X.WAIT_SH_13,   _C, Ev.ALERT_WARNING,       _X.WAIT_SH_13,   "RFC 8446 6.1"),
    (_H, _X.WAIT_SH_13,   _C, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 8446 6.2"),
    (_H, _X.WAIT_SH_0RTT, _S, Ev.SERVER_HELLO,        _X.N_SH,         "RFC 8446 D.3; the client must fail, which DG18 says"),
    (_H, _X.WAIT_SH_0RTT, _S, Ev.SERVER_HELLO_13,     _X.T_NEG,        "RFC 8446 4.1.3"),
    (_H, _X.WAIT_SH_0RTT, _S, Ev.HELLO_RETRY_REQUEST, _X.T_HRR,        "RFC 8446 4.1.4"),
    (_H, _X.WAIT_SH_0RTT, _S, Ev.HELLO_REQUEST,       _X.WAIT_SH_0RTT, "RFC 5246 7.4.1.1"),
    (_H, _X.WAIT_SH_0RTT, _S, Ev.ALERT_WARNING,       _X.WAIT_SH_0RTT, "RFC 6066 3 (unrecognized_name)"),
    (_H, _X.WAIT_SH_0RTT, _S, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 8446 6.2"),
    (_H, _X.WAIT_SH_0RTT, _C, Ev.CCS,                 _X.WAIT_SH_0RTT, "RFC 8446 D.4"),
    (_H, _X.WAIT_SH_0RTT, _C, Ev.APP_EARLY,           _X.WAIT_SH_0RTT, "RFC 8446 4.2.10"),
    (_H, _X.WAIT_SH_0RTT, _C, Ev.ALERT_WARNING,       _X.WAIT_SH_0RTT, "RFC 8446 6.1"),
    (_H, _X.WAIT_SH_0RTT, _C, Ev.ALERT_FATAL,         _X.CLOSED,       "RFC 8446 6.2"),
)

_FULL: Final = (
    # TLS 1.2 and below, full handshake: the server's flight in its one order (RFC 5246 7.3, RFC 4680 for
    # SupplementalData)
    (_H, _X.N_SH,           _S, Ev.SUPPLEMENTAL_DATA,   _X.N_SUPPLEMENTAL, "RFC 4680 2"),
    (_H, _X.N_SH,           _S, Ev.CERTIFICATE,         _X.N_CERTIFICATE,  "RFC 5246 7.4.2"),
    (_H, _X.N_SH,           _S, Ev.SERVER_KEY_EXCHANGE, _X.N_KEY_EXCHANGE, "RFC 5246 7.4.3"),
    (_H, _X.N_SH,           _S, Ev.SERVER_HELLO_DONE,   _X.C_FLIGHT,       "RFC 4279 2 (PSK without hint)"),
    (_H, _X.N_SUPPLEMENTAL, _S, Ev.CERTIFICATE,         _X.N_CERTIFICATE,  "RFC 4680 2"),
    (_H, _X.N_SUPPLEMENTAL, _S, Ev.SERVER_KEY_EXCHANGE, _X.N_KEY_EXCHANGE, "RFC 5246 7.4.3"),
    (_H, _X.N_SUPPLEMENTAL, _S, Ev.SERVER_HELLO_DONE,   _X.C_FLIGHT,       "RFC 4279 2"),
    (_H, _X.N_CERTIFICATE,  _S, Ev.CERTIFICATE_STATUS,  _X.N_STATUS,       "RFC 6066 8"),
    (_H, _X.N_CERTIFICATE,  _S, Ev.SERVER_KEY_EXCHANGE, _X.N_KEY_EXCHANGE, "RFC 5246 7.4.3"),
    (_H, _X.N_CERTIFICATE,  _S, Ev.CERTIFICATE_REQUEST, _X.N_REQUEST,      "RFC 5246 7.4.4"),
    (_H, _X.N_CERTIFICATE,  _S, Ev.SERVER_HELLO_DONE,   _X.C_FLIGHT,       "RFC 5246 7.4.5"),
    (_H, _X.N_STATUS,       _S, Ev.SERVER_KEY_EXCHANGE, _X.N_KEY_EXCHANGE, "RFC 5246 7.4.3"),
    (_H, _X.N_STATUS,       _S, Ev.CERTIFICATE_REQUEST, _X.N_REQUEST,      "RFC 5246 7.4.4"),
    (_H, _X.N_STATUS,       _S, Ev.SERVER_HELLO_DONE,   _X.C_FLIGHT,       "RFC 5246 7.4.5"),
    (_H, _X.N_KEY_EXCHANGE, _S, Ev.CERTIFICATE_REQUEST, _X.N_REQUEST,      "RFC 5246 7.4.4"),
    (_H, _X.N_KEY_EXCHANGE, _S, Ev.SERVER_HELLO_DONE,   _X.C_FLIGHT,       "RFC 5246 7.4.5"),
    (_H, _X.N_REQUEST,      _S, Ev.SERVER_HELLO_DONE,   _X.C_FLIGHT,       "RFC 5246 7.4.5"),
    # the client's flight
    (_H, _X.C_FLIGHT,       _C, Ev.SUPPLEMENTAL_DATA,   _X.C_FLIGHT,       "RFC 4680 2"),
    (_H, _X.C_FLIGHT,       _C, Ev.CERTIFICATE,         _X.C_CERTIFICATE,  "RFC 5246 7.4.6"),
    (_H, _X.C_FLIGHT,       _C, Ev.CLIENT_KEY_EXCHANGE, _X.C_KX,           "RFC 5246 7.4.7"),
    (_H, _X.C_CERTIFICATE,  _C, Ev.CLIENT_KEY_EXCHANGE, _X.C_KX,           "RFC 5246 7.4.7"),
    (_H, _X.C_KX,           _C, Ev.CERTIFICATE_VERIFY,  _X.C_VERIFY,       "RFC 5246 7.4.8"),
    (_H, _X.C_KX,           _C, Ev.CCS,                 _X.C_CCS,          "RFC 5246 7.1"),
    (_H, _X.C_VERIFY,       _C, Ev.CCS,                 _X.C_CCS,          "RFC 5246 7.1"),
    (_H, _X.C_CCS,          _C, Ev.ENC_HANDSHAKE,       _X.C_FIN,          "RFC 5246 7.4.9"),
    (_H, _X.C_FIN,          _C, Ev.APP,                 _X.C_FIN,          "RFC 7918 3 (false start)"),
    (_H, _X.C_FIN,          _S, Ev.NEW_SESSION_TICKET,  _X.S_TICKET,       "RFC 5077 3.3"),
    (_H, _X.C_FIN,          _S, Ev.CCS,                 _X.S_CCS,          "RFC 5246 7.1"),
    (_H, _X.S_TICKET,       _C, Ev.APP,                 _X.S_TICKET,       "RFC 7918 3"),
    (_H, _X.S_TICKET,       _S, Ev.CCS,                 _X.S_CCS,          "RFC 5077 3.3"),
    (_H, _X.S_CCS,          _C, Ev.APP,                 _X.S_CCS,          "RFC 7918 3"),
    (_H, _X.S_CCS,          _S, Ev.ENC_HANDSHAKE,       _X.EST,            "RFC 5246 7.4.9"),
    # abbreviated handshake
    (_H, _X.N_SH,           _S, Ev.NEW_SESSION_TICKET,  _X.A_TICKET,       "RFC 5077 3.3"),
    (_H, _X.N_SH,           _S, Ev.CCS_RESUMING,        _X.A_SCCS,         "RFC 5246 7.3"),
    (_H, _X.A_TICKET,       _S, Ev.CCS_RESUMING,        _X.A_SCCS,         "RFC 5077 3.3"),
    (_H, _X.A_SCCS,         _S, Ev.ENC_HANDSHAKE,       _X.A_SFIN,         "RFC 5246 7.3"),
    (_H, _X.A_SFIN,         _S, Ev.APP,                 _X.A_SFIN,         "RFC 7918 4 (server side)"),
    (_H, _X.A_SFIN,         _C, Ev.CCS,                 _X.A_CCCS,         "RFC 5246 7.3"),
    (_H, _X.A_CCCS,         _S, Ev.APP,                 _X.A_CCCS,         "RFC 7918 4"),
    (_H, _X.A_CCCS,         _C, Ev.ENC_HANDSHAKE,       _X.EST,            "RFC 5246 7.3"),
    # established, and renegotiation: content types stay readable
    (_H, _X.EST,            _S, Ev.ENC_HANDSHAKE,       _X.R_REQUEST,      "RFC 5246 7.4.1.1"),
    (_H, _X.EST,            _C, Ev.ENC_HANDSHAKE,       _X.R_CLIENT,       "RFC 5246 7.4.1.2"),
    (_H, _X.R_REQUEST,      _C, Ev.ENC_HANDSHAKE,       _X.R_CLIENT,       "RFC 5246 7.4.1.2"),
    (_H, _X.R_REQUEST,      _S, Ev.ENC_HANDSHAKE,       _X.R_REQUEST,      "RFC 5246 7.4.1.1"),
    (_H, _X.R_REQUEST,      _C, Ev.ENC_ALERT,           _X.EST,            "RFC 5246 7.2.2 (no_renegotiation)"),
    (_H, _X.R_REQUEST,      _S, Ev.ENC_ALERT,           _X.EST,            "RFC 5246 7.2.2"),
    (_H, _X.R_CLIENT,       _C, Ev.ENC_HANDSHAKE,       _X.R_CLIENT,       "RFC 5246 7.3"),
    (_H, _X.R_CLIENT,       _S, Ev.ENC_HANDSHAKE,       _X.R_SERVER,       "RFC 5246 7.4.1.3"),
    (_H, _X.R_CLIENT,       _S, Ev.ENC_ALERT,           _X.EST,            "RFC 5246 7.2.2 (no_renegotiation)"),
    (_H, _X.R_CLIENT,       _C, Ev.ENC_ALERT,           _X.EST,            "RFC 5246 7.2.2"),
    (_H, _X.R_SERVER,       _S, Ev.ENC_HANDSHAKE,       _X.R_SERVER,       "RFC 5246 7.3"),
    (_H, _X.R_SERVER,       _C, Ev.ENC_HANDSHAKE,       _X.R_SERVER,       "RFC 5246 7.3"),
    (_H, _X.R_SERVER,       _C, Ev.ENC_CCS,             _X.R_CLIENT_CCS,   "RFC 5246 7.1"),
    (_H, _X.R_SERVER,       _S, Ev.ENC_CCS,             _X.R_SERVER_CCS,   "RFC 5246 7.1"),
    (_H, _X.R_SERVER,       _S, Ev.ENC_ALERT,           _X.R_SERVER,       "RFC 5246 7.2"),
    (_H, _X.R_SERVER,       _C, Ev.ENC_ALERT,           _X.R_SERVER,       "RFC 5246 7.2"),
    (_H, _X.R_CLIENT_CCS,   _C, Ev.ENC_HANDSHAKE,       _X.R_CLIENT_CCS,   "RFC 5246 7.4.9"),
    (_H, _X.R_CLIENT_CCS,   _S, Ev.ENC_HANDSHAKE,       _X.R_CLIENT_CCS,   "RFC 5077 3.3"),
    (_H, _X.R_CLIENT_CCS,   _S, Ev.ENC_CCS,             _X.R_LAST_SERVER,  "RFC 5246 7.1"),
    (_H, _X.R_CLIENT_CCS,   _S, Ev.ENC_ALERT,           _X.R_CLIENT_CCS,   "RFC 5246 7.2"),
    (_H, _X.R_CLIENT_CCS,   _C, Ev.ENC_ALERT,           _X.R_CLIENT_CCS,   "RFC 5246 7.2"),
    (_H, _X.R_SERVER_CCS,   _S, Ev.ENC_HANDSHAKE,       _X.R_SERVER_CCS,   "RFC 5246 7.4.9"),
    (_H, _X.R_SERVER_CCS,   _C, Ev.ENC_CCS,             _X.R_LAST_CLIENT,  "RFC 5246 7.1"),
    (_H, _X.R_SERVER_CCS,   _S, Ev.ENC_ALERT,           _X.R_SERVER_CCS,   "RFC 5246 7.2"),
    (_H, _X.R_SERVER_CCS,   _C, Ev.ENC_ALERT,           _X.R_SERVER_CCS,   "RFC 5246 7.2"),
    (_H, _X.R_LAST_SERVER,  _S, Ev.ENC_HANDSHAKE,       _X.EST,            "RFC 5246 7.4.9"),
    (_H, _X.R_LAST_CLIENT,  _C, Ev.ENC_HANDSHAKE,       _X.EST,            "RFC 5246 7.4.9"),
)

_TLS13: Final = (
    (_H, _X.T_HRR,    _S, Ev.CCS,              _X.T_HRR,    "RFC 8446 D.4"),
    (_H, _X.T_HRR,    _C, Ev.CCS,              _X.T_HRR,    "RFC 8446 D.4"),
    (_H, _X.T_HRR,    _C, Ev.APP_EARLY,        _X.T_HRR,    "RFC 8446 4.2.10 (in flight)"),
    (_H, _X.T_HRR,    _C, Ev.CLIENT_HELLO_13,  _X.T_WAIT2,  "RFC 8446 4.1.2"),
    (_H, _X.T_HRR,    _C, Ev.CLIENT_HELLO,     _X.T_WAIT2,  "RFC 8446 4.1.2; what changed is SM19's"),
    (_H, _X.T_HRR,    _C, Ev.CLIENT_HELLO_0RTT, _X.T_WAIT2, "RFC 8446 4.1.2; what changed is SM19's"),
    (_H, _X.T_HRR,    _C, Ev.ALERT_WARNING,    _X.T_HRR,    "RFC 8446 6.1"),
    (_H, _X.T_HRR,    _C, Ev.ALERT_FATAL,      _X.CLOSED,   "RFC 8446 6.2"),
    (_H, _X.T_HRR,    _S, Ev.ALERT_FATAL,      _X.CLOSED,   "RFC 8446 6.2"),
    (_H, _X.T_WAIT2,  _S, Ev.CCS,              _X.T_WAIT2,  "RFC 8446 D.4"),
    (_H, _X.T_WAIT2,  _C, Ev.CCS,              _X.T_WAIT2,  "RFC 8446 D.4"),
    (_H, _X.T_WAIT2,  _S, Ev.SERVER_HELLO_13,  _X.T_NEG,    "RFC 8446 4.1.3"),
    (_H, _X.T_WAIT2,  _S, Ev.ALERT_FATAL,      _X.CLOSED,   "RFC 8446 6.2"),
    (_H, _X.T_WAIT2,  _C, Ev.ALERT_FATAL,      _X.CLOSED,   "RFC 8446 6.2"),
    (_H, _X.T_NEG,    _S, Ev.CCS,              _X.T_NEG,    "RFC 8446 D.4"),
    (_H, _X.T_NEG,    _C, Ev.CCS,              _X.T_NEG,    "RFC 8446 D.4"),
    (_H, _X.T_NEG,    _C, Ev.APP_EARLY,        _X.T_NEG,    "RFC 8446 4.2.10"),
    (_H, _X.T_NEG,    _S, Ev.APP,              _X.T_SERVER, "RFC 8446 4.3.1 (EncryptedExtensions)"),
    (_H, _X.T_NEG,    _C, Ev.ALERT_WARNING,    _X.T_NEG,    "RFC 8446 6.1; the client has not changed keys"),
    (_H, _X.T_NEG,    _C, Ev.ALERT_FATAL,      _X.CLOSED,   "RFC 8446 6.2"),
    (_H, _X.T_SERVER, _S, Ev.CCS,              _X.T_SERVER, "RFC 8446 5 (dropped wherever it comes)"),
    (_H, _X.T_SERVER, _C, Ev.CCS,              _X.T_SERVER, "RFC 8446 D.4"),
    (_H, _X.T_SERVER, _S, Ev.APP,              _X.T_SERVER, "RFC 8446 4.4"),
    (_H, _X.T_SERVER, _C, Ev.APP_EARLY,        _X.T_SERVER, "RFC 8446 4.2.10"),
    (_H, _X.T_SERVER, _C, Ev.APP,              _X.T_CLIENT, "RFC 8446 4.4.4"),
    (_H, _X.T_SERVER, _C, Ev.ALERT_WARNING,    _X.T_SERVER, "RFC 8446 6.1"),
    (_H, _X.T_SERVER, _C, Ev.ALERT_FATAL,      _X.CLOSED,   "RFC 8446 6.2; the client has not changed keys"),
    (_H, _X.T_CLIENT, _C, Ev.APP,              _X.T_CLIENT, "RFC 8446 4.4"),
    (_H, _X.T_CLIENT, _S, Ev.APP,              _X.T_EST,    "RFC 8446 4.6.1"),
    (_H, _X.T_CLIENT, _S, Ev.CCS,              _X.T_CLIENT, "RFC 8446 5"),
    (_H, _X.T_EST,    _C, Ev.APP,              _X.T_EST,    "RFC 8446 5.2"),
    (_H, _X.T_EST,    _S, Ev.APP,              _X.T_EST,    "RFC 8446 5.2"),
)

_SSL2: Final = (
    (_H, _X.V_WAIT,  _S, Ev.SSL2_SERVER_HELLO,     _X.V_SH,    "SSL 2.0 draft 2.6"),
    (_H, _X.V_WAIT,  _S, Ev.SSL2_SERVER_HELLO_HIT, _X.V_KEYED, "SSL 2.0 draft 2.6"),
    (_H, _X.V_WAIT,  _S, Ev.SSL2_ERROR,            _X.CLOSED,  "SSL 2.0 draft 2.7"),
    (_H, _X.V_WAIT,  _S, Ev.ALERT_FATAL,           _X.CLOSED,  "RFC 5246 E.2"),
    (_H, _X.V_SH,    _C, Ev.SSL2_MASTER_KEY,       _X.V_KEYED, "SSL 2.0 draft 2.5"),
    (_H, _X.V_SH,    _C, Ev.SSL2_ERROR,            _X.CLOSED,  "SSL 2.0 draft 2.7"),
    (_H, _X.V_KEYED, _C, Ev.SSL2_OTHER,            _X.V_KEYED, "SSL 2.0 draft 1.2"),
    (_H, _X.V_KEYED, _S, Ev.SSL2_OTHER,            _X.V_KEYED, "SSL 2.0 draft 1.2"),
)


def _everywhere(states: Iterable[State], sides: Iterable[Side], event: Ev, goto: State | None, source: str) -> tuple[
        tuple[Machine, State, Side, Ev, State, str], ...]:
    """The same row for several states; goto None stays."""
    return tuple((_H, state, side, event, state if goto is None else goto, source) for state in states for side in sides)


_BOTH: Final = (_C, _S)
_FULL_12: Final = (_X.N_SH, _X.N_SUPPLEMENTAL, _X.N_CERTIFICATE, _X.N_STATUS, _X.N_KEY_EXCHANGE, _X.N_REQUEST, _X.C_FLIGHT,
                   _X.C_CERTIFICATE, _X.C_KX, _X.C_VERIFY, _X.C_CCS, _X.C_FIN, _X.S_TICKET, _X.S_CCS)
_SHORT_12: Final = (_X.A_TICKET, _X.A_SCCS, _X.A_SFIN, _X.A_CCCS)
_AFTER_12: Final = (_X.EST, _X.R_REQUEST, _X.R_CLIENT, _X.R_SERVER, _X.R_CLIENT_CCS, _X.R_SERVER_CCS, _X.R_LAST_SERVER,
                    _X.R_LAST_CLIENT)
_TLS13_STATES: Final = (_X.T_HRR, _X.T_WAIT2, _X.T_NEG, _X.T_SERVER, _X.T_CLIENT, _X.T_EST)
_LIVE: Final = tuple(_X(value) for value in range(_X.START, _X.UNKNOWN))
_SETTLED: Final = (_X.EST, _X.T_EST, _X.V_KEYED, _X.CLOSED)
_ANY_EVENT: Final = (*(Ev(value) for value in range(Ev.HELLO_REQUEST, Ev.GAP)), Ev.CCS_IN_MESSAGE,
                     Ev.RECORD_IN_MESSAGE)

_SHARED: Final = (
    *_everywhere(_FULL_12 + _SHORT_12, (_S,), Ev.HELLO_REQUEST, None, "RFC 5246 7.4.1.1"),
    *_everywhere(_FULL_12 + _SHORT_12, _BOTH, Ev.ALERT_WARNING, None, "RFC 5246 7.2"),
    *_everywhere(_FULL_12 + _SHORT_12, _BOTH, Ev.ALERT_FATAL, _X.CLOSED, "RFC 5246 7.2.2"),
    *_everywhere(_FULL_12 + _SHORT_12, _BOTH, Ev.ENC_ALERT, None, "RFC 5246 7.2"),
    *_everywhere(_AFTER_12, _BOTH, Ev.APP, None, "RFC 5246 10"),
    *_everywhere((_X.EST, _X.R_LAST_SERVER, _X.R_LAST_CLIENT), _BOTH, Ev.ENC_ALERT, None, "RFC 5246 7.2"),
    *_everywhere((*_AFTER_12, _X.C_FIN, _X.S_CCS, _X.A_SFIN, _X.A_CCCS), _BOTH, Ev.ENC_HEARTBEAT, None, "RFC 6520 3"),
    *_everywhere((_X.T_NEG, _X.T_SERVER, _X.T_CLIENT, _X.T_EST), (_S,), Ev.ALERT_WARNING, None, "RFC 8446 6; judged as CLEAR_ALERT"),
    *((_H, _X.CLOSED, side, event, _X.CLOSED, "RFC 5246 7.2.2; what comes after is the CLOSING machine's")
      for side in _BOTH for event in _ANY_EVENT),
    *((_H, _X.UNKNOWN, side, event, _X.UNKNOWN, "no verdict without order")
      for side in _BOTH for event in _ANY_EVENT
      if event not in (Ev.CLIENT_HELLO, Ev.CLIENT_HELLO_13, Ev.CLIENT_HELLO_0RTT, Ev.CLIENT_HELLO_SSL2, Ev.SERVER_HELLO_13)),
    (_H, _X.UNKNOWN, _C, Ev.CLIENT_HELLO,      _X.WAIT_SH,      "RFC 5246 7.4.1.2"),
    (_H, _X.UNKNOWN, _C, Ev.CLIENT_HELLO_13,   _X.WAIT_SH_13,   "RFC 8446 4.1.2"),
    (_H, _X.UNKNOWN, _C, Ev.CLIENT_HELLO_0RTT, _X.WAIT_SH_0RTT, "RFC 8446 4.2.10"),
    (_H, _X.UNKNOWN, _C, Ev.CLIENT_HELLO_SSL2, _X.V_WAIT,       "SSL 2.0 draft 2.5"),
    (_H, _X.UNKNOWN, _S, Ev.SERVER_HELLO_13,   _X.T_NEG,        "RFC 8446 4.1.3"),
    (_H, _X.UNKNOWN, _S, Ev.CLIENT_HELLO,      _X.UNKNOWN,      "no verdict without order"),
    (_H, _X.UNKNOWN, _S, Ev.CLIENT_HELLO_13,   _X.UNKNOWN,      "no verdict without order"),
    (_H, _X.UNKNOWN, _S, Ev.CLIENT_HELLO_0RTT, _X.UNKNOWN,      "no verdict without order"),
    (_H, _X.UNKNOWN, _S, Ev.CLIENT_HELLO_SSL2, _X.UNKNOWN,      "no verdict without order"),
    (_H, _X.UNKNOWN, _C, Ev.SERVER_HELLO_13,   _X.UNKNOWN,      "no verdict without order"),
    # loss: what is settled stays settled, everything else is unknown
    *((_H, state, side, Ev.GAP, state if state in _SETTLED else _X.UNKNOWN, "capture loss") for state in _LIVE for side in _BOTH),
    *((_H, _X.UNKNOWN, side, Ev.GAP, _X.UNKNOWN, "capture loss") for side in _BOTH),
    *((_H, state, side, Ev.JOINED_LATE, _X.UNKNOWN, "capture began late") for state in (_X.START, _X.UNKNOWN) for side in _BOTH),
)

_PER_SIDE: Final = (
    *((_P, _X.PLAIN,     side, Ev.CCS,             _X.PROTECTED, "RFC 5246 7.1") for side in _BOTH),
    *((_P, _X.PLAIN,     side, Ev.CCS_RESUMING,    _X.PROTECTED, "RFC 5246 7.1") for side in _BOTH),
    *((_P, _X.PLAIN,     side, Ev.APP,             _X.PROTECTED, "RFC 8446 5.2 (first record under its own keys)") for side in _BOTH),
    *((_P, _X.PLAIN,     side, Ev.ENC_HANDSHAKE,   _X.PROTECTED, "joined late: the body can't be read") for side in _BOTH),
    *((_P, _X.PROTECTED, side, Ev.APP,             _X.PROTECTED, "RFC 5246 6.2.3") for side in _BOTH),
    *((_P, _X.PROTECTED, side, Ev.ENC_HANDSHAKE,   _X.PROTECTED, "RFC 5246 6.2.3") for side in _BOTH),
    *((_P, _X.PROTECTED, side, Ev.ENC_CCS,         _X.PROTECTED, "RFC 5246 7.1") for side in _BOTH),
    (_P, _X.PLAIN,     _S, Ev.SERVER_HELLO_13,     _X.PROTECTED, "RFC 8446 4.1.3"),
    (_P, _X.PLAIN,     _S, Ev.SSL2_SERVER_HELLO_HIT, _X.PROTECTED, "SSL 2.0 draft 2.6"),
    (_P, _X.PLAIN,     _C, Ev.SSL2_MASTER_KEY,     _X.PROTECTED, "SSL 2.0 draft 2.5"),
    # per asking side: the answer comes from its peer
    *((_B, _X.IDLE,    side, Ev.HB_REQUEST,        _X.WAITING, "RFC 6520 4") for side in _BOTH),
    *((_B, _X.WAITING, side, Ev.HB_RESPONSE_MORE,  _X.WAITING, "RFC 6520 4") for side in _BOTH),
    *((_B, _X.WAITING, side, Ev.HB_RESPONSE,       _X.IDLE,    "RFC 6520 4") for side in _BOTH),
    *((_L, _X.OPEN,    side, Ev.DATA,              _X.OPEN,    "RFC 8446 6.1") for side in _BOTH),
    *((_L, _X.OPEN,    side, Ev.CLOSE_NOTIFY,      _X.SHUT,    "RFC 8446 6.1") for side in _BOTH),
    *((_L, _X.OPEN,    side, Ev.FATAL,             _X.SHUT,    "RFC 8446 6.2") for side in _BOTH),
    *((_L, _X.SHUT,    side, Ev.CLOSE_NOTIFY,      _X.SHUT,    "RFC 8446 6.1") for side in _BOTH),
    *((_L, _X.SHUT,    side, Ev.FATAL,             _X.SHUT,    "RFC 8446 6.2") for side in _BOTH),
)
# fmt: on

ROWS: Final = tuple(
    Transition(*row) for group in (_HELLO, _FULL, _TLS13, _SSL2, _SHARED, _PER_SIDE) for row in group
)

Key = tuple[State, Side, Ev]


def index(rows: Iterable[Transition]) -> dict[Key, Transition]:
    """Rows by (state, side, event).

    Raises:
        ValueError: a second row for the same key.
    """
    table: dict[Key, Transition] = {}
    for row in rows:
        key = (row.state, row.side, row.event)
        if key in table:
            raise ValueError(f"two rows for {row.state.name} {row.side.name} {row.event.name}")
        table[key] = row
    return table


TABLE: Final = index(ROWS)


def step(state: State, side: Side, event: Ev) -> Transition | Violation:
    """The row for this event in this state, or a Violation."""
    return TABLE.get((state, side, event)) or Violation(state, side, event)


def dense() -> npt.NDArray[np.int8]:
    """The table as a matrix for the kernel: next state by [state, side, event], -1 where there is no row."""
    matrix = np.full((len(State), len(Side), len(Ev)), -1, dtype=np.int8)
    for row in ROWS:
        matrix[row.state, row.side, row.event] = row.next
    return matrix
