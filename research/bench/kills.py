"""Kill training, encoding and the writing of caches at random instants, run each again, and compare the bits with a run that nobody killed.

    python -m research.bench.kills --kills 100

Every attempt is a process forked from this one, so that nothing is imported anew and most instants fall into the work itself.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from research.bench.measuring import console, fork, write_result
from slq.adapters.latents import LatentQueries
from slq.cli.app import main as command_line
from slq.data import RetrievalSet, read_pairs
from slq.encoders import LatentEncoder
from slq.evaluation.vectors import encode_once
from slq.io.files import write_json
from slq.miniature.export import write_sample_data
from slq.models import load_model
from slq.training import TrainConfig, train

SEED = 0
Work = Callable[[Path], object]
OPTIONS = TrainConfig(num_latents=2, batch_size=8, epochs=3, save_steps=2, validation_split=0, learning_rate=5e-3, cache_memory_gb=0)


def works(data: Path) -> dict[str, tuple[Work, Work]]:
    """What is killed, and how its result is read: training with prefixes on disk, `slq embed`, and an evaluation's cached vectors."""
    model, pairs = load_model(device="cpu"), read_pairs(data / "captions.jsonl").pairs
    encoder = LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(SEED)))
    adapter = data.parent / "adapter"
    encoder.save_pretrained(adapter, overwrite=adapter.exists())
    items = {str(i): pair.positives[0] for i, pair in enumerate(pairs)}
    sets = [RetrievalSet("set", items, {f"image {i}": pair.query for i, pair in enumerate(pairs)}, {}, ())]

    def training(folder: Path) -> None:
        options = OPTIONS.__class__(**{**vars(OPTIONS), "cache_dir": folder / "cache"})
        train(pairs, model, folder / "run", options, resume=True, show_progress=False)

    def embedding(folder: Path) -> None:
        code = command_line(["embed", str(data / "images"), "-m", str(adapter), "-o", str(folder / "index"), "--quiet"])
        assert code == 0, f"it ended with {code}"

    def caching(folder: Path) -> None:
        vectors = encode_once(encoder, sets, 8, cache_dir=folder / "cache", progress=lambda count: None)
        write_json(folder / "vectors.json", vectors.vectors_ND.tolist())

    return {
        "train": (training, lambda folder: (folder / "run" / "adapter.safetensors").read_bytes()),
        "embed": (embedding, lambda folder: np.load(folder / "index" / "vectors.npz")["vectors"].tobytes()),
        "cache": (caching, lambda folder: (folder / "vectors.json").read_bytes()),
    }


def attempt(work: Work, folder: Path, seconds: float | None = None) -> int:
    """The exit code of the work in a process of its own, killed after so many seconds."""

    def in_silence() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        work(folder)

    process = fork(in_silence)
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def main() -> None:
    """Count kills, and what differed after them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each kind of work")
    parser.add_argument("--work", nargs="+", default=["train", "embed", "cache"], help="kinds of work")
    parser.add_argument("--seed", type=int, default=SEED, help="of the instants")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw, result = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        write_sample_data(data, "train", 48)
        for name in options.work:
            work, read = works(data)[name]
            folder = Path(scratch) / name
            clock = time.monotonic()
            assert attempt(work, folder) == 0
            seconds, wanted = time.monotonic() - clock, read(folder)
            counts = {"kills": 0, "refused": 0, "other bits": 0}
            for _ in track(range(options.kills), name, console=console):
                clock = time.monotonic()
                while attempt(work, _emptied(folder), draw.uniform(0, seconds)) != -signal.SIGKILL:  # it had ended by then
                    seconds, clock = time.monotonic() - clock, time.monotonic()
                counts["kills"] += 1
                if attempt(work, folder) != 0:
                    counts["refused"] += 1
                elif read(folder) != wanted:
                    counts["other bits"] += 1
            result[name] = {**counts, "seconds_of_a_run": round(seconds, 2)}
            console.print(name, result[name])
    write_result("kills", result, sys.argv, options.seed)


if __name__ == "__main__":
    main()
