"""COCO 5K and Flickr30K 1K, images and their captions both ways.

A local copy is Karpathy's file beside the images, or tables as on the hub (columns `image`, and `text` with a
list of captions); `layout` below shows it.

Text to image: a caption's one answer is its own image. Image to text: any caption of the image; a caption that another image has
word for word counts too, since nothing can tell the two apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import digest, good_rows, tables_of, texts
from slq.benchmarks.hub import fetch
from slq.benchmarks.images import ImageFolders, Images, corpus_of, images_of_cells, part_of, prompted
from slq.data.karpathy import IMAGE_FOLDERS, read_karpathy
from slq.data.retrieval import RetrievalSet
from slq.errors import DataError, Failure
from slq.types import Item

IMAGE_PROMPT = "Summary above image in one word:"
TEXT_PROMPT = "{text}\nSummary above sentence in one word:"
VARIANTS = ("five", "all")


@dataclass(frozen=True)
class Source:
    """Where the images and captions of one benchmark come from, and how many there are when all are there."""

    title: str
    karpathy: str
    hub_id: str
    images: int
    captions: int


SOURCES = {
    "coco": Source("COCO 5K", "dataset_coco.json", "royokong/coco_test", 5000, 25_010),
    "flickr30k": Source("Flickr30K 1K", "dataset_flickr30k.json", "royokong/flickr30k_test", 1000, 5000),
}


@dataclass(frozen=True)
class Captions:
    """Images, and the captions of each by its id."""

    images: Images
    of_image: Mapping[str, tuple[str, ...]]
    revision: str
    note: str

    def texts(self) -> dict[str, str]:
        """Caption by caption id, `<image>#<number>`."""
        return {f"{id_}#{number}": text for id_, own in self.of_image.items() for number, text in enumerate(own)}


def load_captions(name: str, data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """COCO or Flickr30K as two sets.

    Args:
        name: which of the two; for the others see `Load`.
        data: see `Load`.
        variant: see `Load`.
        prompts: see `Load`.
        revision: see `Load`.

    Raises:
        DataError: if the copy is not as it should be.
    """
    captions = read_captions(name, data, variant, revision)
    templates = {"image": IMAGE_PROMPT, "text": TEXT_PROMPT} if prompts else {}
    words = {id_: prompted(Item(text), templates.get("text")) for id_, text in captions.texts().items()}
    return BenchmarkData(
        both_ways(captions, words, templates.get("image"), ("text to image", "image to text")),
        {},
        captions.revision,
        templates,
        f"{described(name, captions, variant)}, both ways, {prompts_told(prompts)}{captions.note}.",
    )


def described(name: str, captions: Captions, variant: str) -> str:
    """The beginning of a protocol: which images and captions.

    Args:
        name: `coco` or `flickr30k`.
        captions: what is scored.
        variant: `five` for the first five captions of an image.
    """
    kept = "the first five captions of each" if variant == "five" else "all captions"
    count, words = len(captions.of_image), sum(map(len, captions.of_image.values()))
    return f"{SOURCES[name].title}, Karpathy's test split, {count:,} images with {kept} ({words:,})"


def prompts_told(prompts: bool) -> str:
    """The end of a protocol: whether there are prompts.

    Args:
        prompts: whether the papers' prompts stand around the items.
    """
    return "with E5-V's prompts" if prompts else "without prompts"


def both_ways(
    captions: Captions, words: Mapping[str, Item], image_prompt: str | None, names: tuple[str, str]
) -> tuple[RetrievalSet, RetrievalSet]:
    """Text to image and image to text; a caption that several images share is relevant to all of them.

    Args:
        captions: of the test split.
        words: the captions as items, by caption id.
        image_prompt: put around images; None for none.
        names: of the two sets.
    """
    images = captions.images
    own = {id_: [f"{id_}#{number}" for number in range(len(texts))] for id_, texts in captions.of_image.items()}
    alike: dict[str, dict[str, int]] = {}
    for caption_id, text in captions.texts().items():
        alike.setdefault(text, {})[caption_id] = 1
    gallery = corpus_of(images, own, lambda item: prompted(item, image_prompt))
    # A missing image stays as a query, so that it counts as missed.
    image_queries = {id_: gallery.get(id_) or prompted(images.item(id_), image_prompt) for id_ in own}
    to_image = {caption_id: {id_: 1} for id_, caption_ids in own.items() for caption_id in caption_ids}
    to_text = {id_: {like: 1 for text in texts for like in alike[text]} for id_, texts in captions.of_image.items()}
    failures = images.failures()
    image_of = {caption_id: id_ for id_, caption_ids in own.items() for caption_id in caption_ids}
    return (
        RetrievalSet(names[0], dict(words), gallery, to_image, failures, clusters=image_of),
        RetrievalSet(names[1], image_queries, dict(words), to_text, failures, clusters={id_: id_ for id_ in image_queries}),
    )


def read_captions(name: str, data: Path | None, variant: str, revision: str | None) -> Captions:
    """The test split's captions, from Karpathy's file or from tables.

    Args:
        name: `coco` or `flickr30k`.
        data: folder of a local copy; None to fetch it.
        variant: `five` for the first five captions of an image.
        revision: commit on the hub; None for the newest.

    Raises:
        DataError: if the copy cannot be had or is not as it should be.
    """
    source = SOURCES[name]
    commit = None
    if data is None:
        (data,), commit = fetch([source.hub_id], revision)
    karpathy = data / source.karpathy
    tables = [] if karpathy.is_file() else tables_of(data, "test")
    if not karpathy.is_file() and not tables:
        raise DataError(f"{data} holds neither {source.karpathy} nor test-*.parquet; put Karpathy's file there, beside the images")
    images, found = _from_tables(tables, data) if tables else _from_karpathy(karpathy)
    if variant == "five":
        for id_, own in found.items():
            if len(own) < 5:
                raise DataError(f"{data}: the image {id_} has {len(own)} caption(s), and five are scored; use the variant 'all'")
        found = {id_: own[:5] for id_, own in found.items()}
    published = {"images": source.images, "captions": 5 * source.images if variant == "five" else source.captions}
    note = part_of({"images": len(found), "captions": sum(map(len, found.values()))}, published)
    return Captions(images, found, commit or digest(tables or [karpathy]), note)


def _from_karpathy(file: Path) -> tuple[Images, dict[str, tuple[str, ...]]]:
    wanted: dict[str, list[str]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for entry in read_karpathy(file, ("test",)):
        if isinstance(entry, Failure):  # a benchmark with an image less is another benchmark
            raise DataError(f"{file.parent / entry.item}: {entry.reason}; check that the file is the benchmark's own")
        if entry.name in found:
            raise DataError(f"{file.parent / entry.source}: repeats the image {entry.name}; fetch the file again")
        wanted[entry.name] = list(entry.names)
        found[entry.name] = tuple(caption.strip() for caption in entry.captions)
    folders = ImageFolders(file.parent, IMAGE_FOLDERS)
    return folders.locate(wanted).check(f"unpack the images beside {file.name}"), found


def _from_tables(files: list[Path], data: Path) -> tuple[Images, dict[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, ...]] = {}

    def cells() -> Iterator[tuple[str, object]]:
        number = 0
        for file in files:
            for where, row in good_rows(file):
                if not {"image", "text"} <= row.keys():
                    raise DataError(f"{file} has the columns {', '.join(row)}; it must have 'image' and 'text'")
                own = [row["text"]] if isinstance(row["text"], str) else texts(row, "text", where)
                cell = row["image"]
                name = cell.get("path") if isinstance(cell, Mapping) else cell
                id_ = Path(name).name if isinstance(name, str) and name else str(number)
                id_ = f"{id_} ({number})" if id_ in found else id_
                found[id_] = tuple(text.strip() for text in own)
                yield id_, cell
                number += 1

    images = images_of_cells(cells(), data).check("fetch tables that hold the images")
    return images, found


_CAPTIONS = "hit@k of text to image and of image to text, where any of an image's captions counts"
_LAYOUT = (
    "    DIR/dataset_coco.json         DIR/val2014/COCO_val2014_000000391895.jpg ...\n"
    "    DIR/dataset_flickr30k.json    DIR/flickr30k-images/1007129816.jpg ...       (or DIR/images/, or beside the file)\n"
    "    DIR/test-00000-of-00001.parquet                                            (or DIR/data/test-*.parquet)"
)
COCO = Benchmark(
    BenchmarkInfo(
        name="coco",
        title="COCO 5K",
        shows="whether captions find their photographs, and photographs their captions",
        protocol=f"Karpathy's test split, 5,000 images; {_CAPTIONS}. Variant five: the first five captions (25,000); all: 25,010.",
        source="royokong/coco_test on the hub; or Karpathy's dataset_coco.json and the images of val2014",
        licence="captions CC BY 4.0; images: Flickr's terms, see the source",
        size="5,000 images, 25,010 captions, about 0.8 GB",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=VARIANTS,
        layout=_LAYOUT,
    ),
    load=partial(load_captions, "coco"),
)
FLICKR30K = Benchmark(
    BenchmarkInfo(
        name="flickr30k",
        title="Flickr30K 1K",
        shows="the same as coco, on a smaller and easier gallery",
        protocol=f"Karpathy's test split, 1,000 images, 5,000 captions; {_CAPTIONS}.",
        source="royokong/flickr30k_test on the hub; or Karpathy's dataset_flickr30k.json and flickr30k-images",
        licence="see the source; images: Flickr's terms",
        size="1,000 images, 5,000 captions",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=VARIANTS,
        layout=_LAYOUT,
    ),
    load=partial(load_captions, "flickr30k"),
)
