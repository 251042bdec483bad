"""What the kernel refuses: each demand by its words, and then the kernel's own opinion of random programs."""

from __future__ import annotations

import random

import pytest

from rulegen.bpf.program import (
    ABS,
    ALU,
    DIV,
    IMM,
    JA,
    JEQ,
    JMP,
    LD,
    LSH,
    MEM,
    MOD,
    RET,
    RSH,
    ST,
    A,
    Instruction,
    K,
    Program,
    W,
    X,
    parse_bytecode,
)  # fmt: skip
from rulegen.bpf.verify import refusal
from tests.rulegen.bpf.random_programs import filtered_socket, random_program

END = Instruction(RET + K, 0, 0, 1)


def program(*rows: tuple[int, ...]) -> Program:
    return Program((*(Instruction(*row) for row in rows), END))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Program(()), "0 instructions; 1 to 64 are allowed"),
        (program(*[(LD + IMM, 0, 0, 0)] * 64), "65 instructions; 1 to 64 are allowed"),
        (program((0xFF, 0, 0, 0)), "instruction 0: no opcode 0xff"),
        (program((LD + MEM, 0, 0, 0)), "instruction 0: word 0 of the memory may not have been written"),
        (program((ST, 0, 0, 16)), "instruction 0: no word 16 in the memory"),
        (program((ALU + DIV + K, 0, 0, 0)), "instruction 0: division by 0"),
        (program((ALU + MOD + K, 0, 0, 0)), "instruction 0: division by 0"),
        (program((ALU + LSH + K, 0, 0, 32)), "instruction 0: a shift by 32 bits"),
        (program((ALU + RSH + K, 0, 0, 40)), "instruction 0: a shift by 40 bits"),
        (program((JMP + JA, 0, 0, 1)), "instruction 0: a jump out of the program"),
        (program((JMP + JEQ + K, 0, 1, 0)), "instruction 0: a jump out of the program"),
        (program((LD + W + ABS, 0, 0, 0xFFFFF001)), "instruction 0: no ancillary data at 0xfffff001"),
        (Program((Instruction(LD + IMM, 0, 0, 0),)), "it does not end with a return"),
        # One way writes the word, the other does not.
        (
            program((JMP + JEQ + K, 0, 1, 0), (ST, 0, 0, 3), (LD + MEM, 0, 0, 3)),
            "instruction 2: word 3 of the memory may not have been written",
        ),
    ],
)
def test_each_demand_by_its_words(bad, words):
    assert refusal(bad) == words


@pytest.mark.parametrize(
    "good",
    [
        program(),
        program(*[(LD + IMM, 0, 0, 0)] * 63),
        program((ST, 0, 0, 15), (JMP + JEQ + X, 0, 1, 0), (ST, 0, 0, 3), (LD + MEM, 0, 0, 15)),
        program((JMP + JA, 0, 0, 0)),
        Program((Instruction(RET + A, 0, 0, 0),)),
        # Heartbleed over IPv4, by hand.
        parse_bytecode(
            "24,40 0 0 6,69 20 0 8191,48 0 0 9,21 0 18 6,177 0 0 0,80 0 0 12,84 0 0 240,116 0 0 2,12 0 0 0,7 0 0 0,"
            "80 0 0 0,21 0 10 24,80 0 0 1,21 0 8 3,80 0 0 5,21 0 6 1,72 0 0 3,2 0 0 0,72 0 0 6,4 0 0 19,97 0 0 0,"
            "45 1 0 0,6 0 0 0,6 0 0 1"
        ),
    ],
)
def test_what_is_right_is_taken(good):
    assert refusal(good) is None


def test_the_kernel_has_the_same_opinion_of_random_programs():
    chance = random.Random(1)
    counts = {True: 0, False: 0}
    with filtered_socket() as kernel:
        for number in range(20_000):
            one = random_program(chance, (0.0, 0.02, 0.1, 0.4)[number % 4])
            accepted = refusal(one, longest=4096) is None
            counts[accepted] += 1
            assert kernel.attach(one) is accepted, (refusal(one, longest=4096), one.bytecode())
    assert min(counts.values()) > 4000
