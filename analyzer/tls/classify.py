"""What a cipher suite makes of handshake messages: the conditions that turn one into this event or that.

In:  a cipher suite code.
Out: RULES, a byte of flags for each of the 65,536 codes, which the tracker's kernel looks up.
Source: RFC 5246 7.3 and 7.4.2 to 7.4.6, RFC 4279 2 to 4 (PSK), RFC 5489 (ECDHE_PSK), RFC 5054 2 (SRP), RFC
2712 (Kerberos), RFC 4346 7.4.3 (export RSA); tls_detections part B, table B2.

A suite that nobody has named gets no flag: nothing is a violation because we do not know it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.wire.suite_properties import KX_CLASS, MODE, KeyExchange, Mode, suite_properties

CERTIFICATE_REQUIRED: Final = 1
CERTIFICATE_FORBIDDEN: Final = 2
KEY_EXCHANGE_REQUIRED: Final = 4
KEY_EXCHANGE_FORBIDDEN: Final = 8
REQUEST_FORBIDDEN: Final = 16
"""CertificateRequest."""
CLEAR: Final = 32
"""The suite doesn't encrypt: bodies stay readable after ChangeCipherSpec."""
EVERY_VERSION: Final = 64
"""A suite of TLS 1.0 too: it stays in the list of a client that falls back."""
SSL3: Final = 128
"""One of them that stays even in SSL 3.0, which has no extensions and so no elliptic curves (RFC 8422 4)
and no PSK (RFC 4279 2)."""

_K = KeyExchange
# fmt: off
_FLIGHT: Final = (
    # key exchange       flags
    (_K.RSA,         CERTIFICATE_REQUIRED  | KEY_EXCHANGE_FORBIDDEN),
    (_K.RSA_EXPORT,  CERTIFICATE_REQUIRED),
    (_K.DHE,         CERTIFICATE_REQUIRED  | KEY_EXCHANGE_REQUIRED),
    (_K.ECDHE,       CERTIFICATE_REQUIRED  | KEY_EXCHANGE_REQUIRED),
    (_K.DH,          CERTIFICATE_REQUIRED  | KEY_EXCHANGE_FORBIDDEN),
    (_K.ECDH,        CERTIFICATE_REQUIRED  | KEY_EXCHANGE_FORBIDDEN),
    (_K.DH_ANON,     CERTIFICATE_FORBIDDEN | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.ECDH_ANON,   CERTIFICATE_FORBIDDEN | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.PSK,         CERTIFICATE_FORBIDDEN | REQUEST_FORBIDDEN),
    (_K.RSA_PSK,     CERTIFICATE_REQUIRED),
    (_K.DHE_PSK,     CERTIFICATE_FORBIDDEN | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.ECDHE_PSK,   CERTIFICATE_FORBIDDEN | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.SRP,         CERTIFICATE_FORBIDDEN | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.SRP_RSA,     CERTIFICATE_REQUIRED  | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.SRP_DSS,     CERTIFICATE_REQUIRED  | KEY_EXCHANGE_REQUIRED | REQUEST_FORBIDDEN),
    (_K.KRB5,        CERTIFICATE_FORBIDDEN | KEY_EXCHANGE_FORBIDDEN | REQUEST_FORBIDDEN),
)
# fmt: on


def _rules() -> npt.NDArray[np.uint8]:
    rules = np.zeros(0x10000, dtype=np.uint8)
    for key_exchange, flags in _FLIGHT:
        rules[key_exchange == KX_CLASS] = flags
    rules[Mode.NULL == MODE] |= CLEAR
    for code in np.flatnonzero(KX_CLASS):
        properties = suite_properties(int(code))
        if (
            properties
            and not properties.tls13
            and properties.mode != Mode.AEAD
            and properties.mac in ("MD5", "SHA")
        ):
            rules[code] |= EVERY_VERSION
            if properties.key_exchange in (_K.RSA, _K.RSA_EXPORT, _K.DH, _K.DHE, _K.DH_ANON):
                rules[code] |= SSL3
    return rules


RULES: Final = _rules()
