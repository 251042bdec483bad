"""Read an nft file, whoever wrote it: have nft load it in a namespace, and read what nft lists.

In:  text for `nft -f`.
Out: Artifact.
Source: nft(8); nft 1.0.6 lists tables, chains and comments as JSON (`-j`), programs with `--debug=netlink`.

JSON gives the structure, the printed programs give the meaning; a rule's handle joins them. Programs are
lines, so that no string of the file may hold a line break: it could forge one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from rulegen.artifacts.model import (
    TEXT_MAX_BYTES,
    Artifact,
    BaseChain,
    Chain,
    Dialect,
    Element,
    NamedObject,
    RuleLine,
    SetContent,
    Table,
)
from rulegen.artifacts.nft_bytecode import WORD, expression
from rulegen.artifacts.nft_sets import Printed, content, printed_element, stateful
from rulegen.artifacts.nft_values import (
    Bitwise,
    Compare,
    CtSet,
    Expression,
    Immediate,
    Lookup,
    MetaLoad,
    NftVerdict,
    PayloadLoad,
)
from rulegen.artifacts.nft_widths import measure
from rulegen.artifacts.sandbox import Listed, list_nft
from rulegen.artifacts.unknown import ToolMissing, Unknown, Unreadable


def _host(number: int) -> bytes:
    """A number of the kernel, as it lies in a register."""
    return number.to_bytes(WORD, sys.byteorder)


_SET: Final = re.compile(r"(?P<family>\w+) (?P<table>\S+) @(?P<name>\S+)")
_RULE: Final = re.compile(r"(?P<family>\w+) (?P<table>\S+) (?P<chain>\S+) (?P<handle>\d+)(?: \d+)?")
_TABLE_TEXT: Final = re.compile(r"table (?P<family>\w+) (?P<name>\S+) \{ # handle \d+")
_HANDLE: Final = re.compile(r" # handle (\d+)$")

_SETS: Final = ("set", "map", "meter")
_STRUCTURE: Final = ("metainfo", "table", "chain", "rule", *_SETS)

_PROBE: Final = """
table ip probe {
	set pairs {
		type ipv4_addr . inet_service
		flags interval
		elements = { 192.0.2.0/24 . 80-81 }
	}
	map marks {
		type mark : verdict
		elements = { 0x00000102 : drop }
	}
	chain probe {
		ip saddr . tcp dport @pairs meta mark & 0x0000ffff vmap @marks
		@th,0,24 >= 0x170303 ct mark set 0x00000005
	}
}
"""
_PROBE_ELEMENTS: Final = (
    Element(key=((b"\xc0\0\2\0", b"\xc0\0\2\xff"), (b"\0\x50", b"\0\x51"))),
    Element(key=((_host(0x102), _host(0x102)),), value=NftVerdict("drop")),
)
_PROBE_RULES: Final = (
    (
        MetaLoad(0, "l4proto"),
        Compare(0, "eq", b"\6"),
        PayloadLoad(0, "network", 12, 4),
        PayloadLoad(4, "transport", 2, 2),
        Lookup(0, "pairs", False, None, False),
        MetaLoad(0, "mark"),
        Bitwise(0, 0, _host(0xFFFF), _host(0)),
        Lookup(0, "marks", False, None, True),
    ),
    (
        PayloadLoad(0, "transport", 0, 3),
        Compare(0, "gte", b"\x17\3\3"),
        Immediate(0, _host(5)),
        CtSet(0, "mark", None),
    ),
)

_Key = tuple[str, str]
"""Family and name of a table."""


@dataclass(slots=True)
class _Programs:
    """What `--debug=netlink` printed."""

    sets: dict[_Key, dict[str, list[Printed]]] = field(default_factory=dict)
    rules: dict[tuple[_Key, int], list[Expression | Unknown]] = field(default_factory=dict)
    texts: dict[tuple[_Key, int], str] = field(default_factory=dict)
    dormant: set[_Key] = field(default_factory=set)


def read_nft(text: str) -> Artifact:
    """Read an nft file.

    Raises:
        ToolMissing: nft or a namespace is not to be had.
        Unreadable: nft does not load the text, or a string of it has a line break.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Unreadable("the text is not UTF-8") from None
    if size > TEXT_MAX_BYTES:
        raise Unreadable(f"{size} bytes; at most {TEXT_MAX_BYTES} are read")
    if "\0" in text:
        raise Unreadable("a zero byte", text.count("\n", 0, text.index("\0")) + 1)
    if not _understood():
        raise ToolMissing("this nft prints its programs in another form than nftables 1.0.6 does")
    return assemble(list_nft(text), text)


@cache
def _understood() -> bool:
    """Whether a table of known meaning reads as that: what nft prints is for people, and may change."""
    try:
        (table,) = assemble(list_nft(_PROBE)).tables
    except Unreadable:
        return False
    elements = tuple(element for content in table.sets for element in content.elements)
    return elements == _PROBE_ELEMENTS and tuple(rule.parts for rule in table.chains[0].rules) == _PROBE_RULES


def assemble(listed: Listed, saved: str = "") -> Artifact:
    """Make an artifact of what nft listed of the text that was saved.

    Raises:
        Unreadable: nft lists it in a form that is not understood, as another version might.
    """
    try:
        objects = json.loads(listed.json)["nftables"]
        for value in _strings(objects):
            if any(ord(char) < 0x20 or char in "\x7f\x85\u2028\u2029" for char in value):
                raise Unreadable(f"a string with a control character: {value[:80]!r}")
        programs = _programs(listed.programs)
        tables = tuple(_table(body, objects, programs, saved) for body in _of(objects, "table"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Unreadable(f"nft lists the ruleset in a form that is not understood: {error!r}") from error
    return Artifact(dialect=Dialect.NFT, tables=tables, interfaces=listed.interfaces)


def _strings(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            pending += one


def _of(objects: list[dict[str, Any]], *kinds: str) -> Iterator[dict[str, Any]]:
    for one in objects:
        for kind, body in one.items():
            if kind in kinds:
                yield body


def _programs(text: str) -> _Programs:
    found = _Programs()
    lines = iter(text.split("\n"))
    elements: list[Printed] = []
    program: list[Expression | Unknown] = []
    for line in lines:
        if line.startswith("\telement "):
            elements.append(printed_element(line))
        elif line.startswith("  [ "):
            program.append(expression(line.removeprefix("  [ ").removesuffix("]").strip()))
        elif line.startswith("table "):
            _texts(line, lines, found)
        elif match := _SET.fullmatch(line):
            elements = []
            found.sets.setdefault((match["family"], match["table"]), {})[match["name"]] = elements
        elif match := _RULE.fullmatch(line):
            program = []
            found.rules[(match["family"], match["table"]), int(match["handle"])] = program
        elif line and not line.startswith("  userdata = "):
            raise Unreadable(f"nft prints a line that is not understood: {line[:200]}")
    return found


def _texts(first: str, lines: Iterator[str], found: _Programs) -> None:
    """The listing proper: rules as text, and which tables are dormant."""
    key = ("", "")
    pending: list[str] = []
    for line in (first, *lines):
        if match := _TABLE_TEXT.fullmatch(line):
            key = (match["family"], match["name"])
        elif line.startswith("\tflags ") and "dormant" in line:
            found.dormant.add(key)
        elif not line.startswith("\t\t") or line.startswith(("\t\ttype ", "\t\tcomment ")):
            pending = []
        else:
            pending.append(line.strip())
            if match := _HANDLE.search(line):
                found.texts[key, int(match[1])] = _HANDLE.sub("", " ".join(pending))
                pending = []


def _table(body: Mapping[str, Any], objects: list[dict[str, Any]], programs: _Programs, saved: str) -> Table:
    key = (body["family"], body["name"])

    def own(*kinds: str) -> Iterator[dict[str, Any]]:
        return (one for one in _of(objects, *kinds) if (one["family"], one.get("table")) == key)

    printed = programs.sets.get(key, {})
    named = {one["name"]: one for one in own(*_SETS)}

    def shape(name: str) -> tuple[int | None, int | None]:
        types = named.get(name, {}).get("type")
        parts = None if types is None else len(types) if isinstance(types, list) else 1
        return parts, next((len(one.low) // WORD for one in printed.get(name, ()) if one.low), None)

    widths: dict[str, tuple[int, ...]] = {}
    by_chain: dict[str, list[RuleLine]] = {}
    for one in own("rule"):
        lines = by_chain.setdefault(one["chain"], [])
        place = (key, one["handle"])
        if place not in programs.rules:
            raise Unreadable(f"nft lists rule {one['handle']} of table {key[1]} without its program")
        text = programs.texts.get(place, "")
        parts, found = measure(programs.rules[place], key[0], text, shape)
        widths |= found
        lines.append(
            RuleLine(
                number=len(lines) + 1,
                handle=one["handle"],
                comment=one.get("comment"),
                text=text,
                parts=parts,
            )
        )
    return Table(
        family=key[0],
        name=key[1],
        chains=tuple(_chain(one, tuple(by_chain.get(one["name"], ()))) for one in own("chain")),
        sets=tuple(_sets(printed, named, widths, saved)),
        objects=tuple(_objects(objects, key)),
        dormant=key in programs.dormant,
    )


def _sets(
    printed: Mapping[str, list[Printed]],
    named: Mapping[str, dict[str, Any]],
    widths: Mapping[str, tuple[int, ...]],
    saved: str,
) -> Iterator[SetContent]:
    for name in dict.fromkeys((*printed, *named)):
        yield content(name, printed.get(name, ()), widths.get(name, ()), named.get(name, {}), saved)


def _chain(body: Mapping[str, Any], rules: tuple[RuleLine, ...]) -> Chain:
    if "hook" not in body:
        return Chain(name=body["name"], rules=rules)
    return BaseChain(
        name=body["name"],
        rules=rules,
        hook=body["hook"],
        priority=body["prio"],
        policy=body.get("policy", "accept"),
        type=body["type"],
        device=body.get("dev"),
    )


def _objects(objects: list[dict[str, Any]], key: _Key) -> Iterator[NamedObject]:
    for one in objects:
        for kind, body in one.items():
            if kind not in _STRUCTURE and (body.get("family"), body.get("table")) == key:
                yield NamedObject(kind=kind, name=body["name"], body=stateful(kind, body))
