"""The process that lives in the lab's namespaces and does there what replay.Bench asks for.

In:  a connected socket's number as argument; requests (method, arguments) on it.
Out: (True, result) or (False, reason) on it. Process and namespaces end when the socket closes.

A process of its own, so that no other has to change namespace, and no mistake here can reach the host's
ruleset.

Behind each packet goes a sentinel frame that no rule sees and that overtakes nothing. When it arrives, the
packet has either arrived before it or never will.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Final

from rulegen.testbed import tools
from rulegen.testbed.netns import Lab, LabError, forget_connections, isolate, run

CLIENT: Final = 0
"""analyzer.model.Side, which is not imported: this process loads no more than it needs."""

ETHERTYPE_LOCAL: Final = 0x88B5
"""IEEE 802 local experimental EtherType 1: unknown to the inet hooks."""

_ETHERNET: Final = {
    # towards the server, towards the client; locally administered addresses
    0: bytes.fromhex("020000000002020000000001"),
    1: bytes.fromhex("020000000001020000000002"),
}
_FRAME_MAX: Final = 1 << 17
_PATIENCE_S: Final = 10.0
"""A sentinel arrives within microseconds; after this long the machine or the lab is broken."""


class Worker:
    """The methods that may be asked for."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._ends = (lab.client, lab.server)
        self._sent = 0

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
        """Remove all rules and sets."""
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
        network_type = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        frame = _ETHERNET[side] + struct.pack("!H", network_type) + packet
        self._sent += 1
        sentinel = _ETHERNET[side] + struct.pack("!HQ", ETHERTYPE_LOCAL, self._sent)
        here, there = self._ends[side], self._ends[1 - side]
        here.send(frame)
        here.send(sentinel)
        passed = frame in _until(there, sentinel)
        return passed, [back[14:] for back in _waiting(here) if back[12:14] == frame[12:14]]


def _until(end: socket.socket, sentinel: bytes) -> list[bytes]:
    """What arrives before the sentinel."""
    arrived: list[bytes] = []
    while True:
        readable, _, _ = select.select([end], [], [], _PATIENCE_S)
        if not readable:
            raise LabError("the lab lost a sentinel frame")
        frame = end.recv(_FRAME_MAX)
        if frame == sentinel:
            return arrived
        arrived.append(frame)


def _waiting(end: socket.socket) -> list[bytes]:
    """What has arrived already."""
    arrived: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            arrived.append(end.recv(_FRAME_MAX, socket.MSG_DONTWAIT))
    return arrived


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
