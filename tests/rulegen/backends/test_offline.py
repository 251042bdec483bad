"""Asking a tool: in namespaces of its own, and with a clear word where that is not possible."""

from __future__ import annotations

import pytest

from rulegen.backends import offline
from rulegen.backends.base import Checked
from rulegen.backends.offline import ask


def namespaces() -> None:
    answer = ask(["true"], "", package="coreutils")
    if answer.accepted is None:
        pytest.skip(answer.message)


def test_the_tools_word():
    namespaces()
    assert ask(["grep", "-q", "good"], "good", package="grep") == Checked(accepted=True, message="")
    assert ask(["grep", "-q", "good"], "bad", package="grep").accepted is False
    assert "No such file" in ask(["ls", "/nonexistent"], "", package="coreutils").message


def test_it_does_not_see_the_hosts_devices():
    namespaces()
    answer = ask(
        ["sh", "-c", "! grep -vE 'lo:|tunl|sit|gre|erspan|vti|ip6|Inter|face' /proc/net/dev"], "", package=""
    )
    assert answer.accepted, answer.message


def test_a_tool_that_is_not_there():
    answer = ask(["no-such-firewall"], "", package="firewall")
    assert answer == Checked(
        accepted=None, message="no-such-firewall is not installed (apt install firewall)"
    )


def test_no_right_to_make_namespaces(monkeypatch):
    monkeypatch.setattr(offline.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(
        offline, "_run", lambda command, text: offline.subprocess.CompletedProcess(command, 1, "", "denied")
    )
    assert ask(["true"], "", package="coreutils").accepted is None


def test_a_tool_that_never_answers(monkeypatch):
    namespaces()
    monkeypatch.setattr(offline, "TIMEOUT_S", 0.5)
    answer = ask(["sleep", "60"], "", package="coreutils")
    assert answer.accepted is None
    assert "did not answer" in answer.message
