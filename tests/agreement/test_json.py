"""`tlswall analyze --format json`, field by field, as an analyst's script reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from rulegen.cli import app
from tests.agreement.frames import CAPTURES

FOLDER = CAPTURES[0].parent
VERSIONS = {"TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1.0", "SSLv3", "SSLv2", None}
RESUMED = {"no", "session_id", "ticket", "psk", "unknown"}
SEVERITIES = {"critical", "high", "medium", "low", "info"}
ACTIONS = {"A", "A*", "B", "P", "I"}
CAPTURE_KEYS = {"path", "packets", "bytes", "errors"}
CONNECTION_KEYS = {
    "connection", "client", "server", "first_packet", "last_packet", "version", "client_version", "cipher_suite",
    "cipher_suite_code", "sni", "alpn", "resumed", "established", "ja3", "ja3s", "ja4", "alerts", "starttls", "sync",
}  # fmt: skip
FINDING_KEYS = {"id", "title", "severity", "action", "connection", "packets", "evidence", "references"}


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def document(*names: str) -> Any:
    return run("analyze", "--format", "json", *(FOLDER / name for name in names))


def test_a_resumed_connection() -> None:
    """The last of five; tshark says the same of the fields that it has."""
    capture = document("tls12-resumption.pcap")
    assert capture["schema"] == "tlswall-analysis/1"
    assert capture["captures"] == [
        {
            "path": str(FOLDER / "tls12-resumption.pcap"),
            "format": "pcap",
            "packets": 110,
            "bytes": (FOLDER / "tls12-resumption.pcap").stat().st_size,
            "first_ns": 1_425_669_142_414_189_000,
            "last_ns": 1_425_669_150_626_802_000,
            "errors": [],
        }
    ]
    assert len(capture["connections"]) == 5
    assert capture["connections"][4] == {
        "connection": 4,
        "capture": 0,
        "client": {"address": "192.168.56.1", "port": 49369},
        "server": {"address": "192.168.56.101", "port": 443},
        "first_packet": 59,
        "last_packet": 99,
        "version": "TLSv1.2",
        "client_version": "TLSv1.2",
        "cipher_suite": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "cipher_suite_code": 0xC02F,
        "sni": None,
        "alpn": None,
        "alpn_offered": ["spdy/3.1", "http/1.1"],
        "resumed": "ticket",
        "established": True,
        "hello_retry": False,
        "ja3": "17f35db704ac47c259abb89f8387bbae",
        "ja3s": "fbe78c619e7ea20046131294ad087f05",
        "ja4": "t12i1810s1_27d4652c4487_f2efb249ca37",
        "alerts": [],
        "starttls": None,
        "sync": {"client": "synced", "server": "synced"},
    }


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("client-hello-mtu300.pcap", "alpn", "h2"),
        ("client-hello-mtu300.pcap", "sni", "www.google.com"),
        ("client_hello_sslv3.pcap", "client_version", "SSLv3"),
        ("client_hello_sslv3.pcap", "version", None),
        ("client_hello_sslv3.pcap", "sync", {"client": "midstream", "server": "unseen"}),
        ("smtp-starttls.pcap", "starttls", "smtp"),
        ("tls1_1.pcap", "version", "TLSv1.1"),
        ("tls-conn-with-extensions.pcap", "version", "TLSv1.0"),
        ("tls13_psk_succesfull.pcap", "resumed", "psk"),
        ("tls13_psk_succesfull.pcap", "cipher_suite", "TLS_CHACHA20_POLY1305_SHA256"),
        ("tls-1.2-handshake-failure.pcap", "established", False),
        (
            "tls-1.2-handshake-failure.pcap",
            "alerts",
            [{"side": "server", "level": "fatal", "description": "handshake_failure", "packet": 6}],
        ),
        ("certificate-request-failed.pcap", "server", {"address": "fd42:496a:d659:bb85:216:3eff:fe6a:a257", "port": 3000}),
    ],
)  # fmt: skip
def test_a_field(name: str, field: str, value: object) -> None:
    (connection,) = document(name)["connections"]
    assert connection[field] == value


def test_a_finding() -> None:
    findings = {finding["id"]: finding for finding in document("heartbleed-success.pcap")["findings"]}
    request = findings["HB03"]
    assert request["action"] == "A"
    assert (request["capture"], request["connection"]) == (0, 0)
    assert request["packets"][0] == 11
    assert request["offender"] == "173.203.79.216"
    assert request["evidence"]["payload_length"] == 16365
    assert request["evidence"]["bytes"].startswith("1803033ff0013fed")
    assert "CVE-2014-0160" in request["references"]


def test_every_row_of_every_capture() -> None:
    names = [path.name for path in CAPTURES]
    everything = document(*names)
    Draft202012Validator(run("schema")).validate(everything)
    assert [Path(capture["path"]).name for capture in everything["captures"]] == names
    assert all(
        capture.keys() >= CAPTURE_KEYS and capture["errors"] == [] for capture in everything["captures"]
    )
    places = [(connection["capture"], connection["connection"]) for connection in everything["connections"]]
    assert places == sorted(set(places))
    assert len(places) == everything["totals"]["tls_connections"] == 18
    for connection in everything["connections"]:
        assert connection.keys() >= CONNECTION_KEYS
        assert connection["version"] in VERSIONS
        assert connection["client_version"] in VERSIONS
        assert connection["resumed"] in RESUMED
        assert (connection["cipher_suite"] is None) == (connection["cipher_suite_code"] is None)
        assert 1 <= connection["first_packet"] <= connection["last_packet"]
    for finding in everything["findings"]:
        assert finding.keys() >= FINDING_KEYS
        assert finding["severity"] in SEVERITIES
        assert finding["action"] in ACTIONS
        assert (finding["capture"], finding["connection"]) in places
        assert finding["packets"] == sorted(set(finding["packets"]))
        assert finding["references"]


def test_ndjson_has_the_same_rows() -> None:
    names = ("heartbleed-success.pcap", "tls12-resumption.pcap")
    whole = document(*names)
    paths = [str(FOLDER / name) for name in names]
    lines = CliRunner().invoke(app, ["analyze", "--format", "ndjson", *paths]).stdout.splitlines()
    rows: dict[str, list[Any]] = {"capture": [], "connection": [], "finding": [], "summary": []}
    for line in lines:
        row = json.loads(line)
        rows[row.pop("type")].append(row)
    assert rows["capture"] == whole["captures"]
    assert rows["connection"] == whole["connections"]
    assert rows["finding"] == whole["findings"]
    assert rows["summary"][0]["totals"] == whole["totals"]


def test_a_capture_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes((FOLDER / "tls1.2.pcap").read_bytes()[:-30])
    result = CliRunner().invoke(app, ["analyze", "--format", "json", str(path)])
    assert result.exit_code == 0
    (capture,) = json.loads(result.stdout)["captures"]
    (error,) = capture["errors"]
    size = path.stat().st_size
    assert capture["packets"] == 21
    assert size - 82 < error["offset"] <= size
    assert error["why"] in result.stderr
