"""Captioned photographs: a file of JSON lines, one an image, with `image`, `split` and `captions`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.data.lines import read_lines
from slq.errors import DataError, shorten
from slq.types.images import open_file

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_SPACED = re.compile(r"\s+(?=[.,;:!?']|n't\b)")


@dataclass(frozen=True)
class Photograph:
    """One image with its captions.

    Attributes:
        name: of the image, as the data have it.
        image: its file.
        split: `train`, `validation`, `test` or another.
        captions: one at least.
    """

    name: str
    image: Path
    split: str
    captions: tuple[str, ...]


def read_photographs(data: Path) -> list[Photograph]:
    """Read a file of captions, in its order.

    Args:
        data: JSON lines with `image` (a path, relative to the file), `split` and `captions`.

    Returns:
        All photographs, of whichever split.

    Raises:
        DataError: if there is no such file, or a line is wrong; names the line.
    """
    if not data.is_file():
        raise DataError(f"There is no file {data}: give captioned photographs, a JSON line an image with image, split and captions.")
    lines = enumerate(read_lines(data, newline="\n"), 1)
    found = [_photograph(line or "", f"{data}, line {number}", data.parent) for number, line in lines if line is None or line.strip()]
    if not found:
        raise DataError(f"{data} has no lines: a JSON line an image with image, split and captions is needed.")
    return found


def of_split(photographs: Sequence[Photograph], split: str, least: int = 1) -> list[Photograph]:
    """Those of one split.

    Args:
        photographs: of any split.
        split: `train`, `validation` or `test`.
        least: how many there must be.

    Raises:
        DataError: if there are fewer.
    """
    found = [each for each in photographs if each.split == split]
    if len(found) < least:
        raise DataError(
            f"{len(found)} photograph(s) are of the split {split!r}, and {least} at least are needed: look at the data's splits."
        )
    return found


def content_sha256(photographs: Sequence[Photograph]) -> str:
    """A hash over images and captions, in their order.

    Args:
        photographs: which.

    Raises:
        ImageError: if an image is missing.
    """
    whole = hashlib.sha256()
    for each in photographs:
        with open_file(each.image) as file:
            whole.update(hashlib.sha256(file.read()).digest())
        whole.update(json.dumps(each.captions).encode())
    return whole.hexdigest()


def written(caption: str) -> str:
    """A caption as one writes it, where a data set has it in tokens: the language model was trained on what people write.

    Args:
        caption: as the data set has it.

    Example:
        >>> written("a dog 's ball , near the water .")
        "A dog's ball, near the water."
    """
    joined = _SPACED.sub("", " ".join(caption.split()))
    whole = joined[:1].upper() + joined[1:]
    return whole if whole.endswith((".", "!", "?")) else f"{whole}."


def _photograph(line: str, place: str, folder: Path) -> Photograph:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is no JSON: {error}.") from None
    if not isinstance(row, Mapping):
        raise DataError(f"{place} is no JSON object with image, split and captions.")
    for name, kind, wanted in (("image", str, "a path"), ("split", str, "a text"), ("captions", list, "a list of texts")):
        if not isinstance(row.get(name), kind) or not row[name]:
            raise DataError(f"{place}: {name!r} must be {wanted}, not {shorten(repr(row.get(name)))}.")
    captions = row["captions"]
    if not all(isinstance(each, str) and each.strip() for each in captions):
        raise DataError(f"{place}: 'captions' must be a list of texts, none of them empty.")
    return Photograph(row["image"], folder / row["image"], row["split"], tuple(captions))
