"""What is found of heartbeats, by hit and near miss (catalogue HB01 to HB15; HB14 is in test_sweep.py)."""

from __future__ import annotations

import pytest

from analyzer import limits
from analyzer.model import Severity
from samples.craft import tls_bytes as tls
from samples.craft.heartbeat import PEER_ALLOWED, REQUEST, RESPONSE
from samples.craft.heartbeat_encrypted import grown
from samples.craft.session import Session, begin
from tests.analyzer.detect.found import CLIENT, SAMPLES, SERVER, findings, ids, in_file

FIRST_HELLO = 4
"""The packet of the ClientHello in a crafted conversation."""


def greeted(name: str, **connect: object) -> Session:
    """Both hellos are out and allow heartbeats; nothing is encrypted yet."""
    s = begin(name, tls.TLS12, tls.ECDHE_AES_GCM, **connect)
    s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    return s


def answer(s: Session, payload: bytes, padding: int = 16, claim: int | None = None) -> bytes:
    body = payload + s.noise.take(padding)
    return s.heartbeat(RESPONSE, len(payload) if claim is None else claim, body)


# the shipped captures


def test_a_probe_that_is_not_answered():
    found = in_file(SAMPLES / "captures" / "heartbleed.pcap")
    assert ids(found, "") == {"HB02": "B", "HB03": "A", "HB12": "P"}
    assert found["HB02"].evidence["answered"] is False
    assert found["HB02"].packets == (11, 19)
    assert found["HB03"].offender == "173.203.79.216"
    assert found["HB03"].policy == "heartbleed"


def test_a_probe_that_is_answered_proves_the_server_unpatched():
    found = in_file(SAMPLES / "captures" / "heartbleed-success.pcap")
    assert ids(found, "") == {"HB02": "B", "HB03": "A", "HB12": "P"}
    probe = found["HB02"]
    assert probe.packets == (11, 21, 23, 28)  # first and last of the request and of the answer
    assert probe.evidence["answered"] is True
    assert probe.evidence["leaked_bytes"] == 0
    assert probe.evidence["vulnerable"] == "107.170.241.107"
    assert probe.evidence["payload_length"] == 16365
    assert probe.evidence["record_length"] == 16368
    assert probe.evidence["bytes"] == "1803033ff0013fed41414141"
    assert probe.severity == Severity.HIGH


# in clear


@pytest.mark.parametrize(
    ("payload_length", "brought", "expected"),
    [
        (0x4000, 0, "HB01"),
        (1, 0, "HB01"),
        (41, 40, "HB01"),  # one byte too many
        (40, 40, "HB02"),  # no padding
        (40, 55, "HB02"),  # 15 bytes of padding
        (40, 56, None),
        (0, 0, "HB02"),
        (0, 16, None),
        (0xFFFF, 16381, "HB01"),
    ],
)
def test_a_request_in_clear(tmp_path, payload_length, brought, expected):
    s = greeted(f"clear-{payload_length}-{brought}")
    (asked,) = s.client(s.heartbeat(REQUEST, payload_length, s.noise.take(brought)))
    s.talk.close()
    found = findings(s.capture, tmp_path)
    assert set(ids(found, "HB")) == {"HB03", "HB12"} | ({expected} if expected else set())
    if expected:
        evidence = found[expected].evidence
        assert asked.number in found[expected].packets
        assert (evidence["payload_length"], evidence["record_length"]) == (payload_length, brought + 3)
        assert evidence["bytes"].startswith(f"180303{brought + 3:04x}01{payload_length:04x}")
        assert evidence["answered"] is False


@pytest.mark.parametrize("body", [b"\1", b"\1\x40"])
def test_a_request_that_ends_before_its_payload_length(tmp_path, body):
    """The receiver reads payload_length from behind the record."""
    s = greeted("stump")
    s.client(s.record(tls.HEARTBEAT, body))
    s.talk.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB01") == {"HB01": "A"}
    assert "payload_length" not in found["HB01"].evidence


def test_a_leak_is_counted_over_records_and_requests(tmp_path):
    s = greeted("leaks")
    for _ in range(2):
        s.client(s.heartbeat(REQUEST, 40_000, s.noise.take(10)))
        body = tls.heartbeat(RESPONSE, 40_000, s.noise.take(40_000 + 16))
        s.server(*(s.record(tls.HEARTBEAT, body[at : at + 16384]) for at in range(0, len(body), 16384)))
    s.talk.close()
    leak = findings(s.capture, tmp_path)["HB04"]
    assert leak.evidence["leaked_bytes"] == 2 * (40_000 - 10)
    assert leak.evidence["answer_records"] == 3
    assert leak.evidence["exchanges"] == 2
    assert (leak.offender, leak.evidence["vulnerable"], leak.severity) == (CLIENT, SERVER, Severity.CRITICAL)
    assert leak.victims == (SERVER,)


def test_the_bytes_that_a_request_brings_are_no_leak(tmp_path):
    """An answer of the size of what came is the sender's own memory."""
    s = greeted("echo")
    payload = s.noise.take(64)
    s.client(s.heartbeat(REQUEST, 65, payload))
    s.server(s.heartbeat(RESPONSE, 64, payload + s.noise.take(16)))
    s.talk.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB01") == {"HB01": "A"}
    assert "HB04" not in found


def test_an_answer_in_clear_may_be_padded_more_than_its_request(tmp_path):
    s = greeted("padding")
    payload = s.noise.take(30)
    s.client(s.heartbeat(REQUEST, 30, payload + s.noise.take(16)))
    s.server(answer(s, payload, padding=250))
    s.talk.close()
    assert set(ids(findings(s.capture, tmp_path), "HB")) == {"HB03", "HB12"}


def test_the_second_request_may_be_sent_before_the_answer_ends(tmp_path):
    s = greeted("pipelined")
    s.client(s.heartbeat(REQUEST, 20_000), s.heartbeat(REQUEST, 20_000))
    body = tls.heartbeat(RESPONSE, 20_000, s.noise.take(20_000 + 16))
    records = [s.record(tls.HEARTBEAT, body[:16384]), s.record(tls.HEARTBEAT, body[16384:])]
    s.server(*records, *records)
    s.talk.close()
    found = findings(s.capture, tmp_path)
    assert found["HB04"].evidence["leaked_bytes"] == 40_000
    assert ids(found, "HB08") == {"HB08": "B"}
    assert "HB07" not in found


# encrypted


@pytest.mark.parametrize(
    ("growth", "action"), [(0, None), (1, "I"), (16, "I"), (17, "B"), (64, "B"), (65, "A"), (16000, "A")]
)
def test_an_encrypted_answer_is_graded_by_its_growth(tmp_path, growth, action):
    s = grown(f"growth-{growth}")
    s.client(s.sealed(0, tls.HEARTBEAT, 100))
    s.server(s.sealed(1, tls.HEARTBEAT, 100 + growth))
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB05") == ({"HB05": action} if action else {})
    if action:
        assert found["HB05"].evidence["growth"] == growth
        assert found["HB05"].evidence.get("leaked_bytes") == (growth if growth > 16 else None)
        assert found["HB05"].offender == (CLIENT if action == "A" else None)


def test_what_protects_further_records_is_no_leak(tmp_path):
    s = grown("records")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(
        s.sealed(1, tls.HEARTBEAT, 16384), s.sealed(1, tls.HEARTBEAT, 16384), s.sealed(1, tls.HEARTBEAT, 19)
    )
    s.close()
    evidence = findings(s.capture, tmp_path)["HB05"].evidence
    assert evidence["leaked_bytes"] == 2 * 16384
    assert (evidence["request_length"], evidence["answer_records"]) == (43, 3)
    assert evidence["answer_length"] == 2 * 16408 + 43


def test_a_request_as_long_as_a_record_does_not_hide_an_over_read(tmp_path):
    s = grown("full")
    s.client(s.sealed(0, tls.HEARTBEAT, 16384))
    s.server(*(s.sealed(1, tls.HEARTBEAT, 16384) for _ in range(4)))
    s.close()
    assert findings(s.capture, tmp_path)["HB05"].evidence["leaked_bytes"] == 3 * 16384


def test_an_honest_request_as_long_as_the_leak_does_not_hide_it(tmp_path):
    """The first answer is paired with the request of its length; the one that is left over was the leak's."""
    s = grown("decoy")
    s.client(s.sealed(0, tls.HEARTBEAT, 19), s.sealed(0, tls.HEARTBEAT, 5000))
    s.server(s.sealed(1, tls.HEARTBEAT, 5000), s.sealed(1, tls.HEARTBEAT, 5000))
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB05") == {"HB05": "A"}
    assert found["HB05"].evidence["leaked_bytes"] == 4981


def test_a_request_that_was_dropped_does_not_make_a_leak_of_the_next_answer(tmp_path):
    s = grown("dropped")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.capture.pause(3)
    s.client(s.sealed(0, tls.HEARTBEAT, 1000))
    s.server(s.sealed(1, tls.HEARTBEAT, 1000))
    s.close()
    assert "HB05" not in findings(s.capture, tmp_path)


def test_an_unanswered_request_is_given_up_after_a_while(tmp_path):
    """Later the server asks on its own; the client's answer has the length of that."""
    s = grown("given-up")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.capture.pause(limits.HEARTBEAT_ANSWER_NS / 1e9 + 1)
    s.server(s.sealed(1, tls.HEARTBEAT, 1000))
    s.client(s.sealed(0, tls.HEARTBEAT, 1000))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB12": "P"}


def test_a_leak_is_found_behind_any_number_of_honest_heartbeats(tmp_path):
    s = grown("behind")
    for _ in range(3 * limits.HEARTBEATS_KEPT):
        s.client(s.sealed(0, tls.HEARTBEAT, 60))
        s.server(s.sealed(1, tls.HEARTBEAT, 60))
    (asked,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
    (leak,) = s.server(s.sealed(1, tls.HEARTBEAT, 9000))
    s.close()
    found = findings(s.capture, tmp_path)
    assert found["HB05"].packets == (asked.number, leak.number, leak.number + 6)  # seven segments
    assert found["HB05"].evidence["leaked_bytes"] == 8981


def test_a_lost_request_makes_nobody_an_attacker(tmp_path):
    """With one record missing every later one is paired with the wrong one."""
    s = grown("lost")
    (lost,) = s.client(s.sealed(0, tls.HEARTBEAT, 900))
    s.server(s.sealed(1, tls.HEARTBEAT, 900))
    s.client(s.sealed(0, tls.HEARTBEAT, 30))
    s.server(s.sealed(1, tls.HEARTBEAT, 30))
    s.client(s.sealed(0, tls.HEARTBEAT, 2000))
    s.server(s.sealed(1, tls.HEARTBEAT, 2000))
    s.close()
    s.capture.lose(lost)
    assert "A" not in ids(findings(s.capture, tmp_path), "HB").values()


@pytest.mark.parametrize("kept", [443, 50_001])
def test_one_direction_alone_proves_no_flood(tmp_path, kept):
    s = grown("one-sided")
    for size in (19, 19, 500):
        s.client(s.sealed(0, tls.HEARTBEAT, size))
        s.server(s.sealed(1, tls.HEARTBEAT, size))
    s.close()
    s.capture.keep(lambda packet: packet.dport == kept)
    assert not set(ids(findings(s.capture, tmp_path), "HB")) - {"HB12"}


def test_compression_excuses_growth_and_shortness(tmp_path):
    s = begin("compressed", tls.TLS12, tls.RSA_AES_SHA)
    s.client(s.client_hello(**PEER_ALLOWED))
    hello = bytearray(s.server_hello(**PEER_ALLOWED))
    hello[9 + 2 + 32 + 1 + 2] = 1  # deflate
    s.server(bytes(hello), *s.server_flight())
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.capture.pause(61)
    s.client(s.sealed(0, tls.HEARTBEAT, 10))
    s.server(s.sealed(1, tls.HEARTBEAT, 400))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB05": "B", "HB12": "P"}


@pytest.mark.parametrize(
    ("suite", "extensions", "length", "found"),
    [
        (tls.RSA_RC4, b"", 38, True),
        (tls.RSA_RC4, b"", 39, False),
        (tls.RSA_RC4, tls.extension(4), 28, True),  # truncated_hmac: 10 bytes of MAC
        (tls.RSA_RC4, tls.extension(4), 29, False),
        (tls.RSA_AES_SHA, b"", 48, True),
        (tls.RSA_AES_SHA, b"", 64, False),
        (tls.RSA_AES_SHA, tls.extension(22), 67, True),  # encrypt_then_mac: 16 + 32 + 20
        (tls.RSA_AES_SHA, tls.extension(22), 68, False),
        (tls.ECDHE_AES_GCM, b"", 42, True),
        (tls.ECDHE_AES_GCM, b"", 43, False),
        (tls.ECDHE_CHACHA, b"", 34, True),
        (tls.ECDHE_CHACHA, b"", 35, False),
        (tls.ECDHE_AES_GCM, b"", 0, True),
    ],
)
def test_a_record_too_short_for_any_heartbeat(tmp_path, suite, extensions, length, found):
    s = grown("short", suite=suite, answer={**PEER_ALLOWED, "extra": extensions})
    s.client(s.record(tls.HEARTBEAT, s.noise.take(length)))
    s.close()
    result = findings(s.capture, tmp_path)
    assert ids(result, "HB06") == ({"HB06": "A"} if found else {})
    if found:
        assert result["HB06"].evidence["record_length"] == length
        assert result["HB06"].evidence["least_length"] > length


def test_too_short_in_answer_to_a_ping_of_the_server(tmp_path):
    s = grown("short-answer")
    s.server(s.sealed(1, tls.HEARTBEAT, 19))
    s.client(s.sealed(0, tls.HEARTBEAT, 3))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB06") == {"HB06": "A"}


def test_after_a_renegotiation_the_suite_is_not_known(tmp_path):
    s = grown("renegotiated")
    s.client(s.sealed(0, tls.HANDSHAKE, 200))
    s.server(s.sealed(1, tls.HANDSHAKE, 900))
    s.client(s.sealed(0, tls.HANDSHAKE, 70), s.sealed(0, tls.CCS, 1), s.finished(0))
    s.server(s.sealed(1, tls.CCS, 1), s.finished(1))
    s.client(s.sealed(0, tls.HEARTBEAT, 3))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB06") == {"HB06": "B"}


# requests and answers


def test_a_second_request_in_flight(tmp_path):
    s = grown("two")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    (second,) = s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.sealed(1, tls.HEARTBEAT, 19), s.sealed(1, tls.HEARTBEAT, 19))
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB") == {"HB07": "B", "HB08": "B", "HB12": "P"}
    assert found["HB08"].packets == (second.number,)
    assert found["HB08"].evidence["outstanding"] == 1


def test_four_requests_without_an_answer_however_slowly(tmp_path):
    s = grown("slow")
    sent = []
    for _ in range(4):
        sent += s.client(s.sealed(0, tls.HEARTBEAT, 19))
        s.capture.pause(limits.HEARTBEAT_ANSWER_NS / 1e9 + 1)
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB08") == {"HB08": "B"}
    assert found["HB08"].packets == (sent[3].number,)


def test_the_server_may_ask_too(tmp_path):
    s = grown("both")
    for _ in range(2):
        s.server(s.sealed(1, tls.HEARTBEAT, 40))
        s.client(s.sealed(0, tls.HEARTBEAT, 40))
        s.client(s.sealed(0, tls.HEARTBEAT, 50))
        s.server(s.sealed(1, tls.HEARTBEAT, 50))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB12": "P"}


# negotiation


@pytest.mark.parametrize(
    ("hello", "answered", "side", "found"),
    [
        (1, 1, 0, False),
        (1, 1, 1, False),
        (1, None, 0, True),
        (1, None, 1, True),
        (None, None, 0, True),
        (1, 2, 0, True),
        (1, 2, 1, False),  # the client allowed it
        (2, 1, 1, True),
        (2, 1, 0, False),
    ],
)
def test_a_request_needs_the_leave_of_its_receiver(tmp_path, hello, answered, side, found):
    def mode(value):
        return {} if value is None else {"heartbeat_mode": value}

    s = grown("leave", mode(hello), mode(answered))
    (s.server if side else s.client)(s.sealed(side, tls.HEARTBEAT, 40))
    s.close()
    result = findings(s.capture, tmp_path)
    assert ids(result, "HB09") == ({"HB09": "A"} if found else {})
    if found:
        assert result["HB09"].offender == (SERVER if side else CLIENT)


def test_a_probe_that_was_not_negotiated_is_an_attack(tmp_path):
    s = begin("unasked")
    s.hellos({}, {})
    s.client(s.heartbeat(REQUEST, 20, s.noise.take(20)))
    s.talk.close()
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB02": "A", "HB03": "A", "HB09": "A"}


def test_a_hello_that_was_not_read_allows_or_forbids_nothing(tmp_path):
    s = begin("unread")
    s.client(s.client_hello())
    flight = s.server(s.server_hello(), *s.server_flight())
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.finished(1))
    s.exchange()
    s.capture.pause(61)
    s.client(s.sealed(0, tls.HEARTBEAT, 40))
    s.close()
    s.capture.packets.remove(s.capture.packets[FIRST_HELLO - 1])
    s.capture.lose(flight[0])
    assert not ids(findings(s.capture, tmp_path), "HB")


# the server as attacker


def test_reverse_heartbleed_in_clear(tmp_path):
    s = greeted("reverse")
    s.server(s.heartbeat(REQUEST, 0x2000))
    s.client(answer(s, s.noise.take(0x2000)))
    s.talk.close(1)
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB") == {"HB03": "A", "HB10": "A", "HB12": "P"}
    reverse = found["HB10"]
    assert (reverse.offender, reverse.victims, reverse.severity) == (SERVER, (CLIENT,), Severity.CRITICAL)
    assert reverse.evidence["leaked_bytes"] == 0x2000
    assert reverse.evidence["vulnerable"] == CLIENT


def test_a_client_that_pads_more_is_not_attacked(tmp_path):
    s = grown("reverse-padding")
    s.server(s.sealed(1, tls.HEARTBEAT, 19))
    s.client(s.sealed(0, tls.HEARTBEAT, 30))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB10") == {"HB10": "I"}


# time and place


@pytest.mark.parametrize(("pause", "found"), [(58, True), (60, False)])
def test_within_a_minute_of_the_syn(tmp_path, pause, found):
    s = begin("minute")
    s.full(PEER_ALLOWED, PEER_ALLOWED)
    s.capture.pause(pause)
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.sealed(1, tls.HEARTBEAT, 19))
    s.close()
    assert ("HB11" in findings(s.capture, tmp_path)) is found


def test_early_is_not_said_of_a_connection_whose_beginning_was_not_seen(tmp_path):
    s = begin("no-beginning")
    s.full(PEER_ALLOWED, PEER_ALLOWED)
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.close()
    del s.capture.packets[:3]
    assert "HB11" not in findings(s.capture, tmp_path)


@pytest.mark.parametrize("after", ["hello", "hellos", "client-ccs", "both-ccs"])
def test_heartbeats_wait_for_both_key_changes(tmp_path, after):
    s = begin(f"wait-{after}")
    s.client(s.client_hello(**PEER_ALLOWED))
    if after == "hello":
        s.client(s.heartbeat(REQUEST, 20, s.noise.take(36)))
    s.server(s.server_hello(**PEER_ALLOWED), *s.server_flight())
    if after == "hellos":
        s.client(s.heartbeat(REQUEST, 20, s.noise.take(36)))
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    if after == "client-ccs":
        s.client(s.sealed(0, tls.HEARTBEAT, 40))
    s.server(s.ccs(), s.finished(1))
    if after == "both-ccs":
        s.client(s.sealed(0, tls.HEARTBEAT, 40))
    s.close()
    assert ("HB03" in findings(s.capture, tmp_path)) is (after != "both-ccs")


def test_bytes_that_only_begin_like_a_record_are_no_attack(tmp_path):
    """Some other protocol, whose first bytes are 18 03 03."""
    s = begin("other")
    s.client(b"\x18\3\3\0\x20" + b"\x77" * 32)
    s.server(b"\x99" * 40)
    s.talk.close()
    assert "A" not in ids(findings(s.capture, tmp_path), "HB").values()


def test_in_tls13_no_record_has_the_type(tmp_path):
    s = begin("thirteen", tls.TLS13, tls.TLS13_AES_128)
    s.full13({"heartbeat_mode": 1})
    (asked,) = s.client(s.heartbeat(REQUEST, 0x4000))
    (answered,) = s.server(s.record(tls.HEARTBEAT, s.noise.take(100)))
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB") == {"HB13": "B"}
    assert found["HB13"].packets == (asked.number, answered.number)


# what only looks readable


def test_a_bogus_key_change_hides_nothing(tmp_path):
    s = greeted("blind")
    s.client(s.ccs())
    s.client(s.heartbeat(REQUEST, 0x1000, s.noise.take(61)))
    s.server(answer(s, s.noise.take(0x1000)))
    s.talk.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB") == {"HB01": "A", "HB03": "A", "HB04": "A", "HB12": "P", "HB15": "A"}
    assert found["HB04"].evidence["leaked_bytes"] == 0x1000 - 61


def test_ciphertext_may_begin_like_an_over_read(tmp_path):
    s = grown("lookalike", suite=tls.RSA_AES_SHA)
    s.client(s.record(tls.HEARTBEAT, b"\1\xff\xff" + s.noise.take(61)))
    s.server(s.record(tls.HEARTBEAT, b"\2\xff\xff" + s.noise.take(61)))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB12": "P"}


def test_ciphertext_behind_a_lost_key_change_is_not_read(tmp_path):
    s = begin("lost-ccs", tls.TLS12, tls.RSA_AES_SHA)
    s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (lost,) = s.client(s.client_key_exchange(), s.ccs(), s.finished(0))[:1]
    s.server(s.ccs(), s.finished(1))
    s.client(s.record(tls.HEARTBEAT, b"\1\xff\xff" + s.noise.take(61)))
    s.close()
    s.capture.lose(lost)
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB12": "P"}


def test_what_no_cipher_makes_is_read_even_there(tmp_path):
    s = begin("lost-ccs-short", tls.TLS12, tls.RSA_AES_SHA)
    s.hellos(PEER_ALLOWED, PEER_ALLOWED)
    (lost,) = s.client(s.client_key_exchange())
    s.client(s.heartbeat(REQUEST, 0x4000))
    s.talk.close()
    s.capture.lose(lost)
    assert ids(findings(s.capture, tmp_path), "HB01") == {"HB01": "A"}


def test_bytes_behind_a_gap_are_not_taken_for_the_body(tmp_path):
    """The header's segment is there, the start of the body is lost."""
    s = greeted("headless")
    s.client(
        s.record(tls.HEARTBEAT, s.noise.take(50) + b"\1\xff\xff" + s.noise.take(30)), cut=(5, 55), ack=False
    )
    lost = s.capture.packets[-2]
    s.talk.packet(1)
    s.talk.close()
    s.capture.lose(lost)
    assert not {"HB01", "HB02"} & set(findings(s.capture, tmp_path))


@pytest.mark.parametrize(("payload_length", "found"), [(40, None), (41, "HB02"), (57, "HB01")])
def test_without_encryption_a_mac_stands_behind_the_message(tmp_path, payload_length, found):
    s = grown("null", suite=tls.RSA_NULL)
    body = tls.heartbeat(REQUEST, payload_length, s.noise.take(56))
    s.client(s.record(tls.HEARTBEAT, body + s.noise.take(20)))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB0") == (
        {found: "A" if found == "HB01" else "B"} if found else {}
    )


@pytest.mark.parametrize("mode", [1, 2, None])
def test_a_server_that_lets_clients_ask(tmp_path, mode):
    s = begin("exposed")
    s.full({"heartbeat_mode": 1}, {} if mode is None else {"heartbeat_mode": mode})
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB") == ({"HB12": "P"} if mode == 1 else {})
    if mode == 1:
        assert found["HB12"].severity == Severity.LOW
        assert found["HB12"].evidence["version"] == "TLSv1.2"


# which of two was the request


def test_the_server_asks_while_a_request_of_the_client_is_unanswered(tmp_path):
    """The client answers, so that the longer record was no answer; who knows is said by class B."""
    s = grown("crossed")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.sealed(1, tls.HEARTBEAT, 800))
    s.client(s.sealed(0, tls.HEARTBEAT, 800))
    s.close()
    found = findings(s.capture, tmp_path)
    assert ids(found, "HB05") == {"HB05": "B"}
    assert found["HB05"].evidence["echoed"] is True


def test_when_both_are_answered_nothing_is_odd(tmp_path):
    s = grown("crossed-answered")
    s.client(s.sealed(0, tls.HEARTBEAT, 19))
    s.server(s.sealed(1, tls.HEARTBEAT, 800))
    s.client(s.sealed(0, tls.HEARTBEAT, 800))
    s.server(s.sealed(1, tls.HEARTBEAT, 19))
    s.client(s.sealed(0, tls.HEARTBEAT, 60))
    s.server(s.sealed(1, tls.HEARTBEAT, 60))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB") == {"HB12": "P"}


def test_a_request_right_behind_an_answer_of_full_size(tmp_path):
    s = grown("behind-full")
    s.client(s.sealed(0, tls.HEARTBEAT, 16384))
    s.server(s.sealed(1, tls.HEARTBEAT, 16384))
    s.server(s.sealed(1, tls.HEARTBEAT, 500))
    s.client(s.sealed(0, tls.HEARTBEAT, 500))
    for _ in range(2):
        s.client(s.sealed(0, tls.HEARTBEAT, 60))
        s.server(s.sealed(1, tls.HEARTBEAT, 60))
    s.close()
    assert ids(findings(s.capture, tmp_path), "HB05") == {"HB05": "B"}


def test_where_the_capture_begins_in_the_middle_ciphertext_is_not_read(tmp_path):
    s = grown("middle")
    before = len(s.capture.packets)
    s.client(s.record(tls.HEARTBEAT, b"\1\xff\xff" + s.noise.take(90)))
    s.server(s.record(tls.HEARTBEAT, b"\2\xff\xff" + s.noise.take(90)))
    s.close()
    del s.capture.packets[:before]
    assert not ids(findings(s.capture, tmp_path), "HB")
