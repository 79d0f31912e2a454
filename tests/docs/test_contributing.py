"""The recipes of CONTRIBUTING.md run as they stand, and there is one for each registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.M | re.S))
BLOCKS = [(title, block) for title, text in RECIPES.items() for block in re.findall(r"```python\n(.*?)```", text, flags=re.S)]
# Registry -> the recipe that says how to add to it.
OF_GROUP = {
    "slq.losses": "A loss",
    "slq.poolings": "A pooling",
    "slq.families": "A family of models",
    "slq.benchmarks": "A benchmark",
    "slq.stores": "A store",
    "slq.commands": "A command",
    "slq.methods": "A training method",
}


@pytest.mark.parametrize(("title", "block"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_recipe_runs(title, block):
    assert "assert" in block, "a recipe shows that it works"
    exec(compile(block, f"CONTRIBUTING.md: {title}", "exec", dont_inherit=True), {"__name__": "recipe"})


def test_every_registry_has_a_recipe():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src" / "slq").rglob("*.py")]
    groups = {group for source in sources for group in re.findall(r'Registry(?:\[.*?\])?\("(slq\.\w+)"', source)}
    assert groups >= {"slq.losses", "slq.poolings"}
    missing = [group for group in sorted(groups) if OF_GROUP.get(group) not in RECIPES]
    assert missing == [], "write a recipe for each"


def test_the_flag_of_the_recipe_fits_the_file():
    """The diff's context lines are in the file that it names."""
    (diff,) = re.findall(r"```diff\n(.*?)```", RECIPES["A flag"], flags=re.S)
    name = re.search(r"^--- (\S+)", diff, flags=re.M)[1]
    source = (ROOT / name).read_text(encoding="utf-8")
    context = [line[1:] for line in diff.splitlines() if line.startswith(" ")]
    assert context and [line for line in context if line not in source] == []
    (added,) = [line[1:] for line in diff.splitlines() if line.startswith("+")]
    from slq.config import fields

    exec(added.strip().replace("OPTIMISATION", "''"), {"option": fields.option})
