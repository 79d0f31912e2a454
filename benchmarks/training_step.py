"""One training step, four ways: the recipe of the SLQ release, the prefix split with nothing kept, with features kept, with prefixes kept.

    python benchmarks/training_step.py --backbone random:internvl3-1b      writes benchmarks/results/training-step-<...>.json

The same items and the same latent queries each time; losses and gradients are compared before anything is timed. `naive` runs picture
tower, prefix and latents in one pass with the autograd graph over all of it, in every step, as the published code does. Held memory is what
autograd keeps between forward and backward, counted storage by storage, beside the weights and the kept prefixes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from slq.backbone import FrozenBackbone, load_backbone
from slq.latents import LatentQueries, pool
from slq.losses import info_nce
from slq.prefix_cache import PrefixCache
from slq.retriever import Retriever
from slq.runtime import provenance, seed_everything
from slq.types import Item

RESULTS = Path(__file__).parent / "results"
WORDS = "a red cat sits beside two small blue boats on the green grass under a bridge at night".split()
WAYS = ("naive", "nothing kept", "features kept", "prefixes kept")
# COCO as in the paper: pictures, captions, epochs.
COCO = {"pictures": 118_287, "captions": 590_000, "epochs": 5}

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="random:internvl3-1b")
    parser.add_argument("--dtype", help="default: float32 on the CPU, bfloat16 elsewhere")
    parser.add_argument("--device")
    parser.add_argument("--pictures", type=int, default=4, help="pictures in the batch, each with one caption")
    parser.add_argument("--picture-size", type=int, nargs=2, default=(640, 480), help="width and height, as COCO's")
    parser.add_argument("--num-latents", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seed_everything(options.seed)
    backbone = load_backbone(options.backbone, dtype=options.dtype, device=options.device)
    result = run(backbone, options)
    name = f"training-step-{options.backbone.removeprefix('random:')}-{backbone.device.type}-{backbone.identity.dtype}.json"
    out = options.out or RESULTS / name
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)
    console.print(f"written to {out}")


def run(backbone: FrozenBackbone, options: argparse.Namespace) -> dict:
    """Every way, compared and timed."""
    pictures, captions = items(options)
    ways = {way: Step(backbone, way, pictures, captions, options) for way in WAYS}
    agreement = agree(ways)
    console.print(f"largest difference to naive, relative: {agreement}")
    measured: dict[str, dict[str, float]] = {way: step.measure(options.repeats) for way, step in ways.items()}
    tower = timed(backbone, lambda: backbone.features(backbone.prepare(pictures)), options.repeats)
    naive, fresh = measured["naive"], measured["nothing kept"]
    speed_up = {way: round(naive["seconds"] / one["seconds"], 2) for way, one in measured.items()}
    return {
        "ways": measured,
        "picture_tower_and_preparation_seconds": round(tower, 3),
        "speed_up": speed_up,
        "decoder_speed_up_nothing_kept": round((naive["seconds"] - tower) / (fresh["seconds"] - tower), 2),
        "held_memory_share_nothing_kept": round(fresh["held_bytes"] / naive["held_bytes"], 4),
        "agreement": agreement,
        "batch": {"pictures": len(pictures), "captions": len(captions), "num_latents": options.num_latents},
        "projection": projection(backbone, measured, tower, options),
        "command": " ".join(["python", "benchmarks/training_step.py", *sys.argv[1:]]),
        **provenance(options.seed),
    }


def items(options: argparse.Namespace) -> tuple[list[Item], list[Item]]:
    """Coarse noise at the size of a photograph, and captions of about twelve words."""
    draw = np.random.default_rng(options.seed)
    width, height = options.picture_size
    noise = [draw.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8) for _ in range(options.pictures)]
    pictures = [Item(image=Image.fromarray(each).resize((width, height))) for each in noise]
    return pictures, [Item(" ".join(draw.choice(WORDS, 12))) for _ in range(options.pictures)]


class Step:
    """One way of a training step on a batch."""

    def __init__(self, backbone: FrozenBackbone, way: str, pictures: list[Item], captions: list[Item], options: argparse.Namespace):
        generator = torch.Generator().manual_seed(options.seed)
        self.backbone, self.batch = backbone, [*pictures, *captions]
        self.queries = LatentQueries.create(options.num_latents, backbone.dim, generator=generator).to(backbone.device)
        level = {"nothing kept": "none", "features kept": "features", "prefixes kept": "states"}.get(way)
        cache = PrefixCache(level=level) if level else None
        self.retriever = Retriever(backbone, self.queries, cache, prefix_split=way != "naive", tokens_per_pass=10**9)
        if cache is not None:
            with torch.no_grad():
                self.retriever.states(self.batch)
        self.kept_bytes = cache.num_bytes if cache is not None else 0

    def loss(self) -> Tensor:
        pictures, captions = pool(self.retriever.states(self.batch)).chunk(2)
        return info_nce(pictures, captions, torch.eye(len(pictures), dtype=torch.bool, device=pictures.device), self.queries.temperature)

    def gradient(self) -> tuple[float, Tensor]:
        loss = self.loss()
        return loss.item(), torch.autograd.grad(loss, self.queries.latents)[0]

    def measure(self, repeats: int) -> dict[str, float]:
        """Seconds of forward and backward (median), and what is held between the two."""
        held: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.backbone.model.parameters()}

        def hold(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = self.loss()
        del loss
        if self.backbone.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(self.backbone, self.gradient, repeats)
        peak = {"peak_device_bytes": torch.cuda.max_memory_allocated()} if self.backbone.device.type == "cuda" else {}
        return {"seconds": round(seconds, 3), "held_bytes": sum(held.values()), "kept_bytes": self.kept_bytes, **peak}


def agree(ways: dict[str, Step]) -> dict[str, dict[str, float]]:
    """Loss and gradient of each way against the naive one."""
    loss, gradient = ways["naive"].gradient()
    found = {way: step.gradient() for way, step in ways.items() if way != "naive"}
    return {
        way: {"loss": abs(one - loss) / abs(loss), "gradient": ((its - gradient).norm() / gradient.norm()).item()}
        for way, (one, its) in found.items()
    }


def timed(backbone: FrozenBackbone, run: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()
        clock = time.perf_counter()
        run()
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - clock)
    return statistics.median(seconds[1:])


def projection(backbone: FrozenBackbone, measured: dict, tower: float, options: argparse.Namespace) -> dict:
    """Device-hours of the paper's COCO recipe from these steps: pictures kept as features or prefixes, captions read anew in each epoch."""
    if backbone.device.type != "cuda":
        return {"none": "no accelerator was available; the paper's recipe is not projected from a CPU"}
    per_pair = {way: one["seconds"] / options.pictures for way, one in measured.items()}
    uses = COCO["captions"] * COCO["epochs"]
    once = COCO["pictures"] * tower / options.pictures
    hours = {way: (uses * each + (once if way not in ("naive", "nothing kept") else 0)) / 3600 for way, each in per_pair.items()}
    return {
        "device_hours": {way: round(value, 3) for way, value in hours.items()},
        "arithmetic": f"{uses} uses of a pair (captions x epochs) at the seconds a pair of each way, and the picture tower once a picture",
    }


def show(result: dict) -> None:
    table = Table("way", "seconds a step", "speed-up", "held MB", "kept MB")
    for way, one in result["ways"].items():
        memory = f"{one['held_bytes'] / 2**20:.0f}", f"{one['kept_bytes'] / 2**20:.0f}"
        table.add_row(way, f"{one['seconds']:.3f}", f"{result['speed_up'][way]:.2f}", *memory)
    console.print(table)
    for name in ("picture_tower_and_preparation_seconds", "decoder_speed_up_nothing_kept", "held_memory_share_nothing_kept"):
        console.print(f"{name.replace('_', ' ')}: {result[name]}")


if __name__ == "__main__":
    main()
