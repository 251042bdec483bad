"""The whole comparison: on real captures tlswall, tshark and scapy agree, and what differs is known by name.

DIFFERENCES lists every difference over all shipped captures. It is no tolerance: a new one fails, and so does
one that is gone.
"""

import shutil
from pathlib import Path

import pytest

from analyzer.crosscheck import compare
from analyzer.errors import CaptureError

SAMPLES = Path(__file__).parents[3] / "samples"
CAPTURES = sorted((SAMPLES / "captures").glob("*.pcap"))
CRAFTED = sorted((SAMPLES / "crafted").glob("*.pcap*"))

needs_tshark = [
    pytest.mark.tshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

# What differs, by the words of the explanation; every explanation is a rule of crosscheck/, tested there.
TOO_LONG = "tshark takes a handshake message above 256 KiB for an encrypted one"

# fmt: off
DIFFERENCES = {
    # capture: (field, explanation) of each difference
    "tls-fragmented-handshake.pcap": [("message", TOO_LONG)],
}
# fmt: on


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
@needs_tshark[0]
@needs_tshark[1]
def test_real_captures(path):
    found = [(difference.field, difference.explanation) for difference in compare(path)]
    assert found == DIFFERENCES.get(path.name, [])


def test_standard_input_can_not_be_compared():
    with pytest.raises(CaptureError, match="must be a file"):
        compare("-")
