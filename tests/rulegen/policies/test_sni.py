"""sni: which ClientHellos it refuses, by the meaning of its rules and in the kernel; how names are read."""

from __future__ import annotations

import pytest

from rulegen.backends import BACKENDS, emit
from rulegen.errors import Refused, WishError
from rulegen.ir.check import check
from rulegen.ir.match import ServerName
from rulegen.ir.rule import Verdict
from rulegen.policies.sni import POLICY, parse_names, written
from tests.rulegen.policies.handshakes import C, S, client_hello, extension, record, refused, sent
from tests.rulegen.policies.ways import WAYS, load_by
from tests.rulegen.reference import Packet, holds

NFT = BACKENDS[0]
GREASE = extension(0x0A0A, b"")
KEY_SHARE = extension(51, bytes(1300))


def name_extension(name: str) -> bytes:
    entry = b"\0" + len(name).to_bytes(2) + name.encode()
    return extension(0, len(entry).to_bytes(2) + entry)


def hello_for(name: str, before: bytes = GREASE) -> bytes:
    return client_hello(session_id=bytes(32), extensions=before + name_extension(name) + extension(23, b""))


def judged_by(answer, packet: bytes) -> str | None:
    """The rule that ends the judgement of a packet: the first that holds."""
    whole = Packet.parse(packet)
    (chain,) = answer.ruleset.chains
    if holds(chain.guard, whole):
        for rule in chain.rules:
            if holds(rule.match, whole):
                return None if rule.verdict is Verdict.PASS else rule.name
    return None


SSL2 = bytes.fromhex("801f 01 0303 0006 0000 0010 000035 00002f") + bytes(16)
NAMELESS = client_hello(session_id=bytes(32), extensions=GREASE + extension(23, b""))
LONG = hello_for("a.example", before=KEY_SHARE)

# fmt: off
CASES = (
    # what                                   payload                          deny             allow
    ("the name",                             hello_for("a.example"),          "sni-deny-1",    None),
    ("the name in capitals",                 hello_for("A.eXample"),          "sni-deny-1",    None),
    ("the name, first of the extensions",    hello_for("a.example", b""),     "sni-deny-1",    None),
    ("the wildcard's own name",              hello_for("b.example"),          "sni-deny-2",    None),
    ("a name below the wildcard",            hello_for("x.y.b.example"),      "sni-deny-2",    None),
    ("a name that only ends like it",        hello_for("xb.example"),         None,            "sni-other"),
    ("a name below one without wildcard",    hello_for("x.a.example"),        None,            "sni-other"),
    ("a longer name",                        hello_for("a.example.test"),     None,            "sni-other"),
    ("no name",                              NAMELESS,                        None,            "sni-other"),
    ("no extensions",                        client_hello(),                  None,            "sni-other"),
    ("the name behind a long extension",     LONG,                            "sni-deny-1",    None),
    ("the same, cut before the name",        LONG[:1300],                     None,            "sni-other"),
    ("a ClientHello cut after its version",  LONG[:11],                       None,            "sni-other"),
    ("a ClientHello cut before its version", LONG[:10],                       None,            "sni-cut"),
    ("the first byte of a ClientHello",      LONG[:1],                        None,            "sni-cut"),
    ("the rest of it",                       LONG[11:],                       None,            None),
    ("a ClientHello behind an alert",        record(21, b"\1\0") + LONG,      None,            None),
    ("an encrypted handshake record",        record(22, b"\1" + bytes(39)),   None,            None),
    ("application data",                     record(23, LONG),                None,            None),
    ("an SSLv2 ClientHello",                 SSL2,                            None,            "sni-ssl2"),
    ("nothing",                              b"",                             None,            None),
)
# fmt: on


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("mode", "column"), [("deny", 2), ("allow", 3)])
def test_which_hellos_it_refuses(respond, mode, column, family):
    answer = respond((), f"sni:mode={mode},names=a.example,*.b.example,ports=443")
    check(answer.ruleset)
    assert {row[0]: judged_by(answer, sent(C, row[1], family)[1]) for row in CASES} == {
        row[0]: row[column] for row in CASES
    }


@pytest.mark.netns
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("mode", ["deny", "allow"])
def test_iptables_refuses_the_same(bench, respond, mode, family, way):
    """All but wildcards, which u32's companion xt_string can't look for."""
    wide = "*." if way.startswith("bpf") else ""
    answer = respond((), f"sni:mode={mode},names=a.example,{wide}b.example,ports=443")
    load_by(bench, answer.ruleset, way)
    fates = bench.send(sent(C, row[1], family) for row in CASES)
    assert {row[0]: not fate.passed for row, fate in zip(CASES, fates, strict=True)} == {
        row[0]: judged_by(answer, sent(C, row[1], family)[1]) is not None for row in CASES
    }


@pytest.mark.netns
@pytest.mark.parametrize("way", WAYS)
def test_many_names_can_be_allowed(bench, respond, way):
    names = [f"host-{number}.example" for number in range(40)]
    load_by(bench, respond((), f"sni:mode=allow,names={','.join(names)}").ruleset, way)
    packets = [sent(C, hello_for(name)) for name in (*names, "host-40.example", "host.example")]
    assert refused(bench, packets) == [False] * 40 + [True] * 2


@pytest.mark.netns
def test_known_bypasses(bench, respond):
    """As `tlswall policies` says; if this starts to fail, that text is wrong."""
    load_by(bench, respond((), "sni:names=a.example").ruleset, WAYS[0])
    payloads = (record(21, b"\1\0") + LONG, LONG[:1300], LONG[1300:], NAMELESS, hello_for("public.example"))
    assert not any(refused(bench, [sent(C, payload) for payload in payloads]))
    load_by(bench, respond((), "sni:mode=allow,names=a.example").ruleset, WAYS[0])
    assert refused(bench, [sent(C, record(21, b"\1\0") + NAMELESS), sent(C, LONG[:1300])]) == [False, True]


def test_only_what_goes_to_the_ports_and_servers(respond):
    hello = hello_for("a.example")
    for parameters, expected in (
        ("", True),
        (",ports=443", True),
        (",ports=8443", False),
        (",servers=198.51.100.0/24", True),
        (",servers=203.0.113.0/24", False),
    ):
        answer = respond((), f"sni:names=a.example{parameters}")
        assert bool(judged_by(answer, sent(C, hello)[1])) is expected
    assert judged_by(respond((), "sni:names=a.example,ports=443"), sent(S, hello)[1]) is None


def test_without_ports_a_lone_byte_is_no_hello(respond):
    answer = respond((), "sni:mode=allow,names=a.example")
    assert [judged_by(answer, sent(C, LONG[:size])[1]) for size in (1, 2, 3, 10)] == [
        None,
        None,
        "sni-cut",
        "sni-cut",
    ]


def test_reset_is_the_verdict_that_was_asked_for(respond):
    ruleset = respond((), "sni:mode=allow,names=a.example,action=reset").ruleset
    check(ruleset)
    assert [rule.verdict for rule in ruleset.rules] == [Verdict.PASS] + 3 * [Verdict.RESET]


def test_nft_refuses_it_by_name(respond):
    with pytest.raises(Refused) as refused:
        emit(respond((), "sni:names=a.example,b.example").ruleset, NFT)
    assert [refusal.rule for refusal in refused.value.refusals] == ["sni-deny-1", "sni-deny-2"]
    assert "server_name of a ClientHello" in str(refused.value)


# fmt: off
NAMES = (
    ("a.example",                         ["a.example"]),
    ("B.example., A.example",             ["a.example", "b.example"]),
    ("a.example,a.example",               ["a.example"]),
    ("*.b.example,b.example,x.b.example", ["*.b.example"]),
    ("*.b.example,*.x.b.example",         ["*.b.example"]),
    ("*.example,xb.test",                 ["*.example", "xb.test"]),
    ("bücher.example,*.ПРИМЕР.test",      ["xn--bcher-kva.example", "*.xn--e1afmkfd.test"]),
    ("straße.example",                    ["strasse.example"]),  # IDNA2003; 2008 has xn--strae-oqa
    ("_service.a.example",                ["_service.a.example"]),
)
# fmt: on


@pytest.mark.parametrize(("text", "names"), NAMES)
def test_how_names_are_read(text, names):
    assert [written(name) for name in parse_names(text)] == names


def test_a_wildcard_is_its_name_with_all_below_it():
    assert parse_names("*.b.example") == (ServerName("b.example", subdomains=True),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write the names"),
        (" , ", "write the names"),
        ("a..example", "is no host name"),
        ("*", "is no host name"),
        ("*.*.example", "is no host name"),
        ("x*.example", "is no host name"),
        ("-a.example", "is no host name"),
        ('a.example"; flush ruleset', "is no host name"),
        ("a.exa\nmple", "is no host name"),
        (f"{'a' * 64}.example", "is no host name"),
        (".".join(["abcdefg"] * 32), "is no host name"),
        ("192.0.2.1", "is an address"),
    ],
)
def test_names_that_are_none(respond, text, words):
    with pytest.raises(WishError, match=words):
        POLICY.build(POLICY.settings({"names": text}), ())


def test_no_finding_denies_a_name(respond, finding):
    """Not even one that is about a host: its name was chosen by a client."""
    hostile = finding("DG05", "A", evidence={"sni": "bank.example"}, policy="sni")
    assert not POLICY.claims(hostile, {"DG05": None})
    text = str(respond((hostile,), "sni:names=a.example", asked=("DG05",)).ruleset)
    assert "bank" not in text
