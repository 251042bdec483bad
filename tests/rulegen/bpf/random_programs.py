"""Random classic BPF programs, most of them almost right, and a socket on which the kernel judges them."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

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
)  # fmt: skip

SO_ATTACH_FILTER = 26
"""Linux include/uapi/asm-generic/socket.h."""

PLAIN = (
    *(ALU + what + of for what in (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR) for of in (K, X)),
    ALU + NEG, *(LD + size + place for size in (W, H, B) for place in (ABS, IND)), LD + IMM, LD + LEN, LDX + IMM,
    LDX + LEN, LDX + B + MSH, MISC + TAX, MISC + TXA, ST, STX, LD + MEM, LDX + MEM,
)  # fmt: skip
ODD = (
    0, 1, 2, 3, 4, 7, 15, 16, 19, 20, 31, 32, 33, 40, 63, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
    0xFFFFEFFF, 0xFFFFF000, 0xFFFFF003, 0xFFFFF004, 0xFFFFF03C, 0xFFFFF040, 0xFFF00000, 0xFFE00000,
)  # fmt: skip


def random_program(chance: random.Random, wildness: float) -> Program:
    """`wildness` is how likely an instruction breaks a rule on purpose."""
    size = chance.choice((1, 2, 3, 5, 8, 13, 20, 30))
    instructions = []
    for at in range(size - 1):
        room = size - at - 2
        wild = chance.random() < wildness
        kind = chance.random()
        k = chance.choice(ODD) if wild or chance.random() < 0.3 else chance.randrange(48)
        jt = jf = 0
        if kind < 0.15 and room > 0:
            code = chance.choice(sorted(CONDITIONS))
            jt, jf = (chance.randrange(256 if wild else min(room, 255) + 1) for _ in range(2))
        elif kind < 0.2 and room > 0:
            code = JMP + JA
            k = k if wild else chance.randrange(room + 1)
        elif kind < 0.25:
            code = chance.choice((RET + K, RET + A))
        else:
            code = chance.choice(PLAIN)
            if not wild and code in (ST, STX, LD + MEM, LDX + MEM):
                k %= 16
            if not wild and code in (ALU + LSH + K, ALU + RSH + K):
                k %= 32
            if not wild and code in (ALU + DIV + K, ALU + MOD + K):
                k = k or 1
            if wild and chance.random() < 0.3:
                code = chance.choice((chance.randrange(256), chance.randrange(1 << 16), code | 0x100))
        instructions.append(Instruction(code, jt, jf, k))
    last = RET + chance.choice((K, A)) if chance.random() > wildness else chance.choice(PLAIN)
    return Program((*instructions, Instruction(last, 0, 0, chance.choice(ODD))))


class Socket:
    """A pair of sockets; what one sends, the other's filter judges. Data begins where the packet does."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self._sender = sender
        self._receiver = receiver

    def attach(self, program: Program) -> bool:
        """Whether the kernel takes the program."""
        code = b"".join(struct.pack("=HBBI", i.code, i.jt, i.jf, i.k) for i in program.instructions)
        held = ctypes.create_string_buffer(code)
        filter_program = struct.pack("@HP", len(program), ctypes.addressof(held))
        try:
            self._receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_program)
        except OSError:
            return False
        return True

    def returned(self, packet: bytes) -> int:
        """What the program returns for the packet, or the packet's size if that is less."""
        self._sender.send(packet)
        try:
            return len(self._receiver.recv(1 << 16, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return 0


@contextmanager
def filtered_socket() -> Iterator[Socket]:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        yield Socket(sender, receiver)
