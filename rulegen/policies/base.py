"""What a policy is: documented, with parameters, deciding which findings it answers and building their rules.

In:  findings with their capture and connection; the user's settings.
Out: Part: chains and sets of the IR.

A policy judges findings and builds matches. Whether an endpoint may be blocked at all is decided in
block.py alone.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import ClassVar, Final, TypeAlias

from analyzer.model import Finding
from rulegen.errors import WishError
from rulegen.ir.match import (
    Direction,
    InDirection,
    Interval,
    Match,
    Protocol,
    SomeRecord,
    all_of,
    any_of,
    one_of,
)
from rulegen.ir.rule import Chain, Citation, Hook, Origin, SetDeclaration, Source, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A finding where it was found."""

    finding: Finding
    capture: str
    """Name of the capture, without its folder."""
    connection: Mapping[str, object] | None
    """Row of the connections table; None for a finding about several connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A connection of the captures, and what was found in it."""

    row: Mapping[str, object]
    """Row of the connections table."""
    capture: str
    """Name of the capture, without its folder."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """The policy answers the finding, with these rules."""

    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """The policy does not answer the finding, for this reason."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    default: str
    meaning: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A policy's parameters, all of them, as the user wrote them or by default."""

    values: Mapping[str, str]
    hook: Hook = Hook.FORWARD
    asked: Mapping[str, str | None]
    """Findings that the user asked for by id, whatever their class, and whose side to hold responsible:
    client, server, or None for whom the finding names."""
    connections: Sequence[Seen] = ()
    """All connections of the captures, for a policy that `wants_connections`; else none."""
    sources: Sequence[Source] = ()
    """The captures."""

    def __getitem__(self, name: str) -> str:
        return self.values[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A policy's share of a ruleset."""

    chains: tuple[Chain, ...]
    sets: tuple[SetDeclaration, ...] = ()
    remarks: tuple[str, ...] = ()
    """What the operator has to know of these rules as a whole; one sentence each."""


class Policy(ABC):
    """One policy. Its three texts are for somebody who decides whether to load its rules."""

    name: ClassVar[str]
    stops: ClassVar[str]
    """What it stops."""
    costs: ClassVar[str]
    """Whom else it hits, and what it takes."""
    bypass: ClassVar[str]
    """How it can be got around."""
    parameters: ClassVar[tuple[Parameter, ...]]
    wants_connections: ClassVar[bool] = False
    """Its rules come from what the captures hold, not from findings alone."""
    wants_handshakes: ClassVar[bool] = False
    """And from what those connections' handshakes showed in clear (rulegen.handshakes), in their rows."""
    example: ClassVar[str] = ""
    """As the user could write it; for a policy that is nothing without parameters. Else its name."""

    def __init_subclass__(cls) -> None:
        cls.example = cls.example or cls.name

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        """The policy is the kind of answer that the finding calls for. Without a word of its own, to none."""
        return False

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        """Whether these settings answer a finding that the policy claims."""
        raise NotImplementedError(f"{self.name} claims findings and has no word on them")

    @abstractmethod
    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        """The rules, whether or not a finding calls for them."""

    def settings(
        self,
        given: Mapping[str, str],
        *,
        hook: Hook = Hook.FORWARD,
        asked: Mapping[str, str | None] | None = None,
        connections: Sequence[Seen] = (),
        sources: Sequence[Source] = (),
    ) -> Settings:
        """Check what the user gave and fill in the rest."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in given.items():
            if name not in known:
                raise WishError(f"policy {self.name} has no parameter {name!r}; it has {', '.join(known)}")
            choices = known[name].choices
            if choices and value not in choices:
                raise WishError(f"{self.name}:{name}={value}: one of {', '.join(choices)}")
        values = {name: given.get(name, parameter.default) for name, parameter in known.items()}
        return Settings(
            values=values,
            hook=hook,
            asked=asked or {},
            connections=connections if self.wants_connections else (),
            sources=sources,
        )


def origin(policy: str, rule: str, answered: Iterable[tuple[Observed, Answered]]) -> Origin:
    """Why a rule is there: the findings that are answered by it."""
    return Origin(
        policy=policy,
        citations=tuple(cite(observed) for observed, answer in answered if rule in answer.rules),
    )


def cite(observed: Observed) -> Citation:
    finding = observed.finding
    return Citation(finding=finding.id, capture=observed.capture, packets=finding.packets)


# --- parameters that many policies have --------------------------------------------------------------------

PORTS: Final = Parameter(name="ports", default="", meaning="server ports, 443,8443-8450; without, every port")
SERVERS: Final = Parameter(
    name="servers", default="", meaning="their addresses or prefixes; without, every server"
)
ACTION: Final = Parameter(
    name="action", default="drop", choices=("drop", "reset"), meaning="what becomes of the packet"
)


def places(settings: Settings) -> tuple[tuple[Interval, ...], tuple[Network, ...]]:
    """The ports and servers that were asked for, as PORTS and SERVERS; empty for all."""
    return parse_ports(settings["ports"]), parse_servers(settings["servers"])


def refusal(settings: Settings) -> Verdict:
    """What becomes of a packet that is refused (as ACTION)."""
    return Verdict.RESET if settings["action"] == "reset" else Verdict.DROP


# --- reading parameters -----------------------------------------------------------------------------------

_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_DURATION: Final = re.compile(r"(\d{1,9})([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION_MAX_S: Final = 365 * 86400
"""A block that outlives the memory of why it was made is no answer to an incident."""


def parse_ports(text: str) -> tuple[Interval, ...]:
    """`443,8443,9000-9010`; empty for any port."""
    ports = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _PORT.fullmatch(item)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 < low <= high <= 0xFFFF:
            raise WishError(f"{item!r} is no port; write 443,8443 or 9000-9010")
        ports.append((low, high))
    return tuple(sorted(set(ports)))


def parse_duration(text: str) -> int:
    """`90s`, `30m`, `24h`, `7d`, in seconds."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= DURATION_MAX_S:
        raise WishError(f"{text!r} is no duration; write 90s, 30m, 24h or 7d, a year at most")
    return seconds


Network: TypeAlias = IPv4Network | IPv6Network


def parse_servers(text: str) -> tuple[Network, ...]:
    """`192.0.2.7,2001:db8::/32`, overlapping ones joined; empty for any server."""
    networks: list[Network] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(item))
        except ValueError as error:
            raise WishError(f"{item!r} is no address or prefix: {error}") from None
    return collapsed(networks)


def collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The same addresses in as few prefixes as possible, IPv4 first, in order."""
    networks = list(networks)
    four = collapse_addresses(one for one in networks if isinstance(one, IPv4Network))
    six = collapse_addresses(one for one in networks if isinstance(one, IPv6Network))
    return (*four, *six)


def families(servers: tuple[Network, ...]) -> tuple[tuple[str, int], ...]:
    """The address families of the servers, as the prefix of their fields and as number; of none: both."""
    return tuple(
        (name, number)
        for name, number in (("ip", 4), ("ip6", 6))
        if not servers or any(server.version == number for server in servers)
    )


def elsewhere(
    observed: Observed, ports: tuple[Interval, ...], servers: tuple[Network, ...] = ()
) -> LeftAlone | None:
    """A finding about another server or port than those asked for is not answered by their rules."""
    server = (observed.connection or {}).get("server")
    if not isinstance(server, Mapping):
        return None
    port, address = server.get("port"), server.get("address")
    if ports and isinstance(port, int) and not any(low <= port <= high for low, high in ports):
        return LeftAlone(f"its server's port is {port}, not one of those asked for")
    if servers and isinstance(address, str) and not any(ip_address(address) in one for one in servers):
        return LeftAlone(f"its server is {address}, not one of those asked for")
    return None


DIRECTION: Final = Parameter(
    name="direction",
    default="both",
    choices=("both", "to-server", "to-client"),
    meaning="which packets are judged: those that clients send, those that servers send, or both",
)


def toward(direction: str, ports: tuple[Interval, ...], servers: tuple[Network, ...] = ()) -> Match:
    """Packets that go there (as DIRECTION): by port and address, or else by who opened the connection."""
    known = bool(ports or servers)
    if direction == "both":
        return any_of(to_server(ports, servers), to_client(ports, servers)) if known else Protocol("tcp")
    if known:
        return to_server(ports, servers) if direction == "to-server" else to_client(ports, servers)
    return InDirection(Direction.ORIGINAL if direction == "to-server" else Direction.REPLY)


RECORDS: Final = Parameter(
    name="records",
    default="1",
    choices=tuple(str(number) for number in range(1, 9)),
    meaning="how many records of a packet are looked at, by backends that walk from one to the next",
)


def among(match: Match, records: str) -> Match:
    """One of the first records of the packet (as RECORDS) is such a one; the match speaks of tls.* alone."""
    return match if records == "1" else SomeRecord(match, int(records))


def to_server(ports: tuple[Interval, ...], servers: tuple[Network, ...] = ()) -> Match:
    """Packets to one of the ports of one of the servers; where there are none of either, to any."""
    return _at("tcp.dport", ports, "daddr", servers)


def to_client(ports: tuple[Interval, ...], servers: tuple[Network, ...] = ()) -> Match:
    """Packets from one of the ports of one of the servers; where there are none of either, from any."""
    return _at("tcp.sport", ports, "saddr", servers)


def _at(port: str, ports: tuple[Interval, ...], address: str, servers: tuple[Network, ...]) -> Match:
    parts: list[Match] = [one_of(port, ports)] if ports else []
    families = [
        one_of(f"{family}.{address}", tuple((int(one[0]), int(one[-1])) for one in networks))
        for family, version in (("ip", 4), ("ip6", 6))
        if (networks := [one for one in servers if one.version == version])
    ]
    if families:
        parts.append(any_of(*families) if len(families) > 1 else families[0])
    return parts[0] if len(parts) == 1 else all_of(*parts)
