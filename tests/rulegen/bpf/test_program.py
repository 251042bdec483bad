"""The two texts of a program, there and back."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess

import pytest

from rulegen.bpf.program import parse_bytecode, parse_ddd
from rulegen.evaluate.cbpf import matches
from rulegen.testbed.packets import Segment
from tests.rulegen.bpf.random_programs import random_program


def test_both_texts_read_as_they_were_written():
    chance = random.Random(3)
    for _ in range(200):
        one = random_program(chance, 0.2)
        assert parse_bytecode(one.bytecode()) == one
        assert parse_ddd(one.ddd()) == one


def test_other_tools_end_with_a_comma_or_a_newline():
    assert parse_bytecode("1,6 0 0 1,\n") == parse_bytecode("1,6 0 0 1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "2,6 0 0 1",
        "1,6 0 0",
        "1,6 0 0 x",
        "1,6 0 0 -1",
        "1,6 256 0 1",
        "1,6 0 0 4294967296",
        "1,65536 0 0 0",
        "x,6 0 0 1",
    ],
)
def test_what_is_no_program(text):
    with pytest.raises(ValueError, match="instruction"):
        parse_bytecode(text)


def test_a_program_of_tcpdump_is_read_and_understood(tmp_path):
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    empty = tmp_path / "raw.pcap"
    empty.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
    text = subprocess.run(
        ["tcpdump", "-r", empty, "-ddd", "tcp dst port 443"], capture_output=True, text=True, check=True
    ).stdout
    for port in (443, 444):
        for source, destination in (("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::2")):
            packet = Segment(
                source=source, destination=destination, source_port=1, destination_port=port
            ).packet()
            assert matches(parse_ddd(text), packet) is (port == 443)
