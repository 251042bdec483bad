"""What tshark says of the TLS in a capture.

In:  a capture file.
Out: TlsFrame (a packet that tshark finds TLS in), TlsConnection (one per tcp.stream), a packet's dissection.
Source: `tshark -T ek` with the fields below (Wireshark's display filter reference); pyshark for dissect().

tshark runs with an empty configuration, so that nobody's preferences, key logs or plugins change its opinion.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from analyzer.errors import CaptureError
from analyzer.model import Side
from analyzer.tls.handshake import HELLO_RETRY_REQUEST_RANDOM
from analyzer.wire.iana import ContentType, HandshakeType, Ssl2MessageType

OPTIONS: Final = ("-n", "-o", "tcp.reassemble_out_of_order:TRUE")
"""No name resolution; segments out of order are put in order, which tshark 4.0 does not do by default."""

FIELDS: Final = (
    "frame.number",
    "frame.protocols",
    "tcp.stream",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tls.record.content_type",
    "tls.record.opaque_type",
    "tls.handshake.type",
    "tls.handshake.length",
    "tls.handshake.version",
    "tls.handshake.random",
    "tls.handshake.ciphersuite",
    "tls.handshake.cipherspec",
    "tls.handshake.extensions.supported_version",
    "tls.handshake.extensions_server_name",
    "tls.handshake.extensions_alpn_str",
    "tls.handshake.ja3",
    "tls.handshake.ja3s",
    "tls.alert_message.level",
    "tls.alert_message.desc",
    "tls.heartbeat_message.type",
)


class TsharkMissing(OSError):
    """tshark is not installed."""

    def __init__(self) -> None:
        super().__init__("tshark is not installed, and it gives the second opinion: apt install tshark")


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Alert:
    side: Side | None
    level: int
    description: int
    packet: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message that tshark could read, in the packet that completes it."""

    connection: int
    packet: int
    side: Side | None
    """None where no hello says who is who."""
    kind: str
    """handshake, ssl2, heartbeat or change_cipher_spec."""
    type: int
    length: int = 0
    """Of a handshake message's body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFrame:
    """A packet in which tshark finds TLS."""

    packet: int
    stream: int
    source: Endpoint
    destination: Endpoint
    values: Mapping[str, Sequence[str]]
    """Field -> its values, in the order of the packet."""

    def first(self, name: str) -> str | None:
        """The first value of a field."""
        return next(iter(self.values.get(name, ())), None)

    def numbers(self, name: str) -> tuple[int, ...]:
        """The values of an integer field."""
        return tuple(int(value, 0) for value in self.values.get(name, ()))


@dataclass(slots=True, kw_only=True)
class TlsConnection:
    """The TLS of a TCP connection, as far as it is readable without keys."""

    connection: int
    """tcp.stream."""
    client: Endpoint | None = None
    """Who sent the ClientHello; None if neither hello is in the capture."""
    server: Endpoint | None = None
    version: int | None = None
    """Negotiated, from the ServerHello."""
    cipher_suite: int | None = None
    hello_retry: bool = False
    sni: str | None = None
    alpn: str | None = None
    alpn_offered: tuple[str, ...] = ()
    ja3: str | None = None
    """Of the first ClientHello."""
    ja3s: str | None = None
    """Of the ServerHello, not of a HelloRetryRequest."""
    alerts: list[Alert] = field(default_factory=list)
    """Those in clear."""
    messages: list[Message] = field(default_factory=list)
    records: Counter[tuple[Side | None, int]] = field(default_factory=Counter)
    """Records of each side and content type, complete in the capture."""


def tls_frames(path: str | Path) -> Iterator[TlsFrame]:
    """Read a capture with tshark, one packet with TLS at a time.

    Raises:
        TsharkMissing: There is no tshark.
        CaptureError: tshark can't read the file.
    """
    for values in _lines(path):
        if "tcp.stream" not in values:  # QUIC, DTLS, EAP
            continue
        # of tunnels every header is there; the innermost carries the segment
        layers = reversed(values["frame.protocols"][0].split(":"))
        family = next(layer for layer in layers if layer in ("ip", "ipv6"))
        yield TlsFrame(
            packet=int(values["frame.number"][0]),
            stream=int(values["tcp.stream"][-1]),
            source=Endpoint(values[f"{family}.src"][-1], int(values["tcp.srcport"][-1])),
            destination=Endpoint(values[f"{family}.dst"][-1], int(values["tcp.dstport"][-1])),
            values=values,
        )


def tls_connections(path: str | Path) -> list[TlsConnection]:
    """Read a capture with tshark, gathered by TCP connection, in order of their numbers."""
    gathering: dict[int, _Gathering] = {}
    for frame in tls_frames(path):
        if frame.stream not in gathering:
            gathering[frame.stream] = _Gathering(frame.stream)
        gathering[frame.stream].feed(frame)
    return [gathering[stream].finish() for stream in sorted(gathering)]


def tls_messages(path: str | Path) -> list[Message]:
    """The messages that tshark can read, in the order of the capture."""
    messages = (message for connection in tls_connections(path) for message in connection.messages)
    return sorted(messages, key=lambda message: message.packet)


def dissect(path: str | Path, packet: int) -> str:
    """The full dissection of one packet, as text, by way of pyshark.

    Raises:
        TsharkMissing: There is no tshark.
        ValueError: The capture has no such packet.
    """
    _find_tshark()
    # A thread of its own: pyshark runs an event loop, and in a notebook there is one already.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(_dissect, path, packet).result()


def _dissect(path: str | Path, number: int) -> str:
    import pyshark
    from pyshark.capture.capture import TSharkCrashException

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    capture = pyshark.FileCapture(
        str(path),
        display_filter=f"frame.number == {int(number)}",
        custom_parameters=list(OPTIONS),
        keep_packets=False,
        eventloop=loop,
    )
    try:
        packet = next(iter(capture), None)
    finally:
        # pyshark kills tshark, which may just have ended; asyncio then makes 255 of its status, and close() a
        # crash. What it raises before that comes through.
        with suppress(TSharkCrashException):
            capture.close()
        capture._running_processes.clear()  # else __del__ closes again, with a closed loop
        loop.close()
    if packet is None:
        raise ValueError(f"{path} has no packet {number}")
    return str(packet)


def _find_tshark() -> str:
    command = shutil.which("tshark")
    if command is None:
        raise TsharkMissing
    return command


def _lines(path: str | Path) -> Iterator[dict[str, list[str]]]:
    command = [_find_tshark(), *OPTIONS, "-r", os.fspath(path), "-Y", "tls", "-T", "ek"]
    for name in FIELDS:
        command += ("-e", name)
    names = {name.replace(".", "_"): name for name in FIELDS}
    with tempfile.TemporaryDirectory() as configuration, tempfile.TemporaryFile() as errors:
        environment = {**os.environ, "WIRESHARK_CONFIG_DIR": configuration, "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(b'{"timestamp"'):  # each is preceded by an index line for Elasticsearch
                    layers: dict[str, Any] = json.loads(line.decode(errors="backslashreplace"))["layers"]
                    yield {names[key]: values for key, values in layers.items()}
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if status:
            errors.seek(0)
            _raise_unless_cut(os.fspath(path), errors.read().decode(errors="replace"))


def _raise_unless_cut(path: str, messages: str) -> None:
    """A capture that was cut short has been read up to there, as tlswall does too."""
    if "appears to have been cut short" in messages:
        return
    lines = [line for line in messages.splitlines() if line.startswith("tshark: ")]
    why = lines[-1].removeprefix("tshark: ") if lines else "tshark failed"
    raise CaptureError(path, 0, f"tshark: {why}")


class _Gathering:
    """One TCP connection while tshark's packets come in."""

    def __init__(self, stream: int) -> None:
        self.connection = TlsConnection(connection=stream)
        self._waiting: list[TlsFrame] = []
        self._client_hello_taken = False

    def feed(self, frame: TlsFrame) -> None:
        """Take a packet in; before a hello has said who is who, it waits."""
        if self.connection.client is None:
            self._find_roles(frame)
            self._waiting.append(frame)
            if self.connection.client is not None:
                self.finish()
        else:
            self._take(frame)

    def finish(self) -> TlsConnection:
        """Take in what waits."""
        for frame in self._waiting:
            self._take(frame)
        self._waiting.clear()
        return self.connection

    def _find_roles(self, frame: TlsFrame) -> None:
        """The client is who sent a ClientHello (1 in SSL 2.0 too), whoever opened the TCP connection."""
        types = frame.numbers("tls.handshake.type")
        if HandshakeType.CLIENT_HELLO in types:
            self.connection.client, self.connection.server = frame.source, frame.destination
        elif HandshakeType.SERVER_HELLO in types:
            self.connection.client, self.connection.server = frame.destination, frame.source

    def _take(self, frame: TlsFrame) -> None:
        connection = self.connection
        side: Side | None = Side.CLIENT if frame.source == connection.client else Side.SERVER
        if connection.client is None:
            side = None
        for name in ("tls.record.content_type", "tls.record.opaque_type"):
            connection.records.update((side, content_type) for content_type in frame.numbers(name))
        types = frame.numbers("tls.handshake.type")
        self._take_messages(frame, types, side)
        levels = frame.numbers("tls.alert_message.level")
        descriptions = frame.numbers("tls.alert_message.desc")
        for level, description in zip(levels, descriptions, strict=False):
            connection.alerts.append(Alert(side, level, description, frame.packet))
        if side == Side.CLIENT and not self._client_hello_taken and HandshakeType.CLIENT_HELLO in types:
            self._client_hello_taken = True
            _take_client_hello(connection, frame)
        elif side == Side.SERVER and connection.version is None:
            _take_server_hello(connection, frame, types)

    def _take_messages(self, frame: TlsFrame, types: Sequence[int], side: Side | None) -> None:
        kind = "ssl2" if "tls.handshake.cipherspec" in frame.values else "handshake"
        changes = [n for n in frame.numbers("tls.record.content_type") if n == ContentType.CHANGE_CIPHER_SPEC]
        for message_kind, numbers, lengths in (
            (kind, types, frame.numbers("tls.handshake.length")),
            ("heartbeat", frame.numbers("tls.heartbeat_message.type"), ()),
            ("change_cipher_spec", changes, ()),
        ):
            for number, length in zip_longest(numbers, lengths[: len(numbers)], fillvalue=0):
                self.connection.messages.append(
                    Message(self.connection.connection, frame.packet, side, message_kind, number, length)
                )


def _take_client_hello(connection: TlsConnection, frame: TlsFrame) -> None:
    connection.ja3 = frame.first("tls.handshake.ja3")
    connection.sni = frame.first("tls.handshake.extensions_server_name")
    connection.alpn_offered = tuple(frame.values.get("tls.handshake.extensions_alpn_str", ()))


def _take_server_hello(connection: TlsConnection, frame: TlsFrame, types: Sequence[int]) -> None:
    version = frame.first("tls.handshake.extensions.supported_version") or frame.first(
        "tls.handshake.version"
    )
    if "tls.handshake.cipherspec" in frame.values and Ssl2MessageType.SERVER_HELLO in types:
        connection.version = int(version, 0) if version else None
    if HandshakeType.SERVER_HELLO not in types:
        return
    if (
        bytes.fromhex((frame.first("tls.handshake.random") or "").replace(":", ""))
        == HELLO_RETRY_REQUEST_RANDOM
    ):
        connection.hello_retry = True
        return
    connection.version = int(version, 0) if version else None
    connection.cipher_suite = next(iter(frame.numbers("tls.handshake.ciphersuite")), None)
    connection.alpn = frame.first("tls.handshake.extensions_alpn_str")
    connection.ja3s = frame.first("tls.handshake.ja3s")
