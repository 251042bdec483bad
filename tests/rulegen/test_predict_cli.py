"""The command `tlswall predict`: what it writes where, with which exit status, and what it says of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rulegen.cli import app
from rulegen.evaluate.firewall import Place
from rulegen.evaluate.predict import Collateral, Miss, Prediction, Reason, RuleRow
from rulegen.evaluate.xtables import VARIANTS as EVALUATED
from rulegen.lines import wrapped
from rulegen.predict_cli import PLACES, VARIANTS
from rulegen.prediction_text import prediction_lines
from tests.rulegen.hostile_names import HOSTILE

ROOT = Path(__file__).parents[2]
HEARTBLEED = ROOT / "samples/captures/heartbleed-success.pcap"
ORDINARY = ROOT / "samples/captures/tls1.2.pcap"


def run(*arguments: object):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def flat(text: str) -> str:
    """Without the ends of lines, which depend on the length of paths."""
    return " ".join(text.split())


@pytest.fixture
def rules(tmp_path):
    def make(*lines: str, name: str = "rules.v4", tables: str = "filter") -> Path:
        path = tmp_path / name
        path.write_text(f"*{tables}\n" + "".join(f"{line}\n" for line in lines) + "COMMIT\n")
        return path

    return make


@pytest.fixture
def blocks(rules) -> Path:
    return rules(
        '-A FORWARD -p tcp --dport 443 -m comment --comment "[https] to the web" -j DROP',
        "-A FORWARD -p udp -j ACCEPT",
    )


def test_names_here_are_those_of_the_evaluators():
    assert tuple(Place) == PLACES
    assert set(VARIANTS) == set(EVALUATED)


def test_it_says_what_is_dropped_by_which_rule_and_who_suffers(blocks):
    done = run(blocks, HEARTBLEED, ORDINARY)
    assert done.exit_code == 0
    assert done.stdout.startswith("56 packets: 21 accepted, 35 dropped (62.5 %), 0 not known\n")
    assert "Collateral: 1 connection without a finding of class A would lose packets\n" in done.stdout
    assert "Misses: 0 findings of class A would get through\n" in done.stdout
    assert "https; answers 1 HB02, 1 HB03" in done.stdout
    assert "Met by no packet: ip filter FORWARD 2" in done.stdout
    assert "connection 0, TCP 10.0.0.80:56637 → 68.233.76.12:443 13 packets (1," in flat(done.stdout)
    assert done.stderr == ""


def test_json_has_all_of_it(blocks):
    done = json.loads(run(blocks, HEARTBLEED, ORDINARY, "--format", "json").stdout)
    assert {name: done[name] for name in ("packets", "accepted", "dropped", "unknown", "at")} == {
        "packets": 56,
        "accepted": 21,
        "dropped": 35,
        "unknown": 0,
        "at": "router",
    }
    assert done["captures"] == [str(HEARTBLEED), str(ORDINARY)]
    first, second, *_ = done["rules"]
    assert (first["rule"], first["comment"], first["packets"]) == (
        "ip filter FORWARD 1",
        "[https] to the web",
        35,
    )
    assert first["bytes"] > 0
    assert second["packets"] == 0
    assert [row["connection"] for row in done["collateral"]] == [0]
    assert done["misses"] == []


def test_ndjson_has_a_row_per_packet(blocks):
    rows = [json.loads(line) for line in run(blocks, ORDINARY, "-f", "ndjson").stdout.splitlines()]
    assert [row["packet"] for row in rows] == list(range(1, 23))
    assert {row["verdict"] for row in rows} == {"accept", "drop"}


@pytest.mark.parametrize("format_name", ["text", "json", "ndjson"])
def test_every_format_goes_to_a_file_too(blocks, tmp_path, format_name):
    target = tmp_path / "told"
    done = run(blocks, ORDINARY, "-f", format_name, "-o", target)
    assert (done.exit_code, done.stdout) == (0, "")
    assert target.read_text() == run(blocks, ORDINARY, "-f", format_name).stdout


@pytest.mark.parametrize(
    ("capture", "wishes", "status"),
    [
        (ORDINARY, (), 0),
        (ORDINARY, ("collateral",), 1),
        (ORDINARY, ("misses",), 0),
        (ORDINARY, ("misses", "collateral"), 1),
        (HEARTBLEED, ("collateral", "misses", "unknown"), 0),
    ],
)
def test_collateral_and_misses_are_a_failure_where_that_is_asked_for(blocks, capture, wishes, status):
    asked = [word for wish in wishes for word in ("--fail-on", wish)]
    assert run(blocks, capture, *asked).exit_code == status


def test_a_miss_is_a_failure_and_told(rules):
    done = run(rules("-A FORWARD -p udp -j DROP"), HEARTBLEED, "--fail-on", "misses")
    assert done.exit_code == 1
    assert "Misses: 1 finding of class A would get through\n" in done.stdout
    assert "connection 0, HB03 Heartbeat during the handshake 2 packets (11, 21)" in flat(done.stdout)


def test_other_files_are_loaded_with_it(rules, tmp_path):
    sets = tmp_path / "sets"
    sets.write_text("create bad hash:ip family inet\nadd bad 10.0.0.80\n")
    first = rules("-A FORWARD -m set --match-set bad src -j DROP", name="a")
    more = rules("-A PREROUTING -p tcp --sport 443 -j DROP", name="b", tables="raw")
    both = ("--with", sets, "--with", more)
    done = json.loads(run(first, ORDINARY, *both, "--format", "json").stdout)
    assert [row["packets"] for row in done["rules"] if row["rule"].startswith("ip ")] == [13, 9]
    assert done["rulesets"] == [str(first), str(sets), str(more)]


def test_rules_of_a_host_are_judged_on_the_server_if_nothing_else_is_said(rules):
    path = rules("-A INPUT -p tcp --dport 443 -j DROP")
    done = run(path, ORDINARY)
    assert "22 packets: 9 accepted, 13 dropped" in done.stdout
    assert "The firewall is on the server" in done.stdout
    assert "22 accepted, 0 dropped" in run(path, ORDINARY, "--at", "router").stdout


def test_all_that_is_not_modelled_is_named_at_once_with_what_to_do(rules):
    path = rules("-A FORWARD -m geoip --src-cc XY -j DROP", "-A FORWARD -j NFQUEUE --queue-num 1")
    done = run(path, ORDINARY)
    assert done.exit_code == 2
    assert "chain FORWARD, rule 1 (line 2): " in done.stderr
    assert "chain FORWARD, rule 2 (line 3): " in done.stderr
    assert "try a copy without these rules" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("missing", ORDINARY), "No such file", id="no rules"),
        pytest.param(
            (ORDINARY, ORDINARY), "Rules come first: tlswall predict RULES CAPTURE...", id="swapped"
        ),
        pytest.param(("RULES", "missing.pcap"), "missing.pcap: there is no such capture", id="no capture"),
        pytest.param(("RULES", "RULES"), "rules.v4", id="no capture but rules"),
        pytest.param(("RULES", "-"), "save it to a file first", id="standard input"),
        pytest.param(
            ("RULES", ORDINARY, "-o", ORDINARY), "is a capture, and not overwritten", id="overwritten"
        ),
    ],
)
def test_bad_input_says_what_to_do(blocks, arguments, said):
    done = run(*(blocks if word == "RULES" else word for word in arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_damaged_ruleset_is_told_with_its_line(tmp_path):
    path = tmp_path / "rules"
    path.write_text("*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n")
    done = run(path, ORDINARY)
    assert done.exit_code == 2
    assert "line 2" in done.stderr


@pytest.mark.parametrize("option", ["--at", "--format", "--fail-on", "--variant"])
def test_unknown_words_are_refused_with_those_that_are_known(blocks, option):
    done = run(blocks, ORDINARY, option, "elsewhere")
    assert done.exit_code == 2
    assert "elsewhere" in done.stderr


def test_help_has_examples_and_loads_nothing_heavy():
    done = run("--help")
    assert done.exit_code == 0
    assert "tlswall predict rules.nft incident.pcap" in done.stdout
    code = "import sys, rulegen.predict_cli; print({'numpy', 'pyarrow', 'rich'} & set(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.strip() == "set()"


def test_the_installed_command_has_it(blocks):
    done = subprocess.run(
        [sys.executable, "-m", "rulegen", "predict", str(blocks), str(ORDINARY)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env=os.environ | {"COLUMNS": "60"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("22 packets")


# --- what people read ---------------------------------------------------------------------------------------


def row(**changes: object) -> RuleRow:
    values = {
        "rule": "inet filter forward 1",
        "comment": None,
        "text": "tcp dport 443 drop",
        "packets": 12345,
        "bytes": 9_900_000,
        "dropped": 12345,
        "connections": 42,
        "findings": {},
    }
    return RuleRow(**(values | changes))


def told(width: int | None = None, everything: bool = False, **changes: object) -> list[str]:
    values = {
        "packets": 20000,
        "accepted": 7655,
        "dropped": 12345,
        "unknown": 0,
        "without_ip": 0,
        "rules": (row(),),
        "collateral": (),
        "misses": (),
        "unknown_because": (),
        "dropped_because": (),
    }
    lines = prediction_lines(
        Prediction(**(values | changes)), Place.ROUTER, width=width, everything=everything
    )
    return [text for line in lines for text in wrapped(line, width or 100)]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_narrow_terminals_have_the_numbers_of_a_rule_below_it(width):
    lines = told(width=width)
    assert all(len(line) <= width for line in lines)
    assert any("12,345" in line for line in lines)


def test_steps_towards_a_rule_are_left_out_unless_all_is_asked_for():
    rules = (row(comment="(block) candidates"), row(comment="[block] 3 findings"))
    assert not any("candidates" in line for line in told(rules=rules))
    assert any("candidates" in line for line in told(rules=rules, everything=True))


def test_long_lists_are_cut_with_what_to_do():
    misses = tuple(
        Miss(capture="a.pcap", connection=number, finding="HB01", title="t", packets=(number,))
        for number in range(25)
    )
    assert any(line == "  and 15 more; --verbose or --format json has all" for line in told(misses=misses))
    assert not any("more;" in line for line in told(misses=misses, everything=True))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_of_a_capture_or_ruleset_steers_the_terminal(hostile):
    lost = Collateral(
        capture=hostile,
        connection=1,
        protocol="TCP",
        client=hostile,
        server=hostile,
        packets=1,
        first=(1,),
        rules=(hostile,),
        findings=("DG12",),
        offender=True,
    )
    lines = told(
        rules=(row(comment=f"[{hostile}]", rule=hostile, text=hostile), row(text=hostile, packets=0)),
        collateral=(lost,),
        misses=(Miss(capture=hostile, connection=None, finding="HB01", title=hostile, packets=(1,)),),
        unknown_because=(Reason(why=hostile, packets=1, first=(1,)),),
    )
    assert all(line.isprintable() for line in lines)
