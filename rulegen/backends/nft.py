"""Emit a ruleset as one nft file.

In:  Ruleset, checked.
Out: text for `nft -f`, one transaction that replaces table inet tlswall alone; each rule's fidelity.
Source: nft(8), grammar of 1.0.6; Linux 5.16 for @ih (commit c46b38dc8743).

Text, never JSON: nft 1.0.6 can't read its own JSON of sets that are declared with `typeof @ih`.

The table is never deleted and made anew: its sets are flushed and filled again. On Linux 6.18 a set that is
made in the same step as its rules finds no intervals for some 100 us, and packets slip through; one that was
there before holds the old elements until it has the new ones. So the kind of a set must follow from its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from analyzer.wire.fields import FIELDS, Layer
from rulegen.backends.base import Artifact, Checked
from rulegen.backends.header import header
from rulegen.backends.nft_rules import NAME, Writer
from rulegen.backends.nft_text import (
    duration,
    element,
    identifier,
    interval,
    key_of,
    load_words,
    quoted,
)
from rulegen.backends.offline import ask
from rulegen.errors import Refused
from rulegen.ir.rule import ConnectionLimit, Hook, Limit, Ruleset, SetDeclaration, Verdict
from rulegen.lower.literals import Load
from rulegen.lower.ranges import Ranges

TABLE: Final = "tlswall"

PRIORITIES: Final = {Hook.PREROUTING: -145, Hook.INPUT: -5, Hook.FORWARD: -5, Hook.OUTPUT: -5}
"""Before the host's own filters (0), and a number that no other table is likely to have: of equal ones, the
table loaded last comes first. In prerouting behind conntrack (-200) and mangle (-150) and before NAT (-100):
addresses are those on the wire."""

PERIODS_S: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

COUNTED_MIN_S: Final = 3600
"""How long a source is remembered at least, so that sets don't churn."""

_PER_LINE: Final = 6


class NftBackend:
    """nftables, as text."""

    name = NAME
    suffix = ".nft"

    def emit(self, ruleset: Ruleset) -> Artifact:
        """The file, or Refused with all that nft can't say."""
        writer = Writer(ruleset)
        writer.write()
        if writer.refusals:
            raise Refused(writer.refusals)
        text = "\n".join((*_header(ruleset), *_table(ruleset, writer), ""))
        return Artifact(backend=self.name, text=text, fidelity=tuple(writer.fidelity))

    def check(self, text: str) -> Checked:
        """`nft -c` asks the kernel too."""
        return ask(["nft", "--check", "--file", "-"], text, package="nftables")


BACKEND: Final = NftBackend()


def _header(ruleset: Ruleset) -> Iterator[str]:
    yield "#!/usr/sbin/nft -f"
    yield from header(
        ruleset,
        made_for="nftables (nft 1.0.6 or later, Linux 5.16 or later)",
        place=f"{ruleset.hook}, priority {PRIORITIES[ruleset.hook]}, table inet {TABLE}",
        needs=_needs(ruleset),
        commands={
            "Check": "nft -c -f FILE",
            "Load": f"nft -f FILE    replaces the rules of table inet {TABLE} in one step, and nothing else",
            "Watch": f"nft list table inet {TABLE}    counters: [name] is a rule, (name) a step towards it",
            "Remove": f"nft delete table inet {TABLE}",
        },
        limits=(
            "Chains and sets of an earlier file that this one has not stay in the table, unused. Where nft",
            "says `File exists`, a set of that name is of another kind: remove the table first.",
            "Not looked into: TCP inside tunnels or IPsec AH. A TCP segment is judged by itself: what of TLS",
            "starts further inside a segment, or is cut in two, is not seen unless a rule says so. Turn off",
            "receive offloads, which merge segments before rules see them: ethtool -K DEVICE gro off lro off",
        ),
    )
    yield ""


def _needs(ruleset: Ruleset) -> Iterator[str]:
    """Kernel modules besides nf_tables itself; the kernel loads them by itself where it may."""
    if any(rule.verdict is Verdict.RESET for rule in ruleset.rules):
        yield "nft_reject_inet"
    if any(isinstance(rule.limit, Limit) for rule in ruleset.rules):
        yield "nft_limit"
    if any(isinstance(rule.limit, ConnectionLimit) for rule in ruleset.rules):
        yield "nft_connlimit"


@dataclass(frozen=True, slots=True)
class _Set:
    name: str
    kind: tuple[str, ...]
    elements: tuple[str, ...] = ()
    per_line: int = 1

    def block(self, *, filled: bool) -> Iterator[str]:
        lines = _elements(self.elements, self.per_line) if filled else ()
        yield from _block(f"set {self.name}", (*self.kind, *lines))


def _table(ruleset: Ruleset, writer: Writer) -> Iterator[str]:
    sets = tuple(_sets(ruleset, writer))
    yield f"table inet {TABLE} {{"
    for one in sets:
        yield from one.block(filled=False)
    yield "}"
    yield f"flush table inet {TABLE}"
    yield from (f"flush set inet {TABLE} {one.name}" for one in sets)
    yield f"table inet {TABLE} {{"
    for one in sets:
        yield from one.block(filled=True)
    yield from _block(
        f"chain {ruleset.hook}_tls",
        [
            f"type filter hook {ruleset.hook} priority {PRIORITIES[ruleset.hook]}; policy accept;",
            *_tracking(ruleset),
            *writer.entries,
        ],
    )
    for name, lines in writer.chains.items():
        yield from _block(f"chain {name}", lines)
    yield "}"


def _sets(ruleset: Ruleset, writer: Writer) -> Iterator[_Set]:
    yield from map(_declared, ruleset.sets)
    for (load, ranges), name in writer.range_sets.items():
        yield _ranges(name, load, ranges)
    for name, rule in writer.counting_sets.items():
        assert rule.limit is not None, "a set that counts is a limit's"
        yield _Set(name, tuple(_counting(rule.limit)))


def _tracking(ruleset: Ruleset) -> Iterator[str]:
    """Any use of `ct` turns connection tracking on, which reassembles fragments before us."""
    if ruleset.defragment:
        yield f"ct state invalid counter comment {quoted('(tracking) on, so that fragments are reassembled')}"


def _block(head: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"\t{head} {{"
    yield from (f"\t\t{line}" for line in lines)
    yield "\t}"
    yield ""


def _declared(declaration: SetDeclaration) -> _Set:
    flags = [
        name
        for name, wanted in (
            ("interval", _of_intervals(declaration)),
            ("dynamic", declaration.dynamic),
            ("timeout", declaration.timeout_s or any(one.timeout_s for one in declaration.elements)),
        )
        if wanted
    ]
    kind = [f"typeof {key_of(declaration.fields)}"]
    if flags:
        kind.append(f"flags {','.join(flags)}")
    if declaration.timeout_s:
        kind.append(f"timeout {duration(declaration.timeout_s)}")
    if declaration.size or declaration.dynamic:
        kind.append(f"size {declaration.size or 65535}")
    if declaration.meaning:
        kind.append(f"comment {quoted(declaration.meaning)}")
    elements = (
        element(declaration.fields, one.key)
        + (f" timeout {duration(one.timeout_s)}" if one.timeout_s else "")
        + (f" comment {quoted(one.note)}" if one.note else "")
        for one in declaration.elements
    )
    return _Set(identifier("set", declaration.name), tuple(kind), tuple(elements))


def _of_intervals(declaration: SetDeclaration) -> bool:
    """Sets of addresses and ports always are, so that one with prefixes can take the place of one without."""
    if any(low != high for one in declaration.elements for low, high in one.key):
        return True
    return not declaration.dynamic and all(
        FIELDS[field].layer is not Layer.PAYLOAD for field in declaration.fields
    )


def _counting(limit: Limit | ConnectionLimit) -> Iterator[str]:
    """A set that counts per key."""
    yield f"typeof {key_of(limit.key)}"
    yield "size 65535"
    if isinstance(limit, ConnectionLimit):
        # The kernel refuses a time-out here; it drops the keys whose connections are all gone by itself.
        yield "flags dynamic"
        return
    # Forgotten before its burst is full again, a source would get a new one too early.
    full_s = -(-limit.burst * PERIODS_S[limit.per] // limit.packets)
    yield "flags dynamic,timeout"
    yield f"timeout {duration(max(COUNTED_MIN_S, full_s))}"


def _ranges(name: str, load: Load, ranges: Ranges) -> _Set:
    whole = replace(load, mask=(1 << load.width_bits) - 1)
    flags = ("flags interval",) if any(low != high for low, high in ranges) else ()
    elements = tuple(interval(load, *pair) for pair in ranges)
    return _Set(name, (f"typeof {load_words(whole)}", *flags), elements, _PER_LINE)


def _elements(elements: Sequence[str], per_line: int) -> Iterator[str]:
    if elements:
        yield "elements = {"
        for start in range(0, len(elements), per_line):
            yield f"\t{', '.join(elements[start : start + per_line])},"
        yield "}"
