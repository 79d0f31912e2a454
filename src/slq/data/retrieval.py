"""Sets of queries, corpus and judgements for measuring retrieval, and how one is made of images with captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from slq.data.pairs import PairFile
from slq.data.roots import cache_folder
from slq.errors import DataError, Failure, InputError
from slq.types import Item, Qrels

Direction = Literal["text_to_image", "image_to_text"]


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and corpus by id, which of the corpus answers which query, and what was skipped of either.

    Attributes:
        name: of the set.
        queries: by id; every one has judgements.
        corpus: by id.
        qrels: query id -> corpus id -> relevance. A judged corpus id may be absent from `corpus` if its item is among the failures: it can
            then not be found, and a score must count it as missed.
        failures: what was skipped, with reasons.
        categories: query id -> the group it is also scored in.
        excluded: query id -> corpus ids that its ranking leaves out, such as the image that a composed query starts from.
        candidates: query id -> the only corpus ids that it is ranked against, where a protocol gives each query its own list.
        depths: the k of hit@k and recall@k.
        clusters: query id -> the image or whatever else it shares with queries that are found or missed with it, such as the captions of
            one image.
        added: query id -> the same query in other words, whose states are added to its own before they are brought to length 1.
        notes: what must be told beside the scores.
    """

    name: str
    queries: dict[str, Item]
    corpus: dict[str, Item]
    qrels: Qrels
    failures: tuple[Failure, ...]
    categories: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    depths: tuple[int, ...] = (1, 5, 10)
    clusters: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, Item] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def encoded_queries(self) -> dict[str, Item | tuple[Item, Item]]:
        """What is encoded of each query: an item, or two whose states are added."""
        return {id_: (item, self.added[id_]) if id_ in self.added else item for id_, item in self.queries.items()}

    @property
    def num_rows(self) -> int:
        """Queries and corpus, with those that were skipped."""
        return len(self.queries) + len(self.corpus) + len(self.failures)


def from_pairs(pair_file: PairFile, direction: Direction) -> RetrievalSet:
    """Make a retrieval set of images and their captions; a caption that several images share is relevant to all of them.

    Args:
        pair_file: images as queries, captions as positives.
        direction: text_to_image or image_to_text.

    Returns:
        The set. The id of an image is its path relative to the data file, that of its captions `<path>#0`, `<path>#1`, ...

    Raises:
        DataError: if a pair is not one image with texts.
        InputError: if the direction is unknown.
    """
    if direction not in ("text_to_image", "image_to_text"):
        raise InputError(f"the direction {direction!r} is unknown; use 'text_to_image' or 'image_to_text'")
    images: dict[str, Item] = {}
    captions: dict[str, dict[str, Item]] = {}  # image id -> caption id -> caption
    images_of_text: dict[str, dict[str, int]] = {}
    captions_of_text: dict[str, dict[str, int]] = {}
    for pair in pair_file.pairs:
        image = pair.query.image
        if not isinstance(image, Path) or pair.query.text is not None or any(item.image is not None for item in pair.positives):
            raise DataError(f"{pair.source}: not an image with captions; use a file with the columns 'image' and 'caption'")
        image_id = _relative_id(image, pair_file.folder)
        images[image_id] = pair.query
        for caption in pair.positives:
            own = captions.setdefault(image_id, {})
            caption_id = f"{image_id}#{len(own)}"
            own[caption_id] = caption
            images_of_text.setdefault(caption.text or "", {})[image_id] = 1
            captions_of_text.setdefault(caption.text or "", {})[caption_id] = 1
    texts = {caption_id: item for own in captions.values() for caption_id, item in own.items()}
    qrels: dict[str, dict[str, int]]
    if direction == "text_to_image":
        qrels = {caption_id: dict(images_of_text[item.text or ""]) for caption_id, item in texts.items()}
        image_of = {caption_id: image_id for image_id, own in captions.items() for caption_id in own}
        return RetrievalSet(pair_file.path.name, texts, images, qrels, pair_file.failures, clusters=image_of)
    qrels = {image_id: {} for image_id in images}
    for image_id, own in captions.items():
        for item in own.values():
            qrels[image_id].update(captions_of_text[item.text or ""])
    own_images = {image_id: image_id for image_id in images}
    return RetrievalSet(pair_file.path.name, images, texts, qrels, pair_file.failures, clusters=own_images)


def _relative_id(image: Path, folder: Path) -> str:
    if image.is_relative_to(cache_folder()):
        return image.name  # what stands inside a table is named by its content
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else image.as_posix()
