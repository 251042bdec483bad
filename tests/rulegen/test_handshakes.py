"""What captures show of their sessions, as tshark says it too."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analyzer import pipeline
from rulegen.handshakes import Handshake, read_handshakes, with_handshakes
from tests.rulegen.policies.handshakes import client_hello, server_hello

CAPTURES = Path(__file__).parents[2] / "samples/captures"


@pytest.fixture
def read():
    def make(name: str) -> dict[int, Handshake]:
        analysis = pipeline.analyze(CAPTURES / name, tables=["messages"])
        rows = with_handshakes(analysis.iter_connections(), analysis.messages)
        return {row["connection"]: row["handshake"] for row in rows}

    return make


def test_a_session_id_of_tls_1_2(read):
    shown = read("tls1.2.pcap")[0]
    assert shown.session_id.hex() == "fa283db6334ef9973bf89aaa913c784c3d4fd57a954864a5aef82a01aae807cf"
    assert shown.ticket == b""
    assert len(shown.client_random) == 32
    assert shown.certificate[:2] == b"\x30\x82"


def test_tickets_of_tls_1_2_and_their_resumptions(read):
    shown = read("tls12-resumption.pcap")
    assert (
        shown[1].ticket.hex().startswith("ef14f3a85ef91e3a40aa0b2b5aa0ac73596420d80b72528aaf6024e9323867fb")
    )
    assert shown[1].session_id == b""
    assert len({handshake.client_random for handshake in shown.values()}) == len(shown)


def test_tls_1_3_shows_no_session(read):
    for shown in read("tls13_psk_succesfull.pcap").values():
        assert len(shown.client_random) == 32
        assert (shown.session_id, shown.ticket, shown.certificate) == (b"", b"", b"")


def table(*messages: tuple[str, int, bytes]) -> pd.DataFrame:
    """As `Analysis.messages`, of one connection."""
    return pd.DataFrame(
        [
            {
                "capture": 0,
                "connection": 3,
                "side": side,
                "content_type": 22,
                "message_type": kind,
                "body": body,
            }
            for side, kind, body in messages
        ]
    )


def test_the_servers_certificate_and_the_first_random_and_the_last_ticket():
    def certificate(der: bytes) -> bytes:
        return (len(der) + 3).to_bytes(3) + len(der).to_bytes(3) + der

    def ticket(data: bytes) -> bytes:
        return bytes(4) + len(data).to_bytes(2) + data

    shown = read_handshakes(
        table(
            ("client", 1, client_hello(random=b"a" * 32)[9:]),
            ("client", 1, client_hello(random=b"b" * 32)[9:]),
            ("server", 2, server_hello(session_id=b"s" * 8)[9:]),
            ("server", 11, certificate(b"server's")),
            ("client", 11, certificate(b"client's")),
            ("server", 4, ticket(b"first")),
            ("server", 4, ticket(b"last")),
        )
    )
    assert shown == {
        (0, 3): Handshake(
            client_random=b"a" * 32, session_id=b"s" * 8, ticket=b"last", certificate=b"server's"
        )
    }


def test_messages_that_contradict_themselves_add_nothing():
    cut = table(
        ("server", 4, b"\0\0\0\0\xff\xff"), ("server", 11, b"\0"), ("server", 2, b""), ("client", 1, b"")
    )
    assert read_handshakes(cut) == {(0, 3): Handshake()}
    assert read_handshakes(pd.DataFrame()) == {}
