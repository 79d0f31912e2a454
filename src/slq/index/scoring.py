"""The best of many scores, in an order that does not depend on the processor.

On some processors a product in float32 gives the same vector another score in its last columns, so that equal rows would not be in order.
What may be among the best is therefore scored again in float64, and rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slq.index.store import Hit, Row

_ROUNDING = 1e-5  # of a score of vectors of length 1, far more than float32 rounds away
_BLOCK = 8192  # rows compared at a time
_MOST_SCORES = 1 << 26  # in memory at a time (256 MB); of more, the queries are taken in parts


def search_rows(
    queries_QD: np.ndarray, k: int, row_of: Callable[[int], Row], slots_C: np.ndarray, vectors_SD: np.ndarray
) -> list[list[Hit]]:
    """The k rows with the largest inner product for each query, best first, equal ones by id.

    Args:
        queries_QD: (Q, D), compared together; of numbers of any type, to which the vectors are not converted.
        k: how many results.
        row_of: the row at a place from 0 to C - 1, asked for those that may be among the best; its own vector is not looked at.
        slots_C: where each row's vector is.
        vectors_SD: the vectors, and maybe others.
    """
    at_once = max(1, _MOST_SCORES // max(1, len(slots_C)))
    results = []
    for first in range(0, len(queries_QD), at_once):
        part_QD = queries_QD[first : first + at_once]
        scores_QC = _scores(part_QD, slots_C, vectors_SD)
        results += [_best(scores_C, k, query_D, row_of, slots_C, vectors_SD) for scores_C, query_D in zip(scores_QC, part_QD, strict=True)]
    return results


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


def _scores(queries_QD: np.ndarray, slots_C: np.ndarray, vectors_SD: np.ndarray) -> np.ndarray:
    """Products (Q, C) in float32."""
    queries_QD = queries_QD.astype(np.result_type(vectors_SD.dtype, np.float32), copy=False)
    scores_QC = np.empty((len(queries_QD), len(slots_C)), dtype=np.float32)
    for start in range(0, len(slots_C), _BLOCK):
        scores_QC[:, start : start + _BLOCK] = queries_QD @ _take(vectors_SD, slots_C[start : start + _BLOCK]).T
    return scores_QC


def _best(
    scores_C: np.ndarray, k: int, query_D: np.ndarray, row_of: Callable[[int], Row], slots_C: np.ndarray, vectors_SD: np.ndarray
) -> list[Hit]:
    """The k best of one query's scores, equal ones by id, and by place where an id is there twice."""
    places = candidates(scores_C, k, query_D)
    scores = _score_again(vectors_SD, slots_C[places], query_D)
    rows = [row_of(place) for place in places.tolist()]
    order = sorted(range(len(rows)), key=lambda place: (-scores[place], rows[place].id))[:k]
    return [Hit(rows[place].id, scores[place], rows[place].text, rows[place].image, dict(rows[place].metadata)) for place in order]


def _score_again(vectors_SD: np.ndarray, slots_B: np.ndarray, query_D: np.ndarray) -> list[float]:
    """Products in float64, rounded to float32; of many candidates a block at a time."""
    query_D = query_D.astype(np.float64)
    blocks = (vectors_SD[slots_B[start : start + _BLOCK]] for start in range(0, len(slots_B), _BLOCK))
    return [score for vectors_BD in blocks for score in (vectors_BD.astype(np.float64) @ query_D).astype(np.float32).tolist()]


def _take(vectors_SD: np.ndarray, slots_B: np.ndarray) -> np.ndarray:
    """The vectors in these slots; a view where they stand in a row."""
    first, last = slots_B[0], slots_B[-1]
    if last - first == len(slots_B) - 1 and np.array_equal(slots_B, np.arange(first, last + 1)):
        return vectors_SD[first : last + 1]
    return vectors_SD[slots_B]
