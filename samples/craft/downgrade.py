"""Version downgrade: what one handshake shows, what several connections of the same pair show.

Source: RFC 8446 4.1.3 and D, RFC 7507, RFC 8996; CVE-2014-3566; rows DG01 to DG21 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

from samples.craft import tls_bytes as tls
from samples.craft.conversation import SERVER
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Session, begin
from samples.craft.tls_bytes import (
    SENTINEL_TLS11,
    SENTINEL_TLS12,
    TLS10,
    TLS11,
    TLS12,
    TLS13,
    Noise,
    Sslv2Hello,
)

OLD_SUITE = tls.ECDHE_AES_SHA


def scenarios() -> Iterator[Scenario]:
    yield from sentinels()
    yield from one_handshake()
    yield from old_versions()


def rejected(s: Session) -> None:
    """The client gives up on the ServerHello."""
    s.client(s.alert(tls.FATAL, tls.ILLEGAL_PARAMETER))
    s.talk.close()


def sentinels() -> Iterator[Scenario]:
    everything = (TLS13, TLS12, TLS11, TLS10)
    for name, version, tail, suite, allowed in (
        ("dg01-tls12", TLS12, SENTINEL_TLS12, tls.ECDHE_AES_GCM, []),
        ("dg01-tls11", TLS11, SENTINEL_TLS11, OLD_SUITE, ["DG15"]),
        ("dg01-tls10", TLS10, SENTINEL_TLS11, OLD_SUITE, ["DG15"]),
    ):
        s = begin(name, version, suite)
        hellos = s.hellos({"versions": everything}, {"tail": tail, "session_id": b""})
        rejected(s)
        yield Scenario(
            name=name,
            what=f"TLS 1.3 is offered, the server picks {version:04x}; its random ends in {tail.hex()}",
            capture=s.capture,
            expected=[Expected("DG01", "A*", [hellos.server_hello])],
            allowed=allowed,
            absent=["DG03", "DG04"],
        )

    s = begin("dg02-tls11", TLS11, OLD_SUITE)
    hellos = s.full({"versions": (TLS12,)}, {"tail": SENTINEL_TLS11})
    s.close()
    yield Scenario(
        name="dg02-tls11",
        what="up to TLS 1.2 is offered, TLS 1.1 is picked, and the random says that the server has better",
        capture=s.capture,
        expected=[
            Expected("DG02", "A*", [hellos.server_hello]),
            Expected("DG12", "P", [hellos.server_hello]),
        ],
        absent=["DG01", "DG03"],
    )

    for name, offered, version, suite, tail, what in (
        ("dg03-tls12", TLS12, TLS12, tls.ECDHE_AES_GCM, SENTINEL_TLS11, "TLS 1.2 with the sentinel for 1.1"),
        ("dg03-tls11", TLS11, TLS11, OLD_SUITE, SENTINEL_TLS12, "TLS 1.1 with the sentinel for 1.2"),
    ):
        s = begin(name, version, suite)
        hellos = s.full({"versions": (offered,)}, {"tail": tail})
        s.close()
        yield Scenario(
            name=name,
            what=f"a sentinel that contradicts the version: {what}",
            capture=s.capture,
            expected=[Expected("DG03", "I", [hellos.server_hello])],
            absent=["DG01", "DG02"],
        )

    s = begin("dg03-tls13", TLS13, tls.TLS13_AES_128)
    hellos = s.full13(None, {"tail": SENTINEL_TLS12})
    s.close()
    yield Scenario(
        name="dg03-tls13",
        what="TLS 1.3 is negotiated, with a sentinel all the same, as GnuTLS once did: no downgrade",
        capture=s.capture,
        expected=[Expected("DG03", "I", [hellos.server_hello])],
        absent=["DG01", "DG02", "DG04"],
        connection=[{"version": "TLSv1.3", "established": True}],
    )

    s = begin("dg04-tls12")
    hellos = s.full(None, {"tail": SENTINEL_TLS12})
    s.close()
    yield Scenario(
        name="dg04-tls12",
        what="legal: a TLS 1.2 client at a server that has TLS 1.3 and says so in its random",
        capture=s.capture,
        expected=[Expected("DG04", "I", [hellos.server_hello])],
        absent=["DG01", "DG02", "DG03"],
    )


def one_handshake() -> Iterator[Scenario]:
    s = begin("dg15-above-offer")
    hellos = s.hellos({"versions": (TLS11,), "suites": tls.offered(TLS12)}, {})
    rejected(s)
    yield Scenario(
        name="dg15-above-offer",
        what="the ServerHello has a higher version (1.2) than the client offered (1.1)",
        capture=s.capture,
        expected=[Expected("DG15", "B", [hellos.server_hello])],
        absent=["DG01"],
    )

    s = begin("dg15-below-both", TLS11, OLD_SUITE)
    hellos = s.hellos({"versions": (TLS13, TLS12)}, {})
    rejected(s)
    yield Scenario(
        name="dg15-below-both",
        what="1.3 and 1.2 are offered, the server picks 1.1, below everything offered; no sentinel",
        capture=s.capture,
        expected=[Expected("DG15", "B", [hellos.server_hello])],
        allowed=["DG16"],
        absent=["DG01"],
    )

    s = begin("dg15-record-above-hello", TLS11, OLD_SUITE)
    hello = tls.ClientHello(noise=s.noise, versions=(TLS11,)).message()
    (client_hello,) = s.client(tls.record(tls.HANDSHAKE, hello, TLS12))
    s.server(s.server_hello(), *s.server_flight())
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.close()
    yield Scenario(
        name="dg15-record-above-hello",
        what="a ClientHello for TLS 1.1 in a record of version 1.2",
        capture=s.capture,
        expected=[Expected("DG15", "B", [client_hello])],
    )

    s = begin("dg16-tls12-not-offered")
    hellos = s.hellos({"versions": (TLS13,), "suites": tls.offered(TLS12)}, {})
    rejected(s)
    yield Scenario(
        name="dg16-tls12-not-offered",
        what="supported_versions lists TLS 1.3 only and the server answers with TLS 1.2",
        capture=s.capture,
        expected=[Expected("DG16", "B", [hellos.server_hello])],
        absent=["DG01", "DG15"],
    )

    s = begin("dg16-unknown-selected", TLS13, tls.TLS13_AES_128)
    (client_hello,) = s.client(s.client_hello(versions=(TLS13, TLS12), session_id=b""))
    (server_hello,) = s.server(s.server_hello(selected_version=0x0305))
    rejected(s)
    yield Scenario(
        name="dg16-unknown-selected",
        what="the server's supported_versions selects 0305, which nobody offered",
        capture=s.capture,
        expected=[Expected("DG16", "B", [server_hello])],
        allowed=["DG15"],
        absent=["DG01"],
    )

    s = begin("dg18-early-data")
    hello = s.client_hello(versions=(TLS13, TLS12), psk=True, early_data=True)
    s.client(hello, s.ccs(), tls.record(tls.APPLICATION_DATA, s.noise.take(200)))
    server_hello = s.server(s.server_hello(), *s.server_flight())[0]
    rejected(s)
    yield Scenario(
        name="dg18-early-data",
        what="the client sends 0-RTT data and gets a TLS 1.2 ServerHello",
        capture=s.capture,
        expected=[Expected("DG18", "B", [server_hello])],
        absent=["DG01", "SM15", "SM03"],
    )


def old_versions() -> Iterator[Scenario]:
    for name, version, suite in (
        ("dg12-ssl3", tls.SSL30, tls.RSA_AES_SHA),
        ("dg12-tls10", TLS10, tls.ECDHE_AES_SHA),
        ("dg12-tls11", TLS11, tls.RSA_AES_SHA),
    ):
        s = begin(name, version, suite)
        hellos = s.full()
        s.close()
        label = "SSLv3" if version == tls.SSL30 else f"TLSv1.{version - TLS10}"
        yield Scenario(
            name=name,
            what=f"legal but deprecated: {label} offered at most and negotiated",
            capture=s.capture,
            expected=[
                Expected("DG12", "P", [hellos.server_hello]),
                Expected("DG13", "P", [hellos.client_hello]),
            ],
            connection=[
                {"version": label, "cipher_suite_code": suite.code, "resumed": "no", "established": True}
            ],
        )

    s = begin("dg13-refused", TLS11, OLD_SUITE)
    (client_hello,) = s.client(s.client_hello(versions=(TLS10,)))
    s.server(s.alert(tls.FATAL, tls.PROTOCOL_VERSION))
    s.talk.close(SERVER)
    yield Scenario(
        name="dg13-refused",
        what="a TLS 1.0 client that the server refuses with protocol_version",
        capture=s.capture,
        expected=[Expected("DG13", "P", [client_hello])],
        absent=["DG12", "DG06"],
        connection=[{"established": False}],
    )

    s = begin("dg14-sslv2")
    (client_hello,) = s.client(Sslv2Hello(noise=s.noise, version=0x0002).record())
    (server_hello,) = s.server(sslv2_server_hello(s.noise))
    s.client(sslv2_master_key(s.noise))
    s.server(tls.sslv2_record(s.noise.take(33)))
    s.client(tls.sslv2_record(s.noise.take(33)))
    s.server(tls.sslv2_record(s.noise.take(33)))
    s.client(tls.sslv2_record(s.noise.take(120)))
    s.server(tls.sslv2_record(s.noise.take(900)))
    s.talk.close()
    yield Scenario(
        name="dg14-sslv2",
        what="an SSLv2 connection",
        capture=s.capture,
        expected=[Expected("DG14", "P", [client_hello]), Expected("DG12", "P", [server_hello])],
        connection=[{"version": "SSLv2"}],
    )

    s = begin("dg14-sslv2-refused")
    (client_hello,) = s.client(Sslv2Hello(noise=s.noise, version=0x0002).record())
    s.talk.close(SERVER)
    yield Scenario(
        name="dg14-sslv2-refused",
        what="an SSLv2 CLIENT-HELLO that the server answers with FIN",
        capture=s.capture,
        expected=[Expected("DG14", "P", [client_hello])],
        absent=["DG12"],
    )

    for version in (TLS10, TLS12):
        s = begin(f"dg14-hello-{version:04x}", TLS10, tls.RSA_AES_SHA)
        kinds = (0x00002F, 0x000035, 0x00000A, 0x0000FF, 0x010080)
        (client_hello,) = s.client(Sslv2Hello(noise=s.noise, version=version, kinds=kinds).record())
        s.server(s.server_hello(extended_master_secret=False), *s.server_flight())
        s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
        s.server(s.ccs(), s.finished(1))
        s.exchange()
        s.close()
        yield Scenario(
            name=f"dg14-hello-{version:04x}",
            what=f"a ClientHello in SSLv2 form that offers up to {version:04x}; TLS 1.0 follows",
            capture=s.capture,
            expected=[Expected("DG14", "P", [client_hello])],
            connection=[{"version": "TLSv1.0", "cipher_suite_code": 0x002F, "established": True}],
        )


def sslv2_server_hello(noise: Noise) -> bytes:
    from samples.craft import certificates

    certificate, ciphers, connection_id = (
        certificates.server(),
        bytes.fromhex("010080 0700c0"),
        noise.take(16),
    )
    lengths = b"".join(len(part).to_bytes(2, "big") for part in (certificate, ciphers, connection_id))
    body = b"\4\0\1\0\2" + lengths + certificate + ciphers + connection_id  # no session hit, X.509
    return tls.sslv2_record(body)


def sslv2_master_key(noise: Noise) -> bytes:
    body = (
        b"\2" + bytes.fromhex("0700c0 0000 0100 0008") + noise.take(256) + noise.take(8)
    )  # 3DES, nothing in clear
    return tls.sslv2_record(body)
