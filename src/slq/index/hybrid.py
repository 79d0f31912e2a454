"""Rows found by their vectors and by their words, in one ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slq.index.filters import Filter, matches
from slq.index.store import Hit, Row, StoreMetadata

if TYPE_CHECKING:
    from slq.index.searching import Searchable

K = 60  # of reciprocal rank fusion, as published
_MORE = 4  # times as many rows are looked at, where a filter leaves too few


class HybridRows:
    """Rows of a collection, ranked by the sum of 1 / (60 + rank) over both rankings. See `slq.index.searching.Searchable`.

    A hit's score is still the cosine of its vector, so that scores need not fall from one hit to the next.

    Attributes:
        place: how messages call it.

    Source: Cormack, Clarke and Buettcher 2009.
    """

    def __init__(self, rows: Searchable, by_words: Callable[[int], Sequence[str]]):
        """Search nothing yet.

        Args:
            rows: of a collection.
            by_words: gives so many ids of rows at most that have words of the query, best first.
        """
        self._rows, self._by_words, self.place = rows, by_words, rows.place

    @property
    def judge_file(self) -> Path | None:
        """What is known of judging its hits."""
        return self._rows.judge_file

    @property
    def metadata(self) -> StoreMetadata:
        """What its vectors are."""
        return self._rows.metadata

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there; see `Store.get`."""
        return self._rows.get(ids)

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k best rows for each query, by both rankings; see `Store.search`."""
        near = self._rows.search(vectors_QD, k, filter=filter, exact=exact)
        worded = self._worded(k, filter)
        return [self._fused(hits, worded, vector_D)[:k] for hits, vector_D in zip(near, vectors_QD, strict=True)]

    def by_words(self, text: str, count: int) -> list[str]:
        """The ids of the rows that have words of a text, best first; see `slq.index.words.find`."""
        return self._rows.by_words(text, count)

    def __len__(self) -> int:
        return len(self._rows)

    def image_path(self, image: str) -> str:
        """The whole path of an image, as a row names it.

        Args:
            image: of a row.
        """
        return self._rows.image_path(image)

    def _worded(self, k: int, filter: Filter | None) -> list[Row]:
        """The k best rows by their words that pass a filter."""
        number = k
        while True:
            ids = self._by_words(number)
            row_of = {row.id: row for row in self._rows.get(ids)}
            found = [row_of[id_] for id_ in ids if id_ in row_of and (filter is None or matches(filter, row_of[id_]))]
            if len(found) >= k or len(ids) < number:
                return found[:k]
            number *= _MORE

    def _fused(self, near: Sequence[Hit], worded: Sequence[Row], vector_D: np.ndarray) -> list[Hit]:
        hits = {row.id: Hit(row.id, float(row.vector @ vector_D), row.text, row.image, row.metadata) for row in worded}
        hits |= {hit.id: hit for hit in near}
        fused = dict.fromkeys(hits, 0.0)
        for ranking in ([hit.id for hit in near], [row.id for row in worded]):
            for rank, id_ in enumerate(ranking, start=1):
                fused[id_] += 1 / (K + rank)
        return sorted(hits.values(), key=lambda hit: (-fused[hit.id], -hit.score, hit.id))
