"""Events and connections -> findings.

To add a detector: write a file beside this one that declares its rules (id, title, severity, action class,
explanation, references) and a DETECTOR, and put it into DETECTORS. It is given whole columns
(base.Evidence) and yields base.Hit. Mind: a verdict on order needs both directions without loss, which the
tracker's VIOLATION events already know; class A names who did it (`offender`); what is unknown gives no hit.
"""

from __future__ import annotations

from typing import Final

from analyzer.detect import downgrade, fallback, heartbeat, order, plaintext_upgrade, records, sweep
from analyzer.detect.base import Detector, Rule

DETECTORS: Final[tuple[Detector, ...]] = (
    heartbeat.DETECTOR,
    order.DETECTOR,
    downgrade.DETECTOR,
    fallback.DETECTOR,
    plaintext_upgrade.DETECTOR,
    records.DETECTOR,
    sweep.DETECTOR,
)

RULES: Final[dict[str, Rule]] = {rule.id: rule for detector in DETECTORS for rule in detector.rules}
"""The catalogue as far as it is built, by id."""

assert len(RULES) == sum(len(detector.rules) for detector in DETECTORS)
