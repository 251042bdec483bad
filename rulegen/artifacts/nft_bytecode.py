"""Read the register programs that nft prints.

In:  lines as `nft --debug=netlink` prints them: `[ cmp eq reg 1 0x00000002 ]`.
Out: values of rulegen.artifacts.nft_values, or Unknown.
Source: libnftnl 1.2.4 src/expr/*.c, the `snprintf` functions; Linux uapi nf_tables.h for registers.

What libnftnl prints are words of 32 bits in the host's order. They become bytes here, in `words`, and nowhere
else. It does not print how many bytes of the last word count: that follows from what was loaded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
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

WORD: Final = 4
REGISTERS_BYTES: Final = 64

_OBJECTS: Final = {
    1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "connlimit", 6: "tunnel", 7: "ct timeout",
    8: "secmark", 9: "ct expectation", 10: "synproxy",
}  # fmt: skip
"""Linux uapi nf_tables.h NFT_OBJECT_*."""

_INVERTED: Final = 1
"""NFT_LOOKUP_F_INV, NFT_LIMIT_F_INV, NFT_QUOTA_F_INV, NFT_CONNLIMIT_F_INV, NFT_DYNSET_F_INV."""

_WORDS: Final = re.compile(r"(?:0x)?[0-9a-f]{8}(?: (?:0x)?[0-9a-f]{8})*|")
_VERDICTS: Final = frozenset({"accept", "drop", "return", "continue", "break", "jump", "goto"})

_Made = Expression | Unknown


def words(text: str) -> bytes:
    """The bytes of printed words, in the order in which they lie in a register.

    Raises:
        ValueError: It is something else.
    """
    if not _WORDS.fullmatch(text.strip()):
        raise ValueError(f"no words of 32 bits: {text[:80]!r}")
    return b"".join(int(word, 16).to_bytes(WORD, sys.byteorder) for word in text.split())


def register(text: str) -> int:
    """The byte at which a register starts: 1 to 4 have 16 bytes, 8 to 23 have 4."""
    number = int(text)
    if 1 <= number <= 4:
        return 16 * (number - 1)
    if 8 <= number <= 23:
        return WORD * (number - 8)
    raise ValueError(f"no register {number}")


def verdict(text: str) -> NftVerdict:
    """`accept`, `jump -> chain`."""
    kind, _, chain = text.strip().partition(" -> ")
    if kind not in _VERDICTS or (kind in ("jump", "goto")) is not bool(chain):
        raise ValueError(f"no verdict {text!r}")
    return NftVerdict(kind, chain or None)


def expression(text: str) -> _Made:
    """One expression, without its brackets; what is not understood is an Unknown."""
    name, _, rest = text.strip().partition(" ")
    form, make = _FORMS.get(name, (None, None))
    found = form.fullmatch(rest.strip()) if form else None
    if found is None or make is None:
        return Unknown(name, rest.strip())
    try:
        return make(found)
    except ValueError:
        return Unknown(name, rest.strip())


def _verdict_or_data(found: re.Match[str]) -> _Made:
    if found["reg"] == "0":
        return Decide(verdict(found["rest"]))
    return Immediate(register(found["reg"]), words(found["rest"]))


def _payload(found: re.Match[str]) -> _Made:
    place = found["base"], int(found["offset"])
    if found["load"]:
        return PayloadLoad(register(found["to"]), *place, int(found["load"]))
    return PayloadWrite(
        register(found["from"]), *place, int(found["length"]),
        int(found["type"]), int(found["at"]), int(found["flags"], 16),
    )  # fmt: skip


def _meta(found: re.Match[str]) -> _Made:
    if found["load"]:
        return MetaLoad(register(found["to"]), _known(found["load"]))
    return MetaSet(register(found["from"]), _known(found["set"]))


def _ct(found: re.Match[str]) -> _Made:
    if found["load"]:
        return CtLoad(register(found["to"]), _known(found["load"]), found["dir"])
    return CtSet(register(found["from"]), _known(found["set"]), found["dir"])


def _known(key: str) -> str:
    """Libnftnl prints "unknown" for a key that is newer than itself."""
    if key == "unknown":
        raise ValueError(key)
    return key


def _exthdr(found: re.Match[str]) -> _Made:
    if found["reset"]:
        return ExthdrReset(found["reset"], int(found["reset_type"]))
    place = int(found["length"]), int(found["type"]), int(found["offset"])
    if (found["to"] is None) is not bool(found["write"]):
        raise ValueError("a load without register, or a write with one")
    if found["write"]:
        return ExthdrWrite(register(found["from"]), found["write"], *place)
    return ExthdrLoad(register(found["to"]), found["load"], *place, found["present"] is not None)


def _bitwise(found: re.Match[str]) -> _Made:
    place = register(found["to"]), register(found["from"])
    if found["shift"]:
        return Shift(*place, found["shift"], int(found["bits"], 16))
    mask, xor = words(found["mask"]), words(found["xor"])
    if len(mask) != len(xor):
        raise ValueError("mask and xor differ in length")
    return Bitwise(*place, mask, xor)


def _range(found: re.Match[str]) -> _Made:
    both = words(found["words"])
    half = len(both) // 2
    return Range(register(found["reg"]), found["op"], both[:half], both[half:])


def _lookup(found: re.Match[str]) -> _Made:
    to_verdict = found["to"] == "0"
    target = None if to_verdict or found["to"] is None else register(found["to"])
    inverted = bool(int(found["flags"], 16) & _INVERTED)
    return Lookup(register(found["reg"]), found["set"], inverted, target, to_verdict)


def _dynset(found: re.Match[str]) -> _Made:
    inner = tuple(expression(part) for part in re.findall(r"\[ (.*?) \]", found["inner"] or ""))
    return DynamicSet(
        found["op"], register(found["reg"]), found["set"],
        None if found["data"] is None else register(found["data"]), int(found["timeout"] or 0), inner,
    )  # fmt: skip


def _hash(found: re.Match[str]) -> _Made:
    offset, modulus = int(found["offset"] or 0), int(found["modulus"])
    target = register(found["to"])
    if found["from"] is None:
        return Hash(target, "symhash", None, None, None, modulus, offset)
    seed = int(found["seed"], 16)
    return Hash(target, "jhash", register(found["from"]), int(found["length"]), seed, modulus, offset)


def _objref(found: re.Match[str]) -> _Made:
    if found["map"]:
        return ObjectMap(register(found["reg"]), found["map"])
    number = int(found["type"])
    return ObjectReference(_OBJECTS.get(number, f"type {number}"), found["name"])


def _nat(kind: str) -> Callable[[re.Match[str]], _Made]:
    def make(found: re.Match[str]) -> _Made:
        named = found.groupdict()
        pairs = re.findall(r"(addr_min|addr_max|proto_min|proto_max|addr|port) reg (\d+)", found["regs"])
        return Nat(
            named.get("kind") or kind, named.get("family"),
            tuple((name, register(number)) for name, number in pairs), int(named.get("flags") or "0", 16),
        )  # fmt: skip

    return make


def _elsewhere(kind: str) -> Callable[[re.Match[str]], _Made]:
    return lambda found: Elsewhere(kind, found[0])


def _flag(text: str, base: int = 16) -> bool:
    return bool(int(text, base) & _INVERTED)


def _form(pattern: str) -> re.Pattern[str]:
    """`<name>` stands for a decimal number, `<name:x>` for a hexadecimal one."""
    pattern = re.sub(r"(?<!P)<(\w+)>", r"(?P<\1>[0-9]+)", pattern)
    return re.compile(re.sub(r"<(\w+):x>", r"(?P<\1>[0-9a-f]+)", pattern))


_REGS: Final = r"(?P<regs>(?:\s*(?:addr|addr_min|addr_max|proto_min|proto_max|port) reg \d+)*)"
_FLAGS: Final = r"(?:\s*flags 0x<flags:x>)?"
_PLACE: Final = r"(?P<base>\w+) header \+ <offset>"

# fmt: off
_FORMS: Final[dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], _Made]]]] = {
    name: (_form(pattern), make)
    for name, pattern, make in (
        ("payload", rf"(?:load <load>b @ |write reg <from> => <length>b @ ){_PLACE}"
         r"(?: => reg <to>| csum_type <type> csum_off <at> csum_flags 0x<flags:x>)",
         _payload),
        ("meta", r"load (?P<load>\w+) => reg <to>|set (?P<set>\w+) with reg <from>", _meta),
        ("ct", r"(?:load (?P<load>\w+) => reg <to>|set (?P<set>\w+) with reg <from>)"
         r"(?: , dir (?P<dir>original|reply))?", _ct),
        ("exthdr", r"reset (?P<reset>\w+) <reset_type>"
         r"|(?:load (?P<load>\w+) |write (?P<write>\w+) reg <from> => )<length>b"
         r" @ <type> \+ <offset>(?P<present> present)?(?: => reg <to>)?", _exthdr),
        ("cmp", r"(?P<op>eq|neq|lt|lte|gt|gte) reg <reg> (?P<words>0x.+)",
         lambda found: Compare(register(found["reg"]), found["op"], words(found["words"]))),
        ("range", r"(?P<op>eq|neq) reg <reg> (?P<words>0x.+)", _range),
        ("bitwise", r"reg <to> = \( reg <from> "
         r"(?:& (?P<mask>[0-9a-fx ]+)\) \^ (?P<xor>[0-9a-fx ]+)|(?P<shift><<|>>) (?P<bits>0x[0-9a-f]+) \))",
         _bitwise),
        ("byteorder", r"reg <to> = (?P<op>hton|ntoh)\(reg <from>, <size>, <length>\)",
         lambda found: Byteorder(register(found["to"]), register(found["from"]), found["op"],
                                 int(found["length"]), int(found["size"]))),
        ("immediate", r"reg <reg> (?P<rest>.+)", _verdict_or_data),
        ("lookup", r"reg <reg> set (?P<set>\S+)(?: dreg <to>)? 0x<flags:x>", _lookup),
        ("dynset", r"(?P<op>add|update|delete) reg_key <reg> set (?P<set>\S+)(?: sreg_data <data>)?"
         r"(?: timeout <timeout>ms)?(?: expr (?P<inner>\[ .* \]))?", _dynset),
        ("counter", r"pkts <packets> bytes <bytes>",
         lambda found: Counter(int(found["packets"]), int(found["bytes"]))),
        ("limit", r"rate <rate>/(?P<unit>\w+) burst <burst> type (?P<type>packets|bytes)"
         r" flags 0x<flags:x>",
         lambda found: Limit(int(found["rate"]), found["unit"], int(found["burst"]), found["type"],
                             _flag(found["flags"]))),
        ("quota", r"bytes <bytes> consumed <consumed> flags <flags>",
         lambda found: Quota(int(found["bytes"]), int(found["consumed"]), _flag(found["flags"], 10))),
        ("connlimit", r"count <count> flags <flags:x>",
         lambda found: ConnectionCount(int(found["count"]), _flag(found["flags"]))),
        ("objref", r"type <type> name (?P<name>\S+)|sreg <reg> set (?P<map>\S+)", _objref),
        ("log", r".*", lambda found: Log(found[0])),
        ("reject", r"type <type> code <code>",
         lambda found: Reject(int(found["type"]), int(found["code"]))),
        ("notrack", r"", lambda _: Notrack()),
        ("last", r".*", lambda found: Last(found[0])),
        ("fib", r"(?P<flags>\w+(?: \. \w+)*) (?P<result>oif|oifname|type)(?P<present> present)? => reg <to>",
         lambda found: Fib(register(found["to"]), tuple(found["flags"].split(" . ")), found["result"],
                           found["present"] is not None)),
        ("rt", r"load (?P<key>\w+) => reg <to>", lambda found: Route(register(found["to"]), found["key"])),
        ("socket", r"load (?P<key>\w+(?: \w+)*?) => reg <to>",
         lambda found: Socket(register(found["to"]), found["key"])),
        ("osf", r"dreg <to>", lambda found: OsFingerprint(register(found["to"]))),
        ("xfrm", r"load (?P<dir>in|out) <number> (?P<key>\w+) => reg <to>",
         lambda found: Ipsec(register(found["to"]), found["dir"], int(found["number"]), found["key"])),
        ("numgen", r"reg <to> = (?P<type>random|inc) mod <modulus>(?: offset <offset>)?",
         lambda found: Numgen(register(found["to"]), found["type"], int(found["modulus"]),
                              int(found["offset"] or 0))),
        ("hash", r"reg <to> = (?:symhash\(\)|jhash\(reg <from>, <length>, 0x<seed:x>\))"
         r" % mod <modulus>(?: offset <offset>)?", _hash),
        ("nat", rf"(?P<kind>snat|dnat) (?P<family>ip|ip6|inet){_REGS}{_FLAGS}", _nat("nat")),
        ("masq", rf"{_REGS}{_FLAGS}", _nat("masq")),
        ("redir", rf"{_REGS}{_FLAGS}", _nat("redir")),
        ("tproxy", rf"(?P<family>ip|ip6)?{_REGS}", _nat("tproxy")),
        ("queue", r".*", _elsewhere("queue")),
        ("dup", r".*", _elsewhere("dup")),
        ("fwd", r".*", _elsewhere("fwd")),
        ("synproxy", r".*", _elsewhere("synproxy")),
        ("flow_offload", r".*", _elsewhere("flow_offload")),
    )
}
# fmt: on
