"""How sure a mean over queries is: cluster bootstrap intervals, and a paired permutation test of two means by cluster.

Queries are not always independent: five captions of one image are found or missed together. Taken as independent, they make intervals
too narrow and p-values too small. So whole clusters of queries are resampled, and change their signs, together; where data names no
clusters, every query is one of its own.

Written in numpy rather than with scipy.stats: that has no interval for a mean of several sets, none by cluster, and is no dependency of
ours. One draw serves all metrics. The tests compare both with scipy where every query is a cluster.

Shapes: M metrics, Q queries, K clusters, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

RESAMPLES, PERMUTATIONS = 1000, 10_000
LEVEL = 0.95
_VALUES_AT_ONCE = 1 << 22  # random numbers held at once


class Bounds(NamedTuple):
    """The 95 % interval of a mean."""

    low: float
    high: float


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

    def sums(self, values_MQ: np.ndarray) -> np.ndarray:
        """Sums (K, M) of values (M, Q) over each cluster's queries.

        Args:
            values_MQ: of M metrics and Q queries.
        """
        return np.stack([np.bincount(self.cluster_Q, weights=row_Q, minlength=self.num_clusters) for row_Q in values_MQ], axis=1)


def interval(sets: Sequence[QueryValues], seed: int = 0) -> np.ndarray:
    """The 95 % percentile bootstrap interval of the mean over sets of each set's mean over queries.

    Args:
        sets: what the queries of each set scored, mostly of one. Clusters are resampled within each set; sets of the very same clusters,
            such as both directions of the same image-caption pairs, are resampled together.
        seed: of the resamples.

    Returns:
        Bounds (M, 2), low and high.

    Example:
        >>> interval([QueryValues(np.array([[1.0, 1.0, 1.0]]))])
        array([[1., 1.]])
    """
    means_SM = np.mean([_resampled_means(one, np.random.default_rng([seed, group])) for group, one in _grouped(sets)], axis=0)
    tail = 50 * (1 - LEVEL)
    return np.percentile(means_SM, [tail, 100 - tail], axis=0).T


def paired_test(sets: Sequence[QueryValues], seed: int = 0) -> np.ndarray:
    """How often mean differences at least this far from 0 come about when each cluster's sign is random: a two-sided permutation test.

    Args:
        sets: differences of each query between two results. Sets weigh alike, and so do the queries of one set; the same cluster of sets
            of the very same clusters is permuted as one.
        seed: of the permutations.

    Returns:
        P-values (M,), never below 1 / (PERMUTATIONS + 1).

    Example:
        >>> paired_test([QueryValues(np.zeros((1, 5)))])
        array([1.])
    """
    sums: dict[int, np.ndarray] = {}
    for group, one in _grouped(sets):
        weighted_KM = one.sums(one.values_MQ / (len(sets) * one.values_MQ.shape[1]))
        sums[group] = sums[group] + weighted_KM if group in sums else weighted_KM
    differences_KM = np.concatenate(list(sums.values()))
    generator = np.random.default_rng(seed)
    observed_M = np.abs(differences_KM.sum(axis=0))
    as_far_M = np.zeros(len(observed_M))
    for count in _portions(PERMUTATIONS, len(differences_KM)):
        signs_SK = 2.0 * generator.integers(0, 2, (count, len(differences_KM)), dtype=np.int8) - 1
        # Sums of the same values in another order differ in the last digits and are still as far.
        as_far_M += (np.abs(signs_SK @ differences_KM) >= observed_M * (1 - 1e-9) - 1e-12).sum(axis=0)
    return (as_far_M + 1) / (PERMUTATIONS + 1)


def _grouped(sets: Sequence[QueryValues]) -> Iterator[tuple[int, QueryValues]]:
    """Each set with the number of its group: sets of the very same clusters share one."""
    known: dict[tuple[str, ...], int] = {}
    for position, one in enumerate(sets):
        yield (position if one.labels is None else known.setdefault(one.labels, position)), one


def _resampled_means(one: QueryValues, generator: np.random.Generator) -> np.ndarray:
    """Means (S, M) over the queries of as many clusters, picked with replacement, the same for every metric."""
    num_clusters = one.num_clusters
    sums_KM, sizes_K = one.sums(one.values_MQ), np.bincount(one.cluster_Q, minlength=num_clusters).astype(np.float64)
    means = []
    for count in _portions(RESAMPLES, num_clusters):
        picked_SK = generator.integers(0, num_clusters, (count, num_clusters)) + num_clusters * np.arange(count)[:, None]
        times_SK = np.bincount(picked_SK.ravel(), minlength=count * num_clusters).reshape(count, num_clusters)
        means.append(times_SK @ sums_KM / (times_SK @ sizes_K)[:, None])
    return np.concatenate(means)


def _portions(total: int, width: int) -> list[int]:
    """How many resamples are drawn at a time."""
    most = max(1, _VALUES_AT_ONCE // width)
    return [min(most, total - begin) for begin in range(0, total, most)]
