"""heartbleed: refuse heartbeat requests that ask for more bytes than they bring.

In:  ports, servers, direction, variant and what to do about encrypted heartbeats.
Out: one chain.
Source: CVE-2014-0160; RFC 6520 4: a payload_length too large MUST be silently discarded, padding is at least
    16 bytes; OpenSSL 1.0.1g ssl/t1_lib.c tls1_process_heartbeat: `1 + 2 + payload + 16 > s->s3->rrec.length`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from analyzer.model import Finding
from rulegen.ir.match import (
    WITHOUT_CONNECTION,
    Direction,
    Exceeds,
    InDirection,
    InState,
    Marked,
    Match,
    Not,
    Present,
    SomeRecord,
    all_of,
    any_of,
    between,
    equals,
)
from rulegen.ir.rule import Chain, Rule, SetMark, Verdict
from rulegen.policies.base import (
    DIRECTION,
    PORTS,
    RECORDS,
    SERVERS,
    Answered,
    LeftAlone,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    among,
    elsewhere,
    origin,
    places,
    toward,
)
from rulegen.policies.hellos import CHANGE_CIPHER_SPEC, HEARTBEAT, VERSION_3

REQUEST: Final = 1
OVERHEAD_BYTES: Final = 1 + 2 + 16
"""Of a heartbeat message: type, payload_length, and the least padding. RFC 6520 4."""

MARK_ORIGINAL: Final = 0x1000_0000
MARK_REPLY: Final = 0x2000_0000
"""Bits of the connection's mark: the direction has sent ChangeCipherSpec, its heartbeats are encrypted."""

WALKED: Final = 8
"""Records of a packet among which ChangeCipherSpec is looked for. A client has up to three before it in its
flight (Certificate, ClientKeyExchange, CertificateVerify), a server that resumes two; the rest is room."""

_OVERREAD: Final = frozenset({"HB01", "HB02", "HB04", "HB10", "HB12", "HB14", "HB15"})
_ANY: Final = frozenset({"HB03", "HB05", "HB06", "HB07", "HB08", "HB09", "HB11", "HB13"})


class Heartbleed(Policy):
    name: ClassVar[str] = "heartbleed"
    stops: ClassVar[str] = (
        "Heartbeat requests whose payload_length + 19 is more than the record's length: over-reads"
        " (CVE-2014-0160) and the probes that omit the padding, in both directions, exactly."
        " variant=strict: every heartbeat record."
    )
    costs: ClassVar[str] = (
        "Nothing for plaintext heartbeats that keep to RFC 6520. The bytes of an encrypted heartbeat are"
        " judged as if they were plaintext: one legitimate encrypted heartbeat in about 256 looks like a"
        " request that asks too much and is dropped, after which its connection stalls. encrypted=pass"
        " spares them, with two bits of the connection mark (0x30000000). Heartbeat records cut so short"
        " that they can't be judged (less than 8 bytes in the packet) are dropped. About 1,000 set"
        " elements, 30 kB."
    )
    bypass: ClassVar[str] = (
        "A request behind another record in the same packet is not seen (records=N looks at the first N,"
        " in backends that walk from one to the next: bpf does, nft does not), nor one split so that its"
        " header does not start a packet's payload; without ports, nor is one split within its first 3"
        " bytes. Over-reads in encrypted heartbeats can't be seen: only variant=strict stops those. With"
        " encrypted=pass an attacker may send a ChangeCipherSpec first. One that stands behind other"
        " records in its packet, as most clients send it, is only seen by backends that walk, up to the"
        " eighth; with the others encrypted heartbeats of such connections are still judged. A receiver"
        " that merges packets (GRO, LRO) before the rules see them hides all but the first record. Patch"
        " the server."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        PORTS,
        SERVERS,
        replace(DIRECTION, meaning="whom to protect; to-client stops servers that attack clients"),
        Parameter(
            name="variant",
            default="exact",
            choices=("exact", "strict"),
            meaning="exact: requests that ask too much; strict: every heartbeat record",
        ),
        Parameter(
            name="encrypted",
            default="check",
            choices=("check", "pass"),
            meaning="pass: leave a direction alone once it has sent ChangeCipherSpec",
        ),
        RECORDS,
    )

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        return finding.id in _OVERREAD | _ANY or finding.policy == self.name

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        ports, servers = places(settings)
        if (other := elsewhere(observed, ports, servers)) is not None:
            return other
        direction = "to-client" if observed.finding.id == "HB10" else "to-server"
        if settings["direction"] not in ("both", direction):
            return LeftAlone(f"it goes {direction}, which heartbleed:direction={direction} answers")
        if settings["variant"] == "strict":
            return Answered(("heartbleed-any",))
        if observed.finding.id in _ANY and not _overreads(observed.finding):
            return LeftAlone(
                "no over-read to be seen in plaintext; heartbleed:variant=strict refuses every heartbeat"
            )
        if observed.finding.id == "HB15" and settings["encrypted"] == "pass":
            return LeftAlone("it follows a false ChangeCipherSpec; heartbleed:encrypted=check answers it")
        return Answered(("heartbleed-overread",))

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports, servers = places(settings)
        spare = settings["encrypted"] == "pass"
        walks = spare or settings["records"] != "1"
        judged = _plaintext() if spare else all_of()
        variant = _strict if settings["variant"] == "strict" else _exact
        rules = [*variant(bool(ports), judged, settings["records"], answered)]
        if spare:  # last: a heartbeat is not encrypted by a ChangeCipherSpec behind it in its packet
            rules += _marking(answered)
        chain = Chain(
            name=self.name,
            policy=self.name,
            rules=tuple(rules),
            guard=all_of(
                toward(settings["direction"], ports, servers),
                # Any record may have behind it what is looked for.
                between("tls.content_type", CHANGE_CIPHER_SPEC if walks else HEARTBEAT, HEARTBEAT),
            ),
        )
        return Part(chains=(chain,))


def _overreads(finding: Finding) -> bool:
    """The finding is about something else, but the very record that proves it asks for too much."""
    asked_for, length = (finding.evidence.get(key) for key in ("payload_length", "record_length"))
    return isinstance(asked_for, int) and isinstance(length, int) and asked_for + OVERHEAD_BYTES > length


def _marking(answered: Sequence[tuple[Observed, Answered]]) -> Iterator[Rule]:
    change = all_of(equals("tls.content_type", CHANGE_CIPHER_SPEC), VERSION_3, equals("tls.length", 1))
    for direction, bit in ((Direction.ORIGINAL, MARK_ORIGINAL), (Direction.REPLY, MARK_REPLY)):
        name = f"heartbleed-encrypts-{direction}"
        yield Rule(
            name=name,
            match=all_of(InDirection(direction), SomeRecord(change, WALKED)),
            verdict=Verdict.CONTINUE,
            effects=(SetMark(bit, bit),),
            origin=origin("heartbleed", name, answered),
            meaning=f"Remember that the {direction} direction encrypts from here on.",
        )


def _plaintext() -> Match:
    """The packet's direction has not been seen to send ChangeCipherSpec."""
    return any_of(
        all_of(InDirection(Direction.ORIGINAL), Not(Marked(MARK_ORIGINAL, MARK_ORIGINAL))),
        all_of(InDirection(Direction.REPLY), Not(Marked(MARK_REPLY, MARK_REPLY))),
        InState(WITHOUT_CONNECTION),
    )


def _exact(
    ports: bool, judged: Match, records: str, answered: Sequence[tuple[Observed, Answered]]
) -> Iterator[Rule]:
    heartbeat = equals("tls.content_type", HEARTBEAT)
    overread = all_of(
        heartbeat,
        VERSION_3,
        equals("tls.heartbeat_type", REQUEST),
        Exceeds("tls.heartbeat_payload_length", OVERHEAD_BYTES, "tls.length"),
    )
    yield Rule(
        name="heartbleed-overread",
        match=all_of(among(overread, records), judged),
        verdict=Verdict.DROP,
        origin=origin("heartbleed", "heartbleed-overread", answered),
        meaning="A heartbeat request asks for more than it brings: payload_length + 19 > record length.",
    )
    # Without ports a lone byte 0x18 may be anything, Ctrl-X in a terminal for one: demand the version too.
    yield Rule(
        name="heartbleed-split",
        match=all_of(
            heartbeat, judged, *(() if ports else (VERSION_3,)), Not(Present("tls.heartbeat_payload_length"))
        ),
        verdict=Verdict.DROP,
        origin=origin("heartbleed", "heartbleed-split", answered),
        meaning="A heartbeat record cut before its payload_length can't be judged and is refused.",
    )


def _strict(
    ports: bool, judged: Match, records: str, answered: Sequence[tuple[Observed, Answered]]
) -> Iterator[Rule]:
    heartbeat = equals("tls.content_type", HEARTBEAT)
    yield Rule(
        name="heartbleed-any",
        match=all_of(among(all_of(heartbeat, VERSION_3), records), judged),
        verdict=Verdict.DROP,
        origin=origin("heartbleed", "heartbleed-any", answered),
        meaning="A heartbeat record, whatever it asks for.",
    )
    if ports:
        yield Rule(
            name="heartbleed-split",
            match=all_of(heartbeat, judged, Not(Present("tls.version"))),
            verdict=Verdict.DROP,
            origin=origin("heartbleed", "heartbleed-split", answered),
            meaning="What may be a heartbeat record is cut before its version and is refused.",
        )


POLICY: Final = Heartbleed()
