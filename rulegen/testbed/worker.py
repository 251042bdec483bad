"""The process that lives in the lab's namespaces and does there what replay.Bench asks for.

In:  a connected socket's number as argument; requests (method, arguments) on it.
Out: (True, result) or (False, reason) on it. Process and namespaces end when the socket closes.

A process of its own, so that no other has to change namespace, and no mistake here can reach the host's
ruleset.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection

from rulegen.testbed import tools
from rulegen.testbed.ends import answers_to, frame_of, link_addresses, sentinel_of, until, waiting
from rulegen.testbed.netns import Lab, LabError, forget_connections, isolate, run
from rulegen.testbed.observer import Observer, Seen, on_one_processor
from rulegen.testbed.trace import Listed


class Worker:
    """The methods that may be asked for."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._ends = (lab.client, lab.server)
        self._sent = 0
        self._observer: Observer | None = None

    def load(self, text: str, tool: str, entrance: tuple[str, str, str] | None) -> None:
        """Load a file of the tool's."""
        tools.load(tool, text, entrance)

    def listing(self, tool: str) -> str:
        """The rules as the tool prints them, without counters and what else changes by itself."""
        return tools.listing(tool)

    def counters(self, table: str, tool: str) -> dict[str, int]:
        """Packets that each of our rules has matched, by the rule's name."""
        return tools.counters(tool, table)

    def flush(self) -> None:
        """Remove all rules and sets, and end a trace."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        tools.flush()

    def forget(self) -> None:
        """Empty the conntrack table."""
        forget_connections()

    def command(self, *words: str) -> str:
        """Run a tool in the firewall's namespace."""
        return run(*words)

    def send(self, packets: Iterable[tuple[int, bytes]]) -> list[tuple[bool, list[bytes]]]:
        """Send IP packets, each by the side that is named with it.

        Returns:
            For each whether it came out at the other side unchanged, and what came back to its sender.
        """
        return [self._send(side, packet) for side, packet in packets]

    def _send(self, side: int, packet: bytes) -> tuple[bool, list[bytes]]:
        self._sent += 1
        addresses = link_addresses(side, self._sent)
        frame, sentinel = frame_of(addresses, packet), sentinel_of(addresses)
        here, there = self._ends[side], self._ends[1 - side]
        here.send(frame)
        here.send(sentinel)
        passed = frame in until(there, sentinel)
        return passed, answers_to(packet, waiting(here))

    def trace(self, legacy: bool) -> list[Listed]:
        """Trace all packets from here on. Returns the rules of nf_tables with their handles."""
        self._observer = Observer.start(self.lab, legacy=legacy)
        return self._observer.rules()

    def observe(self, packets: Iterable[tuple[int, bytes]]) -> list[Seen]:
        """Send IP packets while they are traced, each by the side that is named with it."""
        if self._observer is None:
            raise LabError("no trace was begun")
        with on_one_processor():
            return [self._observer.observe(side, packet) for side, packet in packets]


def serve(requests: Connection, kind: type[Worker] = Worker) -> None:
    """Build the lab, then answer requests until the other end closes."""
    try:
        isolate()
        worker = kind(Lab.build())
    except (LabError, OSError) as error:
        requests.send((False, str(error)))
        return
    requests.send((True, None))
    while True:
        try:
            method, arguments = requests.recv()
        except EOFError:
            return
        try:
            requests.send((True, getattr(worker, method)(*arguments)))
        except (LabError, OSError, ValueError) as error:
            requests.send((False, str(error)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
