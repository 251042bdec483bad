"""Files that tlswall did not write: read whole, and what has no value is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.artifacts import Dialect, ToolMissing, Unreadable, read, read_iptables, unsupported
from rulegen.artifacts.model import BaseChain, Counted
from rulegen.artifacts.nft_values import (
    Compare,
    ConnectionCount,
    Decide,
    DynamicSet,
    Fib,
    Limit,
    Lookup,
    MetaLoad,
    Nat,
    NftVerdict,
    Quota,
)
from rulegen.artifacts.nft_values import Counter as Counts
from rulegen.artifacts.xt_values import (
    Address,
    Goto,
    HashLimit,
    Interface,
    Jump,
    Rate,
    Recent,
    SetMarkTarget,
    String,
    Udp,
    Verdict,
)

CORPUS = Path(__file__).parent / "corpus"


def text_of(name: str) -> str:
    return (CORPUS / name).read_text()


@pytest.fixture
def nft():
    def make(name: str):
        try:
            return read(text_of(name))
        except ToolMissing as error:
            pytest.skip(str(error))
        except Unreadable as error:
            if "Operation not supported" in error.why or "No such file" in error.why:
                pytest.skip(f"this kernel lacks something: {error}")
            raise

    return make


def rules(artifact, chain: str):
    return [rule for _, one, rule in artifact.rules if one.name == chain]


def named(artifact) -> list[str]:
    return [one.feature.partition(" (")[0] for one in unsupported(artifact)]


# --- nft ----------------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_a_workstation(nft):
    found = nft("workstation.nft")
    assert unsupported(found) == ()
    (table,) = found.tables
    assert [(one.hook, one.priority, one.policy) for one in table.chains] == [
        ("input", 0, "drop"), ("forward", 0, "drop"), ("output", 0, "accept"),
    ]  # fmt: skip
    lines = rules(found, "input")
    assert len(lines) == 14
    assert [line.number for line in lines] == list(range(1, 15))
    assert lines[1].comment == "accept loopback"
    assert lines[1].text == 'iif "lo" accept comment "accept loopback"'
    assert lines[1].parts[1] == Compare(0, "eq", b"\x01\0\0\0")
    assert dict(found.interfaces)[1] == "lo"
    (states,) = (one for one in table.sets if one.name == lines[0].parts[1].set)
    assert {one.value.kind for one in states.elements} == {"accept", "drop"}


@pytest.mark.netns
def test_a_router(nft):
    found = nft("router.nft")
    assert unsupported(found) == ()
    tables = {(one.family, one.name): one for one in found.tables}
    assert tables.keys() == {
        ("ip", "nat"), ("inet", "filter"), ("ip6", "mangle"), ("arp", "guard"), ("netdev", "early"),
    }  # fmt: skip
    assert isinstance(rules(found, "postrouting")[0].parts[-1], Nat)
    table = tables["inet", "filter"]
    assert {one.name: one.body for one in table.objects} == {
        "dropped": Counts(0, 0),
        "monthly": Quota(500 << 20, 0, True),
        "pings": Limit(5, "second", 10, "packets", False),
    }
    sets = {one.name: one for one in table.sets}
    assert [one.comment for one in sets["bogons"].elements if one.comment] == ["TEST-NET-1"]
    assert sets["bogons"].elements[1].key == ((b"\x0a\0\0\0", b"\x0a\xff\xff\xff"),)
    assert sets["open"].widths == (4, 2)
    assert ((b"\xc0\xa8\x01\x0b", b"\xc0\xa8\x01\x14"), (b"\x01\xbb", b"\x01\xbb")) in {
        one.key for one in sets["open"].elements
    }
    assert [one.value for one in sets["classes"].elements] == [
        NftVerdict("jump", "lan_in"), NftVerdict("goto", "strict"), NftVerdict("drop"),
    ]  # fmt: skip
    flooders = next(
        part for rule in rules(found, "forward") for part in rule.parts if isinstance(part, DynamicSet)
    )
    assert (flooders.op, flooders.set, flooders.timeout_ms) == ("update", "flooders", 0)
    assert flooders.expressions == (Limit(20, "second", 40, "packets", True),)
    assert ConnectionCount(50, True) in rules(found, "strict")[0].parts
    assert any(isinstance(part, Fib) for part in rules(found, "early")[1].parts)
    wan = rules(found, "prerouting")[0].parts[:2]
    assert wan == (MetaLoad(0, "iifname"), Compare(0, "eq", b"eth0".ljust(16, b"\0")))
    vpn = rules(found, "postrouting")[1].parts[1]
    assert vpn == Compare(0, "eq", b"vpn")
    assert sum(isinstance(part, Lookup) for rule in rules(found, "forward") for part in rule.parts) == 4
    assert rules(found, "drops")[-1].parts[-1] == Decide(NftVerdict("drop"))


@pytest.mark.netns
def test_what_has_no_value_is_named(nft):
    found = nft("strange.nft")
    assert named(found) == ["ct helper", "ct timeout", "exthdr", "ct"]
    where = [one.where for one in unsupported(found)]
    assert where[0] == "table inet t, ct helper ftp"
    assert where[3].startswith("table inet t, chain c, rule 4 (handle ")


# --- iptables -----------------------------------------------------------------------------------------------


def test_docker():
    found = read(text_of("docker.iptables"))
    assert found.dialect is Dialect.XTABLES
    assert found.variant == "nf_tables"
    assert named(found) == ["MASQUERADE", "MASQUERADE", "DNAT"]
    assert {one.family for one in found.tables} == {"ip"}
    filters = next(one for one in found.tables if one.name == "filter")
    forward = filters.chain("FORWARD")
    assert isinstance(forward, BaseChain)
    assert (forward.hook, forward.priority, forward.policy, forward.declared) == ("forward", 0, "drop", True)
    assert [rule.target for rule in forward.rules] == [
        Jump(chain="DOCKER-USER"), Jump(chain="DOCKER-ISOLATION-STAGE-1"), Verdict(kind="ACCEPT"),
        Jump(chain="DOCKER"), Verdict(kind="ACCEPT"), Verdict(kind="ACCEPT"),
    ]  # fmt: skip
    assert forward.rules[4].parts == (
        Interface(side="in", name="docker0"),
        Interface(side="out", name="docker0", inverted=True),
    )


def test_ufw():
    found = read(text_of("ufw.iptables"))
    assert unsupported(found) == ()
    assert found.variant is None
    lines = rules(found, "ufw-user-input")
    assert lines[1].parts[-1] == Recent(action="update", name="DEFAULT", seconds=30, hits=6, mask=0xFFFFFFFF)
    assert lines[3].comment == "'dapp_Nginx%20Full'"
    assert lines[3].line == 41
    assert text_of("ufw.iptables").splitlines()[40] == lines[3].text


def test_firewalld():
    found = read(text_of("firewalld.ip6tables"))
    assert named(found) == ["rpfilter"]
    assert {one.family for one in found.tables} == {"ip6"}
    assert found.variant == "legacy"
    lines = rules(found, "INPUT")
    assert lines[0].counted == Counted(packets=5, bytes=400)
    assert lines[2].target == Goto(chain="IN_public")
    assert rules(found, "IN_public_deny")[0].parts == (
        Address(side="source", value=0x20010DB80BAD << 80, mask=((1 << 48) - 1) << 80, width_bits=128),
    )


def test_filters_of_tls():
    found = read(text_of("tls.iptables"))
    assert named(found) == ["TCPMSS", "mac", "statistic"]
    lines = rules(found, "FORWARD")
    assert lines[0].line == 20, "inserted before the others"
    assert lines[0].number == 1
    parts = [part for line in lines for part in line.parts]
    assert String(
        pattern=b"\0\0example.org", algorithm="kmp", first=40, last=1000, ignore_case=True
    ) in parts  # fmt: skip
    assert HashLimit(
        name="tls", rate=Rate(count=10, unit="second"), above=True, burst=20, modes=("dstport", "srcip")
    ) in parts  # fmt: skip
    by_source = [line for line in lines if line.line == 18]
    assert len(by_source) == 2, "a list of addresses makes a rule of each"
    assert [line.parts[0].value for line in by_source] == [0xC0000200, 0xC6336407]
    udp = next(part for part in by_source[0].parts if isinstance(part, Udp))
    assert (udp.source.low, udp.source.high, udp.source.inverted) == (1024, 0xFFFF, True)
    assert (udp.destination.low, udp.destination.high) == (0, 53)
    mangle = found.tables[0].chain("PREROUTING")
    assert mangle.declared is False
    assert mangle.rules[2].target == SetMarkTarget(value=4, mask=4)


def test_a_family_can_be_given():
    text = "*filter\n:INPUT ACCEPT\n-A INPUT -p tcp -j DROP\nCOMMIT\n"
    assert read(text).tables[0].family is None
    assert read_iptables(text, "ip6").tables[0].family == "ip6"
