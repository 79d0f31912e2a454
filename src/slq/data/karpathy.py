"""The Karpathy splits: `dataset_coco.json`, `dataset_flickr30k.json`, read for training and for measuring alike.

One JSON object whose `images` each have a `filename`, a `split`, `sentences` with a `raw` text, and in COCO a `filepath`: the folder of the
image (`train2014`, `val2014`), which stands beside the file. `restval` is what COCO's validation images leave over beyond `val` and `test`;
training on `train` and `restval` is what the literature calls the COCO training split.

COCO's own `captions_val2014.json` is read too: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`. It knows
no splits, so all of it is read.

Images are looked for at one set of places, for training and for measuring (`IMAGE_FOLDERS`): beside the file, or in a folder there.
"""

from __future__ import annotations

import os
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
IMAGE_FOLDERS = ("", "images", "flickr30k-images")  # below the folder of the file, in this order


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
    def names(self) -> tuple[str, ...]:
        """What it may be called in one of the `IMAGE_FOLDERS`: with the folder that the file names, or without."""
        return tuple(dict.fromkeys((f"{self.below}/{self.name}" if self.below else self.name, self.name)))

    def find(self, root: ImageRoot) -> Path:
        """Its file.

        Args:
            root: where the image folders are.

        Raises:
            ImageError: if it is at none of the places, or outside of the root.
        """
        places = [f"{folder}/{name}" if folder else name for folder in IMAGE_FOLDERS for name in self.names]
        there = next((place for place in places if os.path.isfile(root.folder / place)), None)
        if there is None:
            folders = ", ".join(folder or "." for folder in IMAGE_FOLDERS)
            raise ImageError(
                f"the image {shorten(self.names[0])} does not exist in {folders} of {shorten(root.folder)}; add it, or name the "
                "folder that holds it with --image-root"
            )
        return root.find(there)


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
    entries, captions = _entries(path)
    if captions is not None:
        yield from _coco_images(path, entries, captions)
        return
    for number, entry in enumerate(entries, start=1):
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
            image = entry.find(root)
        except InputError as error:
            yield Failure(entry.source, str(error))
        else:
            captions = dict.fromkeys(Item(text=caption) for caption in entry.captions)
            yield Pair(Item(image=image), tuple(captions), source=entry.source)


def _entries(path: Path) -> tuple[list[Any], list[Any] | None]:
    """The images of the file, and in COCO's own layout the captions."""
    content = read_json(path, "check the path", "fetch the file again, or name a .jsonl file with one object per line")
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{shorten(path)} has no list 'images' as Karpathy's dataset_coco.json has; write pairs of your own as .jsonl")
    captions = content.get("annotations")
    return entries, captions if isinstance(captions, list) else None


def _coco_images(path: Path, entries: list[Any], captions: list[Any]) -> Iterator[KarpathyImage | Failure]:
    """Images with the captions that stand apart from them; the folder is the end of the file's name, `val2014` of captions_val2014.json."""
    below = path.stem.rpartition("_")[2]
    told: dict[Any, list[str]] = {}
    known = {entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), int | str)}
    for number, each in enumerate(captions, start=1):
        source = f"{path.name} annotation {number}"
        try:
            image_id = each.get("image_id") if isinstance(each, dict) else None
            if not isinstance(image_id, int | str) or image_id not in known:
                raise DataError("is of no image of the file; fetch the file again")
            caption = check_text(each.get("caption"))
            told.setdefault(image_id, []).append(caption)
        except InputError as error:
            yield Failure(source, str(error))
    for number, entry in enumerate(entries, start=1):
        source = f"{path.name} image {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
            yield Failure(source, "has no 'file_name'; fetch the file again")
        elif not isinstance(entry.get("id"), int | str) or entry["id"] not in told:
            yield Failure(source, "has no caption; give it one or remove it")
        else:
            yield KarpathyImage(entry["file_name"], below, tuple(told[entry["id"]]), source)


def _image(entry: dict[str, Any], source: str) -> KarpathyImage:
    name, sentences = entry.get("filename"), entry.get("sentences")
    if not isinstance(name, str) or not name:
        raise ImageError("'filename' is missing; name the image's file")
    if not isinstance(sentences, list) or not all(isinstance(sentence, dict) for sentence in sentences) or not sentences:
        raise DataError("'sentences' is missing or empty; give the image a caption")
    captions = tuple(check_text(sentence.get("raw")) for sentence in sentences)
    return KarpathyImage(name, str(entry.get("filepath") or ""), captions, source)
