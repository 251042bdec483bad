"""Look for a record only where it starts the payload, for filters that can't walk from record to record.

In:  Match.
Out: a Match without SomeRecord, which holds for fewer packets, or, below a Not, for more.
"""

from __future__ import annotations

from rulegen.ir.match import And, Match, Not, Or, SomeRecord


def first_record(match: Match) -> Match:
    """The match with every SomeRecord narrowed to the first record."""
    match match:
        case SomeRecord(inner):
            return inner
        case And(matches):
            return And(tuple(map(first_record, matches)))
        case Or(matches):
            return Or(tuple(map(first_record, matches)))
        case Not(inner):
            return Not(first_record(inner))
    return match


def narrowed(match: Match, wanted: bool = True) -> set[bool]:
    """How first_record changes the match: True, it may hold for fewer packets; False, for more."""
    match match:
        case SomeRecord():
            return {wanted}
        case And(matches) | Or(matches):
            return set().union(*(narrowed(part, wanted) for part in matches))
        case Not(inner):
            return narrowed(inner, not wanted)
    return set()
