"""Crafted captures: attacks, anomalies, and the legal traffic that looks like them.

    conversation.py  TCP connections as packets: segmentation, loss, reordering, retransmission
    tls_bytes.py     TLS records and messages as bytes
    session.py       TLS connections over a conversation
    profile.py       what the profile nf_conntrack_tls says of a capture, by a second reading
    scenario.py      a capture and what must be found in it; the manifest
    FAMILIES         the modules that yield scenarios, one per family of findings

Expectations stand beside the bytes that cause them and follow the RFCs and the catalogue of detectors.
"""

from samples.craft import (
    benign,
    ccs,
    downgrade,
    fallback,
    heartbeat,
    heartbeat_encrypted,
    legal,
    order,
    records,
    sslv2,
    transport,
    upgrades,
)

FAMILIES = (
    heartbeat,
    heartbeat_encrypted,
    downgrade,
    fallback,
    order,
    ccs,
    records,
    sslv2,
    legal,
    transport,
    upgrades,
    benign,
)
"""To add a family: a module with `scenarios() -> Iterator[Scenario]`, and its name here."""
