"""What an analysis amounts to, in plain words.

In:  the captures, the totals and the tally.
Out: sentences, harmless to show.

Unknown is said as unknown: `unseen` names what could not be read or judged, so that silence is not taken
for clean.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from analyzer.model import Severity
from analyzer.report.base import Analysed
from analyzer.report.tally import UNKNOWN, Tally
from analyzer.report.text import byte_count, count, duration, listed, moment, visible

VERSIONS: Final = ("TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1.0", "SSLv3", "SSLv2")


def summary(analysis: Analysed, tally: Tally) -> tuple[str, ...]:
    """What was read, how much TLS is in it, and the worst of it, which is the last sentence."""
    sentences = [_read(analysis), _connections(analysis, tally)]
    if tally.connections:
        facts = [f"{tally.established:,} of {count(tally.connections, 'handshake')} completed"]
        resumed = sum(number for how, number in tally.resumed.items() if how not in ("no", UNKNOWN))
        if resumed:
            facts.append(f"{resumed:,} resumed an earlier session")
        for name, number in sorted(tally.starttls.items()):
            facts.append(
                f"{number:,} began inside {'another protocol' if name == UNKNOWN else visible(name)}"
            )
        sentences.append(", ".join(facts) + ".")
    return (*sentences, _verdict(tally))


def unseen(analysis: Analysed, tally: Tally) -> tuple[str, ...]:
    notes = [
        f"{visible(capture.path)} could not be read wholly: {visible(issue.why)} (at byte {issue.offset:,})"
        for capture in analysis.captures
        for issue in capture.errors
    ]
    if tally.incomplete:
        share = f"{count(tally.incomplete, 'connection')} of {tally.connections:,}"
        reason = "bytes missing, or begun before the capture"
        notes.append(f"{share} not seen whole ({reason}): there the order of messages is not judged")
    if number := tally.versions[UNKNOWN]:
        notes.append(
            f"{count(number, 'connection')} without a ServerHello: no version or cipher suite is known"
        )
    if number := tally.resumed[UNKNOWN]:
        notes.append(f"{count(number, 'connection')} of which it can't be told whether a session was resumed")
    if tally.versions["TLSv1.3"]:
        notes.append(
            "TLS 1.3 encrypts all after the ServerHello: certificates and most alerts there can't be seen"
        )
    return tuple(notes)


def version_name(version: str) -> str:
    """`TLS 1.2` for `TLSv1.2`."""
    return visible(version).replace("v", " ", 1)


def _read(analysis: Analysed) -> str:
    captures = analysis.captures
    named = visible(captures[0].path) if len(captures) == 1 else count(len(captures), "capture")
    packets = count(sum(capture.packets for capture in captures), "packet")
    sentence = f"Read {packets} ({byte_count(sum(capture.bytes for capture in captures))}) from {named}"
    starts = [capture.first_ns for capture in captures if capture.first_ns is not None]
    ends = [capture.last_ns for capture in captures if capture.last_ns is not None]
    if starts and ends:
        sentence += f", {duration((max(ends) - min(starts)) / 1e9)} of traffic from {moment(min(starts))}"
    return sentence + "."


def _connections(analysis: Analysed, tally: Tally) -> str:
    tcp, tls = analysis.totals.get("tcp_connections", 0), tally.connections
    if not tcp:
        return "No TCP connection."
    share = {0: "none of them TLS", tcp: "all of them TLS"}.get(tls, f"{tls:,} of them TLS")
    if tcp == 1:
        share = "TLS" if tls else "not TLS"
    if not tls:
        return f"{count(tcp, 'TCP connection')}, {share}."
    order = {name: at for at, name in enumerate(VERSIONS)}
    versions = sorted(tally.versions.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
    if len(versions) == 1 and versions[0][0] != UNKNOWN:
        return f"{count(tcp, 'TCP connection')}, {share.removesuffix('TLS')}{version_name(versions[0][0])}."
    agreed = listed(
        f"{number:,} {'without a version agreed' if name == UNKNOWN else version_name(name)}"
        for name, number in versions
    )
    return f"{count(tcp, 'TCP connection')}, {share}: {agreed}."


def _verdict(tally: Tally) -> str:
    if not tally.kinds:
        return "No findings in what could be seen." if tally.connections else "No findings: no TLS was seen."
    severities: Counter[Severity] = Counter()
    for kind in tally.kinds:
        severities[kind.first.severity] += kind.count
    parts = listed(
        f"{severities[severity]:,} {severity.name.lower()}"
        for severity in reversed(Severity)
        if severities[severity]
    )
    what = f"{count(severities.total(), 'finding')}: {parts}."
    worst = tally.kinds[0].first
    if worst.severity is Severity.INFO:
        return what
    by = f", from {visible(worst.offender)}" if worst.offender else ""
    return f"{what} The worst: {visible(worst.title)} ({visible(worst.id)}){by}."
