"""Handshake order, direction and protection: what the state machine had no row for (catalogue SM, part A5).

Each violation has one id by (state, side, event); the table below is read from the top, the first row that
fits counts.
Source: RFC 8446 2, 4, 5, 6.2; RFC 5246 7.1 to 7.4; CVE-2014-0224 (ChangeCipherSpec injection).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from analyzer.detect.base import Detector, Evidence, Hit, Rule
from analyzer.model import Action, Severity, Side
from analyzer.tls.records import SSL2
from analyzer.tls.state import Ev, State
from analyzer.tls.tracker import Event, Kind
from analyzer.wire.iana import ContentType, HandshakeType, name_of

_S = State
_START_13: Final = (_S.T_HRR, _S.T_WAIT2, _S.T_NEG, _S.T_SERVER, _S.T_CLIENT, _S.T_EST)
_MESSAGES: Final = tuple(Ev(value) for value in range(Ev.HELLO_REQUEST, Ev.CCS))
_HELLOS: Final = (Ev.CLIENT_HELLO, Ev.CLIENT_HELLO_13, Ev.CLIENT_HELLO_0RTT, Ev.CLIENT_HELLO_SSL2)
_SERVER_HELLOS: Final = (Ev.SERVER_HELLO, Ev.SERVER_HELLO_13, Ev.HELLO_RETRY_REQUEST)
_ONLY_SERVER: Final = (
    *_SERVER_HELLOS, Ev.NEW_SESSION_TICKET, Ev.NEW_SESSION_TICKET_FORBIDDEN, Ev.SERVER_KEY_EXCHANGE, Ev.SERVER_KEY_EXCHANGE_FORBIDDEN,
    Ev.CERTIFICATE_REQUEST, Ev.CERTIFICATE_REQUEST_FORBIDDEN, Ev.SERVER_HELLO_DONE, Ev.SERVER_HELLO_DONE_NO_CERTIFICATE,
    Ev.SERVER_HELLO_DONE_NO_KEY_EXCHANGE, Ev.SSL2_SERVER_HELLO, Ev.SSL2_SERVER_HELLO_HIT,
)  # fmt: skip
_ONLY_CLIENT: Final = (
    *_HELLOS, Ev.CERTIFICATE_VERIFY, Ev.CERTIFICATE_VERIFY_FORBIDDEN, Ev.CLIENT_KEY_EXCHANGE, Ev.CLIENT_KEY_EXCHANGE_NO_CERTIFICATE,
    Ev.SSL2_MASTER_KEY,
)  # fmt: skip
_CHANGES: Final = (Ev.CCS, Ev.CCS_RESUMING, Ev.CCS_UNSEEN)
_ANY_STATE: Final = tuple(_S(value) for value in range(_S.START, _S.UNKNOWN + 1))
_FLIGHT: Final = (_S.N_SUPPLEMENTAL, _S.N_CERTIFICATE, _S.N_STATUS, _S.N_KEY_EXCHANGE, _S.N_REQUEST)
_SERVER_DONE: Final = (_S.C_FLIGHT, _S.C_CERTIFICATE)
_BOTH: Final = (Side.CLIENT, Side.SERVER)
_C, _SV = (Side.CLIENT,), (Side.SERVER,)

# fmt: off
_IDS: Final = (
    # states       sides  events                                  id
    (_START_13,    _BOTH, (Ev.CLEAR_HANDSHAKE,),                  "SM14"),
    (_START_13,    _C,    _MESSAGES,                              "SM14"),
    (_ANY_STATE,   _BOTH, (Ev.CLEAR_HANDSHAKE,),                  "SM12"),
    (_ANY_STATE,   _BOTH, (Ev.CLEAR_ALERT,),                      "SM13"),
    (_ANY_STATE,   _BOTH, (Ev.CCS_IN_MESSAGE,),                   "SM07"),
    (_ANY_STATE,   _BOTH, (Ev.RECORD_IN_MESSAGE,),                "SM22"),
    (_ANY_STATE,   _C,    (Ev.HELLO_REQUEST,),                    "SM17"),
    (_START_13,    _SV,   (Ev.HELLO_REQUEST,),                    "SM17"),
    (_ANY_STATE,   _C,    _ONLY_SERVER,                           "SM02"),
    (_ANY_STATE,   _SV,   _ONLY_CLIENT,                           "SM02"),
    (_ANY_STATE,   _C,    (Ev.FINISHED_CLEAR,),                   "SM01"),
    ((_S.START,),  _SV,   (*_SERVER_HELLOS, *_MESSAGES, Ev.SSL2_SERVER_HELLO, Ev.SSL2_SERVER_HELLO_HIT), "SM02"),
    (_ANY_STATE,   _C,    _HELLOS,                                "SM18"),
    ((_S.C_KX, _S.C_VERIFY, _S.C_CCS), _C, (Ev.CLIENT_KEY_EXCHANGE, Ev.CLIENT_KEY_EXCHANGE_NO_CERTIFICATE), "SM18"),
    ((_S.C_CERTIFICATE,), _C, (Ev.CERTIFICATE,),                  "SM18"),
    ((_S.N_CERTIFICATE, _S.N_STATUS), _SV, (Ev.CERTIFICATE,),     "SM18"),
    ((_S.N_KEY_EXCHANGE,), _SV, (Ev.SERVER_KEY_EXCHANGE,),        "SM18"),
    ((_S.N_REQUEST,), _SV, (Ev.CERTIFICATE_REQUEST,),             "SM18"),
    ((_S.N_SH,),   _SV,   (Ev.SERVER_HELLO, Ev.SERVER_HELLO_13),  "SM18"),
    ((_S.T_HRR,),  _SV,   (Ev.HELLO_RETRY_REQUEST,),              "SM19"),
    ((_S.T_WAIT2,), _SV,  (Ev.HELLO_RETRY_REQUEST,),              "SM19"),
    (_START_13,    _BOTH, (Ev.CCS_REPEATED,),                     "SM06"),
    ((_S.T_CLIENT, _S.T_EST), _BOTH, (Ev.CCS,),                   "SM08"),
    ((_S.N_SH, _S.A_TICKET), _SV, (Ev.CCS,),                      "SM09"),
    (_ANY_STATE,   _C,    (Ev.CCS_NO_VERIFY,),                    "SM09"),
    (_ANY_STATE,   _BOTH, _CHANGES,                               "SM03"),
    (_ANY_STATE,   _BOTH, (Ev.CCS_REPEATED, Ev.ENC_CCS),          "SM06"),
    (_ANY_STATE,   _BOTH, (Ev.APP_CLEAR,),                        "SM15"),
    ((_S.T_HRR, _S.T_WAIT2), _C, (Ev.APP, Ev.APP_EARLY),          "RS09"),
    ((_S.S_CCS,),  _SV,   (Ev.APP,),                              "SM09"),
    (_ANY_STATE,   _BOTH, (Ev.CERTIFICATE_FORBIDDEN, Ev.SERVER_HELLO_DONE_NO_CERTIFICATE), "SM10"),
    (_ANY_STATE,   _BOTH, (Ev.SERVER_KEY_EXCHANGE_FORBIDDEN, Ev.SERVER_HELLO_DONE_NO_KEY_EXCHANGE), "SM11"),
    ((_S.SHUT,),   _BOTH, (Ev.DATA,),                             "SM16"),
    (_ANY_STATE,   _BOTH, (*_MESSAGES, Ev.ENC_HANDSHAKE, Ev.APP, Ev.SSL2_OTHER, Ev.SSL2_MASTER_KEY, Ev.SSL2_SERVER_HELLO,
                           Ev.SSL2_SERVER_HELLO_HIT, Ev.SSL2_ERROR), "SM01"),
)
# fmt: on


def _ids() -> tuple[tuple[str, ...], np.ndarray[tuple[int, ...], np.dtype[np.int16]]]:
    """The ids in use, and for each (state, side, event) its index among them, -1 for none."""
    names = tuple(dict.fromkeys(row[3] for row in _IDS))
    matrix = np.full((len(State), 2, len(Ev)), -1, dtype=np.int16)
    for states, sides, events, name in reversed(_IDS):
        matrix[np.ix_(states, sides, events)] = names.index(name)
    return names, matrix


_NAMES, _ID_OF = _ids()

_TLS12_ORDER: Final = ("RFC 5246 7.3",)

RULES: Final = (
    Rule("SM01", "Handshake message out of order", Severity.MEDIUM, Action.CORROBORATE,
         "A handshake message came where the TLS state machine has no place for it. Correct software "
         "never does this; a test tool, an exploit for a peer with a lax state machine, or a broken "
         "implementation does.",
         ("RFC 5246 7.3", "RFC 8446 2", "SMACK: State Machine AttaCKs (2015)")),
    Rule("SM02", "Handshake message from the wrong side", Severity.HIGH, Action.BLOCK,
         "One side sent a message that only the other may send. It tests or exploits a peer that does not "
         "check who speaks.",
         ("RFC 5246 7.4", "RFC 8446 4")),
    Rule("SM03", "ChangeCipherSpec injected before the key exchange", Severity.CRITICAL, Action.BLOCK,
         "ChangeCipherSpec came before keys can exist. An OpenSSL without the fix of CVE-2014-0224 then "
         "derives keys from an empty master secret, and whoever sits on the path can read and change the "
         "connection. From the client alone it is a probe or an attack; to both sides, or from the "
         "server's direction alone, somebody between them injects it, and both are victims.",
         ("CVE-2014-0224", "RFC 5246 7.1")),
    Rule("SM06", "ChangeCipherSpec repeated", Severity.MEDIUM, Action.CORROBORATE,
         "A direction changed keys more than once in a handshake. CVE-2020-25648 let a flood of them "
         "exhaust NSS.",
         ("CVE-2020-25648", "RFC 8446 5")),
    Rule("SM07", "ChangeCipherSpec inside a handshake message", Severity.HIGH, Action.BLOCK,
         "ChangeCipherSpec came between two records of one handshake message. A stack that handles it "
         "there may mix old and new keys.",
         ("CVE-2004-0079", "RFC 8446 5.1")),
    Rule("SM08", "TLS 1.3 ChangeCipherSpec after the handshake", Severity.INFO, Action.INFORM,
         "The compatibility ChangeCipherSpec of TLS 1.3 may only come before the sender's Finished.", ("RFC 8446 5",)),
    Rule("SM09", "Handshake step skipped", Severity.HIGH, Action.TAMPERING,
         "A mandatory part of the handshake is missing: keys were changed, or data sent, without it. A "
         "peer that accepts this can be made to talk without authentication (SKIP-TLS).",
         ("CVE-2014-6593", "CVE-2015-0205", "RFC 5246 7.3")),
    Rule("SM10", "Certificate missing or not allowed", Severity.HIGH, Action.TAMPERING,
         "The key exchange demands a Certificate that did not come, or forbids the one that did.", ("RFC 5246 7.4.2", "RFC 5246 7.4.6")),
    Rule("SM11", "ServerKeyExchange missing or not allowed", Severity.HIGH, Action.TAMPERING,
         "The key exchange demands a ServerKeyExchange that did not come, or forbids the one that did, as "
         "in the FREAK attack.",
         ("RFC 5246 7.4.3", "CVE-2015-0204")),
    Rule("SM12", "Readable handshake message after keys were changed", Severity.HIGH, Action.CORROBORATE,
         "After ChangeCipherSpec a direction sent a handshake record whose body reads as a message of "
         "just its length. Ciphertext does so once in a billion records, so the sender is not encrypting.",
         ("RFC 5246 7.1", "RFC 5246 6.2.3")),
    Rule("SM13", "Alert in clear after keys were changed", Severity.MEDIUM, Action.CORROBORATE,
         "A side that encrypts sent an alert in clear. Whoever can inject segments can end a connection "
         "this way at a peer that accepts it.",
         ("RFC 8446 6", "RFC 5246 7.2")),
    Rule("SM14", "Handshake message in clear after the TLS 1.3 ServerHello", Severity.HIGH, Action.BLOCK,
         "In TLS 1.3 everything after the ServerHello is encrypted. A peer that accepts a readable "
         "message here has no authentication.",
         ("RFC 8446 2", "RFC 8446 5")),
    Rule("SM15", "Application data before the handshake", Severity.HIGH, Action.BLOCK,
         "Application data came from a side that has no keys yet and had not offered early data. It "
         "smuggles data past inspection, or tests a peer that takes it for authenticated.",
         ("RFC 5246 7.3", "RFC 8446 2", "CVE-2014-0224 test tools")),
    Rule("SM16", "Records after the close", Severity.INFO, Action.INFORM,
         "A side went on sending after its own close_notify or fatal alert.", ("RFC 8446 6.1", "RFC 5246 7.2.1")),
    Rule("SM17", "HelloRequest from the wrong side or version", Severity.MEDIUM, Action.CORROBORATE,
         "Only a server of TLS 1.2 and below may send HelloRequest.", ("RFC 5246 7.4.1.1",)),
    Rule("SM18", "Handshake message repeated", Severity.MEDIUM, Action.CORROBORATE,
         "The same handshake message came twice in one handshake, as a message and not as a TCP retransmission.", ("RFC 5246 7.3",)),
    Rule("SM19", "Second HelloRetryRequest", Severity.MEDIUM, Action.CORROBORATE,
         "A server may ask for another ClientHello once.", ("RFC 8446 4.1.4",)),
    Rule("SM22", "Other record inside a handshake message", Severity.MEDIUM, Action.CORROBORATE,
         "Application data or a heartbeat came between two records of one handshake message, where only "
         "its next record may come.",
         ("RFC 8446 5.1", "RFC 5246 6.2.1")),
    Rule("RS09", "Early data after it was refused", Severity.LOW, Action.CORROBORATE,
         "A client went on sending early data after it had seen HelloRetryRequest.", ("RFC 8446 4.2.10",)),
)  # fmt: skip


def within(evidence: Evidence) -> Iterator[Hit]:
    """Findings of the violations; none of these hits is about a connection with missing bytes."""
    violations = evidence.of_kind(Kind.VIOLATION)
    if not len(violations):
        return
    batch = evidence.batch
    found = _ID_OF[violations[:, Event.STATE], violations[:, Event.SIDE], violations[:, Event.EV]]
    early = batch["EARLY_CCS"]
    repeated = (batch.side("CCS", False), batch.side("CCS", True))
    for which, violation in zip(found.tolist(), violations.tolist(), strict=True):
        if which < 0:
            continue
        name = _NAMES[which]
        row = evidence.row(violation[Event.CONNECTION])
        side, ev, state = Side(violation[Event.SIDE]), Ev(violation[Event.EV]), State(violation[Event.STATE])
        action: Action | None = None
        offender: Side | None = side
        if name == "SM03" and early[row] != 1:
            action, offender = Action.TAMPERING, None
        elif (name == "SM09" and side == Side.CLIENT) or (
            name == "SM06" and ev == Ev.CCS_REPEATED and repeated[side][row] >= 3
        ):
            action = Action.BLOCK
        yield Hit(
            rule=name,
            batch=batch,
            row=row,
            # where it begins and ends: what lies between them in the capture may be of somebody else
            packets=tuple(sorted({violation[Event.PACKET], violation[Event.LAST_PACKET]})),
            evidence=_describe(violation, side, state, ev),
            action=action,
            offender=offender,
        )


def _describe(violation: list[int], side: Side, state: State, ev: Ev) -> dict[str, object]:
    content_type, length = violation[Event.TYPE], violation[Event.LENGTH]
    header = f"{content_type & 0xFF:02x}{violation[Event.VERSION]:04x}{length:04x}"
    kind = name_of(ContentType, content_type & 0xFF)
    if content_type & SSL2:  # a header of two bytes with the top bit set, then the message's type
        header, kind = f"{0x8000 | length:04x}{content_type & 0xFF:02x}", "SSL 2.0"
    described: dict[str, object] = {
        "side": side.name.lower(),
        "state": state.name,
        "event": ev.name,
        "record_type": kind,
        "record_length": length,
        "bytes": header,
    }
    if content_type == ContentType.HANDSHAKE and ev != Ev.ENC_HANDSHAKE:
        described["message"] = name_of(HandshakeType, violation[Event.MESSAGE])
    elif content_type == ContentType.CHANGE_CIPHER_SPEC:
        described["bytes"] = header + "01" if length == 1 else header
    return described


DETECTOR: Final = Detector("order", RULES, within=within)
