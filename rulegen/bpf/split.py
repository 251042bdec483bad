"""Say a match with programs that each fit a rule of the firewall.

In:  Match, of tests on the packet alone.
Out: Programs: alternatives, each of one or more programs that all have to match.
Source: Linux net/netfilter/xt_bpf.c: 64 instructions; iptables/xshared.c: 1023 characters for a word.

An Or that is too long becomes several alternatives, an And several programs of one. A part that is cut off
from the questions whether its bytes are there still says the right thing: in an And the other program does
not match, in an Or the other alternative does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Final, TypeAlias

from rulegen.bpf.compile import RECORDS_MAX, TooLong, compile_formula
from rulegen.bpf.formula import All, Any, CantCompile, Formula, No, Value, every, formula, negated, some
from rulegen.bpf.program import RET, K, Program
from rulegen.bpf.verify import refusal
from rulegen.ir.match import And, Match, Not, Or, SomeRecord

BYTECODE_MAX: Final = 1023
"""iptables/xshared.c struct xt_param_buf."""

ALTERNATIVES_MAX: Final = 64
"""Every one is a rule; a match that needs more is better said by a set."""

Alternatives: TypeAlias = tuple[tuple[Program, ...], ...]


@dataclass(frozen=True, slots=True)
class Programs:
    """What says a match."""

    alternatives: Alternatives
    """Of none: the match can't hold."""
    records: int | None
    """How many records are looked at where the match asks for one of some; None: it does not."""


@lru_cache(maxsize=1024)
def programs(match: Match) -> Programs:
    """The programs that say a match.

    Raises:
        CantCompile: Classic BPF has no words for it, or would need too many.
    """
    asked = _records(match)
    if asked is None:
        return Programs(_alternatives(formula(match, 1)), None)
    for records in range(min(asked, RECORDS_MAX), 1, -1):
        try:
            return Programs(_alternatives(formula(match, records)), records)
        except CantCompile:
            continue
    return Programs(_alternatives(formula(match, 1)), 1)


def _records(match: Match) -> int | None:
    """The most records that a part of the match asks for."""
    match match:
        case And(matches) | Or(matches):
            return max((asked for part in matches if (asked := _records(part)) is not None), default=None)
        case Not(inner):
            return _records(inner)
        case SomeRecord(_, records):
            return records
    return None


def fits(program: Program) -> bool:
    """The kernel takes it, and so does iptables."""
    return refusal(program) is None and len(program.bytecode()) <= BYTECODE_MAX


def _alternatives(whole: Formula) -> Alternatives:
    if whole is False:
        return ()
    found = tuple(way for way in _cut(whole) if not any(map(_never, way)))
    if len(found) > ALTERNATIVES_MAX:
        raise CantCompile(f"a match of more than {ALTERNATIVES_MAX} rules")
    return found


def _never(program: Program) -> bool:
    """It matches no packet."""
    return not any(one.code == RET + K and one.k for one in program.instructions)


def _cut(whole: Formula) -> Alternatives:
    program = _fitting(whole)
    if program is not None:
        return ((program,),)
    match whole:
        case Any(parts):
            return tuple(one for part in _grouped(parts, some) for one in _cut(part))
        case All(parts):
            ways = [_cut(part) for part in _grouped(parts, every)]
            return tuple(sum(chosen, ()) for chosen in product(*ways))
        case No(All(parts)):
            return _cut(some(map(negated, parts)))
        case No(Any(parts)):
            return _cut(every(map(negated, parts)))
        case Value(ranges=ranges) if len(ranges) > 1:
            half = len(ranges) // 2
            return (*_cut(replace(whole, ranges=ranges[:half])), *_cut(replace(whole, ranges=ranges[half:])))
    raise CantCompile("a test that does not fit a program of 64 instructions")


def _fitting(part: Formula) -> Program | None:
    try:
        program = compile_formula(part)
    except TooLong:
        return None
    return program if fits(program) else None


def _grouped(parts: Sequence[Formula], join: Callable[[Sequence[Formula]], Formula]) -> list[Formula]:
    """As many neighbours together as fit a program."""
    groups: list[list[Formula]] = [[]]
    for part in parts:
        if groups[-1] and _fitting(join((*groups[-1], part))) is None:
            groups.append([])
            if len(groups) > ALTERNATIVES_MAX:
                raise CantCompile(f"a match of more than {ALTERNATIVES_MAX} rules")
        groups[-1].append(part)
    return [join(group) for group in groups]
