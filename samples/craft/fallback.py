"""Version downgrade that shows only over several connections of the same pair.

Source: RFC 7507, RFC 8446 4.1.3; CVE-2014-3566; rows DG05 to DG11, DG17, DG19 and DG20 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from samples.craft import tls_bytes as tls
from samples.craft.conversation import ACK, FIN, RST, SERVER, Capture, Packet
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import begin
from samples.craft.tls_bytes import SENTINEL_TLS12, TLS10, TLS11, TLS12, TLS13

OLD_SUITE = tls.ECDHE_AES_SHA


def scenarios() -> Iterator[Scenario]:
    yield from dances()
    yield from no_dances()
    yield from scsv()
    yield from injector()
    yield from changed_servers()


class Attempt(NamedTuple):
    client_hello: Packet
    failure: Packet | None


def attempt(capture: Capture, seed: str, version: int, failure: str, **hello: Any) -> Attempt:
    """A ClientHello up to `version` that gets no ServerHello: reset, closed, refused or ignored."""
    s = begin(seed, version, capture=capture)
    versions = [known for known in (TLS13, TLS12) if known <= version] or [version]
    (client_hello,) = s.client(s.client_hello(versions=versions, **hello))
    failed = None
    if failure == "reset":
        failed = s.talk.reset(SERVER)
    elif failure == "close":
        failed = s.talk.packet(SERVER, flags=FIN | ACK)
        s.talk.packet(0, flags=RST | ACK, ack=s.talk.received[0] + 1)
    elif failure == "silence":
        capture.pause(3.5)
        s.talk.packet(0, flags=FIN | ACK)
    else:
        (failed,) = s.server(s.alert(tls.FATAL, int(failure)))
        s.talk.close(SERVER)
    capture.pause(0.3)
    return Attempt(client_hello, failed)


def success(capture: Capture, seed: str, version: int, **hello: Any) -> tuple[Packet, Packet]:
    """A connection that offers up to `version` and gets it; its ClientHello and ServerHello."""
    tail = hello.pop("tail", b"")
    if version == TLS13:
        s = begin(seed, version, tls.TLS13_AES_128, capture=capture)
        hellos = s.full13(hello)
    else:
        suite = {TLS12: tls.ECDHE_AES_GCM, tls.SSL30: tls.RSA_AES_SHA}.get(version, OLD_SUITE)
        s = begin(seed, version, suite, capture=capture)
        hellos = s.full(hello, {"tail": tail})
    s.close()
    capture.pause(0.3)
    return hellos.client_hello, hellos.server_hello


def dances() -> Iterator[Scenario]:
    alert = f"{tls.HANDSHAKE_FAILURE}"
    for name, failures, final, tail, action, what in (
        ("reset", [(TLS12, "reset"), (TLS11, "reset")], TLS10, b"", "A*", "reset twice, then TLS 1.0"),
        (
            "ssl3",
            [(TLS12, "reset"), (TLS10, "reset")],
            tls.SSL30,
            b"",
            "A*",
            "reset down to SSL 3.0 (POODLE)",
        ),
        ("alert", [(TLS12, alert)], TLS11, b"", "B", "handshake_failure, then TLS 1.1"),
        ("alert70", [(TLS12, "70")], TLS11, b"", "B", "protocol_version, then TLS 1.1"),
        ("alert10", [(TLS12, "10")], TLS11, b"", "B", "unexpected_message, then TLS 1.1"),
        ("close", [(TLS12, "close")], TLS11, b"", "B", "closed, then TLS 1.1"),
        ("silence", [(TLS12, "silence")], TLS11, b"", "B", "ignored for 3.5 s, then TLS 1.1"),
        (
            "tls13",
            [(TLS13, "reset")],
            TLS12,
            SENTINEL_TLS12,
            "A*",
            "reset, then TLS 1.2 from a server that has 1.3",
        ),
    ):
        capture, seed = Capture(), f"dg06-{name}"
        tries = [attempt(capture, seed, version, failure) for version, failure in failures]
        client_hello, server_hello = success(capture, seed, final, tail=tail)
        yield Scenario(
            name=seed,
            what=f"a client steps down from connection to connection: {what}",
            capture=capture,
            expected=[
                Expected("DG06", action, [*(t.client_hello for t in tries), client_hello]),
                Expected("DG11", "P", [client_hello]),
                *([Expected("DG04", "I", [server_hello])] if tail else []),
            ],
            absent=["DG01", "DG07", "DG08"],
        )


def no_dances() -> Iterator[Scenario]:
    other = (0x009C, 0x0035, 0x002F, 0xC014, 0xC013)
    plans: Sequence[tuple[str, str, list[Any]]] = (
        (
            "nat",
            "two clients behind one address: one is refused at TLS 1.2, another has TLS 1.1 at most",
            [
                ("fail", TLS12, {}),
                ("pass", TLS11, {"suites": other[1:], "groups": (24,), "server_name": None}),
            ],
        ),
        ("late", "the lower offer comes 15 seconds later", [("fail", TLS12, {}), 15.0, ("pass", TLS11, {})]),
        ("retry", "the same version is offered again", [("fail", TLS12, {}), ("pass", TLS12, {})]),
        ("higher", "the second offer is higher", [("fail", TLS11, {}), ("pass", TLS12, {})]),
        ("one-step", "one step down, and that fails too", [("fail", TLS12, {}), ("fail", TLS11, {})]),
        ("no-failure", "the higher offer had succeeded", [("pass", TLS12, {}), ("pass", TLS11, {})]),
    )
    for name, what, plan in plans:
        capture, seed = Capture(), f"dg06-not-{name}"
        for step in plan:
            if isinstance(step, float):
                capture.pause(step)
            elif step[0] == "fail":
                attempt(capture, seed, step[1], "reset", **step[2])
            else:
                success(capture, seed, step[1], **step[2])
        yield Scenario(
            name=seed,
            what=f"no fallback dance: {what}",
            capture=capture,
            absent=["DG05", "DG06", "DG07", "DG11"],
        )


def scsv() -> Iterator[Scenario]:
    capture = Capture()
    client_hello, _ = success(capture, "dg08-scsv", TLS11, scsv=True)
    yield Scenario(
        name="dg08-scsv",
        what="a client that marks its offer of TLS 1.1 as a fallback, and gets it",
        capture=capture,
        expected=[Expected("DG08", "I", [client_hello])],
        absent=["DG06", "DG09", "DG10", "DG11"],
    )

    capture = Capture()
    refused = attempt(capture, "dg09-alone", TLS11, "86", scsv=True)
    assert refused.failure is not None
    yield Scenario(
        name="dg09-alone",
        what="a fallback refused with inappropriate_fallback; the failure before it is not in the capture",
        capture=capture,
        expected=[Expected("DG08", "I", [refused.client_hello]), Expected("DG09", "B", [refused.failure])],
        absent=["DG06"],
    )

    capture = Capture()
    first = attempt(capture, "dg09-dance", TLS12, "reset")
    second = attempt(capture, "dg09-dance", TLS11, "reset", scsv=True)
    third = attempt(capture, "dg09-dance", TLS10, "86", scsv=True)
    assert third.failure is not None
    yield Scenario(
        name="dg09-dance",
        what="a fallback dance that ends in inappropriate_fallback: somebody on the path broke the first two",
        capture=capture,
        expected=[
            Expected("DG06", "A*", [first.client_hello, second.client_hello, third.client_hello]),
            Expected("DG08", "I", [second.client_hello]),
            Expected("DG09", "A*", [third.failure]),
        ],
        absent=["DG11"],
    )

    capture = Capture()
    first = attempt(capture, "dg06-scsv", TLS12, "reset")
    client_hello, _ = success(capture, "dg06-scsv", TLS11, scsv=True)
    yield Scenario(
        name="dg06-scsv",
        what="a fallback dance of one step, marked with the SCSV and accepted",
        capture=capture,
        expected=[
            Expected("DG06", "B", [first.client_hello, client_hello]),
            Expected("DG08", "I", [client_hello]),
        ],
        absent=["DG09", "DG10", "DG11"],
    )

    capture = Capture()
    success(capture, "dg10-ignored", TLS12)
    client_hello, server_hello = success(capture, "dg10-ignored", TLS11, scsv=True)
    yield Scenario(
        name="dg10-ignored",
        what="the server has TLS 1.2, gets a fallback to 1.1 with the SCSV and accepts it",
        capture=capture,
        expected=[
            Expected("DG08", "I", [client_hello]),
            Expected("DG10", "P", [client_hello]),
            Expected("DG12", "P", [server_hello]),
        ],
        absent=["DG05", "DG06", "DG09"],
    )


def injector() -> Iterator[Scenario]:
    for name, kind in (("reset", "a RST"), ("alert", "a fatal alert")):
        capture, seed = Capture(), f"dg07-{name}"
        s = begin(seed, TLS12, capture=capture)
        first = s.client(s.client_hello(), ack=False)[0]
        if name == "reset":
            injected = s.talk.packet(SERVER, flags=RST | ACK, ttl=243, ip_id=0xBEEF)
        else:
            record = s.alert(tls.FATAL, tls.HANDSHAKE_FAILURE)
            injected = s.talk.packet(SERVER, record, flags=0x18, ttl=243, ip_id=0xBEEF)
            s.talk.packet(SERVER, flags=FIN | ACK, seq=s.talk.next_seq[SERVER] + 7, ttl=243, ip_id=0xBEF0)
        s.server(s.server_hello(), *s.server_flight(), ack=False)  # the real server goes on
        s.talk.reset(0)
        capture.pause(0.3)
        client_hello, _ = success(capture, seed, TLS11)
        yield Scenario(
            name=seed,
            what=f"{kind} with another TTL and IP-ID than the server's ends the offer of TLS 1.2; "
            "the server's own answer comes after it; the client falls back",
            capture=capture,
            expected=[
                Expected("DG06", "B", [first, client_hello]),
                Expected("DG07", "A*", [injected]),
            ],
            allowed=["TC01", "TC02", "TC04", "TC09", "SM16", "RL05", "RL06"],
        )


def changed_servers() -> Iterator[Scenario]:
    both = (TLS13, TLS12)

    capture = Capture()
    success(capture, "dg05-lost-tls13", TLS13)
    s = begin("dg05-lost-tls13", TLS12, capture=capture)
    hellos = s.full({"versions": both})
    s.close()
    yield Scenario(
        name="dg05-lost-tls13",
        what="a server that negotiated TLS 1.3 before picks 1.2 though 1.3 is offered; no sentinel",
        capture=capture,
        expected=[Expected("DG05", "B", [hellos.server_hello])],
        absent=["DG01", "DG06", "DG17"],
    )

    capture = Capture()
    success(capture, "dg05-other-name", TLS13)
    s = begin("dg05-other-name", TLS12, capture=capture)
    s.full({"versions": both, "server_name": "old.example"})
    s.close()
    yield Scenario(
        name="dg05-other-name",
        what="no lost capability: another name on the same address has TLS 1.2 only",
        capture=capture,
        absent=["DG01", "DG05"],
    )

    capture = Capture()
    success(capture, "dg17-static-rsa", TLS13)
    s = begin("dg17-static-rsa", TLS12, tls.RSA_AES_GCM, capture=capture)
    hellos = s.full({"versions": both})
    s.close()
    yield Scenario(
        name="dg17-static-rsa",
        what="a drop from TLS 1.3 to a static RSA suite of TLS 1.2, where the server's random is not signed",
        capture=capture,
        expected=[Expected("DG17", "B", [hellos.server_hello]), Expected("DG05", "B", [hellos.server_hello])],
        allowed=["DG20"],
        absent=["DG01"],
    )

    capture = Capture()
    for alpn in ("h2", "http/1.1"):
        s = begin("dg19-alpn", capture=capture)
        hellos = s.full({"alpn": ("h2", "http/1.1")}, {"alpn": alpn})
        s.close()
    yield Scenario(
        name="dg19-alpn",
        what="the same pair: h2 first, then http/1.1 though h2 is offered",
        capture=capture,
        expected=[Expected("DG19", "I", [hellos.server_hello])],
        absent=["DG05", "DG20"],
    )

    suites = (0xC02F, 0xC030, 0xC013, 0xC012, 0x002F)
    for name, order, found in (
        ("dg20-weaker", (tls.ECDHE_AES_GCM, tls.ECDHE_3DES), True),
        ("dg20-stronger", (tls.ECDHE_3DES, tls.ECDHE_AES_GCM), False),
    ):
        capture = Capture()
        for suite in order:
            s = begin(name, TLS12, suite, capture=capture)
            hellos = s.full({"suites": suites})
            s.close()
        yield Scenario(
            name=name,
            what=f"equal ClientHellos, and the server's choice becomes {'weaker' if found else 'stronger'}",
            capture=capture,
            expected=[Expected("DG20", "B", [hellos.server_hello])] if found else [],
            absent=["DG05", "DG17"] if found else ["DG05", "DG17", "DG20"],
        )
