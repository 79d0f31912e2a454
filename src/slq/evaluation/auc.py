"""How well scores tell matches from what does not match, whatever the threshold: the area under the ROC curve, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from slq.evaluation.statistics import LEVEL, Bounds, wilson


def auc(scores: np.ndarray, matches: np.ndarray, clusters: Sequence[str]) -> tuple[float, Bounds]:
    """The probability that a match scores higher than what does not match, equal scores counted half.

    Scores of one cluster, such as those of one image with several texts, vary together; whole clusters are what the interval is over.

    Args:
        scores: (N,), higher for what is more likely a match.
        matches: (N,) bool; at least one is True and one False.
        clusters: label of each score's cluster.

    Returns:
        The area, and its 95 % interval: Wilson's, for the variance between clusters. Of a single cluster the interval is 0 to 1.

    Example:
        >>> auc(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]), ["a", "b", "a", "b"])[0]
        0.75

    Source: DeLong et al. 1988; of clusters Obuchowski 1997.
    """
    right, wrong = np.sort(scores[matches]), np.sort(scores[~matches])
    # Of each match the fraction of others below it, and of each other the fraction of matches above it; equal ones are half below.
    placed = np.where(matches, _below(wrong, scores), 1 - _below(right, scores))
    area = float(placed[matches].mean())
    weights = np.where(matches, 1 / len(right), 1 / len(wrong))
    _, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(cluster_of.max()) + 1
    if count < 2:
        return area, Bounds(0.0, 1.0)
    residuals = np.bincount(cluster_of, weights=(placed - area) * weights)
    variance = (residuals**2).sum() * count / (count - 1)
    quantile = stdtrit(count - 1, (1 + LEVEL) / 2)
    ((low, high),) = wilson(np.array([area]), np.array([variance]), np.array([quantile]), every_cluster=float(count))
    return area, Bounds(float(low), float(high))


def _below(ordered: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The fraction of the ordered values that lie below each score, equal ones counted half."""
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(ordered))
