"""Packets belong to connections as with Wireshark's tcp.stream, whatever the blocks, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import limits
from analyzer.columns.schema import PACKETS, Kind
from analyzer.flows import table as kernel
from analyzer.flows.table import Field
from tests.both_forms import load_uncompiled

UNCOMPILED = load_uncompiled("analyzer.flows.table")
SECOND = 1_000_000_000
FIN, SYN, RST, ACK = 1, 2, 4, 16


class Packet(NamedTuple):
    source: int = 1
    """Last byte of the address."""
    sport: int = 50_000
    target: int = 2
    dport: int = 443
    flags: int = ACK
    seq: int = 1000
    length: int = 0
    time_ns: int = 0
    ttl: int = 64
    kind: int = Kind.TCP

    def back(self, **changes: int) -> Packet:
        """The other way."""
        return self._replace(
            source=self.target, sport=self.dport, target=self.source, dport=self.sport, **changes
        )


def columns(packets: Sequence[Packet], first: int = 1) -> SimpleNamespace:
    given_of = {
        "packet": range(first, first + len(packets)),
        "kind": [packet.kind for packet in packets],
        "time_ns": [packet.time_ns for packet in packets],
        "src_lo": [0xFFFF_C000_0200 + packet.source for packet in packets],
        "dst_lo": [0xFFFF_C000_0200 + packet.target for packet in packets],
        "sport": [packet.sport for packet in packets],
        "dport": [packet.dport for packet in packets],
        "seq": [packet.seq for packet in packets],
        "flags": [packet.flags for packet in packets],
        "payload_length": [packet.length for packet in packets],
        "ttl": [packet.ttl for packet in packets],
    }
    zeros = [0] * len(packets)
    return SimpleNamespace(
        **{column.name: np.array(given_of.get(column.name, zeros), dtype=column.dtype) for column in PACKETS}
    )


class Run:
    """Packets through a flow table in blocks, as the pipeline does; what each connection was at its end."""

    def __init__(self, form: ModuleType, packets: Iterable[Packet], block: int = 1 << 30) -> None:
        rest = list(packets)
        self.table = form.FlowTable()
        self.connections: list[int] = []
        """Of each packet, -1 for none."""
        self.directions: list[int] = []
        self.ended: dict[int, dict[str, int]] = {}
        first = 1
        while rest:
            now, rest = rest[:block], rest[block:]
            flow, direction, _ = self.table.track(columns(now, first))
            first += len(now)
            number = self.table.fields[flow, Field.CONNECTION]
            self.connections += np.where(flow < 0, -1, number).tolist()
            self.directions += direction.tolist()
            self._retire(self.table.due(max(packet.time_ns for packet in now)))
        self._retire(self.table.live())

    def _retire(self, slots: Any) -> None:
        for row in self.table.fields[slots].tolist():
            assert row[Field.CONNECTION] not in self.ended
            self.ended[row[Field.CONNECTION]] = {field.name: row[field] for field in Field}
        self.table.retire(slots)


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


def numbers(form: ModuleType, *packets: Packet) -> list[int]:
    return Run(form, packets).connections


# what is one connection


def test_both_directions_are_one_connection_and_the_originator_is_direction_0(form):
    there = Packet(flags=SYN)
    run = Run(form, [there, there.back(flags=SYN | ACK), there._replace(flags=ACK), Packet(sport=50_001)])
    assert run.connections == [0, 0, 0, 1]
    assert run.directions == [0, 1, 0, 0]
    assert run.table.connections == 2


@pytest.mark.parametrize("change", [{"sport": 50_001}, {"dport": 444}, {"source": 3}, {"target": 3}])
def test_one_other_address_or_port_is_another_connection(form, change):
    packet = Packet()
    assert numbers(form, packet, packet._replace(**change), packet) == [0, 1, 0]


def test_ports_belong_to_their_addresses(form):
    """The hash is symmetrical in the endpoints; the comparison is not."""
    packet = Packet(source=1, sport=443, target=2, dport=50_000)
    crossed = Packet(source=1, sport=50_000, target=2, dport=443)
    assert numbers(form, packet, crossed, packet.back(), crossed.back()) == [0, 1, 0, 1]


def test_an_endpoint_that_talks_to_itself(form):
    packet = Packet(source=1, sport=443, target=1, dport=443)
    assert numbers(form, packet, packet.back()) == [0, 0]


def test_what_is_no_tcp_has_no_connection(form):
    run = Run(form, [Packet(kind=Kind.UDP), Packet(), Packet(kind=Kind.MALFORMED), Packet(kind=Kind.OTHER)])
    assert run.connections == [-1, 0, -1, -1]


# a tuple that is used again


def test_a_syn_with_another_number_is_another_connection_and_a_repeated_one_is_not(form):
    syn = Packet(flags=SYN, seq=1000)
    run = Run(form, [syn, syn, syn.back(flags=SYN | ACK), syn._replace(seq=90_000), syn._replace(flags=ACK)])
    assert run.connections == [0, 0, 0, 1, 1]
    assert run.ended[0]["LAST_PACKET"] == 3
    assert run.ended[1]["FIRST_PACKET"] == 4


def test_the_highest_sequence_number_is_one_like_any_other(form):
    syn = Packet(flags=SYN, seq=0xFFFF_FFFF)
    assert numbers(form, syn, syn, syn.back(flags=SYN | ACK, seq=0xFFFF_FFFF), syn) == [0, 0, 0, 0]
    assert numbers(form, syn, syn._replace(seq=0)) == [0, 1]


def test_the_peer_may_open_the_next_connection(form):
    syn = Packet(flags=SYN)
    run = Run(form, [syn, syn.back(flags=SYN | ACK, seq=7), syn.back(flags=SYN, seq=90_000), syn])
    assert run.connections == [0, 0, 1, 1]
    assert run.directions == [0, 1, 0, 1], "the sender of its first packet is the originator"


def test_a_syn_behind_its_data_is_no_other_connection(form):
    data = Packet(seq=1001, length=100)
    assert numbers(form, data, data._replace(flags=SYN, seq=1000)) == [0, 0]
    assert numbers(form, data, data._replace(flags=SYN, seq=(1000 - limits.LATE_SYN_BYTES) % 2**32)) == [0, 1]


def test_after_its_time_out_it_is_another_connection(form):
    late = limits.CLOSED_TIMEOUT_NS + 1
    opened = Packet(flags=SYN)
    for closed, expected in (
        ([opened._replace(flags=RST)], [0, 0, 1]),
        ([opened._replace(flags=FIN | ACK), opened.back(flags=FIN | ACK)], [0, 0, 0, 1]),
        ([opened._replace(flags=FIN | ACK)], [0, 0, 0]),
        ([], [0, 0]),
    ):
        packets = [opened, *closed, opened._replace(flags=ACK, time_ns=late)]
        for block in (1, 2, 100):
            assert Run(form, packets, block).connections == expected
        intime = [*packets[:-1], packets[-1]._replace(time_ns=late - 1)]
        assert set(Run(form, intime).connections) == {0}
    week = Packet(time_ns=limits.IDLE_TIMEOUT_NS + 1)
    assert numbers(form, opened, week) == [0, 1]


# what is noted of a connection


def test_first_and_last_packet_packets_bytes_and_flags(form):
    talk = Packet(flags=SYN, time_ns=5 * SECOND)
    run = Run(
        form,
        [
            Packet(kind=Kind.UDP),
            talk,
            talk.back(flags=SYN | ACK, time_ns=6 * SECOND),
            talk._replace(flags=ACK, length=10, time_ns=7 * SECOND),
            talk._replace(flags=ACK, length=20, time_ns=8 * SECOND),
            talk.back(flags=FIN | ACK, length=5, time_ns=9 * SECOND),
        ],
    )
    noted = run.ended[0]
    expected = {
        "FIRST_PACKET": 2, "LAST_PACKET": 6, "FIRST_NS": 5 * SECOND, "LAST_NS": 9 * SECOND, "SYN_0": 1001,
        "SYN_1": 1001, "PACKETS_0": 3, "PACKETS_1": 2, "BYTES_0": 30, "BYTES_1": 5, "FLAGS_0": SYN | ACK,
        "FLAGS_1": SYN | ACK | FIN, "CLOSED": 0, "FIRST_DATA_0": 4, "FIRST_DATA_1": 6,
    }  # fmt: skip
    assert {name: noted[name] for name in expected} == expected


def test_closed_by_a_reset_or_by_both_fins(form):
    talk = Packet()
    fin = talk._replace(flags=FIN | ACK, time_ns=SECOND)
    one = Run(form, [talk, fin, fin]).ended[0]
    both = Run(form, [talk, fin, fin.back(time_ns=2 * SECOND)]).ended[0]
    reset = Run(form, [talk, talk.back(flags=RST, ttl=9, time_ns=3 * SECOND), talk]).ended[0]
    assert (one["CLOSED"], both["CLOSED"], reset["CLOSED"]) == (0, 1, 1)
    assert (both["CLOSED_NS"], reset["CLOSED_NS"]) == (2 * SECOND, 3 * SECOND)
    assert (reset["RST_PACKET"], reset["RST_DIRECTION"], reset["RST_TTL"]) == (2, 1, 9)


def test_data_after_a_reset_from_its_own_sender(form):
    """They show that somebody else sent it."""
    talk = Packet()
    reset = talk._replace(flags=RST)
    run = Run(form, [talk, reset, talk._replace(length=5), talk.back(length=7), talk._replace(length=0)])
    assert run.ended[0]["DATA_AFTER_RST"] == 1


def test_ttls(form):
    talk = Packet()
    run = Run(
        form,
        [
            talk,
            talk.back(ttl=57),
            talk._replace(ttl=63),
            talk._replace(ttl=62),
            talk.back(ttl=250, flags=RST),
            talk,
        ],
    )
    noted = run.ended[0]
    assert (noted["TTL_0"], noted["TTL_1"], noted["LAST_TTL_0"], noted["LAST_TTL_1"]) == (64, 57, 64, 57)
    assert (noted["ODD_TTL_PACKET_0"], noted["ODD_TTL_0"], noted["ODD_TTL_PACKET_1"]) == (3, 63, 0)


# any packets


packets_of_few_tuples = st.lists(
    st.builds(
        Packet,
        source=st.integers(1, 2),
        sport=st.integers(1, 3),
        target=st.integers(1, 2),
        dport=st.integers(1, 3),
        flags=st.sampled_from((ACK, ACK, SYN, SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, 0, 511)),
        seq=st.sampled_from((0, 1000, 1001, 200_000, 0xFFFF_FFFF)),
        length=st.sampled_from((0, 1, 1460)),
        time_ns=st.sampled_from((0, SECOND, 100 * SECOND, 221 * SECOND, 400 * SECOND, 432_400 * SECOND)),
        ttl=st.sampled_from((64, 63)),
        kind=st.sampled_from((Kind.TCP, Kind.TCP, Kind.TCP, Kind.UDP)),
    ),
    min_size=1,
    max_size=50,
)


@settings(max_examples=100, deadline=None)
@given(packets_of_few_tuples, st.integers(1, 20))
def test_any_packets_give_the_same_in_both_forms_and_in_any_blocks(packets, block):
    expected = Run(kernel, packets)
    for run in (Run(kernel, packets, block), Run(UNCOMPILED, packets, block)):
        assert run.connections == expected.connections
        assert run.directions == expected.directions
        assert run.ended == expected.ended
    of_packet = [number for number in expected.connections if number >= 0]
    assert sorted(set(of_packet)) == list(range(expected.table.connections)), "numbered by first packet"
    for number, noted in expected.ended.items():
        places = [place for place, other in enumerate(expected.connections, 1) if other == number]
        assert (noted["FIRST_PACKET"], noted["LAST_PACKET"]) == (places[0], places[-1])
        assert noted["PACKETS_0"] + noted["PACKETS_1"] == len(places)


# room


def many(count: int, first: int = 0) -> list[Packet]:
    return [
        Packet(source=index >> 14, sport=index & 0x3FFF, flags=SYN, time_ns=index)
        for index in range(first, first + count)
    ]


def test_slots_are_used_again():
    """A scan of a hundred thousand ports that are closed needs the room of those that are open at a time."""
    table = kernel.FlowTable()
    table.track(columns(many(1)))
    first_capacity = table.capacity
    table.retire(table.live())
    for first in range(1, 100_001, 1000):
        scan = many(1000, first)
        scan += [packet.back(flags=RST | ACK) for packet in scan]
        table.track(columns(scan))
        assert len(table.live()) == 1000
        table.retire(table.live())
    assert table.connections == 100_001
    assert table.capacity == first_capacity


def test_too_many_closed_connections_go_before_their_time_the_oldest_first(monkeypatch):
    monkeypatch.setattr(limits, "CLOSED_CONNECTIONS", 80)
    table = kernel.FlowTable()
    scan = many(100)
    table.track(columns(scan + [packet.back(flags=RST | ACK) for packet in scan]))
    due = table.due(0)
    assert sorted(table.fields[due, Field.CONNECTION].tolist()) == list(range(30))
    table.retire(due)
    assert len(table.due(0)) == 0


def test_too_many_open_connections_go_the_longest_idle_first(monkeypatch):
    monkeypatch.setattr(limits, "OPEN_CONNECTIONS", 80)
    table = kernel.FlowTable()
    packets = many(100)
    table.track(columns([*packets, packets[0]._replace(flags=ACK, time_ns=1000)]))
    due = table.due(0)
    assert sorted(table.fields[due, Field.CONNECTION].tolist()) == list(range(1, 31))


def test_connections_outlive_the_table_growing_and_its_tombstones():
    packets = many(3000)
    run = Run(kernel, [packet for packet in packets for _ in range(2)], block=500)
    assert run.connections == [number for number in range(3000) for _ in range(2)]
    table = kernel.FlowTable()
    stays = Packet(source=9, flags=SYN)
    table.track(columns([stays]))
    for first in range(0, 20_000, 500):  # more tombstones than the index has room for
        table.track(columns(many(500, first)))
        slots = table.live()
        table.retire(slots[table.fields[slots, Field.CONNECTION] != 0])
        flow, _, begins = table.track(columns([stays._replace(flags=ACK)]))
        assert table.fields[flow[0], Field.CONNECTION] == 0
        assert not begins[0]
