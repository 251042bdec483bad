"""TLS connections over a TCP conversation: the usual handshakes, stoppable at any message.

In:  a Conversation, a version and a suite.
Out: packets in its capture; each step's packet is kept under the step's name.
Source: RFC 5246 7.3, RFC 8446 2, RFC 5077 3.1.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samples.craft import certificates
from samples.craft import tls_bytes as tls
from samples.craft.conversation import CLIENT, Capture, Conversation, Packet
from samples.craft.tls_bytes import ClientHello, Noise, ServerHello, Suite


@dataclass(eq=False, slots=True)
class Session:
    """One TLS connection. Methods named for a message return its record; `client` and `server` send."""

    talk: Conversation
    noise: Noise
    version: int = tls.TLS12
    suite: Suite = tls.ECDHE_AES_GCM
    opener_is_client: bool = True
    """False: the side that opened the TCP connection is the TLS server."""
    nonces: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.nonces = [int.from_bytes(self.noise.take(8), "big") >> 1 for _ in range(2)]

    @property
    def capture(self) -> Capture:
        return self.talk.capture

    # sending

    def client(self, *records: bytes, **how: Any) -> list[Packet]:
        return self.talk.send(CLIENT if self.opener_is_client else 1 - CLIENT, *records, **how)

    def server(self, *records: bytes, **how: Any) -> list[Packet]:
        return self.talk.send(1 - CLIENT if self.opener_is_client else CLIENT, *records, **how)

    # records

    @property
    def record_version(self) -> int:
        return min(self.version, tls.TLS12)

    def record(self, kind: int, body: bytes, version: int | None = None) -> bytes:
        return tls.record(kind, body, self.record_version if version is None else version)

    def handshake(self, kind: int, body: bytes = b"") -> bytes:
        return self.record(tls.HANDSHAKE, tls.message(kind, body))

    def ccs(self) -> bytes:
        return self.record(tls.CCS, b"\1")

    def alert(self, level: int, description: int) -> bytes:
        return self.record(tls.ALERT, bytes([level, description]))

    def heartbeat(self, kind: int, payload_length: int, body: bytes = b"") -> bytes:
        return self.record(tls.HEARTBEAT, tls.heartbeat(kind, payload_length, body))

    def sealed_body(self, side: int, count: int) -> bytes:
        """Ciphertext of `count` bytes; `side` 0 is the TLS client. The GCM nonce in front is a counter."""
        length = tls.sealed_bytes(self.suite, self.version, count)
        if self.suite.sealing == "gcm":
            self.nonces[side] += 1
            return struct.pack(">Q", self.nonces[side]) + self.noise.take(length - 8)
        return self.noise.take(length)

    def sealed(self, side: int, kind: int, count: int) -> bytes:
        return self.record(kind, self.sealed_body(side, count))

    def data(self, side: int, count: int) -> bytes:
        return self.sealed(side, tls.APPLICATION_DATA, count)

    def finished(self, side: int) -> bytes:
        kind = tls.APPLICATION_DATA if self.version >= tls.TLS13 else tls.HANDSHAKE
        size = 40 if self.version == tls.SSL30 else self.suite.finished_bytes
        return self.sealed(side, kind, size)

    def close_notify(self, side: int) -> bytes:
        return self.sealed(side, tls.APPLICATION_DATA if self.version >= tls.TLS13 else tls.ALERT, 2)

    # handshake messages

    def client_hello(self, **what: Any) -> bytes:
        """The ClientHello in a record of version 0301 (0300 for an SSL 3.0 hello), as is usual."""
        hello = ClientHello(noise=self.noise, **{"versions": (self.version,), **what})
        return tls.record(tls.HANDSHAKE, hello.message(), min(tls.TLS10, max(hello.versions)))

    def server_hello(self, **what: Any) -> bytes:
        hello = ServerHello(noise=self.noise, **{"version": self.version, "suite": self.suite.code, **what})
        return self.record(tls.HANDSHAKE, hello.message())

    def certificate(self) -> bytes:
        return self.handshake(tls.CERTIFICATE, tls.vector(tls.vector(certificates.server(), 3), 3))

    def client_certificate(self, *, empty: bool = False) -> bytes:
        chain = b"" if empty else tls.vector(certificates.client(), 3)
        return self.handshake(tls.CERTIFICATE, tls.vector(chain, 3))

    def server_key_exchange(self) -> bytes:
        body = b"\3" + struct.pack(">H", tls.X25519) + tls.vector(self.noise.take(32), 1)
        if self.suite.key_exchange != "anon":
            body += (b"\x08\x04" if self.version == tls.TLS12 else b"") + tls.vector(self.noise.take(256), 2)
        return self.handshake(tls.SERVER_KEY_EXCHANGE, body)

    def certificate_request(self) -> bytes:
        algorithms = tls.vector(tls.u16s((0x0804, 0x0401, 0x0403)), 2) if self.version == tls.TLS12 else b""
        return self.handshake(
            tls.CERTIFICATE_REQUEST, tls.vector(b"\1\x40", 1) + algorithms + tls.vector(b"", 2)
        )

    def server_hello_done(self) -> bytes:
        return self.handshake(tls.SERVER_HELLO_DONE)

    def client_key_exchange(self) -> bytes:
        if self.suite.key_exchange == "rsa":
            secret = b"\x2a" + self.noise.take(255)  # below any 2048-bit modulus
            return self.handshake(
                tls.CLIENT_KEY_EXCHANGE, secret if self.version == tls.SSL30 else tls.vector(secret, 2)
            )
        return self.handshake(tls.CLIENT_KEY_EXCHANGE, tls.vector(self.noise.take(32), 1))

    def certificate_verify(self) -> bytes:
        algorithm = b"\x08\x04" if self.version == tls.TLS12 else b""
        return self.handshake(tls.CERTIFICATE_VERIFY, algorithm + tls.vector(self.noise.take(256), 2))

    def new_session_ticket(self) -> bytes:
        body = struct.pack(">I", 7200) + tls.vector(self.noise.take(176), 2)
        return self.handshake(tls.NEW_SESSION_TICKET, body)

    def server_flight(self, *, certificate_request: bool = False) -> list[bytes]:
        """Certificate to ServerHelloDone, as the key exchange demands."""
        return [
            *([self.certificate()] if self.suite.key_exchange != "anon" else []),
            *([self.server_key_exchange()] if self.suite.key_exchange != "rsa" else []),
            *([self.certificate_request()] if certificate_request else []),
            self.server_hello_done(),
        ]

    # whole handshakes

    def hellos(
        self, hello: Mapping[str, Any], answer: Mapping[str, Any], *, done: bool = True, **flight: bool
    ) -> Hellos:
        """ClientHello, and the server's flight (to ServerHelloDone unless `done` is False) in one send."""
        (client_hello,) = self.client(self.client_hello(**hello))
        records = [self.server_hello(**answer), *(self.server_flight(**flight) if done else [])]
        return Hellos(client_hello, *self.server(*records)[:1])

    def full(
        self,
        hello: Mapping[str, Any] | None = None,
        answer: Mapping[str, Any] | None = None,
        *,
        ticket: bool = False,
        data: bool = True,
        first_flight_cut: tuple[int, ...] = (),
    ) -> Hellos:
        """A full handshake of TLS 1.2 or older; with `data`, a request and an answer."""
        hello, answer = dict(hello or {}), dict(answer or {})
        if ticket:
            hello.setdefault("ticket", b"")
            answer.setdefault("ticket", True)
        (client_hello,) = self.client(self.client_hello(**hello), cut=first_flight_cut)
        server_hello = self.server(self.server_hello(**answer), *self.server_flight())[0]
        self.client(self.client_key_exchange(), self.ccs(), self.finished(0))
        self.server(*([self.new_session_ticket()] if ticket else []), self.ccs(), self.finished(1))
        if data:
            self.exchange()
        return Hellos(client_hello, server_hello)

    def abbreviated(
        self, hello: Mapping[str, Any], answer: Mapping[str, Any], *, ticket: bool = False
    ) -> Hellos:
        """A resumed handshake of TLS 1.2 or older, then data."""
        (client_hello,) = self.client(self.client_hello(**hello))
        server_hello = self.server(
            self.server_hello(**answer),
            *([self.new_session_ticket()] if ticket else []),
            self.ccs(),
            self.finished(1),
        )[0]
        self.client(self.ccs(), self.finished(0))
        self.exchange()
        return Hellos(client_hello, server_hello)

    def full13(
        self,
        hello: Mapping[str, Any] | None = None,
        answer: Mapping[str, Any] | None = None,
        *,
        data: bool = True,
        compatible: bool = True,
    ) -> Hellos:
        """A TLS 1.3 handshake, with or without the compatibility ChangeCipherSpecs."""
        session_id = self.noise.take(32) if compatible else b""
        hello = {"versions": (tls.TLS13, tls.TLS12), "session_id": session_id, **(hello or {})}
        answer = {"session_id": session_id, **(answer or {})}
        (client_hello,) = self.client(self.client_hello(**hello))
        ccs = [self.ccs()] if compatible else []
        server_hello = self.server(self.server_hello(**answer), *ccs, self.server_flight13())[0]
        self.client(*ccs, self.finished(0))
        if data:
            self.server(self.data(1, 220), self.data(1, 220))  # two NewSessionTickets
            self.exchange()
        return Hellos(client_hello, server_hello)

    def server_flight13(self) -> bytes:
        """EncryptedExtensions, Certificate, CertificateVerify and Finished, in one record."""
        return self.data(1, 6 + len(certificates.server()) + 13 + 264 + 36)

    def exchange(self, request: int = 90, answer: int = 700) -> tuple[Packet, Packet]:
        """One request, one answer."""
        (asked,) = self.client(self.data(0, request))
        (answered,) = self.server(self.data(1, answer))
        return asked, answered

    def close(self) -> None:
        """close_notify from the client, then FIN from both."""
        self.client(self.close_notify(0))
        self.talk.close(CLIENT if self.opener_is_client else 1 - CLIENT)


def begin(
    seed: str,
    version: int = tls.TLS12,
    suite: Suite = tls.ECDHE_AES_GCM,
    *,
    capture: Capture | None = None,
    opener_is_client: bool = True,
    **connect: Any,
) -> Session:
    """A TCP connection that is ready for a ClientHello, in a new capture unless one is given."""
    capture = Capture() if capture is None else capture
    talk = capture.connect(**connect)
    # the port parts the connections of one scenario: no two may share a random
    return Session(talk, Noise(f"{seed}:{talk.ports[0]}"), version, suite, opener_is_client)


@dataclass(eq=False, slots=True, frozen=True)
class Hellos:
    """The packets that carry the first byte of either hello."""

    client_hello: Packet
    server_hello: Packet
