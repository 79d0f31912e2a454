"""One training step, four ways: the SLQ release, two passes with nothing cached, with vision features cached, with prefixes cached.

    python -m research.bench.training_step --model random:internvl3-1b      writes research/results/training-step-<...>.json

The same items and the same latent queries each time; losses and gradients are compared before anything is timed. `naive` runs vision
encoder, prefix and latents in one pass with the autograd graph over all of it, in every step, as the published code does. `naive decoder`
is the same from the image features on; `vision features cached`, the decoder's part of `nothing cached`, stands beside it, in twice as many
turns of their own. The ways take turns, and how many times as fast one is, is told within a turn. Held memory is what autograd keeps
between forward and backward, counted storage by storage, beside the weights and the cached prefixes. At the shape of InternVL3-1B two CPU
cores take about twenty minutes.
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
from research.bench.roofline import Machine
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.encoders.latent import LatentEncoder
from slq.io.provenance import seed_everything
from slq.losses.info_nce import info_nce
from slq.models import FrozenModel, load_model
from slq.models.batching import bucketed_batches
from slq.pooling import MeanPooling
from slq.types import Item

WAYS = ("naive", "nothing cached", "vision features cached", "prefixes cached")
# COCO as in the paper: images, captions, epochs.
COCO = {"images": 118_287, "captions": 590_000, "epochs": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:internvl3-1b")
    parser.add_argument("--dtype", help="default: float32 on the CPU, bfloat16 elsewhere")
    parser.add_argument("--device")
    parser.add_argument("--images", type=int, default=4, help="images in the batch, each with one caption")
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480), help="width and height, as COCO's")
    parser.add_argument("--num-latents", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7, help="turns of every way")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed_everything(options.seed)
    model = load_model(options.model, dtype=options.dtype, device=options.device)
    result = run(model, options)
    show(result)
    write_result(
        f"training-step-{options.model.removeprefix('random:')}-{options.images}-images-{model.device.type}-{model.identity.dtype}",
        result,
        sys.argv,
        options.seed,
    )


def run(model: FrozenModel, options: argparse.Namespace) -> dict:
    """Every way, compared and timed."""
    images, captions = agreed_items(options.images, options.images, options.seed, options.image_size)
    given = images, captions, options.num_latents, options.seed
    ways = {way: Step(model, way, *given) for way in WAYS}
    decoders = {"naive decoder": NaiveDecoder(model, "naive", *given), "vision features cached": ways["vision features cached"]}
    agreement = agree(ways | decoders)
    console.print(f"largest difference to naive, relative: {agreement}")
    calls = {way: step.gradient for way, step in ways.items()} | {"vision encoder": lambda: model.features(model.prepare(images))}
    turns = timed_in_turns(calls, model.device, options.repeats)
    of_decoders = timed_in_turns({way: step.gradient for way, step in decoders.items()}, model.device, 2 * options.repeats)
    seconds = {way: statistics.median(its) for way, its in turns.items()}
    held, machine = {way: step.held_bytes() for way, step in ways.items()}, Machine(model.device)
    return {
        "ways": {
            way: {"seconds": round(seconds[way], 3), "held_bytes": held[way], "cached_bytes": step.cached_bytes, **step.peak()}
            for way, step in ways.items()
        },
        "vision_encoder_and_preparation_seconds": round(seconds["vision encoder"], 3),
        "decoder_seconds": {way: statistics_of(its) for way, its in of_decoders.items()},
        "speed_up": {way: ratio(turns["naive"], turns[way]) for way in ways},
        "decoder_speed_up_nothing_cached": ratio(of_decoders["naive decoder"], of_decoders["vision features cached"]),
        "held_memory_fraction_nothing_cached": round(held["nothing cached"] / held["naive"], 4),
        "roofline": {way: machine.used(call, seconds[way]) for way, call in calls.items()},
        "agreement": agreement,
        "batch": {"images": len(images), "captions": len(captions), "num_latents": options.num_latents},
        "projection": projection(model, {way: seconds[way] for way in ways}, seconds["vision encoder"], options.images),
    }


class Step:
    """One way of a training step on a batch."""

    def __init__(
        self,
        model: FrozenModel,
        way: str,
        images: list[Item],
        captions: list[Item],
        num_latents: int,
        seed: int = 0,
        mini_batch_tokens: int | None = 10**9,
    ):
        generator = torch.Generator().manual_seed(seed)
        self.model, self.batch = model, [*images, *captions]
        self.queries = LatentQueries.create(num_latents, model.dim, generator=generator).to(model.device)
        level = {"nothing cached": "none", "vision features cached": "vision", "prefixes cached": "kv"}.get(way)
        cache = KVCache(level=level) if level else None
        self.encoder = LatentEncoder(model, self.queries, cache, prefix_caching=way != "naive", mini_batch_tokens=mini_batch_tokens)
        if cache is not None:
            with torch.no_grad():
                self.encoder.states(self.batch)
        self.cached_bytes = cache.num_bytes if cache is not None else 0

    def states(self) -> Tensor:
        """Of the latents (B, N, D): first the images', then the captions'."""
        return self.encoder.states(self.batch)

    def loss(self) -> Tensor:
        images, captions = MeanPooling()(self.states()).chunk(2)
        return info_nce(images, captions, torch.eye(len(images), dtype=torch.bool, device=images.device), self.queries.temperature)

    def gradient(self) -> tuple[float, Tensor]:
        loss = self.loss()
        return loss.item(), torch.autograd.grad(loss, self.queries.latents)[0]

    def held_bytes(self) -> int:
        """What is held between forward and backward."""
        held: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.model.model.parameters()}

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
        if self.model.device.type != "cuda":
            return {}
        torch.cuda.reset_peak_memory_stats()
        self.gradient()
        return {"peak_device_bytes": torch.cuda.max_memory_allocated()}


class NaiveDecoder(Step):
    """The naive way without what it does before its decoder: items are prepared, and images through the vision encoder, beforehand."""

    def __init__(self, model: FrozenModel, *others: Any):
        super().__init__(model, *others)
        batches = bucketed_batches(self.batch, model, self.encoder.mini_batch_tokens)
        self.order = torch.tensor([i for batch in batches for i in batch]).argsort()
        prepared = [model.prepare([self.batch[i] for i in batch]) for batch in batches]
        self.given = [(each, model.features(each)) for each in prepared]

    def states(self) -> Tensor:
        states = [self.model.forward_reference(prepared, self.queries.latents, images=images) for prepared, images in self.given]
        return torch.cat(states)[self.order]


def agree(ways: dict[str, Step]) -> dict[str, dict[str, float]]:
    """Loss and gradient of each way against the naive one."""
    loss, gradient = ways["naive"].gradient()
    found = {way: step.gradient() for way, step in ways.items() if way != "naive"}
    return {
        way: {"loss": abs(one - loss) / abs(loss), "gradient": ((its - gradient).norm() / gradient.norm()).item()}
        for way, (one, its) in found.items()
    }


def projection(model: FrozenModel, seconds: dict[str, float], vision_encoder: float, images: int) -> dict:
    """Device-hours of the paper's COCO recipe from these steps, with the arithmetic."""
    if model.device.type != "cuda":
        return {"none": "no accelerator was available; the paper's recipe is not projected from a CPU"}
    uses = COCO["captions"] * COCO["epochs"]
    once = COCO["images"] * vision_encoder / images
    hours = {way: (uses * each / images + (once if way not in ("naive", "nothing cached") else 0)) / 3600 for way, each in seconds.items()}
    return {
        "device_hours": {way: round(value, 3) for way, value in hours.items()},
        "arithmetic": f"{uses} uses of a pair (captions x epochs) at each way's seconds a pair; what keeps reads each image once",
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times as fast, turn by turn."""
    return statistics_of([a / b for a, b in zip(slow, fast, strict=True)])


def show(result: dict) -> None:
    table = Table("way", "seconds a step", "speed-up", "held MB", "cached MB")
    for way, one in result["ways"].items():
        memory = f"{one['held_bytes'] / 2**20:.0f}", f"{one['cached_bytes'] / 2**20:.0f}"
        table.add_row(way, f"{one['seconds']:.3f}", f"{result['speed_up'][way]['median']:.2f}", *memory)
    console.print(table)
    for name in ("vision_encoder_and_preparation_seconds", "decoder_seconds", "decoder_speed_up_nothing_cached"):
        console.print(f"{name.replace('_', ' ')}: {result[name]}")
    console.print(f"held memory with nothing cached: {result['held_memory_fraction_nothing_cached']:.1%} of naive")


if __name__ == "__main__":
    main()
