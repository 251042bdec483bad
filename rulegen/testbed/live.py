"""Real TLS endpoints on both sides of a firewall: whether people can still work behind the rules.

In:  an artifact's text; commands for the client and the server.
Out: what they print, each rule's counter, a capture of what passed.

    with Live() as live:
        live.load(text)
        server = live.start(Side.SERVER, "openssl", "s_server", "-accept", "443", ...)
        client = live.start(Side.CLIENT, "openssl", "s_client", "-connect", f"{SERVER}:443", ...)
        client.wait_for("Verify return code")

A program has the addresses of live_worker.ADDRESSES, and no others than the lab's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from analyzer.model import Side
from rulegen.testbed.live_worker import ADDRESSES
from rulegen.testbed.replay import Bench

(CLIENT, CLIENT_6), (SERVER, SERVER_6) = ADDRESSES

PATIENCE_S: Final = 10.0
"""A handshake through the lab takes milliseconds, on a machine that does nothing else."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs at one end of the lab."""

    live: Live
    number: int

    def write(self, text: str) -> None:
        """Give it input."""
        self.live.ask("write", self.number, text.encode())

    def wait_for(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """Wait until it has printed the text; LabError, with what it has printed, if it does not.

        Returns:
            All that it has printed.
        """
        printed: bytes = self.live.ask("printed", self.number, text.encode(), patience_s)
        return printed.decode(errors="backslashreplace")

    def end(self) -> None:
        """End it, and wait until it has ended."""
        self.live.ask("end", self.number)


class Live(Bench):
    """A lab whose client and server are programs. The host is never touched."""

    worker: ClassVar[str] = "rulegen.testbed.live_worker"

    def start(self, side: Side, *words: str) -> Program:
        """Start a program at one end; its output and errors are one text."""
        return Program(self, int(self.ask("start", int(side), words)))

    def watch(self) -> None:
        """Record from here on what passes between the client and the firewall."""
        self.ask("watch")

    def recorded(self) -> bytes:
        """What has been recorded since `watch`, as a pcap file."""
        return bytes(self.ask("recorded"))
