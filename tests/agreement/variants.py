"""Every way in which the same connections can lie in a capture.

A variant takes the packets of captures and gives those of another one. Each packet keeps the number that it had
(Frame.origin), by which results are compared.

`same` says what must not change: with True, everything that the engine says of the original holds for the variant,
packet numbers and addresses apart. Where something is lost or cut off, that can't be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.agreement import containers as file
from tests.agreement import disorder
from tests.agreement import encapsulation as wrap
from tests.agreement.frames import UDP, Frame

Frames = Sequence[Frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    name: str
    change: Callable[[Frames], Iterator[Frame]] = iter
    write: Callable[[Path, Frames], Path] = file.pcap
    linktype: int = file.ETHERNET
    same: bool = True
    stdin: bool = False
    """tlswall reads it from a pipe."""
    plain: bool = False
    """tshark reads the file that it was made from."""
    by_time: bool = False
    """Writing puts the packets in the order of their times."""

    def make(self, folder: Path, frames: Frames) -> tuple[Path, Path, list[Frame]]:
        """Write the capture; its path, the path for tshark, and its packets."""
        changed = list(self.change(frames))
        path = folder / f"{self.name}.cap"
        if self.linktype != file.ETHERNET:
            file.pcap(path, changed, linktype=self.linktype)
        else:
            self.write(path, changed)
        if self.by_time:
            changed.sort(key=lambda frame: frame.time_ns)
        return path, path.with_suffix(".plain") if self.plain else path, changed


# fmt: off
VARIANTS: Final = (
    # the file
    Variant(name="pcap"),
    Variant(name="pcapng",                  write=file.editcap("-F", "pcapng")),
    Variant(name="nanoseconds",             write=file.editcap("-F", "nsecpcap")),
    Variant(name="modified-pcap",           write=file.editcap("-F", "modpcap")),
    Variant(name="big-endian",              write=file.big_endian),
    Variant(name="big-endian-nanoseconds",  write=file.big_endian_nanoseconds),
    Variant(name="pcapng-big-endian",       write=file.pcapng_big_endian),
    Variant(name="pcapng-interfaces",       write=file.pcapng_interfaces),
    Variant(name="pcapng-sections",         write=file.pcapng_sections),
    Variant(name="pcapng-simple",           write=file.pcapng_simple),
    Variant(name="pcapng-obsolete",         write=file.pcapng_obsolete),
    Variant(name="mergecap",                change=disorder.ticking, write=file.mergecap, by_time=True),
    Variant(name="mergecap-appended",       write=file.mergecap_appended),
    Variant(name="text2pcap",               write=file.text2pcap),
    Variant(name="gz",                      write=file.gz),
    Variant(name="zst",                     write=file.zst, plain=True),
    Variant(name="stdin",                   stdin=True),
    Variant(name="stdin-gz",                write=file.gz, stdin=True),
    Variant(name="time-shifted",            write=file.editcap("-t", "-86400.5")),
    Variant(name="no-times",                change=disorder.without_times),
    Variant(name="newest-first",            change=disorder.newest_first),
    Variant(name="time-backwards",          change=disorder.backwards),
    # the link layer
    Variant(name="vlan",                    change=wrap.link(wrap.tagged((0x8100, 5)))),
    Variant(name="qinq",                    change=wrap.link(wrap.tagged((0x88A8, 5), (0x8100, 6)))),
    Variant(name="qinq-9100",               change=wrap.link(wrap.tagged((0x9100, 5), (0x8100, 6)))),
    Variant(name="sll",                     change=wrap.link(wrap.sll), linktype=113),
    Variant(name="sll2",                    change=wrap.link(wrap.sll2), linktype=276),
    Variant(name="raw",                     change=wrap.link(lambda kind: b""), linktype=101),
    Variant(name="null",                    change=wrap.link(wrap.null("<")), linktype=0),
    Variant(name="null-big-endian",         change=wrap.link(wrap.null(">")), linktype=0),
    Variant(name="loop",                    change=wrap.link(wrap.null(">")), linktype=108),
    Variant(name="ppp",                     change=wrap.link(wrap.ppp), linktype=9),
    Variant(name="ppp-hdlc",                change=wrap.link(wrap.ppp), linktype=50),
    Variant(name="pppoe",                   change=wrap.pppoe),
    Variant(name="mpls",                    change=wrap.link(lambda kind: wrap.ether(0x8847) + bytes.fromhex("00064040 00065140"))),
    # tunnels
    Variant(name="gre",                     change=wrap.tunnel(47, wrap.gre)),
    Variant(name="vxlan",                   change=wrap.tunnel(UDP, wrap.vxlan, 4789)),
    Variant(name="geneve",                  change=wrap.tunnel(UDP, wrap.geneve, 6081)),
    Variant(name="ip-in-ip",                change=wrap.tunnel(None, lambda kind: b"")),
    Variant(name="6in4",                    change=wrap.six_in_four),
    Variant(name="in-ipv6",                 change=wrap.in_ipv6),
    # IP
    Variant(name="ipv4-options",            change=wrap.options),
    Variant(name="ipv4-fragments",          change=wrap.fragments),
    Variant(name="ipv4-fragments-backwards", change=wrap.fragments_backwards),
    Variant(name="ipv4-fragments-mixed",    change=wrap.fragments_interleaved),
    Variant(name="ipv6",                    change=wrap.rewritten()),
    Variant(name="ipv6-extensions",         change=wrap.rewritten(*wrap.EXTENSIONS)),
    Variant(name="ipv6-fragments",          change=wrap.fragments_ipv6),
    # TCP
    Variant(name="swapped",                 change=disorder.swapped),
    Variant(name="reordercap",              change=disorder.shuffled_with_times, write=file.reordercap, by_time=True),
    Variant(name="shuffled",                change=disorder.shuffled),
    Variant(name="mirrored",                change=disorder.mirrored),
    Variant(name="resent",                  change=disorder.resent),
    Variant(name="overlapping",             change=disorder.overlapping),
    Variant(name="small-segments",          change=disorder.small_segments),
    Variant(name="sequence-wraps",          change=disorder.wrapping),
    # what is missing
    Variant(name="without-syn",             change=disorder.without_syn, same=False),
    Variant(name="client-only",             change=disorder.one_way(True), same=False),
    Variant(name="server-only",             change=disorder.one_way(False), same=False),
    Variant(name="first-half",              change=disorder.first_half, same=False),
    Variant(name="second-half",             change=disorder.second_half, same=False),
    Variant(name="snaplen-96",              change=disorder.cut(96), same=False),
    Variant(name="snaplen-300",             change=disorder.cut(300), same=False),
    *(Variant(name=f"dropped-{n}",          change=disorder.dropped(n), same=False) for n in (1, 2, 3, 4)),
)
# fmt: on
