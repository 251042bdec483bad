"""What Linux's tracker makes of a TCP segment: its state table, and the exceptions around it.

In:  a connection, the packet that may belong to it, its direction.
Out: seconds until the connection times out, or one of the answers below; the connection is moved on.
Source: Linux net/netfilter/nf_conntrack_proto_tcp.c nf_conntrack_tcp_packet, tcp_error, tcp_new,
    nf_tcp_handle_invalid; RFC 9293, RFC 5961 (challenge ACKs).

The order of the exceptions is the kernel's and matters: each sees what an earlier one has changed.
"""

from __future__ import annotations

import struct
from typing import Final

from rulegen.evaluate.base import Connection
from rulegen.evaluate.conntrack_headers import TCP, checksum_is_right
from rulegen.evaluate.conntrack_settings import Settings, TcpState
from rulegen.evaluate.conntrack_tcp_window import (
    ACK,
    CHALLENGED,
    CLOSED_FIRST,
    FIN,
    HAS_ACKED,
    MASK,
    RST,
    SCALES,
    SELECTIVE,
    SIMULTANEOUS,
    SYN,
    UNACKNOWLEDGED,
    URG,
    Fit,
    Kind,
    Segment,
    Side,
    Tcp,
    before,
    begin,
    fit,
    pick_up,
    read_options,
)

IGNORED: Final = 0
"""The packet belongs to the connection, which stays as it is; it is not counted."""
INVALID: Final = -1
REOPENED: Final = -2
"""A SYN where a connection was closed: that one goes, the packet is to be tracked anew."""
ENDED: Final = -3
"""The packet belongs to the connection, which goes."""

_HEADER: Final = struct.Struct("!HHIIBBH")
_BARE_HEADER: Final = 20
_NS: Final = 1_000_000_000
_SHRINK_FROM_NS: Final = 120 * _NS
_WITHOUT_ECN_PUSH: Final = FIN | SYN | RST | ACK | URG
_VALID_FLAGS: Final = frozenset(
    {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG}
)

_NAMES: Final = {
    "SS": TcpState.SYN_SENT, "SR": TcpState.SYN_RECV, "ES": TcpState.ESTABLISHED, "FW": TcpState.FIN_WAIT,
    "CW": TcpState.CLOSE_WAIT, "LA": TcpState.LAST_ACK, "TW": TcpState.TIME_WAIT, "CL": TcpState.CLOSE,
    "S2": TcpState.SYN_SENT2, "ig": TcpState.IGNORED, "--": TcpState.REFUSED,
}  # fmt: skip
_TABLE: Final = """
        NO SS SR ES FW CW LA TW CL S2
SYN     SS SS ig ig ig ig ig SS SS S2   original direction
SYN_ACK -- -- SR -- -- -- -- -- -- SR
FIN     -- -- FW FW LA LA LA TW CL --
ACK     ES -- ES ES CW CW TW TW CL --
RST     -- CL CL CL CL CL CL CL CL CL
NONE    -- -- -- -- -- -- -- -- -- --
SYN     -- S2 -- -- -- -- -- SS -- S2   reply direction
SYN_ACK -- SR ig ig ig ig ig ig ig SR
FIN     -- -- FW FW LA LA LA TW CL --
ACK     -- ig SR ES CW CW TW TW CL ig
RST     -- CL CL CL CL CL CL CL CL CL
NONE    -- -- -- -- -- -- -- -- -- --
"""
_ROWS: Final = [[_NAMES[word] for word in line.split()[1:11]] for line in _TABLE.strip().splitlines()[1:]]
_NEXT: Final = (_ROWS[:6], _ROWS[6:])
"""By direction, kind and state."""

_CLOSING: Final = frozenset(
    {TcpState.FIN_WAIT, TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.TIME_WAIT, TcpState.CLOSE}
)


def _kind(flags: int) -> Kind:
    if flags & RST:
        return Kind.RST
    if flags & SYN:
        return Kind.SYN_ACK if flags & ACK else Kind.SYN
    if flags & FIN:
        return Kind.FIN
    return Kind.ACK if flags & ACK else Kind.NONE


_KINDS: Final = tuple(_kind(flags) for flags in range(256))


def track(
    connection: Connection,
    data: bytes,
    at: int,
    direction: int,
    now_ns: int,
    settings: Settings,
    *,
    ipv6: bool,
) -> int:
    """Move a connection on by a packet.

    Args:
        connection: Begun here if no packet of it has got through yet.
        data: The packet.
        at: Offset of its TCP header.
        direction: 0 original, 1 reply.
        now_ns: The packet's time.
        settings: Of the kernel.
        ipv6: The packet's version, for the checksum.

    Returns:
        Seconds until it times out, from now on; or IGNORED, INVALID, REOPENED, ENDED.
    """
    segment = _read(data, at)
    if segment is None:
        return INVALID
    if settings.checksum and not checksum_is_right(data, at, TCP, ipv6=ipv6):
        return INVALID
    if not connection.confirmed:
        tcp = _new(segment, settings)
        if tcp is None:
            return INVALID
        connection.protocol_state = tcp
    state = connection.protocol_state
    assert isinstance(state, Tcp)
    return _advance(connection, state, segment, direction, now_ns, settings)


def close(
    connection: Connection, data: bytes, at: int, now_ns: int, settings: Settings, *, ipv6: bool
) -> None:
    """The firewall itself ends a connection with a RST that answers this packet.

    It does not answer a RST or a wrong checksum, whether that is checked elsewhere or not.

    Source: Linux nf_conntrack_tcp_set_closing; net/ipv4/netfilter/nf_reject_ipv4.c nf_send_reset.
    """
    tcp = connection.protocol_state
    if not connection.confirmed or not isinstance(tcp, Tcp) or data[at + 13] & RST:
        return
    if checksum_is_right(data, at, TCP, ipv6=ipv6) and tcp.state is not TcpState.CLOSE:
        tcp.state = TcpState.CLOSE
        connection.expires_ns = now_ns + settings.tcp_timeouts[TcpState.CLOSE] * _NS


def _read(data: bytes, at: int) -> Segment | None:
    """The header, if it is all there and its flags make sense."""
    if at + _BARE_HEADER > len(data):
        return None
    _, _, sequence, acknowledgement, offset, flags, window = _HEADER.unpack_from(data, at)
    size = offset >> 4 << 2
    payload = len(data) - at - size
    if size < _BARE_HEADER or payload < 0 or flags & _WITHOUT_ECN_PUSH not in _VALID_FLAGS:
        return None
    end = (sequence + payload + (flags >> 1 & 1) + (flags & FIN)) & MASK
    options = data[at + _BARE_HEADER : at + size]
    return Segment(_KINDS[flags], flags, sequence, acknowledgement, end, window, options)


def _new(segment: Segment, settings: Settings) -> Tcp | None:
    """The state before the first segment of a connection; None if nothing may begin with it."""
    state = _NEXT[0][segment.kind][TcpState.NONE]
    if state is TcpState.REFUSED:
        return None
    tcp = Tcp()
    if state is TcpState.SYN_SENT:
        begin(tcp.sides[0], segment)
    elif settings.tcp_loose:
        pick_up(tcp, segment)
    else:
        return None
    return tcp


def _advance(
    connection: Connection, tcp: Tcp, segment: Segment, direction: int, now_ns: int, settings: Settings
) -> int:
    old = tcp.state
    kind = segment.kind
    new = _NEXT[direction][kind][old]
    check_window = True
    if new is TcpState.REFUSED:
        return INVALID
    if new is TcpState.SYN_SENT and old >= TcpState.TIME_WAIT:
        if _may_reopen(tcp, direction):
            return REOPENED
        new = TcpState.IGNORED
    if new is TcpState.IGNORED:
        if not _answers_ignored_syn(tcp, segment, direction):
            _remember_ignored(tcp, segment, direction)
            return IGNORED
        _agree(tcp, direction)
        old, new = TcpState.SYN_SENT, TcpState.SYN_RECV
    elif new is TcpState.TIME_WAIT:
        if old is TcpState.LAST_ACK and _is_challenge(tcp, kind, direction):
            tcp.last_flags &= ~CHALLENGED
            return IGNORED
    elif new is TcpState.SYN_SENT2:
        tcp.last_flags |= SIMULTANEOUS
    elif new is TcpState.SYN_RECV:
        if direction == 1 and kind is Kind.ACK and tcp.last_flags & SIMULTANEOUS:
            new = TcpState.ESTABLISHED
    elif new is TcpState.CLOSE and kind is Kind.RST:
        judged = _reset(connection, tcp, segment, direction, settings)
        if judged is None:
            return INVALID
        new, check_window = judged
    if check_window:
        fitting = fit(tcp, segment, direction, be_liberal=settings.tcp_be_liberal)
        if fitting is Fit.IGNORED:
            return IGNORED
        if fitting is Fit.OUT:
            _after_misfit(connection, tcp, kind, direction, now_ns, settings)
            return INVALID
    tcp.last_kind = kind
    tcp.last_direction = direction
    tcp.state = new
    if old is not new and new is TcpState.FIN_WAIT:
        tcp.sides[direction].flags |= CLOSED_FIRST
    return _settle(connection, tcp, segment, old, settings)


def _may_reopen(tcp: Tcp, direction: int) -> bool:
    closed = (tcp.sides[0].flags | tcp.sides[1].flags) & CLOSED_FIRST
    return bool(closed) or (tcp.last_direction == direction and tcp.last_kind is Kind.RST)


def _answers_ignored_syn(tcp: Tcp, segment: Segment, direction: int) -> bool:
    """A SYN-ACK for a SYN that was let through: both ends agree, and the tracker was wrong."""
    return (
        segment.kind is Kind.SYN_ACK
        and tcp.last_kind is Kind.SYN
        and tcp.last_direction != direction
        and segment.acknowledgement == tcp.last_end
    )


def _agree(tcp: Tcp, direction: int) -> None:
    asking = tcp.sides[tcp.last_direction]
    asking.end = asking.maximum_end = tcp.last_end
    asking.window = tcp.last_window or 1
    asking.scale = tcp.last_scale
    tcp.last_flags &= ~CHALLENGED
    asking.flags = tcp.last_flags
    tcp.sides[direction].reset()


def _remember_ignored(tcp: Tcp, segment: Segment, direction: int) -> None:
    tcp.last_kind = segment.kind
    tcp.last_direction = direction
    tcp.last_sequence = segment.sequence
    tcp.last_end = segment.end
    tcp.last_window = segment.window
    if segment.kind is Kind.SYN and direction == 0:
        wish = Side()
        read_options(segment.options, wish)
        tcp.last_flags = wish.flags & (SCALES | SELECTIVE)
        tcp.last_scale = wish.scale
        if tcp.state is TcpState.LAST_ACK:
            tcp.last_flags |= CHALLENGED
    if tcp.state is TcpState.SYN_SENT and segment.kind is Kind.ACK and direction == 1:
        tcp.last_acknowledgement = segment.acknowledgement


def _is_challenge(tcp: Tcp, kind: Kind, direction: int) -> bool:
    """RFC 5961 section 4: an ACK for a SYN that came in the middle, not for the last FIN."""
    return (
        kind is Kind.ACK
        and tcp.last_direction != direction
        and tcp.last_kind is Kind.SYN
        and bool(tcp.last_flags & CHALLENGED)
    )


def _reset(
    connection: Connection, tcp: Tcp, segment: Segment, direction: int, settings: Settings
) -> tuple[TcpState, bool] | None:
    """The state after a RST, and whether it must fit the window; None if it is invalid."""
    new = TcpState.CLOSE
    if tcp.state in _CLOSING:
        return new, False
    peer = tcp.sides[1 - direction]
    if peer.flags & HAS_ACKED and tcp.last_kind is not Kind.SYN:
        established = tcp.state is TcpState.ESTABLISHED and connection.assured
        if segment.sequence == 0 and not established:
            return new, True
        if before(segment.sequence, peer.acknowledged) and not settings.tcp_ignore_invalid_rst:
            return None
        if not established or segment.sequence == peer.acknowledged:
            return new, True
        in_train = tcp.last_kind is Kind.ACK and tcp.last_direction == direction
        if in_train and segment.sequence == tcp.last_end:
            return new, True
        new = tcp.state  # RFC 5961 section 3: the receiver will challenge it
    # That a RST must come from the other side than the SYN is measured on 6.18; sources of 6.6 lack it.
    answers_syn = connection.seen_reply and tcp.last_kind is Kind.SYN and tcp.last_direction != direction
    answers_ack = not connection.assured and tcp.last_kind is Kind.ACK
    if (answers_syn or answers_ack) and segment.acknowledgement == tcp.last_end:
        return new, False
    answers_challenge = (
        tcp.state is TcpState.SYN_SENT
        and tcp.last_kind is Kind.ACK
        and tcp.last_direction == 1
        and segment.sequence == tcp.last_acknowledgement
    )
    return new, not answers_challenge


def _after_misfit(
    connection: Connection, tcp: Tcp, kind: Kind, direction: int, now_ns: int, settings: Settings
) -> None:
    """Let a connection die sooner when both sides want to end it with segments that don't fit."""
    if not connection.assured or kind not in (Kind.RST, Kind.FIN):
        return
    if tcp.last_direction != direction and tcp.last_kind in (Kind.FIN, Kind.RST):
        left = connection.expires_ns - now_ns
        shorter = settings.tcp_timeout_unacknowledged * _NS
        if left >= _SHRINK_FROM_NS and left > shorter:
            connection.expires_ns = now_ns + shorter
    else:
        tcp.last_kind = kind
        tcp.last_direction = direction


def _settle(connection: Connection, tcp: Tcp, segment: Segment, old: TcpState, settings: Settings) -> int:
    """How long the connection lives now."""
    usual = settings.tcp_timeouts[tcp.state]
    unacknowledged = (tcp.sides[0].flags | tcp.sides[1].flags) & UNACKNOWLEDGED
    timeout = usual
    if tcp.retransmissions >= settings.tcp_max_retrans and usual > settings.tcp_timeout_max_retrans:
        timeout = settings.tcp_timeout_max_retrans
    elif segment.kind is Kind.RST:
        timeout = settings.tcp_timeouts[TcpState.CLOSE]
    elif unacknowledged and usual > settings.tcp_timeout_unacknowledged:
        timeout = settings.tcp_timeout_unacknowledged
    elif tcp.last_window == 0 and usual > settings.tcp_timeout_max_retrans:
        timeout = settings.tcp_timeout_max_retrans
    established = tcp.state is TcpState.ESTABLISHED
    if not connection.seen_reply:
        if segment.kind is Kind.RST:
            return ENDED
        if segment.kind is Kind.SYN and old is TcpState.SYN_SENT:
            return IGNORED  # a SYN that comes again does not give it more time
        if established:
            timeout = min(timeout, settings.tcp_timeout_unacknowledged)
    elif not connection.assured and established and old in (TcpState.SYN_RECV, TcpState.ESTABLISHED):
        connection.assured = True
    return timeout
