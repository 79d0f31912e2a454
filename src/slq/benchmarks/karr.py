"""KARR-Bench: queries that name their image only by knowledge about it. Its data is not public; a copy of one's own is read.

`text` is the query; where there is none, `caption` is. An image's id is its path (or its name inside a table), a query's its `_id`, or
else its image's id, with `#1`, `#2` behind it for an image's further queries. Without qrels a query's one answer is its own image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.coco import IMAGE_PROMPT, TEXT_PROMPT
from slq.benchmarks.files import digest, good_rows, tables_of
from slq.benchmarks.images import Images, corpus_of, images_of_cells, prompted
from slq.data.judgements import QRELS_SUFFIXES, read_qrels, relevance_of
from slq.data.retrieval import RetrievalSet
from slq.data.tables import TABLE_SUFFIXES, Row
from slq.errors import DataError
from slq.types import Item

NAMES = ("karr", "test", "data", "captions")


@dataclass
class Queries:
    """Texts, categories and own images by query id."""

    texts: dict[str, str] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def load_karr(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """Both ways, scored by category too; see `Load`."""
    if data is None:
        raise DataError("the data of KARR-Bench is not public; give the folder of a copy of your own")
    tables = _tables(data)
    queries, images = _read(tables)
    judged = _judged(data, queries, images)
    files = [*tables, *_qrels_files(data)]
    templates = {"image": IMAGE_PROMPT, "text": TEXT_PROMPT} if prompts else {}
    words = {id_: prompted(Item(text), templates.get("text")) for id_, text in queries.texts.items()}
    gallery = corpus_of(images, images.paths, lambda item: prompted(item, templates.get("image")))
    answers: dict[str, dict[str, int]] = {}
    for query_id, own in judged.items():
        for image_id, score in own.items():
            if score > 0:
                answers.setdefault(image_id, {})[query_id] = score
    image_queries = {id_: gallery.get(id_) or prompted(images.item(id_), templates.get("image")) for id_ in images.paths if id_ in answers}
    category_of = {queries.images[id_]: category for id_, category in reversed(queries.categories.items())}
    sets = (
        RetrievalSet("text to image", words, gallery, judged, images.failures(), queries.categories, clusters=queries.images),
        RetrievalSet(
            "image to text",
            image_queries,
            words,
            {id_: answers[id_] for id_ in image_queries},
            images.failures(),
            {id_: category for id_, category in category_of.items() if id_ in image_queries},
            clusters={id_: id_ for id_ in image_queries},
        ),
    )
    positives = f"judgements of {files[-1].name}" if len(files) > len(tables) else "a query's one answer is its own image"
    return BenchmarkData(
        sets,
        {},
        digest(files),
        templates,
        f"KARR-Bench layout, {len(words):,} queries over {len(images.paths):,} images, both ways and by category, {positives}, "
        f"{'with' if prompts else 'without'} prompts.",
    )


def _tables(data: Path) -> list[Path]:
    """The one table by its name, or the shards of `test`, else of `train`, as the hub lays them out."""
    found = [data / f"{name}{suffix}" for name in NAMES for suffix in TABLE_SUFFIXES if (data / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(f"{data} holds {' and '.join(file.name for file in found)}; keep the one to read")
    for split in () if found else ("test", "train"):
        with suppress(DataError):  # there are shards, but of other splits
            found = found or tables_of(data, split)
    if not found:
        wanted = "karr.jsonl (.csv, .tsv, .parquet) and no data/*.parquet"
        raise DataError(f"{data} holds no {wanted}; put the table with the columns image, text, category there")
    return found


def _read(tables: Sequence[Path]) -> tuple[Queries, Images]:
    queries = Queries()
    id_of: dict[tuple[str, bytes], str] = {}  # by name and content: two images of one name in other folders are two
    taken: dict[str, int] = {}

    def rows() -> Iterator[tuple[str, object]]:
        for number, (where, row) in enumerate(one for table in tables for one in good_rows(table)):
            cell = row.get("image")
            name = cell.get("path") if isinstance(cell, Mapping) else cell
            content = cell.get("bytes") if isinstance(cell, Mapping) else None
            name = name if isinstance(name, str) and name else str(number)
            key = (name, hashlib.sha256(content).digest() if isinstance(content, bytes) else b"")
            is_new = key not in id_of
            if is_new:
                taken[name] = taken.get(name, 0) + 1
                id_of[key] = name if taken[name] == 1 else f"{name} ({taken[name]})"
            _add(queries, row, id_of[key], where)
            if is_new:
                yield id_of[key], cell

    images = images_of_cells(rows(), tables[0].parent).check("put the images where the column 'image' says")
    return queries, images


def _add(queries: Queries, row: Row, image_id: str, where: str) -> None:
    text = row.get("text") or row.get("caption")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: neither 'text' nor 'caption' holds a text; fill one in or remove the row")
    repeats = sum(own == image_id for own in queries.images.values()) if image_id in queries.texts else 0
    query_id = str(row["_id"]) if row.get("_id") not in (None, "") else image_id + (f"#{repeats}" if repeats else "")
    if query_id in queries.texts:
        raise DataError(f"{where}: repeats the id {query_id!r}; give each row its own '_id'")
    queries.texts[query_id], queries.images[query_id] = text, image_id
    if category := row.get("category"):
        queries.categories[query_id] = str(category)


def _qrels_files(data: Path) -> list[Path]:
    found = sorted(file for file in (data / "qrels").glob("*") if file.suffix.lower() in QRELS_SUFFIXES)
    chosen = [file for file in found if file.stem == "test"] or found
    if len(chosen) > 1:
        raise DataError(f"{data / 'qrels'} holds {' and '.join(file.name for file in chosen)}; name the one to read test.tsv")
    return chosen


def _judged(data: Path, queries: Queries, images: Images) -> dict[str, dict[str, int]]:
    judged: dict[str, dict[str, int]] = {}
    for file in _qrels_files(data):
        for where, query_id, image_id, score in read_qrels(file):
            for id_, known in ((query_id, queries.texts), (image_id, images.paths)):
                if id_ not in known:
                    raise DataError(f"{where}: the id {id_!r} is not in the table; add it or remove the line")
            judged.setdefault(query_id, {})[image_id] = relevance_of(score, where)
    if not judged:
        return {id_: {own: 1} for id_, own in queries.images.items()}
    for id_ in queries.texts:
        if not any(judged.get(id_, {}).values()):
            raise DataError(f"{data / 'qrels'}: no image answers the query {id_!r}; judge it or remove its row")
    return {id_: judged[id_] for id_ in queries.texts}


KARR = Benchmark(
    BenchmarkInfo(
        name="karr",
        title="KARR-Bench",
        shows="whether queries that never name the thing find its image by knowledge",
        protocol="both ways, over all and by category; a query's one answer is its own image, unless qrels name several.",
        source="not public: a copy of your own",
        licence="see the source",
        size="2,915 pairs",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test",),
        layout=(
            "    DIR/karr.jsonl            (or .csv, .tsv, .parquet)   columns image, text (or caption), category, and if you like _id\n"
            "    DIR/data/train-*.parquet  or instead, as the hub has it: the same columns, images inside\n"
            "    DIR/<image paths as the column image gives them>\n"
            "    DIR/qrels/test.tsv        if several images answer a query: query-id, corpus-id, score"
        ),
    ),
    load=load_karr,
)
