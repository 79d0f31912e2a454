"""Every `python -m research...` command that a page shows names a module that there is, and flags that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.paper.command import PaperConfig, main
from research.photo.command import BuildConfig, EvaluateConfig, KnowledgeConfig, PageConfig, ReportConfig
from slq.config.fields import options_of

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "src/slq/miniature/weights/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "research").rglob("*.md")),
]


CONFIGS: dict[str, tuple[type, ...]] = {
    "research.paper": (PaperConfig,),
    "research.photo": (BuildConfig, EvaluateConfig, KnowledgeConfig, PageConfig, ReportConfig),
}


def commands_in(page: Path) -> Iterator[tuple[str, str]]:
    """Module and what follows it, of commands in a line of their own and within running text, which may wrap."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"(`?)python -m (research[\w.]*)", text):
        rest = text[found.end() :]
        yield found[2], re.split(r"`" if found[1] else r"\n|`|  +", rest, maxsplit=1)[0]


def source_of(module: str) -> str:
    """The code that reads a module's command line."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def flags_of(module: str) -> set[str]:
    if module in CONFIGS:
        options = [each for config in CONFIGS[module] for each in options_of(config).values()]
        return {flag for each in options for flag in each.flags or (each.flag,)} | {"--help"}
    return set(re.findall(r'"(--?[a-z][a-z0-9-]*)"', source_of(module))) | {"--help"}


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands_in(page))], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    for module, rest in commands_in(page):
        assert source_of(module), f"there is no {module}"
        unknown = set(re.findall(r"(?<![\w-])(--?[a-z][a-z0-9-]*)", rest)) - flags_of(module)
        assert not unknown, f"python -m {module} {rest.strip()}: no {', '.join(sorted(unknown))}"


def test_help_of_a_program_of_its_own_is_words(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Repeat an experiment of the paper" in shown and "what is there is not done again" in " ".join(shown.split())
