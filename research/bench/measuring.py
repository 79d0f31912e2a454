"""What the benchmarks share: items that everyone agrees on, clocks, and how a result is written."""

from __future__ import annotations

import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from slq.io.files import write_json
from slq.io.provenance import provenance
from slq.types import Item

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "research" / "results"
WORDS = "a red cat sits beside two small blue boats on the green grass under a bridge at night".split()
console = Console()


def agreed_items(images: int, texts: int, seed: int, size: tuple[int, int] = (640, 480)) -> tuple[list[Item], list[Item]]:
    """Coarse noise at the size (width, height) of a photograph, and captions of four to twenty words, twelve on average."""
    draw = np.random.default_rng(seed)
    width, height = size
    noise = [draw.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8) for _ in range(images)]
    drawn = [Item(image=Image.fromarray(each).resize(size)) for each in noise]
    return drawn, [Item(" ".join(draw.choice(WORDS, draw.integers(4, 21)))) for _ in range(texts)]


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device is done with it."""
    _wait(device)
    clock = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - clock


def timed_in_turns(ways: Mapping[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, `repeats` times after one call that warms up; the ways take turns, so that a busy moment hits all."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in track(range(repeats + 1), "turns", console=console):
        for way, run in ways.items():
            one = timed(run, device)
            if turn:
                seconds[way].append(one)
    return seconds


def statistics_of(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most, to four digits."""
    return {name: float(f"{of(values):.4g}") for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def write_result(name: str, result: Mapping, argv: Sequence[str], seed: int) -> None:
    """Write research/results/<name>.json beside its command, hardware, versions and date, and print it."""
    command = " ".join(["python", "-m", f"research.bench.{Path(argv[0]).stem}", *argv[1:]])
    whole = {**result, "command": command, **provenance(seed)}
    if not torch.cuda.is_available():
        whole["accelerator"] = "none was available; the same command measures on one"
    path = RESULTS / f"{name}.json"
    write_json(path, whole)
    console.print_json(json.dumps(whole))
    console.print(f"written to {path}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def fork(work: Callable[[], None]) -> int:
    """The number of a new process that does the work and ends, with 1 if it raises; nothing is imported anew."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return process
