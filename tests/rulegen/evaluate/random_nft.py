"""Random nft rulesets whose values come from the packets that they will meet."""

from __future__ import annotations

import random

BASES = {"nh": 40, "th": 24, "ih": 14}
"""Bytes from which on there is mostly nothing."""

WHOLE = (
    "tcp dport 443", "tcp sport != 443", "udp dport 443", "tcp dport 100-500", "tcp flags & (syn | ack) == syn",
    "tcp flags syn", "tcp flags != syn", "meta l4proto tcp", "meta l4proto != 6", "meta l4proto { 6, 17, 51 }",
    "ip saddr 192.0.2.0/24", "ip saddr != 192.0.2.1", "ip6 saddr 2001:db8::7", "ip6 saddr & ::f == ::1",
    "meta nfproto ipv6", "meta protocol ip", "meta length 20-60", "meta length > 61", 'iifname "br0"',
    'iifname "b*"', 'oifname != "br0"', "ip frag-off & 0x1fff != 0", "ip hdrlength 5", "ip ttl < 64", "ip dscp cs1",
    "ip6 flowlabel 443", "ip6 nexthdr 44", "tcp dport . @ih,0,8 { 443 . 0x16, 80 . 0x17 }", "exthdr frag exists", "exthdr frag missing", "exthdr hbh exists",
    "exthdr dst exists", "exthdr rt exists", "frag frag-off 1", "frag more-fragments 1", "frag id 5",
    "dst nexthdr 6", "rt type 4", "rt seg-left > 0", "tcp option maxseg exists", "tcp option maxseg missing",
    "tcp option maxseg size > 1000", "tcp option maxseg size 1460", "tcp option timestamp exists",
    "tcp option timestamp tsval 0x00010203", "tcp option sack-perm missing", "tcp option window count 7",
    "tcp doff 5", "tcp doff > 7", "tcp window 0", "tcp checksum 0", "tcp sequence < 1000", "udp length > 10",
    "icmp type echo-request", "meta mark 0", "meta mark & 0xf == 0x3", "meta mark 1-9",
    "ct state invalid", "meta mark set meta mark | 0x1", "meta mark set 0x3", "meta mark set @th,16,32",
    "tcp sport . tcp dport { 443 . 80, 40000 . 443, 80 . 40000 }",
    "ip saddr . tcp dport { 192.0.2.0/24 . 443, 198.51.100.7 . 80-500 }",
    "meta l4proto . meta length { 6 . 20-60, 17 . 1-65535 }", "meta skuid 0", "meta mark set 0x5 meta mark 5",
    "numgen inc mod 3 < 2",
)  # fmt: skip


def _bits(data: bytes, offset: int, length: int) -> int:
    """As many bits, from any place of the packet that has them."""
    whole = int.from_bytes(data)
    return whole >> max(0, 8 * len(data) - offset - length) & ((1 << length) - 1)


class Rules:
    """Text for nft. `names` are the comments of the rules that have a counter at their end."""

    def __init__(self, chance: random.Random, packets: list[bytes], *, tracked: bool = False) -> None:
        self.chance = chance
        self.packets = packets
        self.whole = [text for text in WHOLE if tracked or not text.startswith("ct ")]
        self.declared: list[str] = []
        self.count = 0

    def text(self, rules: int = 25) -> str:
        chains = {name: [self.rule(name) for _ in range(rules // 3)] for name in ("c3", "c2", "c1")}
        base = [self.rule("base") for _ in range(rules)]
        policy = self.chance.choice(("accept", "accept", "drop"))
        lines = ["table inet t {", *self.declared]
        for name, own in chains.items():
            lines += [f"chain {name} {{", *own, "}"]
        return "\n".join(
            [
                *lines,
                f"chain base {{\ntype filter hook forward priority 0; policy {policy};",
                *base,
                "}",
                "}",
                "",
            ]
        )

    def rule(self, chain: str) -> str:
        tests = " ".join(self.test() for _ in range(self.chance.choice((0, 1, 1, 1, 2, 2, 3))))
        self.count += 1
        comment = f'comment "r{self.count}"'
        others = {"base": ("c1", "c2", "c3"), "c1": ("c2", "c3"), "c2": ("c3",), "c3": ()}[chain]
        kind = self.chance.random()
        if kind < 0.1:
            return f"{tests} {self.verdict_map(others)} {comment}"
        verdict = ""
        if tests and kind < 0.2:
            verdict = self.chance.choice(("accept", "drop", "return", "continue", "reject with tcp reset"))
            if verdict.startswith("reject"):
                tests = f"meta l4proto tcp {tests}"
        elif others and kind < 0.6:
            verdict = (
                f"{self.chance.choice(('jump', 'goto') if tests else ('jump',))} {self.chance.choice(others)}"
            )
        return f"{tests} counter {verdict} {comment}"

    def load(self) -> tuple[str, int, int]:
        """Text, width in bits, and a value that a packet may have there."""
        base = self.chance.choice(("nh", "th", "ih", "ih"))
        length = self.chance.choice((8, 8, 16, 16, 24, 32, 32, 40, 64, 128, 4, 1))
        offset = 8 * self.chance.randrange(BASES[base])
        if length < 8:
            offset += self.chance.randrange(9 - length)
        return f"@{base},{offset},{length}", length, self.value(base, offset, length)

    def value(self, base: str, offset: int, length: int) -> int:
        data = self.chance.choice(self.packets)
        head = 40 if data[0] >> 4 == 6 else (data[0] & 15) * 4
        start = {"nh": 0, "th": head, "ih": head + 20}[base]
        return _bits(data[start:] + bytes(60), offset, length)

    def test(self) -> str:
        kind = self.chance.random()
        if kind < 0.35:
            return self.chance.choice(self.whole)
        name, length, value = self.load()
        top = (1 << length) - 1
        if kind < 0.55:
            op = self.chance.choice(("==", "==", "!=", "<", ">", ">=", "<="))
            return f"{name} {op} {value:#x}"
        if kind < 0.65 and length % 8 == 0:
            mask = self.chance.getrandbits(length) or 1
            return f"{name} & {mask:#x} {self.chance.choice(('==', '!='))} {value & mask:#x}"
        if kind < 0.72 and value < top:
            return (
                f"{name} {self.chance.choice(('', '!= '))}{value:#x}-{self.chance.randint(value + 1, top):#x}"
            )
        return self.looked_up(name, length, value)

    def looked_up(self, name: str, length: int, value: int) -> str:
        if length % 8:
            return f"{name} {value:#x}"
        if self.chance.random() < 0.5:
            return f"{name} {self.chance.choice(('', '!= '))}@{self.declare((name,), (length,), (value,))}"
        other, other_length, other_value = self.load()
        while other_length % 8:
            other, other_length, other_value = self.load()
        names, lengths = (name, other), (length, other_length)
        return f"{name} . {other} {self.chance.choice(('', '!= '))}@{self.declare(names, lengths, (value, other_value))}"

    def declare(self, names: tuple[str, ...], lengths: tuple[int, ...], values: tuple[int, ...]) -> str:
        """A set that has the value, or an interval around it, and a few others."""
        interval = self.chance.random() < 0.5
        elements: list[tuple[tuple[int, int], ...]] = []
        for at in range(self.chance.choice((1, 2, 5))):
            key = []
            for length, value in zip(lengths, values, strict=True):
                low = value if not at else self.chance.getrandbits(length)
                high = min((1 << length) - 1, low + (self.chance.choice((0, 3, 1000)) if interval else 0))
                key.append((low, high))
            if not any(
                all(a <= d and c <= b for (a, b), (c, d) in zip(key, other, strict=True))
                for other in elements
            ):
                elements.append(tuple(key))
        name = f"s{len(self.declared)}"
        keys = " . ".join(names)
        written = ", ".join(" . ".join(_interval(*one) for one in key) for key in elements)
        flags = "flags interval;" if interval else ""
        self.declared.append(f"set {name} {{ typeof {keys}; {flags} elements = {{ {written} }}\n}}")
        return name

    def verdict_map(self, others: tuple[str, ...]) -> str:
        name, length, value = self.load()
        while length % 8 or length > 32:
            name, length, value = self.load()
        verdicts = [
            "drop",
            "accept",
            "return",
            "continue",
            *(f"goto {one}" for one in others),
            *(f"jump {one}" for one in others),
        ]
        own = sorted(
            {value, self.value(name[1:3], int(name.split(",")[1]), length), self.chance.getrandbits(length)}
        )
        return f"{name} vmap {{ {', '.join(f'{one:#x} : {self.chance.choice(verdicts)}' for one in own)} }}"


def _interval(low: int, high: int) -> str:
    return f"{low:#x}" if low == high else f"{low:#x}-{high:#x}"


CONNECTION = (
    "ct state new", "ct state established", "ct state invalid", "ct state != established", "ct direction original",
    "ct direction reply", "ct mark 0", "ct mark & 0x3 == 0x1", "ct mark set ct mark | 0x1", "ct mark 1-9",
    "ct mark set ct mark and 0xfe or 0x4", "ct mark set 0x7", "ct original ip saddr 192.0.2.1", "ct protocol 6",
    "ct original proto-dst 443", "ct reply ip saddr 198.51.100.7", "meta l4proto tcp ct original proto-src 1002",
    "ct status seen-reply", "ct status assured", "ct status confirmed", "ct original packets > 2", "ct packets > 3",
    "ct bytes < 200", "ct original bytes 40-100", "ct reply avgpkt > 45", "ct l3proto ipv4", "meta mark set ct mark",
    "ct mark set meta mark", "ct mark set tcp sport map { 1001 : 1, 1002 : 2 }", "tcp flags syn", "tcp flags fin",
    "add @a { ip saddr . tcp sport }", "update @b { ip saddr }", "ip saddr . tcp sport @a", "ip daddr @b",
    "delete @b { ip daddr }", "add @d { tcp sport quota over 200 bytes }", "quota over 5000 bytes",
    "quota until 3000 bytes", "ip saddr . tcp sport != @a", "update @small { tcp sport }", "tcp sport @small",
    'quota name "q"', "quota name tcp sport map @objects", "notrack", "ct state untracked", "ct zone 0",
    "@ih,0,8 22 ct mark set @ih,0,32", "ct state { new, established }", "ct state new,untracked",
    "ct mark . tcp sport { 1 . 1001, 7 . 1002, 0 . 1003 }", "ip saddr != @b",
)  # fmt: skip

_SETS = """
quota q { over 1000 bytes
}
quota r { 700 bytes
}
map objects { type inet_service : quota; elements = { 1001 : "q", 1003 : "r" }
}
set a { type ipv4_addr . inet_service; flags dynamic; }
set b { type ipv4_addr; flags dynamic,timeout; timeout 1h; }
set d { type inet_service; flags dynamic; }
set small { type inet_service; size 2; flags dynamic; }
"""


def conversation_rules(chance: random.Random, rules: int = 14) -> str:
    """Rules about connections, and about what other packets have left in sets."""

    def rule(others: tuple[str, ...]) -> str:
        tests = " ".join(chance.choice(CONNECTION) for _ in range(chance.choice((1, 1, 2, 3))))
        return f"{tests} counter {chance.choice(('', '', '', '', 'accept', 'drop', 'return', *others))}"

    first = [rule(()) for _ in range(rules)]
    second = ["ct state new counter", *(rule(("jump first", "goto first")) for _ in range(rules))]
    return "\n".join(
        [
            f"table inet t {{{_SETS}",
            *("chain first {", *first, "}"),
            *("chain base {", "type filter hook forward priority 0; policy accept;", *second, "}", "}", ""),
        ]
    )
