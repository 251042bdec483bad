"""Real clients and servers behind the policies: who can still work, and who is refused by which rule."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from analyzer.model import Side
from rulegen.testbed.live import PATIENCE_S, SERVER, SERVER_6, Live, Program
from rulegen.testbed.netns import LabError, missing_tools

pytestmark = pytest.mark.netns

GUARDED = (
    "heartbleed:encrypted=pass",
    "first-record:ports=443",
    "content-type:types=20,21,22,23,mode=allow,split=drop",
    "min-version:split=drop",
    "weak-parameters:unjudged=refuse",
)
"""All that asks least of honest endpoints."""
REFUSING = (
    "heartbleed-overread", "heartbleed-split", "first-record-midstream", "first-record-stray",
    "first-record-client", "first-record-server", "content-type", "content-type-split",
)  # fmt: skip
HANDSHAKE_DONE = "Verify return code: 0 (ok)"
BULK_BYTES = 8_000_000


@pytest.fixture(scope="module")
def credentials(tmp_path_factory) -> tuple[str, str]:
    """Files of a certificate and its key."""
    folder = tmp_path_factory.mktemp("live")
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=live.example"
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def live() -> Iterator[Live]:
    if missing_tools(("openssl", "bash")):
        pytest.skip("openssl or bash is not installed")
    try:
        lab = Live().__enter__()
    except LabError as error:
        pytest.skip(f"no lab: {error}")
    yield lab
    lab.close()


def serve(live: Live, credentials: tuple[str, str], *options: str) -> Program:
    """A server that sends every line back, its letters reversed."""
    certificate, key = credentials
    words = ["openssl", "s_server", "-accept", "443", "-cert", certificate, "-key", key, "-rev"]
    server = live.start(Side.SERVER, *words, *options)
    server.wait_for("ACCEPT")
    return server


def connect(live: Live, credentials: tuple[str, str], *options: str, server: str = SERVER) -> Program:
    """A client that has said its first hello."""
    words = ["openssl", "s_client", "-connect", f"{server}:443", "-CAfile", credentials[0]]
    return live.start(Side.CLIENT, *words, *options)


def works(client: Program) -> None:
    client.wait_for(HANDSHAKE_DONE)
    client.write("a line\n")
    client.wait_for("enil a")


def counted(live: Live, rule: str) -> int:
    """How many packets the rule has counted, once there is one."""
    until = time.monotonic() + PATIENCE_S
    while not (count := live.counters()[rule]):
        assert time.monotonic() < until, f"{rule} has counted nothing"
        time.sleep(0.02)
    return count


@pytest.mark.parametrize("server", [SERVER, f"[{SERVER_6}]"], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    "options",
    [
        ("-tls1_2",),
        ("-tls1_2", "-no_ticket"),
        ("-tls1_3",),
        ("-tls1_3", "-no_middlebox"),
        ("-tls1_3", "-groups", "P-521:X25519"),
        (),
    ],
    ids=" ".join,
)
def test_honest_endpoints_work_behind_all_of_them(live, credentials, rules_text, options, server):
    live.load(rules_text(*GUARDED))
    serve(live, credentials, "-groups", "X25519:P-256")
    works(connect(live, credentials, *options, server=server))
    counters = live.counters()
    assert not any(counters[rule] for rule in REFUSING)
    assert not any(count for rule, count in counters.items() if rule.startswith(("min-", "weak-")))
    assert counters["first-record-client-hello"] == counters["first-record-server-hello"] == 1


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_much_data_passes(live, credentials, rules_text, tmp_path, version):
    """Segments in the middle of records begin with any byte."""
    data = bytes(hashlib.shake_256(b"data").digest(BULK_BYTES))
    (tmp_path / "data").write_bytes(data)
    live.load(rules_text(*GUARDED))
    command = f"cd {tmp_path} && exec openssl s_server -accept 443 -cert {credentials[0]} -key {credentials[1]} -WWW"
    live.start(Side.SERVER, "bash", "-c", command).wait_for("ACCEPT")
    client = live.start(
        Side.CLIENT, "bash", "-c",
        f"printf 'GET /data HTTP/1.0\\r\\n\\r\\n' | openssl s_client -connect {SERVER}:443 {version} -quiet"
        f" 2>/dev/null | tail -c {BULK_BYTES} | sha256sum",
    )  # fmt: skip
    client.wait_for(hashlib.sha256(data).hexdigest())
    assert not any(live.counters()[rule] for rule in REFUSING)


NULL = ("-tls1_2", "-cipher", "NULL-SHA256:ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0")
ANONYMOUS = ("-tls1_2", "-cipher", "ADH-AES128-SHA256:AECDH-AES128-SHA:@SECLEVEL=0")


@pytest.mark.parametrize(
    ("policy", "served", "asked", "rule"),
    [
        ("min-version:min=1.3", (), ("-tls1_2",), "min-version-suite"),
        ("min-version:min=1.3", ("-tls1_2",), (), "min-version-suite"),
        ("min-version:sentinel=refuse", (), ("-tls1_2",), "min-version-sentinel"),
        ("weak-parameters", NULL, NULL, "weak-parameters-suite"),
        ("weak-parameters", ANONYMOUS, ANONYMOUS, "weak-parameters-suite"),
        ("content-type:types=handshake,direction=to-client", (), (), "content-type"),
    ],
)
def test_a_handshake_that_is_refused(live, credentials, rules_text, policy, served, asked, rule):
    live.load(rules_text(policy))
    serve(live, credentials, *served)
    client = connect(live, credentials, *asked)
    assert counted(live, rule)
    with pytest.raises(LabError, match="did not print"):
        client.wait_for(HANDSHAKE_DONE, patience_s=0.3)


@pytest.mark.parametrize(
    ("policy", "served", "asked"),
    [
        ("min-version:min=1.3,split=drop", (), ()),
        ("min-version:min=1.3,split=drop", (), ("-no_middlebox",)),
        ("min-version:sentinel=refuse,split=drop", (), ()),
        ("min-version:sentinel=refuse", ("-tls1_2",), ()),
        ("weak-parameters:unjudged=refuse", ("-tls1_2",), ()),
    ],
)
def test_a_handshake_that_is_not(live, credentials, rules_text, policy, served, asked):
    live.load(rules_text(policy))
    serve(live, credentials, *served)
    works(connect(live, credentials, *asked))


def test_a_connection_without_application_data(live, credentials, rules_text):
    """The handshake is complete, and what is said then does not arrive."""
    live.load(rules_text("content-type:types=application_data,direction=to-server"))
    serve(live, credentials)
    client = connect(live, credentials, "-tls1_2")
    client.wait_for(HANDSHAKE_DONE)
    client.write("a line\n")
    assert counted(live, "content-type")
    with pytest.raises(LabError, match="did not print"):
        client.wait_for("enil a", patience_s=0.3)


def test_another_protocol_on_a_guarded_port(live, rules_text):
    live.load(rules_text("first-record:ports=443"))
    live.start(Side.SERVER, "openssl", "s_server", "-accept", "443", "-nocert").wait_for("ACCEPT")
    live.start(
        Side.CLIENT, "bash", "-c",
        f"exec 3<>/dev/tcp/{SERVER}/443; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
    )  # fmt: skip
    assert counted(live, "first-record-client")
