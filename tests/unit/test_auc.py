"""The area under the ROC curve: worked out by hand, and its interval beside what drawing clusters again gives."""

from __future__ import annotations

import numpy as np
import pytest

from slq.evaluation.auc import auc


@pytest.mark.parametrize(
    ("matches", "others", "area"),
    [
        ([0.9, 0.4], [0.6, 0.1], 3 / 4),
        ([0.9, 0.8], [0.7, 0.6, 0.1], 1.0),
        ([0.1], [0.7, 0.6], 0.0),
        ([0.5, 0.5], [0.5], 0.5),  # equal scores are a coin
        ([0.5, 0.9], [0.5, 0.2], (0.5 + 1 + 1 + 1) / 4),
    ],
)
def test_area_by_hand(matches, others, area):
    scores = np.array([*matches, *others])
    is_match = np.array([True] * len(matches) + [False] * len(others))
    found, bounds = auc(scores, is_match, [str(place) for place in range(len(scores))])
    assert found == pytest.approx(area) and 0 <= bounds.low <= found <= bounds.high <= 1


def test_a_single_cluster_says_nothing_of_how_much_clusters_vary():
    assert auc(np.array([0.9, 0.1]), np.array([True, False]), ["a", "a"]) == (1.0, (0.0, 1.0))


def test_perfect_scores_of_few_clusters_leave_room_below():
    scores, clusters = np.array([0.9, 0.1] * 5), [str(place // 2) for place in range(10)]
    few = auc(scores, np.array([True, False] * 5), clusters)[1]
    many = auc(np.tile(scores, 20), np.array([True, False] * 100), [str(place // 2) for place in range(200)])[1]
    assert few.low < many.low < 1 == many.high == few.high


def test_the_interval_is_as_wide_as_clusters_drawn_again_say():
    rng = np.random.default_rng(0)
    clusters, matches = np.repeat(np.arange(120), 3), np.tile([True, False, False], 120)
    scores = rng.normal(size=360) + matches + np.repeat(rng.normal(size=120), 3)  # of one image all are high, or all are low
    area, bounds = auc(scores, matches, clusters.astype(str).tolist())
    drawn = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(clusters == cluster) for cluster in rng.integers(0, 120, 120)])
        drawn.append(auc(scores[rows], matches[rows], clusters[rows].astype(str).tolist())[0])
    assert (bounds.high - bounds.low) / 2 == pytest.approx(1.98 * np.std(drawn), rel=0.2)
    assert bounds.low < area < bounds.high
