"""Turn findings and wishes into a ruleset, and account for every finding.

In:  captures, their findings and connections; the policies wished for, or none: then those that answer them.
Out: Answer: the ruleset, and an account of which findings which rules answer, which are left alone and why.
Source: the action class of a finding binds what may be done about it (policies/block.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from analyzer.model import Action, Finding
from analyzer.report.text import listed
from rulegen.compose import compose
from rulegen.errors import WishError
from rulegen.ir.rule import Hook, Ruleset, Source
from rulegen.policies import POLICIES, policy_named
from rulegen.policies.base import Answered, LeftAlone, Observed, Policy, Seen, Settings
from rulegen.policies.block import WHY_NOT

EXAMPLES: Final = 3
"""Findings that an account's entry shows of those alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A policy and the parameters that the user gave."""

    policy: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Entry:
    """Findings that are alike and had the same answer."""

    finding: str
    title: str
    action: Action
    rules: tuple[str, ...]
    """Empty: left alone."""
    why: str
    """Of findings left alone; of answered ones, what was not done about them in addition."""
    count: int = 0
    examples: list[Observed] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """A policy with parameters, and what it answers. One policy may run several times."""

    policy: Policy
    settings: Settings
    answered: list[tuple[Observed, Answered]] = field(default_factory=list)
    names: Mapping[str, str] = field(default_factory=dict)
    """Its rules' names -> those that they have in the ruleset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    ruleset: Ruleset
    account: tuple[Entry, ...]
    missing: tuple[str, ...] = ()
    """Findings that the user asked for by id and that the captures do not have."""


def parse_wish(text: str) -> Wish:
    """`NAME[:key=value,...]`; a value may hold commas (`heartbleed:ports=443,8443,direction=both`)."""
    name, _, rest = text.partition(":")
    policy_named(name)
    parameters: dict[str, str] = {}
    key = None
    for item in rest.split(",") if rest else ():
        before, equals, after = item.partition("=")
        if equals:
            key = before.strip()
            if key in parameters:
                raise WishError(f"{text!r}: {key} is given twice")
            parameters[key] = after.strip()
        elif key is None:
            raise WishError(
                f"{text!r}: parameters are written key=value; `tlswall policies {name}` has them all"
            )
        else:
            parameters[key] += f",{item.strip()}"
    return Wish(policy=name, parameters=parameters)


def parse_asked(texts: Iterable[str]) -> dict[str, str | None]:
    """`ID` or `ID:client` or `ID:server`: findings to answer whatever their class."""
    asked: dict[str, str | None] = {}
    for text in texts:
        identifier, _, side = text.partition(":")
        if not identifier or side not in ("", "client", "server"):
            raise WishError(f"--finding {text}: write the finding's id, or id:client or id:server")
        asked[identifier.upper()] = side or None
    return asked


def answer(
    sources: Sequence[Source],
    findings: Iterable[Finding],
    connections: Iterable[Mapping[str, object]],
    *,
    wishes: Sequence[Wish] = (),
    hook: Hook = Hook.FORWARD,
    asked: Mapping[str, str | None] | None = None,
    defaults: Mapping[str, str] | None = None,
    defragment: bool = True,
) -> Answer:
    """Build the ruleset.

    Args:
        sources: The captures; a finding's `capture` is an index here.
        findings: What was found in them.
        connections: Rows of the connections table, as in the JSON output.
        wishes: Policies; none: those that answer what was found.
        hook: Where the rules will sit.
        asked: Findings that may block an endpoint whatever their class, and the side to blame (parse_asked).
        defaults: Parameters for every policy that has them and was given no other (ports, ttl).
        defragment: Let rules see whole datagrams.
    """
    asked = asked or {}
    known = list(findings)
    wanted = list(wishes) or [
        Wish(policy=policy.name)
        for policy in POLICIES
        if any(policy.claims(finding, asked) for finding in known)
    ]
    everything = any(policy_named(wish.policy).wants_connections for wish in wanted)
    rows = _rows(connections, known, everything)
    found = _observed(sources, known, rows)
    seen = _seen(sources, known, rows) if everything else ()
    _refuse_idle(wishes, defaults or {})
    runs = _runs(wanted, defaults or {}, hook=hook, asked=asked, connections=seen, sources=sources)
    judged = []
    for observed in found:
        verdicts = [
            (run, run.policy.judge(observed, run.settings))
            for run in runs
            if run.policy.claims(observed.finding, asked)
        ]
        for run, verdict in verdicts:
            if isinstance(verdict, Answered):
                run.answered.append((observed, verdict))
        judged.append((observed, verdicts))
    composed = compose([run.policy.build(run.settings, run.answered) for run in runs])
    for run, names in zip(runs, composed.names, strict=True):
        run.names = names
    account: dict[tuple[object, ...], Entry] = {}
    for observed, verdicts in judged:
        _enter(account, observed, verdicts, asked)
    ruleset = Ruleset(
        chains=composed.part.chains,
        sets=composed.part.sets,
        hook=hook,
        sources=tuple(sources),
        policies=tuple(_written(run) for run in runs),
        remarks=composed.part.remarks,
        defragment=defragment,
    )
    found_ids = {finding.id for finding in known}
    missing = tuple(identifier for identifier in asked if identifier not in found_ids)
    return Answer(ruleset=ruleset, account=tuple(account.values()), missing=missing)


def _runs(
    wishes: Sequence[Wish],
    defaults: Mapping[str, str],
    *,
    hook: Hook,
    asked: Mapping[str, str | None],
    connections: Sequence[Seen],
    sources: Sequence[Source],
) -> list[Run]:
    """The policies as they are wished for, in the order of POLICIES; what is wished for twice, once."""
    runs: dict[str, Run] = {}
    for policy in POLICIES:
        for wish in wishes:
            if wish.policy == policy.name:
                given = _with_defaults(policy, wish, defaults)
                settings = policy.settings(
                    given, hook=hook, asked=asked, connections=connections, sources=sources
                )
                run = Run(policy, settings)
                runs.setdefault(_written(run), run)
    return list(runs.values())


Rows: TypeAlias = Mapping[tuple[object, object], Mapping[str, object]]
"""Index of the capture and number of the connection -> row of the connections table."""


def _rows(connections: Iterable[Mapping[str, object]], findings: Iterable[Finding], everything: bool) -> Rows:
    """All rows, or only those of connections in which something was found."""
    wanted = {(finding.capture, finding.connection) for finding in findings}
    return {
        key: row
        for row in connections
        if (key := (row.get("capture", 0), row.get("connection"))) in wanted or everything
    }


def _observed(sources: Sequence[Source], findings: Iterable[Finding], rows: Rows) -> list[Observed]:
    return [
        Observed(
            finding=finding,
            capture=sources[finding.capture].name,
            connection=rows.get((finding.capture, finding.connection)),
        )
        for finding in findings
    ]


def _seen(sources: Sequence[Source], findings: Iterable[Finding], rows: Rows) -> tuple[Seen, ...]:
    """The connections, each with its findings, in the order of the rows."""
    found: dict[tuple[object, object], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.capture, finding.connection), []).append(finding)
    names: dict[object, str] = dict(enumerate(source.name for source in sources))
    return tuple(
        Seen(row=row, capture=names[key[0]], findings=tuple(found.get(key, ()))) for key, row in rows.items()
    )


def _refuse_idle(wishes: Sequence[Wish], defaults: Mapping[str, str]) -> None:
    """A parameter that none of the policies asked for has was meant for something."""
    known = {parameter.name for wish in wishes for parameter in policy_named(wish.policy).parameters}
    idle = sorted(set(defaults) - known) if wishes else []
    if idle:
        takers = [
            policy.name
            for policy in POLICIES
            if set(idle) <= {parameter.name for parameter in policy.parameters}
        ]
        who = f"; {listed(takers)} would" if takers else ""
        raise WishError(f"none of the policies asked for takes {' or '.join(idle)}{who}")


def _with_defaults(policy: Policy, wish: Wish, defaults: Mapping[str, str]) -> dict[str, str]:
    known = {parameter.name for parameter in policy.parameters}
    return {name: value for name, value in defaults.items() if name in known} | dict(wish.parameters)


def _written(run: Run) -> str:
    """As the user could write it; parameters that say nothing are left out."""
    values = ",".join(f"{name}={value}" for name, value in run.settings.values.items() if value)
    return f"{run.policy.name}:{values}" if values else run.policy.name


def _enter(
    account: dict[tuple[object, ...], Entry],
    observed: Observed,
    verdicts: Sequence[tuple[Run, Answered | LeftAlone]],
    asked: Mapping[str, str | None],
) -> None:
    """Add a finding to the account, to those alike."""
    finding = observed.finding
    rules = tuple(
        dict.fromkeys(
            run.names[rule]
            for run, verdict in verdicts
            if isinstance(verdict, Answered)
            for rule in verdict.rules
        )
    )
    reasons = [
        f"{run.policy.name}: {verdict.why}" for run, verdict in verdicts if isinstance(verdict, LeftAlone)
    ]
    if not verdicts:
        reasons.append(_nobody(finding, asked))
    why = "; ".join(reasons)
    key = (finding.id, finding.action, rules, why)
    entry = account.setdefault(
        key,
        Entry(finding=finding.id, title=finding.title, action=finding.action, rules=rules, why=why),
    )
    entry.count += 1
    if len(entry.examples) < EXAMPLES:
        entry.examples.append(observed)


def _nobody(finding: Finding, asked: Mapping[str, str | None]) -> str:
    """Why none of the chosen policies looks at a finding."""
    others = [policy.name for policy in POLICIES if policy.claims(finding, asked)]
    if others:
        return f"policy {' or '.join(others)} answers it and was not asked for"
    return WHY_NOT.get(finding.action, "no policy answers it")
