"""What is found in the record layer, by hit and near miss (catalogue RL01, RL02, RL05, RL06, RL12, LB01)."""

from __future__ import annotations

import pytest

from analyzer import limits
from analyzer.model import Severity
from samples.craft import tls_bytes as tls
from samples.craft.conversation import CLIENT, SERVER
from samples.craft.records import ACCENTED, MODERN, TEXT, established
from samples.craft.session import Session, begin
from tests.analyzer.detect.found import findings, ids


def found_in(s: Session, folder):
    return findings(s.capture, folder)


def mine(found) -> dict[str, str]:
    return {**ids(found, "RL"), **ids(found, "LB")}


def low(s: Session, count: int) -> bytes:
    return bytes(byte & 0x7F for byte in s.noise.take(count))


# lengths


@pytest.mark.parametrize(
    ("version", "suite", "excess", "found"),
    [
        (tls.TLS12, tls.ECDHE_AES_GCM, 2048, False),
        (tls.TLS12, tls.ECDHE_AES_GCM, 2049, True),
        (*MODERN, 256, False),
        (*MODERN, 257, True),
    ],
)
def test_the_longest_record_of_a_version(tmp_path, version, suite, excess, found):
    s = established(f"long-{version}-{excess}", version, suite)
    (record,) = s.server(s.record(tls.APPLICATION_DATA, s.noise.take(16384 + excess)))
    s.close()
    result = found_in(s, tmp_path)
    assert mine(result) == ({"RL01": "B"} if found else {})
    if found:
        evidence = result["RL01"].evidence
        assert record.number in result["RL01"].packets
        assert (evidence["record_length"], evidence["limit"]) == (16384 + excess, 16384 + excess - 1)
        assert evidence["record_type"] == "application_data"
        assert evidence["bytes"].startswith(f"170303{16384 + excess:04x}")


def test_where_the_key_change_was_not_seen_the_longer_limit_holds(tmp_path):
    s = established("late-long")
    before = len(s.capture.packets)
    s.client(s.record(tls.HEARTBEAT, s.noise.take(16384 + 24)))
    s.close()
    del s.capture.packets[:before]
    assert not mine(found_in(s, tmp_path))


@pytest.mark.parametrize("kind", [tls.HANDSHAKE, tls.ALERT, tls.CCS])
def test_an_empty_record_in_clear(tmp_path, kind):
    s = begin("empty")
    s.client(s.client_hello())
    (record,) = s.server(s.record(kind, b""))
    s.talk.close()
    found = found_in(s, tmp_path)
    assert ids(found, "RL") == {"RL02": "B"}
    assert found["RL02"].packets == (record.number,)
    assert found["RL02"].evidence["encrypted"] is False


def test_records_of_a_kind_are_counted_in_one_finding(tmp_path):
    s = established("empties")
    for side in (0, 1, 0):
        (s.server if side else s.client)(s.record(tls.APPLICATION_DATA, b""))
    s.close()
    evidence = found_in(s, tmp_path)["RL02"].evidence
    assert (evidence["count"], evidence["sides"]) == (3, ["client", "server"])


def test_empty_application_data_of_a_suite_without_encryption(tmp_path):
    s = established("null-empty", tls.TLS12, tls.RSA_NULL)
    s.client(s.record(tls.APPLICATION_DATA, b""))
    s.close()
    assert not mine(found_in(s, tmp_path))


def test_a_flood_of_oddities_does_not_hide_what_comes_behind_it(tmp_path):
    """More empty records than events are kept, then a handshake message out of order and text."""
    s = begin("flood")
    s.client(s.client_hello())
    s.client(*[s.record(tls.HANDSHAKE, b"")] * (limits.EVENTS_PER_CONNECTION + 50))
    s.server(s.server_hello(), *s.server_flight())
    s.client(s.ccs())
    s.talk.close()
    found = found_in(s, tmp_path)
    assert found["RL02"].evidence["count"] == limits.EVENTS_PER_CONNECTION
    assert ids(found, "SM03") == {"SM03": "A"}


# versions


@pytest.mark.parametrize(
    ("version", "expected"),
    [(0x0301, None), (0x0300, None), (0x0303, None), (0x0304, "RL05"), (0x0307, "RL05")],
)
def test_the_version_of_the_first_record(tmp_path, version, expected):
    s = begin(f"first-{version}")
    (record,) = s.client(tls.record(tls.HANDSHAKE, tls.ClientHello(noise=s.noise).message(), version))
    s.server(s.alert(tls.FATAL, tls.PROTOCOL_VERSION))
    s.talk.close(1)
    found = found_in(s, tmp_path)
    assert mine(found) == ({expected: "I"} if expected else {})
    if expected:
        assert found[expected].packets == (record.number,)
        assert found[expected].evidence["expected_version"] == "TLSv1.2"


@pytest.mark.parametrize(("version", "found"), [(tls.TLS12, False), (tls.TLS11, True)])
def test_a_version_that_was_not_negotiated(tmp_path, version, found):
    s = established("negotiated")
    for _ in range(3):
        s.client(s.record(tls.APPLICATION_DATA, s.sealed_body(0, 200), version))
    s.close()
    result = found_in(s, tmp_path)
    assert mine(result) == ({"RL05": "I"} if found else {})
    if found:
        assert result["RL05"].evidence["record_version"] == "TLSv1.1"


def test_tls13_records_say_0303(tmp_path):
    s = established("thirteen", *MODERN)
    s.client(s.record(tls.APPLICATION_DATA, s.sealed_body(0, 200), tls.TLS13))
    s.close()
    assert mine(found_in(s, tmp_path)) == {"RL05": "I"}


# no records


@pytest.mark.parametrize(
    ("sent", "reason", "text"),
    [
        (b"500 OOPS: priv_sock_get_cmd\r\n", "content type 53", "500 OOP"),
        (b"\x63\3\3\0\x28" + b"\x99" * 40, "content type 99", None),
        (b"\x19\3\3\0\x28" + b"\x99" * 40, "content type 25", None),
        (b"\x17\x13\3\0\x28" + b"\x99" * 40, "major version 19", None),
    ],
)
@pytest.mark.parametrize("cut", [(), (1,), (1, 2, 3)])
def test_something_else_stands_where_a_record_should(tmp_path, sent, reason, text, cut):
    s = established("lost")
    (packet,) = s.server(sent, cut=cut, ack=False)
    s.talk.close(SERVER)
    found = found_in(s, tmp_path)
    assert mine(found) == {"RL06": "B"}
    lost = found["RL06"]
    assert packet.number in lost.packets
    assert lost.evidence["reason"] == reason
    assert lost.evidence["after"] == "application_data"
    stood = bytes.fromhex(str(lost.evidence["bytes"]))
    assert sent.startswith(stood)
    assert len(stood) >= 1
    if not cut:
        assert (stood, lost.evidence.get("text")) == (sent[:7], text)


def test_a_protocol_may_go_on_in_clear_once_tls_was_closed(tmp_path):
    """As FTP does after CCC (RFC 4217 12.3)."""
    s = established("ccc")
    s.client(s.close_notify(0))
    s.server(s.close_notify(1))
    s.client(b"PASV\r\n")
    s.server(b"227 Entering Passive Mode (198,51,100,10,200,10)\r\n")
    s.talk.close()
    found = found_in(s, tmp_path)
    assert mine(found) == {"RL06": "I"}
    assert found["RL06"].evidence["after"] == "alert"
    assert found["RL06"].severity == Severity.INFO


def test_a_server_that_never_spoke_tls_loses_no_framing(tmp_path):
    s = begin("http")
    s.client(s.client_hello())
    s.talk.send(SERVER, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    s.talk.close(SERVER)
    assert not mine(found_in(s, tmp_path))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_bytes_that_the_capture_lost_are_no_change_of_protocol(tmp_path, lost):
    s = begin("gap", mss=536)
    s.full()
    before = len(s.capture.packets)
    s.talk.send(SERVER, *(s.data(1, 700) for _ in range(8)), ack=False)
    sent = s.capture.packets[before:]
    s.exchange()
    s.close()
    s.capture.lose(sent[lost])
    assert not mine(found_in(s, tmp_path))


# no ciphertext


def test_text_where_ciphertext_should_be(tmp_path):
    s = established("text")
    (record,) = s.server(s.record(tls.APPLICATION_DATA, TEXT))
    s.close()
    found = found_in(s, tmp_path)
    assert mine(found) == {"LB01": "B", "RL12": "B"}
    evidence = found["RL12"].evidence
    assert found["RL12"].packets == (record.number,)
    assert (evidence["printable_percent"], evidence["side"]) == (100.0, "server")
    assert bytes.fromhex(str(evidence["bytes"]))[5:] == TEXT[:7]
    assert found["LB01"].evidence["run"] >= len(TEXT)  # the record before may end in low bytes


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ACCENTED, {"RL12": "B"}),
        (b"\xde\xad\xbe\xef" * 100, {"RL12": "B"}),
        (b"a" * 63, {}),
        (b"a" * 64, {"RL12": "B"}),
        (b"\x99" + b"a" * 128 + b"\x99", {"RL12": "B"}),
        (b"\x99" + b"a" * 129 + b"\x99", {"RL12": "B", "LB01": "B"}),
    ],
)
def test_regular_bytes(tmp_path, body, expected):
    s = established("regular")
    s.client(s.record(tls.APPLICATION_DATA, body))
    s.close()
    assert mine(found_in(s, tmp_path)) == expected


@pytest.mark.parametrize("size", [24, 64, 100, 128, 160, 191, 192, 300, 1400, 16000])
def test_ciphertext_of_any_size(tmp_path, size):
    s = established(f"random-{size}")
    for _ in range(20):
        s.client(s.data(0, size), ack=False)
    s.close()
    assert not mine(found_in(s, tmp_path))


@pytest.mark.parametrize("when", ["before-key-change", "null-suite", "early-data"])
def test_text_is_judged_where_encryption_is_due(tmp_path, when):
    if when == "null-suite":
        s = established("null", tls.TLS12, tls.RSA_NULL)
    elif when == "early-data":
        s = begin("early", *MODERN)
        s.client(s.client_hello(versions=(tls.TLS13, tls.TLS12), psk=True, early_data=True))
    else:
        s = begin("before")
        s.hellos({}, {})
    s.client(s.record(tls.APPLICATION_DATA, TEXT))
    s.talk.close()
    found = mine(found_in(s, tmp_path))
    assert found == ({"LB01": "B", "RL12": "B"} if when == "early-data" else {})


def test_where_the_handshake_was_not_seen_the_finding_says_so(tmp_path):
    s = established("late")
    before = len(s.capture.packets)
    s.exchange()
    s.server(s.record(tls.APPLICATION_DATA, TEXT))
    s.exchange()
    s.close()
    del s.capture.packets[:before]
    found = found_in(s, tmp_path)
    assert found["RL12"].evidence["handshake_seen"] is False
    assert found["RL12"].severity == Severity.MEDIUM


@pytest.mark.parametrize(("length", "found"), [(128, False), (129, True)])
@pytest.mark.parametrize("where", ["record", "segments", "records", "after-ccs"])
def test_the_129th_low_byte(tmp_path, length, found, where):
    s = established(f"run-{length}-{where}")
    run = low(s, length)
    head, tail = s.noise.take(200) + b"\x99", b"\xa6" + s.noise.take(200)
    if where == "record":
        (packet,) = s.client(s.record(tls.APPLICATION_DATA, head + run + tail))
    elif where == "segments":
        s.client(s.record(tls.APPLICATION_DATA, head + run + tail), cut=(5 + len(head) + 128,), ack=False)
        packet = s.capture.packets[-1]
    elif where == "records":
        s.client(s.record(tls.APPLICATION_DATA, head + run[:70]))
        (packet,) = s.client(s.record(tls.APPLICATION_DATA, run[70:] + tail))
    else:
        # the one byte of a ChangeCipherSpec is below 0x80 and does not count
        s.client(s.record(tls.APPLICATION_DATA, head + run[:70]))
        s.client(s.ccs())
        (packet,) = s.client(s.record(tls.APPLICATION_DATA, run[70:] + tail))
    s.exchange()
    s.close()
    result = found_in(s, tmp_path)
    assert ids(result, "LB") == ({"LB01": "B"} if found else {})
    if found:
        assert packet.number in result["LB01"].packets
        assert (result["LB01"].evidence["run"], result["LB01"].evidence["limit"]) == (length, 128)
    assert "RL12" not in result


def test_the_padding_of_a_second_hello_is_no_run(tmp_path):
    """It stands behind the client's ChangeCipherSpec and is in clear (RFC 8446 4.1.4, D.4)."""
    s = begin("retry", *MODERN)
    session_id, random = s.noise.take(32), s.noise.take(32)
    same = {"versions": (tls.TLS13, tls.TLS12), "session_id": session_id, "random": random}
    padding = tls.extension(21, bytes(400))
    s.client(s.client_hello(**same))
    s.server(s.server_hello(retry=True, group=tls.SECP256R1, session_id=session_id), s.ccs())
    second = tls.ClientHello(noise=s.noise, **same, key_share=tls.SECP256R1, extra=padding).message()
    s.client(s.ccs(), s.record(tls.HANDSHAKE, second))
    s.server(s.server_hello(group=tls.SECP256R1, session_id=session_id), s.server_flight13())
    s.client(s.record(tls.APPLICATION_DATA, b"ab" + s.noise.take(51)))
    s.exchange()
    s.close()
    assert not mine(found_in(s, tmp_path))


def test_low_bytes_of_a_side_that_is_not_the_sender_of_tls(tmp_path):
    """A prefix in clear, as after STARTTLS, is no record and not scanned."""
    s = begin("prefix")
    s.talk.send(SERVER, b"220 mail.example ESMTP " + b"x" * 300 + b"\r\n")
    s.talk.send(CLIENT, b"STARTTLS\r\n")
    s.talk.send(SERVER, b"220 go ahead\r\n")
    s.full()
    s.close()
    assert not mine(found_in(s, tmp_path))
