"""The README's Python runs as it stands, the commands it names exist, and its figures are those that were measured."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path

import pytest

from slq.cli.app import build_app
from slq.miniature.export import write_sample_data

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_block_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(block.splitlines()) == 10
    write_sample_data(tmp_path / "data" / "train", "train", 24)
    write_sample_data(tmp_path / "data" / "test", "test", 12)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    printed = re.findall(r"^(\d{4}\.png)$", capsys.readouterr().out, flags=re.M)
    assert len(printed) == 3 and set(printed) <= {f"{number:04d}.png" for number in range(12)}


def test_commands_and_options_exist():
    shown = re.findall(r"`?(slq (?:train|eval|compare|mine|leakage|retention|embed|index|search|doctor|sample-data|demo)[^`\n]*)", README)
    assert {line.split()[1] for line in shown} >= {"train", "eval", "embed", "index", "search", "sample-data"}
    app = build_app()
    for line in shown:
        known = {flag for argument in app[line.split()[1]].assemble_argument_collection() for flag in argument.names}
        assert set(re.findall(r" (--?[a-z-]+)", line)) <= known, line


ROWS = {
    "text to image, hit@1": ["explicit.known.t2i.hit@1"],
    "text to image, hit@5": ["explicit.known.t2i.hit@5"],
    "image to text, hit@1": ["explicit.known.i2t.hit@1"],
    "image to text, hit@5": ["explicit.known.i2t.hit@5"],
    "the same two": ["explicit.held_out.t2i.hit@5", "explicit.held_out.i2t.hit@5"],
    "knowledge": ["knowledge.hit@5"],
    "an image and a change": ["composed.hit@5"],
    "a name drawn": ["rendered.hit@5"],
}


def test_figures_are_those_of_the_benchmark():
    """Every figure of the README's first table, cell by cell; the other's are checked as those of docs are."""
    result = json.loads((ROOT / "research" / "results" / "miniature.json").read_text(encoding="utf-8"))
    columns = (result["controls"]["last_token"], result["controls"]["untrained_latents"], result)
    (table,) = re.findall(r"<!-- miniature -->\n(.*?)<!-- end -->", README, flags=re.S)
    rows = [line.strip("| ").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(ROWS)
    for (start, places), (name, _, *cells) in zip(ROWS.items(), rows, strict=True):
        assert name.startswith(start)
        for cell, column in zip(cells, columns, strict=True):
            figures = [reduce(lambda tree, key: tree[key], place.split("."), column) for place in places]
            wanted = [f"{one['mean']:.1f}" + (f" ± {one['sd']:.1f}" if column is result else "") for one in figures]
            assert cell.replace("*", "").strip() == ", ".join(wanted), name
    assert f"({result['adapt_seconds']['mean']:.0f} s each" in README


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
