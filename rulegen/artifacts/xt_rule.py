"""Read one rule of iptables-save: what stands behind `-A CHAIN`.

In:  words of a line.
Out: Parsed: matches, target, comment, counters.
Source: iptables(8); iptables 1.8.9 iptables/xshared.c do_parse, command_match, command_jump.

An option belongs to the module named last that knows it. Of a module that is not known here, everything up
to the next module or general option is kept as Unknown; nothing is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from rulegen.artifacts.unknown import Unknown
from rulegen.artifacts.xt_matches import MATCHES
from rulegen.artifacts.xt_names import protocol_number
from rulegen.artifacts.xt_options import Given, Module, Word, flat, given_text, network, number
from rulegen.artifacts.xt_targets import TARGETS, VERDICTS
from rulegen.artifacts.xt_values import (
    Address,
    Fragment,
    Goto,
    Interface,
    Jump,
    Match,
    Protocol,
    Target,
    Verdict,
)

ADDRESSES_MAX: Final = 4096
"""Rules that one line may become, by lists of addresses."""

_GENERAL: Final = {
    "-p": ("protocol", 1), "--protocol": ("protocol", 1), "--proto": ("protocol", 1),
    "-s": ("source", 1), "--source": ("source", 1), "--src": ("source", 1),
    "-d": ("destination", 1), "--destination": ("destination", 1), "--dst": ("destination", 1),
    "-i": ("in", 1), "--in-interface": ("in", 1),
    "-o": ("out", 1), "--out-interface": ("out", 1),
    "-f": ("fragment", 0), "--fragment": ("fragment", 0), "--fragments": ("fragment", 0),
    "-m": ("match", 1), "--match": ("match", 1),
    "-j": ("jump", 1), "--jump": ("jump", 1),
    "-g": ("goto", 1), "--goto": ("goto", 1),
    "-c": ("counters", 2), "--set-counters": ("counters", 2),
    "-4": ("ipv4", 0), "--ipv4": ("ipv4", 0), "-6": ("ipv6", 0), "--ipv6": ("ipv6", 0),
}  # fmt: skip

_COMMENT: Final = flat((1, "--comment"))
_IMPLIED: Final = {"tcp": "tcp", "udp": "udp", "udplite": "udplite", "icmp": "icmp", "1": "icmp", "6": "tcp",
                   "17": "udp", "icmpv6": "icmp6", "ipv6-icmp": "icmp6", "58": "icmp6"}  # fmt: skip
"""-p loads the match of its protocol, as soon as one of that match's options is given."""

_INTERFACE: Final = re.compile(r"[^\s/]{0,15}")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A rule, or one of the rules that a line stands for."""

    matches: tuple[Match | Unknown, ...]
    target: Target | Unknown | None
    comment: str | None
    counters: tuple[int, int] | None
    only: str | None
    """The family that -4 or -6 names."""


@dataclass(slots=True)
class _State:
    modules: list[Module] = field(default_factory=list)
    target: Module | None = None
    jump: str | None = None
    goto: str | None = None
    general: dict[str, Given] = field(default_factory=dict)


def parse_rule(words: list[Word], chains: frozenset[str]) -> Iterator[Parsed]:
    """Read a rule; lists of addresses make several.

    Args:
        words: Behind `-A CHAIN`.
        chains: Names of the table's own chains, to tell a jump from a target.

    Raises:
        ValueError: What is wrong.
    """
    state = _State()
    at = 0
    while at < len(words):
        at = _option(words, at, state)
    yield from _rules(state, chains)


def _option(words: list[Word], at: int, state: _State) -> int:
    """Read the option at a place; the place behind it."""
    inverted = words[at] == Word("!")
    place = at + inverted
    if place == len(words):
        raise ValueError("'!' at the end")
    text = words[place].text
    owner, entry = _owner(text, state)
    if owner is None and entry is None:
        raise ValueError(f"option {text[:60]!r} is not known")
    if entry is None:  # an unknown module takes its values along
        return _unknown_option(words, place, inverted, owner)
    name, count = entry
    values = tuple(word.text for word in words[place + 1 : place + 1 + count])
    if len(values) < count:
        raise ValueError(f"{text} needs {count} value{'s' if count > 1 else ''}")
    given = Given(name, values, inverted)
    if owner is None:
        _general(given, state)
    else:
        owner.given.append(given)
    return place + 1 + count


def _owner(text: str, state: _State) -> tuple[Module | None, tuple[str, int] | None]:
    """The module whose option it is (None: a general one); its name and number of values, if known."""
    for module in (state.target, *reversed(state.modules)):
        if module is not None and module.options is not None and text in module.options:
            return module, module.options[text]
        if module is not None and module.options is None and text not in _GENERAL:
            return module, None
    if text in _GENERAL:
        return None, _GENERAL[text]
    protocol = state.general.get("protocol")
    name = None if protocol is None else _IMPLIED.get(protocol.values[0].lower())
    if name is not None and text in MATCHES[name][0]:
        state.modules.append(_match(name))
        return state.modules[-1], MATCHES[name][0][text]
    return None, None


def _unknown_option(words: list[Word], place: int, inverted: bool, owner: Module | None) -> int:
    end = place + 1
    while end < len(words) and (words[end].quoted or not words[end].text.startswith(("-", "!"))):
        end += 1
    if owner is not None:
        values = tuple(word.text for word in words[place + 1 : end])
        owner.given.append(Given(words[place].text, values, inverted))
    return end


def _match(name: str) -> Module:
    if name == "comment":
        return Module(name, _COMMENT)
    return Module(name, MATCHES[name][0] if name in MATCHES else None)


def _general(given: Given, state: _State) -> None:
    match given.name:
        case "match":
            state.modules.append(_match(given.values[0]))
        case "jump" | "goto":
            if state.jump is not None or state.goto is not None:
                raise ValueError("two targets")
            if given.name == "goto":
                state.goto = given.values[0]
                return
            state.jump = given.values[0]
            if state.jump not in VERDICTS:
                options = TARGETS[state.jump][0] if state.jump in TARGETS else None
                state.target = Module(state.jump, options)
        case _:
            if given.name in state.general:
                raise ValueError(f"{given.name} is given twice")
            state.general[given.name] = given
    if given.inverted and given.name in ("match", "jump", "goto", "counters", "ipv4", "ipv6"):
        raise ValueError(f"{given.name} can't be inverted")


def _rules(state: _State, chains: frozenset[str]) -> Iterator[Parsed]:
    sources, destinations = (tuple(_addresses(state, side)) for side in ("source", "destination"))
    if len(sources) * len(destinations) > ADDRESSES_MAX:
        raise ValueError(f"more than {ADDRESSES_MAX} pairs of addresses")
    others = tuple(_others(state.general))
    comments = [
        given.values[0] for module in state.modules if module.name == "comment" for given in module.given
    ]
    matches = [_matched(module) for module in state.modules if module.name != "comment"]
    target = _target(state, chains)
    counters = _counters(state.general.get("counters"))
    for source, destination in product(sources, destinations):
        tests = (*source, *destination, *others, *matches)
        yield Parsed(tests, target, " ".join(comments) or None, counters, _only(state.general))


def _matched(module: Module) -> Match | Unknown:
    given = tuple(module.given)
    return MATCHES[module.name][1](given) if module.options is not None else _unknown(module)


def _unknown(module: Module) -> Unknown:
    return Unknown(module.name, " ".join(given_text(tuple(module.given))))


def _addresses(state: _State, side: str) -> Iterator[tuple[Address, ...]]:
    given = state.general.get(side)
    if given is None:
        yield ()
        return
    texts = given.values[0].split(",")
    if given.inverted and len(texts) > 1:
        raise ValueError(f"{side}: a list of addresses can't be inverted")
    for text in texts:
        value, mask, width = network(text)
        if not mask and not given.inverted:
            yield ()  # every address: iptables-save leaves it out
            continue
        yield (Address(side=side, value=value, mask=mask, width_bits=width, inverted=given.inverted),)


def _others(general: dict[str, Given]) -> Iterator[Match]:
    for side in ("in", "out"):
        if given := general.get(side):
            name = given.values[0]
            if not _INTERFACE.fullmatch(name):
                raise ValueError(f"{name[:40]!r} is no name of an interface")
            prefix = name.endswith("+")
            yield Interface(side=side, name=name.removesuffix("+"), prefix=prefix, inverted=given.inverted)
    if given := general.get("protocol"):
        protocol = protocol_number(given.values[0])
        if protocol or given.inverted:
            yield Protocol(number=protocol, inverted=given.inverted)
    if given := general.get("fragment"):
        yield Fragment(inverted=given.inverted)


def _target(state: _State, chains: frozenset[str]) -> Target | Unknown | None:
    if state.goto is not None:
        if state.goto not in chains:
            raise ValueError(f"goto {state.goto[:60]!r}: there is no such chain")
        return Goto(chain=state.goto)
    if state.jump is None:
        return None
    if state.jump in VERDICTS:
        return Verdict(kind=state.jump)
    if state.jump in chains:
        return Jump(chain=state.jump)
    if state.target is None:
        return None
    if state.target.options is None:
        return _unknown(state.target)
    return TARGETS[state.jump][1](tuple(state.target.given))


def _only(general: dict[str, Given]) -> str | None:
    named = [family for option, family in (("ipv4", "ip"), ("ipv6", "ip6")) if option in general]
    if len(named) > 1:
        raise ValueError("-4 beside -6")
    return named[0] if named else None


def _counters(given: Given | None) -> tuple[int, int] | None:
    if given is None:
        return None
    packets, bytes_ = (number(text, (1 << 64) - 1) for text in given.values)
    return packets, bytes_
