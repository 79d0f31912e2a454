"""Ranks of the relevant and the first positions, block by block: memory does not grow with queries times corpus.

Every score comes from a product in float64, rounded to float32 at its end, of blocks of one shape, padded where they are not full: a matrix
product may round the same two vectors differently at its edges, in another shape or on another processor, and then luck would decide
between equal candidates. Ties never help.

Shapes: Q queries, C corpus size, G vectors of one item (late interaction), D dimensions of a vector, V candidates of one query in a block,
R relevant of one query, K first positions.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slq.errors import InputError

BLOCK_BYTES = 256 << 20
ROWS = 256  # queries of a block
STEP = 64  # blocks are multiples of it


class Ranking(NamedTuple):
    """One query's result.

    Attributes:
        ranks_R: rank of each relevant candidate, in the order they were named; no two are equal, but for inf (never found).
        top_K: corpus positions of the first, best first and equal scores in the order of the corpus.
        scores_K: their scores.
    """

    ranks_R: np.ndarray
    top_K: np.ndarray
    scores_K: np.ndarray


def rank(
    queries: np.ndarray,
    corpus: np.ndarray,
    relevant: Sequence[Mapping[int, int]],
    *,
    excluded: Mapping[int, Sequence[int]] | None = None,
    candidates: Mapping[int, Sequence[int]] | None = None,
    top_k: int = 10,
    truncate_dim: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> list[Ranking]:
    """Rank the corpus for every query by inner product; ties never help.

    The rank of a relevant candidate is 1 + the irrelevant ones that score the same or more + the relevant ones placed before it (a higher
    score, or the same and a smaller gain).

    Args:
        queries: (Q, D), or (Q, G, D) to be scored by late interaction: the sum, over a query's vectors, of the best inner product with any
            vector of the candidate. A vector with a NaN is an item that failed: it is never found and finds nothing.
        corpus: (C, D) or (C, G, D), may be a memmap.
        relevant: for each query, corpus position -> gain (above 0).
        excluded: query -> positions that are not ranked for it.
        candidates: query -> the only positions that it is ranked against.
        top_k: number of first positions to return.
        truncate_dim: dimensions of each vector that are used, at length 1 again (Matryoshka); None for all.
        block_bytes: memory of one block of scores.

    Returns:
        One Ranking per query.

    Raises:
        InputError: if the shapes do not fit together.

    Example:
        >>> corpus = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> rank(np.array([[1.0, 0.0]]), corpus, [{1: 1}])[0].ranks_R
        array([2.])
    """
    _check(queries, corpus, relevant, truncate_dim, top_k)
    excluded, candidates = excluded or {}, candidates or {}
    rankings = [_QueryRanking(relevant[row], excluded.get(row), candidates.get(row), top_k) for row in range(len(queries))]
    blocks = _Blocks(queries, corpus, truncate_dim, block_bytes)
    whole = blocks.columns >= len(corpus)  # then one product serves both passes
    for begin, row, scores_C in blocks:
        rankings[row].note(begin, scores_C)
        if whole:
            rankings[row].count(begin, scores_C)
    if not whole:
        for begin, row, scores_C in blocks:
            rankings[row].count(begin, scores_C)
    return [each.ranking() for each in rankings]


class _QueryRanking:
    """One query's ranking, block by block: first the scores of the relevant ones and the first positions, then what is ahead of them."""

    def __init__(self, relevant: Mapping[int, int], excluded: Sequence[int] | None, candidates: Sequence[int] | None, top_k: int):
        self.positions_R = np.fromiter(relevant.keys(), dtype=np.int64, count=len(relevant))
        self.gains_R = np.fromiter(relevant.values(), dtype=np.int64, count=len(relevant))
        self.scores_R = np.full(len(relevant), -np.inf, dtype=np.float32)
        self.reached_R = np.zeros(len(relevant), dtype=np.int64)  # candidates that score the same or more
        self.excluded = None if excluded is None else np.array(sorted(excluded), dtype=np.int64)
        self.candidates = None if candidates is None else np.array(sorted(set(candidates)), dtype=np.int64)
        self.top_k = top_k
        self.top_K = np.zeros(0, dtype=np.int64)
        self.scores_K = np.zeros(0, dtype=np.float32)

    def note(self, begin: int, scores_C: np.ndarray) -> None:
        """Note the relevant candidates' scores, and the best so far."""
        scores_C, positions_C = self._allowed(begin, scores_C)
        here = (self.positions_R >= begin) & (self.positions_R < begin + len(scores_C))
        self.scores_R[here] = scores_C[self.positions_R[here] - begin]
        scores_V = scores_C if positions_C is None else scores_C[positions_C - begin]
        least = self.scores_K[-1] if len(self.top_K) == self.top_k else -np.inf
        better = np.flatnonzero(scores_V > least)
        if len(better) > self.top_k:
            edge = -np.partition(-scores_V[better], self.top_k - 1)[self.top_k - 1]
            above, level = better[scores_V[better] > edge], better[scores_V[better] == edge]
            better = np.concatenate([above, level[: self.top_k - len(above)]])
        if len(better):
            positions = np.concatenate([self.top_K, (better + begin) if positions_C is None else positions_C[better]])
            scores = np.concatenate([self.scores_K, scores_V[better]])
            order = np.lexsort((positions, -scores))[: self.top_k]
            self.top_K, self.scores_K = positions[order], scores[order]

    def count(self, begin: int, scores_C: np.ndarray) -> None:
        """Count the candidates that reach each relevant one's score."""
        found = np.flatnonzero(self.scores_R > -np.inf)
        if not len(found):
            return
        scores_C, positions_C = self._allowed(begin, scores_C)
        scores_V = scores_C if positions_C is None else scores_C[positions_C - begin]
        if len(found) <= 8:
            for position in found:
                self.reached_R[position] += np.count_nonzero(scores_V >= self.scores_R[position])
        else:
            ordered = found[np.argsort(self.scores_R[found])]
            passed = np.searchsorted(self.scores_R[ordered], scores_V, side="right")  # how many of the relevant each candidate reaches
            self.reached_R[ordered] += np.bincount(passed, minlength=len(ordered) + 1)[:0:-1].cumsum()[::-1]

    def _allowed(self, begin: int, scores_C: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The block's scores with -inf for what is not ranked, and the positions of the candidates (None: all of the block)."""
        end = begin + len(scores_C)
        if self.excluded is not None:
            here = slice(np.searchsorted(self.excluded, begin), np.searchsorted(self.excluded, end))
            scores_C[self.excluded[here] - begin] = -np.inf
        if self.candidates is None:
            return scores_C, None
        positions = self.candidates[np.searchsorted(self.candidates, begin) : np.searchsorted(self.candidates, end)]
        only_C = np.full_like(scores_C, -np.inf)
        only_C[positions - begin] = scores_C[positions - begin]
        return only_C, positions

    def ranking(self) -> Ranking:
        ranks_R = np.full(len(self.positions_R), np.inf)
        found = np.flatnonzero(self.scores_R > -np.inf)
        scores, reached = self.scores_R[found], self.reached_R[found]
        # Pessimistic among the relevant too: of equal scores the smaller gain is first.
        order = np.lexsort((self.gains_R[found], -scores))
        relevant_reached = np.searchsorted(np.sort(-scores), -scores, side="right")
        irrelevant_ahead = reached - relevant_reached
        ranks_R[found[order]] = 1 + irrelevant_ahead[order] + np.arange(len(order))
        return Ranking(ranks_R, self.top_K, self.scores_K)


class _Blocks:
    """Scores of one query against one stretch of the corpus after the other: (begin, row, scores_C), -inf for items that failed.

    The corpus is read once for each pass, and a memmap's pages are given back as they are done with.
    """

    def __init__(self, queries: np.ndarray, corpus: np.ndarray, truncate_dim: int | None, block_bytes: int):
        self.queries, self.corpus, self.truncate_dim = queries, corpus, truncate_dim
        own, theirs = (1 if vectors.ndim == 2 else vectors.shape[1] for vectors in (queries, corpus))
        width = theirs * min(truncate_dim or corpus.shape[-1], corpus.shape[-1])
        self.rows = min(ROWS, _padded(len(queries)))
        fit = block_bytes // (8 * (width + self.rows * own * theirs))
        self.columns = min(max(fit // STEP, 1) * STEP, _padded(len(corpus)))

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray]]:
        corpus_CGD = _Padded(self.corpus, self.columns, self.truncate_dim)
        queries_QGD = _Padded(self.queries, self.rows, self.truncate_dim)
        (num_q, g, d), (num_c, h, _) = queries_QGD.shape, corpus_CGD.shape
        products = np.empty((num_q * g, num_c * h))
        for begin in range(0, len(self.corpus), self.columns):
            corpus_block, corpus_failed = corpus_CGD.read(begin)
            filled = min(self.columns, len(self.corpus) - begin)
            for first in range(0, len(self.queries), self.rows):
                block, failed = queries_QGD.read(first)
                np.matmul(block.reshape(-1, d), corpus_block.reshape(-1, d).T, out=products)
                scores_QC = products if g == h == 1 else products.reshape(num_q, g, num_c, h).max(axis=3).sum(axis=1)
                scores_QC[failed], scores_QC[:, corpus_failed] = -np.inf, -np.inf
                for row in range(min(self.rows, len(self.queries) - first)):
                    yield begin, first + row, scores_QC[row, :filled].astype(np.float32)
            _give_back(self.corpus)


class _Padded:
    """Blocks of vectors in one buffer (rows, G, D), zeros behind the last; `truncate_dim` dimensions at length 1, or all as they are."""

    def __init__(self, vectors: np.ndarray, rows: int, truncate_dim: int | None):
        self.vectors_NGD = vectors if vectors.ndim == 3 else vectors[:, None, :]
        self.truncate_dim = truncate_dim
        self.shape = (rows, self.vectors_NGD.shape[1], min(truncate_dim or vectors.shape[-1], vectors.shape[-1]))
        self.buffer = np.empty(self.shape)

    def read(self, begin: int) -> tuple[np.ndarray, np.ndarray]:
        """The block from `begin` on, and which of its items failed (zeros in the block)."""
        block = self.vectors_NGD[begin : begin + self.shape[0], :, : self.shape[2]]
        self.buffer[: len(block)], self.buffer[len(block) :] = block, 0
        failed = ~np.isfinite(self.buffer.sum(axis=(1, 2)))  # a sum is enough to tell, and needs no mask as large as the block
        self.buffer[failed] = 0
        if self.truncate_dim is not None:
            lengths = np.linalg.norm(self.buffer, axis=2, keepdims=True)
            np.divide(self.buffer, lengths, out=self.buffer, where=lengths > 0)
        return self.buffer, failed


def _padded(count: int) -> int:
    return -(-count // STEP) * STEP


def _give_back(vectors: np.ndarray) -> None:
    """Let go of the pages of a memmap: they are read again where they are needed, and do not count as memory in use until then."""
    if not isinstance(vectors, np.memmap) or vectors.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return  # a copy on write would lose what was written to it
    base = vectors.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _check(queries: np.ndarray, corpus: np.ndarray, relevant: Sequence[Mapping[int, int]], truncate_dim: int | None, top_k: int) -> None:
    if queries.ndim not in (2, 3) or queries.ndim != corpus.ndim or queries.shape[-1] != corpus.shape[-1]:
        raise InputError(
            f"Queries and corpus must both be (items, dimensions) or (items, vectors, dimensions), with as many dimensions, not "
            f"{queries.shape} and {corpus.shape}."
        )
    if not queries.size or not corpus.size:
        raise InputError(f"There is nothing to rank: {len(queries)} queries, {len(corpus)} in the corpus; give at least one of each.")
    if len(relevant) != len(queries):
        raise InputError(f"{len(queries)} queries need as many sets of relevant candidates, not {len(relevant)}.")
    if truncate_dim is not None and not 1 <= truncate_dim <= corpus.shape[-1]:
        raise InputError(f"truncate_dim must be 1 to {corpus.shape[-1]}, the dimensions of a vector, not {truncate_dim}.")
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, not {top_k}.")
