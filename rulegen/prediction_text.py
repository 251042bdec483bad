"""Tell people what a ruleset would do with captures.

In:  Prediction; how wide the terminal is.
Out: lines; no control character of a capture or a ruleset gets through.

Rules of tlswall that are only steps towards another one, "(name) ..." in their comments, are left out unless
all is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from analyzer.report.text import byte_count, count, listed, visible
from rulegen.evaluate.firewall import Place
from rulegen.evaluate.predict import Collateral, Miss, Prediction, Reason, RuleRow
from rulegen.lines import Line

WIDE: Final = 80
"""Columns from which a rule has a line; below, its numbers have one of their own."""
SHOWN: Final = 10
"""Rows of a list, where not all is asked for."""

_PLACES: Final = {
    Place.ROUTER: "between client and server: packets pass prerouting, forward and postrouting",
    Place.SERVER: "on the server: what goes to it passes prerouting and input, what it sends passes output"
    " and postrouting",
    Place.CLIENT: "on the client: what goes to it passes prerouting and input, what it sends passes output"
    " and postrouting",
}
_IN: Final = "  "
_FURTHER_IN: Final = "      "
_HEAD: Final = ("packets", "bytes", "dropped", "connections")


def prediction_lines(
    prediction: Prediction, place: Place, *, width: int | None, everything: bool
) -> Iterator[Line]:
    """The whole report.

    Args:
        prediction: What is told.
        place: Where the firewall was taken to be.
        width: Columns of the terminal; None: there is none.
        everything: All rules and rows.
    """
    yield from _summary(prediction, place)
    yield from _rules(prediction.rules, width, everything)
    yield from _collateral(prediction.collateral, everything)
    yield from _misses(prediction.misses, everything)
    yield from _reasons("Not known", "bold yellow", prediction.unknown_because)
    yield from _reasons("Dropped without a rule", "bold yellow", prediction.dropped_because)


def _summary(prediction: Prediction, place: Place) -> Iterator[Line]:
    lost, found = len(prediction.collateral), len(prediction.misses)
    yield Line(
        f"{count(prediction.packets, 'packet')}: {prediction.accepted:,} accepted,"
        f" {prediction.dropped:,} dropped{_share(prediction.dropped, prediction.packets)},"
        f" {prediction.unknown:,} not known{_share(prediction.unknown, prediction.packets)}",
        "bold",
    )
    yield Line(
        f"Collateral: {count(lost, 'connection')} without a finding of class A would lose packets",
        "bold yellow" if lost else "bold green",
    )
    yield Line(
        f"Misses: {count(found, 'finding')} of class A would get through",
        "bold red" if found else "bold green",
    )
    yield Line(f"The firewall is {_PLACES[place]}.")
    if prediction.without_ip:
        yield Line(f"{count(prediction.without_ip, 'frame')} without IP not judged")


def _share(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.1f} %)" if part else ""


def _rules(rules: Iterable[RuleRow], width: int | None, everything: bool) -> Iterator[Line]:
    own = [rule for rule in rules if everything or not (rule.comment or "").startswith("(")]
    met = [rule for rule in own if everything or rule.packets]
    yield Line("")
    yield Line("Rules", "bold")
    if not met:
        yield Line("no packet met a rule", head=_IN)
    elif width is None or width >= WIDE:
        yield from _table(met)
    else:
        for rule in met:
            yield Line(_named(rule), _style(rule), _IN)
            numbers = zip(_numbers(rule), _HEAD, strict=True)
            yield Line(", ".join(f"{number} {head}" for number, head in numbers), head=_FURTHER_IN)
    idle = [rule for rule in own if not rule.packets]
    if idle and not everything:
        names = [_name(rule) for rule in idle[:SHOWN]]
        more = [f"{len(idle) - SHOWN:,} more"] if len(idle) > SHOWN else []
        yield Line(f"Met by no packet: {listed([*names, *more])}", head=_IN)


def _table(rules: list[RuleRow]) -> Iterator[Line]:
    cells = [_numbers(rule) for rule in rules]
    widths = [max(map(len, column)) for column in zip(_HEAD, *cells, strict=True)]

    def row(numbers: Iterable[str]) -> str:
        return _IN + "".join(f"{number:>{size}}  " for number, size in zip(numbers, widths, strict=True))

    yield Line("rule", "dim", row(_HEAD))
    for rule, numbers in zip(rules, cells, strict=True):
        yield Line(_named(rule), _style(rule), row(numbers))


def _numbers(rule: RuleRow) -> tuple[str, ...]:
    return f"{rule.packets:,}", byte_count(rule.bytes), f"{rule.dropped:,}", f"{rule.connections:,}"


def _style(rule: RuleRow) -> str:
    return "red" if rule.dropped else ""


def _name(rule: RuleRow) -> str:
    if rule.comment and rule.comment.startswith("["):
        return visible(rule.comment[1:].partition("]")[0])
    return visible(rule.rule)


def _named(rule: RuleRow) -> str:
    found = ", ".join(f"{number:,} {identifier}" for identifier, number in rule.findings.items())
    told = "" if (rule.comment or "").startswith("[") else visible(rule.comment or rule.text)
    return "; ".join(filter(None, (_name(rule), told, f"answers {found}" if found else "")))


def _collateral(rows: tuple[Collateral, ...], everything: bool) -> Iterator[Line]:
    if not rows:
        return
    yield Line("")
    yield Line("Collateral", "bold yellow")
    yield Line(
        "Connections in which nothing of class A was found, and which would lose packets all the same.",
        head=_IN,
    )
    for row in rows if everything else rows[:SHOWN]:
        number = "" if row.connection is None else f" connection {row.connection},"
        ends = f"{visible(row.client)} → {visible(row.server)}"
        yield Line(f"{visible(row.capture)}:{number} {row.protocol} {ends}", "cyan", _IN)
        told = [f"{count(row.packets, 'packet')} ({_packets(row.first, row.packets)})"]
        told.append(f"by {listed(map(visible, row.rules))}")
        if row.findings:
            told.append(f"has {listed(row.findings)}, not of class A")
        if row.offender:
            told.append("one end attacked in another connection")
        yield Line(", ".join(told), head=_FURTHER_IN)
    yield from _more(rows, everything)


def _misses(rows: tuple[Miss, ...], everything: bool) -> Iterator[Line]:
    if not rows:
        return
    yield Line("")
    yield Line("Misses", "bold red")
    yield Line("Findings of class A that no rule stops.", head=_IN)
    for row in rows if everything else rows[:SHOWN]:
        number = "" if row.connection is None else f" connection {row.connection},"
        packets = _packets(row.packets[:SHOWN], len(row.packets))
        yield Line(f"{visible(row.capture)}:{number} {row.finding} {visible(row.title)}", "cyan", _IN)
        yield Line(f"{count(len(row.packets), 'packet')} ({packets})", head=_FURTHER_IN)
    yield from _more(rows, everything)


def _more(rows: tuple[object, ...], everything: bool) -> Iterator[Line]:
    if len(rows) > SHOWN and not everything:
        yield Line(f"and {len(rows) - SHOWN:,} more; --verbose or --format json has all", "dim", _IN)


def _reasons(head: str, style: str, reasons: tuple[Reason, ...]) -> Iterator[Line]:
    if not reasons:
        return
    yield Line("")
    yield Line(head, style)
    for reason in reasons:
        told = f"{count(reason.packets, 'packet')} ({_packets(reason.first, reason.packets)})"
        yield Line(f"{visible(reason.why)}: {told}", head=_IN)


def _packets(first: Iterable[int], total: int) -> str:
    numbers = [str(number) for number in first]
    return ", ".join((*numbers, "...")) if total > len(numbers) else ", ".join(numbers)
