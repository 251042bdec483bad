"""The whole comparison: tlswall, tshark and scapy agree on every shipped capture, and what differs is known.

DIFFERENCES lists every difference. It is no tolerance: a new one fails, and so does one that is gone.
"""

import shutil
from pathlib import Path

import pytest

from analyzer.crosscheck import compare
from analyzer.errors import CaptureError

SAMPLES = Path(__file__).parents[3] / "samples"
CAPTURES = sorted((SAMPLES / "captures").glob("*.pcap"))
CRAFTED = sorted((SAMPLES / "crafted").glob("*.pcap*"))

# The beginnings of explanations; each is a rule of crosscheck/ and tested beside it.
TOO_LONG = "tshark takes a handshake message above 256 KiB"
EARLY_CHANGE = "tshark takes all that follows a ChangeCipherSpec for encrypted"
ORDER = "tshark names the packet that put the segments in order"
NULL_CIPHER = "the cipher suite does not encrypt"
BEHIND_CHANGE = "this side has sent ChangeCipherSpec"
TLS13 = "protected in TLS 1.3"
LOSS = "bytes are missing in the capture"
# compare() sees no record versions: tshark reads no record whose version is not registered (0305 here)
UNREGISTERED = ""

# fmt: off
DIFFERENCES = {
    # capture: which fields differ, and why
    "hb05-growth-16.pcap":                {("message", BEHIND_CHANGE)},
    "openssl-tls12-null.pcap":            {("alerts", NULL_CIPHER), ("message", BEHIND_CHANGE)},
    "rl12-null-suite.pcap":               {("alerts", NULL_CIPHER)},
    "sm03-before-client-hello.pcap":      {(name, EARLY_CHANGE) for name in ("sni", "ja3", "message")},
    "sm03-client-then-key-exchange.pcap": {("message", EARLY_CHANGE)},
    "sm12-finished.pcap":                 {("message", BEHIND_CHANGE)},
    "rl05-first.pcap":                    {(name, UNREGISTERED) for name in ("sni", "ja3", "message")},
    "sm14-server.pcap":                   {("message", TLS13)},
    "tcp-gap-certificate.pcap":           {("message", LOSS)},
    "tcp-midstream-handshake.pcap":       {("message", LOSS)},
    "tcp-out-of-order.pcap":              {("message", ORDER)},
    "tcp-snaplen-96.pcap":                {("message", LOSS)},
    "tls-fragmented-handshake.pcap":      {("message", TOO_LONG)},
}
# fmt: on


def parameters(paths):
    return [pytest.param(path, id=path.name) for path in paths]


def check(path):
    expected = DIFFERENCES.get(path.name, set())
    found = {(difference.field, difference.explanation or "") for difference in compare(path)}
    for field, explanation in found:
        assert any(field == name and explanation.startswith(why) for name, why in expected), (
            field,
            explanation,
        )
    for name, why in expected:
        assert any(field == name and explanation.startswith(why) for field, explanation in found), (name, why)


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("path", parameters(CAPTURES))
def test_real_captures(path):
    check(path)


@pytest.mark.slow
@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("path", parameters(CRAFTED))
def test_crafted_captures(path):
    check(path)


def test_every_name_is_a_capture():
    assert DIFFERENCES.keys() <= {path.name for path in (*CAPTURES, *CRAFTED)}


def test_standard_input_can_not_be_compared():
    with pytest.raises(CaptureError, match="must be a file"):
        compare("-")
