"""Connections that are open at once, counted as nft's `ct count` counts them.

In:  ConnectionCount; packets with their connections.
Out: OpenConnections, a Stateful; Known, which all of a ruleset's share.
Source: Linux net/netfilter/nft_connlimit.c, nf_conncount.c; measured on 6.18.

What is counted are names (addresses, ports, protocol) in a list. Any packet of a connection adds its name
until the connection is assured; a packet without a connection adds its own. Names that no open connection
has leave when the kernel collects garbage, at most once in a tick. So what comes within 10 ms of that is
counted both ways, and packets without a connection too: where the ways differ, the packet is Undecidable.
"""

from __future__ import annotations

from typing import Final

from rulegen.artifacts.nft_values import ConnectionCount
from rulegen.evaluate.base import Connection, Passing, Undecidable
from rulegen.evaluate.conntrack_headers import Tuple, transport, tuple_of
from rulegen.evaluate.conntrack_settings import TcpState
from rulegen.evaluate.conntrack_tcp_window import Tcp
from rulegen.evaluate.nft_packet import Seen

_TICK_NS: Final = 10_000_000
"""A jiffy of a kernel with HZ=100."""

_CLOSED: Final = (TcpState.TIME_WAIT, TcpState.CLOSE)
_SWEEP_FROM: Final = 4096


class Known:
    """Connections that packets had when they came to a chain of the ruleset, by their names."""

    def __init__(self) -> None:
        self._connections: dict[Tuple, Connection] = {}
        self._sweep_at = _SWEEP_FROM

    def meet(self, passing: Passing) -> None:
        """A packet comes."""
        if passing.connection is None:
            return
        for name in passing.connection.tuples:
            self._connections[name] = passing.connection
        if len(self._connections) >= self._sweep_at:
            self._connections = {
                name: one for name, one in self._connections.items() if one.expires_ns > passing.time_ns
            }
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._connections))

    def find(self, name: Tuple, now_ns: int) -> Connection | None:
        """The connection that has the name in conntrack's table."""
        one = self._connections.get(name)
        if one is None or not one.confirmed or one.expires_ns <= now_ns:
            return None
        # A RST removes a connection that nobody has answered yet.
        return None if _state(one) is TcpState.CLOSE and not one.seen_reply else one


def _state(connection: Connection) -> TcpState | None:
    state = connection.protocol_state
    return state.state if isinstance(state, Tcp) else None


class OpenConnections:
    """Of a rule, or of one element of a set."""

    def __init__(self, part: ConnectionCount, known: Known) -> None:
        self._limit = part.count
        self._over = part.over
        self._lists = (_List(known, 1), _List(known, _TICK_NS))
        """As if a tick were short, and as if it were long."""

    def __call__(self, seen: Seen) -> bool:
        one, other = (counted.meet(seen) > self._limit for counted in self._lists)
        if one is not other:
            raise Undecidable(
                "connections that began or ended within 10 ms of the packet may be counted or not"
            )
        return one is self._over


class _List:
    """nf_conncount_list, with a tick of so many nanoseconds."""

    def __init__(self, known: Known, tick_ns: int, *, strangers: bool = True) -> None:
        self._known = known
        self._tick_ns = tick_ns
        self._strangers = strangers
        """Names of packets without a connection stay."""
        self._names: list[Tuple] = []
        self._collected_ns: int | None = None

    def meet(self, seen: Seen) -> int:
        """A packet comes; how many names there are then."""
        now = seen.passing.time_ns
        connection = seen.passing.connection
        if connection is None and not self._strangers:
            return len(self._names) + 1
        due = self._collected_ns is None or now - self._collected_ns >= self._tick_ns
        if connection is not None and connection.assured:
            if due:
                self._names = [one for one in self._names if self._is_open(one, now)]
                self._collected_ns = now
        elif due or (connection is not None and connection.confirmed):
            self._add(_name(seen) if connection is None else connection.tuples[0], now)
        else:
            self._names.append(_name(seen) if connection is None else connection.tuples[0])
        return len(self._names)

    def _add(self, name: Tuple, now: int) -> None:
        """Collect garbage up to the name; where it is not yet in the list, all of it."""
        kept: list[Tuple] = []
        for at, one in enumerate(self._names):
            if one == name and self._known.find(one, now) is not None:
                self._names = kept + self._names[at:]
                return
            if self._is_open(one, now):
                kept.append(one)
        self._names = [*kept, name]
        self._collected_ns = now

    def _is_open(self, name: Tuple, now: int) -> bool:
        found = self._known.find(name, now)
        return found is not None and _state(found) not in _CLOSED


def _name(seen: Seen) -> Tuple:
    """Of a packet without a connection."""
    ipv6 = not seen.four
    if seen.captured == len(seen.data) and (located := transport(seen.data, ipv6=ipv6)) is not None:
        name = tuple_of(seen.data, 0, *located, ipv6=ipv6)
        if name is not None:
            return name
    raise Undecidable("ct count of a packet that belongs to no connection and has no ports")
