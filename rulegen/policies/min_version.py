"""min-version: refuse handshakes below a version of TLS.

In:  the lowest version, ports, servers, what to do, whether split hellos and marked downgrades are refused.
Out: one chain.
Source: RFC 8996 (TLS 1.0, 1.1), RFC 7568 (SSL 3.0), RFC 6176 (SSL 2.0); RFC 8446 4.1.2, 4.1.3, 4.2.1, 5.1,
    B.4, D.5; RFC 6101 E for the SSLv2 hello.

The version is in the hello's body, never in its record: a ClientHello's record says 0x0301 (or 0x0300) for
old servers' sake, whatever the client speaks. TLS 1.3 says 0x0303 in both hellos and its real version in
supported_versions. In a ClientHello that is anywhere. In a ServerHello it is first, at a fixed place, where
OpenSSL wrote it; BoringSSL writes key_share before it, 1,124 bytes of it in a capture of 2024. But a
ServerHello also names its suite, and TLS 1.3 shares none with older versions: that tells it everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from analyzer.model import Finding
from analyzer.wire.cipher_suites import CIPHER_SUITES
from analyzer.wire.suite_properties import suite_properties
from rulegen.ir.match import (
    Match,
    Not,
    Op,
    Present,
    Test,
    all_of,
    any_of,
    between,
    equals,
    one_of,
)
from rulegen.ir.rule import Chain, Rule
from rulegen.lower.ranges import Ranges, complement, merged
from rulegen.policies.base import (
    ACTION,
    PORTS,
    SERVERS,
    Answered,
    LeftAlone,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    elsewhere,
    origin,
    places,
    refusal,
    to_client,
    to_server,
    toward,
)
from rulegen.policies.hellos import (
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    HANDSHAKE,
    SERVER_HELLO,
    SUPPORTED_VERSIONS,
    choice,
    hello,
    ssl2_client_hello,
    ssl2_server_hello,
    unjudged,
)

TLS12: Final = 0x0303
TLS13: Final = 0x0304
VERSIONS: Final = {"1.0": 0x0301, "1.1": 0x0302, "1.2": TLS12, "1.3": TLS13}
_NEGOTIATED: Final = {
    "SSLv2": 0x0002,
    "SSLv3": 0x0300,
    "TLSv1.0": 0x0301,
    "TLSv1.1": 0x0302,
    "TLSv1.2": TLS12,
    "TLSv1.3": TLS13,
}
"""The names of the connections table."""
_FINDINGS: Final = {
    "DG12": ("min-version-server-hello", "min-version-record"),
    "DG13": ("min-version-client-hello",),
    "DG14": ("min-version-sslv2-client",),
}

HAS_TLS13: Final = 0x444F574E47524401
HAS_TLS12: Final = 0x444F574E47524400
"""How the random of a server ends that has TLS 1.3 and chose 1.2, or has at least 1.2 and chose less:
"DOWNGRD" and 01 or 00. RFC 8446 4.1.3."""

NOT_TLS13: Final[Ranges] = complement(
    merged(
        (
            (0x1300, 0x13FF),  # RFC 8446 B.4, where the registry goes on with suites for TLS 1.3
            *(
                (code, code)
                for code in CIPHER_SUITES
                if (suite := suite_properties(code)) is not None and suite.tls13
            ),
        )
    ),
    16,
)
"""Suites that no ServerHello of TLS 1.3 chooses."""


class MinVersion(Policy):
    name: ClassVar[str] = "min-version"
    stops: ClassVar[str] = (
        "ClientHellos that offer at most, and ServerHellos that choose, a version below min; SSLv2 hellos"
        " of both sides, also those that offer more; ChangeCipherSpec and application data records of"
        " connections below min that were there before the rules. min=1.3: ServerHellos that choose a"
        " cipher suite which TLS 1.3 does not have. sentinel=refuse: ServerHellos whose random says that"
        " the server has a higher version than it chose."
    )
    costs: ClassVar[str] = (
        "Clients and servers that speak nothing newer are cut off; `drop` lets them wait for their"
        " time-out, `reset` tells the sender of the refused packet, not its peer. Connections below min"
        " that exist already break, except those of TLS 1.2 with min=1.3, whose records look alike."
        " sentinel=refuse cuts every client without TLS 1.3 off from every server that has it, downgraded"
        " or not: the rules can't know what the client offered. split=drop also refuses the legitimate"
        " sender that writes a hello in pieces of less than 11 bytes; with sentinel=refuse a server that"
        " writes less than 43, with min=1.3 less than 79, or a session_id of 1 to 31 bytes."
    )
    bypass: ClassVar[str] = (
        "A hello that does not start its packet's payload, or is cut within its first 11 bytes"
        " (split=drop refuses that), is not seen, but the records that follow are, if their version is"
        " below 1.2. SSLv2 hellos with a header of 3 bytes are not seen. TLS 1.3 writes the versions of a"
        " ClientHello at no fixed place, so that min=1.3 lets those of 1.2 pass and judges the answer, by"
        " its suite; and by its supported_versions only where that is the first extension (OpenSSL;"
        " BoringSSL has key_share there). With min=1.3 a ServerHello with a session_id of 1 to 31 bytes,"
        " or cut before its suite, passes without split=drop. Who tampers with the hellos can take the"
        " sentinel out where the key exchange is not signed (static RSA). A hello inside STARTTLS is seen,"
        " one inside a tunnel is not. Configure the servers."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(name="min", default="1.2", choices=tuple(VERSIONS), meaning="lowest version that passes"),
        PORTS,
        SERVERS,
        ACTION,
        Parameter(
            name="split",
            default="pass",
            choices=("pass", "drop"),
            meaning="what to do with hellos cut before what is judged",
        ),
        Parameter(
            name="sentinel",
            default="pass",
            choices=("pass", "refuse"),
            meaning="what to do with ServerHellos whose random says that they are a downgrade",
        ),
    )

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        return finding.id in _FINDINGS or finding.policy == self.name

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        ports, servers = places(settings)
        if (other := elsewhere(observed, ports, servers)) is not None:
            return other
        lowest = VERSIONS[settings["min"]]
        row = observed.connection or {}
        key = "client_version" if observed.finding.id == "DG13" else "version"
        version = _NEGOTIATED.get(str(row.get(key)))
        if version is not None and version >= lowest and observed.finding.id != "DG14":
            return LeftAlone(f"{row.get(key)} is not below min={settings['min']}")
        return Answered(_FINDINGS.get(observed.finding.id, tuple(_FINDINGS["DG12"] + _FINDINGS["DG13"])))

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports, servers = places(settings)
        verdict = refusal(settings)
        rules = tuple(
            Rule(
                name=name,
                match=match,
                verdict=verdict,
                origin=origin(self.name, name, answered),
                meaning=meaning,
            )
            for name, match, meaning in _rules(settings, to_server(ports, servers), to_client(ports, servers))
        )
        guard = toward("both", ports, servers)
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=rules, guard=guard),))


def _rules(settings: Settings, client: Match, server: Match) -> Iterator[tuple[str, Match, str]]:
    """Name, match and meaning; `client` and `server` match the packets that these send."""
    lowest = VERSIONS[settings["min"]]
    written = min(lowest, TLS12)
    older = Test("tls.client_version", Op.LT, written)
    yield (
        "min-version-client-hello",
        all_of(client, hello(CLIENT_HELLO), older),
        f"A ClientHello that offers nothing as new as {written:#06x}.",
    )
    yield (
        "min-version-server-hello",
        all_of(server, hello(SERVER_HELLO), older),
        f"A ServerHello that chooses a version below {written:#06x}.",
    )
    yield (
        "min-version-selected",
        all_of(server, hello(SERVER_HELLO), choice(lambda prefix: _selects_less(prefix, lowest))),
        f"A ServerHello whose first extension, supported_versions, names a version below {lowest:#06x}.",
    )
    if lowest == TLS13:
        yield (
            "min-version-suite",
            all_of(server, hello(SERVER_HELLO), choice(_chooses_older_suite)),
            "A ServerHello that chooses a cipher suite which TLS 1.3 does not have.",
        )
    yield (
        "min-version-record",
        all_of(
            one_of("tls.content_type", ((CHANGE_CIPHER_SPEC,) * 2, (APPLICATION_DATA,) * 2)),
            between("tls.version", 0x0300, written - 1),
        ),
        f"A record of a connection whose negotiated version is below {written:#06x}.",
    )
    yield (
        "min-version-sslv2-client",
        all_of(client, ssl2_client_hello()),
        "An SSLv2 ClientHello, whatever it offers.",
    )
    yield "min-version-sslv2-server", all_of(server, ssl2_server_hello()), "An SSLv2 ServerHello."
    sentinel = settings["sentinel"] == "refuse"
    if sentinel:
        yield (
            "min-version-sentinel",
            all_of(server, hello(SERVER_HELLO), _marked_downgrade()),
            "A ServerHello that says in its random that the server has a higher version than it chose.",
        )
    if settings["split"] == "drop":
        yield (
            "min-version-split",
            _cut(client, server, suite=lowest == TLS13, sentinel=sentinel),
            "A hello that is cut before what is judged of it is refused.",
        )


def _selects_less(prefix: str, lowest: int) -> Match:
    return all_of(
        equals(f"{prefix}.extension_type", SUPPORTED_VERSIONS),
        Test(f"{prefix}.selected_version", Op.LT, lowest),
    )


def _chooses_older_suite(prefix: str) -> Match:
    return one_of(f"{prefix}.cipher_suite", NOT_TLS13)


def _marked_downgrade() -> Match:
    return any_of(
        all_of(equals("tls.client_version", TLS12), equals("tls.random_tail", HAS_TLS13)),
        all_of(Test("tls.client_version", Op.LT, TLS12), equals("tls.random_tail", HAS_TLS12)),
    )


def _cut(client: Match, server: Match, *, suite: bool, sentinel: bool) -> Match:
    """A handshake record that may begin with a hello and lacks what is judged of it."""
    handshake = equals("tls.content_type", HANDSHAKE)
    last = "tls.random_tail" if sentinel else "tls.client_version"
    return any_of(
        all_of(handshake, Not(Present("tls.handshake_type"))),
        all_of(client, hello(CLIENT_HELLO), Not(Present("tls.client_version"))),
        all_of(server, unjudged() if suite else all_of(hello(SERVER_HELLO), Not(Present(last)))),
    )


POLICY: Final = MinVersion()
