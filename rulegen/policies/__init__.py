"""The policies, in the order in which their chains judge a packet.

To add one: write policies/NAME.py with a subclass of Policy and an instance POLICY, and add the instance
here. The command line, `tlswall policies`, the account and the tests follow. Traps: say what it costs; a
rule that fails open on short packets is a bypass, and has to be called one; a rule without ports meets
every TCP packet of the host, so it needs enough bytes to be sure of TLS; both address families; IPv4
addresses behind a NAT are many people.
"""

from __future__ import annotations

from typing import Final

from rulegen.errors import WishError
from rulegen.policies import (
    block,
    block_bytes,
    content_type,
    first_record,
    heartbleed,
    learned,
    min_version,
    pin,
    rate,
    sni,
    weak_parameters,
)
from rulegen.policies.base import Policy

POLICIES: Final[tuple[Policy, ...]] = (
    block.POLICY,  # cheapest, and makes the rest unnecessary
    block_bytes.POLICY,
    rate.POLICY,
    heartbleed.POLICY,
    first_record.POLICY,
    content_type.POLICY,
    min_version.POLICY,
    weak_parameters.POLICY,
    sni.POLICY,
    learned.POLICY,
    pin.POLICY,
)


def policy_named(name: str) -> Policy:
    """Look a policy up."""
    for policy in POLICIES:
        if policy.name == name:
            return policy
    raise WishError(f"no policy {name!r}; there are {', '.join(policy.name for policy in POLICIES)}")
