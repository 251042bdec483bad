"""TLS inside another protocol, refused or not used: DG21."""

from __future__ import annotations

import struct

import pytest

from analyzer.model import Action
from samples.craft.conversation import CLIENT, SERVER, Capture
from samples.craft.upgrades import POSTGRESQL_SSL_REQUEST, mysql_greeting, mysql_login
from tests.analyzer.detect.crafted import findings, ids
from tests.analyzer.tls.test_upgrades import COOKIE, negotiation, prelogin, tpkt

GSSENC_REQUEST = bytes.fromhex("0000000804d21630")
STARTUP = b"\0\0\0\x26\0\3\0\0user\0alice\0database\0shop\0\0\0\0"
CANCEL = bytes.fromhex("0000001004d2162e0000000100000002")
PASSWORD_PLEASE = b"R\0\0\0\x08\0\0\0\x03"
START_TLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
START_TLS_LONG = bytes.fromhex("308400000021020101778400000018 8016") + b"1.3.6.1.4.1.1466.20037"
RESULT_LONG = bytes.fromhex("308400000010020101788400000007 0a0134 0400 0400")
WHO_AM_I = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.4203.1.11."
BIND = bytes.fromhex("302002010260") + b"\x1b\2\1\3\4\x0fcn=alice,dc=corp\x80\x05pass1"
UNBIND = bytes.fromhex("30050201034200")


def result(code: int) -> bytes:
    """An LDAP ExtendedResponse."""
    return bytes.fromhex("300c02010178070a01") + bytes([code]) + b"\4\0\4\0"


def talk(port: int, *turns: tuple[int, bytes], lost: int | None = None, opener: int = CLIENT) -> Capture:
    capture = Capture()
    conversation = capture.connect(server_port=port)
    packets = [conversation.send(side if opener == CLIENT else 1 - side, data)[0] for side, data in turns]
    conversation.close()
    if lost is not None:
        capture.lose(packets[lost])
    return capture


C, S = CLIENT, SERVER
RDP_DATA = bytes.fromhex("0300000702f080") + bytes(200)
LOGIN7 = b"\x10\1\0\x40\0\0\1\0" + bytes(56)

REFUSED = {
    "postgresql": (5432, (C, POSTGRESQL_SSL_REQUEST), (S, b"N"), (C, STARTUP), (S, PASSWORD_PLEASE)),
    "postgresql after GSS": (
        5432, (C, GSSENC_REQUEST), (S, b"N"), (C, POSTGRESQL_SSL_REQUEST), (S, b"N"), (C, STARTUP),
        (S, PASSWORD_PLEASE),
    ),
    "ldap": (389, (C, START_TLS), (S, result(2)), (C, BIND), (S, result(0))),
    "ldap, long lengths": (389, (C, START_TLS_LONG), (S, RESULT_LONG), (C, BIND), (S, result(0))),
    "rdp": (
        3389, (C, tpkt(0xE0, COOKIE + negotiation(1, 3))), (S, tpkt(0xD0, negotiation(2, 0))), (C, RDP_DATA),
    ),
    "rdp, old server": (3389, (C, tpkt(0xE0, negotiation(1, 1))), (S, tpkt(0xD0, b"")), (C, RDP_DATA)),
    "tds": (1433, (C, prelogin(0x12, 0)), (S, prelogin(0x04, 2)), (C, LOGIN7)),
}  # fmt: skip
NOT_USED = {
    "mysql": (3306, (S, mysql_greeting()), (C, mysql_login(over_tls=False)), (S, b"\7\0\0\2\0\0\0\2\0\0\0")),
    "tds": (1433, (C, prelogin(0x12, 2)), (S, prelogin(0x04, 0)), (C, LOGIN7)),
}


@pytest.mark.parametrize("opener", [CLIENT, SERVER])
@pytest.mark.parametrize("name", REFUSED)
def test_the_server_refuses(name: str, opener: int) -> None:
    port, *turns = REFUSED[name]
    (finding,) = findings(talk(port, *turns, opener=opener))
    assert finding.id == "DG21"
    assert finding.action == Action.CORROBORATE
    assert finding.evidence["protocol"] == name.split()[0].rstrip(",")
    assert finding.packets == (6,)  # SYN, SYN/ACK, ACK, question, its ACK, answer
    answer = next(data for side, data in turns if side == SERVER)
    assert answer.startswith(bytes.fromhex(finding.evidence["bytes"]))


@pytest.mark.parametrize("name", NOT_USED)
def test_the_client_does_not_use_it(name: str) -> None:
    port, *turns = NOT_USED[name]
    (finding,) = findings(talk(port, *turns))
    assert finding.id == "DG21"
    assert finding.action == Action.POSTURE
    assert finding.evidence["protocol"] == name
    said = next(data for side, data in turns if side == CLIENT)
    assert said.startswith(bytes.fromhex(finding.evidence["bytes"]))


WITHOUT_SSL = bytearray(mysql_greeting())
WITHOUT_SSL[4 + 1 + 7 + 4 + 8 + 1 + 1] &= 0xF7  # CLIENT_SSL in the upper byte of the lower capability flags


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param([(C, POSTGRESQL_SSL_REQUEST), (S, b"N")], id="refused, and the client goes"),
        pytest.param(
            [(C, POSTGRESQL_SSL_REQUEST), (S, b"N"), (C, CANCEL)], id="refused, and no login follows"
        ),
        pytest.param([(C, STARTUP), (S, PASSWORD_PLEASE)], id="not asked for"),
        pytest.param(
            [(C, GSSENC_REQUEST), (S, b"N"), (C, STARTUP), (S, PASSWORD_PLEASE)], id="only GSS asked for"
        ),
        pytest.param(
            [(C, POSTGRESQL_SSL_REQUEST), (S, b"E\0\0\0\x10Mnonsense"), (C, STARTUP)], id="an error"
        ),
        pytest.param([(C, START_TLS), (S, result(2)), (C, UNBIND)], id="ldap: the client goes"),
        pytest.param([(C, WHO_AM_I), (S, result(2)), (C, BIND)], id="ldap: another extended request"),
        pytest.param([(C, START_TLS), (S, result(0)), (C, BIND)], id="ldap: accepted"),
        pytest.param(
            [(S, bytes(WITHOUT_SSL)), (C, mysql_login(over_tls=False))], id="mysql: the server has none"
        ),
        pytest.param(
            [(S, mysql_greeting()), (C, mysql_login(over_tls=True)), (C, bytes(40))], id="mysql: TLS is used"
        ),
        pytest.param([(S, mysql_greeting())], id="mysql: no login"),
        pytest.param([(C, tpkt(0xE0, COOKIE)), (S, tpkt(0xD0, b"")), (C, RDP_DATA)], id="rdp: not asked for"),
        pytest.param(
            [(C, tpkt(0xE0, negotiation(1, 1))), (S, tpkt(0xD0, negotiation(2, 0)))],
            id="rdp: the client goes",
        ),
        pytest.param(
            [(C, tpkt(0xE0, negotiation(1, 1))), (S, tpkt(0xD0, negotiation(2, 1))), (C, RDP_DATA)],
            id="rdp: accepted",
        ),
        pytest.param([(C, prelogin(0x12, 0)), (S, prelogin(0x04, 1)), (C, LOGIN7)], id="tds: on"),
        pytest.param([(C, prelogin(0x12, 2)), (S, prelogin(0x04, 2)), (C, LOGIN7)], id="tds: neither has it"),
        pytest.param([(C, prelogin(0x12, 0)), (S, prelogin(0x04, 2))], id="tds: the client goes"),
        pytest.param(
            [(C, prelogin(0x12, 0)), (S, prelogin(0x04, 9)), (C, LOGIN7)], id="tds: an unknown answer"
        ),
    ],
)
def test_nothing_was_refused(turns: list) -> None:
    assert ids(findings(talk(5432, *turns))) == []


@pytest.mark.parametrize("name", [*REFUSED, "mysql"])
def test_missing_bytes_say_nothing(name: str) -> None:
    port, *turns = {**NOT_USED, **REFUSED}[name]
    for lost in range(2):
        assert ids(findings(talk(port, *turns, lost=lost))) == []


def test_a_greeting_in_pieces_is_not_judged() -> None:
    capture = Capture()
    conversation = capture.connect(server_port=3306)
    conversation.send(S, mysql_greeting(), cut=(20,))
    conversation.send(C, mysql_login(over_tls=False))
    conversation.close()
    assert ids(findings(capture)) == []


def test_a_message_in_pieces_is_put_together_where_its_head_is_enough() -> None:
    capture = Capture()
    conversation = capture.connect(server_port=5432)
    for byte in POSTGRESQL_SSL_REQUEST:
        conversation.send(C, bytes([byte]))
    conversation.send(S, b"N")
    conversation.send(C, struct.pack(">I", 8) + STARTUP[4:])
    conversation.send(S, PASSWORD_PLEASE)
    conversation.close()
    assert ids(findings(capture)) == ["DG21"]
