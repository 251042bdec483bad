"""The matches of iptables that look at one packet: what their options mean.

In:  options as given.
Out: values of xt_values, or ValueError.
Source: iptables-extensions(8) of 1.8.9; iptables extensions/libxt_*.c, libipt_icmp.c, libip6t_icmp6.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from rulegen.artifacts.u32 import parse_u32
from rulegen.artifacts.xt_names import ADDRESS_TYPES, SERVICES
from rulegen.artifacts.xt_options import (
    PORT_MAX,
    Given,
    Reader,
    interval,
    listed,
    number,
)
from rulegen.artifacts.xt_values import (
    AddrType,
    Bpf,
    FlagsTest,
    Icmp,
    Length,
    Match,
    Multiport,
    OptionTest,
    PortTest,
    String,
    Tcp,
    TypesTest,
    U32Match,
    Udp,
)
from rulegen.bpf.program import parse_bytecode

_FLAGS: Final = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_SEARCH_TO: Final = 0xFFFF
"""libxt_string.c: --to where it is left out."""


def _port(one: Given | None) -> PortTest | None:
    if one is None:
        return None
    low, high = interval(one.values[0], PORT_MAX, SERVICES)
    return PortTest(low=low, high=high, inverted=one.inverted)


def _flags(text: str) -> int:
    bits = 0
    for name in text.upper().split(","):
        if name not in _FLAGS:
            raise ValueError(f"TCP flag {name[:20]!r} is not known")
        bits |= _FLAGS[name]
    return bits


def tcp(options: Reader) -> Match:
    flags = None
    if one := options.get("tcp-flags"):
        mask, wanted = map(_flags, one.values)
        flags = FlagsTest(mask=mask, set=wanted, inverted=one.inverted)
    if one := options.get("syn"):
        if flags:
            raise ValueError("-m tcp: --syn beside --tcp-flags")
        flags = FlagsTest(mask=0x17, set=0x02, inverted=one.inverted)
    option = None
    if one := options.get("tcp-option"):
        option = OptionTest(kind=number(one.values[0], 255), inverted=one.inverted)
    source, destination = (_port(options.get(name)) for name in ("sport", "dport"))
    return Tcp(source=source, destination=destination, flags=flags, option=option)


def udp(options: Reader) -> Match:
    source, destination = (_port(options.get(name)) for name in ("sport", "dport"))
    return Udp(source=source, destination=destination)


def icmp(option: str, names: dict[str, tuple[int, tuple[int, int]]]) -> Callable[[Reader], Match]:
    def build(options: Reader) -> Match:
        one = options.one_of(option)
        text = one.values[0].lower()
        if text in names:
            kind, codes = names[text]
        else:
            first, slash, code = text.partition("/")
            kind = number(first, 255)
            codes = (number(code, 255),) * 2 if slash else (0, 255)
        return Icmp(type=kind, codes=codes, inverted=one.inverted)

    return build


def multiport(options: Reader) -> Match:
    one = options.one_of("sports", "dports", "ports")
    side = {"sports": "source", "dports": "destination", "ports": "either"}[one.name]
    ports = tuple(interval(part, PORT_MAX, SERVICES) for part in one.values[0].split(","))
    if sum(1 if low == high else 2 for low, high in ports) > 15:
        raise ValueError("-m multiport: more than 15 ports")
    return Multiport(side=side, ports=ports, inverted=one.inverted)


def u32(options: Reader) -> Match:
    one = options.one_of("u32")
    return U32Match(program=parse_u32(one.values[0]), inverted=one.inverted)


def bpf(options: Reader) -> Match:
    text = options.text("bytecode")
    if text is None:
        raise ValueError("-m bpf: only --bytecode is read, not programs in a file system")
    return Bpf(program=parse_bytecode(text))


def string(options: Reader) -> Match:
    one = options.one_of("string", "hex-string")
    pattern = _hex_string(one.values[0]) if one.name == "hex-string" else _raw(one.values[0])
    if not 1 <= len(pattern) <= 128:
        raise ValueError(f"-m string: a pattern of {len(pattern)} bytes; 1 to 128 are allowed")
    algorithm = options.text("algo")
    if algorithm not in ("bm", "kmp"):
        raise ValueError("-m string: --algo has to be bm or kmp")
    last = options.number("to", PORT_MAX)
    return String(
        pattern=pattern,
        algorithm=algorithm,
        first=options.number("from", PORT_MAX) or 0,
        last=_SEARCH_TO if last is None else last,
        ignore_case=options.has("icase"),
        inverted=one.inverted,
    )


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _hex_string(text: str) -> bytes:
    """Letters as they are; bytes in hexadecimal between bars; a backslash takes the next letter."""
    pattern = bytearray()
    for letters, code in re.findall(r"((?:\\.|[^|\\])+)|\|([^|]*)\|", text):
        if letters:
            pattern += _raw(re.sub(r"\\(.)", r"\1", letters))
        else:
            try:
                pattern += bytes.fromhex(code)
            except ValueError:
                raise ValueError(f"-m string: |{code[:40]}| is not hexadecimal") from None
    if re.sub(r"(?:\\.|[^|\\])+|\|[^|]*\|", "", text):
        raise ValueError("-m string: a | or \\ has no partner")
    return bytes(pattern)


def length(options: Reader) -> Match:
    one = options.one_of("length")
    low, high = interval(one.values[0], PORT_MAX)
    return Length(low=low, high=high, inverted=one.inverted)


def _types(one: Given | None) -> TypesTest | None:
    if one is None:
        return None
    return TypesTest(types=listed(one.values[0], ADDRESS_TYPES, "address type"), inverted=one.inverted)


def addrtype(options: Reader) -> Match:
    limits = [side for side in ("in", "out") if options.has(f"limit-iface-{side}")]
    if len(limits) > 1:
        raise ValueError("-m addrtype: --limit-iface-in beside --limit-iface-out")
    return AddrType(
        source=_types(options.get("src-type")),
        destination=_types(options.get("dst-type")),
        limit=limits[0] if limits else None,
    )
