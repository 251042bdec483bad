"""The lab's process, returning what comes out behind the firewall: for rules that write what they see.

Run as the `worker` of a Bench, from the root of the repository.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection

from rulegen.testbed.netns import LabError
from rulegen.testbed.replay import Bench
from rulegen.testbed.worker import Worker, serve

_SENTINEL = b"\x88\xb5"
"""IEEE 802 local experimental EtherType 1: unknown to the inet hooks."""
_MACS = (bytes.fromhex("020000000022020000000011"), bytes.fromhex("020000000011020000000022"))


class Watcher(Worker):
    """Sends a packet and a sentinel, which overtakes nothing, and returns what came before the sentinel."""

    def watch(self, packets: Iterable[tuple[int, bytes]]) -> list[list[bytes]]:
        self._count = 0
        return [self._watch(side, packet) for side, packet in packets]

    def _watch(self, side: int, packet: bytes) -> list[bytes]:
        here, there = (self.lab.client, self.lab.server)[:: -1 if side else 1]
        kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        self._count += 1
        sentinel = _MACS[side] + _SENTINEL + struct.pack("!Q", self._count)
        here.send(_MACS[side] + kind + packet)
        here.send(sentinel)
        with contextlib.suppress(BlockingIOError):
            while True:  # what the firewall has sent back
                here.recv(1 << 17, socket.MSG_DONTWAIT)
        arrived = []
        while True:
            if not select.select([there], [], [], 10.0)[0]:
                raise LabError("the lab lost a sentinel frame")
            frame = there.recv(1 << 17)
            if frame == sentinel:
                return arrived
            if frame[6:14] == _MACS[side][6:] + kind:  # not the firewall's own multicast reports
                arrived.append(frame[14:])


class WatchingBench(Bench):
    """A lab that shows what comes out."""

    worker = "tests.rulegen.evaluate.watch"

    def watch(self, packets: Iterable[tuple[int, bytes]]) -> list[list[bytes]]:
        """Send packets (side, bytes); for each, the IP packets that came out at the other side."""
        return list(self.ask("watch", list(packets)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Watcher)
