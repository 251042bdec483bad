"""What a format is, and what it is given.

In:  an analysis (anything with the four members of Analysed).
Out: bytes on a binary stream.

A format never reads the whole analysis into memory: connections and findings come as iterators, and there may
be hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from analyzer.model import Finding

if TYPE_CHECKING:  # the reader brings numpy, which help and schema need not wait for
    from analyzer.capture import CaptureInfo


class Analysed(Protocol):
    """The part of `analyzer.Analysis` that formats read."""

    @property
    def captures(self) -> Sequence[CaptureInfo]: ...

    @property
    def totals(self) -> Mapping[str, int]: ...

    def iter_connections(self) -> Iterator[dict[str, object]]:
        """Rows as in the published schema, in connection order."""
        ...

    def connections_json(self, *, begin: bytes, between: bytes) -> Iterator[bytes]:
        """The same rows as JSON objects, several at a time; see analyzer.Analysis.connections_json."""
        ...

    def iter_findings(self) -> Iterator[Finding]:
        """Worst first, then by connection."""
        ...


class Detail(IntEnum):
    """How much a format for people shows. Formats for programs always give everything."""

    BRIEF = 0
    """The summary, and a line per kind of finding."""
    NORMAL = 1
    FULL = 2
    """Every finding and every connection."""


class Options(NamedTuple):
    """How the report was asked for."""

    profile: str = "default"
    detail: Detail = Detail.NORMAL
    width: int | None = None
    """Columns to fill; None takes the terminal's, and in a pipe as many as the rows need."""


class Format(NamedTuple):
    name: str
    summary: str
    render: Callable[[Analysed, BinaryIO, Options], None]
