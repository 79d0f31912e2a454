"""The BEIR layout: a corpus, queries and judgements (corpus.jsonl, queries.jsonl and qrels/<split>.tsv), read and written."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from slq.data.columns import ID_COLUMNS
from slq.data.images import path_from
from slq.data.judgements import HEADER, find_qrels, read_qrels, relevance_of
from slq.data.pairs import PairFile, read_pairs
from slq.data.retrieval import RetrievalSet
from slq.data.roots import ImageRoot
from slq.data.tables import TABLE_SUFFIXES, Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, InputError, OutputExistsError, shorten
from slq.io.files import map_os_errors, write_atomic, write_jsonl
from slq.types import Item, content_hash

ExcludeSelf = Literal["id", "content", "no"]


@dataclass(frozen=True)
class _Items:
    """The usable items of a BEIR file by id; `sources` also knows the ids of those that failed."""

    items: dict[str, Item] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)
    candidates: dict[str, frozenset[str]] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)


def read_beir(
    folder: str | os.PathLike[str],
    split: str = "test",
    *,
    exclude_self: ExcludeSelf = "id",
    image_root: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
) -> RetrievalSet:
    """Read a retrieval set; queries without judgements are dropped.

    Args:
        folder: holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv; or .parquet, .csv, and the other forms of `read_qrels`. Rows have
            `_id` (or `id`), `text` and optionally `title` (corpus only, put before the text) and `image` (a path relative to the folder,
            or the image itself). Queries may have a `category` to be scored by, `excluded`, a list of corpus ids that their ranking leaves
            out, `candidates`, the only corpus ids that they are ranked against, and a `cluster`, which queries share that are not
            independent (without, those that show one image are a cluster).
        split: which of the judgements.
        exclude_self: a query that stands in the corpus itself does not find itself: the candidate of its `id` is left out of its ranking,
            as BEIR does; also those of equal `content`; or `no`, it does. What is judged an answer stays. The set's notes tell it.
        image_root: where relative image paths start, if that is not the folder.
        allow_outside: whether images may lie outside of it, or of the output of slq that it is part of.

    Returns:
        The set. Items that cannot be used are failures; negative scores, which some sets use for spam, are 0.

    Raises:
        DataError: if a file is missing, an id appears twice, or a judgement is broken or names an unknown id.
    """
    folder = Path(folder)
    if exclude_self not in ("id", "content", "no"):
        raise InputError(f"exclude_self must be 'id', 'content' or 'no', not {shorten(exclude_self)!r}")
    root = ImageRoot.of(folder, image_root, allow_outside)
    if os.path.isdir(folder):
        find_qrels(folder, split)  # before a large corpus is read in vain
    corpus = _read_items(_tables(folder, "corpus"), root)
    queries = _read_items(_tables(folder, "queries"), root, queries=True)
    qrels_files = find_qrels(folder, split)
    qrels = _read_qrels(qrels_files, queries, corpus)
    if not corpus.items:
        first = f"; the first problem is {shorten(corpus.failures[0], 400)}" if corpus.failures else ""
        raise DataError(f"no row of {shorten(_tables(folder, 'corpus')[0])} can be used{first}")
    judged = {query_id: item for query_id, item in queries.items.items() if query_id in qrels}
    if not judged:
        raise DataError(f"{qrels_files[0]} judges none of the usable queries of {folder}; check that they belong together")
    excluded = _known_ids("excluded", folder, queries.excluded, corpus, judged)
    candidates = _known_ids("candidates", folder, queries.candidates, corpus, judged)
    own = _standing_in_corpus(judged, corpus.items, qrels, exclude_self)
    told = f"queries that stand in the corpus and do not find themselves (by {exclude_self}): {len(own)}"
    return RetrievalSet(
        name=folder.resolve().name,
        queries=judged,
        corpus=corpus.items,
        qrels={query_id: qrels[query_id] for query_id in judged},
        failures=tuple(corpus.failures + queries.failures),
        categories={query_id: name for query_id, name in queries.categories.items() if query_id in judged},
        excluded={id_: excluded.get(id_, frozenset()) | own.get(id_, frozenset()) for id_ in judged if id_ in excluded or id_ in own},
        candidates={query_id: tuple(id_ for id_ in corpus.items if id_ in ids) for query_id, ids in candidates.items()},
        clusters={query_id: name for query_id, name in queries.clusters.items() if query_id in judged},
        notes=(told,) if own else (),
    )


def beir_files(folder: Path, split: str) -> list[Path]:
    """The files that `read_beir` reads.

    Args:
        folder: in BEIR layout.
        split: which of the judgements.

    Raises:
        DataError: if there are no judgements.
    """
    return [*_tables(folder, "corpus"), *_tables(folder, "queries"), *find_qrels(folder, split)]


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
    if not os.path.isdir(data) or not _tables(data, "corpus")[0].is_file():
        if reading.pop("exclude_self", "id") != "id":
            raise DataError(f"{shorten(data)} is not in BEIR layout, where a query may stand in the corpus: leave out exclude_self")
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
    candidates = {query_id: frozenset(ids) & retrieval_set.corpus.keys() for query_id, ids in retrieval_set.candidates.items()}
    queries = _rows(folder, retrieval_set.queries, retrieval_set.categories, excluded, candidates, retrieval_set.clusters)
    write_jsonl(folder / "corpus.jsonl", _rows(folder, retrieval_set.corpus))
    write_jsonl(folder / "queries.jsonl", queries)
    lines = [(query_id, *each) for query_id, judged in retrieval_set.qrels.items() for each in judged.items()]
    write_atomic(folder / "qrels" / f"{split}.tsv", lambda path: _write_qrels(path, lines))


def _tables(folder: Path, name: str) -> list[Path]:
    """The table of a corpus or of queries, beside the judgements or in a folder of its own as the hub has them; .jsonl if there is none.

    Raises:
        DataError: if there is one in each of two formats.
    """
    beside = [folder / f"{name}{suffix}" for suffix in TABLE_SUFFIXES if os.path.isfile(folder / f"{name}{suffix}")]
    below = folder / name
    found = beside or [file for suffix in ("parquet", "jsonl") if os.path.isdir(below) for file in sorted(below.glob(f"*.{suffix}"))]
    if len(beside) > 1:
        raise DataError(f"{folder} holds {' and '.join(file.name for file in beside)}; keep the one to read")
    return [file for file in found if file.suffix == found[0].suffix] or [folder / f"{name}.jsonl"]


def _known_ids(
    column: str, folder: Path, named: Mapping[str, frozenset[str]], corpus: _Items, judged: Mapping[str, Item]
) -> dict[str, frozenset[str]]:
    """The corpus ids that judged queries name in a column."""
    (path, *_), (corpus_file, *_) = _tables(folder, "queries"), _tables(folder, "corpus")
    does = {"excluded": "excludes", "candidates": "has the candidate"}[column]
    for query_id, ids in named.items():
        unknown = sorted(ids - corpus.sources.keys())
        if unknown:
            raise DataError(f"{path}: query {query_id!r} {does} {unknown[0]!r}, which is not in {corpus_file.name}; correct its {column!r}")
    return {query_id: ids for query_id, ids in named.items() if query_id in judged}


def _standing_in_corpus(
    queries: Mapping[str, Item], corpus: Mapping[str, Item], qrels: Mapping[str, Mapping[str, int]], by: ExcludeSelf
) -> dict[str, frozenset[str]]:
    """Each query's own candidates: of its id, and if asked for of equal content; but none that is judged an answer."""
    copies: dict[str, set[str]] = {query_id: {query_id} & corpus.keys() for query_id in queries} if by != "no" else {}
    if by == "content":
        ids_of: dict[str | None, set[str]] = {}
        for corpus_id, item in corpus.items():
            ids_of.setdefault(content_hash(item), set()).add(corpus_id)
        for query_id, item in queries.items():
            content = content_hash(item)
            copies[query_id] |= ids_of.get(content, set()) if content is not None else set()
    own = {query_id: frozenset(id_ for id_ in ids if not qrels[query_id].get(id_)) for query_id, ids in copies.items()}
    return {query_id: ids for query_id, ids in own.items() if ids}


def _read_items(paths: Sequence[Path], root: ImageRoot, queries: bool = False) -> _Items:
    """The rows of a corpus, or (`queries`) of queries, which alone have categories, corpus ids and clusters."""
    found = _Items()
    for path in paths:
        _read_table(path, root, queries, found)
    return found


def _read_table(path: Path, root: ImageRoot, queries: bool, found: _Items) -> None:
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            found.failures.append(Failure(source, str(row).removeprefix(f"{source}: ")))
            continue
        item_id = next((row[name] for name in ID_COLUMNS if row.get(name) is not None), None)
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
        if excluded := _ids(row, "excluded" if "excluded" in row else "masked", source):  # as it was called before
            found.excluded[item_id] = excluded
        if candidates := _ids(row, "candidates", source):
            found.candidates[item_id] = candidates


def _name(row: Row, column: str, source: str) -> str | None:
    """The name that a column holds; None without one."""
    name = row.get(column)
    if name is None or (isinstance(name, str) and not name.strip()):
        return None
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise DataError(f"{source}: {column!r} must be a name, not {name!r}")
    return str(name)


def _ids(row: Row, column: str, source: str) -> frozenset[str]:
    """The corpus ids that a column lists; none without it."""
    listed = row.get(column)
    if listed is None:
        return frozenset()
    if not isinstance(listed, list) or not all(isinstance(id_, str | int) and not isinstance(id_, bool) for id_ in listed):
        raise DataError(f"{source}: {column!r} must be a list of corpus ids, not {shorten(repr(listed))}")
    return frozenset(str(id_) for id_ in listed)


def _item(row: Row, root: ImageRoot) -> Item:
    parts = [row.get("title"), row.get("text")]
    texts = [check_text(part) for part in parts if part is not None and not (isinstance(part, str) and not part.strip())]
    image = row["image"] if row.get("image") is not None else row.get("images")
    path = None if image is None or image == "" else root.find(image)
    if path is not None and not texts:
        return Item(image=path)
    return Item(check_text(" ".join(texts)), path)


def _read_qrels(paths: Sequence[Path], queries: _Items, corpus: _Items) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for source, query_id, corpus_id, score in (each for path in paths for each in read_qrels(path)):
        for item_id, known, name in ((query_id, queries, "queries"), (corpus_id, corpus, "corpus")):
            if item_id not in known.sources:
                lost = f" ({len(known.failures)} of its rows failed)" if known.failures else ""
                raise DataError(f"{source}: the id {shorten(item_id)!r} is not in {name}.jsonl{lost}; add it or remove the line")
        relevance = relevance_of(score, source)
        if qrels.setdefault(query_id, {}).setdefault(corpus_id, relevance) != relevance:
            raise DataError(f"{source}: judges {query_id!r} and {corpus_id!r} again with another score; keep one of the lines")
    return qrels


def _rows(
    folder: Path,
    items: Mapping[str, Item],
    categories: Mapping[str, str] = {},
    excluded: Mapping[str, frozenset[str]] = {},
    candidates: Mapping[str, frozenset[str]] = {},
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
        if candidates.get(item_id):
            row["candidates"] = sorted(candidates[item_id])
        if item_id in clusters:
            row["cluster"] = clusters[item_id]
        yield row


def _write_qrels(path: Path, judgements: Iterable[tuple[str, str, int]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(HEADER.split())
        writer.writerows(judgements)
