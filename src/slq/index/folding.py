"""Equal rows as one hit, and nearly equal ones where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slq.index.store import Hit

if TYPE_CHECKING:
    from slq.index.searching import Query, Searchable

_MORE = 16  # rows beyond those asked for that are looked at first, since equal ones become one hit


@dataclass
class Group:
    """Rows that are one hit: the best of them, and how many more there are that are equal to it, or nearly so."""

    hit: Hit
    duplicates: int
    similar: int = 0


class Folding:
    """The best rows in groups of equal ones, without those that the query is of.

    Args:
        rows: that are searched.
        query: what is looked for.
        own: contents of its images, and of rows that it names; they are left out.
        own_ids: of the rows that it names, likewise.

    Attributes:
        groups: best first.
        left_out: ids of rows that the query is of.
    """

    def __init__(self, rows: Searchable, query: Query, own: set[str], own_ids: set[str]):
        self._rows, self._query, self._own, self._own_ids = rows, query, own, own_ids
        self._contents: dict[str, str] = {}
        self._vectors: dict[str, np.ndarray] = {}  # where near rows are one hit
        self.groups: list[Group] = []
        self.left_out: list[str] = []

    def search(self, vector_D: np.ndarray) -> Folding:
        """Look at more and more rows, until one group more than asked for is there: equal rows have equal scores, so those are whole.

        Args:
            vector_D: of the query, of length 1.
        """
        number, query = self._query.top_k + _MORE, self._query
        while True:
            [found] = self._rows.search(vector_D[None], number, filter=query.filter, exact=query.exact)
            self._group(found)
            if len(self.groups) > query.top_k or len(found) < number:
                return self
            number *= 4

    def _group(self, found: Sequence[Hit]) -> None:
        near = self._query.fold_above
        if self._query.fold or self._own or near is not None:
            new = self._rows.get([hit.id for hit in found if hit.id not in self._contents])
            self._contents |= {row.id: row.content_hash for row in new}
            self._vectors |= {} if near is None else {row.id: row.vector for row in new}
        groups: dict[str, list[Hit]] = {}
        self.left_out = []
        for hit in found:
            content = self._contents.get(hit.id, "")
            if content in self._own:
                self.left_out.append(hit.id)
            elif hit.id not in self._own_ids:
                groups.setdefault(content if self._query.fold and content else f"id {hit.id}", []).append(hit)
        self.left_out = [id_ for id_ in self.left_out if id_ not in self._own_ids]
        self.groups = [Group(group[0], len(group) - 1) for group in groups.values()]
        if near is not None:
            self.groups = self._with_similar(near)

    def _with_similar(self, near: float) -> list[Group]:
        """Each group joins the best one that it is near to."""
        leaders: list[Group] = []
        vectors_LD = np.zeros((len(self.groups), self._rows.metadata.dim), np.float32)
        for group in self.groups:
            vector_D = self._vectors.get(group.hit.id, np.zeros(self._rows.metadata.dim, np.float32))
            close = np.flatnonzero(vectors_LD[: len(leaders)] @ vector_D >= near)
            if len(close):
                leaders[close[0]].similar += 1 + group.duplicates
            else:
                vectors_LD[len(leaders)] = vector_D
                leaders.append(group)
        return leaders
