"""Search a packet for a pattern, as xt_string does.

In:  the packet from its network header on; String.
Out: whether the pattern is in the part that is searched.
Source: Linux net/netfilter/xt_string.c, net/core/skbuff.c skb_find_text; lib/ts_kmp.c and lib/ts_bm.c;
    lib/ctype.c for upper and lower case.

The search begins at `first`, and the pattern has to end at `last` or before.
"""

from __future__ import annotations

from typing import Final

from rulegen.artifacts.xt_values import String
from rulegen.evaluate.base import Undecidable


def _upper(byte: int) -> int:
    """The kernel's letters are those of ISO 8859-1; sharp s and y diaeresis are small ones like others."""
    small = 0x61 <= byte <= 0x7A or (byte >= 0xDF and byte != 0xF7)
    return byte - 0x20 if small else byte


UPPER: Final = bytes(map(_upper, range(256)))


def found(match: String, packet: bytes, captured: int) -> bool:
    """Whether the pattern is there; `inverted` is not looked at.

    Raises:
        Undecidable: It is not in the bytes that were captured, and could be in the others.
    """
    end = min(match.last, len(packet))
    if match.first + len(match.pattern) > end:
        return False
    # A plain copy: searching has to know only where the known bytes end.
    searched, pattern = bytes(memoryview(packet)[match.first : min(end, captured)]), match.pattern
    if match.ignore_case:
        searched, pattern = searched.translate(UPPER), pattern.translate(UPPER)
    if pattern in searched:
        return True
    if captured < end:
        raise Undecidable(f"a rule searches behind the {captured} bytes that were captured")
    return False
