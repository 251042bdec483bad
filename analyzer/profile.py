"""The findings of `--profile nf_conntrack_tls`: what that kernel module would drop first, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from analyzer.capture import RawPackets
from analyzer.columns.packets import Columns
from analyzer.flows.table import Field, FlowTable
from analyzer.model import Action, Finding, Severity
from analyzer.tls.nf_conntrack_tls import REASONS, Profile

RULE_ID: Final = "NFCT"
TITLE: Final = "nf_conntrack_tls would drop this packet"
REFERENCES: Final = ("nf_conntrack_tls: TLS connection tracking helper",)
EXPLANATION: Final = (
    "The kernel module nf_conntrack_tls, watching this port, drops the packet for the reason in the "
    "evidence. It reads each packet's payload in capture order, without reassembly, and judges no further "
    "packet of the connection."
)


class ProfileJudge:
    """Feeds the packets of a capture to the profile and words its verdicts."""

    def __init__(self, capture: int, ports: tuple[int, ...]) -> None:
        self._capture = capture
        self._profile = Profile(ports)

    def judge(
        self,
        raw: RawPackets,
        columns: Columns,
        flow: npt.NDArray[np.int64],
        direction: npt.NDArray[np.uint8],
        begins: npt.NDArray[np.uint8],
        flows: FlowTable,
    ) -> Iterator[Finding]:
        """Findings of a block: at most one for each connection."""
        verdicts = self._profile.feed(raw.buffer, columns, flow, direction, begins)
        for packet, slot, reason in zip(
            verdicts.packet.tolist(), verdicts.flow.tolist(), verdicts.reason.tolist(), strict=True
        ):
            yield Finding(
                id=RULE_ID,
                title=TITLE,
                severity=Severity.HIGH,
                action=Action.CORROBORATE,
                connection=int(flows.fields[slot, Field.CONNECTION]),
                packets=(packet,),
                evidence={"reason": REASONS[reason]},
                explanation=EXPLANATION,
                references=REFERENCES,
                capture=self._capture,
            )
