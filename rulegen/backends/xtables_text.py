"""Say what is not in the packet's bytes, effects and limits in the language of iptables.

In:  rulegen.lower.literals, rulegen.ir.rule; the families that a file is for.
Out: words of a line of iptables-restore; and variants of them, where a line serves one family only.
Source: iptables-extensions(8) of 1.8.9; Linux net/netfilter/xt_*.c.

Variants of words exclude each other: at most one of them holds for a packet. None means that the file's
family can never meet what is asked for.

Nothing from the wire becomes text but through `quoted`, `hex_string` and header.remark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, TypeAlias

from rulegen.ir.match import Contains, InDirection, InState, Search, ServerName, SomeRecord, State, carrier
from rulegen.ir.rule import ConnectionLimit, Learn, Limit, SetMark
from rulegen.lower.literals import Finds, Found, Literal, MarkIs

Variants: TypeAlias = tuple[str, ...]

COMMENT_MAX: Final = 255
"""Linux uapi/linux/netfilter/xt_comment.h XT_MAX_COMMENT_LEN is 256 with the zero; what is longer is cut."""

CHAIN_MAX: Final = 28
"""Linux uapi/linux/netfilter/x_tables.h XT_EXTENSION_MAXNAMELEN is 29 with the zero."""

SET_MAX: Final = 31
"""Linux uapi/linux/netfilter/ipset/ip_set.h IPSET_MAXNAMELEN is 32 with the zero."""

TIMEOUT_MAX_S: Final = 2_147_483
"""Linux uapi/linux/netfilter/ipset/ip_set.h: milliseconds in 31 bits."""

WORD_MAX: Final = 1023
"""iptables/xshared.c struct xt_param_buf: what iptables-restore takes for one word of a line."""

WORDS_MAX: Final = 8000
"""Characters of matches in a line, which has room for LINE_MAX and for what else it says."""

LINE_MAX: Final = 10_000
"""iptables/iptables-restore.c reads lines of 10,240 bytes, and takes what follows for another line."""

PATTERN_MAX: Final = 127
"""Linux uapi/linux/netfilter/xt_string.h XT_STRING_MAX_PATTERN_SIZE is 128; the tool wants one less."""

HEADERS: Final = {"ip": 40, "ip6": 60}
"""Bytes that an IP packet with TCP has before its payload, at least."""

_FLAGS: Final = {"-4 ": "ip", "-6 ": "ip6"}

_SIDES: Final = {"saddr": "src", "daddr": "dst", "sport": "src", "dport": "dst"}

_COUNTED: Final = {"saddr": "srcip", "daddr": "dstip", "sport": "srcport", "dport": "dstport"}

_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

_EXPIRY_MIN_MS: Final = 60_000
_EXPIRY_MAX_MS: Final = 2**31 - 1

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 ._,:;/#@()+=<>\[\]-]")


class CantSay(Exception):
    """iptables has no words for it; the message says for what."""


def quoted(text: str) -> str:
    """A word of iptables-restore, in quotes: what could end it, or be an escape, becomes a `?`."""
    harmless = _UNSAFE.sub("?", text)
    if len(harmless) > COMMENT_MAX:
        harmless = f"{harmless[: COMMENT_MAX - 3]}..."
    return f'"{harmless}"'


def set_name(name: str) -> str:
    """What the kernel knows a set of the ruleset by; different for different names."""
    whole = f"tlswall-{name}"
    if len(whole) <= SET_MAX:
        return whole
    return f"{whole[: SET_MAX - 9]}-{sha256(name.encode()).hexdigest()[:8]}"


def family(fields: Iterable[str]) -> str | None:
    """The family whose header the fields need: ip, ip6, or None for any. No rule needs both (ir.check)."""
    return next((carrier(field) for field in fields if carrier(field) in ("ip", "ip6")), None)


def only(needed: str | None, families: tuple[str, ...]) -> Variants:
    """Words that restrict a line to a family, in a file for these."""
    if needed is None or families == (needed,):
        return ("",)
    return tuple(flag for flag, name in _FLAGS.items() if name == needed and name in families)


def each(families: tuple[str, ...], words: dict[str, str]) -> Variants:
    """Words that differ between families."""
    return tuple(f"{flag}{words[name]}" for name in families for flag in only(name, families))


def connection_words(literal: Literal, families: tuple[str, ...]) -> Variants:
    """A literal that is no test of bytes at known places."""
    match literal:
        # One match each: xt_conntrack.c takes a state for enough where there is no connection.
        case InState(states):
            listed = ",".join(state.upper() for state in State if state in states)
            return (f"-m conntrack --ctstate {listed}",)
        case InDirection(direction):
            return (f"-m conntrack --ctdir {direction.upper()}",)
        case MarkIs(value, mask, other):
            return (f"-m connmark {'! ' if other else ''}--mark {value:#x}/{mask:#x}",)
        case Found(fields, name, missing):
            words = f"-m set {'! ' if missing else ''}--match-set {set_name(name)} {set_sides(fields)}"
            return tuple(f"{flag}{words}" for flag in only(family(fields), families))
        case Finds(search, fails):
            pattern, icase = _pattern(search)
            words = f'{"! " if fails else ""}--hex-string "|{pattern.hex()}|" --algo kmp{icase}'
            return each(families, {name: f"-m string {words} --from {HEADERS[name]}" for name in families})
    raise AssertionError(literal)


def _pattern(search: Search) -> tuple[bytes, str]:
    match search:
        case Contains(pattern):
            what, pattern, icase = "bytes", pattern, ""
        case ServerName(name, subdomains):
            if subdomains:
                raise CantSay("the server_name of a ClientHello with all names below it")
            size = len(name)
            head = b"\0\0" + (size + 5).to_bytes(2) + (size + 3).to_bytes(2) + b"\0" + size.to_bytes(2)
            what, pattern, icase = "a server_name", head + name.encode("ascii"), " --icase"
        case SomeRecord():
            raise CantSay("a record behind the first, which is at no fixed place")
    if len(pattern) > PATTERN_MAX:
        raise CantSay(f"{what} of {len(pattern)} bytes, more than {PATTERN_MAX}")
    return pattern, icase


def set_sides(fields: tuple[str, ...]) -> str:
    """Which of the packet's addresses and ports are looked for in a set.

    Raises:
        CantSay: They are not in the order in which sets have them, or not addresses and ports.
    """
    names = tuple(field.rpartition(".")[2] for field in fields)
    kinds = "".join(name[1:] if name in _SIDES else f" {name} " for name in names)
    if kinds not in SETS:
        raise CantSay(f"a set of {' . '.join(fields)} (ipset has sets of {', of '.join(SETS.values())})")
    return ",".join(_SIDES[name] for name in names)


SETS: Final = {
    "addr": "addresses",
    "addrport": "addresses with ports",
    "addrportaddr": "addresses with ports and addresses",
    "port": "ports",
}
"""Kinds of keys that ipset's sets have, of those that every kernel has."""


def seconds(timeout_s: int) -> int:
    """A time-out that sets can have."""
    if timeout_s > TIMEOUT_MAX_S:
        raise CantSay(f"a time-out of {timeout_s} s, more than {TIMEOUT_MAX_S}")
    return timeout_s


def effect_words(effect: SetMark | Learn, families: tuple[str, ...]) -> Variants:
    """An effect as a target."""
    match effect:
        case SetMark(value, mask):
            return (f"-j CONNMARK --set-xmark {value:#x}/{mask:#x}",)
        case Learn(name, fields, timeout_s):
            sides = set_sides(fields)
            words = f"-j SET --add-set {set_name(name)} {sides} --exist --timeout {seconds(timeout_s)}"
            return tuple(f"{flag}{words}" for flag in only(family(fields), families))


def limit_words(rule: str, limit: Limit | ConnectionLimit | None, families: tuple[str, ...]) -> Variants:
    """A limit as a match; it must be the last of its line, because it counts what it is asked about."""
    if limit is None:
        return ("",)
    if isinstance(limit, ConnectionLimit):
        return _connection_words(limit, families)
    modes = [_COUNTED.get(field.rpartition(".")[2], "") for field in limit.key]
    if not all(modes):
        raise CantSay(f"a rate per {' . '.join(limit.key)}; there are rates per address and port")
    # A bucket that is forgotten is full again, so it must live until it would be full anyway.
    full_ms = 1000 * limit.burst * _SECONDS[limit.per] // limit.packets
    # The kernel keeps a table by its name as long as any rule uses it, and its rate with it.
    name = f"tlswall-{rule}-{limit.packets}-{limit.per}-{limit.burst}"
    mode = f" --hashlimit-mode {','.join(modes)}" if modes else ""
    words = (
        f"-m hashlimit --hashlimit-above {limit.packets}/{limit.per} --hashlimit-burst {limit.burst}"
        f"{mode} --hashlimit-name {name}"
        f" --hashlimit-htable-expire {min(max(full_ms, _EXPIRY_MIN_MS), _EXPIRY_MAX_MS)}"
    )
    return tuple(f"{flag}{words}" for flag in only(family(limit.key), families))


def _connection_words(limit: ConnectionLimit, families: tuple[str, ...]) -> Variants:
    names = [field.rpartition(".")[2] for field in limit.key]
    if names not in (["saddr"], ["daddr"], []):
        raise CantSay(f"open connections per {' . '.join(limit.key)}; they can be counted per address")
    above = f"-m connlimit --connlimit-above {limit.connections}"
    whole = {"ip": 32, "ip6": 128} if names else {"ip": 0, "ip6": 0}
    side = names[0] if names else "saddr"
    wanted = family(limit.key)
    served = tuple(name for name in families if wanted in (None, name))
    return tuple(
        f"{flag}{above} --connlimit-mask {whole[name]} --connlimit-{side}"
        for name in served
        for flag in only(name, families)
    )
