"""What tshark says of the TLS connections in a capture, from its fields, without the engine's or crosscheck's help.

JA4 is not among the fields of tshark 4.0: it is computed here from the others, as JA4.md has it.
Source: Wireshark's display filter reference; github.com/FoxIO-LLC/ja4 technical_details/JA4.md.
"""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import md5, sha256
from pathlib import Path
from typing import Any, Final

FIELDS: Final = (
    "frame.number", "frame.protocols", "tcp.stream", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport",
    "tls.record.content_type", "tls.handshake.type", "tls.handshake.version", "tls.handshake.random",
    "tls.handshake.ciphersuite", "tls.handshake.extension.type", "tls.handshake.extensions.supported_version",
    "tls.handshake.extensions_server_name", "tls.handshake.extensions_alpn_str", "tls.handshake.sig_hash_alg",
    "tls.handshake.ja3", "tls.handshake.ja3_full", "tls.handshake.ja3s", "tls.handshake.ja3s_full",
    "tls.alert_message.level", "tls.alert_message.desc", "tcp.payload",
)  # fmt: skip
SEPARATOR: Final = "\x1f"
CLIENT_HELLO, SERVER_HELLO = "1", "2"
RETRY: Final = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
GREASE: Final = frozenset(range(0x0A0A, 0x10000, 0x1010))

Fact = dict[str, Any]
Endpoint = tuple[str, int]
Row = dict[str, list[str]]
"""Field -> its values, of a packet."""

OUT_OF_ORDER: Final = ("-o", "tcp.reassemble_out_of_order:TRUE")
"""tshark 4.0 does not put segments in order by default."""

_READ: Final[dict[bytes, Future[list[Row]]]] = {}


def read(path: Path) -> list[Row]:
    """The TCP packets of a capture."""
    with ThreadPoolExecutor(1) as reader:
        return read_by(reader, path).result()


def read_by(reader: ThreadPoolExecutor, path: Path) -> Future[list[Row]]:
    """The same, for later; files with the same bytes are read once."""
    data = path.read_bytes()
    if data not in _READ:
        _READ[data] = reader.submit(_read, path)
    return _READ[data]


def _read(path: Path) -> list[Row]:
    command = ["tshark", "-n", "-r", str(path), "-Y", "tcp", "-T", "fields", "-E", f"aggregator={SEPARATOR}"]
    for field in FIELDS:
        command += ("-e", field)
    environment = {**os.environ, "WIRESHARK_CONFIG_DIR": str(path.parent), "LC_ALL": "C.UTF-8"}
    output = subprocess.run(
        [*command, *OUT_OF_ORDER], check=True, capture_output=True, timeout=60, env=environment
    ).stdout.decode()
    return [
        {
            field: value.split(SEPARATOR)
            for field, value in zip(FIELDS, line.split("\t"), strict=True)
            if value
        }
        for line in output.splitlines()
    ]


def facts(path: Path) -> dict[int, Fact]:
    """tcp.stream -> what tshark says of it, of the streams with TLS."""
    return {stream: connection(rows) for stream, rows in streams(path).items() if any(map(is_tls, rows))}


def streams(path: Path) -> dict[int, list[Row]]:
    """tcp.stream -> its packets."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in read(path):
        found[int(row["tcp.stream"][-1])].append(row)
    return found


def is_tls(row: Row) -> bool:
    return any(name.startswith("tls.") for name in row)


def source(row: Row) -> Endpoint:
    return (row[f"{family(row)}.src"][-1], int(row["tcp.srcport"][-1]))


def destination(row: Row) -> Endpoint:
    return (row[f"{family(row)}.dst"][-1], int(row["tcp.dstport"][-1]))


def family(row: Row) -> str:
    """Of the innermost IP header."""
    layers = row["frame.protocols"][0].split(":")
    return next(layer for layer in reversed(layers) if layer in ("ip", "ipv6"))


def connection(rows: list[Row]) -> Fact:
    found: Fact = dict.fromkeys(("version", "cipher_suite_code", "sni", "alpn", "ja3", "ja3s", "ja4"))
    found |= {"alpn_offered": [], "client": None, "server": None, "hello_retry": False, "alerts": []}
    found["first_packet"], found["last_packet"] = (int(rows[at]["frame.number"][0]) for at in (0, -1))
    for row in rows:
        types = row.get("tls.handshake.type", [])
        if CLIENT_HELLO in types and found["ja3"] is None:
            found |= client_hello(row)
        if SERVER_HELLO in types:
            if found["client"] is None:
                found |= {"client": destination(row), "server": source(row)}
            if RETRY in row.get("tls.handshake.random", []):
                found["hello_retry"] = True
            elif found["version"] is None:
                found |= server_hello(row)
    for row in rows:
        side = None
        if found["client"] is not None:
            side = "client" if source(row) == found["client"] else "server"
        levels, descriptions = row.get("tls.alert_message.level", []), row.get("tls.alert_message.desc", [])
        for level, description in zip(levels, descriptions, strict=False):
            found["alerts"].append((side, int(level), int(description), int(row["frame.number"][0])))
    return found


def client_hello(row: Row) -> Fact:
    names = row.get("tls.handshake.extensions_server_name", [])
    offered = row.get("tls.handshake.extensions_alpn_str", [])
    (ja3,), (full,) = row["tls.handshake.ja3"], row["tls.handshake.ja3_full"]
    assert md5(full.encode()).hexdigest() == ja3
    return {
        "client": source(row),
        "server": destination(row),
        "sni": names[0] if names else None,
        "alpn_offered": offered,
        "ja3": ja3,
        "ja4": ja4(row, offered),
    }


def server_hello(row: Row) -> Fact:
    versions = row.get("tls.handshake.extensions.supported_version") or row["tls.handshake.version"]
    selected = row.get("tls.handshake.extensions_alpn_str", [])
    return {
        "version": int(versions[0], 0),
        "cipher_suite_code": int(row["tls.handshake.ciphersuite"][0], 0),
        "alpn": selected[0] if selected else None,
        "ja3s": row["tls.handshake.ja3s"][0],
    }


def numbers(row: Row, field: str) -> list[int]:
    return [number for value in row.get(field, []) if (number := int(value, 0)) not in GREASE]


def ja4(row: Row, offered: list[str]) -> str:
    """JA4 of the ClientHello in a packet."""
    suites = numbers(row, "tls.handshake.ciphersuite")
    extensions = numbers(row, "tls.handshake.extension.type")
    versions = numbers(row, "tls.handshake.extensions.supported_version") or numbers(
        row, "tls.handshake.version"
    )
    version = {0x304: "13", 0x303: "12", 0x302: "11", 0x301: "10", 0x300: "s3", 0x002: "s2"}[max(versions)]
    alpn = "00"
    if offered:
        alpn = offered[0][0] + offered[0][-1]
        assert alpn.isalnum(), "JA4.md has another rule for these"
    signatures = [f"{number:04x}" for number in numbers(row, "tls.handshake.sig_hash_alg")]
    ciphers = ",".join(f"{number:04x}" for number in sorted(suites))
    listed = ",".join(f"{number:04x}" for number in sorted(extensions) if number not in (0, 16))
    rest = "_".join((listed, ",".join(signatures))) if signatures else listed
    first = f"t{version}{'d' if 0 in extensions else 'i'}{min(len(suites), 99):02}{min(len(extensions), 99):02}{alpn}"
    return "_".join((first, *(short(text) for text in (ciphers, rest))))


def short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
