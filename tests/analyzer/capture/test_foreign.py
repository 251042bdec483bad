"""A file that is no capture is called by its name, and the sentence says what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from analyzer.capture.foreign import HEAD_BYTES, describe_foreign
from tests.analyzer.capture.formats import pcap, pcapng

CAPTURE = pcap([bytes(60)] * 3)
NEXT_GENERATION = pcapng([bytes(60)] * 3)


@pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is missing")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("snoop", "snoop (Solaris)"),
        ("netmon1", "Microsoft Network Monitor 1"),
        ("netmon2", "Microsoft Network Monitor 2"),
        ("ngsniffer", "Network General Sniffer"),
        ("ngwsniffer_1_1", "NetXRay or Windows Sniffer"),
        ("ngwsniffer_2_0", "NetXRay or Windows Sniffer"),
        ("nettl", "nettl (HP-UX)"),
        ("5views", "5View"),
        ("visual", "Visual Networks"),
        ("lanalyzer", "Novell LANalyzer"),
        ("observer", "Network Instruments Observer"),
        ("k12text", "a K12 tester, as text"),
    ],
)
def test_captures_of_other_programs(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "in").write_bytes(CAPTURE)
    subprocess.run(["editcap", "-F", kind, "in", "out"], check=True, cwd=tmp_path, capture_output=True)
    why = describe_foreign((tmp_path / "out").read_bytes()[:HEAD_BYTES])
    assert why == f"this is a capture written by {name}: convert it with `editcap -F pcap IN OUT`"


def erf(time_s: int) -> bytes:
    return struct.pack("<QBBHHH", time_s << 32, 2, 4, 0x1E00, 0, 0x0C00) + bytes(14)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"btsnoop\0" + bytes(16), "a Bluetooth snoop"),
        (erf(1_700_000_000) + erf(1_700_000_001), "perhaps an ERF capture"),
        (gzip.compress(CAPTURE), "looks like gzip-compressed data: try `gzip -dc FILE | tlswall analyze -`"),
        (bz2.compress(CAPTURE), "bzip2-compressed"),
        (lzma.compress(CAPTURE), "`xz -dc FILE | tlswall analyze -`"),
        (b"PK\x03\x04" + bytes(30), "zip-compressed"),
        (b"\x04\x22\x4d\x18" + bytes(30), "lz4-compressed"),
        (NEXT_GENERATION.replace(b"\r\n", b"\n"), "text-mode transfer"),
        (NEXT_GENERATION.replace(b"\n", b"\r\n"), "text-mode transfer"),
        (b"tcpdump: listening on eth0\n" + CAPTURE, "starts only at byte 27: cut off"),
        (bytes(32) + NEXT_GENERATION, "`tail -c +33 IN > OUT`"),
        (bytes(5000), "starts with zeros"),
        (b"\xd4\xc3\xb2", "too short for a capture (3 bytes)"),
        (b"\x7fELF" + bytes(40), "neither pcap nor pcapng (it starts with 7f454c46)"),
        (bytes(range(256)), "look at it with `file`"),
    ],
)
def test_binary_files(head: bytes, says: str) -> None:
    assert says in describe_foreign(head[:HEAD_BYTES])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("some notes\nabout an incident\n", "a text file, not a capture"),
        ("Größe: 5 \N{EURO SIGN}\n" * 1000, "a text file"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "`git lfs pull`"),
        ("<!DOCTYPE html>\n<html>", "a web page"),
        ('<?xml version="1.0"?>\n<pdml>', "XML"),
        (json.dumps([{"_index": "packets"}], indent=1), "JSON"),
        ("00000000: d4c3 b2a1 0200 0400 0000  ..........\n", "`xxd -r IN OUT`"),
        ("0000   00 1b 21 0a 0b 0c 00 1b   ..!.....\n", "`text2pcap IN OUT`"),
        ("12:00:01.000001 IP 10.0.0.1.5 > 10.0.0.2.443: Flags [S]\n", "`tcpdump -w FILE`"),
        ("2024-01-01 12:00:01.000001 IP6 ::1.5 > ::1.443: Flags [S]\n", "`tcpdump -w FILE`"),
    ],
)
def test_texts(text: str, says: str) -> None:
    assert says in describe_foreign(text.encode()[:HEAD_BYTES])


def test_text_as_powershell_writes_it() -> None:
    assert "PowerShell" in describe_foreign("tcpdump".encode("utf-16"))


def test_a_character_that_the_head_cuts_does_not_matter() -> None:
    for lead in range(4):
        head = ("x" * lead + "\N{EURO SIGN}" * HEAD_BYTES).encode()[:HEAD_BYTES]
        assert "a text file" in describe_foreign(head)
