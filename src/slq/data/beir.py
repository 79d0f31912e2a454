"""The BEIR layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, read and written."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.data.images import path_from
from slq.data.pairs import PairFile, read_pairs
from slq.data.retrieval import RetrievalSet
from slq.data.roots import ImageRoot
from slq.data.tables import Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, InputError, OutputExistsError, shorten
from slq.io.files import map_os_errors, write_atomic, write_jsonl
from slq.types import Item

_QRELS_COLUMNS = ["query-id", "corpus-id", "score"]


@dataclass(frozen=True)
class _Items:
    """The usable items of a BEIR file by id; `sources` also knows the ids of those that failed."""

    items: dict[str, Item]
    sources: dict[str, str]
    failures: list[Failure]
    categories: dict[str, str]
    excluded: dict[str, frozenset[str]]
    clusters: dict[str, str]


def read_beir(
    folder: str | os.PathLike[str],
    split: str = "test",
    *,
    image_root: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
) -> RetrievalSet:
    """Read a retrieval set; queries without judgements are dropped.

    Args:
        folder: holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv. Rows have `_id`, `text` and optionally `title` (corpus only, put
            before the text) and `image` (a path relative to the folder). Queries may have a `category` to be scored by, `excluded`, a list
            of corpus ids that their ranking leaves out, and a `cluster`, which queries share that are not independent (without, those
            that show one image are a cluster).
        split: which of the judgements.
        image_root: where relative image paths start, if that is not the folder.
        allow_outside: whether images may lie outside of it, or of the output of slq that it is part of.

    Returns:
        The set. Items that cannot be used are failures; negative scores, which some sets use for spam, are 0.

    Raises:
        DataError: if a file is missing, an id appears twice, or a judgement is broken or names an unknown id.
    """
    folder = Path(folder)
    qrels_file = folder / "qrels" / f"{split}.tsv"
    if folder.is_dir() and not qrels_file.exists():
        splits = ", ".join(sorted(file.stem for file in qrels_file.parent.glob("*.tsv"))) or "none"
        raise DataError(f"{qrels_file} does not exist; choose a split that the folder has: {splits}")
    root = ImageRoot.of(folder, image_root, allow_outside)
    corpus = _read_items(folder / "corpus.jsonl", root)
    queries = _read_items(folder / "queries.jsonl", root, queries=True)
    qrels = _read_qrels(qrels_file, queries, corpus)
    if not corpus.items:
        first = f"; the first problem is {shorten(corpus.failures[0], 400)}" if corpus.failures else ""
        raise DataError(f"no row of {shorten(folder / 'corpus.jsonl')} can be used{first}")
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


def read_retrieval_data(data: Path, split: str = "test", splits: tuple[str, ...] = ("test",), **reading: Any) -> RetrievalSet | PairFile:
    """Read a folder in BEIR layout as `read_beir` does, anything else as `read_pairs`.

    Args:
        data: the folder, or a file or folder of pairs.
        split: which judgements of a folder in BEIR layout.
        splits: those read of a Karpathy file.
        **reading: see `read_pairs`.

    Raises:
        DataError: as these two, and for columns that are named where the layout has its own.
    """
    if not (data / "corpus.jsonl").is_file():
        return read_pairs(data, splits=splits, **reading)
    named = [name for name in ("image_column", "text_column") if reading.pop(name, None) is not None]
    if named:
        raise DataError(f"{shorten(data)} is in BEIR layout, whose columns have names of their own: leave out {', '.join(named)}")
    return read_beir(data, split, **reading)


def write_beir(folder: str | os.PathLike[str], retrieval_set: RetrievalSet, split: str = "test") -> None:
    """Write a retrieval set as `read_beir` reads it; images stay where they are and are named by relative path.

    Args:
        folder: where to, made if it is not there.
        retrieval_set: what to write.
        split: name of the judgements.

    Raises:
        OutputExistsError: if the folder holds such files.
        OutputError: if they cannot be written; DiskFullError if the disk is full.
        InputError: if an item is an open image, which has no path, a judgement names an item that is not in the set, or a query has
            two wordings.
    """
    folder = Path(folder)
    for existing in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"):
        if existing.exists():
            raise OutputExistsError(f"{existing} exists already; choose another folder or remove it")
    for item_id, item in (*retrieval_set.corpus.items(), *retrieval_set.queries.items()):
        if item.image is not None and not isinstance(item.image, Path):
            raise InputError(f"the item {item_id!r} is an open image; save it as a file and use its path")
    if retrieval_set.added:
        raise InputError("the layout has no place for a query in two wordings; write the set without `added`")
    for query_id, judgements in retrieval_set.qrels.items():
        unknown = [corpus_id for corpus_id in judgements if corpus_id not in retrieval_set.corpus]
        if unknown or query_id not in retrieval_set.queries:
            raise InputError(f"the judgements of query {query_id!r} name an item that the set lacks; repair the items that failed first")
    with map_os_errors(folder):
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
    # What is excluded but not in the corpus (an item that failed) could not be read back.
    excluded = {query_id: ids & retrieval_set.corpus.keys() for query_id, ids in retrieval_set.excluded.items()}
    queries = _rows(folder, retrieval_set.queries, retrieval_set.categories, excluded, retrieval_set.clusters)
    write_jsonl(folder / "corpus.jsonl", _rows(folder, retrieval_set.corpus))
    write_jsonl(folder / "queries.jsonl", queries)
    lines = [(query_id, *each) for query_id, judged in retrieval_set.qrels.items() for each in judged.items()]
    write_atomic(folder / "qrels" / f"{split}.tsv", lambda path: _write_qrels(path, lines))


def _known_exclusions(path: Path, queries: _Items, corpus: _Items, judged: Mapping[str, Item]) -> dict[str, frozenset[str]]:
    for query_id, ids in queries.excluded.items():
        unknown = sorted(ids - corpus.sources.keys())
        if unknown:
            raise DataError(f"{path}: query {query_id!r} excludes {unknown[0]!r}, which is not in corpus.jsonl; correct its 'excluded'")
    return {query_id: ids for query_id, ids in queries.excluded.items() if query_id in judged}


def _read_items(path: Path, root: ImageRoot, queries: bool = False) -> _Items:
    """The rows of a corpus, or (`queries`) of queries, which alone have categories, excluded ids and clusters."""
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
            found.items[item_id] = _item(row, root)
        except InputError as error:
            found.failures.append(Failure(source, f"{item_id!r}: {error}"))
        if not queries:
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


def _item(row: Row, root: ImageRoot) -> Item:
    parts = [row.get("title"), row.get("text")]
    texts = [check_text(part) for part in parts if part is not None and not (isinstance(part, str) and not part.strip())]
    image = row.get("image")
    path = None if image is None or image == "" else root.find(image)
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


def _rows(
    folder: Path,
    items: Mapping[str, Item],
    categories: Mapping[str, str] = {},
    excluded: Mapping[str, frozenset[str]] = {},
    clusters: Mapping[str, str] = {},
) -> Iterator[dict[str, Any]]:
    """The lines of a corpus, or of queries."""
    for item_id, item in items.items():
        row: dict[str, Any] = {"_id": item_id, "text": item.text or ""}
        if isinstance(item.image, Path):
            row["image"] = path_from(folder, item.image)
        if item_id in categories:
            row["category"] = categories[item_id]
        if excluded.get(item_id):
            row["excluded"] = sorted(excluded[item_id])
        if item_id in clusters:
            row["cluster"] = clusters[item_id]
        yield row


def _write_qrels(path: Path, judgements: Iterable[tuple[str, str, int]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(_QRELS_COLUMNS)
        writer.writerows(judgements)
