"""pin in the kernel: the one connection passes, of others the handshake; who is taken for the one, and who not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rulegen.backends import BACKENDS, emit
from rulegen.cli import app
from rulegen.errors import Refused, WishError
from rulegen.handshakes import Handshake
from rulegen.ir.match import Contains
from rulegen.policies.pin import MARK, PATTERN_BYTES
from rulegen.testbed.packets import RST
from tests.rulegen.policies.handshakes import (
    ENDS,
    TLS10,
    C,
    S,
    client_hello,
    message,
    opening,
    record,
    refused,
    sent,
    server_hello,
)

RANDOM = bytes(range(0x40, 0x60))
OTHER_RANDOM = RANDOM[:-1] + b"\xff"
SID, OTHER_SID = bytes(range(100, 132)), bytes(range(101, 133))
HELLO = client_hello(random=RANDOM)
OTHER_HELLO = client_hello(random=OTHER_RANDOM)
CHANGE = record(20, b"\x01")
FINISHED = record(22, bytes(range(40)))
DATA = record(23, bytes(range(60)))
BY_RANDOM = f"pin:ports=443,random={RANDOM.hex()}"
TLS13_SUITE = 0x1301


def talk(bench, port: int, *payloads, family: int = 4) -> list[bool]:
    """Which payloads (side, bytes) of a new connection from this port are refused."""
    packets = opening(family, port)
    for side, payload in payloads:
        packets.append(
            sent(side, payload, family, **{"source_port" if side is C else "destination_port": port})
        )
    return refused(bench, packets)[3:]


def handshake(hello: bytes, answer: bytes) -> tuple:
    """And data both ways."""
    return (
        (C, hello),
        (S, answer + record(22, message(11, bytes(30)))),
        (C, record(22, message(16, bytes(20))) + CHANGE + FINISHED),
        (S, CHANGE + FINISHED),
        (C, DATA),
        (S, DATA),
    )


ALLOWED = [False] * 6
NO_DATA = [False] * 4 + [True] * 2
"""The handshake completes."""


@pytest.mark.netns
@pytest.mark.parametrize("family", ENDS)
@pytest.mark.parametrize("policy", [BY_RANDOM, f"pin:random={RANDOM.hex()}"], ids=["port", "any"])
def test_one_connection_has_data_and_others_have_a_handshake(bench, rules_text, family, policy):
    bench.load(rules_text(policy))
    assert talk(bench, 20000, *handshake(HELLO, server_hello()), family=family) == ALLOWED
    assert talk(bench, 20001, *handshake(OTHER_HELLO, server_hello()), family=family) == NO_DATA
    assert bench.counters()["pin-random"] == 1
    assert bench.counters()["pin-data"] == 2


@pytest.mark.netns
def test_only_the_servers_and_ports_that_are_chosen(bench, rules_text):
    server = ENDS[4][1]
    data = [sent(C, DATA), sent(C, DATA, destination_port=8443), sent(C, DATA, destination="198.51.100.8")]
    for chosen, verdicts in (
        ("", [True, True, True]),
        (",ports=443", [True, False, True]),
        (f",servers={server}", [True, True, False]),
        (f",servers={server},ports=443", [True, False, False]),
    ):
        bench.load(rules_text(f"pin:random={RANDOM.hex()}{chosen}"))
        assert refused(bench, data) == verdicts


# --- resumption -------------------------------------------------------------------------------------------

RESUMING = client_hello(random=OTHER_RANDOM, session_id=SID)
FIRST = handshake(HELLO, server_hello(session_id=SID))
RESUMED = ((C, RESUMING), (S, server_hello(session_id=SID) + CHANGE + FINISHED), (C, DATA), (S, DATA))


@pytest.mark.netns
@pytest.mark.parametrize("family", ENDS)
@pytest.mark.parametrize(("resumption", "stopped"), [("follow", False), ("refuse", True)])
def test_resumption_by_a_session_id_learned_live(bench, rules_text, family, resumption, stopped):
    bench.load(rules_text(f"{BY_RANDOM},resumption={resumption}"))
    assert talk(bench, 20001, *RESUMED, family=family) == [False, False, True, True], "not learned yet"
    assert talk(bench, 20000, *FIRST, family=family) == ALLOWED
    assert talk(bench, 20002, *RESUMED, family=family) == [False, False, stopped, stopped]
    assert talk(bench, 20003, *RESUMED, family=family) == [False, False, stopped, stopped]


# fmt: off
NOT_RESUMED = (
    # what                                             ClientHello's id  ServerHello
    ("another session_id",                             OTHER_SID,        (S, server_hello(session_id=OTHER_SID))),
    ("offered, and the server began a new session",    SID,              (S, server_hello(session_id=OTHER_SID))),
    ("offered, and the server keeps no sessions",      SID,              (S, server_hello())),
    ("repeated, as every server of TLS 1.3 does",      SID,              (S, server_hello(session_id=SID, suite=TLS13_SUITE))),
    ("a ServerHello that the client sent",             SID,              (C, server_hello(session_id=SID))),
    ("cut within the session_id",                      SID,              (S, server_hello(session_id=SID)[:60])),
)
# fmt: on


@pytest.mark.netns
@pytest.mark.parametrize(
    ("offered", "answer"), [row[1:] for row in NOT_RESUMED], ids=[row[0] for row in NOT_RESUMED]
)
def test_what_is_no_resumption(bench, rules_text, offered, answer):
    bench.load(rules_text(f"{BY_RANDOM},resumption=follow"))
    assert talk(bench, 20000, *FIRST) == ALLOWED
    hello = client_hello(random=OTHER_RANDOM, session_id=offered)
    assert talk(bench, 20001, (C, hello), answer, (C, DATA), (S, DATA)) == [False, False, True, True]


@pytest.mark.netns
def test_other_connections_teach_nothing(bench, rules_text):
    bench.load(rules_text(f"{BY_RANDOM},resumption=follow"))
    assert talk(bench, 20000, *handshake(OTHER_HELLO, server_hello(session_id=SID))) == NO_DATA
    assert talk(bench, 20001, *RESUMED) == [False, False, True, True]


@pytest.mark.netns
@pytest.mark.parametrize("family", ENDS)
def test_a_session_pinned_by_its_id(bench, rules_text, family):
    bench.load(rules_text(f"pin:ports=443,session_id={SID.hex(':')}"))
    assert talk(bench, 20000, *FIRST, family=family) == ALLOWED, "the one that begins it"
    assert talk(bench, 20001, *RESUMED, family=family) == [False] * 4
    assert talk(bench, 20002, *handshake(HELLO, server_hello(session_id=OTHER_SID)), family=family) == NO_DATA


# --- pieces -----------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_a_hello_cut_before_the_end_of_its_random_is_not_known(bench, rules_text):
    bench.load(rules_text(BY_RANDOM))
    for port, size in enumerate((1, 5, 11, 42, 43, len(HELLO) - 1), 20000):
        pieces = ((C, HELLO[:size]), (C, HELLO[size:]), (S, server_hello()), (C, DATA))
        assert talk(bench, port, *pieces) == [False, False, False, size < 43]


@pytest.mark.netns
@pytest.mark.parametrize(("ports", "first_judged"), [(",ports=443", 1), ("", 3)])
def test_application_data_cut_before_its_length_is_refused(bench, rules_text, ports, first_judged):
    bench.load(rules_text(f"pin:random={RANDOM.hex()}{ports}"))
    pieces = [sent(side, DATA[:size]) for size in range(1, len(DATA)) for side in (C, S)]
    assert refused(bench, pieces) == [size >= first_judged for size in range(1, len(DATA)) for _ in (C, S)]
    assert bench.counters()["pin-split"] == 2 * (5 - first_judged)


@pytest.mark.netns
def test_what_is_no_application_data_passes(bench, rules_text):
    bench.load(rules_text(BY_RANDOM))
    others = (
        b"",
        record(21, b"\x01\x00"),
        record(24, bytes(40)),
        record(23, bytes(8), version=0x0403),
        b"\x17\x03\x03\x48\x01" + bytes(20),
        b"GET / HTTP/1.1\r\n\r\n",
    )
    assert not any(refused(bench, [sent(side, other) for other in others for side in (C, S)]))
    assert all(
        refused(bench, [sent(C, record(23, bytes(8), version)) for version in (0x0300, TLS10, 0x0303)])
    )


@pytest.mark.netns
def test_known_bypass_application_data_behind_another_record(bench, rules_text):
    """As `tlswall policies` says; if this starts to fail, that text is wrong."""
    bench.load(rules_text(BY_RANDOM))
    assert refused(bench, [sent(C, record(21, b"\x01\x5a") + DATA)]) == [False]


# --- by addresses and ports -------------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.parametrize("family", ENDS)
def test_the_next_connection_of_a_client(bench, rules_text, family):
    address = ENDS[family][0]
    client = f"{address}:20000" if family == 4 else f"[{address}]:20000"
    bench.load(rules_text(f"pin:client={client},ports=443,resumption=follow"))
    assert talk(bench, 20001, *handshake(HELLO, server_hello()), family=family) == NO_DATA
    assert talk(bench, 20000, *FIRST, family=family) == ALLOWED
    assert talk(bench, 20002, *RESUMED, family=family) == [False] * 4


CAPTURED = {
    "connection": 17,
    "capture": 0,
    "client": {"address": ENDS[4][0], "port": 20000},
    "server": {"address": ENDS[4][1], "port": 443},
    "handshake": Handshake(
        client_random=RANDOM, session_id=SID, certificate=bytes(range(200)), ticket=bytes(180)
    ),
}
ELSEWHERE = CAPTURED | {"connection": 18, "client": {"address": "192.0.2.99", "port": 20000}}
OF_TLS_1_3 = ELSEWHERE | {"connection": 19, "handshake": Handshake(client_random=RANDOM)}


@pytest.fixture
def from_capture(respond):
    """The nft file for a connection of the capture above."""

    def make(parameters: str) -> str:
        wish = f"pin:ports=443,{parameters}"
        return emit(
            respond((), wish, connections=(CAPTURED, ELSEWHERE, OF_TLS_1_3)).ruleset, BACKENDS[0]
        ).text

    return make


RUNNING = ((C, DATA), (S, DATA))
"""It was there before the rules: no hello is seen."""
TICKET_SID = hashlib.sha256(CAPTURED["handshake"].ticket).digest()
TICKET_RESUMED = (
    (C, client_hello(session_id=TICKET_SID)),
    (S, server_hello(session_id=TICKET_SID)),
    (C, DATA),
)

# fmt: off
FROM_CAPTURE = (
    # parameters                                   runs on  its random  session_id  its ticket's
    ("connection=17",                              True,    True,       False,      False),
    ("connection=17,by=tuple",                     True,    False,      False,      False),
    ("connection=17,by=random",                    False,   True,       False,      False),
    ("connection=17,by=session_id",                False,   False,      True,       True),
    ("connection=17,by=random,resumption=known",   False,   True,       True,       True),
    ("connection=17,by=tuple,resumption=follow",   True,    False,      True,       True),
    ("connection=18,capture=incident.pcap",        False,   True,       False,      False),
    ("connection=18,by=tuple",                     False,   False,      False,      False),
    ("connection=19,by=random",                    False,   True,       False,      False),
)
# fmt: on


@pytest.mark.netns
@pytest.mark.parametrize(
    ("parameters", "runs_on", "random", "session", "ticket"),
    FROM_CAPTURE,
    ids=[row[0] for row in FROM_CAPTURE],
)
def test_a_connection_of_a_capture(bench, from_capture, parameters, runs_on, random, session, ticket):
    bench.load(from_capture(parameters))
    running = [sent(C, DATA, source_port=20000), sent(S, DATA, destination_port=20000)]
    assert refused(bench, running) == [not runs_on] * 2
    assert talk(bench, 20001, *handshake(HELLO, server_hello())) == (ALLOWED if random else NO_DATA)
    assert talk(bench, 20002, *RESUMED) == [False, False, not session, not session]
    assert talk(bench, 20003, *TICKET_RESUMED) == [False, False, not ticket]
    assert talk(bench, 20004, *handshake(OTHER_HELLO, server_hello())) == NO_DATA


def matches(ruleset, name: str) -> list:
    """The tests of a rule, all of which must hold."""
    (rule,) = [rule for rule in ruleset.rules if rule.name == name]
    return list(rule.match.matches)


def test_a_ticket_and_a_certificate_are_searched_for(respond):
    certificate = CAPTURED["handshake"].certificate
    digest = hashlib.sha256(certificate).hexdigest()
    for wish, name, searched in (
        ("pin:connection=17,resumption=ticket", "pin-ticket", CAPTURED["handshake"].ticket),
        ("pin:connection=17,by=certificate", "pin-certificate", certificate),
        (f"pin:certificate={digest}", "pin-certificate", certificate),
    ):
        ruleset = respond((), wish, connections=(CAPTURED,)).ruleset
        assert Contains(searched[:PATTERN_BYTES]) in matches(ruleset, name)
        with pytest.raises(Refused, match=name):
            emit(ruleset, BACKENDS[0])


# --- refuse and action ------------------------------------------------------------------------------------


@pytest.mark.netns
def test_everything_is_refused_before_it_begins(bench, rules_text):
    bench.load(rules_text(f"{BY_RANDOM},resumption=follow,refuse=everything"))
    stopped = [True] * 6
    assert talk(bench, 20001, *handshake(OTHER_HELLO, server_hello())) == stopped
    assert talk(bench, 20002, (C, record(21, b"\x01\x5a") + DATA), (C, b"x")) == [True, True]
    assert talk(bench, 20003, *RESUMED) == [True] * 4
    assert talk(bench, 20000, *FIRST) == ALLOWED
    assert talk(bench, 20004, *RESUMED) == [False] * 4
    assert talk(bench, 20005, (C, RESUMING), (S, server_hello()), (C, DATA)) == [False, True, True]


@pytest.mark.netns
def test_the_sender_of_refused_data_is_reset(bench, rules_text):
    bench.load(rules_text(f"{BY_RANDOM},action=reset"))
    (fate,) = bench.send([sent(C, DATA)])
    assert not fate.passed
    assert [answer[20 + 13] & RST for answer in fate.answers] == [RST]


@pytest.mark.netns
def test_it_keeps_to_its_bit_of_the_mark(bench, rules_text):
    bench.load(rules_text(BY_RANDOM))
    bench.load(
        "table inet other {\n"
        " chain before {\n  type filter hook forward priority -10\n  ct mark set ct mark | 0x7\n }\n"
        " chain after {\n  type filter hook forward priority 10\n"
        f'  ct mark {MARK | 7:#x} counter comment "[kept]"\n }}\n}}\n'
    )
    talk(bench, 20000, (C, HELLO))
    assert bench.counters("other")["kept"] == 1


# --- wishes -----------------------------------------------------------------------------------------------


# fmt: off
REFUSED = (
    ("pin",                                                 "name one connection"),
    (f"pin:random={RANDOM.hex()},session_id={SID.hex()}",   "name one connection"),
    ("pin:random=0011",                                     "32 bytes in hexadecimal"),
    (f"pin:session_id={SID.hex()[:-1]}x",                   "32 bytes in hexadecimal"),
    ("pin:client=192.0.2.1",                                "write 192.0.2.1:40000"),
    ("pin:client=192.0.2.1:0",                              "write 192.0.2.1:40000"),
    ("pin:client=example.com:443",                          "write 192.0.2.1:40000"),
    ("pin:client=192.0.2.1:5,by=tuple",                     "leave by= out"),
    ("pin:client=192.0.2.1:5,capture=a.pcap",               "leave capture= out"),
    ("pin:client=192.0.2.1:5,refuse=everything",            "would cut off all TCP"),
    ("pin:client=192.0.2.1:5,resumption=known",             "resumption=follow learns it"),
    ("pin:client=192.0.2.1:5,resumption=ticket",            "TLS 1.3 encrypts them"),
    ("pin:connection=x",                                    "is no number"),
    ("pin:connection=20",                                   "no TLS connection 20 in the captures"),
    ("pin:connection=17,capture=b.pcap",                    "no TLS connection 17 in b.pcap"),
    ("pin:connection=19,by=session_id",                     "no session_id of connection 19"),
    ("pin:connection=19,by=certificate",                    "no certificate of connection 19"),
    ("pin:connection=19,resumption=known",                  "no session_id of connection 19"),
    (f"pin:certificate={SID.hex()}",                        "TLS 1.3 encrypts its certificates"),
    ("pin:connection=17,by=certificate,ports=443,refuse=everything", "a certificate comes after"),
)
# fmt: on


@pytest.mark.parametrize(("wish", "why"), REFUSED, ids=[row[0][:60] for row in REFUSED])
def test_wishes_that_can_not_be_met(respond, wish, why):
    with pytest.raises(WishError, match=why):
        respond((), wish, connections=(CAPTURED, ELSEWHERE, OF_TLS_1_3))


def test_a_number_that_two_captures_have_needs_a_name():
    from rulegen.from_findings import answer, parse_wish
    from rulegen.ir.rule import Source

    sources = [Source(name=name, sha256=None) for name in ("a.pcap", "b.pcap")]
    rows = [CAPTURED, CAPTURED | {"capture": 1}]
    with pytest.raises(WishError, match=r"is in a\.pcap, b\.pcap"):
        answer(sources, (), rows, wishes=[parse_wish("pin:connection=17")])
    ruleset = answer(sources, (), rows, wishes=[parse_wish("pin:connection=17,capture=b.pcap")]).ruleset
    assert any("connection 17 of b.pcap" in rule.meaning for rule in ruleset.rules)


def test_what_can_not_be_followed_is_said(respond):
    remarks = respond(
        (), "pin:connection=19,by=random,resumption=follow", connections=(OF_TLS_1_3,)
    ).ruleset.remarks
    assert any("TLS 1.3" in remark for remark in remarks)


def test_the_command_takes_the_number_of_a_connection():
    capture = Path(__file__).parents[3] / "samples/captures/tls1.2.pcap"
    command = ["rules", str(capture), "--no-check"]
    result = CliRunner().invoke(app, [*command, "--policy", "pin:resumption=known", "--connection", "0"])
    assert result.exit_code == 0
    assert "pin-random: The ClientHello of connection 0 of tls1.2.pcap" in result.stdout
    session_id = "fa283db6334ef9973bf89aaa913c784c3d4fd57a954864a5aef82a01aae807cf"  # tshark's word
    assert session_id in result.stdout
    assert CliRunner().invoke(app, [*command, "--policy", "pin", "--connection", "7"]).exit_code == 2
    assert CliRunner().invoke(app, [*command, "--policy", "block", "--connection", "0"]).exit_code == 2
    assert CliRunner().invoke(app, [*command, "--connection", "0"]).exit_code == 2
