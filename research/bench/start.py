"""Seconds of CPU and by the clock until a short command has ended, and how much of that Python and torch take by themselves.

    python -m research.bench.start --before ../slq-before

Writes research/results/start.json. Each way is a Python process of its own, which is given the sources of this checkout or of the one that
--before names; they take turns. An adapter and an index of 60 images are made once. The clock counts other work on the machine too.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from research.bench.measuring import ROOT, console, statistics_of, write_result

SEED, IMAGES = 0, 60
WAYS = {
    # The floor: torch alone, and with the class of the model, without which nothing is embedded.
    "import torch": ("-c", "import torch"),
    "import the model's class": ("-c", "from slq import compat; from transformers import InternVLForConditionalGeneration"),
    "import slq": ("-c", "import slq"),
    "slq --help": ("-m", "slq.cli", "--help"),
    "slq search": ("-m", "slq.cli", "search", "a red cat", "-c", "index", "--device", "cpu"),
    "slq embed": ("-m", "slq.cli", "embed", "one.jsonl", "-m", "adapter", "-o", "one", "--overwrite", "--device", "cpu"),
    "slq.load": ("-c", "import slq; slq.load('adapter', device='cpu')"),
}
FREE = {"import torch", "import the model's class", "import slq", "slq --help"}  # of what `prepare` makes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout, measured in the same run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({} if options.before is None else {"before": options.before.resolve()})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if not FREE.issuperset(options.only):
            prepare(folder)
        ran = {name: {way: [] for way in options.only} for name in checkouts}
        for _ in track(range(options.repeats), "turns", console=console):
            for way in options.only:
                for name, checkout in checkouts.items():
                    ran[name][way].append(run(WAYS[way], checkout, folder))
        shares = {name: {way: imports(WAYS[way], checkout, folder) for way in options.only} for name, checkout in checkouts.items()}
    result = {
        name: {
            way: {
                "cpu_seconds": statistics_of([cpu for cpu, _ in seconds]),
                "wall_seconds": statistics_of([wall for _, wall in seconds]),
                "imports_of_wall": round(shares[name][way], 3),
            }
            for way, seconds in by_way.items()
        }
        for name, by_way in ran.items()
    }
    write_result("start", {**result, "repeats": options.repeats}, sys.argv, SEED)


def prepare(folder: Path) -> None:
    """What the commands read: an adapter after one step, an index of 60 images, and a text."""
    (folder / "one.jsonl").write_text('{"text": "a red cat"}\n')
    for command in (
        ["sample-data", "train", "--split", "train", "--count", str(IMAGES)],
        ["train", "train/captions.jsonl", "-o", "adapter", "--epochs", "1", "--seed", str(SEED)],
        ["embed", "train/images", "-m", "adapter", "-o", "index"],
    ):
        run(("-m", "slq.cli", *command), ROOT, folder)


def run(arguments: Sequence[str], checkout: Path, folder: Path, *flags: str) -> tuple[float, float]:
    """Seconds of CPU, of its own and of the system for it, and by the clock of one process of Python."""
    before, clock = os.times(), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, *flags, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - clock, os.times()
    if ran.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    (folder / "stderr").write_text(ran.stderr)
    return sum(after[2:4]) - sum(before[2:4]), wall


def imports(arguments: Sequence[str], checkout: Path, folder: Path) -> float:
    """The share of the clock that imports take, from one process that is told to time them."""
    _, wall = run(arguments, checkout, folder, "-X", "importtime")
    found = re.findall(r"^import time: +(\d+) \|", (folder / "stderr").read_text(), flags=re.MULTILINE)
    return sum(map(int, found)) / 1e6 / wall


if __name__ == "__main__":
    main()
