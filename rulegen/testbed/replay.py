"""Send packets through a ruleset in the real kernel and learn what becomes of each.

In:  an artifact's text; IP packets with the side that sends them.
Out: Fate of each packet, in order; each rule's counter.
Source: measured: with a sentinel behind every packet, 3.7 million of them were judged without a mistake.

    with Bench() as bench:
        bench.load(text)
        fates = bench.send([(Side.CLIENT, packet)])
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, ClassVar, Final

from analyzer.model import Side
from rulegen.backends.xtables import entrance
from rulegen.testbed.netns import LabError, missing_tools
from rulegen.testbed.verdicts import LEGACY, Observed, Places, observed

NEEDED: Final = ("ip", "bridge", "nft")
_GRACE_S: Final = 10
_AT_ONCE: Final = 1024
"""Packets of a request to the lab, so that a large capture need not be in memory."""
_UNTRACED: Final = re.compile(r"\bnftrace\s+set\b")


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
        self._busy = False
        """A request has not been answered yet."""

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

    def prove(
        self, rules: Iterable[tuple[str, str]], packets: Iterable[tuple[Side, bytes]]
    ) -> Iterator[Observed]:
        """Load files into the empty lab, and see for each packet what the kernel does with it, and why.

        Connections and rules of before are forgotten. Fragments that wait for others are not, for as long as
        the kernel keeps them (30 s): where packets have such, use a lab of their own. `prove` does.

        Args:
            rules: Tool (one of TOOLS) and text of each file, in this order.
            packets: IP packets, each with the side that sends it; captured.py has those of a capture.

        Returns:
            What became of each, in order, while they are being sent.

        Raises:
            LabError: A file is refused, or the kernel's trace is incomplete.
        """
        files = tuple(rules)
        self.flush()
        self.forget()
        for tool, text in files:
            if _UNTRACED.search(text):
                raise LabError("a rule that sets nftrace would hide what others do")
            self.load(text, tool)
        legacy = [tool for tool, _ in files if tool in LEGACY]
        places = Places()
        for tool in legacy:
            places.add_legacy(LEGACY[tool], self.listing(tool))
        places.add_nft(self.ask("trace", bool(legacy)))
        yield from self._observed(iter(packets), places)

    def _observed(self, packets: Iterator[tuple[Side, bytes]], places: Places) -> Iterator[Observed]:
        """While the lab sends some, the next are fetched and those before are judged."""
        some = list(itertools.islice(packets, _AT_ONCE))
        self._begin(some)
        try:
            while some:
                following = list(itertools.islice(packets, _AT_ONCE))
                seen = self._answer()
                self._begin(following)
                for (_, packet), one in zip(some, seen, strict=True):
                    yield observed(packet, one, places)
                some = following
        finally:
            if self._busy:
                with contextlib.suppress(LabError):
                    self._answer()

    def _begin(self, packets: list[tuple[Side, bytes]]) -> None:
        if packets:
            self._request("observe", [(int(side), packet) for side, packet in packets])

    def ask(self, method: str, *arguments: object) -> Any:
        """Have the process in the lab do one of its methods."""
        if self._busy:
            raise LabError("the lab still sends the packets of a proof")
        self._request(method, *arguments)
        return self._answer()

    def _request(self, method: str, *arguments: object) -> None:
        if self._requests is None:
            raise LabError("the lab is closed")
        try:
            self._requests.send((method, arguments))
        except OSError as error:
            raise LabError(f"the lab's process is gone: {error}") from error
        self._busy = True

    def _answer(self) -> Any:
        """The answer to the request before; there is never a second request without it, so that both move."""
        self._busy = False
        if self._requests is None:
            raise LabError("the lab is closed")
        try:
            done, result = self._requests.recv()
        except (EOFError, OSError) as error:
            raise LabError(f"the lab's process is gone: {error}") from error
        if not done:
            raise LabError(str(result))
        return result


def prove(rules: Iterable[tuple[str, str]], packets: Iterable[tuple[Side, bytes]]) -> Iterator[Observed]:
    """As Bench.prove, in a lab of its own, in which nothing has been before and of which nothing is left."""
    with Bench() as bench:
        yield from bench.prove(rules, packets)
