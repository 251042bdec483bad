"""Emit a ruleset for iptables and ip6tables at once, with classic BPF for the bytes of packets.

In:  Ruleset, checked.
Out: text that iptables-restore --noflush and ip6tables-restore --noflush take alike; each rule's fidelity.
Source: iptables-extensions(8) of 1.8.9; Linux net/netfilter/xt_bpf.c.

What a packet is and holds is asked by programs, which tell IPv4 from IPv6 themselves; what is known of its
connection, sets and searches are other matches of the same line. Of a match that mixes the two, every
alternative is a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product, takewhile
from typing import Final

from analyzer.wire.fields import FIELDS, Layer
from rulegen.backends.base import Artifact, Checked, Fidelity, Level
from rulegen.backends.xtables import XtablesBackend
from rulegen.backends.xtables_rules import Plan, Way
from rulegen.backends.xtables_text import WORDS_MAX, CantSay, Variants, connection_words, set_sides
from rulegen.bpf.formula import CantCompile
from rulegen.bpf.program import Program
from rulegen.bpf.separate import Alternative, leaves, separated
from rulegen.bpf.server_name import walk
from rulegen.bpf.split import programs
from rulegen.errors import InvalidRuleset
from rulegen.ir.match import (
    And,
    Contains,
    Exceeds,
    Lookup,
    Match,
    Not,
    Or,
    Present,
    Protocol,
    ServerName,
    SomeRecord,
    Test,
    all_of,
    any_of,
    carrier,
    one_of,
)
from rulegen.ir.rule import Limit, Rule, Ruleset, SetDeclaration
from rulegen.lower.literals import Finds

NAME: Final = "bpf"
FAMILIES: Final = ("ip", "ip6")

WAYS_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BpfDialect:
    """Bytes by classic BPF."""

    name: str = NAME
    families: tuple[str, ...] = FAMILIES

    def plan(self, match: Match) -> Plan | None:
        try:
            ways = [way for alternative in separated(match) for way in _ways(alternative)]
        except CantCompile as error:
            raise CantSay(str(error)) from None
        if not ways:
            raise InvalidRuleset([f"{self.name}: a match that can never hold"])
        if len(ways) > WAYS_MAX:
            raise CantSay(f"a match of {len(ways)} alternatives, more than {WAYS_MAX}")
        alike = sum(1 for _ in takewhile(lambda steps: len(set(steps)) == 1, zip(*ways, strict=False)))
        return Plan(_steps(ways[0][:alike]), tuple(_steps(way[alike:]) for way in ways))

    def fidelity(self, rule: Rule, ruleset: Ruleset) -> Fidelity:
        """What differs; if packets too many and too few match, the level is WIDER: that is what breaks."""
        differences = list(_differences(rule.match, ruleset))
        levels = {level for level, _ in differences}
        notes = [note for _, note in differences]
        if any(map(_of_payload, leaves(rule.match))):
            notes.insert(0, "judges the record that starts a packet's payload, none further inside")
        if isinstance(rule.limit, Limit):
            notes.append("the rate is counted with the kernel's clock")
        level = next((one for one in (Level.WIDER, Level.NARROWER) if one in levels), Level.EXACT)
        return Fidelity(rule=rule.name, level=level, notes=tuple(notes))


class BpfBackend:
    """iptables and ip6tables, with classic BPF."""

    name = NAME
    suffix = ".bpf.rules"

    def emit(self, ruleset: Ruleset) -> Artifact:
        """The file, or Refused with all that it can't say."""
        return _FILES.emit(_without_sets_of_bytes(ruleset))

    def check(self, text: str) -> Checked:
        """Load it with both tools where it does nothing."""
        return _FILES.check(text)


_FILES: Final = XtablesBackend(
    dialect=BpfDialect(),
    suffix=BpfBackend.suffix,
    limits=(
        "Not looked into: TCP inside tunnels, IPsec or behind IPv6 extension headers.",
        "The file is the same for both tools; load it with both.",
    ),
)

BACKEND: Final = BpfBackend()


# --- sets -------------------------------------------------------------------------------------------------


def _without_sets_of_bytes(ruleset: Ruleset) -> Ruleset:
    """Have programs compare with what is in sets of which ipset has no kind, as far as that never changes."""
    fixed = {one.name: one for one in ruleset.sets if not _for_ipset(one) and _never_changes(one)}

    def compared(match: Match) -> Match:
        match match:
            case Lookup(fields, name) if name in fixed:
                return _among(fields, fixed[name])
            case And(matches):
                return And(tuple(map(compared, matches)))
            case Or(matches):
                return Or(tuple(map(compared, matches)))
            case Not(inner):
                return Not(compared(inner))
        return match

    chains = tuple(
        replace(
            chain,
            guard=compared(chain.guard),
            rules=tuple(replace(rule, match=compared(rule.match)) for rule in chain.rules),
        )
        for chain in ruleset.chains
    )
    return replace(ruleset, chains=chains, sets=tuple(one for one in ruleset.sets if one.name not in fixed))


def _for_ipset(declaration: SetDeclaration) -> bool:
    try:
        set_sides(declaration.fields)
    except CantSay:
        return False
    return True


def _never_changes(declaration: SetDeclaration) -> bool:
    timeouts = (declaration.timeout_s, *(one.timeout_s for one in declaration.elements))
    return bool(declaration.elements) and not declaration.dynamic and not any(timeouts)


def _among(fields: tuple[str, ...], declaration: SetDeclaration) -> Match:
    if len(fields) == 1:
        return one_of(fields[0], tuple(one.key[0] for one in declaration.elements))
    return any_of(
        *(
            all_of(*(one_of(field, (part,)) for field, part in zip(fields, one.key, strict=True)))
            for one in declaration.elements
        )
    )


# --- lines ------------------------------------------------------------------------------------------------


def _ways(alternative: Alternative) -> Iterator[tuple[Variants, ...]]:
    """Each way in which the alternative can hold, as words that all have to hold."""
    literals, packet = alternative
    names: list[ServerName] = []
    words: list[Variants] = []
    for one in literals:
        match one:
            case Finds(ServerName() as name, fails=False):
                names.append(name)
            case _:
                words.append(connection_words(one, FAMILIES))
    if not all(words):
        return
    first = [one for one in words if len(one) == 1]
    last = [one for one in words if len(one) > 1]
    asked = [programs(one).alternatives for one in packet]
    for chosen in product(*asked, *(walk(name).ways for name in names)):
        yield (*first, *(_words(program) for way in chosen for program in way), *last)


def _words(program: Program) -> Variants:
    return (f'-m bpf --bytecode "{program.bytecode()}"',)


def _steps(words: Sequence[Variants]) -> Way:
    """As few steps as the length of a line allows."""
    steps: list[Variants] = []
    for one in words:
        if steps and len(steps[-1]) == 1 and len(steps[-1][0]) + max(map(len, one)) < WORDS_MAX:
            steps[-1] = tuple(f"{steps[-1][0]} {variant}" for variant in one)
        else:
            steps.append(one)
    return tuple(steps)


# --- what differs -----------------------------------------------------------------------------------------


def _differences(match: Match, ruleset: Ruleset) -> Iterator[tuple[Level, str]]:
    """Each way in which other packets match than those that are meant."""
    if any(map(_behind_headers, leaves(match))):
        # Such packets are taken for neither TCP nor UDP.
        wider = False in _senses(match, _behind_headers) and _without(match, _behind_headers) is not False
        level, what = (
            (Level.WIDER, "count as neither TCP nor UDP") if wider else (Level.NARROWER, "pass unjudged")
        )
        if not _four_alone(match):
            yield level, f"packets with IPv6 extension headers {what}"
        if not ruleset.defragment:
            yield level, f"IP fragments {what}"
    if senses := _senses(match, lambda one: isinstance(one, SomeRecord)):
        asked, seen = _records(match)
        few = "" if seen == asked else f" of the {asked} that are asked for"
        level = Level.EXACT if seen == asked else Level.WIDER if False in senses else Level.NARROWER
        yield level, f"looks at the first {seen} records of a packet{few}"
    senses = _senses(match, lambda one: isinstance(one, ServerName))
    if True in senses:
        first = min(walk(leaf).extensions for leaf in leaves(match) if isinstance(leaf, ServerName))
        yield (
            Level.NARROWER,
            f"a server_name behind the first {first} extensions of a ClientHello is not seen",
        )
    if False in senses:
        yield Level.NARROWER, "a name is found wherever it stands in the packet as in a server_name"
    if senses := _senses(match, lambda one: isinstance(one, Contains)):
        level = Level.WIDER if True in senses else Level.NARROWER
        yield level, "bytes in the options of IP and TCP headers are searched too"


def _records(match: Match) -> tuple[int, int]:
    """How many records are asked for, and how many of them programs can look at."""
    asked = max(leaf.records for leaf in leaves(match) if isinstance(leaf, SomeRecord))
    counts = [programs(packet).records for _, packets in separated(match) for packet in packets]
    return asked, min((count for count in counts if count is not None), default=asked)


def _senses(match: Match, of: Callable[[Match], bool], wanted: bool = True) -> set[bool]:
    """Of leaves of a kind: True, that they hold helps the match to hold; False, it keeps it from holding."""
    match match:
        case And(matches) | Or(matches):
            return set().union(*(_senses(part, of, wanted) for part in matches))
        case Not(inner):
            return _senses(inner, of, not wanted)
    return {wanted} if of(match) else set()


def _without(match: Match, of: Callable[[Match], bool]) -> bool | None:
    """Whether the match holds if none of these leaves does; None: that depends on the others."""
    match match:
        case And(matches) | Or(matches):
            decisive = isinstance(match, Or)
            found = {_without(part, of) for part in matches}
            return decisive if decisive in found else None if None in found else not decisive
        case Not(inner):
            held = _without(inner, of)
            return None if held is None else not held
    return False if of(match) else None


def _fields(leaf: Match) -> tuple[str, ...]:
    match leaf:
        case Test(field) | Present(field):
            return (field,)
        case Exceeds(field, _, other):
            return field, other
        case Lookup(fields):
            return fields
    return ()


def _behind_headers(leaf: Match) -> bool:
    """It asks for what follows the IP header."""
    match leaf:
        case Protocol(name):
            return name in ("tcp", "udp")
        case SomeRecord() | Contains() | ServerName():
            return True
    return any(carrier(field) in ("tcp", "udp") for field in _fields(leaf))


def _of_payload(leaf: Match) -> bool:
    return any(FIELDS[field].layer is Layer.PAYLOAD for field in _fields(leaf))


def _four_alone(match: Match) -> bool:
    """No packet of IPv6 can match."""
    match match:
        case And(matches):
            return any(map(_four_alone, matches))
        case Or(matches):
            return all(map(_four_alone, matches))
        case Protocol(name):
            return name == "ip"
    return any(carrier(field) == "ip" for field in _fields(match))
