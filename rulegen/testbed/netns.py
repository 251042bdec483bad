"""Network namespaces for a client, a firewall and a server, and the wires between them.

In:  nothing; needs Linux, ip(8), and root or the right to make user namespaces.
Out: Lab: one AF_PACKET socket at the client's and one at the server's end of a bridge.
Source: namespaces(7), user_namespaces(7), packet(7), Linux net/bridge/br_netfilter_hooks.c.

    client: c0 ---- fc :firewall: fs ---- s0 :server        fc and fs are ports of bridge br0

A bridge, because with br_netfilter every packet passes the hooks of inet and leaves unchanged, whatever its
addresses and TTL; a router would lose some and rewrite all. The namespaces have no names and are held by
file descriptors only, so that nothing is left behind however the process ends.

Standard library only: a process with threads, which numpy may start, can't enter a user namespace.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
"""Linux include/uapi/linux/sched.h."""

ETH_P_ALL: Final = 0x0003
SOL_PACKET: Final = 263
PACKET_IGNORE_OUTGOING: Final = 23
"""Linux include/uapi/linux/if_ether.h, if_packet.h."""

NETLINK_NETFILTER: Final = 12
"""Linux include/uapi/linux/netlink.h."""

SIOCETHTOOL: Final = 0x8946
OFFLOADS: Final = {"rx": 0x15, "tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""Linux include/uapi/linux/sockios.h; ethtool.h ETHTOOL_S*. Off, a packet is what was sent: never merged, and
never in pieces of memory, which some of the kernel's ways to load bytes can't read."""

ENDS: Final = ("c0", "s0")
"""The devices of client and server."""

RECEIVE_BYTES: Final = 8 << 20
MTU: Final = 65535

SYSCTLS: Final = {
    "net/netfilter/nf_conntrack_checksum": "0",
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    "net/netfilter/nf_conntrack_tcp_loose": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
}
"""Captures start in the middle, miss packets and have been through checksum offloading."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class LabError(RuntimeError):
    """The lab can't be built here; the message says what is missing."""


def isolate() -> None:
    """Take this process, which must have one thread, into a network namespace of its own.

    Without root also into a user namespace, in which it is root.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        _unshare(CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(text)
    # Only now: a network namespace's files, /proc/net/ip_tables_names for one, are of who was root before it.
    _unshare(CLONE_NEWNET)


def _unshare(flags: int) -> None:
    if _LIBC.unshare(flags) != 0:
        raise LabError(f"no namespaces here: unshare: {os.strerror(ctypes.get_errno())}")


@contextlib.contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Run the body in the namespace of this descriptor: sockets, sysctls and commands belong there."""
    before = _current()
    _set(namespace)
    try:
        yield
    finally:
        _set(before)
        os.close(before)


def _set(namespace: int) -> None:
    if _LIBC.setns(namespace, CLONE_NEWNET) != 0:
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


def _current() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def _another() -> int:
    """A new namespace, without staying in it."""
    before = _current()
    try:
        _unshare(CLONE_NEWNET)
        return _current()
    finally:
        _set(before)
        os.close(before)


class Lab:
    """Client, firewall and server. The calling process is in the firewall's namespace."""

    def __init__(self, ends: tuple[socket.socket, socket.socket], namespaces: tuple[int, int]) -> None:
        self.client, self.server = ends
        self.namespaces = namespaces
        """Descriptors of the client's and the server's."""

    @classmethod
    def build(cls) -> Lab:
        """Build all of it around this process, which `isolate` has made harmless."""
        namespaces = (_another(), _another())
        quiet = ("stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
        run("ip", "link", "add", "br0", "type", "bridge", *quiet)
        for namespace, end, port in zip(namespaces, ENDS, ("fc", "fs"), strict=True):
            there = f"/proc/{os.getpid()}/fd/{namespace}"
            run("ip", "link", "add", port, "type", "veth", "peer", "name", end, "netns", there)
            run("ip", "link", "set", port, "mtu", str(MTU), "master", "br0", "up")
            run("bridge", "link", "set", "dev", port, "learning", "off")
            _offloads_off(port)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "set", "br0", "mtu", str(MTU), "up")
        # What the firewall itself sends, a reset for one, needs a route, which br_netfilter then ignores.
        run("ip", "route", "add", "default", "dev", "br0")
        run("ip", "-6", "route", "add", "default", "dev", "br0")
        for name, text in SYSCTLS.items():
            sysctl(name, text)
        client, server = map(_endpoint, namespaces, ENDS)
        return cls((client, server), namespaces)


def _endpoint(namespace: int, device: str) -> socket.socket:
    with entered(namespace):
        sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        run("ip", "link", "set", device, "mtu", str(MTU), "up")
        _offloads_off(device)
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        end.bind((device, 0))
        return end


def run(*command: str, text: str | None = None) -> str:
    """Run a tool in the current namespace and return what it prints."""
    tool = shutil.which(command[0], path=_path())
    if tool is None:
        raise LabError(f"{command[0]} is not installed")
    environment = {**os.environ, "XTABLES_LOCKFILE": _lock()}
    done = subprocess.run(
        [tool, *command[1:]], input=text, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@functools.cache
def _lock() -> str:
    """A lock of this process's: iptables-legacy's is for the host's rules, and not everybody's to take."""
    return f"/proc/{os.getpid()}/fd/{os.memfd_create('xtables.lock')}"


def missing_tools(tools: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    return [tool for tool in tools if shutil.which(tool, path=_path()) is None]


def _path() -> str:
    """Where to look for tools; firewall tools are in sbin, which a plain user does not search."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def sysctl(name: str, text: str) -> None:
    """Set where this kernel has it; what it lacks it does not do either."""
    path = Path("/proc/sys", name)
    if path.exists():
        path.write_text(text)


def _offloads_off(device: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in OFFLOADS.values():
            wish = array.array("I", (command, 0))
            request = struct.pack("16sP", device.encode(), wish.buffer_info()[0])
            with contextlib.suppress(OSError):  # an offload that the device does not have
                fcntl.ioctl(any_socket, SIOCETHTOOL, request)


def forget_connections() -> None:
    """Empty the conntrack table of the current namespace.

    Source: Linux uapi/linux/netfilter/nfnetlink_conntrack.h IPCTNL_MSG_CT_DELETE, no attributes.
    """
    subsystem, delete, request_and_ack = 1, 2, 0x5
    message = struct.pack("=IHHIIBBH", 20, subsystem << 8 | delete, request_and_ack, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.send(message)
        answer = netlink.recv(4096)
    (error,) = struct.unpack_from("=i", answer, 16)
    if error:
        raise LabError(f"conntrack: {os.strerror(-error)}")
