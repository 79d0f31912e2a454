"""How a command begins: what it says while libraries are imported, and which of them it does not import at all."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# What embedding texts and searching with them has no use for, and what takes long to import; `torch` and `transformers` take as long as
# they take, with all that they import themselves (scipy and accelerate among it).
NOT_NEEDED = (
    "datasets",
    "imagehash",
    "matplotlib",
    "mteb",
    "pandas",
    "peft",
    "polars",
    "pyarrow",
    "resvg_py",
    "sentence_transformers",
    "sklearn",
    "slq.demo",
    "slq.doctor",
    "slq.evaluation",
    "slq.integrations",
    "slq.miniature.world",
    "slq.training",
    "tensorboard",
    "timm",
    "transformers.trainer",
    "wandb",
)
# As `slq` itself, which in the end writes what it has imported, and how often it has read the source of one of transformers' models.
SCRIPT = """
import json, os, sys
from pathlib import Path

read = []
source = os.path.join("models", "llama", "modeling_llama.py")
sys.addaudithook(lambda event, given: read.append(given[0]) if event == "open" and str(given[0]).endswith(source) else None)
from slq.cli import main

code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(json.dumps([sorted(sys.modules), len(read)]))
sys.exit(code)
"""


@dataclass(frozen=True)
class Ended:
    """What a command said on stderr, and what it had imported in the end."""

    stderr: str
    modules: list[str]
    read: int


def run(told: Path, *arguments: object) -> Ended:
    command = [sys.executable, "-c", SCRIPT, str(told), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return Ended(ran.stderr, *json.loads(told.read_text()))


@pytest.mark.process
def test_a_command_says_soon_that_it_has_begun_and_imports_what_it_needs(tmp_path: Path) -> None:
    """The first import of torch alone takes seconds."""
    (tmp_path / "items.jsonl").write_text('{"text": "a red cat"}\n')
    embed = run(tmp_path / "embed", "embed", tmp_path / "items.jsonl", "-o", tmp_path / "index", "--device", "cpu")
    search = run(tmp_path / "search", "search", "a cat", "-c", tmp_path / "index", "--device", "cpu", "--quiet")
    assert embed.stderr.startswith("slq embed: loading ...\n") and search.stderr == ""
    for command in (embed, search):
        assert {"torch", "transformers", "slq.encoders.latent"} <= set(command.modules)
        needless = [name for name in command.modules if any(f"{name}.".startswith(f"{each}.") for each in NOT_NEEDED)]
        assert needless == []
        assert command.read <= 1, "transformers reads the source of its models once, not for each of its two lists"
