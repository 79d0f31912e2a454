"""The best of many scores, in an order that does not depend on the processor.

On some processors a product in float32 gives the same vector another score in its last columns, so that equal rows would not be in order.
What may be among the best is therefore scored again in float64, and rounded.
"""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-5  # of a score of vectors of length 1, far more than float32 rounds away


def candidates(scores_C: np.ndarray, k: int, query_D: np.ndarray) -> np.ndarray:
    """The places that may be among the k best.

    Args:
        scores_C: products in float32.
        k: how many are wanted.
        query_D: what was scored against.

    Returns:
        Places in ascending order, at least k where there are as many.
    """
    if k >= len(scores_C):
        return np.arange(len(scores_C))
    kth = np.partition(scores_C, len(scores_C) - k)[len(scores_C) - k]
    return np.flatnonzero(scores_C >= kth - _ROUNDING * (np.linalg.norm(query_D) + abs(kth)))


def score_again(vectors_BD: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    """Products (B,) in float64, rounded to float32.

    Args:
        vectors_BD: of the candidates.
        query_D: what they are scored against.
    """
    return (vectors_BD.astype(np.float64) @ query_D.astype(np.float64)).astype(np.float32)
