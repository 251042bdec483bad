"""TLS inside another protocol that was offered and not used (catalogue DG21).

In:  connections without TLS: the first 14 bytes of each direction, and what upgrades.offer read in its first
message.
Source: PostgreSQL protocol 55.2.10 and 55.2.11; RFC 4511 4.14 (StartTLS); MySQL 8.0 "Connection Phase";
MS-RDPBCGR 5.4.5; MS-TDS 2.2.6.5.

Only what goes on in clear afterwards counts: a client that closes when it is refused has done the right
thing. With bytes missing nothing is said. STARTTLS of mail protocols is text and not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from analyzer.connections import Batch
from analyzer.detect.base import Detector, Evidence, Hit, Rule
from analyzer.model import Action, Severity
from analyzer.tls.upgrades import Offer

RULES: Final = (
    Rule(
        "DG21",
        "TLS inside another protocol refused or not used",
        Severity.MEDIUM,
        Action.CORROBORATE,
        "Client or server offered to go over to TLS, the other side did not take it, and they went on "
        "in clear, credentials included. Where the client asked and was told no, somebody on the path "
        "may have answered for the server: a client that must not be downgraded has to insist "
        "(sslmode=require and the like). Where the server offers and the client does not use it, the "
        "client's configuration is to be changed.",
        ("PostgreSQL protocol 55.2.10", "RFC 4511 4.14", "MS-RDPBCGR 5.4.5", "MS-TDS 2.2.6.5"),
    ),
)

HEAD_BYTES: Final = 14
"""What HEAD_A and HEAD_B hold of a stream."""

_SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
_GSSENC_REQUEST: Final = bytes.fromhex("0000000804d21630")
_FIRST_SEVEN: Final = int.from_bytes(_SSL_REQUEST[:7], "big")
_CLIENT_SSL: Final = 0x0800
_CLIENT_PROTOCOL_41: Final = 0x0200
_RDP_PROTOCOLS: Final = {1: "TLS", 2: "CredSSP (TLS)", 8: "CredSSP with early authorisation (TLS)"}
_TDS_ENCRYPTION: Final = ("off", "on", "not supported", "required")
_NOT_SUPPORTED: Final = 2
_LDAP_BYTES: Final = 31 + 7 + 16
"""A StartTLS request and an UnbindRequest, with room for lengths in their long form: no more is no login."""


def within(evidence: Evidence) -> Iterator[Hit]:
    """DG21."""
    plain = evidence.plain
    if not len(plain):
        return
    whole = (plain["GAPS_0"] == 0) & (plain["GAPS_1"] == 0) & (plain["BYTES_0"] > 0) & (plain["BYTES_1"] > 0)
    for client in (0, 1):
        server = 1 - client
        asks = (plain[f"HEAD_A_{client}"] == _FIRST_SEVEN) & (plain[f"HEAD_BYTES_{client}"] >= HEAD_BYTES)
        offered = plain[f"OFFER_{server}"] != 0
        for row in np.flatnonzero(whole & (asks | offered)).tolist():
            hit = _judge(plain, row, client)
            if hit is not None:
                yield hit


def _judge(plain: Batch, row: int, client: int) -> Hit | None:
    server = 1 - client
    said, answered = _head(plain, row, client), _head(plain, row, server)
    offer = int(plain[f"OFFER_{server}"][row])
    if offer:
        kind, value = Offer(offer >> 32), offer & 0xFFFFFFFF
        if kind == Offer.MYSQL_GREETING:
            return _mysql(plain, row, client, value, said)
        if kind == Offer.RDP_RESPONSE:
            return _rdp(plain, row, client, value)
        if kind == Offer.LDAP_RESULT:
            return _ldap(plain, row, client, value, answered)
        if kind == Offer.TDS_PRELOGIN:
            return _tds(plain, row, client, value, said, answered)
    elif said[:7] == _SSL_REQUEST[:7]:
        return _postgresql(plain, row, client, said, answered)
    return None


def _head(plain: Batch, row: int, direction: int) -> bytes:
    """The first bytes of a direction, up to 14."""
    count = int(plain[f"HEAD_BYTES_{direction}"][row])
    first = int(plain[f"HEAD_A_{direction}"][row]).to_bytes(7, "big")
    second = int(plain[f"HEAD_B_{direction}"][row]).to_bytes(7, "big")
    return first[7 - min(count, 7) :] + second[7 - max(count - 7, 0) :]


def _hit(plain: Batch, row: int, side: int, *, refused: bool, evidence: dict[str, object]) -> Hit:
    """A hit whose packet is the first that `side` sent with data: its answer."""
    return Hit(
        rule="DG21",
        batch=plain,
        row=row,
        packets=(int(plain[f"FIRST_DATA_{side}"][row]),),
        evidence={**evidence, "expected_version": "TLS", "seen_version": "none"},
        action=None if refused else Action.POSTURE,
    )


def _postgresql(plain: Batch, row: int, client: int, said: bytes, answered: bytes) -> Hit | None:
    if said[:8] == _SSL_REQUEST:
        no = answered[:1]
        in_clear = said[12:14] == b"\0\3"  # the startup message's protocol version, behind its length
    elif said[:8] == _GSSENC_REQUEST and said[8:14] == _SSL_REQUEST[:6]:
        # refused twice, GSS and TLS; the client goes on out of sight, but the server asks for credentials
        no = answered[1:2] if answered[:1] == b"N" else b""
        in_clear = answered[2:3] == b"R"
    else:
        return None
    if no != b"N" or not in_clear:
        return None
    return _hit(
        plain,
        row,
        1 - client,
        refused=True,
        evidence={
            "protocol": "postgresql",
            "asked": "SSLRequest",
            "answer": "N (no)",
            "bytes": no.hex(),
            "asked_bytes": said[:8].hex(),
        },
    )


def _ldap(plain: Batch, row: int, client: int, code: int, answered: bytes) -> Hit | None:
    asked = int(plain[f"OFFER_{client}"][row]) >> 32 == Offer.LDAP_START_TLS
    if not asked or code == 0 or plain[f"BYTES_{client}"][row] <= _LDAP_BYTES:
        return None
    return _hit(
        plain,
        row,
        1 - client,
        refused=True,
        evidence={
            "protocol": "ldap",
            "asked": "StartTLS",
            "answer": f"resultCode {code}",
            "bytes": answered.hex(),
        },
    )


def _mysql(plain: Batch, row: int, client: int, flags: int, said: bytes) -> Hit | None:
    if not flags & _CLIENT_SSL or len(said) < 8 or said[3] != 1:
        return None
    capabilities = int.from_bytes(said[4:8], "little")
    if capabilities & _CLIENT_SSL or not capabilities & _CLIENT_PROTOCOL_41:
        return None
    return _hit(
        plain,
        row,
        client,
        refused=False,
        evidence={
            "protocol": "mysql",
            "server_capabilities": f"{flags:04x}",
            "client_capabilities": f"{capabilities:08x}",
            "answer": "login without CLIENT_SSL",
            "bytes": said[:8].hex(),
        },
    )


def _rdp(plain: Batch, row: int, client: int, selected: int) -> Hit | None:
    request = int(plain[f"OFFER_{client}"][row])
    asked = request & 0xFFFFFFFF
    names = [name for bit, name in _RDP_PROTOCOLS.items() if asked & bit]
    first = int.from_bytes(_head(plain, row, client)[2:4], "big")
    if (
        request >> 32 != Offer.RDP_REQUEST
        or not names
        or selected != 0
        or plain[f"BYTES_{client}"][row] <= first
    ):
        return None
    return _hit(
        plain,
        row,
        1 - client,
        refused=True,
        evidence={
            "protocol": "rdp",
            "asked": names,
            "answer": "standard RDP security",
            "bytes": _head(plain, row, 1 - client).hex(),
            "requested_protocols": f"{asked:08x}",
            "selected_protocol": f"{selected:08x}",
        },
    )


def _tds(plain: Batch, row: int, client: int, answer: int, said: bytes, answered: bytes) -> Hit | None:
    request = int(plain[f"OFFER_{client}"][row])
    asked = request & 0xFFFFFFFF
    if (
        request >> 32 != Offer.TDS_PRELOGIN
        or said[:1] != b"\x12"
        or answered[:1] != b"\x04"
        or max(asked, answer) > 3
    ):
        return None
    if (asked == _NOT_SUPPORTED) == (answer == _NOT_SUPPORTED) or plain[f"BYTES_{client}"][
        row
    ] <= int.from_bytes(said[2:4], "big"):
        return None
    refused = answer == _NOT_SUPPORTED
    return _hit(
        plain,
        row,
        1 - client if refused else client,
        refused=refused,
        evidence={
            "protocol": "tds",
            "asked": f"client: encryption {_TDS_ENCRYPTION[asked]}",
            "answer": f"server: encryption {_TDS_ENCRYPTION[answer]}",
            "bytes": (answered if refused else said).hex(),
            "encryption": f"{asked:02x} {answer:02x}",
        },
    )


DETECTOR: Final = Detector("plaintext_upgrade", RULES, within=within)
