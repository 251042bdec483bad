"""What is said of a conversation does not depend on segments, on blocks, nor on what else is captured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, partial
from itertools import accumulate, cycle, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from analyzer import pipeline
from analyzer.capture.source import open_capture
from analyzer.errors import CaptureError
from samples.craft import tls_bytes as tls
from samples.craft.conversation import CLIENT, SERVER
from samples.craft.session import Session, begin
from tests.recut import (
    CRAFTED,
    SHIPPED,
    Segment,
    analyse,
    bytewise,
    cut,
    json_of,
    name_of,
    pcap,
    said,
    together,
)

Said = dict[str, list[str]]

PIECEMEAL = {
    # What these captures show is told of one segment; in pieces it is not told, and nothing else is instead.
    "rl12-accented-text": "a body is judged by the bytes of a segment, 64 at least",
    "rl12-pattern": "the same",
    "rl12-smuggled-http": "the same",
    "dg07-alert": "an alert in two segments has the TTL of two packets",
    "several": "what MySQL says about TLS is looked for in the first segment",
}
IMPATIENT = {
    # In single bytes more packets pass than are waited for.
    "tcp-gap-syn": "the peer is not seen for long",
    "tcp-midstream-data": "the same",
    "tcp-midstream-handshake": "the same",
    "tcp-midstream-segment": "framing is found by a record that ends with its segment",
    "tcp-server-first": "all packets of one side come before those of the other",
}


@cache
def joined() -> tuple:
    """Every crafted capture, one after the other."""
    return tuple(together(CRAFTED))


def said_of(segments: Iterable[Segment]) -> Said:
    with TemporaryDirectory() as folder:
        return said(analyse(Path(folder) / "talk.pcap", segments))


@cache
def said_of_joined() -> Said:
    return said_of(joined())


def differences(found: Said, explained: dict[str, str]) -> list[str]:
    """What is said of the capture as it is and not now, or the reverse, by conversation."""
    lines = []
    for home in sorted(said_of_joined().keys() | found.keys()):
        name = name_of(home, CRAFTED)
        before, after = said_of_joined().get(home, []), found.get(home, [])
        kinds = {line[:14] for line in before} if name in explained else ()
        lines += [f"{name}: no more {line}" for line in before if line not in after and name not in explained]
        lines += [f"{name}: now {line}" for line in after if line not in before and line[:14] not in kinds]
    return lines


# segments


def test_in_single_bytes():
    changed = differences(said_of(cut(joined(), bytewise)), PIECEMEAL | IMPATIENT)
    assert not changed


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(st.integers(1, 300) | st.integers(1, 9), min_size=12, max_size=60))
def test_in_any_pieces(sizes):
    rest = cycle(sizes)

    def borders(size: int) -> Sequence[int]:
        return list(takewhile(size.__gt__, accumulate(rest)))

    changed = differences(said_of(cut(joined(), borders)), PIECEMEAL | IMPATIENT)
    assert not changed


# company and blocks


def test_all_at_once():
    """Each packet among those of all other conversations."""
    changed = differences(said_of(together(CRAFTED, at_once=True)), {})
    assert not changed


@pytest.mark.parametrize("block_bytes", [700, 30_000])
@pytest.mark.parametrize("at_once", [False, True])
def test_blocks(tmp_path, monkeypatch, block_bytes, at_once):
    path = tmp_path / "joined.pcap"
    path.write_bytes(pcap(together(CRAFTED, at_once=at_once)))
    whole = json_of(pipeline.analyze(path))
    monkeypatch.setattr(pipeline, "open_capture", partial(open_capture, block_bytes=block_bytes))
    assert json_of(pipeline.analyze(path)) == whole


def test_tables_asked_for_change_nothing(tmp_path):
    path = tmp_path / "joined.pcap"
    path.write_bytes(pcap(joined()))
    with_tables = pipeline.analyze(path, tables=("packets", "records", "messages", "certificates"))
    assert json_of(with_tables) == json_of(pipeline.analyze(path))


# where TLS may be


def established(s: Session, tmp_path: Path) -> dict:
    """The only connection of a capture, and that all of its handshake was seen."""
    s.capture.write(tmp_path / "talk.pcap")
    analysis = pipeline.analyze(tmp_path / "talk.pcap")
    (row,) = analysis.iter_connections()
    assert row["established"]
    assert (row["version"], row["sni"]) == ("TLSv1.2", "server.example")
    assert not [finding.id for finding in analysis.iter_findings() if finding.action in ("A", "A*", "B")]
    return row


@pytest.mark.parametrize("port", [1, 25, 80, 8000, 65535])
def test_tls_on_any_port(tmp_path, port):
    s = begin("port", server_port=port)
    s.full()
    assert established(s, tmp_path)["starttls"] is None


@pytest.mark.parametrize("lines", [1, 60])
def test_tls_behind_anything(tmp_path, lines):
    s = begin("behind")
    for _ in range(lines):
        s.talk.send(CLIENT, b"some protocol that nobody knows\r\n" * 10)
        s.talk.send(SERVER, b"\x00\x01\x02\x16\x03\xff" * 50)
    s.full()
    assert established(s, tmp_path)["starttls"] == "unknown"


PREFIXES = [
    b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    b"CONNECT server.example:443 HTTP/1.1\r\n\r\n",
    b"STARTTLS\r\n",
    b"binary \x16",
    b"binary \x16\x03",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_hello_in_the_segment_of_what_stands_before_it(tmp_path, prefix):
    """Wherever the segments are cut, also within the first bytes of the hello."""
    for at in range(-4, 12):
        s = begin("prefix")
        s.client(prefix + s.client_hello(), cut=(len(prefix) + at,))
        s.server(s.server_hello(), *s.server_flight())
        s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
        s.server(s.ccs(), s.finished(1))
        s.exchange()
        s.close()
        established(s, tmp_path)


def test_an_unrecognised_hello_blames_nobody(tmp_path):
    """What the client sent before the ServerHello was no TLS that we know: no verdict on order."""
    s = begin("unrecognised")
    s.client(b"\x00" * 40 + s.client_hello()[40:])
    s.server(s.server_hello(), *s.server_flight())
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.capture.write(tmp_path / "talk.pcap")
    assert not [
        finding for finding in pipeline.analyze(tmp_path / "talk.pcap").iter_findings() if finding.offender
    ]


def test_a_port_that_only_speaks_something_else_has_no_tls(tmp_path):
    s = begin("none", server_port=443)
    for _ in range(30):
        s.talk.send(CLIENT, s.noise.take(900))
        s.talk.send(SERVER, s.noise.take(3000))
    s.capture.write(tmp_path / "talk.pcap")
    analysis = pipeline.analyze(tmp_path / "talk.pcap")
    assert analysis.totals["tls_connections"] == 0
    assert analysis.totals["tcp_connections"] == 1


def test_a_sequence_of_handshakes_in_one_connection(tmp_path):
    """A renegotiation is told by its content types; what is said of the connection is of its first one."""
    s = begin("again", tls.TLS12)
    s.full()
    s.client(s.sealed(0, tls.HANDSHAKE, 200))
    s.server(s.sealed(1, tls.HANDSHAKE, 900))
    s.client(s.sealed(0, tls.HANDSHAKE, 60), s.sealed(0, tls.CCS, 1), s.finished(0))
    s.server(s.sealed(1, tls.CCS, 1), s.finished(1))
    s.exchange()
    s.close()
    established(s, tmp_path)


# the interface


def test_several_captures_are_one_analysis():
    paths = [*SHIPPED, *CRAFTED[:20]]
    analysis = pipeline.analyze(paths)
    rows = list(analysis.iter_connections())
    assert [capture.path for capture in analysis.captures] == [str(path) for path in paths]
    assert rows == sorted(rows, key=lambda row: (row["capture"], row["connection"]))
    assert len(rows) == analysis.totals["tls_connections"]
    assert analysis.totals["packets"] == sum(capture.packets for capture in analysis.captures)
    assert analysis.totals["findings"] == len(list(analysis.iter_findings()))
    alone = list(pipeline.analyze(paths[3]).iter_connections())
    assert [{**row, "capture": 0} for row in rows if row["capture"] == 3] == alone


def test_progress_only_grows_and_ends_at_the_end():
    seen: list[tuple[int, int]] = []
    analysis = pipeline.analyze(SHIPPED, progress=lambda done, packets: seen.append((done, packets)))
    assert seen == sorted(seen)
    assert seen[-1] == (sum(path.stat().st_size for path in SHIPPED), analysis.totals["packets"])


def test_what_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown profile 'strict'; there are default, nf_conntrack_tls"):
        pipeline.analyze(SHIPPED[0], profile="strict")
    with pytest.raises(ValueError, match="unknown table flows"):
        pipeline.analyze(SHIPPED[0], tables=["flows"])
    with pytest.raises(CaptureError, match=r"missing\.pcap"):
        pipeline.analyze(tmp_path / "missing.pcap")
