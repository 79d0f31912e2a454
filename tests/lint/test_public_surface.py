"""What users build on, pinned, so that a change is deliberate: public names, commands and their options.

`python tests/lint/test_public_surface.py --write` records the options as they are now in public_surface.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

PUBLIC_NAMES = ["Embeddings", "Item", "LatentEncoder", "Pair", "TrainConfig", "load", "load_model", "read_pairs", "train"]
COMMANDS = {
    "train",
    "leakage",
    "mine",
    "eval",
    "compare",
    "benchmarks",
    "embed",
    "search",
    "doctor",
    "retention",
    "cache",
    "world",
    "demo",
}
RECORD = Path(__file__).with_name("public_surface.json")


def options() -> dict[str, list[str]]:
    """Each command (`world`, `world show`, ...) with the names of its options and arguments, as typer registered them.

    What other distributions add is not among them: `main` adds it.
    """
    from typer.main import get_command

    from slq.cli import app

    found: dict[str, list[str]] = {}

    def visit(name: str, command: Any) -> None:
        found[name] = sorted(option for each in command.params for option in (*each.opts, *each.secondary_opts))
        for child_name, child in getattr(command, "commands", {}).items():
            visit(f"{name} {child_name}".strip(), child)

    visit("", get_command(app))
    return dict(sorted(found.items()))


def test_public_names():
    import slq

    assert sorted(slq.__all__) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(slq, name) is not None


def test_commands():
    assert {name.split()[0] for name in options() if name} == COMMANDS


def test_options():
    if not RECORD.exists():
        pytest.skip(f"nothing recorded yet: python tests/lint/{Path(__file__).name} --write")
    assert options() == json.loads(RECORD.read_text(encoding="utf-8"))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    RECORD.write_text(json.dumps(options(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}")
