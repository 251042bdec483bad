"""Emit the sets of a ruleset as one file of `ipset restore`, for the rules of iptables to look into.

In:  Ruleset, checked.
Out: text; a refusal for each set that ipset can't hold.
Source: ipset(8) 7.17; Linux net/netfilter/ipset/ip_set_*.c.

A set is filled under another name and then swapped with the one that rules look into, in one step; a set into
which rules learn is left as it is, and its elements are added.

A set's type and options depend on its key alone, never on its elements: ipset neither takes a set for one
that is there, nor swaps it with one, if they differ. So each element has its own time-out.

The one rule not to break: no line is longer than LINE_MAX bytes. ipset takes what follows for a line of its
own, in comments too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Final, TypeAlias

from rulegen.backends.base import Artifact, Checked, Fidelity, Level
from rulegen.backends.header import header, remark
from rulegen.backends.offline import ask
from rulegen.backends.xtables_text import SET_MAX, CantSay, family, quoted, seconds, set_name, set_sides
from rulegen.errors import Refused, Unsupported
from rulegen.ir.match import Interval, carrier
from rulegen.ir.rule import Element, Ruleset, SetDeclaration

NAME: Final = "ipset"

LINE_MAX: Final = 1023
"""ipset lib/ipset.c: the buffer of a line has 1,024 bytes."""

ELEMENTS_MAX: Final = 1 << 20
"""Of a set, every port by itself; what is more would take the kernel minutes."""

_TYPES: Final = {
    ("addr",): "hash:net",
    ("addr", "port"): "hash:net,port",
    ("addr", "port", "addr"): "hash:ip,port,net",
    ("port",): "bitmap:port range 0-65535",
}
"""By the parts of the key."""

_Address: TypeAlias = type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
_KINDS: Final[dict[str, tuple[str, _Address]]] = {
    "ip": ("inet", ipaddress.IPv4Address),
    "ip6": ("inet6", ipaddress.IPv6Address),
}

_REMARK_CHARACTERS: Final = LINE_MAX // 4 - 2
"""A character has four bytes at most."""


class IpsetBackend:
    """ipset, as text."""

    name = NAME
    suffix = ".ipset"

    def emit(self, ruleset: Ruleset) -> Artifact:
        """The file, or Refused with all sets that ipset can't hold."""
        lines: list[str] = []
        refusals = []
        for declaration in ruleset.sets:
            try:
                lines += _set(declaration)
            except CantSay as error:
                refusals.append(Unsupported(NAME, f"set {declaration.name}", str(error)))
        if refusals:
            raise Refused(refusals)
        held = "only the sets are" if ruleset.sets else "there is no set"
        notes = (f"{held} in this file; the rules are in the file of another backend",)
        return Artifact(
            backend=NAME,
            text="\n".join((*_header(ruleset), "", *lines, "")),
            fidelity=tuple(
                Fidelity(rule=rule.name, level=Level.NARROWER, notes=notes) for rule in ruleset.rules
            ),
        )

    def check(self, text: str) -> Checked:
        """Load it where it does nothing."""
        return ask(["ipset", "restore"], text, package="ipset")


BACKEND: Final = IpsetBackend()


def _header(ruleset: Ruleset) -> Iterator[str]:
    each = f"ipset list -n | grep ^{set_name('')} | xargs -rn1 ipset"
    place = "the files of iptables, ip6tables and bpf look into these sets"
    commands = {
        "Check": "unshare --net ipset restore -file FILE    loads it where it does nothing",
        "Load": "ipset restore -file FILE    before the rules; later again, to fill the sets anew",
        "Watch": f"{each} list",
        "Remove": f"{each} destroy    after the rules; all sets of tlswall",
    }
    for line in header(
        ruleset,
        made_for="ipset (version 7)",
        place=f"none; {place if ruleset.sets else 'no rule of this ruleset looks into a set'}",
        needs=("kernel modules ip_set, ip_set_hash_net and those of other types below",)
        if ruleset.sets
        else (),
        commands=commands if ruleset.sets else {},
        limits=(),
    ):
        yield from _wrapped(line)


def _wrapped(line: str) -> Iterator[str]:
    text = line.removeprefix("# ")
    for start in range(0, len(text), _REMARK_CHARACTERS):
        yield remark(text[start : start + _REMARK_CHARACTERS]) if line != "#" else line


def _set(declaration: SetDeclaration) -> Iterator[str]:
    name, create = set_name(declaration.name), f"{_kind(declaration)} timeout 0 comment -exist"
    added = [line for element in declaration.elements for line in _entries(declaration, element)]
    size = sum(count for _, count in added)
    if size > (declaration.size or ELEMENTS_MAX):
        raise CantSay(f"{size} elements, more than {declaration.size or ELEMENTS_MAX}")
    yield ""
    yield from _wrapped(remark(f"{name}: {declaration.meaning or 'a set of the ruleset'}"))
    yield f"create {name} {create}"
    if declaration.dynamic:
        yield from (f"add {name} {entry} -exist" for entry, _ in added)
        return
    other = f"{name[: SET_MAX - 1]}."
    yield f"create {other} {create}"
    yield f"flush {other}"
    yield from (f"add {other} {entry} -exist" for entry, _ in added)
    yield f"swap {name} {other}"
    yield f"destroy {other}"


def _kind(declaration: SetDeclaration) -> str:
    """Type and options of a set; loading them again must find them unchanged."""
    set_sides(declaration.fields)
    kind = _TYPES[tuple(field.rpartition(".")[2][1:] for field in declaration.fields)]
    version = family(declaration.fields)
    return (
        f"{kind} family {_KINDS[version][0]} maxelem {declaration.size or ELEMENTS_MAX}" if version else kind
    )


def _entries(declaration: SetDeclaration, element: Element) -> Iterator[tuple[str, int]]:
    """An element in ipset's words, and for how many of its elements each stands."""
    fields = declaration.fields
    timeout_s = element.timeout_s or declaration.timeout_s
    options = [] if timeout_s is None else [f"timeout {seconds(timeout_s)}"]
    options += [f"comment {quoted(element.note)}"] if element.note else []
    parts = [list(_part(field, interval)) for field, interval in zip(fields, element.key, strict=True)]
    if len(parts) == 3 and any("/" in text for text, _ in parts[0]):
        raise CantSay(f"networks as {fields[0]} of {' . '.join(fields)}")
    for chosen in product(*parts):
        texts = [text for text, _ in chosen]
        if len(texts) > 1:
            texts[1] = f"{carrier(fields[1])}:{texts[1]}"
        yield " ".join((",".join(texts), *options)), prod(count for _, count in chosen)


def _part(field: str, interval: Interval) -> Iterator[tuple[str, int]]:
    """Networks, or ports, that are the interval."""
    low, high = interval
    if field.endswith("port"):
        yield f"{low}" if low == high else f"{low}-{high}", high - low + 1
        return
    address = _KINDS[carrier(field)][1]
    for network in ipaddress.summarize_address_range(address(low), address(high)):
        # No hash:net holds a prefix of length 0.
        for one in network.subnets() if network.prefixlen == 0 else (network,):
            yield (str(one) if one.num_addresses > 1 else str(one.network_address)), 1
