"""block: drop the packets of endpoints that attacked, for a time.

In:  findings of class A, and those that the user asked for by id.
Out: two sets, one per address family, and one chain.
Source: DESIGN.md section 2, action classes.

The one rule not to break: no address gets here from a finding of class A*, B, P or I unless the user asked
for that finding by its id. Tampering has two victims and no visible culprit; a posture is no attack. Nor does
a prefix ever take in more than was asked for, or an address that was attacked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import ClassVar, Final

from analyzer.model import Action, Finding
from rulegen.errors import WishError
from rulegen.ir.match import Interval, Lookup, Match, all_of, any_of
from rulegen.ir.rule import Chain, Element, Hook, Rule, SetDeclaration, Verdict
from rulegen.policies.base import (
    Answered,
    LeftAlone,
    Network,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    collapsed,
    elsewhere,
    families,
    origin,
    parse_duration,
    places,
    to_client,
    to_server,
)

WHY_NOT: Final = {
    Action.TAMPERING: "class A*: somebody on the path tampered, both visible addresses are victims",
    Action.CORROBORATE: "class B: suspicious, not proven",
    Action.POSTURE: "class P: a weakness, not an attack",
    Action.INFORM: "class I: information",
}
"""Why no endpoint is blocked for a finding of such a class."""

PREFIXES: Final = {4: (8, 32), 6: (19, 128)}
"""The shortest and longest prefix that may be asked for. Registries gave no holder a shorter one than /8
and /19."""


class Block(Policy):
    name: ClassVar[str] = "block"
    stops: ClassVar[str] = (
        "Every packet from addresses that attacked (findings of class A with a known offender), until"
        " their time is over; with ports or servers, only what goes to these. More can be added to the"
        " two sets by hand while the rules are loaded."
    )
    costs: ClassVar[str] = (
        "Everybody behind a blocked address, a NAT or a proxy for example; with prefix4 or prefix6, also"
        " the neighbours, except where an address that was attacked is among them: then the address"
        " alone is blocked. A captured address may be spoofed where the attack needed no handshake."
        " Loading the file again starts the time anew and forgets what was added by hand."
    )
    bypass: ClassVar[str] = (
        "Another address: of the same IPv6 prefix (prefix6=64 answers that), of another host, through a"
        " proxy. With ports or servers, everything else of the same address."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="ttl", default="24h", meaning="how long an address stays blocked: 90s, 30m, 24h, 7d"),
        Parameter(
            name="side",
            default="auto",
            choices=("auto", "source", "destination", "both"),
            meaning="packets from it, to it, or both; auto: from it, in the output hook to it",
        ),
        Parameter(name="prefix4", default="32", meaning="block all of an IPv4 offender's prefix, 24 for /24"),
        Parameter(
            name="prefix6", default="128", meaning="block all of an IPv6 offender's prefix, 64 for /64"
        ),
        Parameter(name="ports", default="", meaning="only towards these server ports; without, all packets"),
        Parameter(name="servers", default="", meaning="only towards these addresses or prefixes"),
    )

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        return finding.action is Action.BLOCK or finding.id in asked

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        finding = observed.finding
        if finding.action is not Action.BLOCK and finding.id not in settings.asked:
            return LeftAlone(
                f"{WHY_NOT[finding.action]}; only --finding {finding.id} would block an address for it"
            )
        address = _offender(observed, settings.asked)
        if address is None:
            return LeftAlone(f"no offender known; --finding {finding.id}:client or :server names one")
        if finding.id not in settings.asked and address in finding.victims:
            return LeftAlone("the only address it names is a victim's")
        parsed = _blockable(address)
        if isinstance(parsed, str):
            return LeftAlone(parsed)
        ports, servers = places(settings)
        if (other := elsewhere(observed, ports, servers)) is not None:
            return other
        if (ports or servers) and address == _address(observed, "server"):
            return LeftAlone("its offender is the server; with ports or servers only clients are blocked")
        if all(version != parsed.version for _, version in families(servers)):
            return LeftAlone(f"none of the servers asked for has an IPv{parsed.version} address")
        return Answered((_rule_name(parsed.version),))

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ttl_s = parse_duration(settings["ttl"])
        ports, servers = places(settings)
        prefixes = {version: _prefix(settings, version) for version in PREFIXES}
        side = settings["side"]
        if side == "auto":
            side = "destination" if settings.hook is Hook.OUTPUT else "source"
        rules, sets = [], []
        for family, version in families(servers):
            name, blocked = _rule_name(version), f"blocked-ipv{version}"
            mine = [(observed, answer) for observed, answer in answered if name in answer.rules]
            found = [observed for observed, _ in mine]
            sets.append(
                SetDeclaration(
                    name=blocked,
                    fields=(f"{family}.saddr",),
                    elements=tuple(_elements(found, settings.asked, ttl_s, prefixes[version])),
                    timeout_s=ttl_s,
                    meaning=f"IPv{version} addresses that are blocked for a time",
                )
            )
            theirs = tuple(server for server in servers if server.version == version)
            rules.append(
                Rule(
                    name=name,
                    match=_from_or_to(family, blocked, side, ports, theirs),
                    verdict=Verdict.DROP,
                    origin=origin(self.name, name, mine),
                    meaning=f"A packet {_WORDS[side]} a blocked IPv{version} address.",
                )
            )
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=tuple(rules)),), sets=tuple(sets))


_WORDS: Final = {"source": "from", "destination": "to", "both": "from or to"}


def _rule_name(version: int) -> str:
    return f"block-ipv{version}"


def _prefix(settings: Settings, version: int) -> int:
    text = settings[f"prefix{version}"]
    shortest, longest = PREFIXES[version]
    if not (text.isascii() and text.isdigit() and shortest <= int(text) <= longest):
        raise WishError(f"prefix{version}={text}: a number from {shortest} to {longest}")
    return int(text)


def _from_or_to(
    family: str, blocked: str, side: str, ports: tuple[Interval, ...], servers: tuple[Network, ...]
) -> Match:
    """Packets of the blocked; with ports or servers, only of their connections to these."""
    ways: list[Match] = [
        Lookup((f"{family}.{field}",), blocked)
        if not ports and not servers
        else all_of(Lookup((f"{family}.{field}",), blocked), at(ports, servers))
        for field, at, sides in (
            ("saddr", to_server, ("source", "both")),
            ("daddr", to_client, ("destination", "both")),
        )
        if side in sides
    ]
    return any_of(*ways)


def _offender(observed: Observed, asked: Mapping[str, str | None]) -> str | None:
    """Who did it: whom the user holds responsible, else whom the finding names. Nobody is guessed."""
    side = asked.get(observed.finding.id)
    return observed.finding.offender if side is None else _address(observed, side)


def _address(observed: Observed, side: str) -> str | None:
    """Address of the connection's client or server, where there is one connection."""
    endpoint = (observed.connection or {}).get(side)
    address = endpoint.get("address") if isinstance(endpoint, Mapping) else None
    return address if isinstance(address, str) else None


@lru_cache(maxsize=65_536)
def _blockable(address: str) -> IPv4Address | IPv6Address | str:
    """The address, or why it can't be blocked: it names no single host that sends."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "the offender is no IP address"
    for unfit, what in (
        (parsed.is_unspecified, "the unspecified address"),
        (parsed.is_loopback, "a loopback address"),
        (parsed.is_multicast, "a multicast address"),
        (parsed == IPv4Address("255.255.255.255"), "the broadcast address"),
        (isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None, "an IPv4-mapped address"),
    ):
        if unfit:
            return f"the offender's address is {what}"
    return parsed


def _elements(
    found: Sequence[Observed], asked: Mapping[str, str | None], ttl_s: int, prefix: int
) -> Iterator[Element]:
    """One per prefix, or more where they join, noting the first finding and how many more there were."""
    notes: dict[Network, list[str]] = {}
    spared = _spared(found, asked, prefix)
    for observed in found:
        address = _blockable(_offender(observed, asked) or "")
        assert not isinstance(address, str), "an address that `judge` let pass"
        network = _network(address, prefix)
        if network in spared:
            network = ip_network(address)
        packets = ",".join(f"#{packet}" for packet in observed.finding.packets[:1])
        notes.setdefault(network, []).append(f"{observed.finding.id} {observed.capture} {packets}".rstrip())
    apart = sorted(notes, reverse=True)
    for joined in collapsed(notes):
        texts: list[str] = []
        while apart and apart[-1][0] in joined:
            texts += notes[apart.pop()]
        yield Element(
            key=((int(joined[0]), int(joined[-1])),),
            timeout_s=ttl_s,
            note=texts[0] if len(texts) == 1 else f"{len(texts)} findings, first {texts[0]}",
        )


def _spared(found: Sequence[Observed], asked: Mapping[str, str | None], prefix: int) -> set[Network]:
    """Prefixes with an address that was attacked, or that an offender spoke to, and that is no offender."""
    offenders = {_offender(observed, asked) for observed in found}
    others = {
        address
        for observed in found
        for address in (
            *observed.finding.victims,
            _address(observed, "client"),
            _address(observed, "server"),
        )
    } - offenders
    parsed = map(_blockable, filter(None, others))
    return {
        _network(one, prefix) for one in parsed if not isinstance(one, str) and prefix <= one.max_prefixlen
    }


def _network(address: IPv4Address | IPv6Address, prefix: int) -> Network:
    return ip_network(f"{address}/{prefix}", strict=False)


POLICY: Final = Block()
