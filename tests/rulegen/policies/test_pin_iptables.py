"""pin through iptables and ip6tables, which search for what nft can't: tickets and certificates."""

from __future__ import annotations

import pytest

from rulegen.backends import emit
from rulegen.backends.iptables import IP6TABLES, IPTABLES
from rulegen.errors import Refused
from rulegen.handshakes import Handshake
from tests.rulegen.policies.handshakes import (
    C,
    S,
    client_hello,
    extension,
    message,
    record,
    server_hello,
)
from tests.rulegen.policies.test_pin import (
    ALLOWED,
    CAPTURED,
    DATA,
    HELLO,
    NO_DATA,
    OTHER_HELLO,
    OTHER_RANDOM,
    OTHER_SID,
    RANDOM,
    RESUMED,
    SID,
    handshake,
    talk,
)

TICKET = bytes(range(1, 181))
OTHER_TICKET = TICKET[:16] + bytes(164)
"""The same key name: of the same server."""
CERTIFICATE, OTHER_CERTIFICATE = bytes(range(200)), bytes(range(14)) + bytes(186)
SHOWN = Handshake(client_random=RANDOM, session_id=SID, certificate=CERTIFICATE, ticket=TICKET)


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"])
def load(request, bench, respond):
    """Load a pin of the captured connection. Returns the family whose packets it judges."""

    def make(parameters: str) -> int:
        backend, family = (IP6TABLES, 6) if request.param.startswith("ip6") else (IPTABLES, 4)
        ruleset = respond(
            (), f"pin:connection=17,ports=443,{parameters}", connections=(CAPTURED | {"handshake": SHOWN},)
        ).ruleset
        bench.load(emit(ruleset, backend).text, request.param)
        return family

    return make


@pytest.mark.netns
def test_one_connection_has_data_and_others_have_a_handshake(bench, load):
    family = load("by=random,resumption=known")
    assert talk(bench, 20000, *handshake(HELLO, server_hello()), family=family) == ALLOWED
    assert talk(bench, 20001, *handshake(OTHER_HELLO, server_hello()), family=family) == NO_DATA
    assert talk(bench, 20002, *RESUMED, family=family) == [False] * 4


@pytest.mark.netns
def test_a_resumption_by_the_ticket(bench, load):
    family = load("by=random,resumption=ticket")
    for port, ticket, stopped in ((20000, TICKET, False), (20001, OTHER_TICKET, True), (20002, b"", True)):
        hello = client_hello(
            random=OTHER_RANDOM,
            session_id=OTHER_SID,
            extensions=extension(0, b"name") + extension(35, ticket),
        )
        answer = server_hello(session_id=OTHER_SID)
        assert talk(bench, port, (C, hello), (S, answer), (C, DATA), (S, DATA), family=family) == [
            False,
            False,
            stopped,
            stopped,
        ]


def certificates(der: bytes) -> bytes:
    return record(22, message(11, (len(der) + 3).to_bytes(3) + len(der).to_bytes(3) + der))


@pytest.mark.netns
def test_a_certificate_of_the_server(bench, load):
    family = load("by=certificate")
    # fmt: off
    shown = (
        # what the client sends                   what the server sends                               refused
        ((C, HELLO),                              (S, server_hello() + certificates(CERTIFICATE)),        False),
        ((S, server_hello()),                     (S, certificates(CERTIFICATE)),                         False),
        ((C, HELLO),                              (S, server_hello() + certificates(OTHER_CERTIFICATE)),  True),
        ((C, HELLO),                              (C, certificates(CERTIFICATE)),                         True),
        ((C, HELLO),                              (S, certificates(CERTIFICATE)[:50]),                    True),
        ((C, HELLO + CERTIFICATE),                (S, record(21, CERTIFICATE)),                           True),
    )
    # fmt: on
    for port, (first, second, stopped) in enumerate(shown, 20000):
        verdicts = talk(bench, port, first, second, (C, DATA), (S, DATA), family=family)
        assert verdicts == [False, False, stopped, stopped]


def test_learning_a_session_id_is_refused_by_name(respond):
    ruleset = respond((), "pin:connection=17,resumption=follow", connections=(CAPTURED,)).ruleset
    for backend in (IPTABLES, IP6TABLES):
        with pytest.raises(Refused, match="pin-learn"):
            emit(ruleset, backend)
