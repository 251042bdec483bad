"""Firewall files as values that an evaluator can judge packets by, whoever wrote them.

In:  text: an nft file, iptables-save or ip6tables-save, ipset save.
Out: Artifact (model.py); `unsupported` names what in it has no value.

    model.py           tables, chains, rules, sets
    nft_file.py        nft text, by what nft prints of it
        sandbox, nft_bytecode, nft_widths, nft_sets -> nft_values
    iptables_save.py   iptables-save text
        xt_rule, xt_options, xt_matches (xt_packet, xt_connection), xt_targets, u32 -> xt_values
    ipset_save.py      ipset text

An evaluator must not trust who wrote a file: nothing here imports the emitters.
"""

from __future__ import annotations

import re
from typing import Final

from rulegen.artifacts.ipset_save import read_ipset
from rulegen.artifacts.iptables_save import read_iptables
from rulegen.artifacts.model import Artifact, Dialect, UnsupportedExpression, unsupported
from rulegen.artifacts.nft_file import read_nft
from rulegen.artifacts.unknown import ToolMissing, Unknown, Unreadable

__all__ = [
    "Artifact",
    "Dialect",
    "ToolMissing",
    "Unknown",
    "Unreadable",
    "UnsupportedExpression",
    "dialect_of",
    "read",
    "read_ipset",
    "read_iptables",
    "read_nft",
    "unsupported",
]

# The first line that is no comment; only iptables' files begin with a table's name behind a star.
_IPTABLES: Final = re.compile(r"\*\w+\s*")
_IPSET: Final = re.compile(
    r"(?:-exist\s+|-!\s+)?(?:(?:create|add|del)\s+\S+\s+(?!\{)\S.*|(?:flush|destroy|swap|rename)\s+.*)"
)
_NFT: Final = re.compile(
    r"(?:add|create|insert|replace|delete|destroy|flush|list|reset|rename|table|chain|set|map|rule|element|"
    r"include|define|redefine|undefine|counter|quota|limit)\b.*"
)
_NFT_OBJECTS: Final = frozenset(
    {
        "table",
        "chain",
        "rule",
        "set",
        "map",
        "element",
        "counter",
        "quota",
        "limit",
        "flowtable",
        "ct",
        "ruleset",
    }
)


def dialect_of(text: str) -> Dialect:
    """Which tool a text is for, by its first line that is no comment.

    Raises:
        Unreadable: It is for none of them.
    """
    for at, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if _IPTABLES.fullmatch(line):
            return Dialect.XTABLES
        words = line.split()
        if _IPSET.fullmatch(line) and not (len(words) > 1 and words[1] in _NFT_OBJECTS):
            return Dialect.IPSET
        if _NFT.fullmatch(line):
            return Dialect.NFT
        if line.startswith("{"):
            raise Unreadable("nft's JSON is not read; `nft list ruleset` gives text", at)
        raise Unreadable(f"{line[:60]!r} begins no file of nft, iptables-save or ipset", at)
    raise Unreadable("the text has no line but comments")


def read(text: str) -> Artifact:
    """Read a firewall file of any of the three tools.

    Raises:
        Unreadable: It is damaged, or none.
        ToolMissing: It is an nft file, and nft is not here to read it.
    """
    match dialect_of(text):
        case Dialect.XTABLES:
            return read_iptables(text)
        case Dialect.IPSET:
            return read_ipset(text)
        case Dialect.NFT:
            return read_nft(text)
