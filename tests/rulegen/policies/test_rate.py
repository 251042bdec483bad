"""rate in the kernel: what is counted per source, what is too much, and what it can't tell."""

from __future__ import annotations

from typing import Final

import pytest

from analyzer.model import Side
from rulegen.errors import WishError
from rulegen.from_findings import parse_wish
from rulegen.policies.base import Answered, LeftAlone, Observed
from rulegen.policies.rate import MARK_FINISHED, POLICY
from rulegen.testbed.packets import ACK, FIN, RST, SYN
from tests.rulegen.policies.handshakes import C, S, client_hello, message, opening, record, refused, sent
from tests.rulegen.policies.ways import WAYS, load_by
from tests.rulegen.reference import Packet

OFF = dict.fromkeys(("handshakes", "alerts", "renegotiations", "open"), "off")


def only(**rates: str) -> str:
    """The policy with nothing on but these."""
    values = {"ports": "443", **OFF, **rates}
    return "rate:" + ",".join(f"{name}={value}" for name, value in values.items() if value)


SSL2 = bytes.fromhex("801f 01 0303 0006 0000 0010 000035 00002f") + bytes(16)
ENCRYPTED = record(22, bytes(8) + bytes(range(100, 132)))
"""As AES-GCM has it, with an explicit nonce of zeros."""
CLEAR_KEY_EXCHANGE = record(22, message(16, bytes(66)))


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("hello", [client_hello(), SSL2], ids=["TLS", "SSLv2"])
def test_handshakes_per_source(bench, rules_text, hello, family):
    bench.load(rules_text(only(handshakes="3/hour")))
    flood = [sent(C, hello, family, source_port=40000 + number) for number in range(6)]
    assert refused(bench, flood) == [False] * 3 + [True] * 3
    neighbour = {4: "192.0.2.2", 6: "2001:db8::2"}[family]
    assert refused(bench, [sent(C, hello, family, source=neighbour)]) == [False]
    assert bench.counters()[f"rate-handshakes-ipv{family}"] == 3


@pytest.mark.netns
def test_ipv4_and_ipv6_are_counted_apart(bench, rules_text):
    bench.load(rules_text(only(handshakes="2/hour")))
    flood = [sent(C, client_hello(), family) for family in (4, 6) * 3]
    assert refused(bench, flood) == [False] * 4 + [True] * 2


@pytest.mark.netns
def test_the_burst_is_what_passes_at_once_and_the_rate_what_passes_later(bench, rules_text):
    bench.load(rules_text(only(handshakes="1/second/4")))
    hello = sent(C, client_hello())
    assert refused(bench, [hello] * 6) == [False] * 4 + [True] * 2
    bench.command("sleep", "1.2")
    assert refused(bench, [hello] * 2) == [False, True]


@pytest.mark.netns
def test_what_is_no_handshake_to_these_ports_is_not_counted(bench, rules_text):
    bench.load(rules_text(only(handshakes="1/hour")))
    others = [
        *opening(),
        sent(C, b"GET / HTTP/1.1\r\n\r\n"),
        sent(C, record(23, client_hello())),
        sent(C, client_hello(), destination_port=8443),
        sent(C, client_hello()[:10]),
        sent(S, client_hello()),
        sent(C, record(22, b"\1" + bytes(39))),
    ]
    assert not any(refused(bench, others * 2))
    assert not any(bench.counters().values())


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_alerts_per_source(bench, rules_text, family):
    bench.load(rules_text(only(alerts="2/hour")))
    warning, encrypted = record(21, b"\1\0"), record(21, bytes(26))
    assert refused(
        bench, [sent(C, warning, family), sent(C, encrypted, family), sent(C, warning, family)]
    ) == [
        False,
        False,
        True,
    ]
    assert not any(refused(bench, [sent(S, warning, family)] * 4))


def connection(port: int, family: int = 4) -> list[tuple[Side, bytes]]:
    """The packets of a handshake of TLS 1.2 with a session, each message of the client in its own."""
    start = {"source_port": port}
    return [
        *opening(family, port),
        sent(C, client_hello(), family, **start),
        sent(C, CLEAR_KEY_EXCHANGE, family, **start),
        sent(C, record(20, b"\1"), family, **start),
        sent(C, ENCRYPTED, family, **start),
    ]


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_renegotiations_are_what_follows_a_finished(bench, rules_text, family):
    bench.load(rules_text(only(renegotiations="2/hour")))
    assert not any(refused(bench, connection(40000, family)))
    again = [sent(C, ENCRYPTED, family)] * 2
    assert refused(bench, again * 3) == [False] * 4 + [True] * 2
    assert bench.counters() == {
        "rate-finished": 1,
        f"rate-renegotiations-ipv{family}": 2,
        f"rate-renegotiations-ipv{10 - family}": 0,
    }


@pytest.mark.netns
def test_handshakes_are_no_renegotiations_however_many(bench, rules_text):
    bench.load(rules_text(only(renegotiations="1/hour")))
    assert not any(refused(bench, [packet for port in range(40000, 40020) for packet in connection(port)]))


@pytest.mark.netns
def test_renegotiations_are_counted_over_connections(bench, rules_text):
    """One per connection is no way around it: its second packet is counted, whichever connection it is in."""
    bench.load(rules_text(only(renegotiations="1/hour")))
    packets = [sent(C, ENCRYPTED, source_port=port) for port in (40000, 40001, 40002) for _ in range(3)]
    assert refused(bench, [*connection(40000), *connection(40001), *connection(40002)]) == [False] * 21
    assert refused(bench, packets) == [False] * 2 + [True] * 7


@pytest.mark.netns
def test_the_servers_records_and_messages_in_clear_are_no_renegotiations(bench, rules_text):
    bench.load(rules_text(only(renegotiations="1/hour")))
    hellos = [
        sent(C, client_hello()),
        sent(C, record(22, message(11, bytes(700)))),
        sent(C, CLEAR_KEY_EXCHANGE),
    ]
    server = [sent(S, ENCRYPTED)]
    assert not any(refused(bench, [*connection(40000), *(hellos + server) * 5]))


@pytest.mark.netns
def test_without_ports_the_client_is_who_opened_the_connection(bench, rules_text):
    bench.load(rules_text(only(renegotiations="1/hour", alerts="1/hour", ports="")))
    alert = record(21, b"\1\0")
    assert not any(refused(bench, [*connection(40000), *[sent(S, ENCRYPTED), sent(S, alert)] * 4]))
    assert refused(bench, [sent(C, ENCRYPTED)] * 3) == [False, False, True]
    assert refused(bench, [sent(C, alert)] * 2) == [False, True]


@pytest.mark.netns
def test_known_bypass_what_begins_like_a_message_in_clear_is_not_counted(bench, rules_text):
    """As `tlswall policies` says; if this starts to fail, that text is wrong."""
    bench.load(rules_text(only(renegotiations="1/hour", alerts="1/hour")))
    unlucky = record(22, b"\x0b\x00" + bytes(range(38)))
    hidden = record(20, b"\1") + ENCRYPTED
    many_alerts = record(21, b"\1\0") * 50
    packets = [*connection(40000), *[sent(C, unlucky), sent(C, hidden)] * 4, sent(C, many_alerts)]
    assert not any(refused(bench, packets))


@pytest.mark.netns
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_iptables_counts_the_same(bench, respond, family, way):
    rates = {"handshakes": "3/hour", "alerts": "2/hour", "renegotiations": "2/hour", "open": "4"}
    load_by(bench, respond((), only(**rates)).ruleset, way)
    hello, alert = sent(C, client_hello(), family), sent(C, record(21, b"\1\0"), family)
    assert not any(refused(bench, connection(40000, family)))
    assert refused(bench, [sent(C, ENCRYPTED, family)] * 6) == [False] * 4 + [True] * 2
    assert refused(bench, [hello] * 3) == [False] * 2 + [True]
    assert refused(bench, [alert] * 4) == [False] * 2 + [True] * 2
    bench.forget()
    bench.command("sleep", SOON)
    assert refused(bench, [syn(port, family) for port in range(1, 7)]) == [False] * 4 + [True] * 2


SOON: Final = "0.1"
"""nf_conncount looks through its list once in a clock tick, and leaves what is younger than two."""


def syn(port: int, family: int = 4, **changes: object) -> tuple[Side, bytes]:
    return sent(C, b"", family, flags=SYN, sequence=0, acknowledgement=0, source_port=port, **changes)


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_connections_that_are_open_at_once(bench, rules_text, family):
    bench.load(rules_text(only(open="3")))
    assert not any(refused(bench, [packet for port in (1, 2, 3) for packet in opening(family, port)]))
    assert refused(bench, [syn(4, family), syn(5, family, destination_port=80), syn(1, family)]) == [
        True,
        False,
        False,  # sent again, it is the same connection
    ]
    assert bench.counters()[f"rate-open-ipv{family}"] == 1


@pytest.mark.netns
def test_a_connection_that_ends_makes_room(bench, rules_text):
    bench.load(rules_text(only(open="2")))
    assert not any(refused(bench, [*opening(4, 1), *opening(4, 2)]))
    assert refused(bench, [syn(3)]) == [True]
    refused(bench, [sent(C, b"", flags=RST | ACK, source_port=1)])
    bench.command("sleep", SOON)
    assert refused(bench, [syn(3)]) == [False]
    ends = [
        sent(C, b"", flags=FIN | ACK, source_port=2),
        sent(S, b"", flags=FIN | ACK, destination_port=2, acknowledgement=2),
        sent(C, b"", flags=ACK, source_port=2, sequence=2, acknowledgement=2),
    ]
    refused(bench, ends)
    bench.command("sleep", SOON)
    assert refused(bench, [syn(4)]) == [False]


@pytest.mark.netns
def test_known_limit_completed_handshakes_count_as_open(bench, rules_text):
    """conntrack does not know TLS; as `tlswall policies` says."""
    bench.load(rules_text(only(open="1")))
    assert not any(refused(bench, [*connection(40000), sent(C, record(23, bytes(40)))]))
    assert refused(bench, [syn(40001)]) == [True]


@pytest.mark.netns
def test_reset_tells_the_client(bench, rules_text):
    bench.load(rules_text(only(handshakes="1/hour", open="1", action="reset")))
    first, second = bench.send([sent(C, client_hello())] * 2)
    assert first.passed
    assert not second.passed
    (answer,) = second.answers
    assert Packet.parse(answer).read("tcp.flags") & RST


@pytest.mark.netns
def test_it_keeps_to_its_bit_of_the_mark(bench, rules_text):
    bench.load(rules_text(only(renegotiations="3/hour")))
    bench.load(
        "table inet other {\n chain before {\n type filter hook forward priority -10\n"
        " ct mark set ct mark | 0x7\n }\n chain after {\n type filter hook forward priority 10\n"
        f' ct mark {MARK_FINISHED | 7:#x} counter comment "[kept]"\n }}\n}}\n'
    )
    refused(bench, [sent(C, ENCRYPTED)])
    assert bench.counters("other")["kept"] == 1


@pytest.mark.parametrize(("rate", "timeout"), [("20/second", "1h"), ("5/day", "1d"), ("1/minute/600", "10h")])
def test_a_source_is_remembered_until_its_burst_is_full_again(rules_text, rate, timeout):
    assert f"timeout {timeout}\n" in rules_text(only(handshakes=rate))


def test_servers_of_one_family_need_rules_of_one_family(respond):
    names = {rule.name for rule in respond((), "rate:servers=2001:db8::/32").ruleset.rules}
    assert names == {
        "rate-handshakes-ipv6",
        "rate-alerts-ipv6",
        "rate-renegotiations-ipv6",
        "rate-open-ipv6",
        "rate-finished",
    }


def test_which_findings_it_answers(finding):
    """None of the catalogue's that are built; one that names the policy."""
    flood = finding("RN08", "B", policy="rate")
    assert POLICY.claims(flood, {})
    assert not POLICY.claims(finding("HB08", "B"), {})
    row = {"server": {"address": "198.51.100.7", "port": 443}}

    def judge(policy: str):
        observed = Observed(finding=flood, capture="c.pcap", connection=row)
        return POLICY.judge(observed, POLICY.settings(parse_wish(policy).parameters))

    assert judge(only(open="9")) == Answered(("rate-open-ipv4", "rate-open-ipv6"))
    assert isinstance(judge("rate:ports=8443"), LeftAlone)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("handshakes=20", "write 20/second"),
        ("handshakes=0/second", "write 20/second"),
        ("alerts=1/week", "write 20/second"),
        ("alerts=10001/second", "10000 at most"),
        ("renegotiations=3/minute/0", "with a burst"),
        ("renegotiations=3/minute drop", "with a burst"),
        ("open=0", "a number from 1"),
        ("open=many", "a number from 1"),
        ("open=", "a number from 1"),
        ("handshakes=off,alerts=off,renegotiations=off,open=off", "everything is off"),
    ],
)
def test_rates_that_are_none(rules_text, parameters, words):
    with pytest.raises(WishError, match=words):
        rules_text(f"rate:{parameters}")
