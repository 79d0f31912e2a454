"""The metrics against values worked out by hand; `test_ranking_oracle.py` holds them against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from slq.evaluation.metrics import RelevantRanks, from_ranks, values_by_query
from slq.evaluation.ranking import rank

NEVER = math.inf


def query(*ranks: float, gains: tuple[int, ...] | None = None) -> RelevantRanks:
    return RelevantRanks(np.array(ranks, dtype=float), np.array(gains or (1,) * len(ranks)))


def test_hit_and_recall_are_two_things():
    found = from_ranks([query(1, 4)], ks=(1, 3, 4, 99))
    assert [found[f"hit@{k}"] for k in (1, 3, 4, 99)] == [1, 1, 1, 1]
    assert [found[f"recall@{k}"] for k in (1, 3, 4, 99)] == [0.5, 0.5, 1, 1]


def test_averages_leave_out_queries_without_a_relevant_candidate():
    found = from_ranks([query(1), query(2), query()], ks=(1,))
    assert (found["hit@1"], found["recall@1"], found["mrr"], found["queries"]) == (0.5, 0.5, 0.75, 2)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_what_is_never_found_counts_nothing():
    found = from_ranks([query(NEVER, NEVER), query(2, NEVER, gains=(1, 2))], ks=(1, 10))
    assert found == pytest.approx(
        {
            "hit@1": 0,
            "recall@1": 0,
            "hit@10": 1 / 2,
            "recall@10": 1 / 4,
            "mrr": 1 / 4,
            "map@1": 0,
            "map@10": (1 / 2 / 2) / 2,
            "map@r": (1 / 2 / 2) / 2,
            "ndcg@5": (1 / math.log2(3)) / (2 + 1 / math.log2(3)) / 2,
            "ndcg@10": (1 / math.log2(3)) / (2 + 1 / math.log2(3)) / 2,
            "queries": 2,
        }
    )


@pytest.mark.parametrize(
    ("ranks", "gains", "expected"),
    [
        ((1, 3), (1, 3), (1 + 3 / 2) / (3 + 1 / math.log2(3))),
        ((1, 3), (3, 1), (3 + 1 / 2) / (3 + 1 / math.log2(3))),
        ((1, 2), (3, 1), 1),
        ((11,), (1,), 0),
        (tuple(range(1, 13)), (1,) * 12, 1),
    ],
    ids=["graded", "graded better", "perfect", "after the tenth", "more than ten relevant"],
)
def test_ndcg_by_hand(ranks, gains, expected):
    assert from_ranks([query(*ranks, gains=gains)])["ndcg@10"] == pytest.approx(expected, abs=0)


def test_average_precision_by_hand():
    """Relevant at ranks 1, 3 and 7 of four, the last never found: precisions 1, 2/3, 3/7."""
    found = from_ranks([query(3, 1, NEVER, 7)], ks=(1, 3, 5, 10))
    assert found["map@1"] == 1
    assert found["map@3"] == pytest.approx((1 + 2 / 3) / 3), "of the first three, three could be relevant"
    assert found["map@5"] == pytest.approx((1 + 2 / 3) / 4) and found["map@10"] == pytest.approx((1 + 2 / 3 + 3 / 7) / 4)
    assert found["map@r"] == pytest.approx((1 + 2 / 3) / 4), "as many places as are relevant"
    assert from_ranks([query(1, 2)], ks=(1, 5))["map@5"] == 1 == from_ranks([query(1, 2)], ks=(1,))["map@1"]


def test_ndcg_at_5_sees_five_places():
    assert from_ranks([query(6)])["ndcg@5"] == 0 < from_ranks([query(6)])["ndcg@10"]
    graded = from_ranks([query(2, 4, 8, gains=(1, 3, 3))])
    wanted = (1 / math.log2(3) + 3 / math.log2(5)) / (3 + 3 / math.log2(3) + 1 / 2)
    assert graded["ndcg@5"] == pytest.approx(wanted)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf, -math.inf])
def test_constant_embeddings_get_the_worst_result(value):
    vectors = np.full((20, 1), value)
    ranked = rank(np.ones((20, 1)), vectors, [{place: 1} for place in range(20)])
    found = from_ranks([query(*one.ranks_R) for one in ranked], corpus_sizes=[20] * 20)
    assert [found[name] for name in ("hit@1", "hit@5", "recall@10", "ndcg@10")] == [0, 0, 0, 0]
    assert found["mrr"] == pytest.approx(1 / 20 if math.isfinite(value) else 0)
    assert found["random_hit@5"] == pytest.approx(5 / 20)


def test_chance_is_hypergeometric():
    # Two relevant of five: a draw of two misses both with chance 3/5 * 2/4; the second query has one of five.
    found = from_ranks([query(1, 2), query(1), query()], ks=(1, 2, 4, 9), corpus_sizes=[5, 5, 5])
    assert found["random_hit@1"] == pytest.approx((2 / 5 + 1 / 5) / 2)
    assert found["random_hit@2"] == pytest.approx((1 - 3 / 10 + 2 / 5) / 2)
    assert found["random_hit@4"] == pytest.approx((1 + 4 / 5) / 2)
    assert found["random_hit@9"] == 1


def test_chance_is_the_fraction_of_draws_that_hit():
    for size, count, k in itertools.product(range(1, 7), range(1, 4), range(1, 5)):
        if count > size:
            continue
        picks = list(itertools.combinations([True] * count + [False] * (size - count), min(k, size)))
        expected = sum(any(pick) for pick in picks) / len(picks)
        found = from_ranks([query(*range(1, count + 1))], ks=(k,), corpus_sizes=[size])
        assert found[f"random_hit@{k}"] == pytest.approx(expected), (size, count, k)


def test_chance_of_a_large_corpus_does_not_overflow():
    assert from_ranks([query(1)], ks=(1000,), corpus_sizes=[30_000])["random_hit@1000"] == pytest.approx(1 / 30)


def test_from_ranks_has_these_keys():
    found = from_ranks([query(1), query(1), query(1), query()], ks=(1, 2), corpus_sizes=[2, 3, 5, 99])
    counts = {"queries": 3, "num_candidates": 3, "random_hit@1": pytest.approx(31 / 90), "random_hit@2": pytest.approx(31 / 45)}
    assert found == dict.fromkeys("hit@1 hit@2 recall@1 recall@2 map@1 map@2 map@r mrr ndcg@5 ndcg@10".split(), 1) | counts


def test_values_by_query_are_what_is_averaged():
    queries = [query(1, 3), query(), query(7, NEVER, gains=(2, 1))]
    values = values_by_query(queries, ks=(1, 5))
    assert values["hit@1"].tolist() == [1, 0] and values["recall@5"].tolist() == [1, 0] and values["mrr"].tolist() == [1, 1 / 7]
    found = from_ranks(queries, ks=(1, 5))
    assert all(found[name] == pytest.approx(each.mean(), abs=1e-15) for name, each in values.items())


def test_inputs_are_not_changed():
    one = query(3, 1, gains=(1, 2))
    one.ranks_R.flags.writeable = one.gains_R.flags.writeable = False
    from_ranks([one])
    assert one.ranks_R.tolist() == [3, 1] and one.gains_R.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("queries", "ks", "message"),
    [
        ([query(1)], (1, -3), "k must be at least 1, not -3"),
        ([query(1)], (), "ks is empty"),
        ([query()], (1,), "No query has a relevant candidate"),
        ([], (1,), "No query has a relevant candidate"),
    ],
)
def test_mistakes_are_named(queries, ks, message):
    with pytest.raises(ValueError, match=message):
        from_ranks(queries, ks)
