"""Run a classic BPF program over a packet, as the kernel does.

In:  Program, which the kernel accepts; the bytes of a packet from where xt_bpf begins, the network header.
Out: the value that it returns; 0 is "no match".
Source: Linux net/core/filter.c bpf_convert_filter, kernel/bpf/core.c: registers of 32 bits, shifts by X
    modulo 32; a load outside the packet and a division by 0 end the program with 0.

Nothing here is shared with what makes programs but their form.
"""

from __future__ import annotations

from typing import Final

from rulegen.bpf.program import (
    ADD,
    ALU,
    AND,
    DIV,
    IMM,
    IND,
    JA,
    JEQ,
    JGE,
    JGT,
    JMP,
    JSET,
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
    XOR,
    A,
    B,
    H,
    Instruction,
    Program,
    W,
    X,
)

_MASK: Final = 0xFFFFFFFF
_CLASS: Final = 0x07
_SIZES: Final = {W: 4, H: 2, B: 1}
_MODE: Final = 0xE0
_STEP: Final = 0xF0

NEGATIVE: Final = 0x80000000
"""Loads from here on ask the kernel for what is not in the packet: SKF_AD_OFF, SKF_NET_OFF, SKF_LL_OFF."""


class NotInPacket(ValueError):
    """The program asks for what the kernel knows of a packet and its bytes do not tell."""


class _Ended(Exception):
    """A load outside the packet, or a division by 0."""


def run(program: Program, packet: bytes) -> int:
    """The value that the program returns.

    Raises:
        NotInPacket: It loads ancillary data, or from before the network header.
    """
    try:
        return _run(program.instructions, packet)
    except _Ended:
        return 0


def matches(program: Program, packet: bytes) -> bool:
    """What `-m bpf` says."""
    return run(program, packet) != 0


def _run(instructions: tuple[Instruction, ...], packet: bytes) -> int:
    a = x = at = 0
    memory = [0] * MEMORY_WORDS
    while True:
        one = instructions[at]
        at += 1
        kind, code, k = one.code & _CLASS, one.code, one.k
        if kind == LD:
            a = _load(code, k, x, memory, packet)
        elif kind == LDX:
            x = _load(code, k, x, memory, packet)
        elif kind == ST:
            memory[k] = a
        elif kind == STX:
            memory[k] = x
        elif kind == ALU:
            a = _calculate(code & _STEP, a, x if code & X else k)
        elif code == JMP + JA:
            at += k
        elif kind == JMP:
            at += one.jt if _asks(code & _STEP, a, x if code & X else k) else one.jf
        elif kind == RET:
            return a if code & A else k
        elif code == MISC + TAX:
            x = a
        else:
            a = x


def _load(code: int, k: int, x: int, memory: list[int], packet: bytes) -> int:
    mode = code & _MODE
    if mode == IMM:
        return k
    if mode == MEM:
        return memory[k]
    if mode == LEN:
        return len(packet)
    if mode == MSH:
        return 4 * (_bytes(packet, k, 1) & 15)
    return _bytes(packet, (k + (x if mode == IND else 0)) & _MASK, _SIZES[code & 0x18])


def _bytes(packet: bytes, start: int, size: int) -> int:
    if start >= NEGATIVE:
        raise NotInPacket(f"a load at {start - (1 << 32)}")
    if start + size > len(packet):
        raise _Ended
    return int.from_bytes(packet[start : start + size])


def _calculate(step: int, a: int, operand: int) -> int:
    if step in (DIV, MOD):
        if operand == 0:
            raise _Ended
        return a // operand if step == DIV else a % operand
    if step in (LSH, RSH):
        bits = operand & 31
        return (a << bits if step == LSH else a >> bits) & _MASK
    if step == NEG:
        return -a & _MASK
    result = {
        ADD: a + operand,
        SUB: a - operand,
        MUL: a * operand,
        OR: a | operand,
        AND: a & operand,
        XOR: a ^ operand,
    }[step]
    return result & _MASK


def _asks(step: int, a: int, operand: int) -> bool:
    if step == JEQ:
        return a == operand
    if step == JGT:
        return a > operand
    if step == JGE:
        return a >= operand
    assert step == JSET
    return bool(a & operand)
