"""Damaged and hostile files: a clear refusal with the line, or a value; nothing else, and soon."""

from __future__ import annotations

import random
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rulegen.artifacts import (
    ToolMissing,
    Unreadable,
    dialect_of,
    nft_file,
    read,
    read_ipset,
    read_iptables,
    read_nft,
    unsupported,
)
from rulegen.artifacts.nft_bytecode import expression
from rulegen.artifacts.nft_file import assemble
from rulegen.artifacts.nft_sets import printed_element
from rulegen.artifacts.sandbox import Listed, list_nft
from tests.rulegen.artifacts.test_ipset_save import SAVED

CORPUS = Path(__file__).parent / "corpus"
IPTABLES = [path.read_text() for path in sorted(CORPUS.glob("*.ip*tables"))]
NFT = [path.read_text() for path in sorted(CORPUS.glob("*.nft"))]

SPICE = (
    "", " ", "!", '"', "\\", "\0", "\n", "-", "--", "-m", "-j", ":", "[", "*", "/", ",", "0x", "-1", "4294967296",
    "99999999999999999999999", "é", "\ud800", "\u2028", "COMMIT", "*filter", "255.255.0.255", "::", "{", "}", "#",
)  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    """A few places changed: cut, doubled, swapped or spiced."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        start, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        end = min(end, start + chance.choice((0, 1, 3, 40)))
        text = (
            text[:start]
            + chance.choice((*SPICE, text[start:end] * 2, text[: chance.randrange(30)]))
            + text[end:]
        )
        text = text or " "
    return text


def judged(reader, text):
    found = why = None
    try:
        found = reader(text)
    except Unreadable as error:
        why = error
    if why is None:
        unsupported(found)
        return
    assert why.why
    assert why.line is None or 1 <= why.line <= str(text).count("\n") + 1


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(IPTABLES), st.randoms(use_true_random=False))
def test_damaged_files_of_iptables(text, chance):
    judged(read_iptables, mutated(text, chance))


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damaged_files_of_ipset(chance):
    judged(read_ipset, mutated(SAVED, chance))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
@example("*filter\n-A INPUT\nCOMMIT")
@example("*filter\n-A\nCOMMIT")
@example("*filter\n[1:2] \nCOMMIT")
@example('*filter\n""\nCOMMIT')
@example("*filter\n-A INPUT -m comment\nCOMMIT")
@example("*filter\n-A INPUT -j\nCOMMIT")
@example("*filter\n-A INPUT ! \nCOMMIT")
@example("*filter\n-F x\nCOMMIT")
@example('create a hash:ip\nadd a ""')
@example("-exist")
def test_any_text(text):
    judged(read_iptables, text)
    judged(read_ipset, text)
    with suppress(Unreadable):
        dialect_of(text)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("*filter\n-A INPUT -j DROP\n", 1, "COMMIT"),
        ("-A INPUT -j DROP\n", 1, "begins no file"),
        ("*filter\n-A nowhere -j DROP\nCOMMIT\n", 2, "not declared"),
        ("*filter\n:own -\n-A INPUT -g there\nCOMMIT\n", 3, "no such chain"),
        ("*filter\n:a -\n:b -\n-A a -j b\n-A b -j a\nCOMMIT\n", 1, "back to itself"),
        ("*filter\n:INPUT MAYBE [0:0]\nCOMMIT\n", 2, "policy"),
        ("*filter\n:a DROP\nCOMMIT\n", 2, "built-in"),
        ("*banana\nCOMMIT\n", 1, "no table"),
        ("*filter\nCOMMIT\n*filter\nCOMMIT\n", 3, "second time"),
        ("*filter\n-A INPUT -s host.example -j DROP\nCOMMIT\n", 2, "no address"),
        ("*filter\n-A INPUT -s 192.0.2.1 -j DROP\n-A INPUT -s ::1 -j DROP\nCOMMIT\n", 3, "other family"),
        ('*filter\n-A INPUT -m comment --comment "x\n', 2, "quote"),
        ("*filter\n-A INPUT -p tcp --dport 70000\nCOMMIT\n", 2, "more than 65535"),
        ("*filter\n-A INPUT -p tcp --dport 9:7\nCOMMIT\n", 2, "range is empty"),
        ("*filter\n-A INPUT -p udp --tcp-flags SYN SYN\nCOMMIT\n", 2, "not known"),
        ("*filter\n-A INPUT -m u32 --u32 0\nCOMMIT\n", 2, "u32"),
        ("*filter\n-A INPUT -m bpf --bytecode 2,6\nCOMMIT\n", 2, "instruction"),
        ("*filter\n-A INPUT -m conntrack --ctstate OLD\nCOMMIT\n", 2, "OLD"),
        ("*filter\n-A INPUT -m tcp --dport\nCOMMIT\n", 2, "needs 1 value"),
        ("*filter\n-A INPUT -j DROP -j DROP\nCOMMIT\n", 2, "two targets"),
        ("*filter\n-A INPUT -s 192.0.2.1 -s 192.0.2.2\nCOMMIT\n", 2, "twice"),
        ("*filter\n-D INPUT -j DROP\nCOMMIT\n", 2, "saved ruleset"),
        ("*filter\n-A INPUT " + "x" * 70_000 + "\nCOMMIT\n", 2, "a line of"),
        ('{"nftables": []}', 1, "JSON"),
        ("hello\n", 1, "begins no file"),
        ("# only\n\n", None, "comments"),
    ],
)
def test_the_line_is_named(text, line, why):
    with pytest.raises(Unreadable, match=why) as caught:
        read(text)
    assert caught.value.line == line


def test_size_has_limits():
    for reader in (read_iptables, read_ipset, read_nft):
        with pytest.raises(Unreadable, match="at most"):
            reader("#" * ((64 << 20) + 1))
    lists = ",".join(f"192.0.2.{host}" for host in range(65))
    with pytest.raises(Unreadable, match="pairs"):
        read(f"*filter\n-A INPUT -s {lists} -d {lists}\nCOMMIT\n")


def test_large_files_are_read_soon():
    begin = time.monotonic()
    lines = "\n".join(
        f'-A INPUT -s 10.0.0.{n % 256} -p tcp --dport {n} -m comment --comment "{n}"'
        for n in range(1, 20_001)
    )
    assert sum(1 for _ in read(f"*filter\n{lines}\nCOMMIT\n").rules) == 20_000
    chains = 5_000  # each jumps to the next: no recursion may be as deep as the file wants
    text = "\n".join(
        [f":c{n} -" for n in range(chains)] + [f"-A c{n} -j c{n + 1}" for n in range(chains - 1)]
    )
    read(f"*filter\n{text}\nCOMMIT\n")
    read_ipset(
        "create a hash:ip\n"
        + "\n".join(
            f"add a {n}" for n in map("10.1.{0[0]}.{0[1]}".format, (divmod(n, 256) for n in range(20_000)))
        )
    )
    assert time.monotonic() - begin < 20


# --- what nft prints ----------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0x2FF, exclude_characters="\n"), max_size=120))
@example("cmp eq reg 99 0x1")
@example("cmp eq reg 1 0xzz")
@example("cmp eq reg 1 0x100000000")
@example("bitwise reg 1 = ( reg 1 & 0x1 0x2 ) ^ 0x1")
@example("immediate reg 0 jump -> ")
@example("immediate reg 0 explode")
@example("lookup reg 1 set s")
@example("dynset add reg_key 1 set s expr [ [ ] ]")
@example("hash reg 1 = symhash(reg 2, 4) % mod 3")
def test_any_expression(text):
    expression(text)
    with suppress(Unreadable):
        printed_element(text)


@pytest.fixture(scope="module")
def listed() -> list[Listed]:
    try:
        return [list_nft(text) for text in NFT]
    except ToolMissing as error:
        pytest.skip(str(error))
    except Unreadable as error:
        pytest.skip(f"this kernel lacks something: {error}")


@pytest.mark.netns
@pytest.mark.parametrize("seed", range(3))
def test_damaged_listings(listed, seed):
    """As if nft of another version printed something else."""
    chance = random.Random(seed)
    for _ in range(60):
        one = chance.choice(listed)
        programs, json = one.programs, one.json
        if chance.random() < 0.7:
            programs = mutated(programs, chance)
        else:
            json = mutated(json, chance)
        judged(assemble, Listed(programs, json, one.interfaces))


@pytest.mark.netns
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('table ip t {\n chain c {\n  log prefix "x ]\n  [ immediate reg 0 drop ] y"\n }\n}\n', "control"),
        ('table ip t {\n chain c {\n  accept comment "x\n # handle 9"\n }\n}\n', "control"),
        ("table ip t {\n chain c {\n  frobnicate\n }\n}\n", "syntax error"),
        (
            f"table ip t {{\n chain c {{\n  iif {{ {', '.join(f'e{n}' for n in range(80))} }} accept\n }}\n}}\n",
            "Interface",
        ),
        ("table ip t {\n\0}\n", "zero byte"),
        ("table ip \ud800", "UTF-8"),
        ('table ip t {\n chain c {\n  iif "../x" accept\n }\n}\n', "nterface"),
        ('include "/nonexistent"\n', "File not found"),
    ],
)
def test_nft_is_not_fooled(text, why):
    try:
        with pytest.raises(Unreadable, match=why):
            read_nft(text)
    except ToolMissing as error:
        pytest.skip(str(error))


@pytest.mark.netns
def test_an_nft_that_prints_otherwise_is_not_believed(monkeypatch, listed):
    """Words in network order would read as other numbers, and nothing else would tell."""

    def swapped(text: str) -> Listed:
        one = list_nft(text)
        turn = re.compile(r"(0x|element |- |^\t)([0-9a-f]{8})\b")
        programs = turn.sub(lambda word: word[1] + bytes.fromhex(word[2])[::-1].hex(), one.programs)
        return Listed(programs, one.json, one.interfaces)

    monkeypatch.setattr(nft_file, "list_nft", swapped)
    nft_file._understood.cache_clear()
    try:
        with pytest.raises(ToolMissing, match="another form"):
            read_nft("table ip t {\n}\n")
    finally:
        nft_file._understood.cache_clear()


@pytest.mark.netns
def test_strings_that_look_like_listings():
    text = (
        'table ip t {\n comment "x } table ip u { # handle 3"\n chain c {\n'
        '  accept comment "a # handle 9"\n  log prefix "x ] [ immediate reg 0 drop ] y" drop comment "b\\x00"\n }\n}\n'
    )
    try:
        found = read_nft(text)
    except ToolMissing as error:
        pytest.skip(str(error))
    (table,) = found.tables
    lines = [rule for _, _, rule in found.rules]
    assert table.name == "t"
    assert [line.comment for line in lines] == ["a # handle 9", "b\\x00"]
    assert [type(part).__name__ for part in lines[1].parts] == ["Log", "Decide"]
