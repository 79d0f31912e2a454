"""The README's Python runs as it stands, and the commands it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slq.miniature.export import write_world

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_block_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(block.splitlines()) == 10
    write_world(tmp_path / "world" / "train", "train", 24)
    write_world(tmp_path / "world" / "test", "test", 12)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    printed = re.findall(r"'(\d{4}\.png)'", capsys.readouterr().out)
    assert len(printed) == 3 and set(printed) <= {f"{number:04d}.png" for number in range(12)}


def test_commands_and_options_exist():
    from typer.main import get_command

    from slq.cli import app

    commands = get_command(app).commands
    shown = re.findall(r"`?(slq (?:train|eval|embed|search|world|demo)[^`\n]*)", README)
    assert {line.split()[1] for line in shown} >= {"train", "eval", "embed", "search", "world"}
    for line in shown:
        known = {option for each in commands[line.split()[1]].params for option in each.opts}
        assert set(re.findall(r" (--[a-z-]+)", line)) <= known, line


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
