"""Judge every packet of a capture by a firewall.

In:  a capture, a Firewall.
Out: Judged: a row per frame, as columns; a Meeting per way in which packets met the rules.

Few things happen to many packets: what a packet met is stored once, and counted by its number. Fragments
share the fate of their datagram, and rules count that once, as the kernel does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from analyzer.model import Side
from rulegen.evaluate.base import Fate, Hit, Passing
from rulegen.evaluate.captured import blocks
from rulegen.evaluate.firewall import Firewall, Outcome
from rulegen.evaluate.questions import Key, Questions

Int64 = npt.NDArray[np.int64]

Senders = npt.NDArray[np.uint8]
"""Side of each packet's sender, by its number - 1."""

WITHOUT_IP: Final = -1
"""Instead of a meeting: a frame without IP, which no rule of IP sees."""

_DAMAGED: Final = Outcome(Fate.DROP, None, "its IP header is damaged: no host takes it")
_LOST: Final = Outcome(Fate.DROP, None, "its datagram never becomes whole")


class Meeting(NamedTuple):
    """What a packet met."""

    outcome: Outcome
    hits: tuple[Hit, ...]


@dataclass(slots=True, eq=False)
class Meetings:
    """Every meeting once; its number is its place in `all`."""

    all: list[Meeting] = field(default_factory=list)
    _numbers: dict[Meeting, int] = field(default_factory=dict)

    def number(self, outcome: Outcome, hits: Sequence[Hit] = ()) -> int:
        meeting = Meeting(outcome, tuple(hits))
        known = self._numbers.get(meeting)
        if known is None:
            known = self._numbers[meeting] = len(self.all)
            self.all.append(meeting)
        return known


@dataclass(slots=True)
class _Known:
    """What packets of one key met, and left behind."""

    meeting: int
    passes: bool
    mark: int
    """Of the connection."""


class _Memory:
    """Judges packets like others before them that rules can't tell from them."""

    def __init__(self, firewall: Firewall, meetings: Meetings) -> None:
        self._firewall = firewall
        self._meetings = meetings
        self._known: dict[object, _Known] = {}

    def judge(self, passing: Passing, sender: Side, key: Key) -> int:
        """The number of the packet's meeting."""
        firewall, meetings = self._firewall, self._meetings
        early = firewall.track_only(passing)
        if early is not None:
            return meetings.number(early)
        connection = passing.connection
        mark = None if connection is None else connection.mark
        # members of an enum are there once, and Python would call a function to hash each
        all_of = (key, id(sender), id(passing.state), id(passing.direction), mark)
        known = self._known.get(all_of)
        if known is None:
            outcome = firewall.pass_chains(passing, sender)
            number = meetings.number(outcome, passing.hits)
            if outcome.fate is Fate.UNKNOWN:
                return number
            after = 0 if connection is None else connection.mark
            known = self._known[all_of] = _Known(number, outcome.fate is Fate.ACCEPT, after)
        elif connection is not None:
            connection.mark = known.mark
        if known.passes and (connection is None or not connection.confirmed):
            left = firewall.leave(passing)
            if left.fate is not Fate.ACCEPT:
                return meetings.number(left, meetings.all[known.meeting].hits)
        return known.meeting


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of the frames of a capture, a row for each."""

    packet: Int64
    """Number in the capture, from 1."""
    length: Int64
    """Bytes that rules count: of the IP packet, of the datagram in its last fragment."""
    meeting: Int64
    """Number in Meetings, or WITHOUT_IP."""


def judge(
    firewall: Firewall,
    path: str,
    meetings: Meetings,
    *,
    senders: Senders | None = None,
    questions: Questions | None = None,
    report: Callable[[int], None] = lambda position: None,
) -> Judged:
    """Take all packets of a capture through the firewall, in order.

    Args:
        firewall: As it is right after loading; it remembers what it saw.
        path: The capture.
        meetings: Where new ways of meeting the rules are added.
        senders: Needed only where the firewall is on one of the ends.
        questions: Of the firewall's rules; they save time.
        report: Called with the bytes that have been read.

    Raises:
        CaptureError: Nothing of the capture is readable.
    """
    lengths: list[int] = []
    met: list[int] = []
    damaged = meetings.number(_DAMAGED)
    shared = questions if firewall.tracks_first else None
    memory = _Memory(firewall, meetings)
    for block in blocks(path, report):
        begin = len(met)
        lengths += block.length.tolist()
        met += np.where(block.start < 0, WITHOUT_IP, damaged).tolist()
        keys = [None] * len(block.length) if shared is None else shared.keys(block)
        for row, passing in block.packets():
            at = begin + row
            sender = Side.CLIENT if senders is None else Side(int(senders[at]))
            key = keys[row]
            if key is not None:
                met[at] = memory.judge(passing, sender, key)
                continue
            outcome = firewall.judge(passing, sender)
            met[at] = meetings.number(_LOST if outcome.fate is Fate.STOLEN else outcome, passing.hits)
            if passing.fragments:
                lengths[at] = len(passing.data)
                for number in passing.fragments[:-1]:
                    met[number - 1] = meetings.number(outcome)
    return Judged(
        packet=np.arange(1, len(met) + 1),
        length=np.array(lengths, np.int64),
        meeting=np.array(met, np.int64),
    )
