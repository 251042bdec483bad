"""Look for a server_name in a ClientHello, extension by extension.

In:  ServerName.
Out: Walk: ways, each of one or more programs that all have to match; how many extensions they look at.
Source: RFC 8446 4.1.2 (ClientHello), 4.2 (extensions), RFC 6066 3 (server_name).

That a ClientHello starts the payload of a TCP segment (HELLO) must be asked by a program of its own: these
begin at once to walk over session_id, cipher_suites and compression_methods. There are no loops in classic
BPF. A program looks at a few extensions, a way further on skips more of them, and what is compared is shared
out to as many programs as it takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from rulegen.bpf.assemble import Ask, Block, Goto, Label, Operation, Return, assemble
from rulegen.bpf.program import (
    ABS,
    ADD,
    ALU,
    AND,
    IMM,
    IND,
    JEQ,
    JGE,
    JGT,
    JMP,
    JSET,
    LD,
    LDX,
    MEM,
    MISC,
    MSH,
    OR,
    RSH,
    ST,
    SUB,
    TAX,
    TXA,
    B,
    H,
    K,
    Program,
    W,
    X,
)
from rulegen.bpf.split import fits
from rulegen.ir.match import Match, ServerName, all_of, between, equals

HELLO: Final[Match] = all_of(
    equals("tls.content_type", 22), between("tls.version", 0x0300, 0x03FF), equals("tls.handshake_type", 1)
)

PROGRAMS_MAX: Final = 8
"""Of a way. A long name is looked for in fewer extensions rather than by more programs."""

# From the start of the payload, and then, as X grows by the lengths of what is variable, from X.
_SESSION_ID_LENGTH: Final = 43
_CIPHER_SUITES_LENGTH: Final = 44
_COMPRESSION_METHODS_LENGTH: Final = 46
_EXTENSIONS_LENGTH: Final = 47
_EXTENSION: Final = 49
_EXTENSION_LENGTH: Final = 51
_NAME_TYPE: Final = 55
_NAME_LENGTH: Final = 56
_NAME: Final = 58
_EXTENSION_HEADER_BYTES: Final = 4
_LIST_HEADER_BYTES: Final = 5
"""Length of the list, name_type and length of the name: what server_name has before the name."""

_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0

_ACCEPT, _REJECT, _START, _FOUR, _SIX, _HELLO, _FOUND, _AFTER = range(8)
_SIX_BIT: Final = 0x20
_END: Final = 0
"""The word of the memory that says where the extensions end."""

_GROW: Final = (Operation(ALU + ADD + X), Operation(MISC + TAX))
_SIZES: Final = {1: B, 2: H, 4: W}
_CASE: Final = 0x20
"""The bit in which a letter of ASCII differs from its capital."""


@dataclass(frozen=True, slots=True)
class Walk:
    ways: tuple[tuple[Program, ...], ...]
    extensions: int


@dataclass(frozen=True, slots=True)
class _Check:
    """Of the extension that was found: operations, then a jump that must be taken, or (`no`) must not."""

    operations: tuple[Operation, ...]
    code: int
    k: int
    no: bool = False
    needs_end: bool = False
    """The word _END of the memory."""
    from_end: bool = False
    """X counts from the end of the name (see _to_the_end); such checks are last."""


@lru_cache(maxsize=256)
def walk(name: ServerName) -> Walk:
    """All ways that fit, from the first extension on."""
    ways: list[tuple[Program, ...]] = []
    extensions = 0
    while (found := _way(name, extensions)) is not None:
        programs, count = found
        ways.append(programs)
        extensions += count
    return Walk(tuple(ways), extensions)


def _way(name: ServerName, skipped: int) -> tuple[tuple[Program, ...], int] | None:
    """Programs that look at as many extensions as can be, behind those skipped."""
    best = None
    count = 1
    while (programs := _programs(name, skipped, count)) is not None:
        best = programs, count
        count += 1
    return best


def _programs(name: ServerName, skipped: int, count: int) -> tuple[Program, ...] | None:
    """As few as can be; None if a check does not fit even alone, or there are too many."""
    done: list[Program] = []
    chosen: list[_Check] = []
    last: Program | None = None
    for check in _checks(name, _EXTENSION_HEADER_BYTES * skipped):
        program = _program(name, skipped, count, [*chosen, check])
        if not fits(program):
            if last is None:
                return None
            done.append(last)
            chosen = []
            program = _program(name, skipped, count, [check])
            if not fits(program):
                return None
        chosen.append(check)
        last = program
    assert last is not None
    return (*done, last) if len(done) < PROGRAMS_MAX else None


def _checks(name: ServerName, shift: int) -> list[_Check]:
    """What must be right about the extension whose header is `shift` bytes behind _EXTENSION + X."""
    text = name.name.encode("ascii")
    # The name ends in its extension, and that in the extensions: what follows them is no server_name.
    # Of a name below another one it is only known that the end that is compared would fit the extension.
    length = (_load(2, _EXTENSION_LENGTH + shift),)
    checks = [_Check(length, JMP + JGE + K, len(text) + _LIST_HEADER_BYTES)]
    if name.subdomains:
        checks.append(_Check((_load(1, _NAME_TYPE + shift),), JMP + JEQ + K, _HOST_NAME))
        checks += (replace(one, from_end=True) for one in _equal(text, _NAME + shift))
    else:
        head = bytes((_HOST_NAME,)) + len(text).to_bytes(2)
        checks += _equal(head + text, _NAME_TYPE + shift)
    behind = _NAME + shift + len(text) - _EXTENSION
    ends = (Operation(MISC + TXA), Operation(ALU + ADD + K, behind), Operation(LDX + MEM, _END))
    last = _Check(ends, JMP + JGT + X, 0, no=True, needs_end=True, from_end=name.subdomains)
    return [*checks, last]


def _equal(pattern: bytes, offset: int) -> list[_Check]:
    """The bytes there are those of the pattern; letters in either case."""
    checks = []
    at = 0
    while at < len(pattern):
        left = len(pattern) - at
        size = 4 if len(pattern) >= 4 else 2 if left >= 2 else 1
        at = min(at, len(pattern) - size)
        piece = pattern[at : at + size]
        lower = bytes(_CASE if one in b"abcdefghijklmnopqrstuvwxyz" else 0 for one in piece)
        fold = (Operation(ALU + OR + K, int.from_bytes(lower)),) if any(lower) else ()
        checks.append(_Check((_load(size, offset + at), *fold), JMP + JEQ + K, int.from_bytes(piece)))
        at += size
    return checks


def _program(name: ServerName, skipped: int, count: int, checks: Sequence[_Check]) -> Program:
    blocks: dict[Label, Block] = {
        _ACCEPT: Block((), Return(1)),
        _REJECT: Block((), Return(0)),
        _START: Block((Operation(LD + B + ABS, 0),), Ask(JMP + JSET + K, _SIX_BIT, _SIX, _FOUR)),
        _FOUR: Block((Operation(LDX + B + MSH, 0),), Goto(_HELLO)),
        _SIX: Block((Operation(LDX + W + IMM, 40),), Goto(_HELLO)),
    }
    labels = [_HELLO, *range(_AFTER, _AFTER + count - 1), _REJECT]
    shift = _EXTENSION_HEADER_BYTES * skipped
    operations = _to_extensions(skipped, keep_end=any(check.needs_end for check in checks))
    for label, following in itertools.pairwise(labels):
        asked = (*operations, _load(2, _EXTENSION + shift))
        blocks[label] = Block(asked, Ask(JMP + JEQ + K, _SERVER_NAME, _FOUND, following))
        header = Operation(ALU + ADD + K, _EXTENSION_HEADER_BYTES)
        operations = (_load(2, _EXTENSION_LENGTH + shift), header, *_GROW)
    fresh = itertools.count(_AFTER + count)
    entry, moved = _FOUND, False
    for number, check in enumerate(checks, 1):
        if check.from_end and not moved:
            moved = True
            longer, before, following = next(fresh), next(fresh), next(fresh)
            blocks |= _to_the_end(len(name.name), shift, (entry, longer, before, following))
            entry = following
        following = next(fresh) if number < len(checks) else _ACCEPT
        yes, no = (_REJECT, following) if check.no else (following, _REJECT)
        blocks[entry] = Block(check.operations, Ask(check.code, check.k, yes, no))
        entry = following
    return assemble(blocks, _START)


def _to_extensions(skipped: int, *, keep_end: bool) -> tuple[Operation, ...]:
    """From X at the TCP header to X at the first extension that is looked at, less _EXTENSION and headers."""
    operations = [
        _load(1, 12),
        Operation(ALU + AND + K, 0xF0),
        Operation(ALU + RSH + K, 2),
        *_GROW,
        *(_load(1, _SESSION_ID_LENGTH), *_GROW),
        *(_load(2, _CIPHER_SUITES_LENGTH), *_GROW),
        *(_load(1, _COMPRESSION_METHODS_LENGTH), *_GROW),
    ]
    if keep_end:
        operations += [_load(2, _EXTENSIONS_LENGTH), Operation(ALU + ADD + X), Operation(ST, _END)]
    for number in range(skipped):
        operations += [_load(2, _EXTENSION_LENGTH + _EXTENSION_HEADER_BYTES * number), *_GROW]
    return tuple(operations)


def _to_the_end(size: int, shift: int, labels: tuple[Label, Label, Label, Label]) -> dict[Label, Block]:
    """Have X grow by what the name has before its last `size` bytes: nothing, or something and a dot.

    Of the labels the first is the entry, and the last is where it goes on.
    """
    entry, longer, before, following = labels
    length = (_load(2, _NAME_LENGTH + shift),)
    dot = (*_GROW, _load(1, _NAME + shift - 1))
    return {
        entry: Block(length, Ask(JMP + JGE + K, size, longer, _REJECT)),
        longer: Block((Operation(ALU + SUB + K, size),), Ask(JMP + JEQ + K, 0, following, before)),
        before: Block(dot, Ask(JMP + JEQ + K, ord("."), following, _REJECT)),
    }


def _load(size: int, offset: int) -> Operation:
    return Operation(LD + _SIZES[size] + IND, offset)
