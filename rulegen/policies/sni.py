"""sni: refuse ClientHellos for some server names, or for all but some.

In:  names, whether they are denied or alone allowed, ports, servers, what to do.
Out: one chain.
Source: RFC 6066 3 (server_name), RFC 8446 4.1.2; RFC 3490 for names that are not ASCII (Python's codec idna).

The one rule not to break: names come from the user alone. What a ClientHello of a capture asks for is chosen
by whoever sent it, who could have any host denied by naming it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import ClassVar, Final

from rulegen.errors import WishError
from rulegen.ir.check import is_host_name
from rulegen.ir.match import Match, Not, Present, Protocol, ServerName, all_of, any_of, between, equals
from rulegen.ir.rule import Chain, Origin, Rule, Verdict
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
    places,
    refusal,
    to_server,
)
from rulegen.policies.hellos import CLIENT_HELLO, HANDSHAKE, VERSION_3, hello, ssl2_client_hello

_WILDCARD: Final = "*."


class Sni(Policy):
    name: ClassVar[str] = "sni"
    stops: ClassVar[str] = (
        "mode=deny: ClientHellos whose server_name is one of the names. mode=allow: all other ClientHellos,"
        " those without a server_name and those of SSL 2.0 too, and handshake records cut before it shows"
        " that they are one. `*.b.example` is b.example and all names below it. Letters are compared"
        " without case; a name that is not ASCII is turned into its A-label as IDNA2003 has it, so write"
        " the A-label (xn--...) of a name that IDNA2008 turns into another one."
    )
    costs: ClassVar[str] = (
        "Needs a backend that can search a packet: nft refuses it, iptables and ip6tables refuse `*.` names."
        " A name shared by good and bad content is one name. mode=allow also refuses every ClientHello whose"
        " server_name is not in its first packet: extensions stand in any order, and hellos with"
        " post-quantum key shares have 1,700 bytes and more. Connections that were there before go on;"
        " `drop` lets clients wait for their time-out."
    )
    bypass: ClassVar[str] = (
        "The client chooses what it asks for: many servers answer without a server_name or to a false one,"
        " and HTTP asks for the host again inside. With Encrypted Client Hello the name in clear is that of"
        " the provider, which deny lets pass and allow has to list. deny does not see a name in the"
        " ClientHello's second packet, nor a ClientHello that does not start its packet's payload; allow"
        " does not see the latter. A false hello that the server discards, by its TTL or its checksum, shows"
        " these rules whatever name its sender likes."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="mode",
            default="deny",
            choices=("deny", "allow"),
            meaning="deny: the names are refused; allow: all others are",
        ),
        Parameter(name="names", default="", meaning="a.example,*.b.example; without, the policy is refused"),
        PORTS,
        SERVERS,
        ACTION,
    )
    example: ClassVar[str] = "sni:names=a.example"

    # It claims no finding: the names that they know were chosen by clients.

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        names = parse_names(settings["names"])
        if not names:
            raise WishError("sni: write the names, names=a.example,*.b.example")
        ports, servers = places(settings)
        refuse = refusal(settings)
        rules = _allow(names, bool(ports), refuse) if settings["mode"] == "allow" else _deny(names, refuse)
        guard = all_of(
            to_server(ports, servers) if ports or servers else Protocol("tcp"),
            # So that no other packet is held against every name.
            any_of(equals("tls.content_type", HANDSHAKE), ssl2_client_hello()),
        )
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=tuple(rules), guard=guard),))


def _deny(names: Sequence[ServerName], refuse: Verdict) -> Iterator[Rule]:
    for number, name in enumerate(names, 1):
        yield _rule(f"sni-deny-{number}", _asks_for(name), refuse, f"A ClientHello for {written(name)}.")


def _allow(names: Sequence[ServerName], at_ports: bool, refuse: Verdict) -> Iterator[Rule]:
    for number, name in enumerate(names, 1):
        meaning = f"A ClientHello for {written(name)}, which is allowed."
        yield _rule(f"sni-allow-{number}", _asks_for(name), Verdict.PASS, meaning)
    # An encrypted handshake record of a renegotiation may begin like a ClientHello: look at its version too.
    yield _rule(
        "sni-other",
        all_of(hello(CLIENT_HELLO), between("tls.client_version", 0x0300, 0x03FF)),
        refuse,
        "A ClientHello for no name that is allowed.",
    )
    # Without ports a lone byte 0x16 may be anything, Ctrl-V in a terminal for one: demand the version too.
    yield _rule(
        "sni-cut",
        all_of(
            equals("tls.content_type", HANDSHAKE),
            *(() if at_ports else (VERSION_3,)),
            Not(Present("tls.client_version")),
            any_of(Not(Present("tls.handshake_type")), equals("tls.handshake_type", CLIENT_HELLO)),
        ),
        refuse,
        "What may be a ClientHello is cut before its version and is refused.",
    )
    yield _rule("sni-ssl2", ssl2_client_hello(), refuse, "An SSLv2 ClientHello, which asks for no name.")


def _asks_for(name: ServerName) -> Match:
    """The search comes last, and only for what is a ClientHello."""
    return all_of(hello(CLIENT_HELLO), name)


def _rule(name: str, match: Match, verdict: Verdict, meaning: str) -> Rule:
    return Rule(name=name, match=match, verdict=verdict, origin=Origin(policy=Sni.name), meaning=meaning)


def written(name: ServerName) -> str:
    """As the user could write it."""
    return f"{_WILDCARD if name.subdomains else ''}{name.name}"


def parse_names(text: str) -> tuple[ServerName, ...]:
    """`a.example,*.b.example`, in order; without those that another one covers.

    Raises:
        WishError: One is no host name.
    """
    names = {_parse_name(item) for item in filter(None, (part.strip() for part in text.split(",")))}
    wide = {name.name for name in names if name.subdomains}
    return tuple(
        name
        for name in sorted(names, key=lambda name: (name.name, name.subdomains))
        if not _covered(name, wide)
    )


def _parse_name(item: str) -> ServerName:
    host = item.removeprefix(_WILDCARD).removesuffix(".")
    try:
        label = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise WishError(f"{item!r} is no host name: {error}") from None
    if not is_host_name(label):
        raise WishError(f"{item!r} is no host name; write a.example or *.b.example")
    if _is_address(label):
        raise WishError(f"{item!r} is an address, which a server_name never is (RFC 6066 3)")
    return ServerName(label, subdomains=item.startswith(_WILDCARD))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _covered(name: ServerName, wide: set[str]) -> bool:
    """A wildcard has it: its own name's, or that of one above it."""
    labels = name.name.split(".")
    above = {".".join(labels[start:]) for start in range(1, len(labels))}
    return bool(above & wide) or (not name.subdomains and name.name in wide)


POLICY: Final = Sni()
