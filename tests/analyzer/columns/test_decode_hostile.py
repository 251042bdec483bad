"""Whatever the bytes are: no exception, every offset within the packet, both forms alike.

An index beyond the buffer would be an IndexError in both forms; a look beyond a packet is found by changing
what lies there.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import RawPackets
from analyzer.columns import decode as kernel
from analyzer.columns.schema import Kind
from analyzer.wire.linktypes import SUPPORTED
from tests.analyzer.columns.blocks import as_lists, block, decoded, row
from tests.analyzer.columns.encapsulations import CASES, Case
from tests.both_forms import load_uncompiled

UNCOMPILED = load_uncompiled("analyzer.columns.decode")

linktypes = st.sampled_from(sorted(SUPPORTED))
cases = st.sampled_from(CASES)


def check(raw: RawPackets) -> None:
    columns = decoded(UNCOMPILED.decode, raw)
    assert as_lists(columns) == as_lists(decoded(kernel.decode, raw))
    start, end = raw.offset, raw.offset + raw.captured
    assert (start <= columns.network_offset).all()
    assert (columns.network_offset <= columns.transport_offset).all()
    assert (columns.transport_offset <= columns.payload_offset).all()
    assert (columns.payload_offset + columns.payload_captured <= end).all()
    assert (columns.payload_captured >= 0).all()
    assert (columns.payload_captured <= columns.payload_length).all()
    assert (columns.payload_length <= columns.wire).all()
    tcp = columns.kind == Kind.TCP
    assert (columns.transport_offset[tcp] + 20 <= end[tcp]).all()
    assert ((columns.ip_version == 4) | (columns.ip_version == 6))[columns.kind >= Kind.FRAGMENT].all()
    fixed = np.where(columns.ip_version == 6, 40, 20)
    ip = columns.ip_version > 0
    assert (columns.network_offset + fixed <= end)[ip].all()


@given(st.lists(st.tuples(linktypes, st.binary(max_size=200)), max_size=5))
def test_random_bytes(packets: list[tuple[int, bytes]]) -> None:
    check(block([data for _, data in packets], linktype=[linktype for linktype, _ in packets] or 1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cut_at_every_byte(case: Case) -> None:
    """Beyond the cut lie bytes that would make the packet whole again, were they looked at."""
    size = len(case.data)
    raw = block([case.data] * (size + 1), linktype=case.linktype)
    raw.captured[:] = np.arange(size + 1)
    raw.wire[:] = size
    check(raw)
    columns = decoded(kernel.decode, raw)
    whole = row(columns, size)
    for name in ("sport", "dport", "seq", "ack"):
        of_tcp = getattr(columns, name)[columns.kind == Kind.TCP]
        assert (of_tcp == whole[name]).all()


@given(cases, st.data())
@settings(max_examples=300)
def test_damaged_packets(case: Case, data: st.DataObject) -> None:
    damaged = bytearray(case.data)
    for at in data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=6)):
        damaged[at // 8] ^= 1 << at % 8
    cut = data.draw(st.integers(0, len(damaged)))
    wire = data.draw(st.sampled_from([0, cut, len(damaged), 1500, 70_000, 1 << 33]))
    check(block([bytes(damaged), bytes(damaged[:cut])], linktype=case.linktype, wire=[len(damaged), wire]))


@given(cases, st.data())
def test_bytes_outside_the_packet_change_nothing(case: Case, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(case.data)))
    raw = block([case.data[:cut]], linktype=case.linktype, gap=64)
    before = as_lists(decoded(kernel.decode, raw))
    outside = np.ones(len(raw.buffer), bool)
    outside[raw.offset[0] : raw.offset[0] + cut] = False
    raw.buffer[outside] = data.draw(st.integers(0, 255))
    assert as_lists(decoded(kernel.decode, raw)) == before


@given(cases, st.integers(0, 255), st.integers(0, 255))
def test_any_value_in_every_byte(case: Case, low: int, high: int) -> None:
    """Length fields are bytes too: each is given every extreme somewhere."""
    packets = []
    for at in range(len(case.data)):
        for value in (low, high):
            packet = bytearray(case.data)
            packet[at] = value
            packets.append(bytes(packet))
    check(block(packets, linktype=case.linktype))
