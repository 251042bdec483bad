"""Finished connections as JSON, written column by column.

In:  Batch.
Out: the text of the rows that `connections.rows` gives as objects; a test holds both equal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import numpy as np
import orjson

from analyzer import connections
from analyzer.columns.json_rows import Column, coded, rows
from analyzer.connections import RESUMED, Batch, address, text, version_name
from analyzer.wire.iana import cipher_suite_name

_Value = TypeVar("_Value", bound=Hashable)

_BOOLEANS = (b"false", b"true")


def connections_json(batch: Batch, *, begin: bytes, between: bytes) -> bytes:
    """The connections as JSON objects.

    Args:
        batch: One connection or more.
        begin: What an object begins with: `{`, or what else is to be in it with a comma behind.
        between: What stands between two objects.
    """
    clients, servers = batch.clients, batch.servers
    suites = np.where(
        (batch["VERSION"] != 0) & (batch["SERVER_FLAGS"] >= 0), batch["CIPHER_SUITE"], -1
    ).tolist()

    def number(name: str, column: str) -> Column:
        return Column(_before(name), batch[column])

    def version(name: str, column: str) -> Column:
        return _encoded(name, batch[column].tolist(), version_name)

    def boolean(name: str, column: str) -> Column:
        return Column(_before(name), (batch[column] != 0).astype(np.int64), _BOOLEANS)

    columns = [
        Column(begin + b'"connection":', batch["CONNECTION"]),
        number("capture", "CAPTURE"),
        *_endpoint(batch, b',"client":', server=False),
        *_endpoint(batch, b',"server":', server=True),
        Column(b'},"first_packet":', batch["FIRST_PACKET"]),
        number("last_packet", "LAST_PACKET"),
        version("version", "VERSION"),
        version("client_version", "CLIENT_MAX"),
        _encoded("cipher_suite", suites, lambda suite: cipher_suite_name(suite) if suite >= 0 else None),
        _encoded("cipher_suite_code", suites, lambda suite: suite if suite >= 0 else None),
        _encoded("sni", [hello.sni for hello in clients], lambda name: text(name) if name else None),
        _encoded("alpn", [hello.alpn for hello in servers], lambda name: text(name) if name else None),
        _encoded("alpn_offered", [hello.alpn for hello in clients], connections.protocols),
        _encoded("resumed", batch["RESUMED"].tolist(), RESUMED.__getitem__),
        boolean("established", "ESTABLISHED"),
        boolean("hello_retry", "RETRIED"),
        _encoded("ja3", [hello.ja3 for hello in clients], lambda ja3: ja3 or None),
        _encoded("ja3s", [hello.ja3s for hello in servers], lambda ja3s: ja3s or None),
        _encoded("ja4", [hello.ja4 for hello in clients], lambda ja4: ja4 or None),
        _encoded("alerts", batch.alerts, connections.alert_rows),
        _encoded("starttls", connections.preludes(batch), lambda name: name),
        _encoded("sync", connections.sync_codes(batch).tolist(), connections.sync_of),
    ]
    return rows(columns, after=b"}", between=between)


def _before(name: str) -> bytes:
    return b',"%s":' % name.encode()


def _encoded(name: str, values: Iterable[_Value], what: Callable[[_Value], object]) -> Column:
    return coded(_before(name), values, lambda value: orjson.dumps(what(value)))


def _endpoint(batch: Batch, before: bytes, *, server: bool) -> tuple[Column, Column]:
    """Address and port; the brace behind them is the next column's."""
    upper, lower = batch.addresses(server)
    hosts = (lower & 0xFFFFFFFF).astype(np.int64)
    others = np.flatnonzero((upper != 0) | (lower >> 32 != 0xFFFF))
    hosts[others] = -1 - np.arange(len(others))
    halves = zip(upper[others].tolist(), lower[others].tolist(), strict=True)
    pieces = [b'"%s"' % address(*half).encode() for half in halves]
    close = b"}" if server else b""
    return (
        Column(close + before + b'{"address":', hosts, pieces, ipv4=True),
        Column(b',"port":', batch.ports(server)),
    )
