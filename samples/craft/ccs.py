"""ChangeCipherSpec where it does not belong.

Source: RFC 5246 7.1 and 7.3, RFC 8446 5; CVE-2014-0224, CVE-2020-25648, CVE-2004-0079; rows SM03 to SM07
and SM22 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

from samples.craft import certificates
from samples.craft import tls_bytes as tls
from samples.craft.conversation import Packet
from samples.craft.order import CLIENT_ADDRESS, refused
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Session, begin


def scenarios() -> Iterator[Scenario]:
    yield from early_ccs()
    yield from change_cipher_spec()


def early_ccs() -> Iterator[Scenario]:
    def injected(name: str, what: str, sent: Packet, action: str, s: Session, **more: object) -> Scenario:
        return Scenario(
            name=name,
            what=what,
            capture=s.capture,
            expected=[
                Expected("SM03", action, [sent], offender=CLIENT_ADDRESS if action == "A" else None),
            ],
            **more,  # type: ignore[arg-type]
        )

    s = begin("sm03-client-patched")
    s.hellos({}, {})
    (sent,) = s.client(s.ccs())
    refused(s)
    yield injected(
        "sm03-client-patched",
        "CCS injection: ChangeCipherSpec before the ClientKeyExchange, refused with unexpected_message",
        sent,
        "A",
        s,
        allowed=["SM09"],
        absent=["SM04"],
    )

    s = begin("sm03-client-vulnerable")
    s.hellos({}, {})
    (sent,) = s.client(s.ccs())
    s.client(s.record(tls.ALERT, b"\2\0"))
    s.server(s.alert(tls.FATAL, tls.BAD_RECORD_MAC))
    s.talk.close(1)
    yield injected(
        "sm03-client-vulnerable",
        "CCS injection by a scanner: bad_record_mac on the next record proves the server unpatched",
        sent,
        "A",
        s,
        allowed=["SM04", "SM09", "SM13", "RL04"],
    )

    s = begin("sm03-client-then-key-exchange")
    s.hellos({}, {})
    (sent,) = s.client(s.ccs())
    s.client(s.client_key_exchange())
    refused(s)
    yield injected(
        "sm03-client-then-key-exchange",
        "CCS injection: ChangeCipherSpec, then the ClientKeyExchange in clear",
        sent,
        "A",
        s,
        allowed=["SM01", "SM12", "SM09"],
    )

    s = begin("sm03-server")
    s.hellos({}, {})
    (sent,) = s.server(s.ccs())
    refused(s, by_server=False)
    yield injected(
        "sm03-server",
        "CCS injection towards the client: the server's ChangeCipherSpec before any ClientKeyExchange",
        sent,
        "A*",
        s,
    )

    s = begin("sm03-both")
    s.hellos({}, {})
    (sent,) = s.server(s.ccs())
    (other,) = s.client(s.ccs())
    s.client(s.sealed(0, tls.HANDSHAKE, 130))
    s.client(s.sealed(0, tls.HANDSHAKE, 16))
    s.server(s.sealed(1, tls.HANDSHAKE, 16))
    s.exchange()
    s.close()
    yield Scenario(
        name="sm03-both",
        what="CCS injection into both directions by somebody on the path: the rest goes under a known key",
        capture=s.capture,
        expected=[Expected("SM03", "A*", [sent, other])],
        allowed=["SM09"],
    )

    s = begin("sm03-before-server-hello")
    s.client(s.client_hello())
    (sent,) = s.client(s.ccs())
    refused(s)
    yield injected(
        "sm03-before-server-hello",
        "a ChangeCipherSpec right after a ClientHello that does not offer TLS 1.3",
        sent,
        "A",
        s,
        absent=["SM08"],
    )

    s = begin("sm03-before-client-hello")
    (sent,) = s.client(s.ccs())
    s.client(s.client_hello())
    refused(s)
    yield injected(
        "sm03-before-client-hello", "a ChangeCipherSpec before any hello", sent, "A", s, allowed=["SM08"]
    )


def change_cipher_spec() -> Iterator[Scenario]:
    s = begin("sm05-body")
    s.hellos({}, {})
    sent = s.client(s.client_key_exchange(), s.record(tls.CCS, b"\2"), s.finished(0))
    refused(s)
    yield Scenario(
        name="sm05-body",
        what="a ChangeCipherSpec whose body is 02",
        capture=s.capture,
        expected=[Expected("SM05", "A", [sent[1]], offender=CLIENT_ADDRESS)],
        absent=["SM03", "SM06"],
    )

    s = begin("sm06-repeated", tls.TLS13, tls.TLS13_AES_128)
    session_id = s.noise.take(32)
    s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12), session_id=session_id))
    s.server(s.server_hello(session_id=session_id), s.ccs(), s.server_flight13())
    sent = s.client(*[s.ccs() for _ in range(4)], s.finished(0))
    s.exchange()
    s.close()
    yield Scenario(
        name="sm06-repeated",
        what="four ChangeCipherSpecs from a TLS 1.3 client, where one is for compatibility (CVE-2020-25648)",
        capture=s.capture,
        expected=[Expected("SM06", "A", [sent[1]], offender=CLIENT_ADDRESS)],
        absent=["SM03"],
    )

    s = begin("sm07-in-fragment")
    s.hellos({}, {})
    whole = tls.message(tls.CLIENT_KEY_EXCHANGE, tls.vector(s.noise.take(32), 1))
    sent = s.client(
        s.record(tls.HANDSHAKE, whole[:10]),
        s.ccs(),
        s.record(tls.HANDSHAKE, whole[10:]),
        s.ccs(),
        s.finished(0),
    )
    refused(s)
    yield Scenario(
        name="sm07-in-fragment",
        what="a ChangeCipherSpec between two fragments of the ClientKeyExchange",
        capture=s.capture,
        expected=[Expected("SM07", "A", [sent[1]], offender=CLIENT_ADDRESS)],
        allowed=["SM06"],
        absent=["SM03"],
    )

    s = begin("sm22-in-fragment")
    s.client(s.client_hello())
    whole = tls.message(tls.CERTIFICATE, tls.vector(tls.vector(certificates.server(), 3), 3))
    sent = s.server(
        s.server_hello(),
        s.record(tls.HANDSHAKE, whole[:300]),
        s.record(tls.APPLICATION_DATA, s.noise.take(60)),
        s.record(tls.HANDSHAKE, whole[300:]),
    )
    refused(s, by_server=False)
    yield Scenario(
        name="sm22-in-fragment",
        what="application data between two fragments of the Certificate",
        capture=s.capture,
        expected=[Expected("SM22", "B", [sent[2]])],
        absent=["SM15"],
    )
