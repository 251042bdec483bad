"""Judge packets by a file of iptables-save or ip6tables-save, as the kernel does.

In:  Artifact; the variant of iptables that loads it; the sets of ipset that it asks for.
Out: Evaluated: an entry for each built-in chain, in which a packet meets rules, user chains and the policy.
Source: Linux net/ipv4/netfilter/ip_tables.c ipt_do_table, net/ipv6/netfilter/ip6_tables.c ip6t_do_table for
    the variant "legacy"; net/netfilter/nf_tables_core.c nft_do_chain and nft_compat.c for "nf_tables".

    xtables_packet.py      a packet as rules see it
    xtables_rules.py       which test stands for which match; what is not modelled
        xtables_matches, xtables_native (iptables-nft says it in nft's words), xtables_connection,
        xtables_connlimit, xtables_rates, xtables_recent, xtables_sets; u32, cbpf, text_search

What is not modelled is refused before the first packet; what a packet does not tell is Undecidable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rulegen.artifacts.model import Artifact, BaseChain, Dialect, IpSet, Table, of_family
from rulegen.evaluate.base import Decision, Entry, Evaluated, Fate, Hit, NotModelled, Passing, Undecidable
from rulegen.evaluate.xtables_connlimit import Known
from rulegen.evaluate.xtables_packet import HotDrop, Packet, is_answered
from rulegen.evaluate.xtables_rules import LEGACY, NF_TABLES, Rule, Step, Translator

VARIANTS: Final = (NF_TABLES, LEGACY)
FAMILIES: Final = ("ip", "ip6")

_ACCEPTED: Final = {"accept": Fate.ACCEPT, "drop": Fate.DROP}


def evaluate_xtables(
    artifact: Artifact, *, variant: str, family: str, ipsets: Iterable[IpSet] = ()
) -> Evaluated:
    """Make a ruleset ready to judge packets.

    Args:
        artifact: As read from the file.
        variant: "nf_tables" (iptables-nft) or "legacy".
        family: "ip" or "ip6": which of the two tools loads it.
        ipsets: The sets that are loaded with it.

    Raises:
        NotModelled: It uses what is not modelled; the first such use.
    """
    assert artifact.dialect is Dialect.XTABLES
    assert variant in VARIANTS
    assert family in FAMILIES
    translator = Translator(variant, family, ipsets)
    entries: list[Entry] = []
    for table in artifact.tables:
        if table.family not in (None, family):
            raise NotModelled(f"table {table.name}", f"a file of {table.family} in {family}tables")
        _refuse_nat(table, family)
        entries += _entries(of_family(table, family), family, variant, translator)
    return Evaluated(entries=tuple(entries), tracking=translator.tracking)


def _refuse_nat(table: Table, family: str) -> None:
    if table.name != "nat":
        return
    for chain in table.chains:
        if chain.rules or (isinstance(chain, BaseChain) and chain.policy != "accept"):
            raise NotModelled(f"table {family} nat, chain {chain.name}", "address translation")


def _entries(table: Table, family: str, variant: str, translator: Translator) -> Iterator[Entry]:
    name = f"{family} {table.name}"
    chains: dict[str, tuple[Rule, ...]] = {
        chain.name: tuple(
            translator.rule(rule, Hit(name, chain.name, rule.number, rule.comment), table, chain)
            for rule in chain.rules
        )
        for chain in table.chains
    }
    for chain in table.chains:
        if isinstance(chain, BaseChain) and (chain.rules or chain.policy != "accept"):
            judge = _Judge(chain, chains, translator.known, behind_authentication=variant == LEGACY)
            yield Entry(chain.hook, chain.priority, family, f"{name} {chain.name}", judge)


class _Judge:
    """A built-in chain with the chains that it leads to."""

    def __init__(
        self,
        chain: BaseChain,
        chains: Mapping[str, tuple[Rule, ...]],
        known: Known | None,
        *,
        behind_authentication: bool,
    ) -> None:
        self._first = chains[chain.name]
        self._chains = chains
        self._known = known
        self._hook = chain.hook
        self._policy = Decision(_ACCEPTED[chain.policy], None)
        self._behind_authentication = behind_authentication

    def __call__(self, passing: Passing) -> Decision:
        """What becomes of a packet here.

        Raises:
            Undecidable: It depends on what the capture does not tell.
        """
        if self._known is not None:
            self._known.meet(passing)
        packet = Packet(passing, self._hook, behind_authentication=self._behind_authentication)
        hits = passing.hits
        rules, at = self._first, 0
        callers: list[tuple[tuple[Rule, ...], int]] = []
        while True:
            if at == len(rules):
                if not callers:
                    return self._policy
                rules, at = callers.pop()
                continue
            rule = rules[at]
            at += 1
            try:
                for test in rule.tests:
                    if not test(packet):
                        break
                else:
                    hits.append(rule.hit)
                    step = rule.step
                    if step is Step.NEXT:
                        continue
                    if step is Step.DECIDE:
                        decision = rule.decision
                        assert decision is not None
                        return decision._replace(resets=is_answered(packet)) if decision.resets else decision
                    if step is Step.RETURN:
                        at = len(rules)
                    elif step is Step.EFFECT:
                        assert rule.effect is not None
                        rule.effect(packet)
                    else:
                        if step is Step.JUMP:
                            callers.append((rules, at))
                        rules, at = self._chains[rule.chain], 0
            except HotDrop:
                return Decision(Fate.DROP, rule.hit)
            except Undecidable as unknown:
                if not (rule.pure and _fails_anyhow(rule, packet)):
                    raise Undecidable(f"{rule.where}: {unknown.why}") from None


def _fails_anyhow(rule: Rule, packet: Packet) -> bool:
    """Whether a test says no, whatever the tests say whose answer is not known."""
    for test in rule.tests:
        try:
            if not test(packet):
                return True
        except Undecidable:
            continue
        except HotDrop:
            return False
    return False
