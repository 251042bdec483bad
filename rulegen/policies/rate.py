"""rate: hold each client to a rate of handshakes, alerts and renegotiations, and to a number of connections.

In:  a rate for each, ports, servers, what to do with what is too much.
Out: one chain.
Source: CVE-2011-1473 (renegotiation), CVE-2016-8610 (alerts); RFC 5246 7.4 for the messages that a client
    sends in clear; Linux net/netfilter/nft_limit.c, nf_conncount.c for what is counted.

A renegotiation is encrypted. What shows of it: a handshake record from the client that does not begin like
one of the messages that clients send in clear. The first of a connection may be its Finished, and is free; a
renegotiation has two packets of them or more (ClientHello; ClientKeyExchange with what follows), and two are
counted as one renegotiation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from analyzer.model import Finding
from rulegen.errors import WishError
from rulegen.ir.match import (
    InState,
    Interval,
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
from rulegen.ir.rule import Chain, ConnectionLimit, Limit, Rule, SetMark, Verdict
from rulegen.policies.base import (
    ACTION,
    PORTS,
    SERVERS,
    Answered,
    LeftAlone,
    Network,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    elsewhere,
    families,
    origin,
    places,
    refusal,
    to_server,
    toward,
)
from rulegen.policies.hellos import ALERT, CLIENT_HELLO, HANDSHAKE, VERSION_3, hello, ssl2_client_hello

MARK_FINISHED: Final = 0x0800_0000
"""Bit of the connection's mark: the client has sent a handshake record that may have been its Finished."""

RENEGOTIATION_PACKETS: Final = 2

IN_CLEAR: Final[tuple[Interval, ...]] = ((1, 1), (11, 11), (15, 16), (21, 21), (23, 23))
"""ClientHello, Certificate, CertificateVerify, ClientKeyExchange, CertificateURL, SupplementalData: RFC 5246
7.4, RFC 6066 5, RFC 4680 2. Finished is always encrypted."""

LONGEST_IN_CLEAR: Final = 0xFFFF
"""A client's message of 64 KiB would be a certificate chain that no server takes."""

RATE_MAX: Final = 10_000
"""Linux xt_hashlimit counts no finer: a rate above it would be another one there."""

_RATE: Final = re.compile(r"(\d{1,6})/(second|minute|hour|day)(?:/(\d{1,6}))?")
_OFF: Final = "off"
_SYN, _ACK = 0x02, 0x10


class Rate(Policy):
    name: ClassVar[str] = "rate"
    stops: ClassVar[str] = (
        "What exceeds a rate per source address: ClientHellos (of SSL 2.0 too), alerts that clients send,"
        " renegotiations that clients take part in; and connections that one address has open at once:"
        " the SYN of one more is refused. IPv4 and IPv6 addresses are counted apart. Each of the four can"
        " be off."
    )
    costs: ClassVar[str] = (
        "Everybody behind a NAT or a proxy is one source. A renegotiation is recognised by encrypted"
        " handshake records, two packets for one, so servers that renegotiate to ask for a client"
        " certificate need a higher rate or off. `open` counts all connections that conntrack holds and"
        " that are not closed, not only half-open ones: conntrack does not know whether a handshake of TLS"
        " was completed, and keeps a connection that ends without FIN or RST for days; connections from"
        " before the rules are not counted. Without ports or servers it counts connections that are not"
        " TLS too. Refused ClientHellos leave their connections open until"
        " somebody's time-out; with reset the client's side closes, the server's waits. One bit of the"
        " connection mark (0x08000000)."
    )
    bypass: ClassVar[str] = (
        "Many sources: rates are kept per address, not per prefix, so that whoever has an IPv6 /64 has 2^64"
        " sources; and the sets that count hold 65,535 of them, the next one is not limited. What does not"
        " start its packet's payload is not counted: many alerts in one packet are one, and a hello cut"
        " before its version is none. The first encrypted handshake packet of each connection is free. Of"
        " about 10,000 encrypted handshake records one begins like a message in clear and is not counted."
        " Connections through TLS 1.3 can't renegotiate, and their alerts are encrypted and not seen."
        " Configure the servers: renegotiation off."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="handshakes",
            default="20/second",
            meaning="ClientHellos per source: N/second, minute, hour or day; N/second/BURST; off",
        ),
        Parameter(name="alerts", default="50/second", meaning="packets with alerts per source, or off"),
        Parameter(name="renegotiations", default="3/minute", meaning="renegotiations per source, or off"),
        Parameter(name="open", default="100", meaning="connections that a source has open at once, or off"),
        PORTS,
        SERVERS,
        ACTION,
    )

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        return finding.policy == self.name

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        ports, servers = places(settings)
        if (other := elsewhere(observed, ports, servers)) is not None:
            return other
        return Answered(tuple(rule.name for rule in _rules(settings, ())))

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports, servers = places(settings)
        rules = tuple(_rules(settings, answered))
        if not rules:
            raise WishError("rate: everything is off")
        guard = to_server(ports, servers) if ports or servers else Protocol("tcp")
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=rules, guard=guard),))


def _rules(settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Iterator[Rule]:
    ports, servers = places(settings)
    refuse = refusal(settings)
    renegotiations = _rate(settings, "renegotiations", RENEGOTIATION_PACKETS)
    for what, rate, match in (
        ("handshakes", _rate(settings, "handshakes"), _new()),
        ("alerts", _rate(settings, "alerts"), _alert(ports, servers)),
        ("renegotiations", renegotiations, _again(ports, servers)),
    ):
        for family, version in families(servers) if rate else ():
            name = f"rate-{what}-ipv{version}"
            yield Rule(
                name=name,
                match=all_of(Protocol(family), match),
                verdict=refuse,
                origin=origin(Rate.name, name, answered),
                meaning=f"More {what} of an IPv{version} source than {settings[what]}.",
                limit=_per_source(rate, family),
            )
    if renegotiations:
        # Behind the rule that counts, so that the packet which sets the mark is not counted itself.
        yield Rule(
            name="rate-finished",
            match=all_of(_encrypted(ports, servers), Not(Marked(MARK_FINISHED, MARK_FINISHED))),
            verdict=Verdict.CONTINUE,
            effects=(SetMark(MARK_FINISHED, MARK_FINISHED),),
            origin=origin(Rate.name, "rate-finished", answered),
            meaning="Remember that the client's Finished may have passed: later ones are a renegotiation's.",
        )
    for family, version in families(servers) if settings["open"] != _OFF else ():
        name = f"rate-open-ipv{version}"
        yield Rule(
            name=name,
            match=all_of(
                Protocol(family),
                Test("tcp.flags", Op.EQ, _SYN, mask=_SYN | _ACK),
                InState(frozenset({State.NEW})),
            ),
            verdict=refuse,
            origin=origin(Rate.name, name, answered),
            meaning=f"An IPv{version} source opens one more connection than {settings['open']}.",
            limit=ConnectionLimit(connections=_number(settings, "open"), key=(f"{family}.saddr",)),
        )


def _new() -> Match:
    """A ClientHello in clear: an encrypted handshake record that begins like one has no version there."""
    return any_of(
        all_of(hello(CLIENT_HELLO), between("tls.client_version", 0x0300, 0x03FF)), ssl2_client_hello()
    )


def _alert(ports: tuple[Interval, ...], servers: tuple[Network, ...]) -> Match:
    return all_of(toward("to-server", ports, servers), equals("tls.content_type", ALERT), VERSION_3)


def _again(ports: tuple[Interval, ...], servers: tuple[Network, ...]) -> Match:
    """A packet of a renegotiation."""
    return all_of(_encrypted(ports, servers), Marked(MARK_FINISHED, MARK_FINISHED))


def _encrypted(ports: tuple[Interval, ...], servers: tuple[Network, ...]) -> Match:
    """A handshake record from the client that does not begin like a message in clear."""
    in_clear = all_of(
        one_of("tls.handshake_type", IN_CLEAR), Test("tls.handshake_length", Op.LE, LONGEST_IN_CLEAR)
    )
    return all_of(
        toward("to-server", ports, servers),
        equals("tls.content_type", HANDSHAKE),
        VERSION_3,
        Present("tls.handshake_length"),
        Not(in_clear),
    )


def _rate(settings: Settings, name: str, packets: int = 1) -> Limit | None:
    """The rate in packets, of which each of what is limited has so many; None if it is off."""
    text = settings[name]
    if text == _OFF:
        return None
    match = _RATE.fullmatch(text)
    count, burst = (int(match[1]), int(match[3] or match[1])) if match else (0, 0)
    if match is None or not (0 < count <= RATE_MAX and 0 < burst <= RATE_MAX):
        raise WishError(
            f"rate:{name}={text}: write 20/second, or 3/minute/10 with a burst, {RATE_MAX} at most; or off"
        )
    return Limit(packets=packets * count, per=match[2], burst=packets * burst)


def _per_source(rate: Limit | None, family: str) -> Limit | None:
    return rate and Limit(packets=rate.packets, per=rate.per, burst=rate.burst, key=(f"{family}.saddr",))


def _number(settings: Settings, name: str) -> int:
    text = settings[name]
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= RATE_MAX):
        raise WishError(f"rate:{name}={text}: a number from 1 to {RATE_MAX}, or off")
    return int(text)


POLICY: Final = Rate()
