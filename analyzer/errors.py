"""The exceptions that leave the analyser. What traffic does wrong is never one, but a row of a table."""

from __future__ import annotations


class SlowKernels(UserWarning):
    """The kernels run uncompiled: everything works, about a hundred times slower."""


class CaptureError(Exception):
    """A file that can't be read as a capture, or can't be read further.

    Attributes:
        path: The capture, as the user named it; "-" is standard input.
        offset: Byte offset in the (decompressed) file where reading stopped.
        why: One sentence, with what to do next where something can be done.
    """

    def __init__(self, path: str, offset: int, why: str) -> None:
        super().__init__(f"{path}: {why} (at byte {offset})")
        self.path = path
        self.offset = offset
        self.why = why
