"""Embed a retrieval set, rank, score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from slq.data import PairFile, RetrievalSet, from_pairs
from slq.encoders.base import Encoder
from slq.errors import Failure
from slq.evaluation.metrics import RelevantRanks, from_ranks, values_by_query
from slq.evaluation.ranking import rank
from slq.evaluation.statistics import QueryValues, interval
from slq.evaluation.vectors import Vectors, encode_once

SEED = 0  # of the confidence intervals


@dataclass(frozen=True)
class QueryResult:
    """What one query found.

    ranks: the rank of each relevant candidate, best first; inf for one that is never found. gains: how relevant each is. top: the first
    places, as (corpus id, score), equal scores in the order of the corpus. candidates: how many it was ranked among. cluster: what it
    shares with queries that it is not independent of, such as the image it was written for; None where the data says nothing.
    """

    id: str
    ranks: Mapping[str, float]
    gains: Mapping[str, int]
    top: tuple[tuple[str, float], ...]
    candidates: int
    cluster: str | None = None

    @property
    def first_hit(self) -> float:
        """The rank of the best relevant candidate; inf where none is found."""
        return min(self.ranks.values(), default=math.inf)

    @property
    def places(self) -> RelevantRanks:
        return RelevantRanks(np.array([*self.ranks.values()]), np.array([self.gains[id_] for id_ in self.ranks]))


@dataclass(frozen=True)
class Evaluation:
    """Scores of one retrieval set, as fractions, with each query's result.

    categories: each category's queries, where the set names categories. depths: the k of hit@k and recall@k.
    """

    name: str
    metrics: Mapping[str, float]
    queries: tuple[QueryResult, ...]
    failures: tuple[Failure, ...] = ()
    categories: Mapping[str, tuple[QueryResult, ...]] = field(default_factory=dict)
    depths: tuple[int, ...] = (1, 5, 10)

    @property
    def query_ids(self) -> tuple[str, ...]:
        return tuple(query.id for query in self.queries)

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Each averaged metric's value for each query that has a relevant candidate."""
        return values_by_query([query.places for query in self.queries], self.depths)

    @cached_property
    def confidence(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each averaged metric, by cluster bootstrap over the queries."""
        return _confidence(self.values, self.clusters)

    @cached_property
    def clusters(self) -> tuple[str, ...] | None:
        """The cluster of each query that has a relevant candidate; None if they are independent."""
        return clusters_of([query for query in self.queries if query.ranks])

    @cached_property
    def by_category(self) -> dict[str, dict[str, float]]:
        """The metrics of each category's queries."""
        return {category: scores_over(queries, self.depths) for category, queries in self.categories.items()}

    @cached_property
    def confidence_by_category(self) -> dict[str, dict[str, tuple[float, float]]]:
        """As `confidence`, of each category's queries."""
        found = {}
        for category, queries in self.categories.items():
            judged = [query for query in queries if query.ranks]
            found[category] = _confidence(values_by_query([query.places for query in judged], self.depths), clusters_of(judged))
        return found


def evaluate(
    encoder: Encoder,
    sets: Sequence[RetrievalSet],
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda count: None,
    keep: Path | None = None,
    dims: int | None = None,
    top_k: int = 10,
) -> list[Evaluation]:
    """Score retrieval sets one after the other; an item that stands in several is embedded once.

    keep: a folder in which embeddings are kept, so that a run that was stopped, or one over more sets, embeds only what is missing. dims:
    score by so many leading numbers of each vector, at length 1 again (Matryoshka). top_k: how many first places of each query are noted.
    Items that cannot be used are listed in `failures` and stay in: as candidates they are never found, as queries they find nothing.
    """
    vectors = encode_once(encoder, sets, batch_size, progress, keep)
    return [_ranked(one, vectors, dims, top_k) for one in sets]


def scores_over(queries: Sequence[QueryResult], depths: Sequence[int]) -> dict[str, float]:
    """The metrics of these queries."""
    return from_ranks([query.places for query in queries], depths, [query.candidates for query in queries])


def _ranked(one: RetrievalSet, vectors: Vectors, dims: int | None, top_k: int) -> Evaluation:
    results = _results(one, vectors, dims, top_k)
    categories: dict[str, list[QueryResult]] = {}
    for query in results:
        if query.id in one.categories:
            categories.setdefault(one.categories[query.id], []).append(query)
    listed = {**one.queries, **one.corpus}
    failures = tuple(Failure(id_, vectors.faults[id(item)]) for id_, item in listed.items() if id(item) in vectors.faults)
    scored = {
        category: tuple(queries)
        for category, queries in sorted(categories.items())
        if any(query.ranks for query in queries)  # without any relevant candidate there is nothing to score
    }
    return Evaluation(one.name, scores_over(results, one.depths), tuple(results), one.failures + failures, scored, one.depths)


def clusters_of(queries: Sequence[QueryResult]) -> tuple[str, ...] | None:
    """The cluster of each query, one of its own for a query without; None if no query has one."""
    if all(query.cluster is None for query in queries):
        return None
    return tuple(f"query {query.id}" if query.cluster is None else f"cluster {query.cluster}" for query in queries)


def _confidence(values: Mapping[str, np.ndarray], clusters: Sequence[str] | None) -> dict[str, tuple[float, float]]:
    ends = interval([QueryValues(np.stack([*values.values()]), clusters)], SEED)
    return {name: (low, high) for name, (low, high) in zip(values, ends.tolist(), strict=True)}


def _results(one: RetrievalSet, vectors: Vectors, dims: int | None, top_k: int) -> list[QueryResult]:
    corpus_ids = tuple(one.corpus)
    column = {id_: place for place, id_ in enumerate(corpus_ids)}
    answers = {query_id: {id_: gain for id_, gain in one.qrels.get(query_id, {}).items() if gain > 0} for query_id in one.queries}

    def columns(ids: Mapping[str, Sequence[str] | frozenset[str]]) -> dict[int, list[int]]:
        rows = {query_id: row for row, query_id in enumerate(one.queries)}
        return {rows[query_id]: [column[id_] for id_ in some if id_ in column] for query_id, some in ids.items() if query_id in rows}

    rankings = rank(
        vectors.of(one.queries.values()),
        vectors.of(one.corpus.values() or [None]),
        [{column[id_]: gain for id_, gain in judged.items() if id_ in column} for judged in answers.values()],
        masked=columns(one.masked),
        candidates=columns(one.candidates),
        top=top_k,
        dims=dims,
    )
    # An answer whose row failed is no longer in the corpus; it counts as never found rather than as never asked for.
    lost = {id_ for judged in one.qrels.values() for id_ in judged if id_ not in column}
    results = []
    for (query_id, judged), ranking in zip(answers.items(), rankings, strict=True):
        found = dict(zip([id_ for id_ in judged if id_ in column], ranking.ranks_R.tolist(), strict=True))
        ranks = sorted(((id_, found.get(id_, math.inf)) for id_ in judged), key=lambda each: each[1])
        top = tuple((corpus_ids[place], score) for place, score in zip(ranking.top_K.tolist(), ranking.scores_K.tolist(), strict=True))
        own = one.candidates.get(query_id)
        size = len(corpus_ids) + len(lost) if own is None else len(judged.keys() | set(own))
        results.append(QueryResult(query_id, dict(ranks), judged, top, size, one.clusters.get(query_id)))
    return results


def bidirectional_sets(pairs: PairFile) -> list[RetrievalSet]:
    """Pairs of images and captions as two sets: text to image, image to text."""
    return [
        replace(from_pairs(pairs, "text_to_image"), name="text to image"),
        replace(from_pairs(pairs, "image_to_text"), name="image to text"),
    ]
