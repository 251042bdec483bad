"""What an nft ruleset would do with packets, computed without a kernel.

In:  Artifact of an nft file.
Out: Evaluated: an Entry per base chain.
Source: Linux net/netfilter/nf_tables_core.c nft_do_chain; the facts measured about it are kept by the tests.

    nft_packet.py      a packet's headers, as the kernel finds them
    nft_loads.py       what expressions load of packet and connection
    nft_registers.py   what a rule's registers hold
    nft_arithmetic.py  what is computed of that
    nft_compare.py       comparisons, each in its fastest form
    nft_program.py     a rule's program as a test and a verdict
    nft_sets.py        sets and maps, static and dynamic
    nft_state.py       limits, quotas and what else remembers packets
    nft_connections.py ct count

A Hit is a rule whose expressions all let the packet go on, as nft's trace reports it; a rule's counter counts
the same packets where it stands behind the rule's tests. Rules are compiled before the first packet, and what
has no model is refused then, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from rulegen.artifacts.model import Artifact, BaseChain, Chain, RuleLine, Table, place
from rulegen.artifacts.nft_values import (
    ConnectionCount,
    CtLoad,
    CtSet,
    DynamicSet,
    Elsewhere,
    Expression,
    Lookup,
    Nat,
    NftVerdict,
    ObjectReference,
)
from rulegen.artifacts.unknown import Unknown
from rulegen.evaluate import nft_program as programs
from rulegen.evaluate import nft_sets as sets
from rulegen.evaluate.base import Decision, Entry, Evaluated, Fate, Hit, NotModelled, Passing
from rulegen.evaluate.nft_compare import Step
from rulegen.evaluate.nft_connections import Known
from rulegen.evaluate.nft_loads import Unmodelled
from rulegen.evaluate.nft_packet import Seen, is_answered
from rulegen.evaluate.nft_program import Choose, compile_rule
from rulegen.evaluate.nft_state import Stateful, stateful

HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")

_FAMILIES: Final = ("ip", "ip6", "inet")
_WORD: Final = 4
_ACCEPTED: Final = Decision(Fate.ACCEPT, None)
_TRACKING_OBJECTS: Final = frozenset({"connlimit", "ct helper", "ct timeout", "ct expectation", "synproxy"})


@dataclass(frozen=True, slots=True)
class _Go:
    """To another chain, or (None) back from this one."""

    rules: _Rules | None
    returns: bool
    """A jump."""


_Act = Decision | _Go | None
"""None: the next rule judges."""


@dataclass(slots=True)
class _Rule:
    matches: Step | None
    hit: Hit
    act: _Act
    choose: Choose | None
    acts: dict[NftVerdict, _Act]


@dataclass(slots=True, eq=False)
class _Rules:
    """Of a chain; filled when all chains are known."""

    rules: list[_Rule] = field(default_factory=list)


def evaluate_nft(artifact: Artifact, hooks: Collection[str] = HOOKS) -> Evaluated:
    """Make an nft ruleset ready to judge packets, as it is when it has just been loaded.

    Args:
        artifact: Of dialect nft.
        hooks: Where packets pass; chains of other hooks are left out, and may use what has no model.

    Raises:
        NotModelled: A rule that packets may meet uses what has no model.
    """
    entries: list[Entry] = []
    known = Known()
    for table in artifact.tables:
        if not table.dormant:
            entries += _entries(table, artifact, hooks, known)
    return Evaluated(entries=tuple(entries), tracking=any(map(_tracks, artifact.tables)))


def _entries(table: Table, artifact: Artifact, hooks: Collection[str], known: Known) -> Iterator[Entry]:
    base = [one for one in table.chains if isinstance(one, BaseChain) and _entered(table, one, hooks)]
    if not base:
        return
    made = _compile(table, base, artifact, known)
    for chain in base:
        assert table.family is not None
        yield Entry(
            hook=chain.hook,
            priority=chain.priority,
            family=table.family,
            name=f"{table.family} {table.name} {chain.name}",
            judge=_judge(made[chain.name], chain, known if _counts(table) else None),
        )


def _entered(table: Table, chain: BaseChain, hooks: Collection[str]) -> bool:
    """Whether packets enter a base chain.

    Raises:
        NotModelled: They do, and nothing here knows how.
    """
    if table.family == "arp" or not (chain.rules or chain.policy == "drop"):
        return False
    where = f"table {table.family} {table.name}, chain {chain.name}"
    if table.family not in _FAMILIES:
        raise NotModelled(where, f"family {table.family}")
    if chain.hook not in hooks:
        if chain.hook not in HOOKS:
            raise NotModelled(where, f"hook {chain.hook}")
        return False
    if chain.type == "nat":
        raise NotModelled(where, "type nat")
    return True


def _compile(table: Table, base: list[BaseChain], artifact: Artifact, known: Known) -> dict[str, _Rules]:
    """The rules of the base chains and of all chains that packets come to from there."""
    found = _reachable(table, base)
    common = _common(table, found, artifact, known)
    made = {chain.name: _Rules() for chain in found}
    for chain in found:
        for rule in chain.rules:
            hit = Hit(f"{table.family} {table.name}", chain.name, rule.number, rule.comment)
            try:
                program = compile_rule(_parts(rule), common)
            except Unmodelled as error:
                raise NotModelled(place(table, chain, rule), str(error)) from None
            if isinstance(program.verdict, NftVerdict | None):
                if program.verdict is not None and program.verdict.kind == "break":
                    continue
                act = Decision(Fate.DROP, hit, True) if program.resets else _act(program.verdict, hit, made)
                made[chain.name].rules.append(_Rule(program.matches, hit, act, None, {}))
            else:
                acts = {verdict: _act(verdict, hit, made) for verdict in _verdicts(table, rule)}
                made[chain.name].rules.append(_Rule(program.matches, hit, None, program.verdict, acts))
    return made


def _reachable(table: Table, base: list[BaseChain]) -> list[Chain]:
    found: dict[str, Chain] = {}
    pending: list[Chain] = list(base)
    while pending:
        chain = pending.pop()
        if chain.name in found:
            continue
        found[chain.name] = chain
        for rule in chain.rules:
            verdicts = (getattr(part, "verdict", None) for part in rule.parts)
            pending += (
                table.chain(verdict.chain)
                for verdict in (*verdicts, *_verdicts(table, rule))
                if isinstance(verdict, NftVerdict) and verdict.chain is not None
            )
    return list(found.values())


def _parts(rule: RuleLine) -> tuple[Expression | Unknown, ...]:
    return cast("tuple[Expression | Unknown, ...]", rule.parts)


def _verdicts(table: Table, rule: RuleLine) -> set[NftVerdict]:
    """What the verdict maps of a rule may give."""
    names = {part.set for part in rule.parts if isinstance(part, Lookup) and part.verdict}
    return {
        element.value
        for content in table.sets
        if content.name in names
        for element in content.elements
        if isinstance(element.value, NftVerdict)
    }


def _common(table: Table, chains: list[Chain], artifact: Artifact, known: Known) -> programs.Table:
    """Sets and objects that the chains' rules use, in the state in which they are loaded."""
    parts = [part for chain in chains for rule in chain.rules for part in rule.parts]
    used = {name for part in parts if isinstance(name := getattr(part, "set", None), str)}
    changed = {part.set for part in parts if isinstance(part, DynamicSet)}
    made: dict[str, sets.NftSet] = {}
    for content in table.sets:
        if content.name in used:
            try:
                made[content.name] = sets.make(content, known, dynamic=content.name in changed)
            except Unmodelled as error:
                raise NotModelled(
                    f"table {table.family} {table.name}, set {content.name}", str(error)
                ) from None
    return programs.Table(
        sets=made,
        key_bytes={one.name: sum(-(-width // _WORD) * _WORD for width in one.widths) for one in table.sets},
        objects=dict(_objects(table, known)),
        interfaces={name: number for number, name in artifact.interfaces},
        known=known,
        address_bytes=4 if table.family == "ip" else 16,
    )


def _objects(table: Table, known: Known) -> Iterator[tuple[str, Stateful | None]]:
    """Those that have a model; others are refused where a rule refers to them."""
    for one in table.objects:
        try:
            yield f"{one.kind} {one.name}", stateful(one.body, known)
        except Unmodelled:
            continue


def _act(verdict: NftVerdict | None, hit: Hit, chains: dict[str, _Rules]) -> _Act:
    if verdict is None:
        return None
    match verdict.kind:
        case "accept":
            return Decision(Fate.ACCEPT, hit)
        case "drop":
            return Decision(Fate.DROP, hit)
        case "return":
            return _Go(None, returns=False)
        case "jump" | "goto":
            assert verdict.chain is not None
            return _Go(chains[verdict.chain], returns=verdict.kind == "jump")
    return None


def _judge(chain: _Rules, base: BaseChain, known: Known | None) -> Callable[[Passing], Decision]:
    policy = Decision(Fate.DROP, None) if base.policy == "drop" else _ACCEPTED
    hook, rules = base.hook, chain.rules

    def judge(passing: Passing) -> Decision:
        return _run(rules, Seen(passing, hook), passing.hits) or policy

    def judge_and_remember(passing: Passing) -> Decision:
        if known is not None:
            known.meet(passing)
        return judge(passing)

    return judge if known is None else judge_and_remember


def _run(rules: list[_Rule], seen: Seen, hits: list[Hit]) -> Decision | None:
    """None: the chain's end, or a return."""
    for rule in rules:
        matches = rule.matches
        if matches is not None and not matches(seen):
            continue
        act = rule.act
        if rule.choose is not None:
            verdict = rule.choose(seen)
            if verdict is None or verdict.kind == "break":
                continue
            act = rule.acts[verdict]
        hits.append(rule.hit)
        if act is None:
            continue
        if isinstance(act, Decision):
            return act._replace(resets=is_answered(seen)) if act.resets else act
        if act.rules is None:
            return None
        decision = _run(act.rules.rules, seen, hits)
        if decision is not None or not act.returns:
            return decision
    return None


def _tracks(table: Table) -> bool:
    """Whether loading a table makes the kernel track connections."""
    if any(isinstance(chain, BaseChain) and chain.type == "nat" for chain in table.chains):
        return True
    return any(map(_asks_for_tracking, _all_parts(table)))


def _counts(table: Table) -> bool:
    """Whether a table counts connections."""
    return any(isinstance(part, ConnectionCount) for part in _all_parts(table))


def _all_parts(table: Table) -> Iterator[Expression | Unknown]:
    """Of its rules, of what they add to sets, of sets and objects."""
    for chain in table.chains:
        for rule in chain.rules:
            for part in _parts(rule):
                yield part
                if isinstance(part, DynamicSet):
                    yield from part.expressions
    for content in table.sets:
        yield from content.statements
    for one in table.objects:
        yield one.body


def _asks_for_tracking(part: Expression | Unknown) -> bool:
    match part:
        case CtLoad() | CtSet() | ConnectionCount() | Nat():
            return True
        case Elsewhere(kind=kind):
            return kind in ("synproxy", "flow_offload")
        case ObjectReference(type=kind):
            return kind in _TRACKING_OBJECTS
    return False
