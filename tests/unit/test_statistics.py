"""Intervals and the paired test: against scipy's where queries are independent, by cluster where they are not, and how often they err."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from research.bench import intervals
from slq.evaluation.statistics import FLIPS, QueryValues, interval, paired_test

MEASURED = Path(__file__).parents[2] / "research" / "results" / "intervals.json"


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


def sign_test(differences: list[float]) -> float:
    return float(paired_test([QueryValues(np.array([differences]))]).p_M[0])


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_a_rate_is_wilsons(seed):
    """But for the quantile, which is t's, and the variance, which is that of a sample."""
    rate = outcomes(seed, 2000).values_MQ[:1]
    theirs = stats.binomtest(int(rate.sum()), 2000).proportion_ci(method="wilson")
    assert interval([QueryValues(rate)])[0] == pytest.approx((theirs.low, theirs.high), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_a_mean_is_near_scipys(seed):
    one = outcomes(seed)
    for (low, high), row in zip(interval([one]), one.values_MQ, strict=True):
        theirs = stats.bootstrap((row,), np.mean, method="BCa", n_resamples=2000, rng=np.random.default_rng(seed)).confidence_interval
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
        assert low < row.mean() < high


def test_rates_of_0_and_of_1_have_an_interval_of_some_width():
    low, high = interval([QueryValues(np.ones((1, 40)))])[0]
    assert 0.88 < low < 0.93 and high == 1
    assert interval([QueryValues(np.zeros((1, 40)))])[0] == pytest.approx((0, 1 - low))
    five_each = interval([QueryValues(np.ones((1, 200)), [f"{number // 5}" for number in range(200)])])[0]
    assert five_each == pytest.approx((low, 1)), "forty images are forty observations"
    assert interval([QueryValues(np.ones((1, 9)), ["one image"] * 9)])[0].tolist() == [0, 1], "one image says nothing of the others"


def test_the_interval_of_differences_is_students():
    differences = np.random.default_rng(0).normal(0.1, 0.4, (2, 60)).clip(-1, 1)
    for (low, high), row in zip(interval([QueryValues(differences)]), differences, strict=True):
        theirs = stats.ttest_1samp(row, 0).confidence_interval()
        assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert interval([QueryValues(differences[:1], ["one image"] * 60)])[0].tolist() == [-np.inf, np.inf]


def test_the_interval_is_the_same_for_each_metric_alone():
    one = outcomes(0)
    assert interval([one])[1:] == pytest.approx(interval([QueryValues(one.values_MQ[1:])]))
    differences = QueryValues(one.values_MQ - 0.6)
    (ps, bounds), (p, own) = paired_test([differences]), paired_test([QueryValues(differences.values_MQ[1:])])
    assert bounds[1:] == pytest.approx(own) and ps[1:] == pytest.approx(p)
    assert not np.array_equal(bounds, paired_test([differences], seed=1).bounds_M2)


def test_interval_of_two_sets_is_narrower_than_of_one():
    sets = [outcomes(1), outcomes(2)]
    both, one = np.ptp(interval(sets), axis=1), np.ptp(interval(sets[:1]), axis=1)
    assert both == pytest.approx(one / np.sqrt(2), rel=0.2)
    differences = [QueryValues(each.values_MQ - 0.6) for each in sets]
    both, one = (np.ptp(paired_test(each).bounds_M2, axis=1) for each in (differences, differences[:1]))
    assert both == pytest.approx(one / np.sqrt(2), rel=0.2)


def test_clusters_of_one_query_change_nothing():
    one = outcomes(3)
    alone = QueryValues(one.values_MQ, [f"{number:03}" for number in range(200)])
    assert np.array_equal(interval([one]), interval([alone]))
    assert np.array_equal(paired_test([one]).p_M, paired_test([alone]).p_M)


def test_copies_of_a_query_make_nothing_surer():
    one = outcomes(4)
    copies = QueryValues(np.repeat(one.values_MQ, 5, axis=1), [f"{number // 5:03}" for number in range(1000)])
    assert interval([copies]) == pytest.approx(interval([one])), "five equal queries of a cluster are worth one"
    theirs, ours = paired_test([QueryValues(copies.values_MQ - 0.6, copies.clusters)]), paired_test([QueryValues(one.values_MQ - 0.6)])
    assert theirs.p_M == pytest.approx(ours.p_M) and theirs.bounds_M2 == pytest.approx(ours.bounds_M2)


def test_order_of_queries_does_not_matter():
    one = clustered_differences(0)
    order = np.random.default_rng(1).permutation(200)
    shuffled = QueryValues(one.values_MQ[:, order], [one.clusters[number] for number in order])
    theirs, ours = paired_test([shuffled]), paired_test([one])
    assert theirs.bounds_M2 == pytest.approx(ours.bounds_M2) and theirs.p_M == pytest.approx(ours.p_M)


def test_sets_of_the_same_clusters_vary_together():
    """Two sets of the very same queries are worth one; of other clusters they are independent."""
    one = clustered_differences(2)
    other = QueryValues(one.values_MQ, [f"other {label}" for label in one.clusters])
    assert paired_test([one, one]).bounds_M2 == pytest.approx(paired_test([one]).bounds_M2)
    assert np.ptp(paired_test([one, other]).bounds_M2) < 0.9 * np.ptp(paired_test([one]).bounds_M2)
    rates = [QueryValues(each.values_MQ / 2 + 0.5, each.clusters) for each in (one, other)]
    assert interval([rates[0], rates[0]]) == pytest.approx(interval(rates[:1]))
    assert np.ptp(interval(rates)) < 0.9 * np.ptp(interval(rates[:1]))


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.06])
def test_p_values_and_bounds_of_independent_queries_are_scipys(shift):
    generator = np.random.default_rng(3)
    differences = generator.normal(shift, 0.3, (2, 150)).clip(-1, 1)

    def mean_of(x, axis):
        return x.mean(axis=axis)

    ps, bounds = paired_test([QueryValues(differences)])
    for (low, high), p, row in zip(bounds, ps, differences, strict=True):
        theirs = stats.permutation_test((row,), mean_of, permutation_type="samples", n_resamples=9999, rng=generator, vectorized=True)
        assert p == pytest.approx(theirs.pvalue, abs=0.02)
        student = stats.ttest_1samp(row, 0).confidence_interval()
        assert (low, high) == pytest.approx((student.low, student.high), abs=0.006)


def test_small_numbers_by_hand():
    """Of five that go one way, one flip in 32 changes nothing and one all: half of the first counts on either side."""
    assert sign_test([1, 1, 1, 1, 1]) == pytest.approx(2 * 0.5 / 32)
    assert sign_test([1, 1, 1, 1, 1, 0, 0]) == pytest.approx(2 * 0.5 / 32), "who is unchanged tells nothing"
    assert sign_test([1, 1, 1, 1, -1]) == pytest.approx(2 * (1 + 0.5 * 5) / 32), "6 of 32 are as far, 5 of them equal"
    assert sign_test([1, -1]) == sign_test([0, 0, 0]) == 1
    assert paired_test([QueryValues(np.ones((1, 5)))]).bounds_M2.tolist() == [[1, 1]]
    for few in (np.ones((1, 1)), np.ones((1, 4))):
        found = paired_test([QueryValues(few)])
        assert found.p_M[0] > 0.05 and found.bounds_M2.tolist() == [[-1, 1]], "so few tell nothing"
    one_image = paired_test([QueryValues(np.ones((1, 50)), ["one image"] * 50)])
    assert one_image.p_M[0] == 0.5 and one_image.bounds_M2.tolist() == [[-1, 1]]
    assert sign_test([1.0] * 50) == pytest.approx(1 / (FLIPS + 1))


def test_sets_that_differ_within_do_not_blur_their_mean():
    """One set gains by as much as the other loses, in every query: the mean is 0, and nothing varies."""
    found = paired_test([QueryValues(np.full((1, 8), 0.5)), QueryValues(np.full((1, 9), -0.5))])
    assert found.bounds_M2.tolist() == [[0, 0]] and found.p_M[0] == 1


@pytest.mark.parametrize("clusters", [3, 5, 8, 12, 20, 60])
@pytest.mark.parametrize("density", [0.1, 0.6])
def test_p_is_below_5_percent_exactly_where_the_interval_leaves_out_0(clusters, density):
    generator = np.random.default_rng(clusters)
    for shift in (-0.3, 0.0, 0.1, 0.3, 0.6):
        moved = generator.random(3 * clusters) < density
        differences = np.where(moved, generator.choice([-1.0, 0.5, 1.0], 3 * clusters) + shift, 0).clip(-1, 1)
        ps, bounds = paired_test([QueryValues(differences[None], [str(number // 3) for number in range(3 * clusters)])])
        assert (ps[0] < 0.05) == (bounds[0, 0] > 0 or bounds[0, 1] < 0), (shift, bounds, ps)


# --- how often they err ------------------------------------------------------------------------------------------------------


def test_what_was_measured_is_within_bounds():
    """In every setting of research/bench/intervals.py, over all its seeds: 3.5 to 6.5 % false positives, 93 to 97 % covered."""
    result = json.loads(MEASURED.read_text(encoding="utf-8"))
    assert result["runs"] == 1000 and result["settings"].keys() == intervals.SETTINGS.keys()
    for name, by_seed in result["settings"].items():
        for metric in intervals.METRICS:
            mean = {what: np.mean([one[what][metric] for one in by_seed.values()]) for what in next(iter(by_seed.values()))}
            assert mean["disagreements"] == 0
            if metric in result["rare"][name]:
                continue
            assert 3.5 <= mean["false_positives"] <= 6.5, (name, metric)
            assert 93 <= mean["covered"] <= 97 and 93 <= mean["difference_covered"] <= 97, (name, metric)


@pytest.mark.slow
def test_simulated_results_err_as_often_as_they_say():
    found = intervals.simulate(intervals.SETTINGS["40 images, 5 captions"], runs=300, seed=7)
    for metric in intervals.METRICS:
        assert found["disagreements"][metric] == 0
        assert 1.5 <= found["false_positives"][metric] <= 8.5, "5 %, give or take three standard errors of 300 runs"
        assert 91 <= found["covered"][metric] <= 99 and 91 <= found["difference_covered"][metric] <= 99


@pytest.mark.slow
def test_captions_taken_as_independent_would_err_far_more_often():
    simulated = [clustered_differences(seed) for seed in range(200)]
    as_independent = [paired_test([QueryValues(one.values_MQ)]).p_M[0] < 0.05 for one in simulated]
    assert np.mean(as_independent) > 0.2, "the fault that clusters mend"
