"""Version downgrade as one connection shows it (catalogue DG01 to DG04, DG08, DG12 to DG16, DG18).

Source: RFC 8446 4.1.3 (sentinel in the server's random), 4.2.1, D.3; RFC 7507 (fallback SCSV); RFC 6176,
7568, 8996 (versions that must not be used); RFC 9325 3.1.

The sentinel only counts below TLS 1.3: a server that sets it in a TLS 1.3 ServerHello is broken (DG03),
nobody was downgraded. A client that names a draft of TLS 1.3 may meet a server that has TLS 1.3 but not that
draft: no downgrade either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.connections import Batch
from analyzer.detect import hellos
from analyzer.detect.base import Detector, Evidence, Hit, Rule
from analyzer.detect.hellos import Hellos
from analyzer.model import Action, Severity
from analyzer.tls import hello

SSL2, SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0002, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
DEPRECATED: Final = (SSL2, SSL3, TLS10, TLS11)
_NEGOTIATED_SEVERITY: Final = {
    SSL2: Severity.HIGH,
    SSL3: Severity.HIGH,
    TLS10: Severity.MEDIUM,
    TLS11: Severity.LOW,
}
_OFFERED_SEVERITY: Final = {
    SSL2: Severity.MEDIUM,
    SSL3: Severity.MEDIUM,
    TLS10: Severity.LOW,
    TLS11: Severity.LOW,
}
_RETIRED_BY: Final = {SSL2: "RFC 6176", SSL3: "RFC 7568", TLS10: "RFC 8996", TLS11: "RFC 8996"}

RULES: Final = (
    Rule(
        "DG01",
        "TLS 1.3 downgraded: the server's random contradicts its version",
        Severity.HIGH,
        Action.TAMPERING,
        "The client offers TLS 1.3 and the server answered with less, yet its random ends in the mark "
        "that only a server that has more puts there. So the server never saw the offer as the client "
        "sent it: somebody between them changed it, or a TLS-terminating proxy passes on the random "
        "of another server. The client must refuse this ServerHello. Both addresses are victims; "
        "compare the ClientHello at the client and at the server to find where it changes.",
        ("RFC 8446 4.1.3",),
    ),
    Rule(
        "DG02",
        "TLS 1.2 downgraded: the server's random contradicts its version",
        Severity.HIGH,
        Action.TAMPERING,
        "The client offers TLS 1.2, the server answered with TLS 1.1 or less, and its random ends in "
        "the mark of a server that has at least TLS 1.2. Somebody between them changed the offer, or "
        "the server disables TLS 1.2 for some names only. Both addresses are victims.",
        ("RFC 8446 4.1.3",),
    ),
    Rule(
        "DG03",
        "Downgrade mark that does not fit the version",
        Severity.INFO,
        Action.INFORM,
        "The server's random ends in a downgrade mark that belongs to another version than the one "
        "negotiated. Known of broken servers; it is no proof of a downgrade.",
        ("RFC 8446 4.1.3", "haskell-tls/hs-tls PR 332"),
    ),
    Rule(
        "DG04",
        "Server has more than this client offers",
        Severity.INFO,
        Action.INFORM,
        "The server's random says that it has a higher version of TLS, and this client did not offer "
        "it. Normal for an old client. If the client is known to offer more, its offer was changed "
        "before this point of capture, or it fell back after a failure: see DG06.",
        ("RFC 8446 4.1.3", "openssl/openssl issue 6756"),
    ),
    Rule(
        "DG08",
        "Client marks its offer as a fallback",
        Severity.INFO,
        Action.INFORM,
        "The client repeats a failed handshake with a lower version and says so (TLS_FALLBACK_SCSV). "
        "Scanners send it too.",
        ("RFC 7507 4",),
    ),
    Rule(
        "DG12",
        "Deprecated protocol version negotiated",
        Severity.MEDIUM,
        Action.POSTURE,
        "Client and server agreed on a version that must not be used any more. Both ends still allow "
        "it; at least one of them needs its configuration or its software updated.",
        ("RFC 6176", "RFC 7568", "RFC 8996", "RFC 9325 3.1.1"),
        policy="min-version",
    ),
    Rule(
        "DG13",
        "Client offers only deprecated protocol versions",
        Severity.LOW,
        Action.POSTURE,
        "The highest version that the client offers must not be used any more: it can't talk to a "
        "server that follows the rules. Its software or its configuration needs an update.",
        ("RFC 8996", "RFC 9325 3.1.1"),
        policy="min-version",
    ),
    Rule(
        "DG14",
        "Hello in SSL 2.0 format",
        Severity.LOW,
        Action.POSTURE,
        "The client sends its first message in the format of SSL 2.0. With version 0002 it offers SSL "
        "2.0 itself, which is broken beyond repair (DROWN turns such a server against its TLS "
        "connections); with a higher one it is software from before 2011.",
        ("RFC 6176", "RFC 8446 D.5", "CVE-2016-0800"),
        policy="min-version",
    ),
    Rule(
        "DG15",
        "Versions of one handshake contradict each other",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "The server picked a version that the client did not offer, or the ClientHello lies in a "
        "record of a higher version than its own. A rewritten hello looks like this, and so do some "
        "broken stacks.",
        ("RFC 5246 E.1", "RFC 8446 4.1.2", "RFC 8446 D"),
    ),
    Rule(
        "DG16",
        "Server ignores the list of supported versions",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "The client lists the versions it accepts, and the server answered with one that is not on "
        "the list. The client must refuse.",
        ("RFC 8446 4.2.1",),
    ),
    Rule(
        "DG18",
        "TLS 1.3 early data answered with an older version",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "A client only sends early data to a server that it knows to have TLS 1.3, and got an older "
        "version now: the server was rolled back, its pool is mixed, or somebody on the path "
        "downgrades. The client must fail.",
        ("RFC 8446 D.3",),
    ),
)


def within(evidence: Evidence) -> Iterator[Hit]:
    """Findings of the hellos."""
    batch = evidence.batch
    if len(batch):
        read = Hellos(batch)
        yield from _sentinels(batch, read)
        yield from _contradictions(batch, read)
        yield from _posture(batch, read)


def _rows(mask: npt.NDArray[np.bool_]) -> list[int]:
    rows: list[int] = np.flatnonzero(mask).tolist()
    return rows


def _sentinels(batch: Batch, read: Hellos) -> Iterator[Hit]:
    server = batch["SERVER_FLAGS"]
    marked = (server >= 0) & (server & hellos.SENTINELS != 0)
    if not marked.any():
        return
    client, version, highest = batch["CLIENT_FLAGS"], batch["VERSION"], batch["CLIENT_MAX"]
    below_12 = (version >= SSL3) & (version <= TLS11)
    fits = hellos.mark_fits(server, version)
    seen = client >= 0
    offers_13 = seen & (batch["OFFERED"] & 1 << 4 != 0)
    dg01 = fits & offers_13 & (client & hello.DRAFT_13 == 0)
    dg02 = fits & seen & below_12 & ~offers_13 & (highest == TLS12)
    dg04 = fits & seen & ~offers_13 & ~dg02 & (client & hello.MALFORMED == 0)
    for name, mask in (("DG01", dg01), ("DG02", dg02), ("DG03", marked & ~fits), ("DG04", dg04)):
        for row in _rows(mask):
            of_12 = read["SERVER_FLAGS"][row] & hello.SENTINEL_12 != 0
            expected = TLS13 if of_12 else TLS12  # at least that is what the server has
            severity = None
            if name == "DG03":
                expected = TLS12 if of_12 else TLS11
                if offers_13[row] and version[row] < TLS13:
                    severity = Severity.MEDIUM  # such a client must refuse either mark (RFC 8446 4.1.3)
            elif name != "DG04":
                expected = read["CLIENT_MAX"][row]
            yield Hit(
                rule=name,
                batch=batch,
                row=row,
                packets=read.client_packets(row) + read.server_packets(row),
                evidence={
                    "expected_version": hellos.version(expected),
                    "seen_version": hellos.version(read["VERSION"][row]),
                    "client_offered": read.offered(row),
                    "random_tail": batch.servers[row].random[-8:].hex(),
                    **read.suite(row),
                    **read.sni(row),
                    "bytes": read.server_bytes(row),
                },
                severity=severity,
            )


def _contradictions(batch: Batch, read: Hellos) -> Iterator[Hit]:
    client, server = batch["CLIENT_FLAGS"], batch["SERVER_FLAGS"]
    version, highest, legacy = batch["VERSION"], batch["CLIENT_MAX"], batch["CLIENT_VERSION"]
    # a draft of TLS 1.3 on either side has its own numbers, and a damaged hello may have lost its list
    judged = (client >= 0) & (client & (hello.MALFORMED | hello.DRAFT_13) == 0)
    both = judged & (server >= 0) & (server & hello.DRAFT_13 == 0) & (version >> 8 == 3)
    listed = client & hello.SUPPORTED_VERSIONS != 0
    selected = server & hello.SUPPORTED_VERSIONS != 0
    minor = np.clip(version - SSL3, 0, 62)
    in_list = (minor <= 8) & (batch["OFFERED"] >> minor & 1 != 0)
    above = both & ~selected & (version > highest) & (highest >= SSL3)
    below = both & ~selected & listed & ~in_list & (version < legacy) & (version < highest)
    ignored = both & ~in_list & np.where(selected, True, listed & (version == TLS12)) & ~above
    early = both & (client & hello.EARLY_DATA != 0) & (version < TLS13) & (batch.side("DATA", False) > 0)
    for name, mask, why in (
        ("DG15", above, "the ServerHello has a higher version than the client offered"),
        ("DG15", below & ~above, "the ServerHello has a lower version than any that the client offered"),
        ("DG16", ignored, "the ServerHello has a version that is not on the client's list"),
        ("DG18", early, "early data, and the ServerHello has an older version than TLS 1.3"),
    ):
        for row in _rows(mask):
            yield Hit(
                rule=name,
                batch=batch,
                row=row,
                packets=read.client_packets(row) + read.server_packets(row),
                evidence={
                    "why": why,
                    "client_offered": read.offered(row),
                    "legacy_version": hellos.version(read["CLIENT_VERSION"][row]),
                    "expected_version": hellos.version(read["CLIENT_MAX"][row]),
                    "seen_version": hellos.version(read["VERSION"][row]),
                    **read.suite(row),
                    **read.sni(row),
                    "bytes": read.server_bytes(row),
                },
            )
    record = batch["CLIENT_FIRST_RECORD"]
    wrapped = (client >= 0) & (client & hello.SSL2_FORMAT == 0) & (legacy >> 8 == 3) & (record > legacy)
    for row in _rows(wrapped & (record <= TLS13)):
        yield Hit(
            rule="DG15",
            batch=batch,
            row=row,
            packets=read.client_packets(row),
            evidence={
                "why": "the ClientHello's record has a higher version than the hello",
                "client_offered": read.offered(row),
                "legacy_version": hellos.version(read["CLIENT_VERSION"][row]),
                "record_version": hellos.version(read["CLIENT_FIRST_RECORD"][row]),
                **read.sni(row),
                "bytes": f"16{read['CLIENT_FIRST_RECORD'][row]:04x}",
                "hello_bytes": read.client_bytes(row),
            },
        )


def _posture(batch: Batch, read: Hellos) -> Iterator[Hit]:
    client, server, version = batch["CLIENT_FLAGS"], batch["SERVER_FLAGS"], batch["VERSION"]
    seen = client >= 0
    for row in _rows(seen & (client & hello.FALLBACK_SCSV != 0)):
        yield Hit(
            rule="DG08",
            batch=batch,
            row=row,
            packets=read.client_packets(row),
            evidence={
                "client_offered": read.offered(row),
                "signal": "TLS_FALLBACK_SCSV",
                **read.sni(row),
                "bytes": "5600",
            },
        )
    answered = (server >= 0) | ((version == SSL2) & (batch["SERVER_HELLO_PACKET"] > 0))
    for row in _rows(answered & np.isin(version, DEPRECATED)):
        value = read["VERSION"][row]
        yield Hit(
            rule="DG12",
            batch=batch,
            row=row,
            packets=read.server_packets(row),
            evidence={
                "expected_version": "TLSv1.2 or higher",
                "seen_version": hellos.version(value),
                "retired_by": _RETIRED_BY[value],
                **read.suite(row),
                **read.sni(row),
                **({"bytes": read.server_bytes(row)} if read["SERVER_FLAGS"][row] >= 0 else {}),
            },
            severity=_NEGOTIATED_SEVERITY[value],
        )
    for row in _rows(seen & np.isin(batch["CLIENT_MAX"], DEPRECATED)):
        value = read["CLIENT_MAX"][row]
        yield Hit(
            rule="DG13",
            batch=batch,
            row=row,
            packets=read.client_packets(row),
            evidence={
                "expected_version": "TLSv1.2 or higher",
                "seen_version": hellos.version(value),
                "retired_by": _RETIRED_BY[value],
                **read.sni(row),
                "bytes": read.client_bytes(row),
            },
            severity=_OFFERED_SEVERITY[value],
        )
    for row in _rows(seen & (client & hello.SSL2_FORMAT != 0)):
        value = read["CLIENT_MAX"][row]
        yield Hit(
            rule="DG14",
            batch=batch,
            row=row,
            packets=read.client_packets(row),
            evidence={"version": hellos.version(value), "bytes": read.client_bytes(row)},
            severity=Severity.HIGH if value == SSL2 else None,
        )


DETECTOR: Final = Detector("downgrade", RULES, within=within)
