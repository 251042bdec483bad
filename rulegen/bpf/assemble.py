"""Put blocks of instructions in a line and turn the names they jump to into distances.

In:  Block: operations and how the block ends (a question, a return, another block); one that comes first.
Out: Program.
Source: Linux include/uapi/linux/filter.h: jt and jf are 8 bits and go forward only, ja has 32.

Blocks must not form a loop. What no jump leads to is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from rulegen.bpf.program import CONDITIONS, JA, JMP, RET, Instruction, K, Program

Label: TypeAlias = int
"""Of a block."""

NEAR_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Operation:
    """An instruction that is no jump and no return."""

    code: int
    k: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A conditional jump."""

    code: int
    k: int
    yes: Label
    no: Label


@dataclass(frozen=True, slots=True)
class Goto:
    label: Label


@dataclass(frozen=True, slots=True)
class Return:
    value: int


End: TypeAlias = Ask | Goto | Return


@dataclass(frozen=True, slots=True)
class Block:
    operations: tuple[Operation, ...]
    end: End


def successors(end: End) -> tuple[Label, ...]:
    match end:
        case Ask(_, _, yes, no):
            return (yes,) if yes == no else (yes, no)
        case Goto(label):
            return (label,)
    return ()


def in_line(blocks: Mapping[Label, Block], first: Label) -> list[Label]:
    """Blocks that can be reached, every one before those that it leads to; returns are last.

    The kernel takes what is written before a return for what is written behind it: none may be in between.
    """
    done: dict[Label, None] = {}
    opened: set[Label] = set()

    def goes_on(label: Label) -> bool:
        return isinstance(blocks[label].end, Goto)

    def visit(label: Label) -> None:
        if label in opened:
            if label not in done:
                raise ValueError(f"block {label} leads to itself")
            return
        opened.add(label)
        # What is visited last stands directly behind. A block that ends with a Goto is better off later,
        # next to where it leads.
        following = sorted(successors(blocks[label].end), key=goes_on)
        for one in reversed(following):
            visit(one)
        done[label] = None

    visit(first)
    line = list(reversed(done))
    line.sort(key=lambda label: isinstance(blocks[label].end, Return))
    return line


def assemble(blocks: Mapping[Label, Block], first: Label) -> Program:
    """The program; a conditional jump that does not reach its block goes there by a `ja` behind it."""
    line = in_line(blocks, first)
    after = dict(pairwise(line))
    far: set[tuple[Label, bool]] = set()
    while True:
        starts, at = {}, 0
        for label in line:
            starts[label] = at
            at += len(blocks[label].operations) + _end_size(label, blocks[label].end, after.get(label), far)
        more = {
            (label, answer)
            for label in line
            for answer, distance in _distances(label, blocks[label], starts, far)
            if distance > NEAR_MAX
        }
        if not more:
            break
        far |= more
    instructions: list[Instruction] = []
    for label in line:
        block = blocks[label]
        instructions += (Instruction(one.code, 0, 0, one.k) for one in block.operations)
        instructions += _end(label, block.end, starts, after.get(label), far, len(instructions))
    return Program(tuple(instructions))


def _end_size(label: Label, end: End, behind: Label | None, far: set[tuple[Label, bool]]) -> int:
    match end:
        case Goto(target):
            return int(target != behind)
        case Ask(_, _, yes, no) if yes != no:
            return 1 + ((label, True) in far) + ((label, False) in far)
        case Ask():
            raise ValueError(f"block {label} asks for nothing")
    return 1


def _distances(
    label: Label, block: Block, starts: Mapping[Label, int], far: set[tuple[Label, bool]]
) -> list[tuple[bool, int]]:
    """Of the jumps that are not yet known to be far: yes or no, and how many instructions they skip."""
    if not isinstance(block.end, Ask):
        return []
    here = starts[label] + len(block.operations) + 1
    targets = ((True, block.end.yes), (False, block.end.no))
    return [(answer, starts[to] - here) for answer, to in targets if (label, answer) not in far]


def _end(
    label: Label,
    end: End,
    starts: Mapping[Label, int],
    behind: Label | None,
    far: set[tuple[Label, bool]],
    at: int,
) -> list[Instruction]:
    match end:
        case Return(value):
            return [Instruction(RET + K, 0, 0, value)]
        case Goto(target):
            return [] if target == behind else [Instruction(JMP + JA, 0, 0, starts[target] - at - 1)]
    jumps: list[Instruction] = []
    near = []
    for answer, target in ((True, end.yes), (False, end.no)):
        if (label, answer) in far:
            near.append(len(jumps))
            jumps.append(Instruction(JMP + JA, 0, 0, starts[target] - at - 2 - len(jumps)))
        else:
            near.append(starts[target] - at - 1)
    assert end.code in CONDITIONS
    return [Instruction(end.code, near[0], near[1], end.k), *jumps]
