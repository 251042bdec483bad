"""One TLS connection is allowed and every other is not: openssl on both sides, the rules between them.

The pinned connection works; a second one between the same hosts completes its handshake and gets no
application data through; the pinned session's resumption on a new TCP connection works when asked, and is
refused when not.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyzer import pipeline
from analyzer.model import Side
from rulegen.backends import BACKENDS, emit
from rulegen.from_findings import answer, parse_wish
from rulegen.handshakes import with_handshakes
from rulegen.ir.rule import Source
from rulegen.testbed.live import CLIENT, CLIENT_6, PATIENCE_S, SERVER, SERVER_6, Live, Program
from rulegen.testbed.netns import LabError, missing_tools

pytestmark = pytest.mark.netns

PORT, OTHER_PORT = 443, 8443
PINNED_PORT = 40017
ECHO = "-rev"
HANDSHAKE_DONE = "Verify return code: 0 (ok)"


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
    if missing_tools(("openssl",)):
        pytest.skip("openssl is not installed")
    try:
        lab = Live().__enter__()
    except LabError as error:
        pytest.skip(f"no lab: {error}")
    yield lab
    lab.close()


class Endpoints:
    """openssl at both ends. With ECHO the server sends every line back, its letters reversed."""

    def __init__(self, live: Live, credentials: tuple[str, str], folder: Path) -> None:
        self.live = live
        self.certificate, self.key = credentials
        self.folder = folder

    def serve(self, port: int, *options: str) -> Program:
        """A server, of one connection after the other."""
        server = self.live.start(
            Side.SERVER, "openssl", "s_server", "-accept", str(port), "-cert", self.certificate,
            "-key", self.key, *options,
        )  # fmt: skip
        server.wait_for("ACCEPT")
        return server

    def connect(self, port: int, *options: str, server: str = SERVER) -> Program:
        """A client whose handshake is complete."""
        client = self.live.start(
            Side.CLIENT, "openssl", "s_client", "-connect", f"{server}:{port}", "-CAfile", self.certificate,
            "-verify_return_error", *options,
        )  # fmt: skip
        client.wait_for(HANDSHAKE_DONE)
        return client

    def session(self) -> str:
        """A file for a session."""
        return str(self.folder / "session.pem")


@pytest.fixture
def endpoints(live, credentials, tmp_path) -> Endpoints:
    return Endpoints(live, credentials, tmp_path)


def works(client: Program, line: str) -> None:
    """The line goes to the server and comes back reversed."""
    client.write(f"{line}\n")
    client.wait_for(line[::-1])


def is_stopped(live: Live, sender: Program, receiver: Program, line: str, awaited: str = "") -> None:
    """The line leaves its sender and is refused by the rules; it never arrives, nor does what it would cause."""
    before = live.counters()["pin-data"]
    sender.write(f"{line}\n")
    until = time.monotonic() + PATIENCE_S
    while live.counters()["pin-data"] == before:
        assert time.monotonic() < until, "the line was not even sent"
    with pytest.raises(LabError, match="did not print"):
        receiver.wait_for(awaited or line, patience_s=0.3)


def is_stopped_at_an_echo(live: Live, client: Program, line: str) -> None:
    is_stopped(live, client, client, line, line[::-1])


@pytest.mark.parametrize(
    ("client", "server", "resumption"),
    [
        (CLIENT, SERVER, "follow"),
        (CLIENT, SERVER, "refuse"),
        (f"[{CLIENT_6}]", f"[{SERVER_6}]", "follow"),
        (f"[{CLIENT_6}]", f"[{SERVER_6}]", "refuse"),
    ],
)
def test_the_next_connection_of_a_client_is_pinned(endpoints, live, rules_text, client, server, resumption):
    """By its addresses and ports; its session_id is learned from its ServerHello."""
    endpoints.serve(PORT, ECHO, "-tls1_2", "-no_ticket")
    other_server = endpoints.serve(OTHER_PORT, "-tls1_2", "-no_ticket")
    servers = server.strip("[]")
    live.load(rules_text(f"pin:client={client}:{PINNED_PORT},servers={servers},resumption={resumption}"))

    bound = ("-bind", f"{client}:{PINNED_PORT}", "-sess_out", endpoints.session())
    pinned = endpoints.connect(PORT, *bound, server=server)
    works(pinned, "pinned")
    second = endpoints.connect(OTHER_PORT, server=server)
    is_stopped(live, second, other_server, "data from the client")
    is_stopped(live, other_server, second, "data from the server")
    works(pinned, "still works")
    pinned.end()

    resumed = endpoints.connect(PORT, "-sess_in", endpoints.session(), server=server)
    assert "Reused, TLSv1.2" in resumed.wait_for("Reused")
    if resumption == "follow":
        works(resumed, "resumed")
    else:
        is_stopped_at_an_echo(live, resumed, "resumed")


@pytest.mark.parametrize("options", [("-tls1_2", "-no_ticket"), ("-tls1_2",)], ids=["session_id", "ticket"])
def test_a_running_connection_is_pinned_from_a_capture(endpoints, live, options):
    """Of two that run, one; and the resumption of its session, by what the capture shows of it."""
    endpoints.serve(PORT, ECHO, *options)
    endpoints.serve(OTHER_PORT, ECHO, *options)
    live.watch()
    pinned = endpoints.connect(PORT, "-sess_out", endpoints.session())
    other = endpoints.connect(OTHER_PORT)
    works(pinned, "before")
    works(other, "before")

    live.load(rules_from(live.recorded(), endpoints.folder, f"servers={SERVER},resumption=known"))
    works(pinned, "pinned")
    is_stopped_at_an_echo(live, other, "other")
    pinned.end()
    resumed = endpoints.connect(PORT, "-sess_in", endpoints.session())
    assert "Reused, TLSv1.2" in resumed.wait_for("Reused")
    works(resumed, "resumed")
    resumed.end()
    fresh = endpoints.connect(PORT)
    is_stopped_at_an_echo(live, fresh, "fresh")


def test_of_tls_1_3_the_pinned_connection_works_and_no_other_has_data(endpoints, live):
    endpoints.serve(PORT, ECHO, "-tls1_3")
    endpoints.serve(OTHER_PORT, ECHO, "-tls1_3")
    live.watch()
    pinned = endpoints.connect(PORT)
    live.load(rules_from(live.recorded(), endpoints.folder, f"servers={SERVER}"))
    works(pinned, "pinned")
    is_stopped_at_an_echo(live, endpoints.connect(OTHER_PORT), "other")
    works(pinned, "still works")


def rules_from(capture: bytes, folder: Path, parameters: str) -> str:
    """The nft file that pins the first connection of a capture."""
    path = folder / "live.pcap"
    path.write_bytes(capture)
    analysis = pipeline.analyze(path, tables=["messages"])
    rows = with_handshakes(analysis.iter_connections(), analysis.messages)
    wishes = [parse_wish(f"pin:connection=0,{parameters}")]
    return emit(
        answer([Source(name=path.name, sha256=None)], (), rows, wishes=wishes).ruleset, BACKENDS[0]
    ).text


def test_programs_end_with_their_lab(live):
    program = live.start(Side.CLIENT, "sh", "-c", "echo $$; sleep 600")
    number = int(program.wait_for("\n"))
    assert Path(f"/proc/{number}").exists()
    live.close()
    assert _ended(number)


def test_programs_end_when_the_lab_is_killed(live):
    program = live.start(Side.SERVER, "sh", "-c", "echo $$; exec sleep 600")
    number = int(program.wait_for("\n"))
    live._process.kill()
    live._process.wait()
    assert _ended(number)


def _ended(number: int) -> bool:
    """Within two seconds; one that nobody has waited for is a zombie."""
    path = Path(f"/proc/{number}/stat")
    for _ in range(200):
        if not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False
