"""A gallery of images and texts together: whether a query's answers of the other kind stand before whatever is of its own kind.

Vectors of one kind lie together, in one part of the space. Where all candidates are of one kind that costs nothing; in a mixed gallery a
text's nearest neighbours are then texts, right or wrong. What it costs is the score of the mixed gallery beside that of the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from slq.data import RetrievalSet
from slq.evaluation.vectors import Vectors, content_of
from slq.types import Item, Qrels

MIXED = "mixed gallery, "


def mixed_sets(sets: Sequence[RetrievalSet]) -> list[RetrievalSet]:
    """The same queries against images and texts together, where two sets are the two directions of the same images and texts.

    Args:
        sets: such as `bidirectional_sets` gives.

    Returns:
        For each such pair the sets `mixed gallery, NAME` of both directions, in which a query's answers are those of the other kind, and
        `mixed gallery, text to text`, in which they are the other texts of its images. What else would be right is left out of a query's
        ranking, and so is the query itself. Candidates are called `image ID` and `text ID`.

    Source: MIEB's and UniIR's mixed-modal candidate pools.
    """
    found = []
    for to_image in sets:
        for to_text in sets:
            if _are_two_directions(to_image, to_text):
                found += _of_directions(to_image, to_text)
    return found


def modality_gap(one: RetrievalSet, vectors: Vectors, truncate_dim: int | None = None) -> float | None:
    """The distance of the mean vector of the images from that of the texts.

    Args:
        one: a set.
        vectors: of its items.
        truncate_dim: how many leading dimensions are used, at length 1 again; None for all.

    Returns:
        A number of 0 to 2; None where the queries are not of one kind and the corpus of the other, or an item has several vectors.

    Source: Liang et al. 2022 (Mind the gap).
    """
    kinds = [{item.image is not None for item in items.values()} for items in (one.queries, one.corpus)]
    if one.added or vectors.vectors_ND.ndim != 2 or [len(kind) for kind in kinds] != [1, 1] or kinds[0] == kinds[1]:
        return None
    means = []
    for items in (one.queries, one.corpus):
        found_ND = vectors.of(items.values())[:, :truncate_dim].astype(np.float64)
        found_ND = found_ND[np.isfinite(found_ND).all(axis=1)]
        if not len(found_ND):
            return None
        means.append((found_ND / np.linalg.norm(found_ND, axis=1, keepdims=True)).mean(axis=0))
    return float(np.linalg.norm(means[0] - means[1]))


def _are_two_directions(to_image: RetrievalSet, to_text: RetrievalSet) -> bool:
    """Whether one asks for images by texts, and the other for the same texts by the same images."""
    if to_image is to_text or to_image.added or to_text.added or to_image.candidates or to_text.candidates:
        return False
    if any(item.image is not None for item in to_image.queries.values()) or not _are_images(to_image.corpus, to_text.queries):
        return False
    return to_image.queries.keys() == to_text.corpus.keys() and to_image.corpus.keys() <= to_text.queries.keys()


def _are_images(*listed: Mapping[str, Item]) -> bool:
    return all(items and all(item.image is not None for item in items.values()) for items in listed)


def _of_directions(to_image: RetrievalSet, to_text: RetrievalSet) -> list[RetrievalSet]:
    images_of = {id_: _right(to_image.qrels, id_) for id_ in to_image.queries}
    texts_of = {id_: _right(to_text.qrels, id_) for id_ in to_text.queries}
    copies: dict[str, set[str]] = {}
    for id_, item in to_text.queries.items():
        copies.setdefault(content_of(item), set()).add(id_)
    # All texts of the images that a text is right for, itself among them; and all images that share a text with an image, or are equal.
    beside_text = {id_: frozenset[str]().union(*(texts_of.get(image, ()) for image in found)) | {id_} for id_, found in images_of.items()}
    beside_image = {
        id_: frozenset[str]().union(copies[content_of(to_text.queries[id_])], *(images_of.get(text, ()) for text in found))
        for id_, found in texts_of.items()
    }
    gallery = {**_named("image", to_image.corpus), **_named("text", to_text.corpus)}
    whole = partial(replace, to_image, corpus=gallery, categories={})
    found = [
        whole(
            name=MIXED + to_image.name,
            qrels=_judged("image", to_image.qrels),
            excluded={id_: _names("text", beside_text[id_]) for id_ in to_image.queries},
        ),
        whole(
            name=MIXED + to_text.name,
            queries=to_text.queries,
            clusters=to_text.clusters,
            qrels=_judged("text", to_text.qrels),
            excluded={id_: _names("image", beside_image[id_]) for id_ in to_text.queries},
        ),
    ]
    words = {id_: item.text for id_, item in to_image.queries.items()}
    of_images = {id_: frozenset(text for text in beside_text[id_] if words[text] != words[id_]) for id_ in words}
    others = {id_: texts for id_, texts in of_images.items() if texts}  # not the same words again, which anyone finds
    if others:
        left_out = {id_: _names("text", beside_text[id_] - texts) | _names("image", images_of[id_]) for id_, texts in others.items()}
        found.append(
            whole(
                name=MIXED + "text to text",
                queries={id_: to_image.queries[id_] for id_ in others},
                qrels={id_: {f"text {text}": 1 for text in sorted(texts)} for id_, texts in others.items()},
                excluded=left_out,
            )
        )
    return found


def _right(qrels: Qrels, query_id: str) -> frozenset[str]:
    return frozenset(id_ for id_, gain in qrels.get(query_id, {}).items() if gain > 0)


def _named(kind: str, items: Mapping[str, Item]) -> dict[str, Item]:
    return {f"{kind} {id_}": item for id_, item in items.items()}


def _names(kind: str, ids: frozenset[str]) -> frozenset[str]:
    return frozenset(f"{kind} {id_}" for id_ in ids)


def _judged(kind: str, qrels: Qrels) -> dict[str, dict[str, int]]:
    return {query_id: {f"{kind} {id_}": gain for id_, gain in judged.items()} for query_id, judged in qrels.items()}
