"""A lab with the real kernel, findings made by hand, and a ruleset of any matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from analyzer.model import Action, Finding, Severity
from rulegen.backends import BACKENDS, emit
from rulegen.from_findings import Answer, answer, parse_asked, parse_wish
from rulegen.ir.match import Match
from rulegen.ir.rule import Chain, Hook, Origin, Rule, Ruleset, SetDeclaration, Source, Verdict
from rulegen.testbed.netns import LabError
from rulegen.testbed.replay import Bench

NFT = BACKENDS[0]


@pytest.fixture(scope="session")
def lab() -> Iterator[Bench]:
    try:
        bench = Bench().__enter__()
    except LabError as error:
        pytest.skip(f"no lab: {error}")
    yield bench
    bench.close()


@pytest.fixture
def bench(lab: Bench) -> Iterator[Bench]:
    """The lab without rules and connections."""
    lab.flush()
    lab.forget()
    yield lab
    lab.flush()


@pytest.fixture
def finding() -> Callable[..., Finding]:
    def make(identifier: str = "HB01", action: str = "A", **changes: object) -> Finding:
        values: dict[str, object] = {
            "id": identifier,
            "title": f"title of {identifier}",
            "severity": Severity.HIGH,
            "action": Action(action),
            "connection": 0,
            "packets": (4,),
            "evidence": {},
            "explanation": "",
            "references": (),
            "offender": "192.0.2.1" if action == "A" else None,
            **changes,
        }
        return Finding(**values)  # type: ignore[arg-type]

    return make


@pytest.fixture
def respond() -> Callable[..., Answer]:
    """Answer findings as the command does."""

    def make(
        findings: tuple[Finding, ...] = (),
        *policies: str,
        asked: tuple[str, ...] = (),
        hook: str = "forward",
        name: str = "incident.pcap",
        connections: tuple[dict[str, object], ...] = (
            {
                "connection": 0,
                "capture": 0,
                "client": {"address": "192.0.2.1", "port": 40000},
                "server": {"address": "198.51.100.7", "port": 443},
                "version": "TLSv1.0",
                "client_version": "TLSv1.0",
            },
        ),
        **options: object,
    ) -> Answer:
        return answer(
            (Source(name=name, sha256="00" * 32),),
            findings,
            connections,
            wishes=[parse_wish(text) for text in policies],
            asked=parse_asked(asked),
            hook=Hook(hook),
            **options,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def rules_text(respond) -> Callable[..., str]:
    """The nft file for policies, written as on the command line."""

    def make(*policies: str, **options: object) -> str:
        return emit(respond((), *policies, **options).ruleset, NFT).text

    return make


@pytest.fixture
def ruleset_of() -> Callable[..., Ruleset]:
    """A ruleset with a chain for each match; rules are named m0, m1 and so on."""

    def make(
        *matches: Match,
        verdict: Verdict = Verdict.PASS,
        sets: tuple[SetDeclaration, ...] = (),
        **options: object,
    ) -> Ruleset:
        chains = tuple(
            Chain(
                name=f"m{number}",
                policy="test",
                rules=(
                    Rule(
                        name=f"m{number}",
                        match=match,
                        verdict=verdict,
                        origin=Origin(policy="test"),
                        meaning="A test.",
                    ),
                ),
            )
            for number, match in enumerate(matches)
        )
        return Ruleset(chains=chains, sets=sets, **options)  # type: ignore[arg-type]

    return make
