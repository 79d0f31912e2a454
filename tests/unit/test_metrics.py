"""The metrics against values worked out by hand and against a slow twin."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from slq.evaluation import metrics

NAN = math.nan


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float64)


def relevant(*places: int, size: int) -> np.ndarray:
    return np.isin(np.arange(size), places)[None]


def twin_order(scores: list[float], gains: list[float]) -> list[float]:
    """Gains in pessimistic order, by repeatedly taking the next candidate as the definition says."""
    left = []
    for score, gain in zip(scores, gains, strict=True):
        value = (-math.inf if gain > 0 else math.inf) if math.isnan(score) else score
        left.append((value, gain))
    order = []
    while left:
        best = max(value for value, _ in left)
        taken = min((gain for value, gain in left if value == best), default=0)
        left.remove((best, taken))
        order.append(taken)
    return order


def twin_report(scores: np.ndarray, gains: np.ndarray, ks: tuple[int, ...]) -> dict[str, float]:
    totals: dict[str, float] = {}
    queries = 0
    for scores_row, gains_row in zip(scores.tolist(), gains.tolist(), strict=True):
        order, ideal = twin_order(scores_row, gains_row), sorted(gains_row, reverse=True)
        positives = sum(1 for gain in gains_row if gain > 0)
        if not positives:
            continue
        queries += 1
        first = next(place for place, gain in enumerate(order, start=1) if gain > 0)
        values = {"mrr": 1 / first}
        for k in ks:
            values[f"hit@{k}"] = 1.0 if any(gain > 0 for gain in order[:k]) else 0.0
            values[f"recall@{k}"] = sum(1 for gain in order[:k] if gain > 0) / positives
            draws = list(itertools.combinations(gains_row, min(k, len(gains_row))))
            values[f"chance_hit@{k}"] = sum(1 for draw in draws if any(gain > 0 for gain in draw)) / len(draws)
        gained, best = (sum(gain / math.log2(place + 2) for place, gain in enumerate(ranked[:10])) for ranked in (order, ideal))
        values["ndcg@10"] = gained / best
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + value
    counts = {"queries": queries, "candidates": scores.shape[1]}
    return {name: total / queries for name, total in totals.items()} | counts


def tied_data(seed: int, queries: int = 30, candidates: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores from five values, infinities and NaN among them; gains 0 to 3; some queries without a relevant candidate."""
    generator = np.random.default_rng(seed)
    scores = generator.choice([0.1, 0.2, -math.inf, math.inf, NAN], size=(queries, candidates), p=[0.4, 0.4, 0.05, 0.05, 0.1])
    return scores, generator.choice([0, 1, 2, 3], size=(queries, candidates), p=[0.8, 0.1, 0.05, 0.05])


@pytest.mark.parametrize(
    ("scores", "places", "rank"),
    [
        ((0.9, 0.5, 0.1), (0,), 1),
        ((0.9, 0.5, 0.1), (2,), 3),
        ((0.9, 0.5, 0.1), (1, 2), 2),
        ((0.5, 0.5, 0.1), (0,), 2),
        ((0.5, 0.5, 0.5), (0, 1), 2),  # only irrelevant candidates are counted before
        ((0.0, 0.0, 0.0), (0,), 3),
        ((0.9, NAN, 0.1), (0,), 2),  # an irrelevant NaN comes before
        ((NAN, 0.5, 0.1), (0,), 3),  # a relevant NaN comes last
        ((NAN, 0.5, 0.1), (0, 1), 1),
        ((NAN, -math.inf, 0.1), (0,), 3),
        ((math.inf, NAN, 0.1), (0,), 2),
        ((NAN, NAN, NAN), (1,), 3),
        ((0.9, 0.5, 0.1), (), math.inf),
    ],
)
def test_rank_of_first_hit(scores: tuple[float, ...], places: tuple[int, ...], rank: float) -> None:
    assert metrics.rank_of_first_hit(row(*scores), relevant(*places, size=3)).tolist() == [rank]


def test_integer_and_half_precision_scores_are_ranked_too() -> None:
    judged = relevant(1, size=3)
    assert metrics.rank_of_first_hit(np.array([[0, 2, 3]], dtype=np.uint8), judged).tolist() == [2]
    assert metrics.rank_of_first_hit(np.array([[0, 2, 3]], dtype=np.float16), judged).tolist() == [2]


def test_hit_and_recall_are_two_things() -> None:
    scores, judged = row(0.9, 0.8, 0.7, 0.6), relevant(0, 3, size=4)
    assert [metrics.hit_at_k(scores, judged, k) for k in (1, 3, 4, 99)] == [1, 1, 1, 1]
    assert [metrics.recall_at_k(scores, judged, k) for k in (1, 3, 4, 99)] == [0.5, 0.5, 1, 1]


def test_averages_leave_out_queries_without_a_relevant_candidate() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    judged = np.array([[True, False], [False, True], [False, False]])
    assert metrics.hit_at_k(scores, judged, 1) == 0.5
    assert metrics.recall_at_k(scores, judged, 1) == 0.5
    assert metrics.mean_reciprocal_rank(scores, judged) == 0.75
    assert metrics.ndcg_at_k(scores, judged, 2) == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert metrics.report(scores, judged)["queries"] == 2


def test_mean_reciprocal_rank_stops_at_k() -> None:
    scores, judged = row(0.9, 0.8, 0.7), relevant(2, size=3)
    assert metrics.mean_reciprocal_rank(scores, judged) == pytest.approx(1 / 3)
    assert metrics.mean_reciprocal_rank(scores, judged, k=3) == pytest.approx(1 / 3)
    assert metrics.mean_reciprocal_rank(scores, judged, k=2) == 0


def test_ndcg_with_graded_gains() -> None:
    # Ranked gains 1, 0, 3; the best order is 3, 1, 0.
    scores, gains = row(0.9, 0.8, 0.7), np.array([[1, 0, 3]])
    assert metrics.ndcg_at_k(scores, gains, 3) == pytest.approx((1 + 3 / 2) / (3 + 1 / math.log2(3)))
    assert metrics.ndcg_at_k(scores, gains, 50) == metrics.ndcg_at_k(scores, gains, 3)
    assert metrics.ndcg_at_k(scores, gains, 1) == pytest.approx(1 / 3)
    assert metrics.ndcg_at_k(row(0.8, 0.1, 0.9), gains, 3) == 1
    assert metrics.ndcg_at_k(scores, np.array([[1, -2, 3]]), 3) == metrics.ndcg_at_k(scores, gains, 3)


def test_ndcg_orders_ties_with_the_less_relevant_first() -> None:
    gains = np.array([[3, 1, 0]])
    worst = (1 / math.log2(3) + 3 / 2) / (3 + 1 / math.log2(3))
    assert metrics.ndcg_at_k(row(0.5, 0.5, 0.5), gains, 3) == pytest.approx(worst)
    assert metrics.ndcg_at_k(row(0.5, 0.5, NAN), gains, 3) == pytest.approx(worst)
    assert metrics.ndcg_at_k(row(0.5, 0.5, 0.1), gains, 1) == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [0.0, 1.0, NAN, math.inf, -math.inf])
def test_constant_scores_get_the_worst_result(value: float) -> None:
    scores, judged = np.full((20, 20), value), np.eye(20, dtype=bool)
    result = metrics.report(scores, judged)
    assert [result[name] for name in ("hit@1", "hit@5", "recall@10", "ndcg@10")] == [0, 0, 0, 0]
    assert result["mrr"] == pytest.approx(1 / 20)
    assert result["chance_hit@5"] == pytest.approx(5 / 20)


def test_recall_counts_places_that_ties_leave() -> None:
    # RelevantRanks: 0.9 (relevant), then two irrelevant 0.5, then two relevant 0.5.
    scores, judged = row(0.5, 0.5, 0.9, 0.5, 0.5), relevant(0, 2, 4, size=5)
    assert [metrics.recall_at_k(scores, judged, k) for k in range(1, 6)] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 1])


def test_chance_is_hypergeometric() -> None:
    # Two relevant of five: a draw of two misses both with chance 3/5 * 2/4; the second query has one of five.
    gains = np.array([[1, 2, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    result = metrics.report(np.zeros((3, 5)), gains, ks=(1, 2, 4, 9))
    assert result["chance_hit@1"] == pytest.approx((2 / 5 + 1 / 5) / 2)
    assert result["chance_hit@2"] == pytest.approx((1 - 3 / 10 + 2 / 5) / 2)
    assert result["chance_hit@4"] == pytest.approx((1 + 4 / 5) / 2)
    assert result["chance_hit@9"] == 1


def test_chance_of_a_large_corpus_does_not_overflow() -> None:
    assert metrics.report(np.zeros((1, 30_000)), relevant(0, size=30_000), ks=(1000,))["chance_hit@1000"] == pytest.approx(1 / 30)


def test_report_has_these_keys() -> None:
    result = metrics.report(np.eye(3), np.eye(3, dtype=bool), ks=(1, 2))
    counts = {"queries": 3, "candidates": 3, "chance_hit@1": pytest.approx(1 / 3), "chance_hit@2": pytest.approx(2 / 3)}
    assert result == {"hit@1": 1, "hit@2": 1, "recall@1": 1, "recall@2": 1, "mrr": 1, "ndcg@10": 1} | counts


@pytest.mark.parametrize("seed", range(4))
def test_report_equals_the_slow_twin(seed: int) -> None:
    scores, gains = tied_data(seed)
    assert metrics.report(scores, gains, ks=(1, 2, 5, 20)) == pytest.approx(twin_report(scores, gains, (1, 2, 5, 20)))


@pytest.mark.parametrize("k", [1, 3, 8, 9])
def test_single_metrics_equal_the_slow_twin(k: int) -> None:
    scores, gains = tied_data(seed=7)
    expected = twin_report(scores, gains, (k,))
    assert metrics.hit_at_k(scores, gains > 0, k) == pytest.approx(expected[f"hit@{k}"])
    assert metrics.recall_at_k(scores, gains > 0, k) == pytest.approx(expected[f"recall@{k}"])
    assert metrics.mean_reciprocal_rank(scores, gains > 0) == pytest.approx(expected["mrr"])
    assert metrics.ndcg_at_k(scores, gains, 10) == pytest.approx(expected["ndcg@10"])


def test_order_of_candidates_does_not_matter() -> None:
    scores, gains = tied_data(seed=5)
    shuffled = np.random.default_rng(0).permutation(scores.shape[1])
    assert metrics.report(scores[:, shuffled], gains[:, shuffled]) == metrics.report(scores, gains)


def test_inputs_are_not_changed() -> None:
    scores, gains = tied_data(seed=6)
    scores_copy, gains_copy = scores.copy(), gains.copy()
    scores.flags.writeable = gains.flags.writeable = False
    metrics.report(scores, gains)
    metrics.rank_of_first_hit(scores, gains > 0)
    assert np.array_equal(scores, scores_copy, equal_nan=True)
    assert np.array_equal(gains, gains_copy)


def test_matrices_follow_the_ids() -> None:
    qrels = {"q1": {"a": 1, "c": 3, "b": 0}, "q2": {"b": -1, "elsewhere": 0}, "unused": {"z": 1}}
    gains = metrics.matrices(qrels, ["q2", "q1", "q3"], ["c", "b", "a"])
    assert gains.tolist() == [[0, 0, 0], [3, 0, 1], [0, 0, 0]]
    assert np.issubdtype(gains.dtype, np.integer)


@pytest.mark.parametrize(
    ("query_ids", "corpus_ids", "message"),
    [
        ([], ["a"], "no query ids"),
        (["q"], [], "no corpus ids"),
        (["q", "q"], ["a"], "'q' comes twice in the query ids"),
        (["q"], ["b", "a", "b"], "'b' comes twice in the corpus ids"),
        (["q"], ["b"], "'a' relevant to query 'q', but it is not in the corpus"),
    ],
)
def test_matrices_name_mistakes(query_ids: list[str], corpus_ids: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.matrices({"q": {"a": 1}}, query_ids, corpus_ids)


@pytest.mark.parametrize("seed", range(2))
def test_a_run_of_the_whole_corpus_equals_its_matrix(seed: int) -> None:
    scores, gains = tied_data(seed)
    corpus_ids = [f"d{column}" for column in range(scores.shape[1])]
    run, qrels = {}, {}
    for query, (scores_row, gains_row) in enumerate(zip(scores.tolist(), gains.tolist(), strict=True)):
        run[f"q{query}"] = list(zip(corpus_ids, scores_row, strict=True))
        qrels[f"q{query}"] = dict(zip(corpus_ids, gains_row, strict=True))
    assert metrics.from_run(run, qrels, corpus_size=len(corpus_ids)) == metrics.report(scores, gains)


def test_a_run_does_not_find_what_it_does_not_list() -> None:
    qrels = {"q1": {"a": 1, "b": 2}, "q2": {"a": 1}, "q3": {"a": 0}}
    result = metrics.from_run({"q1": [("x", 0.9), ("a", 0.9)], "unjudged": [("a", 1.0)]}, qrels, ks=(1, 10))
    # q1: a tie puts x first, a second; b is never found. q2 is missing from the run and counts 0. q3 has nothing to find.
    assert result == pytest.approx(
        {
            "hit@1": 0,
            "recall@1": 0,
            "hit@10": 1 / 2,
            "recall@10": 1 / 4,
            "mrr": 1 / 4,
            "ndcg@10": (1 / math.log2(3)) / (2 + 1 / math.log2(3)) / 2,
            "queries": 2,
        }
    )


def test_a_run_is_ordered_by_its_scores_and_knows_its_corpus_size() -> None:
    result = metrics.from_run({"q": [("x", 0.1), ("a", 0.9)]}, {"q": {"a": 1}}, ks=(1,), corpus_size=4)
    assert (result["hit@1"], result["candidates"], result["chance_hit@1"]) == (1, 4, 0.25)


@pytest.mark.parametrize(
    ("run", "qrels", "options", "message"),
    [
        ({"q": [("a", 1.0), ("a", 0.5)]}, {"q": {"a": 1}}, {}, "'a' comes twice in the results of query 'q'"),
        ({"q": [("a", 1.0)]}, {}, {}, "No query has a relevant candidate"),
        ({"q": [("a", 1.0)]}, {"q": {"a": 0}}, {}, "No query has a relevant candidate"),
        ({"other": [("a", 1.0)]}, {"q": {"a": 1}}, {}, "same query ids"),
        ({"q": [("a", 1.0)]}, {"q": {"a": 1}}, {"ks": (0,)}, "k must be at least 1, not 0"),
        ({"q": [("x", 1.0)]}, {"q": {"a": 1}}, {"corpus_size": 1}, "more candidates than corpus_size = 1"),
    ],
)
def test_from_run_names_mistakes(run: Any, qrels: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.from_run(run, qrels, **options)


def test_wrong_k_is_named() -> None:
    scores, judged = np.eye(2), np.eye(2, dtype=bool)
    for metric in (metrics.hit_at_k, metrics.recall_at_k, metrics.mean_reciprocal_rank, metrics.ndcg_at_k):
        with pytest.raises(ValueError, match="k must be at least 1, not 0"):
            metric(scores, judged, 0)
    with pytest.raises(ValueError, match="not -3"):
        metrics.report(scores, judged, ks=(1, -3))
    with pytest.raises(ValueError, match="ks is empty"):
        metrics.report(scores, judged, ks=())


@pytest.mark.parametrize(
    ("scores", "gains", "message"),
    [
        (np.zeros((2, 3)), np.ones((2, 4)), "one shape"),
        (np.zeros(3), np.ones(3), r"\(queries, candidates\)"),
        (np.zeros((0, 3)), np.ones((0, 3)), "nothing to rank"),
        (np.zeros((3, 0)), np.ones((3, 0)), "nothing to rank"),
        (np.zeros((1, 2)), row(1, NAN), "gain is NaN"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "No query has a relevant candidate"),
    ],
)
def test_wrong_matrices_are_named(scores: np.ndarray, gains: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.report(scores, gains)
    with pytest.raises(ValueError, match=message):
        metrics.hit_at_k(scores, gains, 1)
