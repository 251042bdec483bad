"""rate with a real client and a real server: what is encrypted is counted as what it is."""

from __future__ import annotations

import pytest

from rulegen.testbed.live import SERVER, SERVER_6
from tests.rulegen.policies.test_live import connect, counted, credentials, live, serve, works

__all__ = ["credentials", "live"]

pytestmark = pytest.mark.netns

POLICY = "rate:ports=443,handshakes=off,alerts=off,open=off,renegotiations=1/hour"
WAYS = (
    ("AES128-GCM-SHA256", SERVER),
    ("AES128-GCM-SHA256", f"[{SERVER_6}]"),
    ("CHACHA20-POLY1305", SERVER),
    ("AES128-SHA", SERVER),
)


@pytest.mark.parametrize(("cipher", "server"), WAYS)
def test_renegotiations_pass_until_there_are_too_many(live, credentials, rules_text, cipher, server):
    live.load(rules_text(POLICY))
    serve(live, credentials, "-client_renegotiation")
    client = connect(live, credentials, "-tls1_2", "-cipher", f"ECDHE-ECDSA-{cipher}", server=server)
    works(client)
    client.write("R\n")
    client.wait_for("RENEGOTIATING")
    client.write("renegotiated\n")
    client.wait_for("detaitogener")
    rule = "rate-renegotiations-ipv6" if server != SERVER else "rate-renegotiations-ipv4"
    assert live.counters()[rule] == 0
    client.write("R\n")
    assert counted(live, rule) >= 1


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_handshakes_and_resumptions_are_no_renegotiations(live, credentials, rules_text, version):
    live.load(rules_text(POLICY))
    serve(live, credentials)
    client = connect(live, credentials, version, "-reconnect")
    client.wait_for("drop connection and then reconnect")
    works(client)
    assert not live.counters()["rate-renegotiations-ipv4"]
