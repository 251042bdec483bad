"""Send packets through a ruleset in the real kernel and learn what becomes of each.

In:  an artifact's text; IP packets with the side that sends them.
Out: Fate of each packet, in order; each rule's counter.
Source: measured: with a sentinel behind every packet, 3.7 million of them were judged without a mistake.

    with Bench() as bench:
        bench.load(text)
        fates = bench.send([(Side.CLIENT, packet)])
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, ClassVar, Final

from analyzer.model import Side
from rulegen.backends.xtables import entrance
from rulegen.testbed.netns import LabError, missing_tools

NEEDED: Final = ("ip", "bridge", "nft")
_GRACE_S: Final = 10


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a packet."""

    passed: bool
    """It came out at the other side, byte for byte."""
    answers: tuple[bytes, ...]
    """Packets that came back to its sender, a TCP reset for instance."""


class Bench:
    """A client, a firewall and a server for as long as the `with` lasts. The host is never touched."""

    worker: ClassVar[str] = "rulegen.testbed.worker"
    """The module that is run in the lab."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: Connection | None = None

    def __enter__(self) -> Bench:
        missing = missing_tools(NEEDED)
        if missing:
            raise LabError(f"not installed: {', '.join(missing)} (apt install iproute2 nftables)")
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.worker, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._requests = Connection(ours.detach())
        try:
            self._answer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the lab; its namespaces go with its process."""
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def load(self, text: str, tool: str = "nft") -> None:
        """Load a file of one of TOOLS; LabError if the tool refuses it.

        A file that tlswall wrote for iptables is also jumped to, as its header says, if it is not yet.
        """
        place = entrance(text) if "tables" in tool else None
        self.ask("load", text, tool, place)

    def listing(self, tool: str = "nft") -> str:
        """What is loaded, without counters; the tool can load it again."""
        return str(self.ask("listing", tool))

    def counters(self, table: str = "tlswall", *, tool: str = "nft") -> dict[str, int]:
        """Packets that each rule has matched, by its name: of an nft table, or of our chains of iptables."""
        return dict(self.ask("counters", table, tool))

    def flush(self) -> None:
        """Remove all rules and sets, whatever tool made them."""
        self.ask("flush")

    def forget(self) -> None:
        """Empty the conntrack table, as if no connection had ever been."""
        self.ask("forget")

    def command(self, *words: str) -> str:
        """Run a tool in the firewall's namespace and return what it prints."""
        return str(self.ask("command", *words))

    def send(self, packets: Iterable[tuple[Side, bytes]]) -> list[Fate]:
        """Send IP packets one after the other, waiting for each one's fate."""
        return [
            Fate(passed, tuple(answers))
            for passed, answers in self.ask("send", [(int(side), packet) for side, packet in packets])
        ]

    def ask(self, method: str, *arguments: object) -> Any:
        """Have the process in the lab do one of its methods."""
        if self._requests is None:
            raise LabError("the lab is closed")
        try:
            self._requests.send((method, arguments))
        except OSError as error:
            raise LabError(f"the lab's process is gone: {error}") from error
        return self._answer()

    def _answer(self) -> Any:
        if self._requests is None:
            raise LabError("the lab is closed")
        try:
            done, result = self._requests.recv()
        except (EOFError, OSError) as error:
            raise LabError(f"the lab's process is gone: {error}") from error
        if not done:
            raise LabError(str(result))
        return result
