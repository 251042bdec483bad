"""Turn a formula into a program that returns 1 for the packets for which it holds.

In:  Formula (rulegen.bpf.formula).
Out: Program.
Source: Linux net/netfilter/xt_bpf.c: data begins at the network header, a load outside of it returns 0.

Ask the first open question, write what either answer leaves of the formula, and so on until it is true or
false; what is left of it in two places alike is written once. Where bytes must be there for the formula to
hold at all, a load is the question: if it fails, the program ends. Everywhere else their number is asked
first; leaving that out would turn "no match" loose on the rest of the formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from rulegen.bpf.assemble import Ask, Block, End, Goto, Label, Operation, Return, assemble
from rulegen.bpf.formula import (
    NETWORK,
    PAYLOAD,
    RECORD_HEADER_BYTES,
    SUM_BYTES,
    TRANSPORT,
    All,
    Any,
    Base,
    Carries,
    Formula,
    Four,
    Headed,
    Holds,
    No,
    Question,
    Sum,
    Value,
    every,
    implied,
    negated,
    some,
)
from rulegen.bpf.optimise import optimised
from rulegen.bpf.program import (
    ABS,
    ADD,
    ALU,
    AND,
    IMM,
    IND,
    JEQ,
    JGE,
    JGT,
    JMP,
    JSET,
    LD,
    LDX,
    LEN,
    MEM,
    MEMORY_WORDS,
    MISC,
    MSH,
    RSH,
    ST,
    STX,
    SUB,
    TAX,
    B,
    H,
    K,
    Program,
    W,
    X,
)
from rulegen.lower.ranges import Ranges, complement

REJECT: Final[Label] = 0
ACCEPT: Final[Label] = 1

BLOCKS_MAX: Final = 400
QUESTIONS_MAX: Final = 100
"""Of what needs more, no program could be made that fits a rule; and there is no end to some formulas."""

RECORDS_MAX: Final = MEMORY_WORDS - 2
"""Where they start is kept in the memory, with where the transport header starts, and a word for sums."""

_ADDEND: Final = MEMORY_WORDS - 1
_SIZES: Final = {1: B, SUM_BYTES: H, 4: W}
_RECORD_LENGTH: Final = 3
"""Offset of a record's length. RFC 8446 5.1."""
_SIX_BIT: Final = 0x20
"""Of the first byte: set in version 6, not in 4."""
_OFFSET_BITS: Final = 0x1FFF
"""Of IPv4's flags and fragment offset. RFC 791 3.1."""


class TooLong(Exception):
    """No program of the size that is allowed."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where the base lies has been computed and is in the memory."""

    base: Base


Known: TypeAlias = frozenset[tuple[Question | Start, bool]]


def compile_formula(formula: Formula) -> Program:
    """The program, which may be too long for a rule; TooLong if it would be by far."""
    asked = set(_questions(formula))
    if sum(len(one.ranges) if isinstance(one, Value) else 1 for one in asked) > QUESTIONS_MAX:
        raise TooLong
    compiler = _Compiler()
    first = compiler.node(formula, frozenset())
    return assemble(optimised(compiler.blocks, first), first)


class _Compiler:
    """The blocks of one program."""

    def __init__(self) -> None:
        self.blocks: dict[Label, Block] = {REJECT: Block((), Return(0)), ACCEPT: Block((), Return(1))}
        self._nodes: dict[tuple[Formula, Known], Label] = {}

    def node(self, formula: Formula, known: Known) -> Label:
        """Where the program goes on that decides the formula, with these answers known."""
        left = _left(formula, known)
        if isinstance(left, bool):
            return ACCEPT if left else REJECT
        known = _relevant(left, known)
        if (left, known) not in self._nodes:
            self._nodes[left, known] = self._ask(left, known)
        return self._nodes[left, known]

    def _block(self, operations: tuple[Operation, ...], end: End) -> Label:
        if len(self.blocks) > BLOCKS_MAX:
            raise TooLong
        label = len(self.blocks)
        self.blocks[label] = Block(operations, end)
        return label

    def _ask(self, formula: Formula, known: Known) -> Label:
        question = _next(formula, known)
        if isinstance(question, Start):
            following = self.node(formula, known | {(question, True)})
            return self._block(_find(question.base, _is_four(known)), Goto(following))
        no = self.node(formula, known | {(question, False)})
        yes = self.node(formula, known | {(question, True)})
        match question:
            case Holds(base, size) if no == REJECT:
                return self._block(_load(base, size - 1, 1), Goto(yes))
            case _ if yes == no:
                return yes
            case Value():
                return self._value(question, yes, no)
            case Sum(base, offset, plus, other):
                sums = (
                    *_load(base, other, SUM_BYTES),
                    Operation(ST, _ADDEND),
                    *_load(base, offset, SUM_BYTES),
                    Operation(ALU + ADD + K, plus),
                    Operation(LDX + MEM, _ADDEND),
                )
                return self._block(sums, Ask(JMP + JGT + X, 0, yes, no))
            case Four():
                return self._block(_load(NETWORK, 0, 1), Ask(JMP + JSET + K, _SIX_BIT, no, yes))
            case Carries(number):
                offset = 9 if _is_four(known) else 6
                return self._block(_load(NETWORK, offset, 1), Ask(JMP + JEQ + K, number, yes, no))
            case Headed():
                return self._block(_load(NETWORK, 6, 2), Ask(JMP + JSET + K, _OFFSET_BITS, no, yes))
            case Holds(base, size):
                return self._holds(base, size, known, yes, no)

    def _holds(self, base: Base, size: int, known: Known, yes: Label, no: Label) -> Label:
        """Ask the packet's length. Where the base lies beyond its end, `len - x` would be a large number."""
        length: tuple[Operation, ...] = (Operation(LDX + MEM, _word(base)), Operation(LD + W + LEN))
        if _shift(base):
            length = (*length, Operation(ALU + SUB + K, _shift(base)))
        rest = yes
        if size > 1:
            remains = (*length, Operation(ALU + SUB + X))
            rest = self._block(remains, Ask(JMP + JGE + K, size, yes, no))
            if (Holds(base, 1), True) in known or any(
                answer and isinstance(one, Holds) and one.base == base for one, answer in known
            ):
                return rest
        return self._block(length, Ask(JMP + JGT + X, 0, rest, no))

    def _value(self, asked: Value, yes: Label, no: Label) -> Label:
        operations = _load(asked.base, asked.offset, asked.width)
        bits = 8 * asked.width
        if asked.mask != (1 << bits) - 1:
            if asked.ranges == ((0, 0),):
                return self._block(operations, Ask(JMP + JSET + K, asked.mask, no, yes))
            operations = (*operations, Operation(ALU + AND + K, asked.mask))
        outside = complement(asked.ranges, bits)
        if _cost(outside, asked.mask) < _cost(asked.ranges, asked.mask):
            return self._block(operations, self._compare(outside, asked.mask, no, yes))
        return self._block(operations, self._compare(asked.ranges, asked.mask, yes, no))

    def _compare(self, ranges: Ranges, top: int, yes: Label, no: Label) -> End:
        """Ask where A, which is `top` at most, lies; from the lowest range to the highest."""
        (low, high), rest = ranges[0], ranges[1:]
        above = no
        if rest and rest[0][0] <= top:
            above = self._block((), self._compare(rest, top, yes, no))
        if low == high:
            return Ask(JMP + JEQ + K, low, yes, above)
        if high >= top:
            return Ask(JMP + JGE + K, low, yes, no)
        below_end = Ask(JMP + JGT + K, high, above, yes)
        return Ask(JMP + JGE + K, low, self._block((), below_end), no) if low else below_end


def _cost(ranges: Ranges, top: int) -> int:
    """Instructions that it takes to compare with them."""
    return sum(1 if low == high else (low > 0) + (high < top) for low, high in ranges if low <= top)


# --- what is asked next, and what is known ----------------------------------------------------------------


def _left(formula: Formula, known: Known) -> Formula:
    """What is open of the formula."""
    match formula:
        case bool():
            return formula
        case All(parts):
            return every(_each(parts, known, False))
        case Any(parts):
            return some(_each(parts, known, True))
        case No(part):
            return negated(_left(part, known))
    for one, answer in known:
        if not isinstance(one, Start) and (follows := implied(formula, one, answer)) is not None:
            return follows
    return formula


def _each(parts: tuple[Formula, ...], known: Known, decisive: bool) -> Iterator[Formula]:
    """What is open of each, as far as the first that decides."""
    for part in parts:
        left = _left(part, known)
        yield left
        if left is decisive:
            return


def _next(formula: Formula, known: Known) -> Question | Start:
    """The first open question, or what has to be known before it can be asked."""
    while isinstance(formula, All | Any | No):
        formula = formula.part if isinstance(formula, No) else formula.parts[0]
    assert not isinstance(formula, bool)
    wanted: Question | Start = formula
    while (before := _before(wanted, known)) is not None:
        wanted = before
    return wanted


def _before(wanted: Question | Start, known: Known) -> Question | Start | None:
    """What has to be known first, and is not yet."""
    needed = _needed(wanted)
    return None if needed is None or _has_answer(needed, known) else needed


def _needed(wanted: Question | Start) -> Question | Start | None:
    """What has to be known first."""
    match wanted:
        case Start(base) if base > TRANSPORT:
            return Start(base - 1)
        case Start() | Carries() | Headed():
            return Four()
        case Holds(base) | Value(base) | Sum(base) if base != NETWORK:
            return Start(base)
    return None


def _has_answer(question: Question | Start, known: Known) -> bool:
    return (question, True) in known or (question, False) in known


def _relevant(formula: Formula, known: Known) -> Known:
    """The answers that bear on what is open; the others must not keep alike code apart."""
    subjects: set[object] = set()
    for question in set(_questions(formula)):
        wanted: Question | Start | None = question
        while wanted is not None and (subject := _subject(wanted)) not in subjects:
            subjects.add(subject)
            wanted = None if _has_answer(wanted, known) else _needed(wanted)
    return frozenset((one, answer) for one, answer in known if _subject(one) in subjects)


def _questions(formula: Formula) -> Iterator[Question]:
    match formula:
        case All(parts) | Any(parts):
            for part in parts:
                yield from _questions(part)
        case No(part):
            yield from _questions(part)
        case bool():
            return
        case _:
            yield formula


def _subject(one: Question | Start) -> object:
    """What is equal of questions that bear on each other."""
    match one:
        case Holds(base):
            return Holds, base
        case Value(base, offset, width, mask):
            return Value, base, offset, width, mask
        case Carries():
            return Carries
    return one


# --- instructions -----------------------------------------------------------------------------------------


def _is_four(known: Known) -> bool:
    return (Four(), True) in known


def _word(base: Base) -> int:
    """The word of the memory that says where the base lies."""
    return base - TRANSPORT


def _shift(base: Base) -> int:
    """Bytes between where the memory says that the base lies and where it lies.

    From record to record only the lengths are added up; the sizes of their headers are added to offsets.
    """
    return RECORD_HEADER_BYTES * max(base, 0)


def _load(base: Base, offset: int, width: int) -> tuple[Operation, ...]:
    if base == NETWORK:
        return (Operation(LD + _SIZES[width] + ABS, offset),)
    start = Operation(LDX + MEM, _word(base))
    return start, Operation(LD + _SIZES[width] + IND, offset + _shift(base))


def _find(base: Base, four: bool) -> tuple[Operation, ...]:
    """Compute where the base lies, from where the one before lies."""
    keep = Operation(STX, _word(base))
    if base == TRANSPORT:
        return (Operation(LDX + B + MSH, 0) if four else Operation(LDX + W + IMM, 40)), keep
    add_up = (Operation(ALU + ADD + X), Operation(MISC + TAX), keep)
    if base == PAYLOAD:
        bytes_of_words = (Operation(ALU + AND + K, 0xF0), Operation(ALU + RSH + K, 2))
        return (*_load(TRANSPORT, 12, 1), *bytes_of_words, *add_up)
    return (*_load(base - 1, _RECORD_LENGTH, 2), *add_up)
