"""A search that the frozen model has a part in: it rewrites what is looked for, judges what is found, and says what it rests on.

Each is asked for by itself, and what the model did is shown: its wording of the query, its probability of yes of each hit, and how many
hits were left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slq.errors import InputError
from slq.index.judge_file import JudgeSettings, read_judge
from slq.index.searching import Part, Query, Searchable, SearchHit, SearchResult, search
from slq.types import Item

if TYPE_CHECKING:
    from slq.encoders.base import Encoder


def find(rows: Searchable, query: Query, encoder: Callable[[], Encoder]) -> SearchResult:
    """Search rows, with what the query asks of the model.

    Args:
        rows: of a collection, or of saved embeddings.
        query: what is looked for.
        encoder: gives the model that encoded the rows.

    Returns:
        The hits; see `SearchResult`.

    Raises:
        InputError: if the model is asked about a query of several parts, or nobody has measured what its yes is worth; and what
            `slq.index.searching.search` raises.
    """
    if not (query.rewrite or query.rerank or query.judge or query.why):
        return search(rows, query, encoder)
    asked = _asked(query)
    settings = _settings(rows, query)
    notes: list[str] = []
    rewriting = _rewriting(asked, encoder(), notes) if query.rewrite else ""
    parts = (*query.parts, Part(rewriting, weight=query.parts[0].weight)) if rewriting else query.parts
    if settings is not None and settings.rewritten != query.rewrite:
        notes.append(
            "The judge was calibrated on queries as they are typed: slq collection calibrate --rewrite does it for rewritten ones."
        )
    number = _judged(query, settings)
    found = search(rows, replace(query, parts=parts, top_k=max(query.top_k, number)), encoder)
    hits, cut = list(found.hits), 0
    if number and settings is not None:
        text = Item(rewriting) if rewriting else asked
        hits, cut = _by_judge(hits, number, text, query, settings, encoder(), notes)
    elif query.judge and settings is not None:
        hits, cut = _by_similarity(hits, query, settings, notes)
    hits = [replace(hit, rank=rank) for rank, hit in enumerate(hits[: query.top_k], start=1)]
    if query.why:
        hits = [_explained(hit, asked, encoder(), notes) for hit in hits]
    return SearchResult(replace(query, parts=parts), tuple(hits), found.rows, (*found.notes, *notes), rewriting, cut)


def _asked(query: Query) -> Item:
    """What the model is asked about: the only part that is wanted."""
    wanted = [part for part in query.parts if part.weight > 0]
    if len(wanted) != 1 or wanted[0].like is not None:
        raise InputError(
            "rewrite, rerank, judge and why are about one TEXT, one image, or both together: leave out the other parts, or what is asked."
        )
    return Item(wanted[0].text, wanted[0].image)


def _settings(rows: Searchable, query: Query) -> JudgeSettings | None:
    """What is known of judging, where it is needed."""
    if not (query.rerank or query.judge):
        return None
    if rows.judge_file is None:
        raise InputError(f"{rows.place} is no collection, and what the model's yes is worth is measured for one: make it with slq index.")
    settings = read_judge(rows.judge_file, rows.metadata.fingerprint, query.rewrite)
    if query.rerank and not settings.can_judge:
        auc, low, high = settings.measured["auc"]
        raise InputError(
            f"This model cannot judge: the best question has an AUC of {auc:.2f} ({low:.2f} to {high:.2f}) here. Search without --rerank."
        )
    return settings


def _judged(query: Query, settings: JudgeSettings | None) -> int:
    """How many of the best hits the model is asked about."""
    if settings is None or not settings.can_judge:
        return 0
    if query.judge and settings.helps:
        return max(query.rerank, query.top_k)
    return query.rerank


def _rewriting(asked: Item, encoder: Encoder, notes: list[str]) -> str:
    from slq.judge import rewrite

    (said,) = rewrite(encoder.model, [asked])
    if said.refused:
        notes.append(f"The query was not rewritten: {said.refused}.")
    return said.text


def _by_judge(
    hits: list[SearchHit], number: int, asked: Item, query: Query, settings: JudgeSettings, encoder: Encoder, notes: list[str]
) -> tuple[list[SearchHit], int]:
    """The first hits by what the model says of them, then the others; and how many were left out."""
    from slq.encoders.latent import LatentEncoder
    from slq.judge import Judge, Question, judge_hits

    reuse = encoder.reuse if isinstance(encoder, LatentEncoder) and encoder.cache is not None else None
    judge, first = Judge(encoder.model, Question(settings.question), reuse), hits[:number]
    items = [_item(hit) for hit in first]
    cuts_by_judge = query.judge and settings.judges
    found = judge_hits(
        judge, asked, items, [hit.score for hit in first], settings.weight, threshold=settings.threshold if cuts_by_judge else None
    )
    if unjudged := [each for each in found.kept if each.reason]:
        notes.append(f"{len(unjudged)} of {len(first)} could not be judged, and come behind: {unjudged[0].reason}")
    ordered = [replace(first[each.place], probability=each.probability) for each in found.kept]
    if cuts_by_judge:
        return ordered, len(found.cut)
    kept, cut = _by_similarity([*ordered, *hits[number:]], query, settings, notes) if query.judge else ([*ordered, *hits[number:]], 0)
    return kept, cut


def _by_similarity(hits: list[SearchHit], query: Query, settings: JudgeSettings, notes: list[str]) -> tuple[list[SearchHit], int]:
    """The hits whose score reaches the threshold of the similarity alone, and how many do not."""
    if settings.similarity_threshold is None:
        notes.append("No threshold reaches the precision that was asked for when this collection was calibrated, so nothing is left out.")
        return hits, 0
    kept = [hit for hit in hits if hit.score >= settings.similarity_threshold]
    return kept, len(hits) - len(kept)


def _explained(hit: SearchHit, asked: Item, encoder: Encoder, notes: list[str]) -> SearchHit:
    from slq.judge import explain

    try:
        return replace(hit, why=explain(encoder, _item(hit), asked))
    except InputError as error:
        notes.append(f"What {hit.id} rests on cannot be said: {error}")
        return hit


def _item(hit: SearchHit) -> Item:
    return Item(hit.text, None if hit.image is None else Path(hit.image))
