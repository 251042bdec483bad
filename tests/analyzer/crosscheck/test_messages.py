"""Messages are matched by what they are; their packets are compared, except where they can't agree."""

import pandas as pd
import pytest

from analyzer.crosscheck.messages import compare_messages, our_messages
from analyzer.crosscheck.tshark import Endpoint, Message, TlsConnection
from analyzer.model import Side

CLIENT, SERVER = Side.CLIENT, Side.SERVER
CLIENT_HELLO = Message(0, 4, CLIENT, "handshake", 1, 200)
CERTIFICATE = Message(0, 6, SERVER, "handshake", 11, 3000)
CHANGE = Message(0, 8, CLIENT, "change_cipher_spec", 20)
HEARTBEAT = Message(0, 11, CLIENT, "heartbeat", 1)


def compare(ours, theirs, *, version="TLSv1.2", sync="synced", roles=True):
    row = {"connection": 0, "version": version, "sync": {"client": "synced", "server": sync}}
    endpoint = Endpoint("192.0.2.1", 1) if roles else None
    stream = TlsConnection(connection=0, client=endpoint, server=endpoint, messages=list(theirs))
    return compare_messages(ours, [row], [stream])


def test_the_same_messages():
    messages = [CLIENT_HELLO, CERTIFICATE, CERTIFICATE, CHANGE, HEARTBEAT]
    assert compare(messages, messages) == []


def test_only_ours():
    (difference,) = compare([CLIENT_HELLO, CERTIFICATE], [CLIENT_HELLO])
    assert difference.ours == "packet 6 server certificate of 3000 bytes"
    assert difference.theirs is None
    assert difference.explanation is None


def test_only_theirs_and_how_often():
    (difference,) = compare([CERTIFICATE], [CERTIFICATE, CERTIFICATE])
    assert difference.ours is None
    assert difference.theirs == "packet 6 server certificate of 3000 bytes"


@pytest.mark.parametrize("change", [{"type": 12}, {"length": 3001}, {"side": CLIENT}, {"kind": "heartbeat"}])
def test_what_makes_two_messages_different(change):
    values = {name: getattr(CERTIFICATE, name) for name in CERTIFICATE.__slots__} | change
    assert len(compare([Message(**values)], [CERTIFICATE])) == 2


def test_another_packet():
    earlier = Message(0, 5, SERVER, "handshake", 11, 3000)
    (difference,) = compare([CERTIFICATE], [earlier])
    assert difference.explanation is None
    (difference,) = compare([earlier], [CERTIFICATE])
    assert "segments in order" in difference.explanation


def test_a_heartbeat_is_judged_before_it_is_complete():
    assert compare([HEARTBEAT], [Message(0, 19, CLIENT, "heartbeat", 1)]) == []


def test_sides_are_not_compared_where_tshark_has_none():
    assert compare([CERTIFICATE], [Message(0, 6, None, "handshake", 11, 3000)], roles=False) == []


def test_ssl2_messages_are_not_compared():
    assert compare([], [Message(0, 4, CLIENT, "ssl2", 1)]) == []


def test_connections_that_only_one_has_are_left_to_the_comparison_of_connections():
    stream = TlsConnection(connection=3, messages=[CLIENT_HELLO])
    assert compare_messages([CLIENT_HELLO], [{"connection": 0}], [stream]) == []


def test_our_table():
    frame = pd.DataFrame(
        [
            (0, 4, 4, "client", 22, 1, 200),
            (0, 5, 6, "server", 22, 11, 3000),
            (0, 8, 8, "client", 20, 1, 1),
            (0, 10, 11, "client", 24, 1, 16368),
            (0, 12, 13, "server", 24, 3, 16384),  # more of an answer that spans records
            (0, 14, 14, "server", 21, 40, 2),  # an alert
        ],
        columns=["connection", "packet", "last_packet", "side", "content_type", "message_type", "length"],
    )
    assert our_messages(frame) == [CLIENT_HELLO, CERTIFICATE, CHANGE, HEARTBEAT]
    assert our_messages(pd.DataFrame()) == []


# fmt: off
EXPLAINED = [
    # only ours, only theirs, the connection, a word of the explanation
    ([Message(0, 410, SERVER, "handshake", 11, 0x40001)], [], {}, "256 KiB"),
    ([Message(0, 9, CLIENT, "handshake", 16, 33)], [], {}, "follows a ChangeCipherSpec"),
    ([], [Message(0, 8, CLIENT, "handshake", 20, 12)], {}, "reads none"),
    ([], [Message(0, 6, SERVER, "handshake", 11, 790)], {"version": "TLSv1.3"}, "TLS 1.3"),
    ([], [Message(0, 6, SERVER, "handshake", 11, 790)], {"sync": "gap"}, "missing in the capture: tlswall"),
    ([Message(0, 6, SERVER, "handshake", 14)], [], {"sync": "gap"}, "missing in the capture: tshark"),
]
# fmt: on


@pytest.mark.parametrize(("ours", "theirs", "connection", "word"), EXPLAINED)
def test_explanation(ours, theirs, connection, word):
    (difference,) = compare([CHANGE, *ours], [CHANGE, *theirs], **connection)
    assert word in difference.explanation


def test_the_other_sides_change_cipher_spec_explains_nothing():
    (difference,) = compare([CHANGE, Message(0, 9, SERVER, "handshake", 4, 33)], [CHANGE])
    assert difference.explanation is None
