"""What is to be encoded: read from a folder of images or a table with `text` and `image` columns, or made of what a caller has."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slq.data.columns import ID_COLUMNS
from slq.data.images import IMAGE_SUFFIXES, find_images
from slq.data.roots import ImageRoot
from slq.data.tables import Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, ImageError, InputError, shorten
from slq.types import Item
from slq.types.images import as_image

ITEM_KEYS = frozenset({"text", "image"})
Metadata = Mapping[str, str | int | float | bool]


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
    metadata: Mapping[str, Metadata] = field(default_factory=dict)


def read_items(
    path: str | os.PathLike[str],
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
) -> ItemFile:
    """Read items; images are not opened.

    Args:
        path: a folder, whose images' ids are their paths in it, or a table. A row has `text`, `image` (a path relative to the file, or
            whatever else `slq.types.images.as_image` takes) or both, and an `_id` or `id`; without one its line is its id.
        image_column: the column of the images, if it is not `image`.
        text_column: the column of the texts, if it is not `text`.
        image_root: where relative image paths start, if that is not the folder of the file.
        allow_outside: whether images may lie outside of that folder: by absolute paths, `..` or links.

    Returns:
        The items. A row that cannot be used, or repeats an id, is a failure.

    Raises:
        DataError: if there is nothing to read.
    """
    path = Path(path)
    if os.path.isdir(path):
        return _of_folder(path, ImageRoot.of(path, image_root, allow_outside))
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    failures: list[Failure] = []
    metadata: dict[str, Metadata] = {}
    reading = {"image_column": image_column, "text_column": text_column, "image_root": image_root, "allow_outside": allow_outside}
    for row in each_row(path, **reading):  # type: ignore[arg-type] # one dictionary of values of several types
        if row.item is None:
            failures.append(Failure(row.place, row.reason))
        elif row.id in items:
            failures.append(Failure(row.place, repeats(row.id, places[row.id])))
        else:
            items[row.id], places[row.id], metadata[row.id] = row.item, row.place, row.metadata
    if not items:
        raise DataError(f"{shorten(path)}: no row can be embedded; the first problem is {shorten(failures[0], 400)}")
    return ItemFile(items, tuple(failures), {id_: each for id_, each in metadata.items() if each})


@dataclass(frozen=True)
class ItemRow:
    """One row of a table.

    Attributes:
        place: where it stands (`captions.jsonl line 7`).
        id: what it calls itself, or its place.
        item: None if it cannot be used.
        metadata: its other columns; see `ItemFile`.
        reason: why it cannot be used.
    """

    place: str
    id: str
    item: Item | None
    metadata: Metadata = field(default_factory=dict)
    reason: str = ""


def each_row(
    path: Path,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
) -> Iterator[ItemRow]:
    """Read the rows of a table one at a time; ids may repeat.

    Args:
        path: the table.
        image_column: see `read_items`, like the others.
        text_column: likewise.
        image_root: likewise.
        allow_outside: likewise.

    Yields:
        Every row, those that cannot be used among them.

    Raises:
        DataError: if the table cannot be read.
    """
    root = ImageRoot.of(path, image_root, allow_outside)
    columns = text_column or "text", image_column or "image"
    for place, row in read_rows(path):
        if isinstance(row, DataError):
            yield ItemRow(place, place, None, reason=str(row).removeprefix(f"{place}: "))
            continue
        id_ = next((str(row[name]) for name in ID_COLUMNS if row.get(name) not in (None, "")), place)
        try:
            yield ItemRow(place, id_, _item(row, root, *columns), _metadata(row, columns))
        except InputError as error:
            yield ItemRow(place, id_, None, reason=str(error))


def repeats(id_: str, place: str) -> str:
    """Why a row cannot be used whose id another one has.

    Args:
        id_: of both.
        place: of the other one.
    """
    return f"repeats the id {shorten(id_)!r} of {place}; give each row its own id"


def _metadata(row: Row, columns: Collection[str]) -> dict[str, Any]:
    """What a row tells beside its item, which stands in these columns."""
    known = {*ID_COLUMNS, *ITEM_KEYS, *columns, "content_hash"}
    return {name: value for name, value in row.items() if name and name not in known and _is_metadata(value)}


def _is_metadata(value: Any) -> bool:
    """Whether a store can hold a value; an empty cell is none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int)) and value != "" and (isinstance(value, str) or abs(value) < 2**63)


def _of_folder(folder: Path, root: ImageRoot) -> ItemFile:
    images = find_images(folder)
    if not images:
        raise DataError(f"the folder {shorten(folder)} holds no images; give a folder of images or a table with text or image columns")
    items, failures = {}, []
    for image in images:
        name = image.relative_to(folder).as_posix()
        try:
            items[name] = Item(image=root.check(image))
        except InputError as error:
            failures.append(Failure(name, str(error)))
    if not items:
        raise DataError(f"{shorten(folder)}: no image can be embedded; the first problem is {shorten(failures[0], 400)}")
    return ItemFile(items, tuple(failures))


def _item(row: Row, root: ImageRoot, text_column: str, image_column: str) -> Item:
    text, image = (None if isinstance(row.get(name), str) and not row[name] else row.get(name) for name in (text_column, image_column))
    if text is None and image is None:
        columns = shorten(", ".join(row))
        raise DataError(
            f"has neither {text_column!r} nor {image_column!r} (its columns: {columns}); name the columns with --text-column and "
            "--image-column"
        )
    return Item(None if text is None else check_text(text), None if image is None else root.find(image))


def as_item(value: Any) -> Item:
    """What `encode` accepts, as an Item.

    Args:
        value: a string (text, or the path of an image file that is there, as Sentence Transformers takes it, or a data URI of an image), an
            image in any other form that `slq.types.images.as_image` takes (a pathlib.Path, a PIL image, bytes, an array, ...), or
            {"text": ..., "image": ...} with one or both, whose image may be the string of any path.

    Returns:
        The item. An image that is none is found when it is opened.

    Raises:
        InputError: for what is neither.
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return Item(image=value) if value[:11].lower() == "data:image/" or _is_image_file(value) else Item(text=value)
    if isinstance(value, dict) and value and set(value) <= ITEM_KEYS:
        return Item(text=value.get("text"), image=value.get("image"))
    if isinstance(value, dict) and not set(value) & {"bytes", "path"}:
        keys = shorten(", ".join(map(str, value)), 100) or "none"
        raise InputError(f'Cannot encode dict with the keys {keys}: give {{"text": ..., "image": ...}} with one or both.')
    try:
        return Item(image=as_image(value))
    except ImageError as error:
        kind = shorten(type(value).__name__, 60)
        raise InputError(f'Cannot encode {kind}: give a string, {{"text", "image"}} or an image ({error})') from None


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
        InputError: for an item that cannot be read.
    """
    return list({item.content_hash: item for item in items}.values())
