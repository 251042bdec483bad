"""Hellos, records and the packets that carry them, for the tests of the policies."""

from __future__ import annotations

from analyzer.model import Side
from rulegen.testbed.packets import ACK, SYN, Segment

SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
C, S = Side.CLIENT, Side.SERVER
ENDS = {4: ("192.0.2.1", "198.51.100.7"), 6: ("2001:db8::1", "2001:db8:1::7")}


def record(kind: int, body: bytes, version: int = TLS12) -> bytes:
    return bytes((kind,)) + version.to_bytes(2) + len(body).to_bytes(2) + body


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3) + body


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2) + len(body).to_bytes(2) + body


def client_hello(
    version: int = TLS12,
    *,
    session_id: bytes = b"",
    suites: tuple[int, ...] = (0xC02F, 0x009C),
    record_version: int = TLS10,
    random: bytes = bytes(range(32)),
    extensions: bytes = b"",
) -> bytes:
    """A whole record."""
    offered = b"".join(suite.to_bytes(2) for suite in suites)
    body = version.to_bytes(2) + random + bytes((len(session_id),)) + session_id
    body += len(offered).to_bytes(2) + offered + b"\x01\x00"
    body += len(extensions).to_bytes(2) + extensions if extensions else b""
    return record(22, message(1, body), record_version)


def server_hello(
    version: int = TLS12,
    *,
    session_id: bytes = b"",
    suite: int = 0xC02F,
    compression: int = 0,
    record_version: int = TLS12,
    random: bytes = bytes(range(32)),
    extensions: bytes = b"",
) -> bytes:
    """A whole record."""
    body = version.to_bytes(2) + random + bytes((len(session_id),)) + session_id
    body += suite.to_bytes(2) + bytes((compression,))
    body += len(extensions).to_bytes(2) + extensions if extensions else b""
    return record(22, message(2, body), record_version)


def sent(side: Side, payload: bytes = b"", family: int = 4, **changes: object) -> tuple[Side, bytes]:
    """A packet between the client's port 40000 and the server's port 443."""
    ends, ports = ENDS[family], (40000, 443)
    if side is S:
        ends, ports = ends[::-1], ports[::-1]
    values = {
        "source": ends[0],
        "destination": ends[1],
        "source_port": ports[0],
        "destination_port": ports[1],
        "payload": payload,
    }
    return side, Segment(**(values | changes)).packet()  # type: ignore[arg-type]


def opening(family: int = 4, port: int = 40000) -> list[tuple[Side, bytes]]:
    """The three segments that open the connection; both sides' data begins at sequence number 1."""
    there, back = {"source_port": port}, {"destination_port": port}
    return [
        sent(C, b"", family, flags=SYN, sequence=0, acknowledgement=0, **there),
        sent(S, b"", family, flags=SYN | ACK, sequence=0, acknowledgement=1, **back),
        sent(C, b"", family, flags=ACK, **there),
    ]


def refused(bench, packets) -> list[bool]:
    return [not fate.passed for fate in bench.send(packets)]
