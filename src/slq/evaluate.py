"""Evaluation: embed a retrieval set, rank, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from slq.data import PairFile, RetrievalSet, from_pairs
from slq.embedder import Embedder
from slq.errors import Failure
from slq.metrics import from_run, matrices, report
from slq.types import Item, Qrels

KS = (1, 5, 10)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one retrieval set, as fractions, with the matrix they come from (for pictures of results).

    scores_QC: cosine similarities, rows in the order of `query_ids`, columns of `corpus_ids` (-inf where masked or failed);
    gains_QC: judgements. by_category: the metrics of each category's queries, where the set names categories.
    """

    name: str
    metrics: Mapping[str, float]
    query_ids: tuple[str, ...]
    corpus_ids: tuple[str, ...]
    scores_QC: np.ndarray
    gains_QC: np.ndarray
    failures: tuple[Failure, ...] = ()
    by_category: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def evaluate(
    embedder: Embedder,
    sets: Sequence[RetrievalSet],
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Evaluation]:
    """Score retrieval sets one after the other; an item that stands in several is embedded once.

    Items that cannot be used are listed in `failures` and stay in: as candidates they are never found, as queries they find nothing.
    """
    vectors, faults = _embed_once(embedder, sets, batch_size, progress)
    missing = np.full(embedder.backbone.dim, np.nan, dtype=np.float32)
    evaluations = []
    for one in sets:
        queries_QD = np.stack([vectors.get(id(item), missing) for item in one.queries.values()])
        # An answer whose row failed is no longer in the corpus; it counts as never found rather than as never asked for.
        lost = {answer: None for answers in one.qrels.values() for answer in answers if answer not in one.corpus}
        query_ids, corpus_ids = tuple(one.queries), (*one.corpus, *lost)
        corpus_CD = np.stack([vectors.get(id(one.corpus.get(id_)), missing) for id_ in corpus_ids])
        scores_QC = np.nan_to_num(queries_QD @ corpus_CD.T, nan=-np.inf)
        _mask(scores_QC, one.masked, query_ids, corpus_ids)
        gains_QC = matrices(one.qrels, query_ids, corpus_ids)
        listed = {**one.queries, **one.corpus}
        failures = tuple(Failure(id_, faults[id(item)]) for id_, item in listed.items() if id(item) in faults)
        evaluations.append(
            Evaluation(
                one.name,
                _scores_of(one.qrels, query_ids, corpus_ids, scores_QC, gains_QC),
                query_ids,
                corpus_ids,
                scores_QC,
                gains_QC,
                one.failures + failures,
                _by_category(one, corpus_ids, scores_QC, gains_QC),
            )
        )
    return evaluations


def _mask(scores_QC: np.ndarray, masked: Mapping[str, frozenset[str]], query_ids: tuple[str, ...], corpus_ids: tuple[str, ...]) -> None:
    """Take what is masked out of its query's ranking."""
    if not masked:
        return
    column = {id_: place for place, id_ in enumerate(corpus_ids)}
    for row, query_id in enumerate(query_ids):
        scores_QC[row, [column[id_] for id_ in masked.get(query_id, ()) if id_ in column]] = -np.inf


def _scores_of(
    qrels: Qrels, query_ids: tuple[str, ...], corpus_ids: tuple[str, ...], scores_QC: np.ndarray, gains_QC: np.ndarray
) -> dict[str, float]:
    """Metrics; where something has no score it is left out of the ranking, since even the last place may be among the first k."""
    if np.isfinite(scores_QC).all():
        return report(scores_QC, gains_QC, KS)
    run = {
        query_id: [(id_, float(score)) for id_, score in zip(corpus_ids, scores_C, strict=True) if np.isfinite(score)]
        for query_id, scores_C in zip(query_ids, scores_QC, strict=True)
    }
    return from_run(run, {query_id: qrels[query_id] for query_id in query_ids}, KS, corpus_size=len(corpus_ids))


def _by_category(
    one: RetrievalSet, corpus_ids: tuple[str, ...], scores_QC: np.ndarray, gains_QC: np.ndarray
) -> dict[str, dict[str, float]]:
    """The same metrics over each category's queries; a category without any relevant candidate has none."""
    rows: dict[str, list[int]] = {}
    for row, query_id in enumerate(one.queries):
        if query_id in one.categories:
            rows.setdefault(one.categories[query_id], []).append(row)
    ids = tuple(one.queries)
    return {
        category: _scores_of(one.qrels, tuple(ids[row] for row in chosen), corpus_ids, scores_QC[chosen], gains_QC[chosen])
        for category, chosen in sorted(rows.items())
        if gains_QC[chosen].any()
    }


def both_ways(pairs: PairFile) -> list[RetrievalSet]:
    """Pairs of pictures and captions as two sets: text to image, image to text."""
    return [
        replace(from_pairs(pairs, "text_to_image"), name="text to image"),
        replace(from_pairs(pairs, "image_to_text"), name="image to text"),
    ]


def _embed_once(
    embedder: Embedder, sets: Sequence[RetrievalSet], batch_size: int, progress: Callable[[int], None]
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Vectors, and reasons of failure, by the identity of the item object."""
    items: dict[int, Item] = {id(item): item for one in sets for item in (*one.queries.values(), *one.corpus.values())}
    embedded = embedder.embed(list(items.values()), [str(i) for i in items], batch_size, skip_bad=True, progress=progress)
    vectors = {int(i): vector for i, vector in zip(embedded.ids, embedded.vectors, strict=True)}
    return vectors, {int(failure.item): failure.reason for failure in embedded.failures}


def as_json(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Metrics, metrics by category and failures by set, ready for a results file."""
    return {
        one.name: {
            **one.metrics,
            **({"by_category": one.by_category} if one.by_category else {}),
            "failures": [{"item": failure.item, "reason": failure.reason} for failure in one.failures],
        }
        for one in evaluations
    }
