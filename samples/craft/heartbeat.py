"""Heartbeat: over-reads in clear and encrypted, probes, floods, and heartbeats as they should be.

Source: RFC 6520; CVE-2014-0160; rows HB01 to HB15 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

from samples.craft import tls_bytes as tls
from samples.craft.conversation import Capture, Packet
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Hellos, Session, begin

REQUEST, RESPONSE = 1, 2
CLIENT_ADDRESS, SERVER_ADDRESS = "192.0.2.10", "198.51.100.10"
PEER_ALLOWED = {"heartbeat_mode": 1}
"""peer_allowed_to_send in both hellos: the extension is negotiated."""


def scenarios() -> Iterator[Scenario]:
    yield from over_reads()
    yield from probes()
    yield from reverse()
    yield from not_negotiated()
    yield from sweeps()
    yield from around_the_handshake()


def advertised(hellos: Hellos) -> Expected:
    return Expected("HB12", "P", [hellos.server_hello])


def in_handshake(packet: Packet, offender: str = CLIENT_ADDRESS) -> Expected:
    return Expected("HB03", "A", [packet], offender=offender)


def memory(session: Session, count: int) -> bytes:
    """What an over-read brings home: pieces of other people's requests between allocator bytes."""
    piece = (
        b"Cookie: session=8f14e45fceea167a; user=alice\r\n\r\nusername=alice&password=correct+horse\0\0\0\0"
    )
    out = b""
    while len(out) < count:
        out += piece + session.noise.take(24)
    return out[:count]


def response(session: Session, payload: bytes, padding: int = 16) -> list[bytes]:
    """A HeartbeatResponse as OpenSSL 1.0.1 sends it: over records of 16384 bytes."""
    body = tls.heartbeat(RESPONSE, len(payload), payload + session.noise.take(padding))
    return [session.record(tls.HEARTBEAT, body[at : at + 16384]) for at in range(0, len(body), 16384)]


def over_reads() -> Iterator[Scenario]:
    s = begin("hb01-answered", tls.TLS11, tls.ECDHE_AES_SHA)
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(REQUEST, 0x4000))
    answer = s.server(*response(s, memory(s, 0x4000)))
    s.talk.reset(0)
    yield Scenario(
        name="hb01-answered",
        what="heartbleed: 18 03 02 00 03 01 40 00 before encryption, answered with 16 KB in two records",
        capture=s.capture,
        expected=[
            Expected("HB01", "A", [asked], offender=CLIENT_ADDRESS),
            in_handshake(asked),
            Expected("HB04", "A", [asked, answer[0]], {"leaked_bytes": 16384}, CLIENT_ADDRESS),
            advertised(hellos),
        ],
        absent=["HB02", "HB07"],
        connection=[{"version": "TLSv1.1", "cipher_suite_code": 0xC013, "established": False}],
    )

    s = begin("hb01-unanswered")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(REQUEST, 0x4000))
    s.capture.pause(5)
    s.talk.close()
    yield Scenario(
        name="hb01-unanswered",
        what="heartbleed before encryption that the server ignores, as RFC 6520 demands",
        capture=s.capture,
        expected=[
            Expected("HB01", "A", [asked], offender=CLIENT_ADDRESS),
            in_handshake(asked),
            advertised(hellos),
        ],
        absent=["HB02", "HB04", "HB08"],
    )

    s = begin("hb01-ipv6", client="2001:db8:1::10", server="2001:db8:2::10")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(REQUEST, 0xFFFF))
    s.talk.close()
    yield Scenario(
        name="hb01-ipv6",
        what="heartbleed over IPv6 that asks for 65535 bytes, unanswered",
        capture=s.capture,
        expected=[
            Expected("HB01", "A", [asked], offender="2001:db8:1::10"),
            in_handshake(asked, "2001:db8:1::10"),
            advertised(hellos),
        ],
        absent=["HB02", "HB04"],
    )

    s = begin("hb01-padded")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(REQUEST, 0x1000, s.noise.take(61)))
    answer = s.server(*response(s, memory(s, 0x1000)))
    s.talk.close()
    yield Scenario(
        name="hb01-padded",
        what="heartbleed in a record of 64 bytes, long enough for a length check; 4 KB come back",
        capture=s.capture,
        expected=[
            Expected("HB01", "A", [asked], offender=CLIENT_ADDRESS),
            in_handshake(asked),
            # the request held 61 bytes after its header: 4096 + 19 came back, less 19, less those 61
            Expected("HB04", "A", [asked, answer[0]], {"leaked_bytes": 4035}, CLIENT_ADDRESS),
            advertised(hellos),
        ],
        absent=["HB02"],
    )

    for name, cut, what in (
        ("hb01-split-header", (3,), "the record header of the request split over two segments"),
        ("hb01-split-body", (6,), "the request split within its payload_length"),
        ("hb01-split-bytes", tuple(range(8)), "the request sent one byte per segment"),
    ):
        s = begin(name)
        hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
        (asked,) = s.client(s.heartbeat(REQUEST, 0x4000), cut=cut)
        s.talk.close()
        yield Scenario(
            name=name,
            what=f"heartbleed, {what}",
            capture=s.capture,
            expected=[
                Expected("HB01", "A", [asked], offender=CLIENT_ADDRESS),
                in_handshake(asked),
                advertised(hellos),
            ],
            absent=["HB02", "HB04"],
        )

    s = begin("hb01-after-client-hello")
    s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12), heartbeat_mode=1))
    (asked,) = s.client(s.heartbeat(REQUEST, 0x4000))
    s.talk.reset(1)
    yield Scenario(
        name="hb01-after-client-hello",
        what="heartbleed right after a ClientHello that offers TLS 1.3, before any answer",
        capture=s.capture,
        expected=[Expected("HB01", "A", [asked], offender=CLIENT_ADDRESS), in_handshake(asked)],
        absent=["HB09", "HB13"],
    )


def probes() -> Iterator[Scenario]:
    s = begin("hb02-answered")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    payload = s.noise.take(30)
    (asked,) = s.client(s.heartbeat(REQUEST, 30, payload))
    (answered,) = s.server(*response(s, payload))
    s.talk.close()
    yield Scenario(
        name="hb02-answered",
        what="a heartbeat without its padding, answered: a harmless probe that proves the server unpatched",
        capture=s.capture,
        expected=[
            Expected("HB02", "B", [asked, answered], {"answered": True, "leaked_bytes": 0}),
            in_handshake(asked),
            advertised(hellos),
        ],
        absent=["HB01", "HB04", "HB07"],
    )

    s = begin("hb02-15-bytes")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(REQUEST, 30, s.noise.take(30 + 15)))
    s.talk.close()
    yield Scenario(
        name="hb02-15-bytes",
        what="a heartbeat with 15 bytes of padding, one too few; unanswered",
        capture=s.capture,
        expected=[
            Expected("HB02", "B", [asked], {"answered": False}),
            in_handshake(asked),
            advertised(hellos),
        ],
        absent=["HB01", "HB04"],
    )

    s = begin("hb03-16-bytes")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    payload = s.noise.take(30)
    (asked,) = s.client(s.heartbeat(REQUEST, 30, payload + s.noise.take(16)))
    s.server(*response(s, payload))
    s.talk.close()
    yield Scenario(
        name="hb03-16-bytes",
        what="a heartbeat that is right in all but its time, before encryption; answered alike",
        capture=s.capture,
        expected=[in_handshake(asked), advertised(hellos)],
        absent=["HB01", "HB02", "HB04", "HB07"],
    )

    s = begin("hb07-plaintext")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (answered,) = s.server(*response(s, s.noise.take(40)))
    s.talk.close()
    yield Scenario(
        name="hb07-plaintext",
        what="a heartbeat response that nobody asked for, before encryption",
        capture=s.capture,
        expected=[
            Expected("HB07", "B", [answered]),
            Expected("HB03", "A", [answered], offender=SERVER_ADDRESS),
            advertised(hellos),
        ],
        absent=["HB04"],
    )


def reverse() -> Iterator[Scenario]:
    s = begin("hb10-plaintext")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.server(s.heartbeat(REQUEST, 0x2000))
    s.client(*response(s, memory(s, 0x2000)))
    s.talk.close(1)
    yield Scenario(
        name="hb10-plaintext",
        what="reverse heartbleed: the server asks for 8 KB before encryption and the client sends them",
        capture=s.capture,
        expected=[
            Expected("HB10", "A", [asked], offender=SERVER_ADDRESS),
            in_handshake(asked, SERVER_ADDRESS),
            advertised(hellos),
        ],
        allowed=["HB01", "HB04"],
        absent=["HB02"],
    )


def not_negotiated() -> Iterator[Scenario]:
    s = begin("hb09-plaintext")
    s.hellos({}, {})
    (asked,) = s.client(s.heartbeat(REQUEST, 20, s.noise.take(36)))
    s.talk.close()
    yield Scenario(
        name="hb09-plaintext",
        what="a well-formed heartbeat before encryption though neither hello has the extension",
        capture=s.capture,
        expected=[Expected("HB09", "A", [asked], offender=CLIENT_ADDRESS), in_handshake(asked)],
        absent=["HB01", "HB02", "HB12"],
    )


def sweeps() -> Iterator[Scenario]:
    for name, targets, gap, found in (
        ("hb14-sweep", 5, 8.0, True),
        ("hb14-four", 4, 8.0, False),
        ("hb14-slow", 5, 20.0, False),
    ):
        capture, requests = Capture(), []
        for target in range(targets):
            s = begin(name, capture=capture, client="192.0.2.66", server=f"198.51.100.{20 + target}")
            s.hellos(PEER_ALLOWED, PEER_ALLOWED)
            requests += s.client(s.heartbeat(REQUEST, 0x4000))
            s.talk.close()
            capture.pause(gap)
        seconds = round(gap * (targets - 1))
        yield Scenario(
            name=name,
            what=f"heartbleed requests from one source to {targets} servers within {seconds} s",
            capture=capture,
            expected=[
                Expected("HB01", "A", [requests[0]], offender="192.0.2.66"),
                Expected("HB01", "A", [requests[-1]], offender="192.0.2.66"),
                in_handshake(requests[0], "192.0.2.66"),
                *([Expected("HB14", "A", requests, offender="192.0.2.66")] if found else []),
            ],
            absent=[] if found else ["HB14"],
        )


def around_the_handshake() -> Iterator[Scenario]:
    s = begin("hb15-bogus-ccs")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (ccs,) = s.client(s.ccs())
    (asked,) = s.client(s.heartbeat(REQUEST, 0x4000))
    s.talk.close()
    yield Scenario(
        name="hb15-bogus-ccs",
        what="a bogus ChangeCipherSpec, so that a sensor believes in encryption, then heartbleed in clear",
        capture=s.capture,
        expected=[
            Expected("SM03", "A", [ccs], offender=CLIENT_ADDRESS),
            Expected("HB15", "A", [asked], offender=CLIENT_ADDRESS),
            advertised(hellos),
        ],
        allowed=["HB01", "HB03", "HB06", "HB11", "RL04", "SM09"],
    )

    s = begin("hb03-between-ccs")
    hellos = s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.close()
    yield Scenario(
        name="hb03-between-ccs",
        what="an encrypted heartbeat after the client's ChangeCipherSpec, before the server's",
        capture=s.capture,
        expected=[in_handshake(asked), advertised(hellos)],
        allowed=["HB11"],
        absent=["HB05", "HB06"],
    )

    for name, mode, found in (("hb12-mode-1", 1, True), ("hb12-mode-2", 2, False)):
        s = begin(name)
        hellos = s.full(PEER_ALLOWED, {"heartbeat_mode": mode})
        s.close()
        yield Scenario(
            name=name,
            what=f"the server accepts the heartbeat extension with mode {mode}; no heartbeat is sent",
            capture=s.capture,
            expected=[advertised(hellos)] if found else [],
            absent=[] if found else ["HB12"],
        )
