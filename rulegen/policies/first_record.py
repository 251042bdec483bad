"""first-record: each direction of a connection has to begin with a hello that later rules can judge.

In:  ports, servers, whether SSL 2.0 may be, what becomes of connections met in their midst, what to do.
Out: one chain.
Source: RFC 5246 6.2.1, 7.4.1; RFC 8446 4.1.2, 4.1.3, 5.1; Linux nf_conntrack_proto_tcp.c: a packet that is no
    SYN may open an entry too (nf_conntrack_tcp_loose).

A bit of the connection's mark says that a direction still owes its hello; the SYN sets both. So connections
without a mark, those from before the rules, owe nothing, and the rule not to break is: no other packet may
make conntrack's entry for a connection to one of these ports, or its first record is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from rulegen.errors import WishError
from rulegen.ir.match import (
    WITHOUT_CONNECTION,
    Direction,
    InDirection,
    InState,
    Marked,
    Match,
    Not,
    Op,
    Present,
    State,
    Test,
    all_of,
    any_of,
    between,
    equals,
)
from rulegen.ir.rule import Chain, Hook, Origin, Rule, SetMark, Verdict
from rulegen.policies.base import (
    ACTION,
    SERVERS,
    Answered,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    places,
    refusal,
    to_client,
    to_server,
    toward,
)
from rulegen.policies.hellos import (
    ALERT,
    CHOICES,
    CLIENT_HELLO,
    HANDSHAKE,
    SERVER_HELLO,
    ssl2_client_hello,
    ssl2_server_hello,
)

OWES_CLIENT: Final = 0x0100_0000
OWES_SERVER: Final = 0x0200_0000
"""Bits of the connection's mark: the side has not sent its hello yet."""
_BOTH: Final = OWES_CLIENT | OWES_SERVER

_SYN: Final = 0x02
_SYN_ACK: Final = 0x12

HELLO_MIN_BYTES: Final = {CLIENT_HELLO: 45, SERVER_HELLO: 42}
"""The shortest that can be, its header of 4 bytes included: no session_id, one suite, one compression method,
no extensions. RFC 5246 7.4.1.2, 7.4.1.3."""
_RECORD_MAX_BYTES: Final = 1 << 14
"""RFC 5246 6.2.1: of a record that is not encrypted."""
_CLIENT_HELLO_MAX_BYTES: Final = 131_396
"""RFC 5246 7.4.1.2 allows so much, if each list has its full length and all extensions together 2^16 - 1."""


class FirstRecord(Policy):
    name: ClassVar[str] = "first-record"
    stops: ClassVar[str] = (
        "Connections to these ports whose first payload, from either side, is not the beginning of a"
        " whole and sane hello: for the client a ClientHello, for the server a ServerHello or an alert. So"
        " no hello is cut, in TCP or in records, before the end of what lies in it at a fixed place, and"
        " neither other protocols nor heartbeats and the like come before it. Also refused are packets"
        " that belong to no connection, or to one whose opening conntrack has not seen."
    )
    costs: ClassVar[str] = (
        "Ports on which TLS is not the first thing said can't be guarded: STARTTLS (SMTP, IMAP, LDAP,"
        " PostgreSQL), the PROXY protocol, servers that answer plain HTTP with a page. A client that"
        " writes less than its ClientHello up to the session_id in its first segment is cut off; segments"
        " of a hello that arrive before its first are dropped and have to be sent again, and with"
        " action=reset they end the connection. A server that sends a warning alert and its ServerHello in"
        " one segment is cut off. Connections that conntrack knew before the rules were loaded pass"
        " unjudged; those that it meets in their midst (conntrack was off, its entry timed out, the route"
        " changed) break, unless midstream=pass. Where only one direction comes by here, nothing works."
        " Two bits of the connection mark (0x03000000)."
    )
    bypass: ClassVar[str] = (
        "Only the first record is held to anything: later ones may be cut as the sender likes, and the"
        " rest of a hello behind its first segment is not looked at. A sane hello that dies on its way to"
        " the peer (a low TTL) pays for another one, with the same sequence number, that does not. With"
        " midstream=pass a client can open a connection, make conntrack forget it (by a RST that dies on"
        " its way) and go on unjudged. Other ports."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="ports", default="", meaning="server ports that speak TLS from the first byte; required"
        ),
        SERVERS,
        Parameter(
            name="sslv2",
            default="refuse",
            choices=("refuse", "allow"),
            meaning="hellos in the format of SSL 2.0, which clients from before 2011 send",
        ),
        Parameter(
            name="midstream",
            default="refuse",
            choices=("refuse", "pass"),
            meaning="what to do with connections of which conntrack has not seen the SYN",
        ),
        ACTION,
    )
    example: ClassVar[str] = "first-record:ports=443"

    # It claims no finding: it closes gaps of other policies, and none can tell which ports it fits.

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports, servers = places(settings)
        if not ports:
            raise WishError(f"first-record needs to know which ports speak TLS: {self.example}")
        verdict = refusal(settings)
        sslv2 = settings["sslv2"] == "allow"
        client = all_of(to_server(ports, servers), InDirection(Direction.ORIGINAL))
        server = all_of(to_client(ports, servers), InDirection(Direction.REPLY))
        rules = (
            _PAID,
            _opens(client),
            *([_midstream(verdict)] if settings["midstream"] == "refuse" else []),
            _stray(),
            *_owed(client, OWES_CLIENT, "client", _client_hello(sslv2), verdict),
            _alert(server),
            *_owed(server, OWES_SERVER, "server", _server_hello(sslv2), verdict),
        )
        guard = toward("both", ports, servers)
        remark = _ONE_WAY.get(settings.hook)
        return Part(
            chains=(Chain(name=self.name, policy=self.name, rules=rules, guard=guard),),
            remarks=(remark,) if remark else (),
        )


_ONE_WAY: Final = {
    Hook.INPUT: "first-record in the input hook sees what comes to this host: the clients of its servers are"
    " held to a ClientHello, its servers and those that its clients connect to are held to nothing.",
    Hook.OUTPUT: "first-record in the output hook sees what this host sends: its clients are held to a"
    " ClientHello, its servers and those that its clients connect to are held to nothing.",
}

_ORIGIN: Final = Origin(policy="first-record")
_PAYLOAD: Final = Present("tls.content_type")

_PAID: Final = Rule(
    name="first-record-paid",
    match=all_of(InState(frozenset({State.ESTABLISHED})), Marked(0, _BOTH)),
    verdict=Verdict.PASS,
    origin=_ORIGIN,
    meaning="Both sides have said hello, or the connection was there before the rules; most packets.",
)


def _opens(client: Match) -> Rule:
    return Rule(
        name="first-record-opens",
        match=all_of(client, InState(frozenset({State.NEW})), Test("tcp.flags", Op.EQ, _SYN, _SYN_ACK)),
        verdict=Verdict.CONTINUE,
        effects=(SetMark(_BOTH, _BOTH),),
        origin=_ORIGIN,
        meaning="A connection opens: remember that both sides owe a hello.",
    )


def _midstream(verdict: Verdict) -> Rule:
    return Rule(
        name="first-record-midstream",
        match=all_of(InState(frozenset({State.NEW})), Test("tcp.flags", Op.NE, _SYN, _SYN_ACK)),
        verdict=verdict,
        origin=_ORIGIN,
        meaning="A connection of which the SYN was not seen: whether it began with a hello is not known.",
    )


def _stray() -> Rule:
    return Rule(
        name="first-record-stray",
        match=all_of(InState(WITHOUT_CONNECTION), _PAYLOAD),
        verdict=Verdict.DROP,  # a reset could end a healthy connection of which this is a late packet
        origin=_ORIGIN,
        meaning="Payload that belongs to no connection can't be held to an order and is refused.",
    )


def _owed(way: Match, bit: int, side: str, hello: Match, verdict: Verdict) -> Iterator[Rule]:
    owing = all_of(way, Marked(bit, bit), _PAYLOAD)
    yield Rule(
        name=f"first-record-{side}-hello",
        match=all_of(owing, hello),
        verdict=Verdict.PASS,
        effects=(SetMark(0, bit),),
        origin=_ORIGIN,
        meaning=f"The {side} begins with a hello and owes nothing more.",
    )
    yield Rule(
        name=f"first-record-{side}",
        match=owing,
        verdict=verdict,
        origin=_ORIGIN,
        meaning=f"The {side} begins with something else than a whole, sane hello.",
    )


def _alert(server: Match) -> Rule:
    return Rule(
        name="first-record-server-alert",
        match=all_of(
            server,
            Marked(OWES_SERVER, OWES_SERVER),
            equals("tls.content_type", ALERT),
            between("tls.version", 0x0300, 0x0303),
            equals("tls.length", 2),
            between("tls.alert_level", 1, 2),
            Present("tls.alert_description"),
            Not(Present("tls.heartbeat_payload_length")),  # its end is one byte behind that of an alert
        ),
        verdict=Verdict.PASS,
        origin=_ORIGIN,
        meaning="The server begins with an alert, alone in its packet; it still owes its hello.",
    )


def _hello(kind: int) -> Match:
    """What both hellos share, so long that their fixed part is in the record and in the packet."""
    return all_of(
        equals("tls.content_type", HANDSHAKE),
        between("tls.version", 0x0300, 0x0303),
        between("tls.length", HELLO_MIN_BYTES[kind], _RECORD_MAX_BYTES),
        equals("tls.handshake_type", kind),
        between("tls.handshake_length", HELLO_MIN_BYTES[kind] - 4, _CLIENT_HELLO_MAX_BYTES),
        between("tls.client_version", 0x0300, 0x0303),
        between("tls.session_id_length", 0, 32),
    )


def _full_session_id(kind: int, last: str) -> Match:
    """With 32 bytes of session_id, record and packet reach further."""
    return any_of(
        between("tls.session_id_length", 0, 31),
        all_of(
            equals("tls.session_id_length", 32),
            between("tls.length", HELLO_MIN_BYTES[kind] + 32, _RECORD_MAX_BYTES),
            Present(last),
        ),
    )


def _client_hello(sslv2: bool) -> Match:
    hello = all_of(_hello(CLIENT_HELLO), _full_session_id(CLIENT_HELLO, "tls.session_id"))
    return any_of(hello, ssl2_client_hello()) if sslv2 else hello


def _server_hello(sslv2: bool) -> Match:
    last = "compression_method"
    hello = all_of(
        _hello(SERVER_HELLO),
        Present(f"{CHOICES[0]}.{last}"),
        _full_session_id(SERVER_HELLO, f"{CHOICES[32]}.{last}"),
    )
    return any_of(hello, ssl2_server_hello()) if sslv2 else hello


POLICY: Final = FirstRecord()
