"""weak-parameters: refuse ServerHellos that choose a broken cipher suite, or compression.

In:  classes of suites, whether compression is refused, ports, servers, what to do.
Out: one chain.
Source: RFC 9325 4.1, 4.2; RFC 7465 (RC4); RFC 8429 (3DES); RFC 5469 (DES, IDEA); CVE-2015-0204, CVE-2015-4000
    (export); CVE-2016-2183 (blocks of 64 bits); CVE-2012-4929 (compression).

Which suites belong to a class follows from their names (analyzer.wire.suite_properties), never from a list
here. Suites with MD5 are no class of their own: each of them is in another one by its cipher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from analyzer.model import Finding
from analyzer.wire.cipher_suites import CIPHER_SUITES, UNREGISTERED_CIPHER_SUITES
from analyzer.wire.iana import cipher_suite_name
from analyzer.wire.suite_properties import SuiteProperties, suite_properties
from rulegen.errors import WishError
from rulegen.ir.match import Interval, Match, Op, Test, all_of, equals, one_of
from rulegen.ir.rule import Chain, Rule
from rulegen.lower.ranges import merged
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
)
from rulegen.policies.hellos import HANDSHAKE, SERVER_HELLO, choice, hello, unjudged

# fmt: off
CLASSES: Final[Mapping[str, Callable[[SuiteProperties], bool]]] = {
    "export":    lambda suite: suite.export,
    "null":      lambda suite: suite.key_bits == 0,
    "anonymous": lambda suite: suite.authentication == "anon",
    "rc4":       lambda suite: suite.cipher.startswith("RC4"),
    "3des":      lambda suite: suite.cipher.startswith("3DES"),
    "des":       lambda suite: suite.cipher.startswith("DES"),
    "rc2":       lambda suite: suite.cipher.startswith("RC2"),
    "idea":      lambda suite: suite.cipher.startswith("IDEA"),
}
# fmt: on

SUITE: Final = "weak-parameters-suite"


def weak_suites(classes: Sequence[str]) -> tuple[int, ...]:
    """Codes of the suites that are in one of the classes, in order."""
    return tuple(
        code
        for code in sorted((*CIPHER_SUITES, *UNREGISTERED_CIPHER_SUITES))
        if (suite := suite_properties(code)) is not None and any(CLASSES[name](suite) for name in classes)
    )


class WeakParameters(Policy):
    name: ClassVar[str] = "weak-parameters"
    stops: ClassVar[str] = (
        "ServerHellos that choose an export, NULL, anonymous, RC4, 3DES, DES, RC2 or IDEA cipher suite"
        " (or those classes of them that are asked for), or that turn compression on. Resumptions of such"
        " sessions too: their ServerHello names the suite again."
    )
    costs: ClassVar[str] = (
        "Servers that choose nothing better are cut off. Mail servers that check no certificates choose"
        " anonymous suites on purpose: they fall back to clear text, or fail. `drop` lets both sides wait"
        " for their time-out, `reset` tells the server, not its client. Connections that exist go on."
        " unjudged=refuse also cuts off servers whose session_id has 1 to 31 bytes and those that write a"
        " ServerHello in small pieces."
    )
    bypass: ClassVar[str] = (
        "A ServerHello that does not start its packet's payload (behind a warning alert, or in the"
        " handshake of a renegotiation, which is encrypted) is not seen. One whose session_id has 1 to 31"
        " bytes, or that is cut before its compression_method, passes unless unjudged=refuse. Suites that"
        " are in no registry pass. SSL 2.0 has weak suites only and is the business of min-version. The"
        " weakness of a key, a group or a certificate can't be seen here. Configure the servers."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="classes",
            default=",".join(CLASSES),
            meaning="which suites are refused, separated by commas; none: no suite",
        ),
        Parameter(
            name="compression",
            default="refuse",
            choices=("refuse", "allow"),
            meaning="what to do with a ServerHello that turns compression on",
        ),
        PORTS,
        SERVERS,
        ACTION,
        Parameter(
            name="unjudged",
            default="pass",
            choices=("pass", "refuse"),
            meaning="ServerHellos cut before their suite, or with a session_id of 1 to 31 bytes",
        ),
    )

    def claims(self, finding: Finding, asked: Mapping[str, str | None]) -> bool:
        """DG20 is the only finding about a suite; of those it has, the ones that a class here holds."""
        chosen = finding.evidence.get("cipher_suite")
        return finding.policy == self.name or (finding.id == "DG20" and chosen in _names(tuple(CLASSES)))

    def judge(self, observed: Observed, settings: Settings) -> Answered | LeftAlone:
        ports, servers = places(settings)
        if (other := elsewhere(observed, ports, servers)) is not None:
            return other
        chosen = observed.finding.evidence.get("cipher_suite")
        if chosen is not None and chosen not in _names(_classes(settings["classes"])):
            return LeftAlone(f"{chosen} is in none of the classes asked for")
        return Answered((SUITE,))

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
            for name, match, meaning in _rules(settings)
        )
        if not rules:
            raise WishError("weak-parameters: neither a class nor compression is refused")
        guard = all_of(to_client(ports, servers), equals("tls.content_type", HANDSHAKE))
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=rules, guard=guard),))


def _rules(settings: Settings) -> Iterator[tuple[str, Match, str]]:
    classes = _classes(settings["classes"])
    if classes:
        codes = merged((code, code) for code in weak_suites(classes))
        yield (
            SUITE,
            all_of(hello(SERVER_HELLO), choice(lambda prefix: _suite(prefix, codes))),
            f"A ServerHello chooses a cipher suite of these classes: {', '.join(classes)}.",
        )
    if settings["compression"] == "refuse":
        yield (
            "weak-parameters-compression",
            all_of(hello(SERVER_HELLO), choice(_compresses)),
            "A ServerHello turns compression on.",
        )
    if settings["unjudged"] == "refuse":
        yield (
            "weak-parameters-unjudged",
            unjudged(),
            "What a ServerHello chooses is not in the packet or at no known place, and it is refused.",
        )


def _suite(prefix: str, codes: tuple[Interval, ...]) -> Match:
    return one_of(f"{prefix}.cipher_suite", codes)


def _compresses(prefix: str) -> Match:
    return Test(f"{prefix}.compression_method", Op.NE, 0)


def _classes(text: str) -> tuple[str, ...]:
    """In the order of CLASSES; `none` and nothing are no class."""
    given = {part.strip() for part in text.split(",")} - {""}
    if given == {"none"}:
        return ()
    if unknown := given - set(CLASSES):
        raise WishError(f"weak-parameters: no class {', '.join(sorted(unknown))}; {', '.join(CLASSES)}")
    return tuple(name for name in CLASSES if name in given)


def _names(classes: Sequence[str]) -> set[str]:
    return {cipher_suite_name(code) for code in weak_suites(classes)}


POLICY: Final = WeakParameters()
