"""One np.dtype per fixed header, in network byte order.

In:  nothing; these are facts.
Out: dtypes that FIELDS, the decoder's offsets and the tests are derived from.
Source: named at each header.

A variable part (options, extensions, GRE's optional fields) never belongs here, only what has a fixed place.
Names of fields are nft's where nft has the header, else the RFC's, with `_` for `-` and for blanks.
"""

from __future__ import annotations

from typing import Final

import numpy as np

# --- link -----------------------------------------------------------------------------------------

ETHERNET: Final = np.dtype([("daddr", "V6"), ("saddr", "V6"), ("type", ">u2")])
"""IEEE 802.3 3.1.1. A type below 0x0600 is a length, and LLC follows."""

LLC_SNAP: Final = np.dtype(
    [("dsap", "u1"), ("ssap", "u1"), ("control", "u1"), ("oui", "V3"), ("type", ">u2")]
)
"""RFC 1042: IP over IEEE 802 networks."""

VLAN: Final = np.dtype([("tci", ">u2"), ("type", ">u2")])
"""IEEE 802.1Q 9.6, seen from behind the tag's own type."""

SLL: Final = np.dtype(
    [("packet_type", ">u2"), ("arphrd", ">u2"), ("address_length", ">u2"), ("address", "V8"), ("type", ">u2")]
)
"""LINKTYPE_LINUX_SLL, tcpdump.org/linktypes."""

SLL2: Final = np.dtype(
    [
        ("type", ">u2"),
        ("reserved", ">u2"),
        ("interface", ">u4"),
        ("arphrd", ">u2"),
        ("packet_type", "u1"),
        ("address_length", "u1"),
        ("address", "V8"),
    ]
)
"""LINKTYPE_LINUX_SLL2, tcpdump.org/linktypes."""

PPPOE: Final = np.dtype(
    [("version_type", "u1"), ("code", "u1"), ("session", ">u2"), ("length", ">u2"), ("protocol", ">u2")]
)
"""RFC 2516 4, with the PPP protocol of a session packet."""

MPLS: Final = np.dtype([("label_tc_s", ">u2"), ("rest", "u1"), ("ttl", "u1")])
"""RFC 3032 2.1. The bottom-of-stack bit is bit 0 of `rest`, which also ends the label."""

# --- tunnels --------------------------------------------------------------------------------------

GRE: Final = np.dtype([("flags_version", ">u2"), ("protocol", ">u2")])
"""RFC 2784 2, RFC 2890 2; version 1: RFC 2637 4.1."""

VXLAN: Final = np.dtype([("flags", "u1"), ("reserved", "V3"), ("vni", "V3"), ("reserved2", "u1")])
"""RFC 7348 5."""

GENEVE: Final = np.dtype(
    [("version_optlen", "u1"), ("flags", "u1"), ("protocol", ">u2"), ("vni", "V3"), ("reserved", "u1")]
)
"""RFC 8926 3.4."""

# --- network --------------------------------------------------------------------------------------

IPV4: Final = np.dtype(
    [
        ("version_hdrlength", "u1"),
        ("tos", "u1"),
        ("length", ">u2"),
        ("id", ">u2"),
        ("frag_off", ">u2"),
        ("ttl", "u1"),
        ("protocol", "u1"),
        ("checksum", ">u2"),
        ("saddr", ">u4"),
        ("daddr", ">u4"),
    ]
)
"""RFC 791 3.1."""

IPV6: Final = np.dtype(
    [
        ("version_class_label", ">u4"),
        ("length", ">u2"),
        ("nexthdr", "u1"),
        ("hoplimit", "u1"),
        ("saddr", "V16"),
        ("daddr", "V16"),
    ]
)
"""RFC 8200 3."""

IPV6_EXTENSION: Final = np.dtype([("nexthdr", "u1"), ("hdrlength", "u1"), ("data", "V6")])
"""RFC 8200 4.3, 4.4, 4.6: hop-by-hop, routing, destination options; length in 8 bytes, less the first 8."""

IPV6_FRAGMENT: Final = np.dtype([("nexthdr", "u1"), ("reserved", "u1"), ("frag_off", ">u2"), ("id", ">u4")])
"""RFC 8200 4.5."""

AH: Final = np.dtype(
    [("nexthdr", "u1"), ("hdrlength", "u1"), ("reserved", ">u2"), ("spi", ">u4"), ("sequence", ">u4")]
)
"""RFC 4302 2; length in 4 bytes, less the first 8."""

# --- transport ------------------------------------------------------------------------------------

TCP: Final = np.dtype(
    [
        ("sport", ">u2"),
        ("dport", ">u2"),
        ("sequence", ">u4"),
        ("ackseq", ">u4"),
        ("doff_reserved", "u1"),
        ("flags", "u1"),
        ("window", ">u2"),
        ("checksum", ">u2"),
        ("urgptr", ">u2"),
    ]
)
"""RFC 9293 3.1. The ninth flag, NS (RFC 3540, historic; AE since RFC 9768), is bit 0 of `doff_reserved`."""

UDP: Final = np.dtype([("sport", ">u2"), ("dport", ">u2"), ("length", ">u2"), ("checksum", ">u2")])
"""RFC 768."""

# --- TLS ------------------------------------------------------------------------------------------

TLS_RECORD: Final = np.dtype([("content_type", "u1"), ("version", ">u2"), ("length", ">u2")])
"""RFC 8446 5.1."""

TLS_HANDSHAKE: Final = np.dtype([("handshake_type", "u1"), ("handshake_length", "V3")])
"""RFC 8446 4."""

TLS_HELLO: Final = np.dtype([("client_version", ">u2"), ("random", "V32"), ("session_id_length", "u1")])
"""RFC 8446 4.1.2: how ClientHello and, alike, ServerHello open."""

TLS_SESSION_ID: Final = np.dtype([("session_id", "V32")])
"""RFC 5246 7.4.1.2: behind its length, where that is 32."""

TLS_SERVER_CHOICE: Final = np.dtype(
    [
        ("cipher_suite", ">u2"),
        ("compression_method", "u1"),
        ("extensions_length", ">u2"),
        ("extension_type", ">u2"),
        ("extension_length", ">u2"),
        ("selected_version", ">u2"),
    ]
)
"""RFC 5246 7.4.1.3, RFC 8446 4.1.3, 4.2.1: a ServerHello behind session_id, as far as its first extension.
`selected_version` is what that one holds where it is supported_versions."""

TLS_ALERT: Final = np.dtype([("alert_level", "u1"), ("alert_description", "u1")])
"""RFC 8446 6."""

TLS_HEARTBEAT: Final = np.dtype([("heartbeat_type", "u1"), ("heartbeat_payload_length", ">u2")])
"""RFC 6520 4."""

SSL2_HELLO: Final = np.dtype([("record_length", ">u2"), ("message_type", "u1"), ("version", ">u2")])
"""RFC 6101 E: an SSLv2 record with a header of two bytes (top bit of the length set), then ClientHello."""

SSL2_CLIENT_HELLO: Final = np.dtype(
    [("cipher_specs_length", ">u2"), ("session_id_length", ">u2"), ("challenge_length", ">u2")]
)
"""RFC 6101 E.1: what follows SSL2_HELLO in a ClientHello."""

SSL2_SERVER_HELLO: Final = np.dtype(
    [("session_id_hit", "u1"), ("certificate_type", "u1"), ("server_version", ">u2")]
)
"""draft-hickman-netscape-ssl-00, SERVER-HELLO: behind the message type, where a client has its version."""
