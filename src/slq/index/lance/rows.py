"""Rows as LanceDB holds them, and back: columns to read, and columns that filters ask for.

id, vector, text, image, content_hash    as in `Row`
metadata                                 JSON, from which they come back with their types
written                                  number of the commit that wrote the row; a reader asks for what is newer than it has
facts                                    hashes of the row's fields with their values, for Eq and In
names, numbers                           hashes of the names of metadata that are numbers, and the numbers, for Range
is_odd                                   whether the row holds a number that `numbers` cannot, so that only Python can filter it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from slq.errors import StoreCorruptError
from slq.index.filters import COLUMNS, Scalar
from slq.index.store import Row

READ = ("id", "vector", "text", "image", "content_hash", "metadata")  # what a Row is made of
_ESCAPED = "\x00"  # stands before a text that is written as JSON


def schema(dim: int) -> Any:
    """The columns, as an Arrow schema.

    Args:
        dim: values of a vector.
    """
    import pyarrow as pa

    vector = pa.list_(pa.float32(), dim)
    texts = [
        pa.field(name, pa.string(), nullable=name in ("text", "image")) for name in ("id", "text", "image", "content_hash", "metadata")
    ]
    numbers = [
        pa.field("facts", pa.list_(pa.int64())),
        pa.field("names", pa.list_(pa.int64())),
        pa.field("numbers", pa.list_(pa.float64())),
    ]
    return pa.schema([*texts, pa.field("vector", vector), pa.field("written", pa.int64()), *numbers, pa.field("is_odd", pa.bool_())])


def to_arrow(rows: Sequence[Row], written: int, dim: int) -> Any:
    """Rows as an Arrow table.

    Args:
        rows: with different ids.
        written: number of the commit that writes them.
        dim: values of a vector.
    """
    import pyarrow as pa

    vectors_CD = np.ascontiguousarray(np.stack([row.vector for row in rows]), dtype=np.float32)
    measures = [
        {name_hash(name): float(value) + 0.0 for name, value in row.metadata.items() if _is_number(value)}  # which makes -0.0 to 0.0
        for row in rows
    ]
    columns = {
        **{name: [encode_text(getattr(row, name)) for row in rows] for name in ("id", "text", "image", "content_hash")},
        "metadata": [json.dumps(dict(row.metadata)) for row in rows],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors_CD.reshape(-1)), dim),
        "written": [written] * len(rows),
        "facts": [_facts(row) for row in rows],
        "names": [list(each) for each in measures],
        "numbers": [list(each.values()) for each in measures],
        "is_odd": [any(_is_number(value) and float(value) != value for value in row.metadata.values()) for row in rows],
    }
    return pa.table(columns, schema=schema(dim))


def to_rows(batch: Any) -> list[Row]:
    """The rows of an Arrow batch or table with the columns of `READ`.

    Args:
        batch: of a table of `schema`.

    Raises:
        StoreCorruptError: if a row is not what was written, as far as that shows.
    """
    vectors_CD = vectors(batch)
    columns = [batch.column(name).to_pylist() for name in ("id", "text", "image", "metadata", "content_hash")]
    try:
        return [
            Row(_text(id_), np.array(vector), decode_text(text), decode_text(image), json.loads(metadata), _text(content_hash))
            for vector, id_, text, image, metadata, content_hash in zip(vectors_CD, *columns, strict=True)
        ]
    except ValueError as error:
        raise StoreCorruptError(f"A row of the table is damaged ({error}): see what `verify()` says.") from error


def vectors(batch: Any) -> np.ndarray:
    """The vectors (C, D) of an Arrow batch or table.

    Args:
        batch: of a table of `schema`.
    """
    column = batch.column("vector")
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def ids(batch: Any) -> list[str]:
    """The ids of an Arrow batch.

    Args:
        batch: of a table of `schema`.
    """
    return [_text(id_) for id_ in batch.column("id").to_pylist()]


def encode_text(text: str | None) -> str | None:
    """A text as Arrow can hold it: itself, or JSON where it has half a surrogate pair, as file names that are not UTF-8 have.

    Args:
        text: of any characters.
    """
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ESCAPED + json.dumps(text)
    return _ESCAPED + json.dumps(text) if text.startswith(_ESCAPED) else text


def decode_text(text: str | None) -> str | None:
    """A text that `encode_text` gave, as it was.

    Args:
        text: of a column.
    """
    return json.loads(text[1:]) if text is not None and text.startswith(_ESCAPED) else text


def fact_hash(name: str, value: Scalar) -> int:
    """A number of 63 bits for a field with a value, the same for values that filters take for equal: 2 and 2.0, but not 1 and True.

    Args:
        name: of a column or of metadata.
        value: that it has.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    return _hash(["fact", name, kind, value])


def name_hash(name: str) -> int:
    """A number of 63 bits for the name of metadata.

    Args:
        name: of any characters.
    """
    return _hash(["name", name])


def _facts(row: Row) -> list[int]:
    fields: Iterable[tuple[str, Scalar | None]] = [*((name, getattr(row, name)) for name in COLUMNS), *row.metadata.items()]
    return [fact_hash(name, value) for name, value in fields if value is not None]


def _hash(parts: list[Any]) -> int:
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()) >> 1


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(text: str) -> str:
    return decode_text(text) or ""
