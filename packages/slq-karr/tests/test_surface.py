"""The commands of `slq karr` and their options, pinned: `python packages/slq-karr/tests/test_surface.py --write` records a change."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

RECORD = Path(__file__).with_name("surface.json")


def options() -> dict[str, list[str]]:
    (entry,) = entry_points(group="slq.commands", name="karr")
    app = entry.load()
    names = sorted(name for name in app if not name.startswith("-"))
    return {name: sorted(flag for argument in app[name].assemble_argument_collection() for flag in argument.names) for name in names}


def test_commands_and_options():
    assert options() == json.loads(RECORD.read_text(encoding="utf-8"))


def test_slq_has_the_command():
    for arguments, shown in ((["--help"], r"\bkarr\b.*From slq-karr"), (["karr", "--help"], "queries that never name")):
        environment = {name: value for name, value in os.environ.items() if name != "SLQ_LOAD_PLUGINS"}
        command = [sys.executable, "-m", "slq.cli", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert re.search(shown, result.stdout) and not result.stderr, result


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    RECORD.write_text(json.dumps(options(), indent=2) + "\n", encoding="utf-8")
