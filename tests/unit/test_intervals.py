"""Bootstrap intervals and the paired test, beside scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from slq.evaluation.statistics import interval, paired_test


def outcomes(seed: int, queries: int = 200) -> np.ndarray:
    """A rate and a mean of numbers, (2, Q)."""
    generator = np.random.default_rng(seed)
    return np.stack([(generator.random(queries) < 0.7).astype(float), generator.random(queries)])


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_of_scipy(seed):
    values = outcomes(seed)
    for (low, high), row in zip(interval([values]), values, strict=True):
        theirs = stats.bootstrap((row,), np.mean, method="percentile", n_resamples=1000, rng=np.random.default_rng(seed))
        assert (low, high) == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.012)
        assert low < row.mean() < high


def test_an_interval_is_the_same_each_time_and_for_each_metric_alone():
    values = outcomes(0)
    assert np.array_equal(interval([values]), interval([values]))
    assert interval([values])[1:] == pytest.approx(interval([values[1:]]))
    assert not np.array_equal(interval([values]), interval([values], seed=1))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    held = [low <= 0.7 <= high for low, high in (interval([outcomes(seed, 100)[:1]])[0] for seed in range(200))]
    assert 0.9 <= np.mean(held) <= 0.99


def test_the_mean_of_two_sets_is_surer_than_either():
    parts = [outcomes(1), outcomes(2)]
    both, one = np.ptp(interval(parts), axis=1), np.ptp(interval(parts[:1]), axis=1)
    assert both == pytest.approx(one / np.sqrt(2), rel=0.2)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.06])
def test_p_values_are_those_of_scipy(shift):
    generator = np.random.default_rng(3)
    differences = generator.normal(shift, 0.3, (2, 150))

    def mean_of(x, axis):
        return x.mean(axis=axis)

    for p, row in zip(paired_test(differences), differences, strict=True):
        theirs = stats.permutation_test((row,), mean_of, permutation_type="samples", n_resamples=9999, rng=generator, vectorized=True)
        assert p == pytest.approx(theirs.pvalue, abs=0.02)


def test_p_of_nothing_and_of_much():
    assert paired_test(np.zeros((1, 50)))[0] == 1
    assert paired_test(np.ones((1, 50)))[0] == pytest.approx(1 / 10_001)
    assert paired_test(np.array([[1.0, -1.0, 0.0]]))[0] == 1
    assert paired_test(np.array([[1.0]]))[0] == 1, "one query tells nothing"
