"""The figures of README.md and of pages of docs are those of the result files they cite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from research.bench import tables

ROOT = Path(__file__).parents[2]


OF_DOCS = ["performance.md", "claims.md", "judging.md", "photographs.md"]
PAGES = ["../README.md", *OF_DOCS, "design/0007-preprocessing.md", "design/0010-results.md"]


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_those_of_the_results(name):
    page = (ROOT / "docs" / name).resolve()
    written = page.read_text(encoding="utf-8")
    shown = {block["name"] for block in tables.BLOCK.finditer(written)}
    assert shown and shown <= set(tables.PAGES[page])
    assert tables.filled(page) == written, "run `python -m research.bench.tables`"


@pytest.mark.parametrize("name", OF_DOCS)
def test_results_and_figures_that_a_page_cites_are_there(name):
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    cited = re.findall(r"\]\(((?:\.\./)?[^)#:]+)\)", written)
    assert cited and all((ROOT / "docs" / path).is_file() for path in cited), [p for p in cited if not (ROOT / "docs" / p).is_file()]
    if name == "performance.md":
        named = {
            "training-step-internvl3-1b-4-images",
            "scaling-miniature",
            "encoding-miniature",
            "encoding-internvl3-1b",
        }
        assert all(f"{each}-cpu-float32.json" in written for each in named)
