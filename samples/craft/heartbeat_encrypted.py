"""Heartbeat after the handshake, where only record lengths and their order tell.

Source: RFC 6520; CVE-2014-0160; rows HB05 to HB11 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

from samples.craft import tls_bytes as tls
from samples.craft.conversation import Capture
from samples.craft.heartbeat import CLIENT_ADDRESS, PEER_ALLOWED, SERVER_ADDRESS
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Session, begin

GROWN_UP_S = 61
"""Past the minute in which HB11 calls a heartbeat early."""


def scenarios() -> Iterator[Scenario]:
    yield from reverse()
    yield from not_negotiated()
    yield from encrypted()
    yield from timing()


def grown(
    name: str,
    hello: dict[str, int] = PEER_ALLOWED,
    answer: dict[str, int] = PEER_ALLOWED,
    version: int = tls.TLS12,
    suite: tls.Suite = tls.ECDHE_AES_GCM,
    capture: Capture | None = None,
    server: str = SERVER_ADDRESS,
) -> Session:
    """A connection that has carried data for more than a minute."""
    s = begin(name, version, suite, capture=capture, server=server)
    s.full({"suites": (*tls.offered(version), tls.RSA_RC4.code), **hello}, answer)
    s.capture.pause(GROWN_UP_S)
    return s


def reverse() -> Iterator[Scenario]:
    s = grown("hb10-encrypted")
    (asked,) = s.server(s.sealed(1, tls.HEARTBEAT, 19))
    (answered,) = s.client(s.sealed(0, tls.HEARTBEAT, 3 + 0x1000 + 16))
    s.close()
    yield Scenario(
        name="hb10-encrypted",
        what="reverse heartbleed after the handshake: the client answers 43 bytes with 4139",
        capture=s.capture,
        expected=[Expected("HB10", "A", [asked, answered], offender=SERVER_ADDRESS)],
        allowed=["HB05"],
    )


def not_negotiated() -> Iterator[Scenario]:
    for name, hello, answer, side, what in (
        ("hb09-server-silent", PEER_ALLOWED, {}, 0, "the ServerHello did not accept the extension"),
        (
            "hb09-server-mode-2",
            PEER_ALLOWED,
            {"heartbeat_mode": 2},
            0,
            "the server said peer_not_allowed_to_send",
        ),
        (
            "hb09-client-mode-2",
            {"heartbeat_mode": 2},
            PEER_ALLOWED,
            1,
            "the client said so, the server asks it",
        ),
    ):
        s = grown(name, hello, answer)
        send = s.server if side else s.client
        (asked,) = send(s.sealed(side, tls.HEARTBEAT, 51))
        s.close()
        yield Scenario(
            name=name,
            what=f"an encrypted heartbeat request though {what}",
            capture=s.capture,
            expected=[
                Expected("HB09", "A", [asked], offender=SERVER_ADDRESS if side else CLIENT_ADDRESS),
            ],
            allowed=["HB12"] if answer == PEER_ALLOWED else [],
            absent=["HB05", "HB06"] if answer == PEER_ALLOWED else ["HB05", "HB06", "HB12"],
        )

    s = grown("hb09-answer-to-mode-2", {"heartbeat_mode": 2}, PEER_ALLOWED)
    s.client(s.sealed(0, tls.HEARTBEAT, 51))
    s.server(s.sealed(1, tls.HEARTBEAT, 51))
    s.close()
    yield Scenario(
        name="hb09-answer-to-mode-2",
        what="legal: the client forbade requests to itself and asks; the server answers",
        capture=s.capture,
        absent=["HB05", "HB07", "HB09"],
    )

    s = begin("hb13-tls13", tls.TLS13, tls.TLS13_AES_128)
    s.full13({"heartbeat_mode": 1})
    s.capture.pause(GROWN_UP_S)
    (asked,) = s.client(s.record(tls.HEARTBEAT, s.noise.take(60)))
    s.close()
    yield Scenario(
        name="hb13-tls13",
        what="a record of type 24 in an established TLS 1.3 connection, where all have type 23",
        capture=s.capture,
        expected=[Expected("HB13", "B", [asked])],
        absent=["HB03", "HB09"],
    )


def encrypted() -> Iterator[Scenario]:
    s = grown("hb05-16k")
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
    leak = s.server(s.sealed(1, tls.HEARTBEAT, 16384), s.sealed(1, tls.HEARTBEAT, 19))
    s.exchange()
    s.close()
    yield Scenario(
        name="hb05-16k",
        what="encrypted heartbleed: a request of 43 bytes, answered with 16408 + 43",
        capture=s.capture,
        expected=[Expected("HB05", "A", [asked, leak[0]], offender=CLIENT_ADDRESS)],
        absent=["HB01", "HB03", "HB04", "HB06", "HB07"],
    )

    s = grown("hb05-pipelined")
    small, _large = s.client(s.sealed(0, tls.HEARTBEAT, 19), s.sealed(0, tls.HEARTBEAT, 8192))
    leak, _echo = s.server(s.sealed(1, tls.HEARTBEAT, 3 + 4096 + 16), s.sealed(1, tls.HEARTBEAT, 8192))
    s.close()
    yield Scenario(
        name="hb05-pipelined",
        what="encrypted heartbleed behind which a large honest heartbeat is pipelined: a tool that keeps one "
        "last request size sees nothing",
        capture=s.capture,
        expected=[Expected("HB05", "A", [small, leak], offender=CLIENT_ADDRESS)],
        allowed=["HB07", "HB08"],
    )

    capture, leaks = Capture(), []
    for place, (version, suite) in enumerate(
        (
            (tls.TLS12, tls.ECDHE_CHACHA),
            (tls.TLS11, tls.ECDHE_AES_SHA),
            (tls.TLS10, tls.RSA_AES_SHA),
            (tls.TLS10, tls.RSA_RC4),
        )
    ):
        # a server each: one server whose choices differ would be a finding of its own
        s = grown(
            "hb05-suites", version=version, suite=suite, capture=capture, server=f"198.51.100.{place + 1}"
        )
        (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
        (leak,) = s.server(s.sealed(1, tls.HEARTBEAT, 3 + 1024 + 16))
        s.close()
        leaks.append(Expected("HB05", "A", [asked, leak], offender=CLIENT_ADDRESS))
    yield Scenario(
        name="hb05-suites",
        what="encrypted heartbleed of 1 KB: ChaCha20, CBC with and without explicit IV, RC4",
        capture=capture,
        expected=leaks,
        absent=["HB06", "HB07"],
    )

    for name, growth, action in (("16", 16, "I"), ("17", 17, "B"), ("64", 64, "B"), ("65", 65, "A")):
        s = grown(f"hb05-growth-{name}")
        (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 100))
        (answered,) = s.server(s.sealed(1, tls.HEARTBEAT, 100 + growth))
        s.close()
        yield Scenario(
            name=f"hb05-growth-{name}",
            what=f"an encrypted heartbeat whose answer is {growth} bytes longer: RFC 6520 lets padding grow",
            capture=s.capture,
            expected=[Expected("HB05", action, [asked, answered])],
        )

    s = grown("hb05-cbc-block", version=tls.TLS11, suite=tls.ECDHE_AES_SHA)
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 27))  # 16 + 48 bytes: the last size that fits
    (answered,) = s.server(s.sealed(1, tls.HEARTBEAT, 28))  # one more byte, one more block
    s.close()
    yield Scenario(
        name="hb05-cbc-block",
        what="an encrypted heartbeat whose answer is one CBC block longer",
        capture=s.capture,
        expected=[Expected("HB05", "I", [asked, answered])],
    )

    for name, version, suite, count in (
        ("hb06-gcm", tls.TLS12, tls.ECDHE_AES_GCM, 3),
        ("hb06-chacha", tls.TLS12, tls.ECDHE_CHACHA, 18),
        ("hb06-cbc", tls.TLS12, tls.RSA_AES_SHA, 3),
    ):
        s = grown(name, version=version, suite=suite)
        (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, count))
        s.capture.pause(2)
        s.close()
        yield Scenario(
            name=name,
            what=f"an encrypted heartbeat of {count} bytes: too short for the smallest one of 19; unanswered",
            capture=s.capture,
            expected=[Expected("HB06", "A", [asked], offender=CLIENT_ADDRESS)],
            absent=["HB05", "HB08"],
        )

    s = grown("hb06-answered")
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 3))
    (leak,) = s.server(s.sealed(1, tls.HEARTBEAT, 3 + 2048 + 16))
    s.close()
    yield Scenario(
        name="hb06-answered",
        what="an encrypted heartbeat that is too short, answered with 2 KB",
        capture=s.capture,
        expected=[
            Expected("HB06", "A", [asked], offender=CLIENT_ADDRESS),
            Expected("HB05", "A", [asked, leak], offender=CLIENT_ADDRESS),
        ],
    )

    s = grown("hb08-flood")
    for _ in range(5):
        s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.capture.pause(1)
    s.close()
    yield Scenario(
        name="hb08-flood",
        what="five encrypted heartbeats, none answered",
        capture=s.capture,
        expected=[Expected("HB08", "B", [])],
        allowed=["HB07"],
        absent=["HB05", "HB06"],
    )

    capture = Capture()
    for place, (version, suite) in enumerate(
        (
            (tls.TLS12, tls.ECDHE_AES_GCM),
            (tls.TLS12, tls.ECDHE_CHACHA),
            (tls.TLS12, tls.ECDHE_AES_SHA),
            (tls.TLS10, tls.ECDHE_AES_SHA),
        )
    ):
        s = grown(
            "hb-honest", version=version, suite=suite, capture=capture, server=f"198.51.100.{place + 1}"
        )
        for size in (19, 64, 1000):
            s.client(s.sealed(0, tls.HEARTBEAT, size))
            s.server(s.sealed(1, tls.HEARTBEAT, size))
            s.exchange()
        s.server(s.sealed(1, tls.HEARTBEAT, 35))
        s.client(s.sealed(0, tls.HEARTBEAT, 35))
        s.close()
    yield Scenario(
        name="hb-honest",
        what="legal: negotiated, encrypted heartbeats of several suites, all answered alike",
        capture=capture,
        absent=["HB05", "HB06", "HB07", "HB08", "HB09", "HB10", "HB11"],
    )

    s = grown("hb-honest-unanswered")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.capture.pause(10)
    s.close()
    yield Scenario(
        name="hb-honest-unanswered",
        what="one encrypted heartbeat of the smallest legal size, unanswered",
        capture=s.capture,
        absent=["HB05", "HB06", "HB08"],
    )


def timing() -> Iterator[Scenario]:
    s = begin("hb11-before-data")
    s.full(PEER_ALLOWED, PEER_ALLOWED, data=False)
    s.capture.pause(GROWN_UP_S)
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.sealed(1, tls.HEARTBEAT, 19))
    s.close()
    yield Scenario(
        name="hb11-before-data",
        what="an encrypted heartbeat before any application data",
        capture=s.capture,
        expected=[Expected("HB11", "B", [asked])],
    )

    s = begin("hb11-first-minute")
    s.full(PEER_ALLOWED, PEER_ALLOWED)
    s.capture.pause(20)
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.sealed(1, tls.HEARTBEAT, 19))
    s.close()
    yield Scenario(
        name="hb11-first-minute",
        what="an encrypted heartbeat 20 seconds after the SYN",
        capture=s.capture,
        expected=[Expected("HB11", "B", [asked])],
    )
