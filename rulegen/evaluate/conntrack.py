"""Linux's connection tracking: to which connection a packet belongs, its state and direction.

In:  packets in order, as they come to the hook of priority -200 (Passing, reassembled by defrag.py).
Out: Passing.state, direction and connection; Fate of the packet at this hook and at the last one.
Source: Linux net/netfilter/nf_conntrack_core.c nf_conntrack_in, resolve_normal_ct, init_conntrack,
    __nf_conntrack_confirm; nf_conntrack_proto_udp.c, nf_conntrack_proto_gre.c, nf_conntrack_proto_generic.c.

    conntrack = Conntrack(TESTBED)
    fate = conntrack.track(passing)         the rules see state, direction, connection
    fate = conntrack.confirm(passing)       the packet got through all hooks

A connection is found by later packets only when one of its packets has been confirmed. The clock is that of
the capture; for a replay that is faster than its capture, give each packet the same time.
"""

from __future__ import annotations

import struct
from typing import Final

from rulegen.evaluate import conntrack_icmp, conntrack_tcp
from rulegen.evaluate.base import Connection, Fate, Passing, Undecidable
from rulegen.evaluate.conntrack_headers import (
    GRE,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Tuple,
    checksum_is_right,
    inverse,
    transport,
    tuple_of,
)
from rulegen.evaluate.conntrack_settings import Settings
from rulegen.ir.match import Direction, State

_NS: Final = 1_000_000_000
_STREAM_AFTER_NS: Final = 2 * _NS
"""A UDP connection that is older lives longer (nf_conntrack_udp_packet, stream_ts)."""

_DIRECTIONS: Final = (Direction.ORIGINAL, Direction.REPLY)
_SWEEP_FROM: Final = 4096
_NO_CLASH: Final = TCP
_DOUBTFUL: Final = "what an earlier packet did to its connection is unknown"
_NO_SCTP: Final = "the tracking of SCTP connections is not modelled"


class Conntrack:
    """The table of connections of one firewall."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - a frozen value
        self.settings = settings
        self._table: dict[Tuple, tuple[Connection, int]] = {}
        self._sweep_at = _SWEEP_FROM
        self._doubtful: set[Tuple] = set()
        self._doubtful_hosts: set[frozenset[bytes]] = set()
        self._has_sctp = False

    def connections(self) -> list[Connection]:
        """What is in the table, timed-out ones that nothing has asked for since included."""
        return list({id(connection): connection for connection, _ in self._table.values()}.values())

    def track(self, passing: Passing) -> Fate:
        """Find or begin the packet's connection and say so in it.

        Raises:
            Undecidable: Headers are not in the capture; SCTP; the table is full.
        """
        passing.connection = passing.direction = None
        if passing.notrack:
            passing.state = State.UNTRACKED
            return Fate.ACCEPT
        data = passing.data
        ipv6 = data[0] >> 4 == 6
        if passing.captured < len(data):
            self._see_headers(passing, ipv6=ipv6)
        if self._doubtful_hosts and _hosts(data, ipv6=ipv6) in self._doubtful_hosts:
            raise Undecidable(_DOUBTFUL)
        passing.state = State.INVALID
        located = transport(data, ipv6=ipv6)
        if located is None:
            return Fate.ACCEPT
        protocol, at = located
        if protocol == (ICMPV6 if ipv6 else ICMP) and self._is_error(passing, at, ipv6=ipv6):
            return Fate.ACCEPT
        name = tuple_of(data, 0, protocol, at, ipv6=ipv6)
        return Fate.ACCEPT if name is None else self._resolve(passing, name, at, ipv6=ipv6)

    def confirm(self, passing: Passing) -> Fate:
        """The packet got through: its connection, if it is new, gets into the table.

        Returns:
            DROP if another packet has opened the same connection meanwhile and its protocol can't share.
        """
        connection = passing.connection
        if connection is None or connection.confirmed:
            return Fate.ACCEPT
        for name in connection.tuples:
            there = self._find(name, passing.time_ns)
            if there is None:
                continue
            if name[4] == _NO_CLASH:
                return Fate.DROP
            passing.connection = there[0]
            return Fate.ACCEPT
        for direction, name in enumerate(connection.tuples):
            self._table[name] = connection, direction
        connection.confirmed = True
        if len(self._table) >= self._sweep_at:
            self._sweep(passing.time_ns)
        return Fate.ACCEPT

    def doubt(self, passing: Passing) -> None:
        """Nobody knows whether the packet got through.

        Where it would have opened a connection, all that would belong to that is undecidable from now on.
        """
        if passing.connection is not None and not passing.connection.confirmed:
            self._doubtful.update(passing.connection.tuples)

    def reset(self, passing: Passing) -> None:
        """A rule drops the packet and answers with a TCP reset."""
        ipv6 = passing.data[0] >> 4 == 6
        located = transport(passing.data, ipv6=ipv6)
        if passing.connection is not None and located is not None and located[0] == TCP:
            conntrack_tcp.close(
                passing.connection, passing.data, located[1], passing.time_ns, self.settings, ipv6=ipv6
            )

    def _see_headers(self, passing: Passing, *, ipv6: bool) -> None:
        """Refuse a packet of which the capture lacks what the tracker reads."""
        seen = passing.data[: passing.captured]
        located = transport(seen, ipv6=ipv6)
        name = None
        if located is not None:
            protocol, at = located
            needed = at + 8
            if protocol == TCP:
                needed = at + 4 * (seen[at + 12] >> 4) if at + 12 < len(seen) else at + 20
            elif protocol in (ICMP, ICMPV6):
                needed = at + conntrack_icmp.reads(seen, at, ipv6=ipv6)
            if needed <= len(seen) and not self.settings.checksum:
                return
            name = tuple_of(seen, 0, protocol, at, ipv6=ipv6)
        if name is None:
            self._doubtful_hosts.add(_hosts(passing.data, ipv6=ipv6))
        elif (opposite := inverse(name)) is not None:  # an error does nothing to connections
            self._doubtful.update((name, opposite))
        raise Undecidable("the capture has not all of the packet that connection tracking reads")

    def _is_error(self, passing: Passing, at: int, *, ipv6: bool) -> bool:
        """Judge an ICMP message that is about another packet; False if it has a connection of its own."""
        judge = conntrack_icmp.judge_icmpv6 if ipv6 else conntrack_icmp.judge_icmp
        answer = judge(passing.data, at, self.settings)
        if isinstance(answer, tuple):
            if answer[4] == SCTP and self._has_sctp:
                raise Undecidable(_NO_SCTP)
            there = self._find(answer, passing.time_ns)
            # The error must go to the host that the packet in it came from.
            if there is not None and answer[1] == _destination(passing.data, ipv6=ipv6):
                passing.state = State.RELATED
                passing.connection = there[0]
                passing.direction = _DIRECTIONS[there[1]]
            return True
        if answer is None:
            return False
        passing.state = answer
        return True

    def _resolve(self, passing: Passing, name: Tuple, at: int, *, ipv6: bool) -> Fate:
        """Find the connection by its name, or begin it; then let its protocol judge the packet."""
        if name[4] == SCTP:
            self._has_sctp = True
            raise Undecidable(_NO_SCTP)
        now_ns = passing.time_ns
        there = self._find(name, now_ns)
        if there is None:
            opposite = inverse(name)
            if opposite is None:
                return Fate.ACCEPT
            if self._is_full(now_ns):
                return Fate.DROP
            there = Connection(tuples=(name, opposite)), 0
        connection, direction = there
        state = State.NEW if direction == 0 and not connection.seen_reply else State.ESTABLISHED
        answer = self._judge(passing, connection, direction, at, ipv6=ipv6)
        if answer == conntrack_tcp.INVALID:
            return Fate.ACCEPT
        if answer == conntrack_tcp.REOPENED:
            self._remove(connection)
            return self._resolve(passing, name, at, ipv6=ipv6)
        if answer != conntrack_tcp.IGNORED:
            connection.packet_counts[direction] += 1
            connection.byte_counts[direction] += len(passing.data)
        if answer > 0:
            connection.expires_ns = now_ns + answer * _NS
        elif answer == conntrack_tcp.ENDED:
            self._remove(connection)
        if direction == 1:
            connection.seen_reply = True
        passing.state = state
        passing.connection = connection
        passing.direction = _DIRECTIONS[direction]
        return Fate.ACCEPT

    def _judge(self, passing: Passing, connection: Connection, direction: int, at: int, *, ipv6: bool) -> int:
        """Seconds until the connection times out, or an answer of conntrack_tcp."""
        settings, data = self.settings, passing.data
        protocol = connection.tuples[0][4]
        if protocol == TCP:
            return conntrack_tcp.track(connection, data, at, direction, passing.time_ns, settings, ipv6=ipv6)
        if protocol in (UDP, UDPLITE):
            if not _is_sound(data, at, protocol, settings, ipv6=ipv6):
                return conntrack_tcp.INVALID
            if not connection.confirmed:
                connection.protocol_state = passing.time_ns
            if not connection.seen_reply:
                return settings.udp_timeout
            connection.assured = True
            began_ns = connection.protocol_state
            assert isinstance(began_ns, int)
            young = protocol == UDP and passing.time_ns <= began_ns + _STREAM_AFTER_NS
            return settings.udp_timeout if young else settings.udp_timeout_stream
        if protocol in (ICMP, ICMPV6):
            may = conntrack_icmp.may_begin(connection.tuples[0], ipv6=ipv6)
            return settings.icmp_timeout if may else conntrack_tcp.INVALID
        if protocol == GRE:
            connection.assured = connection.assured or connection.seen_reply
            return settings.gre_timeout_stream if connection.seen_reply else settings.gre_timeout
        return settings.generic_timeout

    def _find(self, name: Tuple, now_ns: int) -> tuple[Connection, int] | None:
        if self._doubtful and name in self._doubtful:
            raise Undecidable(_DOUBTFUL)
        there = self._table.get(name)
        if there is not None and there[0].expires_ns <= now_ns:
            self._remove(there[0])
            return None
        return there

    def _remove(self, connection: Connection) -> None:
        for name in connection.tuples:
            self._table.pop(name, None)

    def _sweep(self, now_ns: int) -> None:
        """Forget what has timed out, so that a long capture needs no more memory than its connections."""
        self._table = {name: there for name, there in self._table.items() if there[0].expires_ns > now_ns}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._table))

    def _is_full(self, now_ns: int) -> bool:
        """Whether there is no room for another connection (__nf_conntrack_alloc).

        Raises:
            Undecidable: There would be if another were evicted, and which is goes by a random seed.
        """
        limit = self.settings.max_entries
        if not limit or len(self._table) < limit:  # an entry has two names, or one
            return False
        self._sweep(now_ns)
        connections = self.connections()
        if len(connections) < limit:
            return False
        if all(connection.assured for connection in connections):
            return True
        raise Undecidable("the table of connections is full; which one the kernel evicts is random")


def _is_sound(data: bytes, at: int, protocol: int, settings: Settings, *, ipv6: bool) -> bool:
    """Length and checksum of a UDP or UDP-Lite datagram (udp_error, udplite_error)."""
    there = len(data) - at
    if there < 8:
        return False
    length, checksum = struct.unpack_from("!HH", data, at + 4)
    if protocol == UDPLITE:
        length = length or there
        if not 8 <= length <= there or not checksum:
            return False
        # The kernel names UDP in the pseudo header of UDP-Lite.
        return not settings.checksum or checksum_is_right(data, at, UDP, ipv6=ipv6, covered=length)
    if not 8 <= length <= there:
        return False
    return not checksum or not settings.checksum or checksum_is_right(data, at, UDP, ipv6=ipv6)


def _hosts(data: bytes, *, ipv6: bool) -> frozenset[bytes]:
    return frozenset((data[8:24], data[24:40]) if ipv6 else (data[12:16], data[16:20]))


def _destination(data: bytes, *, ipv6: bool) -> bytes:
    return data[24:40] if ipv6 else data[16:20]
