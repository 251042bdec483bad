"""Fallback over several connections: DG06, DG07, DG09, DG11."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.connections import COLUMNS, Batch
from analyzer.detect import fallback
from analyzer.detect.fallback import FALLBACK_NS, SILENCE_NS
from analyzer.model import Action, Severity
from analyzer.tls import hello
from analyzer.tls.state import State
from samples.craft import tls_bytes as tls
from samples.craft.conversation import ACK, FIN, RST, SERVER, Capture, Packet
from samples.craft.fallback import attempt, success
from samples.craft.session import begin
from samples.craft.tls_bytes import SENTINEL_TLS12, SSL30, TLS10, TLS11, TLS12, TLS13
from tests.analyzer.detect.crafted import findings, ids, one

ACROSS = {"DG06", "DG07", "DG09", "DG11"}
OTHER_SUITES = (0x009C, 0x0035, 0x002F, 0xC014, 0xC013)

Plan = list[tuple[str, int] | tuple[str, int, dict[str, Any]] | float]


def play(capture: Capture, plan: Plan) -> list[Packet]:
    """Connections one after the other: reset, close, silence, an alert's number, pass. Gives the hellos."""
    offers = []
    for step in plan:
        if isinstance(step, float):
            capture.pause(step)
            continue
        how, version, *more = step
        options = more[0] if more else {}
        if how == "pass":
            offers.append(success(capture, "play", version, **options)[0])
        else:
            offers.append(attempt(capture, "play", version, how, **options).client_hello)
    return offers


def across(*captures: Capture) -> list[str]:
    return [name for name in ids(findings(*captures)) if name in ACROSS]


@pytest.mark.parametrize("how", ["reset", "close", "silence", "40", "70", "10"])
def test_one_step_after_a_failure_and_success_below(how: str) -> None:
    capture = Capture()
    offers = play(capture, [(how, TLS12), ("pass", TLS11)])
    found = findings(capture)
    dance = one(found, "DG06")
    assert dance.action == Action.CORROBORATE
    assert dance.severity == Severity.MEDIUM
    assert {packet.number for packet in offers} <= set(dance.packets)
    assert dance.evidence["expected_version"] == "TLSv1.2"
    assert dance.evidence["seen_version"] == "TLSv1.1"
    assert dance.evidence["steps_down"] == 1
    assert dance.evidence["sni"] == "server.example"
    assert dance.connection == 1
    first, second = dance.evidence["attempts"]
    assert (
        first["outcome"]
        == {
            "reset": "reset by the server",
            "close": "closed by the server",
            "silence": "no answer, given up by the client",
            "40": "alert handshake_failure from the server",
            "70": "alert protocol_version from the server",
            "10": "alert unexpected_message from the server",
        }[how]
    )
    assert second["outcome"] == "TLSv1.1 negotiated"
    assert one(found, "DG11").packets == (offers[1].number,)
    assert "DG07" not in ids(found)


@pytest.mark.parametrize(
    ("plan", "steps", "action"),
    [
        # success at TLS 1.0 or below: nothing legitimate needs that
        ([("reset", TLS12), ("pass", TLS10)], 1, Action.TAMPERING),
        ([("reset", TLS12), ("reset", TLS11), ("pass", TLS10)], 2, Action.TAMPERING),
        ([("reset", TLS12), ("reset", TLS10), ("pass", SSL30)], 2, Action.TAMPERING),
        # the server has more than was agreed
        ([("reset", TLS13), ("pass", TLS12, {"tail": SENTINEL_TLS12})], 1, Action.TAMPERING),
        ([("reset", TLS13), ("pass", TLS12)], 1, Action.CORROBORATE),
        # two steps down, whatever becomes of them
        ([("reset", TLS12), ("reset", TLS11), ("reset", TLS10)], 2, Action.CORROBORATE),
    ],
)
def test_dance(plan: Plan, steps: int, action: Action) -> None:
    capture = Capture()
    offers = play(capture, plan)
    dance = one(findings(capture), "DG06")
    assert dance.evidence["steps_down"] == steps
    assert dance.action == action
    assert dance.severity == (Severity.HIGH if action == Action.TAMPERING else Severity.MEDIUM)
    assert dance.offender is None
    assert (set(dance.victims) == {"192.0.2.10", "198.51.100.10"}) == (action == Action.TAMPERING)
    assert {packet.number for packet in offers} <= set(dance.packets)


def test_a_version_may_be_tried_again_before_the_next_step() -> None:
    capture = Capture()
    play(capture, [("reset", TLS12), ("reset", TLS12), ("reset", TLS12), ("reset", TLS11), ("pass", TLS11)])
    dance = one(findings(capture), "DG06")
    assert dance.action == Action.CORROBORATE
    assert dance.evidence["steps_down"] == 1
    assert [(step["connection"], step["tries"]) for step in dance.evidence["attempts"]] == [(2, 3), (4, 2)]


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param([("reset", TLS12), ("pass", TLS12)], id="same version again"),
        pytest.param([("reset", TLS11), ("pass", TLS12)], id="higher"),
        pytest.param([("reset", TLS12), ("reset", TLS11)], id="one step without success"),
        pytest.param([("reset", TLS12), ("reset", TLS11), ("reset", TLS11)], id="one step, tried twice"),
        pytest.param([("pass", TLS12), ("pass", TLS11)], id="no failure"),
        pytest.param([("reset", TLS12), ("pass", TLS12), ("pass", TLS11)], id="had worked in between"),
        pytest.param([("reset", TLS12), 10.0, ("pass", TLS11)], id="too late"),
        pytest.param([("42", TLS12), ("pass", TLS11)], id="refused for another reason: bad_certificate"),
        pytest.param(
            [("reset", TLS12), ("pass", TLS11, {"suites": OTHER_SUITES})], id="another client's suites"
        ),
        pytest.param(
            [("reset", TLS12), ("pass", TLS11, {"server_name": "other.example"})], id="another name"
        ),
        pytest.param([("reset", TLS12), ("pass", TLS11, {"server_name": None})], id="TLS 1.1 without a name"),
    ],
)
def test_no_dance(plan: Plan) -> None:
    capture = Capture()
    play(capture, plan)
    assert across(capture) == []


def test_another_pair_is_another_matter() -> None:
    for where in ({"client": "192.0.2.11"}, {"server": "198.51.100.11"}, {"server_port": 8443}):
        capture = Capture()
        play(capture, [("reset", TLS12)])
        s = begin("pair", TLS11, tls.ECDHE_AES_SHA, capture=capture, **where)
        s.full()
        s.close()
        assert across(capture) == []


def test_an_offer_without_extensions_names_no_server() -> None:
    capture = Capture()
    play(capture, [("reset", TLS12), ("pass", TLS10, {"extensions": False})])
    assert one(findings(capture), "DG06").action == Action.TAMPERING


def test_connections_to_other_names_do_not_hide_it() -> None:
    capture = Capture()
    other = {"server_name": "other.example"}
    play(
        capture,
        [("reset", TLS12), ("pass", TLS12, other), ("reset", TLS11), ("pass", TLS12, other), ("pass", TLS10)],
    )
    dance = one(findings(capture), "DG06")
    assert [step["connection"] for step in dance.evidence["attempts"]] == [0, 2, 4]


def test_elliptic_curves_go_with_the_extensions() -> None:
    # the sample's client drops its ECDHE suites for SSL 3.0, as SSL 3.0 demands
    assert any(code >> 8 == 0xC0 for code in tls.offered(TLS10))
    assert not any(code >> 8 == 0xC0 for code in tls.offered(SSL30))
    capture = Capture()
    play(capture, [("reset", TLS12), ("pass", SSL30)])
    assert one(findings(capture), "DG06").evidence["seen_version"] == "SSLv3"


def test_a_failure_after_the_next_offer_did_not_cause_it() -> None:
    capture = Capture()
    slow = begin("slow", TLS12, capture=capture)
    slow.client(slow.client_hello())
    capture.pause(0.5)
    s = begin("next", TLS11, tls.ECDHE_AES_SHA, capture=capture)
    s.full()
    slow.server(slow.alert(tls.FATAL, tls.HANDSHAKE_FAILURE))
    slow.talk.close(SERVER)
    assert across(capture) == []


def test_an_alert_counts_at_once_even_if_tcp_stays_open() -> None:
    capture = Capture()
    slow = begin("slow", TLS12, capture=capture)
    slow.client(slow.client_hello())
    slow.server(slow.alert(tls.FATAL, tls.HANDSHAKE_FAILURE))
    capture.pause(0.5)
    s = begin("next", TLS11, tls.ECDHE_AES_SHA, capture=capture)
    s.full()
    capture.pause(60.0)
    slow.talk.close(SERVER)
    assert across(capture) == ["DG06", "DG11"]


@pytest.mark.parametrize(("seconds", "expected"), [(2.5, []), (3.5, ["DG06", "DG11"]), (11.0, [])])
def test_silence_is_a_failure_once_the_client_has_waited(seconds: float, expected: list) -> None:
    capture = Capture()
    s = begin("open", TLS12, capture=capture)
    s.client(s.client_hello())
    capture.pause(seconds)
    play(capture, [("pass", TLS11)])
    assert across(capture) == expected


def test_what_was_established_did_not_fail() -> None:
    for version, suite in ((TLS12, tls.ECDHE_AES_GCM), (TLS13, tls.TLS13_AES_128)):
        capture = Capture()
        s = begin("established", version, suite, capture=capture)
        (s.full13 if version == TLS13 else s.full)()
        s.talk.reset(SERVER)
        capture.pause(0.3)
        play(capture, [("pass", TLS11)])
        assert across(capture) == []


@pytest.mark.parametrize("upto", ["server_hello", "server_flight", "client_flight"])
def test_a_handshake_may_fail_on_its_way(upto: str) -> None:
    capture = Capture()
    s = begin("half", TLS12, capture=capture)
    s.client(s.client_hello())
    s.server(s.server_hello(), *(s.server_flight() if upto != "server_hello" else []))
    if upto == "client_flight":
        s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.talk.reset(SERVER)
    capture.pause(0.3)
    play(capture, [("pass", TLS11)])
    assert across(capture) == ["DG06", "DG11"]


def test_the_absence_of_an_answer_means_nothing_where_answers_are_not_captured() -> None:
    capture = Capture()
    s = begin("one-sided", TLS12, capture=capture)
    s.full()
    s.close()
    play(capture, [("pass", TLS11)])
    everything = list(capture.packets)
    client = everything[0].source
    # the first connection as a tap sees it that has the client's direction only
    capture.keep(
        lambda packet: packet.source == client or packet.sport != 443 or packet.dport == everything[-1].sport
    )
    assert across(capture) == []


def test_missing_bytes_are_no_failure() -> None:
    capture = Capture()
    s = begin("gap", TLS12, capture=capture)
    s.client(s.client_hello())
    lost = [packet for packet in s.server(s.server_hello(), *s.server_flight()) if packet.payload]
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.close()
    capture.pause(0.3)
    play(capture, [("pass", TLS11)])
    capture.lose(*dict.fromkeys(lost))
    assert across(capture) == []


def test_a_dance_over_two_captures() -> None:
    first, second = Capture(), Capture()
    (lost,) = play(first, [("reset", TLS12)])
    second.now_us, second._ports = first.now_us, first._ports
    (lower,) = play(second, [("pass", TLS10)])
    dance = one(findings(first, second), "DG06")
    assert dance.capture == 1
    assert lower.number in dance.packets
    assert [(step["capture"], step["packet"]) for step in dance.evidence["attempts"]] == [
        (0, lost.number),
        (1, lower.number),
    ]


# who ended it


def injected(kind: str, *, ttl: int, answer: bool = True) -> Capture:
    """An offer of TLS 1.2 is ended by a packet with this TTL, the server's own have 57; then 1.1 works."""
    capture = Capture()
    s = begin("injected", TLS12, capture=capture)
    s.client(s.client_hello(), ack=False)
    if kind == "RST":
        s.talk.packet(SERVER, flags=RST | ACK, ttl=ttl)
    else:
        s.talk.packet(SERVER, s.alert(tls.FATAL, tls.HANDSHAKE_FAILURE), flags=0x18, ttl=ttl)
    if answer:
        s.server(s.server_hello(), *s.server_flight(), ack=False)
    s.talk.reset(0)
    capture.pause(0.3)
    play(capture, [("pass", TLS11)])
    return capture


@pytest.mark.parametrize("kind", ["RST", "alert"])
def test_an_end_with_another_ttl_comes_from_somebody_else(kind: str) -> None:
    found = findings(injected(kind, ttl=243))
    finding = one(found, "DG07")
    assert finding.action == Action.TAMPERING
    assert set(finding.victims) == {"192.0.2.10", "198.51.100.10"}
    assert finding.packets == (5,)
    assert finding.evidence["bears_address_of"] == "server"
    assert (finding.evidence["expected_ttl"], finding.evidence["seen_ttl"]) == (57, 243)
    assert finding.evidence["bytes"] == ("04" if kind == "RST" else "0228")
    assert one(found, "DG06").action == Action.CORROBORATE


@pytest.mark.parametrize(
    ("kind", "ttl", "answer", "expected"),
    [
        # paths of equal cost differ by a hop or two
        ("RST", 59, False, False),
        ("RST", 55, False, False),
        ("RST", 60, False, True),
        ("RST", 57, False, False),
        ("alert", 59, True, False),
        ("alert", 60, True, True),
        # a TTL from which the server never comes back is that of the machine behind a SYN proxy
        ("alert", 243, False, False),
        # a server that has reset the connection does not answer
        ("RST", 57, True, True),
    ],
)
def test_what_an_injection_is(kind: str, ttl: int, answer: bool, expected: bool) -> None:
    assert ("DG07" in across(injected(kind, ttl=ttl, answer=answer))) == expected


def test_a_reset_is_only_judged_where_a_client_fell_back() -> None:
    capture = injected("RST", ttl=243)
    capture.packets = [packet for packet in capture.packets if 50_001 in (packet.sport, packet.dport)]
    assert across(capture) == []


# the mark


def test_refused_as_inappropriate_alone() -> None:
    capture = Capture()
    refused = attempt(capture, "alone", TLS11, "86", scsv=True)
    (finding,) = (found for found in findings(capture) if found.id in ACROSS)
    assert (finding.id, finding.action) == ("DG09", Action.CORROBORATE)
    assert refused.failure is not None
    assert refused.failure.number in finding.packets
    assert finding.evidence["bytes"] == "0256"


def test_refused_as_inappropriate_after_a_failure() -> None:
    capture = Capture()
    play(capture, [("reset", TLS12), ("86", TLS11, {"scsv": True})])
    found = findings(capture)
    assert one(found, "DG06").action == Action.TAMPERING
    assert one(found, "DG09").action == Action.TAMPERING
    assert "DG11" not in ids(found)


def test_refused_and_tried_again_without_the_mark() -> None:
    capture = Capture()
    play(capture, [("reset", TLS12), ("86", TLS11, {"scsv": True}), ("pass", TLS11)])
    found = findings(capture)
    assert one(found, "DG06").action == Action.TAMPERING
    assert one(found, "DG09").action == Action.TAMPERING


def test_inappropriate_fallback_without_the_mark_is_no_proof() -> None:
    capture = Capture()
    play(capture, [("86", TLS11)])
    assert across(capture) == []


def test_only_unmarked_steps_are_held_against_a_client() -> None:
    capture = Capture()
    offers = play(capture, [("reset", TLS12), ("reset", TLS11, {"scsv": True}), ("pass", TLS10)])
    assert one(findings(capture), "DG11").packets == (offers[2].number,)


# vectorised and plain

PLACE = {name: index for index, name in enumerate(COLUMNS)}


def history_batch(rows: list[tuple[int, int, int, bool]]) -> Batch:
    """Connections of one pair: (second, name, highest version, reset)."""
    numbers = np.zeros((len(COLUMNS), len(rows)), dtype=np.int64)
    for number, (second, name, version, reset) in enumerate(rows):
        values = {
            "CONNECTION": number,
            "SEEN": 1,
            "CLIENT_FLAGS": hello.SNI if name else 0,
            "SERVER_FLAGS": -1 if reset else 0,
            "CLIENT_MAX": version,
            "VERSION": 0 if reset else version,
            "STATE": State.WAIT_SH if reset else State.EST,
            "ESTABLISHED": int(not reset),
            "HELLO_PACKET": 10 * number + 1,
            "HELLO_NS": second * 1_000_000_000,
            "LAST_NS": second * 1_000_000_000 + 1,
            "CLOSED_NS": second * 1_000_000_000 + 1,
            "RST_PACKET": (10 * number + 2) if reset else 0,
            "RST_DIRECTION": 1,
            "PACKETS_1": 3,
            "COMMON_HASH": 5,
            "SSL3_HASH": 5,
        }
        for column, value in values.items():
            numbers[PLACE[column], number] = value
    clients = [hello.NO_CLIENT._replace(sni=b"abc"[:name]) for _, name, _, _ in rows]
    keys = np.zeros((5, len(rows)), dtype=np.uint64)
    return Batch(numbers, keys, clients, [hello.NO_SERVER] * len(rows), [""] * len(rows))


def plain_dances(rows: list[tuple[int, int, int, bool]]) -> set[tuple[int, ...]]:
    """The definition, one connection after the other: those of each dance."""
    before: dict[int, int] = {}
    for number, (second, name, version, _) in enumerate(rows):
        candidates = [other for other in range(number) if rows[other][1] == name][-1:]
        if not name and version <= TLS10:
            candidates += range(number)[-1:]
        for other in candidates:
            then, _, higher, reset = rows[other]
            if (
                reset
                and version <= higher
                and second - then <= FALLBACK_NS // 1_000_000_000
                and number not in before
            ):
                before[number] = other
    dances = set()
    for end in set(before) - set(before.values()):
        chain = [end]
        while chain[-1] in before:
            chain.append(before[chain[-1]])
        chain.reverse()
        steps = sum(rows[lower][2] < rows[upper][2] for upper, lower in pairwise(chain))
        if steps > 1 or (steps == 1 and not rows[end][3]):
            # of each version the last connection
            dances.add(
                tuple(
                    one
                    for one, then in pairwise([*chain, None])
                    if then is None or rows[then][2] < rows[one][2]
                )
            )
    return dances


@given(
    st.lists(
        st.tuples(
            st.integers(1, 12),
            st.integers(0, 2),
            st.sampled_from((SSL30, TLS10, TLS11, TLS12, TLS13)),
            st.booleans(),
        ),
        max_size=14,
    )
)
def test_columns_say_what_a_plain_reading_says(gaps: list) -> None:
    rows, second = [], 1_000
    for gap, *rest in gaps:
        second += gap
        rows.append((second, *rest))
    hits = fallback.across([history_batch(rows)] if rows else [])
    found = {
        tuple(step["connection"] for step in hit.evidence["attempts"])  # type: ignore[attr-defined]
        for hit in hits
        if hit.rule == "DG06"
    }
    assert found == plain_dances(rows)


def test_a_long_row_of_failures_is_told_shortly() -> None:
    rows = [(1_000 + number, 1, TLS12, True) for number in range(5_000)]
    rows += [(6_000 + number, 1, TLS11, number < 4_999) for number in range(5_000)]
    dance, unmarked = fallback.across([history_batch(rows)])
    assert (dance.rule, unmarked.rule) == ("DG06", "DG11")
    assert [step["tries"] for step in dance.evidence["attempts"]] == [5_000, 5_000]  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(20))
def test_no_numbers_raise(seed: int) -> None:
    """What a hostile capture may leave in the columns, several connections to a pair."""
    random = np.random.default_rng(seed)
    batch = history_batch(
        [(1_000 + number // 3, number % 3, TLS12, bool(number % 2)) for number in range(60)]
    )
    states = batch["STATE"].copy()
    for name in COLUMNS:
        if name not in ("CAPTURE", "CONNECTION", "HELLO_NS", "CLIENT", "SEEN"):
            some = random.random(60) < 0.3
            batch.numbers[PLACE[name], some] = random.integers(-1, 1 << 16, int(some.sum()))
    batch.numbers[PLACE["STATE"]] = states
    for hit in fallback.across([batch]):
        assert hit.rule in {rule.id for rule in fallback.DETECTOR.rules}
        assert hit.batch is not None
        assert hit.evidence["bytes"] or hit.rule == "DG19"


def test_thresholds_are_those_of_the_catalogue() -> None:
    assert (FALLBACK_NS, SILENCE_NS) == (10_000_000_000, 3_000_000_000)


def test_a_client_that_answers_fin_with_rst_did_not_end_it() -> None:
    capture = Capture()
    s = begin("fin", TLS12, capture=capture)
    s.client(s.client_hello())
    s.talk.packet(SERVER, flags=FIN | ACK)
    s.talk.packet(0, flags=RST | ACK, ack=s.talk.received[0] + 1)
    capture.pause(0.3)
    play(capture, [("pass", TLS11)])
    assert one(findings(capture), "DG06").evidence["attempts"][0]["outcome"] == "closed by the server"
