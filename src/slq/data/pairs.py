"""Reading training pairs in the column conventions in use; which one a row follows is seen from its columns.

| convention | columns | query | positives | negatives |
|---|---|---|---|---|
| captions | `image` and `caption` (or `captions`, `text`): text or list | the image | its captions | |
| sentence-transformers | `anchor` or `query`, `positive`, `negative`, `negative_1`, ... | anchor | positive | negatives |
| FlagEmbedding | `query`, `pos`, `neg`: text or list | query | pos | neg |
| MMEB | `qry`, `qry_image_path`, `pos_text`, `pos_image_path`, `neg_text`, `neg_image_path` | qry | pos | neg |

In the second and third a value is a text, an object `{"text": ..., "image": ...}` or a list of these, and the columns
`query_image`, `anchor_image`, `positive_image`, `negative_image`, ... give the image beside or instead of the text.

An image is a path or whatever else `slq.types.images.as_image` takes, such as the hub's `{"bytes", "path"}`. Paths are relative to the
folder of the data file and stay in it, unless told otherwise (`slq.data.roots`). A text that is a JSON or Python list of texts, as tables
hold it, is these texts. An empty text and null mean that a value is absent; all other columns are ignored. Caption rows of one image are
joined into one pair with several positives. A row that names both an `image` with a caption and a query with a positive is read as the
latter. A row is used whole or not at all.

A .json file with an object in it is read as Karpathy splits (`slq.data.karpathy`): of COCO the images of `train` and `restval`, never those
of `val` and `test`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slq.data.columns import ACCEPTED, Columns, Side, find_columns
from slq.data.images import find_images, path_from
from slq.data.karpathy import TRAINING_SPLITS, is_karpathy, karpathy_pairs
from slq.data.roots import ImageRoot
from slq.data.tables import TABLE_SUFFIXES, Row, read_rows
from slq.data.texts import check_text, read_captions, texts_of_cell
from slq.errors import DataError, Failure, InputError, TextError, shorten
from slq.io.files import write_jsonl
from slq.types import Item, Pair


@dataclass(frozen=True)
class PairFile:
    """What a data file or folder holds.

    Attributes:
        pairs: in its order.
        failures: the rows that were skipped, with reasons. Every row is in a pair, or here.
        path: the file or folder they were read from.
        image_root: where relative image paths start, if that is not beside the file.
        num_rows: how many rows were read; several captions of one image are one pair.
    """

    pairs: tuple[Pair, ...]
    failures: tuple[Failure, ...]
    path: Path
    image_root: Path | None = None
    num_rows: int = 0

    @property
    def folder(self) -> Path:
        """Where relative image paths start."""
        return self.image_root or (self.path if os.path.isdir(self.path) else self.path.parent)


def read_pairs(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    splits: tuple[str, ...] = TRAINING_SPLITS,
    image_column: str | None = None,
    text_column: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
) -> PairFile:
    """Read the pairs of a data file, of a folder with a captions file, or of a folder of images with a .txt file beside each.

    Images are not opened.

    Args:
        path: the file or folder.
        strict: whether a row that cannot be used is raised, and not listed among the failures.
        splits: those read of a Karpathy file.
        image_column: the column of the images, if it is none that is known.
        text_column: the column of their captions, likewise.
        image_root: where relative image paths start, if that is not the folder of the file.
        allow_outside: whether images may lie outside of that folder: by absolute paths, `..` or links.

    Raises:
        DataError: if the file is missing or broken as a whole, no row has the needed columns, or no row is usable.
    """
    path = Path(path)
    if os.path.isdir(path):  # as Path.is_dir, without an error for a name that no folder can have
        path = _captions_file(path) or path
    root = ImageRoot.of(path, image_root, allow_outside)
    pairs: list[Pair] = []
    failures: list[Failure] = []
    place_of_image: dict[Item, int] = {}
    num_rows = 0
    for num_rows, (example, is_caption) in enumerate(_examples(path, splits, root, (image_column, text_column)), start=1):  # noqa: B007
        if isinstance(example, Failure):
            failures.append(example)
        elif is_caption and example.query in place_of_image:
            place = place_of_image[example.query]
            pairs[place] = replace(pairs[place], positives=tuple(dict.fromkeys(pairs[place].positives + example.positives)))
        else:
            if is_caption:
                place_of_image[example.query] = len(pairs)
            pairs.append(example)
    if failures and (strict or not pairs):
        what = "cannot be used" if pairs else "cannot be used, and none is left"
        raise DataError(f"{shorten(path)}: {len(failures)} row(s) {what}; the first is {shorten(failures[0], 400)}")
    return PairFile(tuple(pairs), tuple(failures), path, None if image_root is None else Path(image_root), num_rows)


def _examples(
    path: Path, splits: tuple[str, ...], root: ImageRoot, named: tuple[str | None, str | None]
) -> Iterator[tuple[Pair | Failure, bool]]:
    """What the file or folder holds, each with whether it is a caption."""
    if os.path.isdir(path):
        return _folder_examples(path, root)
    if is_karpathy(path):
        return ((example, True) for example in karpathy_pairs(path, splits, root))
    return _table_examples(path, root, named)


def write_pairs(path: str | os.PathLike[str], pairs: Sequence[Pair]) -> None:
    """Write pairs as `read_pairs` reads them: JSON lines with the columns `query`, `positive` and, where there are any, `negative`.

    Images stay where they are and are named by relative path.

    Args:
        path: the file.
        pairs: what to write.

    Raises:
        InputError: if an item is an open image, which has no path.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {"query": _written(pair.query, path.parent)}
        row["positive"] = [_written(item, path.parent) for item in pair.positives]
        if pair.negatives:
            row["negative"] = [_written(item, path.parent) for item in pair.negatives]
        rows.append(row)
    write_jsonl(path, rows)


def _written(item: Item, folder: Path) -> str | dict[str, str]:
    if item.image is None:
        return item.text or ""
    if not isinstance(item.image, Path):
        raise InputError("a pair holds an open image; save it as a file and use its path")
    return {**({"text": item.text} if item.text else {}), "image": path_from(folder, item.image)}


def _captions_file(folder: Path) -> Path | None:
    found = [folder / f"captions{suffix}" for suffix in TABLE_SUFFIXES if (folder / f"captions{suffix}").is_file()]
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise DataError(f"the folder {shorten(folder)} holds {names}; give the path of the one to read")
    return found[0] if found else None


def _folder_examples(folder: Path, root: ImageRoot) -> Iterator[tuple[Pair | Failure, bool]]:
    images = find_images(folder)
    if not images:
        raise DataError(
            f"the folder {shorten(folder)} holds neither a captions file (captions.jsonl, .csv, .tsv, .parquet) nor images; add one"
        )
    for image in images:
        captions = image.with_suffix(".txt")
        source = captions.relative_to(folder).as_posix()
        try:
            texts = read_captions(captions)
            root.check(image)
        except FileNotFoundError:
            name = image.relative_to(folder).as_posix()
            yield Failure(name, f"the image has no caption file {shorten(source)}; add it or remove the image"), True
        except InputError as error:
            yield Failure(source, str(error)), True
        else:
            yield Pair(Item(image=image), tuple(dict.fromkeys(Item(text=text) for text in texts)), source=source), True


def _table_examples(path: Path, root: ImageRoot, named: tuple[str | None, str | None]) -> Iterator[tuple[Pair | Failure, bool]]:
    wanted = ACCEPTED if named == (None, None) else f"{named[0] or 'image'} + {named[1] or 'caption'}"
    any_fits = False
    columns_found: dict[str, None] = {}
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            yield Failure(source, str(row).removeprefix(f"{source}: ")), False
            continue
        columns_found.update(dict.fromkeys(row))
        columns = find_columns(row, *named)
        if columns is None:
            yield Failure(source, f"its columns ({_listed(row)}) fit none of: {wanted}; rename or add columns"), False
            continue
        any_fits = True
        try:
            yield _pair(row, columns, root, source), columns.are_captions
        except InputError as error:
            yield Failure(source, str(error)), False
    if columns_found and not any_fits:
        raise DataError(
            f"{shorten(path)} has the columns {_listed(columns_found)}, which fit none of: {wanted}; rename columns, or name them with "
            "--image-column and --text-column"
        )


def _listed(columns: Iterable[str]) -> str:
    return shorten(", ".join(repr(shorten(name, 60)) for name in columns)) or "none"


def _pair(row: Row, columns: Columns, root: ImageRoot, source: str) -> Pair:
    queries = _items(row, columns.query, root)
    positives = _items(row, columns.positive, root)
    negatives = tuple(item for side in columns.negatives for item in _items(row, side, root))
    for side, items in ((columns.query, queries), (columns.positive, positives)):
        if not items:
            raise DataError(f"{side} is missing or empty; fill it in or remove the row")
    if len(queries) > 1:
        raise DataError(f"{columns.query} holds {len(queries)} values; give one query per row")
    return Pair(queries[0], tuple(dict.fromkeys(positives)), tuple(dict.fromkeys(negatives)), source)


def _items(row: Row, side: Side, root: ImageRoot) -> tuple[Item, ...]:
    texts, images = _values(row, side.text), _values(row, side.image)
    if images and isinstance(images[0], list):  # of lists of pixels: one image
        images = [images]
    if side.marker:
        texts = [_without_marker(text, side.marker) for text in texts]
        texts = texts if isinstance(row.get(side.text or ""), list) else [text for text in texts if not _is_absent(text)]
    if not images:
        texts = [each for text in texts for each in texts_of_cell(text)]
    if texts and images and len(texts) != len(images):
        raise DataError(f"{side.text!r} holds {len(texts)} value(s) and {side.image!r} {len(images)}; give as many of each")
    count = max(len(texts), len(images))
    return tuple(_item(text, image, side, root) for text, image in zip(texts or [None] * count, images or [None] * count, strict=True))


def _values(row: Row, column: str | None) -> list[Any]:
    """What a column holds; of a list all, of a single value what is not absent."""
    value = row.get(column) if column else None
    return value if isinstance(value, list) else [] if _is_absent(value) else [value]


def _without_marker(text: Any, marker: str) -> Any:
    return text.replace(marker, "").strip() if isinstance(text, str) and marker in text else text


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and value == "")


def _item(text: Any, image: Any, side: Side, root: ImageRoot) -> Item:
    if isinstance(text, dict):
        if not _is_absent(image) and not _is_absent(text.get("image")):
            raise DataError(f"{side.text!r} and {side.image!r} both name an image; keep one")
        text, image = text.get("text"), text.get("image") if _is_absent(image) else image
        if _is_absent(text) and _is_absent(image):
            raise DataError(f"{side.text!r} is an object with neither 'text' nor 'image'; fill one in")
    path = None if _is_absent(image) else root.find(image)
    if _is_absent(text) and path is not None:
        return Item(image=path)
    try:
        return Item(check_text(text), path)
    except TextError as error:
        raise DataError(f"{side.text!r}: {error}") from None
