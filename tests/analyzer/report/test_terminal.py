"""The report as it reaches a terminal or a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer.report import Detail, Options
from analyzer.report.terminal import TERMINAL

HERE = Path(__file__).parent


def report(analysis, **options) -> str:
    out = io.BytesIO()
    TERMINAL.render(analysis, out, Options(**options))
    return out.getvalue().decode()


def test_the_summary_comes_first_and_in_plain_words(analysis):
    heading, _, *sentences = report(analysis).splitlines()
    assert heading == "Summary"
    assert sentences[:4] == [
        "Read 34 packets (39.5 kB) from incident.pcap, 2.10 s of traffic from 2014-04-09 15:12:03 UTC.",
        "4 TCP connections, all of them TLS: 1 TLS 1.3, 2 TLS 1.2 and 1 without a version agreed.",
        "2 of 4 handshakes completed, 1 resumed an earlier session, 1 began inside smtp.",
        "6 findings: 1 high, 1 medium and 4 low. The worst: Heartbeat before the handshake is complete",
    ]


def test_findings_come_by_severity_with_what_proves_them(analysis):
    text = report(analysis)
    assert text.index("High findings") < text.index("Medium findings") < text.index("Low findings")
    assert (
        "HB03  Heartbeat before the handshake is complete\n"
        "  No TLS stack sends a heartbeat before encryption began. Scanners do.\n"
        "  connection 0  192.0.2.10:41459 → 198.51.100.7:443\n"
        "    packets   11\n"
        "    filter    frame.number == 11\n"
        "    evidence  payload length 16365; record length 16368; answered yes; bytes 18 03 02 40 00 01\n"
        "  action    A: the offending endpoint may be blocked\n"
        "  answer    tlswall rules CAPTURE --policy heartbleed\n"
        "  see       RFC 6520 3, CVE-2014-0160\n"
    ) in text


def test_many_findings_of_a_kind_are_counted(analysis):
    text = report(analysis)
    assert "DG12  Deprecated version negotiated  (4 findings in 4 connections)" in text
    assert "… and 1 more; use --verbose or --format json" in text
    assert "packets   1, 2, 3, 4, 5, 6, 7, 8 and 4,703 more" in text
    assert "connection 4" not in text
    assert "connection 4" in report(analysis, detail=Detail.FULL)


def test_connections_are_capped(analysis, make):
    analysis.connections += [make.connection(number) for number in range(5, 100)]
    text = report(analysis)
    assert "… and 74 more; use --verbose or --format json" in text
    assert len(report(analysis, detail=Detail.FULL).splitlines()) > len(text.splitlines()) + 70


def test_what_was_not_seen_is_said(analysis):
    text = report(analysis)
    assert "the packet is cut: 1,514 bytes announced, 524 left (at" in text
    assert "1 connection of 4 not seen whole" in text
    assert "TLS 1.3 encrypts all after the ServerHello" in text


def test_no_findings_is_not_called_clean(make):
    text = report(make.analysis([make.capture()], [make.connection(0)]))
    assert "1 TCP connection, TLS 1.2." in text
    assert "No findings in what could be seen." in text
    assert "No findings: no TLS was seen." in report(make.analysis([make.capture()], []))


def test_several_captures_are_kept_apart(make):
    analysis = make.analysis(
        [make.capture("a.pcap"), make.capture("b\x1b.pcap")],
        [make.connection(0), make.connection(0, capture=1)],
        [make.finding(capture=1)],
    )
    text = report(analysis)
    assert "from 2 captures" in text
    assert "b\\x1b.pcap: connection 0  192.0.2.10:41459" in text
    assert re.search(r"^1:0  high ", text, re.MULTILINE)


@pytest.mark.parametrize("detail", Detail)
@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200, None])
def test_hostile_strings_do_not_reach_the_terminal(analysis, make, detail, width):
    """Escape sequences, markup, bidirectional overrides: from host names, evidence, paths."""
    analysis.captures[0].path = make.hostile
    analysis.findings += [
        make.finding("XX", title=make.hostile, explanation=make.hostile, offender=make.hostile)
    ]
    analysis.findings += [make.finding("XY", evidence={make.hostile: {make.hostile: [make.hostile]}})]
    text = report(analysis, detail=detail, width=width)
    assert all(line.isprintable() for line in text.splitlines())
    if width is None:
        assert r"evil\x1b]0;owned\x07\x9b31m[red]\u202etxt.\ud800.example" in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_lines_fit_the_terminal(analysis, width):
    assert max(map(len, report(analysis, width=width).splitlines())) <= width


def test_in_a_pipe_a_row_is_a_line(analysis):
    text = report(analysis)
    assert "\x1b" not in text
    assert not re.search(r" $", text, re.MULTILINE)
    (row,) = re.findall(r"^ *1  low .*$", text, re.MULTILINE)
    assert "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" in row
    assert "t12d1516h2_8daaf6152771_e5627efa2ab1" in row


def on_a_terminal(**environment: str) -> str:
    """The report of the hand-made analysis, written to a pseudo-terminal of 80 columns."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import conftest\n"
        "from analyzer.report import Options\n"
        "from analyzer.report.terminal import TERMINAL\n"
        "made = conftest.FakeAnalysis([conftest.capture()], [conftest.connection(0)], [conftest.finding()])\n"
        "TERMINAL.render(made, sys.stdout.buffer, Options())"
    )
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(
            [sys.executable, "-c", code, HERE.parent],
            stdout=theirs,
            check=True,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", **environment},
        )
        os.close(theirs)
        chunks = []
        try:
            while chunk := terminal.read(65536):
                chunks.append(chunk)
        except OSError:  # Linux says so when the other side is closed
            pass
    return b"".join(chunks).decode()


def test_colour_on_a_terminal_unless_refused():
    assert "\x1b[" in on_a_terminal()
    assert "\x1b[31" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(TERM="dumb")
