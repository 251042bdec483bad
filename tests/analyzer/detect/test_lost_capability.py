"""What a server had in other connections and now does not use: DG05, DG10, DG17, DG19, DG20."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.detect.lost_capability import _best_before
from analyzer.model import Action
from samples.craft import tls_bytes as tls
from samples.craft.conversation import Capture
from samples.craft.session import Hellos, begin
from samples.craft.tls_bytes import SENTINEL_TLS12, TLS10, TLS11, TLS12, TLS13, Suite
from tests.analyzer.detect.crafted import findings, ids, one

BOTH = (TLS13, TLS12)
LOST = {"DG05", "DG10", "DG17", "DG19", "DG20"}
SUITES = (0xC02F, 0xC030, 0xC013, 0xC012, 0x009C, 0x002F, 0x000A, 0x0005)


def connect(
    capture: Capture,
    version: int,
    suite: Suite | None = None,
    hello: dict[str, Any] | None = None,
    answer: dict[str, Any] | None = None,
    **where: Any,
) -> Hellos:
    """A whole connection."""
    usual = {TLS13: tls.TLS13_AES_128, TLS12: tls.ECDHE_AES_GCM}.get(version, tls.ECDHE_AES_SHA)
    s = begin("lost", version, suite or usual, capture=capture, **where)
    hellos = (s.full13 if version == TLS13 else s.full)({"versions": BOTH, **(hello or {})}, answer)
    s.close()
    capture.pause(1.0)
    return hellos


def lost(capture: Capture) -> list[str]:
    return [name for name in ids(findings(capture)) if name in LOST]


# versions


def test_a_version_is_lost() -> None:
    capture = Capture()
    before = connect(capture, TLS13)
    now = connect(capture, TLS12)
    (finding,) = findings(capture)
    assert (finding.id, finding.action, finding.connection) == ("DG05", Action.CORROBORATE, 1)
    assert {before.server_hello.number, now.client_hello.number, now.server_hello.number} == set(
        finding.packets
    )
    evidence = finding.evidence
    assert (evidence["expected_version"], evidence["seen_version"]) == ("TLSv1.3", "TLSv1.2")
    assert evidence["expected_cipher_suite"] == "TLS_AES_128_GCM_SHA256"
    assert evidence["cipher_suite"] == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert evidence["compared_with"] == {"connection": 0, "capture": 0, "packet": before.server_hello.number}
    assert evidence["sni"] == "server.example"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"version": TLS12}, {"version": TLS13}, id="a version is gained"),
        pytest.param(
            {"version": TLS13}, {"version": TLS12, "hello": {"versions": (TLS12,)}}, id="not offered"
        ),
        pytest.param(
            {"version": TLS13}, {"version": TLS12, "hello": {"server_name": "old.example"}}, id="another name"
        ),
        pytest.param({"version": TLS13}, {"version": TLS12, "server_port": 8443}, id="another port"),
        pytest.param({"version": TLS13}, {"version": TLS12, "server": "198.51.100.11"}, id="another server"),
        pytest.param(
            {"version": TLS12, "hello": {"versions": (TLS12,)}},
            {"version": TLS11, "hello": {"versions": (TLS13, TLS11)}},
            id="higher and lower are offered, the known one is not",
        ),
    ],
)
def test_no_version_is_lost(first: dict, second: dict) -> None:
    capture = Capture()
    connect(capture, **first)
    connect(capture, **second)
    assert "DG05" not in lost(capture)
    assert "DG17" not in lost(capture)


def test_the_version_may_have_been_seen_with_another_client() -> None:
    capture = Capture()
    connect(capture, TLS13)
    connect(capture, TLS12, client="192.0.2.77")
    assert lost(capture) == ["DG05"]


def test_a_resumed_session_keeps_its_version() -> None:
    capture = Capture()
    connect(capture, TLS13)
    s = begin("resumed", TLS12, capture=capture)
    session_id = bytes(range(32))
    s.abbreviated({"versions": BOTH, "session_id": session_id}, {"session_id": session_id})
    s.close()
    assert lost(capture) == []


def test_a_mixed_pool_is_reported_once_for_each_client() -> None:
    capture = Capture()
    for _ in range(3):
        connect(capture, TLS13)
        connect(capture, TLS12)
    connect(capture, TLS12, client="192.0.2.77")
    first, other = (finding for finding in findings(capture) if finding.id == "DG05")
    assert first.connection == 1
    assert first.evidence["connections_like_this"] == 3
    assert other.connection == 6
    assert "connections_like_this" not in other.evidence


def test_static_rsa_hides_a_removed_mark() -> None:
    capture = Capture()
    connect(capture, TLS13)
    now = connect(capture, TLS12, tls.RSA_AES_GCM)
    found = findings(capture)
    finding = one(found, "DG17")
    assert finding.action == Action.CORROBORATE
    assert now.server_hello.number in finding.packets
    assert finding.evidence["cipher_suite"] == "TLS_RSA_WITH_AES_128_GCM_SHA256"
    assert finding.evidence["bytes"] == "009c"
    assert "DG05" in ids(found)


@pytest.mark.parametrize(
    ("suite", "answer"),
    [
        pytest.param(tls.ECDHE_AES_GCM, {}, id="the key exchange is signed"),
        pytest.param(tls.RSA_AES_GCM, {"tail": SENTINEL_TLS12}, id="the mark is there"),
    ],
)
def test_nothing_is_hidden(suite: Suite, answer: dict) -> None:
    capture = Capture()
    connect(capture, TLS13)
    connect(capture, TLS12, suite, answer=answer)
    assert "DG05" in lost(capture)
    assert "DG17" not in lost(capture)


def test_a_server_that_always_had_static_rsa_hides_nothing() -> None:
    capture = Capture()
    connect(capture, TLS12, tls.RSA_AES_GCM, {"versions": (TLS12,)})
    connect(capture, TLS11, tls.RSA_AES_SHA, {"versions": (TLS12,)})
    assert lost(capture) == ["DG05"]


# the fallback mark

FALLBACK = {"versions": (TLS11,), "scsv": True}


@pytest.mark.parametrize("later", [False, True])
def test_a_server_with_more_ignores_the_mark(later: bool) -> None:
    capture = Capture()
    if not later:
        connect(capture, TLS12)
    now = connect(capture, TLS11, hello=FALLBACK)
    if later:
        connect(capture, TLS12)
    finding = one(findings(capture), "DG10")
    assert finding.action == Action.POSTURE
    assert {now.client_hello.number, now.server_hello.number} <= set(finding.packets)
    assert finding.evidence["expected_version"] == "TLSv1.2"
    assert finding.evidence["known_from"] == f"connection {1 if later else 0}"
    assert finding.evidence["bytes"] == "5600"


def test_its_own_random_may_show_that_it_has_more() -> None:
    capture = Capture()
    connect(capture, TLS12, hello={"versions": (TLS12,), "scsv": True}, answer={"tail": SENTINEL_TLS12})
    finding = one(findings(capture), "DG10")
    assert finding.evidence["expected_version"] == "TLSv1.3"
    assert finding.evidence["known_from"] == "downgrade mark in its random"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"version": TLS11, "hello": {"versions": (TLS12,)}}, id="no higher version is known"),
        pytest.param(
            {"version": TLS12, "hello": {"server_name": "other.example"}}, id="known of another name"
        ),
        pytest.param({"version": TLS12, "server": "198.51.100.11"}, id="known of another server"),
    ],
)
def test_a_server_without_more_does_not_ignore_the_mark(other: dict) -> None:
    capture = Capture()
    connect(capture, **other)
    connect(capture, TLS11, hello=FALLBACK)
    assert "DG10" not in lost(capture)


# protocols


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        (("h2", "http/1.1"), 1),
        (("h2", None), 1),
        (("h2", "h2", "h2", "http/1.1", "h2", "http/1.1"), 3),
        (("h2", "h2"), None),
        (("http/1.1", "h2"), None),
        (("http/1.1", "h2", "http/1.1"), None),
    ],
)
def test_http2_is_lost(protocols: tuple, expected: int | None) -> None:
    capture = Capture()
    for protocol in protocols:
        connect(capture, TLS12, hello={"alpn": ("h2", "http/1.1")}, answer={"alpn": protocol})
    found = [finding for finding in findings(capture) if finding.id == "DG19"]
    assert [finding.connection for finding in found] == ([] if expected is None else [expected])
    for finding in found:
        assert finding.action == Action.INFORM
        assert finding.evidence["seen_protocol"] == protocols[expected or 0] or "none"


def test_tls_1_3_hides_the_protocol() -> None:
    capture = Capture()
    offer = {"alpn": ("h2", "http/1.1")}
    connect(capture, TLS12, hello=offer, answer={"alpn": "h2"})
    connect(capture, TLS13, hello=offer)
    assert "DG19" not in lost(capture)


def test_a_client_that_does_not_offer_http2_loses_nothing() -> None:
    capture = Capture()
    connect(capture, TLS12, hello={"alpn": ("h2", "http/1.1")}, answer={"alpn": "h2"})
    connect(capture, TLS12, hello={"alpn": ("http/1.1",)}, answer={"alpn": "http/1.1"})
    assert "DG19" not in lost(capture)


# suites

STRONG, CBC, STATIC, SMALL, BROKEN = (
    tls.ECDHE_AES_GCM,
    tls.ECDHE_AES_SHA,
    tls.RSA_AES_GCM,
    tls.ECDHE_3DES,
    tls.RSA_RC4,
)


@pytest.mark.parametrize(
    ("before", "now", "weaker"),
    [
        (STRONG, CBC, True),
        (STRONG, STATIC, True),
        (CBC, STATIC, True),
        (STATIC, SMALL, True),
        (STRONG, SMALL, True),
        (SMALL, BROKEN, True),
        (SMALL, STRONG, False),
        (BROKEN, CBC, False),
        (STRONG, Suite(code=0xC030, key_exchange="ecdhe", sealing="gcm"), False),
    ],
)
def test_suite_class(before: Suite, now: Suite, weaker: bool) -> None:
    capture = Capture()
    hello = {"versions": (TLS12,), "suites": SUITES}
    connect(capture, TLS12, before, hello)
    second = connect(capture, TLS12, now, hello)
    found = [finding for finding in findings(capture) if finding.id == "DG20"]
    assert [finding.connection for finding in found] == ([1] if weaker else [])
    for finding in found:
        assert finding.action == Action.CORROBORATE
        assert second.server_hello.number in finding.packets
        assert finding.evidence["bytes"] == f"{now.code:04x}"
        assert finding.evidence["expected_class"] != finding.evidence["seen_class"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"suites": SUITES[1:]}, id="fewer suites"),
        pytest.param({"suites": SUITES[::-1]}, id="another order"),
        pytest.param({"ticket": b""}, id="other extensions"),
        pytest.param({"server_name": "other.example"}, id="another name"),
        pytest.param({"versions": (TLS10,)}, id="another version"),
    ],
)
def test_another_hello_may_get_another_suite(change: dict) -> None:
    capture = Capture()
    hello = {"versions": (TLS12,), "suites": SUITES}
    connect(capture, TLS12, STRONG, hello)
    version = TLS10 if "versions" in change else TLS12
    connect(capture, version, tls.ECDHE_3DES, {**hello, **change})
    assert "DG20" not in lost(capture)


# the vectorised maximum


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=30))
def test_best_before_is_the_best_of_the_group_so_far(rows: list) -> None:
    rows = sorted(rows, key=lambda row: row[0])  # groups lie together; their order within is that of time
    if not rows:
        return
    groups = [group for group, _ in rows]
    values = [value for _, value in rows]
    first = np.array([groups.index(group) for group in groups])
    best, reached = _best_before(np.array(values), first)
    for at, start in enumerate(first.tolist()):
        earlier = values[start:at]
        assert best[at] == max(earlier, default=-1)
        if earlier:
            assert reached[at] == start + earlier.index(max(earlier))
