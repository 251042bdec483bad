"""What crosses the stages and leaves the package: findings and their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple


class Side(IntEnum):
    """Who sent it. CLIENT is who sent the ClientHello, whoever opened the TCP connection."""

    CLIENT = 0
    SERVER = 1


class Severity(IntEnum):
    """How bad it is; `--fail-on` compares it."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Action(StrEnum):
    """What a rule generator may do with a finding. Only A allows a block rule for an endpoint."""

    BLOCK = "A"
    """The offending endpoint attacked: it may be blocked."""
    TAMPERING = "A*"
    """Somebody on the path tampered: both visible addresses are victims."""
    CORROBORATE = "B"
    """Suspicious; needs corroboration."""
    POSTURE = "P"
    """A weakness of a server or client, not an attack."""
    INFORM = "I"
    """Worth knowing."""


class Finding(NamedTuple):
    """Something wrong, and what proves it."""

    id: str
    """Row of the catalogue, HB01 for example."""
    title: str
    severity: Severity
    action: Action
    connection: int | None
    """The TCP connection, numbered as Wireshark's tcp.stream; None for a finding about several."""
    packets: tuple[int, ...]
    """Packets that prove it, 1-based as in Wireshark. At most limits.FINDING_PACKETS;
    evidence["packet_count"] tells when there were more."""
    evidence: Mapping[str, object]
    """Values that prove it, as read from the wire; always JSON-ready. "bytes" is hex."""
    explanation: str
    """What it means, for a network engineer."""
    references: tuple[str, ...]
    """CVE, RFC section, paper."""
    offender: str | None = None
    """Address of the endpoint that did it, for class A only."""
    capture: int = 0
    """Index in `captures`."""
    policy: str | None = None
    """The rule policy that answers it (heartbleed, min-version, block), where there is one."""
    victims: tuple[str, ...] = ()
    """Addresses that suffer from it, where that is known."""
