"""Pages of the repository: their links lead somewhere, the files that they name exist, and the picture of the packages is current."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [
    *(ROOT / name for name in TOP),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "packages").glob("*/README.md")),
    ROOT / "src/slq/miniature/weights/README.md",
]
# Pages about the code as it is; the changelog and design notes also name what was there before.
OF_TODAY = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "docs/architecture.md"]
NAMED_FILE = re.compile(r"`((?:src|tests|docs|packages|research|examples)/[\w./-]+)`")


def text_of(page: Path) -> str:
    """A page without its code, in which brackets are no links."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"^    .*$", "", text, flags=re.M)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on the web."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists():
            yield target
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", OF_TODAY, ids=lambda page: page.name)
def test_named_files_exist(page):
    named = NAMED_FILE.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not re.search("NNNN|NAME", name) and not (ROOT / name).exists()] == []


def test_the_picture_of_the_packages_is_current():
    spec = importlib.util.spec_from_file_location("architecture_map", ROOT / "docs" / "architecture_map.py")
    assert spec is not None and spec.loader is not None
    architecture_map = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture_map)
    layers = architecture_map.layers()
    drawn = architecture_map.IMAGE.read_text(encoding="utf-8")
    assert drawn == architecture_map.draw(layers), "run: python docs/architecture_map.py"
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {name for layer in layers for name in layer} - {"runtime", "compat", "testing"}
    assert [name for name in sorted(packages) if f"`{name}`" not in page] == []
