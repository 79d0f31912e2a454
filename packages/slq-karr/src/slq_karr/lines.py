"""JSON lines that slq itself writes: all of a file or none of it, and strict on reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slq.data import read_rows
from slq.errors import DataError
from slq.io.files import write_jsonl


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines so that readers see the old file or the new."""
    write_jsonl(path, rows)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that slq wrote; raises DataError for a broken one. An empty or missing file has none."""
    if not path.is_file() or path.stat().st_size == 0:
        return []
    rows = []
    for _, row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return rows
