"""The record layer: lengths, versions, types, bodies that are no ciphertext (catalogue RL and LB01, part A6).

The record walk and the tracker have noted what is odd; here it becomes one finding per rule and connection,
told by the first record of its kind and counted.
Source: RFC 8446 5.1, 5.2; RFC 5246 6.2; nf_conntrack_tls (low-byte runs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer import limits
from analyzer.columns.distinct import distinct
from analyzer.connections import version_name
from analyzer.detect.base import Detector, Evidence, Hit, Rule
from analyzer.model import Action, Severity, Side
from analyzer.tls.state import State
from analyzer.tls.tracker import Event, Kind
from analyzer.wire.iana import ContentType, name_of

RULES: Final = (
    Rule("RL01", "Record longer than the protocol allows", Severity.MEDIUM, Action.CORROBORATE,
         "A record's length is above the limit: 16384 bytes in clear, 2048 more encrypted, 256 more in TLS "
         "1.3. A correct peer ends the connection. It is a test of a parser, an attack on its buffer, or no "
         "TLS at all.", ("RFC 8446 5.2", "RFC 5246 6.2.3")),
    Rule("RL02", "Empty record where none may be", Severity.LOW, Action.CORROBORATE,
         "A record without a single byte: messages may not be empty, and ciphertext can't be, because its "
         "tag or MAC alone has bytes. Floods of them cost the peer work, and some inspection loses its "
         "place over them.", ("RFC 8446 5.1", "RFC 5246 6.2.1")),
    Rule("RL05", "Unexpected version in a record header", Severity.INFO, Action.INFORM,
         "The version in a record header is not the one that was negotiated, or higher than any in use. TLS "
         "1.3 tells peers to ignore the field, so this mostly shows unusual software or a middlebox.",
         ("RFC 8446 5.1", "RFC 5246 6.2.1")),
    Rule("RL06", "Bytes that are no TLS record", Severity.MEDIUM, Action.CORROBORATE,
         "Where the next record should begin, something else stands: an unknown content type, or no TLS "
         "header at all. Either side fell back to another protocol in the middle of the connection, or "
         "bytes were injected. After an encrypted alert it is mostly a protocol that goes on in clear once "
         "TLS was closed.", ("RFC 8446 5.1", "RFC 5246 6.2.1", "RFC 4217 12.3")),
    Rule("RL12", "Readable or regular bytes where ciphertext should be", Severity.HIGH, Action.CORROBORATE,
         "The body of an encrypted record is text, or far more regular than ciphertext can be. The sender "
         "does not encrypt what it says it encrypts: data smuggled through a TLS-only firewall, a tunnel "
         "that imitates TLS, or a broken implementation.", ("RFC 5246 6.2.3", "RFC 8446 5.2")),
    Rule("LB01", "Long run of low bytes where ciphertext should be", Severity.HIGH, Action.CORROBORATE,
         "More than 128 bytes in a row are below 0x80. Ciphertext does so once in 2^128; text and many "
         "binary protocols do all the time. This is the data-smuggling check of nf_conntrack_tls.",
         ("nf_conntrack_tls suspicious_sequence_length",)),
)  # fmt: skip


def within(evidence: Evidence) -> Iterator[Hit]:
    """Findings of each connection."""
    for rule, (kind, describe) in _EVENTS.items():
        events = evidence.of_kind(kind)
        if not len(events):
            continue
        events = events[np.argsort(events[:, Event.CONNECTION], kind="stable")]
        for part in np.split(events, np.flatnonzero(np.diff(events[:, Event.CONNECTION])) + 1):
            yield _hit(evidence, rule, part, describe)


def _hit(evidence: Evidence, rule: str, events: npt.NDArray[np.int64], describe: _Describe) -> Hit:
    """One hit for all events of a kind in a connection, told by the first."""
    first: list[int] = events[0].tolist()
    described = {"side": _side(first[Event.SIDE]), **describe(first)}
    if len(events) > 1:
        described["count"] = len(events)
        described["sides"] = [_side(side) for side in distinct(events[:, Event.SIDE]).tolist()]
    hit = Hit(
        rule=rule,
        batch=evidence.batch,
        row=evidence.row(first[Event.CONNECTION]),
        packets=tuple(events[:, [Event.PACKET, Event.LAST_PACKET]].ravel().tolist()),
        evidence=described,
    )
    if rule == "RL06" and (events[:, Event.VALUE_2] == ContentType.ALERT).all():
        hit.severity, hit.action = Severity.INFO, Action.INFORM
    elif rule in ("RL12", "LB01") and (events[:, Event.STATE] == State.UNKNOWN).all():
        hit.severity = Severity.MEDIUM  # whether a suite that encrypts was negotiated is not known
    return hit


def _side(side: int) -> str:
    return Side(side).name.lower()


def _record(event: list[int]) -> dict[str, object]:
    header = f"{event[Event.TYPE]:02x}{event[Event.VERSION]:04x}{event[Event.LENGTH]:04x}"
    return {
        "record_type": name_of(ContentType, event[Event.TYPE]),
        "record_length": event[Event.LENGTH],
        "bytes": header + _body(event).hex(),
    }


def _body(event: list[int]) -> bytes:
    return event[Event.BODY].to_bytes(event[Event.BODY_BYTES], "big")


def _oversized(event: list[int]) -> dict[str, object]:
    return {**_record(event), "limit": event[Event.VALUE]}


def _empty(event: list[int]) -> dict[str, object]:
    return {**_record(event), "encrypted": bool(event[Event.VALUE])}


def _version(event: list[int]) -> dict[str, object]:
    return {
        **_record(event),
        "record_version": version_name(event[Event.VERSION]),
        "expected_version": version_name(event[Event.VALUE]),
    }


def _framing(event: list[int]) -> dict[str, object]:
    stood = _body(event)
    known = event[Event.TYPE] in range(ContentType.CHANGE_CIPHER_SPEC, ContentType.HEARTBEAT + 1)
    described: dict[str, object] = {
        "reason": f"major version {event[Event.VERSION] >> 8}"
        if known
        else f"content type {event[Event.TYPE]}",
        "encrypted": bool(event[Event.VALUE]),
        "after": name_of(ContentType, event[Event.VALUE_2]) if event[Event.VALUE_2] else None,
        "stream_offset": event[Event.POSITION],
        "bytes": stood.hex(),
    }
    if stood.isascii() and stood.decode("ascii").isprintable():
        described["text"] = stood.decode("ascii")
    return described


def _text(event: list[int]) -> dict[str, object]:
    return {
        **_record(event),
        "entropy_bits_per_byte": event[Event.VALUE] / 1000,
        "printable_percent": event[Event.VALUE_2] / 10,
        "handshake_seen": event[Event.STATE] != State.UNKNOWN,
    }


def _low_run(event: list[int]) -> dict[str, object]:
    return {
        **_record(event),
        "run": event[Event.VALUE],
        "limit": limits.LOW_RUN_BYTES,
        "handshake_seen": event[Event.STATE] != State.UNKNOWN,
    }


_Describe = Callable[[list[int]], dict[str, object]]

_EVENTS: Final[dict[str, tuple[Kind, _Describe]]] = {
    "RL01": (Kind.OVERSIZED, _oversized),
    "RL02": (Kind.EMPTY, _empty),
    "RL05": (Kind.RECORD_VERSION, _version),
    "RL06": (Kind.FRAMING_LOST, _framing),
    "RL12": (Kind.TEXT, _text),
    "LB01": (Kind.LOW_RUN, _low_run),
}

DETECTOR: Final = Detector("records", RULES, within=within)
