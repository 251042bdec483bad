"""pin: allow only one TLS connection.

In:  which one: by its number in a capture, its client's address and port, its client random, its session or
    its server's certificate; whether resumptions of its session are followed; servers and ports.
Out: one chain; a set of session_ids where they are learned.
Source: RFC 5246 7.3, 7.4.1.2, 7.4.1.3; RFC 5077 3.1, 3.4; RFC 8446 4.1.3, 4.6.1, 5.2, D.4; RFC 8998, RFC 9150
    for suites of TLS 1.3.

A connection is marked once it has been known, and the mark decides. A session is known by the ServerHello:
what a client offers proves nothing, but a server of TLS 1.2 that repeats a session_id resumes that session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from rulegen.errors import WishError
from rulegen.ir.match import (
    Contains,
    Direction,
    InDirection,
    Interval,
    Lookup,
    Marked,
    Match,
    Not,
    Or,
    Present,
    Protocol,
    SomeRecord,
    all_of,
    any_of,
    between,
    equals,
    one_of,
)
from rulegen.ir.rule import Chain, Effect, Learn, Rule, SetDeclaration, SetMark, Verdict
from rulegen.policies.base import (
    ACTION,
    PORTS,
    SERVERS,
    Answered,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    origin,
    parse_duration,
    places,
    refusal,
    to_client,
    to_server,
)
from rulegen.policies.hellos import APPLICATION_DATA, CLIENT_HELLO, HANDSHAKE, SERVER_HELLO, VERSION_3, hello
from rulegen.policies.pinned import Pinned, choose, packets_of

MARK: Final = 0x0400_0000
"""Bit of the connection's mark: this is the pinned one, or resumes its session."""

SESSIONS: Final = "pin-sessions"
_SESSIONS_MAX: Final = 1024
"""A session has one session_id; servers that give a new one at each resumption are served too."""

RECORDS: Final = 4
"""Records of a packet that are looked at: ClientKeyExchange, ChangeCipherSpec, Finished, application data."""
_LENGTH_MAX: Final = 2**14 + 2048
"""Of a record, RFC 5246 6.2.3."""

PATTERN_BYTES: Final = 64
"""Of a certificate: its serial number is among them (RFC 5280 4.1). Of a ticket: key name, initialisation
vector and more (RFC 5077 4). xt_string takes 127."""

CERTIFICATE: Final = 11
_SESSION_ID_BYTES: Final = 32
_BEFORE_1_3: Final[tuple[Interval, ...]] = (
    (0x0000, 0x00C5),
    (0x00C8, 0x1300),
    (0x1400, 0xC0B3),
    (0xC0B6, 0xFFFF),
)
"""Suites of TLS 1.2 and earlier: those of 1.3 are 0x1301 and on, RFC 8998 2 and RFC 9150 3."""


class Pin(Policy):
    name: ClassVar[str] = "pin"
    stops: ClassVar[str] = (
        "Application data of every TLS connection but one, in both directions, on the ports and with the"
        " servers that are given, or on all. Handshakes of TLS 1.2 and earlier, alerts and whatever is not"
        " TLS pass. refuse=everything: every byte that another connection sends, its ClientHello first."
        " The one is chosen from a capture (connection=17; it is known by its addresses and ports, which"
        " serves the connection that still runs, or by its client random, which serves its replay; by="
        " takes one of these, or its session or certificate), or it is the next of a client's address and"
        " port (client=), or that of a client random, of a session_id or of a server certificate."
        " Resumptions of its session are refused with the rest, or followed: by session_ids learned live"
        " from its ServerHello (follow), or by those and the ticket that the capture shows (known, ticket)."
    )
    costs: ClassVar[str] = (
        "Without ports and servers it cuts off every other TLS connection that passes the firewall,"
        " perhaps your own; two pins on the same ones let nothing through. In TLS 1.3 most of a"
        " handshake is sent as application data: another connection's may not complete, and what of it"
        " passes depends on how it is packed. Of connections that are no TLS, 1 packet in 230,000 looks"
        " like application data. A pinned connection whose hello is cut before its random or session_id"
        " is not known, and is refused. A certificate is searched for byte by byte, only where client"
        " and server agree on TLS 1.2 or earlier, and is not found where it is cut by the end of a"
        " packet or the session is resumed. One bit of the connection mark (0x04000000), which stays"
        " with a connection until it ends: load another pin and the connections of the one before are"
        " still let through."
    )
    bypass: ClassVar[str] = (
        "Nothing here is proven. Whoever uses the pinned client's address and port, or repeats its random"
        " or its ticket, is let through; so is one with a server in league, which repeats its session_id"
        " or shows its certificate. Application data behind another record in the same packet is seen"
        " only by backends that walk from record to record, up to the fourth; a header that begins behind"
        " another record and is cut by the packet's end by none. A header that begins a packet and is cut"
        " is refused; without ports and servers, only if 3 bytes of it are there. refuse=everything has"
        " none of these gaps. A resumption by ticket is known by the ticket's bytes, or by its SHA-256,"
        " that OpenSSL and BoringSSL send for session_id; other clients' are refused. TLS 1.3 encrypts"
        " the tickets that it issues, so that its resumptions can't be followed at all. SSL 2.0 has no"
        " content types and is not seen (min-version refuses it), nor is QUIC or TLS in a tunnel."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="connection", default="", meaning="its number in a capture, as Wireshark's tcp.stream"
        ),
        Parameter(name="capture", default="", meaning="the capture's name, if several have that number"),
        Parameter(
            name="by",
            default="any",
            choices=("any", "tuple", "random", "session_id", "certificate"),
            meaning="by what a connection of a capture is known; any: its addresses and ports, or its random",
        ),
        Parameter(name="client", default="", meaning="its client, 192.0.2.1:40000 or [2001:db8::1]:40000"),
        Parameter(name="random", default="", meaning="random of its ClientHello, 64 hexadecimal digits"),
        Parameter(name="session_id", default="", meaning="session_id of its session, 64 hexadecimal digits"),
        Parameter(
            name="certificate",
            default="",
            meaning="SHA-256 of its server's certificate, which a capture has to show; TLS 1.2 and earlier",
        ),
        Parameter(
            name="resumption",
            default="refuse",
            choices=("refuse", "follow", "known", "ticket"),
            meaning=(
                "of its session: refused; followed by the session_ids that the capture shows and those that"
                " are learned live; by the former only; by the former and the bytes of the ticket"
            ),
        ),
        Parameter(name="ttl", default="24h", meaning="how long a learned session_id is followed"),
        PORTS,
        SERVERS,
        Parameter(
            name="refuse",
            default="application-data",
            choices=("application-data", "everything"),
            meaning="what of the other connections; everything needs ports or servers",
        ),
        ACTION,
    )
    wants_connections: ClassVar[bool] = True
    wants_handshakes: ClassVar[bool] = True
    example: ClassVar[str] = "pin:client=192.0.2.1:40000"

    # It claims no finding: none says which connection is the good one.

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        pinned = choose(settings)
        ports, servers = places(settings)
        chosen = bool(ports or servers)
        _sensible(settings, pinned, chosen)
        rules = (*_marking(settings, pinned), *_refusing(settings, pinned, chosen))
        chain = Chain(
            name=self.name,
            policy=self.name,
            rules=rules,
            guard=any_of(to_server(ports, servers), to_client(ports, servers)) if chosen else Protocol("tcp"),
        )
        return Part(chains=(chain,), sets=tuple(_sets(settings)), remarks=tuple(_remarks(settings, pinned)))


def _sensible(settings: Settings, pinned: Pinned, chosen: bool) -> None:
    """Refuse wishes that can't be met, or would cut off more than TLS."""
    resumption = settings["resumption"]
    if settings["refuse"] == "everything" and not chosen:
        raise WishError("pin: refuse=everything without ports or servers would cut off all TCP")
    if settings["refuse"] == "everything" and pinned.certificate:
        raise WishError("pin: a certificate comes after the hellos, which refuse=everything refuses")
    if resumption == "ticket" and not pinned.ticket:
        raise WishError(f"pin: no ticket of {pinned.label} is to be seen in clear; TLS 1.3 encrypts them")
    if resumption == "known" and not (pinned.resumed_by or pinned.session_ids):
        raise WishError(f"pin: no session_id of {pinned.label} is known; resumption=follow learns it")


def _remarks(settings: Settings, pinned: Pinned) -> Iterator[str]:
    if pinned.client is not None:
        yield (
            f"pin: {pinned.label} is known by its addresses and ports: a later connection from the same port"
            " is let through too."
        )
    if pinned.random and pinned.client is None:
        yield "pin: no new connection has the random of an old one; by=tuple lets one that runs go on."
    if settings["resumption"] == "follow":
        yield "pin: resumptions are followed by session_id: in TLS 1.3 none is, nor are tickets issued live."


def _ids(settings: Settings, pinned: Pinned) -> tuple[bytes, ...]:
    """The session_ids that are known beforehand."""
    resumed = () if settings["resumption"] == "refuse" else pinned.resumed_by
    return tuple(dict.fromkeys((*pinned.session_ids, *resumed)))


def _sets(settings: Settings) -> Iterator[SetDeclaration]:
    if settings["resumption"] == "follow":
        yield SetDeclaration(
            name=SESSIONS,
            fields=("tls.session_id",),
            timeout_s=parse_duration(settings["ttl"]),
            dynamic=True,
            size=_SESSIONS_MAX,
            meaning="session_ids of the pinned connection",
        )


def _marking(settings: Settings, pinned: Pinned) -> Iterator[Rule]:
    """Know the connection, and learn its session_id."""
    if pinned.client is not None:
        yield _mark("pin-tuple", packets_of(pinned), f"A packet of {pinned.label}, by addresses and ports.")
    if pinned.random:
        yield _mark(
            "pin-random",
            all_of(_client_hello(), equals("tls.random", int.from_bytes(pinned.random))),
            f"The ClientHello of {pinned.label}, by its random.",
        )
    if settings["resumption"] == "ticket":
        yield _mark(
            "pin-ticket",
            all_of(_client_hello(), Contains(pinned.ticket[:PATTERN_BYTES])),
            f"A ClientHello with the ticket of {pinned.label}.",
        )
    if pinned.certificate:
        yield _mark(
            "pin-certificate",
            all_of(_from_server(SERVER_HELLO, CERTIFICATE), Contains(pinned.certificate[:PATTERN_BYTES])),
            f"The server's certificate of {pinned.label}.",
        )
    if ids := _ids(settings, pinned):
        yield _mark(
            "pin-session",
            all_of(_session(), _is_one_of(ids)),
            f"A ServerHello that resumes the session of {pinned.label}.",
        )
    if settings["resumption"] == "follow":
        yield _mark(
            "pin-resumed",
            all_of(_session(), Lookup(("tls.session_id",), SESSIONS)),
            "A ServerHello that resumes a session whose session_id was learned.",
        )
        yield _rule(
            "pin-learn",
            all_of(Marked(MARK, MARK), _session()),
            Verdict.CONTINUE,
            f"The session_id in the ServerHello of {pinned.label} is learned.",
            Learn(SESSIONS, ("tls.session_id",), parse_duration(settings["ttl"])),
        )


def _refusing(settings: Settings, pinned: Pinned, chosen: bool) -> Iterator[Rule]:
    verdict = refusal(settings)
    yield _rule(
        "pin-pinned", Marked(MARK, MARK), Verdict.PASS, "The pinned connection, or one that is followed."
    )
    if settings["refuse"] == "everything":
        if (offer := _offer(settings, pinned)) is not None:
            yield _rule(
                "pin-offer",
                all_of(_client_hello(), equals("tls.session_id_length", _SESSION_ID_BYTES), offer),
                Verdict.PASS,
                "A ClientHello that offers to resume the session; the ServerHello will tell.",
            )
        yield _rule(
            "pin-everything",
            Present("tls.content_type"),
            verdict,
            "Payload of a connection that is not pinned.",
        )
        return
    record = all_of(
        equals("tls.content_type", APPLICATION_DATA), VERSION_3, between("tls.length", 0, _LENGTH_MAX)
    )
    yield _rule(
        "pin-data",
        SomeRecord(record, RECORDS),
        verdict,
        "Application data of a connection that is not pinned.",
    )
    # Without ports and servers a lone byte 0x17 may be anything, Ctrl-W in a terminal for one.
    yield _rule(
        "pin-split",
        all_of(
            equals("tls.content_type", APPLICATION_DATA),
            *(() if chosen else (VERSION_3,)),
            Not(Present("tls.length")),
        ),
        verdict,
        "What may be application data is cut before its length and is refused.",
    )


def _offer(settings: Settings, pinned: Pinned) -> Match | None:
    """A session_id of the pinned session; None if it has none."""
    offers: list[Match] = []
    if ids := _ids(settings, pinned):
        offers.append(_is_one_of(ids))
    if settings["resumption"] == "follow":
        offers.append(Lookup(("tls.session_id",), SESSIONS))
    return Or(tuple(offers)) if offers else None


def _client_hello() -> Match:
    return all_of(InDirection(Direction.ORIGINAL), hello(CLIENT_HELLO))


def _from_server(*kinds: int) -> Match:
    """A handshake record from the server that begins with one of these messages."""
    return all_of(
        InDirection(Direction.REPLY),
        equals("tls.content_type", HANDSHAKE),
        VERSION_3,
        one_of("tls.handshake_type", tuple((kind, kind) for kind in kinds)),
    )


def _session() -> Match:
    """A ServerHello of TLS 1.2 or earlier with a session_id. TLS 1.3 repeats what the client made up."""
    return all_of(
        _from_server(SERVER_HELLO),
        equals("tls.session_id_length", _SESSION_ID_BYTES),
        one_of("tls.sid32.cipher_suite", _BEFORE_1_3),
    )


def _is_one_of(ids: Sequence[bytes]) -> Match:
    return one_of("tls.session_id", tuple((int.from_bytes(one),) * 2 for one in sorted(ids)))


def _mark(name: str, match: Match, meaning: str) -> Rule:
    return _rule(name, match, Verdict.CONTINUE, meaning, SetMark(MARK, MARK))


def _rule(name: str, match: Match, verdict: Verdict, meaning: str, *effects: Effect) -> Rule:
    return Rule(
        name=name,
        match=match,
        verdict=verdict,
        origin=origin("pin", name, ()),
        meaning=meaning,
        effects=effects,
    )


POLICY: Final = Pin()
