"""The match of iptables that counts the connections of an address: connlimit.

In:  ConnLimit; Packet, whose connection's facts are there.
Out: a test that remembers; Known, which the connections of a ruleset are told to.
Source: Linux net/netfilter/xt_connlimit.c, nf_conncount.c; measured on 6.18.

Only packets that open connections are followed, which is what rules are written for: once a rule has asked
for another, nothing is decided for its address any more. The kernel walks through what it has counted, as far
as the packet's own connection, and removes what is closed, has timed out or was never confirmed; at most once
in a tick, for which 10 ms are taken here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rulegen.artifacts.xt_values import ConnLimit
from rulegen.evaluate.base import Connection, Passing, Undecidable
from rulegen.evaluate.conntrack_headers import Tuple
from rulegen.evaluate.conntrack_settings import TcpState
from rulegen.evaluate.conntrack_tcp_window import Tcp
from rulegen.evaluate.xtables_matches import Test
from rulegen.evaluate.xtables_packet import Packet
from rulegen.ir.match import State

_TICK_NS: Final = 10_000_000
"""A jiffy of a kernel with HZ=100."""
_CLOSED: Final = (TcpState.TIME_WAIT, TcpState.CLOSE)


class Known:
    """The connections that packets had when they came to a chain of the ruleset, by their names."""

    def __init__(self) -> None:
        self._connections: dict[Tuple, Connection] = {}

    def meet(self, passing: Passing) -> None:
        """A packet comes."""
        if (connection := passing.connection) is not None:
            self._connections[connection.tuples[0]] = connection

    def has_open(self, name: Tuple, now: int) -> bool:
        """Whether there is a connection of that name, and open."""
        one = self._connections.get(name)
        if one is None or not one.confirmed or one.expires_ns <= now:
            return False
        state = one.protocol_state
        return not (isinstance(state, Tcp) and state.state in _CLOSED)


@dataclass(slots=True)
class _Counted:
    """The connections of one address, by name."""

    names: list[Tuple]
    """In the order in which they were added."""
    collected_ns: int
    """When the kernel may have collected last."""
    twice: list[Tuple] = field(default_factory=list)
    """Those that the kernel may count once more."""


def connlimit(match: ConnLimit, known: Known) -> Test:
    counted: dict[int, _Counted] = {}
    spoilt: set[int] = set()

    def test(packet: Packet) -> bool:
        address, now = _address(match, packet), packet.passing.time_ns
        connection = packet.passing.connection
        if connection is None or packet.passing.state is not State.NEW:
            spoilt.add(address)
        if address in spoilt or connection is None:
            raise Undecidable("-m connlimit asks for packets that don't open a connection")
        its = counted.get(address)
        if its is None:
            counted[address] = _Counted([connection.tuples[0]], now)
            least = most = 1
        else:
            least, most = _count(its, connection, known, now)
        if (least > match.count) is not (most > match.count):
            raise Undecidable("-m connlimit: connections began or ended less than 10 ms ago")
        return (least > match.count) is match.above

    return test


def _count(its: _Counted, current: Connection, known: Known, now: int) -> tuple[int, int]:
    """Connections, and how many they may be for the kernel, which collects once in a tick."""
    name = current.tuples[0]
    kept, reached = [], False
    for at, one in enumerate(its.names):
        if current.confirmed and one == name:
            kept += its.names[at:]  # the kernel looks no further: what has ended behind it stays
            reached = True
            break
        if known.has_open(one, now):
            kept.append(one)
    if not reached:
        kept.append(name)
    its.twice = [one for one in its.twice if one == name or known.has_open(one, now)]
    soon = now - its.collected_ns < _TICK_NS
    if not reached:
        its.collected_ns = now
    if not soon:
        its.names = kept
        return len(kept), len(kept) + len(its.twice)
    if name in its.names:
        its.twice.append(name)
    else:
        its.names.append(name)
    return len(kept), len(its.names) + len(its.twice)


def _address(match: ConnLimit, packet: Packet) -> int:
    start, size = (8, 16) if packet.ip6 else (12, 4)
    if match.side == "destination":
        start += size
    address = int.from_bytes(packet.data[start : start + size])
    return address if match.mask is None else address >> 8 * size - match.mask << 8 * size - match.mask
