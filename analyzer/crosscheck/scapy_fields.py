"""What scapy says of the packets in a capture.

In:  a capture file; or, for the same table of ours, the packet columns of its blocks.
Out: a dict of lists, one entry per packet: COLUMNS.
Source: scapy's own dissectors; none of our offsets is used.

The innermost IP header counts, as in columns.decode. scapy puts no fragments together: such a packet is a
FRAGMENT here even where it completed its datagram. Where scapy leaves a payload undissected before it came
to IP, as it does with link types that it does not know, it has no opinion: `kind` is None.
"""

from __future__ import annotations

import gzip
import ipaddress
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from analyzer.columns.packets import Columns
from analyzer.columns.schema import Kind
from analyzer.errors import CaptureError

COLUMNS: Final = (
    "packet",
    "kind",
    "source",
    "destination",
    "sport",
    "dport",
    "seq",
    "ack",
    "flags",
    "payload_length",
)
"""`kind` is a Kind. Addresses from FRAGMENT on, ports for UDP and TCP, the rest for TCP; otherwise None."""

Row = tuple[Any, ...]


def packet_columns_from_scapy(path: str | Path) -> dict[str, list[Any]]:
    """Read a capture (pcap or pcapng, also .gz) with scapy.

    Raises:
        CaptureError: scapy can't read the file.
    """
    with _quiet():
        return _table(_scapy_rows(path))


def packet_columns_from_blocks(blocks: Iterable[Columns]) -> dict[str, list[Any]]:
    """The same table from what the decoder made of the capture."""
    return _table(row for columns in blocks for row in _our_rows(columns))


def _table(rows: Iterable[Row]) -> dict[str, list[Any]]:
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    return {name: list(values) for name, values in zip(COLUMNS, columns, strict=True)}


# --- scapy --------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Without scapy's remarks on single packets; the comparison shows what matters."""
    logger = logging.getLogger("scapy")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _scapy_rows(path: str | Path) -> Iterator[Row]:
    # Each import registers link types and protocols with scapy.
    import scapy.contrib.erspan
    import scapy.contrib.etherip
    import scapy.contrib.geneve
    import scapy.contrib.mpls
    import scapy.layers.inet6
    import scapy.layers.ipsec
    import scapy.layers.l2
    import scapy.layers.ppp
    import scapy.layers.vxlan  # noqa: F401
    from scapy.error import Scapy_Exception
    from scapy.utils import PcapReader

    number = 0
    try:
        # scapy would leave the file open that it can't read, so it is given an open one
        with _open(Path(path)) as file, PcapReader(cast(Any, file)) as reader:
            for number, packet in enumerate(reader, start=1):
                yield (number, *_scapy_row(packet))
    except (Scapy_Exception, OSError, EOFError) as error:
        raise CaptureError(str(path), 0, f"scapy stopped behind packet {number}: {error}") from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


def _scapy_row(packet: Any) -> Row:
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
    from scapy.packet import Raw

    network = fragment = None
    above: Any = None
    undissected = False
    layer = packet
    while layer:
        if isinstance(layer, IP | IPv6):
            network, fragment, above = layer, None, None
        elif isinstance(layer, IPv6ExtHdrFragment):
            fragment = layer
        elif isinstance(layer, TCP | UDP):
            above = layer
        undissected = undissected or isinstance(layer, Raw)
        layer = layer.payload
    if network is None:
        return (None if undissected else Kind.OTHER, *[None] * (len(COLUMNS) - 2))
    addresses = tuple(str(ipaddress.ip_address(address)) for address in (network.src, network.dst))
    rest: Row = (None,) * 6
    if isinstance(network, IP):
        is_fragment = bool(network.flags.MF or network.frag)
    else:
        is_fragment = fragment is not None and bool(fragment.m or fragment.offset)
    if is_fragment:
        return (Kind.FRAGMENT, *addresses, *rest)
    if isinstance(above, UDP):
        return (Kind.UDP, *addresses, above.sport, above.dport, *rest[2:])
    if not isinstance(above, TCP):
        return (Kind.IP, *addresses, *rest)
    on_wire = len(above.original) + max(0, packet.wirelen - len(packet.original))
    size = on_wire
    if isinstance(network, IP) and network.len:
        size = min(on_wire, network.len - 4 * network.ihl)
    elif isinstance(network, IPv6) and network.plen:
        size = min(on_wire, network.plen - (len(network.payload.original) - len(above.original)))
    if above.dataofs < 5 or 4 * above.dataofs > size:
        return (Kind.MALFORMED, *[None] * (len(COLUMNS) - 2))
    return (
        Kind.TCP,
        *addresses,
        above.sport,
        above.dport,
        above.seq,
        above.ack,
        int(above.flags),
        size - 4 * above.dataofs,
    )


# --- ours ---------------------------------------------------------------------------------------


def _our_rows(columns: Columns) -> Iterator[Row]:
    names = (
        *("packet", "kind", "ip_version", "src_hi", "src_lo", "dst_hi", "dst_lo"),
        *("sport", "dport", "seq", "ack", "flags", "payload_length"),
    )
    for packet, kind, version, src_hi, src_lo, dst_hi, dst_lo, sport, dport, *tcp in zip(
        *(getattr(columns, name).tolist() for name in names), strict=True
    ):
        shown = kind >= Kind.FRAGMENT
        yield (
            packet,
            Kind(kind),
            _address(version, src_hi, src_lo) if shown else None,
            _address(version, dst_hi, dst_lo) if shown else None,
            *((sport, dport) if kind >= Kind.UDP else (None, None)),
            *(tcp if kind == Kind.TCP else (None,) * 4),
        )


def _address(version: int, upper: int, lower: int) -> str:
    if version == 4:
        return str(ipaddress.IPv4Address(lower & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(upper << 64 | lower))
