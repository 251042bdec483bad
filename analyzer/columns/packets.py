"""The container of the packet columns of one block.

In:  the number of packets.
Out: Columns: one numpy array per row of schema.PACKETS, all of the same length.
Source: columns.schema.

The annotations below repeat the names of schema.PACKETS for type checkers; a test holds both equal.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.columns.schema import PACKETS


class Columns:
    """The packet columns of one block: `columns.seq[i]` belongs to the block's packet i."""

    __slots__ = tuple(column.name for column in PACKETS)

    packet: npt.NDArray[np.int64]
    time_ns: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    captured: npt.NDArray[np.int32]
    wire: npt.NDArray[np.int32]
    ip_version: npt.NDArray[np.uint8]
    src_hi: npt.NDArray[np.uint64]
    src_lo: npt.NDArray[np.uint64]
    dst_hi: npt.NDArray[np.uint64]
    dst_lo: npt.NDArray[np.uint64]
    ttl: npt.NDArray[np.uint8]
    ip_id: npt.NDArray[np.uint32]
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]
    seq: npt.NDArray[np.uint32]
    ack: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint16]
    window: npt.NDArray[np.uint16]
    network_offset: npt.NDArray[np.int64]
    transport_offset: npt.NDArray[np.int64]
    payload_offset: npt.NDArray[np.int64]
    payload_captured: npt.NDArray[np.int32]
    payload_length: npt.NDArray[np.int32]

    def __init__(self, rows: int) -> None:
        """Make room for `rows` packets; what is in it is undefined until the decoder has filled it."""
        for name, dtype in _DTYPES:
            setattr(self, name, np.empty(rows, dtype))

    def __len__(self) -> int:
        return len(self.packet)


_DTYPES: Final = tuple((column.name, np.dtype(column.dtype)) for column in PACKETS)
