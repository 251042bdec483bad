"""What the endpoints sent is what comes out: in order, in causal order, once, whatever the tap saw of it.

And nothing that an endpoint can send, but its peer would ignore, keeps us from reading what the peer took.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import limits
from analyzer.streams import reassembly as kernel
from analyzer.streams.reassembly import Stream
from tests.analyzer.streams.segments import (
    ACK,
    CLIENT,
    FIN,
    MILLISECOND,
    RST,
    SERVER,
    SYN,
    Piece,
    Segment,
    Talk,
    feed,
    stream,
)
from tests.both_forms import load_uncompiled

UNCOMPILED = load_uncompiled("analyzer.streams.reassembly")
PATIENCE = limits.HELD_PATIENCE_PACKETS
TOP = 1 << 32


@pytest.fixture(
    params=[
        pytest.param(UNCOMPILED, id="uncompiled"),
        pytest.param(
            kernel,
            id="compiled",
            marks=pytest.mark.skipif(not kernel.COMPILED, reason="the kernel is not compiled"),
        ),
    ]
)
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


# a conversation, cut and shuffled as networks and taps do


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Talk, list[Segment], int]:
    """Two endpoints that talk, what the tap saw of it, and the packets of a block."""
    isn = st.integers(0, TOP - 1) | st.integers(TOP - 3000, TOP - 1)
    talk = Talk((draw(isn), draw(isn)))
    for _ in range(draw(st.integers(1, 8))):
        side = draw(st.sampled_from((CLIENT, SERVER)))
        sizes = draw(st.lists(st.integers(1, 400), min_size=1, max_size=6))
        talk.send(side, *(noise(size, draw(st.integers(0, 9))) for size in sizes))
        if draw(st.booleans()):
            talk.acknowledge(1 - side)
    for side in draw(st.permutations((CLIENT, SERVER)).map(lambda sides: sides[: len(sides)])):
        talk.add(side, flags=FIN | ACK)
    seen = list(talk.segments)
    for side, start, size, place in draw(
        st.lists(
            st.tuples(st.sampled_from((0, 1)), st.integers(0, 2000), st.integers(1, 900), st.integers(0, 60))
        )
    ):
        # a retransmission that keeps to no earlier border; its sender has seen all there is by then
        data = bytes(talk.sent[side][start : start + size])
        seen.append(
            Segment(side, (talk.first[side] + start) % TOP, talk.next(1 - side), data) if data else seen[-1]
        )
        seen.insert(len(seen) - 1 - min(place, len(seen) - 4), seen.pop())
    for place in draw(st.lists(st.integers(0, 60))):
        seen.append(seen[min(place, len(seen) - 1)])  # the same segment again
    shifts = draw(st.lists(st.integers(0, 12), min_size=len(seen), max_size=len(seen)))
    order = sorted(range(len(seen)), key=lambda index: (index + shifts[index], index))
    # SYN and SYN/ACK say where the streams begin: what is seen before them joins midstream
    opening = [index for index in order if index < 2]
    order = opening + [index for index in order if index >= 2]
    return talk, [seen[index] for index in order], draw(st.integers(1, 40))


def check_causal(pieces: Sequence[Piece], talk: Talk) -> None:
    """No bytes come before those that their sender had received when it sent them."""
    end = [0, 0]
    for piece in pieces:
        side = piece.stream & 1
        had = (piece.ack - talk.first[1 - side]) % TOP
        assert had <= end[1 - side] + 1, "the FIN takes a sequence number too"
        end[side] = piece.position + len(piece.data)


@settings(max_examples=80, deadline=None)
@given(conversations())
def test_the_streams_come_out_whole_and_in_causal_order(drawn):
    talk, seen, block = drawn
    expected = feed(kernel, seen)
    for side in (CLIENT, SERVER):
        assert stream(expected, side) == bytes(talk.sent[side])
    assert all(piece.sync == 3 for piece in expected)
    check_causal(expected, talk)
    assert feed(kernel, seen, block=block) == expected
    assert feed(UNCOMPILED, seen, block=block) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            Segment,
            side=st.integers(0, 1),
            seq=st.integers(0, 300) | st.integers(TOP - 300, TOP - 1) | st.integers(0, TOP - 1),
            ack=st.integers(0, 300) | st.integers(0, TOP - 1),
            data=st.integers(0, 120).map(noise),
            flags=st.sampled_from((ACK, ACK, ACK, 0, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 255)),
            flow=st.integers(0, 2),
            captured=st.none() | st.just(0),
            after_ns=st.sampled_from((0, MILLISECOND, 40_000_000_000, -MILLISECOND)),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 30),
)
def test_any_segments_give_the_same_in_both_forms_and_in_any_blocks(seen, block):
    expected = by_flow(feed(kernel, seen))
    assert by_flow(feed(UNCOMPILED, seen, block=block)) == expected
    delivered: dict[int, int] = {}
    for piece in expected:
        assert piece.position == delivered.get(piece.stream, 0) + piece.gap
        delivered[piece.stream] = piece.position + len(piece.data)


def by_flow(pieces: list[Piece]) -> list[Piece]:
    """Connections are nothing to each other: which one's time-out comes first depends on the blocks."""
    return sorted(pieces, key=lambda piece: piece.stream >> 1)


# what a tap does


def test_a_segment_is_read_where_its_bytes_belong(form):
    talk = Talk()
    one, two, three = talk.send(CLIENT, b"one ", b"two ", b"three")
    pieces = feed(form, [*talk.segments[:3], three, two, one])
    assert [piece.data for piece in pieces] == [b"one ", b"two ", b"three"]
    assert [piece.packet for piece in pieces] == [6, 5, 4]


def test_an_answer_that_is_captured_before_its_question_is_read_after_it(form):
    talk = Talk()
    talk.send(CLIENT, b"question")
    talk.send(SERVER, b"answer")
    talk.send(CLIENT, b"thanks")
    *opening, question, answer, thanks = talk.segments
    pieces = feed(form, [*opening, thanks, answer, question])
    assert [piece.data for piece in pieces] == [b"question", b"answer", b"thanks"]
    assert all(piece.sync == 3 for piece in pieces)


def test_sequence_numbers_wrap(form):
    talk = Talk((TOP - 3, TOP - 1))
    talk.send(CLIENT, *(b"%d" % digit for digit in range(10)))
    talk.send(SERVER, b"0123456789")
    seen = talk.segments
    seen[4], seen[9] = seen[9], seen[4]
    pieces = feed(form, seen)
    assert stream(pieces, CLIENT) == stream(pieces, SERVER) == b"0123456789"


def test_bytes_delivered_first_stand(form):
    talk = Talk()
    talk.send(CLIENT, b"first version")
    talk.add(CLIENT, b"OTHER version, and more", seq=talk.first[CLIENT])
    assert stream(feed(form, talk.segments)) == b"first version, and more"


def test_what_the_peer_acknowledged_but_the_tap_missed_is_one_gap(form):
    talk = Talk()
    talk.send(CLIENT, b"aaaa", b"bbbb", b"cccc", b"dddd")
    lost = talk.segments.pop(4)
    talk.acknowledge(SERVER, PATIENCE)
    pieces = feed(form, talk.segments, flush=False)
    assert stream(pieces) == b"aaaa____ccccdddd"
    assert [piece.gap for piece in pieces] == [0, len(lost.data), 0]
    assert [piece.sync for piece in pieces] == [3, 7, 7]


def test_what_nobody_acknowledged_is_waited_for(form):
    talk = Talk()
    talk.send(CLIENT, b"aaaa")
    missing = talk.add(CLIENT, b"bbbb")
    talk.segments.remove(missing)
    talk.add(CLIENT, b"cccc", seq=talk.next(CLIENT) + 4)
    for _ in range(3 * PATIENCE):
        talk.add(SERVER)  # it still asks for bbbb
    assert stream(feed(form, talk.segments, flush=False)) == b"aaaa"
    assert stream(feed(form, [*talk.segments, missing], flush=False)) == b"aaaabbbbcccc"
    assert stream(feed(form, talk.segments)) == b"aaaa____cccc", "at the end there is no more to wait for"


def test_a_snaplen_cuts_segments_and_each_cut_is_a_gap(form):
    talk = Talk()
    talk.send(CLIENT, noise(100), noise(100, 2), captured=30)
    pieces = feed(form, talk.segments)
    assert stream(pieces) == noise(100)[:30] + b"_" * 70 + noise(100, 2)[:30]
    assert [piece.gap for piece in pieces] == [0, 70]


def test_a_snaplen_that_leaves_no_payload(form):
    talk = Talk()
    talk.send(CLIENT, noise(100), captured=0)
    talk.send(CLIENT, b"end")
    assert stream(feed(form, talk.segments)) == b"_" * 100 + b"end"


def test_syn_again_and_syn_behind_its_data(form):
    talk = Talk()
    talk.send(CLIENT, b"hello")
    syn, answer, acknowledged, hello = talk.segments
    for seen in (
        [syn, syn, answer, acknowledged, hello],
        [syn, answer, acknowledged, hello, syn],
        [hello, syn, answer, acknowledged],
        [acknowledged, syn, answer, hello],
    ):
        pieces = feed(form, seen)
        assert stream(pieces) == b"hello"
        assert pieces[0].sync & 1


def test_data_in_a_syn_are_the_first_of_the_stream(form):
    talk = Talk(opened=False)
    talk.add(CLIENT, b"fast ", seq=talk.first[CLIENT] - 1, flags=SYN)
    talk.sent[CLIENT].extend(b"fast ")
    talk.add(SERVER, seq=talk.first[SERVER] - 1, flags=SYN | ACK)
    talk.send(CLIENT, b"open")
    assert stream(feed(form, talk.segments)) == b"fast open"


def test_a_reset_ends_nothing(form):
    """Its text is not data, and what a forged one does not stop is read on."""
    talk = Talk()
    talk.send(CLIENT, b"before ")
    talk.add(CLIENT, b"Connection reset by admin", flags=RST | ACK)
    talk.send(CLIENT, b"after")
    assert stream(feed(form, talk.segments)) == b"before after"


def test_only_one_side_was_captured(form):
    talk = Talk()
    talk.send(CLIENT, b"aaaa")
    talk.send(SERVER, b"never seen")
    lost, *_ = talk.send(CLIENT, b"bbbb", b"cccc")
    talk.send(SERVER, *[b"never seen"] * 3)
    talk.send(CLIENT, *(b"%04d" % number for number in range(2 * PATIENCE)))
    seen = [segment for segment in talk.segments if segment.side == CLIENT and segment is not lost]
    rest = b"".join(b"%04d" % number for number in range(2 * PATIENCE))
    pieces = feed(form, seen, flush=False)
    assert stream(pieces) == b"aaaa____cccc" + rest
    assert all(piece.sync & 16 for piece in pieces)


def test_a_capture_that_starts_midstream(form):
    talk = Talk()
    talk.send(CLIENT, b"missed ", b"seen ")
    talk.send(SERVER, b"too ")
    talk.send(CLIENT, b"all")
    pieces = feed(form, talk.segments[4:])
    assert stream(pieces, CLIENT) == b"seen all"
    assert stream(pieces, SERVER) == b"too "
    assert not any(piece.sync & 3 for piece in pieces)


def test_a_capture_that_missed_more_than_a_window_goes_on_behind_it(form):
    talk = Talk()
    talk.send(CLIENT, b"begin")
    for missed in (1 << 30, 3 << 29, 5 << 29):
        talk.first[CLIENT] = (talk.first[CLIENT] + missed) % TOP
        talk.acknowledge(SERVER)
        talk.send(CLIENT, b"|", b"go on")
        talk.acknowledge(SERVER)
    pieces = [piece for piece in feed(form, talk.segments) if not piece.stream]
    assert b"".join(piece.data for piece in pieces) == b"begin|go on|go on|go on"
    assert [piece.gap for piece in pieces if piece.gap] == [1 << 30, 3 << 29, 5 << 29]


def test_what_is_held_survives_the_blocks(form):
    talk = Talk()
    data = noise(3000)
    talk.send(CLIENT, *(data[at : at + 100] for at in range(0, 3000, 100)))
    opening, rest = talk.segments[:3], talk.segments[3:]
    for block in (1, 2, 7):
        assert stream(feed(form, opening + rest[::-1], block=block)) == data


# time


@pytest.mark.parametrize("acknowledged", [False, True])
def test_after_half_a_minute_nothing_is_held_any_more(form, acknowledged):
    """What the receiver has is given with a gap; what it never took is dropped, and a late sender is read."""
    talk = Talk()
    missing, held = talk.send(CLIENT, b"aaaa", b"bbbb")
    talk.segments.remove(missing)
    if acknowledged:
        talk.acknowledge(SERVER)
    again = [missing._replace(after_ns=limits.HELD_NS + MILLISECOND), held]
    expected = b"____bbbb" if acknowledged else b"aaaabbbb"
    for block in (1, 2, 100):
        pieces = feed(form, talk.segments + again, block=block, flush=False)
        assert stream(pieces) == expected
        assert len(pieces) == (1 if acknowledged else 2)


# what a sender can do that its peer ignores


def test_a_segment_far_ahead_is_not_taken_for_the_next(form):
    for distance in (1 << 20, (1 << 30) - 1, 1 << 30, (1 << 31) - 1, 1 << 31, TOP - 5000):
        talk = Talk()
        talk.send(CLIENT, b"GET ")
        for step in range(3):
            talk.add(CLIENT, b"decoy", seq=(talk.next(CLIENT) + distance + 5 * step) % TOP)
        talk.acknowledge(SERVER, 3 * PATIENCE)
        talk.send(CLIENT, b"/secret")
        talk.acknowledge(SERVER, 3 * PATIENCE)
        pieces = feed(form, talk.segments, flush=False)
        assert stream(pieces) == b"GET /secret"
        assert all(piece.sync == 3 for piece in pieces)


def test_a_lost_segment_and_a_decoy_far_ahead(form):
    """The gap is as long as what the receiver has got, not as far as the decoy."""
    talk = Talk()
    lost, _ = talk.send(CLIENT, b"lost", b"kept")
    talk.segments.remove(lost)
    talk.add(CLIENT, b"decoy", seq=talk.next(CLIENT) + (1 << 29))
    talk.acknowledge(SERVER, PATIENCE + 1)
    talk.send(CLIENT, b" more")
    talk.acknowledge(SERVER, PATIENCE + 1)
    assert stream(feed(form, talk.segments, flush=False)) == b"____kept more"
    # even where all of it was lost
    talk.segments = [segment for segment in talk.segments if segment.data not in (b"kept", b" more")]
    talk.send(CLIENT, b", and the end")
    assert stream(feed(form, talk.segments, flush=False)) == b"_" * 13 + b", and the end"


@pytest.mark.parametrize("ahead", [1, 5000, (1 << 31) - 1])
def test_a_segment_that_acknowledges_what_was_never_sent(form, ahead):
    """Its receiver drops it (RFC 9293 3.10.7.4) and takes the next with the same sequence number."""
    talk = Talk()
    for seen in (True, False):
        talk.add(CLIENT, b"harmless, but longer" if seen else b"harmless", ack=talk.next(SERVER) + ahead)
        talk.send(CLIENT, b"harmful ")
        talk.acknowledge(SERVER)
    talk.acknowledge(SERVER, 2 * PATIENCE)
    pieces = feed(form, talk.segments, flush=False)
    assert stream(pieces) == b"harmful harmful "
    assert all(piece.sync == 3 for piece in pieces), "order is known all the same"


def test_a_decoy_does_not_stop_what_stands_behind_it(form):
    talk = Talk()
    talk.add(CLIENT, noise(60), ack=talk.next(SERVER) + 999)
    one, two, three = talk.send(CLIENT, b"1" * 20, b"2" * 20, b"3" * 40)
    talk.segments[-3:] = [three, two, one]
    assert stream(feed(form, talk.segments, flush=False)) == b"1" * 20 + b"2" * 20 + b"3" * 40


def test_a_segment_without_the_ack_bit_is_dropped_once_the_connection_is_open(form):
    talk = Talk()
    talk.add(CLIENT, b"harmless", flags=0)
    talk.send(CLIENT, b"harmful ")
    assert stream(feed(form, talk.segments)) == b"harmful "


def test_segments_that_never_have_the_ack_bit_are_read(form):
    """As text2pcap makes them."""
    seen = [
        Segment(side, 100 + 5 * index, 0, b"aaaaa", flags=0)
        for index in range(3)
        for side in (CLIENT, SERVER)
    ]
    pieces = feed(form, seen, flush=False)
    assert stream(pieces, CLIENT) == stream(pieces, SERVER) == b"a" * 15


def test_data_behind_a_forged_fin(form):
    """A FIN that its receiver did not see (a small TTL) takes no sequence number away."""
    talk = Talk()
    talk.send(CLIENT, b"some ")
    talk.add(CLIENT, flags=FIN | ACK)
    talk.send(CLIENT, b"more")
    assert stream(feed(form, talk.segments)) == b"some more"


def test_a_fin_may_be_acknowledged(form):
    talk = Talk()
    talk.send(CLIENT, b"last words")
    talk.add(CLIENT, flags=FIN | ACK)
    talk.send(SERVER, b"good", ack=talk.next(CLIENT) + 1)
    talk.send(SERVER, b" bye", ack=talk.next(CLIENT) + 1)
    pieces = feed(form, talk.segments, flush=False)
    assert stream(pieces, SERVER) == b"good bye"


@pytest.mark.parametrize("distance", [-(1 << 31), -70_000, 500, 70_000, 1 << 28, 1 << 30, (1 << 31) - 1])
def test_a_syn_in_the_midst_of_a_connection_does_not_blind(form, distance):
    """The flow table sees a connection begin there, as Wireshark does; the data are read all the same."""
    talk = Talk()
    talk.segments.clear()  # before the SYN is another connection
    talk.send(CLIENT, b"ClientHello")
    talk.acknowledge(SERVER)
    talk.send(CLIENT, b"Heartbeat")
    for answered in (False, True):
        seen = [Segment(CLIENT, (talk.first[CLIENT] + distance) % TOP, 0, flags=SYN)]
        seen += [Segment(SERVER, talk.first[SERVER], talk.first[CLIENT])] if answered else []
        assert stream(feed(form, seen + talk.segments, flush=False)) == b"ClientHelloHeartbeat"


def test_a_syn_near_the_data_of_another_connection(form):
    """Then it looks like loss, which the acknowledgments end."""
    talk = Talk()
    talk.segments[:] = [Segment(CLIENT, talk.first[CLIENT] - 1001, 0, flags=SYN)]
    talk.send(CLIENT, b"ClientHello")
    talk.acknowledge(SERVER, PATIENCE)
    assert stream(feed(form, talk.segments, flush=False)) == b"_" * 1000 + b"ClientHello"


# room


def held(reassembler: kernel.Reassembler) -> int:
    segments, size = reassembler.held
    state = reassembler.state
    assert segments == state[:, Stream.HELD].sum() <= limits.HELD_SEGMENTS
    assert 0 <= size <= limits.HELD_BYTES
    assert (state[:, Stream.HELD] <= limits.HELD_SEGMENTS_PER_STREAM).all()
    return segments


def ahead(flow: int, count: int, size: int, *, shuffled: bool = True) -> list[Segment]:
    """Segments that nobody waits for: the bytes before them never come."""
    first = Talk(flow=flow).first[CLIENT]
    decoys = [
        Segment(CLIENT, first + 100_000 + index * size, 5001, b"x" * size, flow=flow)
        for index in range(count)
    ]
    if shuffled:
        random.Random(flow).shuffle(decoys)
    return decoys


@pytest.mark.parametrize("shuffled", [False, True])
def test_one_stream_that_holds_all_it_may_is_still_read(shuffled):
    talk = Talk()
    reassembler = kernel.Reassembler()
    feed(
        kernel, talk.segments + ahead(0, 10_000, 10, shuffled=shuffled), flush=False, reassembler=reassembler
    )
    assert 0 < held(reassembler) <= limits.HELD_SEGMENTS_PER_STREAM
    late, soon = talk.send(CLIENT, b"soon", b"late")[::-1]
    talk.acknowledge(SERVER, 5)
    decoys = ahead(0, 10_000, 10, shuffled=shuffled)
    seen = [*talk.segments[:3], *decoys, late, *decoys, soon, *talk.segments[5:]]
    assert stream(feed(kernel, seen, flush=False)) == b"soonlate"


@pytest.mark.parametrize(
    ("flows", "count", "size"),
    [(17, 4000, 1), (12, 1000, 1460), (300, 40, 1460), (66_000, 1, 1), (150, 2, 60_000)],
)
def test_many_streams_that_hold_all_they_may_do_not_keep_others_from_being_read(flows, count, size):
    seen: list[Segment] = []
    for flow in range(1, flows + 1):
        seen += Talk(flow=flow).segments
        seen += ahead(flow, count, size)
    talk = Talk()
    data = noise(20_000)
    talk.send(CLIENT, *(data[at : at + 100] for at in range(0, 20_000, 100)))
    mine = talk.segments[:3] + [
        segment for at in range(3, 203, 10) for segment in talk.segments[at : at + 10][::-1]
    ]
    place = len(seen) // 2
    step = max(1, (len(seen) - place) // (4 * len(mine)))
    for index, segment in enumerate(mine):  # among the last of the flood, when there is no room any more
        seen.insert(place + index * (step + 1), segment._replace(after_ns=0))
    seen = [segment._replace(after_ns=0) for segment in seen]
    reassembler = kernel.Reassembler()
    pieces = feed(kernel, seen, flush=False, reassembler=reassembler)
    held(reassembler)
    assert stream(pieces) == data
    reassembler.flush(np.arange(flows + 1, dtype=np.int32))
    assert reassembler.held == (0, 0)


def test_a_crowd_is_given_less_time():
    """Where half the room is used, what is held for two seconds goes at the end of a block."""
    seen = [
        segment._replace(after_ns=0)
        for flow in range(11)
        for segment in Talk(flow=flow).segments + ahead(flow, 4000, 1)
    ]
    reassembler = kernel.Reassembler()
    feed(kernel, seen, flush=False, reassembler=reassembler)
    assert held(reassembler) == 44_000
    feed_more = Talk(flow=11).segments[0]._replace(after_ns=limits.HELD_CROWDED_NS + MILLISECOND)
    feed(kernel, [feed_more], flush=False, reassembler=reassembler)
    assert reassembler.held == (0, 0)
