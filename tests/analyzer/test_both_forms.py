"""Uncompiled, the engine says the same, and says once that it is slow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer import pipeline

ROOT = Path(__file__).parents[2]
CAPTURES = [
    ROOT / "samples" / name
    for name in (
        "captures/heartbleed-success.pcap",
        "captures/chrome-1250-tls-x25519-kyber.pcap",
        "captures/smtp-starttls.pcap",
        "crafted/sm03-both.pcap",
        "crafted/dg14-sslv2.pcap",
        "crafted/lb01-two-segments.pcap",
        "crafted/tcp-out-of-order.pcap",
    )
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A copy of the packages without any compiled kernel."""
    folder = tmp_path_factory.mktemp("plain")
    for package in ("analyzer", "rulegen"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        )
    return folder


def run(folder, path):
    command = [sys.executable, "-m", "analyzer", "analyze", "--format", "json", str(path)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_both_forms_say_the_same(plain, path):
    slow = run(plain, path)
    assert slow.stderr.count("not compiled") == 1
    fast = run(ROOT, path)
    assert json.loads(slow.stdout) == json.loads(fast.stdout)
    if not pipeline.uncompiled():
        assert "not compiled" not in fast.stderr
