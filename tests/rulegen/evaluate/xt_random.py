"""Random rules of iptables, and packets that try to be misread: fragments, cut headers, odd lengths."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Callable

from analyzer.model import Side
from rulegen.testbed.packets import ACK, FIN, RST, SYN, Segment, ipv4, ipv6

PORTS = (0, 1, 22, 53, 80, 443, 1023, 1024, 4433, 65535)
ADDRESSES4 = ("192.0.2.1", "192.0.2.77", "198.51.100.7", "10.1.2.3", "224.0.0.5", "127.0.0.9")
ADDRESSES6 = ("2001:db8::1", "2001:db8::77", "2001:db8:ffff::7", "fe80::1", "ff02::5")
PATTERNS = (b"a", b"ab", b"aab", b"abab", b"aabaa", b"\x16\x03", b"Aa", b"\xe0\xdf")
CHAINS = ("ONE", "TWO", "THREE")

UPPER = {"ip": (6, 6, 6, 6, 17, 17, 1, 1, 58, 47, 50, 51, 132, 136, 0, 255),
         "ip6": (6, 6, 6, 6, 17, 17, 58, 58, 1, 47, 50, 132, 136, 255)}  # fmt: skip


def payload(chance: random.Random) -> bytes:
    return bytes(chance.choices(b"aabAB\x16\x03\xe0\xc0\xdf\xbf\xff", k=chance.choice((0, 1, 3, 8, 40, 200))))


def tcp(chance: random.Random) -> bytes:
    options = bytes(chance.choices((0, 1, 2, 3, 4, 5, 8, 255), k=4 * chance.choice((0, 0, 0, 1, 3, 10))))
    words = 5 + len(options) // 4
    if chance.random() < 0.15:
        words = chance.randrange(16)
    ports = chance.choices(PORTS, k=2)
    flags = chance.choice((2, 16, 18, 24, 4, 1, 0, 63, chance.randrange(256)))
    head = struct.pack("!HHIIBBHHH", *ports, 1, 1, words << 4, flags, 65535, 0, 0)
    return head + options + payload(chance)


def upper(chance: random.Random, protocol: int) -> bytes:
    if protocol == 6:
        body = tcp(chance)
    elif protocol in (1, 58):
        body = bytes((chance.choice((0, 3, 8, 128, 129, 255)), chance.choice((0, 1, 3, 255))))
        body += bytes(6) + payload(chance)
    else:
        body = struct.pack("!HHHH", *chance.choices(PORTS, k=2), 8, 0) + payload(chance)
    if chance.random() < 0.15:
        body = body[: chance.randrange(0, 24)]
    return body


def packet4(chance: random.Random) -> bytes:
    protocol = chance.choice(UPPER["ip"])
    body = upper(chance, protocol)
    fragment = chance.choice((0x4000,) * 6 + (0x2000, 1, 0x2001, 2, 100, 0x1FFF))
    options = b"\x01" * 4 * chance.choice((0, 0, 0, 0, 1, 5, 10))
    source, destination = (bytes(map(int, chance.choice(ADDRESSES4).split("."))) for _ in range(2))
    made = bytearray(ipv4(source, destination, body, options=options, fragment=fragment))
    made[9] = protocol
    size = 4 * (made[0] & 15)
    made[10:12] = b"\0\0"
    total = sum(struct.unpack(f"!{size // 2}H", made[:size]))
    total = (total & 0xFFFF) + (total >> 16)
    made[10:12] = struct.pack("!H", 0xFFFF - ((total & 0xFFFF) + (total >> 16)))
    return bytes(made)


def extension(chance: random.Random, kind: int, following: int) -> bytes:
    if kind == 44:
        offset = chance.choice((0, 0, 0, 8, 16, 800))
        return struct.pack("!BBHI", following, 0, offset | chance.randrange(2), 7)
    if kind == 51:
        return bytes((following, 4)) + bytes(22)
    if kind == 43:
        return bytes((following, 2, 4, 0)) + bytes(20)
    return bytes((following, 0, 1, 4)) + bytes(4)


def packet6(chance: random.Random) -> bytes:
    protocol = chance.choice(UPPER["ip6"])
    body = upper(chance, protocol)
    following = protocol
    for _ in range(chance.choice((0, 0, 0, 1, 2, 3))):
        kind = chance.choice((43, 44, 44, 51, 60, 60, 59))
        body = extension(chance, kind, following) + body
        following = kind
    if chance.random() < 0.05:
        body = body[: chance.randrange(0, 30)]
    source, destination = (ipaddress.ip_address(chance.choice(ADDRESSES6)).packed for _ in range(2))
    label = chance.choice((0, 0, 443, 22, 0x1BB0000 & 0xFFFFF))
    made = ipv6(source, destination, following, body)
    return struct.pack("!I", 0x60000000 | label) + made[4:]


PACKETS: dict[str, Callable[[random.Random], bytes]] = {"ip": packet4, "ip6": packet6}


def no(chance: random.Random) -> str:
    return chance.choice(("", "", "! "))


def ports(chance: random.Random) -> str:
    low, high = sorted(chance.choices(PORTS, k=2))
    return chance.choice((f"{low}", f"{low}:{high}", f"{low}:", f":{high}"))


def flags(chance: random.Random) -> str:
    names = ("SYN", "ACK", "FIN", "RST", "PSH", "URG")
    mask = chance.sample(names, chance.randrange(1, 5))
    wanted = chance.sample(mask, chance.randrange(len(mask) + 1)) or ["NONE"]
    return f"{no(chance)}--tcp-flags {','.join(mask)} {','.join(wanted)}"


def head(chance: random.Random, family: str) -> str:
    parts = []
    addresses = ADDRESSES4 if family == "ip" else ADDRESSES6
    for option in ("-s", "-d"):
        if chance.random() < 0.2:
            length = chance.choice((32, 31, 24, 8, 1) if family == "ip" else (128, 127, 64, 33, 10))
            parts.append(f"{no(chance)}{option} {chance.choice(addresses)}/{length}")
    if family == "ip" and chance.random() < 0.1:
        parts.append(f"{no(chance)}-f")
    return " ".join(parts)


def transport(chance: random.Random, family: str) -> str:
    kind = chance.choice(("", "tcp", "tcp", "tcp", "udp", "icmp", "multiport", "other"))
    if kind == "tcp":
        parts = ["-p tcp -m tcp"]
        asked = [option for option in ("--sport", "--dport") if chance.random() < 0.4]
        parts += [f"{no(chance)}{option} {ports(chance)}" for option in asked]
        if chance.random() < 0.3:
            parts.append(chance.choice((flags(chance), f"{no(chance)}--syn")))
        if chance.random() < 0.15:
            parts.append(f"{no(chance)}--tcp-option {chance.choice((1, 2, 3, 5, 255))}")
        return " ".join(parts)
    if kind == "udp":
        parts = ["-p udp -m udp"]
        for option in ("--sport", "--dport"):
            if chance.random() < 0.5:
                parts.append(f"{no(chance)}{option} {ports(chance)}")
        return " ".join(parts)
    if kind == "icmp":
        code = chance.choice(("8", "3/1", "128", "0/0", "255/3", "129"))
        if family == "ip":
            return f"-p icmp -m icmp {no(chance)}--icmp-type {chance.choice((code, 'any'))}"
        return f"-p ipv6-icmp -m icmp6 {no(chance)}--icmpv6-type {code}"
    if kind == "multiport":
        side = chance.choice(("--sports", "--dports", "--ports"))
        listed = ",".join(str(port) for port in chance.sample(PORTS, 3))
        return (
            f"-p {chance.choice(('tcp', 'udp', 'sctp'))} -m multiport {no(chance)}{side} {listed},2000:3000"
        )
    if kind == "other":
        return f"{no(chance)}-p {chance.choice(('tcp', 'udp', '47', '51', '50', '132', 'icmp', '58', '255'))}"
    return ""


def location(chance: random.Random) -> str:
    text = str(chance.choice((0, 3, 6, 9, 12, 16, 20, 36, 40, 52, 70)))
    for _ in range(chance.randrange(5)):
        text += chance.choice(
            (">>22&0x3C@0", ">>26&0x3C@0", "&0xFF", ">>16", "<<8", "@4", "&0x3F@8", ">>24@1")
        )
    return text if text.count("@") + text.count("&") + text.count(">>") + text.count("<<") < 9 else "0"


def u32(chance: random.Random) -> str:
    tests = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        low = chance.choice((0, 1, 6, 0x14, 443, 0x4500, 1 << 31))
        high = chance.choice((low, low + 5, 255, 0xFFFF, 0xFFFFFFFF))
        tests.append(f"{location(chance)}={low}:{max(low, high)},17")
    return f'-m u32 {no(chance)}--u32 "{"&&".join(tests)}"'


BYTECODE = (
    "4,48 0 0 9,21 0 1 6,6 0 0 65535,6 0 0 0",
    "7,48 0 0 9,21 0 4 6,177 0 0 0,72 0 0 2,21 0 1 443,6 0 0 1,6 0 0 0",
    "3,128 0 0 0,53 0 1 60,6 0 0 0",
    "4,40 0 0 50,21 0 1 24930,6 0 0 1,6 0 0 0",
)


def bpf(chance: random.Random) -> str:
    text = chance.choice((BYTECODE[0], BYTECODE[1], BYTECODE[3]))
    return f'-m bpf --bytecode "{text}"'


def string(chance: random.Random) -> str:
    pattern = chance.choice(PATTERNS)
    parts = [f'-m string {no(chance)}--hex-string "|{pattern.hex()}|" --algo {chance.choice(("bm", "kmp"))}']
    if chance.random() < 0.6:
        start = chance.choice((0, 20, 40, 41, 60, 100))
        parts.append(f"--from {start} --to {start + chance.choice((1, 2, 5, 10, 100))}")
    if chance.random() < 0.3:
        parts.append("--icase")
    return " ".join(parts)


def more(chance: random.Random, family: str) -> str:
    low = chance.choice((20, 28, 40, 48, 60, 80, 100))
    mark = chance.choice((0, 1, 2, 3, 0x10000000))
    which = ("UNICAST", "MULTICAST", "BROADCAST,LOCAL") if family == "ip" else ("UNICAST", "MULTICAST")
    return chance.choice(
        (
            "",
            u32(chance),
            u32(chance),
            bpf(chance),
            string(chance),
            string(chance),
            f"-m length {no(chance)}--length {low}:{low + chance.randrange(50)}",
            f"-m mark {no(chance)}--mark {mark}/{mark | chance.choice((0, 1, 0xFFFFFFFF))}",
            f"-m addrtype {no(chance)}--{chance.choice(('src', 'dst'))}-type {chance.choice(which)}",
            f"-m comment --comment c{low}",
        )
    )


def interface(chance: random.Random) -> str:
    if chance.random() > 0.1:
        return ""
    return f"{no(chance)}{chance.choice(('-i', '-o'))} {chance.choice(('br0', 'br+', 'eth0', 'b', 'lo'))}"


TARGETS = ("", "", "", "-j MARK --set-xmark 0x3/0x3", "-j MARK --set-xmark 0x1/0x0", "-j NFLOG", "-j LOG")


def target(chance: random.Random, chains: tuple[str, ...], decides: float) -> str:
    if chance.random() < decides:
        return chance.choice(("-j DROP", "-j ACCEPT", "-j RETURN", "-j RETURN"))
    if chains and chance.random() < 0.15:
        return f"{chance.choice(('-j', '-g'))} {chance.choice(chains)}"
    return chance.choice(TARGETS)


def rule(chance: random.Random, family: str, chains: tuple[str, ...], decides: float) -> str:
    parts = (
        head(chance, family),
        transport(chance, family),
        more(chance, family),
        more(chance, family) if chance.random() < 0.2 else "",
        target(chance, chains, decides),
    )
    return " ".join(part for part in parts if part)


def ruleset(chance: random.Random, family: str, rules: int, decides: float) -> str:
    """A file of three tables; the rules of `filter` are in user chains too."""
    lines = []
    # The firewall itself speaks IPv6 now and then (MLD), which POSTROUTING would count.
    last = "POSTROUTING" if family == "ip" else "FORWARD"
    for table, built_in in (("raw", "PREROUTING"), ("mangle", last), ("filter", "FORWARD")):
        policy = chance.choice(("ACCEPT", "ACCEPT", "DROP")) if decides else "ACCEPT"
        lines += [f"*{table}", f":{built_in} {policy} [0:0]"]
        chains = CHAINS if table == "filter" else ()
        lines += [f":{name} - [0:0]" for name in chains]
        for number in range(rules):
            via = interface(chance) if table == "filter" else ""
            lines.append(f"-A {built_in} {via} {rule(chance, family, chains, decides)}")
            if chains:
                at = number % len(chains)
                lines.append(f"-A {chains[at]} {rule(chance, family, chains[at + 1 :], decides)}")
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


SETS = {
    "ip": (
        "a hash:ip", "b hash:ip netmask 24", "c hash:net", "d hash:ip,port", "e hash:ip,port,net", "f hash:net,port",
        "i bitmap:ip range 192.0.2.0-192.0.2.255", "j bitmap:port range 0-65535",
        "k hash:ip timeout 1000", "l hash:ip,port,ip",
    ),
    "ip6": (
        "a hash:ip", "b hash:ip netmask 64", "c hash:net", "d hash:ip,port", "e hash:ip,port,net", "f hash:net,port",
        "k hash:ip timeout 1000", "l hash:ip,port,ip",
    ),
}  # fmt: skip


def member(chance: random.Random, family: str, kind: str, name: str) -> str:
    parts = []
    for part in kind.partition(":")[2].split(","):
        address = chance.choice([one for one in (ADDRESSES4 if family == "ip" else ADDRESSES6)
                                 if name != "i" or one.startswith("192.0.2.")])  # fmt: skip
        if part == "ip":
            wide = family == "ip" and name in "ad" and chance.random() < 0.2
            parts.append(f"{address}/28" if wide else address)
        elif part == "net":
            lengths = (32, 31, 24, 8, 3) if family == "ip" else (128, 127, 64, 33, 3)
            parts.append(f"{address}/{chance.choice(lengths)}")
        else:
            low, high = sorted(chance.choices(PORTS[:7], k=2))
            number = f"{low}-{high}" if chance.random() < 0.2 else str(low)
            icmp = ("icmp:8/0", "icmp:echo-reply") if family == "ip" else ("icmpv6:128/0", "icmpv6:3/1")
            others = (f"tcp:{number}", f"udp:{number}", f"sctp:{low}", chance.choice(icmp))
            parts.append(number if kind == "bitmap:port" else chance.choice(others))
    except_ = kind in ("hash:net", "hash:net,port", "hash:ip,port,net") and chance.random() < 0.25
    return ",".join(parts) + (" nomatch" if except_ else "")


def sets(chance: random.Random, family: str) -> str:
    """A file of ipset: a set of each type, and a list of some of them."""
    lines = []
    for words in SETS[family]:
        name, kind, *options = words.split()
        head = "" if kind.startswith("bitmap") else f" family {'inet' if family == 'ip' else 'inet6'}"
        lines.append(f"create {name} {kind}{head} {' '.join(options)}".strip())
        lines += [
            f"-exist add {name} {member(chance, family, kind, name)}" for _ in range(chance.randrange(1, 7))
        ]
    lines += ["create z list:set", "add z a", "add z c"]
    return "\n".join(lines) + "\n"


def set_rule(chance: random.Random, family: str) -> str:
    words = chance.choice((*SETS[family], "z list:set"))
    count = 1 + words.split()[1].count(",") + chance.choice((0, 0, 0, 1))
    sides = ",".join(chance.choices(("src", "dst"), k=count))
    nomatch = " --return-nomatch" if chance.random() < 0.15 else ""
    before = f"{transport(chance, family)} " if chance.random() < 0.2 else ""
    text = f"{before}-m set {no(chance)}--match-set {words.split()[0]} {sides}{nomatch}"
    if chance.random() < 0.3:
        action = chance.choice(("--add-set", "--add-set", "--del-set"))
        exist = chance.choice((" --exist", " --timeout 500", "")) if action == "--add-set" else ""
        return f"{text} -j SET {action} {chance.choice('adkl')} {','.join(chance.choices(('src', 'dst'), k=3))}{exist}"
    return f"{text} {chance.choice(TARGETS)}".strip()


def set_rules(chance: random.Random, family: str, rules: int) -> str:
    lines = [f"-A FORWARD {set_rule(chance, family)}" for _ in range(rules)]
    return "\n".join(("*filter", ":FORWARD ACCEPT [0:0]", *lines, "COMMIT", ""))


def counting_rules(chance: random.Random) -> list[str]:
    """Rules that count connections, for packets that open one."""
    matches = []
    for _ in range(8):
        asked = chance.choice(("", "-p tcp -m tcp --syn", "-p tcp -m tcp --dport 443"))
        kind, count = chance.choice(("above", "upto")), chance.randrange(6)
        whose = chance.choice(("", "--connlimit-mask 24", "--connlimit-mask 0", "--connlimit-daddr"))
        matches.append(
            f"-A FORWARD {asked} -m conntrack --ctstate NEW -m connlimit --connlimit-{kind} {count} {whose}"
            f" {chance.choice(('', '', '-j DROP'))}"
        )
    return matches


def connections(chance: random.Random, family: str, count: int) -> list[tuple[Side, bytes]]:
    """Clients that open connections, use them, and close or reset them, all at once."""
    clients = ("192.0.2.1", "192.0.2.77", "198.51.100.9") if family == "ip" else ADDRESSES6[:3]
    server = "203.0.113.5" if family == "ip" else "2001:db8:1::5"
    steps: list[list[tuple[Side, Segment]]] = []
    sent = []
    while len(sent) < count:
        if not steps or chance.random() < 0.3:
            steps.append(_conversation(chance, chance.choice(clients), server, chance.randrange(1000, 1012)))
        one = chance.choice(steps)
        side, segment = one.pop(0)
        sent.append((side, segment.packet()))
        steps = [rest for rest in steps if rest]
    return sent


def _conversation(chance: random.Random, client: str, server: str, port: int) -> list[tuple[Side, Segment]]:
    to_server = {"source": client, "destination": server, "source_port": port, "destination_port": 443}
    to_client = {"source": server, "destination": client, "source_port": 443, "destination_port": port}

    def says(side: Side, flags: int, sequence: int, acknowledgement: int) -> tuple[Side, Segment]:
        ends = to_server if side is Side.CLIENT else to_client
        numbers = {"sequence": sequence, "acknowledgement": acknowledgement}
        return side, Segment(**ends, **numbers, flags=flags)

    client_side, server_side = Side.CLIENT, Side.SERVER
    begin = [says(client_side, SYN, 1000, 0), says(server_side, SYN | ACK, 5000, 1001)]
    end = [says(client_side, FIN | ACK, 1001, 5001), says(server_side, FIN | ACK, 5001, 1002)]
    broken = [says(chance.choice((client_side, server_side)), RST | ACK, 1001, 5001)]
    again = [begin[0]] if chance.random() < 0.3 else []
    used = [says(client_side, ACK, 1001, 5001)] * chance.randrange(1, 4)
    return [*again, *begin, *used, *chance.choice(([], broken, end))]
