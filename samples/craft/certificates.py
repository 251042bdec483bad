"""The certificates that synthetic handshakes carry, server.der and client.der, from a CA that is thrown away.

    python -m samples.craft.certificates    # new keys, so new bytes: every synthetic capture changes

No private key is kept: signatures over handshakes are random bytes of the right length.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
NOT_BEFORE: Final = datetime(2024, 12, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(2025, 12, 1, tzinfo=UTC)


@cache
def server() -> bytes:
    return (HERE / "server.der").read_bytes()


@cache
def client() -> bytes:
    return (HERE / "client.der").read_bytes()


def make() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

    authority = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for who, usage in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name(f"{who}.example"))
            .issuer_name(name("Sample CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{who}.example")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_encipherment=True,
                    content_commitment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=False,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(authority, hashes.SHA256())
        )
        (HERE / f"{who}.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))


if __name__ == "__main__":
    make()
