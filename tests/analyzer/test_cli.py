"""The commands, with an analysis made by hand in place of the pipeline; the last tests run the real thing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import analyzer
from analyzer.__main__ import app
from analyzer.cli import parse_ports
from analyzer.errors import CaptureError
from analyzer.version import VERSION

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples/captures/heartbleed-success.pcap"


@pytest.fixture
def pipeline(monkeypatch, analysis):
    """Stands for analyzer.pipeline; records how it was called."""
    module = ModuleType("analyzer.pipeline")
    module.uncompiled = tuple
    module.calls = []

    def analyze(paths, **options):
        module.calls.append((paths, options))
        options["progress"](39_524)
        return analysis

    module.analyze = analyze
    monkeypatch.setitem(sys.modules, "analyzer.pipeline", module)
    monkeypatch.setattr(analyzer, "pipeline", module, raising=False)
    return module


def run(*arguments: object, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def test_json_goes_to_standard_output_and_issues_to_standard_error(pipeline):
    result = run("analyze", "incident.pcap", "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["schema"] == "tlswall-analysis/1"
    assert result.stderr == (
        "tlswall: incident.pcap: the packet is cut: 1,514 bytes announced, 524 left (at byte 39,000)\n"
    )


def test_the_pipeline_gets_what_was_asked_for(pipeline):
    run("analyze", "a.pcap", "b.pcap", "--profile", "nf_conntrack_tls", "--ports", "443,8443", "-f", "ndjson")
    (paths, options), *_ = pipeline.calls
    assert paths == ["a.pcap", "b.pcap"]
    assert options["profile"] == "nf_conntrack_tls"
    assert options["ports"] == (443, 8443)


@pytest.mark.parametrize(
    ("severity", "status"), [("info", 1), ("low", 1), ("medium", 1), ("high", 1), ("critical", 0)]
)
def test_fail_on(pipeline, severity, status):
    result = run("analyze", "incident.pcap", "--format", "json", "--fail-on", severity)
    assert result.exit_code == status
    assert json.loads(result.stdout)["findings"]


def test_fail_on_without_findings(pipeline, analysis):
    analysis.findings.clear()
    assert run("analyze", "incident.pcap", "--fail-on", "info").exit_code == 0


def test_output_to_a_file(pipeline, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    result = run("analyze", "incident.pcap", "--format", "json", "-o", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(path.read_bytes())["captures"][0]["path"] == "incident.pcap"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_that_fails_half_way_leaves_the_old_file(pipeline, analysis, monkeypatch, tmp_path):
    def broken(**_):
        yield b"{}"
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "connections_json", broken)
    path = tmp_path / "report.json"
    path.write_text("old")
    result = run("analyze", "incident.pcap", "--format", "json", "-o", path)
    assert result.exit_code == 130
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_as_it_is(pipeline):
    assert run("analyze", "incident.pcap", "--format", "json", "-o", os.devnull).exit_code == 0
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("path", ["/nonexistent/report.json", "/"])
def test_output_that_cannot_be_written(pipeline, path):
    result = run("analyze", "incident.pcap", "--format", "json", "-o", path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("tlswall: ")
    assert "Traceback" not in result.output


def test_a_capture_is_not_overwritten_with_its_report(pipeline, tmp_path):
    path = tmp_path / "incident.pcap"
    path.write_bytes(b"precious")
    result = run("analyze", path, "-o", path)
    assert result.exit_code == 2
    assert path.read_bytes() == b"precious"
    assert pipeline.calls == []


def test_interrupted_while_reading(pipeline, monkeypatch):
    def analyze(paths, *, progress, **options):
        progress(1_200_000)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "analyze", analyze)
    result = run("analyze", "-", "--format", "json")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr == "tlswall: interrupted after reading 1.2 MB; the report is not complete\n"


def test_a_capture_that_cannot_be_read(pipeline, monkeypatch):
    def analyze(paths, **options):
        raise CaptureError("x\x1b[2J.pcap", 0, "not a capture: it starts with text")

    monkeypatch.setattr(pipeline, "analyze", analyze)
    result = run("analyze", "x.pcap")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "tlswall: x\\x1b[2J.pcap: not a capture: it starts with text (at byte 0)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyze",),
        ("analyze", "a.pcap", "--format", "xml"),
        ("analyze", "a.pcap", "--fail-on", "never"),
        ("analyze", "a.pcap", "--profile", "snort"),
        ("analyze", "a.pcap", "--ports", "443"),
        ("analyze", "a.pcap", "--profile", "nf_conntrack_tls", "--ports", "0"),
        ("analyze", "a.pcap", "-q", "-v"),
        ("schema", "--format", "yaml"),
        ("states", "--machine", "washing"),
    ],
)
def test_usage_errors_have_status_2(pipeline, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert pipeline.calls == []


def test_ports():
    assert parse_ports("443, 8443") == (443, 8443)
    for text in ("", "http", "0", "65536", "443,", "-1", "9" * 5000, "²", ",".join(["1"] * 9)):
        with pytest.raises(typer.BadParameter):
            parse_ports(text)


def test_quiet_and_verbose(pipeline):
    brief, normal, full = (run("analyze", "x.pcap", *option) for option in (["-q"], [], ["-v"]))
    assert len(brief.stdout) < len(normal.stdout) < len(full.stdout)
    assert "packets/s" in full.stderr


def test_version():
    assert run("--version").stdout == f"tlswall {VERSION}\n"


def test_schema():
    Draft202012Validator.check_schema(json.loads(run("schema").stdout))
    assert "cipher_suite_code" in run("schema", "--format", "tables").stdout


def test_states():
    assert run("states").stdout.startswith("machine")
    assert run("states", "--format", "mermaid", "--machine", "closing").stdout.startswith("stateDiagram-v2\n")


@pytest.mark.parametrize("differences", [[], ["connection 3: sni: tlswall a\x1b, tshark b"]])
def test_crosscheck_lists_every_difference(monkeypatch, differences):
    module = ModuleType("analyzer.crosscheck")
    module.compare = lambda path: differences
    monkeypatch.setitem(sys.modules, "analyzer.crosscheck", module)
    result = run("crosscheck", "incident.pcap")
    assert result.exit_code == len(differences)
    assert result.stdout.splitlines() == [difference.replace("\x1b", "\\x1b") for difference in differences]


def test_help_of_every_command_has_an_example_or_a_purpose():
    for command in ("analyze", "schema", "states", "crosscheck"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert result.stdout.strip()


# --- as a process ---------------------------------------------------------------------------------


def tlswall(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "analyzer", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_a_reader_that_goes_away_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m analyzer schema | head -c 1"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.returncode in (0, 141)  # 0: the pipe held all of it


def test_interrupted_from_the_keyboard():
    content = SAMPLE.read_bytes()
    command = [sys.executable, "-m", "analyzer", "analyze", "-", "--format", "json"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        # More than a pipe holds: once it is written, the capture is being read.
        process.stdin.write(content + content[24:] * 10)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.stdout.read(), process.stderr.read()
        process.stdin.close()
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.startswith(b"tlswall: interrupted after reading ")
    assert stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", [["schema"], ["states"], ["analyze", str(SAMPLE), "--format", "json"]])
def test_closed_standard_output(command):
    shell = ["bash", "-c", '"$@" >&-', "bash", sys.executable, "-m", "analyzer", *command]
    result = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "tlswall: standard output is closed\n")


def test_closed_standard_error():
    shell = ["bash", "-c", '"$@" 2>&-', "bash", sys.executable, "-m", "analyzer", "analyze", "nowhere.pcap"]
    result = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")


def test_full_output_device():
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "analyzer", "schema"]
        result = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_json_of_a_sample_starts_without_the_table_libraries():
    """Cold start: what people and notebooks need is not imported for a program's output."""
    code = (
        "import sys; sys.argv[1:] = ['analyze', sys.argv[1], '--format', 'json']\n"
        "from analyzer.__main__ import app\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'pandas', 'pyarrow', 'rich', 'scapy', 'pyshark'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, SAMPLE], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.stderr == "\n"
    document = json.loads(result.stdout)
    Draft202012Validator(json.loads(tlswall("schema").stdout)).validate(document)
    assert len(document["connections"]) == 1


def test_help_starts_without_the_reader():
    code = "import sys, analyzer.cli; print(*sorted({'numpy', 'pandas', 'rich'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "\n"


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is no capture\n", b"\xd4\xc3\xb2\xa1", os.urandom(4096)]
)
def test_bad_files_have_a_message_and_status_2(tmp_path, content):
    path = tmp_path / "bad.pcap"
    path.write_bytes(content)
    result = tlswall("analyze", path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"tlswall: {path}: ")
    assert "Traceback" not in result.stderr


def test_missing_file():
    result = tlswall("analyze", "nowhere.pcap")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tlswall: nowhere.pcap: ")


def test_a_cut_capture_is_reported_as_far_as_it_goes(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(SAMPLE.read_bytes()[:-7])
    result = tlswall("analyze", path, "--format", "json")
    document = json.loads(result.stdout)
    assert result.returncode == 0
    assert len(document["connections"]) == 1
    (error,) = document["captures"][0]["errors"]
    assert error["why"] in result.stderr
