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
from slq.evaluation.equal_images import clusters_by_image, fold_equal_images
from slq.evaluation.metrics import RelevantRanks, from_ranks, values_by_query
from slq.evaluation.mixed import modality_gap
from slq.evaluation.ranking import Ranking, rank
from slq.evaluation.statistics import Bounds, QueryValues, interval
from slq.evaluation.vectors import Vectors, content_of, encode_once

SEED = 0  # nothing is drawn: scores and their intervals follow from the vectors


@dataclass(frozen=True)
class QueryResult:
    """What one query found.

    Attributes:
        id: the query's.
        ranks: rank of each relevant candidate, best first; inf for one that is never found.
        gains: how relevant each is.
        top_k: the first positions, as (corpus id, score), equal scores in the order of the corpus.
        num_candidates: how many it was ranked among.
        cluster: what it shares with queries that it is not independent of, such as the image it was written for; None where the data
            says nothing.
    """

    id: str
    ranks: Mapping[str, float]
    gains: Mapping[str, int]
    top_k: tuple[tuple[str, float], ...]
    num_candidates: int
    cluster: str | None = None

    @property
    def first_hit(self) -> float:
        """The rank of the best relevant candidate; inf where none is found."""
        return min(self.ranks.values(), default=math.inf)

    @property
    def relevant_ranks(self) -> RelevantRanks:
        """Ranks and gains as the metrics take them."""
        return RelevantRanks(np.array([*self.ranks.values()]), np.array([self.gains[id_] for id_ in self.ranks]))


@dataclass(frozen=True)
class Evaluation:
    """Scores of one retrieval set, with each query's result.

    Attributes:
        name: the set's.
        metrics: fractions and counts, as `from_ranks` gives them.
        queries: the result of each query.
        failures: items that could not be used.
        truncated: how many items there are of whose text only the beginning was read.
        categories: each category's queries, where the set names categories.
        depths: the k of hit@k and recall@k.
        equal_images: how many candidates and queries show the very image of another, byte for byte.
        folded: the scores where equal images are one, if there are any.
        notes: what must be told beside the scores, as the set says.
        modality_gap: the distance of the mean image from the mean text, where the queries are of one kind and the corpus of the other.
    """

    name: str
    metrics: Mapping[str, float]
    queries: tuple[QueryResult, ...]
    failures: tuple[Failure, ...] = ()
    truncated: int = 0
    categories: Mapping[str, tuple[QueryResult, ...]] = field(default_factory=dict)
    depths: tuple[int, ...] = (1, 5, 10)
    equal_images: int = 0
    folded: Evaluation | None = None
    notes: tuple[str, ...] = ()
    modality_gap: float | None = None

    @property
    def query_ids(self) -> tuple[str, ...]:
        """The ids of the queries, in order."""
        return tuple(query.id for query in self.queries)

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Each averaged metric's value for each query that has a relevant candidate."""
        return values_by_query([query.relevant_ranks for query in self.queries], self.depths)

    @cached_property
    def clusters(self) -> tuple[str, ...] | None:
        """The cluster of each query that has a relevant candidate; None if they are independent."""
        return _clusters_of(self.queries)

    @cached_property
    def ci95(self) -> dict[str, Bounds]:
        """The 95 % interval of each averaged metric, by the clusters of the queries."""
        return _intervals(self.values, self.clusters)

    @cached_property
    def by_category(self) -> dict[str, dict[str, float]]:
        """The metrics of each category's queries."""
        return {category: scores_over(queries, self.depths) for category, queries in self.categories.items()}

    @cached_property
    def ci95_by_category(self) -> dict[str, dict[str, Bounds]]:
        """As `ci95`, of each category's queries."""
        values = {
            category: values_by_query([query.relevant_ranks for query in queries], self.depths)
            for category, queries in self.categories.items()
        }
        return {category: _intervals(values[category], _clusters_of(queries)) for category, queries in self.categories.items()}


def evaluate(
    encoder: Encoder,
    sets: Sequence[RetrievalSet],
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda count: None,
    cache_dir: Path | None = None,
    truncate_dim: int | None = None,
    top_k: int = 10,
    workers: int | None = None,
) -> list[Evaluation]:
    """Score retrieval sets one after the other; equal items are embedded once.

    Args:
        encoder: gives the vectors.
        sets: what is scored.
        batch_size: images embedded at once; of texts, as many as have the tokens of so many images.
        progress: called with the number of items just done, of all that the sets hold.
        cache_dir: folder in which embeddings are cached: a run that was stopped, or one over more sets, embeds only what is missing.
        truncate_dim: score by so many leading dimensions of each vector, at length 1 again (Matryoshka).
        top_k: how many first positions of each query are noted.
        workers: see `Encoder.encode`.

    Returns:
        One Evaluation a set. Items that cannot be used are listed in `failures` and stay in: as candidates they are never found, as queries
        they find nothing.

    Raises:
        InputError: if a set has no query with a relevant candidate, or truncate_dim does not fit.
    """
    vectors = encode_once(encoder, sets, batch_size, progress, cache_dir, workers)
    return [_evaluation(one, vectors, truncate_dim, top_k) for one in sets]


def first_positions(
    encoder: Encoder,
    sets: Sequence[RetrievalSet],
    top_k: int,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda count: None,
    cache_dir: Path | None = None,
    workers: int | None = None,
) -> dict[str, dict[str, list[str]]]:
    """Rank sets whose judgements are hidden, such as the test split of CIRR.

    Args:
        encoder: gives the vectors.
        sets: what is ranked.
        top_k: how many first positions of each query.
        batch_size: images embedded at once.
        progress: called with the number of items just done, of all that the sets hold.
        cache_dir: folder in which embeddings are cached.
        workers: see `Encoder.encode`.

    Returns:
        Set -> query id -> corpus ids, best first.
    """
    vectors = encode_once(encoder, sets, batch_size, progress, cache_dir, workers)
    found = {}
    for one in sets:
        corpus_ids = tuple(one.corpus)
        column = {id_: position for position, id_ in enumerate(corpus_ids)}
        rankings = _rankings(one, vectors, column, {query_id: {} for query_id in one.queries}, None, top_k)
        found[one.name] = {
            query_id: [corpus_ids[position] for position in ranking.top_K.tolist()]
            for query_id, ranking in zip(one.queries, rankings, strict=True)
        }
    return found


def scores_over(queries: Sequence[QueryResult], depths: Sequence[int]) -> dict[str, float]:
    """The metrics of these queries.

    Args:
        queries: results of an Evaluation, or some of them.
        depths: the k of hit@k and recall@k.

    Returns:
        Fractions and counts, as `from_ranks` gives them.
    """
    return from_ranks([query.relevant_ranks for query in queries], depths, [query.num_candidates for query in queries])


def bidirectional_sets(pairs: PairFile) -> list[RetrievalSet]:
    """Pairs of images and captions as two sets.

    Args:
        pairs: each an image and its captions.

    Returns:
        The sets `text to image` and `image to text`.

    Raises:
        DataError: if a pair is not one image with texts.
    """
    return [
        replace(from_pairs(pairs, "text_to_image"), name="text to image"),
        replace(from_pairs(pairs, "image_to_text"), name="image to text"),
    ]


def _evaluation(one: RetrievalSet, vectors: Vectors, truncate_dim: int | None, top_k: int) -> Evaluation:
    one = replace(one, clusters=clusters_by_image(one))
    results = _results(one, vectors, truncate_dim, top_k)
    categories: dict[str, list[QueryResult]] = {}
    for query in results:
        if query.id in one.categories:
            categories.setdefault(one.categories[query.id], []).append(query)
    listed = {**one.encoded_queries, **one.corpus}
    failures = tuple(Failure(id_, reason) for id_, item in listed.items() if (reason := vectors.failure(item)) is not None)
    scored = {
        category: tuple(queries)
        for category, queries in sorted(categories.items())
        if any(query.ranks for query in queries)  # without any relevant candidate there is nothing to score
    }
    metrics = scores_over(results, one.depths)
    cut = sum(content_of(item) in vectors.truncated for item in (*one.queries.values(), *one.corpus.values()))
    gap = modality_gap(one, vectors, truncate_dim)
    told = Evaluation(one.name, metrics, tuple(results), one.failures + failures, cut, scored, one.depths)
    whole = replace(told, notes=one.notes, modality_gap=gap)
    if (found := fold_equal_images(one)) is None:
        return whole
    folded, less = found
    again = _results(folded, vectors, truncate_dim, top_k)
    return replace(whole, equal_images=less, folded=Evaluation(one.name, scores_over(again, one.depths), tuple(again), depths=one.depths))


def _results(one: RetrievalSet, vectors: Vectors, truncate_dim: int | None, top_k: int) -> list[QueryResult]:
    corpus_ids = tuple(one.corpus)
    column = {id_: position for position, id_ in enumerate(corpus_ids)}
    relevant = {query_id: {id_: gain for id_, gain in one.qrels.get(query_id, {}).items() if gain > 0} for query_id in one.queries}
    rankings = _rankings(one, vectors, column, relevant, truncate_dim, top_k)
    # A relevant candidate whose row failed is no longer in the corpus; it counts as never found rather than as never asked for.
    lost = {id_ for judged in one.qrels.values() for id_ in judged if id_ not in column}
    results = []
    for (query_id, judged), ranking in zip(relevant.items(), rankings, strict=True):
        found = dict(zip([id_ for id_ in judged if id_ in column], ranking.ranks_R.tolist(), strict=True))
        ranks = sorted(((id_, found.get(id_, math.inf)) for id_ in judged), key=lambda each: each[1])
        first = zip(ranking.top_K.tolist(), ranking.scores_K.tolist(), strict=True)
        top = tuple((corpus_ids[position], score) for position, score in first)
        own = one.candidates.get(query_id)
        size = len(corpus_ids) + len(lost) if own is None else len(judged.keys() | set(own))
        results.append(QueryResult(query_id, dict(ranks), judged, top, size, one.clusters.get(query_id)))
    return results


def _rankings(
    one: RetrievalSet,
    vectors: Vectors,
    column: Mapping[str, int],
    relevant: Mapping[str, Mapping[str, int]],
    truncate_dim: int | None,
    top_k: int,
) -> list[Ranking]:
    """The set's queries ranked by position in the corpus."""
    row = {query_id: position for position, query_id in enumerate(one.queries)}

    def columns(ids: Mapping[str, Sequence[str] | frozenset[str]]) -> dict[int, list[int]]:
        return {row[query_id]: [column[id_] for id_ in some if id_ in column] for query_id, some in ids.items() if query_id in row}

    return rank(
        vectors.of(one.encoded_queries.values()),
        vectors.of(one.corpus.values() or [None]),
        [{column[id_]: gain for id_, gain in judged.items() if id_ in column} for judged in relevant.values()],
        excluded=columns(one.excluded),
        candidates=columns(one.candidates),
        top_k=top_k,
        truncate_dim=truncate_dim,
    )


def _clusters_of(queries: Sequence[QueryResult]) -> tuple[str, ...] | None:
    """The cluster of each query with a relevant candidate, one of its own for a query without; None if no query has one."""
    judged = [query for query in queries if query.ranks]
    if all(query.cluster is None for query in judged):
        return None
    return tuple(f"query {query.id}" if query.cluster is None else f"cluster {query.cluster}" for query in judged)


def _intervals(values: Mapping[str, np.ndarray], clusters: Sequence[str] | None) -> dict[str, Bounds]:
    bounds = interval([QueryValues(np.stack([*values.values()]), clusters)])
    return {name: Bounds(low, high) for name, (low, high) in zip(values, bounds.tolist(), strict=True)}
