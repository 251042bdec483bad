"""learned and sni with real clients and servers: who was seen works, who was not is refused."""

from __future__ import annotations

import time

import pytest

from analyzer.model import Side
from rulegen.backends import backend_named, emit
from rulegen.cli import _answer
from rulegen.from_findings import parse_wish
from rulegen.ir.rule import Ruleset
from rulegen.testbed.live import PATIENCE_S, SERVER, SERVER_6, Live
from tests.rulegen.policies.test_live import connect, credentials, live, serve, works

__all__ = ["credentials", "live"]

pytestmark = pytest.mark.netns

OLD = "DEFAULT@SECLEVEL=0"


def rules(policy: str, *captures: str) -> Ruleset:
    return _answer(list(captures), wishes=[parse_wish(policy)], hook="forward").ruleset


def has_worked(live: Live, credentials, *options: str, server: str = SERVER) -> None:
    """A client that comes and goes: the server serves one at a time."""
    client = connect(live, credentials, *options, server=server)
    works(client)
    client.end()


def is_refused(
    live: Live, credentials, rule: str, *options: str, server: str = SERVER, tool: str = "nft"
) -> None:
    client = connect(live, credentials, *options, server=server)
    counts(live, rule, tool)
    client.end()


def counts(live: Live, rule: str, tool: str = "nft") -> None:
    until = time.monotonic() + PATIENCE_S
    while not live.counters(tool=tool)[rule]:
        assert time.monotonic() < until, f"{rule} has counted nothing"
        time.sleep(0.02)


@pytest.mark.parametrize("server", [SERVER, f"[{SERVER_6}]"], ids=["IPv4", "IPv6"])
def test_what_was_captured_works_again_and_nothing_else(live, credentials, tmp_path, server):
    family, other = (4, f"[{SERVER_6}]") if server == SERVER else (6, SERVER)
    serve(live, credentials, "-cipher", OLD)
    live.watch()
    for version in ("-tls1_2", "-tls1_3"):
        has_worked(live, credentials, version, server=server)
    path = tmp_path / "good.pcap"
    path.write_bytes(live.recorded())

    live.load(emit(rules("learned", str(path)), backend_named("nft")).text)
    for version in ("-tls1_2", "-tls1_3"):
        has_worked(live, credentials, version, server=server)
    assert not any(
        count
        for rule, count in live.counters().items()
        if rule.endswith(("-first", "-cut", "-other-hello", "-other-choice"))
    )
    name = f"learned-ipv{family}-1"
    is_refused(live, credentials, f"{name}-other-hello", "-tls1_1", "-cipher", OLD, server=server)
    live.start(Side.CLIENT, "bash", "-c", f"echo GET / >/dev/tcp/{server.strip('[]')}/443")
    counts(live, f"{name}-first")
    is_refused(live, credentials, f"learned-stranger-ipv{10 - family}", server=other)


@pytest.mark.parametrize("backend", ["iptables", "bpf"])
@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ("sni:names=evil.example", "sni-deny-1"),
        ("sni:mode=allow,names=live.example,ports=443", "sni-other"),
    ],
)
def test_names_that_are_denied_or_alone_allowed(live, credentials, policy, rule, backend):
    serve(live, credentials)
    live.load(emit(rules(policy), backend_named(backend)).text, "iptables-nft")
    for version in ("-tls1_2", "-tls1_3"):
        has_worked(live, credentials, version, "-servername", "live.example")
    is_refused(live, credentials, rule, "-servername", "evil.example", tool="iptables-nft")
