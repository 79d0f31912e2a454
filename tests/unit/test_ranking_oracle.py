"""Ranks found block by block, and the metrics of them, against their definitions, over 200 random cases with ties and failed items."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import first_places, metrics_of, ranks_of

from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import rank

KS = (1, 3, 10)


def case(seed: int) -> tuple:
    """Vectors of few small whole numbers, so that products are exact and often equal; some items failed, some are excluded or not asked."""
    generator = np.random.default_rng(seed)
    num_queries, size = int(generator.integers(1, 12)), int(generator.integers(2, 90))
    shape = (3,) if seed % 4 else (2, 3)  # every fourth case by late interaction
    queries = generator.integers(-2, 3, (num_queries, *shape)).astype(np.float32)
    corpus = generator.integers(-2, 3, (size, *shape)).astype(np.float32)
    corpus[generator.random(size) < 0.1] = np.nan
    queries[generator.random(num_queries) < 0.1] = np.nan
    relevant = []
    for row in range(num_queries):
        places = generator.choice(size, generator.integers(row == 0, min(size, 12) + 1), replace=False)
        relevant.append({int(place): int(generator.integers(1, 4)) for place in places})
    excluded = {row: generator.choice(size, size // 4, replace=False).tolist() for row in range(num_queries) if generator.random() < 0.3}
    only = {row: generator.choice(size, size // 2 + 1, replace=False).tolist() for row in range(num_queries) if generator.random() < 0.3}
    return queries, corpus, relevant, excluded, only


def scores_of(query: np.ndarray, corpus: np.ndarray) -> list[float]:
    """Inner products, or for several vectors an item the sum of each query vector's best."""
    products = np.atleast_2d(query) @ corpus.reshape(-1, corpus.shape[-1]).T  # of every vector of the query with every vector
    best = products.reshape(len(products), len(corpus), -1).max(axis=2).sum(axis=0)
    return [float("nan") if np.isnan(query).any() else float(score) for score in best]


@pytest.mark.slow
@pytest.mark.parametrize("block_bytes", [4_000, 1 << 20], ids=["many blocks", "one block"])
def test_rank_and_metrics_of_random_cases_equal_the_oracle(block_bytes):
    different = []
    for seed in range(200):
        queries, corpus, relevant, excluded, only = case(seed)
        found = rank(queries, corpus, relevant, excluded=excluded, candidates=only, top_k=7, block_bytes=block_bytes)
        wanted_ranks, wanted_tops = [], []
        for row, judged in enumerate(relevant):
            scores, allowed = scores_of(queries[row], corpus), set(only.get(row, range(len(corpus)))) - set(excluded.get(row, ()))
            wanted_ranks.append(ranks_of(scores, judged, allowed))
            wanted_tops.append(first_places(scores, allowed, 7))
        if [one.ranks_R.tolist() for one in found] != wanted_ranks or [one.top_K.tolist() for one in found] != wanted_tops:
            different.append(seed)
            continue
        gains = [list(judged.values()) for judged in relevant]
        metrics = from_ranks([RelevantRanks(one.ranks_R, np.array(each)) for one, each in zip(found, gains, strict=True)], KS)
        assert metrics == pytest.approx(metrics_of(list(zip(wanted_ranks, gains, strict=True)), KS)), f"seed {seed}"
    assert not different, f"other ranks or first places than the oracle's in the cases of seeds {different}"


def test_the_oracle_by_hand():
    scores, judged = [3, 2, 2, 2, 1, float("nan")], {1: 1, 2: 3, 4: 1, 5: 1}
    assert ranks_of(scores, judged, range(6)) == [3, 4, 5, float("inf")], "equal ones: irrelevant first, then the smaller gain"
    assert first_places(scores, range(6), 4) == [0, 1, 2, 3] and first_places(scores, [4, 1, 5], 4) == [1, 4]
    assert metrics_of([([2.0, float("inf")], [1, 1]), ([], [])], (1, 5)) == {
        "hit@1": 0, "recall@1": 0, "hit@5": 1, "recall@5": 0.5, "mrr": 0.5, "queries": 1, "map@1": 0, "map@5": 0.25, "map@r": 0.25,
        "ndcg@5": pytest.approx(0.6309298 / 1.6309298), "ndcg@10": pytest.approx(0.6309298 / 1.6309298),
    }  # fmt: skip
