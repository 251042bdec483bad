"""What networks and taps do to innocent TLS, and to guilty: the verdict must be the same.

Source: RFC 9293 3.4, 3.8 (sequence numbers, retransmission, keep-alives); part 0 and A12 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from samples.craft import tls_bytes as tls
from samples.craft.conversation import ACK, CLIENT, SERVER, Capture, Packet
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Session, begin

PEER_ALLOWED = {"heartbeat_mode": 1}
OLD: dict[str, Any] = {"version": "TLSv1.2", "established": True}


def scenarios() -> Iterator[Scenario]:
    for name, what, facts, capture in (*resent(), *reordered(), *missing(), *tuples()):
        yield Scenario(
            name=f"tcp-{name}",
            what=f"legal: {what}",
            capture=capture,
            connection=facts,
            profiled=not name.startswith("snaplen"),
        )
    yield from causal()
    yield from guilty()


Row = tuple[str, str, list[dict[str, Any]], Capture]


class Sent:
    """A full TLS 1.2 handshake with data, whose packets are kept by name."""

    def __init__(self, name: str, *, mss: int = 1460, **connect: Any) -> None:
        self.s = s = begin(name, mss=mss, **connect)
        self.capture = s.capture
        (self.hello,) = s.client(s.client_hello(), ack=False)
        self.flight = self._segments(SERVER, s.server_hello(), *s.server_flight())
        (self.answer,) = s.client(s.client_key_exchange(), s.ccs(), s.finished(0), ack=False)[:1]
        (self.finished,) = s.server(s.ccs(), s.finished(1), ack=False)[:1]
        (self.request,) = s.client(s.data(0, 90), ack=False)
        self.data = self._segments(SERVER, s.data(1, 2500), s.data(1, 700))
        s.exchange()
        s.close()

    def _segments(self, side: int, *records: bytes) -> list[Packet]:
        before = len(self.capture.packets)
        self.s.talk.send(side, *records, ack=False)
        return self.capture.packets[before:]


def resent() -> Iterator[Row]:
    t = Sent("retransmission", mss=536)
    for packet in (t.flight[1], t.answer, t.data[0]):
        t.capture.again(packet)
    yield "retransmission", "segments of the handshake and of the data come a second time", [OLD], t.capture

    s = begin("overlap", mss=536)
    s.client(s.client_hello())
    s.server(s.server_hello(), *s.server_flight())
    s.talk.resend(SERVER, 300, 1000)  # from the middle of one segment to the middle of the next
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.talk.resend(CLIENT, 100, 180)
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.talk.resend(SERVER, len(s.talk.sent[SERVER]) - 500, len(s.talk.sent[SERVER]))
    s.close()
    yield "overlap", "retransmissions that overlap segments in part, with the same bytes", [OLD], s.capture

    t = Sent("mirrored")
    t.capture.mirror_twice()
    yield "mirrored", "every packet twice, as from a SPAN port", [OLD], t.capture

    s = begin("keep-alive")
    s.full()
    for garbage in (b"", b"\0"):
        s.capture.pause(45)
        s.talk.packet(CLIENT, garbage, seq=s.talk.next_seq[CLIENT] - 1)
        s.talk.packet(SERVER)
    s.exchange()
    s.close()
    yield (
        "keep-alive",
        "TCP keep-alives, without data and with one byte of garbage before the window",
        [OLD],
        s.capture,
    )


def reordered() -> Iterator[Row]:
    t = Sent("out-of-order", mss=400)
    t.capture.swap(t.flight[0], t.flight[2])
    t.capture.swap(t.data[1], t.data[3])
    yield "out-of-order", "segments of the server's flight and of its data in another order", [OLD], t.capture

    t = Sent("ack-before-data")
    t.capture.swap(t.answer, t.finished)
    yield (
        "ack-before-data",
        "the server's ChangeCipherSpec is captured before the client's that it acknowledges",
        [OLD],
        t.capture,
    )

    t = Sent("answer-before-hello")
    t.capture.swap(t.hello, t.flight[0])
    yield "answer-before-hello", "the ServerHello is captured before the ClientHello", [OLD], t.capture

    t = Sent("server-first")
    mine = [packet for packet in t.capture.packets if packet.sport == 443]
    others = [packet for packet in t.capture.packets if packet.sport != 443]
    times = [packet.time_us for packet in t.capture.packets]
    t.capture.packets = mine + others
    for packet, time_us in zip(t.capture.packets, times, strict=True):
        packet.time_us = time_us
    yield (
        "server-first",
        "all packets of the server, then all of the client: two files put together",
        [OLD],
        t.capture,
    )


def missing() -> Iterator[Row]:
    unclaimed: list[dict[str, Any]] = []
    for name, what, select in (
        ("gap-data", "a segment of the data is missing", lambda t: [t.data[1]]),
        ("gap-certificate", "a segment of the server's flight is missing", lambda t: [t.flight[1]]),
        ("gap-client-answer", "ClientKeyExchange to Finished are missing", lambda t: [t.answer]),
        (
            "gap-server-finished",
            "the server's ChangeCipherSpec and Finished are missing",
            lambda t: [t.finished],
        ),
        ("gap-client-hello", "the ClientHello is missing", lambda t: [t.hello]),
        ("gap-server-flight", "the whole flight of the server is missing", lambda t: t.flight),
        ("gap-syn", "SYN and SYN/ACK are missing", lambda t: t.capture.packets[:2]),
    ):
        t = Sent(name, mss=536)
        t.capture.lose(*select(t))
        yield name, what, unclaimed, t.capture

    for name, what, first in (
        ("midstream-data", "the capture starts in the data", lambda t: t.data[0]),
        ("midstream-segment", "the capture starts within a record", lambda t: t.data[1]),
        ("midstream-handshake", "the capture starts after the ServerHello", lambda t: t.answer),
    ):
        t = Sent(name, mss=536)
        t.capture.packets = t.capture.packets[t.capture.packets.index(first(t)) :]
        yield name, what, unclaimed, t.capture

    t = Sent("one-sided-client")
    t.capture.keep(lambda packet: packet.dport == 443)
    yield "one-sided-client", "only the packets of the client", unclaimed, t.capture

    t = Sent("one-sided-server")
    t.capture.keep(lambda packet: packet.sport == 443)
    yield "one-sided-server", "only the packets of the server", unclaimed, t.capture

    for snaplen in (96, 300):
        t = Sent(f"snaplen-{snaplen}")
        t.capture.snaplen = snaplen
        yield f"snaplen-{snaplen}", f"every packet cut after {snaplen} bytes", unclaimed, t.capture


def tuples() -> Iterator[Row]:
    top = 1 << 32
    t = Sent("sequence-wrap", client_isn=top - 150, server_isn=top - 600, mss=536)
    yield "sequence-wrap", "both sequence numbers wrap within the handshake", [OLD], t.capture

    for name, ending in (
        ("reuse-after-fin", "fin"),
        ("reuse-after-reset", "reset"),
        ("reuse-at-once", "none"),
    ):
        capture = Capture()
        s = begin(name, capture=capture, client_port=40000, client_isn=1000, server_isn=2000)
        s.full()
        if ending == "fin":
            s.close()
        elif ending == "reset":
            s.talk.reset(CLIENT)
        capture.pause(130 if ending == "none" else 2)
        again = begin(
            f"{name}-again", capture=capture, client_port=40000, client_isn=3 << 30, server_isn=1 << 30
        )
        again.full()
        again.close()
        what = {"fin": "after FIN", "reset": "after RST", "none": "two minutes later, without FIN or RST"}[
            ending
        ]
        yield name, f"the same addresses and ports for a second connection {what}", [OLD, OLD], capture

    s = begin("ipv6", client="2001:db8:1::10", server="2001:db8:2::10")
    s.full()
    s.close()
    yield "ipv6", "IPv6", [OLD], s.capture

    t = Sent("padded")
    t.capture.shortest_frame = 60
    yield "padded", "Ethernet padding after short packets is no payload", [OLD], t.capture

    s = begin("role-reversed", opener_is_client=False)
    s.full()
    s.close()
    facts = {**OLD, "client_port": 443, "server_port": s.talk.ports[0]}
    yield "role-reversed", "the side that opened the TCP connection is the TLS server", [facts], s.capture


def causal() -> Iterator[Scenario]:
    """Early data in flight when the HelloRetryRequest arrives is legal, early data after it is not."""
    for name, sees_retry in (("tcp-early-data-in-flight", False), ("rs09-early-data-after-retry", True)):
        s = begin(name, tls.TLS13, tls.TLS13_AES_128)
        session_id, random = s.noise.take(32), s.noise.take(32)
        same = {"versions": (tls.TLS13, tls.TLS12), "session_id": session_id, "random": random, "psk": True}
        unseen = s.talk.received[CLIENT]
        s.client(s.client_hello(**same, early_data=True), s.ccs(), s.data(0, 300), ack=False)
        s.server(s.server_hello(retry=True, group=tls.SECP256R1, session_id=session_id), s.ccs(), ack=False)
        (late,) = s.client(s.data(0, 300), unseen=None if sees_retry else unseen, ack=False)
        second = tls.ClientHello(noise=s.noise, **same, key_share=tls.SECP256R1).message()
        s.client(s.record(tls.HANDSHAKE, second))
        s.server(s.server_hello(group=tls.SECP256R1, session_id=session_id, psk=True), s.data(1, 42))
        s.client(s.finished(0))
        s.exchange()
        s.close()
        yield Scenario(
            name=name,
            what="early data that the client sends after it has acknowledged the HelloRetryRequest"
            if sees_retry
            else "legal: early data that was on its way when the HelloRetryRequest came, captured after it",
            capture=s.capture,
            expected=[Expected("RS09", "B", [late])] if sees_retry else [],
            absent=["SM03", "SM15"],
        )


def guilty() -> Iterator[Scenario]:
    def heartbleed(name: str, **connect: Any) -> tuple[Session, Packet]:
        s = begin(name, **connect)
        s.hellos(PEER_ALLOWED, PEER_ALLOWED)
        (asked,) = s.client(s.heartbeat(1, 0x4000), ack=False)
        return s, asked

    def over_read(asked: Packet, offender: str = "192.0.2.10") -> list[Expected]:
        return [
            Expected("HB01", "A", [asked], offender=offender),
            Expected("HB03", "A", [asked], offender=offender),
        ]

    s, asked = heartbleed("hb01-retransmitted")
    for _ in range(4):
        s.capture.again(asked)
    s.talk.close()
    yield Scenario(
        name="hb01-retransmitted",
        what="one heartbleed request that TCP sends five times: one request, no flood",
        capture=s.capture,
        expected=over_read(asked),
        absent=["HB07", "HB08"],
    )

    s = begin("hb01-out-of-order")
    s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(1, 0x4000), cut=(5,), ack=False)
    s.capture.swap(asked, s.capture.packets[-1])
    s.talk.close()
    yield Scenario(
        name="hb01-out-of-order",
        what="heartbleed whose body is captured before its record header",
        capture=s.capture,
        expected=over_read(asked),
    )

    s, asked = heartbleed("hb01-mirrored")
    s.talk.close()
    s.capture.mirror_twice()
    yield Scenario(
        name="hb01-mirrored",
        what="heartbleed, every packet captured twice",
        capture=s.capture,
        expected=over_read(asked),
        absent=["HB07", "HB08", "HB14"],
    )

    s, asked = heartbleed("hb01-role-reversed", opener_is_client=False)
    s.talk.close()
    yield Scenario(
        name="hb01-role-reversed",
        what="heartbleed from a TLS client that had accepted the TCP connection",
        capture=s.capture,
        expected=over_read(asked, "198.51.100.10"),
        absent=["HB10"],
    )

    s = begin("hb01-starttls", server_port=587)
    for side, text in (
        (SERVER, b"220 mail.example ESMTP\r\n"),
        (CLIENT, b"EHLO client.example\r\n"),
        (SERVER, b"250-mail.example\r\n250 STARTTLS\r\n"),
        (CLIENT, b"STARTTLS\r\n"),
        (SERVER, b"220 Ready to start TLS\r\n"),
    ):
        s.talk.send(side, text)
    s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (asked,) = s.client(s.heartbeat(1, 0x4000))
    s.talk.close()
    yield Scenario(
        name="hb01-starttls",
        what="heartbleed after STARTTLS",
        capture=s.capture,
        expected=over_read(asked),
    )

    s = begin("sm03-ack-before-data")
    s.hellos({}, {})
    (ccs,) = s.client(s.ccs(), ack=False)
    (alert,) = s.server(s.alert(tls.FATAL, tls.UNEXPECTED_MESSAGE), ack=False)
    s.talk.packet(SERVER, flags=ACK | 4)
    s.capture.swap(ccs, alert)
    yield Scenario(
        name="sm03-ack-before-data",
        what="CCS injection whose refusal is captured before it",
        capture=s.capture,
        expected=[Expected("SM03", "A", [ccs], offender="192.0.2.10")],
        allowed=["SM09"],
    )

    s = begin("hb01-after-gap")
    s.client(s.client_hello(**PEER_ALLOWED))
    s.server(s.server_hello(**PEER_ALLOWED), *s.server_flight())
    lost = s.capture.packets[-2]
    (asked,) = s.client(s.heartbeat(1, 0x4000))
    s.talk.close()
    s.capture.lose(lost)
    yield Scenario(
        name="hb01-after-gap",
        what="heartbleed after a gap in the other direction: the server's flight is missing",
        capture=s.capture,
        expected=[Expected("HB01", "A", [asked], offender="192.0.2.10")],
        allowed=["HB03"],
        absent=["HB09"],
    )
