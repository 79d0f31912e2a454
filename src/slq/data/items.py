"""Reading what is to be embedded: a folder of images, or a table with `text` and `image` columns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from slq.data.images import find_images, image_path
from slq.data.tables import Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, InputError
from slq.types import Item


@dataclass(frozen=True)
class ItemFile:
    """Items by id, and the rows that were left out."""

    items: dict[str, Item]
    failures: tuple[Failure, ...]


def read_items(path: str | os.PathLike[str]) -> ItemFile:
    """Read items: every image below a folder (id: its path in it), or the rows of a table.

    A row has `text`, `image` (a path relative to the file) or both, and an `_id` or `id`; without one its line is its id. A row that
    cannot be used, or repeats an id, becomes a Failure. Images are not opened. Raises DataError if there is nothing to read.
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
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            failures.append(Failure(source, str(row).removeprefix(f"{source}: ")))
            continue
        item_id = str(row.get("_id") or row.get("id") or source)
        try:
            if item_id in items:
                raise DataError(f"repeats the id {item_id!r} of {places[item_id]}; give each row its own id")
            items[item_id] = _item(row, path.parent)
            places[item_id] = source
        except InputError as error:
            failures.append(Failure(source, str(error)))
    if not items:
        raise DataError(f"{path}: no row can be embedded; the first problem is {failures[0]}")
    return ItemFile(items, tuple(failures))


def _item(row: Row, folder: Path) -> Item:
    text, image = (row.get(name) if row.get(name) != "" else None for name in ("text", "image"))
    if text is None and image is None:
        raise DataError(f"has neither 'text' nor 'image' (its columns: {', '.join(row)}); name a column so")
    return Item(None if text is None else check_text(text), None if image is None else image_path(image, folder))
