"""Exact search: every stored vector is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slq.errors import FingerprintMismatchError, InputError
from slq.types import Embeddings


@dataclass(frozen=True)
class Hit:
    """One result: its id, cosine similarity, and what to show for it."""

    id: str
    score: float
    item: Mapping[str, str]


def search(corpus: Embeddings, queries: Embeddings, k: int = 10) -> list[list[Hit]]:
    """The k most similar corpus items for each query, best first; equal scores in order of the corpus.

    Raises FingerprintMismatchError if the two were made by different encoders, InputError for k < 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}.")
    if corpus.fingerprint != queries.fingerprint:
        raise FingerprintMismatchError(
            f"These embeddings were made by encoder {corpus.fingerprint}, the query by {queries.fingerprint}: "
            "embed the corpus again with the adapter you search with."
        )
    shown = corpus.items or ({},) * len(corpus.ids)
    results = []
    for scores in queries.vectors @ corpus.vectors.T:
        best = np.argsort(-scores, kind="stable")[:k]
        results.append([Hit(corpus.ids[i], float(scores[i]), shown[i]) for i in best])
    return results
