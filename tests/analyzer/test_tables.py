"""The tables on request hold every packet, record, readable message and certificate, in memory or in files."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from analyzer import analyze, limits
from analyzer.spool import Directory
from analyzer.tables import TABLES, TableSpool, spools
from samples.craft import certificates
from samples.craft import tls_bytes as tls
from samples.craft.session import begin
from tests.recut import CRAFTED, SHIPPED, read

PATHS = {path.name: path for path in (*CRAFTED, *SHIPPED)}
pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # as is meant here


@pytest.fixture(autouse=True)
def _gone() -> Iterator[None]:
    """What a test wrote goes with it."""
    yield
    gc.collect()


def kept(name: str, table: str):
    return getattr(analyze(PATHS[name], tables=[table]), table)


def test_what_was_not_asked_for_is_not_there():
    analysis = analyze(PATHS["tls1.2.pcap"], tables=["records"])
    with pytest.raises(ValueError, match=r'call analyze\(\.\.\., tables=\["packets"\]\)'):
        _ = analysis.packets
    with pytest.raises(
        ValueError, match="unknown table flows; there are packets, records, messages, certificates"
    ):
        spools(["records", "flows"], Directory())


def test_every_packet_is_kept_with_its_connection():
    """What is no TCP is kept too, and is of none."""
    everything = kept("tls12-resumption.pcap", "packets")
    segments = read(PATHS["tls12-resumption.pcap"])
    assert everything["packet"].tolist() == list(range(1, 111))
    packets = everything[everything["connection"] >= 0]
    assert 110 - len(packets) == (everything["connection"] == -1).sum() == 4
    assert packets["payload_length"].tolist() == [len(one.payload) for one in segments]
    assert packets["seq"].tolist() == [one.seq for one in segments]
    assert packets["connection"].nunique() == 5
    for _, of_one in packets.groupby("connection"):
        assert set(of_one.loc[of_one["direction"] == 0, "sport"]) == set(
            of_one.loc[of_one["direction"] == 1, "dport"]
        )


def test_records_are_kept_once_however_many_segments_they_came_in():
    for name in ("hb01-unanswered.pcap", "hb01-split-bytes.pcap"):
        records = kept(name, "records")
        assert records["content_type"].tolist() == [22, 22, 22, 22, 22, 24]
        assert records["side"].tolist() == ["client", *["server"] * 4, "client"]
        assert records["length"].iloc[-1] == 3


def test_records_of_ssl_2_are_marked():
    records = kept("dg14-sslv2.pcap", "records")
    assert records["ssl2"].all()
    assert set(records["content_type"]) == {0}


def test_messages_that_can_be_read_are_kept():
    messages = kept("legal-full.pcap", "messages")
    first = messages[messages["connection"] == 0]
    assert list(zip(first["side"], first["message"], strict=True)) == [
        ("client", "client_hello"),
        ("server", "server_hello"),
        ("server", "certificate"),
        ("server", "server_key_exchange"),
        ("server", "server_hello_done"),
        ("client", "client_key_exchange"),
        ("client", "change_cipher_spec"),
        ("server", "change_cipher_spec"),
    ]
    assert [len(body) for body in first["body"]] == [
        length if message != "change_cipher_spec" else 0
        for length, message in zip(first["length"], first["message"], strict=True)
    ]


def test_certificates_are_those_of_the_messages():
    found = kept("legal-client-certificate.pcap", "certificates")
    assert list(zip(found["side"], found["position"], found["der"], strict=True)) == [
        ("server", 0, certificates.server()),
        ("client", 0, certificates.client()),
    ]


def test_a_chain_has_a_limit_and_may_end_anywhere(tmp_path, monkeypatch):
    """A length that points behind the message gives what there is of it."""
    monkeypatch.setattr(limits, "CERTIFICATES_PER_MESSAGE", 3)
    for chain, expected in (
        ([b"a" * 9] * 5, [b"a" * 9] * 3),
        ([b"a", b"\xff\xff\xff"], [b"a", b"\xff\xff\xff"]),
        ([], []),
    ):
        s = begin("chain")
        s.client(s.client_hello())
        body = tls.vector(b"".join(tls.vector(der, 3) for der in chain), 3)
        s.server(s.server_hello(), s.handshake(tls.CERTIFICATE, body))
        s.capture.write(tmp_path / "chain.pcap")
        found = analyze(tmp_path / "chain.pcap", tables=["certificates"]).certificates
        assert (found["der"].tolist() if len(found) else []) == expected
    s = begin("chain")
    s.client(s.client_hello())
    s.server(s.server_hello(), s.handshake(tls.CERTIFICATE, b"\x00\x00\x09\x00\x00\xff" + b"cut"))
    s.capture.write(tmp_path / "chain.pcap")
    assert analyze(tmp_path / "chain.pcap", tables=["certificates"]).certificates["der"].tolist() == [b"cut"]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_in_files_is_the_table_in_memory(table, monkeypatch):
    paths = [*SHIPPED, *CRAFTED[::4]]
    whole = getattr(analyze(paths, tables=[table]), table)
    monkeypatch.setattr(limits, "SPILL_BYTES", 2000)
    assert len(whole) > 50
    if "fields" in whole:
        whole["fields"] = whole["fields"].map(repr)
    parted = getattr(analyze(paths, tables=[table]), table)
    if "fields" in parted:
        parted["fields"] = parted["fields"].map(repr)
    assert parted.equals(whole)


def test_rows_go_to_a_file_when_they_are_more_than_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "SPILL_BYTES", 1000)
    directory = Directory()
    spool = TableSpool(directory)
    assert spool.table() is None
    for begin_at in range(0, 1000, 100):
        spool.add({"number": np.arange(begin_at, begin_at + 100), "body": [b"x"] * 100})
        spool.add({"number": np.empty(0, dtype=np.int64), "body": []})
    assert spool.table()["number"].to_pylist() == list(range(1000))
    assert int(directory.file().stem) - 1 == 10
