"""The interpreter does what the kernel does, with every opcode, at the packet's edges, and where it overflows."""

from __future__ import annotations

import random

import pytest

from rulegen.bpf.program import parse_bytecode
from rulegen.bpf.verify import refusal
from rulegen.evaluate.cbpf import NotInPacket, matches, run
from tests.rulegen.bpf.random_programs import filtered_socket, random_program

PACKET = bytes(range(1, 41))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,6 0 0 7", 7),
        ("2,48 0 0 39,22 0 0 0", 40),
        ("2,48 0 0 40,6 0 0 1", 0),  # one byte too far
        ("2,32 0 0 37,6 0 0 1", 0),
        ("2,177 0 0 40,6 0 0 1", 0),
        ("3,177 0 0 15,135 0 0 0,22 0 0 0", 0),  # 4 * (16 & 15)
        ("3,177 0 0 14,135 0 0 0,22 0 0 0", 60),
        ("4,1 0 0 4294967295,0 0 0 2,12 0 0 0,22 0 0 0", 1),
        ("4,1 0 0 0,0 0 0 2,60 0 0 0,6 0 0 1", 0),  # division by X, which is 0
        ("4,1 0 0 33,0 0 0 3,108 0 0 0,22 0 0 0", 6),  # shifts by X are modulo 32
        ("3,0 0 0 1,132 0 0 0,22 0 0 0", 0xFFFFFFFF),
        ("2,128 0 0 0,22 0 0 0", 40),
        ("4,0 0 0 5,2 0 0 3,97 0 0 3,22 0 0 0", 5),
    ],
)
def test_by_hand(text, value):
    assert run(parse_bytecode(text), PACKET) == value
    assert matches(parse_bytecode(text), PACKET) is (value != 0)


@pytest.mark.parametrize("text", ["2,40 0 0 4294963200,6 0 0 1", "3,1 0 0 4294967295,80 0 0 0,6 0 0 1"])
def test_what_is_not_in_the_packet_is_not_guessed(text):
    with pytest.raises(NotInPacket):
        run(parse_bytecode(text), PACKET)


def test_the_kernel_returns_the_same_for_random_programs():
    chance = random.Random(2)
    compared = varied = 0
    with filtered_socket() as kernel:
        while compared < 10_000:
            one = random_program(chance, 0.0)
            if refusal(one, longest=4096) is not None:
                continue
            assert kernel.attach(one)
            packet = chance.randbytes(chance.choice((1, 3, 20, 40, 64)))
            try:
                expected = min(run(one, packet), len(packet))
            except NotInPacket:
                continue
            assert kernel.returned(packet) == expected, (one.bytecode(), packet.hex())
            compared += 1
            varied += 0 < expected < len(packet)
    assert varied > 500
