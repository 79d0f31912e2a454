"""Reading the rows of JSON lines, JSON, CSV, TSV and Parquet files, one at a time.

A broken line does not stop the reading: it is handed out as a DataError in the place of its row, for the caller to raise or
to list. Only what is wrong with the whole file is raised.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slq.data.delimited import read_delimited
from slq.data.lines import MAX_ROW, NOT_UTF8, TOO_LONG, encoding_of, is_utf8, read_lines
from slq.errors import DataError, MissingExtraError, shorten

Row = dict[str, Any]
Rows = Iterator[tuple[str, "Row | DataError"]]

MAX_JSON = 2**30  # bytes of a JSON file, which is read whole; COCO's annotations have 0.2 of it
MAX_PARQUET_COLUMN = 2**30  # bytes that a column of a row group may have, and how many times its bytes in the file: a bomb has both
MAX_COMPRESSION = 100
_BATCH = 64  # rows of Parquet read at once, fewer where they are large


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Read the rows of a table one at a time; blank lines are skipped.

    Args:
        path: a file of JSON lines, JSON (an array of objects), CSV, TSV or Parquet, told by its suffix. Text may be UTF-8, or begin with
            the mark of UTF-16; columns may be separated by `,`, `;`, tabs or `|`.

    Yields:
        (source, row), where source is like `captions.jsonl line 7`. Values of CSV and TSV are str; those of JSON lines and Parquet are
        whatever the file holds. A broken row is a DataError instead.

    Raises:
        DataError: if the file is missing, empty, of an unknown kind or broken as a whole.
        MissingExtraError: if it is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{shorten(path)} has the unknown suffix {shorten(path.suffix, 30)!r}; use one of {', '.join(TABLE_SUFFIXES)} "
            "(.jsonl: one JSON object per line)"
        )
    _check_file(path)
    return _at_least_one(path, reader(path))


def read_json(path: Path, missing: str, damaged: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        missing: what to do if it is not there.
        damaged: what to do if it is not JSON.

    Raises:
        DataError: with what to do.
    """
    name = shorten(path)
    try:
        if (size := path.stat().st_size) > MAX_JSON:
            raise DataError(f"{name} has {size:,} bytes, more than the {MAX_JSON:,} of JSON that are read at once; write it as .jsonl")
        content = path.read_bytes()
        return json.loads(content.decode(encoding_of(content[:4])), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise DataError(f"{name} does not exist; {missing}") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}); check its path and permissions") from None
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON ({shorten(error)}); {damaged}") from None


def is_table(path: Path) -> bool:
    """Whether a data file is read by `read_rows`: by its suffix, and for JSON by whether it begins with an array, or is JSON lines.

    Args:
        path: the file; it need not exist.
    """
    if path.suffix.lower() != ".json":
        return True
    return _json_begins_with(path) != "{" or _is_json_lines(path)


def _json_begins_with(path: Path) -> str:
    try:
        with path.open("rb") as file:
            begin = file.read(4096)
    except OSError:
        return ""  # what is wrong with it is told when it is read
    return begin.decode(encoding_of(begin), "ignore").lstrip("\ufeff \t\r\n")[:1]


def _is_json_lines(path: Path) -> bool:
    """Whether a file that begins with an object goes on with another one in its next line."""
    first: Row | DataError | None = None
    for line in read_lines(path, newline="\n"):
        if first is not None:
            return isinstance(first, dict) and line is not None and line.lstrip().startswith("{")
        if line is None or not line.strip():
            continue
        first = _json_object(line, path.name)
        if isinstance(first, DataError):
            return False
    return False


def _check_file(path: Path) -> None:
    name = shorten(path)
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        raise DataError(f"the data file {name} does not exist; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{name} is a folder, not a data file; give the path of the file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or shorten(error)
        raise DataError(f"the data file {name!r} cannot be opened ({reason}); check its path and permissions") from None
    if empty:
        raise DataError(f"the data file {name} is empty; write at least one row")


def _at_least_one(path: Path, rows: Rows) -> Rows:
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        yield row
    if not count:
        raise DataError(f"the data file {shorten(path)} holds no rows; write at least one")


def _read_json_lines(path: Path) -> Rows:
    for number, line in enumerate(read_lines(path, newline="\n"), start=1):
        source = f"{path.name} line {number}"
        if line is None:
            yield source, DataError(f"{source}: {TOO_LONG}")
        elif line.strip():
            yield source, _json_object(line, source)


def _read_json_rows(path: Path) -> Rows:
    """The objects of a JSON array; JSON lines that are called .json are read as such."""
    if _json_begins_with(path) == "{" and _is_json_lines(path):
        yield from _read_json_lines(path)
        return
    content = read_json(path, "check the path", "correct it, or write one object a line as .jsonl")
    if not isinstance(content, list):
        raise DataError(f"{shorten(path)} holds a JSON {_json_name(content)}, not an array of objects; write one object a line as .jsonl")
    for number, row in enumerate(content, start=1):
        source = f"{path.name} row {number}"
        yield source, row if isinstance(row, dict) else _no_object(row, source)


def _json_object(line: str, source: str) -> Row | DataError:
    if not is_utf8(line):
        return DataError(f"{source}: {NOT_UTF8}")
    try:
        row = json.loads(line, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        return DataError(f"{source}: not valid JSON ({error.msg} at column {error.colno}); correct or remove the line")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of nested brackets
        return DataError(f"{source}: JSON that cannot be read ({shorten(error)}); correct or remove the line")
    return row if isinstance(row, dict) else _no_object(row, source)


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    """An object, if it names nothing twice: of two values one would be lost in silence."""
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shorten(next(key for key in row if keys.count(key) > 1))!r} appears twice")
    return row


def _no_object(row: object, source: str) -> DataError:
    return DataError(f"{source}: a JSON {_json_name(row)}, not an object; write the row as {{...}} with column names")


def _json_name(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _read_parquet(path: Path) -> Rows:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError(f'{path} needs pyarrow to be read; run: pip install "slq[parquet]"') from None
    return _parquet_rows(path, parquet, arrow.lib.ArrowException)


def _parquet_rows(path: Path, parquet: Any, arrow_error: type[Exception]) -> Rows:
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"the column {shorten(twice)!r} of {shorten(path)} appears twice; rename or remove one")
            for batch in table.iter_batches(batch_size=_batch_of(table.metadata, path)):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name} row {number}", row
    except (arrow_error, OSError, UnicodeDecodeError, OverflowError) as error:
        reason = shorten(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise DataError(f"{shorten(path)} cannot be read as Parquet after row {number} ({reason}); write the file again") from None


def _batch_of(metadata: Any, path: Path) -> int:
    """How many rows are read at once, so that they take a bounded room: a row may hold an image of several megabytes.

    Raises:
        DataError: for a column that takes next to nothing in the file, and all memory once it is read.
    """
    size = 0
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            unpacked, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if unpacked > MAX_PARQUET_COLUMN and unpacked > MAX_COMPRESSION * packed:
                name = shorten(column.path_in_schema, 60)
                raise DataError(
                    f"the column {name!r} of {shorten(path)} takes {unpacked:,} bytes once it is read, and {packed:,} in the file"
                )
        size = max(size, group.total_byte_size // max(1, group.num_rows))
    return min(_BATCH, max(1, MAX_ROW // max(1, size)))


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _read_json_lines,
    ".json-lines": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": _read_parquet,
    ".json": _read_json_rows,
}

TABLE_SUFFIXES = tuple(_READERS)
