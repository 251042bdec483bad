"""Every fact of a connection that both know is compared; what tshark can't know is explained, not hidden."""

import pytest

from analyzer.crosscheck.connections import compare_connections
from analyzer.crosscheck.tshark import Alert, Endpoint, Message, TlsConnection
from analyzer.model import Side

CLIENT, SERVER = Endpoint("192.0.2.10", 50001), Endpoint("198.51.100.10", 443)


def row(**changes):
    return {
        "connection": 0,
        "client": {"address": CLIENT.address, "port": CLIENT.port},
        "server": {"address": SERVER.address, "port": SERVER.port},
        "version": "TLSv1.2",
        "cipher_suite_code": 0xC02F,
        "sni": "server.example",
        "alpn": "h2",
        "alpn_offered": ["h2", "http/1.1"],
        "hello_retry": False,
        "ja3": "3" * 32,
        "ja3s": "5" * 32,
        "alerts": [{"side": "server", "level": "fatal", "description": "handshake_failure", "packet": 9}],
        **changes,
    }


def stream(**changes):
    values = {
        "connection": 0,
        "client": CLIENT,
        "server": SERVER,
        "version": 0x0303,
        "cipher_suite": 0xC02F,
        "sni": "server.example",
        "alpn": "h2",
        "alpn_offered": ("h2", "http/1.1"),
        "ja3": "3" * 32,
        "ja3s": "5" * 32,
        "alerts": [Alert(Side.SERVER, 2, 40, 9)],
    }
    return TlsConnection(**(values | changes))


def test_nothing_differs():
    assert compare_connections([row()], [stream()]) == []
    assert compare_connections([], []) == []


# fmt: off
CHANGES = [
    # field, our value, tshark's
    ("client",            {"address": "192.0.2.99", "port": 50001}, {}),
    ("server",            {"address": "198.51.100.10", "port": 8443}, {}),
    ("version",           "TLSv1.1",           {}),
    ("version",           None,                {}),
    ("cipher_suite_code", 0x002F,              {}),
    ("sni",               None,                {}),
    ("alpn",              None,                {}),
    ("alpn_offered",      ["h2"],              {}),
    ("hello_retry",       True,                {}),
    ("ja3",               None,                {}),
    ("ja3s",              "0" * 32,            {}),
    ("alerts",            [],                  {}),
    ("version",           "TLSv1.2",           {"version": None}),
    ("version",           "TLSv1.2",           {"version": 0x0305}),
]
# fmt: on


@pytest.mark.parametrize(("field", "ours", "theirs"), CHANGES)
def test_a_difference_in(field, ours, theirs):
    (difference,) = compare_connections([row(**{field: ours})], [stream(**theirs)])
    assert difference.where == "connection 0"
    assert difference.field == field
    assert difference.opinion == "tshark"
    assert difference.explanation is None
    assert field in str(difference)


def test_an_unknown_version_is_named_alike():
    assert compare_connections([row(version="0x0305")], [stream(version=0x0305)]) == []


def test_alerts_are_compared_with_their_packets():
    alert = {"side": "server", "level": "fatal", "description": "handshake_failure", "packet": 8}
    (difference,) = compare_connections([row(alerts=[alert])], [stream()])
    assert (difference.ours, difference.theirs) == (
        ["8 server fatal handshake_failure"],
        ["9 server fatal handshake_failure"],
    )


def test_a_connection_that_only_one_has():
    differences = compare_connections([row(), row(connection=7)], [stream(), stream(connection=5)])
    assert [(d.where, d.field, d.ours, d.theirs) for d in differences] == [
        ("connection 5", "tls", False, True),
        ("connection 7", "tls", True, False),
    ]


def test_roles_are_not_compared_where_tshark_has_none():
    """Without a hello nothing says to tshark who is who."""
    ours = row(client={"address": "x", "port": 1}, version=None, cipher_suite_code=None)
    theirs = stream(client=None, server=None, version=None, cipher_suite=None, alerts=[Alert(None, 2, 40, 9)])
    assert compare_connections([ours], [theirs]) == []


def test_null_cipher_is_explained():
    theirs = stream(cipher_suite=0x0002, alerts=[*stream().alerts, Alert(Side.CLIENT, 1, 0, 30)])
    (difference,) = compare_connections([row(cipher_suite_code=0x0002)], [theirs])
    assert "does not encrypt" in difference.explanation
    assert difference.explanation in str(difference)


def test_an_early_change_cipher_spec_is_explained():
    change = Message(0, 4, None, "change_cipher_spec", 20)
    theirs = stream(sni=None, ja3=None, alpn_offered=(), alpn=None, messages=[change])
    differences = compare_connections([row(alpn_offered=[], alpn=None)], [theirs])
    assert {difference.field for difference in differences} == {"sni", "ja3"}
    assert all("ChangeCipherSpec" in difference.explanation for difference in differences)
