"""The kernel gives the same rows compiled and uncompiled, whatever the bytes are."""

from __future__ import annotations

import struct
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.capture import framing as compiled
from tests.analyzer.capture.formats import Pcapng, pcap
from tests.both_forms import load_uncompiled

UNCOMPILED = load_uncompiled("analyzer.capture.framing")
ROOM = 300

needs_compiled = pytest.mark.skipif(not compiled.COMPILED, reason="the kernel is not compiled")
same_bytes_both_forms = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)


@pytest.fixture(
    params=[UNCOMPILED, pytest.param(compiled, marks=needs_compiled)], ids=lambda form: form.__name__
)
def form(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def frame_pcap(
    form: ModuleType, data: bytes, *, room: int = ROOM, at: int = 0, **options: Any
) -> tuple[Any, ...]:
    columns = np.zeros((form.COLUMNS, room), dtype=np.int64)
    arguments = {"big": False, "header_bytes": 16, "tick_ns": 1000, "lengths": form.CAPTURED_FIRST, **options}
    buffer = np.frombuffer(data, dtype=np.uint8).copy()
    result = form.frame_pcap(buffer, at, len(data), columns=columns, **arguments)
    return *result, columns.tolist()


def frame_pcapng(
    form: ModuleType,
    data: bytes,
    interfaces: list[list[int]],
    *,
    room: int = ROOM,
    count: int = 0,
    **options: Any,
) -> tuple[Any, ...]:
    columns = np.zeros((form.COLUMNS, room), dtype=np.int64)
    state = np.zeros(form.STATE_FIELDS, dtype=np.int64)
    table = np.array(interfaces, dtype=np.int64).reshape(-1, form.INTERFACE_FIELDS)
    buffer = np.frombuffer(data, dtype=np.uint8).copy()
    arguments = {"big": False, "trusted": False, **options}
    result = form.frame_pcapng(
        buffer, 0, len(data), interfaces=table, state=state, columns=columns, count=count, **arguments
    )
    return *result, state.tolist(), columns.tolist()


def test_this_test_compares_two_forms() -> None:
    assert UNCOMPILED.COMPILED is False
    assert UNCOMPILED is not compiled


def test_a_full_table_is_told_from_the_end_of_the_bytes(form: ModuleType) -> None:
    records = pcap([b"a", b"b", b"c"])[24:]
    assert frame_pcap(form, records, room=2)[:3] == (form.NO_ROOM, 34, 2)
    assert frame_pcap(form, records, room=3)[:3] == (form.NEED_MORE, 51, 3)
    assert frame_pcap(form, records, room=2, at=34)[:3] == (form.NEED_MORE, 51, 1)
    write = Pcapng()
    block = write.enhanced(b"abcd")
    interface = [1, 0, 1000, 1, 0, 0]
    assert frame_pcapng(form, block * 3, [interface], room=2)[:3] == (form.NO_ROOM, 2 * len(block), 2)
    assert frame_pcapng(form, block * 3, [interface], room=4, count=1)[:3] == (
        form.NEED_MORE,
        3 * len(block),
        4,
    )


def test_nothing_is_read_at_or_after_the_end(form: ModuleType) -> None:
    columns = np.zeros((form.COLUMNS, 4), dtype=np.int64)
    records = np.frombuffer(pcap([b"abc", b"def"])[24:], dtype=np.uint8).copy()
    for end in range(len(records)):
        why, at, count = form.frame_pcap(
            records,
            0,
            end,
            big=False,
            header_bytes=16,
            tick_ns=1,
            lengths=form.CAPTURED_FIRST,
            columns=columns,
        )
        assert (why, at, count) == (form.NEED_MORE, 19 * (end // 19), end // 19)


def test_a_trusted_block_is_taken_by_its_leading_length_and_only_it(form: ModuleType) -> None:
    write = Pcapng()
    bad = write.enhanced(b"abcd", trailing=3)
    interface = [1, 0, 1000, 1, 0, 0]
    assert frame_pcapng(form, bad * 2, [interface])[:3] == (form.LENGTHS_DIFFER, 0, 0)
    assert frame_pcapng(form, bad * 2, [interface], trusted=True)[:3] == (form.LENGTHS_DIFFER, len(bad), 1)


numbers = st.sampled_from((0, 1, 2, 15, 16, 60, 262_144, 262_145, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF))
lengths = st.one_of(st.integers(0, 40), numbers)


@needs_compiled
@same_bytes_both_forms
@given(
    records=st.lists(st.tuples(numbers, numbers, lengths, lengths, st.binary(max_size=40))),
    big=st.booleans(),
    header_bytes=st.sampled_from((16, 24)),
    tick_ns=st.sampled_from((1, 1000)),
    order=st.sampled_from((compiled.CAPTURED_FIRST, compiled.WIRE_FIRST, compiled.SMALLER_IS_CAPTURED)),
)
def test_pcap_in_both_forms(
    records: list[tuple[int, int, int, int, bytes]], big: bool, header_bytes: int, tick_ns: int, order: int
) -> None:
    layout = ">IIII" if big else "<IIII"
    data = b"".join(
        struct.pack(layout, *fields) + bytes(header_bytes - 16) + content for *fields, content in records
    )
    options = {"big": big, "header_bytes": header_bytes, "tick_ns": tick_ns, "lengths": order}
    assert frame_pcap(compiled, data, **options) == frame_pcap(UNCOMPILED, data, **options)


write = Pcapng()
blocks = st.one_of(
    st.builds(
        lambda data, **fields: write.enhanced(data, **fields),
        st.binary(max_size=20),
        interface=st.integers(0, 3),
        units=st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from((0, (1 << 63) - 1, 1 << 63))),
        captured=st.one_of(st.none(), lengths),
        wire=st.one_of(st.none(), lengths),
    ),
    st.builds(lambda data, wire: write.simple(data, wire), st.binary(max_size=20), lengths),
    st.builds(lambda data, n: write.obsolete(data, interface=n), st.binary(max_size=20), st.integers(0, 3)),
    st.builds(
        lambda kind, data: write.block(kind, data),
        st.sampled_from((0, 4, 5, 9, 10, 0x204, 0x216, 0x221, 0x0BAD, 0x4000_0BAD, 0xFFFF_FFFF)),
        st.binary(max_size=20),
    ),
    st.builds(
        lambda kind, total, trailing: write.block(kind, b"12345678", total=total, trailing=trailing),
        st.sampled_from((1, 2, 3, 6, 77, 0x0A0D0D0A)),
        lengths,
        lengths,
    ),
    st.binary(max_size=16),
)
clocks = st.sampled_from(
    [(10**n, 1, 0) for n in range(10)]
    + [(1, 10**n, 0) for n in range(19)]
    + [(1, 1, n) for n in range(1, 128)]
)
int64 = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from((0, 1, -(1 << 63), (1 << 63) - 1)))
interfaces = st.tuples(st.integers(0, 0xFFFF), numbers, clocks, int64).map(
    lambda fields: [fields[0], fields[1], *fields[2], fields[3]]
)


@needs_compiled
@same_bytes_both_forms
@given(
    parts=st.lists(blocks, max_size=8),
    table=st.lists(interfaces, max_size=3),
    big=st.booleans(),
    trusted=st.booleans(),
)
def test_pcapng_in_both_forms(parts: list[bytes], table: list[list[int]], big: bool, trusted: bool) -> None:
    data = b"".join(parts)
    options = {"big": big, "trusted": trusted}
    assert frame_pcapng(compiled, data, table, **options) == frame_pcapng(UNCOMPILED, data, table, **options)
