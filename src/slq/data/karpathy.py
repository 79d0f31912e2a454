"""The Karpathy splits: `dataset_coco.json`, `dataset_flickr30k.json`, read for training and for measuring alike.

One JSON object whose `images` each have a `filename`, a `split`, `sentences` with a `raw` text, and in COCO a `filepath`: the folder of the
image (`train2014`, `val2014`), which stands beside the file. `restval` is what COCO's validation images leave over beyond `val` and `test`;
training on `train` and `restval` is what the literature calls the COCO training split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.data.roots import ImageRoot
from slq.data.tables import is_table, read_json
from slq.data.texts import check_text
from slq.errors import DataError, Failure, ImageError, InputError, shorten
from slq.types import Item, Pair

TRAINING_SPLITS = ("train", "restval")
HELD_OUT_SPLITS = ("val", "test")


@dataclass(frozen=True)
class KarpathyImage:
    """One image of the file.

    Attributes:
        name: of its file.
        below: the folder that the file names, empty without one.
        captions: as they stand there.
        source: its place in the file, for messages.
    """

    name: str
    below: str
    captions: tuple[str, ...]
    source: str

    @property
    def path(self) -> str:
        """Its path from the folder of the file."""
        return f"{self.below}/{self.name}" if self.below else self.name


def is_karpathy(path: Path) -> bool:
    """Whether a data file is read as Karpathy splits: it is JSON, and no table.

    Args:
        path: the file.
    """
    return not is_table(path)


def read_karpathy(path: Path, splits: tuple[str, ...]) -> Iterator[KarpathyImage | Failure]:
    """Read the images of some splits.

    Args:
        path: the file.
        splits: which images are wanted.

    Yields:
        Each image, or a failure for one whose entry is broken.

    Raises:
        DataError: if the file is missing, is not of this layout, or has no image of these splits.
    """
    found: dict[str, int] = {}
    for number, entry in enumerate(_entries(path), start=1):
        source = f"{path.name} image {number}"
        split = entry.get("split") if isinstance(entry, dict) else None
        found[str(split)] = found.get(str(split), 0) + 1
        if split is None:
            yield Failure(source, "has no 'split'; add it or remove the image")
        elif split in splits:
            try:
                yield _image(entry, source)
            except InputError as error:
                yield Failure(source, str(error))
    if found.keys().isdisjoint(splits):
        others = ", ".join(f"{split} ({count})" for split, count in found.items()) or "none"
        raise DataError(f"{shorten(path)} has no image of the split {' or '.join(splits)}, only of {shorten(others)}")


def karpathy_pairs(path: Path, splits: tuple[str, ...] = TRAINING_SPLITS, root: ImageRoot | None = None) -> Iterator[Pair | Failure]:
    """Read each image of some splits with its captions.

    Args:
        path: the file.
        splits: which images are wanted.
        root: where the images are; by default beside the file.

    Yields:
        Each image as a query whose positives are its captions, or a failure for one that cannot be used.

    Raises:
        DataError: if the file is missing, is not of this layout, or has no image of these splits.
    """
    root = root or ImageRoot.of(path)
    for entry in read_karpathy(path, splits):
        if isinstance(entry, Failure):
            yield entry
            continue
        try:
            image = root.find(entry.path)
        except InputError as error:
            yield Failure(entry.source, str(error))
        else:
            captions = dict.fromkeys(Item(text=caption) for caption in entry.captions)
            yield Pair(Item(image=image), tuple(captions), source=entry.source)


def _entries(path: Path) -> list[Any]:
    content = read_json(path, "check the path", "fetch the file again, or name a .jsonl file with one object per line")
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{shorten(path)} has no list 'images' as Karpathy's dataset_coco.json has; write pairs of your own as .jsonl")
    return entries


def _image(entry: dict[str, Any], source: str) -> KarpathyImage:
    name, sentences = entry.get("filename"), entry.get("sentences")
    if not isinstance(name, str) or not name:
        raise ImageError("'filename' is missing; name the image's file")
    if not isinstance(sentences, list) or not all(isinstance(sentence, dict) for sentence in sentences) or not sentences:
        raise DataError("'sentences' is missing or empty; give the image a caption")
    captions = tuple(check_text(sentence.get("raw")) for sentence in sentences)
    return KarpathyImage(name, str(entry.get("filepath") or ""), captions, source)
