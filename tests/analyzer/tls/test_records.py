"""Streams are split into records wherever their chunks are cut, and never guessed across a gap."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from itertools import accumulate, cycle
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import limits
from analyzer.streams.reassembly import CHUNK_FIELDS, Chunk
from analyzer.tls import records as kernel
from analyzer.tls.records import (
    AFTER_OTHER,
    FIRST,
    GAP,
    LAST,
    LOSS,
    LOW_RUN,
    RESYNC,
    SSL2,
    TEXT,
    Framing,
    Record,
)
from samples.craft import tls_bytes as tls
from tests.both_forms import load_uncompiled

UNCOMPILED = load_uncompiled("analyzer.tls.records")
CLIENT, SERVER = 0, 1
SYNCED = 3
"""Both directions are known from their SYNs, nothing is lost."""
NOISE = tls.Noise("records")
HELLO = tls.record(tls.HANDSHAKE, tls.ClientHello(noise=NOISE).message(), tls.TLS10)


class Piece(NamedTuple):
    """A chunk of one of two streams."""

    data: bytes
    side: int = CLIENT
    gap: int = 0
    sync: int = SYNCED


class Row(NamedTuple):
    side: int
    packet: int
    last_packet: int
    kind: int
    version: int
    length: int
    position: int
    flags: int
    data: bytes
    """The piece of the body that a row of a handshake or SSL 2.0 record names."""
    body: bytes
    value: int
    value_2: int


def walk(form: ModuleType, pieces: Iterable[Piece], walker: Any = None) -> list[Row]:
    """The rows of chunks; each chunk is a packet, and all lie in one block."""
    chunks = np.zeros((0, CHUNK_FIELDS), dtype=np.int64)
    buffer = b"\xee" * 11
    position = [0, 0]
    for number, (data, side, gap, sync) in enumerate(pieces, 1):
        position[side] += gap
        chunk = {
            Chunk.STREAM: side, Chunk.OFFSET: len(buffer), Chunk.LENGTH: len(data), Chunk.GAP: gap,
            Chunk.PACKET: number, Chunk.TIME_NS: number, Chunk.SEQ: position[side], Chunk.SYNC: sync,
            Chunk.POSITION: position[side],
        }  # fmt: skip
        chunks = np.append(chunks, [[chunk.get(column, 0) for column in Chunk]], axis=0)
        buffer += data
        position[side] += len(data)
    block = np.frombuffer(buffer + b"\xee" * 11, dtype=np.uint8).copy()
    if walker is None:
        walker = form.RecordWalk()
        walker.reserve(1)
    rows: list[Row] = []
    at = 0
    while at < len(chunks):
        at, found = walker.walk(block, chunks.astype(np.int64), at)
        for row in found.tolist():
            begin, size = row[Record.OFFSET], row[Record.SIZE]
            body = b""
            if row[Record.TYPE] < SSL2:
                body = row[Record.BODY].to_bytes(row[Record.BODY_BYTES], "big")
            rows.append(
                Row(
                    row[Record.STREAM], row[Record.PACKET], row[Record.LAST_PACKET], row[Record.TYPE],
                    row[Record.VERSION], row[Record.LENGTH], row[Record.POSITION], row[Record.FLAGS],
                    bytes(block[begin : begin + size]), body, row[Record.VALUE], row[Record.VALUE_2],
                )
            )  # fmt: skip
    return rows


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


def pieces(data: bytes, sizes: Sequence[int], side: int = CLIENT) -> list[Piece]:
    """A stream in chunks of these sizes, again and again."""
    cut, rest = [], cycle(sizes)
    while data:
        size = next(rest)
        cut.append(Piece(data[:size], side))
        data = data[size:]
    return cut


def merged(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """Rows without what depends on the cuts: a handshake or SSL 2.0 record as one row, with its body."""
    whole: dict[int, list[Any]] = {}
    for row in rows:
        if row.flags & (LOW_RUN | TEXT):
            continue
        kept = whole.setdefault(row.position, [row.kind, row.version, row.length, b""])
        if row.kind == tls.HANDSHAKE or row.kind & SSL2:
            kept[3] += row.data
    return [(position, *kept) for position, kept in sorted(whole.items())]


# records


def test_a_header_and_a_body(form):
    stream = HELLO + tls.record(tls.CCS, b"\1") + tls.record(tls.ALERT, b"\2\x28")
    hello, ccs, alert = walk(form, [Piece(stream)])
    assert hello == Row(CLIENT, 1, 1, 22, 0x0301, len(HELLO) - 5, 0, FIRST | LAST, HELLO[5:], b"", 0, 0)
    assert (ccs.kind, ccs.version, ccs.length, ccs.position, ccs.body) == (20, 0x0303, 1, len(HELLO), b"\1")
    assert (alert.kind, alert.length, alert.body) == (21, 2, b"\2\x28")


def test_packets_of_a_record_in_pieces(form):
    rows = walk(form, [Piece(HELLO[:3]), Piece(HELLO[3:20]), Piece(HELLO[20:60]), Piece(HELLO[60:])])
    assert [(row.packet, row.last_packet, row.flags) for row in rows] == [
        (1, 2, FIRST),
        (1, 3, 0),
        (1, 4, LAST),
    ]
    assert b"".join(row.data for row in rows) == HELLO[5:]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A hello and any records behind it."""
    kinds = st.sampled_from((20, 21, 22, 22, 23, 23, 24))
    bodies = st.integers(0, 300).map(NOISE.take) | st.binary(max_size=9)
    rest = draw(st.lists(st.tuples(kinds, bodies, st.sampled_from((0x0301, 0x0303))), max_size=8))
    return HELLO + b"".join(tls.record(kind, body, version) for kind, body, version in rest)


@settings(max_examples=60, deadline=None)
@given(streams(), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_any_cuts_give_the_same_records(stream, sizes):
    whole = walk(kernel, [Piece(stream)])
    assert b"".join(
        bytes([kind]) + version.to_bytes(2, "big") + length.to_bytes(2, "big")
        for _, kind, version, length, _ in merged(whole)
    ) == b"".join(_headers(stream))
    for cut in (sizes, [1], [5], [len(HELLO), 1]):
        rows = walk(kernel, pieces(stream, cut))
        assert merged(rows) == merged(whole)
        assert walk(UNCOMPILED, pieces(stream, cut)) == rows


def _headers(stream: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(stream):
        yield stream[at : at + 5]
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")


def test_the_first_bytes_of_a_heartbeat_are_kept_however_it_is_cut(form):
    """They say whether it asks for more than it brings."""
    beat = tls.record(tls.HEARTBEAT, tls.heartbeat(1, 0x4000, b"ab"))
    for at in range(1, len(beat)):
        rows = walk(form, [Piece(HELLO), Piece(beat[:at]), Piece(beat[at:])])
        (row,) = (row for row in rows if row.kind == 24 and row.flags & FIRST)
        assert row.body[:3] == b"\1\x40\0"
        assert (row.length, row.packet) == (5, 2)


def test_there_are_more_rows_than_room(form, monkeypatch):
    """The walk stops before a chunk whose rows may not fit, and goes on there."""
    stream = HELLO + tls.record(23, b"") * 500
    whole = walk(kernel, [Piece(stream)])
    monkeypatch.setattr(limits, "RECORD_ROWS", 64)
    rows = walk(form, pieces(stream, [50]))
    assert len([row for row in rows if row.kind == 23]) == 500
    assert merged(rows) == merged(whole)


# where TLS begins


def test_any_first_record_of_a_synchronised_stream_is_tls(form):
    for kind in (20, 21, 22, 23, 24):
        record = tls.record(kind, NOISE.take(30))
        assert next(row.kind for row in walk(form, [Piece(record)])) == kind
        assert walk(form, [Piece(b"text\r\n"), Piece(record)]) == []


def test_a_stream_that_is_no_tls_has_no_rows(form):
    for text in (
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02\x01",
        b"\x15\x03",
        b"\x17",
        b"\x16",
        bytes(40),
        b"\x16\x03\x05\1\0\xff",
    ):
        assert walk(form, pieces(text * 30, [len(text), 1, 7])) == []


def test_the_peer_of_tls_is_tls(form):
    """And a stream that has said something else before is told apart."""
    answer = tls.record(tls.ALERT, b"\2\x28")
    rows = walk(form, [Piece(HELLO), Piece(answer, SERVER)])
    assert [row.flags & AFTER_OTHER for row in rows] == [0, 0]
    rows = walk(form, [Piece(b"\0\0\0\0"), Piece(answer, SERVER)])
    assert [row.flags & AFTER_OTHER for row in rows] == [AFTER_OTHER]


def test_the_peer_that_answers_in_clear_text_loses_framing_once(form):
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    rows = walk(
        form,
        [Piece(HELLO), Piece(tls.record(21, b"\1\0"), SERVER), Piece(answer, SERVER), Piece(answer, SERVER)],
    )
    (loss,) = (row for row in rows if row.flags & LOSS)
    assert (loss.side, loss.kind, loss.body, loss.value) == (SERVER, ord("H"), b"HTTP/1."[:7], 21)


def test_joined_late_a_record_is_taken_when_it_ends_with_its_segment_or_two_follow(form):
    record = tls.record(23, NOISE.take(60))
    late = SYNCED & ~1
    assert [row.kind for row in walk(form, [Piece(record, sync=late)])] == [23]
    half = Piece(record[:40], sync=late)
    assert walk(form, [half]) == []
    rows = walk(form, [half, Piece(record[40:] + record + record[:9], sync=late)])
    assert [row.flags for row in rows] == [FIRST | RESYNC], "the third header proves the first two"
    assert walk(form, [half, Piece(b"\xff" * 40 + record, sync=late)]) == []


# SSL 2.0


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 12, 13, 200])
def test_an_ssl2_hello_however_it_is_cut(form, padded, size):
    hello = tls.Sslv2Hello(noise=NOISE, version=2).record()
    if padded:  # three-byte header, with the length of the padding
        hello = bytes([0, len(hello) - 2 + 4, 4]) + hello[2:] + bytes(4)
    rows = walk(form, pieces(hello, [size]))
    assert {row.kind for row in rows} == {SSL2 | 1}
    assert [bool(row.flags & FIRST) for row in rows] == [True] + [False] * (len(rows) - 1)
    assert [bool(row.flags & LAST) for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[0].packet == 1


def test_behind_an_ssl2_hello_for_tls_there_is_tls(form):
    hello = tls.Sslv2Hello(noise=NOISE, version=tls.TLS10).record()
    record = tls.record(22, tls.message(16, NOISE.take(20)))
    rows = walk(form, [Piece(hello), Piece(record, SERVER), Piece(record)])
    assert [(row.side, row.kind) for row in rows] == [(CLIENT, SSL2 | 1), (SERVER, 22), (CLIENT, 22)]


def test_the_answer_may_be_ssl2_too(form):
    hello = tls.Sslv2Hello(noise=NOISE, version=2).record()
    answer = tls.sslv2_record(b"\4" + bytes(30))
    rows = walk(form, [Piece(hello), *pieces(answer, [7], SERVER)])
    assert {row.kind for row in rows if row.side == SERVER} == {SSL2 | 4}
    assert b"".join(row.data for row in rows if row.side == SERVER) == answer[2:]


# gaps


def data_records(count: int, size: int = 100) -> list[bytes]:
    return [tls.record(23, NOISE.take(size)) for _ in range(count)]


def test_a_gap_within_a_body_does_not_lose_the_frame(form):
    one, two = data_records(2)
    rows = walk(form, [Piece(HELLO), Piece(one[:50]), Piece(one[70:] + two, gap=20)])
    assert [(row.kind, row.flags) for row in rows[1:]] == [(23, FIRST), (23, LAST | GAP), (23, FIRST | LAST)]
    assert rows[-1].position == len(HELLO) + len(one)


def test_a_gap_within_a_handshake_record_is_a_row_of_its_own(form):
    record = tls.record(22, tls.message(11, NOISE.take(300)))
    rows = walk(form, [Piece(HELLO), Piece(record[:50]), Piece(record[70:], gap=20)])
    assert [(row.kind, row.flags, row.value) for row in rows[2:]] == [(22, GAP, 20), (22, LAST, 0)]


def test_after_a_gap_over_headers_nothing_is_guessed(form):
    """Only what begins a chain of three headers counts, or ends with its segment; bytes like a header do not."""
    records = data_records(6)
    stream = b"".join(records)
    lost = Piece(stream[150:], gap=150)
    rows = walk(form, [Piece(HELLO), lost])
    gap, *rest = rows[1:]
    assert (gap.kind, gap.flags, gap.value) == (0, GAP, 150)
    assert [row.position - len(HELLO) for row in rest if row.flags & FIRST] == [4 * 105, 5 * 105]
    assert rest[0].flags & RESYNC
    decoy = bytes(30) + b"\x17\x03\x03\x00\x10" + bytes(60)
    rows = walk(form, [Piece(HELLO), Piece(decoy + records[0][50:], gap=150), Piece(records[1])])
    assert [row.kind for row in rows[2:]] == [23]
    assert rows[2].flags & RESYNC


def test_a_hello_at_the_start_of_a_segment_needs_no_more_proof(form):
    rows = walk(form, [Piece(HELLO), Piece(HELLO + b"\x17", gap=9)])
    assert [(row.kind, row.flags & RESYNC) for row in rows[2:]] == [(22, RESYNC)]


# what should be ciphertext


@pytest.mark.parametrize("run", [127, 128, 129, 130, 400])
@pytest.mark.parametrize("sizes", [[4000], [1], [7, 130], [129]])
def test_low_runs(form, run, sizes):
    body = b"\xff" * 20 + b"\x01" * run + b"\xff" * 20
    stream = HELLO + tls.record(23, body[:90]) + tls.record(23, body[90:])
    rows = [row for row in walk(form, pieces(stream, sizes)) if row.flags & LOW_RUN]
    assert len(rows) == (run > limits.LOW_RUN_BYTES), "one for a run, also over records"
    assert all(row.value > limits.LOW_RUN_BYTES for row in rows)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 300)), min_size=1, max_size=6),
    st.lists(st.integers(1, 200), min_size=1, max_size=5),
)
def test_low_runs_are_those_that_a_plain_search_finds(runs, sizes):
    body = b"".join((b"\x00" if low else b"\x80") * length for low, length in runs)
    expected = sum(len(run) > limits.LOW_RUN_BYTES for run in body.split(b"\x80"))
    rows = walk(kernel, pieces(HELLO + tls.record(23, body), sizes))
    found = [row for row in rows if row.flags & LOW_RUN]
    if max(sizes) <= limits.LOW_RUN_BYTES:
        assert len(found) == expected
    else:  # of several in one chunk the last one is told
        assert bool(found) == bool(expected)
        assert len(found) <= expected


def entropy(body: bytes) -> float:
    return math.log2(len(body)) - sum(c * math.log2(c) for c in (body.count(b) for b in set(body))) / len(
        body
    )


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"GET /index.html HTTP/1.1\r\nHost: server.example\r\nAccept: */*\r\nX: y", True),
        (b"short text", False),
        (bytes(range(256)) * 4, False),
        (b"\xde\xad\xbe\xef" * 100, True),
        (random.Random(5).randbytes(4000), False),
    ],
)
def test_text(form, body, found):
    rows = [row for row in walk(form, [Piece(HELLO + tls.record(23, body))]) if row.flags & TEXT]
    assert bool(rows) == found
    for row in rows:
        assert row.value == int(1000 * entropy(body))
        printable = sum(32 <= b < 127 or 9 <= b <= 13 for b in body)
        assert row.value_2 == printable * 1000 // len(body)


def test_ciphertext_is_no_text():
    """Random bodies of every length that is judged."""
    source = random.Random(1)
    stream = HELLO + b"".join(tls.record(23, source.randbytes(size)) for size in range(64, 700))
    assert not [row for row in walk(kernel, [Piece(stream)]) if row.flags & (TEXT | LOW_RUN)]


# anything


@st.composite
def hostile(draw: st.DrawFn) -> list[Piece]:
    record = st.builds(
        tls.record,
        st.sampled_from((20, 21, 22, 23, 24, 25, 128)),
        st.binary(max_size=40),
        st.sampled_from((0x0300, 0x0303, 0x0304, 0x0307, 0x0402)),
        length=st.none() | st.integers(0, 0xFFFF),
    )
    ssl2 = st.builds(lambda body: tls.sslv2_record(body), st.binary(max_size=40))
    hello = st.sampled_from((HELLO, tls.Sslv2Hello(noise=NOISE, version=2).record()))
    parts = draw(
        st.lists(st.tuples(hello | record | ssl2 | st.binary(max_size=30), st.integers(0, 1)), max_size=12)
    )
    cut = []
    for data, side in parts:
        sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
        for begin, end in zip([0, *accumulate(sizes)], [*accumulate(sizes), len(data)], strict=True):
            if data[begin:end]:
                gap = draw(st.sampled_from((0, 0, 0, 0, 3, 200)))
                cut.append(Piece(data[begin:end], side, gap, draw(st.sampled_from((3, 3, 3, 2, 7, 16)))))
    return cut


@settings(max_examples=200, deadline=None)
@given(hostile())
def test_any_chunks_give_the_same_rows_in_both_forms(cut):
    walkers = []
    for form in (kernel, UNCOMPILED):
        walkers.append(form.RecordWalk())
        walkers[-1].reserve(1)
    rows = walk(kernel, cut, walkers[0])
    assert walk(UNCOMPILED, cut, walkers[1]) == rows
    assert (walkers[0].state == walkers[1].state).all()
    assert (walkers[0].state[:, Framing.REMAINING] >= 0).all()
