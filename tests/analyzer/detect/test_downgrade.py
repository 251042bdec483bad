"""Downgrades that one connection shows: DG01 to DG04, DG08, DG12 to DG16, DG18."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.model import Action, Severity
from analyzer.pipeline import analyze
from samples.craft import tls_bytes as tls
from samples.craft.conversation import SERVER, Capture
from samples.craft.session import Session, begin
from samples.craft.tls_bytes import SENTINEL_TLS11, SENTINEL_TLS12, SSL30, TLS10, TLS11, TLS12, TLS13
from tests.analyzer.detect.crafted import findings, ids, one

CAPTURES = Path(__file__).parents[3] / "samples" / "captures"
EVERYTHING = (TLS13, TLS12, TLS11, TLS10)
POSTURE = {"DG12", "DG13", "DG14"}
DRAFT = 0x7F1C


def suite(version: int) -> tls.Suite:
    return {TLS13: tls.TLS13_AES_128, TLS12: tls.ECDHE_AES_GCM}.get(version, tls.ECDHE_AES_SHA)


def answered(version: int, hello: dict, answer: dict | None = None) -> Session:
    """Both hellos and the rest of the server's flight; then the client gives up."""
    s = begin("answered", version, suite(version))
    if version == TLS13:
        s.client(s.client_hello(**hello))
        s.server(s.server_hello(**(answer or {})))
    else:
        s.hellos(hello, answer or {})
    s.client(s.alert(tls.FATAL, tls.ILLEGAL_PARAMETER))
    s.talk.close()
    return s


def suspicious(s: Session) -> list[str]:
    return [name for name in ids(findings(s.capture)) if name not in POSTURE]


@pytest.mark.parametrize(
    ("offered", "negotiated", "tail", "expected"),
    [
        # the mark of the version, and more was offered: the server never saw the offer
        (EVERYTHING, TLS12, SENTINEL_TLS12, ["DG01"]),
        (EVERYTHING, TLS11, SENTINEL_TLS11, ["DG01"]),
        (EVERYTHING, TLS10, SENTINEL_TLS11, ["DG01"]),
        ((TLS12,), TLS11, SENTINEL_TLS11, ["DG02"]),
        ((TLS12,), TLS10, SENTINEL_TLS11, ["DG02"]),
        # the mark of the version, and the client got all that it offered
        ((TLS12,), TLS12, SENTINEL_TLS12, ["DG04"]),
        ((TLS11,), TLS11, SENTINEL_TLS11, ["DG04"]),
        ((TLS11,), TLS10, SENTINEL_TLS11, ["DG04"]),
        # the mark of another version
        ((TLS12,), TLS12, SENTINEL_TLS11, ["DG03"]),
        (EVERYTHING, TLS12, SENTINEL_TLS11, ["DG03"]),
        ((TLS12,), TLS11, SENTINEL_TLS12, ["DG03"]),
        (EVERYTHING, TLS13, SENTINEL_TLS12, ["DG03"]),
        (EVERYTHING, TLS13, SENTINEL_TLS11, ["DG03"]),
        # no mark
        (EVERYTHING, TLS12, b"", []),
        (EVERYTHING, TLS12, b"DOWNGRD\x02", []),
        (EVERYTHING, TLS12, SENTINEL_TLS12[1:] + b"\0", []),
        (EVERYTHING, TLS13, b"", []),
    ],
)
def test_downgrade_mark(offered: tuple, negotiated: int, tail: bytes, expected: list) -> None:
    assert suspicious(answered(negotiated, {"versions": offered}, {"tail": tail})) == expected


def test_a_downgrade_names_what_was_expected_and_seen() -> None:
    s = begin("evidence")
    hellos = s.hellos({"versions": EVERYTHING}, {"tail": SENTINEL_TLS12})
    finding = one(findings(s.capture), "DG01")
    assert finding.action == Action.TAMPERING
    assert finding.severity == Severity.HIGH
    assert finding.offender is None
    assert set(finding.victims) == {"192.0.2.10", "198.51.100.10"}
    assert finding.packets == (hellos.client_hello.number, hellos.server_hello.number)
    evidence = finding.evidence
    assert evidence["expected_version"] == "TLSv1.3"
    assert evidence["seen_version"] == "TLSv1.2"
    assert evidence["client_offered"] == ["TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1.0"]
    assert evidence["random_tail"] == "444f574e47524401"
    assert evidence["cipher_suite"] == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert evidence["sni"] == "server.example"
    # what stands there is in the packet
    assert bytes.fromhex(evidence["bytes"]) in hellos.server_hello.payload


def test_a_draft_of_tls_1_3_may_meet_a_server_with_another() -> None:
    for supported in ((DRAFT, TLS12), (TLS13, DRAFT, TLS12)):
        s = answered(
            TLS12, {"versions": (TLS13, TLS12), "supported_versions": supported}, {"tail": SENTINEL_TLS12}
        )
        assert "DG01" not in suspicious(s)


def test_both_marks_are_wrong_for_a_client_with_tls_1_3() -> None:
    found = findings(answered(TLS12, {"versions": EVERYTHING}, {"tail": SENTINEL_TLS11}).capture)
    assert one(found, "DG03").severity == Severity.MEDIUM
    found = findings(answered(TLS12, {"versions": (TLS12,)}, {"tail": SENTINEL_TLS11}).capture)
    assert one(found, "DG03").severity == Severity.INFO


def test_a_hello_retry_request_is_no_mark() -> None:
    s = begin("retry", TLS13, tls.TLS13_AES_128)
    s.client(s.client_hello(versions=EVERYTHING))
    s.server(s.server_hello(retry=True))
    s.talk.close()
    assert suspicious(s) == []


@pytest.mark.parametrize(
    ("version", "negotiated_severity", "offered_severity"),
    [
        (SSL30, Severity.HIGH, Severity.MEDIUM),
        (TLS10, Severity.MEDIUM, Severity.LOW),
        (TLS11, Severity.LOW, Severity.LOW),
    ],
)
def test_deprecated_version(version: int, negotiated_severity: Severity, offered_severity: Severity) -> None:
    s = begin("deprecated", version, tls.RSA_AES_SHA)
    hellos = s.full()
    s.close()
    found = findings(s.capture)
    assert ids(found) == ["DG12", "DG13"]
    negotiated, offered = found
    assert negotiated.severity == negotiated_severity
    assert offered.severity == offered_severity
    for finding, packet in ((negotiated, hellos.server_hello), (offered, hellos.client_hello)):
        assert finding.action == Action.POSTURE
        assert finding.policy == "min-version"
        assert finding.packets == (packet.number,)
        assert bytes.fromhex(finding.evidence["bytes"]) in packet.payload
    assert negotiated.evidence["cipher_suite"] == "TLS_RSA_WITH_AES_128_CBC_SHA"


def test_versions_in_use_are_fine() -> None:
    for version in (TLS12, TLS13):
        s = begin("fine", version, suite(version))
        (s.full13 if version == TLS13 else s.full)()
        s.close()
        assert findings(s.capture) == []


def test_a_deprecated_answer_to_a_good_offer_is_no_deprecated_offer() -> None:
    s = begin("good-offer", TLS10, tls.RSA_AES_SHA)
    s.full({"versions": (TLS12,)})
    s.close()
    assert ids(findings(s.capture)) == ["DG12"]


@pytest.mark.parametrize(
    ("version", "severity", "also"),
    [(0x0002, Severity.HIGH, ["DG13"]), (TLS10, Severity.LOW, ["DG13"]), (TLS12, Severity.LOW, [])],
)
def test_hello_in_ssl2_format(version: int, severity: Severity, also: list) -> None:
    s = begin("ssl2", version)
    hello = tls.Sslv2Hello(noise=s.noise, version=version).record()
    (packet,) = s.client(hello)
    s.talk.close(SERVER)
    found = findings(s.capture)
    assert ids(found) == [*also, "DG14"]
    finding = one(found, "DG14")
    assert finding.severity == severity
    assert finding.policy == "min-version"
    assert finding.packets == (packet.number,)
    assert hello.startswith(bytes.fromhex(finding.evidence["bytes"]))


def test_fallback_mark() -> None:
    s = begin("scsv")
    hellos = s.full({"scsv": True})
    s.close()
    (finding,) = findings(s.capture)
    assert (finding.id, finding.action, finding.packets) == (
        "DG08",
        Action.INFORM,
        (hellos.client_hello.number,),
    )


@pytest.mark.parametrize(
    ("hello", "negotiated", "expected"),
    [
        # higher than offered
        ({"versions": (TLS11,), "suites": (0xC02F,)}, TLS12, ["DG15"]),
        ({"versions": (TLS10,)}, TLS11, ["DG15"]),
        # lower than anything on the list
        ({"versions": (TLS13, TLS12)}, TLS11, ["DG15"]),
        ({"versions": (TLS13, TLS12, TLS11)}, TLS10, ["DG15"]),
        # on the list: an old server that does not know the list is no rollback
        ({"versions": EVERYTHING}, TLS10, []),
        ({"versions": EVERYTHING}, TLS12, []),
        # below what was offered without a list: anything up to it is offered
        ({"versions": (TLS12,)}, TLS10, []),
        # the old field's version, which the list excludes
        ({"versions": (TLS13,), "suites": (0x1301, 0xC02F)}, TLS12, ["DG16"]),
        # a draft has its own numbers
        ({"versions": (TLS13,), "supported_versions": (DRAFT,)}, TLS12, []),
    ],
)
def test_versions_of_a_handshake_agree(hello: dict, negotiated: int, expected: list) -> None:
    assert suspicious(answered(negotiated, hello)) == expected


@pytest.mark.parametrize(("selected", "expected"), [(TLS13, []), (0x0305, ["DG16"]), (0x0399, ["DG16"])])
def test_the_selected_version_is_on_the_list(selected: int, expected: list) -> None:
    s = answered(TLS13, {"versions": (TLS13, TLS12)}, {"selected_version": selected})
    assert suspicious(s) == expected


def test_a_selected_version_without_a_list_is_not_offered() -> None:
    assert suspicious(answered(TLS13, {"versions": (TLS12,)})) == ["DG16"]


@pytest.mark.parametrize(
    ("record", "hello", "expected"),
    [
        (TLS12, TLS11, ["DG15"]),
        (TLS11, TLS10, ["DG15"]),
        (TLS10, TLS10, []),
        (TLS10, TLS12, []),
        (SSL30, TLS12, []),
        (TLS12, TLS12, []),
    ],
)
def test_the_record_of_a_hello_is_not_above_it(record: int, hello: int, expected: list) -> None:
    s = begin("record")
    (packet,) = s.client(
        tls.record(tls.HANDSHAKE, tls.ClientHello(noise=s.noise, versions=(hello,)).message(), record)
    )
    s.talk.close()
    assert suspicious(s) == expected
    if expected:
        assert one(findings(s.capture), "DG15").packets == (packet.number,)


@pytest.mark.parametrize(
    ("early_data", "sent", "negotiated", "expected"),
    [
        (True, True, TLS12, ["DG18"]),
        (True, False, TLS12, []),
        (True, True, TLS13, []),
        (False, False, TLS12, []),
    ],
)
def test_early_data_answered_with_an_older_version(
    early_data: bool, sent: bool, negotiated: int, expected: list
) -> None:
    s = begin("early", negotiated, suite(negotiated))
    hello = s.client_hello(versions=(TLS13, TLS12), psk=early_data, early_data=early_data)
    s.client(hello, *([tls.record(tls.APPLICATION_DATA, s.noise.take(200))] if sent else []))
    s.server(s.server_hello())
    s.talk.reset(0)
    assert suspicious(s) == expected


def test_a_damaged_hello_says_nothing_about_what_it_lacks() -> None:
    for negotiated in (TLS12, TLS11):
        cut = {
            "versions": (TLS12,),
            "extra": b"\x00\x2b\x00\x09\x08",
        }  # the list of versions is longer than the hello
        assert (
            suspicious(answered(negotiated, cut, {"tail": SENTINEL_TLS12 if negotiated == TLS12 else b""}))
            == []
        )


def test_all_packets_of_a_hello_are_named() -> None:
    capture = Capture()
    s = begin("long", TLS10, tls.RSA_AES_SHA, capture=capture)
    s.full(first_flight_cut=(60,))
    s.close()
    assert one(findings(capture), "DG13").packets == (4, 5)


def test_the_opener_may_be_the_server() -> None:
    s = begin("reversed", TLS12, opener_is_client=False)
    s.hellos({"versions": EVERYTHING}, {"tail": SENTINEL_TLS12})
    assert set(one(findings(s.capture), "DG01").victims) == {"192.0.2.10", "198.51.100.10"}


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcap")), ids=lambda path: path.stem)
def test_nobody_downgraded_the_shipped_captures(path: Path) -> None:
    found = [finding for finding in analyze(path).iter_findings() if finding.id.startswith("DG")]
    assert not [finding for finding in found if finding.action in (Action.BLOCK, Action.TAMPERING)]
