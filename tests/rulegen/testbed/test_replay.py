"""The lab itself: what passes, what comes back, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyzer.model import Side
from rulegen.testbed.netns import LabError, missing_tools
from rulegen.testbed.packets import Segment
from rulegen.testbed.replay import Bench, prove

pytestmark = pytest.mark.netns

ODD_ADDRESSES = ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "ff02::1")


def packet(source="192.0.2.1", destination="198.51.100.7", payload=b"hello") -> bytes:
    return Segment(
        source=source, destination=destination, source_port=1, destination_port=2, payload=payload
    ).packet()


def test_without_rules_everything_passes_unchanged(bench):
    packets = [packet()]
    for odd in ODD_ADDRESSES:
        usual = "2001:db8::1" if ":" in odd else "192.0.2.1"
        packets += [packet(odd, usual), packet(usual, odd)]
    packets += [packet(payload=bytes(size)) for size in (0, 1, 1460, 9000, 60000)]
    for side in Side:
        assert all(fate.passed and not fate.answers for fate in bench.send((side, one) for one in packets))


def test_a_refused_file_is_reported_with_nfts_words(bench):
    with pytest.raises(LabError, match="syntax error"):
        bench.load("table inet x {\n nonsense\n}\n")
    assert bench.send([(Side.CLIENT, packet())])[0].passed


def test_drops_are_counted_and_the_order_is_kept(bench):
    bench.load(
        "table inet tlswall {\n chain c {\n  type filter hook forward priority 0\n"
        '  @ih,0,8 1 counter drop comment "[ones] test"\n }\n}\n'
    )
    sent = [(Side.CLIENT, packet(payload=bytes((n % 3,)))) for n in range(300)]
    assert [fate.passed for fate in bench.send(sent)] == [n % 3 != 1 for n in range(300)]
    assert bench.counters() == {"ones": 100}


def test_connections_can_be_forgotten(bench):
    bench.load(
        "table inet tlswall {\n chain c {\n  type filter hook forward priority 0\n"
        '  ct state new counter comment "[new] test"\n }\n}\n'
    )
    first, back = (Side.CLIENT, packet()), (Side.SERVER, packet("198.51.100.7", "192.0.2.1"))
    bench.send([first, first])
    assert bench.counters() == {"new": 2}, "two packets one way are still a new connection"
    bench.forget()
    bench.send([back])
    assert bench.counters() == {"new": 3}


def test_nothing_is_left_behind(lab):
    assert lab is not None  # a lab can be built here
    before = _here()
    with Bench() as bench:
        worker = bench._process.pid
        assert Path(f"/proc/{worker}").exists()
        assert _here() == before
    assert not Path(f"/proc/{worker}").exists()
    assert _here() == before
    with pytest.raises(LabError, match="closed"):
        bench.listing()


def test_a_lab_whose_process_died_says_so(lab):
    assert lab is not None
    with Bench() as bench:
        bench._process.kill()
        with pytest.raises(LabError, match="gone"):
            bench.send([(Side.CLIENT, packet())])


def test_a_proof_leaves_nothing_behind_however_it_ends(lab):
    assert lab is not None
    text = "table inet t {\n chain c {\n  type filter hook forward priority 0\n  counter\n }\n}\n"
    before = _here(), _namespaces()
    assert all(one.hits for one in prove([("nft", text)], [(Side.CLIENT, packet())] * 3))
    with pytest.raises(LabError, match="syntax error"):
        list(prove([("nft", "nonsense")], [(Side.CLIENT, packet())]))
    with pytest.raises(LabError, match="shorter than an IP header"):
        list(prove([("nft", text)], [(Side.CLIENT, b"")]))
    with pytest.raises(ZeroDivisionError):
        list(prove([("nft", text)], ((Side.CLIENT, packet(payload=bytes(1 // n))) for n in (1, 0))))
    given_up = prove([("nft", text)], [(Side.CLIENT, packet())] * 5000)
    next(given_up)
    assert len(_namespaces() - before[1]) == 1
    given_up.close()
    assert (_here(), _namespaces()) == before


def test_a_proof_that_is_given_up_leaves_the_lab_usable(bench):
    text = "table inet t {\n chain c {\n  type filter hook forward priority 0\n  counter\n }\n}\n"
    proof = bench.prove([("nft", text)], [(Side.CLIENT, packet())] * 5000)
    next(proof)
    with pytest.raises(LabError, match="still sends"):
        bench.listing()
    proof.close()
    assert "counter" in bench.listing()
    assert len(list(bench.prove([("nft", text)], [(Side.CLIENT, packet())] * 3000))) == 3000


def test_a_proof_that_is_killed_leaves_nothing_behind(lab):
    """Neither the lab's process nor its namespaces, which it alone holds."""
    assert lab is not None
    before = _namespaces()
    program = (
        "from rulegen.testbed.replay import Bench\n"
        "with Bench() as bench:\n print(bench._process.pid, flush=True)\n import time; time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    worker = Path("/proc", process.stdout.readline().strip())
    assert worker.exists()
    process.kill()
    process.communicate()
    for _ in range(500):
        if not worker.exists() and _namespaces() == before:
            return
        time.sleep(0.01)
    raise AssertionError(f"{worker} is left, or its namespaces")


def _namespaces() -> set[str]:
    """Network namespaces of the processes that this test has started, and its own."""
    return {str((path / "ns/net").readlink()) for path in _family()}


def _family() -> list[Path]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [os.getpid()]
    while new:
        found.append(number := new.pop())
        new += children.get(number, [])
    return [path for number in found if (path := Path("/proc", str(number))).exists()]


def _here() -> tuple[str, str]:
    """This process's own namespace and its devices."""
    devices = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return str(Path("/proc/self/ns/net").readlink()), devices


def test_tools_that_are_missing():
    assert missing_tools(("sh", "no-such-tool")) == ["no-such-tool"]
