"""Rules that show what connection tracking says of each packet, and a model of them.

The rules write state and direction into the DSCP field and the mark's low bits into TTL or hop limit; the
watched lab returns what comes out.
"""

from __future__ import annotations

from collections import Counter

from rulegen.evaluate.base import Fate, Passing
from rulegen.evaluate.conntrack import Conntrack
from rulegen.evaluate.conntrack_settings import TESTBED, Settings
from rulegen.evaluate.defrag import Reassembly
from rulegen.ir.match import Direction, State
from tests.rulegen.evaluate.conversations import CLIENT, DROPPED, REJECTED
from tests.rulegen.evaluate.watch import WatchingBench

CODES = {
    (State.NEW, Direction.ORIGINAL): 1,
    (State.ESTABLISHED, Direction.ORIGINAL): 2,
    (State.ESTABLISHED, Direction.REPLY): 3,
    (State.RELATED, Direction.ORIGINAL): 4,
    (State.RELATED, Direction.REPLY): 5,
    (State.INVALID, None): 6,
    (State.UNTRACKED, None): 7,
}
MARKS = 8
LOST_WITH_DF = 253
"""The protocol of IPv4 packets that the rules drop if DF is set: it shows the bit of what was reassembled."""


def rules() -> str:
    tags = []
    for (state, direction), code in CODES.items():
        asked = f"ct state {state}" + (f" ct direction {direction}" if direction else "")
        tags += [f"{asked} {family} dscp set {code}" for family in ("ip", "ip6")]
    for bits in range(MARKS):
        asked = f"ct mark and {MARKS - 1} == {bits}"
        tags += [f"{asked} ip ttl set {100 + bits}", f"{asked} ip6 hoplimit set {100 + bits}"]
    # A connection's mark begins with the first sequence number's first byte.
    lines = "\n  ".join(tags)
    return f"""
table inet watch {{
 chain c_mark {{
  type filter hook prerouting priority -150; policy accept;
  ct state new ct mark 0 meta l4proto tcp ct mark set @th,32,32
 }}
 chain c_lose {{
  type filter hook forward priority 0; policy accept;
  meta l4proto tcp @th,144,16 {DROPPED:#x} drop
  meta l4proto tcp @th,144,16 {REJECTED:#x} reject with tcp reset
  ip protocol {LOST_WITH_DF} @nh,48,16 and 0x4000 == 0x4000 drop
 }}
 chain c_tag {{
  type filter hook postrouting priority 100; policy accept;
  {lines}
 }}
}}
"""


def configure(bench: WatchingBench, settings: Settings) -> None:
    for name, value in (
        ("checksum", settings.checksum),
        ("tcp_loose", settings.tcp_loose),
        ("tcp_be_liberal", settings.tcp_be_liberal),
        ("tcp_ignore_invalid_rst", settings.tcp_ignore_invalid_rst),
        ("tcp_max_retrans", settings.tcp_max_retrans),
    ):
        bench.command("sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={int(value)}")


class Model:
    """What the rules of these tests do, with the model under test instead of the kernel."""

    def __init__(self, settings: Settings = TESTBED) -> None:
        self.conntrack = Conntrack(settings)
        self.reassembly = Reassembly(settings)
        self.count = 0

    def pass_on(self, packet: bytes, time_ns: int = 0) -> tuple[Fate, Passing]:
        self.count += 1
        passing = Passing(number=self.count, time_ns=time_ns, data=packet, captured=len(packet))
        fate = self.reassembly.gather(passing)
        if fate is Fate.ACCEPT:
            fate = self.conntrack.track(passing)
        if fate is not Fate.ACCEPT:
            return fate, passing
        located = _tcp_at(passing.data)
        connection = passing.connection
        fresh = connection is not None and connection.mark == 0 and passing.state is State.NEW
        if located is not None and fresh:
            connection.mark = int.from_bytes(passing.data[located + 4 : located + 8], "little")
        urgent = 0 if located is None else int.from_bytes(passing.data[located + 18 : located + 20], "big")
        if urgent == REJECTED:
            self.conntrack.reset(passing)
        if urgent in (DROPPED, REJECTED):
            return Fate.DROP, passing
        data = passing.data
        if data[0] >> 4 == 4 and data[9] == LOST_WITH_DF and data[6] & 0x40:
            return Fate.DROP, passing
        return self.conntrack.confirm(passing), passing

    def says(self, packet: bytes, time_ns: int = 0) -> tuple[int, int] | None:
        """DSCP and TTL that the packet would have; None if it does not come out."""
        fate, passing = self.pass_on(packet, time_ns)
        if fate is not Fate.ACCEPT:
            return None
        data, connection = passing.data, passing.connection
        hops = data[7] if data[0] >> 4 == 6 else data[8]
        if connection is not None:
            hops = 100 + connection.mark % MARKS
        return CODES[passing.state, passing.direction], hops


def _tcp_at(data: bytes) -> int | None:
    if data[0] >> 4 == 6:
        following, at = data[6], 40
        while following in (0, 43, 44, 60) and at + 2 <= len(data):
            following, at = data[at], at + 8 * (1 + (following != 44 and data[at + 1]))
        return at if following == 6 and at + 20 <= len(data) else None
    return 4 * (data[0] & 15) if data[9] == 6 and len(data) >= 40 else None


def seen(packets: list[bytes]) -> tuple[int, int] | None:
    """DSCP and TTL of what came out."""
    if not packets:
        return None
    data = packets[0]
    if data[0] >> 4 == 6:
        return (data[0] & 15) << 2 | data[1] >> 6, data[7]
    return data[1] >> 2, data[8]


def compare(bench: WatchingBench, settings: Settings, packets: list[tuple[int, bytes]]) -> Counter[int]:
    """Send through both and be equal; how often each code came."""
    bench.forget()
    model = Model(settings)
    codes: Counter[int] = Counter()
    for number, ((_, packet), out) in enumerate(zip(packets, bench.watch(packets), strict=True)):
        expected = model.says(packet)
        assert seen(out) == expected, story(packets, number, seen(out), expected)
        codes[expected[0] if expected else 0] += 1
    return codes


def story(packets: list[tuple[int, bytes]], number: int, kernel: object, model: object) -> str:
    """The packets of the connection up to the one that differs."""
    lines = [f"packet {number}: kernel {kernel}, model {model}"]
    for at, (side, packet) in enumerate(packets[: number + 1]):
        lines.append(f"{at} {'>' if side == CLIENT else '<'} {packet.hex()}")
    return "\n".join(lines[:1] + lines[-60:])
