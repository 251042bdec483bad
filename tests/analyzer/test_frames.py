"""The tables as DataFrames: types that can be computed with, names instead of numbers."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest

from analyzer import analyze
from analyzer.analysis import Analysis
from analyzer.tls.handshake import ClientHello, ServerHello
from samples.craft import tls_bytes as tls
from samples.craft.session import begin
from tests.recut import CRAFTED, SHIPPED

PATHS = {path.name: path for path in (*CRAFTED, *SHIPPED)}
TABLES = ("packets", "records", "messages", "certificates")


@pytest.fixture(scope="module")
def attack() -> Analysis:
    return analyze(PATHS["heartbleed-success.pcap"], tables=TABLES)


def test_connections_are_flat(attack):
    (row,) = attack.connections.to_dict("records")
    (shown,) = attack.iter_connections()
    for side in ("client", "server"):
        assert (row[f"{side}_address"], row[f"{side}_port"]) == tuple(shown[side].values())
        assert row[f"sync_{side}"] == shown["sync"][side]
    assert row["cipher_suite_code"] == 0xC02F
    assert not {"client", "server", "sync"} & row.keys()


def test_a_missing_suite_stays_a_missing_number():
    frame = analyze([PATHS["tls1.2.pcap"], PATHS["dg13-refused.pcap"]]).connections
    assert str(frame["cipher_suite_code"].dtype) == "Int64"
    assert frame["cipher_suite_code"].isna().tolist() == [False, True]


def test_findings_are_those_of_the_analysis(attack):
    rows = attack.findings.to_dict("records")
    for row, finding in zip(rows, attack.iter_findings(), strict=True):
        assert (row["id"], row["action"], row["packets"]) == (
            finding.id,
            finding.action,
            list(finding.packets),
        )
        assert row["severity"] == finding.severity.name.lower()
        assert row["evidence"] == finding.evidence
        assert pd.isna(row["offender"]) == (finding.offender is None)


def test_a_finding_about_several_connections_has_none():
    frame = analyze(PATHS["hb14-sweep.pcap"]).findings
    assert str(frame["connection"].dtype) == "Int64"
    assert frame.loc[frame["id"] == "HB14", "connection"].isna().all()


def test_nothing_found_is_an_empty_frame():
    analysis = analyze(PATHS["upgrade-postgresql.pcap"], tables=TABLES)
    assert len(analysis.findings) == 0
    nothing = analyze(PATHS["dg21-postgresql.pcap"], tables=TABLES)  # no TLS
    assert [
        len(getattr(nothing, name)) for name in ("connections", "records", "messages", "certificates")
    ] == [0] * 4


def test_times_are_in_utc_to_the_nanosecond(attack):
    for name in TABLES:
        time = getattr(attack, name)["time"]
        assert str(time.dtype) == "datetime64[ns, UTC]"
    assert attack.packets["time"].iloc[0] == pd.Timestamp("2014-04-08 16:57:00.644842", tz="UTC")


def test_addresses_are_text():
    packets = analyze(PATHS["hb01-ipv6.pcap"], tables=["packets"]).packets
    assert set(packets["source"]) == set(packets["destination"])
    assert all(":" in address for address in packets["source"])
    assert not {"src_hi", "src_lo", "dst_hi", "dst_lo"} & set(packets)


def test_hellos_are_read_in_full_and_types_have_names(attack):
    fields = attack.messages["fields"].tolist()
    assert isinstance(fields[0], ClientHello)
    assert isinstance(fields[1], ServerHello)
    assert set(fields[2:]) == {None}
    assert attack.messages["message"].tolist()[-2:] == ["heartbeat_request", "heartbeat_response"]
    assert set(attack.records["content"]) == {"handshake", "heartbeat"}
    assert attack.records["side"].cat.categories.tolist() == ["client", "server"]


def test_an_alert_has_its_name():
    messages = analyze(PATHS["dg13-refused.pcap"], tables=["messages"]).messages
    assert messages.loc[messages["content"] == "alert", "message"].tolist() == ["protocol_version"]


def test_certificates_say_who_and_when(attack):
    leaf, issuer = attack.certificates.to_dict("records")
    assert leaf["issuer"] == issuer["subject"]
    assert leaf["names"] == ["www.lilawelt.de", "lilawelt.de"]
    assert (leaf["key"], leaf["signature"]) == ("RSA 2048", "sha256WithRSAEncryption")
    assert leaf["not_before"] == datetime.datetime(2013, 10, 15, 8, 57, 49, tzinfo=datetime.UTC)
    assert issuer["names"] == []
    assert attack.certificates["malformed"].isna().all()


def test_what_is_no_certificate_is_a_row_that_says_so(tmp_path):
    s = begin("malformed")
    s.client(s.client_hello())
    s.server(s.server_hello(), s.handshake(tls.CERTIFICATE, tls.vector(tls.vector(b"\x30\x82 no DER", 3), 3)))
    s.capture.write(tmp_path / "malformed.pcap")
    (row,) = analyze(tmp_path / "malformed.pcap", tables=["certificates"]).certificates.to_dict("records")
    assert row["malformed"].startswith("ValueError: ")
    assert len(row["sha256"]) == 64
