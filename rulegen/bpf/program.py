"""A classic BPF program as a value, and the two texts in which tools pass it on.

In:  instructions, or text: `-m bpf --bytecode "N,code jt jf k,..."`, tcpdump -ddd's lines.
Out: Program; the same texts.
Source: Linux include/uapi/linux/filter.h, bpf_common.h; iptables extensions/libxt_bpf.c; tcpdump(8) -ddd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Classes; what they load, do or jump on; where from. An opcode is one of each, added.
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = (step << 4 for step in range(11))
JA, JEQ, JGT, JGE, JSET = (step << 4 for step in range(5))
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80

MEMORY_WORDS: Final = 16
"""Linux include/uapi/linux/bpf_common.h BPF_MEMWORDS."""

CONDITIONS: Final = frozenset(JMP + kind + source for kind in (JEQ, JGT, JGE, JSET) for source in (K, X))
"""Opcodes of the jumps that ask something."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """struct sock_filter. Jumps count from the next instruction."""

    code: int
    jt: int
    jf: int
    k: int

    def __str__(self) -> str:
        return f"{self.code} {self.jt} {self.jf} {self.k}"


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions, in their order."""

    instructions: tuple[Instruction, ...]

    def __len__(self) -> int:
        return len(self.instructions)

    def bytecode(self) -> str:
        """As iptables takes and prints it."""
        return ",".join((str(len(self)), *map(str, self.instructions)))

    def ddd(self) -> str:
        """As tcpdump -ddd prints it."""
        return "".join(f"{line}\n" for line in (len(self), *self.instructions))


def parse_bytecode(text: str) -> Program:
    """Read what iptables prints; ValueError says what is wrong."""
    return _program(text.strip().rstrip(",").split(","))


def parse_ddd(text: str) -> Program:
    """Read what tcpdump -ddd prints; ValueError says what is wrong."""
    return _program(text.strip().splitlines())


def _program(items: Iterable[str]) -> Program:
    head, *lines = items
    instructions = tuple(_instruction(line) for line in lines)
    if not head.strip().isdecimal() or int(head) != len(instructions):
        raise ValueError(f"{len(instructions)} instructions, announced as {head.strip()!r}")
    return Program(instructions)


def _instruction(line: str) -> Instruction:
    words = line.split()
    if len(words) != 4 or not all(word.isascii() and word.isdecimal() for word in words):
        raise ValueError(f"{line.strip()!r} is no instruction; write code, jt, jf and k")
    code, jt, jf, k = map(int, words)
    if code >> 16 or jt >> 8 or jf >> 8 or k >> 32:
        raise ValueError(f"{line.strip()!r} is no instruction: a number is too large")
    return Instruction(code, jt, jf, k)
