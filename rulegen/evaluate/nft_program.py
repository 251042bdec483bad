"""Make of a rule's register program something that judges packets quickly.

In:  a rule's expressions; the sets and objects of its table.
Out: Program: a test, and the verdict.
Source: Linux net/netfilter/nf_tables_core.c nft_do_chain and nft_*.c, the `eval` functions.

Every expression is met in its order, because some remember packets. What has no model is refused here,
before the first packet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rulegen.artifacts.nft_values import (
    Bitwise,
    Byteorder,
    Compare,
    ConnectionCount,
    Counter,
    CtLoad,
    CtSet,
    Decide,
    DynamicSet,
    Elsewhere,
    Expression,
    ExthdrLoad,
    ExthdrReset,
    ExthdrWrite,
    Fib,
    Hash,
    Immediate,
    Ipsec,
    Last,
    Limit,
    Log,
    Lookup,
    MetaLoad,
    MetaSet,
    Nat,
    NftVerdict,
    Notrack,
    Numgen,
    ObjectMap,
    ObjectReference,
    OsFingerprint,
    PayloadLoad,
    PayloadWrite,
    Quota,
    Range,
    Reject,
    Route,
    Shift,
    Socket,
)
from rulegen.artifacts.unknown import Unknown
from rulegen.evaluate.nft_arithmetic import masked, shifted, turned
from rulegen.evaluate.nft_compare import Step, all_of, compare, present, within
from rulegen.evaluate.nft_connections import Known
from rulegen.evaluate.nft_loads import Getter, Unmodelled, ct, exthdr, meta, payload
from rulegen.evaluate.nft_packet import Seen
from rulegen.evaluate.nft_registers import Registers, Value
from rulegen.evaluate.nft_sets import NftSet
from rulegen.evaluate.nft_state import Increment, Stateful, stateful
from rulegen.ir.match import State

Choose = Callable[[Seen], NftVerdict | None]
"""A verdict map; None: it has no such key, and the rule does not match."""

DROP: Final = NftVerdict("drop")
_TCP_RESET: Final = 1
"""NFT_REJECT_TCP_RST."""
_MILLISECOND_NS: Final = 1_000_000
_WITHOUT_EFFECT: Final = frozenset({"priority", "nftrace"})
"""Of `meta ... set`: no rule's verdict follows from them, as their loads have no model."""


@dataclass(frozen=True, slots=True)
class Program:
    matches: Step | None
    """None: every packet."""
    verdict: NftVerdict | Choose | None
    """None: the next rule judges."""
    resets: bool = False
    """The packet is answered with a TCP reset."""


@dataclass(frozen=True, slots=True)
class Table:
    """What the rules of a table have in common."""

    sets: Mapping[str, NftSet]
    key_bytes: Mapping[str, int]
    """Of each set, padded."""
    objects: Mapping[str, Stateful | None]
    """By kind and name, joined by a space; None: it only counts."""
    interfaces: Mapping[str, int]
    known: Known
    address_bytes: int
    """Of `ct saddr`: 4 in a table of IPv4."""


def compile_rule(parts: Iterable[Expression | Unknown], table: Table) -> Program:
    """Compile one rule.

    Raises:
        Unmodelled: An expression has no model.
    """
    compiler = _Compiler(table)
    pending = list(parts)
    for at, part in enumerate(pending):
        match part:
            case Decide(verdict):
                return compiler.program(verdict)
            case Reject():
                return compiler.program(DROP, resets=part.type == _TCP_RESET)
            case Lookup(verdict=True):
                if pending[at + 1 :] and table.sets[part.set].continues:
                    raise Unmodelled("a verdict map that goes on within its rule")
                return compiler.program(compiler.choose(part))
        compiler.add(part)
    return compiler.program(None)


class _Compiler:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._registers = Registers()
        self._steps: list[Step] = []

    def program(self, verdict: NftVerdict | Choose | None, *, resets: bool = False) -> Program:
        self._settle()
        return Program(all_of(self._steps), verdict, resets)

    def choose(self, part: Lookup) -> Choose:
        content = self._set(part.set)
        get = self._key(part.register, content)

        def choose(seen: Seen) -> NftVerdict | None:
            key = get(seen)
            found = None if key is None else content.look(key, seen)
            if found is None or (found.states and not found.lets(seen)):
                return None
            return found.value if isinstance(found.value, NftVerdict) else None

        return choose

    def add(self, part: Expression | Unknown) -> None:
        match part:
            case PayloadLoad():
                self._load(part.register, Value(payload(part), part.length, load=part))
            case MetaLoad():
                get = meta(part, self._table.interfaces)
                self._load(part.register, Value(get, _META_BYTES.get(part.key, 4), load=part))
            case CtLoad():
                length = self._table.address_bytes if part.key in ("src", "dst") else 4
                self._load(part.register, Value(ct(part), _CT_BYTES.get(part.key, length), load=part))
            case ExthdrLoad():
                self._load(part.register, Value(exthdr(part), 1 if part.present else part.length))
            case Immediate(register, constant):
                self._load(register, Value(lambda _: constant, len(constant)))
            case Bitwise(target, source, mask):
                self._load(target, masked(part, self._registers.read(source, len(mask))))
            case Byteorder(target, source):
                self._load(target, turned(part, self._registers.read(source, part.length)))
            case Shift(target, source):
                self._load(
                    target, shifted(part, self._registers.read(source, self._registers.length(source)))
                )
            case Compare(register, op, constant):
                self._steps.append(compare(self._registers.read(register, len(constant)), op, constant))
            case Range(register, op, low, high):
                value = self._registers.read(register, len(low))
                self._steps.append(within(value, low, high, inside=op == "eq"))
            case Lookup():
                self._lookup(part)
            case Numgen(type="inc"):
                counter = Increment(part.modulus, part.offset)
                self._change(counter.step)
                self._load(part.register, Value(counter.get, 4))
            case Counter() | Log() | Last():
                pass
            case MetaSet() | CtSet() | Notrack():
                self._assign(part)
            case DynamicSet():
                self._dynamic(part)
            case ObjectReference(kind, name):
                self._object(f"{kind} {name}")
            case ObjectMap():
                self._object_map(part)
            case Limit() | Quota() | ConnectionCount():
                if (state := stateful(part, self._table.known)) is not None:
                    self._change(state)
            case _:
                raise Unmodelled(_named(part))

    def _load(self, register: int, value: Value) -> None:
        self._registers.write(register, value)

    # --- tests ------------------------------------------------------------------------------------------

    def _lookup(self, part: Lookup) -> None:
        content = self._set(part.set)
        get = self._key(part.register, content)
        wanted = not part.inverted
        if part.target is not None:
            self._map(part.target, get, content)
            return
        if not content.timed and not content.statements:
            find = content.find

            def step(seen: Seen) -> bool:
                key = get(seen)
                return key is not None and (find(key) is not None) is wanted

            self._steps.append(step)
            return

        def step_of_elements(seen: Seen) -> bool:
            key = get(seen)
            if key is None:
                return False
            found = content.look(key, seen)
            return (found is not None) is wanted and (found is None or found.lets(seen))

        self._change(step_of_elements)

    def _map(self, target: int, get: Getter, content: NftSet) -> None:
        if content.statements:
            raise Unmodelled("a map whose elements have statements of their own")
        length = next((len(one.value) for one in content.entries if isinstance(one.value, bytes)), 4)

        def value(seen: Seen) -> bytes | None:
            key = get(seen)
            found = None if key is None else content.look(key, seen)
            return found.value if found is not None and isinstance(found.value, bytes) else None

        self._load(target, Value(value, length))

    # --- statements -------------------------------------------------------------------------------------

    def _assign(self, part: MetaSet | CtSet | Notrack) -> None:
        match part:
            case MetaSet(register, "mark"):
                get = self._registers.read(register, 4).get

                def mark(seen: Seen) -> bool:
                    found = get(seen)
                    if found is None:
                        return False
                    seen.passing.mark = int.from_bytes(found, sys.byteorder)
                    return True

                self._change(mark)
            case MetaSet(register, key) if key in _WITHOUT_EFFECT:
                get = self._registers.read(register, 4 if key == "priority" else 1).get
                self._change(lambda seen: get(seen) is not None)
            case CtSet(register, "mark"):
                get = self._registers.read(register, 4).get

                def connection_mark(seen: Seen) -> bool:
                    found = get(seen)
                    if found is None:
                        return False
                    if seen.passing.connection is not None:
                        seen.passing.connection.mark = int.from_bytes(found, sys.byteorder)
                    return True

                self._change(connection_mark)
            case Notrack():
                self._change(_untrack)
            case _:
                raise Unmodelled(f"{'meta' if isinstance(part, MetaSet) else 'ct'} {part.key} set")

    def _dynamic(self, part: DynamicSet) -> None:
        content = self._set(part.set)
        get = self._key(part.register, content)
        for inner in (*part.expressions, *content.statements):
            stateful(inner, self._table.known)
        if part.data is not None:
            raise Unmodelled("adding to a map")
        op, timeout_ns, statements = part.op, part.timeout_ms * _MILLISECOND_NS, part.expressions
        inverted = part.inverted

        def step(seen: Seen) -> bool:
            key = get(seen)
            if key is None:
                return False
            entry = content.change(op, key, seen, timeout_ns, statements)
            if op == "delete":
                return True
            if entry is None:
                return inverted
            return entry.lets(seen) and not inverted

        self._change(step)

    def _object(self, name: str) -> None:
        state = self._stateful(name)
        if state is not None:
            self._change(state)

    def _stateful(self, name: str) -> Stateful | None:
        if name not in self._table.objects:
            raise Unmodelled(name)
        return self._table.objects[name]

    def _object_map(self, part: ObjectMap) -> None:
        content = self._set(part.set)
        get = self._key(part.register, content)
        if content.data is None:
            raise Unmodelled("an anonymous map of objects")
        names = {one.value for one in content.entries if isinstance(one.value, str)}
        states = {name: self._stateful(f"{content.data} {name}") for name in names}

        def step(seen: Seen) -> bool:
            key = get(seen)
            found = None if key is None else content.look(key, seen)
            if found is None:
                return False
            state = states[str(found.value)]
            return state is None or state(seen)

        self._change(step)

    # --- common -----------------------------------------------------------------------------------------

    def _set(self, name: str) -> NftSet:
        if name not in self._table.sets:
            raise Unmodelled(f"set {name}")
        return self._table.sets[name]

    def _key(self, register: int, content: NftSet) -> Getter:
        return self._registers.read(register, self._table.key_bytes[content.name]).get

    def _change(self, step: Step) -> None:
        """A step that changes something, or whose order counts."""
        self._settle()
        self._steps.append(step)

    def _settle(self) -> None:
        for get in self._registers.settle():
            self._steps.append(present(get))


def _untrack(seen: Seen) -> bool:
    passing = seen.passing
    if passing.connection is None:
        passing.notrack = True
        passing.state = State.UNTRACKED
    return True


_META_BYTES: Final = {
    "protocol": 2, "iiftype": 2, "oiftype": 2, "nfproto": 1, "l4proto": 1, "day": 1, "time": 8,
    "iifname": 16, "oifname": 16,
}  # fmt: skip
_CT_BYTES: Final = {
    "direction": 1, "l3protocol": 1, "protocol": 1, "proto_src": 2, "proto_dst": 2, "zone": 2, "packets": 8,
    "bytes": 8, "avgpkt": 8, "src_ip": 4, "dst_ip": 4, "src_ip6": 16, "dst_ip6": 16,
}  # fmt: skip
"""What a load gives, where it is not 4 bytes."""


def _named(part: Expression | Unknown) -> str:
    """In nft's words."""
    match part:
        case Unknown():
            return str(part)
        case Nat(kind=kind) | Elsewhere(kind=kind):
            return kind
        case Numgen() | Hash():
            return part.type
        case _:
            return _NAMES.get(type(part), type(part).__name__)


_NAMES: Final[dict[type, str]] = {
    ExthdrReset: "reset tcp option",
    ExthdrWrite: "tcp option set",
    Fib: "fib",
    Ipsec: "ipsec",
    OsFingerprint: "osf",
    PayloadWrite: "changing the packet",
    Route: "rt",
    Socket: "socket",
}
