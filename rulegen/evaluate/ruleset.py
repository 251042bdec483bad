"""Make a firewall of all the files that are loaded together.

In:  artifacts of nft, iptables-save, ip6tables-save and ipset, in the order in which they are loaded.
Out: a Firewall, as it is right after loading; the names of all its rules; what is not modelled, all of it.

A file for iptables that does not say for which family it is serves both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rulegen.artifacts.model import Artifact, BaseChain, Dialect, RuleLine, Table, place, unsupported
from rulegen.artifacts.nft_values import CtSet, DynamicSet
from rulegen.artifacts.xt_values import RestoreConnMark, SaveConnMark, SetConnMark
from rulegen.evaluate.base import Evaluated, NotModelled
from rulegen.evaluate.conntrack import Conntrack
from rulegen.evaluate.conntrack_settings import TESTBED
from rulegen.evaluate.defrag import Reassembly
from rulegen.evaluate.firewall import Firewall, Place, hooks_at
from rulegen.evaluate.nft import evaluate_nft
from rulegen.evaluate.predict import RuleName
from rulegen.evaluate.xtables import evaluate_xtables


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How the files are loaded."""

    place: Place = Place.ROUTER
    variant: str = "nf_tables"
    """Of iptables, where a file does not say: nf_tables or legacy."""


def firewall(artifacts: Sequence[Artifact], loading: Loading) -> Firewall:
    """Load all files.

    Raises:
        NotModelled: The first that is not.
    """
    return Firewall(
        [one for artifact in artifacts for one in _evaluated(artifact, artifacts, loading)],
        Conntrack(TESTBED),
        Reassembly(TESTBED),
        place=loading.place,
        marks=any(map(_marks, artifacts)),
    )


def likely_place(artifacts: Sequence[Artifact]) -> Place:
    """On a router, or on the server if no rule is in the way of forwarded packets but some are of its own."""
    with_rules = {
        chain.hook
        for artifact in artifacts
        for table, chain, _ in artifact.rules
        if isinstance(chain, BaseChain) and not table.dormant
    }
    own = with_rules & {"input", "output"}
    return Place.SERVER if own and "forward" not in with_rules else Place.ROUTER


def refusals(artifacts: Sequence[Artifact], loading: Loading) -> tuple[NotModelled, ...]:
    """Everything that is not modelled, so that it can be mended at once; empty: all is."""
    found: list[NotModelled] = []
    for artifact in artifacts:
        rest = artifact
        while True:
            try:
                for _ in _evaluated(rest, artifacts, loading):
                    pass
                break
            except NotModelled as error:
                found.append(error)
            without = _without(rest, found[-1].where)
            if without == rest:
                # not a rule's fault: what nothing reads can still be told
                known = {error.where for error in found}
                found += (
                    NotModelled(one.where, one.feature) for one in unsupported(rest) if one.where not in known
                )
                break
            rest = without
    return tuple(found)


def rule_names(artifacts: Sequence[Artifact]) -> Iterator[RuleName]:
    """All rules in the order of the files."""
    for artifact in artifacts:
        for family in _families(artifact):
            for table, chain, rule in artifact.rules:
                yield RuleName(
                    table=f"{table.family or family} {table.name}",
                    chain=chain.name,
                    number=rule.number,
                    comment=rule.comment,
                    text=rule.text,
                )


def _evaluated(artifact: Artifact, all_of: Sequence[Artifact], loading: Loading) -> Iterator[Evaluated]:
    match artifact.dialect:
        case Dialect.NFT:
            yield evaluate_nft(artifact, hooks_at(loading.place))
        case Dialect.XTABLES:
            sets = [one for other in all_of for one in other.ipsets]
            for family in _families(artifact):
                yield evaluate_xtables(
                    artifact, variant=artifact.variant or loading.variant, family=family, ipsets=sets
                )


def _families(artifact: Artifact) -> tuple[str, ...]:
    """Whose tables an iptables file fills; nft's tables say it themselves."""
    if artifact.dialect is not Dialect.XTABLES:
        return ("",)
    named = {table.family for table in artifact.tables if table.family is not None}
    return tuple(sorted(named)) or ("ip", "ip6")


def _without(artifact: Artifact, where: str) -> Artifact:
    """The artifact with a rule that does nothing at this place."""

    def rules(table: Table) -> Table:
        chains = tuple(
            replace(
                chain,
                rules=tuple(
                    RuleLine(number=rule.number, line=rule.line, handle=rule.handle)
                    if where.startswith(place(table, chain, rule))
                    else rule
                    for rule in chain.rules
                ),
            )
            for chain in table.chains
        )
        return replace(table, chains=chains)

    return replace(artifact, tables=tuple(map(rules, artifact.tables)))


def _marks(artifact: Artifact) -> bool:
    """Whether its rules mark connections, or remember packets otherwise."""
    for _, _, rule in artifact.rules:
        if any(isinstance(part, CtSet | DynamicSet) for part in rule.parts):
            return True
        if isinstance(rule.target, SetConnMark | SaveConnMark | RestoreConnMark):
            return True
    return False
