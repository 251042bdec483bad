"""The ways through iptables: with u32 or with classic BPF, in either of its variants."""

from __future__ import annotations

from rulegen.backends import emit
from rulegen.backends.bpf import BACKEND as BPF
from rulegen.backends.ipset import BACKEND as IPSET
from rulegen.ir.rule import Ruleset
from rulegen.testbed.replay import Bench
from tests.rulegen.backends.test_iptables import VARIANTS, load_both

WAYS = tuple(f"{kind}-{variant}" for kind in ("u32", "bpf") for variant in VARIANTS)


def load_by(bench: Bench, ruleset: Ruleset, way: str) -> None:
    """Load a ruleset for both families, and the sets that it looks into."""
    kind, variant = way.split("-")
    if kind == "u32":
        load_both(bench, ruleset, variant)
        return
    if ruleset.sets:
        bench.load(emit(ruleset, IPSET).text, "ipset")
    text = emit(ruleset, BPF).text
    bench.load(text, f"iptables-{variant}")
    bench.load(text, f"ip6tables-{variant}")
