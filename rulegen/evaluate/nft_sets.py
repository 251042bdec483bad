"""Sets and maps of nft, as lookups and dynamic changes find them.

In:  SetContent of an artifact; keys as bytes of registers, padded to whole words.
Out: NftSet: find, add, update, delete.
Source: Linux net/netfilter/nft_set_hash.c, nft_set_rbtree.c, nft_set_pipapo.c, nft_dynset.c.

Time-outs run by the capture's clock; those of elements that the file brings start with the first packet.
The kernel measures them in ticks, so that within 10 ms of its end an element is Undecidable.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from rulegen.artifacts.model import Element, SetContent
from rulegen.artifacts.nft_values import Expression, NftVerdict
from rulegen.artifacts.unknown import Unknown
from rulegen.evaluate.base import Undecidable
from rulegen.evaluate.nft_connections import Known
from rulegen.evaluate.nft_loads import Unmodelled
from rulegen.evaluate.nft_packet import Seen
from rulegen.evaluate.nft_state import Stateful, stateful

_SECOND_NS: Final = 1_000_000_000
TICK_NS: Final = 10_000_000
"""A jiffy of a kernel with HZ=100."""

_DYNAMIC_SIZE: Final = 65535
"""Of a dynamic set that says none."""

_SHORT: Final = "a time-out of less than a second"
"""nft lists whole seconds."""

_NODES_KEPT: Final = 4096
_WORD: Final = 4


@dataclass(slots=True, eq=False)
class Entry:
    """An element at work."""

    value: bytes | NftVerdict | str | None = None
    timeout_ns: int | None = None
    expires_ns: int | None = None
    """None: never, or not before the first packet is seen."""
    states: tuple[Stateful, ...] = ()

    def lets(self, seen: Seen) -> bool:
        """Whether what the element has for itself lets the rule go on."""
        return all(state(seen) for state in self.states)


Find = Callable[[bytes], "Entry | None"]


@dataclass(slots=True, eq=False)
class NftSet:
    name: str
    data: str | None
    """Of a map: what it gives; None where the file does not say."""
    find: Find
    """An entry by its key, whether it has expired or not."""
    timed: bool
    exact: dict[bytes, Entry]
    any_key: Entry | None
    timeout_ns: int
    """Of elements that say nothing else; 0: they stay."""
    size: int
    statements: tuple[Expression | Unknown, ...]
    known: Known
    entries: tuple[Entry, ...]
    """Of the file."""
    waiting: list[Entry] = field(default_factory=list)
    """Those of the file with a time-out, which the first packet starts."""

    @property
    def continues(self) -> bool:
        """Of a verdict map: some key lets the rule go on."""
        return any(isinstance(one.value, NftVerdict) and one.value.kind == "continue" for one in self.entries)

    def look(self, key: bytes, seen: Seen) -> Entry | None:
        """The living entry of a key."""
        found = self.find(key)
        if not self.timed:
            return found
        if self.waiting:
            self._start(seen.passing.time_ns)
        if found is not None and self._alive(found, seen):
            return found
        if self.any_key is not None and found is not self.any_key and self._alive(self.any_key, seen):
            return self.any_key
        return None

    def change(
        self,
        op: str,
        key: bytes,
        seen: Seen,
        timeout_ns: int,
        statements: tuple[Expression | Unknown, ...],
    ) -> Entry | None:
        """Add, update or delete; the entry that is there then, None: it was deleted or there is no room."""
        if self.waiting:
            self._start(seen.passing.time_ns)
        if op == "delete":
            self.exact.pop(key, None)
            return None
        entry = self.exact.get(key)
        timeout_ns = timeout_ns or self.timeout_ns
        now = seen.passing.time_ns
        if entry is None or not self._alive(entry, seen):
            if entry is None and len(self.exact) >= self.size and not self._make_room(seen):
                return None
            own = tuple(
                state for part in statements or self.statements if (state := stateful(part, self.known))
            )
            entry = Entry(None, timeout_ns or None, now + timeout_ns if timeout_ns else None, own)
            self.exact[key] = entry
        elif op == "update" and entry.expires_ns is not None:
            entry.expires_ns = now + timeout_ns
        return entry

    def _start(self, now: int) -> None:
        for entry in self.waiting:
            entry.expires_ns = now + (entry.timeout_ns or 0)
        self.waiting.clear()

    def _alive(self, entry: Entry, seen: Seen) -> bool:
        if entry.expires_ns is None:
            return True
        left = entry.expires_ns - seen.passing.time_ns
        if -TICK_NS < left < TICK_NS:
            raise Undecidable(f"an element of set {self.name} expires within 10 ms of the packet")
        return left > 0

    def _make_room(self, seen: Seen) -> bool:
        """The set is full: what has expired is removed, some time, by the kernel's garbage collector."""
        now = seen.passing.time_ns
        if any(entry.expires_ns is not None and entry.expires_ns < now for entry in self.exact.values()):
            raise Undecidable(f"set {self.name} is full, and some of its elements have expired")
        return False


def make(content: SetContent, known: Known, *, dynamic: bool) -> NftSet:
    """A set as it is when the rules have just been loaded.

    Args:
        content: Of the artifact.
        known: What the ruleset knows of connections.
        dynamic: Rules change it.

    Raises:
        Unmodelled: Its elements have something for themselves that has no model.
    """
    if content.timeout_s == 0:
        raise Unmodelled(_SHORT)
    sizes = tuple(-(-width // _WORD) * _WORD for width in content.widths)
    made: list[tuple[Element, Entry]] = [(one, _entry(one, content, known)) for one in content.elements]
    any_key = next((entry for one, entry in made if not one.key), None)
    exact = {
        b"".join(map(_padded, (low for low, _ in one.key))): entry
        for one, entry in made
        if one.key and all(low == high for low, high in one.key)
    }
    spans = [(one.key, entry) for one, entry in made if any(low != high for low, high in one.key)]
    find: Find = exact.get
    if spans:
        # Every element of a set with intervals is in one structure: an exact key may lie in a span too.
        keyed = [(one.key, entry) for one, entry in made if one.key]
        find = _by_interval(keyed) if len(sizes) == 1 else _by_concatenation(content.name, keyed, sizes)
    if any_key is not None:
        find = _or_else(find, any_key)
    waiting = [entry for _, entry in made if entry.timeout_ns is not None]
    return NftSet(
        name=content.name,
        data=content.data,
        find=find,
        timed=dynamic or bool(waiting),
        exact=exact,
        any_key=any_key,
        timeout_ns=(content.timeout_s or 0) * _SECOND_NS,
        size=content.size or _DYNAMIC_SIZE,
        statements=content.statements,
        known=known,
        entries=tuple(entry for _, entry in made),
        waiting=waiting,
    )


def _entry(element: Element, content: SetContent, known: Known) -> Entry:
    seconds = element.timeout_s if element.timeout_s is not None else content.timeout_s
    if seconds == 0:
        raise Unmodelled(_SHORT)
    if element.expires_s is not None:
        seconds = element.expires_s
    return Entry(
        element.value, seconds * _SECOND_NS if seconds else None, None, _states(content.statements, known)
    )


def _states(parts: Iterable[Expression | Unknown], known: Known) -> tuple[Stateful, ...]:
    return tuple(state for part in parts if (state := stateful(part, known)))


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % _WORD)


def _or_else(find: Find, other: Entry) -> Find:
    return lambda key: find(key) or other


_Keyed = tuple[tuple[tuple[bytes, bytes], ...], Entry]


def _by_interval(elements: Iterable[_Keyed]) -> Find:
    """One component: intervals do not overlap, the kernel sees to it."""
    ordered = sorted(
        ((_padded(key[0][0]), _padded(key[0][1]), entry) for key, entry in elements), key=lambda one: one[0]
    )
    lows = [low for low, _, _ in ordered]

    def find(key: bytes) -> Entry | None:
        at = bisect_right(lows, key) - 1
        if at < 0:
            return None
        _, high, entry = ordered[at]
        return entry if key <= high else None

    return find


def _by_concatenation(name: str, elements: Sequence[_Keyed], sizes: tuple[int, ...]) -> Find:
    """Several components, each an interval: narrowed down component by component."""
    first = _Level(elements, 0)

    @lru_cache(_NODES_KEPT)
    def below(level: _Level, at: int) -> _Level:
        return _Level(level.within(at), level.component + 1)

    def find(key: bytes) -> Entry | None:
        level, start = first, 0
        found: list[_Keyed] = []
        for component, size in enumerate(sizes):
            at = level.segment(key[start : start + size])
            if at is None:
                return None
            start += size
            if component == len(sizes) - 1:
                found = level.within(at)
            else:
                level = below(level, at)
        if len({one.value for _, one in found}) > 1:
            raise Undecidable(f"elements of set {name} with different values overlap")
        return found[0][1] if found else None

    return find


class _Level:
    """Elements by one component of their key: the segments between all the intervals' ends."""

    def __init__(self, elements: Sequence[_Keyed], component: int) -> None:
        self.component = component
        bounds: set[int] = set()
        for key, _ in elements:
            low, high = key[component]
            bounds |= {int.from_bytes(low), int.from_bytes(high) + 1}
        self._bounds = sorted(bounds)
        self._width = len(elements[0][0][component][0]) if elements else 0
        self._segments: list[list[_Keyed]] = [[] for _ in self._bounds]
        for one in elements:
            low, high = one[0][component]
            start = bisect_left(self._bounds, int.from_bytes(low))
            for at in range(start, bisect_left(self._bounds, int.from_bytes(high) + 1)):
                self._segments[at].append(one)

    def segment(self, key: bytes) -> int | None:
        at = bisect_right(self._bounds, int.from_bytes(key[: self._width])) - 1
        return at if at >= 0 and self._segments[at] else None

    def within(self, at: int) -> list[_Keyed]:
        return self._segments[at]
