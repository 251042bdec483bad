"""The columns that rules across connections share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.connections import COLUMNS, Batch
from analyzer.detect.history import _FIELDS, ALERT, CLOSE, PENDING, RESET, History, Texts, group, in_groups
from analyzer.tls.hello import NO_CLIENT, NO_SERVER
from analyzer.tls.state import State

CLIENT = 0x0000_FFFF_C000_020A
SERVER = 0x0000_FFFF_C633_640A
PLACE = {name: index for index, name in enumerate(COLUMNS)}


def batch(*rows: dict[str, int], sni: list[bytes] | None = None, alerts: list[str] | None = None) -> Batch:
    """Connections that have sent a ClientHello; what isn't given is 0."""
    numbers = np.zeros((len(COLUMNS), len(rows)), dtype=np.int64)
    for row, values in enumerate(rows):
        usual = {
            "CONNECTION": row,
            "SEEN": 1,
            "HELLO_PACKET": 4,
            "SERVER_FLAGS": -1,
            "PACKETS_0": 3,
            "PACKETS_1": 2,
        }
        for name, value in {**usual, **values}.items():
            numbers[PLACE[name], row] = value
    clients = [NO_CLIENT._replace(sni=name) for name in sni or [b""] * len(rows)]
    keys = np.array([[0, CLIENT, 0, SERVER, 50_000 << 16 | 443]] * len(rows), dtype=np.uint64).T
    return Batch(numbers, keys, clients, [NO_SERVER] * len(rows), alerts or [""] * len(rows))


def test_rows_are_ordered_by_the_time_of_their_hello() -> None:
    history = History(
        [
            batch(
                {"CONNECTION": 7, "HELLO_NS": 30}, {"CONNECTION": 8, "HELLO_NS": 10}, sni=[b"seven", b"eight"]
            ),
            batch({"CONNECTION": 3, "HELLO_NS": 20}, sni=[b"three"]),
        ]
    )
    assert history["CONNECTION"].tolist() == [8, 3, 7]
    assert [history.sni(row) for row in range(3)] == [b"eight", b"three", b"seven"]


def test_only_connections_with_a_client_hello_count() -> None:
    history = History([batch({"CLIENT_FLAGS": -1}, {"SEEN": 0}, {"HELLO_PACKET": 0}, {"CONNECTION": 5})])
    assert history["CONNECTION"].tolist() == [5]
    assert len(History([])) == 0


def test_a_row_becomes_a_batch_for_a_finding() -> None:
    history = History([batch({"CAPTURE": 2, "CONNECTION": 9, "CLIENT": 1})])
    (one,) = (history.batch(row) for row in range(len(history)))
    assert (int(one["CAPTURE"][0]), int(one["CONNECTION"][0])) == (2, 9)
    # the server opened the connection
    assert one.endpoint(0, False) == "198.51.100.10"
    assert one.endpoint(0, True) == "192.0.2.10"
    assert history["PORT"].tolist() == [50_000]


def test_packets_of_other_captures_are_left_out() -> None:
    history = History(
        [batch({"HELLO_PACKET": 11, "HELLO_NS": 1}, {"CAPTURE": 1, "HELLO_PACKET": 12, "HELLO_NS": 2})]
    )
    every = ((0, "HELLO_PACKET"), (1, "HELLO_PACKET"), (1, "SERVER_HELLO_PACKET"))
    assert history.packets(0, *every) == (11,)
    assert history.packets(1, *every) == (12,)


FAILED = {"STATE": State.WAIT_SH}


@pytest.mark.parametrize(
    ("values", "alerts", "failure", "side", "packet"),
    [
        ({**FAILED, "RST_PACKET": 6, "RST_DIRECTION": 1}, "", RESET, 1, 6),
        ({**FAILED, "RST_PACKET": 6, "RST_DIRECTION": 0}, "", RESET, 0, 6),
        ({**FAILED, "FLAGS_1": 1}, "", CLOSE, 1, 0),
        ({**FAILED, "FLAGS_0": 1}, "", CLOSE, 0, 0),
        (FAILED, "", PENDING, 0, 0),
        ({"STATE": State.CLOSED, "FATAL": 41, "RST_PACKET": 9}, "0 1 90 5;1 2 40 6;", ALERT, 1, 6),
        ({"STATE": State.CLOSED, "FATAL": 43, "RST_PACKET": 9}, "1 2 42 6;", 0, 0, 0),
        ({"STATE": State.N_SH, "SERVER_FLAGS": 0, "VERSION": 0x0303, "FLAGS_0": 1}, "", CLOSE, 0, 0),
        # not answered to its end, but nothing has ended it
        ({"STATE": State.N_SH, "SERVER_FLAGS": 0, "VERSION": 0x0303}, "", 0, 0, 0),
        # complete
        ({"STATE": State.EST, "ESTABLISHED": 1, "SERVER_FLAGS": 0, "RST_PACKET": 9}, "", 0, 0, 0),
        ({"STATE": State.T_CLIENT, "SERVER_FLAGS": 0, "VERSION": 0x0304, "RST_PACKET": 9}, "", 0, 0, 0),
        # what the capture lacks is no failure
        ({**FAILED, "PACKETS_1": 0, "FLAGS_0": 1}, "", 0, 0, 0),
        ({"STATE": State.UNKNOWN, "GAPS_1": 1, "FLAGS_1": 1}, "", 0, 0, 0),
        ({"STATE": State.UNKNOWN, "CCS_0": 1, "FLAGS_1": 1}, "", 0, 0, 0),
        ({"STATE": State.UNKNOWN, "DATA_0": 1, "RST_PACKET": 9}, "", 0, 0, 0),
        ({"STATE": State.UNKNOWN, "FLAGS_1": 1}, "", CLOSE, 1, 0),
    ],
)
def test_who_ended_a_handshake(values: dict, alerts: str, failure: int, side: int, packet: int) -> None:
    history = History([batch(values, alerts=[alerts])])
    assert history["FAILURE"].tolist() == [failure]
    if failure:
        assert history["FAILED_BY"].tolist() == [side]
    assert history["FAILURE_PACKET"].tolist() == [packet]


def test_a_connection_takes_less_than_160_bytes() -> None:
    assert sum(np.dtype(dtype).itemsize for _, dtype in _FIELDS) < 160


@given(st.lists(st.lists(st.binary(max_size=5), max_size=4), max_size=5))
def test_texts_come_back(parts: list) -> None:
    texts = Texts()
    for part in parts:
        texts.extend(part)
    assert [texts[row] for row in range(sum(map(len, parts)))] == [value for part in parts for value in part]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20))
def test_groups_are_rows_with_equal_columns(rows: list) -> None:
    columns = np.array(rows, dtype=np.int64).T
    keys = group(*columns)
    for one, row in zip(keys.tolist(), rows, strict=True):
        for other, another in zip(keys.tolist(), rows, strict=True):
            assert (one == other) == (row == another)
    together, first = in_groups(keys, np.arange(len(rows)))
    seen: set[tuple[int, int]] = set()
    for at, row in enumerate(together.tolist()):
        if first[at] == at:
            assert rows[row] not in seen  # a group lies in one piece
            seen.add(rows[row])
        else:
            assert rows[row] == rows[together[first[at]]]
            assert row > together[at - 1]  # in the order of time


def chunks(size: int) -> Iterator[Batch]:
    for begin in range(0, 1_000, size):
        yield batch(*({"CONNECTION": number, "HELLO_NS": -number} for number in range(begin, begin + size)))


def test_the_size_of_batches_does_not_matter() -> None:
    assert np.array_equal(History(chunks(1_000))["CONNECTION"], History(chunks(50))["CONNECTION"])
