"""Reassembly of IP fragments as connection tracking does it, before any rule of priority -300 and later.

In:  packets in order, as they come to the hook of priority -400 (Passing).
Out: Fate; Passing.data of the last fragment is the whole datagram then.
Source: Linux net/ipv4/ip_fragment.c ip_frag_queue, ip_frag_reasm; net/ipv6/netfilter/nf_conntrack_reasm.c
    nf_ct_frag6_gather, nf_ct_frag6_queue; net/ipv4/inet_fragment.c inet_frag_queue_insert;
    net/ipv6/reassembly.c ipv6frag_thdr_truncated; RFC 5722 (overlaps), RFC 3168 section 5.3 (ECN).

A datagram with an overlap is lost, with all of it that has come; what comes later begins a new one. A
fragment that repeats what is there is dropped alone. What contradicts the length that is known loses an IPv4
datagram, and of IPv6 only the fragment.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from rulegen.evaluate.base import Fate, Passing, Undecidable
from rulegen.evaluate.conntrack_headers import (
    EXTENSIONS,
    FRAGMENT,
    FRAGMENT_OFFSET,
    ICMPV6,
    NOTHING,
    TCP,
    UDP,
    extension_size,
    ipv4_checksum,
    skip_extensions,
)
from rulegen.evaluate.conntrack_settings import Settings

_MORE: Final = 0x2000
_DONT: Final = 0x4000
_OFFSET: Final = 0x1FFF
_MORE6: Final = 0x0001
_LONGEST: Final = 65535
_IPV6_HEADER: Final = 40
_FRAGMENT_HEADER: Final = 8
_NS: Final = 1_000_000_000
_OVERHEAD: Final = 4096
"""Bytes of memory that a fragment costs a kernel beside twice its own, at most: buffers are powers of two,
and drivers give each packet a page."""

_WHOLE_HEADER: Final = {TCP: 20, UDP: 8, ICMPV6: 8}
"""RFC 8200 section 4.5: what the first fragment must have of the transport header; one byte of others."""


class _Place(Enum):
    FREE = "free"
    TAKEN = "taken"
    OVERLAPS = "overlaps"


class _Part(NamedTuple):
    offset: int
    payload: bytes
    captured: int
    """Bytes of the payload that the capture has."""
    number: int


class _Datagram:
    """Fragments that wait."""

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.longest = self.longest_whole = 0
        """Of the fragments, and of those that must not be fragmented further (DF)."""
        self.counted = 0
        """How many fragments its sender had sent when the last of these came."""
        self.empty()

    def empty(self) -> None:
        """Begin again."""
        self.parts: list[_Part] = []
        self.runs: list[list[int]] = []
        """Begin and end of what came in order; what filled a gap is a run of its own."""
        self.head = b""
        """The headers in front of the first fragment's payload."""
        self.named_at = 0
        self.length = self.size = 0
        self.has_last = False
        self.congestion = 0
        """A bit for each value of the ECN field."""

    def takes_end(self, end: int, *, more: bool) -> bool:
        """Whether a fragment may end here, by what is known of the datagram's length; remember it."""
        if more:
            if end > self.length:
                if self.has_last:
                    return False
                self.length = end
            return True
        if end < self.length or (self.has_last and end != self.length):
            return False
        self.has_last = True
        self.length = end
        return True

    def take(self, part: _Part) -> _Place:
        """Put a part to the others, if it fits between them (inet_frag_queue_insert)."""
        offset, end = part.offset, part.offset + len(part.payload)
        if self.runs and self.runs[-1][1] < end:
            if offset < self.runs[-1][1]:
                return _Place.OVERLAPS
            if offset == self.runs[-1][1]:
                self.runs[-1][1] = end
            else:
                self.runs.append([offset, end])
        else:
            for begin, stop in self.runs:
                if offset < stop and begin < end:
                    return _Place.TAKEN if begin <= offset and end <= stop else _Place.OVERLAPS
            self.runs.append([offset, end])
            self.runs.sort()
        self.parts.append(part)
        self.size += len(part.payload)
        return _Place.FREE

    def is_whole(self) -> bool:
        return bool(self.head) and self.has_last and self.size == self.length

    def ecn(self) -> int | None:
        """The ECN field of the whole; None for a mixture that loses the datagram (ip_frag_ecn_table)."""
        if self.congestion & 1 and self.congestion != 1:
            return None
        return 3 if self.congestion & 8 and self.congestion != 8 else 0

    def deliver(self, passing: Passing, head: bytes) -> Fate:
        """Make the last fragment the whole datagram."""
        parts = sorted(self.parts)
        captured = len(head) + self.length
        for part in parts:
            if part.captured < len(part.payload):
                captured = len(head) + part.offset + part.captured
                break
        passing.data = head + b"".join(part.payload for part in parts)
        passing.captured = captured
        passing.fragments = tuple(part.number for part in self.parts)
        return Fate.ACCEPT


class Reassembly:
    """The fragments that wait in one firewall."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - a frozen value
        self.settings = settings
        self._waiting: dict[tuple[bytes, ...], _Datagram] = {}
        self._cost = 0
        self._sent: dict[bytes, int] = {}

    def gather(self, passing: Passing) -> Fate:
        """Take a packet: fragments wait until their datagram is whole, all else passes.

        Returns:
            STOLEN while it waits; DROP where it is lost, alone or with its datagram; ACCEPT for a packet that
            is whole now: `data` is replaced, `fragments` says by whose numbers.

        Raises:
            Undecidable: Its headers are not in the capture, or so many fragments wait that the kernel may
                have no memory for this one.
        """
        if passing.notrack:
            return Fate.ACCEPT
        data = passing.data
        if data[0] >> 4 == 6:
            return self._gather6(passing)
        field = data[6] << 8 | data[7]
        return self._gather4(passing, field) if field & (_MORE | _OFFSET) else Fate.ACCEPT

    def _gather4(self, passing: Passing, field: int) -> Fate:
        data = passing.data
        key = (data[12:16], data[16:20], data[4:6], data[9:10])
        datagram = self._datagram(key, passing.time_ns, self.settings.ipv4_fragment_timeout)
        if self._is_too_far(data[12:16], datagram):
            self._cost -= _cost(datagram)
            datagram.empty()
            datagram.began_ns = passing.time_ns
        at = 4 * (data[0] & 15)
        offset = (field & _OFFSET) * 8
        end = offset + len(data) - at
        more = bool(field & _MORE)
        if more:
            end &= ~7
        if not datagram.takes_end(end, more=more) or end == offset:
            return self._lose(key)
        part = _part(passing, at, offset, end)
        place = self._take(datagram, part)
        if place is _Place.OVERLAPS:
            return self._lose(key)
        if place is _Place.TAKEN:
            return Fate.DROP
        if offset == 0:
            datagram.head = data[:at]
        datagram.congestion |= 1 << (data[1] & 3)
        size = at + end - offset
        datagram.longest = max(datagram.longest, size)
        if field & _DONT:
            datagram.longest_whole = max(datagram.longest_whole, size)
        if not datagram.is_whole():
            return Fate.STOLEN
        self._lose(key)
        head = _head4(datagram)
        return Fate.DROP if head is None else datagram.deliver(passing, head)

    def _is_too_far(self, source: bytes, datagram: _Datagram) -> bool:
        """Count the sender's fragments (ip_frag_too_far): identifications of 16 bits soon come again."""
        limit = self.settings.ipv4_fragment_distance
        if not limit:
            return False
        sent = self._sent[source] = self._sent.get(source, 0) + 1
        distance, datagram.counted = sent - datagram.counted, sent
        return bool(datagram.parts) and distance > limit

    def _gather6(self, passing: Passing) -> Fate:
        data = passing.data
        found = _fragment_header(data)
        if found is None or _is_truncated(data, found[1]):
            return Fate.ACCEPT
        named_at, at = found
        payload_at = at + _FRAGMENT_HEADER
        if payload_at > len(data):
            return Fate.DROP
        field = data[at + 2] << 8 | data[at + 3]
        key = (data[8:24], data[24:40], data[at + 4 : payload_at])
        datagram = self._datagram(key, passing.time_ns, self.settings.ipv6_fragment_timeout)
        offset = field & FRAGMENT_OFFSET
        end = offset + len(data) - payload_at
        more = bool(field & _MORE6)
        if end > _LONGEST:
            return Fate.DROP
        if more and end % 8:
            self._lose(key)
            return Fate.ACCEPT  # it goes on as the fragment that it is
        if not datagram.takes_end(end, more=more) or end == offset:
            return Fate.DROP
        place = self._take(datagram, _part(passing, payload_at, offset, end))
        if place is _Place.OVERLAPS:
            return self._lose(key)
        if place is _Place.TAKEN:
            return Fate.DROP
        if offset == 0:
            datagram.head, datagram.named_at = data[:payload_at], named_at
        datagram.congestion |= 1 << (data[1] >> 4 & 3)
        if not datagram.is_whole():
            return Fate.STOLEN
        self._lose(key)
        head = _head6(datagram)
        return Fate.DROP if head is None else datagram.deliver(passing, head)

    def _datagram(self, key: tuple[bytes, ...], now_ns: int, timeout: int) -> _Datagram:
        """What waits of the same datagram; a new place if nothing does."""
        if self._cost > self.settings.fragment_memory:
            self._forget(now_ns)
            if self._cost > self.settings.fragment_memory:
                raise Undecidable("whether the kernel has memory for another fragment is unknown")
        there = self._waiting.get(key)
        if there is not None and now_ns >= there.began_ns + timeout * _NS:
            self._lose(key)
            there = None
        if there is None:
            there = self._waiting[key] = _Datagram(now_ns)
            self._cost += _OVERHEAD
        return there

    def _take(self, datagram: _Datagram, part: _Part) -> _Place:
        place = datagram.take(part)
        if place is _Place.FREE:
            self._cost += 2 * len(part.payload) + _OVERHEAD
        return place

    def _lose(self, key: tuple[bytes, ...]) -> Fate:
        """Nothing of this datagram waits any longer."""
        self._cost -= _cost(self._waiting.pop(key)) + _OVERHEAD
        return Fate.DROP

    def _forget(self, now_ns: int) -> None:
        for key, datagram in list(self._waiting.items()):
            ipv6 = len(key[0]) == 16
            timeout = self.settings.ipv6_fragment_timeout if ipv6 else self.settings.ipv4_fragment_timeout
            if now_ns >= datagram.began_ns + timeout * _NS:
                self._lose(key)


def _cost(datagram: _Datagram) -> int:
    return 2 * datagram.size + _OVERHEAD * len(datagram.parts)


def _part(passing: Passing, at: int, offset: int, end: int) -> _Part:
    if passing.captured < at:
        raise Undecidable("the capture has not all of a fragment's headers")
    return _Part(offset, passing.data[at : at + end - offset], passing.captured - at, passing.number)


def _head4(datagram: _Datagram) -> bytes | None:
    """The header of the whole; None if there can't be one."""
    ecn = datagram.ecn()
    total = len(datagram.head) + datagram.length
    if ecn is None or total > _LONGEST:
        return None
    head = bytearray(datagram.head)
    head[1] |= ecn
    head[2:4] = total.to_bytes(2, "big")
    # Fragments that the sender forbade to fragment further: so is the whole.
    head[6:8] = (_DONT if datagram.longest_whole == datagram.longest else 0).to_bytes(2, "big")
    head[10:12] = b"\0\0"
    head[10:12] = ipv4_checksum(head).to_bytes(2, "big")
    return bytes(head)


def _head6(datagram: _Datagram) -> bytes | None:
    """The headers of the whole, without the fragment header; None if there can't be any."""
    at = len(datagram.head) - _FRAGMENT_HEADER
    ecn = datagram.ecn()
    payload = at - _IPV6_HEADER + datagram.length
    if ecn is None or payload > _LONGEST:
        return None
    head = bytearray(datagram.head[:at])
    head[datagram.named_at] = datagram.head[at]
    head[1] |= ecn << 4
    head[4:6] = payload.to_bytes(2, "big")
    return bytes(head)


def _fragment_header(data: bytes) -> tuple[int, int] | None:
    """Where the fragment header is named and where it is; None without one (find_prev_fhdr)."""
    following, named_at, at = data[6], 6, _IPV6_HEADER
    if data[4:6] == b"\0\0":
        return None
    while following != FRAGMENT:
        if following not in EXTENSIONS or following == NOTHING or at + 2 > len(data):
            return None
        named_at = at & 0xFF  # a byte in the kernel: behind long headers it names another place
        following, at = data[at], at + extension_size(following, data[at + 1])
    return None if at > len(data) else (named_at, at)


def _is_truncated(data: bytes, at: int) -> bool:
    """Whether it is a first fragment without the whole transport header: it is not reassembled."""
    found = skip_extensions(data, at, FRAGMENT)
    if found is None or found[2] & FRAGMENT_OFFSET:
        return False
    return found[1] + _WHOLE_HEADER.get(found[0], 1) > len(data)
