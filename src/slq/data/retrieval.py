"""Sets of queries, corpus and judgements for measuring retrieval: read, made from caption pairs, and written."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from slq.data.images import image_path, path_from
from slq.data.pairs import PairFile
from slq.data.tables import Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, DiskFullError, Failure, InputError, OutputError, OutputExistsError
from slq.types import Item, Qrels

_QRELS_COLUMNS = ["query-id", "corpus-id", "score"]

Direction = Literal["text_to_image", "image_to_text"]


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and corpus by id, which of the corpus answers which query, and what was left out of either.

    Every query has judgements. A judged corpus id may be absent from `corpus` if its item is among the failures: it can then
    not be found, and a score must count it as missed. categories: query id -> the group it is also scored in. excluded: query id ->
    corpus ids left out of its ranking, such as the image that a composed query starts from. candidates: query id -> the only corpus ids
    that it is ranked against, where a protocol gives each query its own list. depths: the k of hit@k and recall@k. clusters: query id ->
    the image or whatever else it shares with queries that are found or missed with it, such as the captions of one image.
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


@dataclass(frozen=True)
class _Items:
    """The usable items of a BEIR file by id; `sources` also knows the ids of those that failed."""

    items: dict[str, Item]
    sources: dict[str, str]
    failures: list[Failure]
    categories: dict[str, str]
    excluded: dict[str, frozenset[str]]
    clusters: dict[str, str]


def read_beir(folder: str | os.PathLike[str], split: str = "test") -> RetrievalSet:
    """Read `corpus.jsonl`, `queries.jsonl` and `qrels/<split>.tsv` of a folder; unjudged queries are dropped.

    Rows have `_id`, `text` and optionally `title` (corpus only, put before the text) and `image` (a path relative to the folder);
    queries may have a `category` to be scored by, `excluded`, a list of corpus ids to leave out of their ranking, and a `cluster`, which
    queries share that are not independent (without, those that show one image are a cluster).
    Items that cannot be used become failures; negative scores, which some sets use for spam, become 0.

    Raises DataError if a file is missing, an id appears twice, or a judgement is broken or names an unknown id.
    """
    folder = Path(folder)
    qrels_file = folder / "qrels" / f"{split}.tsv"
    if folder.is_dir() and not qrels_file.exists():
        splits = ", ".join(sorted(file.stem for file in qrels_file.parent.glob("*.tsv"))) or "none"
        raise DataError(f"{qrels_file} does not exist; choose a split that the folder has: {splits}")
    corpus = _read_items(folder / "corpus.jsonl")
    queries = _read_items(folder / "queries.jsonl", asked=True)
    qrels = _read_qrels(qrels_file, queries, corpus)
    judged = {query_id: item for query_id, item in queries.items.items() if query_id in qrels}
    if not judged:
        raise DataError(f"{qrels_file} judges none of the usable queries of {folder / 'queries.jsonl'}; check that they belong together")
    return RetrievalSet(
        name=folder.resolve().name,
        queries=judged,
        corpus=corpus.items,
        qrels={query_id: qrels[query_id] for query_id in judged},
        failures=tuple(corpus.failures + queries.failures),
        categories={query_id: name for query_id, name in queries.categories.items() if query_id in judged},
        excluded=_known_exclusions(folder / "queries.jsonl", queries, corpus, judged),
        clusters={query_id: name for query_id, name in queries.clusters.items() if query_id in judged},
    )


def _known_exclusions(path: Path, queries: _Items, corpus: _Items, judged: Mapping[str, Item]) -> dict[str, frozenset[str]]:
    for query_id, ids in queries.excluded.items():
        unknown = sorted(ids - corpus.sources.keys())
        if unknown:
            raise DataError(f"{path}: query {query_id!r} excludes {unknown[0]!r}, which is not in corpus.jsonl; correct its 'excluded'")
    return {query_id: ids for query_id, ids in queries.excluded.items() if query_id in judged}


def from_pairs(pair_file: PairFile, direction: Direction) -> RetrievalSet:
    """Make a retrieval set of images and their captions; a caption that several images share is relevant to all of them.

    The id of an image is its path relative to the data file, that of its captions `<path>#0`, `<path>#1`, ...

    Raises DataError if a pair is not one image with texts, InputError if the direction is unknown.
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


def write_beir(folder: str | os.PathLike[str], retrieval_set: RetrievalSet, split: str = "test") -> None:
    """Write a retrieval set as `read_beir` reads it; images stay where they are and are named by relative path.

    Raises OutputExistsError if the folder holds such files, OutputError (DiskFullError) if they cannot be written, and InputError
    if an item is an open image, which has no path, or a judgement names an item that is not in the set.
    """
    folder = Path(folder)
    for existing in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"):
        if existing.exists():
            raise OutputExistsError(f"{existing} exists already; choose another folder or remove it")
    for item_id, item in (*retrieval_set.corpus.items(), *retrieval_set.queries.items()):
        if item.image is not None and not isinstance(item.image, Path):
            raise InputError(f"the item {item_id!r} is an open image; save it as a file and use its path")
    for query_id, judgements in retrieval_set.qrels.items():
        unknown = [corpus_id for corpus_id in judgements if corpus_id not in retrieval_set.corpus]
        if unknown or query_id not in retrieval_set.queries:
            raise InputError(f"the judgements of query {query_id!r} name an item that the set lacks; repair the items that failed first")
    try:
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        _write_items(folder / "corpus.jsonl", retrieval_set.corpus)
        # What is excluded but not in the corpus (an item that failed) could not be read back.
        excluded = {query_id: ids & retrieval_set.corpus.keys() for query_id, ids in retrieval_set.excluded.items()}
        _write_items(folder / "queries.jsonl", retrieval_set.queries, retrieval_set.categories, excluded, retrieval_set.clusters)
        _write_qrels(folder / "qrels" / f"{split}.tsv", retrieval_set.qrels)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(f"{folder} cannot be written: the disk is full; free some space") from error
        raise OutputError(f"{folder} cannot be written ({error.strerror}); check its path and permissions") from error


def _read_items(path: Path, asked: bool = False) -> _Items:
    """The rows of a corpus, or (`asked`) of queries, which alone have categories, excluded ids and clusters."""
    found = _Items({}, {}, [], {}, {}, {})
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            found.failures.append(Failure(source, str(row).removeprefix(f"{source}: ")))
            continue
        item_id = row.get("_id")
        if not isinstance(item_id, str | int) or isinstance(item_id, bool) or item_id == "":
            found.failures.append(Failure(source, "the column '_id' is missing or empty; give each row its own id"))
            continue
        item_id = str(item_id)
        if item_id in found.sources:
            raise DataError(f"{source}: repeats the id {item_id!r} of {found.sources[item_id]}; make the ids of {path} unique")
        found.sources[item_id] = source
        try:
            found.items[item_id] = _item(row, path.parent)
        except InputError as error:
            found.failures.append(Failure(source, f"{item_id!r}: {error}"))
        if not asked:
            continue
        if category := _name(row, "category", source):
            found.categories[item_id] = category
        image = row.get("image")
        if cluster := _name(row, "cluster", source) or (image if isinstance(image, str) else None):
            found.clusters[item_id] = cluster
        if excluded := _excluded(row, source):
            found.excluded[item_id] = excluded
    return found


def _name(row: Row, column: str, source: str) -> str | None:
    """The name that a column holds; None without one."""
    name = row.get(column)
    if name is None or (isinstance(name, str) and not name.strip()):
        return None
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise DataError(f"{source}: {column!r} must be a name, not {name!r}")
    return str(name)


def _excluded(row: Row, source: str) -> frozenset[str]:
    column = "excluded" if "excluded" in row else "masked"  # as it was called before
    excluded = row.get(column)
    if excluded is None:
        return frozenset()
    if not isinstance(excluded, list) or not all(isinstance(id_, str | int) and not isinstance(id_, bool) for id_ in excluded):
        raise DataError(f"{source}: {column!r} must be a list of corpus ids, not {excluded!r}")
    return frozenset(str(id_) for id_ in excluded)


def _item(row: Row, folder: Path) -> Item:
    parts = [row.get("title"), row.get("text")]
    texts = [check_text(part) for part in parts if part is not None and not (isinstance(part, str) and not part.strip())]
    image = row.get("image")
    path = image_path(image, folder) if image not in (None, "") else None
    if path is not None and not texts:
        return Item(image=path)
    return Item(check_text(" ".join(texts)), path)


def _read_qrels(path: Path, queries: _Items, corpus: _Items) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        if not set(_QRELS_COLUMNS) <= row.keys():
            raise DataError(f"{path} has the header {', '.join(row)}; its first line must be {' '.join(_QRELS_COLUMNS)}, tab-separated")
        query_id, corpus_id, score = (row[column] for column in _QRELS_COLUMNS)
        for item_id, known, name in ((query_id, queries, "queries.jsonl"), (corpus_id, corpus, "corpus.jsonl")):
            if item_id not in known.sources:
                lost = f" ({len(known.failures)} of its rows failed)" if known.failures else ""
                raise DataError(f"{source}: the id {item_id!r} is not in {name}{lost}; add it or remove the line")
        try:
            relevance = max(0, int(score))
        except ValueError:
            raise DataError(f"{source}: the score {score!r} is not a whole number; correct it") from None
        if qrels.setdefault(query_id, {}).setdefault(corpus_id, relevance) != relevance:
            raise DataError(f"{source}: judges {query_id!r} and {corpus_id!r} again with another score; keep one of the lines")
    return qrels


def _relative_id(image: Path, folder: Path) -> str:
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else image.as_posix()


def _write_items(
    path: Path,
    items: Mapping[str, Item],
    categories: Mapping[str, str] = {},
    excluded: Mapping[str, frozenset[str]] = {},
    clusters: Mapping[str, str] = {},
) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for item_id, item in items.items():
            row: dict[str, Any] = {"_id": item_id, "text": item.text or ""}
            if isinstance(item.image, Path):
                row["image"] = path_from(path.parent, item.image)
            if item_id in categories:
                row["category"] = categories[item_id]
            if excluded.get(item_id):
                row["excluded"] = sorted(excluded[item_id])
            if item_id in clusters:
                row["cluster"] = clusters[item_id]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_qrels(path: Path, qrels: Qrels) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(_QRELS_COLUMNS)
        for query_id, judgements in qrels.items():
            writer.writerows([query_id, corpus_id, score] for corpus_id, score in judgements.items())
