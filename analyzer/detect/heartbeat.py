"""Heartbleed and everything else that is wrong with the heartbeats of one connection (catalogue HB, part A1).

In clear a request says what it asks for, so an over-read is certain. Encrypted, only lengths speak: a request
too short to be one, an answer longer than what it answers. What missing bytes leave open is never of class A.
Source: RFC 6520; CVE-2014-0160; RFC 8446 5 (TLS 1.3 has no records of this type).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from analyzer.connections import VERSION_NAMES, Batch
from analyzer.detect.base import Detector, Evidence, Hit, Rule
from analyzer.model import Action, Severity, Side
from analyzer.tls import hello
from analyzer.tls.heartbeat import (
    CONTINUATION,
    FULL_RECORD,
    HEADER,
    OVERHEAD,
    REQUEST,
    RESPONSE,
    SURELY_GROWN,
    Beat,
    overreads,
    reads_as_overread,
)
from analyzer.wire.suite_properties import record_length

PADDING_BYTES: Final = 16
"""An answer longer by no more is a matter of padding, or of one CBC block (catalogue HB05, correction)."""
EARLY_NS: Final = 60_000_000_000
"""Zeek's policy/protocols/ssl/heartbleed.zeek calls a heartbeat within a minute of the SYN early."""
UNANSWERED: Final = 3
"""The same script's number of requests without an answer that is still quiet."""

_RFC: Final = "RFC 6520 4"
_CVE: Final = "CVE-2014-0160"
_POLICY: Final = "heartbleed"

RULES: Final = (
    Rule("HB01", "Heartbleed: heartbeat request for more bytes than it brings", Severity.HIGH, Action.BLOCK,
         "A readable heartbeat request claims a payload that is longer than its record. An OpenSSL without "
         "the fix of CVE-2014-0160 answers with memory from behind the request: keys, passwords, other "
         "people's data. No correct software sends this. Whether the server gave anything away is said by "
         "HB04 and HB05.", (_CVE, _RFC), _POLICY),
    Rule("HB02", "Heartbleed probe: heartbeat without its padding", Severity.MEDIUM, Action.CORROBORATE,
         "A readable heartbeat request brings its payload but not the padding of at least 16 bytes. "
         "Scanners test for Heartbleed this way without reading foreign memory: a patched server must drop "
         "the request, so an answer proves the server unpatched.", (_CVE, _RFC), _POLICY),
    Rule("HB03", "Heartbeat during the handshake", Severity.HIGH, Action.BLOCK,
         "A heartbeat was sent before both sides had changed keys. RFC 6520 forbids it and no TLS stack "
         "does it; Heartbleed tools do, because before encryption they need no keys.",
         ("RFC 6520 3", _CVE), _POLICY),
    Rule("HB04", "Heartbleed: memory was leaked", Severity.CRITICAL, Action.BLOCK,
         "A readable over-reading request was answered, with more bytes than it brought: memory of the "
         "answering side left it. That side is vulnerable. Patch it, then treat its private keys and what "
         "passed through it as known to the requester.", (_CVE, _RFC), _POLICY),
    Rule("HB05", "Encrypted heartbeat answered with more than was asked", Severity.CRITICAL, Action.BLOCK,
         "The answer to an encrypted heartbeat is longer than the request. An honest answer repeats the "
         "payload; more comes back where the padding differs (a few bytes) or where the answering side is "
         "vulnerable to CVE-2014-0160 and memory left it. Nothing in an encrypted connection can hide this "
         "growth. Where the asking side then sends a record of the same length (echoed), it may have been a "
         "request of the other side instead.", (_CVE, _RFC), _POLICY),
    Rule("HB06", "Encrypted heartbeat that is too short to be one", Severity.HIGH, Action.BLOCK,
         "Under the negotiated cipher suite no record this short can hold the 19 bytes of the smallest "
         "heartbeat. Only tools that leave out payload or padding, as Heartbleed exploits do, send it.",
         (_CVE, _RFC), _POLICY),
    Rule("HB07", "Heartbeat answer without a request", Severity.LOW, Action.CORROBORATE,
         "A heartbeat came that answers nothing: readable, of type response, or encrypted while its sender "
         "had a request of its own unanswered. It confuses tools that pair requests and answers, or is a "
         "second request in flight (HB08).", (_RFC,), _POLICY),
    Rule("HB08", "Heartbeat flood", Severity.LOW, Action.CORROBORATE,
         "More than one heartbeat request was in flight, or more than three stayed without an answer. RFC "
         "6520 allows one at a time.", ("RFC 6520 3",), _POLICY),
    Rule("HB09", "Heartbeat request that was not negotiated", Severity.HIGH, Action.BLOCK,
         "A heartbeat request was sent to a peer that had not agreed to heartbeats, or had said in its "
         "hello that it wants no requests.", ("RFC 6520 2", _CVE), _POLICY),
    Rule("HB10", "Reverse Heartbleed: the server attacks the client", Severity.HIGH, Action.BLOCK,
         "The server sent a heartbeat request that over-reads the client's memory, or that the client "
         "answered with far more than was asked. Clients with a vulnerable OpenSSL leak to any server they "
         "are lured to.", (_CVE, _RFC), _POLICY),
    Rule("HB11", "Heartbeat unusually early", Severity.LOW, Action.CORROBORATE,
         "An encrypted heartbeat request came before any application data, or within a minute of the "
         "connection's start. Keep-alives come later, when a connection is idle.",
         ("RFC 6520 1", _CVE), _POLICY),
    Rule("HB12", "Server accepts heartbeat requests", Severity.LOW, Action.POSTURE,
         "The ServerHello accepts the heartbeat extension and lets the client send requests. Hardly "
         "anything uses them over TCP; a server with OpenSSL 1.0.1 to 1.0.1f and this setting is open to "
         "Heartbleed. Switch the extension off.", (_CVE, "RFC 6520 2"), _POLICY),
    Rule("HB13", "Heartbeat record in TLS 1.3", Severity.MEDIUM, Action.CORROBORATE,
         "After a TLS 1.3 ServerHello no record may have the outer type 24; a correct peer ends the "
         "connection. A tool made for older versions, or a test of what the peer tolerates.",
         ("RFC 8446 5",), _POLICY),
    Rule("HB15", "Heartbleed behind a bogus ChangeCipherSpec", Severity.HIGH, Action.BLOCK,
         "A ChangeCipherSpec came out of order, and behind it a readable heartbeat request that over-reads. "
         "The ChangeCipherSpec is there to make sensors believe that the rest is encrypted.",
         (_CVE, "CVE-2014-0224"), _POLICY),
)  # fmt: skip


@dataclass(slots=True)
class _Exchange:
    """A request and the records of its answer."""

    row: int
    request: Beat | None = None
    """None where its row was not kept: the answer's rows still know its lengths."""
    answers: list[Beat] = field(default_factory=list)

    @property
    def packets(self) -> tuple[int, ...]:
        asked = (self.answers[0].request_packet,) if self.request is None else _packets(self.request)
        return (*asked, *(number for beat in self.answers for number in _packets(beat)))

    @property
    def leaked_bytes(self) -> int:
        """A readable over-read: what came back beyond what the request brought."""
        answer = self.answers[-1]
        return max(0, answer.answered_bytes - OVERHEAD - max(0, answer.request_length - HEADER))


_NewHit = Callable[..., Hit]


def within(evidence: Evidence) -> Iterator[Hit]:
    """Findings of each connection."""
    batch = evidence.batch
    yield from _exposed(batch)
    exchanges: dict[tuple[int, int], _Exchange] = {}
    for beat in evidence.beats:
        row = evidence.row(beat.connection)
        if beat.tls13:
            yield Hit(rule="HB13", batch=batch, row=row, packets=_packets(beat), evidence=_described(beat))
        elif beat.answers:
            exchanges.setdefault((row, beat.request), _Exchange(row)).answers.append(beat)
        else:
            exchanges[row, beat.number] = _Exchange(row, beat)
    leaks: dict[tuple[int, str], list[tuple[int, _Exchange]]] = {}
    for exchange in exchanges.values():
        yield from _of_request(batch, exchange)
        for beat in exchange.answers[:1]:
            yield from _too_short(batch, exchange.row, beat)
        rule, growth = _growth(batch, exchange)
        if growth > 0:
            leaks.setdefault((exchange.row, rule), []).append((growth, exchange))
    for (row, rule), grown in leaks.items():
        yield _leaked(batch, row, rule, grown)


def _exposed(batch: Batch) -> Iterator[Hit]:
    """HB12, of every server that lets clients ask."""
    version = batch["VERSION"]
    accepts = (
        (batch["SERVER_HEARTBEAT"] == 1)
        & (version >= 0x0300)
        & (version <= 0x0303)
        & (batch["SERVER_FLAGS"] >= 0)
    )
    for row in np.flatnonzero(accepts).tolist():
        yield Hit(
            rule="HB12",
            batch=batch,
            row=row,
            packets=(int(batch["SERVER_HELLO_PACKET"][row]),),
            evidence={
                "server": batch.endpoint(row, server=True),
                "version": VERSION_NAMES[int(version[row])],
                "heartbeat_mode": 1,
                "bytes": "000f000101",  # the extension: type, length, mode
            },
        )


def _of_request(batch: Batch, exchange: _Exchange) -> Iterator[Hit]:
    """Findings of a record that answers nothing."""
    beat, row = exchange.request, exchange.row
    if beat is None:
        return

    def hit(rule: str, action: Action | None = None, **values: object) -> Hit:
        return Hit(
            rule=rule,
            batch=batch,
            row=row,
            packets=_packets(beat),
            evidence={**_described(beat), **values},
            action=action,
            offender=beat.side,
        )

    if beat.in_handshake:
        yield hit("HB03")
    if beat.role == RESPONSE and beat.whole:
        yield hit("HB07")
    if beat.role != REQUEST:
        return
    unasked = _not_negotiated(beat)
    if unasked:
        yield hit("HB09", _surely(batch, row), reason=unasked)
    answered = True if exchange.answers else False if beat.whole else None
    if beat.overreads:
        yield hit("HB10" if beat.side == Side.SERVER else "HB01", answered=answered)
        if beat.early_ccs:
            yield hit("HB15", answered=answered)
    elif beat.unpadded:
        probe = hit("HB02", Action.BLOCK if unasked else None, answered=answered)
        if exchange.answers:
            leaked = (
                exchange.leaked_bytes
                if exchange.answers[0].payload_length > beat.message_length - HEADER
                else 0
            )
            vulnerable = batch.endpoint(row, server=beat.side == Side.CLIENT)
            probe.evidence = {**probe.evidence, "leaked_bytes": leaked, "vulnerable": vulnerable}
            probe.packets, probe.severity = exchange.packets, Severity.HIGH
            probe.replaces = ("answered",)
        yield probe
    elif not beat.clear:
        yield from _too_short(batch, row, beat)
        yield from _early(batch, row, beat, hit)
    if beat.whole and (not beat.expected or beat.outstanding >= UNANSWERED):
        yield hit("HB08", outstanding=beat.outstanding)
        if not beat.clear and not beat.expected:
            yield hit("HB07", outstanding=beat.outstanding)


def _not_negotiated(beat: Beat) -> str | None:
    """Why the peer must not be asked; None where it may, or where that is unknown."""
    for side, mode in (("client", beat.client_mode), ("server", beat.server_mode)):
        if mode == 0:
            return f"no heartbeat extension in the {side}'s hello"
    receiver, mode = (
        ("server", beat.server_mode) if beat.side == Side.CLIENT else ("client", beat.client_mode)
    )
    if mode == 2 and (beat.clear or beat.whole):
        return f"the {receiver}'s hello says peer_not_allowed_to_send"
    return None


def _surely(batch: Batch, row: int) -> Action | None:
    """A renegotiation may have changed what the hellos in clear agreed on: then nobody is to be blocked."""
    return Action.CORROBORATE if batch["RENEGOTIATIONS"][row] else None


def _suite_length(batch: Batch, row: int, beat: Beat, plaintext_length: int) -> int | None:
    """Length of the record that protects so many bytes; None where unknown, as it is with compression."""
    flags = int(batch["SERVER_FLAGS"][row])
    if flags < 0 or batch["COMPRESSION"][row] or not 0x0300 <= beat.version <= 0x0303:
        return None
    return record_length(
        plaintext_length,
        beat.cipher_suite,
        beat.version,
        bool(flags & hello.ENCRYPT_THEN_MAC),
        bool(flags & hello.TRUNCATED_HMAC),
    )


def _too_short(batch: Batch, row: int, beat: Beat) -> Iterator[Hit]:
    """HB06: no heartbeat, request or answer, fits into the record."""
    if beat.clear or beat.role == CONTINUATION:
        return
    if not beat.sealed and not (
        beat.length < OVERHEAD and reads_as_overread(beat.body, beat.body_bytes, beat.length)
    ):
        return  # it may be in clear, or the end of an answer in clear that was too long
    least = _suite_length(batch, row, beat, OVERHEAD)
    if least is not None and beat.length < least:
        yield Hit(
            rule="HB10" if beat.side == Side.SERVER else "HB06",
            batch=batch,
            row=row,
            packets=_packets(beat),
            evidence={**_described(beat), "least_length": least},
            action=_surely(batch, row),
            offender=beat.side,
        )


def _early(batch: Batch, row: int, beat: Beat, hit: _NewHit) -> Iterator[Hit]:
    """HB11, where the beginning of the connection was seen and nothing of it is missing."""
    after_ns = beat.time_ns - int(batch["FIRST_NS"][row])
    if beat.whole and (not beat.after_data or after_ns < EARLY_NS):
        yield hit("HB11", seconds=round(after_ns / 1e9, 3), after_application_data=beat.after_data)


def _growth(batch: Batch, exchange: _Exchange) -> tuple[str, int]:
    """The rule for an answer that is too long, and by how many bytes; 0 for one that is not."""
    if not exchange.answers:
        return "", 0
    answer = exchange.answers[-1]
    reverse = answer.side == Side.CLIENT
    if answer.clear:
        leaks = overreads(answer.request_length, answer.request_payload_length)
        return "HB10" if reverse else "HB04", exchange.leaked_bytes if leaks else 0
    growth = answer.answered_bytes - answer.request_length
    full = _suite_length(batch, exchange.row, answer, FULL_RECORD)
    if full is not None:
        growth -= (answer.answered_records - 1) * (full - FULL_RECORD)  # what protects the further records
    if not answer.whole and growth <= SURELY_GROWN:
        return "", 0  # it may answer another request, which the capture lost
    return "HB10" if reverse else "HB05", growth


def _leaked(batch: Batch, row: int, rule: str, grown: Sequence[tuple[int, _Exchange]]) -> Hit:
    """HB04, HB05, HB10: one hit for all answers of a connection that were too long, told by the worst."""
    growth, worst = max(grown, key=lambda one: one[0])
    answer = worst.answers[-1]
    requester = Side(1 - answer.side)
    severity, action = Severity.CRITICAL, Action.BLOCK
    if not answer.clear:
        if growth <= PADDING_BYTES:
            severity, action = Severity.INFO, Action.INFORM
        elif growth <= SURELY_GROWN:
            severity, action = Severity.MEDIUM, Action.CORROBORATE
        elif not answer.whole or answer.echoed or batch["COMPRESSION"][row]:
            severity, action = Severity.HIGH, Action.CORROBORATE
    evidence: dict[str, object] = {
        "side": requester.name.lower(),
        "encrypted": not answer.clear,
        "request_length": answer.request_length,
        "answer_length": answer.answered_bytes,
        "answer_records": answer.answered_records,
        "growth": growth,
        "answer_bytes": worst.answers[0].proof,
    }
    if worst.request is not None:
        evidence |= {"record_length": worst.request.length, "bytes": worst.request.proof}
    if answer.request_payload_length >= 0:
        evidence["payload_length"] = answer.request_payload_length
    if growth > PADDING_BYTES or answer.clear:
        evidence["leaked_bytes"] = sum(one for one, _ in grown)
    if answer.echoed:
        evidence["echoed"] = True
    if action == Action.BLOCK:
        evidence["vulnerable"] = batch.endpoint(row, server=requester == Side.CLIENT)
    if len(grown) > 1:
        evidence["exchanges"] = len(grown)
    return Hit(
        rule=rule,
        batch=batch,
        row=row,
        packets=tuple(number for _, exchange in grown for number in exchange.packets),
        evidence=evidence,
        severity=severity,
        action=action,
        offender=requester,
    )


def _packets(beat: Beat) -> tuple[int, ...]:
    return beat.packet, beat.last_packet


def _described(beat: Beat) -> dict[str, object]:
    described: dict[str, object] = {
        "side": beat.side.name.lower(),
        "encrypted": True if beat.sealed else False if beat.clear else None,
        "record_length": beat.length,
        "bytes": beat.proof,
    }
    if beat.payload_length >= 0:
        described["payload_length"] = beat.payload_length
    return described


DETECTOR: Final = Detector("heartbeat", RULES, within=within)
