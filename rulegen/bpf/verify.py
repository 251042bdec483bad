"""What the kernel demands of a classic BPF program before it loads it.

In:  Program.
Out: the reason why the kernel would refuse it, or None.
Source: Linux net/core/filter.c bpf_check_classic, check_load_and_stores; net/netfilter/xt_bpf.c for the
    length. `iptables-restore --test` asks none of this.

It must accept exactly what the kernel accepts (a test compares them): nothing is emitted that it refuses.
"""

from __future__ import annotations

from typing import Final

from rulegen.bpf.program import (
    ABS,
    ADD,
    ALU,
    AND,
    CONDITIONS,
    DIV,
    IMM,
    IND,
    JA,
    JMP,
    LD,
    LDX,
    LEN,
    LSH,
    MEM,
    MEMORY_WORDS,
    MISC,
    MOD,
    MSH,
    MUL,
    NEG,
    OR,
    RET,
    RSH,
    ST,
    STX,
    SUB,
    TAX,
    TXA,
    XOR,
    A,
    B,
    H,
    Instruction,
    K,
    Program,
    W,
    X,
)

INSTRUCTIONS_MAX: Final = 64
"""Linux include/uapi/linux/netfilter/xt_bpf.h XT_BPF_MAX_NUM_INSTR."""

ANCILLARY: Final = 0xFFFFF000
"""SKF_AD_OFF: loads from here on are of what the kernel knows about a packet, of every fourth of them."""

_ANCILLARY_LAST: Final = ANCILLARY + 60

_SHIFT_BITS: Final = 32
_ABSOLUTE: Final = (LD + W + ABS, LD + H + ABS, LD + B + ABS)

_CODES: Final = frozenset(
    (
        *(ALU + what + of for what in (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR) for of in (K, X)),
        ALU + NEG,
        *(LD + size + place for size in (W, H, B) for place in (ABS, IND)),
        *(LD + place for place in (IMM, MEM, LEN)),
        *(LDX + place for place in (IMM, MEM, LEN, MSH + B)),
        *(ST, STX, MISC + TAX, MISC + TXA, RET + K, RET + A, JMP + JA, *CONDITIONS),
    )
)


def refusal(program: Program, *, longest: int = INSTRUCTIONS_MAX) -> str | None:
    """Why the kernel would not load the program; None: it would."""
    count = len(program)
    if not 0 < count <= longest:
        return f"{count} instructions; 1 to {longest} are allowed"
    for at, one in enumerate(program.instructions):
        following = count - at - 1
        problem = None
        if one.code not in _CODES:
            problem = f"no opcode {one.code:#x}"
        elif one.code in (ALU + DIV + K, ALU + MOD + K) and one.k == 0:
            problem = "division by 0"
        elif one.code in (ALU + LSH + K, ALU + RSH + K) and one.k >= _SHIFT_BITS:
            problem = f"a shift by {one.k} bits"
        elif one.code in (LD + MEM, LDX + MEM, ST, STX) and one.k >= MEMORY_WORDS:
            problem = f"no word {one.k} in the memory"
        elif _jumps(one) >= following:
            problem = "a jump out of the program"
        elif one.code in _ABSOLUTE and one.k >= ANCILLARY and (one.k > _ANCILLARY_LAST or one.k % 4):
            problem = f"no ancillary data at {one.k:#x}"
        if problem:
            return f"instruction {at}: {problem}"
    if program.instructions[-1].code not in (RET + K, RET + A):
        return "it does not end with a return"
    return _uninitialised(program)


def _jumps(one: Instruction) -> int:
    """Instructions that it may skip."""
    if one.code == JMP + JA:
        return one.k
    return max(one.jt, one.jf) if one.code in CONDITIONS else -1


def _uninitialised(program: Program) -> str | None:
    """A word of the memory is read that some way to there has not written.

    As in the kernel, what is written before a return counts for the instruction behind it.
    """
    everything = (1 << MEMORY_WORDS) - 1
    at_entry = [everything] * len(program)
    written = 0
    for at, one in enumerate(program.instructions):
        written &= at_entry[at]
        if one.code in (ST, STX):
            written |= 1 << one.k
        elif one.code in (LD + MEM, LDX + MEM) and not written >> one.k & 1:
            return f"instruction {at}: word {one.k} of the memory may not have been written"
        elif one.code == JMP + JA:
            at_entry[at + 1 + one.k] &= written
            written = everything
        elif one.code in CONDITIONS:
            at_entry[at + 1 + one.jt] &= written
            at_entry[at + 1 + one.jf] &= written
            written = everything
    return None
