"""The figures of docs/performance.md are those of the result files it cites."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_tables_are_those_of_the_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = tables.PAGE.read_text(encoding="utf-8")
    assert {block["name"] for block in tables.BLOCK.finditer(page)} == set(tables.TABLES)
    assert tables.filled(page) == page, "run `python benchmarks/tables.py`"
    for name in ("training-step-internvl3-1b", "scaling-miniature", "encoding-miniature", "encoding-internvl3-1b"):
        assert f"{name}-cpu-float32.json" in page
