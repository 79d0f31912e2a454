"""What can be checked of the knowledge queries without a model: leaks, repetitions, numbers, answers, and what their words alone find."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.photo.knowledge import (
    CATEGORIES,
    FOLDER,
    Concept,
    KnowledgeQuery,
    file_name,
    judged,
    read_concepts,
    read_queries,
    write_concepts,
)
from research.photo.photographs import Photograph

QUERIES_PER_CONCEPT = (2, 5)
FEWEST, LARGEST_FRACTION = 2, 0.25  # photographs that show a concept: at least so many, at most this fraction of all
DEPTH = 5  # of hit@k
_WORD = re.compile(r"[a-z]{4,}")


def check(photographs: Sequence[Photograph] = (), folder: Path = FOLDER) -> dict[str, Any]:
    """Everything that can be said of the queries, and what is wrong with them.

    Args:
        photographs: of the test split; without them answers and overlap are not looked at.
        folder: of queries and concepts.

    Returns:
        `queries`, `concepts`, `categories`, `problems` (one sentence each) and, with photographs, `overlap`.

    Raises:
        MissingExtraError: if the dictionaries of slq-karr are not installed.
    """
    queries, concepts = read_queries(folder), read_concepts(folder)
    problems = [*_numbers(queries, concepts), *_leaks(queries, concepts), *_duplicates(queries)]
    found = {"queries": len(queries), "concepts": len(concepts), "categories": dict(Counter(query.category for query in queries))}
    if not photographs:
        return {**found, "problems": problems}
    return {**found, "problems": [*problems, *_answers(concepts, photographs)], "overlap": overlap(queries, concepts, photographs)}


def write_answers(photographs: Sequence[Photograph], folder: Path = FOLDER) -> None:
    """Judge every concept anew by the captions, and keep the file names in concepts.jsonl.

    Args:
        photographs: of the test split.
        folder: of the concepts.
    """
    write_concepts([judged(each, photographs) for each in read_concepts(folder).values()], folder)


def overlap(queries: Sequence[KnowledgeQuery], concepts: dict[str, Concept], photographs: Sequence[Photograph]) -> dict[str, float]:
    """How far the words of a query alone lead to its answers.

    Args:
        queries: all of them.
        concepts: by name.
        photographs: with their captions.

    Returns:
        `shared_words`: the mean fraction of a query's words, of four letters and more, that stand in some caption of an answer;
        `words_hit5`: hit@5 of TF-IDF between queries and captions; `chance_hit5`: what drawing five photographs would find.
    """
    from slq_karr.surface import Surface

    place = {file_name(each): number for number, each in enumerate(photographs)}
    told = [set(_WORD.findall(" ".join(each.captions).lower())) for each in photographs]
    surface = Surface([each.captions for each in photographs])
    shared, hits, chances = [], [], []
    for query in queries:
        answers = [place[image] for image in concepts[query.concept].relevant if image in place]
        ranked = np.setdiff1d(np.arange(len(photographs)), [place[image] for image in concepts[query.concept].unjudged if image in place])
        if not answers:
            continue
        words = set(_WORD.findall(query.text.lower()))
        of_answers = set().union(*(told[answer] for answer in answers))
        shared.append(len(words & of_answers) / len(words) if words else 0.0)
        hits.append(_is_hit(surface.scores(query.text), ranked, answers))
        chances.append(_chance(len(ranked), len(answers)))
    return {"shared_words": statistics.mean(shared), "words_hit5": statistics.mean(hits), "chance_hit5": statistics.mean(chances)}


def _is_hit(scores: np.ndarray, ranked: np.ndarray, answers: Sequence[int]) -> float:
    """Whether an answer stands among the first; a tie never helps."""
    best = max(scores[answer] for answer in answers)
    others = np.setdiff1d(ranked, answers)
    return float(best > 0 and np.count_nonzero(scores[others] >= best) < DEPTH)


def _chance(candidates: int, answers: int) -> float:
    """The probability that one of DEPTH photographs, drawn at random, is an answer."""
    missed = 1.0
    for drawn in range(min(DEPTH, candidates)):
        missed *= max(0, candidates - answers - drawn) / (candidates - drawn)
    return 1 - missed


def _numbers(queries: Sequence[KnowledgeQuery], concepts: dict[str, Concept]) -> Iterator[str]:
    least, most = QUERIES_PER_CONCEPT
    for query in queries:
        if query.concept not in concepts or query.category not in CATEGORIES:
            yield f"{query.id} is of the unknown concept {query.concept!r} or category {query.category!r}."
    of_concept: dict[str, list[str]] = {name: [] for name in concepts}
    for query in queries:
        of_concept.setdefault(query.concept, []).append(query.category)
    for name, categories in of_concept.items():
        if not least <= len(categories) <= most or len(set(categories)) < len(categories):
            yield f"{name} needs {least} to {most} queries, each of another category, and has {', '.join(categories) or 'none'}."
    for repeated in (id_ for id_, count in Counter(query.id for query in queries).items() if count > 1):
        yield f"{repeated} is the id of several queries."


def _leaks(queries: Sequence[KnowledgeQuery], concepts: dict[str, Concept]) -> Iterator[str]:
    from slq_karr.verify import leaks_of, own_leaks

    find_leaks = own_leaks()
    for query in queries:
        names = concepts[query.concept].words if query.concept in concepts else ()
        if leaks := leaks_of(query.text, names, query.concept, find_leaks):
            yield f"{query.id} names what it leads to: {leaks}."


def _duplicates(queries: Sequence[KnowledgeQuery]) -> Iterator[str]:
    from slq_karr.surface import Queries

    earlier = Queries()
    for query in queries:
        if like := earlier.like(query.text):
            yield f"{query.id} is nearly the same as {like}."
        earlier.add(query.id, query.text)


def _answers(concepts: dict[str, Concept], photographs: Sequence[Photograph]) -> Iterator[str]:
    for each in concepts.values():
        if judged(each, photographs) != each:
            yield f"{each.name}: the photographs kept for it are not those that the captions give."
        if not FEWEST <= len(each.relevant) <= LARGEST_FRACTION * len(photographs):
            yield f"{each.name} is shown by {len(each.relevant)} photographs."
