"""SSLv2 records that only the profile nf_conntrack_tls has a name for.

Source: draft-hickman-netscape-ssl-00 1.1 (two- and three-byte headers); the profile's table of drops.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from samples.craft import tls_bytes as tls
from samples.craft.conversation import CLIENT, SERVER, Capture
from samples.craft.downgrade import sslv2_master_key, sslv2_server_hello
from samples.craft.scenario import Expected, Scenario
from samples.craft.tls_bytes import Noise, Sslv2Hello


def padded_record(body: bytes, padding: int) -> bytes:
    """A record with the three-byte header: 14-bit length of the data, then how much padding follows."""
    return struct.pack(">HB", len(body), padding) + body


def scenarios() -> Iterator[Scenario]:
    noise = Noise("sslv2")
    hello = Sslv2Hello(noise=noise, version=0x0002).record()
    low = bytes(byte & 0x7F for byte in noise.take(140))
    # fmt: off
    rows = (
        ("hello-from-server", "the server answers with a CLIENT-HELLO",
         [(SERVER, Sslv2Hello(noise=noise, version=0x0002).record())]),
        ("server-hello-from-client", "the client sends a SERVER-HELLO",
         [(SERVER, sslv2_server_hello(noise)), (CLIENT, sslv2_server_hello(noise))]),
        ("master-key-from-server", "the server sends a CLIENT-MASTER-KEY",
         [(SERVER, sslv2_server_hello(noise)), (SERVER, sslv2_master_key(noise))]),
        ("empty", "a record of length 0",
         [(SERVER, sslv2_server_hello(noise)), (CLIENT, b"\x80\x00\x01")]),
        ("empty-padded", "a record of length 0 with a three-byte header",
         [(SERVER, sslv2_server_hello(noise)), (CLIENT, b"\x40\x00\x00\x01")]),
        ("low-bytes", "a run of 140 low bytes in an encrypted record",
         [(SERVER, sslv2_server_hello(noise)), (CLIENT, sslv2_master_key(noise)),
          (SERVER, tls.sslv2_record(b"\xa1" + noise.take(60) + low + noise.take(60)))]),
        ("split-header", "record headers split over segments",
         [(SERVER, sslv2_server_hello(noise)), (CLIENT, sslv2_master_key(noise)),
          (SERVER, tls.sslv2_record(b"\xa1" + noise.take(60))),
          (CLIENT, tls.sslv2_record(b"\xb2" + noise.take(60)))]),
    )
    # fmt: on
    for name, what, turns in rows:
        capture = Capture()
        talk = capture.connect()
        (client_hello,) = talk.send(CLIENT, hello, cut=(1, 2) if name == "split-header" else ())
        for side, data in turns:
            talk.send(side, data, cut=(1,) if name == "split-header" else ())
        talk.close()
        yield Scenario(
            name=f"sslv2-{name}",
            what=f"SSLv2: {what}",
            capture=capture,
            expected=[Expected("DG14", "P", [client_hello])],
            exact=False,
        )
