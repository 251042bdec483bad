"""Packet fields are compared one by one, and an opinion that scapy does not have is no difference."""

from analyzer.columns.schema import Kind
from analyzer.crosscheck.packets import compare_packets

NAMES = ("packet", "kind", "source", "sport", "seq")
TCP = (1, Kind.TCP, "192.0.2.1", 443, 7)


def table(*rows):
    return {name: [row[index] for row in rows] for index, name in enumerate(NAMES)}


def test_equal_packets():
    assert compare_packets(table(TCP, TCP), table(TCP, TCP)) == []
    assert compare_packets(table(), table()) == []


def test_each_field():
    differences = compare_packets(table(TCP), table((1, Kind.TCP, "192.0.2.2", 443, 8)))
    assert [(d.where, d.field, d.ours, d.theirs) for d in differences] == [
        ("packet 1", "source", "192.0.2.1", "192.0.2.2"),
        ("packet 1", "seq", 7, 8),
    ]
    assert {d.opinion for d in differences} == {"scapy"}


def test_packets_of_different_kinds_have_nothing_else_in_common():
    (difference,) = compare_packets(table(TCP), table((1, Kind.UDP, "192.0.2.1", 53, None)))
    assert (difference.field, difference.ours, difference.theirs) == ("kind", "TCP", "UDP")
    assert difference.explanation is None


def test_a_fragment_that_we_completed():
    (difference,) = compare_packets(table(TCP), table((1, Kind.FRAGMENT, "192.0.2.1", None, None)))
    assert difference.explanation == "scapy does not put fragments together"


def test_no_opinion():
    assert compare_packets(table(TCP), table((1, None, None, None, None))) == []


def test_a_packet_that_only_one_has():
    (difference,) = compare_packets(table(TCP, TCP), table(TCP))
    assert (difference.where, difference.ours, difference.theirs) == ("packet 2", True, False)
