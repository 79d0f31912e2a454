"""How sure a mean over queries is: bootstrap intervals, and a paired test of two means.

Written in numpy rather than with scipy.stats: that has no interval for a mean of several sets, and is no dependency of ours. One draw of
the queries serves all metrics: nine metrics of 25,010 queries take 0.6 s here and 1.5 s there. The tests compare both with scipy.

Shapes: M metrics, Q queries, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES, FLIPS = 1000, 10_000
LEVEL = 0.95
AT_ONCE = 1 << 22  # numbers drawn at once


def interval(parts_MQ: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """The 95 % percentile bootstrap interval (M, 2) of the mean over parts of each part's mean over queries.

    parts_MQ: values (M, Q) of each part, of which a single set has one. Queries are drawn anew within each part.

    >>> interval([np.array([[1.0, 1.0, 1.0]])])
    array([[1., 1.]])
    """
    means_SM = np.mean([_resampled(values_MQ, np.random.default_rng([seed, i])) for i, values_MQ in enumerate(parts_MQ)], axis=0)
    tail = 50 * (1 - LEVEL)
    return np.percentile(means_SM, [tail, 100 - tail], axis=0).T


def paired_test(differences_MQ: np.ndarray, seed: int = 0) -> np.ndarray:
    """p-values (M,) of mean differences, queries being pairs: how often random signs give a mean as far from 0.

    A permutation test with two sides; p is never below 1 / (FLIPS + 1).

    >>> paired_test(np.zeros((1, 5)))
    array([1.])
    """
    num_queries = differences_MQ.shape[1]
    generator = np.random.default_rng(seed)
    seen_M = np.abs(differences_MQ.sum(axis=1))
    as_far_M = np.zeros(len(seen_M))
    for count in _portions(FLIPS, num_queries):
        signs_SQ = 2.0 * generator.integers(0, 2, (count, num_queries), dtype=np.int8) - 1
        # Sums of the same numbers in another order differ in the last digits and are still as far.
        as_far_M += (np.abs(signs_SQ @ differences_MQ.T) >= seen_M * (1 - 1e-9) - 1e-12).sum(axis=0)
    return (as_far_M + 1) / (FLIPS + 1)


def _resampled(values_MQ: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Means (S, M) of as many queries, drawn with replacement, the same draw for every metric."""
    num_queries = values_MQ.shape[1]
    means = []
    for count in _portions(RESAMPLES, num_queries):
        drawn_SQ = generator.integers(0, num_queries, (count, num_queries)) + num_queries * np.arange(count)[:, None]
        times_SQ = np.bincount(drawn_SQ.ravel(), minlength=count * num_queries).reshape(count, num_queries)
        means.append(times_SQ @ values_MQ.T / num_queries)
    return np.concatenate(means)


def _portions(total: int, width: int) -> list[int]:
    """How many resamples are drawn at a time."""
    most = max(1, AT_ONCE // width)
    return [min(most, total - begin) for begin in range(0, total, most)]
