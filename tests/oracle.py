"""Ranks and metrics by their definitions, one query and one candidate at a time: what the fast ones are compared with."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence


def ranks_of(scores: Sequence[float], relevant: Mapping[int, int], allowed: Collection[int]) -> list[float]:
    """Rank of each relevant candidate among the allowed ones. NaN and what is not allowed is never found; ties never help.

    Of equal scores the irrelevant come first, then the relevant of smaller gain, then those named earlier.
    """
    found = [place for place in relevant if place in allowed and not math.isnan(scores[place])]
    ranks = []
    for place in relevant:
        if place not in found:
            ranks.append(math.inf)
            continue
        ahead = sum(scores[other] >= scores[place] for other in allowed if other not in relevant)
        for other in found:
            earlier = (-scores[other], relevant[other], found.index(other)) < (-scores[place], relevant[place], found.index(place))
            ahead += earlier
        ranks.append(1 + ahead)
    return ranks


def first_places(scores: Sequence[float], allowed: Collection[int], top: int) -> list[int]:
    """The best allowed places, equal scores in the order of the corpus."""
    return sorted((place for place in allowed if not math.isnan(scores[place])), key=lambda place: (-scores[place], place))[:top]


def metrics_of(ranked: Sequence[tuple[Sequence[float], Sequence[int]]], ks: Sequence[int]) -> dict[str, float]:
    """Means over queries of (ranks, gains) with a relevant candidate: hit@k, recall@k, map@k, map@r, mrr, ndcg@5 and ndcg@10."""
    asked = [(ranks, gains) for ranks, gains in ranked if gains]
    values: dict[str, list[float]] = {}
    for k in ks:
        values[f"hit@{k}"] = [float(min(ranks) <= k) for ranks, _ in asked]
        values[f"recall@{k}"] = [sum(rank <= k for rank in ranks) / len(ranks) for ranks, _ in asked]
        values[f"map@{k}"] = [average_precision(ranks, k) for ranks, _ in asked]
    values["map@r"] = [average_precision(ranks, len(ranks)) for ranks, _ in asked]
    values["mrr"] = [1 / min(ranks) for ranks, _ in asked]
    for depth in (5, 10):
        values[f"ndcg@{depth}"] = [
            sum(gain / math.log2(1 + rank) for rank, gain in zip(ranks, gains, strict=True) if rank <= depth)
            / sum(gain / math.log2(1 + place) for place, gain in enumerate(sorted(gains, reverse=True)[:depth], start=1))
            for ranks, gains in asked
        ]
    return {name: sum(each) / len(each) for name, each in values.items()} | {"queries": len(asked)}


def average_precision(ranks: Sequence[float], k: int) -> float:
    """The precision at each of the first k places where something relevant stands, over how many relevant could stand there."""
    at_place = [sum(rank <= place for rank in ranks) / place for place in range(1, k + 1) if place in ranks]
    return sum(at_place) / min(k, len(ranks))
