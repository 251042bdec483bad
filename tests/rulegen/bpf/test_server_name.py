"""A server_name is found behind any session_id and other extensions, and nothing else is taken for one."""

from __future__ import annotations

import random

import pytest

from rulegen.bpf.server_name import HELLO, Walk, walk
from rulegen.bpf.split import programs
from rulegen.evaluate.cbpf import matches
from rulegen.ir.match import ServerName
from tests.rulegen.bpf.hellos import Hello, named, random_hello, server_name
from tests.rulegen.bpf.test_compile import says, segment

HELLOS = programs(HELLO)
NAMES = (
    b"example.com", b"www.example.com", b"wwwexample.com", b"a.b.example.com", b"example.co", b"example.com.", b"",
    b".example.com", b"com", b"xample.com", b"notexample.com", b"example.com.example.org", b"a-b_c.example.com",
)  # fmt: skip


def finds(found: Walk, packet: bytes) -> bool:
    return says(HELLOS, packet) and any(all(matches(one, packet) for one in way) for way in found.ways)


def means(wanted: ServerName, payload: bytes, extensions: int) -> bool | None:
    """What the backend promises: the name, among the first extensions. None: nothing is promised.

    A name that is longer than its extension, which a server refuses, may be taken for one below another.
    """
    found = named(payload)
    if found is None or found[1] >= extensions:
        return False
    name = wanted.name.encode()
    if not found[2]:
        return None if wanted.subdomains else False
    return found[0] == name or (wanted.subdomains and found[0].endswith(b"." + name))


@pytest.mark.parametrize("subdomains", [False, True], ids=["name", "and below"])
@pytest.mark.parametrize(
    "name",
    ["example.com", "com", "io", "a.b", "www.example.com", "a-b_c.example.com", "x" * 50 + ".example.com"],
)
def test_random_hellos(name, subdomains):
    chance = random.Random(f"{name} {subdomains}")
    wanted = ServerName(name, subdomains)
    found = walk(wanted)
    names = (*NAMES, name.encode(), b"x." + name.encode(), b"x" + name.encode())
    hits = 0
    for number in range(2500):
        payload = random_hello(chance, names).payload()
        if number % 3 == 0:
            payload = payload[: chance.randrange(len(payload))]
        if number % 5 == 0:
            damaged = bytearray(payload or b"x")
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            payload = bytes(damaged)
        expected = means(wanted, payload, found.extensions)
        if expected is not None:
            assert finds(found, segment(payload, chance.choice((4, 6)))) is expected, payload.hex()
            hits += expected
    assert hits > 40


@pytest.mark.parametrize(
    ("name", "exactly", "below"),
    [("a.io", 12, 9), ("www.example.com", 12, 9), (f"{'x' * 63}.{'y' * 63}.z", 9, 7)],
)
def test_how_many_extensions_it_walks(name, exactly, below):
    assert walk(ServerName(name)).extensions == exactly
    assert walk(ServerName(name, subdomains=True)).extensions == below


def test_the_longest_name_there_is_can_be_looked_for():
    assert walk(ServerName(".".join(["x" * 62] * 4))).extensions > 0


@pytest.mark.parametrize("skipped", range(12))
def test_what_follows_the_extensions_is_no_server_name(skipped):
    """Early data may look like more extensions: it is what an allow-list would be got around with."""
    found = walk(ServerName("example.com"))
    fill = [b"\x00\x2a\x00\x00"] * skipped
    inside = Hello(extensions=[*fill, server_name(b"example.com")])
    outside = Hello(extensions=fill, behind=server_name(b"example.com"))
    assert finds(found, segment(inside.payload()))
    assert not finds(found, segment(outside.payload()))


def test_a_name_that_does_not_end_in_its_extension_is_none():
    found = walk(ServerName("example.com"))
    whole = server_name(b"example.com")
    short = whole[:2] + b"\x00\x00" + whole[4:]
    assert not finds(found, segment(Hello(extensions=[short, bytes(100)]).payload()))


@pytest.mark.parametrize(
    "tcp_options", [b"", bytes.fromhex("0101080a0000000100000002"), bytes.fromhex("01010101") * 10]
)
@pytest.mark.parametrize(
    "carrier", [{"version": 4}, {"version": 4, "ip_options": bytes.fromhex("94040000")}, {"version": 6}]
)
def test_headers_of_any_length(carrier, tcp_options):
    found = walk(ServerName("example.com", subdomains=True))
    payload = Hello(extensions=[b"\xff\x01\x00\x01\x00", server_name(b"WWW.Example.COM")]).payload()
    assert finds(found, segment(payload, **carrier, tcp_options=tcp_options))
    assert not finds(found, segment(payload[:-1], **carrier, tcp_options=tcp_options))
