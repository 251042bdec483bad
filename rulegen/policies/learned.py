"""learned: allow what known-good captures show, and refuse the rest of TLS.

In:  the connections of the captures; strangers, ports, servers, what to do.
Out: for each group of servers that are alike, a set per address family and a chain; a chain for strangers;
    remarks on what the captures do not prove.
Source: RFC 8446 4.1.2, 4.1.3, 5.1; policies/hellos.py for where versions lie.

The rule not to break: a connection in which something suspicious was found (class A, A* or B) teaches
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from rulegen.errors import WishError
from rulegen.ir.match import (
    InState,
    Lookup,
    Marked,
    Match,
    Not,
    Op,
    Present,
    Protocol,
    State,
    Test,
    all_of,
    any_of,
    between,
    equals,
    one_of,
)
from rulegen.ir.rule import Chain, Element, Origin, Rule, SetDeclaration, SetMark, Verdict
from rulegen.policies.base import (
    ACTION,
    Answered,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    families,
    places,
    refusal,
    to_server,
)
from rulegen.policies.hellos import (
    CLIENT_HELLO,
    HANDSHAKE,
    SERVER_HELLO,
    VERSION_3,
    hello,
    ssl2_client_hello,
)
from rulegen.policies.lessons import Group, Lessons, learn, not_proven

MARK_OWES: Final = 0x0080_0000
"""Bit of the connection's mark: it has been opened, and its ClientHello has not passed yet."""

_SYN, _ACK = 0x02, 0x10


class Learned(Policy):
    name: ClassVar[str] = "learned"
    stops: ClassVar[str] = (
        "ClientHellos to servers that the captures do not have; and at those that they have (by address and"
        " port), ClientHellos and ServerHellos of a version that was not seen there, hellos cut before their"
        " version, and, where TLS came first in the captures, connections that begin with anything else."
        " Give captures that are known to be good."
    )
    costs: ClassVar[str] = (
        "All that is legitimate and was not captured: the ruleset's header and the account say what the"
        " captures do not prove. Servers whose addresses change, behind a CDN for example, become strangers."
        " Connections from before the rules are not held to their first record. Segments of a ClientHello"
        " that overtake its first are dropped, and with reset the connection ends. One bit of the connection"
        " mark (0x00800000)."
    )
    bypass: ClassVar[str] = (
        "TLS 1.2 and 1.3 have the same version at fixed places: who was seen with one may use the other."
        " Whoever has the address of a learned server, or sends it a hello of a version that was seen,"
        " passes: names, certificates and cipher suites are not compared. A ClientHello that does not start"
        " its packet's payload is not seen at strangers. A connection that conntrack meets in its midst owes"
        " no first record (first-record answers that). What is no TLS passes to strangers."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="strangers",
            default="refuse",
            choices=("refuse", "pass"),
            meaning="what to do with ClientHellos to servers that the captures do not have",
        ),
        Parameter(name="ports", default="", meaning="only servers on these ports are learned and judged"),
        Parameter(name="servers", default="", meaning="only these addresses or prefixes, likewise"),
        ACTION,
    )
    wants_connections: ClassVar[bool] = True

    # It claims no finding: it answers captures.

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports, servers = places(settings)
        lessons = learn(settings.connections, ports, servers)
        if not lessons.groups:
            raise WishError(f"learned needs known-good captures; {lessons.nothing()}")
        refuse = refusal(settings)
        strangers = settings["strangers"] == "refuse"
        chains = [_group(group, refuse) for group in lessons.groups]
        if strangers:
            rules = tuple(
                _stranger(family, version, lessons, refuse) for family, version in families(servers)
            )
            guard = to_server(ports, servers) if ports or servers else Protocol("tcp")
            chains.append(Chain(name="learned-strangers", policy=self.name, rules=rules, guard=guard))
        return Part(
            chains=tuple(chains),
            sets=tuple(map(_declared, lessons.groups)),
            remarks=tuple(not_proven(lessons, settings.sources, strangers=strangers)),
        )


def _set_name(group: Group) -> str:
    return f"learned-ipv{group.family}-{group.number}"


def _prefix(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _declared(group: Group) -> SetDeclaration:
    return SetDeclaration(
        name=_set_name(group),
        fields=(f"{_prefix(group.family)}.daddr", "tcp.dport"),
        elements=tuple(
            Element(key=((int(address),) * 2, (port,) * 2), note=f"{count} connections")
            for (address, port), count in group.servers.items()
        ),
        meaning=f"servers that were seen with {group.described()}",
    )


def _to(group: Group) -> Lookup:
    return Lookup((f"{_prefix(group.family)}.daddr", "tcp.dport"), _set_name(group))


def _from(group: Group) -> Lookup:
    return Lookup((f"{_prefix(group.family)}.saddr", "tcp.sport"), _set_name(group))


def _group(group: Group, refuse: Verdict) -> Chain:
    """What is asked of servers that are alike; no other packet enters the chain."""
    name = _set_name(group)
    return Chain(
        name=name,
        policy=Learned.name,
        rules=tuple(_rules(group, name, refuse)),
        guard=any_of(_to(group), _from(group)),
    )


def _rules(group: Group, name: str, refuse: Verdict) -> Iterator[Rule]:
    if group.tls_first:
        yield _rule(
            f"{name}-opens",
            all_of(
                _to(group),
                InState(frozenset({State.NEW})),
                Test("tcp.flags", Op.EQ, _SYN, mask=_SYN | _ACK),
            ),
            Verdict.CONTINUE,
            "A connection opens: remember that a ClientHello has to come first.",
            SetMark(MARK_OWES, MARK_OWES),
        )
    yield _rule(
        f"{name}-hello",
        all_of(_to(group), hello(CLIENT_HELLO), _seen(group.client_versions)),
        Verdict.PASS,
        "A ClientHello of a version that clients were seen with.",
        *((SetMark(0, MARK_OWES),) if group.tls_first else ()),
    )
    yield _rule(
        f"{name}-other-hello",
        all_of(_to(group), _any_client_hello()),
        refuse,
        "A ClientHello of another version.",
    )
    yield _rule(
        f"{name}-other-choice",
        # An encrypted record may begin like a ServerHello: look for a version that there is.
        all_of(_from(group), hello(SERVER_HELLO), VERSION_IS_ONE, Not(_seen(group.server_versions))),
        refuse,
        "A ServerHello that chooses a version which the server was not seen with.",
    )
    yield _rule(
        f"{name}-cut", _cut(), refuse, "What may be a hello is cut before its version and is refused."
    )
    if group.tls_first:
        yield _rule(
            f"{name}-first",
            all_of(Marked(MARK_OWES, MARK_OWES), Present("tls.content_type")),
            refuse,
            "Payload before a ClientHello of a version that was seen.",
        )


def _stranger(family: str, version: int, lessons: Lessons, refuse: Verdict) -> Rule:
    known = [Not(_to(group)) for group in lessons.groups if group.family == version]
    return _rule(
        f"learned-stranger-ipv{version}",
        all_of(Protocol(family), any_of(_any_client_hello(), _cut_client_hello()), *known),
        refuse,
        f"A ClientHello to an IPv{version} server that the captures do not have.",
    )


VERSION_IS_ONE: Final = between("tls.client_version", 0x0300, 0x03FF)


def _seen(versions: frozenset[int]) -> Match:
    return one_of("tls.client_version", tuple((version, version) for version in sorted(versions)))


def _any_client_hello() -> Match:
    return any_of(all_of(hello(CLIENT_HELLO), VERSION_IS_ONE), ssl2_client_hello())


def _cut() -> Match:
    """What may be a hello of either side."""
    return all_of(
        equals("tls.content_type", HANDSHAKE),
        Not(Present("tls.client_version")),
        any_of(Not(Present("tls.handshake_type")), between("tls.handshake_type", CLIENT_HELLO, SERVER_HELLO)),
    )


def _cut_client_hello() -> Match:
    """To somebody of whom nothing is known: a lone byte 0x16 may be anything."""
    return all_of(
        equals("tls.content_type", HANDSHAKE),
        VERSION_3,
        Not(Present("tls.client_version")),
        any_of(Not(Present("tls.handshake_type")), equals("tls.handshake_type", CLIENT_HELLO)),
    )


def _rule(name: str, match: Match, verdict: Verdict, meaning: str, *effects: SetMark) -> Rule:
    return Rule(
        name=name,
        match=match,
        verdict=verdict,
        origin=Origin(policy=Learned.name),
        meaning=meaning,
        effects=effects,
    )


POLICY: Final = Learned()
