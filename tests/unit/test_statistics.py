"""Bootstrap intervals and the paired test, beside scipy's where queries are independent, and by cluster where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from slq.evaluation.statistics import QueryValues, interval, paired_test


def outcomes(seed: int, queries: int = 200) -> QueryValues:
    """A rate and a mean, (2, Q), of independent queries."""
    generator = np.random.default_rng(seed)
    return QueryValues(np.stack([(generator.random(queries) < 0.7).astype(float), generator.random(queries)]))


def clustered_differences(seed: int, clusters: int = 40, size: int = 5) -> QueryValues:
    """Differences of two models that are equally good: captions of one image mostly go the same way."""
    generator = np.random.default_rng(seed)
    of_image = np.repeat(generator.choice([-1.0, 0.0, 1.0], clusters, p=[0.3, 0.4, 0.3]), size)
    follows = generator.random(clusters * size) < 0.9
    own = generator.choice([-1.0, 0.0, 1.0], clusters * size, p=[0.3, 0.4, 0.3])
    labels = [f"image {number // size}" for number in range(clusters * size)]
    return QueryValues(np.where(follows, of_image, own)[None], labels)


@pytest.mark.parametrize("seed", range(3))
def test_interval_of_independent_queries_equals_scipys(seed):
    one = outcomes(seed)
    for (low, high), row in zip(interval([one]), one.values_MQ, strict=True):
        theirs = stats.bootstrap((row,), np.mean, method="percentile", n_resamples=1000, rng=np.random.default_rng(seed))
        assert (low, high) == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.012)
        assert low < row.mean() < high


def test_interval_repeats_and_is_the_same_for_each_metric_alone():
    one = outcomes(0)
    assert np.array_equal(interval([one]), interval([one]))
    assert interval([one])[1:] == pytest.approx(interval([QueryValues(one.values_MQ[1:])]))
    assert not np.array_equal(interval([one]), interval([one], seed=1))


def test_interval_holds_the_truth_about_as_often_as_it_says():
    rates = [QueryValues(outcomes(seed, 100).values_MQ[:1]) for seed in range(200)]
    held = [low <= 0.7 <= high for low, high in (interval([one])[0] for one in rates)]
    assert 0.9 <= np.mean(held) <= 0.99


def test_interval_of_two_sets_is_narrower_than_of_one():
    sets = [outcomes(1), outcomes(2)]
    both, one = np.ptp(interval(sets), axis=1), np.ptp(interval(sets[:1]), axis=1)
    assert both == pytest.approx(one / np.sqrt(2), rel=0.2)


def test_clusters_of_one_query_change_nothing():
    one = outcomes(3)
    alone = QueryValues(one.values_MQ, [f"{number:03}" for number in range(200)])
    assert np.array_equal(interval([one]), interval([alone])) and np.array_equal(paired_test([one]), paired_test([alone]))


def test_copies_of_a_query_make_nothing_surer():
    one = outcomes(4)
    copies = QueryValues(np.repeat(one.values_MQ, 5, axis=1), [f"{number // 5:03}" for number in range(1000)])
    assert interval([copies]) == pytest.approx(interval([one])), "five equal queries of a cluster are worth one"
    centred = QueryValues(copies.values_MQ - 0.6, copies.clusters)
    assert paired_test([centred]) == pytest.approx(paired_test([QueryValues(one.values_MQ - 0.6)]))


def test_order_of_queries_does_not_matter():
    one = clustered_differences(0)
    order = np.random.default_rng(1).permutation(200)
    shuffled = QueryValues(one.values_MQ[:, order], [one.clusters[number] for number in order])
    assert interval([shuffled]) == pytest.approx(interval([one])) and np.array_equal(paired_test([shuffled]), paired_test([one]))


def test_sets_of_the_same_clusters_are_resampled_together():
    """Two sets of the very same queries are worth one; of other clusters they are independent."""
    one = clustered_differences(2)
    other = QueryValues(one.values_MQ, [f"other {label}" for label in one.clusters])
    assert interval([one, one]) == pytest.approx(interval([one])) and np.array_equal(paired_test([one, one]), paired_test([one]))
    assert np.ptp(interval([one, other])) < 0.9 * np.ptp(interval([one]))


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.06])
def test_p_values_of_independent_queries_equal_scipys(shift):
    generator = np.random.default_rng(3)
    differences = generator.normal(shift, 0.3, (2, 150))

    def mean_of(x, axis):
        return x.mean(axis=axis)

    for p, row in zip(paired_test([QueryValues(differences)]), differences, strict=True):
        theirs = stats.permutation_test((row,), mean_of, permutation_type="samples", n_resamples=9999, rng=generator, vectorized=True)
        assert p == pytest.approx(theirs.pvalue, abs=0.02)


def test_p_of_nothing_and_of_much():
    assert paired_test([QueryValues(np.zeros((1, 50)))])[0] == 1
    assert paired_test([QueryValues(np.ones((1, 50)))])[0] == pytest.approx(1 / 10_001)
    assert paired_test([QueryValues(np.array([[1.0, -1.0, 0.0]]))])[0] == 1
    assert paired_test([QueryValues(np.array([[1.0]]))])[0] == 1, "one query tells nothing"
    assert paired_test([QueryValues(np.ones((1, 50)), ["one image"] * 50)])[0] == 1, "one cluster tells nothing"


@pytest.mark.slow
def test_captions_of_one_image_seldom_make_equal_models_differ():
    """Under the null at most 7 % of 400 comparisons fall below 0.05; taken as independent, captions make far more of them."""
    simulated = [clustered_differences(seed) for seed in range(400)]
    by_cluster = [paired_test([one])[0] < 0.05 for one in simulated]
    as_independent = [paired_test([QueryValues(one.values_MQ)])[0] < 0.05 for one in simulated]
    held = [low <= 0 <= high for low, high in (interval([one])[0] for one in simulated)]
    assert np.mean(by_cluster) <= 0.07 and np.mean(held) >= 0.92
    assert np.mean(as_independent) > 0.2, "the fault that clusters mend"
