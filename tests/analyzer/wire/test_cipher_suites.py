"""Every cipher suite's name is what openssl, tshark and scapy call it."""

import shutil
import subprocess

import pytest

from analyzer.wire.cipher_suites import CIPHER_SUITES, SSL2_CIPHER_KINDS, UNREGISTERED_CIPHER_SUITES
from analyzer.wire.iana import GREASE

NAMED = CIPHER_SUITES | UNREGISTERED_CIPHER_SUITES


def test_the_whole_registry():
    assert len(CIPHER_SUITES) == 352
    assert not CIPHER_SUITES.keys() & UNREGISTERED_CIPHER_SUITES.keys()
    assert not NAMED.keys() & GREASE
    assert len(set(CIPHER_SUITES.values())) == len(CIPHER_SUITES)
    assert list(CIPHER_SUITES) == sorted(CIPHER_SUITES)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees():
    command = ["openssl", "ciphers", "-stdname", "-V", "ALL:COMPLEMENTOFALL@SECLEVEL=0"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) > 100
    for line in lines:
        code, _, name = line.split()[:3]
        high, low = (int(byte, 16) for byte in code.split(","))
        assert CIPHER_SUITES[high << 8 | low] == name


# Names that IANA registered after tshark 4.0, and suites that only tshark names.
YOUNGER = {0x1306, 0x1307}
SALSA20 = range(0xE410, 0xE420)  # draft-mavrogiannopoulos-chacha-tls-01, never deployed


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_agrees():
    lines = subprocess.run(
        ["tshark", "-G", "values"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = (line.split("\t") for line in lines if line.startswith("V\ttls.handshake.ciphersuite\t"))
    theirs = {int(code, 0): name for _, _, code, name in rows}
    assert CIPHER_SUITES.keys() - theirs.keys() <= YOUNGER
    for code, name in theirs.items():
        if code not in GREASE and code not in SALSA20:
            assert NAMED[code].removesuffix("_OLD") == name


# scapy spells four names otherwise than the registry does.
SCAPY_SPELLING = {0x0026, 0x0029, 0xC0AA, 0xC0AB}


def test_scapy_agrees():
    from scapy.layers.tls.crypto.suites import _tls_cipher_suites as theirs

    for code, name in theirs.items():
        if code > 0xFFFF:
            assert SSL2_CIPHER_KINDS[code] == name
        elif code not in SCAPY_SPELLING:
            assert NAMED[code] == name
