"""One training step, four ways: the recipe of the SLQ release, the prefix split with nothing kept, with features kept, with prefixes kept.

    python -m research.bench.training_step --backbone random:internvl3-1b      writes research/results/training-step-<...>.json

The same items and the same latent queries each time; losses and gradients are compared before anything is timed. `naive` runs picture
tower, prefix and latents in one pass with the autograd graph over all of it, in every step, as the published code does. `naive decoder` is
the same from the picture features on; `features kept`, the decoder's part of `nothing kept`, stands beside it, in twice as many turns of
their own. The ways take turns, and how many times as fast one is, is told within a turn. Held memory is what autograd keeps between
forward and backward, counted storage by storage, beside the weights and the kept prefixes. At the shape of InternVL3-1B two CPU cores take
about twenty minutes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from research.bench.measuring import agreed_items, console, statistics_of, timed_in_turns, write_result
from slq.backbone import FrozenBackbone, load_backbone
from slq.batching import even_batches
from slq.latents import LatentQueries, pool
from slq.losses import info_nce
from slq.prefix_cache import PrefixCache
from slq.retriever import Retriever
from slq.runtime import seed_everything
from slq.types import Item

WAYS = ("naive", "nothing kept", "features kept", "prefixes kept")
# COCO as in the paper: pictures, captions, epochs.
COCO = {"pictures": 118_287, "captions": 590_000, "epochs": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="random:internvl3-1b")
    parser.add_argument("--dtype", help="default: float32 on the CPU, bfloat16 elsewhere")
    parser.add_argument("--device")
    parser.add_argument("--pictures", type=int, default=4, help="pictures in the batch, each with one caption")
    parser.add_argument("--picture-size", type=int, nargs=2, default=(640, 480), help="width and height, as COCO's")
    parser.add_argument("--num-latents", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7, help="turns of every way")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed_everything(options.seed)
    backbone = load_backbone(options.backbone, dtype=options.dtype, device=options.device)
    result = run(backbone, options)
    show(result)
    write_result(
        f"training-step-{options.backbone.removeprefix('random:')}-{options.pictures}-pictures-{backbone.device.type}-{backbone.identity.dtype}",
        result,
        sys.argv,
        options.seed,
    )


def run(backbone: FrozenBackbone, options: argparse.Namespace) -> dict:
    """Every way, compared and timed."""
    pictures, captions = agreed_items(options.pictures, options.pictures, options.seed, options.picture_size)
    given = pictures, captions, options.num_latents, options.seed
    ways = {way: Step(backbone, way, *given) for way in WAYS}
    decoders = {"naive decoder": NaiveDecoder(backbone, "naive", *given), "features kept": ways["features kept"]}
    agreement = agree(ways | decoders)
    console.print(f"largest difference to naive, relative: {agreement}")
    calls = {way: step.gradient for way, step in ways.items()} | {"tower": lambda: backbone.features(backbone.prepare(pictures))}
    turns = timed_in_turns(calls, backbone.device, options.repeats)
    of_decoders = timed_in_turns({way: step.gradient for way, step in decoders.items()}, backbone.device, 2 * options.repeats)
    seconds = {way: statistics.median(its) for way, its in turns.items()}
    held = {way: step.held_bytes() for way, step in ways.items()}
    return {
        "ways": {
            way: {"seconds": round(seconds[way], 3), "held_bytes": held[way], "kept_bytes": step.kept_bytes, **step.peak()}
            for way, step in ways.items()
        },
        "picture_tower_and_preparation_seconds": round(seconds["tower"], 3),
        "decoder_seconds": {way: statistics_of(its) for way, its in of_decoders.items()},
        "speed_up": {way: ratio(turns["naive"], turns[way]) for way in ways},
        "decoder_speed_up_nothing_kept": ratio(of_decoders["naive decoder"], of_decoders["features kept"]),
        "held_memory_share_nothing_kept": round(held["nothing kept"] / held["naive"], 4),
        "agreement": agreement,
        "batch": {"pictures": len(pictures), "captions": len(captions), "num_latents": options.num_latents},
        "projection": projection(backbone, {way: seconds[way] for way in ways}, seconds["tower"], options.pictures),
    }


class Step:
    """One way of a training step on a batch."""

    def __init__(
        self,
        backbone: FrozenBackbone,
        way: str,
        pictures: list[Item],
        captions: list[Item],
        num_latents: int,
        seed: int = 0,
        tokens_per_pass: int | None = 10**9,
    ):
        generator = torch.Generator().manual_seed(seed)
        self.backbone, self.batch = backbone, [*pictures, *captions]
        self.queries = LatentQueries.create(num_latents, backbone.dim, generator=generator).to(backbone.device)
        level = {"nothing kept": "none", "features kept": "features", "prefixes kept": "states"}.get(way)
        cache = PrefixCache(level=level) if level else None
        self.retriever = Retriever(backbone, self.queries, cache, prefix_split=way != "naive", tokens_per_pass=tokens_per_pass)
        if cache is not None:
            with torch.no_grad():
                self.retriever.states(self.batch)
        self.kept_bytes = cache.num_bytes if cache is not None else 0

    def states(self) -> Tensor:
        """Of the latents (B, N, D): first the pictures', then the captions'."""
        return self.retriever.states(self.batch)

    def loss(self) -> Tensor:
        pictures, captions = pool(self.states()).chunk(2)
        return info_nce(pictures, captions, torch.eye(len(pictures), dtype=torch.bool, device=pictures.device), self.queries.temperature)

    def gradient(self) -> tuple[float, Tensor]:
        loss = self.loss()
        return loss.item(), torch.autograd.grad(loss, self.queries.latents)[0]

    def held_bytes(self) -> int:
        """What is held between forward and backward."""
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
        return sum(held.values())

    def peak(self) -> dict[str, int]:
        """The most that a step takes of an accelerator's memory."""
        if self.backbone.device.type != "cuda":
            return {}
        torch.cuda.reset_peak_memory_stats()
        self.gradient()
        return {"peak_device_bytes": torch.cuda.max_memory_allocated()}


class NaiveDecoder(Step):
    """The naive way without what it does before its decoder: items are prepared, and pictures through the tower, beforehand."""

    def __init__(self, backbone: FrozenBackbone, *others: Any):
        super().__init__(backbone, *others)
        batches = even_batches(self.batch, backbone, self.retriever.tokens_per_pass)
        self.order = torch.tensor([i for batch in batches for i in batch]).argsort()
        prepared = [backbone.prepare([self.batch[i] for i in batch]) for batch in batches]
        self.given = [(each, backbone.features(each)) for each in prepared]

    def states(self) -> Tensor:
        states = [self.backbone.full(prepared, self.queries.latents, pictures=pictures) for prepared, pictures in self.given]
        return torch.cat(states)[self.order]


def agree(ways: dict[str, Step]) -> dict[str, dict[str, float]]:
    """Loss and gradient of each way against the naive one."""
    loss, gradient = ways["naive"].gradient()
    found = {way: step.gradient() for way, step in ways.items() if way != "naive"}
    return {
        way: {"loss": abs(one - loss) / abs(loss), "gradient": ((its - gradient).norm() / gradient.norm()).item()}
        for way, (one, its) in found.items()
    }


def projection(backbone: FrozenBackbone, seconds: dict[str, float], tower: float, pictures: int) -> dict:
    """Device-hours of the paper's COCO recipe from these steps, with the arithmetic."""
    if backbone.device.type != "cuda":
        return {"none": "no accelerator was available; the paper's recipe is not projected from a CPU"}
    uses = COCO["captions"] * COCO["epochs"]
    once = COCO["pictures"] * tower / pictures
    hours = {way: (uses * each / pictures + (once if way not in ("naive", "nothing kept") else 0)) / 3600 for way, each in seconds.items()}
    return {
        "device_hours": {way: round(value, 3) for way, value in hours.items()},
        "arithmetic": f"{uses} uses of a pair (captions x epochs) at each way's seconds a pair; what keeps reads each picture once",
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times as fast, turn by turn."""
    return statistics_of([a / b for a, b in zip(slow, fast, strict=True)])


def show(result: dict) -> None:
    table = Table("way", "seconds a step", "speed-up", "held MB", "kept MB")
    for way, one in result["ways"].items():
        memory = f"{one['held_bytes'] / 2**20:.0f}", f"{one['kept_bytes'] / 2**20:.0f}"
        table.add_row(way, f"{one['seconds']:.3f}", f"{result['speed_up'][way]['median']:.2f}", *memory)
    console.print(table)
    for name in ("picture_tower_and_preparation_seconds", "decoder_seconds", "decoder_speed_up_nothing_kept"):
        console.print(f"{name.replace('_', ' ')}: {result[name]}")
    console.print(f"held memory with nothing kept: {result['held_memory_share_nothing_kept']:.1%} of naive")


if __name__ == "__main__":
    main()
