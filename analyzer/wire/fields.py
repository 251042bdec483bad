"""FIELDS: where each header field lies, so that the decoder, the rules and the tests cannot differ.

In:  wire.headers, and a small table for fields that are not whole bytes.
Out: FIELDS: name -> Field(name, layer, byte_offset, bit_offset, width_bits).
Source: the RFCs named in wire.headers; names are nft's (`ip saddr` is "ip.saddr") where nft has the field.

An offset is from the start of the field's layer and assumes nothing variable before the field: payload starts
behind TCP's options, and tls.* and ssl2.* fields are where they are in the *first* record of that payload.
What a ServerHello has behind its session_id has two names: tls.sid0.* where that is empty, tls.sid32.* where
it has 32 bytes; whoever tests such a field tests tls.session_id_length too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from analyzer.wire import headers


class Layer(StrEnum):
    """What a field's offset is counted from."""

    NETWORK = "network"
    """The IPv4 or IPv6 header."""
    TRANSPORT = "transport"
    """The TCP or UDP header."""
    PAYLOAD = "payload"
    """The first byte behind the transport header and its options."""


class Field(NamedTuple):
    """`width_bits` bits from bit `bit_offset` (0 is the most significant) of byte `byte_offset`."""

    name: str
    layer: Layer
    byte_offset: int
    bit_offset: int
    width_bits: int

    @property
    def width_bytes(self) -> int:
        """Bytes that have to be read to see all of the field."""
        return (self.bit_offset + self.width_bits + 7) // 8


_BODY: Final = headers.TLS_RECORD.itemsize + headers.TLS_HANDSHAKE.itemsize
_SESSION_ID: Final = _BODY + headers.TLS_HELLO.itemsize

# fmt: off
_HEADERS: Final = (
    # prefix  header                  layer             starts at (bytes from the layer)
    ("ip",    headers.IPV4,           Layer.NETWORK,    0),
    ("ip6",   headers.IPV6,           Layer.NETWORK,    0),
    ("tcp",   headers.TCP,            Layer.TRANSPORT,  0),
    ("udp",   headers.UDP,            Layer.TRANSPORT,  0),
    ("tls",   headers.TLS_RECORD,     Layer.PAYLOAD,    0),
    ("tls",   headers.TLS_HANDSHAKE,  Layer.PAYLOAD,    headers.TLS_RECORD.itemsize),
    ("tls",   headers.TLS_HELLO,      Layer.PAYLOAD,    _BODY),
    ("tls",   headers.TLS_SESSION_ID,   Layer.PAYLOAD,    _SESSION_ID),
    ("tls.sid0",   headers.TLS_SERVER_CHOICE,  Layer.PAYLOAD, _SESSION_ID),
    ("tls.sid32",  headers.TLS_SERVER_CHOICE,  Layer.PAYLOAD, _SESSION_ID + headers.TLS_SESSION_ID.itemsize),
    ("tls",   headers.TLS_ALERT,      Layer.PAYLOAD,    headers.TLS_RECORD.itemsize),
    ("tls",   headers.TLS_HEARTBEAT,  Layer.PAYLOAD,    headers.TLS_RECORD.itemsize),
    ("ssl2",  headers.SSL2_HELLO,     Layer.PAYLOAD,    0),
    ("ssl2",  headers.SSL2_CLIENT_HELLO,  Layer.PAYLOAD, headers.SSL2_HELLO.itemsize),
    ("ssl2",  headers.SSL2_SERVER_HELLO,  Layer.PAYLOAD, 3),
)

_PARTS: Final = (
    # name                  part of                     bit from its start    width in bits
    ("ip.version",          "ip.version_hdrlength",     0,                    4),
    ("ip.hdrlength",        "ip.version_hdrlength",     4,                    4),
    ("ip.dscp",             "ip.tos",                   0,                    6),
    ("ip.ecn",              "ip.tos",                   6,                    2),
    ("ip.flags",            "ip.frag_off",              0,                    3),
    ("ip.fragment_offset",  "ip.frag_off",              3,                    13),
    ("ip6.version",         "ip6.version_class_label",  0,                    4),
    ("ip6.dscp",            "ip6.version_class_label",  4,                    6),
    ("ip6.ecn",             "ip6.version_class_label",  10,                   2),
    ("ip6.flowlabel",       "ip6.version_class_label",  12,                   20),
    ("tcp.doff",            "tcp.doff_reserved",        0,                    4),
    ("tcp.reserved",        "tcp.doff_reserved",        4,                    4),
    ("tls.random_tail",     "tls.random",               192,                  64),
    ("ssl2.length",         "ssl2.record_length",       1,                    15),
)
# fmt: on


def _whole(prefix: str, header: np.dtype[Any], layer: Layer, start: int) -> Iterator[Field]:
    for name in header.names or ():
        dtype, offset = header.fields[name][:2]  # type: ignore[index]  # a structured dtype always has fields
        yield Field(f"{prefix}.{name}", layer, start + offset, 0, 8 * dtype.itemsize)


def _index() -> dict[str, Field]:
    fields = {field.name: field for row in _HEADERS for field in _whole(*row)}
    for name, whole_name, bit, width_bits in _PARTS:
        whole = fields[whole_name]
        fields[name] = Field(name, whole.layer, whole.byte_offset + bit // 8, bit % 8, width_bits)
    return fields


FIELDS: Final = MappingProxyType(_index())
"""Every field, by name. "tcp.flags" is byte 13, as in nft; the ninth flag, NS, ends "tcp.reserved"."""
