"""Reading the Karpathy splits: `dataset_coco.json`, `dataset_flickr30k.json`.

One JSON object whose `images` each have a `filename`, a `split`, `sentences` with a `raw` text, and in COCO a `filepath`: the folder of
the image (`train2014`, `val2014`), which stands beside the file. `restval` is what COCO's validation images leave over beyond `val`
and `test`; training on `train` and `restval` is what the literature calls the COCO training split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slq.data.images import image_path
from slq.data.tables import read_json
from slq.data.texts import check_text
from slq.errors import DataError, Failure, ImageError, InputError
from slq.types import Item, Pair

TRAINING_SPLITS = ("train", "restval")
HELD_OUT_SPLITS = ("val", "test")


def is_karpathy(path: Path) -> bool:
    """Whether a data file is read as Karpathy splits: tables have other suffixes."""
    return path.suffix.lower() == ".json"


def karpathy_pairs(path: Path, splits: tuple[str, ...] = TRAINING_SPLITS) -> Iterator[Pair | Failure]:
    """Each image of the splits with its captions; one that cannot be used is a Failure.

    Raises DataError if the file is missing, is not of this layout, or has no image of these splits.
    """
    found: dict[str, int] = {}
    for number, image in enumerate(_images(path), start=1):
        split = image.get("split") if isinstance(image, dict) else None
        found[str(split)] = found.get(str(split), 0) + 1
        if split is None:
            yield Failure(f"{path.name} image {number}", "has no 'split'; add it or remove the image")
        elif split in splits:
            yield _pair(image, path, f"{path.name} image {number}")
    if found.keys().isdisjoint(splits):
        raise DataError(f"{path} has no image of the split {' or '.join(splits)}, only of {', '.join(found) or 'none'}")


def _images(path: Path) -> list[Any]:
    content = read_json(path, "check the path", "fetch it again, or name a .jsonl file with one object per line")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path} has no list 'images' as Karpathy's dataset_coco.json has; write pairs of your own as .jsonl")
    return images


def _pair(entry: dict[str, Any], path: Path, source: str) -> Pair | Failure:
    try:
        name = entry.get("filename")
        if not isinstance(name, str) or not name:
            raise ImageError("'filename' is missing; name the image's file")
        image = image_path(f"{entry['filepath']}/{name}" if entry.get("filepath") else name, path.parent)
        sentences = entry.get("sentences")
        if not isinstance(sentences, list) or not all(isinstance(sentence, dict) for sentence in sentences) or not sentences:
            raise DataError("'sentences' is missing or empty; give the image a caption")
        captions = dict.fromkeys(Item(text=check_text(sentence.get("raw"))) for sentence in sentences)
    except InputError as error:
        return Failure(source, str(error))
    return Pair(Item(image=image), tuple(captions), source=source)
