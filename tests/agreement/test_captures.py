"""Each shipped capture, and tshark's opinion of it: not a field differs.

JA4, which tshark 4.0 has not, is computed from tshark's fields (tests.agreement.tshark); that the computation is
right is shown by FoxIO's own examples, in tests/analyzer/tls/test_fingerprint.py and below.
"""

import shutil
from pathlib import Path

import pytest

from analyzer.pipeline import analyze
from analyzer.tls.fingerprint import client_hello_ja4
from analyzer.tls.handshake import parse_client_hello
from tests.agreement import engine, tshark
from tests.agreement.frames import CAPTURES
from tests.analyzer.tls.test_fingerprint import CIPHERS, EXTENSIONS, SCHEMES, SOCKS_HTTPS

pytestmark = [
    pytest.mark.tshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

# fmt: off
CONNECTIONS = {
    "certificate-request-failed.pcap":   1,
    "chrome-1250-tls-x25519-kyber.pcap": 1,
    "client-hello-mtu300.pcap":          1,
    "client_hello_sslv3.pcap":           1,
    "heartbleed-success.pcap":           1,
    "heartbleed.pcap":                   1,
    "smtp-starttls.pcap":                1,
    "tls-1.2-handshake-failure.pcap":    1,
    "tls-conn-with-extensions.pcap":     1,
    "tls-fragmented-handshake.pcap":     1,
    "tls1.2.pcap":                       1,
    "tls12-resumption.pcap":             5,
    "tls13_psk_succesfull.pcap":         1,
    "tls1_1.pcap":                       1,
}
# fmt: on


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_a_capture(path: Path) -> None:
    ours, theirs = engine.facts(analyze(path)), tshark.facts(path)
    assert len(ours) == CONNECTIONS[path.name]
    for connection, fact in theirs.items():
        if fact["client"] is None:  # tshark does not say who is who without a hello
            del fact["client"], fact["server"]
        assert {name: ours[connection][name] for name in fact} == fact
    assert ours.keys() == theirs.keys()


def test_every_capture_is_counted() -> None:
    assert {path.name for path in CAPTURES} == CONNECTIONS.keys()


def fields(**values: list[int]) -> dict[str, list[str]]:
    return {
        f"tls.handshake.{name}": [f"0x{value:04x}" for value in numbers] for name, numbers in values.items()
    }


def test_the_other_computation_of_ja4_gives_the_published_example() -> None:
    """FoxIO-LLC/ja4 technical_details/JA4.md, by way of tshark's fields."""
    row = fields(
        version=[0x0303],
        ciphersuite=[0x0A0A, *(int(code, 16) for code in CIPHERS.split(","))],
        sig_hash_alg=[int(code, 16) for code in SCHEMES.split(",")],
    )
    row["tls.handshake.extension.type"] = ["2570", *(str(int(code, 16)) for code in EXTENSIONS.split(","))]
    row["tls.handshake.extensions.supported_version"] = ["0xaaaa", "0x0304", "0x0303"]
    assert tshark.ja4(row, ["h2", "http/1.1"]) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_both_computations_of_ja4_agree_without_extensions_that_matter() -> None:
    hello = parse_client_hello(bytes.fromhex(SOCKS_HTTPS))
    row = fields(version=[hello.legacy_version], ciphersuite=list(hello.cipher_suites))
    row["tls.handshake.extension.type"] = ["0"]
    assert tshark.ja4(row, []) == client_hello_ja4(hello) == "t10d230100_6a57a6f57151_000000000000"
