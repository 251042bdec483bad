"""Firewall rules from findings and policies, and what they would do.

Findings become policies' rules in the IR, the IR becomes a backend's text, and packets judge it:

    findings -> policies -> ir -> lower -> backends -> testbed

Where to begin: from_findings.answer, then one policy, then backends/nft.py. In short:

    answer(sources, findings, connections)    which rules answer, and an account of every finding
    emit(answer.ruleset, backend_named("nft"))    their text, and how faithful it is
    Bench()    a client, a firewall and a server to try it on

Nothing is imported until it is used: the command `tlswall` passes here whatever it is asked to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rulegen.backends import BACKENDS, backend_named, emit
    from rulegen.from_findings import answer, parse_asked, parse_wish
    from rulegen.policies import POLICIES, policy_named
    from rulegen.testbed.replay import Bench

__all__ = [
    "BACKENDS",
    "POLICIES",
    "Bench",
    "answer",
    "backend_named",
    "emit",
    "parse_asked",
    "parse_wish",
    "policy_named",
]

_HOME: Final = {
    "BACKENDS": "rulegen.backends",
    "POLICIES": "rulegen.policies",
    "Bench": "rulegen.testbed.replay",
    "answer": "rulegen.from_findings",
    "backend_named": "rulegen.backends",
    "emit": "rulegen.backends",
    "parse_asked": "rulegen.from_findings",
    "parse_wish": "rulegen.from_findings",
    "policy_named": "rulegen.policies",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'rulegen' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
