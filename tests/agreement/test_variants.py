"""All shipped captures, in every form that the same connections can have, and tshark's opinion of each.

A variant holds the packets of all captures (tests.agreement.variants). Three things are asked of it:
- tlswall agrees with tshark on the same file, but for DIFFERENCES: those follow from how tshark works, one by
  one. The table is no tolerance: a new difference fails, and so does one that is gone.
- tlswall says of it what it says of the unmodified captures: packet numbers apart, and addresses where they were
  rewritten. So it is also shown where tshark can't serve as a judge.
- it makes no difference where the file is parted into blocks.
"""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from analyzer import pipeline
from analyzer.capture.source import open_capture
from analyzer.pipeline import analyze
from tests.agreement import engine, tshark
from tests.agreement.conftest import Made
from tests.agreement.frames import CAPTURES, NAMES, Frame, frames
from tests.agreement.variants import VARIANTS, Variant

Make = Callable[[Variant], Made]
TOOLS = ("tshark", "editcap", "mergecap", "reordercap", "text2pcap")
pytestmark = [
    pytest.mark.tshark,
    *(pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed") for tool in TOOLS),
]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)

DIALOGUE = "tshark's SMTP dissector says where TLS begins, and has not seen the whole dialogue"
PORT = "neither hello is there: tshark goes by the port, and takes port 25 for SMTP in clear"
ONE_RECORD = (
    "no hello, and one record whose end is in another segment: tlswall waits for three that fit together"
)
NEXT_RECORD = "tshark does not find the next record behind missing bytes"

# fmt: off
DIFFERENCES: dict[str, dict[tuple[str, str], str]] = {
    # variant      (capture, field)                              why
    "shuffled":    {("smtp-starttls.pcap", "tls"):               DIALOGUE},
    "client-only": {("smtp-starttls.pcap", "tls"):               DIALOGUE},
    "server-only": {("smtp-starttls.pcap", "tls"):               DIALOGUE},
    "second-half": {("smtp-starttls.pcap", "tls"):               PORT,
                    ("heartbleed-success.pcap", "tls"):          ONE_RECORD},
    "snaplen-96":  {("smtp-starttls.pcap", "tls"):               DIALOGUE,
                    ("certificate-request-failed.pcap", "alerts"): NEXT_RECORD},
    "snaplen-300": {("certificate-request-failed.pcap", "alerts"): NEXT_RECORD},
    "dropped-1":   {("smtp-starttls.pcap", "tls"):               DIALOGUE},
    "dropped-2":   {("smtp-starttls.pcap", "tls"):               DIALOGUE,
                    ("certificate-request-failed.pcap", "alerts"): NEXT_RECORD},
    "dropped-3":   {("smtp-starttls.pcap", "tls"):               DIALOGUE},
    "dropped-4":   {("smtp-starttls.pcap", "tls"):               DIALOGUE},
}
# fmt: on


@every_variant
def test_agreement_with_tshark(variant: Variant, make: Make) -> None:
    path, plain, packets = make(variant)
    analysis = analyze(path)
    assert [capture.errors for capture in analysis.captures] == [[]]
    assert [capture.packets for capture in analysis.captures] == [len(packets)]
    ours, theirs = engine.facts(analysis), tshark.facts(plain)
    assert found(ours, theirs, packets) == DIFFERENCES.get(variant.name, {}).keys()


def found(
    ours: dict[int, tshark.Fact], theirs: dict[int, tshark.Fact], packets: list[Frame]
) -> set[tuple[str, str]]:
    """(capture, field) of what differs. The numbers of connections are compared too: each is tcp.stream."""
    differences = set()
    for number in ours.keys() | theirs.keys():
        mine, other = ours.get(number), theirs.get(number)
        capture = packets[(mine or other or {})["first_packet"] - 1].capture
        if mine is None or other is None:
            differences.add((capture, "tls"))
            continue
        for name, value in other.items():
            if other["client"] is None:  # without a hello tshark does not say who is who
                if name in ("client", "server"):
                    continue
                if name == "alerts":
                    mine[name] = [(None, *alert[1:]) for alert in mine[name]]
            if mine[name] != value:
                differences.add((capture, name))
    return differences


@cache
def of_the_original() -> list[dict[str, Any]]:
    """What tlswall says of each shipped capture by itself."""
    return in_order(
        connection
        for path in CAPTURES
        for connection in engine.shown(analyze(path), range(1, len(frames(path.name)) + 1))
    )


def in_order(connections: Any) -> list[dict[str, Any]]:
    return sorted(
        connections, key=lambda connection: (connection["client"]["port"], connection["sync"] is None)
    )


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.same], ids=lambda variant: variant.name)
def test_a_variant_says_what_the_original_says(variant: Variant, make: Make) -> None:
    path, _, packets = make(variant)
    shown = in_order(
        engine.without_rewriting(engine.shown(analyze(path), [frame.origin for frame in packets]))
    )
    assert shown == of_the_original()


@every_variant
def test_blocks_make_no_difference(variant: Variant, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, packets = make(variant)
    numbers = range(1, len(packets) + 1)
    whole = engine.shown(analyze(path), numbers)
    monkeypatch.setattr(pipeline, "open_capture", functools.partial(open_capture, block_bytes=20_000))
    assert engine.shown(analyze(path), numbers) == whole


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.stdin], ids=lambda variant: variant.name)
def test_standard_input(variant: Variant, make: Make) -> None:
    """The same document from a pipe as from the file, but for its path."""
    path, _, _ = make(variant)
    command = [sys.executable, "-m", "analyzer", "analyze", "--format", "json"]
    documents = []
    for argument in (str(path), "-"):
        with path.open("rb") as file:
            output = subprocess.run(
                [*command, argument], stdin=file, check=True, capture_output=True, timeout=60
            )
        assert output.stderr == b""
        documents.append(json.loads(output.stdout))
        assert documents[-1]["captures"][0].pop("path") == argument
    assert documents[0] == documents[1]


def test_every_difference_is_of_a_variant_and_a_capture() -> None:
    assert DIFFERENCES.keys() <= {variant.name for variant in VARIANTS}
    assert {capture for table in DIFFERENCES.values() for capture, _ in table} <= set(NAMES)
