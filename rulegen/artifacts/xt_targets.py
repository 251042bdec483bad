"""The targets of iptables by name: which options they take, and what these mean.

In:  options as given.
Out: TARGETS: name -> options and builder; builders return values of xt_values, or Unknown for a form of the
    target that has none, or raise ValueError.
Source: iptables-extensions(8) of 1.8.9; iptables extensions/libxt_*.c, libipt_REJECT.c, libip6t_REJECT.c.

Old spellings of marks (--set-mark, --and-mark, --or-mark, --xor-mark) become value and mask of --set-xmark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rulegen.artifacts.unknown import Unknown
from rulegen.artifacts.xt_connection import sides
from rulegen.artifacts.xt_options import (
    U32_MAX,
    Given,
    Options,
    Reader,
    flat,
    given_text,
    number,
    value_and_mask,
)
from rulegen.artifacts.xt_values import (
    ChangeSet,
    Logged,
    Notrack,
    Reject,
    RestoreConnMark,
    SaveConnMark,
    SetConnMark,
    SetMarkTarget,
    Target,
)

VERDICTS: Final = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})

_MARKS: Final = (
    (1, "--set-xmark"),
    (1, "--set-mark"),
    (1, "--and-mark"),
    (1, "--or-mark"),
    (1, "--xor-mark"),
)


def _xmark(options: Reader) -> tuple[int, int]:
    one = options.one_of("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark")
    text = one.values[0]
    match one.name:
        case "set-xmark":
            return value_and_mask(text)
        case "set-mark":
            value, mask = value_and_mask(text)
            return value, value | mask
        case "and-mark":
            return 0, number(text) ^ U32_MAX
        case "or-mark":
            return number(text), number(text)
    return number(text), 0


def _mark(options: Reader) -> Target:
    value, mask = _xmark(options)
    return SetMarkTarget(value=value, mask=mask)


def _connmark(options: Reader) -> Target:
    moves = [move for move in ("save-mark", "restore-mark") if options.has(move)]
    if not moves:
        value, mask = _xmark(options)
        return SetConnMark(value=value, mask=mask)
    if len(moves) > 1:
        raise ValueError("-j CONNMARK: --save-mark beside --restore-mark")
    both = options.number("mask")
    nfmask, ctmask = options.number("nfmask"), options.number("ctmask")
    default = U32_MAX if both is None else both
    make = SaveConnMark if moves[0] == "save-mark" else RestoreConnMark
    return make(
        nfmask=default if nfmask is None else nfmask,
        ctmask=default if ctmask is None else ctmask,
    )


def _reject(options: Reader) -> Target:
    return Reject(kind=options.text("reject-with") or "port-unreachable")


def _set(options: Reader) -> Target | Unknown:
    one = options.one_of("add-set", "del-set", "map-set")
    if one.name == "map-set":
        return Unknown("SET", " ".join(given_text(tuple(options.given.values()))))
    return ChangeSet(
        action=one.name.removesuffix("-set"),
        name=one.values[0],
        sides=sides(one.values[1]),
        exist=options.has("exist"),
        timeout_s=options.number("timeout"),
    )


def _ct(options: Reader) -> Target | Unknown:
    if options.given.keys() == {"notrack"}:
        return Notrack()
    return Unknown("CT", " ".join(given_text(tuple(options.given.values()))))


def _logged(kind: str) -> Callable[[Reader], Target]:
    def build(options: Reader) -> Target:
        given = options.given.values()
        return Logged(kind=kind, options=tuple((one.name, " ".join(one.values)) for one in given))

    return build


# fmt: off
_TABLE: Final[tuple[tuple[str, dict[str, tuple[str, int]], Callable[[Reader], Target | Unknown]], ...]] = (
    ("MARK", flat(*_MARKS), _mark),
    ("CONNMARK", flat(*_MARKS, (0, "--save-mark"), (0, "--restore-mark"), (1, "--mask"), (1, "--nfmask"),
                      (1, "--ctmask")), _connmark),
    ("REJECT", flat((1, "--reject-with")), _reject),
    ("SET", flat((2, "--add-set"), (2, "--del-set"), (2, "--map-set"), (0, "--exist"), (1, "--timeout"),
                 (0, "--map-mark"), (0, "--map-prio"), (0, "--map-queue")), _set),
    ("CT", flat((0, "--notrack"), (1, "--helper"), (1, "--timeout"), (1, "--ctevents"), (1, "--expevents"),
                (1, "--zone"), (1, "--zone-orig"), (1, "--zone-reply")), _ct),
    ("NOTRACK", {}, lambda _: Notrack()),
    ("TRACE", {}, _logged("TRACE")),
    ("LOG", flat((1, "--log-level"), (1, "--log-prefix"), (0, "--log-tcp-sequence"), (0, "--log-tcp-options"),
                 (0, "--log-ip-options"), (0, "--log-uid"), (0, "--log-macdecode")), _logged("LOG")),
    ("NFLOG", flat((1, "--nflog-group"), (1, "--nflog-prefix"), (1, "--nflog-range"), (1, "--nflog-size"),
                   (1, "--nflog-threshold")), _logged("NFLOG")),
)
# fmt: on


def _builder(
    name: str, build: Callable[[Reader], Target | Unknown]
) -> Callable[[tuple[Given, ...]], Target | Unknown]:
    return lambda given: build(Reader(name, given))


TARGETS: Final[dict[str, tuple[Options, Callable[[tuple[Given, ...]], Target | Unknown]]]] = {
    name: (options, _builder(name, build)) for name, options, build in _TABLE
}
