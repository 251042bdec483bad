"""The matches of iptables that ask connection tracking, and the targets that tell it something.

In:  values of xt_values; Packet, whose connection's facts are there.
Out: tests; effects.
Source: Linux net/netfilter/xt_conntrack.c conntrack_mt, xt_connmark.c, xt_mark.c, xt_CT.c notrack_chk.

A packet without connection matches no test of one, inverted or not, but for its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from rulegen.artifacts.xt_values import (
    ConnMark,
    Conntrack,
    RestoreConnMark,
    SaveConnMark,
    SetConnMark,
    SetMarkTarget,
    TupleAddress,
    TuplePorts,
)
from rulegen.evaluate.base import Connection, Passing
from rulegen.evaluate.xtables_matches import Test
from rulegen.evaluate.xtables_packet import Packet
from rulegen.ir.match import State

Effect: TypeAlias = Callable[[Packet], None]

_MASK = 0xFFFFFFFF


def state(passing: Passing) -> str:
    """As xt_conntrack has it, before connection tracking too."""
    if passing.connection is None and (passing.notrack or passing.state is State.UNTRACKED):
        return "UNTRACKED"
    return "INVALID" if passing.state is None else passing.state.upper()


def conntrack(match: Conntrack) -> Test:
    def test(packet: Packet) -> bool:
        passing = packet.passing
        connection = passing.connection
        states = match.states
        if states and (state(passing) in states.states) is states.inverted:
            return False
        if connection is None:
            return states is not None  # whatever the other tests are
        if match.direction and passing.direction != match.direction:
            return False
        return all(_in_tuple(one, connection) for one in match.tuples) and _other(match, connection)

    return test


def _in_tuple(test: TupleAddress | TuplePorts, connection: Connection) -> bool:
    its = connection.tuples[0 if test.side.startswith("orig") else 1]
    from_source = test.side.endswith("src")
    if isinstance(test, TuplePorts):
        return (test.low <= (its[2] if from_source else its[3]) <= test.high) is not test.inverted
    address = its[0] if from_source else its[1]
    return (int.from_bytes(address) & test.mask == test.value) is not test.inverted


def _other(match: Conntrack, connection: Connection) -> bool:
    asked = match.protocol
    if asked and (connection.tuples[0][4] == asked.number) is asked.inverted:
        return False
    if match.status is None:
        return True
    # EXPECTED comes from helpers alone, which no ruleset without CT --helper has.
    has = {
        "SEEN_REPLY": connection.seen_reply,
        "ASSURED": connection.assured,
        "CONFIRMED": connection.confirmed,
    }
    return any(has.get(name) for name in match.status.states) is not match.status.inverted


def connmark(match: ConnMark) -> Test:
    def test(packet: Packet) -> bool:
        connection = packet.passing.connection
        return connection is not None and (connection.mark & match.mask == match.value) is not match.inverted

    return test


def set_mark(target: SetMarkTarget) -> Effect:
    def effect(packet: Packet) -> None:
        passing = packet.passing
        passing.mark = passing.mark & ~target.mask & _MASK ^ target.value

    return effect


def set_connmark(target: SetConnMark) -> Effect:
    def effect(packet: Packet) -> None:
        if (connection := packet.passing.connection) is not None:
            connection.mark = connection.mark & ~target.mask & _MASK ^ target.value

    return effect


def save_connmark(target: SaveConnMark) -> Effect:
    def effect(packet: Packet) -> None:
        if (connection := packet.passing.connection) is not None:
            moved = packet.passing.mark & target.nfmask
            connection.mark = connection.mark & ~target.ctmask & _MASK ^ moved

    return effect


def restore_connmark(target: RestoreConnMark) -> Effect:
    def effect(packet: Packet) -> None:
        if (connection := packet.passing.connection) is not None:
            moved = connection.mark & target.ctmask
            packet.passing.mark = packet.passing.mark & ~target.nfmask & _MASK ^ moved

    return effect


def notrack(packet: Packet) -> None:
    if packet.passing.connection is None:
        packet.passing.notrack = True
