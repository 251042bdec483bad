"""Say what a file is that is no capture we read, and what to do about it.

In:  the first bytes of the (unpacked) file.
Out: a sentence for CaptureError.why.
Source: the magics as editcap 4.0 writes them, and file(1).

What has no magic is called "perhaps" that; what can't be told is not guessed.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

HEAD_BYTES: Final = 4096
"""Bytes that are looked at."""

# fmt: off
_CAPTURES: Final = (
    # magic                          written by
    (b"snoop\0\0\0",                 "snoop (Solaris)"),
    (b"RTSS",                        "Microsoft Network Monitor 1"),
    (b"GMBU",                        "Microsoft Network Monitor 2"),
    (b"TRSNIFF data    \x1a",        "Network General Sniffer"),
    (b"XCP\0",                       "NetXRay or Windows Sniffer"),
    (b"\x7fver",                     "AiroPeek or OmniPeek"),
    (b"iptrace ",                    "iptrace (AIX)"),
    (b"btsnoop\0",                   "a Bluetooth snoop"),
    (b"TR\0d",                       "nettl (HP-UX)"),
    (b"\xaa\xaa\xaa\xaa",            "5View"),
    (b"\x05VNF",                     "Visual Networks"),
    (b"ObserverPktBuffe",            "Network Instruments Observer"),
    (b"\x01\x10\x4c\x00\x01\x05",    "Novell LANalyzer"),
    (b"\xab\x01\x00\x1c",            "Ixia"),
    (b"\xac\x01\x00\x1c",            "Ixia"),
    (b"+---------+-----",            "a K12 tester, as text"),
)
_PACKED: Final = (
    # magic                          with       command that unpacks to standard output
    (b"\x1f\x8b",                    "gzip",     "gzip -dc"),
    (b"\x28\xb5\x2f\xfd",            "zstd",     "zstd -dc"),
    (b"\xfd7zXZ\0",                  "xz",       "xz -dc"),
    (b"BZh",                         "bzip2",    "bzip2 -dc"),
    (b"\x04\x22\x4d\x18",            "lz4",      "lz4 -dc"),
    (b"\x1f\x9d",                    "compress", "gzip -dc"),
    (b"PK\x03\x04",                  "zip",      "unzip -p"),
    (b"7z\xbc\xaf\x27\x1c",          "7-Zip",    "7z x -so"),
)
_TEXTS: Final = (
    # how it starts                                  what it is, and what to do
    (r"version https://git-lfs\.github\.com/",       "a Git LFS pointer: fetch the file with `git lfs pull`"),
    (r"\s*<(!doctype html|html)\b",                  "a web page: the download of the capture went wrong"),
    (r"\s*<\?xml",                                   "XML: name the capture that it was made from"),
    (r"\s*[\[{]\s*[\[{\"]",                          "JSON: name the capture that it was made from"),
    (r"[0-9a-f]{7,8}:? +[0-9a-f]{4} [0-9a-f]{4} ",   "a hex dump: turn it back with `xxd -r IN OUT`"),
    (r"\s*0{3,8}:?\s+([0-9a-f]{2}\s+){4}",           "a hex dump: convert it with `text2pcap IN OUT`"),
    (r"(\S+ )?\d\d:\d\d:\d\d\.\d+ (IP6?|ARP)\b",     "what tcpdump prints: capture with `tcpdump -w FILE`"),
)
# fmt: on

_HEADERS: Final = re.compile(
    rb"\xd4\xc3\xb2\xa1\x02\0\x04\0|\xa1\xb2\xc3\xd4\0\x02\0\x04|\x4d\x3c\xb2\xa1\x02\0\x04\0"
    rb"|\xa1\xb2\x3c\x4d\0\x02\0\x04|\n\r\r\n....(?:\x4d\x3c\x2b\x1a|\x1a\x2b\x3c\x4d)",
    re.DOTALL,
)
"""Starts of pcap 2.4 and of pcapng that chance does not make."""

_TEXT_MODE: Final = re.compile(rb"\n\r\n..\0\0|\r\n\r\r\r\n..\0\0", re.DOTALL)
"""The start of pcapng after CRLF became LF, or LF CRLF: its magic was chosen to show that."""

_YEAR_1990_S: Final = 631_152_000
_DAY_S: Final = 86_400
_ERF_TYPES: Final = 48

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Characters that no text has."""


def describe_foreign(head: bytes) -> str:
    """What a file is that starts with `head` (its first HEAD_BYTES), in a sentence that says what to do."""
    if len(head) < 4:
        return f"this is too short for a capture ({len(head)} bytes): copy it again"
    for magic, writer in _CAPTURES:
        if head.startswith(magic):
            return f"this is a capture written by {writer}: convert it with `editcap -F pcap IN OUT`"
    for magic, name, command in _PACKED:
        if head.startswith(magic):
            return f"this looks like {name}-compressed data: try `{command} FILE | tlswall analyze -`"
    if _TEXT_MODE.match(head):
        return "this was a pcapng file before a text-mode transfer changed it: copy it again in binary mode"
    text = _describe_text(head)
    header = _HEADERS.search(head)
    if header is not None:
        at = header.start()
        return (
            f"a capture starts only at byte {at}: cut off what is before it with `tail -c +{at + 1} IN > OUT`"
        )
    if text is not None:
        return f"this is {text}"
    if _is_erf(head):
        return "this is perhaps an ERF capture (Endace): convert it with `editcap -F pcap IN OUT`"
    if not head.strip(b"\0"):
        return "this starts with zeros: the file was allocated but not written, copy it again"
    return (
        f"this is neither pcap nor pcapng (it starts with {head[:4].hex()}): look at it with `file`, "
        "and convert what Wireshark can read with `editcap -F pcap IN OUT`"
    )


def _describe_text(head: bytes) -> str | None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return (
            "UTF-16 text, as PowerShell's > makes of a capture, too: let the capture program write the file"
        )
    decoder = codecs.getincrementaldecoder("utf-8")()  # it leaves out a last character that is cut
    try:
        text = decoder.decode(head)
    except UnicodeDecodeError:
        return None
    if _CONTROLS.search(text):
        return None
    for start, what in _TEXTS:
        if re.match(start, text, re.IGNORECASE):
            return what
    return "a text file, not a capture: name a pcap or pcapng file"


def _is_erf(head: bytes) -> bool:
    """Two records with known types, the second soon after the first: ERF has no magic."""
    if len(head) < 16:
        return False
    length = int.from_bytes(head[10:12], "big")
    if length < 16 or len(head) < length + 16:
        return False
    if not all(1 <= head[at + 8] & 0x7F <= _ERF_TYPES for at in (0, length)):
        return False
    first, second = (int.from_bytes(head[at : at + 8], "little") for at in (0, length))  # 2**-32 s
    return first >> 32 > _YEAR_1990_S and first <= second < first + (_DAY_S << 32)
