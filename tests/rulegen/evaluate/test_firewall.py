"""The order in which packets meet chains, reassembly and tracking, with chains that do as they are told."""

from __future__ import annotations

import pytest

from analyzer.model import Side
from rulegen.evaluate.base import Connection, Decision, Entry, Evaluated, Fate, Hit, Passing, Undecidable
from rulegen.evaluate.firewall import PASSED, Firewall, Outcome, Place, hooks, hooks_at
from rulegen.testbed.packets import Segment

DROPS = Hit("inet a", "stop", 1, None)


def packet(number: int = 1, source: str = "192.0.2.1", destination: str = "198.51.100.7") -> Passing:
    data = Segment(source=source, destination=destination, source_port=40000, destination_port=443).packet()
    return Passing(number=number, time_ns=0, data=data, captured=len(data))


class Tracker:
    """Tracks and gathers everything, and notes it in the story."""

    def __init__(self, story: list[str]) -> None:
        self.story = story
        self.connection = Connection()
        self.fates = dict.fromkeys(("gather", "track", "confirm"), Fate.ACCEPT)

    def _note(self, what: str) -> Fate:
        self.story.append(what)
        return self.fates[what]

    def gather(self, passing: Passing) -> Fate:
        return self._note("gather")

    def track(self, passing: Passing) -> Fate:
        passing.connection = self.connection
        return self._note("track")

    def confirm(self, passing: Passing) -> Fate:
        self.connection.confirmed = True
        return self._note("confirm")

    def doubt(self, passing: Passing) -> None:
        self.story.append("doubt")


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def tracker(story) -> Tracker:
    return Tracker(story)


@pytest.fixture
def chain(story):
    def make(name, hook="forward", priority=0, family="inet", decision=Decision(Fate.ACCEPT, None)) -> Entry:  # noqa: B008
        def judge(passing: Passing) -> Decision:
            story.append(name)
            if isinstance(decision, Undecidable):
                raise decision
            return decision

        return Entry(hook, priority, family, name, judge)

    return make


@pytest.fixture
def firewall(tracker):
    def make(*chains: Entry, tracking: bool = False, **options: object) -> Firewall:
        artifacts = [Evaluated(entries=(one,), tracking=tracking) for one in chains]
        return Firewall(artifacts, tracker, tracker, **options)

    return make


def test_a_forwarded_packet_passes_three_hooks_and_their_chains_by_priority(firewall, chain, story):
    judged = firewall(
        chain("post", "postrouting"),
        chain("late", priority=10),
        chain("early", priority=-10),
        chain("pre", "prerouting", 500),
        chain("in", "input"),
        chain("out", "output"),
    ).judge(packet())
    assert judged == PASSED
    assert story == ["pre", "early", "late", "post"]


def test_of_equal_priorities_the_last_that_was_loaded_comes_first(firewall, chain, story):
    firewall(chain("first"), chain("second"), chain("before", priority=-1)).judge(packet())
    assert story == ["before", "second", "first"]


def test_packets_enter_chains_of_their_family_only(firewall, chain, story):
    wall = firewall(chain("both"), chain("four", family="ip"), chain("six", family="ip6"))
    wall.judge(packet())
    assert story == ["four", "both"]
    story.clear()
    wall.judge(packet(source="2001:db8::1", destination="2001:db8::2"))
    assert story == ["six", "both"]


def test_the_first_drop_ends_it_and_an_accept_ends_its_own_chain_only(firewall, chain, story):
    accepted = Decision(Fate.ACCEPT, Hit("inet a", "go", 1, None))
    judged = firewall(
        chain("go", priority=1, decision=accepted),
        chain("stop", priority=2, decision=Decision(Fate.DROP, DROPS)),
        chain("never", priority=3),
    ).judge(packet())
    assert judged == Outcome(Fate.DROP, DROPS, "")
    assert story == ["go", "stop"]


def test_a_policy_that_drops_is_told_by_its_chain(firewall, chain):
    judged = firewall(chain("ip filter FORWARD", decision=Decision(Fate.DROP, None))).judge(packet())
    assert judged == Outcome(Fate.DROP, None, "policy of ip filter FORWARD")


@pytest.mark.parametrize(
    ("place", "sender", "passed"),
    [
        (Place.ROUTER, Side.CLIENT, ("prerouting", "forward", "postrouting")),
        (Place.ROUTER, Side.SERVER, ("prerouting", "forward", "postrouting")),
        (Place.SERVER, Side.CLIENT, ("prerouting", "input")),
        (Place.SERVER, Side.SERVER, ("output", "postrouting")),
        (Place.CLIENT, Side.CLIENT, ("output", "postrouting")),
        (Place.CLIENT, Side.SERVER, ("prerouting", "input")),
    ],
)
def test_where_the_firewall_is_decides_the_hooks(firewall, chain, story, place, sender, passed):
    assert hooks(place, sender) == passed
    assert set(passed) <= hooks_at(place)
    names = ("postrouting", "output", "forward", "input", "prerouting")
    firewall(*(chain(name, name) for name in names), place=place).judge(packet(), sender)
    assert tuple(story) == passed


def test_fragments_are_gathered_before_raw_and_connections_tracked_behind_it(firewall, chain, story):
    chains = (
        chain("fragments", "prerouting", -450),
        chain("raw", "prerouting", -300),
        chain("mangle", "prerouting", -150),
        chain("filter"),
    )
    firewall(*chains, tracking=True).judge(packet())
    assert story == ["fragments", "gather", "raw", "track", "mangle", "filter", "confirm"]
    story.clear()
    firewall(*chains).judge(packet())
    assert story == ["fragments", "raw", "mangle", "filter"]


def test_what_is_sent_from_here_is_tracked_in_the_output_hook(firewall, chain, story):
    wall = firewall(chain("out", "output"), tracking=True, place=Place.SERVER)
    wall.judge(packet(), Side.SERVER)
    assert story == ["gather", "track", "out", "confirm"]


def test_a_family_without_rules_that_ask_for_tracking_is_not_tracked(firewall, chain, story):
    firewall(chain("four", family="ip"), tracking=True).judge(
        packet(source="2001:db8::1", destination="2001:db8::2")
    )
    assert story == []


def test_a_dropped_packet_confirms_nothing(firewall, chain, story):
    firewall(chain("stop", decision=Decision(Fate.DROP, DROPS)), tracking=True).judge(packet())
    assert story == ["gather", "track", "stop"]


@pytest.mark.parametrize(
    ("step", "fate", "why"),
    [
        ("gather", Fate.STOLEN, "a fragment of a datagram that is not whole"),
        ("gather", Fate.DROP, "a fragment that contradicts others"),
        ("track", Fate.DROP, "connection tracking"),
        ("confirm", Fate.DROP, "connection tracking: it clashes with a connection"),
    ],
)
def test_what_tracking_keeps_or_drops_says_why(firewall, chain, tracker, step, fate, why):
    tracker.fates[step] = fate
    assert firewall(chain("filter"), tracking=True).judge(packet()) == Outcome(fate, None, why)


def test_what_a_chain_cannot_know_is_told_and_doubted(firewall, chain, story):
    wall = firewall(chain("cut", decision=Undecidable("its bytes were cut")), tracking=True)
    assert wall.judge(packet()) == Outcome(Fate.UNKNOWN, None, "its bytes were cut")
    assert story == ["gather", "track", "cut", "doubt"]


def test_behind_an_unknown_packet_the_marks_of_its_connection_are_unknown(firewall, chain, tracker):
    decisions = iter((Undecidable("its bytes were cut"), None))

    def judge(passing: Passing) -> Decision:
        if (unknown := next(decisions)) is not None:
            raise unknown
        return Decision(Fate.ACCEPT, None)

    tracker.connection.confirmed = True
    wall = firewall(Entry("forward", 0, "inet", "cut", judge), tracking=True)
    wall.judge(packet(1))
    assert wall.judge(packet(2)).why == "the fate of an earlier packet of its connection is not known"
    tracker.connection = Connection(confirmed=True)
    assert wall.judge(packet(3)) == PASSED


def test_rules_that_mark_nothing_leave_nothing_unknown_behind(firewall, chain, tracker):
    tracker.connection.confirmed = True
    wall = firewall(chain("cut", decision=Undecidable("cut")), tracking=True, marks=False)
    assert [wall.judge(packet(number)).why for number in (1, 2)] == ["cut", "cut"]
