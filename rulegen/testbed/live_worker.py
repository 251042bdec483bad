"""The process of the live lab: programs at both ends, and a tap between them.

In:  a connected socket's number as argument; requests (method, arguments) on it, as in worker.py.
Out: (True, result) or (False, reason) on it. Process, programs and namespaces end when the socket closes.
Source: ip-address(8), prctl(2) PR_SET_PDEATHSIG, packet(7); tcpdump.org/linktypes and pcap-savefile(5).

The ends have addresses and the MTU of an Ethernet, so that records are cut into segments as on any network.
A program is in its end's namespace and never outlives this process: the kernel kills it with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Final

from rulegen.testbed.netns import ENDS, ETH_P_ALL, RECEIVE_BYTES, Lab, LabError, entered, run, sysctl
from rulegen.testbed.worker import Worker, serve

ADDRESSES: Final = (("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2"))
"""Of the client and of the server: documentation prefixes, RFC 5737 and RFC 3849."""

_ETHERNET_MTU: Final = "1500"
_PR_SET_PDEATHSIG: Final = 1
_SO_TIMESTAMPNS: Final = 35
"""Linux include/uapi/linux/prctl.h, include/uapi/asm-generic/socket.h."""
_GRACE_S: Final = 1
"""A client that says close_notify first keeps its session: OpenSSL's server forgets what ends without."""
_READ_BYTES: Final = 1 << 16
_FRAME_MAX: Final = 1 << 17
_PCAP_HEADER: Final = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _FRAME_MAX, 1)
"""Times in nanoseconds, link type Ethernet."""

_LIBC: Final = ctypes.CDLL(None)


class LiveWorker(Worker):
    """The methods that may be asked for, besides those of a lab for packets."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._programs: list[subprocess.Popen[bytes]] = []
        self._printed: list[bytes] = []
        self._tap: socket.socket | None = None
        self._recorded = _PCAP_HEADER
        for namespace, device, (four, six) in zip(lab.namespaces, ENDS, ADDRESSES, strict=True):
            with entered(namespace):
                sysctl("net/ipv6/conf/all/disable_ipv6", "0")
                run("ip", "link", "set", device, "mtu", _ETHERNET_MTU)
                run("ip", "address", "add", f"{four}/24", "dev", device)
                run("ip", "address", "add", f"{six}/64", "dev", device, "nodad")

    def start(self, side: int, words: Sequence[str]) -> int:
        """Start a program at an end. Returns its number here."""
        with entered(self.lab.namespaces[side]):
            program = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self._programs.append(program)
        self._printed.append(b"")
        return len(self._programs) - 1

    def write(self, number: int, data: bytes) -> None:
        """Give a program input."""
        stdin = self._programs[number].stdin
        assert stdin is not None
        stdin.write(data)
        stdin.flush()

    def printed(self, number: int, awaited: bytes, patience_s: float) -> bytes:
        """Wait until a program has printed something. Returns all that it has printed."""
        stdout = self._programs[number].stdout
        assert stdout is not None
        until = time.monotonic() + patience_s
        open_ = True
        while open_ and awaited not in self._printed[number]:
            readable, _, _ = select.select([stdout], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                break
            piece = os.read(stdout.fileno(), _READ_BYTES)
            self._printed[number] += piece
            open_ = bool(piece)
        if awaited not in self._printed[number]:
            shown = self._printed[number].decode(errors="backslashreplace")
            raise LabError(f"{self._programs[number].args!r} did not print {awaited!r} but: {shown}")
        return self._printed[number]

    def end(self, number: int) -> None:
        """End a program: by ending its input, then by SIGTERM, then by force."""
        program = self._programs[number]
        assert program.stdin is not None
        assert program.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            program.stdin.close()
        for insist in (program.terminate, program.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_GRACE_S)
                break
            insist()
        program.wait()
        program.stdout.close()

    def watch(self) -> None:
        """Record from here on what passes between the client and the firewall."""
        self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._tap.bind(("fc", 0))

    def recorded(self) -> bytes:
        """What has been recorded, as a pcap file."""
        with contextlib.suppress(BlockingIOError):
            while self._tap is not None:
                frame, ancillary, _, _ = self._tap.recvmsg(_FRAME_MAX, 64, socket.MSG_DONTWAIT)
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                self._recorded += struct.pack("=IIII", seconds, nanoseconds, len(frame), len(frame)) + frame
        return self._recorded


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), LiveWorker)
