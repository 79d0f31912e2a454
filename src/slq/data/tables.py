"""Reading the rows of JSON lines, CSV, TSV and Parquet files, one at a time.

A broken line does not stop the reading: it is handed out as a DataError in the place of its row, for the caller to raise or
to list. Only what is wrong with the whole file is raised.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from slq.errors import DataError, MissingExtraError

Row = dict[str, Any]
Rows = Iterator[tuple[str, "Row | DataError"]]

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Read the rows of a table one at a time; blank lines are skipped.

    Args:
        path: a file of JSON lines, CSV, TSV or Parquet, told by its suffix.

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
            f"{path} has the unknown suffix {path.suffix!r}; use one of {', '.join(TABLE_SUFFIXES)} (.jsonl: one JSON object per line)"
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
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {missing}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its path and permissions") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); {damaged}") from None


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        raise DataError(f"the data file {path} does not exist; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a data file; give the path of the file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"the data file {str(path)!r} cannot be opened ({error}); check its path and permissions") from None
    if empty:
        raise DataError(f"the data file {path} is empty; write at least one row")


def _at_least_one(path: Path, rows: Rows) -> Rows:
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        yield row
    if not count:
        raise DataError(f"the data file {path} holds no rows; write at least one")


def _read_json_lines(path: Path) -> Rows:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                source = f"{path.name} line {number}"
                yield source, _json_object(line, source)


def _json_object(line: bytes, source: str) -> Row | DataError:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return DataError(f"{source}: not valid UTF-8 at byte {error.start + 1}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return DataError(f"{source}: not valid JSON ({error.msg} at column {error.colno}); correct or remove the line")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of nested brackets
        return DataError(f"{source}: JSON that cannot be read ({error}); correct or remove the line")
    if not isinstance(row, dict):
        return DataError(f"{source}: a JSON {_json_name(row)}, not an object; write the line as {{...}} with column names")
    return row


def _json_name(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _read_csv(path: Path) -> Rows:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # Bytes that are not UTF-8 come out as lone surrogates, so that only their rows are lost.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        yield from _csv_rows(path, stream, delimiter)


def _csv_rows(path: Path, stream: TextIO, delimiter: str) -> Rows:
    reader = csv.reader(stream, delimiter=delimiter, strict=True)  # strict: a forgotten quote must not swallow rows in silence
    columns: list[str] | None = None
    while True:
        source = f"{path.name} line {reader.line_num + 1}"
        row: Row | DataError
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = DataError(f"{source}: not valid CSV ({error}, at line {reader.line_num}); correct the quotes of the row")
        else:
            if not any(cell.strip() for cell in cells) and len(cells) <= 1:
                continue
            if columns is None:
                columns = _csv_columns(cells, path, source)
                continue
            row = _csv_row(columns, cells, source, delimiter)
        if columns is None and isinstance(row, DataError):
            raise row  # nothing can be read without the column names
        yield source, row


def _csv_columns(cells: list[str], path: Path, source: str) -> list[str]:
    if any(_SURROGATE.search(cell) for cell in cells):
        raise DataError(f"{source}: the column names of {path} are not valid UTF-8; save the file as UTF-8")
    columns = [cell.strip() for cell in cells]
    for place, column in enumerate(columns):
        if column and column in columns[:place]:
            raise DataError(f"{source}: the column {column!r} of {path} appears twice; rename or remove one")
    return columns


def _csv_row(columns: list[str], cells: list[str], source: str, delimiter: str) -> Row | DataError:
    if len(cells) != len(columns):
        return DataError(
            f"{source}: {len(cells)} field(s) where the header has {len(columns)}; put values that contain {delimiter!r} in double quotes"
        )
    if any(_SURROGATE.search(cell) for cell in cells):
        return DataError(f"{source}: not valid UTF-8; save the file as UTF-8")
    return dict(zip(columns, cells, strict=True))


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
            for batch in table.iter_batches(batch_size=64):  # a row may hold an image of several megabytes
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name} row {number}", row
    except (arrow_error, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as Parquet after row {number} ({reason}); write the file again") from None


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _read_json_lines,
    ".json-lines": _read_json_lines,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}

TABLE_SUFFIXES = tuple(_READERS)
