"""The backends, each for one of the kernel's ways to filter.

To add one: write backends/NAME.py with an instance BACKEND of something that meets base.Backend, and add it
here. Traps: an empty set; IPv6 extension headers; fragments; the two directions; byte order; a load past the
packet's end, which is false and stays false when negated; the tool's limits of lengths, which it does not
always report. What the backend can't say it refuses by name (Unsupported), for all rules at once (Refused);
it never leaves a rule out.
"""

from __future__ import annotations

from typing import Final

from rulegen.backends import bpf, ipset, iptables, nft
from rulegen.backends.base import Artifact, Backend
from rulegen.errors import WishError
from rulegen.ir.check import check
from rulegen.ir.rule import Ruleset

BACKENDS: Final[tuple[Backend, ...]] = (nft.BACKEND, *iptables.BACKENDS, bpf.BACKEND, ipset.BACKEND)


def backend_named(name: str) -> Backend:
    """Look a backend up."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise WishError(f"no backend {name!r}; there are {', '.join(backend.name for backend in BACKENDS)}")


def emit(ruleset: Ruleset, backend: Backend) -> Artifact:
    """The ruleset in the backend's language, if it makes sense and the backend can say all of it.

    Raises:
        InvalidRuleset: The ruleset means nothing in some place.
        Refused: The backend can't say some of the rules.
    """
    check(ruleset)
    return backend.emit(ruleset)
