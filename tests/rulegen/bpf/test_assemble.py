"""Labels become distances, short and long ones, and nothing is left that no jump leads to."""

from __future__ import annotations

import random

import pytest

from rulegen.bpf.assemble import Ask, Block, Goto, Operation, Return, assemble
from rulegen.bpf.optimise import optimised
from rulegen.bpf.program import (
    ABS,
    ADD,
    ALU,
    IMM,
    IND,
    JEQ,
    JGT,
    JMP,
    LD,
    LDX,
    MEM,
    MISC,
    ST,
    STX,
    TAX,
    TXA,
    B,
    K,
    W,
    X,
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


def random_blocks(chance: random.Random) -> dict[int, Block]:
    """Blocks of loads and stores, each of which leads to later ones; the last two return.

    Words 0 and 1 of the memory are written once, as the optimiser demands of what loads count from.
    """
    size = chance.randrange(3, 12)
    operations = [Operation(LDX + MEM, word) for word in (0, 1)]
    operations += [Operation(LD + code, k) for code in (B + ABS, W + ABS, B + IND) for k in range(3)]
    operations += [Operation(store, word) for store in (ST, STX) for word in (2, 3)]
    operations += [Operation(LD + MEM, 2), Operation(ALU + ADD + K, 1), Operation(ALU + ADD + X)]
    operations += [Operation(MISC + TAX), Operation(MISC + TXA)]
    start = (Operation(ST, 0), Operation(ST, 2), Operation(LD + IMM, 1), Operation(ST, 1))
    blocks = {}
    for label in range(size):
        body = tuple(chance.choice(operations) for _ in range(chance.randrange(4)))
        if chance.random() < 0.3:
            body = (Operation(LDX + MEM, chance.randrange(2)), Operation(LD + B + IND, chance.randrange(4)))
        yes, no = (chance.randrange(label + 1, size + 2) for _ in range(2))
        end = (
            Goto(yes) if yes == no else Ask(JMP + chance.choice((JEQ, JGT)) + K, chance.randrange(8), yes, no)
        )
        blocks[label] = Block((*(start if label == 0 else ()), *body), end)
    return blocks | {size: Block((), Return(0)), size + 1: Block((), Return(1))}


def test_what_the_optimiser_leaves_out_is_not_missed():
    chance = random.Random(4)
    shorter = matched = 0
    for _ in range(3000):
        blocks = random_blocks(chance)
        plain, better = assemble(blocks, 0), assemble(optimised(blocks, 0), 0)
        assert refusal(better) is None, better.bytecode()
        assert len(better) <= len(plain) + 2
        shorter += len(better) < len(plain)
        for _ in range(10):
            packet = bytes(chance.randrange(8) for _ in range(chance.randrange(8)))
            assert run(better, packet) == run(plain, packet), (plain.bytecode(), packet.hex())
            matched += run(plain, packet)
    assert shorter > 500
    assert matched > 1000
