"""The commands of `slq karr` and their options, pinned: `python packages/slq-karr/tests/test_surface.py --write` records a change."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

RECORD = Path(__file__).with_name("surface.json")


def options() -> dict[str, list[str]]:
    from typer.main import get_command

    (entry,) = entry_points(group="slq.commands", name="karr")
    commands = get_command(entry.load()).commands
    return {
        name: sorted(option for each in command.params for option in (*each.opts, *each.secondary_opts))
        for name, command in sorted(commands.items())
    }


def test_commands_and_options():
    assert options() == json.loads(RECORD.read_text(encoding="utf-8"))


def test_slq_has_the_command():
    run = "import sys; sys.argv = ['slq', '--help']; from slq.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, timeout=120)
    assert re.search(r"\bkarr\b.*queries that never name", result.stdout) and not result.stderr, result


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    RECORD.write_text(json.dumps(options(), indent=2) + "\n", encoding="utf-8")
