"""`tlswall crosscheck` as a user runs it, on other forms of the shipped captures: what differs has a reason."""

import shutil
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from rulegen.cli import app
from tests.agreement.conftest import Made
from tests.agreement.frames import CAPTURES
from tests.agreement.variants import VARIANTS, Variant

TOOLS = ("tshark", "editcap", "mergecap")
pytestmark = [
    pytest.mark.tshark,
    *(pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed") for tool in TOOLS),
]
CAPTURE = next(path for path in CAPTURES if path.name == "tls1.2.pcap")
BY_NAME = {variant.name: variant for variant in VARIANTS}

LONG = "tshark takes a handshake message above 256 KiB for an encrypted one"
FRAGMENTS = "scapy does not put fragments together"
UNREAD = "scapy stopped behind packet 0: Not a supported capture file; the packets were not compared"
ORDER = "tshark names the packet that put the segments in order, tlswall the one with the last byte"
SMTP = "tshark finds TLS behind smtp only where its dissector has followed the dialogue"
PORTS = "neither hello was captured: tshark then knows TLS by its ports"
THREE = "neither hello was captured: tlswall then waits for three records in a row"
UNFINISHED = "its record is not complete in the capture: tlswall judges a heartbeat by its beginning"
NEXT = "bytes are missing in the capture: tshark does not find the next record behind them"
BEHIND = "bytes are missing in the capture: tlswall does not say what is in clear behind them"

# fmt: off
REASONS = {
    # variant: reason -> how many differences have it
    "pcap":             {LONG: 1},
    "big-endian":       {LONG: 1},
    "pcapng-sections":  {LONG: 1},
    "pcapng-simple":    {LONG: 1},
    "mergecap":         {LONG: 1},
    "modified-pcap":    {LONG: 1, UNREAD: 1},
    "gz":               {LONG: 1},
    "sll2":             {LONG: 1},
    "qinq":             {LONG: 1},
    "mpls":             {LONG: 1},
    "6in4":             {LONG: 1},
    "geneve":           {LONG: 1},
    "ipv6-extensions":  {LONG: 1},
    "ipv4-fragments":   {LONG: 1, FRAGMENTS: 347},
    "shuffled":         {LONG: 1, ORDER: 9, SMTP: 1},
    "resent":           {LONG: 1},
    "without-syn":      {LONG: 1},
    "client-only":      {SMTP: 1},
    "first-half":       {UNFINISHED: 2},
    "second-half":      {THREE: 1, PORTS: 1, BEHIND: 7},
    "snaplen-96":       {SMTP: 1, NEXT: 1, BEHIND: 2},
    "dropped-2":        {SMTP: 1, NEXT: 13},
}
# fmt: on


@pytest.mark.parametrize("name", REASONS)
def test_every_difference_has_its_reason(name: str, make: Callable[[Variant], Made]) -> None:
    path, _, _ = make(BY_NAME[name])
    result = CliRunner().invoke(app, ["crosscheck", str(path)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    for reason, count in REASONS[name].items():
        explained = [line for line in lines if line.endswith(f"({reason})")]
        assert len(explained) == count, reason
        lines = [line for line in lines if line not in explained]
    assert lines == []
    count = sum(REASONS[name].values())
    assert result.stderr.splitlines()[-1] == f"tlswall: {count} difference{'s' if count > 1 else ''}"


def test_no_differences() -> None:
    result = CliRunner().invoke(app, ["crosscheck", str(CAPTURE)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no differences" in result.stderr
