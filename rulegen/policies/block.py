"""block: drop the packets of endpoints that attacked, for a time.

In:  findings of class A, and those that the user asked for by id.
Out: two sets, one per address family, and one chain.
Source: DESIGN.md section 2, action classes.

The one rule not to break: no address gets here from a finding of class A*, B, P or I unless the user asked
for that finding by its id. Tampering has two victims and no visible culprit; a posture is no attack.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final

from analyzer.model import Action, Finding
from rulegen.ir.match import Lookup, Match, any_of
from rulegen.ir.rule import Chain, Element, Hook, Rule, SetDeclaration, Verdict
from rulegen.policies.base import (
    Answered,
    LeftAlone,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    origin,
    parse_duration,
)

WHY_NOT: Final = {
    Action.TAMPERING: "class A*: somebody on the path tampered, both visible addresses are victims",
    Action.CORROBORATE: "class B: suspicious, not proven",
    Action.POSTURE: "class P: a weakness, not an attack",
    Action.INFORM: "class I: information",
}
"""Why no endpoint is blocked for a finding of such a class."""

_FAMILIES: Final = (("ip", 4), ("ip6", 6))


class Block(Policy):
    name: ClassVar[str] = "block"
    stops: ClassVar[str] = (
        "Every packet from addresses that attacked (findings of class A with a known offender), until"
        " their time is over. More can be added to the two sets by hand while the rules are loaded."
    )
    costs: ClassVar[str] = (
        "Everybody behind a blocked address, a NAT or a proxy for example. A captured address may be"
        " spoofed where the attack needed no handshake. Loading the file again starts the time anew."
    )
    bypass: ClassVar[str] = "Another address: of the same IPv6 prefix, of another host, through a proxy."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="ttl", default="24h", meaning="how long an address stays blocked: 90s, 30m, 24h, 7d"),
        Parameter(
            name="side",
            default="auto",
            choices=("auto", "source", "destination", "both"),
            meaning="packets from it, to it, or both; auto: from it, in the output hook to it",
        ),
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
        return Answered((_rule_name(parsed.version),))

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ttl_s = parse_duration(settings["ttl"])
        side = settings["side"]
        if side == "auto":
            side = "destination" if settings.hook is Hook.OUTPUT else "source"
        rules, sets = [], []
        for family, version in _FAMILIES:
            name = _rule_name(version)
            mine = [(observed, answer) for observed, answer in answered if name in answer.rules]
            sets.append(
                SetDeclaration(
                    name=f"blocked-ipv{version}",
                    fields=(f"{family}.saddr",),
                    elements=tuple(_elements([observed for observed, _ in mine], settings.asked, ttl_s)),
                    timeout_s=ttl_s,
                    meaning=f"IPv{version} addresses that are blocked for a time",
                )
            )
            rules.append(
                Rule(
                    name=name,
                    match=_from_or_to(family, f"blocked-ipv{version}", side),
                    verdict=Verdict.DROP,
                    origin=origin(self.name, name, mine),
                    meaning=f"A packet {_WORDS[side]} a blocked IPv{version} address.",
                )
            )
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=tuple(rules)),), sets=tuple(sets))


_WORDS: Final = {"source": "from", "destination": "to", "both": "from or to"}


def _rule_name(version: int) -> str:
    return f"block-ipv{version}"


def _from_or_to(family: str, name: str, side: str) -> Match:
    fields = {"source": ("saddr",), "destination": ("daddr",), "both": ("saddr", "daddr")}[side]
    return any_of(*(Lookup((f"{family}.{field}",), name) for field in fields))


def _offender(observed: Observed, asked: Mapping[str, str | None]) -> str | None:
    """Who did it: whom the user holds responsible, else whom the finding names. Nobody is guessed."""
    side = asked.get(observed.finding.id)
    if side is None:
        return observed.finding.offender
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


def _elements(found: Sequence[Observed], asked: Mapping[str, str | None], ttl_s: int) -> list[Element]:
    """One per address, noting the first finding and how many more there were."""
    notes: dict[int, list[str]] = {}
    for observed in found:
        parsed = _blockable(_offender(observed, asked) or "")
        assert not isinstance(parsed, str), "an address that `judge` let pass"
        address = int(parsed)
        packets = ",".join(f"#{packet}" for packet in observed.finding.packets[:1])
        notes.setdefault(address, []).append(f"{observed.finding.id} {observed.capture} {packets}".rstrip())
    return [
        Element(
            key=((address, address),),
            timeout_s=ttl_s,
            note=texts[0] if len(texts) == 1 else f"{len(texts)} findings, first {texts[0]}",
        )
        for address, texts in sorted(notes.items())
    ]


POLICY: Final = Block()
