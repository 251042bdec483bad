"""What known-good captures teach about servers, and what they do not prove.

In:  the connections of the captures with their findings; when the captures ran.
Out: Lessons: groups of servers that are alike; how many connections taught nothing, and why; remarks.
Source: analyzer/report/analysis-1.schema.json for the rows.

The rule not to break: what was not seen is said, never filled in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from analyzer.model import Action
from analyzer.report.text import count, duration, moment
from rulegen.ir.match import Interval
from rulegen.ir.rule import Source
from rulegen.lower.ranges import merged
from rulegen.policies.base import Network, Seen

# fmt: off
ON_THE_WIRE: Final = {
    "SSLv3": 0x0300, "TLSv1.0": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0303,
}
# fmt: on
"""Names of the connections table -> what a hello has at its fixed place (RFC 8446 4.1.2, 4.1.3)."""

SUSPICIOUS: Final = frozenset({Action.BLOCK, Action.TAMPERING, Action.CORROBORATE})

FEW: Final = 10
"""With fewer connections, a version that one in five clients uses was missed with a chance above 10 %."""

Server: TypeAlias = tuple[IPv4Address | IPv6Address, int]
"""Address and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Servers of one address family that were seen with the same."""

    number: int
    """Unique in its family, from 1."""
    family: int
    servers: Mapping[Server, int]
    """With how many connections each was seen, in the order of their addresses."""
    client_versions: frozenset[int]
    """As they are on the wire."""
    server_versions: frozenset[int]
    tls_first: bool
    """No connection had another protocol before TLS."""

    def described(self) -> str:
        """For the operator."""
        offered, chosen = _versions(self.client_versions), _versions(self.server_versions)
        return f"{offered} offered, {chosen} chosen{'' if self.tls_first else ', after another protocol'}"


@dataclass(slots=True)
class _Server:
    """What was seen of a server."""

    connections: int = 0
    clients: set[object] = field(default_factory=set)
    client_versions: set[int] = field(default_factory=set)
    server_versions: set[int] = field(default_factory=set)
    tls_first: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    groups: tuple[Group, ...]
    connections: int
    """Those that taught something."""
    untaught: Mapping[str, int]
    """Why connections taught nothing, and how many."""
    one_client: int
    """Servers that a single client was seen with."""
    resumed: int
    retried: int
    """With a HelloRetryRequest."""
    failed: int
    """Connections whose handshake was not completed."""

    def nothing(self) -> str:
        """Why nothing was learned."""
        if not self.untaught:
            return "no capture that was given has a TLS connection"
        return f"not one connection could be learned from: {_counted(self.untaught)}"


def learn(seen: Sequence[Seen], ports: tuple[Interval, ...], servers: tuple[Network, ...]) -> Lessons:
    """Learn from the connections to these ports and servers; without, from all."""
    known: dict[Server, _Server] = {}
    untaught: Counter[str] = Counter()
    taught = []
    for one in seen:
        server = _endpoint(one.row, "server")
        why = _useless(one, server, ports, servers)
        if why is not None or server is None:
            untaught[why or "without a server"] += 1
            continue
        taught.append(one.row)
        _add(known.setdefault(server, _Server()), one.row)
    return Lessons(
        groups=tuple(_groups(known)),
        connections=len(taught),
        untaught=dict(sorted(untaught.items())),
        one_client=sum(len(server.clients) == 1 for server in known.values()),
        resumed=sum(row.get("resumed") in ("session_id", "ticket", "psk") for row in taught),
        retried=sum(bool(row.get("hello_retry")) for row in taught),
        failed=sum(not one.row.get("established") for one in seen),
    )


def _useless(
    one: Seen, server: Server | None, ports: tuple[Interval, ...], servers: tuple[Network, ...]
) -> str | None:
    """Why a connection teaches nothing."""
    row = one.row
    if server is None:
        return "without a server"
    address, port = server
    if ports and not any(low <= port <= high for low, high in ports):
        return "to other ports"
    if servers and not any(address in network for network in servers):
        return "to other servers"
    suspicious = sorted({finding.id for finding in one.findings if finding.action in SUSPICIOUS})
    if suspicious:
        return f"suspicious ({', '.join(suspicious)})"
    sync = row.get("sync")
    if not isinstance(sync, Mapping) or {sync.get("client"), sync.get("server")} - {"synced", "gap"}:
        return "not seen from their start"
    if not row.get("established"):
        return "without a completed handshake"
    if row.get("version") not in ON_THE_WIRE or row.get("client_version") not in ON_THE_WIRE:
        return "of a version that is not at a fixed place"
    return None


def _endpoint(row: Mapping[str, object], side: str) -> Server | None:
    endpoint = row.get(side)
    if not isinstance(endpoint, Mapping):
        return None
    return ip_address(str(endpoint["address"])), int(str(endpoint["port"]))


def _add(server: _Server, row: Mapping[str, object]) -> None:
    client = _endpoint(row, "client")
    server.connections += 1
    server.clients.add(client and client[0])
    server.client_versions.add(ON_THE_WIRE[str(row["client_version"])])
    server.server_versions.add(ON_THE_WIRE[str(row["version"])])
    server.tls_first &= row.get("starttls") is None


def _groups(known: Mapping[Server, _Server]) -> Iterator[Group]:
    """IPv4 first; the same for the same servers."""
    alike: dict[tuple[int, bool, tuple[int, ...], tuple[int, ...]], dict[Server, int]] = {}
    for (address, port), server in sorted(known.items(), key=lambda item: (int(item[0][0]), item[0][1])):
        kind = (
            address.version,
            not server.tls_first,
            tuple(sorted(server.client_versions)),
            tuple(sorted(server.server_versions)),
        )
        alike.setdefault(kind, {})[address, port] = server.connections
    numbers: Counter[int] = Counter()
    for (family, prelude, offered, chosen), servers in sorted(alike.items()):
        numbers[family] += 1
        yield Group(
            number=numbers[family],
            family=family,
            servers=servers,
            client_versions=frozenset(offered),
            server_versions=frozenset(chosen),
            tls_first=not prelude,
        )


def not_proven(lessons: Lessons, sources: Sequence[Source], *, strangers: bool) -> Iterator[str]:
    """What the operator has to know who takes the captures for the whole truth; one sentence each."""
    counts = [number for group in lessons.groups for number in group.servers.values()]
    servers, connections = count(len(counts), "server"), count(lessons.connections, "connection")
    yield (
        f"{servers} learned from {connections}. That these are good, nothing proves: nothing suspicious was"
        " found in them."
    )
    if lessons.untaught:
        yield f"Connections that taught nothing: {_counted(lessons.untaught)}."
    few = [number for number in counts if number < FEW]
    if few:
        one = f", {few.count(1)} only one" if 1 in few else ""
        yield (
            f"{count(len(few), 'server')} had fewer than {FEW} connections{one}: what is rarer was not seen."
        )
    if lessons.one_client:
        yield f"{count(lessons.one_client, 'server')} had one client only: others may offer other versions."
    yield from _absent(lessons, strangers=strangers)
    if any(0x0303 in group.client_versions | group.server_versions for group in lessons.groups):
        yield "TLS 1.2 and 1.3 have the same version at fixed places: where one was seen, the other passes."
    yield from _ran(sources)
    yield (
        "What did not happen while the captures ran was not learned: jobs of the night and of the quarter,"
        " servers that stand in for others, addresses that change."
    )


def _ran(sources: Sequence[Source]) -> Iterator[str]:
    """How long the captures ran, time that several have counted once."""
    times = merged(source.times_ns for source in sources if source.times_ns)
    if times:
        ran_ns = sum(last - first for first, last in times)
        whole_ns = times[-1][1] - times[0][0]
        pauses = f" in {duration(whole_ns / 1e9)}" if len(times) > 1 else ""
        yield f"The captures ran for {duration(ran_ns / 1e9)}{pauses}, from {moment(times[0][0])} on."


def _absent(lessons: Lessons, *, strangers: bool) -> Iterator[str]:
    seen = {group.family for group in lessons.groups}
    for family in sorted({4, 6} - seen):
        fate = "all TLS over it is refused" if strangers else "TLS over it is not judged"
        yield f"No IPv{family} server was learned: {fate}."
    if not lessons.resumed:
        yield "No resumed session was seen."
    if not lessons.retried:
        yield "No HelloRetryRequest was seen."
    if not lessons.failed:
        yield "No handshake failed: whom the servers turn away, the captures do not show."


def _versions(versions: frozenset[int]) -> str:
    names = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2 or 1.3"}
    return ", ".join(names[version] for version in sorted(versions))


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {why}" for why, number in reasons.items())
