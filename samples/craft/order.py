"""Messages out of order, from the wrong side, or in clear after encryption.

Source: RFC 5246 7.3 and 7.4, RFC 8446 2, 4 and 5; rows SM01, SM02, SM12 to SM15, SM18 and part B of the
catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from samples.craft import certificates
from samples.craft import tls_bytes as tls
from samples.craft.conversation import Packet
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Session, begin

CLIENT_ADDRESS, SERVER_ADDRESS = "192.0.2.10", "198.51.100.10"
REQUEST_IN_CLEAR = b"GET /account HTTP/1.1\r\nHost: server.example\r\nCookie: session=8f14e45f\r\n\r\n"


def scenarios() -> Iterator[Scenario]:
    yield from out_of_order()
    yield from wrong_side()
    yield from clear_after_encryption()
    yield from data_before_encryption()
    yield from duplicates()


def refused(s: Session, *, by_server: bool = True) -> None:
    """The receiver answers with unexpected_message and closes."""
    send = s.server if by_server else s.client
    send(s.alert(tls.FATAL, tls.UNEXPECTED_MESSAGE))
    s.talk.close(1 if by_server else 0)


def out_of_order() -> Iterator[Scenario]:
    def key_exchange_first(s: Session) -> Packet:
        s.client(s.client_hello())
        sent = s.server(s.server_hello(), s.server_key_exchange(), s.certificate(), s.server_hello_done())
        refused(s, by_server=False)
        return sent[2]

    def certificate_first(s: Session) -> Packet:
        s.client(s.client_hello())
        sent = s.server(s.certificate(), s.server_hello(), s.server_key_exchange(), s.server_hello_done())
        refused(s, by_server=False)
        return sent[0]

    def early_ticket(s: Session) -> Packet:
        s.client(s.client_hello(ticket=b""))
        sent = s.server(s.server_hello(ticket=True), s.certificate(), s.new_session_ticket())
        refused(s, by_server=False)
        return sent[2]

    def early_key_exchange(s: Session) -> Packet:
        s.client(s.client_hello())
        s.server(s.server_hello(), s.certificate())
        (sent,) = s.client(s.client_key_exchange())
        refused(s)
        return sent

    def verify_without_certificate(s: Session) -> Packet:
        s.hellos({}, {})
        sent = s.client(s.client_key_exchange(), s.certificate_verify(), s.ccs(), s.finished(0))
        refused(s)
        return sent[1]

    def key_exchange_before_server_hello(s: Session) -> Packet:
        s.client(s.client_hello())
        (sent,) = s.client(s.client_key_exchange())
        refused(s)
        return sent

    cases: tuple[tuple[str, str, Callable[[Session], Packet]], ...] = (
        ("key-exchange-first", "ServerKeyExchange before Certificate", key_exchange_first),
        ("certificate-first", "Certificate before ServerHello", certificate_first),
        ("early-ticket", "NewSessionTicket in the middle of the server's first flight", early_ticket),
        ("early-key-exchange", "ClientKeyExchange before ServerHelloDone", early_key_exchange),
        (
            "verify-alone",
            "CertificateVerify though no client certificate was sent",
            verify_without_certificate,
        ),
        (
            "key-exchange-at-once",
            "ClientKeyExchange before the ServerHello",
            key_exchange_before_server_hello,
        ),
    )
    for name, what, play in cases:
        s = begin(f"sm01-{name}")
        packet = play(s)
        yield Scenario(
            name=f"sm01-{name}",
            what=f"out of order: {what}",
            capture=s.capture,
            expected=[Expected("SM01", "B", [packet])],
            absent=["SM02", "SM03"],
            connection=[{"established": False}],
        )

    s = begin("sm01-done-first")
    s.client(s.client_hello())
    sent = s.server(s.server_hello(), s.server_hello_done(), s.certificate(), s.server_key_exchange())
    refused(s, by_server=False)
    yield Scenario(
        name="sm01-done-first",
        what="out of order: ServerHelloDone before Certificate and ServerKeyExchange",
        capture=s.capture,
        expected=[Expected("SM01", "B", [sent[2]])],
        allowed=["SM09", "SM10", "SM11"],
        absent=["SM02", "SM03"],
    )


def wrong_side() -> Iterator[Scenario]:
    s = begin("sm02-key-exchange-from-client")
    s.hellos({}, {})
    (sent,) = s.client(s.server_key_exchange())
    refused(s)
    yield Scenario(
        name="sm02-key-exchange-from-client",
        what="the client sends a ServerKeyExchange",
        capture=s.capture,
        expected=[Expected("SM02", "A", [sent], offender=CLIENT_ADDRESS)],
    )

    s = begin("sm02-key-exchange-from-server")
    s.client(s.client_hello())
    sent = s.server(s.server_hello(), s.certificate(), s.server_key_exchange(), s.client_key_exchange())
    refused(s, by_server=False)
    yield Scenario(
        name="sm02-key-exchange-from-server",
        what="the server sends a ClientKeyExchange",
        capture=s.capture,
        expected=[Expected("SM02", "A", [sent[3]], offender=SERVER_ADDRESS)],
    )

    s = begin("sm02-hello-from-client")
    s.hellos({}, {}, done=False)
    (sent,) = s.client(s.server_hello())
    refused(s)
    yield Scenario(
        name="sm02-hello-from-client",
        what="the client answers the ServerHello with a ServerHello",
        capture=s.capture,
        expected=[Expected("SM02", "A", [sent], offender=CLIENT_ADDRESS)],
    )

    s = begin("sm02-hello-unasked")
    (sent,) = s.server(s.server_hello())
    s.client(s.client_hello())
    refused(s)
    yield Scenario(
        name="sm02-hello-unasked",
        what="a ServerHello before any ClientHello",
        capture=s.capture,
        expected=[Expected("SM02", "A", [sent], offender=SERVER_ADDRESS)],
        absent=["SM01"],
    )


def clear_after_encryption() -> Iterator[Scenario]:
    s = begin("sm12-finished")
    s.hellos({}, {})
    finished = s.handshake(tls.FINISHED, s.noise.take(12))
    sent = s.client(s.client_key_exchange(), s.ccs(), finished)
    refused(s)
    yield Scenario(
        name="sm12-finished",
        what="the client's Finished in clear after its ChangeCipherSpec",
        capture=s.capture,
        expected=[Expected("SM12", "B", [sent[2]])],
        allowed=["RL04", "SM09"],
    )

    s = begin("sm12-renegotiation")
    s.full()
    hello = tls.ClientHello(noise=s.noise, suites=(0xC02F, 0xC013), server_name=None).message()
    (sent,) = s.client(s.record(tls.HANDSHAKE, hello))
    refused(s)
    yield Scenario(
        name="sm12-renegotiation",
        what="a ClientHello in clear within an established TLS 1.2 connection",
        capture=s.capture,
        expected=[Expected("SM12", "B", [sent])],
        allowed=["SM13", "SM18", "RL04"],
    )

    s = begin("sm13-tls12")
    s.full()
    (sent,) = s.server(s.alert(tls.FATAL, tls.BAD_RECORD_MAC))
    s.talk.close(1)
    yield Scenario(
        name="sm13-tls12",
        what="a fatal alert in clear within an established TLS 1.2 connection",
        capture=s.capture,
        expected=[Expected("SM13", "B", [sent])],
        allowed=["RL04"],
    )

    s = begin("sm13-tls13", tls.TLS13, tls.TLS13_AES_128)
    s.full13()
    (sent,) = s.client(s.alert(tls.WARNING, tls.CLOSE_NOTIFY))
    s.talk.close()
    yield Scenario(
        name="sm13-tls13",
        what="an alert in clear from a TLS 1.3 client that had sent encrypted data",
        capture=s.capture,
        expected=[Expected("SM13", "B", [sent])],
        allowed=["RL04"],
    )

    s = begin("sm13-tls13-server", tls.TLS13, tls.TLS13_AES_128)
    s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12), session_id=b""))
    s.server(s.server_hello())
    (sent,) = s.server(s.alert(tls.FATAL, tls.HANDSHAKE_FAILURE))
    s.talk.close(1)
    yield Scenario(
        name="sm13-tls13-server",
        what="an alert in clear from a TLS 1.3 server after its ServerHello",
        capture=s.capture,
        expected=[Expected("SM13", "B", [sent])],
    )

    s = begin("sm14-server", tls.TLS13, tls.TLS13_AES_128)
    s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12), session_id=b""))
    body = b"\0" + tls.vector(tls.vector(certificates.server(), 3) + b"\0\0", 3)
    _, sent = s.server(s.server_hello(), s.handshake(tls.CERTIFICATE, body))
    s.client(s.alert(tls.FATAL, tls.UNEXPECTED_MESSAGE))
    s.talk.close()
    yield Scenario(
        name="sm14-server",
        what="a Certificate in clear after a TLS 1.3 ServerHello",
        capture=s.capture,
        expected=[Expected("SM14", "A", [sent], offender=SERVER_ADDRESS)],
        absent=["SM01", "SM12"],
    )

    s = begin("sm14-client", tls.TLS13, tls.TLS13_AES_128)
    s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12), session_id=b""))
    s.server(s.server_hello(), s.server_flight13())
    (sent,) = s.client(s.handshake(tls.FINISHED, s.noise.take(32)))
    s.server(s.data(1, 2))
    s.talk.close(1)
    yield Scenario(
        name="sm14-client",
        what="the Finished of a TLS 1.3 client in clear",
        capture=s.capture,
        expected=[Expected("SM14", "A", [sent], offender=CLIENT_ADDRESS)],
        absent=["SM01", "SM12"],
    )


def data_before_encryption() -> Iterator[Scenario]:
    s = begin("sm15-client")
    s.hellos({}, {})
    (sent,) = s.client(s.record(tls.APPLICATION_DATA, REQUEST_IN_CLEAR))
    refused(s)
    yield Scenario(
        name="sm15-client",
        what="application data in clear in place of the ClientKeyExchange",
        capture=s.capture,
        expected=[Expected("SM15", "A", [sent], offender=CLIENT_ADDRESS)],
        absent=["RL12", "LB01"],
    )

    s = begin("sm15-after-client-hello")
    s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12)))
    (sent,) = s.client(s.record(tls.APPLICATION_DATA, s.noise.take(120)))
    refused(s)
    yield Scenario(
        name="sm15-after-client-hello",
        what="application data right after a ClientHello without early_data",
        capture=s.capture,
        expected=[Expected("SM15", "A", [sent], offender=CLIENT_ADDRESS)],
    )

    s = begin("sm15-first")
    (sent,) = s.client(s.record(tls.APPLICATION_DATA, s.noise.take(120)))
    s.client(s.client_hello())
    refused(s)
    yield Scenario(
        name="sm15-first",
        what="application data before the ClientHello",
        capture=s.capture,
        expected=[Expected("SM15", "A", [sent], offender=CLIENT_ADDRESS)],
    )

    s = begin("sm15-server")
    s.hellos({}, {})
    (sent,) = s.server(s.record(tls.APPLICATION_DATA, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    refused(s, by_server=False)
    yield Scenario(
        name="sm15-server",
        what="application data from the server before any ChangeCipherSpec",
        capture=s.capture,
        expected=[Expected("SM15", "A", [sent], offender=SERVER_ADDRESS)],
    )


def duplicates() -> Iterator[Scenario]:
    s = begin("sm18-client-hello")
    s.client(s.client_hello())
    (sent,) = s.client(s.client_hello())
    refused(s)
    yield Scenario(
        name="sm18-client-hello",
        what="a second ClientHello before the ServerHello; no HelloRetryRequest asked for it",
        capture=s.capture,
        expected=[Expected("SM18", "B", [sent])],
        absent=["SM01", "SM02"],
    )

    s = begin("sm18-certificate")
    s.client(s.client_hello())
    sent_all = s.server(
        s.server_hello(), s.certificate(), s.certificate(), s.server_key_exchange(), s.server_hello_done()
    )
    refused(s, by_server=False)
    yield Scenario(
        name="sm18-certificate",
        what="the server's Certificate twice",
        capture=s.capture,
        expected=[Expected("SM18", "B", [sent_all[2]])],
        allowed=["SM01"],
    )

    s = begin("sm18-key-exchange")
    s.hellos({}, {})
    sent_all = s.client(s.client_key_exchange(), s.client_key_exchange(), s.ccs(), s.finished(0))
    refused(s)
    yield Scenario(
        name="sm18-key-exchange",
        what="the ClientKeyExchange twice",
        capture=s.capture,
        expected=[Expected("SM18", "B", [sent_all[1]])],
        absent=["SM03"],
    )
