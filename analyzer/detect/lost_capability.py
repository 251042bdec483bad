"""What a server has shown in other connections and now does not use (catalogue DG05, DG10, DG17, DG19, DG20).

In:  History.
Out: Hits about the first connection of a client in which a server fell behind, with the number of those that
followed.
Source: RFC 7507 3; RFC 8446 4.1.3 (why a static RSA key exchange can hide a removed downgrade mark); RFC
7301; RFC 9325 4.2.

A server is an address, a port and the name asked for: names on one address may well differ. A resumed
connection keeps the version and the suite of its session (RFC 5246 7.4.1.3), so it never shows that anything
was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from analyzer.connections import text
from analyzer.detect import hellos
from analyzer.detect.base import Hit, Rule
from analyzer.detect.history import History, Rows, group, in_groups
from analyzer.model import Action, Severity
from analyzer.tls import hello
from analyzer.wire.iana import cipher_suite_name
from analyzer.wire.suite_properties import KX_CLASS, KeyExchange, Mode, suite_properties

TLS12, TLS13 = 0x0303, 0x0304
_RESUMED: Final = (2, 3, 4)

RULES: Final = (
    Rule(
        "DG05",
        "Server lost a protocol version",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "This server had negotiated a higher version earlier in the capture, and now picks a lower "
        "one though the client offers the higher. Its configuration changed, several machines with "
        "different configurations answer for it, or somebody on the path changes the offer.",
        ("RFC 8446 4.1.3", "RFC 8446 D"),
    ),
    Rule(
        "DG10",
        "Server ignores the fallback mark",
        Severity.LOW,
        Action.POSTURE,
        "The client marked its offer as a fallback, the server has a higher version, and it went on "
        "all the same. A server with RFC 7507 refuses, so that an attacker who breaks handshakes "
        "gains nothing.",
        ("RFC 7507 3",),
    ),
    Rule(
        "DG17",
        "Version lost together with the signed key exchange",
        Severity.HIGH,
        Action.CORROBORATE,
        "A server that normally signs its key exchange ((EC)DHE) fell back to a lower version with "
        "static RSA. There its random is not signed, which is the one case in which somebody on the "
        "path can take the downgrade mark out of it unnoticed until the end of the handshake.",
        ("RFC 8446 4.1.3", "RFC 8446 D"),
    ),
    Rule(
        "DG19",
        "HTTP/2 lost",
        Severity.INFO,
        Action.INFORM,
        "This pair had agreed on h2, and now the server names another protocol or none though the "
        "client offers h2. Mostly another machine of a pool, or a proxy that reads along.",
        ("RFC 7301 3.2",),
    ),
    Rule(
        "DG20",
        "Server's choice of cipher suite became weaker",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "The same ClientHello (equal suites and fingerprint) got a suite of a weaker class than "
        "before from the same server. Several configurations behind one address look like this, and "
        "so does an attacker who removes the better suites from the offer.",
        ("RFC 9325 4.2", "CVE-2015-0204", "CVE-2015-4000"),
    ),
)

_CLASSES: Final = (
    "unknown",
    "broken: no encryption, no authentication, export or RC4",
    "small blocks or short keys",
    "no forward secrecy",
    "forward secrecy, CBC",
    "forward secrecy, AEAD",
)
_K: Final = KeyExchange
_EPHEMERAL: Final = (_K.DHE, _K.ECDHE, _K.DHE_PSK, _K.ECDHE_PSK)
_STATIC: Final = (_K.RSA, _K.RSA_EXPORT, _K.DH, _K.ECDH, _K.PSK, _K.RSA_PSK, _K.KRB5)


def changes(history: History) -> Iterator[Hit]:
    """DG05, DG10, DG17, DG19 and DG20."""
    answered = (history["SERVER_FLAGS"] >= 0) & (history["CLIENT_FLAGS"] & hello.MALFORMED == 0)
    rows = np.flatnonzero(answered & (history["VERSION"] <= history["CLIENT_MAX"]))
    if len(rows):
        yield from _versions(history, rows)
        yield from _alpn(history, rows)
        yield from _suites(history, rows)


def _best_before(values: Rows, first: Rows) -> tuple[Rows, Rows]:
    """The highest value of a group before each row (-1 for its first), and where it was first reached."""
    at = np.arange(len(values))
    lift = first << 16  # a later group's values lie above all of an earlier one's
    highest = np.maximum.accumulate(values + lift)
    before = np.full(len(values), -1, dtype=np.int64)
    before[1:] = highest[:-1] - lift[1:]
    before[first == at] = -1
    reached = np.maximum.accumulate(np.where(values > before, at, 0))
    return before, np.concatenate([reached[:1], reached[:-1]])


def _firsts(history: History, found: Rows, *keys: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Of the rows found, the first of each key and how many share it."""
    if not len(found):
        return []
    _, at, counts = np.unique(group(*(key[found] for key in keys)), return_index=True, return_counts=True)
    return sorted(zip(found[at].tolist(), counts.tolist(), strict=True))


def _versions(history: History, rows: Rows) -> Iterator[Hit]:
    server = history.same_server()
    rows, first = in_groups(server, rows)
    version = history["VERSION"][rows].astype(np.int64)
    before, reached = _best_before(version, first)
    flags = history["CLIENT_FLAGS"][rows]
    minor = np.clip(before - 0x0300, 0, 15)
    offers = np.where(
        flags & hello.SUPPORTED_VERSIONS != 0,
        history["OFFERED"][rows].astype(np.int64) >> minor & 1 != 0,
        True,
    )
    lost = (
        (version < before)
        & (before <= history["CLIENT_MAX"][rows])
        & offers
        & ~np.isin(history["RESUMED"][rows], _RESUMED)
    )
    better = np.zeros(len(history), dtype=np.int64)
    better[rows] = rows[reached]
    key_exchange = KX_CLASS[history["CIPHER_SUITE"]]
    signed = (history["VERSION"] == TLS13) | np.isin(key_exchange, _EPHEMERAL)
    drops = np.sort(rows[lost])
    stripped = drops[
        np.isin(key_exchange[drops], (_K.RSA, _K.RSA_EXPORT))
        & signed[better[drops]]
        & (history["SERVER_FLAGS"][drops] & hellos.SENTINELS == 0)
    ]
    client = (server, history["CLIENT_UPPER"], history["CLIENT_LOWER"])
    for name, found in (("DG05", drops), ("DG17", stripped)):
        for row, count in _firsts(history, found, *client):
            earlier = int(better[row])
            yield _hit(
                history,
                name,
                row,
                earlier,
                {
                    "expected_version": hellos.version(history.value("VERSION", earlier)),
                    "seen_version": hellos.version(history.value("VERSION", row)),
                    "expected_cipher_suite": cipher_suite_name(history.value("CIPHER_SUITE", earlier)),
                    "cipher_suite": cipher_suite_name(history.value("CIPHER_SUITE", row)),
                    "client_offered": _offered(history, row),
                    "bytes": f"{history.value('VERSION', row):04x}"
                    if name == "DG05"
                    else f"{history.value('CIPHER_SUITE', row):04x}",
                },
                count,
            )
    yield from _ignored_marks(history, rows, first, version)


def _ignored_marks(history: History, rows: Rows, first: Rows, version: Rows) -> Iterator[Hit]:
    """DG10: other connections, before or after, show that the server has more; or its own random does."""
    marked = history["CLIENT_FLAGS"][rows] & hello.FALLBACK_SCSV != 0
    if not marked.any():
        return
    starts = np.flatnonzero(first == np.arange(len(rows)))
    best = np.repeat(np.maximum.reduceat(version, starts), np.diff(np.append(starts, len(rows))))
    flags = history["SERVER_FLAGS"][rows]
    said = np.where(
        hellos.mark_fits(flags, version), np.where(flags & hello.SENTINEL_12 != 0, TLS13, TLS12), 0
    )
    has = np.maximum(best, said)
    for at in np.flatnonzero(marked & (has > history["CLIENT_MAX"][rows])).tolist():
        row = int(rows[at])
        group_end = int(np.searchsorted(first, first[at], side="right"))
        other = (
            int(rows[first[at] + int(np.argmax(version[first[at] : group_end]))])
            if best[at] >= said[at]
            else row
        )
        yield _hit(
            history,
            "DG10",
            row,
            other,
            {
                "expected": "fatal alert inappropriate_fallback",
                "expected_version": hellos.version(int(has[at])),
                "seen_version": hellos.version(history.value("VERSION", row)),
                "cipher_suite": cipher_suite_name(history.value("CIPHER_SUITE", row)),
                "known_from": f"connection {history.value('CONNECTION', other)}"
                if other != row
                else "downgrade mark in its random",
                "bytes": "5600",
            },
        )


def _alpn(history: History, rows: Rows) -> Iterator[Hit]:
    # TLS 1.3 encrypts the server's choice
    rows = rows[(history["VERSION"][rows] <= TLS12) & (history["CLIENT_FLAGS"][rows] & hello.ALPN_H2 != 0)]
    if not len(rows):
        return
    rows, first = in_groups(history.same_pair(history["SNI_HASH"]), rows)
    h2 = np.fromiter((history.alpn(row) == b"h2" for row in rows.tolist()), dtype=np.int64, count=len(rows))
    before, reached = _best_before(h2, first)
    # "normally h2": the first connections of the pair had it, all of them
    others = np.cumsum(1 - h2)
    lost = (h2 == 0) & (before == 1) & (others - others[first] == 1) & (h2[first] == 1)
    for at in np.flatnonzero(lost).tolist():
        row, earlier = int(rows[at]), int(rows[reached[at]])
        yield _hit(
            history,
            "DG19",
            row,
            earlier,
            {
                "expected_protocol": "h2",
                "seen_protocol": text(history.alpn(row)) or "none",
                "seen_version": hellos.version(history.value("VERSION", row)),
                "bytes": history.alpn(row).hex(),
            },
        )


def _suites(history: History, rows: Rows) -> Iterator[Hit]:
    strength = _strength()[history["CIPHER_SUITE"]].astype(np.int64)
    rows = rows[(strength[rows] > 0) & ~np.isin(history["RESUMED"][rows], _RESUMED)]
    if not len(rows):
        return
    same = history.same_server(history["SUITES_HASH"], history["JA4_HASH"], history["CLIENT_MAX"])
    rows, first = in_groups(same, rows)
    before, reached = _best_before(strength[rows], first)
    better = np.zeros(len(history), dtype=np.int64)
    better[rows] = rows[reached]
    for row, count in _firsts(history, np.sort(rows[strength[rows] < before]), same):
        earlier = int(better[row])
        yield _hit(
            history,
            "DG20",
            row,
            earlier,
            {
                "expected_cipher_suite": cipher_suite_name(history.value("CIPHER_SUITE", earlier)),
                "cipher_suite": cipher_suite_name(history.value("CIPHER_SUITE", row)),
                "expected_class": _CLASSES[strength[earlier]],
                "seen_class": _CLASSES[strength[row]],
                "seen_version": hellos.version(history.value("VERSION", row)),
                "bytes": f"{history.value('CIPHER_SUITE', row):04x}",
            },
            count,
        )


def _offered(history: History, row: int) -> list[str]:
    return hellos.offered(
        history.value("CLIENT_FLAGS", row), history.value("CLIENT_MAX", row), history.value("OFFERED", row)
    )


def _hit(
    history: History, rule: str, row: int, earlier: int, evidence: dict[str, object], count: int = 1
) -> Hit:
    """A hit for a connection that an earlier one is held against."""
    capture = history.value("CAPTURE", row)
    name = history.sni(row)
    shown = evidence.pop("bytes")
    if earlier != row:
        evidence["compared_with"] = {
            "connection": history.value("CONNECTION", earlier),
            "capture": history.value("CAPTURE", earlier),
            "packet": history.value("SERVER_HELLO_PACKET", earlier),
        }
    if count > 1:
        evidence["connections_like_this"] = count
    if name:
        evidence["sni"] = text(name)
    evidence["bytes"] = shown
    return Hit(
        rule=rule,
        batch=history.batch(row),
        row=0,
        packets=history.packets(
            capture,
            (row, "HELLO_PACKET"),
            (row, "SERVER_HELLO_PACKET"),
            *(((earlier, "SERVER_HELLO_PACKET"),) if earlier != row else ()),
        ),
        evidence=evidence,
    )


@cache
def _strength() -> npt.NDArray[np.uint8]:
    """Class of each cipher suite, as in _CLASSES."""
    table = np.zeros(0x10000, dtype=np.uint8)
    for code in np.flatnonzero(KX_CLASS).tolist():
        suite = suite_properties(code)
        if suite is None:
            continue
        if (
            suite.mode == Mode.NULL
            or suite.authentication == "anon"
            or suite.export
            or suite.cipher.startswith("RC4")
            or suite.key_bits < 80
        ):
            table[code] = 1
        elif suite.key_bits < 128 or suite.block_bytes == 8:
            table[code] = 2
        elif suite.key_exchange in _STATIC:
            table[code] = 3
        elif suite.tls13 or suite.key_exchange in _EPHEMERAL:
            table[code] = 5 if suite.mode == Mode.AEAD else 4
    return table
