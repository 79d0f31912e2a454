"""CIRR: an image and a change in words find another image, in the whole gallery and among the five others of the image's group.

A local copy is the `cirr_dataset` branch of github.com/Cuberick-Orion/CIRR with the images (NLVR2's) beside it; `layout` below shows it.

The labels of the test split are hidden: the variant `test` gives its queries without judgements (cap.rc2.test1.json, split.rc2.test1.json,
DIR/test1/...), and `slq eval --benchmark cirr --variant test --submission FOLDER` ranks them and writes the files that the evaluation
server takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import digest, field, good_rows, read_json, tables_of, texts
from slq.benchmarks.hub import fetch
from slq.benchmarks.images import ImageFolders, Images, corpus_of, images_of_cells, part_of, prompted
from slq.data.retrieval import RetrievalSet
from slq.errors import DataError, InputError
from slq.io.files import map_os_errors, write_text

PROMPTS = {
    "query": "Modify this image with {text}. Describe modified image in one word:",
    "corpus": "Describe this image in one word:",
}
FOLDERS = ("", "images", "img_raw")
HUB_IDS = ("royokong/cirr_val", "royokong/cirr_imgs")
GROUP = 5  # others in an image's group
PUBLISHED = {"queries": 4181, "images": 2297}
SUBMISSION_DEPTHS = {"recall": 50, "recall_subset": 3}
NAMES = {"recall": "CIRR", "recall_subset": "CIRR subset"}


@dataclass(frozen=True)
class CirrQuery:
    """One line of a caption file. others: the rest of the reference's group, empty where the copy does not tell it."""

    id: str
    reference: str
    caption: str
    target: str | None
    others: tuple[str, ...]


def load_cirr(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """CIRR and the CIRR subset of a split; see `Load`."""
    if variant == "test" and data is None:
        raise DataError("the test split of 'cirr' is read from a local copy; give its folder, as `slq benchmarks cirr` shows it")
    if data is None:
        folders, found_revision = fetch(HUB_IDS, revision, (None, "*val*"))
        queries, images = _from_hub(*folders)
    else:
        files = _files(data, "val" if variant == "val" else "test1")
        queries, images, found_revision = *_from_files(*files, data), digest(files)
    templates = PROMPTS if prompts else {}
    sets = _sets(queries, images, templates)
    subset = (
        "Recall_subset among the five others of the group" if len(sets) == 2 else "the copy names no groups, so Recall_subset is left out"
    )
    note = part_of({"queries": len(queries), "images": len(images.paths)}, PUBLISHED) if variant == "val" else "; the labels are hidden"
    return BenchmarkData(
        sets,
        {},
        found_revision,
        templates,
        f"CIRR rc2, {'validation' if variant == 'val' else 'test'} split, {len(queries):,} queries over {len(images.paths):,} images, the "
        f"reference image masked, captions as they stand, hit@k is the papers' Recall@k; {subset}; "
        f"{'with' if prompts else 'without'} prompts{note}.",
    )


def write_cirr_submission(folder: Path, ranked: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Path]:
    """Write what CIRR's evaluation server takes, one file for each metric.

    Args:
        folder: made if it is not there.
        ranked: set of the test split (`CIRR`, `CIRR subset`) -> query id -> names of images, best first, without the query's own image. The
            first 50 and the first 3 are written.

    Returns:
        The files.

    Raises:
        InputError: for another set, too few names or a name that comes twice.
        OutputError: if the folder cannot be written.
    """
    contents: dict[str, dict[str, Any]] = {}
    metric_of = {name: metric for metric, name in NAMES.items()}
    for name, rankings in ranked.items():
        if name not in metric_of:
            raise InputError(f"CIRR has no set {name!r}; use {' or '.join(metric_of)}")
        metric = metric_of[name]
        depth = SUBMISSION_DEPTHS[metric]
        for query_id, names in rankings.items():
            if len(names) < depth or len(set(names[:depth])) < depth:
                raise InputError(f"{name} needs {depth} different images for each query, and {query_id!r} has fewer; rank more")
        best = {query_id: list(names[:depth]) for query_id, names in rankings.items()}
        contents[metric] = {"version": "rc2", "metric": metric, **best}
    with map_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    for metric, content in contents.items():
        files.append(folder / f"cirr_{metric}.json")
        write_text(files[-1], json.dumps(content) + "\n")
    return files


def _sets(queries: Sequence[CirrQuery], images: Images, templates: Mapping[str, str]) -> tuple[RetrievalSet, ...]:
    """Over the whole gallery, and, where groups are known, over each query's group."""
    prompted_queries = {each.id: prompted(images.item(each.reference, each.caption), templates.get("query")) for each in queries}
    gallery = corpus_of(images, images.paths, lambda item: prompted(item, templates.get("corpus")))
    qrels = {each.id: {each.target: 1} if each.target else {} for each in queries}
    failures = images.failures()
    excluded = {each.id: frozenset({each.reference}) for each in queries}
    of = {each.id: each.reference for each in queries}
    whole = RetrievalSet(NAMES["recall"], prompted_queries, gallery, qrels, failures, excluded=excluded, depths=(1, 5, 10, 50), clusters=of)
    if not all(each.others for each in queries):
        return (whole,)
    candidates = {each.id: tuple(images.found(each.others)) for each in queries}
    subset = RetrievalSet(
        NAMES["recall_subset"], prompted_queries, gallery, qrels, failures, candidates=candidates, depths=(1, 2, 3), clusters=of
    )
    return whole, subset


def _files(data: Path, split: str) -> tuple[Path, Path]:
    return data / "captions" / f"cap.rc2.{split}.json", data / "image_splits" / f"split.rc2.{split}.json"


def _from_files(captions: Path, gallery: Path, data: Path) -> tuple[list[CirrQuery], Images]:
    clone = "clone the branch cirr_dataset of github.com/Cuberick-Orion/CIRR there"
    names = read_json(gallery, dict, clone)
    if not all(isinstance(path, str) for path in names.values()):
        raise DataError(f"{gallery}: the values must be paths of images; fetch the file again")
    entries = read_json(captions, list, clone)
    hidden = "test" in captions.name
    queries = [_query(entry, f"{captions}, entry {number}", names, hidden) for number, entry in enumerate(entries)]
    if len({query.id for query in queries}) < len(queries):
        raise DataError(f"{captions}: a 'pairid' comes twice; fetch the file again")
    found = ImageFolders(data, FOLDERS).locate({name: [path.removeprefix("./")] for name, path in names.items()})
    return queries, found.check("fetch NLVR2's images as CIRR's README says")


def _query(entry: object, where: str, gallery: Mapping[str, str], hidden: bool) -> CirrQuery:
    if not hidden and isinstance(entry, Mapping) and "target_hard" not in entry:
        raise DataError(f"{where}: there is no 'target_hard', as in the test split, whose labels are hidden; use cap.rc2.val.json")
    members = texts(field(entry, "img_set", dict, where), "members", where)
    reference = field(entry, "reference", str, where)
    target = None if hidden else field(entry, "target_hard", str, where)
    others = tuple(dict.fromkeys(name for name in members if name != reference))
    if len(others) != GROUP or (target is not None and target not in others):
        raise DataError(
            f"{where}: the group must hold the reference, the target and four more, not {', '.join(members)}; fetch the file again"
        )
    for name in (reference, *others):
        if name not in gallery:
            raise DataError(f"{where}: the image {name} is not in the split file; take both files from one version")
    return CirrQuery(str(field(entry, "pairid", int, where)), reference, field(entry, "caption", str, where), target, others)


def _from_hub(annotations: Path, image_folder: Path) -> tuple[list[CirrQuery], Images]:
    def cells() -> Iterator[tuple[str, object]]:
        for file in tables_of(image_folder, "val"):
            for where, row in good_rows(file):
                yield field(row, "id", str, where), row.get("img")

    images = images_of_cells(cells(), image_folder).check("fetch the data set again")
    queries: list[CirrQuery] = []
    for file in tables_of(annotations, "val"):
        for where, row in good_rows(file):
            reference, target = field(row, "candidate_id", str, where), field(row, "target_id", str, where)
            for name in (reference, target):
                if name not in images:
                    raise DataError(f"{where}: the image {name} is not in {HUB_IDS[1]}; take both at matching revisions")
            group = row.get("group")
            others = tuple(name for name in group if name != reference) if isinstance(group, list) else ()
            known = len(others) == GROUP and target in others and all(name in images for name in others)
            id_ = str(row.get("pairid", len(queries)))
            queries.append(CirrQuery(id_, reference, field(row, "caption", str, where), target, others if known else ()))
    if not queries:
        raise DataError(f"{annotations} holds no queries; fetch {HUB_IDS[0]} again")
    return queries, images


CIRR = Benchmark(
    BenchmarkInfo(
        name="cirr",
        title="CIRR",
        shows="whether an image with a change in words finds the changed image",
        protocol="rc2 validation split; the reference image is masked; hit@1/5/10/50 over the gallery is Recall@k, hit@1/2/3 among the "
        "five others of its group is Recall_subset@k.",
        source="royokong/cirr_val and royokong/cirr_imgs on the hub; or github.com/Cuberick-Orion/CIRR, branch cirr_dataset, with NLVR2's "
        "images",
        licence="see the source",
        size="4,181 queries, 2,297 images",
        headline=("hit@1", "hit@5", "hit@10", "hit@50"),
        variants=("val", "test"),
        layout=(
            "    DIR/captions/cap.rc2.val.json\n"
            "    DIR/image_splits/split.rc2.val.json\n"
            "    DIR/dev/dev-1028-1-img1.png ...          (or DIR/images/dev/..., DIR/img_raw/dev/...)"
        ),
        prompts=True,
    ),
    load=load_cirr,
    submit=write_cirr_submission,
    submission_depth=max(SUBMISSION_DEPTHS.values()),
)
