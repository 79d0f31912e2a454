"""Reading training pairs in the column conventions in use; which one a row follows is seen from its columns.

| convention | columns | query | positives | negatives |
|---|---|---|---|---|
| captions | `image` and `caption` (or `captions`, `text`): text or list | the image | its captions | |
| sentence-transformers | `anchor` or `query`, `positive`, `negative`, `negative_1`, ... | anchor | positive | negatives |
| FlagEmbedding | `query`, `pos`, `neg`: text or list | query | pos | neg |
| MMEB | `qry`, `qry_image_path`, `pos_text`, `pos_image_path`, `neg_text`, `neg_image_path` | qry | pos | neg |

In the second and third a value is a text, an object `{"text": ..., "image": ...}` or a list of these, and the columns
`query_image`, `anchor_image`, `positive_image`, `negative_image`, ... give the image beside or instead of the text.

Image paths are relative to the folder of the data file, or absolute. An empty text and null mean that a value is absent; all
other columns are ignored. Caption rows of one image are joined into one pair with several positives. A row that names both an
`image` with a caption and a query with a positive is read as the latter. A row is used whole or not at all.

A .json file is read as Karpathy splits (`slq.data.karpathy`): of COCO the images of `train` and `restval`, never those of `val` and
`test`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slq.data.columns import ACCEPTED, Columns, Side, find_columns
from slq.data.images import find_images, image_path, path_from
from slq.data.karpathy import TRAINING_SPLITS, is_karpathy, karpathy_pairs
from slq.data.tables import TABLE_SUFFIXES, Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, InputError, TextError
from slq.io.files import write_jsonl
from slq.types import Item, Pair


@dataclass(frozen=True)
class PairFile:
    """What a data file or folder holds.

    Attributes:
        pairs: in its order.
        failures: the rows that were skipped, with reasons.
        path: the file or folder they were read from.
    """

    pairs: tuple[Pair, ...]
    failures: tuple[Failure, ...]
    path: Path

    @property
    def folder(self) -> Path:
        """Where relative image paths start."""
        return self.path if self.path.is_dir() else self.path.parent


def read_pairs(path: str | os.PathLike[str], *, strict: bool = False, splits: tuple[str, ...] = TRAINING_SPLITS) -> PairFile:
    """Read the pairs of a data file, of a folder with a captions file, or of a folder of images with a .txt file beside each.

    Images are not opened.

    Args:
        path: the file or folder.
        strict: whether a row that cannot be used is raised, and not listed among the failures.
        splits: those read of a Karpathy file.

    Raises:
        DataError: if the file is missing or broken as a whole, no row has the needed columns, or no row is usable.
    """
    path = Path(path)
    if path.is_dir():
        path = _captions_file(path) or path
    pairs: list[Pair] = []
    failures: list[Failure] = []
    place_of_image: dict[Item, int] = {}
    for example, is_caption in _examples(path, splits):
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
        raise DataError(f"{path}: {len(failures)} row(s) {what}; the first is {failures[0]}")
    return PairFile(tuple(pairs), tuple(failures), path)


def _examples(path: Path, splits: tuple[str, ...]) -> Iterator[tuple[Pair | Failure, bool]]:
    """What the file or folder holds, each with whether it is a caption."""
    if path.is_dir():
        return _folder_examples(path)
    if is_karpathy(path):
        return ((example, True) for example in karpathy_pairs(path, splits))
    return _table_examples(path)


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
        raise DataError(f"the folder {folder} holds {names}; give the path of the one to read")
    return found[0] if found else None


def _folder_examples(folder: Path) -> Iterator[tuple[Pair | Failure, bool]]:
    images = find_images(folder)
    if not images:
        raise DataError(f"the folder {folder} holds neither a captions file (captions.jsonl, .csv, .tsv, .parquet) nor images; add one")
    for image in images:
        captions = image.with_suffix(".txt")
        source = captions.relative_to(folder).as_posix()
        try:
            # Not splitlines(), which also splits at characters that belong to a text, such as a vertical tab.
            lines = captions.read_text(encoding="utf-8-sig").split("\n")
            texts = [check_text(line.strip()) for line in lines if line.strip()]
            if not texts:
                raise DataError("the file holds no caption; write one per line")
        except FileNotFoundError:
            name = image.relative_to(folder).as_posix()
            yield Failure(name, f"the image has no caption file {source}; add it or remove the image"), True
        except UnicodeDecodeError as error:
            yield Failure(source, f"not valid UTF-8 at byte {error.start + 1}; save the file as UTF-8"), True
        except OSError as error:
            yield Failure(source, f"the caption file cannot be read ({error.strerror}); check its permissions"), True
        except InputError as error:
            yield Failure(source, str(error)), True
        else:
            yield Pair(Item(image=image), tuple(dict.fromkeys(Item(text=text) for text in texts)), source=source), True


def _table_examples(path: Path) -> Iterator[tuple[Pair | Failure, bool]]:
    any_fits = False
    columns_found: dict[str, None] = {}
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            yield Failure(source, str(row).removeprefix(f"{source}: ")), False
            continue
        columns_found.update(dict.fromkeys(row))
        columns = find_columns(row)
        if columns is None:
            yield Failure(source, f"its columns ({_listed(row)}) fit none of: {ACCEPTED}; rename or add columns"), False
            continue
        any_fits = True
        try:
            yield _pair(row, columns, path.parent, source), columns.are_captions
        except InputError as error:
            yield Failure(source, str(error)), False
    if columns_found and not any_fits:
        raise DataError(f"{path} has the columns {_listed(columns_found)}, which fit none of: {ACCEPTED}; rename or add columns")


def _listed(columns: dict[str, Any]) -> str:
    names = [repr(name) for name in columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none"


def _pair(row: Row, columns: Columns, folder: Path, source: str) -> Pair:
    queries = _items(row, columns.query, folder)
    positives = _items(row, columns.positive, folder)
    negatives = tuple(item for side in columns.negatives for item in _items(row, side, folder))
    for side, items in ((columns.query, queries), (columns.positive, positives)):
        if not items:
            raise DataError(f"{side} is missing or empty; fill it in or remove the row")
    if len(queries) > 1:
        raise DataError(f"{columns.query} holds {len(queries)} values; give one query per row")
    return Pair(queries[0], tuple(dict.fromkeys(positives)), tuple(dict.fromkeys(negatives)), source)


def _items(row: Row, side: Side, folder: Path) -> tuple[Item, ...]:
    texts, images = _values(row, side.text), _values(row, side.image)
    if side.marker:
        texts = [_without_marker(text, side.marker) for text in texts]
        texts = texts if isinstance(row.get(side.text or ""), list) else [text for text in texts if not _is_absent(text)]
    if texts and images and len(texts) != len(images):
        raise DataError(f"{side.text!r} holds {len(texts)} value(s) and {side.image!r} {len(images)}; give as many of each")
    count = max(len(texts), len(images))
    return tuple(_item(text, image, side, folder) for text, image in zip(texts or [None] * count, images or [None] * count, strict=True))


def _values(row: Row, column: str | None) -> list[Any]:
    """What a column holds; of a list all, of a single value what is not absent."""
    value = row.get(column) if column else None
    return value if isinstance(value, list) else [] if _is_absent(value) else [value]


def _without_marker(text: Any, marker: str) -> Any:
    return text.replace(marker, "").strip() if isinstance(text, str) and marker in text else text


def _is_absent(value: object) -> bool:
    return value is None or value == ""


def _item(text: Any, image: Any, side: Side, folder: Path) -> Item:
    if isinstance(text, dict):
        if not _is_absent(image) and not _is_absent(text.get("image")):
            raise DataError(f"{side.text!r} and {side.image!r} both name an image; keep one")
        text, image = text.get("text"), text.get("image") if _is_absent(image) else image
        if _is_absent(text) and _is_absent(image):
            raise DataError(f"{side.text!r} is an object with neither 'text' nor 'image'; fill one in")
    path = None if _is_absent(image) else image_path(image, folder)
    if _is_absent(text) and path is not None:
        return Item(image=path)
    try:
        return Item(check_text(text), path)
    except TextError as error:
        raise DataError(f"{side.text!r}: {error}") from None
