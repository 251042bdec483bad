"""Ordinary connections of real endpoints: openssl s_server and s_client in a network namespace, and tcpdump.

    python -m samples.craft --openssl     # root; records them anew, with new bytes

Nothing in these captures is an attack; what they show follows from the commands below.
Source: openssl-s_server(1), openssl-s_client(1).
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from samples.craft.scenario import Expected, Scenario

NAMESPACE: Final = "tlswall-samples"
SERVER: Final = "198.51.100.10"
CLIENT: Final = "192.0.2.10"
PSK: Final = "1a2b3c4d5e6f708192a3b4c5d6e7f809"

HELLO: Final = (("hello\n", 0.2), ("Q\n", 0.2))
"""What is typed into s_client, each line with the seconds to wait before it. Q closes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One s_client call and what its connections are."""

    arguments: str
    facts: Sequence[dict[str, Any]]
    typed: Sequence[tuple[str, float]] = HELLO
    typed_at_server: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    what: str
    server: str
    runs: Sequence[Run]
    expected: Sequence[Expected] = ()


def fact(version: str, code: int, resumed: str = "no", *, established: bool = True) -> dict[str, Any]:
    return {"version": version, "cipher_suite_code": code, "resumed": resumed, "established": established}


def suites(version: str, option: str, flag: str, named: Sequence[tuple[str, int]]) -> list[Run]:
    return [Run(f"{flag} {option} {name}", [fact(version, code)]) for name, code in named]


WEAK: Final = "-cipher ALL:@SECLEVEL=0"
# fmt: off
RECORDINGS: Final = (
    Recording("tls10", "TLS 1.0, CBC", f"-tls1 {WEAK}",
        suites("TLSv1.0", "-cipher", "-tls1", (
            ("AES128-SHA:@SECLEVEL=0", 0x002F), ("ECDHE-RSA-AES256-SHA:@SECLEVEL=0", 0xC014)))),
    Recording("tls11", "TLS 1.1, CBC", f"-tls1_1 {WEAK}",
        suites("TLSv1.1", "-cipher", "-tls1_1", (
            ("AES256-SHA:@SECLEVEL=0", 0x0035), ("ECDHE-RSA-AES128-SHA:@SECLEVEL=0", 0xC013)))),
    Recording("tls12-aead", "TLS 1.2 with GCM, ChaCha20 and CCM", f"-tls1_2 {WEAK}",
        suites("TLSv1.2", "-cipher", "-tls1_2", (
            ("ECDHE-RSA-AES128-GCM-SHA256", 0xC02F), ("ECDHE-RSA-CHACHA20-POLY1305", 0xCCA8),
            ("DHE-RSA-AES128-GCM-SHA256", 0x009E), ("AES128-CCM8:@SECLEVEL=0", 0xC0A0)))),
    Recording("tls12-cbc", "TLS 1.2 with CBC suites, with and without encrypt_then_mac", f"-tls1_2 {WEAK}", [
        *suites("TLSv1.2", "-cipher", "-tls1_2", (
            ("ECDHE-RSA-AES256-SHA384", 0xC028), ("AES128-SHA256", 0x003C))),
        Run("-tls1_2 -no_etm -cipher AES128-SHA", [fact("TLSv1.2", 0x002F)])]),
    Recording("tls12-null", "TLS 1.2 with a NULL suite: the data can be read", f"-tls1_2 {WEAK}:eNULL",
        [Run("-tls1_2 -cipher eNULL:@SECLEVEL=0", [fact("TLSv1.2", 0xC010)],
             (("the quick brown fox jumps over the lazy dog, " * 7 + "\n", 0.2), ("Q\n", 0.2)))]),
    Recording("tls12-client-certificate", "TLS 1.2 with client authentication", "-tls1_2 -Verify 1",
        [Run("-tls1_2 -cert {pem} -key {pem}", [fact("TLSv1.2", 0xC030)])]),
    Recording("tls12-renegotiation", "TLS 1.2, renegotiated by the client, then by the server",
        "-tls1_2 -client_renegotiation", [
            Run("-tls1_2", [fact("TLSv1.2", 0xC030)],
                (("hello\n", 0.2), ("R\n", 0.2), ("again\n", 0.4), ("Q\n", 0.2))),
            Run("-tls1_2", [fact("TLSv1.2", 0xC030)], (("hello\n", 0.2), ("again\n", 1.2), ("Q\n", 0.2)),
                (("r\n", 0.6),))]),
    Recording("tls12-session-id", "TLS 1.2, one connection and five that resume it by session id",
        "-tls1_2 -no_ticket",
        [Run("-tls1_2 -no_ticket -reconnect",
             [fact("TLSv1.2", 0xC030), *[fact("TLSv1.2", 0xC030, "session_id")] * 5])]),
    Recording("tls12-ticket", "TLS 1.2, one connection and five that resume it by ticket", "-tls1_2",
        [Run("-tls1_2 -reconnect",
             [fact("TLSv1.2", 0xC030), *[fact("TLSv1.2", 0xC030, "ticket")] * 5])]),
    Recording("tls12-psk", "TLS 1.2 with a PSK suite: no certificate",
        f"-tls1_2 -nocert -psk {PSK} -cipher PSK",
        [Run(f"-tls1_2 -psk {PSK} -cipher PSK-AES128-GCM-SHA256", [fact("TLSv1.2", 0x00A8)])]),
    Recording("tls12-anonymous", "TLS 1.2 with anonymous ECDH", "-tls1_2 -cipher AECDH:@SECLEVEL=0",
        [Run("-tls1_2 -cipher AECDH-AES128-SHA:@SECLEVEL=0", [fact("TLSv1.2", 0xC018)])]),
    Recording("tls12-at-tls13-server", "a TLS 1.2 client at a server that has TLS 1.3", "",
        [Run("-tls1_2", [fact("TLSv1.2", 0xC030)])],
        [Expected("DG04", "I", [6])]),
    Recording("fallback-scsv", "a fallback to TLS 1.1, refused with inappropriate_fallback", WEAK,
        [Run("-tls1_1 -fallback_scsv -cipher DEFAULT:@SECLEVEL=0", [{"established": False}])],
        [Expected("DG08", "I", [4]), Expected("DG09", "B", [6])]),
    Recording("tls13", "TLS 1.3 with each of its usual suites", "-tls1_3",
        suites("TLSv1.3", "-ciphersuites", "-tls1_3", (
            ("TLS_AES_128_GCM_SHA256", 0x1301), ("TLS_AES_256_GCM_SHA384", 0x1302),
            ("TLS_CHACHA20_POLY1305_SHA256", 0x1303)))),
    Recording("tls13-no-middlebox", "TLS 1.3 without the compatibility ChangeCipherSpecs",
        "-tls1_3 -no_middlebox",
        [Run("-tls1_3 -no_middlebox", [fact("TLSv1.3", 0x1302)])]),
    Recording("tls13-retry", "TLS 1.3 with a HelloRetryRequest for P-384", "-tls1_3 -groups P-384",
        [Run("-tls1_3 -groups X25519:P-384", [fact("TLSv1.3", 0x1302)])]),
    Recording("tls13-client-certificate", "TLS 1.3 with client authentication", "-tls1_3 -Verify 1",
        [Run("-tls1_3 -cert {pem} -key {pem}", [fact("TLSv1.3", 0x1302)])]),
    Recording("tls13-early-data", "TLS 1.3, then its resumption with 0-RTT data", "-tls1_3 -early_data", [
        Run("-tls1_3 -sess_out {session}", [fact("TLSv1.3", 0x1302)]),
        Run("-tls1_3 -sess_in {session} -early_data {request}", [fact("TLSv1.3", 0x1302, "psk")])]),
    Recording("tls13-psk", "TLS 1.3 with a PSK from outside", f"-tls1_3 -nocert -psk {PSK}",
        [Run(f"-tls1_3 -psk {PSK} -ciphersuites TLS_AES_128_GCM_SHA256", [fact("TLSv1.3", 0x1301, "psk")])]),
    Recording("tls13-key-update", "TLS 1.3 with KeyUpdate from the client, and from both", "-tls1_3",
        [Run("-tls1_3", [fact("TLSv1.3", 0x1302)],
             (*HELLO[:1], ("k\n", 0.2), ("again\n", 0.2), ("K\n", 0.2), ("more\n", 0.3), ("Q\n", 0.2)))]),
)
# fmt: on


def scenarios() -> Iterator[Scenario]:
    for recording in RECORDINGS:
        yield Scenario(
            name=f"openssl-{recording.name}",
            what=f"{'real endpoints' if recording.expected else 'legal, real endpoints'}: {recording.what}",
            capture=None,
            expected=recording.expected,
            connection=[facts for run in recording.runs for facts in run.facts],
        )


def record_all(folder: Path) -> None:
    """Record every capture; the namespace is made for it and removed."""
    in_namespace = ["ip", "netns", "exec", NAMESPACE]
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        for command in (
            "ip link set lo mtu 1500 up",
            f"ip address add {SERVER}/32 dev lo",
            f"ip address add {CLIENT}/32 dev lo",
        ):
            subprocess.run([*in_namespace, *command.split()], check=True)
        with tempfile.TemporaryDirectory() as scratch:
            for recording in RECORDINGS:
                record(recording, folder, Path(scratch), in_namespace)
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def record(recording: Recording, folder: Path, scratch: Path, prefix: list[str]) -> None:
    pem = scratch / "both.pem"
    if not pem.exists():
        request = "req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=server.example -addext"
        arguments = [
            *request.split(),
            "subjectAltName=DNS:server.example",
            "-keyout",
            str(pem),
            "-out",
            str(pem),
        ]
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    early = scratch / "request"
    early.write_bytes(b"GET / HTTP/1.1\r\nHost: server.example\r\n\r\n")
    names = {"pem": pem, "session": scratch / "session", "request": early}

    path = folder / f"openssl-{recording.name}.pcap"
    dump = ["tcpdump", "-i", "lo", "-w", str(path), "-U", "--immediate-mode", "-s", "0", "tcp port 443"]
    serve = f"openssl s_server -accept {SERVER}:443 {recording.server}"
    if "-nocert" not in recording.server:
        serve += f" -cert {pem} -key {pem}"
    if not any(run.typed_at_server for run in recording.runs):
        serve += " -quiet"  # without it letters typed at the server are commands
    with background([*prefix, *dump], wait=0.5), background([*prefix, *serve.split()], wait=0.4) as server:
        for run in recording.runs:
            call = f"openssl s_client -connect {SERVER}:443 -bind {CLIENT}:0 -servername server.example "
            with background([*prefix, *(call + run.arguments.format(**names)).split()]) as client:
                converse(run, client, server)
        time.sleep(0.4)


@contextmanager
def background(command: Sequence[str], *, wait: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block, whatever happens in it."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    try:
        time.sleep(wait)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def converse(run: Run, client: subprocess.Popen[bytes], server: subprocess.Popen[bytes]) -> None:
    """Type each line at its time, then let the client end."""
    turns = [(line, wait, client) for line, wait in run.typed]
    turns[1:1] = [(line, wait, server) for line, wait in run.typed_at_server]
    for line, wait, who in turns:
        time.sleep(wait)
        with suppress(BrokenPipeError):  # a client whose handshake was refused has gone
            assert who.stdin is not None
            who.stdin.write(line.encode())
    client.wait(timeout=20)
    time.sleep(0.2)
