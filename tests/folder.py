"""A temporary folder of small images and data files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


class Folder:
    """A temporary folder with verbs for what the tests need in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def images(self, *names: str) -> None:
        for shade, name in enumerate(names):
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), (shade, 0, 0)).save(file)

    def jsonl(self, name: str, rows: Sequence[Any]) -> Path:
        """Write one line per row; a str is written as it is, so that it can be broken."""
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        return self.text(name, "".join(f"{line}\n" for line in lines))

    def csv(self, name: str, rows: Sequence[dict[str, Any]], delimiter: str = ",") -> Path:
        file = self.path / name
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        return file

    def parquet(self, name: str, rows: Sequence[dict[str, Any]]) -> Path:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist(list(rows)), self.path / name)
        return self.path / name

    def text(self, name: str, content: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file
