"""Whether a TCP segment is in the window that Linux's tracker believes in.

In:  the state of a connection, a segment and its direction.
Out: Fit; the state is moved on.
Source: Linux net/netfilter/nf_conntrack_proto_tcp.c tcp_in_window, tcp_init_sender, tcp_options, tcp_sack;
    Guido van Rooij, Real Stateful TCP Packet Filtering in IP Filter (2000).

    A segment fits if          sequence <= sender.maximum_end
                               end >= sender.end - receiver.window
                               (SACK or) ACK <= receiver.end
                               (SACK or) ACK >= receiver.end - max(sender.window, 66000)

All numbers are of 32 bits and wrap, window sizes too: mask after each operation, compare with `before`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from rulegen.evaluate.conntrack_settings import TcpState

FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20

MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000
_ACK_WINDOW: Final = 66000
_MAX_SCALE: Final = 14
_ONLY_TIMES: Final = bytes((1, 1, 8, 10))
_TIMES_SIZE: Final = 12
"""What most segments have of options: RFC 7323 appendix A."""

SCALES = 0x01
"""Flags of a side, which are also the sysctl-visible ones of the kernel (nf_conntrack_tcp.h)."""
SELECTIVE = 0x02
CLOSED_FIRST = 0x04
LIBERAL = 0x08
UNACKNOWLEDGED = 0x10
HAS_ACKED = 0x20
CHALLENGED = 0x40
SIMULTANEOUS = 0x80


class Kind(IntEnum):
    """Of a segment, by its flags; the tracker's table has a row for each."""

    SYN = 0
    SYN_ACK = 1
    FIN = 2
    ACK = 3
    RST = 4
    NONE = 5


class Fit(IntEnum):
    """Of a segment in the window."""

    IN = 0
    IGNORED = 1
    """It passes, but says nothing of the connection."""
    OUT = 2


class Segment(NamedTuple):
    """What the tracker reads of a TCP header."""

    kind: Kind
    flags: int
    sequence: int
    acknowledgement: int
    end: int
    """Of its sequence numbers: payload, SYN and FIN count."""
    window: int
    """As it is written, not scaled."""
    options: bytes


class Side:
    """What the tracker knows of a sender."""

    __slots__ = ("acknowledged", "end", "flags", "maximum_end", "scale", "window")

    def __init__(self) -> None:
        self.reset()
        self.flags = 0

    def reset(self) -> None:
        """Forget all but that it is to be judged liberally."""
        self.end = self.maximum_end = self.window = self.acknowledged = self.scale = 0
        self.flags = LIBERAL & getattr(self, "flags", 0)


class Tcp:
    """The tracker's state of a connection."""

    __slots__ = (
        "last_acknowledgement", "last_direction", "last_end", "last_flags", "last_kind", "last_scale",
        "last_sequence", "last_window", "retransmissions", "sides", "state",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state = TcpState.NONE
        self.sides = (Side(), Side())
        self.last_direction = 0
        self.last_kind = Kind.NONE
        self.last_flags = self.last_scale = 0
        self.last_sequence = self.last_acknowledgement = self.last_end = self.last_window = 0
        self.retransmissions = 0


def before(one: int, other: int) -> bool:
    """Whether a sequence number comes before another (RFC 9293 section 3.4)."""
    return (one - other) & _HALF != 0


def begin(side: Side, segment: Segment) -> None:
    """Take over what a SYN says of its sender."""
    side.end = side.maximum_end = segment.end
    side.window = segment.window or 1
    read_options(segment.options, side)


def pick_up(tcp: Tcp, segment: Segment) -> None:
    """Take over what the first segment seen of a running connection says; its scaling stays unknown."""
    side = tcp.sides[0]
    side.end = segment.end
    side.window = segment.window or 1
    side.maximum_end = (segment.end + side.window) & MASK
    for one in tcp.sides:
        one.flags = SELECTIVE | LIBERAL


def _begin_again(sender: Side, receiver: Side, segment: Segment, direction: int) -> None:
    begin(sender, segment)
    # RFC 7323 section 2.2: scaling needs the option from both.
    if direction == 1 and not sender.flags & receiver.flags & SCALES:
        sender.scale = receiver.scale = 0


def read_options(options: bytes, side: Side) -> None:
    """Set scale and flags by the options of a SYN; a SYN without any leaves them as they are."""
    if not options:
        return
    side.scale = 0
    side.flags &= LIBERAL
    for number, value in _options(options):
        if number == 4 and len(value) == 0:
            side.flags |= SELECTIVE
        elif number == 3 and len(value) == 1:
            side.scale = min(value[0], _MAX_SCALE)
            side.flags |= SCALES


def _options(options: bytes) -> list[tuple[int, bytes]]:
    """Number and value of each option up to the first that is damaged."""
    found, at = [], 0
    while at < len(options):
        number = options[at]
        if number == 0:
            break
        if number == 1:
            at += 1
            continue
        if at + 2 > len(options):
            break
        size = options[at + 1]
        if size < 2 or at + size > len(options):
            break
        found.append((number, options[at + 2 : at + size]))
        at += size
    return found


def _selective(options: bytes, acknowledgement: int) -> int:
    """The highest sequence number that the segment has a SACK block up to, or its ACK."""
    if options.startswith(_ONLY_TIMES) and len(options) == _TIMES_SIZE:
        return acknowledgement
    for number, value in _options(options):
        if number == 5 and value and len(value) % 8 == 0:
            for at in range(4, len(value), 8):
                edge = int.from_bytes(value[at : at + 4], "big")
                if before(acknowledgement, edge):
                    acknowledgement = edge
            break
    return acknowledgement


def fit(tcp: Tcp, segment: Segment, direction: int, *, be_liberal: bool) -> Fit:
    """Judge a segment, and learn from it where it fits.

    Args:
        tcp: Moved on.
        segment: Any but one that the table has refused.
        direction: 0 original, 1 reply.
        be_liberal: What does not fit is taken for fitting, without being learnt from.
    """
    sender, receiver = tcp.sides[direction], tcp.sides[1 - direction]
    kind, flags, sequence, acknowledgement, end, window, options = segment
    sack = acknowledgement
    if options and receiver.flags & SELECTIVE:
        sack = _selective(options, sack)
    if sender.window == 0:
        if flags & SYN:
            _begin_again(sender, receiver, segment, direction)
            if not flags & ACK:
                return Fit.IN
        else:
            _join(sender, receiver, segment, sack)
    elif flags & SYN and before(sender.end, end) and tcp.state in (TcpState.SYN_SENT, TcpState.SYN_RECV):
        _begin_again(sender, receiver, segment, direction)
        if direction == 1 and not flags & ACK:
            return Fit.IN
    if not flags & ACK or (flags & RST and acknowledgement == 0):
        acknowledgement = sack = receiver.end
    if flags & RST and sequence == 0 and tcp.state is TcpState.SYN_SENT:
        sequence = end = sender.end  # the answer to a SYN
    if not _fits(sender, receiver, sequence, end, sack):
        misfit = _misfit(sender, receiver, sequence, end, sack)
        return Fit.IN if be_liberal or sender.flags & LIBERAL else misfit
    _learn(sender, receiver, segment, acknowledgement, sack, end)
    if kind is Kind.ACK:
        _count(tcp, direction, (sequence, acknowledgement, end, window))
    return Fit.IN


def _join(sender: Side, receiver: Side, segment: Segment, sack: int) -> None:
    """Begin with a sender whose SYN was not seen."""
    sender.end = segment.end
    sender.window = (segment.window << sender.scale) & MASK or 1
    sender.maximum_end = (segment.end + sender.window) & MASK
    if sack == (receiver.end + 1) & MASK:  # the answer to a keep-alive
        receiver.end = sack


def _fits(sender: Side, receiver: Side, sequence: int, end: int, sack: int) -> bool:
    """The four conditions; `before` is written out, for nearly all packets come here."""
    seen_end, window = receiver.end, receiver.window
    return (
        (sequence - sender.maximum_end - 1) & (sack - seen_end - 1) & _HALF != 0
        and (window == 0 or (sender.end - window - 1 - end) & _HALF != 0)
        and (seen_end - max(sender.window, _ACK_WINDOW) - 1 - sack) & _HALF != 0
    )


def _misfit(sender: Side, receiver: Side, sequence: int, end: int, sack: int) -> Fit:
    """What it means that one of the four conditions does not hold."""
    ack_low = (receiver.end - max(sender.window, _ACK_WINDOW) - 1) & MASK
    end_low = (sender.end - receiver.window - 1) & MASK
    ack_is_seen = before(sack, receiver.end + 1)
    if not before(sequence, sender.maximum_end + 1):
        too_much = (end - sender.maximum_end + 1) & MASK
        if (
            receiver.window
            and before(end_low, end)
            and before(ack_low, sack)
            and too_much <= receiver.window
            and ack_is_seen
        ):
            # More than the window allows, which the peer may take nevertheless: its ACK must fit then.
            sender.end = end
            sender.flags |= UNACKNOWLEDGED
            return Fit.IGNORED
        return Fit.OUT
    return Fit.IGNORED if ack_is_seen else Fit.OUT


def _learn(sender: Side, receiver: Side, segment: Segment, acknowledgement: int, sack: int, end: int) -> None:
    """Move both sides on, with `before` written out."""
    window = segment.window if segment.flags & SYN else (segment.window << sender.scale) & MASK
    reach = (window + sack - acknowledgement) & MASK
    if sender.window < reach:
        sender.window = reach
    if (sender.end - end) & _HALF:
        sender.end = end
        sender.flags |= UNACKNOWLEDGED
    if segment.flags & ACK:
        if not sender.flags & HAS_ACKED:
            sender.acknowledged = acknowledgement
            sender.flags |= HAS_ACKED
        elif (sender.acknowledged - acknowledgement) & _HALF:
            sender.acknowledged = acknowledgement
    if receiver.window and (sender.maximum_end - end) & _HALF:
        receiver.window = (receiver.window + end - sender.maximum_end) & MASK
    edge = (sack + window) & MASK
    if (receiver.maximum_end - 1 - edge) & _HALF:
        receiver.maximum_end = edge if window else (edge + 1) & MASK
    if acknowledgement == receiver.end:
        receiver.flags &= ~UNACKNOWLEDGED


def _count(tcp: Tcp, direction: int, seen: tuple[int, int, int, int]) -> None:
    """Count how often the same ACK has come in a row."""
    last = (tcp.last_sequence, tcp.last_acknowledgement, tcp.last_end, tcp.last_window)
    if last == seen and tcp.last_direction == direction:
        tcp.retransmissions = (tcp.retransmissions + 1) & 0xFF
    else:
        tcp.last_direction = direction
        tcp.last_sequence, tcp.last_acknowledgement, tcp.last_end, tcp.last_window = seen
        tcp.retransmissions = 0
