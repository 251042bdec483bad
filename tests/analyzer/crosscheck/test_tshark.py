"""What is taken from tshark is what tshark says, and nothing of a user's configuration changes it."""

import shutil
from pathlib import Path

import pytest

from analyzer.crosscheck import tshark
from analyzer.crosscheck.tshark import (
    Alert,
    Endpoint,
    Message,
    TlsFrame,
    TsharkMissing,
    dissect,
    tls_connections,
    tls_frames,
    tls_messages,
)
from analyzer.errors import CaptureError
from analyzer.model import Side
from analyzer.tls.fingerprint import ja3, ja3s

CAPTURES = Path(__file__).parents[3] / "samples" / "captures"
SAMPLES = sorted(CAPTURES.glob("*.pcap"))

pytestmark = [
    pytest.mark.tshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]


def test_a_full_handshake():
    (connection,) = tls_connections(CAPTURES / "tls1.2.pcap")
    assert connection.connection == 0
    assert connection.client == Endpoint("10.0.0.80", 56637)
    assert connection.server == Endpoint("68.233.76.12", 443)
    assert (connection.version, connection.cipher_suite) == (0x0303, 0x0004)
    assert connection.ja3 == "bd9c99b3a0f752c3ab8b052a79e9de3e"
    assert connection.ja3s == "c253ec3ad88e42f8da4032682892f9a0"
    assert connection.messages == [
        Message(0, 4, Side.CLIENT, "handshake", 1, 313),
        Message(0, 5, Side.SERVER, "handshake", 2, 77),
        Message(0, 8, Side.SERVER, "handshake", 11, 3823),
        Message(0, 8, Side.SERVER, "handshake", 14, 0),
        Message(0, 10, Side.CLIENT, "handshake", 16, 258),
        Message(0, 10, Side.CLIENT, "change_cipher_spec", 20),
        Message(0, 11, Side.SERVER, "change_cipher_spec", 20),
    ]
    assert connection.records == {
        (Side.CLIENT, 22): 3,
        (Side.CLIENT, 20): 1,
        (Side.CLIENT, 23): 2,
        (Side.CLIENT, 21): 1,
        (Side.SERVER, 22): 4,
        (Side.SERVER, 20): 1,
        (Side.SERVER, 23): 2,
    }


def test_tls_1_3_and_what_was_offered():
    (connection,) = tls_connections(CAPTURES / "chrome-1250-tls-x25519-kyber.pcap")
    assert (connection.version, connection.cipher_suite) == (0x0304, 0x1301)
    assert connection.sni == "lh3.google.com"
    assert connection.alpn_offered == ("h2", "http/1.1")
    assert connection.alpn is None  # encrypted


def test_alert():
    (connection,) = tls_connections(CAPTURES / "tls-1.2-handshake-failure.pcap")
    assert connection.alerts == [Alert(Side.SERVER, 2, 40, 6)]
    assert connection.version is None


def test_ipv6_on_another_port():
    (connection,) = tls_connections(CAPTURES / "certificate-request-failed.pcap")
    assert connection.client == Endpoint("fd42:496a:d659:bb85::1", 52464)
    assert connection.server.port == 3000


def test_heartbeats_are_messages():
    messages = tls_messages(CAPTURES / "heartbleed-success.pcap")
    beats = [
        (message.packet, message.side, message.type) for message in messages if message.kind == "heartbeat"
    ]
    assert beats == [(21, Side.CLIENT, 1), (28, Side.SERVER, 2)]  # the packets that complete them


def test_connections_are_numbered_as_streams():
    assert [c.connection for c in tls_connections(CAPTURES / "tls12-resumption.pcap")] == [0, 1, 2, 3, 4]


def test_ssl2_hello():
    (connection,) = tls_connections(CAPTURES.parent / "crafted" / "dg14-sslv2.pcap")
    assert connection.version == 0x0002
    assert [(message.kind, message.type) for message in connection.messages[:2]] == [("ssl2", 1), ("ssl2", 4)]


def test_without_a_hello_nobody_is_client_or_server():
    (connection,) = tls_connections(CAPTURES.parent / "crafted" / "tcp-midstream-handshake.pcap")
    assert (connection.client, connection.server, connection.version) == (None, None, None)
    assert {message.side for message in connection.messages} == {None}


def test_a_capture_is_read_lazily():
    frames = tls_frames(CAPTURES / "tls-fragmented-handshake.pcap")
    assert isinstance(next(frames), TlsFrame)
    frames.close()  # ends tshark


def test_configuration_of_the_user_is_not_read(monkeypatch, tmp_path):
    (tmp_path / "preferences").write_text(
        "tls.desegment_ssl_records: FALSE\ntcp.desegment_tcp_streams: FALSE\n"
    )
    expected = tls_connections(CAPTURES / "tls1.2.pcap")
    monkeypatch.setenv("WIRESHARK_CONFIG_DIR", str(tmp_path))
    assert tls_connections(CAPTURES / "tls1.2.pcap") == expected


def test_not_a_capture(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no capture\n")
    with pytest.raises(CaptureError, match=r"notes\.txt: tshark: "):
        tls_connections(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CaptureError, match="tshark: "):
        tls_connections(tmp_path / "absent.pcap")


def test_a_capture_that_is_cut_short_is_read_up_to_there(tmp_path):
    whole = (CAPTURES / "tls1.2.pcap").read_bytes()
    path = tmp_path / "cut.pcap"
    path.write_bytes(whole[:4000])
    (connection,) = tls_connections(path)
    assert connection.version == 0x0303


def test_tshark_is_missing(monkeypatch):
    monkeypatch.setattr(tshark.shutil, "which", lambda _: None)
    for call in (tls_connections, tls_messages, lambda path: dissect(path, 1)):
        with pytest.raises(TsharkMissing, match="apt install tshark"):
            call(CAPTURES / "tls1.2.pcap")


def test_dissect():
    text = dissect(CAPTURES / "heartbleed.pcap", 19)
    assert "TLS" in text
    assert "Heartbeat" in text
    assert "\x1b" not in text


def test_dissect_a_packet_that_is_not_there():
    with pytest.raises(ValueError, match="no packet 999"):
        dissect(CAPTURES / "heartbleed.pcap", 999)


FINGERPRINTED = (
    "tls.handshake.type",
    "tls.handshake.version",
    "tls.handshake.ciphersuite",
    "tls.handshake.extension.type",
    "tls.handshake.extensions_supported_group",
    "tls.handshake.extensions_ec_point_format",
    "tls.handshake.ja3",
    "tls.handshake.ja3s",
)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_our_fingerprints_of_tsharks_values(path, monkeypatch):
    """The values that tshark reads, hashed by us, give what tshark hashes."""
    monkeypatch.setattr(tshark, "FIELDS", (*tshark.FIELDS, *(set(FINGERPRINTED) - set(tshark.FIELDS))))
    hellos = 0
    for frame in tls_frames(path):
        _, version, suites, extensions, groups, formats = (frame.numbers(name) for name in FINGERPRINTED[:6])
        if frame.first("tls.handshake.ja3"):
            assert ja3(version[0], suites, extensions, groups, formats) == frame.first("tls.handshake.ja3")
            hellos += 1
        if frame.first("tls.handshake.ja3s"):
            assert ja3s(version[0], suites[0], extensions) == frame.first("tls.handshake.ja3s")
            hellos += 1
    assert hellos
