"""Labels become distances, short and long ones, and nothing is left that no jump leads to."""

from __future__ import annotations

import pytest

from rulegen.bpf.assemble import Ask, Block, Goto, Operation, Return, assemble
from rulegen.bpf.program import (
    ABS,
    ADD,
    ALU,
    JEQ,
    JMP,
    LD,
    B,
    K,
)
from rulegen.bpf.verify import refusal
from rulegen.evaluate.cbpf import run

LOAD = Operation(LD + B + ABS, 0)
PADDING = tuple(Operation(ALU + ADD + K, 0) for _ in range(300))


def is_(value: int, yes: int, no: int) -> Block:
    return Block((LOAD,), Ask(JMP + JEQ + K, value, yes, no))


@pytest.mark.parametrize(
    ("first", "second", "jumps"),
    [((), (), 0), (PADDING, (), 1), ((), PADDING, 1), (PADDING, PADDING, 1)],
    ids=["short", "first long", "second long", "both long"],
)
def test_jumps_of_any_length(first, second, jumps):
    blocks = {
        0: is_(7, 5, 4),
        3: is_(1, 4, 5),
        4: Block((*second, Operation(ALU + ADD + K, 0)), Return(4)),
        5: Block((*first, Operation(ALU + ADD + K, 0)), Return(5)),
    }
    program = assemble(blocks, 0)
    assert refusal(program, longest=4096) is None
    assert run(program, b"\x07") == 5
    assert run(program, b"\x08") == 4
    assert sum(one.code == JMP for one in program.instructions) <= jumps


def test_both_answers_far():
    blocks = {
        0: is_(7, 1, 2),
        1: Block(PADDING, Goto(3)),
        2: is_(8, 3, 4),
        3: Block(PADDING, Goto(5)),
        4: Block(PADDING, Goto(5)),
        5: is_(9, 6, 7),
        6: Block((), Return(6)),
        7: Block((), Return(7)),
    }
    program = assemble(blocks, 0)
    assert refusal(program, longest=4096) is None
    assert [run(program, bytes((value,))) for value in (7, 8, 9, 10)] == [7, 7, 6, 7]


def test_dead_code_is_left_out():
    blocks = {0: Block((LOAD,), Goto(2)), 1: Block((LOAD, LOAD), Return(9)), 2: Block((), Return(1))}
    assert assemble(blocks, 0).bytecode() == "2,48 0 0 0,6 0 0 1"


def test_a_loop_is_refused():
    with pytest.raises(ValueError, match="leads to itself"):
        assemble({0: is_(1, 1, 2), 1: is_(2, 0, 2), 2: Block((), Return(0))}, 0)
