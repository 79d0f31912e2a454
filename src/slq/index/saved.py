"""What `slq embed` wrote, as rows that can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slq.errors import InputError
from slq.index.export import load_embeddings, search
from slq.index.filters import Filter
from slq.index.store import Hit, Row, StoreMetadata
from slq.types import Embeddings


class SavedRows:
    """Saved embeddings, all of them in memory; see `slq.index.searching.Searchable`.

    Attributes:
        place: the folder.
        model: what encoded them, if the folder says so.
        metadata: what its vectors are.
        judge_file: None, since it is no collection.
    """

    judge_file = None

    def __init__(self, folder: Path):
        """Read them.

        Args:
            folder: that `slq embed` wrote.

        Raises:
            DataError: if it is none, or damaged.
        """
        self._embeddings, about = load_embeddings(folder)
        self.place, self.model = str(folder), about.get("adapter")
        fingerprint, dim = self._embeddings.fingerprint, self._embeddings.vectors.shape[1]
        self.metadata = StoreMetadata(self.model or "a model that it does not name", fingerprint, dim)
        self._places = {id_: place for place, id_ in enumerate(self._embeddings.ids)}

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there; see `Store.get`."""
        embeddings, rows = self._embeddings, []
        for place in (self._places[id_] for id_ in ids if id_ in self._places):
            item = embeddings.items[place] if embeddings.items else {}
            about = item.get("text"), item.get("image"), item.get("metadata", {}), item.get("content_hash", "")
            rows.append(Row(embeddings.ids[place], embeddings.vectors[place], *about))
        return rows

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k best rows for each query; see `Store.search`."""
        queries = Embeddings(tuple(map(str, range(len(vectors_QD)))), vectors_QD, self.metadata.fingerprint)
        return search(self._embeddings, queries, k, filter)

    def by_words(self, text: str, count: int) -> list[str]:
        """Nothing: what `slq embed` wrote has no index of words.

        Args:
            text: whose words are looked for.
            count: how many, at most.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.place} is no collection, and has no index of words: make one with slq index, or leave out --hybrid.")

    def __len__(self) -> int:
        return len(self._embeddings.ids)

    def image_path(self, image: str) -> str:
        """The whole path of an image, which it is already.

        Args:
            image: of a row.
        """
        return image
