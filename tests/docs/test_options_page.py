"""docs/reference/options.md is what the fields of `slq.config` say."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_current(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import options_page

    written = (ROOT / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    assert written == options_page.page(), "run: python docs/options_page.py"
