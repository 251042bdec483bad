"""Say loads and lengths with the u32 match of xtables.

In:  literals of one conjunction that look at bytes (Within) or at the length of the payload (Has).
Out: words of an iptables line: `-m u32 --u32 "..."`.
Source: Linux net/netfilter/xt_u32.c; iptables extensions/libxt_u32.c; iptables-extensions(8).

u32 reads 4 bytes at a place, shifts and masks them, and compares the number with ranges; `@` makes the number
an offset to go on from. What lies outside the packet makes the whole match false, and true if it is negated
by `!`. Offsets only ever grow, so that 4 bytes which end within the first 3 of the payload can't be read from
where the payload starts. Yet a payload of 1 byte is how rules are evaded. An IPv6 header has room enough
before its TCP header; an IPv4 header's length is read less one of its bits, which the rule knows to be set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final

from analyzer.wire.fields import Layer
from rulegen.lower.literals import Has, Load, Within
from rulegen.lower.ranges import Ranges

TESTS_MAX: Final = 10
RANGES_MAX: Final = 10
"""Linux uapi/linux/netfilter/xt_u32.h XT_U32_MAXSIZE: per match, and per test. A place has no more numbers
either; the longest here has nine."""

TEXT_MAX: Final = 1000
"""iptables/xshared.c struct xt_param_buf: a word of iptables-restore has 1,023 bytes at most."""

WORD_BYTES: Final = 4

PROTOCOLS: Final = {"tcp": 6, "udp": 17}
"""IANA protocol-numbers."""


@dataclass(frozen=True, slots=True)
class Base:
    """From where to read a layer: behind `jump`, `skip` bytes on, if the `condition` holds."""

    jump: str = ""
    skip: int = 0
    condition: str = ""


_TCP_HEADER: Final = "12>>26&0x3C@ "

_HEADERS: Final = {
    ("ip", Layer.NETWORK): Base(),
    ("ip6", Layer.NETWORK): Base(),
    ("ip", Layer.TRANSPORT): Base(jump="0>>22&0x3C@ "),
    ("ip6", Layer.TRANSPORT): Base(skip=40),
}

_PAYLOAD: Final = {
    "ip": Base(jump=f"0>>22&0x3C@ {_TCP_HEADER}"),
    "ip6": Base(jump="52>>26&0x3C@ ", skip=40),
}

_SHORT: Final = (
    # The IPv4 header's length is 5 to 15 words: odd, or even with bit 1, or 8 or 12.
    Base(jump="0>>22&0x38@ 16>>26&0x3C@ ", skip=4, condition="0&0x01000000=0x01000000"),
    Base(jump="0>>22&0x34@ 20>>26&0x3C@ ", skip=8, condition="0&0x03000000=0x02000000"),
    Base(jump="0>>22&0x1C@ 44>>26&0x3C@ ", skip=32, condition="0&0x03000000=0x00000000"),
)

_WHOLE_DATAGRAM: Final = {"ip": "4&0x1FFF=0x0", "ip6": "3&0xFF={:#x}"}
"""No fragment but the first; and in IPv6 no extension header, behind which nothing is where it should be."""


@dataclass(frozen=True, slots=True)
class Word:
    """Up to 4 bytes and what they may be."""

    layer: Layer
    byte_offset: int
    width_bytes: int
    mask: int
    ranges: Ranges


def reach_of(literals: Iterable[object]) -> int:
    """Payload bytes that a packet must have for these literals to hold."""
    reach = 0
    for literal in literals:
        match literal:
            case Within(load) if load.layer is Layer.PAYLOAD:
                reach = max(reach, load.byte_offset + load.width_bytes)
            case Has(size, lacks=False):
                reach = max(reach, size)
    return reach


def needs_whole(literals: Iterable[object]) -> bool:
    """Some look behind the IP header, where a fragment may have anything."""
    return any(
        isinstance(literal, Has) or (isinstance(literal, Within) and literal.load.layer is not Layer.NETWORK)
        for literal in literals
    )


def steps(
    literals: Sequence[Within | Has], *, family: str, protocol: str, reach: int, whole: bool = False
) -> list[tuple[str, ...]]:
    """The literals as steps that all have to hold; of a step's variants one has to, and only one can.

    Args:
        literals: Of one conjunction.
        family: ip or ip6.
        protocol: tcp or udp, which the packet is known to be; it matters to transport and payload.
        reach: Bytes that the payload has if the rule holds, by other literals.
        whole: Other literals that `needs_whole` come before.
    """
    short = max(reach, reach_of(literals)) < WORD_BYTES
    present: list[Word] = []
    lacking: list[int] = []
    several: list[list[list[Word]]] = []
    for literal in literals:
        match literal:
            case Has(size, lacks=True):
                lacking.append(size)
            case Has(size):
                present.append(_there(size))
            case Within(load, ranges):
                variants = list(words(load, ranges))
                if len(variants) == 1:
                    present += variants[0]
                else:
                    several.append(variants)
    checks: tuple[str, ...] = ()
    if needs_whole(literals) and not whole:
        checks = (_WHOLE_DATAGRAM[family].format(PROTOCOLS[protocol]),)
    bases = _bases(present, family, short)
    absent = "".join(_negated(size, family) for size in lacking)
    result = []
    if present or lacking:
        result.append(tuple((_match(checks, present, base, family) + absent).strip() for base in bases))
        checks = ()
    for variants in several:
        bases = _bases([word for variant in variants for word in variant], family, short)
        chosen = product(variants, bases)
        result.append(tuple(_match(checks, variant, base, family) for variant, base in chosen))
        checks = ()
    return result


def _bases(present: Iterable[Word], family: str, short: bool) -> tuple[Base, ...]:
    """The places from which the payload is read, one of which is the packet's."""
    payload = any(word.layer is Layer.PAYLOAD for word in present)
    return _SHORT if payload and short and family == "ip" else (_PAYLOAD[family],)


def _match(tests: Iterable[str], present: Iterable[Word], base: Base, family: str) -> str:
    """As few u32 matches as the limits allow. Without words of the payload the base does not matter."""
    texts = [*tests, *filter(None, (base.condition,))]
    texts += (
        _test(word, base if word.layer is Layer.PAYLOAD else _HEADERS[family, word.layer]) for word in present
    )
    matches: list[list[str]] = [[]]
    for text in texts:
        if len(matches[-1]) == TESTS_MAX or len(" && ".join((*matches[-1], text))) > TEXT_MAX:
            matches.append([])
        matches[-1].append(text)
    return " ".join(f'-m u32 --u32 "{" && ".join(match)}"' for match in matches if match)


def _negated(size: int, family: str) -> str:
    """The payload has fewer bytes."""
    bases = _SHORT if size < WORD_BYTES and family == "ip" else (_PAYLOAD[family],)
    return "".join(
        f' -m u32 ! --u32 "{" && ".join(filter(None, (base.condition, _test(_there(size), base))))}"'
        for base in bases
    )


def _there(size: int) -> Word:
    """The payload has its byte `size - 1`."""
    return Word(Layer.PAYLOAD, size - 1, 1, 0xFF, ((0, 0xFF),))


def _test(word: Word, base: Base) -> str:
    """Read the 4 bytes that end with the word's if the packet has them, else the 4 that start the layer."""
    end = word.byte_offset + word.width_bytes
    at = max(base.skip + end - WORD_BYTES, 0)
    shift = 8 * (at + WORD_BYTES - base.skip - end)
    place = f"{base.jump}{at}"
    if word.ranges == ((0, (1 << 8 * word.width_bytes) - 1),):
        return f"{place}=0x0:0xFFFFFFFF"
    if shift:
        place += f">>{shift}"
    if word.mask != (1 << 32 - shift) - 1:
        place += f"&0x{word.mask:X}"
    return f"{place}={','.join(_range(*pair) for pair in word.ranges)}"


def _range(low: int, high: int) -> str:
    return f"0x{low:X}" if low == high else f"0x{low:X}:0x{high:X}"


def words(load: Load, ranges: Ranges) -> Iterator[list[Word]]:
    """The load in words of 4 bytes, in variants that exclude each other and have few enough ranges."""
    if load.width_bytes <= WORD_BYTES:
        for start in range(0, len(ranges), RANGES_MAX):
            yield [_word(load, 0, load.width_bytes, ranges[start : start + RANGES_MAX])]
        return
    first = load.width_bytes % WORD_BYTES or WORD_BYTES
    cuts = [0, *range(first, load.width_bytes + 1, WORD_BYTES)]
    parts = list(pairwise(cuts))
    for low, high in ranges:
        for bounds in _between(low, high, [8 * (end - start) for start, end in parts]):
            yield [
                _word(load, start, end, (bound,))
                for (start, end), bound in zip(parts, bounds, strict=True)
                if bound != (0, (1 << 8 * (end - start)) - 1) or end == load.width_bytes
            ]


def _word(load: Load, start: int, end: int, ranges: Ranges) -> Word:
    mask = load.mask >> 8 * (load.width_bytes - end) & ((1 << 8 * (end - start)) - 1)
    return Word(load.layer, load.byte_offset + start, end - start, mask, ranges)


def _between(low: int, high: int, widths: Sequence[int]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Bounds of the digits of a number, whose widths in bits are given: products that make up low to high."""
    below = sum(widths[1:])
    top = (1 << below) - 1
    if (low & top, high & top) == (0, top) or not below:
        yield ((low >> below, high >> below), *((0, (1 << width) - 1) for width in widths[1:]))
    elif low >> below == high >> below:
        digit = low >> below
        for rest in _between(low & top, high & top, widths[1:]):
            yield (digit, digit), *rest
    else:
        # From low to the end of its first digit, the digits between, from the start of high's to high.
        end, start = low | top, high & ~top
        if low & top:
            yield from _between(low, end, widths)
            low = end + 1
        if high & top != top:
            yield from _between(start, high, widths)
            high = start - 1
        if low <= high:
            yield from _between(low, high, widths)
