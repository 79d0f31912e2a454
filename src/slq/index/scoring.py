"""The best of many scores, in an order that does not depend on the processor.

On some processors a product in float32 gives the same vector another score in its last columns, so that equal rows would not be in order.
What may be among the best is therefore scored again in float64, and rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slq.index.store import Hit, Row

_ROUNDING = 1e-5  # of a score of vectors of length 1, far more than float32 rounds away
_BLOCK = 8192  # rows compared at a time


def search_rows(queries_QD: np.ndarray, k: int, rows: Sequence[Row], slots_C: np.ndarray, vectors_SD: np.ndarray) -> list[list[Hit]]:
    """The k rows with the largest inner product for each query, best first, equal ones by id.

    Args:
        queries_QD: (Q, D) float32.
        k: how many results.
        rows: C of them, whose own vectors are not looked at.
        slots_C: where each row's vector is.
        vectors_SD: the vectors, and maybe others.
    """
    scores_QC = np.empty((len(queries_QD), len(rows)), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        scores_QC[:, start : start + _BLOCK] = queries_QD @ _take(vectors_SD, slots_C[start : start + _BLOCK]).T
    return [_best(scores_C, rows, slots_C, k, query_D, vectors_SD) for scores_C, query_D in zip(scores_QC, queries_QD, strict=True)]


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


def _best(scores_C: np.ndarray, rows: Sequence[Row], slots_C: np.ndarray, k: int, query_D: np.ndarray, vectors_SD: np.ndarray) -> list[Hit]:
    """The k best of one query's scores, equal ones by id."""
    places = candidates(scores_C, k, query_D)
    scores = score_again(vectors_SD[slots_C[places]], query_D)
    scored = sorted((-float(score), rows[place].id, place) for score, place in zip(scores, places, strict=True))
    best = [(score, rows[place]) for score, _, place in scored[:k]]
    return [Hit(row.id, -score, row.text, row.image, dict(row.metadata)) for score, row in best]


def _take(vectors_SD: np.ndarray, slots_B: np.ndarray) -> np.ndarray:
    """The vectors in these slots; a view where they stand in a row."""
    first, last = slots_B[0], slots_B[-1]
    if last - first == len(slots_B) - 1 and np.array_equal(slots_B, np.arange(first, last + 1)):
        return vectors_SD[first : last + 1]
    return vectors_SD[slots_B]
