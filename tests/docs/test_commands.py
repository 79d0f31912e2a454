"""Every `slq` command that a page shows is in the pinned surface, with its flags; every variable that slq reads is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SURFACE = json.loads((ROOT / "tests" / "cli" / "surface.json").read_text(encoding="utf-8"))
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_TESTS = {"SLQ_CRASH_AT", "SLQ_TEST_THREADS"}  # variables that only tests set
COMMON = {"--config", "--json", "--quiet", "--verbose", "-q", "-v"}
# Commands as they were called when something was measured; the sentence says so.
OLD = ("under the commands' names of then",)


def commands_in(page: Path) -> Iterator[str]:
    """Command lines in blocks, and command words in running text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)  # code, which is executed elsewhere
    for line in text.splitlines():
        if any(old in line for old in OLD):
            continue
        if found := re.match(r"(?:    |\$ )(slq [a-z].*)", line):
            yield re.split(r"  +(?=[a-zA-Z(])|\s#", found[1])[0]
        yield from re.findall(r"`(slq [a-z][^`]*)`", line)


def wrong(command: str) -> Iterator[str]:
    words = command.split()[1:]
    name = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in SURFACE), None)
    if name is None:
        if not any(known.startswith(f"{words[0]} ") for known in SURFACE):
            yield f"{command}: no such command"
        return
    for flag in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", command):
        if flag not in SURFACE[name] and flag not in ("--help", "--version"):
            yield f"{command}: no {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    assert [found for command in commands_in(page) if not command.startswith("slq karr") for found in wrong(command)] == []


def test_commands_of_the_makefile_exist():
    commands = re.findall(r"bin/(slq [a-z].*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert commands and [found for command in commands for found in wrong(command)] == []


def test_variables_are_documented():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "slq").rglob("*.py"))
    read = set(re.findall(r"[\"'](SLQ_[A-Z_]+)[\"']", sources)) - OF_TESTS
    pages = "\n".join(page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "docs/reference/options.md"])
    assert read and sorted(name for name in read if name not in pages) == []


def test_every_command_has_a_place_in_the_options_page():
    page = (ROOT / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    with_options = [name for name, words in SURFACE.items() if set(words) - COMMON]
    assert with_options and [name for name in with_options if f"## slq {name}" not in page] == []
