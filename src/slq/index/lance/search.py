"""Searching a table that is too large for memory: by its index, or through all rows as they come from the disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from slq.index.filters import Filter, matches
from slq.index.lance.conditions import condition, or_odd
from slq.index.lance.rows import READ, to_rows, vectors
from slq.index.lance.table import Table
from slq.index.scoring import candidates, search_rows
from slq.index.store import Hit, Row


def search_all(table: Table, queries_QD: np.ndarray, k: int, filter: Filter | None) -> list[list[Hit]]:
    """Compare every row that passes a filter.

    Args:
        table: at one version.
        queries_QD: (Q, D) float32.
        k: how many results.
        filter: only rows that pass it.
    """
    best = [_Best(query_D, k) for query_D in queries_QD]
    where, is_exact = _where(filter)
    for whole in table.batches([*READ, "is_odd"], where):
        batch = whole if filter is None else _passing(whole, filter, is_exact)
        scores_QB = queries_QD @ vectors(batch).T
        for one, scores_B in zip(best, scores_QB, strict=True):
            one.add(batch, scores_B)
    return [one.hits() for one in best]


def search_index(table: Table, queries_QD: np.ndarray, k: int, filter: Filter | None) -> list[list[Hit]]:
    """Compare the rows that the index finds; all of them where it cannot tell which pass the filter, or finds too few.

    Args:
        table: at one version, with an index.
        queries_QD: (Q, D) float32.
        k: how many results.
        filter: only rows that pass it.
    """
    where, is_exact = _where(filter)
    if not is_exact:
        return search_all(table, queries_QD, k, filter)
    results = []
    for query_D in queries_QD:
        found = table.nearest(query_D, k, where)
        rows = [row for row in to_rows(found) if filter is None or matches(filter, row)]
        enough = len(rows) >= min(k, len(table))
        results += [_compare(rows, query_D, k)] if enough else search_all(table, query_D[None], k, filter)
    return results


def _where(filter: Filter | None) -> tuple[str | None, bool]:
    """What LanceDB is told of a filter, and whether rows that are not odd need no second look."""
    if filter is None:
        return None, True
    told = condition(filter)
    return or_odd(told.sql), told.is_exact


class _Best:
    """The rows so far that may be among the k best of one query."""

    def __init__(self, query_D: np.ndarray, k: int):
        self._query_D, self._k = query_D, k
        self._rows: list[Row] = []
        self._scores = np.zeros(0, dtype=np.float32)

    def add(self, batch: Any, scores_B: np.ndarray) -> None:
        """Take in the best of a batch."""
        places = candidates(scores_B, self._k, self._query_D)
        if len(self._scores) >= self._k:  # most of a batch is worse than what is there, and need not become rows
            both = np.concatenate([self._scores, scores_B[places]])
            kept = candidates(both, self._k, self._query_D)
            old, new = kept[kept < len(self._scores)], places[kept[kept >= len(self._scores)] - len(self._scores)]
            self._rows, self._scores = [self._rows[place] for place in old], self._scores[old]
            places = new
        self._rows += to_rows(batch.take(places))
        self._scores = np.concatenate([self._scores, scores_B[places]])

    def hits(self) -> list[Hit]:
        """The k best."""
        return _compare(self._rows, self._query_D, self._k)


def _compare(rows: list[Row], query_D: np.ndarray, k: int) -> list[Hit]:
    """The k best of a few rows."""
    vectors_CD = np.stack([row.vector for row in rows]) if rows else np.zeros((0, len(query_D)), dtype=np.float32)
    return search_rows(query_D[None], k, rows.__getitem__, np.arange(len(rows)), vectors_CD)[0]


def _passing(batch: Any, filter: Filter, is_exact: bool) -> Any:
    """The rows of a batch that pass a filter, of which LanceDB has kept out what it could."""
    looked_at = np.flatnonzero(batch.column("is_odd").to_numpy(zero_copy_only=False)) if is_exact else np.arange(batch.num_rows)
    passes = np.ones(batch.num_rows, dtype=bool)
    passes[looked_at] = [matches(filter, row) for row in to_rows(batch.take(looked_at))]
    return batch.take(np.flatnonzero(passes))
