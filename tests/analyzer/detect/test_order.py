"""What is out of order, from the wrong side or in clear: of each a connection that has it, and one that nearly has it.

The captures of samples/crafted show SM01 to SM03, SM06, SM07, SM12 to SM15, SM18, SM22 and RS09; here is what they do
not. Source of the ids: the table of analyzer/detect/order.py; RFC 5246 7.3, RFC 8446 2, 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from analyzer.detect import order
from analyzer.tls.state import Ev, State
from samples.craft import tls_bytes as tls
from samples.craft.session import Session, begin
from tests.analyzer.detect.crafted import analysis, findings, ids
from tests.analyzer.detect.found import CLIENT, SERVER

OFFERED_13 = {"versions": (tls.TLS13, tls.TLS12)}


class Case(NamedTuple):
    what: str
    play: Callable[[Session], object]
    version: int = tls.TLS12
    suite: tls.Suite = tls.ECDHE_AES_GCM
    action: str = ""
    offender: str | None = None


# a function for each conversation; most end where the finding is made


def change_after_13(s: Session) -> None:
    s.full13(compatible=False)
    s.client(s.ccs())


def change_after_server_hello(s: Session) -> None:
    s.client(s.client_hello())
    s.server(s.server_hello(), s.ccs(), s.finished(1))


def no_verify(s: Session) -> None:
    s.hellos({}, {}, certificate_request=True)
    s.client(s.client_certificate(), s.client_key_exchange(), s.ccs(), s.finished(0))


def data_for_finished(s: Session) -> None:
    s.hellos({}, {})
    s.client(s.client_key_exchange(), s.ccs(), s.finished(0))
    s.server(s.ccs(), s.data(1, 200))


def flight(*names: str) -> Callable[[Session], None]:
    """ClientHello, then ServerHello and what is named."""

    def play(s: Session) -> None:
        s.client(s.client_hello(suites=[s.suite.code]))
        s.server(s.server_hello(), *(getattr(s, name)() for name in names))

    return play


def certificate_unasked(s: Session) -> None:
    s.hellos({}, {})
    s.client(s.client_certificate(), s.client_key_exchange())


def record_after_close(s: Session) -> None:
    s.client(s.client_hello())
    s.client(s.alert(tls.WARNING, tls.CLOSE_NOTIFY), s.client_key_exchange())


def record_after_fatal(s: Session) -> None:
    s.client(s.client_hello())
    s.server(s.alert(tls.FATAL, tls.HANDSHAKE_FAILURE))
    s.server(s.server_hello())


def hello_request_from_client(s: Session) -> None:
    s.hellos({}, {})
    s.client(s.handshake(tls.HELLO_REQUEST))


def retry(s: Session, *more: bytes) -> None:
    s.client(s.client_hello(**OFFERED_13))
    s.server(s.server_hello(retry=True), *more)


def hello_request_after_retry(s: Session) -> None:
    retry(s, s.handshake(tls.HELLO_REQUEST))


def retry_twice(s: Session) -> None:
    retry(s)
    s.client(s.client_hello(**OFFERED_13))
    s.server(s.server_hello(retry=True))


CASES = {
    "SM08": [Case("ChangeCipherSpec after the TLS 1.3 handshake", change_after_13, tls.TLS13, tls.TLS13_AES_128, "I")],
    "SM09": [
        Case("the server changes keys after its ServerHello, and nothing is resumed", change_after_server_hello, action="A*"),
        Case("a client certificate, and no proof that the key is the client's", no_verify, action="A", offender=CLIENT),
        Case("the server's data in the place of its Finished", data_for_finished, action="A*"),
    ],
    "SM10": [
        Case("no Certificate", flight("server_key_exchange", "server_hello_done"), action="A*"),
        Case("no Certificate with RSA", flight("server_hello_done"), suite=tls.RSA_AES_GCM, action="A*"),
        Case("a Certificate of an anonymous server", flight("certificate"), suite=tls.ANON_AES_SHA, action="A*"),
        Case("a client certificate that was not asked for", certificate_unasked, action="A*"),
    ],
    "SM11": [
        Case("no ServerKeyExchange", flight("certificate", "server_hello_done"), action="A*"),
        Case("a ServerKeyExchange with RSA", flight("certificate", "server_key_exchange"), suite=tls.RSA_AES_GCM, action="A*"),
    ],
    "SM16": [
        Case("a message after close_notify", record_after_close, action="I"),
        Case("a ServerHello after the server's fatal alert", record_after_fatal, action="I"),
    ],
    "SM17": [
        Case("HelloRequest from the client", hello_request_from_client, action="B"),
        Case("HelloRequest in TLS 1.3", hello_request_after_retry, tls.TLS13, tls.TLS13_AES_128, "B"),
    ],
    "SM19": [Case("HelloRetryRequest twice", retry_twice, tls.TLS13, tls.TLS13_AES_128, "B")],
}  # fmt: skip


def played(case: Case) -> Session:
    s = begin("order", case.version, case.suite)
    case.play(s)
    return s


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(name, case, id=f"{name} {case.what}") for name, cases in CASES.items() for case in cases]
)  # fmt: skip
def test_it_is_found(name, case):
    found = {finding.id: finding for finding in findings(played(case).capture, family="SM")}
    assert name in found
    assert (found[name].action.value, found[name].offender) == (case.action, case.offender)
    assert set(found[name].evidence) >= {"side", "state", "event", "record_type", "record_length", "bytes"}


# what nearly is


def compatible(s: Session) -> None:
    s.full13()


def proven(s: Session) -> None:
    s.hellos({}, {}, certificate_request=True)
    records = s.client_certificate(), s.client_key_exchange(), s.certificate_verify(), s.ccs(), s.finished(0)
    s.client(*records)
    s.server(s.ccs(), s.finished(1))


def no_certificate_sent(s: Session) -> None:
    s.hellos({}, {}, certificate_request=True)
    s.client(s.client_certificate(empty=True), s.client_key_exchange(), s.ccs(), s.finished(0))


def resumed(s: Session) -> None:
    session_id = s.noise.take(32)
    s.abbreviated({"session_id": session_id}, {"session_id": session_id})


def closed(s: Session) -> None:
    s.client(s.client_hello())
    s.client(s.alert(tls.WARNING, tls.CLOSE_NOTIFY))
    s.server(s.server_hello())  # it was on its way
    s.talk.close(0)


def asked_again(s: Session) -> None:
    s.server(s.handshake(tls.HELLO_REQUEST))
    s.client(s.client_hello())
    s.server(s.handshake(tls.HELLO_REQUEST), s.server_hello())


def retried_once(s: Session) -> None:
    retry(s)
    s.client(s.client_hello(**OFFERED_13))
    s.server(s.server_hello())


NEARLY = {
    "SM08": Case("the ChangeCipherSpecs of TLS 1.3's compatibility", compatible, tls.TLS13, tls.TLS13_AES_128),
    "SM09, resumed": Case("a resumption", resumed),
    "SM09, proven": Case("a client certificate with its CertificateVerify", proven),
    "SM09, empty": Case("an empty client certificate without CertificateVerify", no_certificate_sent),
    "SM10": Case("no Certificate of an anonymous server", flight("server_key_exchange", "server_hello_done"), suite=tls.ANON_AES_SHA),
    "SM11": Case("no ServerKeyExchange with RSA", flight("certificate", "server_hello_done"), suite=tls.RSA_AES_GCM),
    "SM16": Case("the peer's message after close_notify", closed),
    "SM17": Case("HelloRequest from the server", asked_again),
    "SM19": Case("HelloRetryRequest once", retried_once, tls.TLS13, tls.TLS13_AES_128),
}  # fmt: skip


@pytest.mark.parametrize("name", NEARLY)
def test_what_nearly_is_it_is_not_found(name):
    assert ids(findings(played(NEARLY[name]).capture, family="SM")) == []


@pytest.mark.parametrize("cases", CASES.values(), ids=CASES)
def test_with_bytes_missing_before_it_nothing_is_said(cases):
    """A verdict on order needs both directions whole."""
    for case in cases:
        s = played(case)
        packets = s.capture.packets
        lost = next(packet for packet in packets if packet.payload)
        s.capture.lose(lost)
        assert not [name for name in ids(findings(s.capture, family="SM")) if name in CASES], case.what


# the table


def test_the_first_row_that_fits_counts():
    """SM14 and SM17 before the rows of every state."""
    assert named(State.T_EST, 0, Ev.CLEAR_HANDSHAKE) == "SM14"
    assert named(State.EST, 0, Ev.CLEAR_HANDSHAKE) == "SM12"
    assert named(State.N_SH, 0, Ev.HELLO_REQUEST) == "SM17"
    assert named(State.N_SH, 1, Ev.SERVER_HELLO) == "SM18"
    assert named(State.START, 1, Ev.SERVER_HELLO) == "SM02"


def named(state: State, side: int, event: Ev) -> str | None:
    which = order._ID_OF[state, side, event]
    return order._NAMES[which] if which >= 0 else None


def test_every_id_of_the_table_is_a_rule():
    assert set(order._NAMES) == {rule.id for rule in order.RULES}


def test_two_violations_of_one_rule_are_one_finding():
    s = begin("order")
    s.client(s.client_hello(suites=[s.suite.code]))
    s.server(s.server_hello(), s.server_hello_done(), s.certificate(), s.server_key_exchange())
    found = analysis(s.capture).iter_findings()
    assert [finding.evidence.get("count") for finding in found if finding.id == "SM01"] == [2]
    assert SERVER not in {finding.offender for finding in analysis(s.capture).iter_findings()}
