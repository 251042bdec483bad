"""Read the bytes of a capture as they are stored, whatever the user named: a file, standard input or a URL.

In:  the name: a path, "-" for standard input, or a URL with "://" for fsspec (memory://, s3://, sftp://).
Out: StoredBytes: readinto() in order, peek() at the start, position() for a progress bar.

Nothing here seeks, so that a pipe is as good as a file, and nothing is buffered twice.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import Protocol

from analyzer.errors import CaptureError

STANDARD_INPUT = "-"


class ByteSource(Protocol):
    """Bytes in order, as stored or unpacked."""

    problem: str | None
    """Why readinto() came to its end before the data did; None for an ordinary end."""

    def readinto(self, view: memoryview) -> int:
        """Fill the view's front with the next bytes and return how many; 0 at the end. Raises nothing."""


class RawFile(Protocol):
    """What StoredBytes needs of a file: io.FileIO has it, and every file of fsspec."""

    def readinto(self, view: memoryview, /) -> int | None:
        """As io.RawIOBase.readinto."""

    def fileno(self) -> int:
        """As io.RawIOBase.fileno."""

    def close(self) -> None:
        """Close it."""


class StoredBytes:
    """An open file, pipe or remote object; it counts what was consumed."""

    def __init__(self, raw: RawFile, *, size: int | None) -> None:
        self.problem: str | None = None
        self.size = size
        self._raw = raw
        self._peeked = b""
        self._consumed = 0

    def peek(self, count: int) -> bytes:
        """The next bytes without consuming them; fewer than `count` only at the end."""
        while len(self._peeked) < count:
            chunk = bytearray(count - len(self._peeked))
            got = self._read(memoryview(chunk))
            if not got:
                break
            self._peeked += chunk[:got]
        return self._peeked[:count]

    def readinto(self, view: memoryview) -> int:
        """Fill the view's front with the next bytes and return how many; 0 at the end."""
        if self._peeked:
            got = min(len(self._peeked), len(view))
            view[:got] = self._peeked[:got]
            self._peeked = self._peeked[got:]
        else:
            got = self._read(view)
        self._consumed += got
        return got

    def read(self, count: int) -> bytes:
        """The next bytes, at most `count` of them; empty at the end."""
        chunk = bytearray(count)
        got = self.readinto(memoryview(chunk))
        return bytes(memoryview(chunk)[:got])

    def position(self) -> int:
        """Bytes consumed so far."""
        return self._consumed

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._raw.close()

    def _read(self, view: memoryview) -> int:
        if self.problem is not None or not view:
            return 0
        try:
            got = self._raw.readinto(view)
            while got is None:  # whoever opened standard input made it non-blocking
                select.select([self._raw], [], [])
                got = self._raw.readinto(view)
        except Exception as error:  # not only OSError: each back end of fsspec has exceptions of its own
            self.problem = f"reading failed: {describe_error(error)}"
            return 0
        return got


def open_stored(path: str) -> StoredBytes:
    """Open what the user named, or raise CaptureError with what to do about it."""
    if path == STANDARD_INPUT:
        return _open_standard_input()
    if "://" in path:
        return _open_url(path)
    try:
        raw = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - unbuffered, and closed by StoredBytes
    except IsADirectoryError as error:
        why = f"this is a directory: name the captures in it, for example {path.rstrip('/')}/*.pcap"
        raise CaptureError(path, 0, why) from error
    except FileNotFoundError as error:
        raise CaptureError(path, 0, "there is no such file: check the name and the directory") from error
    except PermissionError as error:
        why = "permission denied: ask its owner for read access, or copy the capture to where you may read it"
        raise CaptureError(path, 0, why) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CaptureError(path, 0, f"can't open it: {describe_error(error)}") from error
    return StoredBytes(raw, size=_regular_size(raw.fileno()))


def describe_error(error: BaseException) -> str:
    """One line about an exception of somebody else."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _open_standard_input() -> StoredBytes:
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError) as error:
        raise CaptureError(STANDARD_INPUT, 0, "standard input is closed: pipe a capture into it") from error
    if os.isatty(descriptor):
        why = "standard input is a terminal: pipe a capture into it, or name a file"
        raise CaptureError(STANDARD_INPUT, 0, why)
    raw = open(descriptor, "rb", buffering=0, closefd=False)  # noqa: SIM115 - closed by StoredBytes
    return StoredBytes(raw, size=_regular_size(descriptor))


def _open_url(url: str) -> StoredBytes:
    import fsspec  # a quarter of a second, so only for those who name a URL

    try:
        raw = fsspec.open(url, "rb").open()
    except ImportError as error:
        why = f"this kind of URL needs another Python package: {describe_error(error)}"
        raise CaptureError(url, 0, why) from error
    except FileNotFoundError as error:
        raise CaptureError(url, 0, "there is nothing at this URL: check the name") from error
    except Exception as error:  # each back end of fsspec has exceptions of its own
        raise CaptureError(url, 0, f"can't open this URL: {describe_error(error)}") from error
    size = getattr(raw, "size", None)
    return StoredBytes(raw, size=size if isinstance(size, int) else None)


def _regular_size(descriptor: int) -> int | None:
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
