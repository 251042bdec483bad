"""Leave out loads that a later one stands for, or that a register holds already, and stores nobody reads.

In:  blocks, one of which comes first.
Out: blocks that do the same in fewer instructions.
Source: none; a backward analysis of how far loads reach, a forward one of what the registers hold.

The code generator begins every block as if the registers held nothing, and asks for bytes by loads of which
it needs no value; what is spared is decided here alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from rulegen.bpf.assemble import Ask, Block, End, Goto, Label, Operation, Return, in_line, successors
from rulegen.bpf.program import ABS, ALU, IND, LD, LDX, MEM, MISC, MSH, ST, STX, TAX, TXA, B, H, W, X

Held: TypeAlias = tuple[object, ...] | None
"""What a register holds, as the operations that made it. None: unknown."""


Reach: TypeAlias = dict[int, int]


class Registers(NamedTuple):
    a: Held
    x: Held


_NOTHING: Final = Registers(None, None)
_CLASS: Final = 0x07
_MODE: Final = 0xE0
_SIZE: Final = 0x18
_SIZES: Final = {W: 4, H: 2, B: 1}


def optimised(blocks: Mapping[Label, Block], first: Label) -> dict[Label, Block]:
    return _without_idle_stores(_without_idle_loads(_without_idle_probes(blocks, first), first), first)


def _without_idle_probes(blocks: Mapping[Label, Block], first: Label) -> dict[Label, Block]:
    """Leave out a block that only asks by a load whether bytes are there, if it makes no difference.

    It makes none if on all ways from there to a match another load asks for as many from the same place:
    without the bytes, the program returns 0 in any case. A place is a word of the memory, which no way to
    anywhere writes twice.
    """
    result: dict[Label, Block] = {}
    instead: dict[Label, Label] = {}
    reaches: dict[Label, Reach | None] = {}
    for label in reversed(in_line(blocks, first)):
        block = blocks[label]
        end = _directed(block.end, instead)
        reach = _ahead(end, reaches)
        own = _reach(block.operations)
        idle = reach is None or all(reach.get(place, 0) >= size for place, size in own.items())
        if idle and isinstance(end, Goto) and _probes(block.operations):
            instead[label] = end.label
            continue
        if reach is not None:
            reach = {place: max(own.get(place, 0), reach.get(place, 0)) for place in {*own, *reach}}
        reaches[label] = reach
        result[label] = Block(block.operations, end)
    result[first] = result[instead.get(first, first)]
    return result


def _directed(end: End, instead: Mapping[Label, Label]) -> End:
    match end:
        case Ask(code, k, yes, no):
            yes, no = instead.get(yes, yes), instead.get(no, no)
            return Goto(yes) if yes == no else Ask(code, k, yes, no)
        case Goto(label):
            return Goto(instead.get(label, label))
    return end


def _probes(operations: Sequence[Operation]) -> bool:
    """A load from a place, and nothing else."""
    return [one.code & ~_SIZE for one in operations] == [LDX + MEM, LD + IND]


def _reach(operations: Sequence[Operation]) -> Reach:
    """How far loads reach from each place: from a word of the memory that is in X."""
    reach: Reach = {}
    place: int | None = None
    for operation in operations:
        if operation.code == LDX + MEM:
            place = operation.k
        elif _writes_x(operation):
            place = None
        elif operation.code & ~_SIZE == LD + IND and place is not None:
            size = _SIZES[operation.code & _SIZE]
            reach[place] = max(reach.get(place, 0), operation.k + size)
    return reach


def _ahead(end: End, reaches: Mapping[Label, Reach | None]) -> Reach | None:
    """How far loads reach on every one of the ways to a match; None: there is no such way."""
    if isinstance(end, Return):
        return {} if end.value else None
    ahead = [one for following in successors(end) if (one := reaches[following]) is not None]
    if not ahead:
        return None
    places = set(ahead[0]).intersection(*ahead[1:])
    return {place: min(one[place] for one in ahead) for place in places}


def _without_idle_loads(blocks: Mapping[Label, Block], first: Label) -> dict[Label, Block]:
    """Have every jump go behind the operations of its block that would change nothing."""
    result: dict[Label, Block] = {}
    arriving: dict[Label, list[tuple[Label, Registers]]] = {first: []}
    fresh = max(blocks) + 1
    for label in in_line(blocks, first):
        block = blocks[label]
        skips = {source: _idle(block.operations, held) for source, held in arriving[label]}
        cuts = sorted({*skips.values(), *((0,) if label == first else ())})
        parts = [label, *range(fresh, fresh + len(cuts) - 1)]
        fresh += len(cuts) - 1
        for source, skipped in skips.items():
            one = result[source]
            result[source] = replace(one, end=_led(one.end, label, parts[cuts.index(skipped)]))
        held = _NOTHING
        for number, (part, cut) in enumerate(zip(parts, cuts, strict=True)):
            entries = [was for source, was in arriving[label] if skips[source] == cut]
            if number:
                entries.append(held)
            last = part == parts[-1]
            operations = block.operations[cut : None if last else cuts[number + 1]]
            before = _common(entries)
            held = _after(before, operations)
            end = block.end if last else Goto(parts[number + 1])
            result[part] = Block(tuple(_working(operations, before)), end)
        for following in successors(block.end):
            arriving.setdefault(following, []).append((parts[-1], held))
    return result


def _may_fail(operation: Operation) -> bool:
    return operation.code & ~_SIZE in (LD + ABS, LD + IND) or operation.code == LDX + B + MSH


def _working(operations: Sequence[Operation], held: Registers) -> Iterator[Operation]:
    """The operations that change something."""
    for operation in operations:
        if operation.code in (ST, STX) or not _idle((operation,), held):
            yield operation
        held = _step(held, operation)


def _led(end: End, old: Label, new: Label) -> End:
    match end:
        case Ask(code, k, yes, no):
            return Ask(code, k, new if yes == old else yes, new if no == old else no)
        case Goto():
            return Goto(new)
    return end


def _idle(operations: Sequence[Operation], held: Registers) -> int:
    """How many operations, from the first, leave the registers as they are and store nothing."""
    idle, now = 0, held
    for number, operation in enumerate(operations, 1):
        if operation.code in (ST, STX):
            break
        now = _step(now, operation)
        made = now.x if _writes_x(operation) else now.a
        # A load may end the program, unless it has been done on the way here.
        if made is None or (_may_fail(operation) and not any(_part_of(made, one) for one in held)):
            break
        if now == held:
            idle = number
    return idle


def _writes_x(operation: Operation) -> bool:
    return operation.code & _CLASS == LDX or operation.code == MISC + TAX


def _common(entries: Sequence[Registers]) -> Registers:
    if not entries:
        return _NOTHING
    first = entries[0]
    return Registers(
        first.a if all(one.a == first.a for one in entries) else None,
        first.x if all(one.x == first.x for one in entries) else None,
    )


def _after(held: Registers, operations: Sequence[Operation]) -> Registers:
    for operation in operations:
        held = _step(held, operation)
    return held


def _step(held: Registers, operation: Operation) -> Registers:
    a, x = held
    code, k = operation.code, operation.k
    if code == MISC + TAX:
        return Registers(a, a)
    if code == MISC + TXA:
        return Registers(x, x)
    if code in (ST, STX):
        word: Held = ("word", k)
        a, x = (None if _part_of(word, a) else a), (None if _part_of(word, x) else x)
        return Registers(word, x) if code == ST else Registers(a, word)
    if code in (LD + MEM, LDX + MEM):
        loaded: Held = ("word", k)
    elif code & _CLASS == ALU or (code & _CLASS == LD and code & _MODE == IND):
        inputs = (a, x) if code & _CLASS == ALU and code & X else (x if code & _CLASS == LD else a,)
        loaded = None if None in inputs else (code, k, *inputs)
    else:
        loaded = (code, k)
    return Registers(a, loaded) if code & _CLASS == LDX else Registers(loaded, x)


def _part_of(part: Held, held: Held) -> bool:
    """What the register holds was made from the part."""
    return held is not None and (
        held == part or any(isinstance(one, tuple) and _part_of(part, one) for one in held)
    )


def _without_idle_stores(blocks: Mapping[Label, Block], first: Label) -> dict[Label, Block]:
    reachable = in_line(blocks, first)
    read = {
        operation.k
        for label in reachable
        for operation in blocks[label].operations
        if operation.code in (LD + MEM, LDX + MEM)
    }
    return {
        label: replace(
            blocks[label],
            operations=tuple(
                operation
                for operation in blocks[label].operations
                if operation.code not in (ST, STX) or operation.k in read
            ),
        )
        for label in reachable
    }
