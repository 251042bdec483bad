"""Stored bytes come in order from files, pipes and URLs; what can't be opened is explained."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from analyzer.capture.stored import RawFile, StoredBytes, open_stored
from analyzer.errors import CaptureError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "stored"
    path.write_bytes(CONTENT)
    return path


def read_all(stored: StoredBytes, step: int = 1000) -> bytes:
    content = bytearray()
    while piece := stored.read(step):
        content += piece
        assert stored.position() == len(content)
    return bytes(content)


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_peeked_bytes_are_still_to_be_read(path: Path, step: int) -> None:
    stored = open_stored(str(path))
    assert stored.peek(4) == CONTENT[:4]
    assert stored.peek(2) == CONTENT[:2]
    assert stored.position() == 0
    assert read_all(stored, step) == CONTENT
    assert (stored.size, stored.problem) == (len(CONTENT), None)
    stored.close()


def test_peek_at_less_than_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"ab")
    stored = open_stored(str(path))
    assert stored.peek(4) == b"ab"
    assert read_all(stored) == b"ab"
    stored.close()


def test_a_fifo_has_no_size(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(CONTENT,))
    writer.start()
    stored = open_stored(str(fifo))
    assert read_all(stored) == CONTENT
    assert stored.size is None
    stored.close()
    writer.join()


def test_a_pipe_that_somebody_made_non_blocking() -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)
    later = threading.Timer(0.05, lambda: (os.write(into, CONTENT), os.close(into)))
    with os.fdopen(out, "rb", buffering=0) as raw:
        later.start()
        assert read_all(StoredBytes(raw, size=None)) == CONTENT
    later.join()


def test_a_url_is_read_through_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://stored/capture", "wb") as file:
        file.write(CONTENT)
    stored = open_stored("memory://stored/capture")
    assert stored.size == len(CONTENT)
    assert stored.peek(4) == CONTENT[:4]
    assert read_all(stored) == CONTENT
    stored.close()


class BadDisk:
    def __init__(self) -> None:
        self.left = 3

    def readinto(self, view: memoryview) -> int:
        if not self.left:
            raise OSError(5, "Input/output error")
        self.left -= 1
        view[:1] = b"x"
        return 1

    def fileno(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_an_error_while_reading_is_a_problem_and_no_exception() -> None:
    raw: RawFile = BadDisk()
    stored = StoredBytes(raw, size=None)
    assert read_all(stored) == b"xxx"
    assert stored.problem == "reading failed: Input/output error"


# --- what can't be opened ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/no/such/file.pcap", "there is no such file: check the name"),
        ("/", r"this is a directory: name the captures in it, for example /\*.pcap"),
        ("a\0b", "null byte"),
        ("x" * 5000, "name too long"),
        ("memory://no/such/object", "there is nothing at this URL"),
        ("nosuchprotocol://x", "can't open this URL: Protocol not known"),
    ],
)
def test_what_to_do_next(name: str, why: str) -> None:
    with pytest.raises(CaptureError, match=f"(?i){why}") as caught:
        open_stored(name)
    assert caught.value.path == name
    assert caught.value.offset == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(CaptureError, match="permission denied: ask its owner"):
        open_stored(str(path))


OPEN_STANDARD_INPUT = """
from analyzer.capture.stored import open_stored
from analyzer.errors import CaptureError
try:
    stored = open_stored("-")
    print(stored.size, len(stored.read(10**6)))
except CaptureError as error:
    print(error.why)
"""


def open_standard_input(redirection: str) -> str:
    command = f'exec "$0" -c "$1" {redirection}'
    arguments = ["sh", "-c", command, sys.executable, OPEN_STANDARD_INPUT]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout.strip()


def test_standard_input(path: Path) -> None:
    assert open_standard_input(f"< '{path}'") == f"{len(CONTENT)} {len(CONTENT)}"
    assert open_standard_input("<&-") == "standard input is closed: pipe a capture into it"


def test_standard_input_is_a_terminal() -> None:
    ours, theirs = os.openpty()
    arguments = [sys.executable, "-c", OPEN_STANDARD_INPUT]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.stdout.startswith("standard input is a terminal: pipe a capture into it, or name a file")
