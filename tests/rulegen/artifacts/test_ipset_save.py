"""Files of ipset."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rulegen.artifacts import Unreadable, read
from rulegen.artifacts.model import Addresses, Mac, Member, Name, Numbers, Ports

SAVED = """\
create hosts hash:ip family inet hashsize 1024 maxelem 65536 timeout 60 counters comment bucketsize 12
add hosts 192.0.2.1 timeout 59 packets 0 bytes 0 comment "a b, c"
add hosts 192.0.2.8/30 timeout 0
create nets hash:net family inet6 hashsize 64 maxelem 100
add nets 2001:db8::/32
add nets 2001:db8:1::/48 nomatch
create services hash:ip,port,net family inet hashsize 1024 maxelem 65536
add services 192.0.2.1,tcp:80-82,198.51.100.0/24
add services 192.0.2.1,icmp:echo-request,198.51.100.1
add services 192.0.2.1-192.0.2.7,53,198.51.100.1
create ports bitmap:port range 0-1000
add ports 80
create macs bitmap:ip,mac range 10.0.0.0-10.0.0.255
add macs 10.0.0.1,00:11:22:33:44:55
create wires hash:net,iface family inet
add wires 10.0.0.0/8,eth0
create all list:set size 8
add all hosts
"""


def test_every_kind_of_member():
    sets = {one.name: one for one in read(SAVED).ipsets}
    hosts, nets = sets["hosts"], sets["nets"]
    assert (hosts.type, hosts.family, hosts.timeout_s, hosts.max_elements) == ("hash:ip", "ip", 60, 65536)
    assert hosts.members == (
        Member(parts=(Addresses(0xC0000201, 0xC0000201, 32),), timeout_s=59, comment="a b, c"),
        Member(parts=(Addresses(0xC0000208, 0xC000020B, 32),), timeout_s=0),
    )
    assert nets.family == "ip6"
    assert [one.nomatch for one in nets.members] == [False, True]
    assert [one.parts[1] for one in sets["services"].members] == [
        Ports(6, 80, 82), Ports(1, 0x0800, 0x0800), Ports(6, 53, 53),
    ]  # fmt: skip
    assert sets["ports"].members == (Member(parts=(Numbers(80, 80),)),)
    assert sets["macs"].members[0].parts[1] == Mac(bytes.fromhex("001122334455"))
    assert sets["wires"].members[0].parts[1] == Name("eth0")
    assert sets["all"].members == (Member(parts=(Name("hosts"),)),)


def test_a_file_is_obeyed_line_by_line():
    sets = read(
        "create a hash:net timeout 0 comment -exist\ncreate b hash:net timeout 0 comment -exist\nflush b\n"
        'add b 192.0.2.1 timeout 5 comment "x" -exist\nadd a 192.0.2.9\nswap a b\ndestroy b\nrename a c\n'
        "add c 192.0.2.2\ndel c 192.0.2.1\n"
    ).ipsets
    assert [one.name for one in sets] == ["c"]
    assert [one.parts[0].low for one in sets[0].members] == [0xC0000202]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("add b 192.0.2.1", "no set"),
        ("add a 192.0.2.300", "no address"),
        ("add a 2001:db8::1", "other family"),
        ("add a 192.0.2.1,80", "no member"),
        ('add a 192.0.2.1 comment "x', "quote"),
        ("add a 192.0.2.1 comment", "needs a value"),
        ("add a 192.0.2.1 timeout x", "no number"),
        ("create a hash:ip", "there already"),
        ("create b hash:banana", "not known"),
        ("create b hash:ip family inet7", "not known"),
        ("add a 192.0.2.9-192.0.2.1", "no range"),
        ("frobnicate a", "no line of ipset"),
        ("# " + "x" * 1023 + "\nadd a " + "1" * 1023, "1023 bytes"),
    ],
)
def test_what_ipset_refuses_is_refused_with_its_line(line, why):
    with pytest.raises(Unreadable, match=f"line {2 + line.count(chr(10))}: .*{why}"):
        read(f"create a hash:ip\n{line}\n")


@pytest.mark.netns
def test_what_the_kernel_saves():
    """The kernel's own save, of the same sets, has the same members."""
    if shutil.which("ipset") is None:
        pytest.skip("ipset is not installed")
    script = "ipset restore && ipset save"
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", script]
    wanted = SAVED.replace("192.0.2.8/30 timeout 0", "192.0.2.8")
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel lacks a type of set: {done.stderr.strip()}")
    before, after = ({one.name: one for one in read(text).ipsets} for text in (wanted, done.stdout))
    assert before.keys() == after.keys()
    for name in ("nets", "ports", "macs", "wires", "all"):
        assert set(before[name].members) == set(after[name].members)
    services = after["services"]
    assert {one.parts[1] for one in services.members} >= {Ports(6, 80, 80), Ports(1, 0x0800, 0x0800)}
