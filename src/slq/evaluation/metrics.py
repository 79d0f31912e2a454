"""Retrieval metrics on score matrices, on runs and on ranks: hit@k, recall@k, MRR, nDCG. Ties never help.

Among equal scores the less relevant candidate is ranked first. A NaN score ranks an irrelevant candidate first and a relevant one
last, so embeddings that are constant or broken get the worst result, not the best.

Shapes: Q queries, C corpus size (candidates), K places looked at, R relevant candidates of one query.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from slq.errors import InputError
from slq.types import Qrels, Run

NDCG_DEPTH = 10


def rank_of_first_hit(scores_QC: np.ndarray, relevant_QC: np.ndarray) -> np.ndarray:
    """Return the 1-based rank of each query's best relevant candidate, after every irrelevant one that scores the same or NaN.

    scores_QC: (Q, C), higher is better. relevant_QC: (Q, C) bool.
    Returns (Q,) float64; inf where a query has no relevant candidate.
    Raises InputError (a ValueError) if the shapes differ or a matrix is empty.

    >>> rank_of_first_hit(np.array([[0.9, 0.5, 0.5]]), np.array([[False, True, False]]))
    array([3.])
    """
    _check_matrices(scores_QC, relevant_QC)
    return np.array([_ranking(scores_C, relevant_C, 1).first_hit for scores_C, relevant_C in zip(scores_QC, relevant_QC, strict=True)])


def hit_at_k(scores_QC: np.ndarray, relevant_QC: np.ndarray, k: int) -> float:
    """Return the fraction of queries with any relevant candidate in the top k.

    scores_QC, relevant_QC: (Q, C). Queries without a relevant candidate are left out.
    Raises InputError (a ValueError) if k < 1, the shapes differ, a matrix is empty or no query has a relevant candidate.
    """
    return _mean(_hit(ranking, k) for ranking in _rankings(scores_QC, relevant_QC, k))


def recall_at_k(scores_QC: np.ndarray, relevant_QC: np.ndarray, k: int) -> float:
    """Return the fraction of a query's relevant candidates found in the top k, averaged over queries.

    scores_QC, relevant_QC: (Q, C). Queries without a relevant candidate are left out.
    Raises InputError (a ValueError) if k < 1, the shapes differ, a matrix is empty or no query has a relevant candidate.
    """
    return _mean(_recall(ranking, k) for ranking in _rankings(scores_QC, relevant_QC, k))


def mean_reciprocal_rank(scores_QC: np.ndarray, relevant_QC: np.ndarray, k: int | None = None) -> float:
    """Return the mean of 1 / rank of the first hit; with k, a first hit after place k counts 0.

    scores_QC, relevant_QC: (Q, C). Queries without a relevant candidate are left out.
    Raises InputError (a ValueError) if k < 1, the shapes differ, a matrix is empty or no query has a relevant candidate.
    """
    return _mean(_reciprocal_rank(ranking, k) for ranking in _rankings(scores_QC, relevant_QC, 1 if k is None else k))


def ndcg_at_k(scores_QC: np.ndarray, gains_QC: np.ndarray, k: int) -> float:
    """Return the normalised discounted cumulative gain of the top k: sum of gain / log2(rank + 1), over that of the best ranking.

    scores_QC, gains_QC: (Q, C); gains are linear and those below 0 count 0. Queries without a positive gain are left out.
    Raises InputError (a ValueError) if k < 1, the shapes differ, a matrix is empty or no query has a positive gain.
    Source: Järvelin and Kekäläinen 2002, with the linear gain of trec_eval's ndcg_cut.
    """
    return _mean(_ndcg(ranking, k) for ranking in _rankings(scores_QC, gains_QC, k))


def matrices(qrels: Qrels, query_ids: Sequence[str], corpus_ids: Sequence[str]) -> np.ndarray:
    """Return the judgements as a matrix in the order of the given ids.

    Returns gains_QC: (Q, C) int32, 0 where nothing was judged or the judgement is below 0.
    Raises InputError (a ValueError) if there are no ids, an id comes twice, or a relevant candidate is missing from the corpus:
    leaving it out would make recall look better than it is.

    >>> matrices({"q": {"b": 2}}, ["q"], ["a", "b"])
    array([[0, 2]], dtype=int32)
    """
    column = {corpus_id: place for place, corpus_id in enumerate(corpus_ids)}
    for name, ids in (("query", query_ids), ("corpus", corpus_ids)):
        if not ids:
            raise InputError(f"There are no {name} ids; pass at least one.")
        _check_unique(ids, f"the {name} ids")
    gains_QC = np.zeros((len(query_ids), len(corpus_ids)), dtype=np.int32)
    for row, query_id in enumerate(query_ids):
        for corpus_id, gain in qrels.get(query_id, {}).items():
            if gain <= 0:
                continue
            if corpus_id not in column:
                raise InputError(
                    f"The judgements call {corpus_id!r} relevant to query {query_id!r}, but it is not in the corpus; "
                    "add it (with a score of -inf if it has no embedding) or remove the judgement."
                )
            gains_QC[row, column[corpus_id]] = gain
    return gains_QC


def report(scores_QC: np.ndarray, gains_QC: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return every metric at once: "hit@k", "recall@k" and "chance_hit@k" for each k, "mrr", "ndcg@10", "queries", "candidates".

    scores_QC, gains_QC: (Q, C). Metrics are fractions; "queries" counts those averaged over, which have a relevant candidate.
    "chance_hit@k" is the expected hit@k of a random ranking.
    Raises InputError (a ValueError) if ks is empty or holds a k < 1, and as `ndcg_at_k` does.
    """
    _check_ks(ks)
    rankings = _rankings(scores_QC, gains_QC, max(*ks, NDCG_DEPTH))
    return _summary(rankings, ks, corpus_size=gains_QC.shape[1])


def from_run(run: Run, qrels: Qrels, ks: Sequence[int] = (1, 5, 10), *, corpus_size: int | None = None) -> dict[str, float]:
    """Return the metrics of `report` for a ranked run, ordered by its scores; among equal scores the less relevant comes first.

    Every judged query counts: one that is missing from the run scores 0, and a relevant candidate that the run does not list is not
    found. "candidates" and "chance_hit@k" are given only with corpus_size.
    Raises InputError (a ValueError) if ks is empty or holds a k < 1, a query's results name a candidate twice, no query has a
    relevant candidate, the run holds no judged query, or corpus_size is below the number of a query's candidates.
    """
    _check_ks(ks)
    depth = max(*ks, NDCG_DEPTH)
    rankings = []
    for query_id, judgements in qrels.items():
        results = run.get(query_id, ())
        listed = [corpus_id for corpus_id, _ in results]
        _check_unique(listed, f"the results of query {query_id!r}")
        scores_C = np.array([score for _, score in results], dtype=np.float64)
        gains_C = np.array([judgements.get(corpus_id, 0) for corpus_id in listed], dtype=np.float64)
        ranking = _ranking(scores_C, gains_C, depth, np.array(list(judgements.values()), dtype=np.float64))
        if not len(ranking.ideal_R):
            continue
        relevant = {corpus_id for corpus_id, gain in judgements.items() if gain > 0}
        if corpus_size is not None and corpus_size < len(relevant.union(listed)):
            raise InputError(f"Query {query_id!r} has more candidates than corpus_size = {corpus_size}; pass the size of the corpus.")
        rankings.append(ranking)
    _check_any_relevant(rankings)
    if qrels.keys().isdisjoint(run):
        raise InputError("No query of the run is judged; check that the run and the judgements use the same query ids.")
    return _summary(rankings, ks, corpus_size)


class RelevantRanks(NamedTuple):
    """One query's relevant candidates: their ranks, and how relevant they are. No two share a rank, but for inf: never found."""

    ranks_R: np.ndarray
    gains_R: np.ndarray  # all positive


def from_ranks(
    places: Sequence[RelevantRanks], ks: Sequence[int] = (1, 5, 10), corpus_sizes: Sequence[int] | None = None
) -> dict[str, float]:
    """Return the metrics of `report` for ranks that are known already; queries without a relevant candidate are left out.

    corpus_sizes: how many candidates each query has; "candidates" is their mean, to the nearest. Without it neither that nor
    "chance_hit@k" is given.
    Raises InputError (a ValueError) if ks is empty or holds a k < 1, or no query has a relevant candidate.

    >>> from_ranks([RelevantRanks(np.array([2.0, np.inf]), np.array([1, 1]))], ks=(1, 5))["recall@5"]
    0.5
    """
    values = values_by_query(places, ks)
    judged = [query for query, one in enumerate(places) if len(one.gains_R)]
    summary = {name: _mean(values_Q) for name, values_Q in values.items()} | {"queries": len(judged)}
    if corpus_sizes is not None:
        sizes = [corpus_sizes[query] for query in judged]
        summary |= _of_chance([len(places[query].gains_R) for query in judged], sizes, ks)
    return summary


def values_by_query(places: Sequence[RelevantRanks], ks: Sequence[int] = (1, 5, 10)) -> dict[str, np.ndarray]:
    """Return what `from_ranks` averages: each metric's value for each query that has a relevant candidate, in the given order.

    Raises InputError (a ValueError) as `from_ranks` does.
    """
    _check_ks(ks)
    rankings = [_known(one, max(*ks, NDCG_DEPTH)) for one in places if len(one.gains_R)]
    _check_any_relevant(rankings)
    return {name: np.array(values) for name, values in _values(rankings, ks).items()}


class _Ranking(NamedTuple):
    """What the metrics need to know of one query's ranking."""

    top_K: np.ndarray  # gains of the first K places
    first_hit: float  # rank, or inf
    ideal_R: np.ndarray  # every positive gain, largest first


def _ranking(scores_C: np.ndarray, gains_C: np.ndarray, depth: int, judged: np.ndarray | None = None) -> _Ranking:
    """Rank one query's candidates pessimistically. judged: all its gains, when the candidates are not the whole corpus."""
    gains_C = np.maximum(gains_C.astype(np.float64), 0.0)
    all_gains = gains_C if judged is None else judged
    ideal_R = -np.sort(-all_gains[all_gains > 0])
    relevant_C = gains_C > 0
    worst_C = scores_C.astype(np.float64)
    worst_C = np.where(np.isnan(worst_C), np.where(relevant_C, -np.inf, np.inf), worst_C)
    first_hit = math.inf
    if relevant_C.any():
        first_hit = 1.0 + np.count_nonzero(worst_C[~relevant_C] >= worst_C[relevant_C].max())
    if depth < len(worst_C):
        # Only candidates that reach the score at place `depth`, ties included, can fill the first places: no need to sort the rest.
        reached_C = worst_C >= -np.partition(-worst_C, depth - 1)[depth - 1]
        worst_C, gains_C = worst_C[reached_C], gains_C[reached_C]
    order_K = np.lexsort((gains_C, -worst_C))[:depth]
    return _Ranking(gains_C[order_K], first_hit, ideal_R)


def _known(one: RelevantRanks, depth: int) -> _Ranking:
    """The ranking of a query whose relevant candidates' ranks are known."""
    top_K = np.zeros(depth)
    for rank, gain in zip(one.ranks_R.tolist(), one.gains_R.tolist(), strict=True):
        if rank <= depth:
            top_K[int(rank) - 1] = gain
    return _Ranking(top_K, float(one.ranks_R.min()), -np.sort(-one.gains_R.astype(np.float64)))


def _rankings(scores_QC: np.ndarray, gains_QC: np.ndarray, depth: int) -> list[_Ranking]:
    """Rank every query that has a relevant candidate."""
    _check_ks([depth])
    _check_matrices(scores_QC, gains_QC)
    rows = zip(scores_QC, gains_QC, strict=True)
    rankings = [_ranking(scores_C, gains_C, depth) for scores_C, gains_C in rows if (gains_C > 0).any()]
    _check_any_relevant(rankings)
    return rankings


def _values(rankings: Sequence[_Ranking], ks: Sequence[int]) -> dict[str, list[float]]:
    """Each metric's value for each query."""
    values: dict[str, list[float]] = {}
    for k in ks:
        values[f"hit@{k}"] = [_hit(ranking, k) for ranking in rankings]
        values[f"recall@{k}"] = [_recall(ranking, k) for ranking in rankings]
    values["mrr"] = [_reciprocal_rank(ranking, None) for ranking in rankings]
    values[f"ndcg@{NDCG_DEPTH}"] = [_ndcg(ranking, NDCG_DEPTH) for ranking in rankings]
    return values


def _summary(rankings: Sequence[_Ranking], ks: Sequence[int], corpus_size: int | None) -> dict[str, float]:
    summary = {name: _mean(values) for name, values in _values(rankings, ks).items()} | {"queries": len(rankings)}
    if corpus_size is not None:
        summary |= _of_chance([len(ranking.ideal_R) for ranking in rankings], [corpus_size] * len(rankings), ks)
    return summary


def _of_chance(nums_relevant: Sequence[int], corpus_sizes: Sequence[int], ks: Sequence[int]) -> dict[str, float]:
    """How many candidates there are, and what a random ranking of them would hit."""
    queries = list(zip(nums_relevant, corpus_sizes, strict=True))
    chances = {f"chance_hit@{k}": _mean(_chance_hit(*query, k) for query in queries) for k in ks}
    return {"candidates": round(_mean(corpus_sizes)), **chances}


def _hit(ranking: _Ranking, k: int) -> float:
    return float(ranking.first_hit <= k)


def _recall(ranking: _Ranking, k: int) -> float:
    return np.count_nonzero(ranking.top_K[:k]) / len(ranking.ideal_R)


def _reciprocal_rank(ranking: _Ranking, k: int | None) -> float:
    return 0.0 if k is not None and ranking.first_hit > k else 1.0 / ranking.first_hit


def _ndcg(ranking: _Ranking, k: int) -> float:
    return _discounted_gain(ranking.top_K[:k]) / _discounted_gain(ranking.ideal_R[:k])


def _discounted_gain(gains_K: np.ndarray) -> float:
    # fsum rounds once, so the trailing zeros of a perfect ranking cannot push nDCG off 1.
    return math.fsum(gains_K / np.log2(np.arange(2, len(gains_K) + 2)))


@cache
def _chance_hit(num_relevant: int, corpus_size: int, k: int) -> float:
    """One minus the hypergeometric chance that k of the candidates, drawn at random, hold no relevant one; exact in integers."""
    draws = min(k, corpus_size)
    all_draws = math.comb(corpus_size, draws)
    return (all_draws - math.comb(corpus_size - num_relevant, draws)) / all_draws


def _mean(values: Iterable[float]) -> float:
    collected = list(values)
    return math.fsum(collected) / len(collected)


def _check_matrices(scores_QC: np.ndarray, gains_QC: np.ndarray) -> None:
    if scores_QC.ndim != 2 or scores_QC.shape != gains_QC.shape:
        raise InputError(
            f"Scores and relevance must both be (queries, candidates) matrices of one shape, not {scores_QC.shape} and {gains_QC.shape}."
        )
    if scores_QC.size == 0:
        raise InputError(f"There is nothing to rank: the score matrix has shape {scores_QC.shape}; pass at least one query and candidate.")
    if not np.isfinite(gains_QC).all():
        raise InputError("A gain is NaN or infinite; gains must be finite numbers.")


def _check_ks(ks: Sequence[int]) -> None:
    if not ks:
        raise InputError("ks is empty; pass at least one k, such as 10.")
    if min(ks) < 1:
        raise InputError(f"k must be at least 1, not {min(ks)}.")


def _check_unique(ids: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise InputError(f"{name!r} comes twice in {where}; ids must be unique.")
        seen.add(name)


def _check_any_relevant(rankings: Sequence[_Ranking]) -> None:
    if not rankings:
        raise InputError("No query has a relevant candidate, so there is nothing to average; check that the ids of the judgements match.")
