"""content-type: refuse TLS records by their content type.

In:  types, whether these or all others are refused, direction, ports, servers, connection state, what to do.
Out: one chain.
Source: RFC 8446 5.1 (types, header), D.1 (versions); RFC 5246 6.2.3 for the greatest length; IANA
    tls-parameters.

A filter sees segments, not records. What starts a payload is taken for a record if type, version and length
can be those of one; the rest of a record that began in an earlier segment may look so by chance, and can't be
told from one. So nothing is ever refused for not being a record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from analyzer.wire.iana import ContentType
from rulegen.errors import WishError
from rulegen.ir.match import (
    InState,
    Match,
    Not,
    Present,
    State,
    all_of,
    any_of,
    between,
    one_of,
)
from rulegen.ir.rule import Chain, Origin, Rule
from rulegen.lower.ranges import merged
from rulegen.policies.base import (
    ACTION,
    DIRECTION,
    PORTS,
    RECORDS,
    SERVERS,
    Answered,
    Observed,
    Parameter,
    Part,
    Policy,
    Settings,
    among,
    places,
    refusal,
    toward,
)

NAMES: Final = {kind.name.lower(): int(kind) for kind in ContentType}
_TYPE_MAX: Final = 0xFF

VERSION: Final = between("tls.version", 0x0300, 0x0304)
"""No record of a negotiated version says anything else. To take any minor version for one would refuse a
record's middle fifty times as often."""
LENGTH: Final = between("tls.length", 0, (1 << 14) + 2048)
"""RFC 5246 6.2.3: TLSCiphertext. Older ones are no longer."""


class ContentTypes(Policy):
    name: ClassVar[str] = "content-type"
    stops: ClassVar[str] = (
        "Packets whose payload starts with TLS records, one of which is of these content types"
        " (mode=block), or of another registered type than these (mode=allow): change_cipher_spec, alert,"
        " handshake, application_data, heartbeat, or any number. A record is what has such a type, a"
        " version from 0x0300 to 0x0304 and a length of 18,432 at most."
    )
    costs: ClassVar[str] = (
        "Whoever needs such records. A refused one is sent again and refused again, so that its"
        " connection stalls; action=reset tells its sender. Of the segments that go on with a record that"
        " began in an earlier one, about one in 12 million per refused type (17 GB in segments of 1,460"
        " bytes) starts by chance with the bytes of such a header and is refused too. split=drop also"
        " refuses every short segment (1 to 4 bytes) that may be a cut header: with a lone byte, one in"
        " 256 per type."
    )
    bypass: ClassVar[str] = (
        "A record is only seen where it starts a packet's payload or, by backends that walk from one to"
        " the next (bpf does, nft does not, each says so), is among the first of the packet (records=N)."
        " It is not seen behind the rest of one that began in an earlier packet, nor with its header cut"
        " in two (split=drop refuses that), nor, where only the first is looked at, merged with others"
        " before the rules see it (GRO, LRO). mode=allow lets pass what is no header of a registered type:"
        " the rest of records, other protocols, types that nobody knows. TLS 1.3 hides the types of all"
        " that it encrypts behind application_data. Minor versions above 4 are not looked at; servers that"
        " take them before a version is negotiated (OpenSSL 1.0.1) read such records."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="types", default="", meaning=f"names or numbers, required: {', '.join(list(NAMES)[:5])}"
        ),
        Parameter(
            name="mode",
            default="block",
            choices=("block", "allow"),
            meaning="refuse records of these types, or records of all other registered types",
        ),
        DIRECTION,
        PORTS,
        SERVERS,
        Parameter(
            name="state",
            default="any",
            choices=("any", *State),
            meaning="only packets of connections in this state of conntrack; data is new only with TCP Fast"
            " Open, or where a connection is met in its midst",
        ),
        replace(RECORDS, default=RECORDS.choices[-1]),
        Parameter(
            name="split",
            default="pass",
            choices=("pass", "drop"),
            meaning="what to do with payloads so short that they may be such a header, cut",
        ),
        ACTION,
    )
    example: ClassVar[str] = "content-type:types=heartbeat"

    # It claims no finding: none can tell which types a network can do without.

    def build(self, settings: Settings, answered: Sequence[tuple[Observed, Answered]]) -> Part:
        ports, servers = places(settings)
        verdict = refusal(settings)
        state = settings["state"]
        guard = toward(settings["direction"], ports, servers)
        if state != "any":
            guard = all_of(guard, InState(frozenset({State(state)})))
        rules = tuple(
            Rule(name=name, match=match, verdict=verdict, origin=Origin(policy=self.name), meaning=meaning)
            for name, match, meaning in _rules(settings)
        )
        return Part(chains=(Chain(name=self.name, policy=self.name, rules=rules, guard=guard),))


def _rules(settings: Settings) -> Iterator[tuple[str, Match, str]]:
    refused = _refused(settings["types"], settings["mode"])
    names = ", ".join(_name(code) for code in refused)
    kinds = one_of("tls.content_type", merged((code, code) for code in refused))
    header = all_of(kinds, VERSION, LENGTH)
    yield (
        "content-type",
        among(header, settings["records"]),
        f"A TLS record of type {names}.",
    )
    if settings["split"] == "drop":
        yield (
            "content-type-split",
            all_of(kinds, any_of(Not(Present("tls.version")), VERSION), Not(Present("tls.length"))),
            f"What may be the header of such a record ({names}), cut before its end.",
        )


def _refused(text: str, mode: str) -> tuple[int, ...]:
    """Codes of the types that are refused, in order."""
    given = {_code(part.strip().lower()) for part in text.split(",") if part.strip()}
    if not given:
        raise WishError(f"content-type needs to know which types: {ContentTypes.example}")
    if mode == "block":
        return tuple(sorted(given))
    others = sorted(set(NAMES.values()) - given)
    if not others:
        raise WishError(f"content-type:types={text},mode=allow refuses nothing")
    return tuple(others)


def _code(text: str) -> int:
    if text in NAMES:
        return NAMES[text]
    if text.isascii() and text.isdecimal() and int(text) <= _TYPE_MAX:
        return int(text)
    raise WishError(f"{text!r} is no content type; {', '.join(NAMES)}, or a number up to {_TYPE_MAX}")


def _name(code: int) -> str:
    return next((name for name, known in NAMES.items() if known == code), str(code))


POLICY: Final = ContentTypes()
