"""Retrieval metrics from the ranks of the relevant candidates: hit@k, recall@k, mAP@k, MRR, nDCG@5 and nDCG@10.

`slq.evaluation.ranking` finds the ranks, pessimistic among equal scores, so that ties never help.

Shapes: Q queries that have a relevant candidate, R relevant candidates of one query.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from slq.errors import InputError

NDCG_DEPTHS = (5, 10)
_DISCOUNTS = np.log2(np.arange(2, max(NDCG_DEPTHS) + 2))


class RelevantRanks(NamedTuple):
    """One query's relevant candidates.

    Attributes:
        ranks_R: rank of each, from 1; inf for one that is never found. No two are equal, but for inf.
        gains_R: how relevant each is, above 0.
    """

    ranks_R: np.ndarray
    gains_R: np.ndarray


def from_ranks(
    queries: Sequence[RelevantRanks], ks: Sequence[int] = (1, 5, 10), corpus_sizes: Sequence[int] | None = None
) -> dict[str, float]:
    """Average every metric over the queries that have a relevant candidate.

    Args:
        queries: the ranks of each query's relevant candidates.
        ks: the k of hit@k and recall@k.
        corpus_sizes: how many candidates each query was ranked among.

    Returns:
        Fractions: `hit@k` (any relevant candidate in the first k), `recall@k` (fraction of them in the first k) and `map@k` (mean average
        precision over the first k) for each k, `map@r` (over as many as are relevant), `mrr`, `ndcg@5`, `ndcg@10`; and `queries`, how many
        were averaged. With `corpus_sizes` also `num_candidates`, their mean to the nearest, and `random_hit@k`, the expected hit@k of a
        random ranking.

    Raises:
        InputError: if ks is empty or holds a k below 1, or no query has a relevant candidate.

    Example:
        >>> from_ranks([RelevantRanks(np.array([2.0, np.inf]), np.array([1, 1]))], ks=(1, 5))["recall@5"]
        0.5
    """
    values = values_by_query(queries, ks)
    judged = [position for position, one in enumerate(queries) if len(one.gains_R)]
    summary = {name: _mean(values_Q) for name, values_Q in values.items()} | {"queries": len(judged)}
    if corpus_sizes is not None:
        sizes = [corpus_sizes[position] for position in judged]
        relevant = [len(queries[position].gains_R) for position in judged]
        summary |= {"num_candidates": round(_mean(sizes))}
        summary |= {f"random_hit@{k}": _mean(_random_hit(*each, k) for each in zip(relevant, sizes, strict=True)) for k in ks}
    return summary


def values_by_query(queries: Sequence[RelevantRanks], ks: Sequence[int] = (1, 5, 10)) -> dict[str, np.ndarray]:
    """Return what `from_ranks` averages.

    Args:
        queries: the ranks of each query's relevant candidates.
        ks: the k of hit@k and recall@k.

    Returns:
        Metric -> its value (Q,) for each query that has a relevant candidate, in the given order.

    Raises:
        InputError: if ks is empty or holds a k below 1, or no query has a relevant candidate.

    Source:
        nDCG is that of Järvelin and Kekäläinen 2002, with the linear gain of trec_eval's ndcg_cut. mAP@k is divided by the smaller of k
        and the number of relevant candidates, as CIRCO does (trec_eval's map_cut by the number alone); mAP@R is that of ECCV Caption.
    """
    if not ks:
        raise InputError("ks is empty; pass at least one k, such as 10.")
    if min(ks) < 1:
        raise InputError(f"k must be at least 1, not {min(ks)}.")
    judged = [one for one in queries if len(one.gains_R)]
    if not judged:
        raise InputError("No query has a relevant candidate, so there is nothing to average; check that the ids of the judgements match.")
    first_Q = np.array([one.ranks_R.min() for one in judged])
    values: dict[str, np.ndarray] = {}
    for k in ks:
        values[f"hit@{k}"] = (first_Q <= k).astype(np.float64)
        values[f"recall@{k}"] = np.array([np.count_nonzero(one.ranks_R <= k) / len(one.ranks_R) for one in judged])
        values[f"map@{k}"] = np.array([_average_precision(one, k) for one in judged])
    values["map@r"] = np.array([_average_precision(one, len(one.ranks_R)) for one in judged])
    values["mrr"] = 1.0 / first_Q
    return values | {f"ndcg@{depth}": np.array([_ndcg(one, depth) for one in judged]) for depth in NDCG_DEPTHS}


def _average_precision(one: RelevantRanks, depth: int) -> float:
    """Mean, over as many relevant candidates as the first `depth` can hold, of the precision at the rank of each that is there."""
    ranks = np.sort(one.ranks_R)
    precisions = np.arange(1, len(ranks) + 1) / ranks
    return math.fsum(precisions[ranks <= depth]) / min(depth, len(ranks))


def _ndcg(one: RelevantRanks, depth: int) -> float:
    """Sum of gain / log2(rank + 1) over the first `depth`, over that of the best ranking."""
    found = one.ranks_R <= depth
    ideal = -np.sort(-one.gains_R.astype(np.float64))[:depth]
    gained = one.gains_R[found] / _DISCOUNTS[one.ranks_R[found].astype(np.int64) - 1]
    # fsum rounds once, so the order of the terms cannot push a perfect ranking off 1.
    return math.fsum(gained) / math.fsum(ideal / _DISCOUNTS[: len(ideal)])


@cache
def _random_hit(num_relevant: int, corpus_size: int, k: int) -> float:
    """One minus the hypergeometric chance that k candidates picked at random hold no relevant one; exact in integers."""
    picked = min(k, corpus_size)
    all_picks = math.comb(corpus_size, picked)
    return (all_picks - math.comb(corpus_size - num_relevant, picked)) / all_picks


def _mean(values: Iterable[float]) -> float:
    collected = list(values)
    return math.fsum(collected) / len(collected)
