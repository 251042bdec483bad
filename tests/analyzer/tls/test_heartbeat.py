"""Which heartbeat record asks, which answers what, and how much came back (RFC 6520 3, 4)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import limits
from analyzer.model import Side
from analyzer.tls.heartbeat import (
    CONTINUATION,
    HEADER,
    OVERHEAD,
    REQUEST,
    RESPONSE,
    UNKNOWN,
    Beat,
    Heartbeats,
    overreads,
    reads_as_overread,
)
from analyzer.tls.state import State

CLIENT, SERVER = Side.CLIENT, Side.SERVER
SECOND = 1_000_000_000


class Talk:
    """Heartbeat records of one connection, each a millisecond after the one before."""

    def __init__(self) -> None:
        self.machine = Heartbeats()
        self.beats: list[Beat] = []
        self.kept = 0
        self.position = [0, 0]
        self.now_ns = 0

    def beat(self, side: Side, length: int, body: bytes = b"", *, clear: bool = False, **facts: Any) -> Beat:
        self.now_ns += facts.pop("after_ns", 1_000_000)
        self.position[side] += facts.pop("between", 0)
        state = State.C_FLIGHT if clear else State.EST
        beat = Beat(
            **{
                "connection": 0, "side": side, "packet": len(self.beats) + 1, "last_packet": len(self.beats) + 1,
                "time_ns": self.now_ns, "clear": clear, "sealed": not clear, "length": length,
                "message_length": length, "record_version": 0x0303, "version": 0x0303, "state": state,
                "cipher_suite": 0xC02F, "client_mode": 1, "server_mode": 1, "before_keys": clear, "whole": True,
                "early_ccs": False, "after_data": not clear, "body": int.from_bytes(body[:7], "big"),
                "body_bytes": min(len(body), 7), **facts,
            }
        )  # fmt: skip
        self.kept += self.machine.follow(beat, self.position[side])
        self.position[side] += 5 + length
        self.beats.append(beat)
        return beat

    def clear(self, side: Side, kind: int, payload_length: int, length: int, **facts: Any) -> Beat:
        """A message in clear: its record may be shorter or longer than it says."""
        body = (bytes([kind]) + payload_length.to_bytes(2, "big") + bytes(8))[:length]
        return self.beat(side, length, body, clear=True, **facts)


# one record


@pytest.mark.parametrize(
    ("length", "payload_length", "over", "unpadded"),
    [
        (3, 0x4000, True, False),
        (3, 0, False, True),
        (16368, 16365, False, True),
        (16368, 16366, True, False),
        (19 + 18, 18, False, False),
        (19 + 17, 18, False, True),
        (200, 18, False, False),
    ],
)
def test_a_request_that_asks_for_more_than_it_brings(length, payload_length, over, unpadded):
    beat = Talk().clear(CLIENT, REQUEST, payload_length, length)
    assert (beat.role, beat.payload_length) == (REQUEST, payload_length)
    assert (beat.overreads, beat.unpadded) == (over, unpadded)
    assert beat.probes
    assert beat.proof.startswith(f"180303{length:04x}01{payload_length:04x}")


@given(st.integers(0, 1 << 14), st.integers(0, 0xFFFF))
def test_what_overreads(message_length, payload_length):
    """A memcpy of payload_length bytes from behind the header leaves the message (CVE-2014-0160)."""
    assert overreads(message_length, payload_length) == (HEADER + payload_length > message_length)


@given(st.binary(max_size=7), st.integers(0, 40))
def test_a_body_of_unknown_protection_is_only_judged_by_what_it_shows(body, length):
    body = body[:length]
    verdict = reads_as_overread(int.from_bytes(body, "big"), len(body), length)
    if len(body) >= HEADER:
        assert verdict == (body[0] in (1, 2) and HEADER + int.from_bytes(body[1:3], "big") > length)
    else:
        assert verdict == (length < HEADER and body[:1] == b"\1")


@pytest.mark.parametrize(
    ("length", "body"), [(0, b""), (1, b"\1"), (2, b"\1\0"), (30, b"\7\0\1ab"), (30, b"")]
)
def test_bodies_too_short_or_of_another_kind(length, body):
    beat = Talk().beat(CLIENT, length, body, clear=True)
    assert beat.role == (REQUEST if body[:1] == b"\1" else UNKNOWN)
    assert beat.payload_length == -1
    assert beat.overreads == (beat.role == REQUEST)


# pairs


def test_an_honest_request_and_its_answer():
    talk = Talk()
    asked = talk.clear(CLIENT, REQUEST, 18, 37)
    answered = talk.clear(SERVER, RESPONSE, 18, 37)
    assert (answered.role, answered.expected, answered.request) == (RESPONSE, True, asked.number)
    assert (answered.request_packet, answered.request_length, answered.answered_bytes) == (1, 37, 37)
    assert (asked.number, answered.number) == (1, 2)


def test_the_answer_that_leaks_goes_on_in_the_records_behind_it():
    talk = Talk()
    talk.clear(CLIENT, REQUEST, 0x7FFF, 3)
    one = talk.clear(SERVER, RESPONSE, 0x7FFF, 16384)
    two = talk.beat(SERVER, 0x7FFF + OVERHEAD - 16384, b"\1\0\0", clear=True)
    assert [beat.role for beat in (one, two)] == [RESPONSE, CONTINUATION], "though it reads as a request"
    assert (two.answered_bytes, two.answered_records) == (0x7FFF + OVERHEAD, 2)
    assert two.request == one.request == 1
    own = talk.clear(SERVER, REQUEST, 18, 37)
    assert own.role == REQUEST, "all of the answer has come"


def test_encrypted_the_first_asks_and_the_peer_answers():
    talk = Talk()
    asked, answered = talk.beat(CLIENT, 61), talk.beat(SERVER, 61)
    assert (asked.role, answered.role, answered.request) == (REQUEST, RESPONSE, 1)
    again = talk.beat(SERVER, 61)
    assert (again.role, again.outstanding) == (REQUEST, 0)


def test_encrypted_an_answer_with_the_length_of_a_later_request_is_its_answer():
    talk = Talk()
    talk.beat(CLIENT, 60)
    talk.beat(CLIENT, 80)
    answer, late = talk.beat(SERVER, 80), talk.beat(SERVER, 60)
    assert (answer.request, late.request) == (2, 1)
    assert not late.answered_bytes > late.request_length


def test_both_sides_may_ask():
    talk = Talk()
    talk.beat(CLIENT, 61)
    talk.clear(SERVER, REQUEST, 20, 39)
    assert talk.clear(CLIENT, RESPONSE, 20, 39).request == 2
    assert talk.beat(SERVER, 61).request == 1


def test_an_answer_that_nobody_asked_for():
    talk = Talk()
    assert not talk.clear(SERVER, RESPONSE, 18, 37).expected
    talk.clear(CLIENT, REQUEST, 18, 37)
    assert talk.clear(SERVER, RESPONSE, 18, 37).expected
    alone = talk.clear(SERVER, RESPONSE, 18, 37)
    assert not alone.expected
    assert alone.request == 0


def test_requests_outstanding_are_counted():
    talk = Talk()
    assert [talk.beat(CLIENT, 61).outstanding for _ in range(4)] == [0, 1, 2, 3]
    assert [beat.expected for beat in talk.beats] == [True, False, False, False]


def test_after_half_a_minute_an_answer_is_something_else():
    talk = Talk()
    talk.beat(CLIENT, 61)
    late = talk.beat(SERVER, 61, after_ns=limits.HEARTBEAT_ANSWER_NS + 1)
    assert late.role == REQUEST
    assert talk.beat(CLIENT, 61).outstanding == 1, "but the request stays unanswered"


def test_an_encrypted_record_not_right_behind_an_answer_is_no_part_of_it():
    talk = Talk()
    talk.beat(CLIENT, 43)
    talk.beat(SERVER, 1 << 14)
    assert talk.beat(SERVER, 300).role == CONTINUATION
    talk.beat(CLIENT, 43, after_ns=SECOND)
    talk.beat(SERVER, 1 << 14)
    assert talk.beat(SERVER, 300, between=500).role == REQUEST


# room


def test_rows_that_nothing_is_wrong_with_have_a_limit_and_the_others_one_of_their_own():
    talk = Talk()
    for _ in range(2 * limits.HEARTBEATS_KEPT):
        talk.beat(CLIENT, 61)
        talk.beat(SERVER, 61)
    assert talk.kept == limits.HEARTBEATS_KEPT
    for _ in range(2 * limits.HEARTBEATS_KEPT):
        talk.clear(CLIENT, REQUEST, 0x4000, 3)
    assert talk.kept == 2 * limits.HEARTBEATS_KEPT


@given(
    st.lists(
        st.tuples(
            st.sampled_from((CLIENT, SERVER)),
            st.sampled_from((3, 19, 61, 80, 1 << 14)),
            st.booleans(),
            st.sampled_from((REQUEST, RESPONSE, 7)),
            st.sampled_from((0, SECOND, 31 * SECOND)),
        ),
        max_size=200,
    )
)
def test_any_records_are_followed_in_bounded_room(records):
    talk = Talk()
    for side, length, clear, kind, after_ns in records:
        if clear:
            beat = talk.clear(side, kind, 42, length, after_ns=after_ns)
        else:
            beat = talk.beat(side, length, after_ns=after_ns)
        assert 0 <= beat.request < beat.number
        if beat.request:
            assert talk.beats[beat.request - 1].side != side
        assert not beat.answers or beat.answered_bytes >= beat.message_length
    assert talk.kept <= 2 * limits.HEARTBEATS_KEPT
    for asking in talk.machine._sides:
        assert len(asking.asked) <= limits.HEARTBEATS_OUTSTANDING + 1
        assert len(asking.passed_over) <= limits.HEARTBEATS_OUTSTANDING
