"""How far reviewers agree beyond chance: Cohen's kappa for two, Fleiss' kappa for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from slq.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """Of some reviewers on the items that all of them decided: the fraction decided alike by all, and kappa.

    `kappa` is None where it is not defined: no shared item, or a single decision for everything.
    """

    reviewers: tuple[str, ...]
    items: int
    observed: float | None
    kappa: float | None
    statistic: str


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Agreement of two reviewers beyond chance: (p - e) / (1 - e), p the fraction decided alike, e what their habits reach by chance.

    Args:
        one: a reviewer's decisions.
        other: another's, on the same items in the same order.

    Returns:
        At most 1; None where chance alone is certain to agree, or there is nothing to compare.

    Raises:
        InputError: if the lengths differ.

    Example:
        >>> cohen_kappa(["accept", "reject", "accept", "reject"], ["accept", "reject", "reject", "reject"])
        0.5
    """
    if len(one) != len(other):
        raise InputError(f"Two reviewers of the same items are compared: these decided {len(one)} and {len(other)}.")
    if not one:
        return None
    total = len(one)
    habits, other_habits = Counter(one), Counter(other)
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / total
    chance = sum(count * other_habits[label] for label, count in habits.items()) / total**2
    return _beyond_chance(observed, chance)


def fleiss_kappa(ratings: Sequence[Sequence[str]]) -> float | None:
    """Agreement of any number of reviewers beyond chance.

    Args:
        ratings: one row an item, one decision a reviewer, in any order.

    Returns:
        At most 1; None as for Cohen's.

    Raises:
        InputError: if rows differ in length or have fewer than two decisions.
    """
    if not ratings:
        return None
    size = len(ratings[0])
    if size < 2 or any(len(row) != size for row in ratings):
        raise InputError("Agreement needs the decisions of the same two or more reviewers on every item.")
    counts = [Counter(row) for row in ratings]
    pairs_alike = sum(sum(count * (count - 1) for count in row.values()) / (size * (size - 1)) for row in counts) / len(ratings)
    overall = sum(counts, Counter())
    chance = sum((count / (size * len(ratings))) ** 2 for count in overall.values())
    return _beyond_chance(pairs_alike, chance)


def agreement(decisions: Mapping[str, Mapping[str, str]]) -> list[Agreement]:
    """How far reviewers agree on the items that they share.

    Args:
        decisions: reviewer -> item -> decision.

    Returns:
        First all reviewers together, then, of more than two, each pair; nothing for a single reviewer.
    """
    reviewers = sorted(decisions)
    if len(reviewers) < 2:
        return []
    groups = [tuple(reviewers), *(combinations(reviewers, 2) if len(reviewers) > 2 else [])]
    return [_of_group(group, decisions) for group in groups]


def _of_group(group: tuple[str, ...], decisions: Mapping[str, Mapping[str, str]]) -> Agreement:
    shared = sorted(set.intersection(*(set(decisions[reviewer]) for reviewer in group)))
    rows = [[decisions[reviewer][item] for reviewer in group] for item in shared]
    observed = sum(len(set(row)) == 1 for row in rows) / len(rows) if rows else None
    if len(group) == 2:
        return Agreement(group, len(rows), observed, cohen_kappa([row[0] for row in rows], [row[1] for row in rows]), "Cohen's kappa")
    return Agreement(group, len(rows), observed, fleiss_kappa(rows), "Fleiss' kappa")


def _beyond_chance(observed: float, chance: float) -> float | None:
    return (observed - chance) / (1 - chance) if chance < 1 else None
