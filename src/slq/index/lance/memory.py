"""All rows of a small table in memory, brought up to date by what is newer in the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slq.errors import StoreCorruptError
from slq.index.filters import Filter, matches
from slq.index.lance.lines import State
from slq.index.lance.rows import READ, ids, to_rows, vectors
from slq.index.lance.table import Table
from slq.index.scoring import search_rows
from slq.index.store import Hit, Row

_NO_VECTOR = np.zeros(0, dtype=np.float32)
_LEAST_SLOTS = 1024


class RowsInMemory:
    """Rows with their vectors in one matrix.

    Args:
        dim: values of a vector.
    """

    def __init__(self, dim: int):
        self._dim = dim
        self._rollbacks = 0
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self._rows: dict[str, tuple[Row, int]] = {}  # with the slot of its vector
        self._vectors = np.zeros((0, self._dim), dtype=np.float32)
        self._used = self._commit = 0  # slots, and the newest commit that is in it

    def refresh(self, table: Table, state: State) -> None:
        """Take in what was written since.

        Args:
            table: at the newest commit.
            state: with the newest commit.
        """
        if state.rollbacks != self._rollbacks or self._used > 2 * max(state.head.rows, _LEAST_SLOTS):
            self.clear()
        if state.head.number == self._commit:
            return
        for batch in table.batches(READ, f"written > {int(self._commit)}"):
            self._take_in(to_rows(batch), vectors(batch))
        if len(self._rows) != state.head.rows:
            there = {id_ for batch in table.batches(["id"]) for id_ in ids(batch)}
            self._rows = {id_: held for id_, held in self._rows.items() if id_ in there}
        if len(self._rows) != state.head.rows:
            self.clear()
            raise StoreCorruptError(f"The table in {table.location} has not the {state.head.rows} rows that were written.")
        self._rollbacks, self._commit = state.rollbacks, state.head.number

    def search(self, queries_QD: np.ndarray, k: int, filter: Filter | None) -> list[list[Hit]]:
        """The k best rows for each query.

        Args:
            queries_QD: (Q, D) float32.
            k: how many results.
            filter: only rows that pass it.
        """
        held = [each for each in self._rows.values() if filter is None or matches(filter, each[0])]
        slots_C = np.fromiter((slot for _, slot in held), dtype=np.int64, count=len(held))
        return search_rows(queries_QD, k, lambda place: held[place][0], slots_C, self._vectors)

    def _take_in(self, rows: list[Row], vectors_BD: np.ndarray) -> None:
        """Put rows at the end, in place of those that have their ids."""
        end = self._used + len(rows)
        if end > len(self._vectors):
            larger = np.empty((max(end, 2 * len(self._vectors), _LEAST_SLOTS), self._dim), dtype=np.float32)
            larger[: self._used] = self._vectors[: self._used]
            self._vectors = larger
        self._vectors[self._used : end] = vectors_BD
        for slot, row in enumerate(rows, start=self._used):
            self._rows.pop(row.id, None)
            self._rows[row.id] = (replace(row, vector=_NO_VECTOR), slot)
        self._used = end
