"""min-version: refuse handshakes below a version of TLS.

In:  the lowest version, ports, what to do, and whether split hellos are refused.
Out: one chain.
Source: RFC 8996 (TLS 1.0, 1.1), RFC 7568 (SSL 3.0), RFC 6176 (SSL 2.0); RFC 8446 4.1.2, 4.1.3, 5.1, D.5;
    RFC 6101 E for the SSLv2 hello.

The version is in the hello's body, never in its record: a ClientHello's record says 0x0301 (or 0x0300) for
old servers' sake, whatever the client speaks. TLS 1.3 says 0x0303 in both hellos and its real version in an
extension at no fixed place, so that 1.2 and 1.3 can't be told apart here and min=1.3 is not offered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from analyzer.model import Finding
from rulegen.ir.match import (
    Match,
    Not,
    Op,
    Present,
    Protocol,
    Test,
    all_of,
    any_of,
    between,
    equals,
    one_of,
)
from rulegen.ir.rule import Chain, Rule, Verdict
from rulegen.policies.base import (
    Answered,
    LeftAlone,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    elsewhere,
    origin,
    parse_ports,
    to_client,
    to_server,
)

VERSIONS: Final = {"1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303}
_NEGOTIATED: Final = {
    "SSLv2": 0x0002,
    "SSLv3": 0x0300,
    "TLSv1.0": 0x0301,
    "TLSv1.1": 0x0302,
    "TLSv1.2": 0x0303,
    "TLSv1.3": 0x0304,
}
"""The names of the connections table."""
_FINDINGS: Final = {
    "DG12": ("min-version-server-hello", "min-version-record"),
    "DG13": ("min-version-client-hello",),
    "DG14": ("min-version-sslv2-client",),
}

CHANGE_CIPHER_SPEC: Final = 20
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2


class MinVersion(Policy):
    name: ClassVar[str] = "min-version"
    stops: ClassVar[str] = (
        "ClientHellos that offer at most, and ServerHellos that choose, a version below min; SSLv2"
        " hellos of both sides, also those that offer more; ChangeCipherSpec and application data"
        " records of connections below min that were there before the rules."
    )
    costs: ClassVar[str] = (
        "Clients and servers that speak nothing newer are cut off; `drop` lets them wait for their"
        " time-out, `reset` tells the sender of the refused packet, not its peer. Connections below"
        " min that exist already break. split=drop also refuses the legitimate sender that writes a"
        " hello in pieces of less than 11 bytes."
    )
    bypass: ClassVar[str] = (
        "A hello that does not start its packet's payload, or is cut within its first 11 bytes"
        " (split=drop refuses that), is not seen, but the records that follow are. SSLv2 hellos with a"
        " header of 3 bytes are not seen. TLS 1.3 can't be told from 1.2 at a fixed place: its hellos"
        " say 0x0303 too. A hello inside STARTTLS is seen, one inside a tunnel is not. Configure the"
        " servers."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="min", default="1.2", choices=tuple(VERSIONS), meaning="lowest version that passes"),
        Parameter(name="ports", default="", meaning="server ports, 443,8443-8450; without, every port"),
        Parameter(
            name="action", default="drop", choices=("drop", "reset"), meaning="what becomes of the packet"
        ),
        Parameter(
            name="split",
            default="pass",
            choices=("pass", "drop"),
            meaning="what to do with hellos cut before their version",
        ),
    )

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        return finding.id in _FINDINGS or finding.policy == self.name

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        if (other := elsewhere(observed, parse_ports(settings["ports"]))) is not None:
            return other
        lowest = VERSIONS[settings["min"]]
        row = observed.connection or {}
        key = "client_version" if observed.finding.id == "DG13" else "version"
        version = _NEGOTIATED.get(str(row.get(key)))
        if version is not None and version >= lowest and observed.finding.id != "DG14":
            return LeftAlone(f"{row.get(key)} is not below min={settings['min']}")
        return Answered(_FINDINGS.get(observed.finding.id, tuple(_FINDINGS["DG12"] + _FINDINGS["DG13"])))

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports = parse_ports(settings["ports"])
        verdict = Verdict.RESET if settings["action"] == "reset" else Verdict.DROP
        lowest = VERSIONS[settings["min"]]
        rules = tuple(
            Rule(
                name=name,
                match=match,
                verdict=verdict,
                origin=origin(self.name, name, answered),
                meaning=meaning,
            )
            for name, match, meaning in _rules(lowest, ports, split=settings["split"] == "drop")
        )
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=rules, guard=_guard(ports)),))


def _guard(ports: tuple[tuple[int, int], ...]) -> Match:
    return any_of(to_server(ports), to_client(ports)) if ports else Protocol("tcp")


def _rules(
    lowest: int, ports: tuple[tuple[int, int], ...], *, split: bool
) -> Iterator[tuple[str, Match, str]]:
    handshake = all_of(equals("tls.content_type", HANDSHAKE), between("tls.version", 0x0300, 0x03FF))
    older = Test("tls.client_version", Op.LT, lowest)
    yield (
        "min-version-client-hello",
        all_of(to_server(ports), handshake, equals("tls.handshake_type", CLIENT_HELLO), older),
        f"A ClientHello that offers nothing as new as {lowest:#06x}.",
    )
    yield (
        "min-version-server-hello",
        all_of(to_client(ports), handshake, equals("tls.handshake_type", SERVER_HELLO), older),
        f"A ServerHello that chooses a version below {lowest:#06x}.",
    )
    yield (
        "min-version-record",
        all_of(
            one_of("tls.content_type", ((CHANGE_CIPHER_SPEC,) * 2, (APPLICATION_DATA,) * 2)),
            between("tls.version", 0x0300, lowest - 1),
        ),
        f"A record of a connection whose negotiated version is below {lowest:#06x}.",
    )
    two_byte_header = Test("ssl2.record_length", Op.GE, 0x8000)
    yield (
        "min-version-sslv2-client",
        all_of(
            to_server(ports),
            two_byte_header,
            equals("ssl2.message_type", 1),
            one_of("ssl2.version", ((0x0002, 0x0002), (0x0300, 0x03FF))),
            between("ssl2.cipher_specs_length", 3, 0x1FFF),
            one_of("ssl2.session_id_length", ((0, 0), (16, 16))),
            between("ssl2.challenge_length", 16, 32),
        ),
        "An SSLv2 ClientHello, whatever it offers.",
    )
    yield (
        "min-version-sslv2-server",
        all_of(
            to_client(ports),
            two_byte_header,
            equals("ssl2.message_type", 4),
            between("ssl2.session_id_hit", 0, 1),
            between("ssl2.certificate_type", 0, 1),
            equals("ssl2.server_version", 0x0002),
        ),
        "An SSLv2 ServerHello.",
    )
    if split:
        yield (
            "min-version-split",
            all_of(
                equals("tls.content_type", HANDSHAKE),
                Not(Present("tls.client_version")),
                any_of(
                    Not(Present("tls.handshake_type")),
                    between("tls.handshake_type", CLIENT_HELLO, SERVER_HELLO),
                ),
            ),
            "A hello cut before its version can't be judged and is refused.",
        )


POLICY: Final = MinVersion()
