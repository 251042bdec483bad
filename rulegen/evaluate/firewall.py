"""Take packets through the hooks of a firewall, in the kernel's order, and say what becomes of them.

In:  Evaluated artifacts in the order in which they were loaded, a connection tracker, packets.
Out: Outcome of each packet.
Source: Linux uapi netfilter_ipv4.h and netfilter_ipv6.h for priorities, net/netfilter/core.c for the order:
    ascending priorities, of equal ones the chain that was registered last comes first; nf_hook_slow: the
    first drop ends it, an accept ends only its own chain.

    router   prerouting, forward, postrouting
    server   prerouting, input for what goes to the server; output, postrouting for what it sends
    client   the same, seen from the client

Where any artifact asks for it, fragments are put together at -400, connections are tracked at -200, and a
connection is remembered only once its packet has passed all hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from analyzer.model import Side
from rulegen.evaluate.base import Connection, Decision, Entry, Evaluated, Fate, Hit, Passing, Undecidable

DEFRAG: Final = -400
CONNTRACK: Final = -200
"""NF_IP_PRI_CONNTRACK_DEFRAG, NF_IP_PRI_CONNTRACK."""

HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
_FAMILIES: Final = ("ip", "ip6")
_FORWARDED: Final = ("prerouting", "forward", "postrouting")
_RECEIVED: Final = ("prerouting", "input")
_SENT: Final = ("output", "postrouting")
_TRACKED: Final = ("prerouting", "output")
"""Hooks in which packets meet the tracker first."""


class Place(StrEnum):
    """Where the firewall is."""

    ROUTER = "router"
    """Between client and server."""
    SERVER = "server"
    CLIENT = "client"


def hooks(place: Place, sender: Side) -> tuple[str, ...]:
    """The hooks that a packet of this sender passes, in order."""
    if place is Place.ROUTER:
        return _FORWARDED
    return _SENT if sender.name.lower() == place.value else _RECEIVED


def hooks_at(place: Place) -> frozenset[str]:
    """The hooks that any packet passes."""
    return frozenset(hook for sender in Side for hook in hooks(place, sender))


class Tracker(Protocol):
    """Of connections: conntrack.Conntrack."""

    def track(self, passing: Passing) -> Fate: ...

    def confirm(self, passing: Passing) -> Fate: ...

    def doubt(self, passing: Passing) -> None: ...


class Gatherer(Protocol):
    """Of fragments: defrag.Reassembly."""

    def gather(self, passing: Passing) -> Fate: ...


class Outcome(NamedTuple):
    """What becomes of a packet."""

    fate: Fate
    by: Hit | None
    """The rule that decided; None: a chain's policy, or `why`."""
    why: str
    """Where no rule decided: which chain's policy dropped it, what connection tracking did, what is not
    known. Empty: it got through."""


PASSED: Final = Outcome(Fate.ACCEPT, None, "")
_UNTRACKABLE: Final = Outcome(Fate.DROP, None, "connection tracking")
_UNCERTAIN: Final = "the fate of an earlier packet of its connection is not known"


class Firewall:
    """The chains of all artifacts at their places, and what they remember of connections."""

    def __init__(
        self,
        artifacts: Sequence[Evaluated],
        tracker: Tracker,
        reassembly: Gatherer,
        *,
        place: Place = Place.ROUTER,
        marks: bool = True,
    ) -> None:
        """Put the chains in order.

        Args:
            artifacts: In the order in which they were loaded.
            tracker: New, as after loading; so is the reassembly.
            reassembly: Of IP fragments.
            place: Where the firewall is.
            marks: Rules set marks of connections, so that what is not known of a packet may be one.
        """
        self._tracker = tracker
        self._reassembly = reassembly
        self._marks = marks
        self._tracked = {
            family for artifact in artifacts if artifact.tracking for family in _families(artifact.entries)
        }
        entries = [entry for artifact in artifacts for entry in artifact.entries]
        self._ways = {
            (family, sender): tuple(_in_order(entries, family, hooks(place, sender)))
            for family in _FAMILIES
            for sender in Side
        }
        self._uncertain: set[Connection] = set()
        """Connections of which it is not known how they are marked."""

    @property
    def tracks_first(self) -> bool:
        """No chain sees packets before connection tracking: `track_only` and `pass_chains` are all of it."""
        early = {
            entry.priority < CONNTRACK
            for way in self._ways.values()
            for _, entries in way
            for entry in entries
        }
        return not self._tracked or True not in early

    def judge(self, passing: Passing, sender: Side = Side.CLIENT) -> Outcome:
        """Take a packet through its hooks; `passing` has then what it met on its way."""
        try:
            outcome = self._pass(passing, sender)
        except Undecidable as unknown:
            outcome = Outcome(Fate.UNKNOWN, None, unknown.why)
        self._settle(passing, outcome)
        return outcome

    def track_only(self, passing: Passing) -> Outcome | None:
        """What tracking makes of a packet that is no fragment; None: the chains judge."""
        if len(self._tracked) < len(_FAMILIES) and passing.family not in self._tracked:
            return None
        try:
            if self._tracker.track(passing) is Fate.DROP:
                return _UNTRACKABLE
            if self._uncertain and passing.connection in self._uncertain:
                raise Undecidable(_UNCERTAIN)
        except Undecidable as unknown:
            outcome = Outcome(Fate.UNKNOWN, None, unknown.why)
            self._settle(passing, outcome)
            return outcome
        return None

    def pass_chains(self, passing: Passing, sender: Side) -> Outcome:
        """What the chains make of a packet that has been tracked, but not yet confirmed."""
        try:
            for _, entries in self._ways[passing.family, sender]:
                for entry in entries:
                    decision = entry.judge(passing)
                    if decision.fate is not Fate.ACCEPT:
                        return _decided(entry, decision)
        except Undecidable as unknown:
            outcome = Outcome(Fate.UNKNOWN, None, unknown.why)
            self._settle(passing, outcome)
            return outcome
        return PASSED

    def leave(self, passing: Passing) -> Outcome:
        """The end of the way of a packet that got through all chains."""
        if passing.family in self._tracked and self._tracker.confirm(passing) is Fate.DROP:
            return Outcome(Fate.DROP, None, "connection tracking: it clashes with a connection")
        return PASSED

    def _settle(self, passing: Passing, outcome: Outcome) -> None:
        connection = passing.connection
        if outcome.fate is Fate.UNKNOWN and connection is not None:
            self._tracker.doubt(passing)
            if self._marks and connection.confirmed:
                self._uncertain.add(connection)

    def _pass(self, passing: Passing, sender: Side) -> Outcome:
        family = passing.family
        tracked = family in self._tracked
        for hook, entries in self._ways[family, sender]:
            waiting = [DEFRAG, CONNTRACK] if tracked and hook in _TRACKED else []
            for entry in entries:
                while waiting and waiting[0] <= entry.priority:
                    if (outcome := self._track(waiting.pop(0), passing)) is not None:
                        return outcome
                decision = entry.judge(passing)
                if decision.fate is not Fate.ACCEPT:
                    return _decided(entry, decision)
            for step in waiting:
                if (outcome := self._track(step, passing)) is not None:
                    return outcome
        return self.leave(passing)

    def _track(self, step: int, passing: Passing) -> Outcome | None:
        if step == DEFRAG:
            fate = self._reassembly.gather(passing)
            if fate is Fate.STOLEN:
                return Outcome(fate, None, "a fragment of a datagram that is not whole")
            return Outcome(fate, None, "a fragment that contradicts others") if fate is Fate.DROP else None
        if self._tracker.track(passing) is Fate.DROP:
            return _UNTRACKABLE
        if passing.connection in self._uncertain:
            raise Undecidable(_UNCERTAIN)
        return None


def _decided(entry: Entry, decision: Decision) -> Outcome:
    return Outcome(decision.fate, decision.by, "" if decision.by else f"policy of {entry.name}")


def _families(entries: Iterable[Entry]) -> Iterable[str]:
    for entry in entries:
        yield from _FAMILIES if entry.family == "inet" else (entry.family,)


def _in_order(
    entries: Sequence[Entry], family: str, way: Sequence[str]
) -> Iterable[tuple[str, tuple[Entry, ...]]]:
    for hook in way:
        found = [entry for entry in entries if entry.hook == hook and entry.family in (family, "inet")]
        found.reverse()  # the sort is stable: of equal priorities, what was registered last comes first
        yield hook, tuple(sorted(found, key=lambda entry: entry.priority))
