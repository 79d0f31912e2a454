"""MMEB v1: 36 tasks (classification, VQA, retrieval, grounding), each query with its own list of candidates.

A local copy has a folder per task with its table, and the images beside them, unpacked or not; `layout` below shows it.

With the columns qry_inst and tgt_inst the instructions of the paper are switchable; without them they already stand in the texts.

The right answer is the first candidate of every list. Here candidates get ids, and the lists and the corpus are shuffled with a fixed
seed, so that no order can help; a candidate that equals the right answer is the right answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import digest, good_rows, tables_of
from slq.benchmarks.hub import fetch
from slq.benchmarks.images import ImageFolders, Images
from slq.data.retrieval import RetrievalSet
from slq.data.tables import Row
from slq.errors import DataError, Failure
from slq.types import Item

GROUPS: dict[str, tuple[str, ...]] = {
    "classification": tuple("ImageNet-1K N24News HatefulMemes VOC2007 SUN397 Place365 ImageNet-A ImageNet-R ObjectNet Country211".split()),
    "vqa": tuple("OK-VQA A-OKVQA DocVQA InfographicsVQA ChartQA Visual7W ScienceQA VizWiz GQA TextVQA".split()),
    "retrieval": tuple(
        "VisDial CIRR VisualNews_t2i VisualNews_i2t MSCOCO_t2i MSCOCO_i2t NIGHTS WebQA FashionIQ Wiki-SS-NQ OVEN EDIS".split()
    ),
    "grounding": tuple("MSCOCO RefCOCO RefCOCO-Matching Visual7W-Pointing".split()),
}
# Tasks that MMEB's training data covers, and those that it leaves for the test alone.
IN_DISTRIBUTION = tuple(
    "ImageNet-1K N24News HatefulMemes VOC2007 SUN397 OK-VQA A-OKVQA DocVQA InfographicsVQA ChartQA Visual7W VisDial CIRR VisualNews_t2i "
    "VisualNews_i2t MSCOCO_t2i MSCOCO_i2t NIGHTS WebQA MSCOCO".split()
)
SUBSETS = tuple(name for names in GROUPS.values() for name in names)
VARIANTS = ("all", *GROUPS)
HUB_ID = "TIGER-Lab/MMEB-eval"
FOLDERS = ("", "images", "eval_images")
ARCHIVE = "images.zip"
MARKER = "<|image_1|>"
SEED = 0
PROMPTS = {"query": "{qry_inst} {qry_text}", "corpus": "{tgt_inst} {tgt_text}"}

Key = tuple[str, str]  # a text and the path of an image, either of them empty


@dataclass
class MmebTask:
    """The rows of one task: queries, and the candidates of each, the right one first."""

    queries: list[Key] = field(default_factory=list)
    candidates: list[list[Key]] = field(default_factory=list)

    def image_names(self) -> list[str]:
        """Every image that is named, once."""
        keys = (*self.queries, *(key for each in self.candidates for key in each))
        return list(dict.fromkeys(image for _, image in keys if image))


def load_mmeb(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """The tasks that the copy has, of all groups or of one; see `Load`."""
    commit = None
    if data is None:
        (data,), commit = fetch([HUB_ID], revision)
    chosen = dict(GROUPS) if variant == "all" else {variant: GROUPS[variant]}
    files = {
        name: tables for names in chosen.values() for name in names if (tables := tables_of(data / name, "test", (".parquet", ".jsonl")))
    }
    if not files:
        raise DataError(
            f"{data} holds none of MMEB's tables (such as {next(iter(chosen.values()))[0]}/test-*.parquet); give the folder that does"
        )
    folders = ImageFolders(data, FOLDERS, ARCHIVE)
    instructed = True
    sets = []
    for name, tables in files.items():
        task, has_instructions = _read(tables, prompts)
        instructed &= has_instructions
        sets.append(_set(name, task, folders))
    if prompts and instructed:
        wording = "with MMEB's instructions"
    else:
        wording = "without instructions" if instructed else "with the instructions that stand in the texts"
    missing = len([name for names in chosen.values() for name in names if name not in files])
    incomplete = f"; NOT the published data: {missing} of {len(files) + missing} tasks are missing" if missing else ""
    return BenchmarkData(
        tuple(sets),
        _groups(chosen, files, variant),
        commit or digest(file for tables in files.values() for file in tables),
        PROMPTS if prompts and instructed else {},
        f"MMEB v1, {'all groups' if variant == 'all' else variant}, {len(files)} tasks, hit@1 in each query's own candidates (shuffled, "
        f"ties count as missed), groups are means over tasks, {wording}{incomplete}.",
    )


def _groups(chosen: Mapping[str, Sequence[str]], files: Iterable[str], variant: str) -> dict[str, tuple[str, ...]]:
    """Groups with their tasks; one that is incomplete says so in its name."""
    groups = dict(chosen)
    if variant == "all":
        outside = tuple(name for name in SUBSETS if name not in IN_DISTRIBUTION)
        groups |= {"in distribution": IN_DISTRIBUTION, "out of distribution": outside, "overall": SUBSETS}
    found = {}
    for group, names in groups.items():
        there = tuple(name for name in names if name in files)
        if there:
            found[group if len(there) == len(names) else f"{group} ({len(there)} of {len(names)})"] = there
    return found


def _read(files: Sequence[Path], prompts: bool) -> tuple[MmebTask, bool]:
    """The task, and whether its instructions stand in columns of their own."""
    task = MmebTask()
    instructed = True
    known: dict[Key, Key] = {}  # most candidates stand in hundreds of lists: each is held once
    for file in files:
        for where, row in good_rows(file):
            where = f"{file.parent.name}/{where}"
            if missing := [name for name in ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path") if name not in row]:
                raise DataError(f"{where}: the column {missing[0]!r} is missing (there are {', '.join(row)}); fetch the table again")
            instructed &= "qry_inst" in row and "tgt_inst" in row
            texts, images = _values(row["tgt_text"], where), _values(row["tgt_img_path"], where)
            if images and texts and len(texts) != len(images):
                raise DataError(f"{where}: {len(texts)} texts and {len(images)} images as candidates; fetch the table again")
            count = max(len(texts), len(images))
            if count < 2:
                raise DataError(f"{where}: {count} candidate(s), where the right one stands among others; fetch the table again")
            pairs = zip(texts or [""] * count, images or [""] * count, strict=True)
            keys = [_key(row, "tgt_inst", text, image, prompts, where) for text, image in pairs]
            task.candidates.append([known.setdefault(key, key) for key in keys])
            task.queries.append(_key(row, "qry_inst", row["qry_text"], row["qry_img_path"], prompts, where))
    return task, instructed


def _values(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(each is None or isinstance(each, str) for each in values):
        raise DataError(f"{where}: the candidates must be texts and paths, not {values[:3]!r}; fetch the table again")
    return [each or "" for each in values]


def _key(row: Row, instruction: str, text: Any, image: Any, prompts: bool, where: str) -> Key:
    parts = [row.get(instruction) or "" if prompts else "", text or ""]
    if not all(isinstance(part, str) for part in (*parts, image or "")):
        raise DataError(f"{where}: a query and its instruction must be texts, and an image a path; fetch the table again")
    words = " ".join(stripped for part in parts if (stripped := part.replace(MARKER, "").strip()))
    if not words and not image:
        raise DataError(f"{where}: an item has neither text nor image; fetch the table again")
    return words, image or ""


def _set(name: str, task: MmebTask, folders: ImageFolders) -> RetrievalSet:
    images = folders.locate({image: [image] for image in task.image_names()})
    images.check(f"unpack {ARCHIVE} of {HUB_ID} beside the folder {name}")
    keys = list(dict.fromkeys(key for each in task.candidates for key in each))
    random.Random(f"{name} {SEED}").shuffle(keys)
    id_of = {key: f"candidate {number}" for number, key in enumerate(keys)}
    corpus: dict[str, Item] = {}
    failures: list[Failure] = []
    for key, id_ in id_of.items():
        if fault := images.faults.get(key[1]):
            failures.append(Failure(id_, fault))
        else:
            corpus[id_] = _item(key, images)
    queries, qrels, candidates = {}, {}, {}
    for number, (query, keys) in enumerate(zip(task.queries, task.candidates, strict=True)):
        query_id = f"query {number}"
        queries[query_id] = _item(query, images)
        if fault := images.faults.get(query[1]):
            failures.append(Failure(query_id, fault))
        qrels[query_id] = {id_of[keys[0]]: 1}
        ids = [id_ for id_ in dict.fromkeys(id_of[key] for key in keys) if id_ in corpus]
        random.Random(f"{name} {number} {SEED}").shuffle(ids)
        candidates[query_id] = tuple(ids)
    image_of = {f"query {number}": f"{name} {image}" for number, (_, image) in enumerate(task.queries) if image}
    return RetrievalSet(name, queries, corpus, qrels, tuple(failures), candidates=candidates, depths=(1,), clusters=image_of)


def _item(key: Key, images: Images) -> Item:
    text, image = key
    return images.item(image, text or None) if image else Item(text)


MMEB = Benchmark(
    BenchmarkInfo(
        name="mmeb",
        title="MMEB v1",
        shows="36 tasks made into retrieval: classification, question answering, retrieval and grounding",
        protocol="hit@1 inside each query's own candidates (usually 1,000), shuffled; overall is the mean over the 36 tasks, in and out "
        "of distribution those over the 20 tasks of its training data and the 16 others. Texts of up to 256 tokens are read.",
        source="TIGER-Lab/MMEB-eval on the hub, or a copy of it",
        licence="see the source; each task has its own",
        size="36 tasks, usually 1,000 queries each",
        headline=("hit@1",),
        variants=VARIANTS,
        layout=(
            "    DIR/ImageNet-1K/test-00000-of-00001.parquet    (or test.jsonl)   columns qry_text, qry_img_path, tgt_text, tgt_img_path\n"
            "    DIR/images.zip                                 (or the images below DIR/, DIR/images/ or DIR/eval_images/)"
        ),
        max_length=256,
    ),
    load=load_mmeb,
)
