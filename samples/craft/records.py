"""The record layer: lengths, versions, types, and bodies that are no ciphertext.

Source: RFC 5246 6.2, RFC 8446 5; rows RL01, RL02, RL05, RL06, RL12 and LB01 of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

from samples.craft import certificates
from samples.craft import tls_bytes as tls
from samples.craft.scenario import Expected, Scenario
from samples.craft.session import Session, begin

MODERN = (tls.TLS13, tls.TLS13_AES_128)
RUN_LIMIT = 128
"""A run of bytes below 0x80 may be this long (nf_conntrack_tls, suspicious_sequence_length)."""

TEXT = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: 243\r\n\r\n"
    b'{"user":"alice","mail":"alice@mail.example","card":"4111 1111 1111 1111","notes":["first","second"],'
    b'"address":{"street":"Main Street 1","city":"Springfield","country":"XX"},'
    b'"token":"8f14e45fceea167a5a36dedd4bea2543"}'
)
ACCENTED = (
    "Les élèves étaient assis près de la fenêtre; la journée d'été s'achevait et déjà, à l'horizon, " * 4
).encode()


def scenarios() -> Iterator[Scenario]:
    yield from lengths()
    yield from versions()
    yield from types()
    yield from not_ciphertext()
    yield from low_runs()


def established(name: str, version: int = tls.TLS12, suite: tls.Suite = tls.ECDHE_AES_GCM) -> Session:
    s = begin(name, version, suite)
    if version == tls.TLS13:
        s.full13()
    else:
        s.full({"suites": (*tls.offered(version), tls.RSA_NULL.code)})
    return s


def lengths() -> Iterator[Scenario]:
    s = begin("rl01-plaintext", tls.TLS12, tls.RSA_AES_GCM)
    s.client(s.client_hello())
    chain = tls.vector(certificates.server(), 3) * 21
    sent = s.server(
        s.server_hello(), s.handshake(tls.CERTIFICATE, tls.vector(chain, 3)), s.server_hello_done()
    )
    s.talk.close()
    yield Scenario(
        name="rl01-plaintext",
        what="a handshake record in clear of more than 16384 bytes",
        capture=s.capture,
        expected=[Expected("RL01", "B", [sent[1]])],
        allowed=["CT18"],
    )

    for name, version, suite, excess, found in (
        ("rl01-tls12", tls.TLS12, tls.ECDHE_AES_GCM, 2049, True),
        ("rl01-tls12-limit", tls.TLS12, tls.ECDHE_AES_GCM, 2048, False),
        ("rl01-tls13", *MODERN, 257, True),
        ("rl01-tls13-limit", *MODERN, 256, False),
    ):
        s = established(name, version, suite)
        (record,) = s.server(s.record(tls.APPLICATION_DATA, s.noise.take(16384 + excess)))
        s.close()
        yield Scenario(
            name=name,
            what=f"an encrypted record of 16384 + {excess} bytes: {'one too many' if found else 'the limit'}",
            capture=s.capture,
            expected=[Expected("RL01", "B", [record])] if found else [],
            absent=[] if found else ["RL01"],
        )

    s = begin("rl02-handshake")
    s.client(s.client_hello())
    sent = s.server(s.server_hello(), s.record(tls.HANDSHAKE, b""), *s.server_flight())
    s.talk.close()
    yield Scenario(
        name="rl02-handshake",
        what="an empty handshake record in clear",
        capture=s.capture,
        expected=[Expected("RL02", "B", [sent[1]])],
    )

    s = established("rl02-data")
    (record,) = s.client(s.record(tls.APPLICATION_DATA, b""))
    s.exchange()
    s.close()
    yield Scenario(
        name="rl02-data",
        what="an empty application data record after encryption, where the cipher alone adds 24 bytes",
        capture=s.capture,
        expected=[Expected("RL02", "B", [record])],
        allowed=["RL04"],
    )

    s = established("rl-empty-fragments", tls.TLS10, tls.ECDHE_AES_SHA)
    for _ in range(5):
        s.client(s.data(0, 0), s.data(0, 200))
        s.server(s.data(1, 0), s.data(1, 900))
    s.close()
    yield Scenario(
        name="rl-empty-fragments",
        what="legal: an empty fragment before each TLS 1.0 CBC record, against BEAST",
        capture=s.capture,
        absent=["RL02", "RL04"],
    )


def versions() -> Iterator[Scenario]:
    s = established("rl05-changes")
    (record,) = s.client(s.record(tls.APPLICATION_DATA, s.sealed_body(0, 200), tls.TLS11))
    s.exchange()
    s.close()
    yield Scenario(
        name="rl05-changes",
        what="a record of version 1.1 within a TLS 1.2 connection",
        capture=s.capture,
        expected=[Expected("RL05", "I", [record])],
        absent=["RL06"],
    )

    s = begin("rl05-first")
    hello = tls.ClientHello(noise=s.noise).message()
    (record,) = s.client(tls.record(tls.HANDSHAKE, hello, 0x0307))
    s.server(s.alert(tls.FATAL, tls.PROTOCOL_VERSION))
    s.talk.close(1)
    yield Scenario(
        name="rl05-first",
        what="a ClientHello in a record of version 0307",
        capture=s.capture,
        expected=[Expected("RL05", "I", [record])],
        allowed=["DG15"],
        absent=["RL06"],
    )

    s = established("rl06-major")
    (record,) = s.server(s.record(tls.APPLICATION_DATA, s.noise.take(100), 0x1303))
    s.talk.close()
    yield Scenario(
        name="rl06-major",
        what="a record header with the major version 0x13 after good records: framing is lost",
        capture=s.capture,
        expected=[Expected("RL06", "B", [record])],
        absent=["RL05"],
    )


def types() -> Iterator[Scenario]:
    for name, kind in (("rl06-type-99", 99), ("rl06-type-25", 25)):
        s = established(name)
        (record,) = s.client(s.record(kind, s.noise.take(40)))
        s.talk.close()
        yield Scenario(
            name=name,
            what=f"a record of content type {kind} in a TLS connection over TCP",
            capture=s.capture,
            expected=[Expected("RL06", "B", [record])],
            absent=["RL05"],
        )

    s = established("rl06-text")
    (record,) = s.server(b"500 OOPS: priv_sock_get_cmd\r\n")
    s.talk.close(1)
    yield Scenario(
        name="rl06-text",
        what="the server goes back to clear text in the middle of a TLS connection",
        capture=s.capture,
        expected=[Expected("RL06", "B", [record])],
        allowed=["AP04"],
        absent=["RL05"],
    )


def not_ciphertext() -> Iterator[Scenario]:
    s = established("rl12-smuggled-http")
    (record,) = s.server(s.record(tls.APPLICATION_DATA, TEXT))
    s.close()
    yield Scenario(
        name="rl12-smuggled-http",
        what="an HTTP answer in clear in an application data record of an encrypted connection",
        capture=s.capture,
        expected=[Expected("RL12", "B", [record]), Expected("LB01", "B", [record])],
        absent=["SM15"],
    )

    s = established("rl12-accented-text")
    (record,) = s.client(s.record(tls.APPLICATION_DATA, ACCENTED))
    s.close()
    yield Scenario(
        name="rl12-accented-text",
        what="text in clear whose accented letters break every long run of low bytes",
        capture=s.capture,
        expected=[Expected("RL12", "B", [record])],
        absent=["LB01"],
    )

    s = established("rl12-pattern", *MODERN)
    (record,) = s.client(s.record(tls.APPLICATION_DATA, b"\xde\xad\xbe\xef" * 100))
    s.close()
    yield Scenario(
        name="rl12-pattern",
        what="a repeated pattern of four bytes where TLS 1.3 ciphertext should be",
        capture=s.capture,
        expected=[Expected("RL12", "B", [record])],
        absent=["LB01"],
    )

    s = begin("rl12-short")
    s.full()
    for size in (40, 64, 88, 112):  # sizes at which random bytes have less than 6.5 bits each
        s.client(s.data(0, size))
        s.server(s.data(1, size))
    s.close()
    yield Scenario(
        name="rl12-short",
        what="legal: short encrypted records, whose entropy is low because they are short",
        capture=s.capture,
        absent=["RL12", "LB01"],
    )

    s = established("rl12-null-suite", tls.TLS12, tls.RSA_NULL)
    s.server(s.record(tls.APPLICATION_DATA, TEXT + s.noise.take(20)))
    s.close()
    yield Scenario(
        name="rl12-null-suite",
        what="text in application data of a NULL suite: no encryption was agreed on",
        capture=s.capture,
        absent=["RL12", "LB01"],
    )


def low_runs() -> Iterator[Scenario]:
    def low(s: Session, count: int) -> bytes:
        return bytes(byte & 0x7F for byte in s.noise.take(count))

    def body(s: Session, run: int) -> bytes:
        """Random bytes with one run of low ones, between two high ones."""
        return s.noise.take(300) + b"\x99" + low(s, run) + b"\xa6" + s.noise.take(300)

    for name, version, suite, run in (
        ("lb01-129", tls.TLS12, tls.ECDHE_AES_GCM, RUN_LIMIT + 1),
        ("lb01-129-tls13", *MODERN, RUN_LIMIT + 1),
        ("lb01-128", tls.TLS12, tls.ECDHE_AES_GCM, RUN_LIMIT),
    ):
        s = established(name, version, suite)
        (record,) = s.client(s.record(tls.APPLICATION_DATA, body(s, run)))
        s.exchange()
        s.close()
        found = run > RUN_LIMIT
        yield Scenario(
            name=name,
            what=f"a run of {run} bytes below 0x80 in an encrypted record" + ("" if found else ": the limit"),
            capture=s.capture,
            expected=[Expected("LB01", "B", [record])] if found else [],
            absent=["RL12"] if found else ["RL12", "LB01"],
        )

    s = established("lb01-two-segments")
    header, data = 5, body(s, RUN_LIMIT + 1)
    split = header + 301 + RUN_LIMIT  # the second segment starts with the byte that is one too many
    s.client(s.record(tls.APPLICATION_DATA, data), cut=(split,), ack=False)
    second = s.capture.packets[-1]
    s.exchange()
    s.close()
    yield Scenario(
        name="lb01-two-segments",
        what="a run of 129 low bytes over two segments: 128 in the first, one in the second",
        capture=s.capture,
        expected=[Expected("LB01", "B", [second])],
        absent=["RL12"],
    )

    for name, first, rest in (("lb01-two-records", 65, 64), ("lb01-two-records-128", 64, 64)):
        s = established(name)
        (_,) = s.server(s.record(tls.APPLICATION_DATA, s.noise.take(400) + b"\x99" + low(s, first)))
        (record,) = s.server(s.record(tls.APPLICATION_DATA, low(s, rest) + b"\x99" + s.noise.take(400)))
        s.close()
        found = first + rest > RUN_LIMIT
        yield Scenario(
            name=name,
            what=f"a run of {first} + {rest} low bytes over two records" + ("" if found else ": the limit"),
            capture=s.capture,
            expected=[Expected("LB01", "B", [record])] if found else [],
            absent=["RL12"] if found else ["RL12", "LB01"],
        )
