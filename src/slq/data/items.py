"""What is to be encoded: read from a folder of images or a table with `text` and `image` columns, or made of what a caller has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from slq.data.columns import ID_COLUMNS
from slq.data.images import IMAGE_SUFFIXES, find_images, image_path
from slq.data.tables import Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, ImageError, InputError
from slq.types import Item

ITEM_KEYS = frozenset({"text", "image"})


@dataclass(frozen=True)
class ItemFile:
    """What a file or folder holds.

    Attributes:
        items: by id.
        failures: the rows that were skipped, with reasons.
        metadata: by id, the other columns of a table as far as they hold texts, numbers and truth values.
    """

    items: dict[str, Item]
    failures: tuple[Failure, ...]
    metadata: Mapping[str, Mapping[str, str | int | float | bool]] = field(default_factory=dict)


def read_items(path: str | os.PathLike[str]) -> ItemFile:
    """Read items; images are not opened.

    Args:
        path: a folder, whose images' ids are their paths in it, or a table. A row has `text`, `image` (a path relative to the file) or
            both, and an `_id` or `id`; without one its line is its id.

    Returns:
        The items. A row that cannot be used, or repeats an id, is a failure.

    Raises:
        DataError: if there is nothing to read.
    """
    path = Path(path)
    if path.is_dir():
        images = find_images(path)
        if not images:
            raise DataError(f"the folder {path} holds no images; give a folder of images or a table with text or image columns")
        return ItemFile({image.relative_to(path).as_posix(): Item(image=image) for image in images}, ())
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    failures: list[Failure] = []
    metadata: dict[str, dict[str, Any]] = {}
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            failures.append(Failure(source, str(row).removeprefix(f"{source}: ")))
            continue
        item_id = str(next((row[name] for name in ID_COLUMNS if row.get(name)), source))
        try:
            if item_id in items:
                raise DataError(f"repeats the id {item_id!r} of {places[item_id]}; give each row its own id")
            items[item_id] = _item(row, path.parent)
            places[item_id] = source
            metadata[item_id] = _metadata(row)
        except InputError as error:
            failures.append(Failure(source, str(error)))
    if not items:
        raise DataError(f"{path}: no row can be embedded; the first problem is {failures[0]}")
    return ItemFile(items, tuple(failures), {id_: each for id_, each in metadata.items() if each})


def _metadata(row: Row) -> dict[str, Any]:
    """What a row tells beside its item."""
    known = {*ID_COLUMNS, *ITEM_KEYS, "content_hash"}
    return {name: value for name, value in row.items() if name and name not in known and _is_metadata(value)}


def _is_metadata(value: Any) -> bool:
    """Whether a store can hold a value; an empty cell is none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int)) and value != "" and (isinstance(value, str) or abs(value) < 2**63)


def _item(row: Row, folder: Path) -> Item:
    text, image = (row.get(name) if row.get(name) != "" else None for name in ("text", "image"))
    if text is None and image is None:
        raise DataError(f"has neither 'text' nor 'image' (its columns: {', '.join(row)}); name a column so")
    return Item(None if text is None else check_text(text), None if image is None else image_path(image, folder))


def as_item(value: Any) -> Item:
    """What `encode` accepts, as an Item.

    Args:
        value: a string (text, or the path of an image file that is there, as Sentence Transformers takes it), a PIL image or pathlib.Path
            (an image), or {"text": ..., "image": ...} with one or both, whose image is a PIL image, a Path or the string of a path.

    Returns:
        The item.

    Raises:
        InputError: for anything else.
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return Item(image=Path(value)) if _is_image_file(value) else Item(text=value)
    if isinstance(value, (Path, Image.Image)):
        return Item(image=value)
    if isinstance(value, dict) and value and set(value) <= ITEM_KEYS:
        image = value.get("image")
        return Item(text=value.get("text"), image=Path(image) if isinstance(image, str) else image)
    raise InputError(
        f"Cannot encode {type(value).__name__}: give a string, a PIL image, a pathlib.Path to an image, or "
        '{"text": ..., "image": ...} with one or both.'
    )


def _is_image_file(text: str) -> bool:
    """Whether a text is the path of an image file; whoever means it as words gives it as {"text": ...}."""
    return text.lower().endswith(tuple(IMAGE_SUFFIXES)) and os.path.isfile(text)


def unique(items: Iterable[Item]) -> list[Item]:
    """Items without repetition, by content.

    Args:
        items: any items.

    Returns:
        One of those that are equal, in the order in which each came first.

    Raises:
        ImageError: for an image file that is not there.
    """
    try:
        return list({item.content_hash: item for item in items}.values())
    except OSError as error:
        raise ImageError(f"an image cannot be read ({error})") from error
