"""FashionIQ: an image of a garment and two remarks on how another differs find that other, for dresses, shirts and tops.

A local copy is github.com/XiaoxiaoGuo/fashion-iq with the images that its lists of addresses name; `layout` below shows it.

Variants. `original`: the gallery is the whole split. `val`: it is only the images that queries name, an easier task with higher
scores. Each query is read with its remarks in either order, and the states of both are added before they are brought to length 1, as SLQ
and E5-V do; `original-one-order`, `val-one-order`: only in the order of the file. The image that a query starts from stays in the gallery,
as in the papers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import digest, field, good_rows, read_json, tables_of, texts
from slq.benchmarks.hub import fetch
from slq.benchmarks.images import ImageFolders, Images, corpus_of, images_of_cells, part_of, prompted
from slq.data.retrieval import RetrievalSet
from slq.errors import DataError
from slq.types import Item

CATEGORIES = ("dress", "shirt", "toptee")
VARIANTS = ("original", "val", "original-one-order", "val-one-order")
PROMPTS = {
    "query": "Change the style of this {category} to {text}. Describe this modified {category} in one word based on its style:",
    "corpus": "Describe this {category} in one word based on its style:",
}
PROMPT_NAMES = {"toptee": "shirt"}  # E5-V's word for a category whose own name is none
FOLDERS = ("images", "")
SUFFIXES = (".jpg", ".png", ".jpeg")
HUB_IDS = ("royokong/fashioniq_val", "royokong/fashioniq_val_imgs")
PUBLISHED = {
    "original": {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)},
    "val": {"dress": (2017, 2628), "shirt": (2038, 3089), "toptee": (1961, 2902)},
}


@dataclass(frozen=True)
class FashionIqQuery:
    """The image a query starts from, the image it looks for, and two remarks on how they differ."""

    candidate: str
    target: str
    captions: tuple[str, str]


@dataclass(frozen=True)
class Category:
    """Queries and images of one kind of garment."""

    name: str
    queries: Sequence[FashionIqQuery]
    images: Images


def load_fashioniq(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """One set a category (two with both orders) and their average; see `Load`."""
    if data is None:
        folders, found_revision = fetch(HUB_IDS, revision)
        categories = _from_hub(*folders)
    else:
        categories = [_from_files(data, name) for name in CATEGORIES]
        found_revision = digest(file for name in CATEGORIES for file in _files(data, name))
    gallery, _, one_order = variant.partition("-")
    templates = PROMPTS if prompts else {}
    sets = tuple(_set(each, gallery, templates, both=not one_order) for each in categories)
    found: dict[str, int] = {}
    published: dict[str, int] = {}
    for each, (queries, images) in zip(categories, PUBLISHED[gallery].values(), strict=True):
        published |= {f"queries of {each.name}": queries, f"images of {each.name}": images}
        found |= {f"queries of {each.name}": len(each.queries), f"images of {each.name}": len(_gallery(each, gallery))}
    kind = "the whole split" if gallery == "original" else "only the images that queries name (the easier VAL split)"
    order = "remarks in the order of the file" if one_order else "the states of both orders of the remarks added"
    prompted = "with prompts ('shirt' for toptee, as E5-V)" if prompts else "without prompts"
    return BenchmarkData(
        sets,
        {"average": tuple(one.name for one in sets)},
        found_revision,
        templates,
        f"FashionIQ, validation queries, gallery of {kind}, {order}, reference image not masked, hit@k is the papers' R@k; "
        f"{prompted}{part_of(found, published)}.",
    )


def _set(category: Category, gallery: str, templates: Mapping[str, str], both: bool) -> RetrievalSet:
    ids = _gallery(category, gallery)
    corpus_template = _template(templates, "corpus", category)
    corpus = corpus_of(category.images, ids, lambda item: prompted(item, corpus_template))
    qrels = {f"{category.name} {number}": {query.target: 1} for number, query in enumerate(category.queries)}
    garment_of = {f"{category.name} {number}": query.candidate for number, query in enumerate(category.queries)}
    return RetrievalSet(
        category.name,
        _queries(category, templates),
        corpus,
        qrels,
        category.images.failures(ids),
        depths=(10, 50),
        clusters=garment_of,
        added=_queries(category, templates, swapped=True) if both else {},
    )


def _queries(category: Category, templates: Mapping[str, str], swapped: bool = False) -> dict[str, Item]:
    template = _template(templates, "query", category)
    found = {}
    for number, query in enumerate(category.queries):
        remarks = query.captions[::-1] if swapped else query.captions
        text = ", ".join(remark.strip(" .?,") for remark in remarks)
        found[f"{category.name} {number}"] = prompted(category.images.item(query.candidate, text), template)
    return found


def _template(templates: Mapping[str, str], role: str, category: Category) -> str | None:
    template = templates.get(role)
    return template and template.replace("{category}", PROMPT_NAMES.get(category.name, category.name))


def _gallery(category: Category, gallery: str) -> list[str]:
    if gallery == "original":
        return list(category.images.paths)
    named = {name for query in category.queries for name in (query.candidate, query.target)}
    return [id_ for id_ in category.images.paths if id_ in named]


def _files(data: Path, category: str) -> tuple[Path, Path]:
    return data / "captions" / f"cap.{category}.val.json", data / "image_splits" / f"split.{category}.val.json"


def _from_files(data: Path, category: str) -> Category:
    captions, split = _files(data, category)
    clone = "clone github.com/XiaoxiaoGuo/fashion-iq there"
    names = read_json(split, list, clone)
    if not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{split}: the entries must be names of images; fetch the file again")
    entries = read_json(captions, list, clone)
    queries = [_query(entry, f"{captions}, entry {number}", "candidate", "target", "captions") for number, entry in enumerate(entries)]
    found = ImageFolders(data, FOLDERS).locate({name: [name + suffix for suffix in SUFFIXES] for name in names})
    return _checked(Category(category, queries, found.check("fetch the images that image_url names")), str(captions), split.name)


def _query(entry: object, where: str, candidate: str, target: str, captions: str) -> FashionIqQuery:
    if isinstance(entry, Mapping) and target not in entry:
        raise DataError(f"{where}: there is no {target!r}, as in the test split, whose labels are hidden; use the validation split")
    words = texts(entry, captions, where)
    if len(words) != 2:
        raise DataError(f"{where}: a query has two captions, not {len(words)}; fetch the file again")
    return FashionIqQuery(field(entry, candidate, str, where), field(entry, target, str, where), (words[0], words[1]))


def _checked(category: Category, where: str, gallery: str) -> Category:
    for query in category.queries:
        for name in (query.candidate, query.target):
            if name not in category.images:
                raise DataError(f"{where}: the image {name} is not in {gallery}; take both from one version")
    return category


def _from_hub(annotations: Path, image_folder: Path) -> list[Category]:
    queries: dict[str, list[FashionIqQuery]] = {name: [] for name in CATEGORIES}
    for where, row in _rows(annotations):
        name = field(row, "category", str, where)
        if name in queries:
            queries[name].append(_query(row, where, "candidate_id", "target_id", "caption"))

    def cells() -> Iterator[tuple[str, object]]:
        for where, row in _rows(image_folder):
            yield f"{field(row, 'category', str, where)} {field(row, 'id', str, where)}", row.get("img")

    all_images = images_of_cells(cells(), image_folder).check("fetch the data set again")
    categories = []
    for name, own in queries.items():
        if not own:
            raise DataError(f"{annotations} has no queries of the category {name!r}; fetch {HUB_IDS[0]} again")
        images = Images()
        for id_, path in all_images.paths.items():
            if id_.startswith(f"{name} "):
                images.paths[id_.removeprefix(f"{name} ")] = path
        images.faults = {id_: all_images.faults[f"{name} {id_}"] for id_ in images.paths if f"{name} {id_}" in all_images.faults}
        categories.append(_checked(Category(name, own, images), HUB_IDS[0], HUB_IDS[1]))
    return categories


def _rows(folder: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for file in tables_of(folder, "val"):
        yield from good_rows(file)


FASHIONIQ = Benchmark(
    BenchmarkInfo(
        name="fashioniq",
        title="FashionIQ",
        shows="whether an image of a garment with two remarks finds the garment they describe",
        protocol="validation queries of dress, shirt and toptee, each over its own gallery, and the average; the reference image stays. "
        "original: the whole split as gallery; val: only the images that queries name, which inflates; -one-order: remarks as in the file.",
        source="royokong/fashioniq_val and royokong/fashioniq_val_imgs on the hub; or github.com/XiaoxiaoGuo/fashion-iq with the images",
        licence="see the source",
        size="6,016 queries, 15,536 images",
        headline=("hit@10", "hit@50"),
        variants=VARIANTS,
        layout=(
            "    DIR/captions/cap.dress.val.json        and for shirt, toptee\n"
            "    DIR/image_splits/split.dress.val.json\n"
            "    DIR/images/B008BHCT58.jpg ...          (or .png; or beside the folders)"
        ),
        prompts=True,
    ),
    load=load_fashioniq,
)
