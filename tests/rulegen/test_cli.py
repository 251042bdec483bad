"""The command: what goes where, and with which exit status."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

import analyzer
from rulegen.backends import BACKENDS
from rulegen.backends.base import Checked
from rulegen.cli import BACKENDS as BACKEND_NAMES
from rulegen.cli import HOOKS, app
from rulegen.ir.rule import Hook
from rulegen.policies import POLICIES
from tests.rulegen.hostile_names import HOSTILE

ROOT = Path(__file__).parents[2]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "incident.pcap"
    path.write_bytes(b"capture")
    return path


@pytest.fixture
def pipeline(monkeypatch, finding, capture):
    """Stands for analyzer.pipeline: one capture with two findings."""
    module = ModuleType("analyzer.pipeline")
    module.findings = [finding("HB01", packets=(11,)), finding("DG01", "A*")]

    def analyze(paths, **options):
        options["progress"](7)
        issue = SimpleNamespace(why="the packet is cut", offset=1234)
        return SimpleNamespace(
            captures=[
                SimpleNamespace(path=path, errors=[issue], first_ns=None, last_ns=None) for path in paths
            ],
            iter_findings=lambda: iter(module.findings),
            iter_connections=lambda: iter(()),
        )

    module.analyze = analyze
    monkeypatch.setitem(sys.modules, "analyzer.pipeline", module)
    monkeypatch.setattr(analyzer, "pipeline", module, raising=False)
    return module


def test_rules_go_to_standard_output_and_the_account_to_standard_error(pipeline, capture):
    result = run("rules", capture)
    assert result.exit_code == 0
    assert result.stdout.startswith("#!/usr/sbin/nft -f\n")
    digest = hashlib.sha256(b"capture").hexdigest()
    assert f"# Capture:  incident.pcap sha256 {digest}\n" in result.stdout
    assert '192.0.2.1 timeout 1d comment "HB01 incident.pcap #11"' in result.stdout
    assert str(capture.parent) not in result.stdout
    for words in (
        "the packet is cut (at byte 1,234)",
        "2 findings, 1 answered",
        "HB01 title of HB01",
        "incident.pcap: packet 11, connection 0, from 192.0.2.1",
        "by block-ipv4, heartbleed-overread",
        "Left alone",
        "both visible addresses are victims",
    ):
        assert words in result.stderr


def test_the_file_is_written(pipeline, capture, tmp_path):
    target = tmp_path / "rules.nft"
    result = run("rules", capture, "-o", target)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert target.read_text().startswith("#!/usr/sbin/nft -f\n")


def test_options_reach_the_rules(pipeline, capture):
    result = run(
        "rules", capture, "-p", "block", "-p", "heartbleed:direction=to-server", "--ports", "443,8443",
        "--ttl", "7d", "--hook", "prerouting", "--finding", "DG01:client", "--no-defragment", "--no-check",
    )  # fmt: skip
    assert result.exit_code == 0
    for words in (
        "hook prerouting priority",
        "tcp dport { 443, 8443 }",
        "timeout 7d",
        "heartbleed:ports=443,8443,direction=to-server",
    ):
        assert words in result.stdout
    assert "ct state" not in result.stdout
    said = " ".join(result.stderr.split())
    assert "heartbleed-split and heartbleed-overread are narrower in nft: " in said
    assert "IP fragments pass unjudged" in said
    assert "accepts" not in result.stderr


def test_a_policy_needs_no_capture():
    result = run("rules", "--policy", "heartbleed", "--no-check")
    assert result.exit_code == 0
    assert "heartbleed-overread" in result.stdout
    assert result.stderr == "no findings\n"


def test_nothing_to_answer_is_said_and_is_no_failure(pipeline, capture):
    pipeline.findings = []
    result = run("rules", capture, "--no-check")
    assert result.exit_code == 0
    assert "table inet tlswall" in result.stdout
    assert "the ruleset is empty" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Name a capture, or a policy"),
        (("c.pcap", "--connection", "3"), "add --policy pin"),
        (("-p", "heartbleed", "--explain", "--format", "yaml"), "not one of text, json"),
        (("-p", "nonsense"), "no policy 'nonsense'"),
        (("-p", "block:side=left"), "one of auto, source"),
        (("-p", "block", "--ttl", "soon"), "is no duration"),
        (("-p", "heartbleed", "--ports", "0"), "is no port"),
        (("-p", "heartbleed", "--ttl", "7d"), "takes ttl"),
        (("-p", "block", "--finding", "DG06:victim"), "id:client"),
        (("-p", "block", "--hook", "ingress"), "not one of forward"),
        (("-p", "block", "--backend", "pf"), "not one of nft"),
    ],
)
def test_bad_usage_has_status_2_and_writes_nothing(arguments, words):
    result = run("rules", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in " ".join(result.stderr.replace("│", "").split())


def test_what_the_tool_refuses_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(
        type(BACKENDS[0]), "check", lambda self, text: Checked(accepted=False, message="line 1: no")
    )
    target = tmp_path / "rules.nft"
    result = run("rules", "-p", "block", "-o", target)
    assert result.exit_code == 2
    assert "nft refuses them: line 1: no" in result.stderr
    assert not target.exists()


def test_a_capture_is_not_overwritten(pipeline, capture):
    result = run("rules", capture, "-o", capture)
    assert result.exit_code == 2
    assert capture.read_bytes() == b"capture"


def test_a_missing_tool_is_said_and_is_no_failure(monkeypatch):
    monkeypatch.setattr("rulegen.backends.offline.shutil.which", lambda name, path=None: None)
    result = run("rules", "-p", "block")
    assert result.exit_code == 0
    assert "not checked: nft is not installed (apt install nftables)" in result.stderr


def test_a_hostile_name_steers_no_terminal(pipeline, capture, finding):
    pipeline.findings = [finding("\x1b]0;owned\x07", title="\x1b[31m\u202e")]
    result = run("rules", capture, "--no-check")
    assert result.exit_code == 0
    assert "\x1b" not in result.stderr
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stderr


def test_the_other_backends_are_named_where_one_refuses():
    result = run("rules", "-p", "sni:names=a.example")
    assert result.exit_code == 2
    assert "nft can't say sni-deny-1: the server_name of a ClientHello" in result.stderr
    assert "--backend iptables or ip6tables or bpf can" in result.stderr
    assert "--backend ipset" not in result.stderr
    assert "can; --explain tells what each makes of each rule" in result.stderr


def test_where_the_sets_are_is_said():
    words = "load what --backend ipset makes of the same command first"
    assert words in run("rules", "-p", "block", "--backend", "iptables", "--no-check").stderr
    assert words not in run("rules", "-p", "block", "--no-check").stderr
    assert words not in run("rules", "-p", "heartbleed", "--backend", "iptables", "--no-check").stderr
    four = ("rules", "-p", "block:servers=192.0.2.7", "--no-check", "--backend")
    assert words in run(*four, "iptables").stderr
    assert words not in run(*four, "ip6tables").stderr


def test_servers_go_to_the_policies_that_take_them():
    result = run("rules", "-p", "heartbleed", "--servers", "192.0.2.0/24,2001:db8::7", "--no-check")
    assert result.exit_code == 0
    assert "ip daddr 192.0.2.0-192.0.2.255" in result.stdout
    assert "ip6 saddr 2001:db8::7" in result.stdout
    assert "servers=192.0.2.0/24,2001:db8::7," in result.stdout


# --- explain -----------------------------------------------------------------------------------------------


def test_a_format_is_of_an_explanation():
    result = run("rules", "-p", "heartbleed", "--format", "json")
    assert result.exit_code == 2
    assert "add --explain" in result.stderr


def test_rules_are_explained_and_findings_accounted_for(pipeline, capture):
    result = run("rules", capture, "--explain")
    assert result.exit_code == 0
    assert "heartbleed-overread (heartbleed)" in result.stdout
    assert "#!/usr/sbin/nft" not in result.stdout
    assert "2 findings, 1 answered" in result.stderr


def test_explained_rules_are_written_where_asked(tmp_path):
    target = tmp_path / "rules.nft"
    result = run("rules", "-p", "heartbleed", "--explain", "--no-check", "-o", target)
    assert "heartbleed-overread (heartbleed)" in result.stdout
    assert target.read_text().startswith("#!/usr/sbin/nft -f\n")


def test_the_explanation_as_json():
    explained = json.loads(run("rules", "-p", "rate", "--explain", "--format", "json").stdout)
    assert explained["wishes"][0].startswith("rate:")


def test_nothing_to_explain_is_said(pipeline, capture):
    pipeline.findings = []
    assert "the ruleset is empty" in run("rules", capture, "--explain").stdout


@pytest.mark.netns
@pytest.mark.parametrize("name", HOSTILE[:4], ids=range(4))
def test_the_tool_takes_it_for_a_comment(pipeline, tmp_path, name):
    capture = tmp_path / name.replace("/", "")[:80]
    capture.write_bytes(b"capture")
    result = run("rules", capture)
    assert result.exit_code == 0
    assert "nft accepts the rules" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


# --- policies ----------------------------------------------------------------------------------------------


def test_policies_are_explained():
    result = run("policies")
    assert result.exit_code == 0
    for policy in POLICIES:
        assert f"\n{policy.name}\n" in f"\n{result.stdout}"
    assert result.stdout.count("bypass") >= len(POLICIES)
    assert run("policies", "block").stdout.startswith("block\n")
    assert run("policies", "nonsense").exit_code == 2


def test_every_policy_says_what_it_stops_costs_and_how_it_is_bypassed():
    assert len({policy.name for policy in POLICIES}) == len(POLICIES)
    for policy in POLICIES:
        assert all(len(text) > 60 for text in (policy.stops, policy.costs, policy.bypass))
        assert all(parameter.meaning for parameter in policy.parameters)
        for parameter in policy.parameters:
            assert not parameter.choices or parameter.default in parameter.choices


def test_names_that_help_knows_without_importing():
    assert tuple(Hook) == HOOKS
    assert tuple(backend.name for backend in BACKENDS) == BACKEND_NAMES


def test_the_analysers_commands_are_there_and_start_without_the_heavy_packages():
    code = (
        "import sys; from rulegen.cli import app; "
        "names = {c.name or c.callback.__name__ for c in app.registered_commands}; "
        "print(sorted(names)); "
        "print(sorted({'pandas', 'pyarrow', 'numpy', 'scapy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    names, heavy = done.stdout.splitlines()
    assert {"analyze", "states", "schema", "crosscheck", "rules", "policies"} <= set(eval(names))
    assert heavy == "[]"


def test_the_package_offers_its_names_without_importing_them():
    import rulegen

    assert {name for name in rulegen.__all__ if getattr(rulegen, name) is None} == set()
    with pytest.raises(AttributeError, match="nonsense"):
        rulegen.nonsense  # noqa: B018
