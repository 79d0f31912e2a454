"""Ranks found block by block, beside the reference: the whole matrix of scores, ranked by the oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from oracle import metrics_of, ranks_of

from slq.evaluation import ranking
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import Ranking, rank

SMALL = 20_000  # bytes of a block: a corpus of 300 is read in several
KS = (1, 3, 10)


def whole_matrix(queries: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Scores (Q, C) in float64, without blocks; late interaction where items have several vectors."""
    queries, corpus = queries.astype(np.float64), corpus.astype(np.float64)
    if queries.ndim == 2:
        return queries @ corpus.T
    return np.array([[sum(max(q @ c for c in candidate) for q in query) for candidate in corpus] for query in queries])


def reference(
    scores_QC: np.ndarray,
    relevant: Sequence[Mapping[int, int]],
    excluded: Mapping[int, Sequence[int]] = {},
    candidates: Mapping[int, Sequence[int]] = {},
) -> dict[str, float]:
    """Metrics of the whole matrix; what is left out or failed is not found."""
    ranked = []
    for row, (scores_C, judged) in enumerate(zip(scores_QC, relevant, strict=True)):
        scores = np.where(np.isfinite(scores_C), scores_C, np.nan).astype(np.float32).tolist()
        allowed = set(candidates.get(row, range(len(scores)))) - set(excluded.get(row, ()))
        allowed = {place for place in allowed if not math.isnan(scores[place])}
        ranked.append((ranks_of(scores, judged, allowed), list(judged.values())))
    return metrics_of(ranked, KS)


def scored(rankings: Sequence[Ranking], relevant: Sequence[Mapping[int, int]]) -> dict[str, float]:
    return from_ranks(
        [RelevantRanks(one.ranks_R, np.array([*judged.values()])) for one, judged in zip(rankings, relevant, strict=True)], KS
    )


def drawn(seed: int, queries: int = 70, corpus: int = 300, graded: bool = True) -> tuple[np.ndarray, np.ndarray, list[dict[int, int]]]:
    """Vectors of few small whole numbers, whose products are exact in any order and often equal; none to twelve relevant a query."""
    generator = np.random.default_rng(seed)
    relevant = []
    for _ in range(queries):
        places = generator.choice(corpus, generator.integers(0, 13), replace=False).tolist()
        relevant.append({place: int(generator.integers(1, 4)) if graded else 1 for place in places})
    return generator.integers(-2, 3, (queries, 6)).astype(np.float32), generator.integers(-2, 3, (corpus, 6)).astype(np.float32), relevant


@pytest.mark.parametrize("block_bytes", [SMALL, ranking.BLOCK_BYTES], ids=["many blocks", "one block"])
@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_those_of_the_whole_matrix(seed, block_bytes):
    queries, corpus, relevant = drawn(seed)
    queries[3], corpus[[5, 17]], corpus[40, 2] = np.nan, np.nan, np.inf  # items that failed
    generator = np.random.default_rng(seed)
    excluded = {row: generator.choice(300, 40, replace=False).tolist() for row in range(0, 70, 3)}
    candidates = {row: generator.choice(300, 25, replace=False).tolist() for row in range(0, 70, 4)}
    scores = whole_matrix(np.nan_to_num(queries, nan=np.nan), np.where(np.isfinite(corpus), corpus, np.nan))
    for some_excluded, some_candidates in (({}, {}), (excluded, {}), ({}, candidates), (excluded, candidates)):
        rankings = rank(queries, corpus, relevant, excluded=some_excluded, candidates=some_candidates, block_bytes=block_bytes)
        assert scored(rankings, relevant) == pytest.approx(reference(scores, relevant, some_excluded, some_candidates))


def test_ranks_and_first_places_by_hand():
    corpus = np.array([[3.0], [2.0], [2.0], [2.0], [1.0], [np.nan]])
    # Of the three at 2 the irrelevant one is first, then the smaller gain; what failed is never found.
    (one,) = rank(np.ones((1, 1)), corpus, [{1: 1, 2: 3, 4: 1, 5: 1}], top_k=4)
    assert one.ranks_R.tolist() == [3, 4, 5, math.inf]
    assert one.top_K.tolist() == [0, 1, 2, 3] and one.scores_K.tolist() == [3, 2, 2, 2]
    (excluded,) = rank(np.ones((1, 1)), corpus, [{4: 1, 2: 1}], excluded={0: [0, 2]}, top_k=10)
    assert excluded.ranks_R.tolist() == [3, math.inf] and excluded.top_K.tolist() == [1, 3, 4]
    (listed,) = rank(np.ones((1, 1)), corpus, [{4: 1, 2: 1}], candidates={0: [4, 1, 4]}, top_k=10)
    assert listed.ranks_R.tolist() == [2, math.inf] and listed.top_K.tolist() == [1, 4]
    (failed,) = rank(np.full((1, 1), np.nan), corpus, [{0: 1}])
    assert failed.ranks_R.tolist() == [math.inf] and not len(failed.top_K)


@pytest.mark.parametrize("top_k", [1, 7, 500])
@pytest.mark.parametrize("seed", range(2))
def test_first_positions_are_those_of_a_stable_sort(seed, top_k):
    queries, corpus, relevant = drawn(seed)
    excluded, candidates = {0: list(range(50))}, {1: [5, 250, 7, 100]}
    scores = whole_matrix(queries, corpus)
    scores[0, :50] = -np.inf
    scores[1, [place for place in range(300) if place not in candidates[1]]] = -np.inf
    for row, one in enumerate(rank(queries, corpus, relevant, excluded=excluded, candidates=candidates, top_k=top_k, block_bytes=SMALL)):
        best = np.argsort(-scores[row], kind="stable")[: min(top_k, np.isfinite(scores[row]).sum())]
        assert one.top_K.tolist() == best.tolist() and one.scores_K.tolist() == scores[row, best].tolist()


@pytest.mark.parametrize("block_bytes", [SMALL, 1_000_000, ranking.BLOCK_BYTES])
@pytest.mark.parametrize(("dim", "size"), [(33, 7), (130, 301), (896, 1003)])
def test_constant_embeddings_get_the_last_rank_and_not_a_lucky_one(dim, size, block_bytes):
    """Equal vectors must score the same wherever they stand; a plain product of one query with these differs in the last digit."""
    generator = np.random.default_rng(dim)
    same = generator.standard_normal(dim).astype(np.float32)
    for count in (1, 5, 70):
        queries = generator.standard_normal((count, dim)).astype(np.float32)
        answers = generator.integers(0, size, count).tolist()
        rankings = rank(queries, np.tile(same, (size, 1)), [{answer: 1} for answer in answers], block_bytes=block_bytes)
        assert {one.ranks_R[0] for one in rankings} == {size}


@pytest.mark.parametrize("block_bytes", [SMALL, ranking.BLOCK_BYTES], ids=["many blocks", "one block"])
def test_late_interaction_is_the_sum_of_the_best_products(block_bytes):
    generator = np.random.default_rng(0)
    queries = generator.integers(-2, 3, (20, 3, 4)).astype(np.float32)
    corpus = generator.integers(-2, 3, (150, 5, 4)).astype(np.float32)
    relevant = [{int(place): 1 for place in generator.choice(150, 3, replace=False)} for _ in range(20)]
    corpus[7, 1] = np.nan
    scores = whole_matrix(queries, corpus)
    scores[:, 7] = np.nan
    rankings = rank(queries, corpus, relevant, block_bytes=block_bytes)
    assert scored(rankings, relevant) == pytest.approx(reference(scores, relevant))
    assert rankings[3].scores_K[0] == np.nanmax(scores[3])


def test_one_vector_an_item_is_the_plain_product():
    queries, corpus, relevant = drawn(1)
    plain, grouped = rank(queries, corpus, relevant), rank(queries[:, None], corpus[:, None], relevant)
    assert all(np.array_equal(one.ranks_R, other.ranks_R) for one, other in zip(plain, grouped, strict=True))


@pytest.mark.parametrize("groups", [None, 2])
def test_leading_numbers_are_used_at_length_one(groups):
    generator = np.random.default_rng(2)
    shape = (() if groups is None else (groups,)) + (16,)
    queries, corpus = generator.standard_normal((30, *shape)), generator.standard_normal((200, *shape))
    corpus[9] = 0  # has no direction: scores 0
    relevant = [{int(generator.integers(200)): 1} for _ in range(30)]
    cut = [vectors[..., :5] / np.maximum(np.linalg.norm(vectors[..., :5], axis=-1, keepdims=True), 1e-30) for vectors in (queries, corpus)]
    rankings = rank(queries, corpus, relevant, truncate_dim=5, block_bytes=SMALL)
    assert scored(rankings, relevant) == pytest.approx(reference(whole_matrix(*cut), relevant))
    assert scored(rankings, relevant) != scored(rank(queries, corpus, relevant), relevant)


def test_a_corpus_on_disk_is_ranked_as_in_memory(tmp_path):
    queries, corpus, relevant = drawn(4)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    on_disk, in_memory = rank(queries, mapped, relevant, block_bytes=SMALL), rank(queries, corpus, relevant, block_bytes=SMALL)
    for one, other in zip(on_disk, in_memory, strict=True):
        assert np.array_equal(one.ranks_R, other.ranks_R) and np.array_equal(one.top_K, other.top_K)
    written = np.load(tmp_path / "corpus.npy", mmap_mode="c")
    written[:] = 1
    rank(queries, written, relevant)
    assert (written == 1).all(), "what was written to a copy is not thrown away"


def test_inputs_are_not_changed():
    queries, corpus, relevant = drawn(5)
    queries.flags.writeable = corpus.flags.writeable = False
    before = queries.copy(), corpus.copy()
    rank(queries, corpus, relevant, truncate_dim=3)
    assert np.array_equal(queries, before[0]) and np.array_equal(corpus, before[1])


@pytest.mark.parametrize(
    ("queries", "corpus", "options", "message"),
    [
        (np.ones((2, 3)), np.ones((4, 2)), {}, "as many dimensions"),
        (np.ones((2, 3)), np.ones((4, 1, 3)), {}, "must both be"),
        (np.ones((0, 3)), np.ones((4, 3)), {}, "nothing to rank: 0 queries"),
        (np.ones((2, 3)), np.ones((4, 3)), {"truncate_dim": 4}, "truncate_dim must be 1 to 3, .* not 4"),
        (np.ones((2, 3)), np.ones((4, 3)), {"top_k": 0}, "top_k must be at least 1"),
        (np.ones((1, 3)), np.ones((4, 3)), {}, "1 queries need as many"),
    ],
)
def test_mistakes_are_named(queries, corpus, options, message):
    with pytest.raises(ValueError, match=message):
        rank(queries, corpus, [{0: 1}] * 2, **options)
