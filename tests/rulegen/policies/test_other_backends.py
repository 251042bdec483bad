"""The policies through iptables, with u32 and with classic BPF: the same verdicts as nft's, or better."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analyzer.wire.cipher_suites import CIPHER_SUITES
from rulegen.backends import emit
from rulegen.backends.bpf import BACKEND as BPF
from rulegen.testbed.replay import Bench
from tests.rulegen.backends.test_iptables import VARIANTS, load_both
from tests.rulegen.policies.handshakes import (
    TLS10,
    TLS11,
    C,
    S,
    client_hello,
    extension,
    record,
    refused,
    sent,
    server_hello,
)
from tests.rulegen.policies.test_content_type import STARTS, header
from tests.rulegen.policies.test_first_record import CLIENT_BEGINS, SERVER_BEGINS, begin
from tests.rulegen.policies.test_heartbleed import ATTACK, FAIR, FLIGHT
from tests.rulegen.policies.test_min_version import ANSWERS_12, ANSWERS_13, CASES, SID

pytestmark = pytest.mark.netns

Load = Callable[[str], None]


@pytest.fixture(params=[f"{way}-{variant}" for way in ("u32", "bpf") for variant in VARIANTS])
def way(request) -> str:
    return request.param


@pytest.fixture
def load(bench: Bench, respond, way) -> Load:
    """Load a policy in the backend."""

    def into(policy: str) -> None:
        ruleset = respond((), policy).ruleset
        kind, variant = way.split("-")
        if kind == "u32":
            load_both(bench, ruleset, variant)
            return
        text = emit(ruleset, BPF).text
        bench.load(text, f"iptables-{variant}")
        bench.load(text, f"ip6tables-{variant}")

    return into


def hellos() -> list[bytes]:
    """Of the server: every suite, every answer of TLS 1.3, session_ids of every length, and all of them cut."""
    whole = [
        server_hello(suite=suite, session_id=sid) for suite in sorted(CIPHER_SUITES) for sid in (b"", SID)
    ]
    whole += [server_hello(suite=0x0005, session_id=SID[:size]) for size in range(33)]
    whole += [server_hello(compression=method, session_id=sid) for method in (1, 255) for sid in (b"", SID)]
    whole += [
        server_hello(suite=suite, session_id=sid, extensions=extensions)
        for suite in (0x1301, 0xC02F)
        for sid in (b"", SID)
        for extensions in (*ANSWERS_12.values(), *ANSWERS_13.values(), extension(43, b"\x03\x02"))
    ]
    whole += [
        server_hello(version, random=bytes(24) + b"DOWNGRD" + last) for version in (TLS10, TLS11, 0x0303)
        for last in (b"\0", b"\1", b"\2")
    ]  # fmt: skip
    cut = [hello[:size] for hello in (server_hello(), server_hello(session_id=SID)) for size in range(85)]
    return whole + cut


def stateless() -> list:
    packets = [(side, payload) for _, side, payload, *_ in CASES]
    packets += [(C, payload) for _, payload, _ in STARTS]
    packets += [(S, payload) for payload in hellos()]
    packets += [(C, client_hello()[:size]) for size in range(50)]
    packets += [(C, header(kind)) for kind in range(0, 256)]
    packets += [(side, (ATTACK + bytes(9))[:size]) for side in (C, S) for size in range(1, 12)]
    packets += [(C, FAIR)]
    return [sent(side, payload, family) for family in (4, 6) for side, payload in packets]


POLICIES = (
    "weak-parameters",
    "weak-parameters:classes=rc4,unjudged=refuse,compression=allow,ports=443,servers=198.51.100.0/24,2001:db8::/32",
    "min-version:min=1.0",
    "min-version:min=1.2,split=drop,sentinel=refuse,ports=443",
    "min-version:min=1.3,split=drop,sentinel=refuse",
    "content-type:types=heartbeat,alert,99,split=drop,records=1",
    "content-type:types=20,21,22,23,mode=allow,records=1,ports=443,direction=to-server",
    "heartbleed",
    "heartbleed:ports=443,variant=strict,direction=to-client",
)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_verdicts(bench, rules_text, load, policy):
    packets = stateless()
    bench.load(rules_text(policy))
    expected = refused(bench, packets)
    bench.flush()
    bench.forget()
    load(policy)
    verdicts = refused(bench, packets)
    wrong = [
        (packet, no)
        for (_, packet), no, right in zip(packets, verdicts, expected, strict=True)
        if no != right
    ]
    assert not wrong
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("side", "cases"), [(C, CLIENT_BEGINS), (S, SERVER_BEGINS)], ids=["client", "server"]
)
def test_how_a_connection_may_begin(bench, load, side, cases, family):
    load("first-record:ports=443")
    verdicts = begin(bench, side, *(row[1] for row in cases), family=family)
    assert dict(zip((row[0] for row in cases), verdicts, strict=True)) == {row[0]: row[2] for row in cases}


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_records_behind_the_first(bench, load, way, family):
    """BPF walks to the eighth; of those behind it, and of those behind the rest of one, nothing is known."""
    load("content-type:types=heartbeat")
    behind = [sent(C, record(23, bytes(9)) * before + header(24), family) for before in range(10)]
    walks = way.startswith("bpf")
    assert refused(bench, behind) == [before < (8 if walks else 1) for before in range(10)]
    assert refused(bench, [sent(C, bytes(7) + header(24), family)]) == [False]


def test_over_reads_behind_other_records(bench, load, way):
    load("heartbleed:records=8")
    packets = [sent(C, record(23, bytes(9)) * before + ATTACK) for before in range(9)]
    walks = way.startswith("bpf")
    assert refused(bench, packets) == [before < (8 if walks else 1) for before in range(9)]
    assert refused(bench, [sent(C, record(23, bytes(9)) + FAIR)]) == [False]


def test_the_change_cipher_spec_of_a_client_is_behind_its_key_exchange(bench, load, way):
    """BPF sees it there and leaves the direction alone from then on; a heartbeat before it is still judged."""
    load("heartbleed:encrypted=pass")
    change = b"\x14\x03\x03\x00\x01\x01"
    walks = way.startswith("bpf")
    packets = [
        sent(C, b"hello"),
        sent(S, b"hello"),
        sent(C, ATTACK + change),
        sent(C, ATTACK),
        sent(C, FLIGHT),
        sent(C, ATTACK),
        sent(S, ATTACK),
    ]
    assert refused(bench, packets) == [False, False, True, True, False, not walks, True]
