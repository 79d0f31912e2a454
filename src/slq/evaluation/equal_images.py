"""Images that a retrieval set holds more than once, byte for byte, and the set with each of them once.

Nothing can tell equal images apart, so where only one of them is an answer, even a perfect encoder finds it by luck: ties count as missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from slq.data import RetrievalSet
from slq.evaluation.vectors import Encoded, content_of, is_readable


def fold_equal_images(one: RetrievalSet) -> tuple[RetrievalSet, int] | None:
    """Make one candidate of equal images, and one query of equal queries with images, answered by what answers any of them.

    Args:
        one: the set.

    Returns:
        The folded set, and how many candidates and queries it has less; None if no image comes twice.
    """
    first_candidate, first_query = _first_of_equals(one.corpus), _first_of_equals(one.encoded_queries)
    less = len(one.corpus) + len(one.queries) - len(set(first_candidate.values())) - len(set(first_query.values()))
    if not less:
        return None
    qrels: dict[str, dict[str, int]] = {}
    for query_id, judged in one.qrels.items():
        own = qrels.setdefault(first_query.get(query_id, query_id), {})
        for id_, gain in judged.items():
            candidate = first_candidate.get(id_, id_)
            own[candidate] = max(gain, own.get(candidate, 0))
    kept = set(first_query.values())
    candidates: dict[str, dict[str, None]] = {}
    for query_id, ids in one.candidates.items():
        listed = candidates.setdefault(first_query.get(query_id, query_id), {})
        listed |= dict.fromkeys(first_candidate.get(id_, id_) for id_ in ids)
    excluded = {}
    for query_id, left_out in one.excluded.items():
        copies = {first_candidate.get(id_, id_) for id_ in left_out}
        excluded[query_id] = frozenset(id_ for id_ in copies if not qrels.get(query_id, {}).get(id_))
    folded = replace(
        one,
        queries={query_id: item for query_id, item in one.queries.items() if query_id in kept},
        corpus={id_: item for id_, item in one.corpus.items() if first_candidate[id_] == id_},
        qrels=qrels,
        excluded={query_id: left_out for query_id, left_out in excluded.items() if query_id in kept},
        candidates={query_id: tuple(ids) for query_id, ids in candidates.items()},
        categories={query_id: name for query_id, name in one.categories.items() if query_id in kept},
        clusters={query_id: name for query_id, name in one.clusters.items() if query_id in kept},
        added={query_id: item for query_id, item in one.added.items() if query_id in kept},
    )
    return folded, less


def clusters_by_image(one: RetrievalSet) -> dict[str, str]:
    """The clusters of a set's queries, where those of equal images are one: a copy of an image is no further observation.

    Args:
        one: the set. A cluster is known by its image where its label is the image's id, as in sets of captions and of composed queries.
    """
    if not one.clusters:
        return {}
    first = {**_first_of_equals(one.encoded_queries), **_first_of_equals(one.corpus)}
    return {query_id: first.get(label, label) for query_id, label in one.clusters.items()}


def _first_of_equals(items: Mapping[str, Encoded]) -> dict[str, str]:
    """Each id to the first whose item is equal and has an image; texts, and what cannot be read, stand for themselves."""
    first: dict[str, str] = {}
    found = {}
    for id_, item in items.items():
        shown = item[0] if isinstance(item, tuple) else item
        content = content_of(item) if shown.image is not None else ""
        found[id_] = first.setdefault(content, id_) if content and is_readable(content) else id_
    return found
