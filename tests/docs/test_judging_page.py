"""The example of docs/judging.md runs, and finds what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "judging.md"


@pytest.mark.slow
def test_its_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    exec(compile(block, "judging.md", "exec"), {})
