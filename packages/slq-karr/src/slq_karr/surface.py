"""What words alone find: a baseline that a query must beat, and queries that are nearly the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import vstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.pipeline import make_union

NEARLY_THE_SAME = 0.85  # cosine of two queries' pieces of three to five characters


class Surface:
    """TF-IDF over the captions of a gallery: words and pairs of them, and pieces of three to five characters."""

    def __init__(self, captions: Sequence[Sequence[str]]):
        self.count = len(captions)
        texts = [text for own in captions for text in own]
        self._image = np.repeat(np.arange(self.count), [len(own) for own in captions])  # of each text
        self._first = np.cumsum([0, *[len(own) for own in captions]])[:-1]
        self._vectors = make_union(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
        )
        self._captions = self._vectors.fit_transform(texts)

    def scores(self, text: str) -> np.ndarray:
        """How alike a text and each image's most similar caption are, (C,), from 0 to 2."""
        return self._best_of(self._captions @ self._vectors.transform([text]).T)

    def finds(self, query: str, own: int) -> bool:
        """Whether the words of a query alone single out the caption of its own image: alone in the first place."""
        scores = self.scores(query)
        return bool(scores[own] > 0 and (scores[own] > np.delete(scores, own)).all())

    def similarities(self, own: int) -> np.ndarray:
        """Similarity of each image's captions to an image's first one, (C,)."""
        return self._best_of(self._captions @ self._captions[[self._first[own]]].T)

    def _best_of(self, similar: Any) -> np.ndarray:
        """Of similarities to every caption, (texts, 1) sparse, the highest of each image's."""
        best = np.zeros(self.count)
        np.maximum.at(best, self._image, similar.toarray().ravel())
        return best


class Queries:
    """Queries so far, to find those that come again in nearly the same words."""

    def __init__(self) -> None:
        self._pieces = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**18, alternate_sign=False)
        self._ids: list[str] = []
        self._rows: Any = None  # (queries, pieces), sparse, of length 1

    def like(self, query: str) -> str | None:
        """The id of the earlier query that is most alike, if one is nearly the same."""
        if not self._ids:
            return None
        alike = (self._rows @ self._row(query).T).toarray().ravel()
        best = int(alike.argmax())
        return self._ids[best] if alike[best] >= NEARLY_THE_SAME else None

    def add(self, id_: str, query: str) -> None:
        """Take in a query that passed."""
        row = self._row(query)
        self._rows = row if self._rows is None else vstack([self._rows, row], format="csr")
        self._ids.append(id_)

    def _row(self, query: str) -> Any:
        return self._pieces.transform([" ".join(re.findall(r"\w+", query.lower()))])


def mentions(names: Sequence[str]) -> re.Pattern[str]:
    """Finds any of these names in a text, in the singular or with a plural ending.

    >>> bool(mentions(["cat", "box"]).search("two boxes")), bool(mentions(["cat"]).search("a catalogue"))
    (True, False)
    """
    return re.compile(r"\b(" + "|".join(re.escape(name) for name in names) + r")(s|es)?\b", re.IGNORECASE)
