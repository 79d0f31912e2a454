"""How sure a mean over queries is: intervals of a mean, and a test with its interval of the difference of two means, both by cluster.

Queries are not always independent: five captions of one image are found or missed together. Taken as independent, they make intervals
too narrow and p-values too small. So whole clusters of queries are what varies; where data names none, every query is one of its own.

A mean of fractions near 0 or 1 varies less than one near 1/2, and not the same way up and down. Its interval is therefore Wilson's, for as
many observations as have the variance that was seen between clusters; a bootstrap's percentiles cover too seldom there. Differences have no
such bounds: their clusters change signs at random, which is exact where two models are equally good, and the interval holds the differences
that this test does not reject, so that interval and p-value agree. research/bench/intervals.py measures how often each errs.

Shapes: M metrics, Q queries, K clusters, S sign flips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

FLIPS = 10_000
LEVEL = 0.95
_VALUES_AT_ONCE = 1 << 22  # signs held at once


class Bounds(NamedTuple):
    """The 95 % interval of a mean."""

    low: float
    high: float


class Paired(NamedTuple):
    """Mean differences between two results.

    Attributes:
        p_M: two-sided p-values; below 0.05 where the interval leaves 0 out, and nowhere else.
        bounds_M2: low and high of each 95 % interval.
    """

    p_M: np.ndarray
    bounds_M2: np.ndarray


@dataclass(frozen=True)
class QueryValues:
    """What the queries of one set scored.

    Attributes:
        values_MQ: (M, Q), one row for each metric.
        clusters: label of each query's cluster, such as the image that it was written for; None if the queries are independent.
    """

    values_MQ: np.ndarray
    clusters: Sequence[str] | None = None

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """Every cluster once, in order; None if the queries are independent."""
        return None if self.clusters is None else tuple(sorted(set(self.clusters)))

    @cached_property
    def cluster_Q(self) -> np.ndarray:
        """Number of each query's cluster."""
        if self.clusters is None or self.labels is None:
            return np.arange(self.values_MQ.shape[1])
        number = {label: position for position, label in enumerate(self.labels)}
        return np.array([number[label] for label in self.clusters], dtype=np.int64)

    @property
    def num_clusters(self) -> int:
        """How many clusters the queries fall into."""
        return self.values_MQ.shape[1] if self.labels is None else len(self.labels)

    @cached_property
    def sizes_K(self) -> np.ndarray:
        """How many queries each cluster has."""
        return np.bincount(self.cluster_Q, minlength=self.num_clusters)

    def residuals(self) -> np.ndarray:
        """Sums (K, M) over each cluster's queries of what they are above the mean of all."""
        above_MQ = self.values_MQ - self.values_MQ.mean(axis=1, keepdims=True)
        return np.stack([np.bincount(self.cluster_Q, weights=row_Q, minlength=self.num_clusters) for row_Q in above_MQ], axis=1)


def interval(sets: Sequence[QueryValues]) -> np.ndarray:
    """The 95 % interval of the mean over sets of each set's mean over queries: Wilson's, for the variance between clusters.

    Args:
        sets: what the queries of each set scored, mostly of one set. Sets of the very same clusters, such as both directions of the same
            image-caption pairs, vary together; others do not. Of values that are no fractions, such as differences, the interval is
            Student's.

    Returns:
        Bounds (M, 2), low and high; of a single cluster, which says nothing of how much clusters vary, 0 and 1 (or no bounds at all).

    Example:
        >>> interval([QueryValues(np.array([[1.0, 1.0, 0.0, 1.0]]))]).round(2)
        array([[0.13, 0.98]])

    Source: Wilson 1927, with the effective number of observations of clustered data as in Korn and Graubard 1998, and quantiles of t.
    """
    mean_M = np.mean([one.values_MQ.mean(axis=1) for one in sets], axis=0)
    are_fractions = all(one.values_MQ.min() >= 0 and one.values_MQ.max() <= 1 for one in sets)
    parts = list(_by_group(sets))
    if min(len(weights_K) for _, weights_K in parts) < 2:
        return np.tile([0.0, 1.0] if are_fractions else [-np.inf, np.inf], (len(mean_M), 1))
    degrees = np.array([len(weights_K) - 1 for _, weights_K in parts])
    variances_GM = np.array([(residuals_KM**2).sum(axis=0) * (1 + 1 / (len(residuals_KM) - 1)) for residuals_KM, _ in parts])
    variance_M = variances_GM.sum(axis=0)
    # Of several groups the degrees of freedom are Satterthwaite's.
    squares_M = (variances_GM**2 / degrees[:, None]).sum(axis=0)
    degrees_M = np.divide(variance_M**2, squares_M, out=np.full(len(mean_M), float(degrees.sum())), where=squares_M > 0)
    quantile_M = stdtrit(degrees_M, (1 + LEVEL) / 2)
    if not are_fractions:
        half_M = quantile_M * np.sqrt(variance_M)
        return np.stack([mean_M - half_M, mean_M + half_M], axis=1)
    return wilson(mean_M, variance_M, quantile_M, every_cluster=1 / sum((weights_K**2).sum() for _, weights_K in parts))


def wilson(mean_M: np.ndarray, variance_M: np.ndarray, quantile_M: np.ndarray, every_cluster: float) -> np.ndarray:
    """Bounds of means of fractions, for as many observations as have the variance.

    Args:
        mean_M: (M,), between 0 and 1.
        variance_M: (M,), of the means.
        quantile_M: (M,), how many standard deviations the bounds are away.
        every_cluster: how many observations there are where all values are 0, or all are 1.

    Returns:
        (M, 2), low and high.
    """
    spread_M = mean_M * (1 - mean_M)
    observations_M = np.full(len(mean_M), every_cluster)
    some = spread_M > 1e-12
    with np.errstate(divide="ignore"):
        observations_M[some] = spread_M[some] / variance_M[some]
    ratio_M = quantile_M**2 / observations_M
    centre_M, half_M = mean_M + ratio_M / 2, np.sqrt(ratio_M * spread_M + ratio_M**2 / 4)
    low_M, high_M = (centre_M - half_M) / (1 + ratio_M), (centre_M + half_M) / (1 + ratio_M)
    return np.stack([np.minimum(low_M, mean_M), np.maximum(high_M, mean_M)], axis=1).clip(0, 1)  # rounding leaves no mean outside


def paired_test(sets: Sequence[QueryValues], seed: int = 0, flips: int = FLIPS) -> Paired:
    """Test whether mean differences are 0, by random signs of clusters, with the intervals that the same test gives.

    A difference is kept in the interval if, taken off every query's, what is left could as well have the opposite sign in every cluster.
    What flips of signs make of a mean then are the means of random subsets of clusters, whose quantiles bound the interval. Flips that
    give exactly the observed mean count half (mid-p), since with few queries that differ the test would hardly ever reject otherwise.

    Args:
        sets: differences of each query between two results, from -1 to 1. Sets weigh alike, and so do the queries of one set; the same
            cluster of sets of the very same clusters flips as one.
        seed: of the flips, where there are too many to try them all.
        flips: how many are tried then.

    Returns:
        Intervals, and p-values never below 1 / (flips + 1).

    Example:
        >>> paired_test([QueryValues(np.zeros((1, 5)))]).p_M
        array([1.])

    Source: Hartigan 1969 (typical values); Fagerland, Lydersen and Laake 2013 (mid-p for pairs).
    """
    parts = list(_by_group(sets))
    residuals_KM = np.concatenate([residuals for residuals, _ in parts])
    weights_K = np.concatenate([weights for _, weights in parts])
    mean_M = np.mean([one.values_MQ.mean(axis=1) for one in sets], axis=0)
    means, empty = [], 0
    for signs_SK in _subsets(len(weights_K), seed, flips):
        weight_S = signs_SK @ weights_K
        some = weight_S > 0
        empty += int(np.count_nonzero(~some))
        means.append(mean_M + (signs_SK[some] @ residuals_KM) / weight_S[some, None])
    # Rounded, since sums of the same values in another order differ in the last digits and are still equal.
    found = [_mid_quantiles(row.round(12), empty) for row in np.concatenate(means).T]
    return Paired(np.array([p for p, _ in found]), np.array([bounds for _, bounds in found]))


def _mid_quantiles(means_S: np.ndarray, empty: int) -> tuple[float, Bounds]:
    """p-value and bounds by the distribution of subset means; flips of no cluster at all lie half below and half above any difference."""
    values, counts = np.unique(means_S, return_counts=True)
    total = len(means_S) + empty
    below = (empty / 2 + np.cumsum(counts) - counts / 2) / total
    least, tail = empty / 2 / total, (1 - LEVEL) / 2
    at_zero = float(np.interp(0.0, values, below, left=least, right=1 - least))
    p = min(1.0, 2 * min(at_zero, 1 - at_zero))
    if least >= tail:  # so few clusters that no difference can be ruled out
        return p, Bounds(-1.0, 1.0)
    low, high = np.interp([tail, 1 - tail], below, values)
    return p, Bounds(float(low), float(high))


def _by_group(sets: Sequence[QueryValues]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of the clusters of each group of sets, their parts of the mean's error (K, M) and their weights in it (K,): all weights sum to 1.

    Sets of the very same clusters are one group.
    """
    groups: dict[tuple[str, ...] | int, list[QueryValues]] = {}
    for position, one in enumerate(sets):
        groups.setdefault(position if one.labels is None else one.labels, []).append(one)
    for group in groups.values():
        share = [1 / (len(sets) * one.values_MQ.shape[1]) for one in group]
        residuals_KM = np.sum([weight * one.residuals() for weight, one in zip(share, group, strict=True)], axis=0)
        yield residuals_KM, np.sum([weight * one.sizes_K for weight, one in zip(share, group, strict=True)], axis=0)


def _subsets(num_clusters: int, seed: int, flips: int) -> Iterator[np.ndarray]:
    """Subsets of clusters as rows of 0 and 1 (S, K): all of them, or so many at random and the empty one."""
    if num_clusters <= np.log2(flips):
        yield ((np.arange(2**num_clusters)[:, None] >> np.arange(num_clusters)) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    yield np.zeros((1, num_clusters))
    at_once = max(1, _VALUES_AT_ONCE // num_clusters)
    for begin in range(0, flips, at_once):
        yield generator.integers(0, 2, (min(at_once, flips - begin), num_clusters), dtype=np.int8).astype(np.float64)
