"""What the optimiser leaves out is never missed, and it leaves out what it is there for."""

from __future__ import annotations

import random

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


def listing(blocks: dict[int, Block]) -> str:
    return assemble(optimised(blocks, 0), 0).bytecode()


ENDS = {8: Block((), Return(0)), 9: Block((), Return(1))}
AT_1 = (Operation(LDX + MEM, 0), Operation(LD + B + IND, 1))
START = (Operation(LDX + IMM, 20), Operation(STX, 0))


def test_a_load_is_not_done_twice():
    """Neither of the memory, nor of the packet, nor the store that nobody then reads."""
    blocks = {
        0: Block((*START, *AT_1), Ask(JMP + JEQ + K, 7, 9, 1)),
        1: Block(AT_1, Ask(JMP + JEQ + K, 8, 9, 8)),
        **ENDS,
    }
    assert listing(blocks) == "6,1 0 0 20,80 0 0 1,21 1 0 7,21 0 1 8,6 0 0 1,6 0 0 0"


def test_a_load_that_may_not_have_been_done_is():
    """On one of the ways A holds it, on the other it does not."""
    blocks = {
        0: Block((*START, Operation(LD + B + ABS, 0)), Ask(JMP + JEQ + K, 7, 1, 2)),
        1: Block(AT_1, Ask(JMP + JEQ + K, 7, 9, 2)),
        2: Block(AT_1, Ask(JMP + JEQ + K, 8, 9, 8)),
        **ENDS,
    }
    program = assemble(optimised(blocks, 0), 0)
    assert [run(program, bytes((first,)) + bytes(20) + b"\x08") for first in (6, 7)] == [1, 1]
    assert len(program) == 9


def test_a_load_asks_for_bytes_only_where_no_later_one_does():
    further = (Operation(LDX + MEM, 0), Operation(LD + B + IND, 5))
    blocks = {
        0: Block(START, Goto(1)),
        1: Block(AT_1, Goto(2)),
        2: Block(further, Ask(JMP + JEQ + K, 8, 9, 8)),
        **ENDS,
    }
    assert listing(blocks) == "5,1 0 0 20,80 0 0 5,21 0 1 8,6 0 0 1,6 0 0 0"
    blocks |= {1: Block(further, Goto(2)), 2: Block(AT_1, Ask(JMP + JEQ + K, 8, 9, 8))}
    assert listing(blocks) == "6,1 0 0 20,80 0 0 5,80 0 0 1,21 0 1 8,6 0 0 1,6 0 0 0"
