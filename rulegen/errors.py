"""The exceptions that leave the rule generator, by whose fault they are.

A rule that a backend can't say is never left out of a ruleset: emission stops, and the refusal names every
such rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from analyzer.report.text import listed


class Unsupported(Exception):
    """One rule needs something that one backend can't say.

    Attributes:
        backend: Name of the backend.
        rule: Name of the rule; or which set, or which chain's guard.
        feature: What it can't say, in the words of the RFC or of netfilter.
    """

    def __init__(self, backend: str, rule: str, feature: str) -> None:
        super().__init__(f"{backend} can't say {rule}: {feature}")
        self.backend = backend
        self.rule = rule
        self.feature = feature


class Refused(Exception):
    """A backend refuses a ruleset: every rule of it that the backend can't say.

    Attributes:
        refusals: One Unsupported per rule and feature, in the order of the rules.
    """

    def __init__(self, refusals: Iterable[Unsupported]) -> None:
        self.refusals = tuple(refusals)
        alike: dict[tuple[str, str], list[str]] = {}
        for refusal in self.refusals:
            alike.setdefault((refusal.backend, refusal.feature), []).append(refusal.rule)
        texts = (f"{backend} can't say {listed(rules)}: {why}" for (backend, why), rules in alike.items())
        super().__init__("; ".join(texts))


class InvalidRuleset(Exception):
    """A ruleset that means nothing, whatever the backend: the fault of the policy that built it.

    Attributes:
        problems: One sentence each, with the rule's name.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class WishError(ValueError):
    """The user asked for a policy, a parameter or a value that does not exist. The message says what does."""
