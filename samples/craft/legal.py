"""Legal handshakes that look like violations to a tool that knows only the usual one.

Source: RFC 8446 D.4 (compatibility ChangeCipherSpec), 4.1.4 (HelloRetryRequest), RFC 5077 (tickets), RFC 7918
(false start), RFC 5246 7.4.1.1 (HelloRequest), 7.4.6 (client authentication), RFC 5746 (renegotiation),
RFC 6066 3 (unrecognized_name).
"""

from __future__ import annotations

from collections.abc import Iterator

from samples.craft import tls_bytes as tls
from samples.craft.conversation import Capture
from samples.craft.scenario import Scenario
from samples.craft.session import Session, begin

ORDER = ("SM01", "SM02", "SM03", "SM12", "SM13", "SM14", "SM15", "SM18")
"""None of these may be said of a legal handshake."""
OCSP_TRY_LATER = bytes.fromhex("30030a0103")
"""RFC 6960 4.2.1: a response without bytes, status tryLater."""

OLD = {"version": "TLSv1.2", "established": True}
NEW = {"version": "TLSv1.3", "established": True}


def scenarios() -> Iterator[Scenario]:
    for name, what, facts, capture in (*tls12(), *resumed(), *tls13()):
        yield Scenario(
            name=f"legal-{name}",
            what=f"legal: {what}",
            capture=capture,
            absent=ORDER,
            connection=facts,
        )


Row = tuple[str, str, list[dict[str, object]], Capture]


def tls12() -> Iterator[Row]:
    capture = Capture()
    suites = (tls.ECDHE_AES_GCM, tls.ECDHE_CHACHA, tls.ECDHE_AES_SHA, tls.RSA_AES_SHA, tls.RSA_AES_GCM)
    for place, suite in enumerate(suites):
        # a server each: one server whose choices get weaker would be a finding
        s = begin("full", tls.TLS12, suite, capture=capture, server=f"198.51.100.{place + 1}")
        s.full()
        s.close()
    facts = [{**OLD, "cipher_suite_code": suite.code, "resumed": "no"} for suite in suites]
    yield "full", "full handshakes of TLS 1.2 with ECDHE and RSA key exchange", facts, capture

    s = begin("anonymous", tls.TLS12, tls.ANON_AES_SHA)
    s.full({"suites": (tls.ANON_AES_SHA.code,)})
    s.close()
    yield (
        "anonymous",
        "an anonymous suite: no Certificate, ServerKeyExchange without signature",
        [OLD],
        s.capture,
    )

    s = begin("ticket")
    s.full(ticket=True)
    s.close()
    yield "ticket", "NewSessionTicket in clear before the server's ChangeCipherSpec", [OLD], s.capture

    s = begin("status")
    s.client(s.client_hello(status_request=True))
    status = s.handshake(tls.CERTIFICATE_STATUS, b"\1" + tls.vector(OCSP_TRY_LATER, 3))
    s.server(
        s.server_hello(status_request=True),
        s.certificate(),
        status,
        s.server_key_exchange(),
        s.server_hello_done(),
    )
    finish(s)
    yield "status", "CertificateStatus between Certificate and ServerKeyExchange", [OLD], s.capture

    for name, empty in (("client-certificate", False), ("client-certificate-empty", True)):
        s = begin(name)
        s.hellos({}, {}, certificate_request=True)
        verify = [] if empty else [s.certificate_verify()]
        s.client(s.client_certificate(empty=empty), s.client_key_exchange(), *verify, s.ccs(), s.finished(0))
        s.server(s.ccs(), s.finished(1))
        s.exchange()
        s.close()
        what = "client authentication" + (" refused with an empty Certificate" if empty else "")
        yield name, what, [OLD], s.capture

    s = begin("false-start")
    s.hellos({}, {})
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0), s.data(0, 300))
    s.server(s.ccs(), s.finished(1))
    s.server(s.data(1, 900))
    s.close()
    yield "false-start", "false start: data follows the client's Finished at once", [OLD], s.capture

    s = begin("hello-request")
    s.server(s.handshake(tls.HELLO_REQUEST))
    s.client(s.client_hello())
    s.server(s.handshake(tls.HELLO_REQUEST), s.server_hello(), *s.server_flight())
    finish(s)
    yield "hello-request", "HelloRequest before the ClientHello and before the ServerHello", [OLD], s.capture

    s = begin("unrecognized-name")
    s.client(s.client_hello(server_name="unknown.example"))
    s.server(s.alert(tls.WARNING, tls.UNRECOGNIZED_NAME), s.server_hello(), *s.server_flight())
    finish(s)
    yield "unrecognized-name", "the warning alert unrecognized_name before the ServerHello", [OLD], s.capture

    for name, by_server in (("renegotiation-client", False), ("renegotiation-server", True)):
        s = begin(name)
        s.full()
        if by_server:
            s.server(s.sealed(1, tls.HANDSHAKE, 4))
        s.client(s.sealed(0, tls.HANDSHAKE, 190))
        s.server(*[s.sealed(1, tls.HANDSHAKE, size) for size in (90, 800, 300, 4)])
        s.client(s.sealed(0, tls.HANDSHAKE, 37), s.sealed(0, tls.CCS, 1), s.sealed(0, tls.HANDSHAKE, 16))
        s.server(s.sealed(1, tls.CCS, 1), s.sealed(1, tls.HANDSHAKE, 16))
        s.exchange()
        s.close()
        who = "the server's HelloRequest" if by_server else "the client"
        yield name, f"renegotiation, started by {who}", [OLD], s.capture

    s = begin("renegotiation-refused")
    s.full()
    s.server(s.sealed(1, tls.HANDSHAKE, 4))
    s.client(s.sealed(0, tls.ALERT, 2))
    s.exchange()
    s.close()
    yield "renegotiation-refused", "HelloRequest answered by the alert no_renegotiation", [OLD], s.capture

    s = begin("fragments")
    s.client(s.client_hello())
    flight = b"".join(record[5:] for record in s.server_flight())
    records = [s.record(tls.HANDSHAKE, flight[at : at + 400]) for at in range(0, len(flight), 400)]
    s.server(s.server_hello(), *records)
    finish(s)
    yield "fragments", "the server's messages cut into records at arbitrary places", [OLD], s.capture

    s = begin("coalesced")
    s.client(s.client_hello())
    flight = b"".join(record[5:] for record in (s.server_hello(), *s.server_flight()))
    s.server(s.record(tls.HANDSHAKE, flight))
    finish(s)
    yield "coalesced", "ServerHello to ServerHelloDone in one record", [OLD], s.capture

    s = begin("refused")
    s.client(s.client_hello())
    s.server(s.alert(tls.FATAL, tls.HANDSHAKE_FAILURE))
    s.talk.close(1)
    yield "refused", "a ClientHello refused with handshake_failure", [{"established": False}], s.capture


def finish(s: Session) -> None:
    """From ClientKeyExchange to the end."""
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.close()


def resumed() -> Iterator[Row]:
    capture = Capture()
    s = begin("resumed-id", capture=capture)
    session_id = s.noise.take(32)
    s.full(None, {"session_id": session_id})
    s.close()
    s = begin("resumed-id", capture=capture)
    s.abbreviated({"session_id": session_id}, {"session_id": session_id})
    s.close()
    facts = [{**OLD, "resumed": "no"}, {**OLD, "resumed": "session_id"}]
    yield "resumed-id", "resumption by session id: the server's ChangeCipherSpec comes first", facts, capture

    for name, renewed in (("resumed-ticket", False), ("resumed-ticket-renewed", True)):
        capture = Capture()
        s = begin(name, capture=capture)
        s.full(ticket=True)
        s.close()
        s = begin(name, capture=capture)
        echo, ticket = s.noise.take(32), s.noise.take(176)
        s.abbreviated(
            {"session_id": echo, "ticket": ticket}, {"session_id": echo, "ticket": renewed}, ticket=renewed
        )
        s.close()
        facts = [{**OLD, "resumed": "no"}, {**OLD, "resumed": "ticket"}]
        yield name, f"resumption by ticket{', with a new ticket' if renewed else ''}", facts, capture

    s = begin("resumption-declined")
    s.full({"session_id": s.noise.take(32)}, {"session_id": s.noise.take(32)})
    s.close()
    yield (
        "resumption-declined",
        "a session id that the server no longer knows",
        [{**OLD, "resumed": "no"}],
        s.capture,
    )

    s = begin("resumed-tls10", tls.TLS10, tls.ECDHE_AES_SHA)
    session_id = s.noise.take(32)
    s.abbreviated({"session_id": session_id}, {"session_id": session_id})
    s.close()
    facts = [{"version": "TLSv1.0", "resumed": "session_id", "established": True}]
    yield "resumed-tls10", "resumption in TLS 1.0 of a session from before the capture", facts, s.capture


def tls13() -> Iterator[Row]:
    both = {"versions": (tls.TLS13, tls.TLS12)}

    for name, compatible in (("tls13", True), ("tls13-no-ccs", False)):
        s = begin(name, tls.TLS13, tls.TLS13_AES_128)
        s.full13(compatible=compatible)
        s.close()
        what = f"TLS 1.3 with{'' if compatible else 'out'} the compatibility ChangeCipherSpecs"
        yield name, what, [{**NEW, "resumed": "no"}], s.capture

    s = begin("tls13-ccs-first", tls.TLS13, tls.TLS13_AES_128)
    session_id = s.noise.take(32)
    s.client(s.client_hello(**both, session_id=session_id), s.ccs())
    s.server(s.server_hello(session_id=session_id), s.ccs(), s.server_flight13())
    s.client(s.finished(0))
    s.exchange()
    s.close()
    yield (
        "tls13-ccs-first",
        "the client's compatibility ChangeCipherSpec right after its ClientHello",
        [NEW],
        s.capture,
    )

    s = begin("tls13-retry", tls.TLS13, tls.TLS13_AES_128)
    session_id, random = s.noise.take(32), s.noise.take(32)
    same = {**both, "session_id": session_id, "random": random}
    s.client(s.client_hello(**same))
    s.server(s.server_hello(retry=True, group=tls.SECP256R1, session_id=session_id), s.ccs())
    second = tls.ClientHello(noise=s.noise, **same, key_share=tls.SECP256R1).message()
    s.client(s.ccs(), s.record(tls.HANDSHAKE, second))
    s.server(s.server_hello(group=tls.SECP256R1, session_id=session_id), s.server_flight13())
    s.client(s.finished(0))
    s.exchange()
    s.close()
    yield (
        "tls13-retry",
        "HelloRetryRequest, ChangeCipherSpecs around it, a second ClientHello",
        [NEW],
        s.capture,
    )

    s = begin("tls13-psk", tls.TLS13, tls.TLS13_AES_128)
    session_id = s.noise.take(32)
    s.client(s.client_hello(**both, session_id=session_id, psk=True))
    s.server(s.server_hello(session_id=session_id, psk=True), s.ccs(), s.data(1, 6 + 36))
    s.client(s.ccs(), s.finished(0))
    s.server(s.data(1, 220))
    s.exchange()
    s.close()
    yield "tls13-psk", "TLS 1.3 resumed with a PSK", [{**NEW, "resumed": "psk"}], s.capture

    s = begin("tls13-early-data", tls.TLS13, tls.TLS13_AES_128)
    session_id = s.noise.take(32)
    s.client(
        s.client_hello(**both, session_id=session_id, psk=True, early_data=True), s.ccs(), s.data(0, 300)
    )
    s.server(s.server_hello(session_id=session_id, psk=True), s.ccs(), s.data(1, 10 + 36), s.data(1, 800))
    s.client(s.data(0, 4), s.finished(0))  # EndOfEarlyData, Finished
    s.exchange()
    s.close()
    yield (
        "tls13-early-data",
        "0-RTT: application data right after the ClientHello",
        [{**NEW, "resumed": "psk"}],
        s.capture,
    )

    s = begin("tls13-client-certificate", tls.TLS13, tls.TLS13_AES_128)
    session_id = s.noise.take(32)
    s.client(s.client_hello(**both, session_id=session_id))
    s.server(s.server_hello(session_id=session_id), s.ccs(), s.server_flight13())
    s.client(s.ccs(), s.data(0, 800), s.data(0, 264), s.finished(0))
    s.exchange()
    s.close()
    yield "tls13-client-certificate", "client authentication in TLS 1.3", [NEW], s.capture

    s = begin("tls13-client-alert", tls.TLS13, tls.TLS13_AES_128)
    session_id = s.noise.take(32)
    s.client(s.client_hello(**both, session_id=session_id))
    s.server(s.server_hello(session_id=session_id), s.ccs(), s.server_flight13())
    s.client(s.alert(tls.FATAL, 48))
    s.talk.close()
    facts = [{"version": "TLSv1.3", "established": False}]
    yield (
        "tls13-client-alert",
        "the client refuses the certificate with an alert in clear: it has no keys yet",
        facts,
        s.capture,
    )

    s = begin("tls13-key-update", tls.TLS13, tls.TLS13_AES_128)
    s.full13()
    s.client(s.data(0, 5))
    s.server(s.data(1, 5))
    s.exchange()
    s.close()
    yield "tls13-key-update", "KeyUpdate from both sides", [NEW], s.capture
